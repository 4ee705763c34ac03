"""Reads the rows of a file as columns, in blocks: the fast way, for the parts of a file in which nothing is wrong.

A block is read as columns only where it is certain that records.py would read the same. Otherwise the block is made smaller, down to SMALLEST
bytes, and records.py reads those row by row.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
from numpy.typing import NDArray

from pipeline.places.place import Place
from pipeline.text import formats
from pipeline.text.records import (
    BLOCK,
    Delimited,
    JsonLines,
    Record,
    Spanning,
    as_bytes,
    as_text,
    check_format,
    check_type,
    fields_of_any_size,
    open_reader,
    parquet_batches,
    table_records,
    texts,
)
from pipeline.text.streams import BYTE_ORDER_MARK

SMALLEST = 1 << 16
"""Bytes of text that are read row by row where something is wrong with one of the rows."""
_LINES_INSIDE = 3
"""A row over fewer line ends is not looked at for rows inside: `Delimited.spanning` finds none there."""


@dataclass
class Block:
    """Rows without faults."""

    lines: NDArray[np.int64]
    values: list[pa.Array]  # of each column asked for, as strings
    spanning: dict[int, Spanning] = field(
        default_factory=dict
    )  # by position: rows of which the inner lines look like rows


@dataclass(frozen=True)
class _Found:
    rows: Block
    size: int  # bytes
    ends: int  # line ends


def read_columns(
    path: Place, name: str, asked_for: Sequence[str], quotes: bool | None = None
) -> Iterator[Block | list[Record]]:
    """Read a file in blocks of rows, as columns where that is certain, and otherwise as records.

    The arguments and errors are those of `records.read_records`.
    """
    if check_format(path, name, quotes) == ".parquet":
        for first, batch in parquet_batches(path, name, asked_for):
            yield table_columns(name, batch, asked_for, first)
        return
    with open_reader(path, name, asked_for, quotes) as reader:
        size = BLOCK
        while held := len(reader.stream.peek(size)):
            if block := _read_rows(reader, size):
                yield block.rows
                reader.stream.skip(block.size, block.ends)
                size = min(2 * size, BLOCK)
            elif size > SMALLEST:
                size = max(min(size, held) // 2, SMALLEST)
            else:
                yield list(_some_records(reader))
        reader.check_end()


def table_columns(name: str, table: pa.Table, asked_for: Sequence[str], first: int) -> Block | list[Record]:
    """Return some rows of a table as columns, or as records if a text is not UTF-8.

    :param name: The table's name in messages.
    :param first: The number of the first row.
    :raises InputError: If one of the columns holds lists or structs.
    """
    for column in asked_for:
        check_type(name, column, table.schema.field(column).type)
    try:
        values = [_as_strings(name, column, table[column]) for column in asked_for]
    except (pa.ArrowInvalid, UnicodeEncodeError):
        return list(table_records(name, table, asked_for, first))
    return Block(np.arange(first, first + len(table)), values)


def _as_strings(name: str, column: str, values: pa.ChunkedArray) -> pa.Array:
    values = as_bytes(values)
    kind = values.type
    exact = (pa.types.is_integer, pa.types.is_boolean, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_null)
    if any(is_kind(kind) for is_kind in exact):
        return values.combine_chunks().cast(pa.string())
    return pa.array(texts(name, column, values), pa.string())


def _some_records(reader: Delimited | JsonLines) -> Iterator[Record]:
    end = reader.stream.position + SMALLEST
    for record in reader.records():
        yield record
        if reader.stream.position >= end:
            return


def _read_rows(reader: Delimited | JsonLines, size: int) -> _Found | None:
    """Read the rows within the next `size` bytes; None if it is not certain that they are read as `reader.records` reads them."""
    data = reader.stream.peek(size)
    whole = reader.stream.ends_after(len(data))
    if isinstance(reader, JsonLines):
        return _read_json(reader, data, whole)
    quoted = reader.quoted and b'"' in data
    shape = _shape_with_quotes(data, whole, reader.separator) if quoted else _shape(data, whole)
    if shape is None:
        return None
    data = data[: shape.size]
    if b"\0" in data or data.count(b"\r") != data.count(b"\r\n"):
        return None
    names = list(map(str, range(reader.width)))
    # Arrow drops a byte order mark at the beginning of its buffer: U+FEFF is text there, except at the beginning of the file.
    buffer = BYTE_ORDER_MARK + data if data.startswith(BYTE_ORDER_MARK) else data
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(buffer),
            arrow_csv.ReadOptions(use_threads=False, block_size=len(buffer) + 1, column_names=names),
            arrow_csv.ParseOptions(
                delimiter=reader.separator,
                quote_char='"' if quoted else False,
                newlines_in_values=quoted,
                ignore_empty_lines=False,
            ),
            arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=[names[position] for position in reader.positions],
            ),
        )
    except pa.ArrowInvalid:  # another number of fields, or bytes that are not UTF-8
        return None
    if table.num_rows != len(shape.starts):
        return None
    lines = reader.stream.line + shape.starts
    values = [column.combine_chunks() for column in table.columns]
    spanning = _spanning(reader, data, shape, lines) if quoted else {}
    return _Found(Block(lines, values, spanning), shape.size, shape.ends)


@dataclass(frozen=True)
class _Shape:
    """Where rows begin in a block."""

    size: int  # bytes up to the end of the last whole row
    ends: int  # line ends
    starts: NDArray[np.int64]  # by row: the line ends before it
    places: NDArray[np.int64] | None = None  # with quotes, by row: its first byte


def _shape(data: bytes, whole: bool) -> _Shape | None:
    """Return where the rows of a block are if each is one line; None if one is empty, or none ends."""
    size = len(data) if whole else data.rfind(b"\n") + 1
    empty = data.startswith((b"\n", b"\r\n")) or any(data.find(end, 0, size) >= 0 for end in (b"\n\n", b"\n\r\n"))
    if not size or empty:
        return None
    ends = data.count(b"\n", 0, size)
    return _Shape(size, ends, np.arange(ends + (data[size - 1 : size] != b"\n")))


def _shape_with_quotes(data: bytes, whole: bool, separator: str) -> _Shape | None:
    """Return where the rows of a block are; None if a quote is neither at a border nor doubled, a row is empty, or none ends."""
    letters = np.frombuffer(data, np.uint8)
    quotes, ends = np.flatnonzero(letters == ord('"')), np.flatnonzero(letters == ord("\n"))
    outside = np.searchsorted(quotes, ends) % 2 == 0
    last = ends[outside]
    size = len(data) if whole else int(last[-1]) + 1 if len(last) else 0
    quotes, ends = quotes[: np.searchsorted(quotes, size)], ends[: np.searchsorted(ends, size)]
    if not size or len(quotes) % 2 or not formats.are_borders(data[:size], quotes, separator):
        return None
    places = np.append(0, last + 1)
    if places[-1] == size:
        places = places[:-1]
    first = letters[places]
    if (first == ord("\n")).any() or (first == ord("\r")).any():
        return None
    return _Shape(size, len(ends), np.searchsorted(ends, places), places)


def _spanning(reader: Delimited, data: bytes, shape: _Shape, lines: NDArray[np.int64]) -> dict[int, Spanning]:
    assert shape.places is not None
    inner = np.diff(shape.starts, append=shape.ends)
    found = {}
    for row in np.flatnonzero(inner >= _LINES_INSIDE).tolist():
        begin, *later = shape.places[row : row + 2].tolist()
        text = data[begin : later[0] if later else None]
        if text.count(reader.separator.encode()) >= 3 * (reader.width - 1):  # its own, and those of two rows inside
            with fields_of_any_size():
                decoded = text.decode("utf-8", "surrogateescape")  # a column that is not read need not be UTF-8
                fields = next(csv.reader([decoded], strict=True, delimiter=reader.separator))
            if spanning := reader.spanning(int(lines[row]), fields):
                found[row] = spanning
    return found


_DECODE = json.JSONDecoder().raw_decode
"""Reads one JSON value as `json.loads` does; returns it and its end."""


def _read_json(reader: JsonLines, data: bytes, whole: bool) -> _Found | None:
    size = len(data) if whole else data.rfind(b"\n") + 1
    try:
        rows = data[:size].decode().split("\n")
        if not rows[-1]:
            rows.pop()
        found = []
        for text in rows:
            value, end = _DECODE(text)
            if type(value) is not dict or (end != len(text) and text[end:] != "\r"):
                return None
            found.append(value)
        values = [_json_column([row[key] for row in found]) for key in reader.asked_for]
    except (ValueError, StopIteration, RecursionError, KeyError, TypeError, pa.ArrowException):
        return None
    if not found:
        return None
    reader.seen.update(dict.fromkeys(reader.asked_for))
    lines = reader.stream.line + np.arange(len(found))
    return _Found(Block(lines, values), size, data.count(b"\n", 0, size))


def _json_column(values: list[object]) -> pa.Array:
    """Return values as strings; TypeError if one is a list or an object."""
    kinds = set(map(type, values))
    if not kinds <= {str, int, float, bool, type(None)}:
        raise TypeError(kinds)
    return pa.array(values if kinds <= {str, type(None)} else map(as_text, values), pa.string())
