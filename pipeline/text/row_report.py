"""What is wrong with the rows of a source, and how many rows are kept: counts, log lines, errors."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError
from pipeline.params.text import Text
from pipeline.tables import SPLITS

logger = logging.getLogger(__name__)

KINDS = ("fields", "encoding", "blank", "mask", "unknown_label", "conflict", "repeat", "leak")
"""The kinds of problems, in the order of the checks. `pipeline.params.text.BadRows` describes each."""
LOCATIONS_IN_MESSAGE = 5
LOCATIONS_IN_JSON = 100


@dataclass(frozen=True)
class RowLocation:
    """A row of a source, and the value that is wrong."""

    file: str
    line: int
    value: str


@dataclass(frozen=True)
class Problem:
    """The rows with one kind of problem."""

    count: int
    action: str  # refuse, drop or keep, as the task's file sets it
    dropped: int  # how many of the rows were dropped for it
    rows: list[RowLocation]  # in the order of files and lines

    def as_json(self) -> dict[str, Any]:
        """Return the problem with the first LOCATIONS_IN_JSON rows; `count` is not cut."""
        return asdict(replace(self, rows=self.rows[:LOCATIONS_IN_JSON]))

    def by_file(self, values: bool) -> list[str]:
        """Return a text for each file: how many rows have the problem, and the first of their lines, with the `values` in them."""
        texts = []
        for file, group in groupby(self.rows, lambda row: row.file):
            rows = list(group)
            first = rows[:LOCATIONS_IN_MESSAGE]
            lines = ", ".join(f"line {at.line} ({at.value})" if values else f"line {at.line}" for at in first)
            more = ", ..." if len(rows) > len(first) else ""
            texts.append(f"{file}: {len(rows):,} {'row' if len(rows) == 1 else 'rows'}: {lines}{more}")
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

    @classmethod
    def of(cls, table: pa.Table, read: int, left_out: int, problems: dict[str, Problem], text: Text) -> "Report":
        """Return the report on a table of examples, the rows that were kept."""
        labels = {split: table["label"].filter(pc.equal(table["split"], split)) for split in SPLITS}
        return cls(
            read=read,
            left_out_by_where=left_out,
            kept={split: len(values) for split, values in labels.items()},
            labels={split: _label_counts(values, text) for split, values in labels.items()},
            unlabelled={split: values.null_count for split, values in labels.items()},
            words={name: counts for name in ("sentence1", "sentence2") if (counts := _word_counts(table[name]))},
            problems=problems,
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
        return {**vars(self), "problems": {kind: problem.as_json() for kind, problem in self.problems.items()}}

    def log(self) -> None:
        """Log every problem with its lines, and the counts."""
        for kind, problem in self.problems.items():
            for rows in problem.by_file(values=False):
                logger.warning("bad_rows.%s: %s: %s", kind, problem.action, rows)
        if self.left_out_by_where:
            logger.info("%s rows left out by text.source.where", f"{self.left_out_by_where:,}")
        logger.info(
            "%s rows read, %s kept (%s), %s of them without a label",
            f"{self.read:,}",
            f"{sum(self.kept.values()):,}",
            self.rows_per_split,
            f"{sum(self.unlabelled.values()):,}",
        )


def refuse(problems: Mapping[str, Problem], advice: Sequence[str]) -> None:
    """Raise one InputError for all rows that the task refuses, if there are any.

    :param advice: Lines on unknown labels.
    """
    refused = {kind: problem for kind, problem in problems.items() if problem.action == "refuse" and problem.count}
    if not refused:
        return
    lines = ["invalid rows; fix them in the file, or set the key to `drop` to drop them:"]
    lines += [
        f"  text.bad_rows.{kind}: {rows}" for kind, problem in refused.items() for rows in problem.by_file(values=True)
    ]
    if "unknown_label" in refused:
        lines += [f"  {line}" for line in advice]
    raise InputError("\n".join(lines))


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
