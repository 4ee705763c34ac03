"""What is wrong with the rows of a source, and how many rows are kept: counts, log lines, errors."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError, counted
from pipeline.params.text import Text
from pipeline.tables import SPLITS

logger = logging.getLogger(__name__)

KINDS = ("fields", "encoding", "blank", "mask", "unknown_label", "conflict", "repeat", "leak")
"""The kinds of problems, in the order of the checks. `pipeline.params.text.BadRows` describes each."""
FEW_ROWS = 50
"""With fewer labelled validation rows there is a warning: one row changes the accuracy by more than two points."""
COMMON = 0.95
"""The share of one class from which on accuracy tells little."""
LOCATIONS_IN_MESSAGE = 5
LOCATIONS_IN_JSON = 100


@dataclass(frozen=True)
class RowLocation:
    """A row of a source, and the value that is wrong."""

    file: str
    line: int
    value: str


class Locations(Sequence[RowLocation]):
    """Rows of a source in the order of files and lines. A `RowLocation` is made where one is looked at, since there can be millions."""

    def __init__(
        self,
        names: Sequence[str],
        files: NDArray[np.intp],
        lines: NDArray[np.int64],
        values: Callable[[slice], list[str]],
        unit: str = "line",
    ) -> None:
        """Store what describes the rows.

        :param names: The names of the files.
        :param files: [n] the number of each row's file.
        :param lines: [n]
        :param values: Returns the values of some rows.
        :param unit: What the lines count, for messages.
        """
        self._names, self._files, self._lines, self._values = names, files, lines, values
        self.unit = unit

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, at: int) -> RowLocation: ...
    @overload
    def __getitem__(self, at: slice) -> list[RowLocation]: ...
    def __getitem__(self, at: int | slice) -> RowLocation | list[RowLocation]:
        if isinstance(at, int):
            return self[at : at + 1 or None][0]
        columns = (self._files[at].tolist(), self._lines[at].tolist(), self._values(at))
        return [RowLocation(self._names[file], line, value) for file, line, value in zip(*columns, strict=True)]

    def __iter__(self) -> Iterator[RowLocation]:
        for begin in range(0, len(self), LOCATIONS_IN_JSON):
            yield from self[begin : begin + LOCATIONS_IN_JSON]

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def by_file(self) -> list[tuple[str, int, list[RowLocation]]]:
        """Return the name of each file, the number of its rows, and the first LOCATIONS_IN_MESSAGE of them."""
        starts = np.flatnonzero(np.diff(self._files, prepend=-1)).tolist()
        found = []
        for start, end in pairwise([*starts, len(self)]):
            first = self[start : min(end, start + LOCATIONS_IN_MESSAGE)]
            found.append((first[0].file, end - start, first))
        return found


@dataclass(frozen=True)
class Problem:
    """The rows with one kind of problem."""

    count: int
    action: str  # refuse, drop or keep, as the task's file sets it
    dropped: int  # how many of the rows were dropped for it
    rows: Locations

    def as_json(self) -> dict[str, Any]:
        """Return the problem with the first LOCATIONS_IN_JSON rows; `count` is not cut."""
        rows = [asdict(row) for row in self.rows[:LOCATIONS_IN_JSON]]
        return {"count": self.count, "action": self.action, "dropped": self.dropped, "rows": rows}

    def by_file(self, values: bool) -> list[str]:
        """Return a text for each file: how many rows have the problem, and the first of their lines, with the `values` in them."""
        texts = []
        for file, count, first in self.rows.by_file():
            unit = self.rows.unit
            lines = ", ".join(f"{unit} {at.line} ({at.value})" if values else f"{unit} {at.line}" for at in first)
            more = ", ..." if count > len(first) else ""
            texts.append(f"{file}: {counted(count, 'row')}: {lines}{more}")
        return texts


@dataclass(frozen=True)
class Report:
    """What was read, what was kept, what was wrong."""

    read: int  # rows read, without those that `where` left out
    left_out_by_where: int
    kept: dict[str, int]  # rows in the table, by split
    # Rows in the table by split and class name. In a regression, by split: the labelled rows, and the minimum, mean, maximum and standard
    # deviation of their numbers.
    labels: dict[str, dict[str, float]]
    unlabelled: dict[str, int]  # rows in the table without a label, by split
    words: dict[str, dict[str, float]]  # minimum, median and maximum number of words of each sentence column
    problems: dict[str, Problem]  # by kind, in the order of KINDS
    warnings: list[str]  # about the labels

    @classmethod
    def of(
        cls,
        read: int,
        left_out: int,
        labels: Mapping[str, NDArray[np.number]],
        words: Mapping[str, NDArray[np.int32]],
        problems: dict[str, Problem],
        text: Text,
    ) -> "Report":
        """Return the report on the rows that were kept.

        :param labels: The labels of each split: class numbers, -1 for no label; in a regression numbers, NaN for no label.
        :param words: The number of words of each row, by column.
        """
        known = {
            split: values[values >= 0 if not text.is_regression else ~np.isnan(values)]
            for split, values in labels.items()
        }
        found = {split: _label_counts(values, text) for split, values in known.items()}
        return cls(
            read=read,
            left_out_by_where=left_out,
            kept={split: len(values) for split, values in labels.items()},
            labels=found,
            unlabelled={split: len(values) - len(known[split]) for split, values in labels.items()},
            words={name: _word_counts(counts) for name, counts in words.items() if len(counts)},
            problems=problems,
            warnings=_number_warnings(found, text) if text.is_regression else _class_warnings(found),
        )

    @property
    def rows_per_split(self) -> str:
        """The rows kept, as text."""
        return ", ".join(f"{split} {count:,}" for split, count in self.kept.items())

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
        """Return the whole report as JSON values."""
        found = {**vars(self), "problems": {kind: problem.as_json() for kind, problem in self.problems.items()}}
        return {key: value for key, value in found.items() if key != "warnings" or value}

    def refuse_unlabelled(self, text: Text) -> None:
        """Raise an InputError where no student can be chosen, since no validation row has a class."""
        if text.is_regression or any(self.labels["validation"].values()):
            return
        nothing = not any(any(counts.values()) for counts in self.labels.values())
        label = text.columns.label
        rows = "rows" if nothing else "validation rows"
        remedy = (
            "name the column of the labels in text.columns.label"
            if label is None
            else f"label some {rows} in column {label!r}"
        )
        raise InputError(
            f"{'no row' if nothing else 'no validation row'} has a label: students are chosen by their accuracy on "
            f"labelled validation rows; {remedy}"
        )

    def log(self) -> None:
        """Log every problem with its lines, and the counts."""
        for kind, problem in self.problems.items():
            for rows in problem.by_file(values=kind == "fields"):  # which tell how many lines a row has
                logger.warning("bad_rows.%s: %s: %s", kind, problem.action, rows)
        if self.left_out_by_where:
            logger.info("%s left out by text.source.where", counted(self.left_out_by_where, "row"))
        logger.info(
            "%s read, %s kept (%s), %s of them without a label",
            counted(self.read, "row"),
            f"{sum(self.kept.values()):,}",
            self.rows_per_split,
            f"{sum(self.unlabelled.values()):,}",
        )
        for warning in self.warnings:
            logger.warning("%s", warning)


def refuse(problems: Mapping[str, Problem], advice: Sequence[str]) -> None:
    """Raise one InputError for all rows that the task refuses, if there are any.

    :param advice: Lines on unknown labels.
    """
    refused = {kind: problem for kind, problem in problems.items() if problem.action == "refuse" and problem.count}
    if not refused:
        return
    lines = ["invalid rows; fix them, or set the key to `drop`:"]
    lines += [
        f"  text.bad_rows.{kind}: {rows}" for kind, problem in refused.items() for rows in problem.by_file(values=True)
    ]
    if "unknown_label" in refused:
        lines += [f"  {line}" for line in advice]
    raise InputError("\n".join(lines))


def _label_counts(labels: NDArray[np.number], text: Text) -> dict[str, float]:
    if not text.is_regression:
        counts = np.bincount(labels, minlength=len(text.labels)).tolist()
        return dict(zip(text.labels, counts, strict=True))
    numbers = labels.astype(np.float64)
    if not len(numbers):
        return {"rows": 0}
    found = {"min": numbers.min(), "mean": numbers.mean(), "max": numbers.max(), "deviation": numbers.std()}
    return {"rows": len(numbers), **{name: round(float(value), 6) for name, value in found.items()}}


def _class_warnings(labels: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return warnings on the counts of classes by split, one sentence each."""
    rows = {split: int(sum(counts.values())) for split, counts in labels.items()}
    if not rows["validation"]:
        return []  # refused
    found: list[str] = []
    never: list[str] = []
    untrained: list[str] = []
    for name, trained in labels["train"].items():
        if not trained:
            (untrained if any(counts[name] for counts in labels.values()) else never).append(repr(name))
    if never:
        found.append(f"no row has the label {' or '.join(never)}: check the spelling in text.labels and label_values")
    if not rows["train"]:
        found.append("no training row has a label: students learn from the teacher's logits alone")
    elif untrained:
        found.append(f"no training row has the label {' or '.join(untrained)}: no student can learn it")
    for split in (split for split in SPLITS if rows[split]):
        most = max(labels[split], key=labels[split].__getitem__)
        share = labels[split][most] / rows[split]
        if share == 1.0 and split != SPLITS[0]:
            every = "the only labelled row" if rows[split] == 1 else f"all {rows[split]:,} labelled rows"
            found.append(f"{every} of the {split} split {'is' if rows[split] == 1 else 'are'} {most!r}")
        elif share > COMMON and split == SPLITS[0]:
            found.append(
                f"{share:.1%} of the labelled training rows are {most!r}, which is the accuracy of "
                "always predicting it: compare students by the F1 of the other classes"
            )
    return found + _few_rows(rows["validation"])


def _number_warnings(labels: Mapping[str, Mapping[str, float]], text: Text) -> list[str]:
    """Return warnings on the labels of a regression by split, one sentence each."""
    found = [
        f"all {counts['rows']:,} labelled rows of the {split} split have the {text.labels[0]} {counts['min']:.7g}, "
        "so that Pearson's correlation is undefined there"
        for split, counts in labels.items()
        if counts["rows"] and counts["min"] == counts["max"]
    ]
    if not any(counts["rows"] for counts in labels.values()):
        return ["no row has a label: students learn from the teacher's outputs alone, and nothing is measured"]
    return found + _few_rows(int(labels["validation"]["rows"]))


def _few_rows(rows: int) -> list[str]:
    if rows >= FEW_ROWS:
        return []
    return [f"the validation split has {counted(rows, 'labelled row')}: too few to choose between epochs and students"]


def _word_counts(counts: NDArray[np.int32]) -> dict[str, float]:
    return {"min": int(counts.min()), "median": float(np.median(counts)), "max": int(counts.max())}
