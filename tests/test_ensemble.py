import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from logit_rows import PROVENANCE, rows, sentiment

from pipeline import ensemble, logits
from pipeline.distill import COLUMNS, distill
from pipeline.errors import InputError
from pipeline.params import Student

ROOT = Path(__file__).resolve().parents[1]
TEXTS = ["good film", "bad film", "the plot", "dull"]
ONE = [(1.0, 2.0), (0.5, -1.0), (3.0, 3.0), (-2.0, 0.0)]
TWO = [(0.0, -2.0), (1.5, 1.0), (1.0, 5.0), (2.0, 2.0)]


def write(folder: Path, values, order=None, **about) -> Path:
    table = rows(TEXTS, [1, 0, None, 0], values, parents=[None, None, "row0", None])
    table = table.take(pa.array(order if order is not None else range(table.num_rows)))
    logits.write(folder, {"train": table, "validation": table}, PROVENANCE | about)
    return folder


def values(table: pa.Table) -> np.ndarray:
    return np.array(table["logits"].to_pylist(), np.float64)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True)


def test_rows_are_joined_on_id_and_weighted(tmp_path: Path):
    one, two = write(tmp_path / "one", ONE), write(tmp_path / "two", TWO, order=[2, 0, 3, 1])
    found = ensemble.read_split({one: 3.0, two: 1.0}, "train", COLUMNS)
    assert found["sentence1"].to_pylist() == TEXTS
    assert found.schema.equals(logits.read_split(one, "train", COLUMNS).schema)
    np.testing.assert_allclose(values(found), 0.75 * np.array(ONE) + 0.25 * np.array(TWO), rtol=1e-6)
    found = ensemble.read_split({one: 3.0, two: 1.0}, "train", COLUMNS, "distributions")
    expected = 0.75 * softmax(np.array(ONE)) + 0.25 * softmax(np.array(TWO))
    np.testing.assert_allclose(softmax(values(found)), expected, rtol=1e-5)


def test_one_teacher_is_read_as_it_is(tmp_path: Path):
    one = write(tmp_path / "one", ONE)
    assert ensemble.read_split({one: 0.3}, "train", COLUMNS).equals(logits.read_split(one, "train", COLUMNS))


def test_classes_are_matched_by_name(tmp_path: Path):
    one = write(tmp_path / "one", ONE)
    two = write(tmp_path / "two", [tuple(reversed(row)) for row in TWO], labels=["positive", "negative"])
    found = ensemble.read_split({one: 1.0, two: 1.0}, "train", COLUMNS)
    np.testing.assert_allclose(values(found), (np.array(ONE) + np.array(TWO)) / 2, rtol=1e-6)


def test_rows_that_one_teacher_lacks_are_counted(tmp_path: Path):
    one, two = write(tmp_path / "one", ONE), write(tmp_path / "two", TWO, order=[0, 3, 1])
    with pytest.raises(
        InputError, match=r"two: its train split lacks 1 of the 4 rows of .*one, which lacks 0 of its 3"
    ):
        ensemble.read_split({one: 1.0, two: 1.0}, "train", COLUMNS)
    with pytest.raises(
        InputError, match=r"one: its train split lacks 0 of the 3 rows of .*two, which lacks 1 of its 4"
    ):
        ensemble.read_split({two: 1.0, one: 1.0}, "train", COLUMNS)


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"labels": ["negative", "neutral"]}, "teachers of other classes cannot be averaged"),
        ({"text": "raw"}, "text is 'raw'"),
        ({"pairs": True}, "pairs is True"),
    ],
    ids=["classes", "text", "pairs"],
)
def test_data_sets_of_different_tasks_are_refused(tmp_path: Path, about: dict, said: str):
    one, two = write(tmp_path / "one", ONE), write(tmp_path / "two", TWO, **about)
    with pytest.raises(InputError, match=said):
        ensemble.read_split({one: 1.0, two: 1.0}, "train", COLUMNS)


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
            logits.write(folder, {"train": table}, PROVENANCE | {"labels": names})
            folders[folder] = weight
        for average in ("logits", "distributions"):
            found = values(ensemble.read_split(folders, "train", COLUMNS, average))
            other = values(ensemble.read_split(dict(reversed(folders.items())), "train", COLUMNS, average))
            np.testing.assert_allclose(found, other, rtol=1e-4, atol=1e-4)


def test_a_student_learns_from_two_teachers_where_one_is_right(tmp_path: Path):
    """The one that is wrong counts less."""
    table, held_out = sentiment(300), sentiment(60, 1)
    wrong = rows(
        table["sentence1"].to_pylist(),
        table["label"].to_pylist(),
        [tuple(-x for x in row) for row in table["logits"].to_pylist()],
    )
    for name, training in (("right", table), ("wrong", wrong)):
        logits.write(tmp_path / name, {"train": training, "validation": held_out}, PROVENANCE)
    folders = {tmp_path / "right": 2.0, tmp_path / "wrong": 1.0}
    asked = Student(
        model="pipeline.students.ngram:NgramMean", params={"buckets": 50}, teacher={"right": 2, "wrong": 1}, epochs=5
    )
    training, validation = (ensemble.read_split(folders, split, COLUMNS) for split in ("train", "validation"))
    _, history = distill(training, validation, asked, PROVENANCE["labels"], "pretokenised", pairs=False)
    assert max(epoch.validation_accuracy for epoch in history) > 0.9


def test_the_stages_train_and_evaluate_a_student_of_two_teachers(tmp_path: Path):
    table, held_out = sentiment(200), sentiment(60, 1)
    for name, order in (("base", slice(None)), ("large", slice(None, None, -1))):
        turned = table.take(pa.array(np.arange(200)[order]))
        logits.write(tmp_path / "data/films/logits" / name, {"train": turned, "validation": held_out}, PROVENANCE)
    given = yaml.safe_load((ROOT / "params.yaml").read_text())
    given["teachers"] = {name: {"model": {"source": "folder:nowhere"}, "label": {}} for name in ("base", "large")}
    bag = {"model": "pipeline.students.ngram:NgramMean", "params": {"buckets": 50}, "batch_size": 10, "epochs": 3}
    given["students"] = {"bag": bag | {"teacher": {"base": 1, "large": 3}, "average": "distributions"}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(given))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/films.yaml").write_text((ROOT / "tasks/example.yaml").read_text())
    for stage in ("train", "evaluate"):
        command = [sys.executable, str(ROOT / f"stages/{stage}.py"), "films", "bag"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "data/films/results/students/bag.json").read_text())
    assert found["validation"]["student"]["accuracy"] > 0.9
    shutil.rmtree(tmp_path / "data/films/logits/large")
    done = subprocess.run(
        [sys.executable, str(ROOT / "stages/train.py"), "films", "bag"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "logits/large" in done.stderr
