"""Reads the records of one file, each with the line where it starts. Values are not changed; a row that cannot be read is a `Fault`.

Files are UTF-8, with or without a byte order mark, with lines that end in LF or CRLF. The suffix is the format:

- csv: RFC 4180 with a header; a quoted field may hold commas, line breaks and doubled quotes.
- tsv: the format of GLUE: a header, one row per line, fields separated by tabs, no quotes. With `quotes`, as csv, with tabs.
- jsonl: one JSON object per line; every object has all keys that the task names (null for no value).
- parquet: the number of the row is used as its line.

Files of text may be compressed: .csv.gz, .csv.bz2 or .csv.zst. This reader takes any row, one at a time, and says what is wrong with it;
columns.py reads the parts of a file that have no such rows.
"""

import csv
import json
import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from pipeline.errors import InputError, counted
from pipeline.places.place import Place, parquet, unchanged
from pipeline.places.remote import Remote
from pipeline.text import formats
from pipeline.text.streams import Stream, line_blocks, open_bytes, open_stream


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
BLOCK = 4 << 20
"""Bytes of text that are read at a time."""
BATCH = 1 << 16
"""Rows of a table that are read at a time, fewer if they take more than BLOCK."""
STEP = 1 << 10
"""Rows of a Parquet file that are decoded at a time: its metadata has the size of repeated texts once only."""
CONVERT = "convert it, for example with `iconv -f LATIN1 -t UTF-8 FILE > NEW`"
SHOWN_COLUMNS, SHOWN_CHARACTERS = 20, 40
"""How many columns of a file a message lists, and how much of each name."""


def read_records(path: Place, name: str, asked_for: Sequence[str], quotes: bool | None = None) -> Iterator[Record]:
    """Read a file's records.

    :param name: The file's name in messages.
    :param asked_for: The columns to read, each once.
    :param quotes: Whether quotes of a tsv are read as in csv, or kept as text; None keeps them, but refuses those of a CSV writer.
    :yields: Line and values of each row; bytes that are not UTF-8 become lone surrogates.
    :raises InputError: If the suffix is none of those above, the file cannot be read at all, or a column is missing.
    """
    if check_format(path, name, quotes) == ".parquet":
        for first, batch in parquet_batches(path, name, asked_for):
            yield from table_records(name, batch, asked_for, first)
        return
    with open_reader(path, name, asked_for, quotes) as reader:
        yield from reader.records()
        reader.check_end()


def check_format(path: Place, name: str, quotes: bool | None) -> str:
    """Return the format of a file; InputError if it is none of those above, or `quotes` is not for it."""
    suffix = formats.check_suffix(path, name, SUFFIXES, SUFFIXES[:-1])
    if quotes is not None and suffix != ".tsv":
        raise InputError(f"{name}: text.source.quotes: {str(quotes).lower()}: the key is for .tsv files; remove it")
    return suffix


@contextmanager
def open_reader(
    path: Place, name: str, asked_for: Sequence[str], quotes: bool | None
) -> Iterator["Delimited | JsonLines"]:
    """Open a file of text after its header. The arguments and errors are those of `read_records`."""
    suffix = check_format(path, name, quotes)
    if suffix == ".tsv" and quotes is None:

        def blocks() -> Iterator[bytes]:
            with open_bytes(path, name) as file:
                yield from line_blocks(file, BLOCK)

        with open_stream(path, name):  # checks the first bytes
            pass
        formats.check_quotes(name, blocks)
    with open_stream(path, name) as stream:
        if suffix == ".jsonl":
            yield JsonLines(stream, name, asked_for)
        else:
            yield Delimited(
                stream, name, asked_for, "," if suffix == ".csv" else "\t", suffix == ".csv" or bool(quotes)
            )


@contextmanager
def fields_of_any_size() -> Iterator[None]:
    """Let the csv module read fields of any size."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


class Delimited:
    """The rows of a csv or tsv file from the stream's position on.

    :raises InputError: If the first line does not name the columns.
    """

    def __init__(self, stream: Stream, name: str, asked_for: Sequence[str], separator: str, quoted: bool) -> None:
        self.stream, self.separator, self.quoted = stream, separator, quoted
        self._name, self._separators = name, 0
        _, header = next(self._rows(), (0, []))
        if isinstance(header, Fault) or not header:
            raise InputError(f"{name}: the first line must name the columns")
        forms = {unicodedata.normalize("NFC", column): column for column in asked_for if column not in header}
        header = [
            column if column in asked_for else forms.get(unicodedata.normalize("NFC", column), column)
            for column in header
        ]
        formats.check_separator(name, header, asked_for, separator)
        check_columns(name, header, asked_for)
        self.width, self._separators = len(header), len(header) - 1
        self.positions = [header.index(column) for column in asked_for]

    def _rows(self) -> Iterator[tuple[int, list[str] | Fault]]:
        return self._quoted_rows() if self.quoted else self._plain_rows()

    def _plain_rows(self) -> Iterator[tuple[int, list[str]]]:
        for number, line in enumerate(self.stream.lines(), start=self.stream.line):
            text = line.removesuffix("\n").removesuffix("\r")
            yield number, text.split(self.separator) if text else []

    def _quoted_rows(self) -> Iterator[tuple[int, list[str] | Fault]]:
        read = ""

        def lines() -> Iterator[str]:
            nonlocal read
            for read in self.stream.lines():  # noqa: UP028
                yield read

        with fields_of_any_size():
            reader, name = csv.reader(lines(), strict=True, delimiter=self.separator), self._name
            while True:
                line = self.stream.line
                try:
                    fields = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    if (
                        str(error) == "unexpected end of data"
                    ):  # all later rows are in the quotes: they must not be dropped
                        raise InputError(f"{name}, line {line}: a quote opens in this row and never closes") from None
                    last = self.stream.line - 1
                    formats.check_line_end(name, last, read, self.separator, self._separators)
                    until = "" if last == line else f" (the row ends at line {last})"
                    what = next((named for part, named in _CSV_ERRORS.items() if part in str(error)), error)
                    yield line, Fault("fields", f"{what}{until}")
                else:
                    yield line, fields

    def records(self) -> Iterator[Record]:
        """Yield the rows up to the end of the file. After each, the stream is at the beginning of the next."""
        for line, fields in self._rows():
            if isinstance(fields, Fault):
                yield line, fields
            elif not fields:  # an empty line: a blank row
                yield line, [None] * len(self.positions)
            elif len(fields) != self.width:
                formats.check_line_end(self._name, line, self.separator.join(fields), self.separator, self._separators)
                ends = sum(field.count("\n") for field in fields)
                until = f" (the row ends at line {line + ends})" if ends else ""
                yield line, Fault("fields", f"{counted(len(fields), 'field')}, but the header has {self.width}{until}")
            else:
                yield line, self.spanning(line, fields) or [fields[position] for position in self.positions]

    def spanning(self, line: int, fields: list[str]) -> Spanning | None:
        """Return the values of a row if most inner lines of its longest field have as many fields as the row; None if not."""
        lines = max(fields, key=len).split("\n")[1:-1]
        split = (inner.removesuffix("\r").split(self.separator) for inner in lines)
        rows = [row for row in split if len(row) == self.width]
        if len(rows) <= max(1, len(lines) // 2):
            return None
        inside = [[row[position] for position in self.positions] for row in rows]
        end = line + sum(field.count("\n") for field in fields)
        return Spanning((fields[position] for position in self.positions), end, inside)

    def check_end(self) -> None:
        """Check nothing: the header was checked."""


class JsonLines:
    """The rows of a jsonl file from the stream's position on."""

    def __init__(self, stream: Stream, name: str, asked_for: Sequence[str]) -> None:
        self.stream, self.asked_for = stream, asked_for
        self._name, self._begun = name, False
        self.seen: dict[str, None] = {}  # the keys of all rows so far

    def records(self) -> Iterator[Record]:
        """Yield the rows up to the end of the file. After each, the stream is at the beginning of the next."""
        for line, text in enumerate(self.stream.lines(), start=self.stream.line):
            if not text.strip():
                yield line, [None] * len(self.asked_for)
                continue
            if not self._begun:
                formats.check_json_lines(self._name, line, text)
                self._begun = True
            try:
                found = json.loads(text)
            except (ValueError, RecursionError) as error:
                if "}\r{" in text:
                    formats.check_line_end(self._name, line, text, "{", 1)
                yield line, Fault("fields", f"not JSON: {error}")
                continue
            if isinstance(found, dict):
                self.seen.update(dict.fromkeys(found))
            yield line, _values(found, self.asked_for)

    def check_end(self) -> None:
        """Check that some row has each key; otherwise raise an InputError."""
        if self.seen:
            check_columns(self._name, list(self.seen), self.asked_for)


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


def parquet_batches(path: Place, name: str, asked_for: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
    """Yield the columns asked for in batches, each with the number of its first row, from 1.

    :raises InputError: If the file is not Parquet, a column is missing, or a column holds lists or structs.
    """
    with path.open("rb") as file:
        formats.check_pointer(file.read(formats.HEAD_BYTES), name)
    # By default pyarrow holds all bytes of these columns; behind a URL, that saves requests.
    buffered = {} if isinstance(path, Remote) else {"pre_buffer": False, "buffer_size": 1 << 20}
    try:
        with unchanged(path, name), parquet(path, **buffered) as file:
            check_columns(name, file.schema_arrow.names, asked_for)
            for column in asked_for:
                check_type(name, column, file.schema_arrow.field(column).type)
            about = file.metadata
            size = sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups))
            step = max(1, min(STEP, BATCH, BLOCK * about.num_rows // max(1, size)))
            first = 1
            for table in _joined(file.iter_batches(step, columns=list(asked_for), use_threads=False)):
                yield first, table
                first += len(table)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{name}: cannot be read as Parquet: {error}") from error


def _joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield tables of BATCH rows, or fewer if they take more than BLOCK."""
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        held.append(batch)
        rows, size = rows + len(batch), size + batch.nbytes
        if rows >= BATCH or size >= BLOCK:
            yield pa.Table.from_batches(held)
            held, rows, size = [], 0, 0
    if held:
        yield pa.Table.from_batches(held)


def class_names(path: Place, column: str) -> list[str] | None:
    """Return the class names of a Parquet column of integers that `datasets` wrote as a ClassLabel, in their order; otherwise None."""
    if path.suffix.lower() != ".parquet":
        return None
    with parquet(path) as file:
        schema = file.schema_arrow
    try:
        feature = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
    except (KeyError, TypeError, ValueError):
        return None
    names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
    return names if isinstance(names, list) and pa.types.is_integer(schema.field(column).type) else None


def table_records(name: str, table: pa.Table, asked_for: Sequence[str], first: int = 1) -> Iterator[Record]:
    """Return the records of a table, numbered from `first`.

    :param name: Its name in messages.
    :raises InputError: If one of them holds something else than texts, numbers or truth values.
    """
    columns = [texts(name, column, table[column]) for column in asked_for]
    return enumerate(zip(*columns, strict=True), start=first)


def check_type(name: str, column: str, kind: pa.DataType) -> None:
    """Check that a column of a table holds texts, numbers or truth values; otherwise raise an InputError."""
    if pa.types.is_nested(kind):
        raise InputError(f"{name}: column {column!r} is {kind}, not text or a number")


def as_bytes(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column without dictionary, and with bytes in the place of strings, since Arrow does not check that these are UTF-8."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    kind = values.type
    if any(is_kind(kind) for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)):
        values = values.cast(pa.large_string()).cast(pa.large_binary())
    return values


def texts(name: str, column: str, values: pa.ChunkedArray) -> list[str | None]:
    """Return a column of a table as texts, with lone surrogates for bytes that are not UTF-8; InputError if it holds something else."""
    values = as_bytes(values)
    check_type(name, column, values.type)
    return [
        value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else as_text(value)
        for value in values.to_pylist()
    ]


def check_columns(name: str, columns: Sequence[str], asked_for: Sequence[str]) -> None:
    """Check that a file has each column that a task asks for, once; otherwise raise an InputError that starts with `name`."""
    if set(asked_for) - set(columns) and any("\udc80" <= letter <= "\udcff" for letter in "".join(columns)):
        raise InputError(f"{name}: the names of its columns are not UTF-8; {CONVERT}")
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
