"""`offline-distill run STAGE TASK --dask ADDRESS`: what is refused, and the same bytes from a cluster of two workers."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from projects import command, refused
from tiny import tiny_teacher

from pipeline import storage
from pipeline.errors import InputError
from pipeline.labelling import label, store
from pipeline.logits import verify
from pipeline.setting_up import cluster

ROOT = Path(__file__).parents[2]
WORDS = ["invoice", "charged", "twice", "refund", "crash", "screen", "login", "error", "the", "my", "is", "a", "on"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "ANSWER_S", 0.5)
    return tmp_path


def free_address() -> str:
    """Return an address at which nothing listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{one.getsockname()[1]}"


# --- what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["prepare", "train", "report"])
def test_a_stage_with_nothing_to_distribute_is_refused(here, monkeypatch, capsys, stage: str):
    line = refused(monkeypatch, capsys, "run", stage, "tickets", "--dask", "tcp://nowhere:1")
    assert line.startswith(f"error: --dask: '{stage}' has no work for other machines; the stages that have are tag, ")


def test_without_dask_the_extra_is_named(here, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    monkeypatch.setitem(sys.modules, "dask", None)
    line = refused(monkeypatch, capsys, "run", "tag", "tickets", "--dask", "tcp://nowhere:1")
    assert line == "error: --dask needs dask: pip install 'offline-distill[cluster]'\n"


@pytest.mark.parametrize(
    "address",
    [free_address(), "tcp://no-such-host.invalid:8786", "nonsense://x", ""],
    ids=["no one listens", "no such host", "no such protocol", "empty"],
)
def test_an_address_without_a_scheduler_is_one_line_within_seconds(here, monkeypatch, capsys, address: str):
    pytest.importorskip("distributed")
    began = time.monotonic()
    line = refused(monkeypatch, capsys, "run", "tag", "tickets", "--dask", address)
    assert line.startswith(
        f"error: --dask: {address}: no scheduler answers within 0.5 s; start one with `dask scheduler`"
    )
    assert time.monotonic() - began < 5


def test_a_scheduler_without_workers_is_one_line(here, monkeypatch, capsys):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=None, protocol="tcp://") as empty:
        address = empty.scheduler_address
        line = refused(monkeypatch, capsys, "run", "tag", "tickets", "--dask", address)
    assert line == f"error: --dask: {address}: has no workers; start some with `dask worker {address} --nthreads 1`\n"


class Client:
    """Stands for a client with one worker."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        self._answer = answer

    def wait_for_workers(self, n: int, timeout: float) -> None:
        pass

    def run(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        return {"tcp://worker:1": self._answer(function(*arguments))}


def no_module(_: object) -> Any:
    raise ModuleNotFoundError("No module named 'pipeline'", name="pipeline")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            no_module,
            r"--dask: a worker cannot import pipeline \(ModuleNotFoundError: .*\); install offline-distill there",
        ),
        (lambda found: ("0" * 64, found[1]), r"worker tcp://worker:1 has other code of pipeline than this machine"),
        (
            lambda found: (found[0], False),
            r"worker tcp://worker:1 has no folder .*; mount it there under the same path",
        ),
    ],
)
def test_a_worker_of_another_kind_is_refused(here: Path, answer: Callable[..., Any], message: str):
    with pytest.raises(InputError, match=message):
        cluster._check_workers(Client(answer), "tcp://host:8786")
    cluster._check_workers(Client(lambda found: found), "tcp://host:8786")


# --- two workers --------------------------------------------------------------------------------------------------------


def tickets(n: int, seed: int) -> str:
    """Return n different rows with the columns body and team."""
    draw = random.Random(seed)
    rows: dict[str, str] = {}
    while len(rows) < n:
        words = [draw.choice(WORDS) for _ in range(draw.randint(3, 9))]
        rows[f"{' '.join(words)} number {draw.randrange(10**6)}"] = draw.choice(("billing", "technical"))
    return "".join(["body,team\n", *(f"{text},{team}\n" for text, team in rows.items())])


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project with two shards of training text, whose stages up to finetune have run for the first."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for number in (1, 2):
        (folder / f"train-{number}.csv").write_text(tickets(1_500, number))
    (folder / "dev.csv").write_text(tickets(50, 0))
    tiny_teacher(folder / "models/ours", WORDS, ["billing", "technical"])
    command(
        monkeypatch, "init", "--task", "tickets", "--files", "train-1.csv", "dev.csv", "--text", "body", "--label", "team",
        "--teacher", "folder:models/ours",
    )  # fmt: skip
    for stage, *name in (("inputs",), ("prepare",), ("finetune", "ours")):
        command(monkeypatch, "run", stage, "tickets", *name)
    return folder


STAGES = (("tag",), ("augment",), ("label", "ours"))
OUTPUTS = ("tokens", "augmented", "logits/ours")


def bytes_of(folder: Path) -> dict[str, bytes]:
    paths = [path for output in OUTPUTS for path in (folder / "data/tickets" / output).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def address() -> Iterator[str]:
    """Start two worker processes on this machine."""
    distributed = pytest.importorskip("distributed")
    workers = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    with workers:
        yield workers.scheduler_address


def done_here() -> set[str]:
    """Return the stages of which this process has done work: their workers keep what they load."""
    tagging, engine, labellers = (
        sys.modules.get(f"pipeline.{name}") for name in ("text.tagging", "augment.engine", "labelling.labellers")
    )
    kept = {"tag": (tagging, "_loaded"), "augment": (engine, "_prepared"), "label": (labellers, "_opened")}
    return {stage for stage, (module, name) in kept.items() if getattr(module, name, None)}


@pytest.mark.slow
def test_tag_augment_and_label_write_the_same_bytes_on_two_workers(
    project: Path, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    other = Path(shutil.copytree(project, tmp_path / "other"))
    for stage, *name in STAGES:
        # In a process of its own, as the workers are: other tests leave settings of torch in this one, which change the last bits of logits.
        alone = [sys.executable, "-m", "pipeline", "run", stage, "tickets", *name]
        subprocess.run(alone, cwd=project, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
        monkeypatch.chdir(other)
        command(monkeypatch, "run", stage, "tickets", *name, "--dask", address)
    import distributed

    with distributed.Client(address) as client:
        done = client.run(done_here)
    assert set().union(*done.values()) == {"tag", "augment", "label"}
    expected = bytes_of(project)
    assert bytes_of(other) == expected
    assert len(expected) >= 7
    labelled = storage.read_json(other / "data/tickets/results/label-ours.json")
    assert labelled["labelled"] == storage.read_json(project / "data/tickets/results/label-ours.json")["labelled"] > 0


def label_slowly() -> int:
    """Make each pool of this process take a moment more; return the process id."""
    from pipeline.labelling.labellers import ModelLabeller

    run = ModelLabeller.label

    def slowly(self: ModelLabeller, *arguments: Any) -> Any:
        time.sleep(0.2)
        return run(self, *arguments)

    ModelLabeller.label = slowly  # type: ignore[method-assign]
    return os.getpid()


@pytest.mark.slow
def test_label_goes_on_when_a_worker_is_killed(project: Path, monkeypatch: pytest.MonkeyPatch):
    distributed = pytest.importorskip("distributed")
    for stage in ("tag", "augment"):
        command(monkeypatch, "run", stage, "tickets")
    monkeypatch.setattr(label, "POOL_ROWS", 200)
    killed: list[int] = []
    add = store.LabelStore.add

    def killing(self: store.LabelStore, *part: Any) -> None:
        add(self, *part)
        if not killed:
            killed.append(pids[0])
            os.kill(pids[0], signal.SIGKILL)

    monkeypatch.setattr(store.LabelStore, "add", killing)
    workers = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    with workers, distributed.Client(workers) as client:
        pids = [*client.run(label_slowly).values()]
        command(monkeypatch, "run", "label", "tickets", "ours", "--dask", workers.scheduler_address)
    assert killed
    assert verify.is_whole(verify.check(project / "data/tickets/logits/ours"))


@pytest.mark.slow
def test_two_shards_of_a_task_become_one_data_set(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each machine has the project with its shard of the training text; validation is the same everywhere."""
    second = Path(shutil.copytree(project, tmp_path / "second"))
    task = second / "tasks/tickets.yaml"
    task.write_text(task.read_text().replace("train-1.csv", "train-2.csv"))
    monkeypatch.chdir(second)
    command(monkeypatch, "run", "prepare", "tickets")
    sets = []
    for folder in (project, second):
        monkeypatch.chdir(folder)
        for stage, *name in STAGES:
            command(monkeypatch, "run", stage, "tickets", *name)
        sets.append(folder / "data/tickets/logits/ours")
    command(monkeypatch, "merge", *map(str, sets), "-o", str(tmp_path / "both"))
    assert verify.is_whole(verify.check(tmp_path / "both"))
    rows = [storage.read_json(found / "manifest.json")["provenance"]["rows"] for found in (*sets, tmp_path / "both")]
    assert rows[2]["validation"] == rows[0]["validation"] == rows[1]["validation"] == 50
    assert max(rows[0]["train"], rows[1]["train"]) < rows[2]["train"] <= rows[0]["train"] + rows[1]["train"]
