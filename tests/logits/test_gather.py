import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import served
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from logit_rows import PROVENANCE, rows, sentiment
from logit_sets import changed
from logit_sets import rows as whole_rows
from logit_sets import write as write_whole

from pipeline import tables
from pipeline.distill.loop import distill
from pipeline.errors import InputError
from pipeline.logits import dataset, gather, merge, shards, verify, writing
from pipeline.metrics.calibration import divergence
from pipeline.params.students import Student
from pipeline.report.table import result_table
from pipeline.students.trained import TrainedStudent

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["good film", "bad film", "the plot", "dull"]
ONE = [(1.0, 2.0), (0.5, -1.0), (3.0, 3.0), (-2.0, 0.0)]
TWO = [(0.0, -2.0), (1.5, 1.0), (1.0, 5.0), (2.0, 2.0)]


def write(folder: Path, values, order=None, **about) -> Path:
    table = rows(TEXTS, [1, 0, None, 0], values, parents=[None, None, "row0", None])
    table = table.take(pa.array(order if order is not None else range(table.num_rows)))
    writing.write(folder, {"train": table, "validation": table}, PROVENANCE | about)
    return folder


def gathered(folders: dict[Path, float], split: str = "train", average: gather.Average = "logits") -> pa.Table:
    with tempfile.TemporaryDirectory() as name:
        gather.gather(folders, Path(name) / "targets", average)
        return dataset.read_split(Path(name) / "targets", split)


def values(table: pa.Table) -> np.ndarray:
    return np.array(table["logits"].to_pylist(), np.float64)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True)


def test_rows_are_joined_on_id_and_weighted(tmp_path: Path):
    one, two = write(tmp_path / "one", ONE), write(tmp_path / "two", TWO, order=[2, 0, 3, 1])
    found = gathered({one: 3.0, two: 1.0})
    assert found["sentence1"].to_pylist() == TEXTS
    assert found.schema.equals(dataset.read_split(one, "train").schema)
    np.testing.assert_allclose(values(found), 0.75 * np.array(ONE) + 0.25 * np.array(TWO), rtol=1e-6)
    found = gathered({one: 3.0, two: 1.0}, average="distributions")
    expected = 0.75 * softmax(np.array(ONE)) + 0.25 * softmax(np.array(TWO))
    np.testing.assert_allclose(softmax(values(found)), expected, rtol=1e-5)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_targets_of_one_teacher_are_its_data_set_byte_for_byte(tmp_path: Path):
    one = write(tmp_path / "one", ONE)
    (one / "data" / "left.tmp-1-a").write_text("by a killed run")
    for student in ("a", "b"):
        gather.gather({one: 0.3}, tmp_path / student)
    (one / "data" / "left.tmp-1-a").unlink()
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(one)
    shutil.rmtree(one)  # the copy does not need it
    assert dataset.read_split(tmp_path / "a", "train")["sentence1"].to_pylist() == TEXTS


def test_a_gathered_copy_does_not_change_when_the_teacher_labels_again(tmp_path: Path):
    one = write(tmp_path / "one", ONE)
    gather.gather({one: 1.0}, tmp_path / "a")
    before = contents(tmp_path / "a")
    write(one, TWO)
    assert contents(tmp_path / "a") == before
    gather.gather({one: 1.0}, tmp_path / "a")
    assert contents(tmp_path / "a") == contents(one) != before


@pytest.mark.parametrize("average", ["logits", "distributions"])
def test_targets_of_several_teachers_are_their_average_in_batches_or_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, average: gather.Average
):
    one, two = write(tmp_path / "one", ONE), write(tmp_path / "two", TWO, order=[2, 0, 3, 1])
    gather.gather({one: 3.0, two: 1.0}, tmp_path / "whole", average)
    for module in (dataset, shards):
        monkeypatch.setattr(module, "ROW_GROUP_ROWS", 3)
    parts = list(dataset.stream_split(one, "train"))
    assert [part.num_rows for part in parts] == [3, 1]
    assert pa.concat_tables(parts).equals(dataset.read_split(one, "train"))
    for module in (dataset, shards):
        monkeypatch.setattr(module, "ROW_GROUP_ROWS", 2)
    found = gathered({one: 3.0, two: 1.0}, "train", average)
    monkeypatch.undo()
    assert dataset.read_split(tmp_path / "whole", "train").to_pylist() == found.to_pylist()
    as_computed = 0.75 * np.array(ONE) + 0.25 * np.array(TWO)
    if average == "distributions":
        as_computed = np.log(0.75 * softmax(np.array(ONE)) + 0.25 * softmax(np.array(TWO)))
    np.testing.assert_allclose(values(found), as_computed, rtol=1e-6)
    assert found["parent_id"].to_pylist() == [None, None, "row0", None]
    gather.gather({one: 3.0, two: 1.0}, tmp_path / "again", average)
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")


def test_an_average_passes_verify_and_lists_its_teachers(tmp_path: Path):
    about = {"base": changed(teacher__name="base", teacher__licence="mit", labelling__stored="float16")}
    for seed, name in enumerate(("base", "large")):
        splits = {split: whole_rows(split, seed) for split in tables.SPLITS}
        write_whole(tmp_path / name, about.get(name), **splits)
    gather.gather({tmp_path / "base": 1.0, tmp_path / "large": 2.0}, tmp_path / "out", "distributions")
    assert verify.is_whole(verify.check(tmp_path / "out"))
    found = dataset.provenance(tmp_path / "out")
    teacher = found["teacher"]
    assert teacher["name"] == "1 base + 2 large (distributions)"
    assert teacher["licence"] == "mit and apache-2.0"
    assert (teacher["parameters"], teacher["bytes"]) == (2 * 335_000_000, 2 * 1_340_000_000)
    assert [(each["name"], each["weight"], each["sha256"]) for each in teacher["members"]] == [
        ("base", 1.0, "53aa" * 16),
        ("large", 2.0, "53aa" * 16),
    ]
    assert [each["labelling"]["stored"] for each in teacher["members"]] == ["float16", "float32"]
    assert (found["labelling"]["stored"], found["labelling"]["max_length"]) == ("float32", 128)
    assert "1 base + 2 large (distributions)" in (tmp_path / "out/README.md").read_text()
    gather.gather({tmp_path / "base": 1.0, tmp_path / "large": 1.0}, tmp_path / "other")
    other = dataset.provenance(tmp_path / "other")["teacher"]
    assert other["name"] == "base + large"
    assert other["fingerprint"] != teacher["fingerprint"]


def test_a_run_that_fails_leaves_what_was_there(tmp_path: Path):
    one = write(tmp_path / "one", ONE)
    gather.gather({one: 1.0}, tmp_path / "out")
    before = contents(tmp_path / "out")
    two = write(tmp_path / "two", TWO, order=[0, 3, 1])
    with pytest.raises(InputError, match="lacks 1 of the 4 rows"):
        gather.gather({one: 1.0, two: 1.0}, tmp_path / "out")
    next((two / "data").iterdir()).unlink()
    with pytest.raises(InputError, match="is missing"):
        gather.gather({two: 1.0}, tmp_path / "out")
    assert contents(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "out", "two"]


OTHER_COPIES = [(0, 1, "a good film about a [MASK] war", {"masked1": 1}), (3, 0, "here <b>works</b>", {"edited1": 1})]


def differently_augmented(folder: Path, seed: int, **about) -> dict[str, Path]:
    """Write two data sets of the same originals, with other copies from other rules."""
    rules = {"seed": 7, "n_iter": 2, "rules": {"edit": {"rule": "a:B"}}, "summary": {"drawn": 8, "kept": 2}}
    one, two = changed(**about), changed(**about)
    two["augmentation"] = rules
    return {
        "one": write_whole(folder / "one", one, **{split: whole_rows(split, seed) for split in tables.SPLITS}),
        "two": write_whole(
            folder / "two", two, **{split: whole_rows(split, seed, OTHER_COPIES) for split in tables.SPLITS}
        ),
    }


@pytest.mark.parametrize("stored", ["float32", "float16"])
def test_targets_of_originals_do_not_depend_on_the_augmentation(tmp_path: Path, stored: str):
    for name, folder in differently_augmented(tmp_path, 0, labelling__stored=stored).items():
        gather.gather({folder: 0.3}, tmp_path / f"{name}-targets", "distributions", origins=[tables.SOURCE])
    assert contents(tmp_path / "one") != contents(tmp_path / "two")
    assert contents(tmp_path / "one-targets") == contents(tmp_path / "two-targets")
    out = tmp_path / "one-targets"
    assert verify.is_whole(verify.check(out)), verify.listed(verify.check(out))
    for split in tables.SPLITS:
        given = dataset.read_split(tmp_path / "one", split).to_pylist()
        assert dataset.read_split(out, split).to_pylist() == [row for row in given if row["parent_id"] is None]
    found = dataset.provenance(out)
    assert found["augmentation"] == {"seed": 0, "n_iter": 0, "rules": {}}
    assert found["rows"] == {"train": 4, "validation": 4, "test": 2}
    assert "No augmented rows." in (out / "README.md").read_text()


def test_an_average_of_originals_does_not_depend_on_the_augmentation_of_any_teacher(tmp_path: Path):
    base = differently_augmented(tmp_path / "base", 0, teacher__name="base")
    large = differently_augmented(tmp_path / "large", 1)
    for name in base:
        (tmp_path / name).mkdir()
        folders = {tmp_path / name / "base": base[name], tmp_path / name / "large": large["two"]}
        for link, folder in folders.items():
            link.symlink_to(folder)
        gather.gather(dict.fromkeys(folders, 1.0), tmp_path / f"{name}-targets", origins=[tables.SOURCE])
    assert contents(tmp_path / "one-targets") == contents(tmp_path / "two-targets")
    assert verify.is_whole(verify.check(tmp_path / "one-targets"))
    with pytest.raises(InputError, match="lacks"):
        gather.gather(dict.fromkeys((base["one"], large["two"]), 1.0), tmp_path / "all")


def test_targets_of_originals_of_a_merged_data_set_list_its_parts(tmp_path: Path):
    folders = differently_augmented(tmp_path, 0)
    merge.merge(list(folders.values()), tmp_path / "both")
    gather.gather({tmp_path / "both": 1.0}, tmp_path / "out", origins=[tables.SOURCE])
    assert [sorted(part) for part in dataset.provenance(tmp_path / "out")["merged"]] == [["labelling", "source"]] * 2
    assert verify.is_whole(verify.check(tmp_path / "out"))


def test_classes_are_matched_by_name(tmp_path: Path):
    one = write(tmp_path / "one", ONE)
    two = write(tmp_path / "two", [tuple(reversed(row)) for row in TWO], labels=["positive", "negative"])
    found = gathered({one: 1.0, two: 1.0})
    np.testing.assert_allclose(values(found), (np.array(ONE) + np.array(TWO)) / 2, rtol=1e-6)


def test_rows_that_one_teacher_lacks_are_counted(tmp_path: Path):
    one, two = write(tmp_path / "one", ONE), write(tmp_path / "two", TWO, order=[0, 3, 1])
    with pytest.raises(
        InputError, match=r"two: its train split lacks 1 of the 4 rows of .*one, which lacks 0 of its 3"
    ):
        gathered({one: 1.0, two: 1.0})
    with pytest.raises(
        InputError, match=r"one: its train split lacks 0 of the 3 rows of .*two, which lacks 1 of its 4"
    ):
        gathered({two: 1.0, one: 1.0})


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"labels": ["negative", "neutral"]}, "only teachers of the same labels can be averaged"),
        ({"text": "raw"}, "text is 'raw'"),
        ({"pairs": True}, "pairs is True"),
    ],
    ids=["classes", "text", "pairs"],
)
def test_data_sets_of_different_tasks_are_refused(tmp_path: Path, about: dict, message: str):
    one, two = write(tmp_path / "one", ONE), write(tmp_path / "two", TWO, **about)
    with pytest.raises(InputError, match=message):
        gathered({one: 1.0, two: 1.0})


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(st.integers(2, 5), st.lists(st.floats(0.1, 5), min_size=2, max_size=4), st.integers(0, 1000))
def test_the_order_of_the_teachers_does_not_matter(classes: int, weights: list[float], seed: int):
    draws = np.random.default_rng(seed)
    names = [f"class{i}" for i in range(classes)]
    with tempfile.TemporaryDirectory() as name:
        folders = {}
        for i, weight in enumerate(weights):
            folder = Path(name) / str(i)
            table = rows(TEXTS, [None] * 4, draws.normal(0, 20, (4, classes)).tolist())
            writing.write(folder, {"train": table}, PROVENANCE | {"labels": names})
            folders[folder] = weight
        for average in ("logits", "distributions"):
            found = values(gathered(folders, "train", average))
            other = values(gathered(dict(reversed(folders.items())), "train", average))
            np.testing.assert_allclose(found, other, rtol=1e-4, atol=1e-4)


def test_a_student_learns_from_two_teachers_where_one_is_right(tmp_path: Path):
    """The wrong one has less weight."""
    table, held_out = sentiment(300), sentiment(60, 1)
    wrong = rows(
        table["sentence1"].to_pylist(),
        table["label"].to_pylist(),
        [tuple(-x for x in row) for row in table["logits"].to_pylist()],
    )
    for name, training in (("right", table), ("wrong", wrong)):
        writing.write(tmp_path / name, {"train": training, "validation": held_out}, PROVENANCE)
    folders = {tmp_path / "right": 2.0, tmp_path / "wrong": 1.0}
    asked = Student(
        model="pipeline.students.ngram:NgramMean", params={"buckets": 50}, teacher={"right": 2, "wrong": 1}, epochs=5
    )
    training, validation = (gathered(folders, split) for split in ("train", "validation"))
    _, history = distill(training, validation, asked, PROVENANCE["labels"], "pretokenised", pairs=False)
    assert max(epoch.validation_accuracy for epoch in history) > 0.9


def test_the_stages_measure_a_student_of_two_teachers_by_their_average(tmp_path: Path):
    """Each teacher is wrong on half of the rows, with low confidence, so that the average is right on all."""
    table, held_out = sentiment(200), sentiment(60, 1)
    order = {"base": slice(None), "large": slice(None, None, -1)}
    for half, name in enumerate(order):
        splits = {
            "train": half_right(table, half).take(pa.array(np.arange(200)[order[name]])),
            "validation": half_right(held_out, half),
        }
        writing.write(tmp_path / "data/films/logits" / name, splits, PROVENANCE | {"teacher": {"name": name}})
    given = yaml.safe_load((ROOT / "params.yaml").read_text())
    given["teachers"] = {name: {"model": {"source": "folder:nowhere"}, "label": {}} for name in ("base", "large")}
    bag = {"model": "pipeline.students.ngram:NgramMean", "params": {"buckets": 50}, "batch_size": 10, "epochs": 3}
    given["students"] = {"bag": bag | {"teacher": {"of": {"base": 1, "large": 2}, "average": "distributions"}}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(given))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/films.yaml").write_text((ROOT / "tasks/example.yaml").read_text())

    def run(stage: str) -> subprocess.CompletedProcess[str]:
        command = [served.python(), str(ROOT / f"stages/{stage}.py"), "films", "bag"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    for stage in ("gather", "train", "evaluate", "export"):
        done = run(stage)
        assert done.returncode == 0, done.stderr
    data = tmp_path / "data/films"
    found = json.loads((data / "results/students/bag.json").read_text())
    name = "1 base + 2 large (distributions)"
    assert found["teacher"] == {"name": name, "parameters": None, "bytes": None}
    assert found["validation"]["teacher"]["accuracy"] == 1.0
    student = TrainedStudent.from_pretrained(data / "students/bag")
    folders = {data / "logits/base": 1.0, data / "logits/large": 2.0}
    average = values(gathered(folders, "validation", "distributions"))
    predicted = student.predict_logits(held_out["sentence1"].to_pylist())
    agreement = (average.argmax(1) == predicted.argmax(1)).mean()
    assert found["validation"]["student"]["agreement"] == pytest.approx(agreement, abs=1e-6)
    expected = divergence(average, predicted)
    assert found["validation"]["student"]["kl to the teacher"] == pytest.approx(expected, abs=1e-5)
    assert f"- Teacher: {name} (" in (data / "artefacts/bag/README.md").read_text()
    assert f"| {name} (teacher) " in result_table(data / "results")
    shutil.rmtree(data / "logits/large")
    done = run("gather")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "logits/large" in done.stderr


def half_right(table: pa.Table, half: int) -> pa.Table:
    """Return rows of a teacher that is confident and right on every other row, unconfident and wrong on the rest."""
    right = np.array(table["logits"].to_pylist())
    known = np.arange(table.num_rows) % 2 == half
    return rows(
        table["sentence1"].to_pylist(),
        table["label"].to_pylist(),
        np.where(known[:, None], 3 * right, -0.1 * right).tolist(),
    )
