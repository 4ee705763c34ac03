"""Statistics and sample rows of a logit data set as text for a terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.logits import changes, dataset
from pipeline.logits.changes import gold_label
from pipeline.logits.shards import logits_of
from pipeline.metrics.calibration import softmax

BAR = 40
"""Characters of the longest bar."""

CONFIDENCES = 10
NUMBERS = 10
"""Bars of the numbers of a regression."""

LENGTHS = (1, 3, 6, 9, 13, 21, 41, 81)
"""The smallest number of words of each bar of text lengths."""

KINDS = ("original", "augmented", "masked", "replaced", "edited", "cut to an n-gram")
"""Kinds of rows. A row can be of several: the last four are augmented rows by what was done to them."""

MARKS = {
    changes.KEPT: ("", ""),
    **dict.fromkeys((changes.DROPPED, changes.REPLACED), ("[-", "-]")),
    changes.NEW: ("{+", "+}"),
}
"""The marks of `git diff --word-diff`."""


@dataclass
class Statistics:
    """Counts over rows. A regression (one class) has numbers in place of classes, confidences and entropies.

    :param classes: C.
    """

    classes: int
    rows: int = 0
    not_finite: int = 0  # rows whose logits are NaN or infinite: they count in `rows`, `gold` and `lengths` alone
    gold: NDArray[np.int64] = field(init=False)  # by class; the last is for rows without a gold label
    predicted: NDArray[np.int64] = field(init=False)  # by the teacher's class
    confidences: NDArray[np.int64] = field(init=False)
    lengths: NDArray[np.int64] = field(init=False)
    kinds: NDArray[np.int64] = field(init=False)
    entropies: NDArray[np.float64] = field(init=False)  # sums by kind, in nats
    gold_numbers: list[NDArray[Any]] = field(default_factory=list)
    teacher_numbers: list[NDArray[Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gold, self.predicted = np.zeros(self.classes + 1, np.int64), np.zeros(self.classes, np.int64)
        self.confidences, self.lengths = np.zeros(CONFIDENCES, np.int64), np.zeros(len(LENGTHS), np.int64)
        self.kinds, self.entropies = np.zeros(len(KINDS), np.int64), np.zeros(len(KINDS))

    def add(self, rows: pa.Table) -> None:
        """Count rows of a logit data set, as they are stored."""
        self.rows += rows.num_rows
        words = pc.add(*(_words(rows[name]) for name in ("sentence1", "sentence2"))).to_numpy()
        places = np.searchsorted(LENGTHS, words, side="right") - 1
        self.lengths += np.bincount(np.maximum(places, 0), minlength=len(LENGTHS))
        values = logits_of(rows)
        finite = np.isfinite(values).all(axis=1)
        self.not_finite += int((~finite).sum())
        if self.classes == 1:
            self.gold_numbers.append(rows["label"].drop_null().to_numpy())
            self.teacher_numbers.append(values[finite, 0])
            return
        labels = pc.fill_null(rows["label"], self.classes).to_numpy()
        self.gold += np.bincount(labels, minlength=self.classes + 1)
        self._add_predictions(rows.filter(pa.array(finite)), softmax(values[finite]))

    def _add_predictions(self, rows: pa.Table, found: NDArray[Any]) -> None:
        self.predicted += np.bincount(found.argmax(axis=1), minlength=self.classes)
        places = np.minimum((found.max(axis=1) * CONFIDENCES).astype(int), CONFIDENCES - 1)
        self.confidences += np.bincount(places, minlength=CONFIDENCES)
        entropy = -(found * np.log(np.maximum(found, 1e-300))).sum(axis=1)
        augmented = pc.is_valid(rows["parent_id"]).to_numpy()
        done = [_positive(rows, name) for name in ("masked", "replaced", "edited", "ngram_size")]
        for kind, of in enumerate([~augmented, augmented, *(augmented & which for which in done)]):
            self.kinds[kind] += of.sum()
            self.entropies[kind] += entropy[of].sum()


def _words(column: pa.ChunkedArray) -> pa.ChunkedArray:
    trimmed = pc.utf8_trim_whitespace(pc.fill_null(column, ""))
    some = pc.cast(pc.greater(pc.binary_length(trimmed), 0), pa.int64())
    return pc.add(pc.cast(pc.count_substring_regex(trimmed, r"\s+"), pa.int64()), some)


def _positive(rows: pa.Table, name: str) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.zeros(rows.num_rows, np.bool_)
    for side in (1, 2):
        found |= pc.greater(pc.fill_null(rows[f"{name}{side}"], 0), 0).to_numpy()
    return found


def stats(folder: Path) -> str:
    """Return statistics of a logit data set, drawn as bars.

    :param folder: The data set's folder.
    :return: For each split, gold labels and predicted classes. For all splits together, the teacher's confidence, the length of the text, and
        the mean entropy of the teacher's distribution by what was done to a row. For a regression, gold numbers, the teacher's numbers, and
        lengths. Rows whose logits are not finite are counted apart.
    :raises InputError: If there is no data set.
    """
    labels = dataset.provenance(folder)["labels"]
    total = Statistics(len(labels))
    parts = []
    for split, paths in dataset.shard_paths(folder).items():
        found = Statistics(len(labels))
        for rows in changes.batches(paths):
            found.add(rows)
            total.add(rows)
        head, not_finite = f"{split}, {found.rows:,} rows", found.not_finite
        if len(labels) == 1:
            parts.append(_numbers(f"{head}: gold {labels[0]}", found.gold_numbers))
            parts.append(_numbers(f"{split}: the teacher's {labels[0]}", found.teacher_numbers, not_finite))
        else:
            names = [*labels, "not finite"] if not_finite else labels
            counts = np.append(found.predicted, not_finite)[: len(names)]
            parts.append(_bars(f"{head}: gold label", [*labels, "none"], found.gold))
            parts.append(_bars(f"{split}: the teacher's class", names, counts))
    ends = [f"{low}-{high - 1}" for low, high in pairwise(LENGTHS)] + [f"{LENGTHS[-1]}+"]
    words = _bars("words of the text, in rows", ends, total.lengths)
    if len(labels) == 1:
        return "\n\n".join([*parts, words])
    edges = [f"{i / CONFIDENCES:.1f}-{(i + 1) / CONFIDENCES:.1f}" for i in range(CONFIDENCES)]
    first = int(np.flatnonzero(total.confidences).min(initial=CONFIDENCES))
    parts.append(_bars("the teacher's confidence, in rows", edges[first:], total.confidences[first:]))
    parts.append(words)
    kinds = np.flatnonzero(total.kinds)
    means = total.entropies[kinds] / total.kinds[kinds]
    kind_names = [f"{KINDS[i]} ({total.kinds[i]:,} rows)" for i in kinds]
    parts.append(_bars("mean entropy of the teacher, in nats", kind_names, means))
    return "\n\n".join(parts)


def _numbers(title: str, parts: Sequence[NDArray[Any]], not_finite: int = 0) -> str:
    """Draw a histogram from the least to the greatest number."""
    values = np.concatenate([np.empty(0), *parts])
    values = values[np.isfinite(values)]
    bad = f"\n  rows that are not finite: {not_finite:,}" if not_finite else ""
    if not len(values):
        return f"{title}\n  none{bad}"
    counts, edges = np.histogram(values, NUMBERS)
    title = f"{title}, {len(values):,} of mean {values.mean():.4g} and standard deviation {values.std():.4g}"
    return _bars(title, [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges.tolist())], counts) + bad


def _bars(title: str, names: Sequence[str], values: NDArray[Any]) -> str:
    """Draw a horizontal bar for each value."""
    width = max((len(name) for name in names), default=0)
    longest = max(float(values.max(initial=0)), 1e-300)
    shown = [f"{value:.3f}" if isinstance(value, float) else f"{value:,}" for value in values.tolist()]
    digits = max(map(len, shown), default=0)
    lines = [
        f"  {name:{width}}  {text:>{digits}}  {'#' * round(BAR * float(value) / longest)}".rstrip()
        for name, text, value in zip(names, shown, values, strict=True)
    ]
    return "\n".join([title, *lines])


def head(folder: Path, rows: int, split: str = "train") -> str:
    """Return rows of a logit data set as text: half of them originals, half augmented rows with their changes, where both exist.

    :param folder: The data set's folder.
    :param rows: The number of rows.
    :param split: train, validation or test.
    :return: Two lines a row. Words that a rule removed are in [-brackets-], words that it added in {+braces+}.
    :raises InputError: If the data set or the split does not exist.
    """
    labels, found = dataset.provenance(folder)["labels"], dataset.shard_paths(folder)
    if split not in found:
        raise InputError(f"{folder}: has no split {split!r} (it has {', '.join(found)})")
    originals, copies = changes.first_rows(found[split], rows)
    few = min(len(copies), rows - min(len(originals), rows - rows // 2))
    shown = [*originals[: rows - few], *copies[:few]]
    changes.add_originals(found[split], shown)
    return "\n".join(_row(row, labels) for row in shown)


def _row(row: Mapping[str, Any], labels: Sequence[str]) -> str:
    sides = [side for side in (1, 2) if row[f"sentence{side}"] is not None]
    text = " | ".join(changes.marked(row, side, MARKS, _printable) for side in sides)
    gold = "no gold label" if row["label"] is None else f"gold {gold_label(row['label'], labels)}"
    values = ", ".join(f"{name} {value:.3f}" for name, value in zip(labels, row["logits"], strict=True))
    return f"{text}\n    {row['id']}  {changes.describe(row)}; {gold}; logits {values}"


def _printable(text: str) -> str:
    """Replace control characters, which could change the state of the terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
