"""Refuses files that are not what their suffix says, each in one line that says how to convert them."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.places.place import Place

HEAD_BYTES = 1 << 16
"""The beginning of a file, in which these checks look."""

ALL_QUOTED = 0.95
"""The share of quoted fields from which on all of a column are: a writer quoted them."""

_PACKINGS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
"""The suffixes of compressed files that are read, with pyarrow's names of the formats."""
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


def packing(path: Place) -> str | None:
    """Return the name of the format in which a file of text is compressed, after its suffix; None if it is not."""
    return _PACKINGS.get(path.suffix.lower())


def suffix_of(path: Place) -> str:
    """Return the suffix of a file in lower case, with the one before it if the file is compressed: `.csv.gz`."""
    return "".join(path.suffixes[-2:] if packing(path) else path.suffixes[-1:]).lower()


def check_suffix(path: Place, name: str, known: Collection[str], packed: Collection[str] = ()) -> str:
    """Return the suffix of a file in lower case, without that of a compressed file; InputError if it is none of those known.

    :param packed: Those that are also read where the file is compressed.
    """
    suffix = path.suffix.lower()
    if suffix in known:
        return suffix
    if packing(path) and (inner := Path(path.stem).suffix.lower()) in packed:
        return inner
    if suffix in _PACKED:
        read = [inner + other for inner in packed for other in _PACKINGS]
        raise InputError(
            f"{name}: decompress it with `{_PACKED[suffix]}`; compressed files are read if their suffix is one of {', '.join(read)}"
        )
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
            raise InputError(
                f"{name}: the file is compressed; decompress it with `{command}`, or add the suffix of its format"
            )
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


def check_quotes(name: str, blocks: Callable[[], Iterable[bytes]]) -> None:
    """Refuse a TSV file of which neither reading is certain: some fields have the quotes of a CSV writer, as pandas' to_csv writes them.

    A CSV writer quotes each field with a quote and doubles those inside. So fields that start and end with a quote and have only doubled ones
    inside, at least one, come from a writer, unless there are more fields with other quotes. So do the fields of a column that are all in
    quotes. Where every quote of the file can come from a writer, a tab or line break in quotes shows it as well.

    :param blocks: Returns the bytes of the file, in blocks that end with a line.
    :raises InputError: With the line of the first such field.
    """
    seen = _Quotes()
    for block in blocks():
        seen.add(block)
        if seen.in_header:
            break
    found = seen.of_writer()
    if found is None and seen.others and _written(blocks()):
        data = b"".join(blocks())
        header = data.partition(b"\n")[0]
        match = next((match for match in _QUOTED_OVER_LINES.finditer(data) if _breaks(match, header)), None)
        found = match and (data.count(b"\n", 0, match.start()) + 1, match[0])
    if found is not None:
        line, field = found
        shown = " ".join(field.decode("utf-8", "replace").split())
        raise InputError(
            f"{name}, line {line}: a field has the quotes of a CSV writer: {shown[:60]}; write text.source.quotes: true "
            "to read quotes as in CSV, or false to keep them as text"
        )


class _Quotes:
    """Counts the fields with quotes of a TSV file, which is read in blocks of lines."""

    def __init__(self) -> None:
        self.in_header = False  # a column's name is in quotes
        self.others = 0  # fields with quotes that are not those of a writer
        self._lines = self._quoted = self._doubled = 0
        self._columns: Counter[int] = Counter()  # fields in quotes, by column
        self._first: tuple[int, bytes] | None = None  # the line and bytes of the first field in quotes
        self._first_doubled: tuple[int, bytes] | None = None

    def add(self, block: bytes) -> None:
        """Count those of a block."""
        if b'"' in block:
            self._count(block)
        self._lines += block.count(b"\n") + (not block.endswith(b"\n"))

    def _count(self, block: bytes) -> None:
        header = len(block.partition(b"\n")[0]) if not self._lines else -1
        quoted = 0
        for match in _QUOTED.finditer(block):
            line, start = 0, match.start()
            if self._first is None or (self._first_doubled is None and b'""' in match[1]):
                line = self._lines + block.count(b"\n", 0, start) + 1
            self._first = self._first or (line, match[0])
            if match.end() <= header:
                self.in_header = True
                return
            quoted += 1
            self._columns[block.count(b"\t", block.rfind(b"\n", 0, start) + 1, start)] += 1
            if b'""' in match[1]:
                self._first_doubled, self._doubled = self._first_doubled or (line, match[0]), self._doubled + 1
        self._quoted += quoted
        self.others += len(_WITH_QUOTE.findall(block)) - quoted

    def of_writer(self) -> tuple[int, bytes] | None:
        """Return the line and bytes of the first field that a CSV writer quoted; None if there is none, or it is not certain."""
        rows = self._lines - 1
        if self.in_header:
            return self._first
        if rows > 1 and max(self._columns.values(), default=0) >= ALL_QUOTED * rows:
            return self._first_doubled or self._first
        return None if self._doubled < self.others else self._first_doubled


def _written(blocks: Iterable[bytes]) -> bool:
    """Return whether every quote of a TSV file can be that of a CSV writer."""
    inside = False
    for block in blocks:
        quotes = np.flatnonzero(np.frombuffer(block, np.uint8) == ord('"'))
        if not are_borders(block, quotes, "\t", inside):
            return False
        inside ^= len(quotes) % 2 == 1
    return not inside


def are_borders(data: bytes, quotes: NDArray[np.intp], separator: str, inside: bool = False) -> bool:
    """Return whether all quotes stand at the borders of fields, or are doubled inside a field in quotes.

    :param data: Whole lines.
    :param quotes: The positions of all quotes in them.
    :param inside: Whether the data begin inside a field in quotes.
    """
    letters = np.frombuffer(data + b"\n\n", np.uint8)
    opens = np.arange(inside, len(quotes) + inside) % 2 == 0
    adjacent = np.diff(quotes) == 1
    before, after, later = letters[quotes - 1], letters[quotes + 1], letters[quotes + 2]
    begins = (
        (quotes == 0) | (before == ord(separator)) | (before == ord("\n")) | np.append(False, adjacent)[: len(quotes)]
    )
    ends = (after == ord(separator)) | (after == ord("\n")) | ((after == ord("\r")) & (later == ord("\n")))
    return bool(np.where(opens, begins, ends | np.append(adjacent, False)[: len(quotes)]).all())


def _breaks(match: re.Match[bytes], header: bytes) -> bool:
    """Return whether a field in quotes holds a tab or line break, so that its lines have other numbers of fields than the header."""
    data = match.string
    start, end = data.rfind(b"\n", 0, match.start()) + 1, data.find(b"\n", match.end())
    lines = data[start : None if end < 0 else end].split(b"\n")
    return any(line.count(b"\t") != header.count(b"\t") for line in lines)
