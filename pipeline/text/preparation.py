"""Checks the rows of a source and makes the table of examples.

White space at both ends of a text is removed. In a pretokenised task, white space between words becomes one space, so that texts
with the same words are the same text. Raw text is otherwise kept byte for byte. A row is dropped for one reason only, so the rows
read are the rows kept plus the rows dropped of every kind.
"""

import logging
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import pyarrow as pa

from pipeline import tables
from pipeline.errors import InputError
from pipeline.params.text import Text
from pipeline.tables import SPLITS, TextMode
from pipeline.text.labels import Labels
from pipeline.text.row_report import KINDS, Problem, Report, RowLocation, refuse
from pipeline.text.sources import ALL, SourceRows

logger = logging.getLogger(__name__)


def prepare(rows: Mapping[str, SourceRows], text: Text, mode: TextMode, gold: bool = True) -> tuple[pa.Table, Report]:
    """Check every row and make the table of examples.

    :param rows: The rows of each split, or of `sources.ALL` alone, as `sources.read` returns them.
    :param gold: Whether validation rows need gold labels.
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
    report = Report.of(table, len(every), sum(part.left_out for part in rows.values()), problems, text)
    report.log()
    for line in advice:
        logger.warning("bad_rows.unknown_label: %s", line)
    if empty := [split for split in _wanted(rows, text) if not report.kept[split]]:
        raise InputError(
            f"the split {empty[0]!r} ends up empty: of {report.read:,} rows read, {report.rows_per_split} are left"
        )
    if gold:
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
            kind: Problem(
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
