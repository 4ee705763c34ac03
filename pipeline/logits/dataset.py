"""The logit data set: Parquet shards with the text, its lineage and the teacher's logits. Training reads nothing else.

- README.md: the data set's card, which `datasets.load_dataset(folder)` reads as well;
- manifest.json: format, provenance, and path, split, rows, sha256 and rows_digest of each shard;
- data/<split>-<16 hex>.parquet: the rows; a shard is named by the start of its sha256.
"""

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import tables
from pipeline.errors import InputError
from pipeline.logits.shards import ROW_GROUP_ROWS, as_floats, shard_schema
from pipeline.storage import read_json, sha256_of

logger = logging.getLogger(__name__)

COLUMNS = ("id", "sentence1", "sentence2", "label", "parent_id", "logits")
"""The columns for training and evaluation."""

FORMAT = 1
"""The version of this layout. Readers refuse any other."""


def _shards_in(folder: Path) -> list[str]:
    return [f"data/{path.name}" for path in sorted((folder / "data").glob("*.parquet"))]


def manifest(folder: Path) -> dict[str, Any]:
    """Return manifest.json of a logit data set: format, provenance, shards.

    :param folder: The data set's folder.
    :raises InputError: If there is no data set, or one of another format.
    """
    path = folder / "manifest.json"
    try:
        found: dict[str, Any] = read_json(path)
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: no such file, so {folder} is not a logit data set; make it with `dvc repro` or fetch it with `dvc pull`"
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}; write it again with `dvc repro --force`") from error
    if found.get("format") != FORMAT:
        raise InputError(f"{path}: format {found.get('format')!r}; this version reads format {FORMAT}")
    return found


def provenance(folder: Path) -> dict[str, Any]:
    """Return the provenance of a logit data set: task, labels, teacher, augmentation, source, versions, rows.

    :param folder: The data set's folder.
    :raises InputError: If there is no data set, or one of another format.
    """
    found: dict[str, Any] = manifest(folder)["provenance"]
    return found


def shard_paths(folder: Path) -> dict[str, list[Path]]:
    """Return the shards of each split that has rows, in the order of the rows.

    :param folder: The data set's folder.
    :raises InputError: If there is no data set, or one of another format.
    """
    found: dict[str, list[Path]] = {}
    for shard in manifest(folder)["shards"]:
        found.setdefault(shard["split"], []).append(folder / shard["path"])
    return found


def stored_schema(folder: Path) -> pa.Schema:
    """Return the schema of the shards in the files; `read_split` casts it to `tables.logits_schema(C)`.

    :param folder: The data set's folder.
    :raises InputError: If there is no data set, or one of another format.
    """
    return shard_schema(provenance(folder))


def intact_shards(folder: Path) -> Iterator[Path]:
    """Yield the shards whose sha256 is that of the manifest, and log a warning for each other one.

    :param folder: The data set's folder.
    :raises InputError: If there is no data set, or one of another format.
    """
    for shard in manifest(folder)["shards"]:
        path = folder / shard["path"]
        if path.is_file() and sha256_of(path) == shard["sha256"]:
            yield path
        else:
            fault = "its sha256 is not that of manifest.json" if path.is_file() else "is missing"
            logger.warning("%s: %s; the shard is skipped", path, fault)


def read_split(folder: Path, split: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of one split, in the order in which they were written.

    :param folder: The data set's folder.
    :param split: train, validation or test.
    :param columns: The columns to read; None for all.
    :return: The rows, in the types of `tables.logits_schema(C)`: float32, also where float16 is stored.
    :raises InputError: If the data set or the split does not exist, or the shards are not those of the manifest.
    """
    stored, schema = _schemas_of(folder, split, columns)
    parts = [schema.empty_table()]
    for shard in manifest(folder)["shards"]:
        if shard["split"] == split:
            part = tables.read(folder / shard["path"], stored, columns)
            _refuse_other_count(folder, shard, part.num_rows)
            parts.append(_as_read(part, schema))
    return pa.concat_tables(parts).unify_dictionaries()


def read_labelled(folder: Path, split: str, columns: Sequence[str]) -> pa.Table | None:
    """Return the rows of a split that have a gold label; None if there are none, or the split does not exist.

    :param folder: The data set's folder.
    :param split: train, validation or test.
    :param columns: The columns to read, with `label`.
    :raises InputError: As `read_split`.
    """
    if split not in provenance(folder)["rows"]:
        return None
    rows = read_split(folder, split, columns)
    rows = rows.filter(pc.is_valid(rows["label"]))
    return rows if rows.num_rows else None


def stream_split(folder: Path, split: str) -> Iterator[pa.Table]:
    """Yield the rows of `read_split`, at most ROW_GROUP_ROWS at a time.

    :param folder: The data set's folder.
    :param split: train, validation or test.
    :raises InputError: As `read_split`.
    """
    stored, schema = _schemas_of(folder, split, None)
    for shard in manifest(folder)["shards"]:
        if shard["split"] == split:
            path = folder / shard["path"]
            tables.check(path, stored)
            with pq.ParquetFile(path) as file:
                _refuse_other_count(folder, shard, file.metadata.num_rows)
                for batch in file.iter_batches(ROW_GROUP_ROWS, columns=stored.names):
                    yield _as_read(pa.Table.from_batches([batch]).cast(stored), schema)


def read_rows(folder: Path, rows: npt.NDArray[np.int64], columns: Sequence[str]) -> pa.Table:
    """Return rows by number. Only the row groups that hold them are read, one at a time.

    :param folder: The data set's folder.
    :param rows: Row numbers, ascending. They count through all splits, in the order of `rows` in the provenance.
    :param columns: The columns to read.
    :return: As `read_split`.
    :raises InputError: As `read_split`.
    """
    refuse_other_shards(folder)
    about = manifest(folder)
    stored = shard_schema(about["provenance"])
    wanted = pa.schema([stored.field(name) for name in columns])
    schema = _read_schema(about["provenance"], columns)
    splits = list(about["provenance"]["rows"])
    parts, first = [schema.empty_table()], 0
    for shard in sorted(about["shards"], key=lambda shard: splits.index(shard["split"])):
        tables.check(folder / shard["path"], wanted)
        with pq.ParquetFile(folder / shard["path"]) as file:
            _refuse_other_count(folder, shard, file.metadata.num_rows)
            for group in range(file.num_row_groups):
                after = first + file.metadata.row_group(group).num_rows
                low, high = np.searchsorted(rows, [first, after])
                if low < high:
                    try:
                        part = file.read_row_group(group, columns=list(columns)).select(columns).cast(wanted)
                    except (pa.ArrowException, OSError, ValueError) as error:
                        raise InputError(f"{folder / shard['path']}: cannot be read as a shard: {error}") from error
                    parts.append(_as_read(part.take(pa.array(rows[low:high] - first)), schema))
                first = after
    return pa.concat_tables(parts).unify_dictionaries()


def copy(folder: Path, out: Path) -> None:
    """Copy the files of a data set, and no other files of its folder.

    :param folder: The data set's folder.
    :param out: An empty folder.
    :raises InputError: If there is no data set, or the shards are not those of the manifest.
    """
    refuse_other_shards(folder)
    (out / "data").mkdir()
    for name in ("README.md", "manifest.json", *(shard["path"] for shard in manifest(folder)["shards"])):
        shutil.copyfile(folder / name, out / name)


def refuse_other_shards(folder: Path) -> None:
    """Refuse a data set whose shards are not those of the manifest.

    :param folder: The data set's folder.
    :raises InputError: If a shard is missing or not in the manifest; or if there is no data set, or one of another format.
    """
    named = {shard["path"] for shard in manifest(folder)["shards"]}
    for path in sorted(named ^ set(_shards_in(folder))):
        fault = "is missing" if path in named else "is not in manifest.json"
        raise InputError(
            f"{folder / path}: {fault}; write the data set again with `dvc repro` or fetch it with `dvc pull`"
        )


def _schemas_of(folder: Path, split: str, columns: Sequence[str] | None) -> tuple[pa.Schema, pa.Schema]:
    """Return the stored schema and the schema to read of a split, after a check of its shards."""
    refuse_other_shards(folder)
    about = provenance(folder)
    if split not in about["rows"]:
        raise InputError(f"{folder}: has no split {split!r} (it has {', '.join(about['rows'])})")
    return shard_schema(about), _read_schema(about, columns)


def _read_schema(about: Mapping[str, Any], columns: Sequence[str] | None) -> pa.Schema:
    schema = tables.logits_schema(len(about["labels"]))
    return schema if columns is None else pa.schema([schema.field(name) for name in columns])


def _refuse_other_count(folder: Path, shard: Mapping[str, Any], rows: int) -> None:
    if rows != shard["rows"]:
        raise InputError(
            f"{folder / shard['path']}: has {rows} rows, manifest.json has {shard['rows']}; "
            "write the data set again with `dvc repro --force` or fetch it with `dvc pull`"
        )


def _as_read(part: pa.Table, schema: pa.Schema) -> pa.Table:
    """Cast stored rows to the schema to read."""
    if "logits" in schema.names and part.schema.field("logits").type != schema.field("logits").type:
        part = as_floats(part, np.float32)
    return part.cast(schema)
