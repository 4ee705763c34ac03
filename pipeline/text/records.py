"""Reads the records of one file, each with the line where it starts. Values are not changed; a row that cannot be read is a `Fault`.

Files are UTF-8, with or without a byte order mark, with lines that end in LF or CRLF. The suffix is the format:

- csv: RFC 4180 with a header; a quoted field may hold commas, line breaks and doubled quotes.
- tsv: the format of GLUE: a header, one row per line, fields separated by tabs, no quotes. With `quotes`, as csv, with tabs.
- jsonl: one JSON object per line; every object has all keys that the task names (null for no value).
- parquet: the number of the row is used as its line.
"""

import csv
import json
import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.text import formats


@dataclass(frozen=True)
class Fault:
    """Why a row could not be read."""

    kind: Literal["fields", "encoding"]
    value: str  # for messages


class Spanning(list[str | None]):
    """The values of a row over several lines, of which the inner ones look like rows themselves."""

    def __init__(self, values: Iterable[str | None], end: int, inside: Sequence[Sequence[str]]) -> None:
        super().__init__(values)
        self.end = end  # its last line
        self.inside = inside  # the values of the inner lines


Record = tuple[int, Sequence[str | None] | Fault]
"""The line of a row, and its values in the columns asked for."""

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
_CSV_ERRORS = {
    "new-line character": "a carriage return outside quotes",
    "expected after": "a quote in a field; double it",
}
SHOWN_COLUMNS, SHOWN_CHARACTERS = 20, 40
"""How many columns of a file a message lists, and how much of each name."""


def read_records(path: Path, name: str, asked_for: Sequence[str], quotes: bool | None = None) -> Iterator[Record]:
    """Read a file's records.

    :param name: The file's name in messages.
    :param asked_for: The columns to read, each once.
    :param quotes: Whether quotes of a tsv are read as in csv, or kept as text; None keeps them, but refuses those of a CSV writer.
    :yields: Line and values of each row; bytes that are not UTF-8 become lone surrogates.
    :raises InputError: If the suffix is none of those above, the file cannot be read at all, or a column is missing.
    """
    suffix = formats.check_suffix(path, name, SUFFIXES)
    if quotes is not None and suffix != ".tsv":
        raise InputError(f"{name}: text.source.quotes: {str(quotes).lower()}: the key is for .tsv files; remove it")
    if suffix == ".tsv" and quotes is None:
        data = path.read_bytes()
        formats.check_head(data[: formats.HEAD_BYTES], name)
        formats.check_quotes(name, data)
    if suffix == ".csv" or (suffix == ".tsv" and quotes):
        return _csv(path, name, asked_for, "," if suffix == ".csv" else "\t")
    return {".tsv": _tsv, ".jsonl": _jsonl, ".parquet": _parquet}[suffix](path, name, asked_for)


@contextmanager
def _open(path: Path, name: str) -> Iterator[IO[str]]:
    """Open UTF-8 text with lines that end at LF only. A byte that is not UTF-8 becomes a lone surrogate."""
    with path.open("rb") as file:
        formats.check_head(file.read(formats.HEAD_BYTES), name)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as text:
        yield text


@contextmanager
def _fields_of_any_size() -> Iterator[None]:
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _csv(path: Path, name: str, asked_for: Sequence[str], separator: str) -> Iterator[Record]:
    with _open(path, name) as file, _fields_of_any_size():
        yield from _select(name, _csv_fields(file, name, separator), asked_for, separator)


def _csv_fields(file: Iterable[str], name: str, separator: str) -> Iterator[tuple[int, list[str] | Fault]]:
    read = ""

    def lines() -> Iterator[str]:
        nonlocal read
        for read in file:  # noqa: UP028
            yield read

    reader, header = csv.reader(lines(), strict=True, delimiter=separator), 0
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if str(error) == "unexpected end of data":  # all later rows are in the quotes: they must not be dropped
                raise InputError(f"{name}, line {line}: a quote opens in this row and never closes") from None
            formats.check_line_end(name, reader.line_num, read, separator, header)
            until = "" if reader.line_num == line else f" (the row ends at line {reader.line_num})"
            what = next((named for part, named in _CSV_ERRORS.items() if part in str(error)), error)
            yield line, Fault("fields", f"{what}{until}")
        else:
            header = header or len(fields) - 1
            yield line, fields


def _tsv(path: Path, name: str, asked_for: Sequence[str]) -> Iterator[Record]:
    with _open(path, name) as file:
        lines = enumerate((line.removesuffix("\n").removesuffix("\r") for line in file), start=1)
        yield from _select(name, ((n, line.split("\t") if line else []) for n, line in lines), asked_for, "\t")


def _select(
    name: str, rows: Iterator[tuple[int, list[str] | Fault]], asked_for: Sequence[str], separator: str
) -> Iterator[Record]:
    """Select columns from rows of fields; the first row is the header."""
    _, header = next(rows, (0, []))
    if isinstance(header, Fault) or not header:
        raise InputError(f"{name}: the first line must name the columns")
    forms = {unicodedata.normalize("NFC", column): column for column in asked_for if column not in header}
    header = [
        column if column in asked_for else forms.get(unicodedata.normalize("NFC", column), column) for column in header
    ]
    formats.check_separator(name, header, asked_for, separator)
    check_columns(name, header, asked_for)
    positions = [header.index(column) for column in asked_for]
    for line, fields in rows:
        if isinstance(fields, Fault):
            yield line, fields
        elif not fields:  # an empty line: a blank row
            yield line, [None] * len(positions)
        elif len(fields) != len(header):
            formats.check_line_end(name, line, separator.join(fields), separator, len(header) - 1)
            ends = sum(field.count("\n") for field in fields)
            until = f" (the row ends at line {line + ends})" if ends else ""
            yield line, Fault("fields", f"{len(fields)} fields, but the header has {len(header)}{until}")
        else:
            values: list[str | None] = [fields[position] for position in positions]
            if inside := _rows_inside(fields, separator):
                end = line + sum(field.count("\n") for field in fields)
                values = Spanning(values, end, [[row[position] for position in positions] for row in inside])
            yield line, values


def _rows_inside(fields: list[str], separator: str) -> list[list[str]]:
    """Return the inner lines of the longest field that have as many fields as the row; none if there are few of them."""
    lines = max(fields, key=len).split("\n")[1:-1]
    rows = [row for line in lines if len(row := line.removesuffix("\r").split(separator)) == len(fields)]
    return rows if len(rows) > max(1, len(lines) // 2) else []


def _jsonl(path: Path, name: str, asked_for: Sequence[str]) -> Iterator[Record]:
    seen: dict[str, None] = {}
    begun = False
    with _open(path, name) as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                yield line, [None] * len(asked_for)
                continue
            if not begun:
                formats.check_json_lines(name, line, text)
                begun = True
            try:
                found = json.loads(text)
            except (ValueError, RecursionError) as error:
                if "}\r{" in text:
                    formats.check_line_end(name, line, text, "{", 1)
                yield line, Fault("fields", f"not JSON: {error}")
                continue
            if isinstance(found, dict):
                seen.update(dict.fromkeys(found))
            yield line, _values(found, asked_for)
    if seen:
        check_columns(name, list(seen), asked_for)


def _values(found: Any, asked_for: Sequence[str]) -> list[str | None] | Fault:
    """Select keys from the value of a line of JSON."""
    if not isinstance(found, dict):
        return Fault("fields", "not a JSON object")
    for key in asked_for:
        if key not in found:
            return Fault("fields", f"has no {key!r} (write null where there is no value)")
        if isinstance(found[key], dict | list):
            return Fault("fields", f"{key!r} is a {type(found[key]).__name__}, not text or a number")
    return [as_text(found[key]) for key in asked_for]


def _parquet(path: Path, name: str, asked_for: Sequence[str]) -> Iterator[Record]:
    with path.open("rb") as file:
        formats.check_pointer(file.read(formats.HEAD_BYTES), name)
    try:
        check_columns(name, pq.read_schema(path).names, asked_for)
        table = pq.read_table(path, columns=list(asked_for), partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{name}: cannot be read as Parquet: {error}") from error
    yield from table_records(name, table, asked_for)


def class_names(path: Path, column: str) -> list[str] | None:
    """Return the class names of a Parquet column of integers that `datasets` wrote as a ClassLabel, in their order; otherwise None."""
    if path.suffix.lower() != ".parquet":
        return None
    schema = pq.read_schema(path)
    try:
        feature = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
    except (KeyError, TypeError, ValueError):
        return None
    names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
    return names if isinstance(names, list) and pa.types.is_integer(schema.field(column).type) else None


def table_records(name: str, table: pa.Table, asked_for: Sequence[str]) -> Iterator[Record]:
    """Return the records of a table, numbered from 1.

    :param name: Its name in messages.
    :raises InputError: If one of them holds something else than texts, numbers or truth values.
    """
    texts = [_texts(name, column, table[column]) for column in asked_for]
    return enumerate(zip(*texts, strict=True), start=1)


def _texts(name: str, column: str, values: pa.ChunkedArray) -> list[str | None]:
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    kind = values.type
    if pa.types.is_nested(kind):
        raise InputError(f"{name}: column {column!r} is {kind}, not text or a number")
    if any(is_kind(kind) for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)):
        values = values.cast(pa.large_string()).cast(pa.large_binary())  # Arrow does not check that strings are UTF-8
    return [
        value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else as_text(value)
        for value in values.to_pylist()
    ]


def check_columns(name: str, columns: Sequence[str], asked_for: Sequence[str]) -> None:
    """Check that a file has each column that a task asks for, once; otherwise raise an InputError that starts with `name`."""
    if set(asked_for) - set(columns) and any("\udc80" <= letter <= "\udcff" for letter in "".join(columns)):
        raise InputError(
            f"{name}: the names of its columns are not UTF-8; convert it, for example with `iconv -f LATIN1 -t UTF-8 FILE > NEW`"
        )
    shown = ", ".join(repr(column[:SHOWN_CHARACTERS]) for column in columns[:SHOWN_COLUMNS])
    shown += f" and {len(columns) - SHOWN_COLUMNS} more" if len(columns) > SHOWN_COLUMNS else ""
    for column in asked_for:
        if column not in columns:
            same = unicodedata.normalize("NFC", column) in (unicodedata.normalize("NFC", other) for other in columns)
            shown += " (in another Unicode form: write both in NFC)" if same else ""
            raise InputError(f"{name}: has no column {column!r}, which the task's file names; it has {shown}")
        if columns.count(column) > 1:
            raise InputError(f"{name}: has more than one column {column!r}; it has {shown}")


def as_text(value: object) -> str | None:
    """Return a string, number or truth value as text: 1 and 1.0 as "1", true as "true"; None and NaN as None."""
    match value:
        case None | str():
            return value
        case bool():
            return "true" if value else "false"
        case float():
            return None if math.isnan(value) else repr(value).removesuffix(".0")
    return str(value)
