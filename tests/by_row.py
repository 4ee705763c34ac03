"""The preparation as it was until November 2026, a Python object per row: what the one on columns is compared with.

Only what decides about rows is here. The files are read by `records.read_records`, row by row.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, repeat
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline import tables
from pipeline.errors import InputError, counted
from pipeline.params.text import Columns, Source, Text
from pipeline.tables import SPLITS, TextMode
from pipeline.text import preparation, sources
from pipeline.text import rows as columnar
from pipeline.text.labels import Labels
from pipeline.text.records import Fault, Record, Spanning, as_text, read_records
from pipeline.text.row_report import (
    KINDS,
    LOCATIONS_IN_MESSAGE,
    Problem,
    Report,
    RowLocation,
    _class_warnings,
    _number_warnings,
    refuse,
)
from pipeline.text.sources import ALL, files_of

_BYTES = re.compile("[\ud800-\udfff]")


@dataclass
class SourceRows:
    """The rows of one file as columns. The values of a row with a fault are None."""

    name: str  # of the file, for messages
    lines: list[int] = field(default_factory=list)  # from 1 with the header; in parquet and on the Hub, rows from 1
    sentence1: list[str | None] = field(default_factory=list)
    sentence2: list[str | None] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    faults: dict[int, Fault] = field(default_factory=dict)  # by position in the lists
    spanning: dict[int, tuple[int, list[tuple[str, str]]]] = field(
        default_factory=dict
    )  # by position: the last line of a row over several lines, and the sentence1 and label of those that look like rows
    left_out: int = 0  # rows that `where` did not select
    parts: list[tuple[int, str]] = field(
        default_factory=list
    )  # of a folder: the position of each part's first row, and its name

    def __len__(self) -> int:
        return len(self.lines)

    class_names: list[str] | None = None  # of a label column of class numbers that names its classes, in their order

    def names(self) -> Iterator[str]:
        """Yield the name of each row's file."""
        ends = [*(start for start, _ in self.parts[1:]), len(self)]
        for (start, name), end in zip(self.parts or [(0, self.name)], ends, strict=True):
            yield from repeat(name, end - start)

    def add(self, line: int, row: Sequence[str | None] | Fault) -> None:
        """Add a row that starts in a line: its sentence1, sentence2 and label, or its fault."""
        if isinstance(row, Fault):
            self.faults[len(self)] = row
            row = (None, None, None)
        self.lines.append(line)
        for column, value in zip((self.sentence1, self.sentence2, self.labels), row, strict=True):
            column.append(value)

    def as_columns(self, batch_rows: int = 3) -> columnar.SourceRows:
        """Return the rows as `sources.read` does, in small batches."""
        found = columnar.SourceRows(self.name)
        found.faults, found.spanning, found.left_out = dict(self.faults), dict(self.spanning), self.left_out
        found.parts, found.class_names = list(self.parts), self.class_names
        columns = (self.lines, self.sentence1, self.sentence2, self.labels)
        for start in range(0, len(self), batch_rows):
            part = [column[start : start + batch_rows] for column in columns]
            found.append(pa.record_batch(part, schema=columnar.SCHEMA))
        return found


def listed(found: columnar.SourceRows) -> SourceRows:
    """Return rows of `sources.read` as lists."""
    rows = SourceRows(found.name, faults=found.faults, spanning=found.spanning, left_out=found.left_out)
    rows.parts, rows.class_names = found.parts, found.class_names
    for _, batch in found.batches():
        for column, values in zip((rows.lines, rows.sentence1, rows.sentence2, rows.labels), batch, strict=True):
            column.extend(values.to_pylist())
    return rows


def read(source: Source, columns: Columns) -> tuple[dict[str, SourceRows], dict[str, Any]]:
    """Return what `sources.read` returns, as lists, after comparing it with each file read row by row."""
    found, provenance = sources.read(source, columns)
    lists = {split: listed(rows) for split, rows in found.items()}
    for split, rows in lists.items() if source.files is not None and "files" in provenance else ():
        right = read_file(rows.name, source, columns)
        right.class_names = rows.class_names
        assert vars(rows) == vars(right), split
    return lists, provenance


def read_file(name: str, source: Source, columns: Columns) -> SourceRows:
    """Read a file or the parts of a folder row by row."""
    parts = files_of(Path(name), name)
    asked_for = _asked_for(source, columns)
    return collect(
        name, [(part, read_records(parts[part], part, asked_for, source.quotes)) for part in parts], source, columns
    )


def _asked_for(source: Source, columns: Columns) -> list[str]:
    named = (columns.sentence1, columns.sentence2, columns.label, *source.where)
    return list(dict.fromkeys(column for column in named if column is not None))


def collect(name: str, parts: Sequence[tuple[str, Iterable[Record]]], source: Source, columns: Columns) -> SourceRows:
    """Return the rows that `where` selects, and every row with a fault, which has no values to select by.

    :param parts: The name and records of each file.
    """
    positions = {column: n for n, column in enumerate(_asked_for(source, columns))}
    filters = [(positions[column], as_text(value)) for column, value in source.where.items()]
    wanted = [positions[column] if column else None for column in (columns.sentence1, columns.sentence2, columns.label)]
    rows = SourceRows(name)
    for part, records in parts:
        rows.parts.append((len(rows), part))
        for line, record in records:
            if isinstance(record, Fault):
                rows.add(line, record)
            elif any(record[n] != value for n, value in filters):
                rows.left_out += 1
            else:
                values = [None if n is None else record[n] for n in wanted]
                broken = next(
                    (value for value in values if value and not value.isascii() and _BYTES.search(value)), None
                )
                if isinstance(record, Spanning) and columns.label:
                    of_label = positions[columns.label]
                    inside = [(row[positions[columns.sentence1]], row[of_label]) for row in record.inside]
                    rows.spanning[len(rows)] = record.end, inside
                rows.add(line, values if broken is None else Fault("encoding", _shown(broken)))
    if not len(rows):
        raise InputError(f"{name}: no rows")
    return rows


def _shown(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode().replace("\\udc", "\\x")


def prepare(rows: Mapping[str, SourceRows], text: Text, mode: TextMode) -> tuple[pa.Table, Report]:
    """Return what `preparation.prepare` returns, after comparing it with what was decided row by row."""
    columns = {split: part.as_columns() for split, part in rows.items()}
    try:
        right, expected = prepare_by_row(rows, text, mode)
    except InputError as error:
        with pytest.raises(InputError, match=f"^{re.escape(str(error))}$"):
            preparation.prepare(columns, text, mode)
        return preparation.prepare(columns, text, mode)  # raises it again
    reader, report = preparation.prepare(columns, text, mode)
    table = reader.read_all()
    table.validate(full=True)
    assert table.equals(right)
    for kind, problem in expected.problems.items():
        assert report.problems[kind].rows == problem.rows, kind
        assert report.problems[kind].by_file(True) == problem.by_file(True)
    assert report.as_json() == expected.as_json()
    assert report.metrics() == expected.metrics()
    return table, report


def prepare_by_row(rows: Mapping[str, SourceRows], text: Text, mode: TextMode) -> tuple[pa.Table, Report]:
    """Check every row and make the table of examples.

    :param rows: The rows of each split, or of `sources.ALL` alone, as `sources.read` returns them.
    :return: The table (`tables.examples_schema(C)`, in the order of SPLITS and then of the file) and the report.
    :raises InputError: If there are rows that the task refuses (all kinds in one message), or a split is missing or ends up empty.
    """
    if problem := text.split_problem([split for split in SPLITS if split in rows]):
        raise InputError(problem)
    check = _Check(text, mode)
    every = [row for split in (ALL, *SPLITS) if split in rows for row in check.rows(split, rows[split])]
    _identify(_not_dropped(every))
    if shares := text.shares():
        _assign_splits([row for row in _not_dropped(every) if row.split in (ALL, "train")], shares)
    check.repeats(_not_dropped(every))
    check.leaks(_not_dropped(every))

    kept = [row for split in SPLITS for row in every if row.split == split and not row.dropped]
    problems = check.problems()
    if len(kept) + sum(problem.dropped for problem in problems.values()) != len(every):
        raise AssertionError("a row is neither kept nor counted as dropped")
    advice = check.advice()
    refuse(problems, advice)
    schema = tables.examples_schema(len(text.labels))
    table = pa.table({name: pa.array([getattr(row, name) for row in kept]) for name in schema.names}).cast(schema)
    report = report_of(table, len(every), sum(part.left_out for part in rows.values()), problems, text)
    if empty := [split for split in _wanted(rows, text) if not report.kept[split]]:
        raise InputError(
            f"the split {empty[0]!r} ends up empty: of {counted(report.read, 'row')} read, {report.rows_per_split} are left"
        )
    report.refuse_unlabelled(text)
    return table, report


# --- splits -------------------------------------------------------------------------------------------------------------


def _wanted(rows: Mapping[str, SourceRows], text: Text) -> list[str]:
    return [split for split in SPLITS if split in rows or split in text.shares()]


def _assign_splits(rows: Sequence["_Row"], shares: Mapping[str, float]) -> None:
    """Assign each row to a split by its id alone, so that it stays there when other rows come or go.

    The first 64 bits of the id, as a fraction of 2**64, are looked up in the cumulative shares.
    """
    splits = list(shares)
    bounds = np.cumsum(list(shares.values()))[:-1]
    fractions = tables.id_digests(pa.array([row.id for row in rows], pa.string()))[:, 0] / 2.0**64
    for row, index in zip(rows, np.searchsorted(bounds, fractions, side="right").tolist(), strict=True):
        row.split = splits[index]


# --- checks -------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Row:
    split: str  # ALL until it is assigned
    file: str
    line: int
    sentence1: str = ""
    sentence2: str | None = None
    label: int | float | None = None  # in a regression, a number that float32 holds exactly
    id: str = ""
    dropped: str | None = None  # the kind of problem

    @property
    def text(self) -> str:
        return " | ".join(_quoted(sentence) for sentence in (self.sentence1, self.sentence2) if sentence is not None)


def _not_dropped(rows: Iterable[_Row]) -> list[_Row]:
    return [row for row in rows if row.dropped is None]


def _identify(rows: Sequence[_Row]) -> None:
    ids = tables.content_ids([row.sentence1 for row in rows], [row.sentence2 for row in rows])
    for row, found in zip(rows, ids, strict=True):
        row.id = found


def _shorten(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _quoted(text: str) -> str:
    return repr(_shorten(text))


def _number(label: str) -> float | None:
    """Return a label as the nearest float32, or None if it is not a finite number."""
    try:
        with np.errstate(over="ignore"):
            found = float(np.float32(label)) if "_" not in label else math.nan  # Python accepts 1_000
    except ValueError:
        return None
    return found if math.isfinite(found) else None


class _Check:
    """Finds problems, collects them, and marks rows as dropped."""

    def __init__(self, text: Text, mode: TextMode) -> None:
        self._text = text
        self._mode = mode
        self._pairs = text.columns.sentence2 is not None
        self._regression = text.is_regression
        self._labels = None if text.is_regression else Labels(text)
        self._unknown: list[str] = []
        self._found: dict[str, list[tuple[_Row, str]]] = {kind: [] for kind in KINDS}
        self._parts: set[str] = set()

    def _drop(self, row: _Row, kind: str, value: str) -> None:
        row.dropped = kind
        self._found[kind].append((row, value))

    def problems(self) -> dict[str, Problem]:
        """Return the problems found, by kind."""
        return {
            kind: ListedProblem(
                count=len(found),
                action=getattr(self._text.bad_rows, kind),
                dropped=sum(row.dropped == kind for row, _ in found),
                rows=sorted(
                    (RowLocation(row.file, row.line, value) for row, value in found), key=lambda at: (at.file, at.line)
                ),
            )
            for kind, found in self._found.items()
        }

    def _cleaned(self, text: str | None) -> str:
        text = text or ""
        return (
            " ".join(text.split()) if self._mode == "pretokenised" else text.strip()
        )  # splits as tagging.split_words does

    def rows(self, split: str, rows: SourceRows) -> list[_Row]:
        """Return the rows of a split, each checked by itself."""
        columns = (rows.names(), rows.lines, rows.sentence1, rows.sentence2, rows.labels)
        checked = []
        names = rows.class_names
        classes = self._labels.of_classes(names, rows.name) if self._labels is not None and names else {}
        self._parts.update(part for _, part in rows.parts if part != rows.name)
        for position, (name, line, sentence1, sentence2, label) in enumerate(zip(*columns, strict=True)):
            row = _Row(split, name, line, self._cleaned(sentence1))
            if self._pairs:
                row.sentence2 = self._cleaned(sentence2)
            if fault := rows.faults.get(position):
                self._drop(row, fault.kind, _shorten(" ".join(fault.value.split())))
            elif position in rows.spanning and all(map(self._is_row, rows.spanning[position][1])):
                end = rows.spanning[position][0]
                self._drop(row, "fields", f"a quote opens here and closes in line {end}; double quotes inside a field")
            elif not row.sentence1 or row.sentence2 == "":
                self._drop(row, "blank", row.text)
            elif tables.MASK in row.sentence1 or tables.MASK in (row.sentence2 or ""):
                self._drop(row, "mask", row.text)
            elif label := classes.get(label, label) if classes and label else label:  # null and "" are unlabelled
                self._read_label(row, label)
            checked.append(row)
        return checked

    def _is_row(self, values: tuple[str, str]) -> bool:
        """Return whether a line inside a field is a row, by its text and label: a stray quote made it part of the field."""
        text, label = values
        if not label or not re.search(r"[^\W\d]", text):
            return False
        if self._labels is None:
            return _number(label) is not None
        try:
            self._labels.number(label)
        except KeyError:
            return False
        return True

    def _read_label(self, row: _Row, value: str) -> None:
        if self._labels is None:
            row.label = _number(value)
            unknown = row.label is None
        else:
            try:
                row.label, unknown = self._labels.number(value), False
            except KeyError:
                unknown = True
        if unknown:
            self._unknown.append(value)
            self._drop(row, "unknown_label", _quoted(value))

    def advice(self) -> list[str]:
        """Return lines on the labels of rows that were dropped for them."""
        if not self._unknown:
            return []
        if self._labels is None:
            return ["A task with one label is a regression: its labels are finite numbers, such as 3.8, or empty."]
        return self._labels.advice(self._unknown)

    def repeats(self, rows: Iterable[_Row]) -> None:
        """Keep each text once in a split. A row without a label conflicts with no label."""
        groups: dict[tuple[str, str], list[_Row]] = defaultdict(list)
        for row in rows:
            groups[row.split, row.id].append(row)
        for group in (group for group in groups.values() if len(group) > 1):
            votes = Counter(row.label for row in group if row.label is not None)
            label = max(votes, key=votes.__getitem__, default=None)  # the first on a tie
            chosen = next(row for row in group if row.label == label)
            if len(votes) > 1:
                self._conflict(group, chosen)
                continue
            for row in group:
                if row is not chosen:
                    self._drop(row, "repeat", f"as in {self._place(chosen)}: {row.text}")

    def _conflict(self, group: Sequence[_Row], chosen: _Row) -> None:
        for row in group:
            self._found["conflict"].append((row, f"{self._named(row.label)}: {row.text}"))
            if row is not chosen or self._text.bad_rows.conflict != "keep":
                row.dropped = "conflict"
        if self._regression:
            numbers = [row.label for row in group if row.label is not None]
            chosen.label = float(np.float32(np.mean(numbers, dtype=np.float64)))

    def _place(self, row: _Row) -> str:
        return f"{PurePath(row.file).name}, line {row.line}" if row.file in self._parts else f"line {row.line}"

    def _named(self, label: int | float | None) -> str:
        if label is None:
            return "no label"
        return f"{label:.7g}" if self._regression else self._text.labels[int(label)]

    def leaks(self, rows: Iterable[_Row]) -> None:
        """Keep each text in the last split that has it."""
        last: dict[str, _Row] = {}
        for row in sorted(rows, key=lambda row: SPLITS.index(row.split), reverse=True):
            other = last.setdefault(row.id, row)
            if other is not row:
                self._drop(row, "leak", f"also in {other.split}, {self._place(other)}: {row.text}")


@dataclass(frozen=True)
class ListedProblem(Problem):
    """A problem with a list of its rows."""

    def by_file(self, values: bool) -> list[str]:
        texts = []
        for file, group in groupby(self.rows, lambda row: row.file):
            rows = list(group)
            first = rows[:LOCATIONS_IN_MESSAGE]
            lines = ", ".join(f"line {at.line} ({at.value})" if values else f"line {at.line}" for at in first)
            more = ", ..." if len(rows) > len(first) else ""
            texts.append(f"{file}: {len(rows):,} {'row' if len(rows) == 1 else 'rows'}: {lines}{more}")
        return texts


def report_of(table: pa.Table, read: int, left_out: int, problems: dict[str, Problem], text: Text) -> Report:
    labels = {split: table["label"].filter(pc.equal(table["split"], split)) for split in SPLITS}
    found = {split: _label_counts(values, text) for split, values in labels.items()}
    return Report(
        read=read,
        left_out_by_where=left_out,
        kept={split: len(values) for split, values in labels.items()},
        labels=found,
        unlabelled={split: values.null_count for split, values in labels.items()},
        words={name: counts for name in ("sentence1", "sentence2") if (counts := _word_counts(table[name]))},
        problems=problems,
        warnings=_number_warnings(found, text) if text.is_regression else _class_warnings(found),
    )


def _label_counts(labels: pa.ChunkedArray, text: Text) -> dict[str, float]:
    if not text.is_regression:
        counts = Counter(labels.to_pylist())
        return {name: counts[number] for number, name in enumerate(text.labels)}
    numbers = labels.drop_null().to_numpy().astype(np.float64)
    if not len(numbers):
        return {"rows": 0}
    found = {"min": numbers.min(), "mean": numbers.mean(), "max": numbers.max(), "deviation": numbers.std()}
    return {"rows": len(numbers), **{name: round(float(value), 6) for name, value in found.items()}}


def _word_counts(texts: pa.ChunkedArray) -> dict[str, float]:
    counts = pc.list_value_length(pc.utf8_split_whitespace(texts.drop_null())).to_numpy()
    if not len(counts):
        return {}
    return {"min": int(counts.min()), "median": float(np.median(counts)), "max": int(counts.max())}
