"""The accuracy benchmarks: quality.py uses the settings of the task, once per seed; baselines.py and levers.py train on the rows that they report."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import logit_rows
import numpy as np
import pyarrow as pa
import pytest

from pipeline import params
from pipeline.logits import writing
from pipeline.params.students import Student

ROOT = Path(__file__).parents[1]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Return a function that imports a script of bench/."""
    monkeypatch.syspath_prepend(ROOT / "bench")
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and Path(sys.modules[name].__file__).parent == ROOT / "bench":
            del sys.modules[name]


# --- quality.py ---------------------------------------------------------------------------------------------------------


def test_the_clone_has_every_student_once_per_seed_with_the_tasks_settings(bench, tmp_path: Path):
    quality = bench("quality")
    teacher = tmp_path / "mine"
    teacher.mkdir()
    (teacher / "config.json").write_text("{}")
    into = tmp_path / "clone"
    quality.cloned(into, "qqp", [0, 7], teacher, "float32")
    expected, found = params.load("qqp", ROOT), params.load("qqp", into)
    assert list(found.students) == ["bilstm-seed0", "bilstm-plain-seed0", "bilstm-seed7", "bilstm-plain-seed7"]
    for name, student in found.students.items():
        base, _, seed = name.rpartition("-seed")
        assert student == expected.student(base).model_copy(update={"seed": int(seed)})
    assert found.teacher("minilm").model.source == "folder:models/mine"
    assert found.teacher("minilm").label == expected.teacher("minilm").label.model_copy(update={"dtype": "float32"})
    assert (into / "models" / "mine" / "config.json").is_file()
    quality.cloned(into, "qqp", [0], teacher, None)  # the same command again, with fewer seeds
    assert list(params.load("qqp", into).students) == ["bilstm-seed0", "bilstm-plain-seed0"]
    assert params.load("qqp", into).teacher("minilm").label == expected.teacher("minilm").label


# --- baselines.py -------------------------------------------------------------------------------------------------------


def wrong_gold_labels() -> pa.Table:
    """Return rows whose gold labels are all wrong, each with a copy without a label. The teacher's logits are right."""
    right = logit_rows.sentiment(300)
    texts, values = right["sentence1"].to_pylist(), right["logits"].to_pylist()
    labels = [1 - label for label in right["label"].to_pylist()]
    parents = [None] * 300 + [f"row{i}" for i in range(300)]
    return logit_rows.rows(
        [*texts, *(f"{text} [MASK]" for text in texts)], [*labels, *[None] * 300], values * 2, parents
    )


def test_a_baseline_trains_on_gold_labels_of_originals_and_on_the_teachers_classes_of_all_rows(bench, tmp_path: Path):
    baselines = bench("baselines")
    splits = {"train": wrong_gold_labels(), "validation": logit_rows.sentiment(60, seed=1)}
    writing.write(tmp_path / "data", splits, logit_rows.PROVENANCE)

    def missing(*rows: object) -> None:
        raise ImportError("not here")

    found = list(baselines.measure(tmp_path / "data", {"missing": missing, "words": baselines.tf_idf}))
    assert [(each["model"], each["learns"], each["rows"], each["accuracy"]) for each in found] == [
        ("words", "originals, gold labels", 300, 0.0),
        ("words", "all rows, the teacher's classes", 600, 1.0),
    ]
    assert (found[1]["low"], found[1]["high"]) == (1.0, 1.0)


def test_a_baseline_joins_the_sentences_of_a_pair(bench):
    pairs = logit_rows.rows(["a  b\n", "c"], [0, 1], [(0.0, 1.0)] * 2, sentence2=["d", "e"])
    assert bench("baselines").texts_of(pairs) == ["a b | d", "c | e"]
    assert bench("baselines").texts_of(logit_rows.rows(["a b"], [0], [(0.0, 1.0)])) == ["a b"]


# --- levers.py ----------------------------------------------------------------------------------------------------------

NGRAM = Student.model_validate({"model": "pipeline.students.ngram:NgramMean", "teacher": "large"})


def test_a_lever_changes_only_its_keys(bench):
    levers = bench("levers")
    asked = NGRAM.model_copy(update={"epochs": 9})
    kept = levers.changed(asked, levers.BASELINE, seed=3, epochs=2)
    assert kept == asked.model_copy(update={"seed": 3, "epochs": 2, "patience": 2})
    names = [lever.name for lever in levers.LEVERS]
    assert len(set(names)) == len(names)
    for lever in levers.LEVERS[1:]:
        found = levers.changed(asked, lever, seed=3, epochs=2)
        assert (found == kept) == (lever.copies is not None), lever.name
        for key in set(found.model_dump()) - set(lever.change):
            assert getattr(found, key) == getattr(kept, key)


@pytest.mark.parametrize(("copies", "rows", "epochs"), [(None, 900, 2), (1, 600, 3), (0, 300, 6)])
def test_fewer_copies_mean_more_epochs(bench, copies: int | None, rows: int, epochs: int):
    levers = bench("levers")
    originals = logit_rows.sentiment(300)
    texts = originals["sentence1"].to_pylist()
    everything = logit_rows.rows(
        [text + end for end in ("", " [MASK]", " [MASK] [MASK]") for text in texts],
        [*originals["label"].to_pylist(), *[None] * 600],
        originals["logits"].to_pylist() * 3,
        [None] * 300 + [f"row{i}" for i in range(300)] * 2,
    )
    place = everything.schema.get_field_index("copy")
    numbers = pa.array([None] * 300 + [0] * 300 + [1] * 300, everything.schema.field("copy").type)
    everything = everything.set_column(place, everything.schema.field("copy"), numbers)
    data = levers.Data(logit_rows.PROVENANCE, everything, logit_rows.sentiment(50, seed=1))
    right, last, seen, times = levers.train(data, NGRAM, levers.Lever("fewer", {}, copies), 0, 2, None)
    assert (seen, times) == (rows, epochs)
    assert right.shape == (50,) and right.dtype == np.bool_ and right.mean() > 0.9
    assert last > 0.9


@pytest.mark.parametrize(
    ("numbers", "fewer"),
    [
        ([None], []),
        ([None, 0], ["no copies"]),
        ([0, 3], ["no copies", "1 copy"]),
        ([9], ["no copies", "1 copy", "4 copies"]),
    ],
)
def test_only_levers_with_an_effect_are_offered(bench, numbers: list[int | None], fewer: list[str]):
    levers = bench("levers")
    training = pa.table({"copy": pa.array(numbers, pa.int32())})
    assert [lever.name for lever in levers.offered(training, []) if lever.copies is not None] == fewer
    assert [lever.data for lever in levers.offered(training, ["b", "c"])][-3:] == ["b", "c", "average"]
    assert all(lever.data is None for lever in levers.offered(training, []))
