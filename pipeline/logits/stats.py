"""Statistics and sample rows of a logit data set as text for a terminal."""

from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import tables
from pipeline.errors import InputError
from pipeline.logits import changes, dataset
from pipeline.logits.changes import gold_label
from pipeline.logits.shards import logits_of, shard_schema
from pipeline.logits.where import parsed
from pipeline.metrics.calibration import softmax
from pipeline.places.place import Place

BAR = 40
"""Characters of the longest bar."""

CONFIDENCES = 10
NUMBERS = 10
"""Bars of the numbers of a regression."""

LENGTHS = (1, 3, 6, 9, 13, 21, 41, 81)
"""The smallest number of words of each bar of text lengths."""

UNUSED = ("id", "copy", "side", "ngram_start1", "ngram_start2")
"""The columns that `stats` does not read."""

KINDS = ("original", "unlabelled", "augmented", "masked", "replaced", "edited", "cut to an n-gram")
"""Kinds of rows. A row can be of several: the last four are augmented rows by what was done to them."""

MARKS = {
    changes.KEPT: ("", ""),
    **dict.fromkeys((changes.DROPPED, changes.REPLACED), ("[-", "-]")),
    changes.NEW: ("{+", "+}"),
}
"""The marks of `git diff --word-diff`."""


def _count(rows: pa.Table, classes: int) -> dict[str, Any]:
    """Return counts of rows of a logit data set, which add up over rows.

    Rows whose logits are NaN or infinite count in `rows`, `gold` and `lengths` alone. A regression (one class) has lists of numbers in place of
    classes, confidences and entropies.
    """
    texts = (pc.fill_null(rows[name], "") for name in ("sentence1", "sentence2"))
    words = pc.add(*(pc.count_substring_regex(text, r"\S+") for text in texts)).to_numpy()
    places = np.searchsorted(LENGTHS, words, side="right") - 1
    values = logits_of(rows)
    finite = np.isfinite(values).all(axis=1)
    found: dict[str, Any] = {
        "rows": rows.num_rows,
        "not finite": int((~finite).sum()),
        "lengths": np.bincount(np.maximum(places, 0), minlength=len(LENGTHS)),
    }
    if classes == 1:
        return found | {"gold": [rows["label"].drop_null().to_numpy()], "predicted": [values[finite, 0]]}
    if other := set(rows["label"].unique().to_pylist()) - {None, *range(classes)}:
        raise ValueError(f"the label {min(other)} is not the number of one of the {classes} classes")
    labels = pc.fill_null(rows["label"], classes).to_numpy()  # the last class is for rows without a gold label
    rows, probabilities = rows.filter(pa.array(finite)), softmax(values[finite])
    confidences = np.minimum((probabilities.max(axis=1) * CONFIDENCES).astype(int), CONFIDENCES - 1)
    entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-300))).sum(axis=1)
    kinds = [tables.is_of(rows, origin) for origin in tables.ORIGINS]
    augmented = kinds[-1]
    for name in ("masked", "replaced", "edited", "ngram_size"):
        one, two = (pc.fill_null(rows[f"{name}{side}"], 0).to_numpy() > 0 for side in (1, 2))
        kinds.append(augmented & (one | two))
    return found | {
        "gold": np.bincount(labels, minlength=classes + 1),
        "predicted": np.bincount(probabilities.argmax(axis=1), minlength=classes),
        "confidences": np.bincount(confidences, minlength=CONFIDENCES),
        "kinds": np.sum(kinds, axis=1),
        "entropies": np.array([entropy[kind].sum() for kind in kinds]),  # in nats
    }


def _add(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {key: one[key] + other[key] for key in one}


def stats(folder: Place) -> str:
    """Return statistics of a logit data set, drawn as bars.

    :return: For each split, gold labels and predicted classes. For all splits together, the teacher's confidence, the length of the text, and
        the mean entropy of the teacher's distribution by what was done to a row. For a regression, gold numbers, the teacher's numbers, and
        lengths. Rows whose logits are not finite are counted apart.
    :raises InputError: If there is no data set.
    """
    about = dataset.provenance(folder)
    labels, classes = about["labels"], len(about["labels"])
    total = nothing = _count(tables.logits_schema(classes).empty_table(), classes)
    names = tables.logits_schema(classes).names
    columns = dataset.columns_of(about, [name for name in names if name not in UNUSED])
    parts = []
    for split, paths in dataset.shard_paths(folder).items():
        found = reduce(_add, (_count(rows, classes) for rows in changes.batches(paths, columns)), nothing)
        total = _add(total, found)
        head, not_finite = f"{split}, {found['rows']:,} rows", found["not finite"]
        if classes == 1:
            parts.append(_numbers(f"{head}: gold {labels[0]}", found["gold"]))
            parts.append(_numbers(f"{split}: the teacher's {labels[0]}", found["predicted"], not_finite))
        else:
            names = [*labels, "not finite"] if not_finite else labels
            counts = np.append(found["predicted"], not_finite)[: len(names)]
            parts.append(_bars(f"{head}: gold label", [*labels, "none"], found["gold"]))
            parts.append(_bars(f"{split}: the teacher's class", names, counts))
    ends = [f"{low}-{high - 1}" for low, high in pairwise(LENGTHS)] + [f"{LENGTHS[-1]}+"]
    words = _bars("words of the text, in rows", ends, total["lengths"])
    if classes == 1:
        return "\n\n".join([*parts, words])
    confidences, kinds = total["confidences"], total["kinds"]
    edges = [f"{i / CONFIDENCES:.1f}-{(i + 1) / CONFIDENCES:.1f}" for i in range(CONFIDENCES)]
    first = int(np.flatnonzero(confidences).min(initial=CONFIDENCES))
    parts += [_bars("the teacher's confidence, in rows", edges[first:], confidences[first:]), words]
    some = np.flatnonzero(kinds)
    names = [f"{KINDS[i]} ({kinds[i]:,} rows)" for i in some]
    parts.append(_bars("mean entropy of the teacher, in nats", names, total["entropies"][some] / kinds[some]))
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


def head(folder: Place, rows: int, split: str = "train", where: str | None = None) -> str:
    """Return rows of a logit data set as text: half of them originals, half augmented rows with their changes, where both exist.

    :param where: Show rows that this expression of `pipeline.logits.where` selects; None for any row.
    :return: Two lines a row. Words that a rule removed are in [-brackets-], words that it added in {+braces+}. One more line if not all augmented
        rows were searched, see `changes.first_rows`.
    :raises InputError: If the data set or the split does not exist, or the expression is wrong or selects no row.
    """
    if rows < 1:
        raise InputError(f"--rows {rows}: must be at least 1")
    about, found = dataset.provenance(folder), dataset.shard_paths(folder)
    labels = about["labels"]
    if split not in found and split not in about["rows"]:
        raise InputError(f"{folder}: has no split {split!r} (it has {', '.join(found)})")
    paths = found.get(split, [])
    chosen = None if where is None else parsed(where, shard_schema(about), labels)
    originals, copies, searched = changes.first_rows(paths, rows, rows, chosen)
    if not originals and not copies:
        none = f"{folder}: {split} has no rows" if where is None else f"--where {where!r}: selects no row of {split}"
        raise InputError(none)
    few = min(len(copies), rows - min(len(originals), rows - rows // 2))
    shown = [*originals[: rows - few], *copies[:few]]
    changes.add_originals(paths, shown)
    lines = [_row(row, labels) for row in shown]
    if searched is not None:
        lines.append(f"searched the first {searched:,} augmented rows of {split}: {len(copies):,} match")
    return "\n".join(lines)


def _row(row: Mapping[str, Any], labels: Sequence[str]) -> str:
    sides = [side for side in (1, 2) if row[f"sentence{side}"] is not None]
    text = " | ".join(changes.marked(row, side, MARKS, _printable) for side in sides)
    gold = "no gold label" if row["label"] is None else f"gold {gold_label(row['label'], labels)}"
    values = ", ".join(f"{name} {value:.3f}" for name, value in zip(labels, row["logits"], strict=True))
    return f"{text}\n    {row['id']}  {changes.describe(row)}; {gold}; logits {values}"


def _printable(text: str) -> str:
    """Replace control characters, which could change the state of the terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
