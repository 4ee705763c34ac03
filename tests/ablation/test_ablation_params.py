"""ablation/params.yaml: every key is checked, and what it asks for."""

import copy
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import ABLATION, ablation

from pipeline.ablation.params import Cell, load, why_not
from pipeline.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with this project's parameters."""
    for name in ("params.yaml", "tasks/example.yaml", "ablation/params.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    return tmp_path


def edit(path: Path, change) -> None:
    value = yaml.safe_load(path.read_text())
    change(value)
    path.write_text(yaml.safe_dump(value, sort_keys=False))


def test_the_shipped_file_is_the_papers_ablation(project: Path):
    settings, found = load("example", project)
    plain = settings.students["bilstm-plain"]  # it has the paper's optimiser
    paper = settings.students["bilstm"].model_copy(update={"optimiser": plain.optimiser})
    same = {"epochs": paper.epochs, "patience": paper.patience, "batch_size": 50}
    assert found.student.model_dump() | same == paper.model_dump()
    assert found.augment("all", 2) == settings.augment
    assert {cell.rules for cell in found.cells} == {"none", "mask", "pos", "ngram", "all"}


def test_the_cells(project: Path):
    found = ablation().cells
    assert found == [
        Cell(distilled, *each)
        for distilled in (False, True)
        for each in (("none", 0), ("mask", 1), ("mask", 3), ("all", 2))
    ]
    names = [cell.name(seed) for cell in found for seed in (0, 1)]
    assert len(set(names)) == len(names)


def test_nothing_of_the_teachers_counts_in_a_hard_cell():
    student = ablation(student=ABLATION["student"] | {"weights": {"augmented": 0.5, "confidence": 1.0}}).student
    hard, distilled = (Cell(d, "mask", 1).settings(student, 7) for d in (False, True))
    assert (hard.seed, hard.objective.alpha, hard.weights.augmented, hard.weights.confidence) == (7, 1.0, 0.5, 0.0)
    assert distilled == student.model_copy(update={"seed": 7})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda value: value.update(sedes=[0]), r"ablation/params.yaml: sedes: unknown key; did you mean seeds\?"),
        (lambda value: value["sets"]["mask"].update(niter=3), r"sets.mask.niter: unknown key"),
        (lambda value: value["sets"]["mask"].update(n_iter=[0]), r"sets.mask.n_iter.0: 0: "),
        (lambda value: value["sets"]["mask"].update(n_iter=[2, 2]), r"sets.mask.n_iter: \[2, 2\]: a number is listed twice"),
        (lambda value: value.update(seeds=[1, 1]), r"seeds: \[1, 1\]: a number is listed twice"),
        (lambda value: value.update(seeds=[]), r"seeds"),
        (lambda value: value["sets"].update(none=value["sets"]["mask"]), r"sets.none: this name is reserved for the cells without augmentation"),
        (lambda value: value["student"].update(rows="originals"), r"student: rows: set by the cell"),
        (lambda value: value["student"].update(seed=3, epochs=2), r"student: epochs, seed: set by"),
        (lambda value: value["student"].update(teacher=["minilm", "other"]), r"student.teacher: must be a single"),
        (lambda value: value["student"].update(teacher="other"), r"student.teacher: 'other': not defined in params.yaml \(defined: minilm\)"),
        (lambda value: value["student"].update(vectors="other"), r"student.vectors: 'other': not defined in params.yaml"),
        (lambda value: value["student"]["objective"].update(alpha=1.0), r"student.objective.alpha: 1 means no distillation"),
        (lambda value: value["student"].update(model="pipeline.students.bilstm:Bilstm"), r"student.model: 'pipeline.students.bilstm:Bilstm': "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(project: Path, change, said: str):
    edit(project / "ablation/params.yaml", change)
    with pytest.raises(InputError, match=said) as raised:
        load("example", project)
    assert "\n" not in str(raised.value)


def test_a_regression_is_refused(project: Path):
    def score(task: dict) -> None:
        task["text"]["labels"] = ["score"]
        del task["text"]["label_values"]

    edit(project / "tasks/example.yaml", score)
    with pytest.raises(InputError, match=r"tasks/example.yaml: text.labels: a single label is a regression"):
        load("example", project)


def test_a_task_of_somebodys_logits_is_refused(project: Path):
    edit(project / "tasks/example.yaml", lambda task: task["text"].update(source={"logits": "folder:x"}, splits={}))
    with pytest.raises(InputError, match=r"tasks/example.yaml: text.source.logits: "):
        load("example", project)


def test_defaults_are_not_shared():
    assert copy.deepcopy(ABLATION) == ABLATION
    assert ablation(seeds=[4]).seeds == [4]
    assert ablation().seeds == [0, 1]


def test_the_students_tasks_limit_the_ablation(project: Path):
    """A regression among the active tasks is no reason to fail."""
    shutil.copy2(project / "tasks/example.yaml", project / "tasks/other.yaml")
    edit(project / "tasks/other.yaml", lambda task: task["text"].update(labels=["score"], label_values={}))
    with pytest.raises(InputError, match=r"leave the task out, with `tasks` under student in .*ablation/params.yaml"):
        load("other", project)
    edit(project / "ablation/params.yaml", lambda value: value["student"].update(tasks=["example"]))
    assert why_not(*load("other", project)) == "ablation/params.yaml: student has tasks: [example]"
    assert why_not(*load("example", project)) is None
    edit(project / "ablation/params.yaml", lambda value: value["student"].update(tasks=["exmaple"]))
    with pytest.raises(InputError, match=r"student\.tasks: 'exmaple': no such file"):
        load("example", project)


def test_a_task_that_copies_unlabelled_text_has_no_ablation(project: Path):
    more = {"files": "pool.csv", "column": "text"}
    edit(project / "tasks/example.yaml", lambda task: task["text"].update(unlabelled=more))
    assert why_not(*load("example", project)) is None
    edit(project / "tasks/example.yaml", lambda task: task["text"].update(unlabelled={**more, "augment": True}))
    reason = why_not(*load("example", project))
    assert reason is not None and reason.startswith("tasks/example.yaml: text.unlabelled.augment is true")
