"""Which copies stay: each text once, none that is an original's. Exact, out of core, in any number of processes.

Ids are spread over ranges while copies are drawn. Equal ids are in the same range, so that each range is looked at by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.augment.block import I64
from pipeline.augment.scratch import Arrays

U64 = NDArray[np.uint64]
I8 = NDArray[np.int8]

FATES: Final = ("kept", "duplicates", "leaks", "unchanged")
"""What becomes of a copy: a duplicate equals an earlier copy or another training example, a leak a text of another split, an unchanged one
its own parent."""
KEPT, DUPLICATE, LEAK, UNCHANGED = range(4)


@dataclass(frozen=True)
class Spread:
    """A shard's ids in scratch, by range: those of its copies, and those of its originals."""

    arrays: Arrays
    copies: I64  # [ranges] how many are in each
    originals: I64  # [ranges]


def spread(
    ranges: int, begin: int, ids: U64, parents: I64, originals: U64, training: NDArray[np.bool_]
) -> tuple[dict[str, NDArray[Any]], I64, I64]:
    """Put a shard's ids in order of their range.

    :param ranges: How many ranges of ids there are.
    :param begin: The number of the shard's first original.
    :param ids: [copies, 2] the ids of the copies' texts.
    :param parents: [copies] which of the shard's originals each copies.
    :param originals: [n, 2] the ids of the originals' texts.
    :param training: [n] whether each is in the training split.
    :return: The arrays that `judge` and `judged` read, and how many copies and how many originals are in each range.
    """
    order, copies = _by_range(ids, ranges)
    texts_order, texts = _by_range(originals, ranges)
    numbers = np.arange(begin, begin + len(originals))
    arrays: dict[str, NDArray[Any]] = {
        "order": order.astype(np.int32),
        "copies": _numbered(ids, parents + begin).take(order, axis=0),
        "texts": _numbered(originals, 2 * numbers + training).take(texts_order, axis=0),
    }
    return arrays, copies, texts


def _numbered(ids: U64, numbers: I64) -> U64:
    """Return [n, 3]: ids and a number beside each."""
    found = np.empty((len(ids), 3), np.uint64)
    found[:, :2], found[:, 2] = ids, numbers
    return found


def judge(spreads: Sequence[Spread], number: int, verdict: Path) -> None:
    """Decide on the copies of one range of ids: the first of each text stays, unless it is an original of any split.

    :param spreads: Each shard's, its arrays being those of `spread`.
    :param number: Which range.
    :param verdict: The file to write: for each shard's copies in the range, one after the other, KEPT, DUPLICATE, LEAK or UNCHANGED.
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
    """Put together what was decided on a shard's copies.

    :param spread: The shard's.
    :param before: [ranges] how many copies of the shards before it are in each range.
    :param verdicts: What `judge` wrote, a file a range.
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
    """Return the order that sorts ids by their range, equal ranges as they stand, and how many are in each."""
    which = (((digests[:, 0] >> np.uint64(32)) * np.uint64(ranges)) >> np.uint64(32)).astype(np.uint16)
    return np.argsort(which, kind="stable"), np.bincount(which, minlength=ranges)


def first_of_equals(digests: U64) -> I64:
    """Return, for each digest [n, 2], the place of the first one that is equal to it."""
    first = np.arange(len(digests))
    high, low = np.ascontiguousarray(digests[:, 0]), digests[:, 1]
    order = np.argsort(high)
    repeats = np.flatnonzero(~_differ(high[order]))  # few: those whose upper half stood there just before
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


def _differ(ordered: U64) -> NDArray[np.bool_]:
    """Return whether each number is another than the one before it."""
    found = np.ones(len(ordered), np.bool_)
    found[1:] = ordered[1:] != ordered[:-1]
    return found
