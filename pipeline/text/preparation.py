"""From rows as a source has them to the table of examples: every row checked, split, and either kept or accounted for.

Text is stripped of white space at both ends (as `str.strip` has it) and otherwise kept to the byte. A row is dropped for one reason, so
rows read = rows kept + rows dropped of every kind, always.
"""

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import tables
from pipeline.errors import InputError
from pipeline.params.text import Text
from pipeline.tables import SPLITS
from pipeline.text.sources import ALL, Rows

log = logging.getLogger(__name__)

KINDS = ("fields", "encoding", "blank", "mask", "unknown_label", "conflict", "repeat", "leak")
"""What can be wrong with a row, in the order in which it is looked for; `BadRows` says what each means."""
PLACES_IN_MESSAGE = 5
PLACES_IN_JSON = 100


@dataclass(frozen=True)
class Place:
    """A row in a source, and what is wrong there."""

    file: str
    line: int
    value: str


@dataclass(frozen=True)
class Problem:
    """The rows with one kind of problem.

    :param action: What the task says: refuse, drop or keep.
    :param count: The rows that have it.
    :param dropped: How many of them were dropped for it.
    :param places: Where each is.
    """

    action: str
    count: int
    dropped: int
    places: list[Place]

    def as_json(self) -> dict[str, Any]:
        """Return it with the places cut after PLACES_IN_JSON; `count` is the true count."""
        return {
            "count": self.count,
            "action": self.action,
            "dropped": self.dropped,
            "rows": [asdict(place) for place in self.places[:PLACES_IN_JSON]],
        }


@dataclass(frozen=True)
class Report:
    """What was read, what was kept, what was wrong.

    :param read: Rows read, after `where`.
    :param left_out: Rows that `where` did not select.
    :param kept: Rows in the table, by split.
    :param labels: Rows in the table by split and class name; in a regression, by split, the labelled rows and least, mean, greatest
        and standard deviation of their numbers.
    :param unlabelled: Rows in the table without a label, by split.
    :param words: Least, median and greatest number of words (parted by white space) of each sentence column.
    :param problems: By kind, in the order of KINDS.
    """

    read: int
    left_out: int
    kept: dict[str, int]
    labels: dict[str, dict[str, float]]
    unlabelled: dict[str, int]
    words: dict[str, dict[str, float]]
    problems: dict[str, Problem]

    def metrics(self) -> dict[str, Any]:
        """Return the counts alone, for `dvc metrics show`."""
        return {
            "read": self.read,
            "kept": self.kept,
            "unlabelled": sum(self.unlabelled.values()),
            "dropped": sum(problem.dropped for problem in self.problems.values()),
            "problems": {kind: problem.count for kind, problem in self.problems.items()},
        }

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON has it."""
        return {
            "read": self.read,
            "left_out_by_where": self.left_out,
            "kept": self.kept,
            "labels": self.labels,
            "unlabelled": self.unlabelled,
            "words": self.words,
            "problems": {kind: problem.as_json() for kind, problem in self.problems.items()},
        }


def prepare(rows: Mapping[str, Rows], text: Text) -> tuple[pa.Table, Report]:
    """Check every row and make the table of examples.

    :param rows: The rows of each split, or of `sources.ALL` alone, as `sources.read` returns them.
    :param text: The task's description of its text.
    :return: The table (`tables.examples_schema(C)`, in the order of SPLITS and then of the file) and the report.
    :raises InputError: If there are rows that the task refuses (all kinds in one message), or a split is missing or ends up empty.
    """
    _check_splits(rows, text)
    check = _Check(text)
    every = [row for split in (ALL, *SPLITS) if split in rows for row in check.rows(split, rows[split])]
    _identify(_not_dropped(every))
    if ALL in rows:
        _cut(_not_dropped(every), _shares(text))
    check.repeats(_not_dropped(every))
    check.leaks(_not_dropped(every))

    kept = [row for split in SPLITS for row in every if row.split == split and not row.dropped]
    problems = check.problems()
    if len(kept) + sum(problem.dropped for problem in problems.values()) != len(every):
        raise AssertionError("a row is neither kept nor accounted for")
    _refuse(problems, text)
    report = _report(kept, len(every), sum(part.left_out for part in rows.values()), problems, text)
    _log(report)
    if empty := [split for split in _wanted(rows, text) if not report.kept[split]]:
        raise InputError(
            f"the split {empty[0]!r} ends up empty: of {report.read:,} rows read, {_counts(report.kept)} are left"
        )
    return _table(kept, tables.examples_schema(len(text.labels))), report


# --- splits -------------------------------------------------------------------------------------------------------------


def _shares(text: Text) -> dict[str, float]:
    """Return the shares that are not 0, in the order of SPLITS."""
    given = {str(split): share for split, share in text.splits.items()}
    return {split: given[split] for split in SPLITS if given.get(split, 0.0) > 0}


def _wanted(rows: Mapping[str, Rows], text: Text) -> list[str]:
    return list(_shares(text)) if ALL in rows else [split for split in SPLITS if split in rows]


def _check_splits(rows: Mapping[str, Rows], text: Text) -> None:
    if text.splits and ALL not in rows:
        raise InputError(
            f"text.splits: shares are for a source of one file; this one has its own splits ({', '.join(rows)})"
        )
    for split in ("train", "validation"):
        if split not in _wanted(rows, text):
            raise InputError(
                f"text: there is no {split} split; give the source a file for it, or give a source of one file "
                "shares under text.splits, such as {train: 0.8, validation: 0.1, test: 0.1}"
            )


def _cut(rows: Sequence["_Row"], shares: Mapping[str, float]) -> None:
    """Give each row its split by its id alone, so that other rows have no say in it.

    The id's first 64 bits, as a fraction of 2**64, are looked up among the cumulative shares.
    """
    splits = list(shares)
    bounds = np.cumsum(list(shares.values()))[:-1]
    fractions = tables.id_digests(pa.array([row.id for row in rows], pa.string()))[:, 0] / 2.0**64
    for row, index in zip(rows, np.searchsorted(bounds, fractions, side="right").tolist(), strict=True):
        row.split = splits[index]


# --- checks -------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Row:
    split: str  # ALL until it is cut
    file: str
    line: int
    sentence1: str = ""
    sentence2: str | None = None
    label: int | float | None = None  # a number that float32 holds exactly, in a regression
    id: str = ""
    dropped: str | None = None  # the kind of problem that it was dropped for

    @property
    def text(self) -> str:
        return _quoted(self.sentence1) + ("" if self.sentence2 is None else f" | {_quoted(self.sentence2)}")


def _not_dropped(rows: Iterable[_Row]) -> list[_Row]:
    return [row for row in rows if row.dropped is None]


def _identify(rows: Sequence[_Row]) -> None:
    ids = tables.content_ids([row.sentence1 for row in rows], [row.sentence2 for row in rows])
    for row, found in zip(rows, ids, strict=True):
        row.id = found


def _shorten(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _quoted(text: str) -> str:
    return repr(_shorten(text))


def _number(label: str) -> float | None:
    """Return a label as float32 has it; None where it is no finite number."""
    try:
        with np.errstate(over="ignore"):
            found = float(np.float32(label)) if "_" not in label else math.nan  # Python reads 1_000
    except ValueError:
        return None
    return found if math.isfinite(found) else None


class _Check:
    """Looks for problems, notes them, and drops the rows that cannot stay."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self._pairs = text.columns.sentence2 is not None
        self._regression = text.is_regression
        self._labels: dict[str, int | None] = {
            value: None if name is None else text.labels.index(name)
            for value, name in (text.label_values or dict(zip(text.labels, text.labels, strict=True))).items()
        }
        self._found: dict[str, list[tuple[_Row, str]]] = {kind: [] for kind in KINDS}

    def _drop(self, row: _Row, kind: str, value: str) -> None:
        row.dropped = kind
        self._found[kind].append((row, value))

    def problems(self) -> dict[str, Problem]:
        """Return what was found, by kind."""
        return {
            kind: Problem(
                action=getattr(self._text.bad_rows, kind),
                count=len(found),
                dropped=sum(row.dropped == kind for row, _ in found),
                places=sorted(
                    (Place(row.file, row.line, value) for row, value in found), key=lambda at: (at.file, at.line)
                ),
            )
            for kind, found in self._found.items()
        }

    def rows(self, split: str, rows: Rows) -> list[_Row]:
        """Check each row by itself."""
        columns = (rows.lines, rows.sentence1, rows.sentence2, rows.labels)
        checked = []
        for position, (line, sentence1, sentence2, label) in enumerate(zip(*columns, strict=True)):
            row = _Row(split, rows.name, line, (sentence1 or "").strip())
            if self._pairs:
                row.sentence2 = (sentence2 or "").strip()
            if fault := rows.faults.get(position):
                self._drop(row, fault.kind, _shorten(" ".join(fault.value.split())))
            elif not row.sentence1 or row.sentence2 == "":
                self._drop(row, "blank", row.text)
            elif tables.MASK in row.sentence1 or tables.MASK in (row.sentence2 or ""):
                self._drop(row, "mask", row.text)
            elif self._regression and label:
                row.label = _number(label)
                if row.label is None:
                    self._drop(row, "unknown_label", _quoted(label))
            elif label in self._labels and not self._regression:
                row.label = self._labels[label]
            elif label:  # null and empty ones are unlabelled
                self._drop(row, "unknown_label", _quoted(label))
            checked.append(row)
        return checked

    def repeats(self, rows: Iterable[_Row]) -> None:
        """Leave each text once in a split; a row without a label agrees with any label."""
        groups: dict[tuple[str, str], list[_Row]] = defaultdict(list)
        for row in rows:
            groups[row.split, row.id].append(row)
        for group in groups.values():
            if len(group) == 1:
                continue
            votes = Counter(row.label for row in group if row.label is not None)
            label = max(votes, key=votes.__getitem__, default=None)  # the first on a tie
            chosen = next(row for row in group if row.label == label)
            if len(votes) > 1:
                self._conflict(group, chosen)
                continue
            for row in group:
                if row is not chosen:
                    self._drop(row, "repeat", f"as in line {chosen.line}: {row.text}")

    def _conflict(self, group: Sequence[_Row], chosen: _Row) -> None:
        for row in group:
            self._found["conflict"].append((row, f"{self._named(row.label)}: {row.text}"))
            if row is not chosen or self._text.bad_rows.conflict != "keep":
                row.dropped = "conflict"

        if self._regression:
            numbers = [row.label for row in group if row.label is not None]
            chosen.label = float(np.float32(np.mean(numbers, dtype=np.float64)))

    def _named(self, label: int | float | None) -> str:
        if label is None:
            return "no label"
        return f"{label:.7g}" if self._regression else self._text.labels[int(label)]

    def leaks(self, rows: Iterable[_Row]) -> None:
        """Leave each text in the last of the splits that have it."""
        last: dict[str, _Row] = {}
        found = sorted(rows, key=lambda row: SPLITS.index(row.split), reverse=True)
        for row in found:
            other = last.setdefault(row.id, row)
            if other is not row:
                self._drop(row, "leak", f"in {other.split} too, line {other.line}: {row.text}")


# --- what comes out -----------------------------------------------------------------------------------------------------


def _refuse(problems: Mapping[str, Problem], text: Text) -> None:
    refused = [
        f"  text.bad_rows.{kind}: {places}"
        for kind, problem in problems.items()
        if problem.action == "refuse"
        for places in _places(problem, values=True)
    ]
    if not refused:
        return
    if problems["unknown_label"].action == "refuse" and problems["unknown_label"].count:
        values = ", ".join(repr(value) for value in text.label_values or text.labels)
        refused.append(
            "  A task of one label is a regression: its labels are finite numbers, such as 3.8, or empty."
            if text.is_regression
            else f"  The labels that the task knows: {values}."
        )
    raise InputError(
        "rows that the task refuses; mend them in the file, or set the key to `drop` to go on without them:\n"
        + "\n".join(refused)
    )


def _places(problem: Problem, values: bool) -> list[str]:
    """Say for each file how many rows there are and where the first of them stand."""
    by_file: dict[str, list[Place]] = defaultdict(list)
    for place in problem.places:
        by_file[place.file].append(place)
    said = []
    for file, places in by_file.items():
        first = [
            f"line {place.line} ({place.value})" if values else f"line {place.line}"
            for place in places[:PLACES_IN_MESSAGE]
        ]
        more = ", ..." if len(places) > len(first) else ""
        said.append(f"{file}: {len(places):,} {'row' if len(places) == 1 else 'rows'}: {', '.join(first)}{more}")
    return said


def _label_counts(rows: Sequence[_Row], text: Text) -> dict[str, float]:
    """Return the rows by class name; in a regression, how the numbers lie."""
    if not text.is_regression:
        counts = Counter(row.label for row in rows)
        return {name: counts[number] for number, name in enumerate(text.labels)}
    numbers = np.array([row.label for row in rows if row.label is not None])
    if not len(numbers):
        return {"rows": 0}
    found = {"min": numbers.min(), "mean": numbers.mean(), "max": numbers.max(), "deviation": numbers.std()}
    return {"rows": len(numbers), **{name: round(float(value), 6) for name, value in found.items()}}


def _report(kept: Sequence[_Row], read: int, left_out: int, problems: dict[str, Problem], text: Text) -> Report:
    by_split = {split: [row for row in kept if row.split == split] for split in SPLITS}
    words = {
        column: np.array([len(value.split()) for row in kept if (value := getattr(row, column)) is not None])
        for column in ("sentence1", "sentence2")
    }
    return Report(
        read=read,
        left_out=left_out,
        kept={split: len(rows) for split, rows in by_split.items()},
        labels={split: _label_counts(rows, text) for split, rows in by_split.items()},
        unlabelled={split: sum(row.label is None for row in rows) for split, rows in by_split.items()},
        words={
            column: {"min": int(counts.min()), "median": float(np.median(counts)), "max": int(counts.max())}
            for column, counts in words.items()
            if len(counts)
        },
        problems=problems,
    )


def _counts(kept: Mapping[str, int]) -> str:
    return ", ".join(f"{split} {count:,}" for split, count in kept.items())


def _log(report: Report) -> None:
    for kind, problem in report.problems.items():
        for places in _places(problem, values=False):
            log.warning("bad_rows.%s: %s: %s", kind, problem.action, places)
    if report.left_out:
        log.info("%s rows left out by text.source.where", f"{report.left_out:,}")
    log.info(
        "%s rows read, %s kept (%s), %s of them without a label",
        f"{report.read:,}",
        f"{sum(report.kept.values()):,}",
        _counts(report.kept),
        f"{sum(report.unlabelled.values()):,}",
    )


def _table(rows: Sequence[_Row], schema: pa.Schema) -> pa.Table:
    return pa.table({field.name: pa.array([getattr(row, field.name) for row in rows]) for field in schema}).cast(schema)
