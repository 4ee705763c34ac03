"""The logit data set: Parquet shards with the text, its lineage and the teacher's logits. Training reads nothing else.

- README.md: the data set's card, which `datasets.load_dataset(folder)` reads as well;
- manifest.json: format, provenance, and path, split, rows, sha256 and rows_digest of each shard;
- data/<split>-<16 hex>.parquet: the rows; a shard is named by the start of its sha256.

Every function that reads a folder raises InputError if there is no data set, or one of another format.
"""

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import tables
from pipeline.errors import InputError
from pipeline.logits.shards import ROW_GROUP_ROWS, cast, has_origin, shard_schema
from pipeline.places.place import Place
from pipeline.storage import read_json, sha256_of, why_skipped

logger = logging.getLogger(__name__)

COLUMNS = ("id", "sentence1", "sentence2", "label", "parent_id", "logits")
"""The columns for training and evaluation; training also reads origin where the data set has it, see `columns_of`."""

FORMATS = (1, 2)
"""The versions of this layout that can be read; readers refuse any other. Version 2 has unlabelled text: the column origin, and `unlabelled` in the
provenance. A reader of version 1 would take these rows for originals."""


DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, pa.ArrowException)
"""What the libraries that read a damaged file raise."""

READABLE = f"this version reads the formats {' and '.join(map(str, FORMATS))}"


def format_of(provenance: Mapping[str, Any]) -> int:
    """Return the version of the layout that a data set is written in, the lowest that has all it needs."""
    return 2 if has_origin(provenance) else 1


@contextmanager
def naming_damage(folder: Place) -> Iterator[None]:
    """Raise what reading a damaged data set raises as an InputError that names its folder.

    :raises InputError: If the block raises one of DAMAGE.
    """
    try:
        yield
    except DAMAGE as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise InputError(f"{folder}: damaged: {why}; `offline-distill verify {folder}` lists the faults") from error


def manifest(folder: Place) -> dict[str, Any]:
    """Return manifest.json of a logit data set: format, provenance, shards."""
    path = folder / "manifest.json"
    try:
        found: Any = read_json(path)
    except FileNotFoundError as error:
        if isinstance(folder, Path) and (why := why_skipped(folder)):
            raise InputError(f"{folder}: no logits: {why}") from error
        raise InputError(
            f"{path}: no such file, so {folder} is not a logit data set; make it with `dvc repro` or fetch it with `dvc pull`"
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}; write it again with `dvc repro --force`") from error
    if isinstance(found, dict) and found.get("format") not in FORMATS:
        raise InputError(f"{path}: format {found.get('format')!r}; {READABLE}")
    parts = [found.get(key) for key in ("provenance", "shards")] if isinstance(found, dict) else []
    if [type(part) for part in parts] != [dict, list]:
        raise InputError(
            f"{path}: must have a mapping `provenance` and a list `shards`; write it again with `dvc repro --force` or fetch it with `dvc pull`"
        )
    return dict(found)


def provenance(folder: Place) -> dict[str, Any]:
    """Return the provenance of a logit data set: task, labels, teacher, augmentation, source, versions, rows."""
    return dict(manifest(folder)["provenance"])


def columns_of(provenance: Mapping[str, Any], columns: Sequence[str] = COLUMNS) -> list[str]:
    """Return columns, and origin where the data set has it: with parent_id, it tells `tables.is_of` where a row comes from."""
    return [*columns, "origin"] if has_origin(provenance) else [*columns]


def licence_of(provenance: Mapping[str, Any]) -> str:
    """Return the licence of the text: that of the source, and of the unlabelled text if it has another one."""
    parts = [provenance.get("source", {}), *([provenance["unlabelled"]] if has_origin(provenance) else [])]
    return " and ".join(dict.fromkeys(str(part.get("licence") or "unknown") for part in parts))


def shard_paths(folder: Place) -> dict[str, list[Place]]:
    """Return the shards of each split that has rows, in the order of the rows."""
    found: dict[str, list[Place]] = {}
    for shard in manifest(folder)["shards"]:
        found.setdefault(shard["split"], []).append(folder / shard["path"])
    return found


def intact_shards(folder: Path) -> Iterator[Path]:
    """Yield the shards whose sha256 is that of the manifest, and log a warning for each other one."""
    for shard in manifest(folder)["shards"]:
        path = folder / shard["path"]
        if path.is_file() and sha256_of(path) == shard["sha256"]:
            yield path
        else:
            fault = "its sha256 is not that of manifest.json" if path.is_file() else "is missing"
            logger.warning("%s: %s; the shard is skipped", path, fault)


def read_split(folder: Path, split: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of one split, in the order in which they were written.

    :param split: train, validation or test.
    :param columns: The columns to read; None for all.
    :return: The rows, in the types of `tables.logits_schema(C)`: float32, also where float16 is stored.
    :raises InputError: If the data set or the split does not exist, or the shards are not those of the manifest.
    """
    stored, schema, paths = _opened(folder, columns, split)
    parts = [cast(tables.read(path, stored), schema) for path in paths]
    return pa.concat_tables([schema.empty_table(), *parts]).unify_dictionaries()


def read_labelled(folder: Path, split: str, columns: Sequence[str]) -> pa.Table | None:
    """Return the rows of a split that have a gold label; None if there are none, or the split does not exist.

    :param columns: The columns to read, with `label`.
    :raises InputError: As `read_split`.
    """
    if split not in provenance(folder)["rows"]:
        return None
    rows = read_split(folder, split, columns)
    rows = rows.filter(pc.is_valid(rows["label"]))
    return rows if rows.num_rows else None


def stream_split(folder: Path, split: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the rows of `read_split`, at most ROW_GROUP_ROWS at a time.

    :raises InputError: As `read_split`.
    """
    stored, schema, paths = _opened(folder, columns, split)
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(ROW_GROUP_ROWS, columns=stored.names):
                yield cast(pa.Table.from_batches([batch]), schema)


def read_rows(
    folder: Path, rows: npt.NDArray[np.int64], columns: Sequence[str] | None, split: str | None = None
) -> pa.Table:
    """Return rows by number. Only the row groups that hold them are read, one at a time.

    :param rows: Row numbers, ascending. They count through a split, or through all splits, in the order of `rows` in the provenance.
    :param columns: The columns to read; None for all.
    :param split: The split; None for all splits.
    :return: As `read_split`.
    :raises InputError: As `read_split`.
    """
    stored, schema, paths = _opened(folder, columns, split)
    parts, first = [schema.empty_table()], 0
    for path in paths:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                after = first + file.metadata.row_group(group).num_rows
                low, high = np.searchsorted(rows, [first, after])
                if low < high:
                    try:
                        part = file.read_row_group(group, columns=stored.names).select(stored.names).cast(stored)
                    except (pa.ArrowException, OSError, ValueError) as error:
                        raise InputError(f"{path}: cannot be read as a shard: {error}") from error
                    parts.append(cast(part.take(pa.array(rows[low:high] - first)), schema))
                first = after
    return pa.concat_tables(parts).unify_dictionaries()


def copy(folder: Path, out: Path) -> None:
    """Copy the files of a data set, and no other files of its folder.

    :param out: An empty folder.
    :raises InputError: If there is no data set, or the shards are not those of the manifest.
    """
    _refuse_other_shards(folder)
    (out / "data").mkdir()
    for name in ("README.md", "manifest.json", *(shard["path"] for shard in manifest(folder)["shards"])):
        shutil.copyfile(folder / name, out / name)


def _refuse_other_shards(folder: Path) -> None:
    """Refuse a data set with a shard that is missing or not in the manifest."""
    named = {shard["path"] for shard in manifest(folder)["shards"]}
    found = {f"data/{path.name}" for path in (folder / "data").glob("*.parquet")}
    for path in sorted(named ^ found):
        fault = "is missing" if path in named else "is not in manifest.json"
        raise InputError(
            f"{folder / path}: {fault}; write the data set again with `dvc repro` or fetch it with `dvc pull`"
        )


def _opened(
    folder: Path, columns: Sequence[str] | None, split: str | None = None
) -> tuple[pa.Schema, pa.Schema, list[Path]]:
    """Return the schema of the files, the schema to read, and the shards of a split (None: of all splits), after checks of all of these."""
    _refuse_other_shards(folder)
    found = manifest(folder)
    about = found["provenance"]
    splits = list(about["rows"]) if split is None else [split]
    if not set(splits) <= set(about["rows"]):
        raise InputError(f"{folder}: has no split {split!r} (it has {', '.join(about['rows'])})")
    stored, schema = shard_schema(about), tables.logits_schema(len(about["labels"]), origin=has_origin(about))
    if columns is not None:
        stored, schema = (pa.schema([of.field(name) for name in columns]) for of in (stored, schema))
    shards = [shard for name in splits for shard in found["shards"] if shard["split"] == name]
    paths = [folder / shard["path"] for shard in shards]
    for path, shard in zip(paths, shards, strict=True):
        tables.check(path, stored)
        if (rows := pq.read_metadata(path).num_rows) != shard["rows"]:
            raise InputError(
                f"{path}: has {rows} rows, manifest.json has {shard['rows']}; "
                "write the data set again with `dvc repro --force` or fetch it with `dvc pull`"
            )
    return stored, schema, paths
