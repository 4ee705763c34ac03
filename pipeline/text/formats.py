"""Refuses files that are not what their suffix says, each in one line that says how to convert them."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from pipeline.errors import InputError

HEAD_BYTES = 1 << 16
"""The beginning of a file, in which these checks look."""

ALL_QUOTED = 0.95
"""The share of quoted fields from which on all of a column are: a writer quoted them."""

_PACKED = {".gz": "gunzip", ".bz2": "bunzip2", ".xz": "unxz", ".zst": "unzstd", ".zip": "unzip"}
_MAGIC = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
_EXCEL = (".xlsx", ".xls", ".xlsm", ".ods")
_JSON_LINES = "with one object per line, for example with `jq -c '.[]' FILE.json > FILE.jsonl`"
_RETURNS = "a carriage return alone ends the lines; convert them with `tr '\\r' '\\n' < FILE > NEW`"
_SEPARATORS = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "vertical bars"}
# Possessive, so that each search takes one pass.
_FIELD = rb"(?:^|(?<=\t))"
_END = rb"(?=\t|\r?\n|\r?\Z)"
_QUOTED = re.compile(_FIELD + rb'"((?:[^"\t\n]|"")*+)"' + _END, re.MULTILINE)
_QUOTED_OVER_LINES = re.compile(_FIELD + rb'"((?:[^"]|"")*+)"' + _END, re.MULTILINE)
_WITH_QUOTE = re.compile(_FIELD + rb'[^"\t\n]*+"', re.MULTILINE)
_WRITTEN = re.compile(rb'(?:(?:"(?:[^"]|"")*+"\r?|[^"\t\n]*+)(?:\t|\n|\Z))*+')


def check_suffix(path: Path, name: str, known: Collection[str]) -> str:
    """Return the suffix of a file in lower case; InputError if it is none of those known."""
    suffix = path.suffix.lower()
    if suffix in known:
        return suffix
    if suffix in _PACKED:
        raise InputError(f"{name}: compressed files are not read; decompress it with `{_PACKED[suffix]}`")
    if suffix in _EXCEL:
        raise InputError(f"{name}: spreadsheets are not read; save it as CSV (UTF-8, separated by commas)")
    if suffix == ".json":
        raise InputError(f"{name}: JSON is read as .jsonl, {_JSON_LINES}")
    raise InputError(f"{name}: the suffix must be one of {', '.join(known)}")


def check_head(head: bytes, name: str) -> None:
    """Check the first HEAD_BYTES of a file of text.

    :raises InputError: If they are those of another format or encoding, or a carriage return alone ends the lines.
    """
    for magic, command in _MAGIC.items():
        if head.startswith(magic):
            raise InputError(f"{name}: the file is compressed; decompress it with `{command}`")
    if head.startswith(b"PK\x03\x04"):
        raise InputError(
            f"{name}: the file is a zip archive or an Excel workbook; unpack it, or save it as CSV (UTF-8)"
        )
    if head.startswith(b"PAR1"):
        raise InputError(f"{name}: the file is Parquet; rename it to .parquet")
    check_pointer(head, name)
    first = head.partition(b"\n")[0]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in first:
        kind = "UTF-32" if head.startswith((b"\xff\xfe\0\0", b"\0\0")) or b"\0\0\0" in first else "UTF-16"
        found = kind if head.startswith((b"\xff\xfe", b"\xfe\xff")) else f"{kind} or not text: it has NUL bytes"
        raise InputError(
            f"{name}: the file is {found}; save it as UTF-8, for example with `iconv -f {kind} -t UTF-8 FILE > NEW`"
        )
    if b"\r" in first.rstrip(b"\r"):
        raise InputError(f"{name}: {_RETURNS}")


def check_line_end(name: str, number: int, line: str, separator: str, separators: int) -> None:
    """Refuse a line that holds several rows, with a carriage return after each: a later part of the file has other line ends.

    :param separators: How many the header has.
    """
    if "\r" in line and sum(row.count(separator) >= separators for row in line.split("\r") if row.strip()) > 1:
        raise InputError(f"{name}, line {number}: {_RETURNS}")


def check_pointer(head: bytes, name: str) -> None:
    """Check that a file is not a pointer of Git LFS; otherwise raise an InputError."""
    if head.startswith(b"version https://git-lfs"):
        raise InputError(f"{name}: the file is a pointer of Git LFS, not the data; fetch it with `git lfs pull`")


def check_separator(name: str, header: Sequence[str], asked_for: Sequence[str], separator: str) -> None:
    """Refuse a header of one column that another separator divides."""
    if len(header) != 1 or set(asked_for) <= set(header):
        return
    for other, named in _SEPARATORS.items():
        if other != separator and other in header[0]:
            suffix = {",": ".csv", "\t": ".tsv"}.get(other)
            remedy = f"rename it to {suffix}" if suffix else f"save it with {_SEPARATORS[separator]}"
            raise InputError(
                f"{name}: has no column {asked_for[0]!r}: {named} separate the columns of its header, "
                f"where {_SEPARATORS[separator]} are expected; {remedy}"
            )


def check_json_lines(name: str, number: int, line: str) -> None:
    """Refuse a file whose first line with text begins an array, or an object over several lines."""
    if line.lstrip().startswith("[") or line.strip() == "{":
        kind = "an array" if line.lstrip().startswith("[") else "an object over several lines"
        raise InputError(f"{name}, line {number}: {kind}; write JSON {_JSON_LINES}")


def check_quotes(name: str, data: bytes) -> None:
    """Refuse a TSV file of which neither reading is certain: some fields have the quotes of a CSV writer, as pandas' to_csv writes them.

    A CSV writer quotes each field with a quote and doubles those inside. So fields that start and end with a quote and have only doubled ones
    inside, at least one, come from a writer, unless there are more fields with other quotes. So do the fields of a column that are all in
    quotes. Where every quote of the file can come from a writer, a tab or line break in quotes shows it as well.

    :raises InputError: With the line of the first such field.
    """
    if b'"' not in data:
        return
    header = data.partition(b"\n")[0]
    quoted, doubled, found = 0, 0, None
    columns: Counter[int] = Counter()
    rows = data.count(b"\n", len(header) + 1) + (not data.endswith(b"\n"))
    for match in _QUOTED.finditer(data):
        if match.end() <= len(header):  # a column's name
            found, doubled = match, len(data)
            break
        quoted += 1
        columns[data.count(b"\t", data.rfind(b"\n", 0, match.start()) + 1, match.start())] += 1
        if b'""' in match[1]:
            found, doubled = found or match, doubled + 1
    if rows > 1 and max(columns.values(), default=0) >= ALL_QUOTED * rows:
        found, doubled = found or _QUOTED.search(data), len(data)
    if doubled < (others := len(_WITH_QUOTE.findall(data)) - quoted) or not found:
        found = None
        if others and _WRITTEN.fullmatch(data):
            found = next((match for match in _QUOTED_OVER_LINES.finditer(data) if _breaks(match, header)), None)
    if found is not None:
        shown = " ".join(found[0].decode("utf-8", "replace").split())
        line = data.count(b"\n", 0, found.start()) + 1
        raise InputError(
            f"{name}, line {line}: a field has the quotes of a CSV writer: {shown[:60]}; write text.source.quotes: true "
            "to read quotes as in CSV, or false to keep them as text"
        )


def _breaks(match: re.Match[bytes], header: bytes) -> bool:
    """Return whether a field in quotes holds a tab or line break, so that its lines have other numbers of fields than the header."""
    data = match.string
    start, end = data.rfind(b"\n", 0, match.start()) + 1, data.find(b"\n", match.end())
    lines = data[start : None if end < 0 else end].split(b"\n")
    return any(line.count(b"\t") != header.count(b"\t") for line in lines)
