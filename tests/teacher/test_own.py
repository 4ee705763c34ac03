import json
import multiprocessing
import os
import runpy
import sys
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import documented
import joblib
import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from filelock import FileLock
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.backend.context import set_start_method
from labelled import NO_COPIES, label, label_in
from tiny import augmented_table, examples_table, tiny_teacher

from pipeline import plugins, storage, tables
from pipeline.errors import InputError
from pipeline.labelling import label as labelling
from pipeline.labelling import labellers
from pipeline.labelling.label import predict
from pipeline.labelling.labellers import Opening, _claim_device, processes_wanted
from pipeline.labelling.versions import library_versions
from pipeline.logits import dataset
from pipeline.machine import devices
from pipeline.params.labelling import Labelling
from pipeline.params.teachers import TeacherModel
from pipeline.teacher.finetune import make_teacher
from pipeline.teacher.model import find_files, open_teacher
from pipeline.teacher.own import check_attributes, describe_own, open_own
from pipeline.teacher.recorded import open_recorded

ROOT = Path(__file__).resolve().parents[2]
LABELS = ["technical", "billing"]
EXAMPLES = examples_table(
    [
        (("train", "validation", "test")[i % 3], f"the invoice {i}" + " crashes" * (i % 4), None, i % 2)
        for i in range(30)
    ]
)
MUST = (
    r"^python:mine:Teacher: predict_logits must return numbers of shape \[texts, classes\], one logit per class, not "
)
TEACHER = """
import os

import numpy as np


class Teacher:
    def __init__(self, classes=2, fails=None):
        self.classes, self.fails = classes, fails

    def predict_logits(self, texts):
        if self.fails == "raises":
            raise ConnectionError("the service\\nis down")
        if self.fails == "exits":
            raise SystemExit(0)
        if self.fails == "memory":
            raise MemoryError
        if self.fails == "dies":
            os._exit(3)
        if self.fails == "shape":
            return np.zeros((len(texts), self.classes + 1))
        if self.fails == "words":
            return ["good"] * len(texts)
        lengths = [len(text) if isinstance(text, str) else len(text[0]) - len(text[1]) for text in texts]
        found = np.array(lengths, dtype=float)[:, None] * np.arange(1, self.classes + 1)
        return np.where(found == 14 * self.classes, np.nan, found) if self.fails == "nan" else found
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder, with a module `mine` that no other test has imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(TEACHER)
    return tmp_path


def own(labels=LABELS, names=None, **given: object):
    return open_own("python:mine:Teacher", given, labels, names or {})


def test_the_documented_teacher_goes_through_the_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "ensemble", raising=False)
    (tmp_path / "ensemble.py").write_text(documented.block("file", "ensemble.py"))
    teachers = yaml.safe_load(documented.block("params", "teachers, one of your own"))
    ((name, teacher),) = teachers.items()
    for i, folder in enumerate(teacher["model"]["params"]["folders"]):
        tiny_teacher(tmp_path / folder, ["invoice", "crashes", "the"], LABELS[:: 1 if i else -1], seed=i)
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    student = next(iter(settings["students"].values())) | {"teacher": name}
    storage.write_text(
        tmp_path / "params.yaml", yaml.safe_dump(settings | {"teachers": teachers, "students": {"one": student}})
    )
    task = yaml.safe_load((ROOT / "tasks/example.yaml").read_text()) | {"teachers": {}, "students": {}}
    storage.write_text(tmp_path / "tasks/tickets.yaml", yaml.safe_dump(task))
    source = {"task": "tickets", "labels": LABELS, "pairs": False, "source": {}}
    tables.write_examples(tmp_path / "data/tickets/examples", tmp_path / "data/tickets/source", EXAMPLES, source)
    copies = augmented_table([(EXAMPLES["id"][0].as_py(), "the [MASK]", None)])
    tables.write(tmp_path / "data/tickets/augmented/augmented-00000.parquet", copies, {"seed": 0})
    for stage in ("finetune", "label"):
        runpy.run_path(str(ROOT / f"stages/{stage}.py"))["main"]("tickets", name)

    record = storage.read_json(tmp_path / f"data/tickets/teachers/{name}/teacher.json")
    assert record["source"] == teacher["model"]["source"]
    found = dataset.read_split(tmp_path / f"data/tickets/logits/{name}", "train")
    assert found.num_rows == 11
    members = []
    for folder in teacher["model"]["params"]["folders"]:
        member = open_teacher(find_files(f"folder:{folder}"), LABELS, {})
        members.append(predict(member, found.select(["id", "sentence1", "sentence2"]), Labelling()).logits)
    assert np.abs(np.array(found["logits"].to_pylist()) - np.mean(members, axis=0)).max() < 1e-4
    assert np.abs(members[0] - members[1]).max() > 0.1


class Service(BaseHTTPRequestHandler):
    """Answers as the documented service does: one logit for each class, the length of the text in the first."""

    def do_GET(self) -> None:
        self._answer(b"v7")

    def do_POST(self) -> None:
        texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(json.dumps([[len(text), 0.5] for text in texts]).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_the_documented_service_is_asked_and_its_version_is_the_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "service.py").write_text(documented.block("file", "service.py"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        teacher = open_own("python:service:Service", {"url": url}, ["technical", "billing"], {})
        assert describe_own(teacher, "")["fingerprint"] == "v7"
        texts = pa.table({"sentence1": ["a", "four"], "sentence2": pa.nulls(2, pa.string())})
        assert teacher.predict(texts).tolist() == [[0.5, 1.0], [0.5, 4.0]]
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("classes", [1, 2, 3, 150, 1_000])
def test_any_number_of_classes_with_a_model_and_with_a_teacher_of_ones_own(here: Path, classes: int):
    """One output, as of a regression, too."""
    labels = [f"class {i}" for i in range(classes)]
    model = open_teacher(find_files(f"folder:{tiny_teacher(here / 'model', ['invoice'], labels)}"), labels, {})
    for teacher in (model, own(labels, classes=classes)):
        splits, summary = label(teacher, EXAMPLES, NO_COPIES, Labelling())
        found = np.array(splits["train"]["logits"].to_pylist(), dtype=np.float32)
        assert found.shape == (10, classes)
        assert splits["train"].schema == tables.logits_schema(classes)
        assert summary["labelled"] == 30
    lengths = [len(text) for text in splits["train"]["sentence1"].to_pylist()]
    assert found.tolist() == [[n * (i + 1) for i in range(classes)] for n in lengths]


def test_pairs_are_given_as_pairs(here: Path):
    examples = examples_table([("train", "longer text", "short", 0), ("train", "a", "b", 1)])
    found = label(own(), examples, NO_COPIES, Labelling())[0]["train"]
    assert found["logits"].to_pylist() == [[6.0, 12.0], [0.0, 0.0]]


def test_columns_are_matched_by_name(here: Path, monkeypatch: pytest.MonkeyPatch):
    module = plugins.load("mine:Teacher")
    monkeypatch.setattr(module, "labels", ("Money", "technical"), raising=False)
    teacher = own(names={"Money": "billing"})
    found = label(teacher, EXAMPLES, NO_COPIES, Labelling())[0]["train"]
    n = len(found["sentence1"][0].as_py())
    assert found["logits"][0].as_py() == [2.0 * n, n]
    assert describe_own(teacher, "")["labels"] == {"technical": "technical", "billing": "Money"}
    with pytest.raises(
        InputError, match=r"python:mine:Teacher: the teacher's classes are \[Money, technical\], the task"
    ):
        own()


def test_the_mask_is_the_teachers_if_it_has_one(here: Path, monkeypatch: pytest.MonkeyPatch):
    examples = examples_table([("train", "a [MASK]", None, 0)])
    assert predict(own(), examples, Labelling()).logits[0, 0] == len("a [MASK]")
    monkeypatch.setattr(plugins.load("mine:Teacher"), "mask_token", "_", raising=False)
    assert predict(own(), examples, Labelling()).logits[0, 0] == len("a _")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raises", r"^'mine:Teacher': predict_logits raises ConnectionError: the service \(mine\.py, line 13\)$"),
        ("shape", r"^python:mine:Teacher: predict_logits returns an array of shape \(30, 3\), not \(30, 2\)$"),
        ("words", MUST + r"list of str \(could not convert string to float"),
        ("exits", r"^'mine:Teacher': predict_logits raises SystemExit: 0 \(mine\.py, line 15\)$"),
        ("memory", r"^'mine:Teacher': predict_logits raises MemoryError \(mine\.py, line 17\)$"),
        (
            "nan",
            r"^the teacher's logits \(python:mine:Teacher\) are not finite: train row \w+ \(line 14 of its source\)",
        ),
    ],
)
def test_its_errors_are_one_line_that_names_it(here: Path, fault: str, message: str):
    with pytest.raises(InputError, match=message):
        label(own(fails=fault), EXAMPLES, NO_COPIES, Labelling())


async def _later() -> None: ...


@pytest.mark.parametrize(
    ("returns", "message"),
    [
        (lambda n: None, r"None$"),
        (lambda n: [{"label": "billing", "score": 0.5}] * n, r"list of dict \(float\(\) argument"),
        (lambda n: _later(), r"coroutine \("),
        (lambda n: np.zeros((n, 2), np.complex64), r"ndarray \(complex64\)$"),
        (lambda n: np.ma.masked_less(np.arange(2 * n).reshape(n, 2), 3), r"MaskedArray \(int64\)$"),
        (
            lambda n: torch.zeros(n, 2, requires_grad=True),
            r"Tensor \(Can't call numpy\(\) on Tensor that requires grad",
        ),
        (lambda n: [[1.0, 2.0], [1.0]] * (n // 2), r"list of list \(.*inhomogeneous"),
    ],
)
def test_what_it_returns_must_be_numbers(here: Path, monkeypatch: pytest.MonkeyPatch, returns, message: str):
    monkeypatch.setattr(plugins.load("mine:Teacher"), "predict_logits", lambda self, texts: returns(len(texts)))
    with pytest.raises(InputError, match=MUST + message):
        label(own(), EXAMPLES, NO_COPIES, Labelling())


LISTED, WRITTEN = "labels must be a list of class names, not ", "fingerprint must be a string; write it as an attribute"


@pytest.mark.parametrize(
    ("name", "value", "message", "checked"),
    [
        ("labels", None, f"{LISTED}None$", False),
        ("labels", lambda self: LABELS, f"{LISTED}a method$", True),
        ("labels", 2, f"{LISTED}2$", True),
        ("labels", "technical", f"{LISTED}'technical'$", True),
        ("labels", {"technical", "billing"}, LISTED, True),
        ("labels", property(lambda self: 1 / 0), r"its attribute labels raises ZeroDivisionError: division", False),
        ("labels", property(lambda self: self.absent), "its attribute labels raises AttributeError", False),
        ("mask_token", None, "mask_token must be a string that is not empty", False),
        ("mask_token", "", "mask_token must be a string that is not empty", True),
        ("mask_token", 4, "mask_token must be a string", True),
        ("fingerprint", lambda self: "1", f"{WRITTEN} or @property, not a method$", True),
        ("fingerprint", object(), WRITTEN, True),
        ("fingerprint", property(lambda self: 1 / 0), "its attribute fingerprint raises ZeroDivisionError", False),
    ],
)
def test_its_attributes_are_checked(here: Path, monkeypatch: pytest.MonkeyPatch, name, value, message, checked):
    factory = plugins.load("mine:Teacher")
    monkeypatch.setattr(factory, name, value, raising=False)
    with pytest.raises(InputError, match=message):
        own()
    if checked:
        with pytest.raises(InputError, match=message):
            check_attributes("python:mine:Teacher", factory)
    else:  # only an object tells
        check_attributes("python:mine:Teacher", factory)


def test_an_invalid_teacher_is_refused_with_the_reason(here: Path):
    (here / "mine.py").write_text(
        TEACHER + "\n\nclass Mute:\n    pass\n\n\nclass Broken:\n    def __init__(self):\n        1 / 0\n"
    )
    with pytest.raises(InputError, match=r"python:mine:Mute: has no method predict_logits"):
        open_own("python:mine:Mute", {}, LABELS, {})
    with pytest.raises(
        InputError, match=r"^'mine:Broken': __init__ raises ZeroDivisionError: division by zero \(mine\.py, line 35\)$"
    ):
        open_own("python:mine:Broken", {}, LABELS, {})
    with pytest.raises(InputError, match=r"does not take these parameters"):
        own(depth=3)
    with pytest.raises(InputError, match=r"label\.max_length is for models of transformers"):
        label(own(), EXAMPLES, NO_COPIES, Labelling(max_length=9))
    for wrong in (
        {"sha256": "0" * 64},
        {"finetune": {}},
        {"source": "python:mine:Absent"},
        {"source": "folder:x", "params": {"a": 1}},
        {"source": "folder:x", "files": ["a"]},
    ):
        with pytest.raises(
            ValueError, match=r"go with a model of transformers|defines no 'Absent'|(params|files) goes with source"
        ):
            TeacherModel(**{"source": "python:mine:Teacher", **wrong})


def test_a_changed_fingerprint_or_parameter_labels_again(here: Path, monkeypatch: pytest.MonkeyPatch):
    assert [label_in(here, own(), EXAMPLES)["labelled"] for _ in range(2)] == [30, 0]
    assert label_in(here, own(classes=2), EXAMPLES)["labelled"] == 30
    (here / "teacher").mkdir()
    make_teacher(TeacherModel(source="python:mine:Teacher"), EXAMPLES, LABELS, here / "teacher")
    assert open_recorded(here / "teacher", LABELS)[0].columns == (0, 1)
    monkeypatch.setattr(plugins.load("mine:Teacher"), "fingerprint", "v2", raising=False)
    assert label_in(here, own(), EXAMPLES)["labelled"] == 30
    with pytest.raises(InputError, match=r"its fingerprint \('v2', recorded None\)"):
        open_recorded(here / "teacher", LABELS)


def test_changed_code_and_files_are_refused_and_label_again(here: Path, monkeypatch: pytest.MonkeyPatch):
    (here / "mine.py").write_text(TEACHER + "\n\ndef late():\n    import mine_helper\n")
    changes = {
        "mine_helper.py": "the code of the module mine or of a local module that it imports",
        "a.bin": "the file a.bin",
    }
    for name in (*changes, "b.bin"):
        (here / name).write_text("1")
    folder = here / "data/tickets/teachers/own"
    folder.mkdir(parents=True)
    model = TeacherModel(source="python:mine:Teacher", files=["a.bin", "b.bin"])

    def labelled() -> int:
        return label_in(here, open_recorded(folder, LABELS)[0], EXAMPLES)["labelled"]

    make_teacher(model, EXAMPLES, LABELS, folder)
    record = storage.read_json(folder / "teacher.json")
    assert record["code_sha256"] == plugins.code_digest("mine:Teacher")
    assert record["files_sha256"] == {name: storage.sha256_of(here / name) for name in ("a.bin", "b.bin")}
    assert (labelled(), labelled()) == (30, 0)
    for name, changed in changes.items():
        (here / name).write_text("2")
        if name.endswith(".py"):
            with pytest.raises(InputError, match=f"code changed after process {os.getpid()} imported it; restart"):
                open_recorded(folder, LABELS)
            monkeypatch.delitem(sys.modules, "mine")  # as in a new process
        with pytest.raises(InputError) as raised:
            open_recorded(folder, LABELS)
        assert str(raised.value) == (
            f"python:mine:Teacher: changed since {folder}/teacher.json was written: {changed}; run the finetune stage again "
            "with `dvc repro --force --single-item finetune@tickets-own`"
        )
        make_teacher(model, EXAMPLES, LABELS, folder)
        assert (labelled(), labelled()) == (30, 0)
    (here / "b.bin").unlink()
    with pytest.raises(InputError, match=r"^python:mine:Teacher: model\.files lists b\.bin: no such file in "):
        open_recorded(folder, LABELS)
    with pytest.raises(InputError, match=r"model\.files lists b\.bin: no such file in "):
        make_teacher(model, EXAMPLES, LABELS, folder)


# --- more processes -----------------------------------------------------------------------------------------------------


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def preloaded() -> Iterator[None]:
    """Fork labelling processes from one that has imported their modules: each start of a new one takes 5 s of processor time."""
    get_reusable_executor().shutdown()  # its processes were started in the usual way
    multiprocessing.set_forkserver_preload([labellers.__name__])
    set_start_method("forkserver")
    yield
    set_start_method(None, force=True)
    get_reusable_executor().shutdown()


@pytest.fixture
def recorded(here: Path) -> dict[str, Path]:
    """Return the folders of two teachers that the finetune stage recorded."""
    tiny_teacher(here / "model", ["invoice", "crashes", "the"], LABELS)
    for name, source in (("model", f"folder:{here}/model"), ("own", "python:mine:Teacher")):
        (here / "teachers" / name).mkdir(parents=True)
        make_teacher(TeacherModel(source=source), EXAMPLES, LABELS, here / "teachers" / name)
    return {name: here / "teachers" / name for name in ("model", "own")}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.suffix != ".lock"}


def label_apart(folder: Path, recorded: Path, **more: object) -> tuple[dict, dict[str, bytes], set[str]]:
    how = Labelling(token_budget=100)
    teacher, _ = open_recorded(recorded, LABELS)
    folder.mkdir()
    summary = label_in(folder, teacher, EXAMPLES, how=how, opening=Opening(recorded, tuple(LABELS), how), **more)
    files = {str(path.relative_to(folder)): path.read_bytes() for path in (folder / "out").rglob("*") if path.is_file()}
    return summary, files, {path.name for path in (folder / "stores").rglob("*.arrow")}


def test_each_gpu_has_one_process(monkeypatch: pytest.MonkeyPatch):
    """Without a GPU: torch's answers are fake. A lock also excludes another lock of the same process."""
    assert processes_wanted() == 1
    monkeypatch.delenv(devices.DEVICE)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert processes_wanted() == 3
    taken, held = [], []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    run = uuid.uuid4().hex
    for _ in range(3):
        claimed: list[tuple[FileLock, int]] = []
        monkeypatch.setattr(labellers, "_claimed", claimed)
        _claim_device(run)
        _claim_device(run)  # a process keeps the one it has
        held += [lock for lock, _ in claimed]
    assert taken == [0, 0, 1, 1, 2, 2], "each call chooses it again, since it holds for a thread"
    held[1].release()  # its process ended
    monkeypatch.setattr(labellers, "_claimed", [])
    _claim_device(run)
    assert taken[-1] == 1


@pytest.mark.slow
def test_two_processes_change_no_byte(here: Path, recorded: dict, one_thread, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(labelling, "POOL_ROWS", 4)
    for name, folder in recorded.items():
        alone = label_apart(here / f"{name}-alone", folder, processes=1)
        together = label_apart(here / f"{name}-together", folder, processes=2)
        assert len(alone[2]) > 4
        assert together == alone


@pytest.mark.slow
@pytest.mark.usefixtures("preloaded")
def test_an_error_in_a_process_or_in_its_input_fails_the_run(here: Path, recorded: dict, monkeypatch):
    monkeypatch.setattr(labelling, "POOL_ROWS", 4)
    how = Labelling(max_length=5, too_long="refuse")
    teacher, _ = open_recorded(recorded["model"], LABELS)
    with pytest.raises(InputError, match=r"^longer than 5 tokens"):
        label_in(here, teacher, EXAMPLES, how=how, opening=Opening(recorded["model"], tuple(LABELS), how), processes=2)
    for fault, message in (  # the last one ends the processes
        ("raises", r"^'mine:Teacher': predict_logits raises ConnectionError: the service \(mine\.py, line 13\)$"),
        ("nan", r"^the teacher's logits \(python:mine:Teacher\) are not finite: train row "),
        ("dies", r"^a labelling process died"),
    ):
        (here / fault).mkdir()
        model = TeacherModel(source="python:mine:Teacher", params={"fails": fault})
        make_teacher(model, EXAMPLES, LABELS, here / fault)
        with pytest.raises(InputError, match=message):
            label_apart(here / f"{fault}-out", here / fault, processes=2)


@pytest.mark.slow
@pytest.mark.usefixtures("preloaded")
def test_versions_of_the_processes_are_recorded(here: Path):
    fake = "\n\nfrom importlib import metadata\nreal = metadata.version\n\n\nclass Elsewhere(Teacher):\n"
    fake += "    def __init__(self, main):\n        super().__init__()\n        if os.getpid() != main:\n"
    fake += "            metadata.version = lambda name: '0.1' if name == 'torch' else real(name)\n"
    (here / "mine.py").write_text(TEACHER + fake)
    (here / "teacher").mkdir()
    model = TeacherModel(source="python:mine:Elsewhere", params={"main": os.getpid()})
    make_teacher(model, EXAMPLES, LABELS, here / "teacher")
    label_apart(here / "out", here / "teacher", processes=2)
    versions = dataset.provenance(here / "out/out")["versions"]
    assert versions == {**library_versions(), "torch": f"0.1, {library_versions()['torch']}"}


@pytest.mark.usefixtures("preloaded")
def test_a_dask_cluster_changes_no_byte(here: Path, recorded: dict, one_thread, monkeypatch: pytest.MonkeyPatch):
    distributed = pytest.importorskip("distributed", reason="needs the extra `cluster`")
    dask = pytest.importorskip("dask", reason="needs the extra `cluster`")
    monkeypatch.setattr(labelling, "POOL_ROWS", 4)
    alone = label_apart(here / "alone", recorded["model"])
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0")
    with cluster, distributed.Client(cluster), joblib.parallel_config(backend="dask"):
        assert processes_wanted() == 2
        assert label_apart(here / "cluster", recorded["model"]) == alone
