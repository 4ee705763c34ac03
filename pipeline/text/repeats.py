"""Finds rows with the same text, by their ids: repeats and conflicts within a split, leaks between splits."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Repeats:
    """What was found among the rows of each split."""

    repeats: tuple[Positions, Positions]  # rows with the text and label of another, and for each the one that is kept
    conflicts: Positions  # rows with one text and several labels, one text after the other
    sizes: NDArray[np.int64]  # by text: the number of its rows
    chosen: Positions  # by text: the first row with the most frequent label, the first label on a tie


def repeated(ids: NDArray[np.uint64], rows: NDArray[np.bool_]) -> Positions:
    """Return the rows whose text another one may have: all that share the first half of their id.

    :param ids: uint64 [2, n], the high half first.
    :param rows: [n] whether to look at a row.
    """
    high = ids[0][rows]
    high.sort()
    twice = np.unique(high[1:][high[1:] == high[:-1]])
    del high
    parts = [np.zeros(0, np.int64)]
    for begin in range(0, len(rows) if len(twice) else 0, _CHUNK):
        values = ids[0, begin : begin + _CHUNK]
        found = twice[np.minimum(np.searchsorted(twice, values), len(twice) - 1)] == values
        parts.append(begin + np.flatnonzero(found & rows[begin : begin + _CHUNK]))
    return np.concatenate(parts)


def in_splits(
    ids: NDArray[np.uint64], splits: NDArray[np.int8], labels: NDArray[np.number], rows: Positions
) -> Repeats:
    """Return the rows with the same text in one split. A row without a label conflicts with no label.

    :param splits: [n] the number of each row's split.
    :param labels: [n] class numbers, -1 for no label; or numbers, NaN for no label.
    :param rows: The rows to look at, ascending.
    """
    rows = rows[np.lexsort((ids[1, rows], ids[0, rows], splits[rows]))]  # stable: ascending in each group
    groups, sizes = _groups(splits[rows], ids[0, rows], ids[1, rows])
    several = sizes[groups] > 1
    rows, groups = rows[several], groups[several]
    if not len(rows):
        return Repeats((rows, rows), rows, rows, rows)
    _, groups = np.unique(groups, return_inverse=True)
    # The rows with one label in a group are a vote.
    known = _known(labels[rows])
    values = np.where(known, labels[rows], 0)
    order = np.lexsort((values, ~known, groups))
    votes, counts = _groups(groups[order], known[order], values[order])
    first = order[np.flatnonzero(np.diff(votes, prepend=-1))]  # of each vote
    group_of, is_label = groups[first], known[first]
    # Of each group: the vote with most rows, the first on a tie; votes for no label come last.
    best = np.lexsort((rows[first], -counts, ~is_label, group_of))
    best = best[np.flatnonzero(np.diff(group_of[best], prepend=-1))]
    chosen = rows[first[best]]
    conflicting = np.bincount(group_of, is_label, len(chosen)) > 1
    repeats = ~conflicting[groups] & (rows != chosen[groups])
    kept = chosen[groups[repeats]]
    order = np.argsort(rows[repeats])
    sizes = np.bincount(groups)[conflicting]
    return Repeats((rows[repeats][order], kept[order]), rows[conflicting[groups]], sizes, chosen[conflicting])


def between_splits(ids: NDArray[np.uint64], splits: NDArray[np.int8], rows: Positions) -> tuple[Positions, Positions]:
    """Return the rows whose text a later split also has, ascending, and for each that of the last split, which keeps it."""
    rows = rows[np.lexsort((-splits[rows], ids[1, rows], ids[0, rows]))]
    groups, _ = _groups(ids[0, rows], ids[1, rows])
    last = rows[np.flatnonzero(np.diff(groups, prepend=-1))][groups]
    leaks = rows != last
    order = np.argsort(rows[leaks])
    return rows[leaks][order], last[leaks][order]


def _known(labels: NDArray[np.number]) -> NDArray[np.bool_]:
    return labels >= 0 if labels.dtype.kind == "i" else ~np.isnan(labels)


def _groups(*keys: NDArray[np.generic]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the number of the run of equal keys that each element is in, and the size of each run."""
    changes = np.zeros(len(keys[0]), bool)
    for key in keys:
        changes[1:] |= key[1:] != key[:-1]
    groups = np.cumsum(changes)
    return groups, np.bincount(groups, minlength=1)
