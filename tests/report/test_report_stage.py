"""The report stage, on students with little training."""

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from logit_rows import PROVENANCE, sentiment
from logit_sets import column
from shipped import as_pairs

from pipeline.errors import InputError
from pipeline.logits import dataset, writing
from pipeline.report.answers import answer
from pipeline.storage import read_json, write_json
from pipeline.students.trained import TrainedStudent
from stages import evaluate, gather, report, train

ROOT = Path(__file__).parents[2]
BAG = {"model": "pipeline.students.ngram:NgramMean", "params": {"buckets": 50}, "batch_size": 10, "epochs": 2}
STUDENTS = {
    "two": BAG | {"teacher": {"base": 1, "large": 3}},
    "one": BAG | {"teacher": "base"},
    "plain": BAG | {"teacher": "base", "rows": "originals", "objective": {"alpha": 1.0}},
}


@pytest.fixture(scope="module", params=[False, True], ids=["single sentences", "pairs"])
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with two teachers and three students; its test split has no labels."""
    folder = tmp_path_factory.mktemp("project")
    splits = {
        split: as_pairs(sentiment(n, n)) if request.param else sentiment(n, n)
        for split, n in (("train", 150), ("validation", 60), ("test", 30))
    }
    splits = {
        split: column(table, "id", [f"{i:032x}" for i in range(table.num_rows)]) for split, table in splits.items()
    }
    unknown = splits["test"]
    splits["test"] = unknown.set_column(
        unknown.schema.get_field_index("label"), unknown.schema.field("label"), pa.nulls(30, pa.int32())
    )
    for name in ("base", "large"):
        about = PROVENANCE | {"pairs": request.param, "teacher": PROVENANCE["teacher"] | {"name": name}}
        writing.write(folder / "data/films/logits" / name, splits, about)
    given = yaml.safe_load((ROOT / "params.yaml").read_text())
    given["teachers"] = {name: {"model": {"source": "folder:nowhere"}, "label": {}} for name in ("base", "large")}
    given["students"] = STUDENTS
    (folder / "params.yaml").write_text(yaml.safe_dump(given))
    (folder / "tasks").mkdir()
    (folder / "tasks/films.yaml").write_text((ROOT / "tasks/example.yaml").read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in STUDENTS:
            gather.main("films", name)
            train.main("films", name)
            evaluate.main("films", name)
    return folder


def test_the_report_has_every_student_and_the_figures_of_the_results(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(project)
    report.main("films")
    folder = project / "data/films/report"
    assert {path.name for path in folder.iterdir()} == {"index.html", "summary.md"}
    page, summary = ((folder / name).read_text() for name in ("index.html", "summary.md"))
    for name in STUDENTS:
        score = read_json(project / f"data/films/results/students/{name}.json")["validation"]["student"]["accuracy"]
        assert re.search(rf"\| {name} +\| +{100 * score:.1f} \(", summary)
        assert re.search(rf"> (<b>)?{name}(</b>)?</span></th><td>{100 * score:.1f} ", page)
    for shown in (page, summary):
        assert "Teacher base:" not in shown, "the teachers are right"
        assert "test: no labels, so nothing is measured on it." in shown
    before = (folder / "index.html").read_bytes()
    report.main("films")
    assert (folder / "index.html").read_bytes() == before


def test_doubts_about_a_teacher_and_the_warnings_of_prepare_are_read(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    copied = shutil.copytree(project, tmp_path / "project")
    monkeypatch.chdir(copied)
    data = copied / "data/films"
    write_json(data / "source/rows.json", {"read": 1, "warnings": ["texts have one word each"]})
    rows = {split: dataset.read_split(data / "logits/large", split) for split in ("train", "validation", "test")}
    flat = {split: column(table, "logits", [[0.25, 0.75]] * table.num_rows) for split, table in rows.items()}
    writing.write(data / "logits/large", flat, dataset.provenance(data / "logits/large"))
    given = yaml.safe_load((copied / "params.yaml").read_text())
    given["students"] = {"two": given["students"]["two"]}
    (copied / "params.yaml").write_text(yaml.safe_dump(given))
    report.main("films")
    summary = (data / "report/summary.md").read_text()
    assert "- Text: texts have one word each.\n- Teacher large: its logits are the same for all 240 rows" in summary
    assert "| plain" not in summary, "the settings no longer have it"


def test_the_predictions_are_the_student_s_on_labelled_and_unlabelled_rows(
    project: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(project)
    folder = Path("data/films/students/two")
    found = answer(folder, report.read_rows(Path("data/films/targets/two")))
    assert {split: len(each.student) for split, each in found.items()} == {"validation": 60, "test": 30}
    assert found["test"].labelled().rows.num_rows == 0
    assert set(found["test"].labels) == {-1}
    rows = found["validation"].rows
    texts = [rows[name].to_pylist() for name in ("sentence1", "sentence2") if rows[name].null_count == 0]
    predicted = TrainedStudent.from_pretrained(folder).predict_logits(
        list(zip(*texts, strict=True)) if len(texts) == 2 else texts[0]
    )
    np.testing.assert_allclose(found["validation"].student, predicted, atol=1e-5)


def test_a_student_with_other_classes_is_an_error(project: Path):
    folder = project / "data/films/students/two"
    rows = pa.table(
        {
            "id": ["a"],
            "sentence1": ["x"],
            "sentence2": ["y"],
            "label": pa.array([0], pa.int32()),
            "logits": pa.array([[1.0, 2.0, 3.0]], pa.list_(pa.float32(), 3)),
        }
    )
    with pytest.raises(InputError, match="the student has 2 classes, its soft targets have 3; train it again"):
        answer(folder, {"validation": rows})


def test_without_results_the_error_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tasks").mkdir()
    for name in ("params.yaml", "tasks/example.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    with pytest.raises(InputError, match=r"data/example/results: no results yet; run `dvc repro`"):
        report.main("example")
    assert not (tmp_path / "data").exists()
