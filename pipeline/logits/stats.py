"""What is in a logit data set, for people who look rather than read: bars of text, and rows with what was done to them."""

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
from pipeline.logits.card import gold_label
from pipeline.logits.shards import logits_of
from pipeline.metrics.calibration import softmax

BAR = 40
"""Letters of the longest bar."""

CONFIDENCES = 10
NUMBERS = 10
"""Bars of a regression's numbers."""

LENGTHS = (1, 3, 6, 9, 13, 21, 41, 81)
"""Words from which the bars of the lengths begin."""

KINDS = ("original", "augmented", "masked", "replaced", "edited", "cut to an n-gram")
"""Of rows: the last four are augmented rows to which that was done; a row can be of several."""

MARKS = {
    changes.KEPT: ("", ""),
    **dict.fromkeys((changes.DROPPED, changes.REPLACED), ("[-", "-]")),
    changes.NEW: ("{+", "+}"),
}
"""The marks of `git diff --word-diff`."""


@dataclass
class Statistics:
    """Counts over rows. In a regression (one class) there are numbers in place of classes, confidences and entropies.

    :param classes: C.
    """

    classes: int
    rows: int = 0
    gold: NDArray[np.int64] = field(init=False)  # by class, the last one for none
    teachers: NDArray[np.int64] = field(init=False)  # by the class that the teacher predicts
    confidences: NDArray[np.int64] = field(init=False)
    lengths: NDArray[np.int64] = field(init=False)
    kinds: NDArray[np.int64] = field(init=False)
    entropies: NDArray[np.float64] = field(init=False)  # sums of nats, by kind
    numbers: tuple[list[NDArray[Any]], list[NDArray[Any]]] = field(
        default_factory=lambda: ([], [])
    )  # gold, the teacher's

    def __post_init__(self) -> None:
        self.gold, self.teachers = np.zeros(self.classes + 1, np.int64), np.zeros(self.classes, np.int64)
        self.confidences, self.lengths = np.zeros(CONFIDENCES, np.int64), np.zeros(len(LENGTHS), np.int64)
        self.kinds, self.entropies = np.zeros(len(KINDS), np.int64), np.zeros(len(KINDS))

    def add(self, rows: pa.Table) -> None:
        """Count rows of a logit data set, as they are stored."""
        self.rows += rows.num_rows
        found = softmax(logits_of(rows))
        if self.classes == 1:
            self.numbers[0].append(rows["label"].drop_null().to_numpy())
            self.numbers[1].append(logits_of(rows)[:, 0])
        else:
            labels = pc.fill_null(rows["label"], self.classes).to_numpy()
            self.gold += np.bincount(labels, minlength=self.classes + 1)
        self.teachers += np.bincount(found.argmax(axis=1), minlength=self.classes)
        sure = found.max(axis=1)
        self.confidences += np.bincount(
            np.minimum((sure * CONFIDENCES).astype(int), CONFIDENCES - 1), minlength=CONFIDENCES
        )
        words = pc.add(*(_words(rows[name]) for name in ("sentence1", "sentence2"))).to_numpy()
        places = np.searchsorted(LENGTHS, words, side="right") - 1
        self.lengths += np.bincount(np.maximum(places, 0), minlength=len(LENGTHS))
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
    """Count what is in a logit data set and draw it.

    :param folder: The data set's folder.
    :return: For each split: class balance, gold and teacher's; then of all splits: the teacher's confidence, the length of the text, and the
        mean entropy of the teacher's distribution by what was done to a row. Of a regression: how gold and teacher's numbers lie, lengths.
    :raises InputError: If there is no data set.
    """
    labels = dataset.provenance(folder)["labels"]
    everything = Statistics(len(labels))
    parts = []
    for split, paths in dataset.shard_paths(folder).items():
        mine = Statistics(len(labels))
        for rows in changes.batches(paths):
            mine.add(rows)
            everything.add(rows)
        if len(labels) == 1:
            parts.append(_numbers(f"{split}, {mine.rows:,} rows: gold {labels[0]}", mine.numbers[0]))
            parts.append(_numbers(f"{split}: what the teacher says", mine.numbers[1]))
            continue
        parts.append(_bars(f"{split}, {mine.rows:,} rows: gold label", [*labels, "none"], mine.gold))
        parts.append(_bars(f"{split}: what the teacher predicts", labels, mine.teachers))
    ends = [f"{low}-{high - 1}" for low, high in pairwise(LENGTHS)] + [f"{LENGTHS[-1]}+"]
    words = _bars("words of the text, in rows", ends, everything.lengths)
    if len(labels) == 1:
        return "\n\n".join([*parts, words])
    floor = [f"{i / CONFIDENCES:.1f}-{(i + 1) / CONFIDENCES:.1f}" for i in range(CONFIDENCES)]
    first = int(np.flatnonzero(everything.confidences).min(initial=CONFIDENCES))
    parts.append(_bars("the teacher's confidence, in rows", floor[first:], everything.confidences[first:]))
    parts.append(words)
    there = np.flatnonzero(everything.kinds)
    means = everything.entropies[there] / everything.kinds[there]
    names = [f"{KINDS[i]} ({everything.kinds[i]:,} rows)" for i in there]
    parts.append(_bars("mean entropy of the teacher, in nats", names, means))
    return "\n\n".join(parts)


def _numbers(title: str, parts: Sequence[NDArray[Any]]) -> str:
    """Draw how numbers lie between the least and the greatest."""
    values = np.concatenate([np.empty(0), *parts])
    values = values[np.isfinite(values)]
    if not len(values):
        return f"{title}\n  none"
    counts, edges = np.histogram(values, NUMBERS)
    title = f"{title}, {len(values):,} of mean {values.mean():.4g} and standard deviation {values.std():.4g}"
    return _bars(title, [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges.tolist())], counts)


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
    """Show rows of a logit data set: half of them originals, half augmented ones with what was done to them, where there are both.

    :param folder: The data set's folder.
    :param rows: How many.
    :param split: train, validation or test.
    :return: Two lines a row. Words that a rule took away stand in [-these-] brackets, words that it put there in {+these+}.
    :raises InputError: If there is no data set, or no such split.
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
    texts = [changes.marked(row, side, MARKS, _printable) for side in (1, 2) if row[f"sentence{side}"] is not None]
    gold = "no gold label" if row["label"] is None else f"gold {gold_label(row['label'], labels)}"
    values = ", ".join(f"{name} {value:.3f}" for name, value in zip(labels, row["logits"], strict=True))
    return f"{' | '.join(texts)}\n    {row['id']}  {changes.describe(row)}; {gold}; logits {values}"


def _printable(text: str) -> str:
    """Replace control characters, which could drive the terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
