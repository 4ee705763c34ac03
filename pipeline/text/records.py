"""The records of one file, each with the line where it starts.

Nothing is judged or mended here; a row that is no row is a `Fault`.

Files are UTF-8, with or without a byte order mark, lines ending in LF or CRLF; the suffix tells the kind:

- csv: RFC 4180 with a header; a quoted field may hold commas, line breaks and doubled quotes.
- tsv: as GLUE has it: a header, one row a line, fields parted by tabs, no quoting at all.
- jsonl: one JSON object a line; every object has all the keys that the task names (null where there is no value).
- parquet: one row a row; its number stands in for the line.
"""

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError


@dataclass(frozen=True)
class Fault:
    """What is wrong with a row that could not be read as one."""

    kind: Literal["fields", "encoding"]
    value: str  # what to show of it


Record = tuple[int, Sequence[str | None] | Fault]
"""The line of a row, and its values in the columns asked for."""


def read_records(path: Path, name: str, asked_for: Sequence[str]) -> Iterator[Record]:
    """Read a file's records.

    :param path: The file.
    :param name: What messages call it.
    :param asked_for: The columns to read, each once.
    :yields: Line and values of each row; bytes that are no UTF-8 are lone surrogates in them.
    :raises InputError: If the suffix is none of those above, the file cannot be read at all, or a column is missing.
    """
    readers: dict[str, Callable[[Path, str, Sequence[str]], Iterator[Record]]] = {
        ".csv": _csv,
        ".tsv": _tsv,
        ".jsonl": _jsonl,
        ".parquet": _parquet,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{name}: a file must be one of {', '.join(readers)}, by its suffix")
    return reader(path, name, asked_for)


@contextmanager
def _open(path: Path, name: str) -> Iterator[IO[str]]:
    """Open UTF-8 text that parts lines at LF alone; a byte that is no UTF-8 becomes a lone surrogate."""
    with path.open("rb") as file:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise InputError(f"{name}: is UTF-16; save it as UTF-8")
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as text:
        yield text


@contextmanager
def _fields_of_any_size() -> Iterator[None]:
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _csv(path: Path, name: str, asked_for: Sequence[str]) -> Iterator[Record]:
    with _open(path, name) as file, _fields_of_any_size():
        yield from _select(name, _csv_fields(file, name), asked_for)


def _csv_fields(file: Iterable[str], name: str) -> Iterator[tuple[int, list[str] | Fault]]:
    reader = csv.reader(file, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if str(error) == "unexpected end of data":  # all rows after it are inside the quotes: none may be dropped
                raise InputError(f"{name}, line {line}: a quote opens in this row and never closes") from None
            until = "" if reader.line_num == line else f" (the row ends at line {reader.line_num})"
            yield line, Fault("fields", f"{error}{until}")
        else:
            yield line, fields


def _tsv(path: Path, name: str, asked_for: Sequence[str]) -> Iterator[Record]:
    with _open(path, name) as file:
        lines = (line.removesuffix("\n").removesuffix("\r") for line in file)
        yield from _select(
            name, ((n, line.split("\t") if line else []) for n, line in enumerate(lines, start=1)), asked_for
        )


def _select(
    name: str, rows: Iterator[tuple[int, list[str] | Fault]], asked_for: Sequence[str]
) -> Iterator[tuple[int, list[str | None] | Fault]]:
    """Take the columns asked for from rows of fields, the first row being the header."""
    _, header = next(rows, (0, []))
    if isinstance(header, Fault) or not header:
        raise InputError(f"{name}: the first line must name the columns")
    check_columns(name, header, asked_for)
    positions = [header.index(column) for column in asked_for]
    for line, fields in rows:
        if isinstance(fields, Fault):
            yield line, fields
        elif not fields:  # an empty line: a blank row
            yield line, [None] * len(positions)
        elif len(fields) != len(header):
            yield line, Fault("fields", f"{len(fields)} fields where the header has {len(header)}")
        else:
            yield line, [fields[position] for position in positions]


def _jsonl(path: Path, name: str, asked_for: Sequence[str]) -> Iterator[Record]:
    seen: dict[str, None] = {}
    with _open(path, name) as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                yield line, [None] * len(asked_for)
                continue
            try:
                found = json.loads(text)
            except (ValueError, RecursionError) as error:
                yield line, Fault("fields", f"not JSON: {error}")
                continue
            if isinstance(found, dict):
                seen.update(dict.fromkeys(found))
            yield line, _values(found, asked_for)
    if seen:
        check_columns(name, list(seen), asked_for)


def _values(found: Any, asked_for: Sequence[str]) -> list[str | None] | Fault:
    """Take the keys asked for from what a line of JSON holds."""
    if not isinstance(found, dict):
        return Fault("fields", "not a JSON object")
    for key in asked_for:
        if key not in found:
            return Fault("fields", f"has no {key!r} (write null where there is no value)")
        if isinstance(found[key], dict | list):
            return Fault("fields", f"{key!r} is a {type(found[key]).__name__}, not text or a number")
    return [as_text(found[key]) for key in asked_for]


def _parquet(path: Path, name: str, asked_for: Sequence[str]) -> Iterator[Record]:
    try:
        there = pq.read_schema(path).names
        check_columns(name, there, asked_for)
        table = pq.read_table(path, columns=list(asked_for), partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{name}: cannot be read as Parquet: {error}") from error
    yield from table_records(name, table, asked_for)


def table_records(name: str, table: pa.Table, asked_for: Sequence[str]) -> Iterator[Record]:
    """Return the records of a table, numbered from 1.

    :param name: What messages call it.
    :param table: It.
    :param asked_for: The columns to read.
    :raises InputError: If one of them holds no texts, numbers or truth values.
    """
    texts = [_texts(name, column, table[column]) for column in asked_for]
    return enumerate(zip(*texts, strict=True), start=1)


def _texts(name: str, column: str, values: pa.ChunkedArray) -> list[str | None]:
    kind = values.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        values = values.cast(kind)
    if pa.types.is_nested(kind):
        raise InputError(f"{name}: column {column!r} is {kind}, not text or a number")
    if any(is_kind(kind) for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)):
        values = values.cast(pa.large_string()).cast(pa.large_binary())  # Arrow does not check that strings are UTF-8
    return [
        value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else as_text(value)
        for value in values.to_pylist()
    ]


def check_columns(name: str, there: Sequence[str], asked_for: Sequence[str]) -> None:
    """Check that a file has the columns asked for.

    :param name: What messages call the file.
    :param there: The columns that it has.
    :param asked_for: Those that are wanted.
    :raises InputError: If one is missing, or there twice.
    """
    shown = ", ".join(repr(column) for column in there)
    for column in asked_for:
        if column not in there:
            raise InputError(f"{name}: has no column {column!r}, which the task's file names; it has {shown}")
        if there.count(column) > 1:
            raise InputError(f"{name}: has more than one column {column!r}; it has {shown}")


def as_text(value: object) -> str | None:
    """Write a value as a person would: 1 and 1.0 as "1", true as "true"; null and not-a-number as null.

    :param value: A string, number, truth value or null.
    """
    match value:
        case None | str():
            return value
        case bool():
            return "true" if value else "false"
        case float():
            return None if math.isnan(value) else repr(value).removesuffix(".0")
    return str(value)
