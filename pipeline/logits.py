"""The logit data set: Parquet shards with the text, its lineage and the teacher's logits. Whatever trains a student reads this alone.

- README.md: the data set's card, which `datasets.load_dataset(folder)` reads too;
- manifest.json: format, provenance, and path, split, rows, sha256 and rows_digest of each shard;
- data/<split>-<16 hex>.parquet: the rows; a shard is named by the start of its sha256.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import card, tables
from pipeline.errors import InputError
from pipeline.storage import new_file, read_json, remove_temporaries, sha256_of, write_json, write_text

logger = logging.getLogger(__name__)

FORMAT = 1
"""The version of the layout above; a reader refuses a later one."""

SHARD_ROWS = 1_000_000
"""Rows in a shard: few large files, 100 to 250 MB each with sentences."""

ROW_GROUP_ROWS = 131_072
"""Rows that a reader of a part of a shard reads at once."""

_TEXTS = ("id", "sentence1", "sentence2")


@dataclass(frozen=True)
class Stream:
    """Rows that come a table at a time, so that they need not be in memory together.

    :param num_rows: How many there are in all.
    :param parts: The tables; they can be read once.
    """

    num_rows: int
    parts: Iterable[pa.Table]


def write(folder: Path, splits: Mapping[str, pa.Table | Stream], provenance: Mapping[str, Any]) -> None:
    """Write a logit data set, or bring the one that is there up to date. The same rows and provenance give the same bytes.

    New shards are written first, then the card and the manifest, and only then are shards that the manifest does not name
    removed: what a killed run leaves is never read as something whole, and the next run cleans up.

    :param folder: The data set's folder; it may exist.
    :param splits: The rows of each split, as `tables.logits_schema(C)`; a shard's are in memory at a time.
    :param provenance: Where the rows come from, as JSON. Its `labels` are the C class names in the order of the logits;
        `rows`, the rows of each split, is added here. Where its `labelling` says `stored: float16`, the logits are stored so.
    :raises InputError: If logits are too large for float16.
    """
    (folder / "data").mkdir(parents=True, exist_ok=True)
    provenance = {**provenance, "rows": {split: table.num_rows for split, table in splits.items()}}
    schema = _stored_schema(provenance)
    shards: list[dict[str, Any]] = [
        shard for split, table in splits.items() for shard in _write_shards(folder / "data", split, table, schema)
    ]
    write_text(folder / "README.md", card.card(folder, provenance, shards))
    write_json(folder / "manifest.json", {"format": FORMAT, "provenance": provenance, "shards": shards})
    remove_temporaries(folder)
    named = {folder / shard["path"] for shard in shards}
    for path in sorted((folder / "data").iterdir()):  # and the temporary files of killed runs
        if path not in named:
            logger.info("removing %s, which is no part of the data set any more", path)
            path.unlink()


def _write_shards(folder: Path, split: str, rows: pa.Table | Stream, schema: pa.Schema) -> Iterator[dict[str, Any]]:
    """Write the shards of a split, and yield what the manifest says of each."""
    parts = (_stored(part, schema) for part in (rows.parts if isinstance(rows, Stream) else [rows]))
    for table in _regrouped(parts):  # An empty split has no shard: datasets fails on one without rows.
        # One chunk a column: where pages end in the file must follow from the rows, not from how they came together.
        shard = table.combine_chunks()
        sink = pa.BufferOutputStream()
        pq.write_table(shard, sink, row_group_size=ROW_GROUP_ROWS, **_parquet(schema))
        content = sink.getvalue()
        sha256 = hashlib.sha256(content).hexdigest()
        path = folder / f"{split}-{sha256[:16]}.parquet"
        with new_file(path) as temporary:
            temporary.write_bytes(content)
        yield {
            "path": f"data/{path.name}",
            "split": split,
            "rows": shard.num_rows,
            "sha256": sha256,
            "rows_digest": rows_digest(shard),
        }


def _parquet(schema: pa.Schema) -> dict[str, Any]:
    """Return how shards are written: what bench/logits.py found small, and all of pyarrow, polars, DuckDB and datasets read."""
    half = schema.field("logits").type.value_type == pa.float16()
    return {
        "compression": "zstd",
        # Each id and text is there once: a dictionary of them would be built and thrown away.
        "use_dictionary": [name for name in schema.names if name not in (*_TEXTS, "logits")],
        "column_encoding": {
            **dict.fromkeys(_TEXTS, "DELTA_LENGTH_BYTE_ARRAY"),
            **({} if half else {"logits.list.element": "BYTE_STREAM_SPLIT"}),
        },
        "write_statistics": False,  # nobody looks for a range of texts or of random ids
    }


def _stored(part: pa.Table, schema: pa.Schema) -> pa.Table:
    """Cast rows to the types of the files."""
    if schema.field("logits").type.value_type == pa.float16():
        part = as_floats(part, np.float16)
    return part.cast(schema)


def as_floats(rows: pa.Table, dtype: type[np.float16] | type[np.float32]) -> pa.Table:
    """Return rows with their logits in another precision.

    :param rows: Rows with the column logits.
    :param dtype: float16 or float32.
    :raises InputError: If a finite logit is beyond what the precision holds.
    """
    index = rows.schema.get_field_index("logits")
    values = logits_of(rows)
    with np.errstate(over="ignore"):
        found = values.astype(dtype)
    if (lost := np.flatnonzero((np.isfinite(values) & ~np.isfinite(found)).any(axis=1))).size:
        raise InputError(
            f"logits {values[lost[0]].tolist()} do not fit {np.dtype(dtype)}; set label.stored: float32 for this teacher"
        )
    column = pa.FixedSizeListArray.from_arrays(pa.array(found.ravel()), values.shape[1])
    return rows.set_column(index, pa.field("logits", column.type, nullable=False), column)


def logits_of(rows: pa.Table) -> np.ndarray[Any, np.dtype[Any]]:
    """Return the logits of rows as an array [n, C] of the precision that they have.

    :param rows: Rows with the column logits.
    """
    column = rows["logits"]
    values = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    empty = np.empty(0, column.type.value_type.to_pandas_dtype())
    return np.concatenate([empty, *values]).reshape(-1, column.type.list_size)


def rows_digest(rows: pa.Table) -> str:
    """Return a digest of what hangs on each id, whatever the order of the rows: whose label, lineage and logits are whose.

    A shard's sha256 tells of any change of its bytes, but whoever rewrites a shard writes a new sha256 too; this one is of the content.

    :param rows: Rows as they are stored. Their sentences are left out: the id is the hash of those.
    :return: SHA-256, in hex, of the columns but the sentences, in the order of the schema, with the rows sorted by id. Of a column of strings
        (null: empty) the lengths as little-endian int32, then the UTF-8; of integers (null: -1) little-endian int32; of the label of a regression
        (null: NaN) and of logits little-endian floats.
    """
    order = pc.sort_indices(rows, [("id", "ascending")])
    digest = hashlib.sha256()
    for name in rows.column_names:
        column = rows[name]
        if name == "logits":
            values = logits_of(rows)[order.to_numpy()]
            digest.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
        elif pa.types.is_floating(column.type):
            digest.update(pc.fill_null(column, np.nan).take(order).to_numpy().astype("<f4").tobytes())
        elif pa.types.is_integer(column.type):
            digest.update(pc.fill_null(column.cast(pa.int32()), -1).take(order).to_numpy().astype("<i4").tobytes())
        elif name not in _TEXTS[1:]:
            strings = pc.fill_null(column.cast(pa.string()), "").take(order)
            digest.update(pc.binary_length(strings).to_numpy().astype("<i4").tobytes())
            for chunk in strings.chunks:
                if len(chunk):
                    start, end = _ends(chunk)
                    digest.update(memoryview(chunk.buffers()[2] or b"")[start:end])
    return digest.hexdigest()


def _ends(strings: pa.StringArray) -> tuple[int, int]:
    """Return where the letters of an array of strings begin and end in its buffer."""
    offsets = np.frombuffer(strings.buffers()[1], np.int32)
    return int(offsets[strings.offset]), int(offsets[strings.offset + len(strings)])


def _regrouped(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the same rows SHARD_ROWS at a time."""
    waiting: list[pa.Table] = []
    for part in parts:
        while part.num_rows:
            missing = SHARD_ROWS - sum(table.num_rows for table in waiting)
            waiting.append(part.slice(0, missing))
            part = part.slice(missing)
            if waiting[-1].num_rows == missing:
                yield pa.concat_tables(waiting)
                waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


_DTYPES = {"float32": pa.float32(), "float16": pa.float16()}


def stored_as(provenance: Mapping[str, Any]) -> str:
    """Return the precision of the stored logits, float32 or float16, as a data set's provenance says."""
    return str(provenance.get("labelling", {}).get("stored", "float32"))


def _stored_schema(provenance: Mapping[str, Any]) -> pa.Schema:
    """Return the schema of the shards: `tables.logits_schema(C)` in the types of `datasets`, with its metadata and ours."""
    schema = tables.logits_schema(len(provenance["labels"]), _DTYPES[stored_as(provenance)])
    for i, field in enumerate(schema):
        if pa.types.is_dictionary(field.type):
            schema = schema.set(i, field.with_type(field.type.value_type))
        elif (
            pa.types.is_integer(field.type) and field.name == "label"
        ):  # a ClassLabel is int64; datasets drops the class names from any other
            schema = schema.set(i, field.with_type(pa.int64()))
    features: dict[str, Any] = {
        field.name: {"dtype": str(field.type), "_type": "Value"} for field in schema if field.name != "logits"
    }
    if len(provenance["labels"]) > 1:
        features["label"] = {"names": list(provenance["labels"]), "_type": "ClassLabel"}
    else:  # a number, whose type Arrow calls float
        features["label"] = {"dtype": "float32", "_type": "Value"}
    logits = schema.field("logits").type
    features["logits"] = {  # as datasets < 4 wrote it; later ones read it, while older ones fail on "List"
        "feature": {"dtype": stored_as(provenance), "_type": "Value"},
        "length": logits.list_size,
        "_type": "Sequence",
    }
    info = json.dumps({"info": {"features": features}}, ensure_ascii=False)
    return tables.with_metadata(schema.with_metadata({"huggingface": info}), provenance)


def _shards_in(folder: Path) -> list[str]:
    return [f"data/{path.name}" for path in sorted((folder / "data").glob("*.parquet"))]


def manifest(folder: Path) -> dict[str, Any]:
    """Return manifest.json of a logit data set: format, provenance, shards.

    :param folder: The data set's folder.
    :raises InputError: If there is no data set, or one of a later format.
    """
    path = folder / "manifest.json"
    try:
        found: dict[str, Any] = read_json(path)
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: no such file, so {folder} is no logit data set; make it with `dvc repro` or fetch it with `dvc pull`"
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}; make it anew with `dvc repro --force`") from error
    if found.get("format") != FORMAT:
        raise InputError(f"{path}: format {found.get('format')!r}; this version reads format {FORMAT}")
    return found


def provenance(folder: Path) -> dict[str, Any]:
    """Return where a logit data set comes from: task, labels, teacher, augmentation, source, versions, rows.

    :param folder: The data set's folder.
    :raises InputError: If there is no data set, or one of a later format.
    """
    found: dict[str, Any] = manifest(folder)["provenance"]
    return found


def shards(folder: Path) -> dict[str, list[Path]]:
    """Return the shards of each split that has rows, in the order of the rows.

    :param folder: The data set's folder.
    :raises InputError: If there is no data set, or one of a later format.
    """
    found: dict[str, list[Path]] = {}
    for shard in manifest(folder)["shards"]:
        found.setdefault(shard["split"], []).append(folder / shard["path"])
    return found


def stored_schema(folder: Path) -> pa.Schema:
    """Return the schema of the shards as they are in the files, which `read_split` turns into `tables.logits_schema(C)`.

    :param folder: The data set's folder.
    :raises InputError: If there is no data set, or one of a later format.
    """
    return _stored_schema(provenance(folder))


def intact_shards(folder: Path) -> Iterator[Path]:
    """Yield the shards whose bytes are those that the manifest tells of; a warning names each that is missing or altered.

    :param folder: The data set's folder.
    :raises InputError: If there is no data set, or one of a later format.
    """
    for shard in manifest(folder)["shards"]:
        path = folder / shard["path"]
        if path.is_file() and sha256_of(path) == shard["sha256"]:
            yield path
        else:
            fault = "is altered" if path.is_file() else "is missing"
            logger.warning("%s: %s: its sha256 is not that of manifest.json, so nothing is taken from it", path, fault)


def read_split(folder: Path, split: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the rows of one split, in the order in which they were written.

    :param folder: The data set's folder.
    :param split: train, validation or test.
    :param columns: The columns to read; all where None.
    :return: The rows, in the types of `tables.logits_schema(C)`: float32, however they are stored.
    :raises InputError: If there is no data set or no such split, or the shards are not those that the manifest names.
    """
    stored, schema = _schemas_of(folder, split, columns)
    parts = [schema.empty_table()]
    for shard in manifest(folder)["shards"]:
        if shard["split"] == split:
            part = tables.read(folder / shard["path"], stored, columns)
            _refuse_other_count(folder, shard, part.num_rows)
            parts.append(_as_read(part, schema))
    return pa.concat_tables(parts).unify_dictionaries()


def stream_split(folder: Path, split: str) -> Iterator[pa.Table]:
    """Yield what `read_split` returns, at most ROW_GROUP_ROWS rows at a time.

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
    """Read some rows of all splits, and of the shards only the row groups that hold them, one at a time.

    :param folder: The data set's folder.
    :param rows: Their numbers, ascending, counted through the splits in the order of the provenance's `rows`.
    :param columns: The columns to read.
    :return: As `read_split`.
    :raises InputError: As `read_split`.
    """
    refuse_other_shards(folder)
    about = manifest(folder)
    stored = _stored_schema(about["provenance"])
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
                        raise InputError(f"{folder / shard['path']}: does not hold what it should: {error}") from error
                    parts.append(_as_read(part.take(pa.array(rows[low:high] - first)), schema))
                first = after
    return pa.concat_tables(parts).unify_dictionaries()


def copy(folder: Path, out: Path) -> None:
    """Copy a data set: the files that belong to it, and no others.

    :param folder: The data set's folder.
    :param out: An empty folder.
    :raises InputError: If there is no data set, or the shards are not those that the manifest names.
    """
    refuse_other_shards(folder)
    (out / "data").mkdir()
    for name in ("README.md", "manifest.json", *(shard["path"] for shard in manifest(folder)["shards"])):
        shutil.copyfile(folder / name, out / name)


def refuse_other_shards(folder: Path) -> None:
    """Refuse a data set whose shards are not those that the manifest names.

    :param folder: The data set's folder.
    :raises InputError: If one is missing or too many; or if there is no data set, or one of a later format.
    """
    named = {shard["path"] for shard in manifest(folder)["shards"]}
    for path in sorted(named ^ set(_shards_in(folder))):
        fault = "is missing" if path in named else "is not in manifest.json"
        raise InputError(
            f"{folder / path}: {fault}; write the data set anew with `dvc repro` or fetch it with `dvc pull`"
        )


def _schemas_of(folder: Path, split: str, columns: Sequence[str] | None) -> tuple[pa.Schema, pa.Schema]:
    """Return the schemas of a split's rows as they are stored and as they are read, after a look at what is there."""
    refuse_other_shards(folder)
    about = provenance(folder)
    if split not in about["rows"]:
        raise InputError(f"{folder}: has no split {split!r} (it has {', '.join(about['rows'])})")
    return _stored_schema(about), _read_schema(about, columns)


def _read_schema(about: Mapping[str, Any], columns: Sequence[str] | None) -> pa.Schema:
    schema = tables.logits_schema(len(about["labels"]))
    return schema if columns is None else pa.schema([schema.field(name) for name in columns])


def _refuse_other_count(folder: Path, shard: Mapping[str, Any], rows: int) -> None:
    if rows != shard["rows"]:
        raise InputError(
            f"{folder / shard['path']}: holds {rows} rows, manifest.json says {shard['rows']}; "
            "write the data set anew with `dvc repro --force` or fetch it with `dvc pull`"
        )


def _as_read(part: pa.Table, schema: pa.Schema) -> pa.Table:
    """Cast stored rows to the types in which they are read."""
    if "logits" in schema.names and part.schema.field("logits").type != schema.field("logits").type:
        part = as_floats(part, np.float32)
    return part.cast(schema)
