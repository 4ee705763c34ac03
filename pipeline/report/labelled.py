"""The training rows of a teacher's logit data set, read once: its confidence on them, and example rows with their augmented copies."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import tables
from pipeline.logits import changes, dataset
from pipeline.logits.doubts import Logits
from pipeline.logits.shards import logits_of
from pipeline.metrics.calibration import softmax

Row = dict[str, Any]
"""A row of a logit data set."""

BINS = 20
KINDS = ("masked", "replaced", "edited", "ngram_size")
"""Lineage columns, one for each kind of change; a row can have several."""

POOL = 400
"""Originals that are drawn; the examples are those of them with the most kinds of change."""

LEAST_WORDS, MOST_WORDS = 5, 24
"""Of an example's original."""

_COLUMNS = [
    "id",
    "sentence1",
    "label",
    "parent_id",
    "side",
    *(f"{kind}{side}" for kind in KINDS for side in (1, 2)),
    "logits",
]


@dataclass(frozen=True)
class Confidence:
    """A teacher's confidence on the training rows, in a regression (one class) its predictions.

    :param edges: The ends of the bins, [BINS + 1].
    :param original: Original rows in each bin; `augmented` are the augmented ones, `unlabelled` those of unlabelled text.
    :param means: The mean over originals, over augmented rows, and over unlabelled rows, if there are any.
    :param other: By kind of change, `all` for any: augmented rows, and those of them whose predicted class differs from their original's;
        empty in a regression.
    """

    edges: NDArray[np.float64]
    original: NDArray[np.int64]
    augmented: NDArray[np.int64]
    means: tuple[float, ...]
    other: dict[str, tuple[int, int]] = field(default_factory=dict)
    unlabelled: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))


class Labelled(NamedTuple):
    """What a report shows of a logit data set."""

    confidence: Confidence
    doubts: list[str]
    """As `pipeline.logits.doubts.doubts_of`."""
    families: list[list[Row]]
    """Originals, each followed by copies that have it under `original`."""


class _Facts(NamedTuple):
    """What is kept of n training rows, of which o are originals and c are copies: about 40 bytes a row, and no text."""

    copied: NDArray[np.bool_]
    """[n]"""
    values: NDArray[np.float64]
    """The probability of the predicted class, in a regression the prediction, [n]."""
    predicted: NDArray[np.int32]
    """[n]"""
    ids: pa.Array
    """Of originals, [o] of 16 bytes."""
    pool: NDArray[np.bool_]
    """Which originals are unlabelled text, [o]."""
    fit: NDArray[np.bool_]
    """Which originals can be an example: of the task's source, and neither short nor long, [o]."""
    parents: pa.Array
    """Of copies, [c] of 16 bytes."""
    changes: NDArray[np.uint8]
    """A bit for each of KINDS, then one for each of SIDES, and one for no side, [c]."""

    @classmethod
    def of(cls, rows: pa.Table) -> "_Facts":
        copies = pc.is_valid(rows["parent_id"])
        pool = tables.is_of(rows, tables.POOL)[~copies.to_numpy()]
        logits, originals, added = logits_of(rows), rows.filter(pc.invert(copies)), rows.filter(copies)
        values = logits[:, 0] if logits.shape[1] == 1 else softmax(logits).max(axis=1)
        words = pc.add(pc.count_substring(originals["sentence1"], " "), 1)
        fit = pc.and_(pc.greater_equal(words, LEAST_WORDS), pc.less_equal(words, MOST_WORDS))
        side = pc.fill_null(
            pc.index_in(added["side"].cast("string"), value_set=pa.array(tables.SIDES)), len(tables.SIDES)
        )
        bits = 1 << (side.to_numpy().astype(np.uint8) + len(KINDS))
        for bit, kind in enumerate(KINDS):
            one, two = (pc.fill_null(added[f"{kind}{side}"], 0).to_numpy() > 0 for side in (1, 2))
            bits |= (one | two).astype(np.uint8) << bit
        return cls(
            copies.to_numpy(),
            values.astype(np.float64),
            logits.argmax(axis=1).astype(np.int32),
            tables.id_bytes(originals["id"]),
            pool,
            fit.to_numpy() & ~pool,
            tables.id_bytes(added["parent_id"]),
            bits,
        )


def read(folder: Path, many: int, copies: int, seed: int) -> Labelled:
    """Read a logit data set in one pass, a batch at a time.

    The families are originals whose copies show what the rules do, those with the most kinds of change first. The choice depends on the ids and
    the seed, not on the order of the rows.

    :param many: The number of families.
    :param copies: The most copies in a family.
    :param seed: Of the draw of families.
    :raises InputError: If there is no data set, or an id is not 32 hex digits.
    """
    about = dataset.provenance(folder)
    doubting, columns = Logits(about["labels"]), dataset.columns_of(about, _COLUMNS)
    parts = [_Facts.of(tables.logits_schema(len(about["labels"])).empty_table())]
    for split, paths in dataset.shard_paths(folder).items():
        for rows in changes.batches(paths, columns if split == "train" else ["label", "logits"]):
            doubting.add_rows(rows, split)
            if split == "train":
                parts.append(_Facts.of(rows))
    facts = _Facts(
        *(pa.concat_arrays(x) if isinstance(x[0], pa.Array) else np.concatenate(x) for x in zip(*parts, strict=True))
    )
    del parts
    parent = pc.fill_null(pc.index_in(facts.parents, value_set=facts.ids), -1).to_numpy()
    chosen = _families(facts, parent, many, copies, seed)
    return Labelled(
        _confidence(facts, parent, len(about["labels"])),
        doubting.doubts(),
        _rows(folder, facts, parent, chosen, copies),
    )


def _confidence(facts: _Facts, parent: NDArray[np.int32], classes: int) -> Confidence:
    """Return the confidence, and how often the predicted class of copies differs from that of their originals.

    :param parent: The original of each copy, by its place among the originals, -1 where it is missing.
    """
    values = facts.values
    if classes > 1:
        values = values.clip(1 / classes, 1.0)  # rounding can put 1 / C below the first edge
    edges = np.histogram_bin_edges(values, BINS, None if classes == 1 else (1 / classes, 1.0))
    originals, pool = values[~facts.copied], facts.pool
    sides = originals[~pool], values[facts.copied], originals[pool]
    counts = [np.histogram(side, edges)[0] for side in sides]
    means = tuple(float(side.mean()) if len(side) else 0.0 for side in (sides if pool.any() else sides[:2]))
    other: dict[str, tuple[int, int]] = {}
    if classes > 1:
        known = parent >= 0
        differs = facts.predicted[facts.copied][known] != facts.predicted[~facts.copied][parent[known]]
        bits = facts.changes[known]
        done = {"all": bits > 0} | {kind: bits >> bit & 1 > 0 for bit, kind in enumerate(KINDS)}
        other = {kind: (int(which.sum()), int(differs[which].sum())) for kind, which in done.items() if which.any()}
    return Confidence(edges, counts[0], counts[1], means, other, counts[2])


def _families(facts: _Facts, parent: NDArray[np.int32], many: int, copies: int, seed: int) -> NDArray[np.int64]:
    """Choose originals that have copies: their places among the originals, those with the most kinds of change first."""
    fit = np.flatnonzero(facts.fit)
    fit = fit[pc.sort_indices(facts.ids.take(pa.array(fit))).to_numpy()]
    pool = fit[np.sort(np.random.default_rng(seed).permutation(len(fit))[:POOL])]
    place = np.full(len(facts.ids) + 1, -1)  # in the pool; the last is for a missing parent
    place[pool] = np.arange(len(pool))
    of_copy = place[parent]
    drawn = of_copy >= 0
    kinds, numbers = np.zeros(len(pool), np.uint8), np.bincount(of_copy[drawn], minlength=len(pool))
    np.bitwise_or.at(kinds, of_copy[drawn], facts.changes[drawn])
    order = np.lexsort((-np.minimum(numbers, copies), -np.bitwise_count(kinds).astype(int)))  # stable: then by id
    chosen: NDArray[np.int64] = pool[order[numbers[order] > 0][:many]]
    return chosen


def _rows(
    folder: Path, facts: _Facts, parent: NDArray[np.int32], chosen: NDArray[np.int64], copies: int
) -> list[list[Row]]:
    """Read the families of some originals."""
    if not len(chosen):
        return []
    places = [np.flatnonzero(~facts.copied)[chosen], np.flatnonzero(facts.copied)[np.isin(parent, chosen)]]
    found = dataset.read_rows(folder, np.sort(np.concatenate(places)), None, "train").to_pylist()
    ids = [name.hex() for name in facts.ids.take(pa.array(chosen)).to_pylist()]
    originals = {row["id"]: row for row in found if row["parent_id"] is None}
    return [
        [originals[name], *_varied([row for row in found if row["parent_id"] == name], originals[name], copies)]
        for name in ids
    ]


def _kinds(rows: Iterable[Row]) -> set[str]:
    """Return the kinds of change of rows, and their sides."""
    return {str(row["side"]) for row in rows} | {
        kind for row in rows for kind in KINDS if row[f"{kind}1"] or row[f"{kind}2"]
    }


def _varied(rows: list[Row], original: Row, most: int) -> list[Row]:
    """Return copies of a row that show all of its kinds of change, in the order in which they were drawn."""
    order = sorted(rows, key=lambda row: (row["copy"] if row["copy"] is not None else -1, row["id"]))
    waiting, chosen = list(order), list[Row]()
    while waiting and len(chosen) < most:
        known = _kinds(chosen)
        chosen.append(max(waiting, key=lambda row: len(_kinds([row]) - known)))
        waiting.remove(chosen[-1])
    return [row | {"original": original} for row in order if row in chosen]
