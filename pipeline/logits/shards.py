"""A shard of a logit data set: one Parquet file, with its schema, encodings and digest. `dataset.py` has the folder."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

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


class Stream(NamedTuple):
    """Rows as a sequence of tables, which are not in memory together."""

    num_rows: int
    parts: Iterable[pa.Table]
    """The tables; they can be read once."""


def write_shards(folder: Path, split: str, rows: pa.Table | Stream, schema: pa.Schema) -> Iterator[dict[str, Any]]:
    """Write the shards of a split into a folder.

    :param rows: The rows, as `tables.logits_schema(C)`.
    :param schema: The schema from `shard_schema`.
    :yields: The manifest's entry of each shard.
    :raises InputError: If logits are too large for float16.
    """
    half = schema.field("logits").type.value_type == pa.float16()
    encodings = {} if half else {"logits.list.element": "BYTE_STREAM_SPLIT"}
    parts = (cast(part, schema) for part in (rows.parts if isinstance(rows, Stream) else [rows]))
    for table in _regrouped(parts):  # An empty split has no shard: datasets fails on one without rows.
        # One chunk a column, so that page boundaries depend on the rows and not on the batches in which they came.
        shard = table.combine_chunks()
        sink = pa.BufferOutputStream()
        pq.write_table(  # small files in bench/logits.py, which pyarrow, polars, DuckDB and datasets all read
            shard,
            sink,
            row_group_size=ROW_GROUP_ROWS,
            compression="zstd",
            # Ids and texts are unique: their dictionary would be built and discarded.
            use_dictionary=[name for name in schema.names if name not in (*_TEXTS, "logits")],
            column_encoding=dict.fromkeys(_TEXTS, "DELTA_LENGTH_BYTE_ARRAY") | encodings,
            write_statistics=False,  # no reader filters by a range of texts or of random ids
        )
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


def cast(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows in another schema, which may store the logits in another precision.

    :raises InputError: If a finite logit is out of range.
    """
    wanted = schema.field("logits").type if "logits" in schema.names else None
    if wanted is not None and rows.schema.field("logits").type != wanted:
        values, dtype = logits_of(rows), wanted.value_type.to_pandas_dtype()
        with np.errstate(over="ignore"):
            found = values.astype(dtype)
        if (lost := np.flatnonzero((np.isfinite(values) & ~np.isfinite(found)).any(axis=1))).size:
            raise InputError(
                f"logits {values[lost[0]].tolist()} are out of range for {np.dtype(dtype)}; set label.stored: float32 for this teacher"
            )
        rows = with_logits(rows, found)
    return rows.cast(schema)


def with_logits(rows: pa.Table, values: NDArray[Any]) -> pa.Table:
    """Return rows with other logits, an array [n, C]."""
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    field = pa.field("logits", column.type, nullable=False)
    return rows.set_column(rows.schema.get_field_index("logits"), field, column)


def logits_of(rows: pa.Table) -> np.ndarray[Any, np.dtype[Any]]:
    """Return the column logits of rows as an array [n, C], in the precision of the column."""
    column = rows["logits"]
    values = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    empty = np.empty(0, column.type.value_type.to_pandas_dtype())
    return np.concatenate([empty, *values]).reshape(-1, column.type.list_size)


def finite_logits(rows: pa.Table, classes: int) -> NDArray[np.float32]:
    """Return the logits of rows as float32 [n, C], all of them finite.

    :param rows: Rows with the columns id and logits.
    :raises InputError: If the logits have another number of classes, or one is not finite.
    """
    width = rows["logits"].type.list_size
    if width != classes:
        raise InputError(f"the logits have {width} classes, but the data set has {classes}")
    logits = logits_of(rows).astype(np.float32)
    for row in np.flatnonzero(~np.isfinite(logits).all(axis=1)).tolist():
        raise InputError(f"row {rows['id'][row]}: logits {logits[row].tolist()} are not finite; label the text again")
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
                joined = pc.binary_join(pa.ListArray.from_arrays([0, len(chunk)], chunk), "")
                digest.update(joined[0].as_buffer())
    return digest.hexdigest()


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
    """Return the precision of the stored logits, float32 or float16."""
    return str(provenance.get("labelling", {}).get("stored", "float32"))


def has_origin(provenance: Mapping[str, Any]) -> bool:
    """Return whether the rows have the column origin, as those of data sets with unlabelled text have."""
    return "unlabelled" in provenance


def shard_schema(provenance: Mapping[str, Any]) -> pa.Schema:
    """Return the schema of the shards: `tables.logits_schema(C)` in the types of `datasets`, with the metadata of `datasets` and our own.

    :param provenance: The data set's, of which `labels`, `labelling.stored` and the presence of `unlabelled` count.
    """
    labels, stored = list(provenance["labels"]), stored_as(provenance)
    schema = tables.logits_schema(len(labels), pa.type_for_alias(stored), has_origin(provenance))
    for i, field in enumerate(schema):
        if pa.types.is_dictionary(field.type):
            schema = schema.set(i, field.with_type(field.type.value_type))
        elif field.name == "label" and len(labels) > 1:  # datasets drops the class names of any other type
            schema = schema.set(i, field.with_type(pa.int64()))
    features: dict[str, Any] = {field.name: {"dtype": str(field.type), "_type": "Value"} for field in schema}
    number = {"dtype": "float32", "_type": "Value"}  # the Arrow type is called float
    features["label"] = {"names": labels, "_type": "ClassLabel"} if len(labels) > 1 else number
    features["logits"] = {  # the format of datasets < 4: later versions read it, while older ones fail on "List"
        "feature": {"dtype": stored, "_type": "Value"},
        "length": len(labels),
        "_type": "Sequence",
    }
    info = json.dumps({"info": {"features": features}}, ensure_ascii=False)
    return tables.with_metadata(schema.with_metadata({"huggingface": info}), provenance)
