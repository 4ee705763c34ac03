"""Decides which copies are kept: each text once, and no text of an original. Exact, out of core, in any number of processes.

While copies are drawn, their ids are partitioned into ranges. Equal ids are in the same range, so each range is judged by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import tables
from pipeline.augment.block import I64, Bool
from pipeline.augment.scratch import Arrays

U64 = NDArray[np.uint64]
I8 = NDArray[np.int8]

FATES: Final = ("kept", "duplicates", "leaks", "unchanged")
"""The outcomes for a copy. A duplicate equals an earlier copy or another training example, a leak equals a text of another split, an
unchanged copy equals its own parent."""
KEPT, DUPLICATE, LEAK, UNCHANGED = range(4)


@dataclass(frozen=True)
class Spread:
    """The ids of a shard's copies and of its originals, by range, in a scratch file."""

    arrays: Arrays
    copies: I64  # [ranges] number of copies in each
    originals: I64  # [ranges] number of originals in each


def spread(
    path: Path,
    ranges: int,
    begin: int,
    ids: U64,
    parents: I64,
    texts: U64,
    training: Bool,
    **others: NDArray[Any],
) -> Spread:
    """Write a shard's ids by range.

    :param path: The scratch file.
    :param begin: The number of the shard's first original.
    :param ids: [copies, 2] the ids of the copies' texts.
    :param parents: [copies] the shard's original that each copies.
    :param texts: [n, 2] the ids of the originals' texts.
    :param training: [n] whether each is in the training split.
    :param others: More arrays for the file, by name.
    """
    order, copies = _by_range(ids, ranges)
    texts_order, originals = _by_range(texts, ranges)
    numbers = np.arange(begin, begin + len(texts))
    arrays: dict[str, NDArray[Any]] = {
        "order": order.astype(np.int32),
        "copies": _numbered(ids, parents + begin).take(order, axis=0),
        "texts": _numbered(texts, 2 * numbers + training).take(texts_order, axis=0),
    }
    return Spread(Arrays.write(path, arrays | others), copies, originals)


def of_texts(path: Path, ranges: int, begin: int, ids: pa.ChunkedArray) -> Spread:
    """Write the ids of training texts that have no copies, as `spread` does those of a shard.

    :param begin: The number of the first one; that of no other original is as high.
    """
    texts = tables.id_digests(ids)
    none = np.zeros(0, np.int64)
    return spread(path, ranges, begin, np.zeros((0, 2), np.uint64), none, texts, np.ones(len(texts), np.bool_))


def _numbered(ids: U64, numbers: I64) -> U64:
    """Return [n, 3]: each id with a number."""
    return np.column_stack([ids, numbers.astype(np.uint64)])


def judge(spreads: Sequence[Spread], number: int, verdict: Path) -> None:
    """Judge the copies of one range of ids: the first copy with a text is kept, unless an original of any split has the text.

    :param spreads: One for each shard.
    :param number: The number of the range.
    :param verdict: The file to write: KEPT, DUPLICATE, LEAK or UNCHANGED for the copies in the range, shard after shard.
    """
    texts = _parts([(s.arrays, s.originals) for s in spreads], "texts", number)
    copies = _parts([(s.arrays, s.copies) for s in spreads], "copies", number)
    rows, training = texts[:, 2] >> np.uint64(1), texts[:, 2] & np.uint64(1)
    first = first_of_equals(np.concatenate([texts[:, :2], copies[:, :2]]))[len(texts) :]
    fate = np.where(first == np.arange(len(texts), len(texts) + len(copies)), KEPT, DUPLICATE).astype(np.int8)
    equal = np.flatnonzero(first < len(texts))
    original = first[equal]
    fate[equal[training[original] == 0]] = LEAK
    fate[equal[rows[original] == copies[equal, 2]]] = UNCHANGED
    fate.tofile(verdict)


def judged(spread: Spread, before: I64, verdicts: Sequence[Path]) -> tuple[I8, U64, I64]:
    """Return the outcomes for a shard's copies.

    :param spread: The shard's ids.
    :param before: [ranges] the number of copies of earlier shards in each range.
    :param verdicts: The files that `judge` wrote, one per range.
    :return: In the order in which the copies were drawn: their fates [copies], ids [copies, 2], and parents [copies] as numbers of originals.
    """
    parts = [
        np.fromfile(verdict, np.int8, int(count), offset=int(begin))
        for verdict, begin, count in zip(verdicts, before, spread.copies, strict=True)
    ]
    order = spread.arrays.read("order")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    rows = spread.arrays.read("copies").take(place, axis=0)
    return np.concatenate(parts).take(place), rows[:, :2], rows[:, 2].astype(np.int64)


def _parts(shards: Sequence[tuple[Arrays, I64]], name: str, number: int) -> U64:
    """Read one range's numbered ids of all shards, [n, 3]."""
    return np.concatenate([arrays.read(name, int(n[:number].sum()), int(n[number])) for arrays, n in shards])


def _by_range(digests: U64, ranges: int) -> tuple[I64, I64]:
    """Return the order that sorts ids by their range (stable), and the number of ids in each."""
    which = (((digests[:, 0] >> np.uint64(32)) * np.uint64(ranges)) >> np.uint64(32)).astype(np.uint16)
    return np.argsort(which, kind="stable"), np.bincount(which, minlength=ranges)


def first_of_equals(digests: U64) -> I64:
    """Return, for each digest [n, 2], the index of the first one that equals it."""
    first = np.arange(len(digests))
    high, low = np.ascontiguousarray(digests[:, 0]), digests[:, 1]
    order = np.argsort(high)
    repeats = np.flatnonzero(~_differ(high[order]))  # few: those with the same upper half as the one before
    alike = np.zeros(len(digests), np.bool_)
    alike[repeats] = alike[repeats - 1] = True
    some = order[alike]
    begins = _differ(high[some])
    if (_differ(low[some]) & ~begins).any():  # two texts share an upper half
        some = some[np.lexsort((low[some], high[some]))]
        begins = _differ(high[some]) | _differ(low[some])
    if len(some):
        at = np.flatnonzero(begins)
        first[some] = np.repeat(np.minimum.reduceat(some, at), np.diff(at, append=len(some)))
    return first


def _differ(ordered: U64) -> Bool:
    """Return whether each number differs from the one before it."""
    return np.concatenate([np.ones(min(1, len(ordered)), np.bool_), ordered[1:] != ordered[:-1]])
