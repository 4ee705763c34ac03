"""What each cell's students learn from; a killed run goes on; workers and order change nothing."""

import json
import os
import signal
import subprocess
from pathlib import Path

import imports
import joblib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import served
from conftest import STUDENT, ablation
from logit_sets import column

from pipeline import plugins, tables
from pipeline.ablation import cells
from pipeline.ablation.cells import COLUMNS, Tables, train_all, training_rows
from pipeline.ablation.params import Cell
from pipeline.errors import InputError
from pipeline.logits import dataset, writing
from pipeline.machine import devices

ROOT = Path(__file__).parents[2]


def rows_of(where: Tables, cell: Cell) -> pa.Table:
    parts = [tables.read(path, tables.AUGMENTED) for path in where.copies(cell)]
    labelled = dataset.read_split(where.labelled, "train", COLUMNS)
    return training_rows(cell, labelled, pa.concat_tables(parts) if parts else None)


def results_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_hard_cell_has_the_parents_gold_label(where: Tables):
    rows = rows_of(where, Cell(distilled=False, rules="mask", n_iter=3))
    labelled = dataset.read_split(where.labelled, "train")
    gold = dict(zip(labelled["id"].to_pylist(), labelled["label"].to_pylist(), strict=True))
    copies = rows.filter(pc.is_valid(rows["parent_id"])).to_pylist()
    assert len(copies) > 50
    assert {row["label"] for row in copies} == {0, 1}
    assert all(row["label"] == gold[row["parent_id"]] for row in copies)


def test_a_row_without_gold_label_teaches_no_hard_cell_but_every_distilled_one(where: Tables):
    labelled = dataset.read_split(where.labelled, "train")
    unknown = set(
        labelled.filter(pc.and_(pc.is_null(labelled["label"]), pc.is_null(labelled["parent_id"])))["id"].to_pylist()
    )
    assert len(unknown) == 2
    for rules, n_iter in (("none", 0), ("mask", 3)):
        hard, distilled = (rows_of(where, Cell(d, rules, n_iter)) for d in (False, True))
        assert not hard["label"].null_count
        assert not unknown & set(hard["id"].to_pylist() + hard["parent_id"].to_pylist())
        assert unknown <= set(distilled["id"].to_pylist())


def test_a_distilled_cell_has_each_texts_logits_and_no_gold_label_of_a_copy(where: Tables):
    rows = rows_of(where, Cell(distilled=True, rules="mask", n_iter=1))
    labelled = dataset.read_split(where.labelled, "train")
    said = dict(zip(labelled["id"].to_pylist(), labelled["logits"].to_pylist(), strict=True))
    assert [said[text] for text in rows["id"].to_pylist()] == rows["logits"].to_pylist()
    assert rows.filter(pc.is_valid(rows["parent_id"]))["label"].null_count == len(rows) - 80 + (80 - originals(rows))


def originals(rows: pa.Table) -> int:
    return rows["parent_id"].null_count


def test_a_cell_has_its_set_and_no_other_copies(where: Tables):
    drawn = {
        text
        for path in where.copies(Cell(True, "all", 2))
        for text in tables.read(path, tables.AUGMENTED)["id"].to_pylist()
    }
    rows = rows_of(where, Cell(True, "all", 2))
    assert set(rows.filter(pc.is_valid(rows["parent_id"]))["id"].to_pylist()) == drawn
    assert (
        not rows_of(where, Cell(True, "none", 0))
        .filter(pc.is_valid(rows_of(where, Cell(True, "none", 0))["parent_id"]))
        .num_rows
    )


@pytest.mark.slow
def test_what_the_teacher_says_changes_no_hard_cell(where: Tables, tmp_path: Path):
    asked = ablation(student=STUDENT | {"weights": {"confidence": 2.0}}, seeds=[0], rows_seen=3000)
    train_all(where, asked, tmp_path / "one", workers=1)
    splits = {split: dataset.read_split(where.labelled, split) for split in tables.SPLITS}
    about = dataset.provenance(where.labelled)
    draws = np.random.default_rng(0)
    noise = {
        split: column(rows, "logits", draws.normal(size=(rows.num_rows, 2)).tolist()) for split, rows in splits.items()
    }
    writing.write(where.labelled, noise, about)
    train_all(where, asked, tmp_path / "two", workers=1)
    one, two = (
        {
            name: {k: v for k, v in json.loads(data).items() if k != "key"}
            for name, data in results_of(tmp_path / run).items()
        }
        for run in ("one", "two")
    )
    changed = {name for name in one if one[name] != two[name]}
    assert changed
    assert {name.partition("-")[0] for name in changed} == {"distilled"}


@pytest.mark.slow
def test_workers_and_order_change_no_byte(where: Tables, made: Path, tmp_path: Path):
    asked = ablation()
    train_all(where, asked, tmp_path / "two", workers=2)
    train_all(where, asked.model_copy(update={"seeds": [1, 0]}), tmp_path / "other", workers=1)
    found = results_of(made / "cells")
    assert len(found) == 2 * 4 * 2
    assert found == results_of(tmp_path / "two") == results_of(tmp_path / "other")


def modified(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.iterdir()}


def changed_by(before: dict, folder: Path) -> set[str]:
    after = modified(folder)
    return {name for name in before.keys() | after if before.get(name) != after.get(name)}


@pytest.mark.slow
def test_only_what_a_change_concerns_is_trained_again(where: Tables, trained: Path):
    out = trained
    before = modified(out)
    train_all(where, ablation(), out, workers=1)
    assert changed_by(before, out) == set()
    train_all(where, ablation(seeds=[0, 2]), out, workers=1)
    changed = changed_by(before, out)
    assert {name.rpartition("-")[2] for name in changed} == {"seed1.json", "seed2.json"}  # one gone, one new
    before = modified(out)
    for number, changes in enumerate(({"rows_seen": 100}, {"rows_seen": 100, "student": STUDENT | {"batch_size": 10}})):
        train_all(where, ablation(seeds=[0, 2], **changes), out, workers=1)
        assert changed_by(before, out) == set(before), number
        before = modified(out)


def test_every_student_sees_about_as_many_rows(where: Tables, tmp_path: Path):
    train_all(
        where, ablation(seeds=[0], rows_seen=600, student=STUDENT | {"patience": 100}), tmp_path / "cells", workers=1
    )
    found = [json.loads(data) for data in results_of(tmp_path / "cells").values()]
    assert len({one["rows"] for one in found}) > 3
    assert all(abs(one["rows"] * one["epochs"] - 600) <= one["rows"] / 2 for one in found)


def test_other_labels_train_everything_again(where: Tables, trained: Path):
    train_all(where, ablation(seeds=[0]), trained, workers=1)
    before = modified(trained)
    about = dataset.provenance(where.labelled)
    splits = {split: dataset.read_split(where.labelled, split) for split in tables.SPLITS}
    turned = [row[::-1] for row in splits["train"]["logits"].to_pylist()]
    writing.write(where.labelled, splits | {"train": column(splits["train"], "logits", turned)}, about)
    train_all(where, ablation(seeds=[0]), trained, workers=1)
    assert changed_by(before, trained) == set(before)


@pytest.mark.parametrize("left", [b"", b"{", b"[]", b'{"key": "of another"}'], ids=["empty", "torn", "list", "stale"])
def test_a_damaged_result_is_made_again(where: Tables, tmp_path: Path, left: bytes):
    out = tmp_path / "cells"
    asked = ablation(
        seeds=[0], sets={"mask": {"n_iter": [1], "rules": ablation().model_dump()["sets"]["mask"]["rules"]}}
    )
    train_all(where, asked, out, workers=1)
    whole = results_of(out)
    (out / "hard-mask-1-seed0.json").write_bytes(left)
    train_all(where, asked, out, workers=1)
    assert results_of(out) == whole


KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.ablation import cells
from pipeline.ablation.params import Ablation

where, asked, out, number = eval(sys.argv[1], {"Path": Path, "Tables": cells.Tables}), Ablation.model_validate_json(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
write, written = cells.write_json, []

def write_json(path, value):
    if len(written) == number:
        os.kill(os.getpid(), signal.SIGKILL)
    written.append(path)
    write(path, value)

cells.write_json = write_json
cells.train_all(where, asked, out, workers=1)
"""


def test_a_killed_run_goes_on(where: Tables, made: Path, tmp_path: Path):
    asked, out = ablation(), tmp_path / "cells"
    command = [
        served.python(),
        "-c",
        KILLED,
        repr(where).replace("PosixPath", "Path"),
        asked.model_dump_json(exclude_unset=True),
        str(out),
        "5",
    ]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    first = modified(out)
    assert len(first) == 5
    train_all(where, asked, out, workers=1)
    assert {name: modified(out)[name] for name in first} == first
    assert results_of(out) == results_of(made / "cells")


def test_results_that_nobody_asks_for_go(where: Tables, tmp_path: Path):
    out = tmp_path / "cells"
    out.mkdir()
    (out / "hard-mask-1-seed9.json").write_text("{}")
    (out / "hard-mask-1-seed0.json.tmp-1-ab").write_text("{}")
    train_all(where, ablation(seeds=[0]), out, workers=1)
    assert len(results_of(out)) == 8
    assert all(name.endswith("seed0.json") for name in results_of(out))


def test_a_result_names_the_rows_that_are_wrong(where: Tables, made: Path):
    found = json.loads((made / "cells/distilled-all-2-seed0.json").read_text())
    test = dataset.read_split(where.labelled, "test")
    assert found["test"]["rows"] == test.num_rows
    assert set(found["test"]["wrong"]) < set(test["id"].to_pylist())
    assert (found["distilled"], found["rules"], found["n_iter"], found["seed"]) == (True, "all", 2, 0)
    assert found["rows"] == rows_of(where, Cell(True, "all", 2)).num_rows


def test_missing_logits_are_one_line(where: Tables, tmp_path: Path):
    wrong = Tables(labelled=tmp_path / "nowhere", sets=where.sets, vectors=None)
    with pytest.raises(InputError, match=r"nowhere/manifest.json: no such file"):
        train_all(wrong, ablation(), tmp_path / "cells", workers=1)
    wrong = Tables(labelled=where.labelled, sets=where.sets, vectors=tmp_path / "vectors.parquet")
    with pytest.raises(InputError, match=r"vectors.parquet: no such file"):
        train_all(wrong, ablation(), tmp_path / "cells", workers=1)


def test_students_share_no_gpu(monkeypatch: pytest.MonkeyPatch):
    assert cells.default_workers() == joblib.cpu_count()
    monkeypatch.delenv(devices.DEVICE)
    monkeypatch.setattr(cells.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(cells.torch.cuda, "device_count", lambda: 3)
    assert cells.default_workers() == 3


def test_other_code_trains_everything_again(where: Tables, trained: Path, monkeypatch: pytest.MonkeyPatch):
    """Vectors, vocabulary, the contract, the epoch rule: whatever training imports."""
    asked, out = ablation(seeds=[0]), trained
    train_all(where, asked, out, workers=1)
    before = modified(out)
    digest = plugins.library_digest
    monkeypatch.setattr(plugins, "library_digest", lambda *modules: digest(*modules)[::-1])
    train_all(where, asked, out, workers=1)
    assert changed_by(before, out) == set(before)


def test_the_code_of_a_student_is_all_that_training_imports():
    reached = imports.reached(imports.graph(ROOT), {*cells.CODE, "pipeline.students.bilstm"})
    assert {
        "pipeline.distill.epochs",
        "pipeline.students.contract",
        "pipeline.students.vocabulary",
        "pipeline.vectors.table",
    } <= reached


def test_rows_of_other_cells_train_nothing_again(where: Tables, trained: Path):
    """A new rule set labels more texts in the union, and where the text comes from may be written in other words."""
    asked, out = ablation(seeds=[0]), trained
    train_all(where, asked, out, workers=1)
    before = modified(out)
    splits = {split: dataset.read_split(where.labelled, split) for split in tables.SPLITS}
    about = dataset.provenance(where.labelled)
    extra = splits["train"].slice(splits["train"].num_rows - 1)
    extra = column(column(extra, "id", ["f" * 32]), "sentence1", ["a text of another rule set"])
    more = splits | {"train": pa.concat_tables([splits["train"], extra]).unify_dictionaries()}
    writing.write(where.labelled, more, about | {"source": {"licence": "another"}})
    train_all(where, asked, out, workers=1)
    assert changed_by(before, out) == set()
