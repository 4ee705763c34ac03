import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import examples_table

from pipeline import storage, tables
from pipeline.errors import InputError
from pipeline.logits import dataset, shards, writing
from pipeline.logits.shards import logits_of

PROVENANCE = {"task": "films", "labels": ["bad", "good", "fair"], "source": {"licence": "cc-by-4.0"}}


def make(texts: list[str]) -> pa.Table:
    """Return rows of a logit data set, of which every second one is augmented."""
    originals = examples_table([("train", text, None, i % 3) for i, text in enumerate(texts)])
    rows = [
        {
            "id": row["id"],
            "sentence1": row["sentence1"],
            "label": row["label"] if i % 2 == 0 else None,
            "parent_id": None if i % 2 == 0 else originals["id"][0].as_py(),
            "side": None if i % 2 == 0 else ("first", "both")[i // 2 % 2],
            "masked1": None if i % 2 == 0 else i,
            "logits": [i, -i, 0.5],
        }
        for i, row in enumerate(originals.to_pylist())
    ]
    return pa.Table.from_pylist(rows, schema=tables.logits_schema(3))


SPLITS = {
    "train": make([f"film {i} über" for i in range(20)]),
    "validation": make(["a", "b", "c"]),
    "test": make(["d"]).slice(0, 0),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    writing.write(tmp_path / "teacher", SPLITS, PROVENANCE)
    return tmp_path / "teacher"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_written_is_read(folder: Path):
    for split, table in SPLITS.items():
        found = dataset.read_split(folder, split)
        assert found.schema == tables.logits_schema(3)
        assert found.to_pylist() == table.to_pylist()
    assert dataset.read_split(folder, "train", ["logits", "id"]).column_names == ["logits", "id"]
    assert dataset.provenance(folder) == PROVENANCE | {"rows": {"train": 20, "validation": 3, "test": 0}}


@pytest.mark.parametrize("stored", ["float32", "float16"])
def test_some_rows_are_read_from_the_row_groups_that_hold_them(tmp_path: Path, stored: str, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_ROWS", 7)
    for module in (dataset, shards):
        monkeypatch.setattr(module, "ROW_GROUP_ROWS", 3)
    writing.write(tmp_path / "teacher", SPLITS, PROVENANCE | {"labelling": {"stored": stored}})
    columns = ["logits", "sentence1", "side"]
    everything = pa.concat_tables(dataset.read_split(tmp_path / "teacher", split, columns) for split in SPLITS)
    groups: list[tuple[str, int]] = []

    class Counted(pq.ParquetFile):
        def read_row_group(self, group, *args, **kwargs):
            groups.append((self.metadata.num_rows, group))
            return super().read_row_group(group, *args, **kwargs)

    monkeypatch.setattr(dataset.pq, "ParquetFile", Counted)
    for rows, read in (
        ([], []),
        ([2, 5, 5 + 1], [(7, 0), (7, 1), (7, 2)]),
        ([0, 1, 19, 20, 22], [(7, 0), (6, 1), (3, 0)]),
        (list(range(23)), [(7, 0), (7, 1), (7, 2), (7, 0), (7, 1), (7, 2), (6, 0), (6, 1), (3, 0)]),
    ):
        groups.clear()
        found = dataset.read_rows(tmp_path / "teacher", np.array(rows, np.int64), columns)
        assert found.schema == everything.schema
        assert found.to_pylist() == everything.take(pa.array(rows, pa.int64())).to_pylist()
        assert groups == read


def test_the_same_rows_give_the_same_bytes(folder: Path, tmp_path: Path):
    table = SPLITS["train"]
    side = pa.DictionaryArray.from_arrays(
        pa.array([{None: None, "both": 0, "first": 2}[value] for value in table["side"].to_pylist()], pa.int32()),
        ["both", "unused", "first"],
    )
    other = table.set_column(table.schema.get_field_index("side"), "side", side)
    writing.write(tmp_path / "other", SPLITS | {"train": other}, PROVENANCE)
    assert contents(tmp_path / "other") == contents(folder)
    writing.write(folder, SPLITS, PROVENANCE)
    assert contents(tmp_path / "other") == contents(folder)


def test_the_same_rows_give_the_same_bytes_whatever_their_chunks(tmp_path: Path):
    """With enough rows for several pages, whose ends depend on the chunks that the writer is given."""
    table = pa.concat_tables([SPLITS["train"]] * 2_000)
    table = table.set_column(
        0, table.schema.field(0), [[f"{i * 0x9E3779B97F4A7C15 % 2**128:032x}" for i in range(len(table))]]
    )
    writing.write(tmp_path / "one", {"train": table.combine_chunks()}, PROVENANCE)
    parts = [table.slice(start, 777) for start in range(0, len(table), 777)]
    writing.write(tmp_path / "many", {"train": pa.concat_tables(parts)}, PROVENANCE)
    assert contents(tmp_path / "one") == contents(tmp_path / "many")


def test_new_rows_replace_the_old_ones_and_leave_nothing_of_them(folder: Path, tmp_path: Path):
    before = contents(folder)
    (folder / "data" / "train-0000000000000000.parquet").write_bytes(b"left by a run that was killed")
    (folder / "data" / "train-1.parquet.tmp-1-2").write_bytes(b"the same")
    (folder / "README.md.tmp-1-2").write_bytes(b"the same")
    new = SPLITS | {"train": make(["other", "rows"])}
    writing.write(folder, new, PROVENANCE)
    writing.write(tmp_path / "fresh", new, PROVENANCE)
    assert contents(folder) == contents(tmp_path / "fresh")
    assert before.keys() - contents(folder).keys()


def test_a_run_that_dies_before_the_manifest_leaves_the_old_rows(folder: Path, monkeypatch: pytest.MonkeyPatch):
    old = contents(folder)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "write_json", die)
    with pytest.raises(KeyboardInterrupt):
        writing.write(folder, {"train": make(["other", "rows"])}, PROVENANCE)
    monkeypatch.undo()
    left = contents(folder)
    assert all(left[name] == content for name, content in old.items() if name != "README.md")
    with pytest.raises(InputError, match=r"train-\w+\.parquet: is not in manifest\.json"):
        dataset.read_split(folder, "train")


def test_shards_are_named_by_what_they_hold(folder: Path):
    named = json.loads((folder / "manifest.json").read_text())["shards"]
    assert [(shard["split"], shard["rows"]) for shard in named] == [("train", 20), ("validation", 3)]
    for shard in named:
        assert storage.sha256_of(folder / shard["path"]) == shard["sha256"]
        assert shard["path"] == f"data/{shard['split']}-{shard['sha256'][:16]}.parquet"


def test_many_rows_become_several_shards_that_are_read_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shards, "SHARD_ROWS", 3)
    writing.write(tmp_path, SPLITS, PROVENANCE)
    assert len(list((tmp_path / "data").glob("train-*"))) == 7
    assert dataset.read_split(tmp_path, "train").to_pylist() == SPLITS["train"].to_pylist()


def test_shards_that_are_not_those_of_the_manifest_are_refused(folder: Path):
    shard = next((folder / "data").glob("train-*"))
    away = shard.rename(folder / "train.parquet")
    with pytest.raises(InputError, match=f"{shard.name}: is missing; .*dvc"):
        dataset.read_split(folder, "validation")
    pq.write_table(pq.read_table(away).slice(1), shard)
    with pytest.raises(InputError, match=r"has 19 rows, manifest\.json has 20"):
        dataset.read_split(folder, "train")


def test_a_folder_without_a_data_set_is_refused(folder: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"nothing.*manifest\.json: no such file.*dvc repro"):
        dataset.read_split(tmp_path / "nothing", "train")
    with pytest.raises(InputError, match="has no split 'dev' \\(it has train, validation, test\\)"):
        dataset.read_split(folder, "dev")
    storage.write_json(folder / "manifest.json", {"format": 3})
    with pytest.raises(InputError, match="format 3; this version reads the formats 1 and 2"):
        dataset.provenance(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        dataset.provenance(folder)


HALF = PROVENANCE | {"labelling": {"stored": "float16"}}


def test_float16_is_stored_by_choice_and_read_as_float32(tmp_path: Path):
    rows = SPLITS["train"]
    values = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 3)
    rows = rows.set_column(rows.schema.get_field_index("logits"), rows.schema.field("logits"), column)
    writing.write(tmp_path, {"train": rows}, HALF)
    shard = next((tmp_path / "data").glob("*.parquet"))
    assert pq.read_schema(shard).field("logits").type == pa.list_(pa.float16(), 3)
    found = dataset.read_split(tmp_path, "train")
    assert found.schema == tables.logits_schema(3)
    np.testing.assert_array_equal(logits_of(found), values.astype(np.float16).astype(np.float32))
    assert found.drop_columns("logits").to_pylist() == rows.drop_columns("logits").to_pylist()
    assert dataset.read_split(tmp_path, "train", ["id"]).column_names == ["id"]
    assert pl.read_parquet(shard)["logits"].to_list() == logits_of(found).tolist()


def test_a_logit_beyond_float16_is_refused_and_nothing_is_lost(tmp_path: Path):
    rows = make(["a"]).to_pylist()
    rows[0]["logits"] = [70_000.0, 0.0, 0.0]
    table = pa.Table.from_pylist(rows, schema=tables.logits_schema(3))
    with pytest.raises(
        InputError, match=r"logits \[70000\.0, 0\.0, 0\.0\] are out of range for float16; set label\.stored: float32"
    ):
        writing.write(tmp_path, {"train": table}, HALF)
    assert not (tmp_path / "manifest.json").exists()


LOAD = """
import json, os, sys
from datasets import load_dataset
for folder in sys.argv[1:]:
    data = load_dataset(folder)
    rows = data["train"]
    streamed = next(iter(load_dataset(folder, split="train", streaming=True)))
    tensors = rows.with_format("torch", columns=["logits"])[:2]
    print(json.dumps({
        "rows": {split: len(found) for split, found in data.items()},
        "label names": rows.features["label"].names,
        "logits": [rows.features["logits"].length, rows.features["logits"].feature.dtype],
        "first": rows[0], "second": rows[1], "streamed": streamed,
        "torch": [str(tensors["logits"].dtype), list(tensors["logits"].shape), tensors["logits"][1].tolist()],
    }), flush=True)
os._exit(0)  # the threads of a streaming data set sometimes abort a process that ends on a busy machine
"""


@pytest.mark.slow
def test_load_dataset_opens_the_folder_with_class_names_and_never_an_older_state(folder: Path, tmp_path: Path):
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}

    def load(*folders: Path) -> list[dict]:
        """Load the folders in a new process."""
        done = subprocess.run(
            [sys.executable, "-c", LOAD, *map(str, folders)],
            env=os.environ | offline,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    (found,) = load(folder)
    assert found["rows"] == {"train": 20, "validation": 3}
    assert found["label names"] == PROVENANCE["labels"]
    assert found["logits"] == [3, "float32"]
    assert [found["first"], found["second"]] == SPLITS["train"].slice(0, 2).to_pylist()
    assert found["streamed"] == found["first"]
    assert found["torch"] == ["torch.float32", [2, 3], [1.0, -1.0, 0.5]]
    writing.write(folder, SPLITS | {"train": make(["new", "rows"])}, PROVENANCE)
    writing.write(tmp_path / "half", SPLITS, HALF)
    changed, half = load(folder, tmp_path / "half")
    assert changed["first"]["sentence1"] == "new"
    assert half["logits"] == [3, "float16"]
    assert half["torch"][1:] == [[2, 3], [1.0, -1.0, 0.5]]


def test_polars_and_pyarrow_open_the_shards(folder: Path):
    found = pl.read_parquet(folder / "data" / "train-*.parquet")
    assert found.rows(named=True) == SPLITS["train"].to_pylist()
    assert found.schema["logits"] == pl.Array(pl.Float32, 3)
    shard = next((folder / "data").glob("train-*"))
    assert pq.read_table(shard).to_pylist() == SPLITS["train"].to_pylist()
    assert tables.metadata_of(shard) == dataset.provenance(folder)
