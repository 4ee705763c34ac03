"""A shard of a logit data set: one Parquet file, with its schema, encodings and digest. `dataset.py` has the folder."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import tables
from pipeline.errors import InputError
from pipeline.storage import new_file

SHARD_ROWS = 1_000_000
"""Rows in a shard: few large files, 100 to 250 MB each with sentences."""

ROW_GROUP_ROWS = 131_072
"""Rows that are read at once from a shard."""

_TEXTS = ("id", "sentence1", "sentence2")


@dataclass(frozen=True)
class Stream:
    """Rows as a sequence of tables, which are not in memory together.

    :param num_rows: The total number of rows.
    :param parts: The tables; they can be read once.
    """

    num_rows: int
    parts: Iterable[pa.Table]


def write_shards(folder: Path, split: str, rows: pa.Table | Stream, schema: pa.Schema) -> Iterator[dict[str, Any]]:
    """Write the shards of a split.

    :param folder: The folder for the files.
    :param split: The split.
    :param rows: The rows, as `tables.logits_schema(C)`.
    :param schema: The schema from `shard_schema`.
    :yields: The manifest's entry of each shard.
    :raises InputError: If logits are too large for float16.
    """
    parts = (_stored(part, schema) for part in (rows.parts if isinstance(rows, Stream) else [rows]))
    for table in _regrouped(parts):  # An empty split has no shard: datasets fails on one without rows.
        # One chunk a column, so that page boundaries depend on the rows and not on the batches in which they came.
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
    """Return the options of `pq.write_table`: small files in bench/logits.py, which pyarrow, polars, DuckDB and datasets all read."""
    half = schema.field("logits").type.value_type == pa.float16()
    return {
        "compression": "zstd",
        # Ids and texts are unique: their dictionary would be built and discarded.
        "use_dictionary": [name for name in schema.names if name not in (*_TEXTS, "logits")],
        "column_encoding": {
            **dict.fromkeys(_TEXTS, "DELTA_LENGTH_BYTE_ARRAY"),
            **({} if half else {"logits.list.element": "BYTE_STREAM_SPLIT"}),
        },
        "write_statistics": False,  # no reader filters by a range of texts or of random ids
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
    :raises InputError: If a finite logit is out of range.
    """
    index = rows.schema.get_field_index("logits")
    values = logits_of(rows)
    with np.errstate(over="ignore"):
        found = values.astype(dtype)
    if (lost := np.flatnonzero((np.isfinite(values) & ~np.isfinite(found)).any(axis=1))).size:
        raise InputError(
            f"logits {values[lost[0]].tolist()} are out of range for {np.dtype(dtype)}; set label.stored: float32 for this teacher"
        )
    column = pa.FixedSizeListArray.from_arrays(pa.array(found.ravel()), values.shape[1])
    return rows.set_column(index, pa.field("logits", column.type, nullable=False), column)


def logits_of(rows: pa.Table) -> np.ndarray[Any, np.dtype[Any]]:
    """Return the logits of rows as an array [n, C], in the precision of the column.

    :param rows: Rows with the column logits.
    """
    column = rows["logits"]
    values = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    empty = np.empty(0, column.type.value_type.to_pandas_dtype())
    return np.concatenate([empty, *values]).reshape(-1, column.type.list_size)


def finite_logits(rows: pa.Table, classes: int) -> NDArray[np.float32]:
    """Return the logits of rows as float32 [n, C], all of them finite.

    :param rows: Rows with the columns id and logits.
    :param classes: The number of classes C.
    :raises InputError: If the logits have another number of classes, or one is not finite.
    """
    width = rows["logits"].type.list_size
    if width != classes:
        raise InputError(f"the logits are of {width} classes, the data set names {classes}")
    logits = logits_of(rows).astype(np.float32)
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        row = int((~finite).argmax())
        raise InputError(
            f"row {rows['id'][row].as_py()}: logits {logits[row].tolist()} are not finite; label the text again"
        )
    return logits


def rows_digest(rows: pa.Table) -> str:
    """Return a digest of label, lineage and logits by id, which does not depend on the order of the rows.

    A shard's sha256 shows any change of its bytes, but a tool that rewrites a shard also writes a new sha256. This digest is of the content.

    :param rows: Rows as they are stored.
    :return: SHA-256, in hex, of all columns but the sentences (the id is their hash), in the order of the schema, with the rows sorted by id.
        Of strings (null: empty), the lengths as little-endian int32, then the UTF-8; of integers (null: -1), little-endian int32; of the
        label of a regression (null: NaN) and of logits, little-endian floats.
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
    """Return the start and end of an array of strings in its buffer."""
    offsets = np.frombuffer(strings.buffers()[1], np.int32)
    return int(offsets[strings.offset]), int(offsets[strings.offset + len(strings)])


def _regrouped(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the same rows, SHARD_ROWS at a time."""
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


def stored_as(provenance: Mapping[str, Any]) -> str:
    """Return the precision of the stored logits, float32 or float16.

    :param provenance: The data set's provenance.
    """
    return str(provenance.get("labelling", {}).get("stored", "float32"))


def shard_schema(provenance: Mapping[str, Any]) -> pa.Schema:
    """Return the schema of the shards: `tables.logits_schema(C)` in the types of `datasets`, with the metadata of `datasets` and our own.

    :param provenance: The data set's, of which `labels` and `labelling.stored` count.
    """
    schema = tables.logits_schema(len(provenance["labels"]), pa.type_for_alias(stored_as(provenance)))
    for i, field in enumerate(schema):
        if pa.types.is_dictionary(field.type):
            schema = schema.set(i, field.with_type(field.type.value_type))
        elif (
            pa.types.is_integer(field.type) and field.name == "label"
        ):  # a ClassLabel is int64; datasets drops the class names of any other type
            schema = schema.set(i, field.with_type(pa.int64()))
    features: dict[str, Any] = {
        field.name: {"dtype": str(field.type), "_type": "Value"} for field in schema if field.name != "logits"
    }
    if len(provenance["labels"]) > 1:
        features["label"] = {"names": list(provenance["labels"]), "_type": "ClassLabel"}
    else:  # a number, whose Arrow type is called float
        features["label"] = {"dtype": "float32", "_type": "Value"}
    logits = schema.field("logits").type
    features["logits"] = {  # the format of datasets < 4: later versions read it, while older ones fail on "List"
        "feature": {"dtype": stored_as(provenance), "_type": "Value"},
        "length": logits.list_size,
        "_type": "Sequence",
    }
    info = json.dumps({"info": {"features": features}}, ensure_ascii=False)
    return tables.with_metadata(schema.with_metadata({"huggingface": info}), provenance)
