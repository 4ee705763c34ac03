"""The drift audit, on a data set that a tiny teacher labelled: as a user calls it."""

import contextlib
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tiny import augmented_table, examples_table, tiny_teacher

from pipeline import storage, tables
from pipeline.__main__ import main
from pipeline.errors import InputError
from pipeline.labelling.audit import audit
from pipeline.labelling.label import describe_data_set, label
from pipeline.labelling.rows import LabelRows
from pipeline.logits import dataset, writing
from pipeline.logits.shards import Stream
from pipeline.params.labelling import Labelling
from pipeline.params.teachers import TeacherModel
from pipeline.teacher.finetune import make_teacher
from pipeline.teacher.recorded import open_recorded

WORDS = ["good", "bad", "film", "plot", "the", "a", "is"]
LABELS = ["negative", "positive"]
SOURCE = {"task": "films", "labels": LABELS, "pairs": False, "source": {"licence": "mit"}}


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    """Return the folder of a data set of 60 rows, with its teacher where the stages put it."""
    model = tiny_teacher(tmp_path / "model", WORDS, LABELS)
    draws = np.random.default_rng(0)
    texts = [" ".join(draws.choice(WORDS, 1 + i % 25)) + f" {i}" for i in range(40)]
    examples = examples_table([(("train", "test")[i % 2], text, None, i % 2) for i, text in enumerate(texts)])
    copies = augmented_table([(examples["id"][0].as_py(), f"[MASK] film {i}", None) for i in range(20)])
    tables.write(tmp_path / "augmented" / "augmented-0.parquet", copies, {})
    teacher = tmp_path / "data" / "films" / "teachers" / "large"
    teacher.mkdir(parents=True)
    make_teacher(TeacherModel(source=f"folder:{model}"), examples, LABELS, teacher)
    opened, record = open_recorded(teacher, LABELS)
    out = tmp_path / "data" / "films" / "logits" / "large"
    rows = LabelRows.read(examples, [tmp_path / "augmented" / "augmented-0.parquet"])
    about = describe_data_set(SOURCE, {}, "pretokenised", {"name": "large", **record})
    label(opened, rows, Labelling(max_length=20), tmp_path / "store", out, about)
    return out


def shift(folder: Path, row: int, by: float) -> None:
    """Change a stored logit, and write a valid manifest."""
    about = dataset.provenance(folder)
    splits = {split: dataset.read_split(folder, split) for split in about["rows"]}
    table = splits["train"]
    values = np.array(table["logits"].to_pylist(), np.float32)
    values[row, 0] += by
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 2)
    splits["train"] = table.set_column(table.schema.get_field_index("logits"), "logits", column).cast(table.schema)
    writing.write(folder, {s: Stream(t.num_rows, iter([t])) for s, t in splits.items()}, about)


def test_there_is_no_drift_without_a_change(data_set: Path):
    found = audit(data_set, share=1.0)
    everything = found[-1]
    assert (everything.words, everything.rows, everything.dtype) == ("all", 60, "float32")
    assert everything.largest < 1e-5
    assert everything.flips == 0
    assert sum(drift.rows for drift in found[:-1]) == 60
    assert len(found) > 4, "several lengths, truncated texts among them"


def test_a_changed_logit_is_found_and_measured(data_set: Path):
    shift(data_set, 3, 50.0)
    everything = audit(data_set, share=1.0)[-1]
    assert everything.largest == pytest.approx(50, abs=1e-3)
    assert everything.mean == pytest.approx(50 / 120, rel=1e-3)
    assert everything.flips <= 1


def test_the_share_is_drawn_by_the_seed(data_set: Path):
    shift(data_set, 3, 50.0)
    found = [audit(data_set, share=0.5, seed=seed)[-1] for seed in range(8)]
    assert {drift.rows for drift in found} == {30}
    assert {drift.largest > 1 for drift in found} == {True, False}
    assert found[0] == audit(data_set, share=0.5, seed=0)[-1]


def test_dtypes_are_compared(data_set: Path):
    found = {
        drift.dtype: drift for drift in audit(data_set, 1.0, dtypes=["float32", "bfloat16"]) if drift.words == "all"
    }
    assert found["float32"].largest < 1e-5 < found["bfloat16"].largest


def test_a_different_teacher_is_refused(data_set: Path, tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    model = tiny_teacher(tmp_path / "model2", WORDS, LABELS, seed=1)
    make_teacher(TeacherModel(source=f"folder:{model}"), examples_table([("train", "a", None, 0)]), LABELS, other)
    with pytest.raises(InputError, match="is not the data set's teacher: its sha256"):
        audit(data_set, 1.0, teacher_folder=other)


@pytest.mark.parametrize(("by", "code"), [(0.0, 0), (50.0, 1)])
def test_the_command(data_set: Path, by: float, code: int, monkeypatch: pytest.MonkeyPatch, capsys):
    if by:
        shift(data_set, 3, by)
    monkeypatch.setattr(sys, "argv", ["pipeline", "audit", str(data_set), "--percent", "100"])
    with contextlib.nullcontext() if code == 0 else pytest.raises(SystemExit, match=f"^{code}$"):
        main()
    printed = capsys.readouterr().out
    assert "| float32 |   all |   60 |" in printed
    assert ("exceeds the tolerance of 0.01" in printed) == bool(code)


def test_a_missing_teacher_is_asked_for(data_set: Path):
    record = data_set.parents[1] / "teachers" / "large" / "teacher.json"
    about = storage.read_json(record)
    record.unlink()
    assert audit(data_set, 1.0)[-1].largest < 1e-5, "found by its source"
    storage.write_json(record.parent / "kept.json", about)
    with pytest.raises(InputError, match="--teacher"):
        audit(data_set, 1.0, teacher_folder=record.parent / "nowhere")
