"""What a teacher said of the rows that students learn from, and a few of those rows with their copies."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.logits import changes, dataset
from pipeline.logits.shards import logits_of
from pipeline.metrics.calibration import softmax

BINS = 20
KINDS = ("masked", "replaced", "edited", "ngram_size")
"""Columns that tell what was done to a row; a row can be of several kinds."""

POOL = 400
"""Originals that are drawn, and among which those are chosen that show most."""

LEAST_WORDS, MOST_WORDS = 5, 24
"""Of an original that is shown."""

MOST_LETTERS = 400
"""Of a sentence that is shown with its copies."""


@dataclass(frozen=True)
class Confidence:
    """How sure a teacher is of training rows, or in a regression (one class) what numbers it says.

    :param edges: The ends of the bins, [BINS + 1].
    :param original: Original rows in each bin.
    :param augmented: Augmented rows in each bin.
    :param means: The mean confidence, or number, of originals and of augmented rows.
    :param other: By what was done, `all` for any: augmented rows, and those of them that the teacher puts into another class than their
        original; empty in a regression.
    """

    edges: tuple[float, ...]
    original: NDArray[np.int64]
    augmented: NDArray[np.int64]
    means: tuple[float, float]
    other: dict[str, tuple[int, int]] = field(default_factory=dict)


def confidence(folder: Path) -> Confidence:
    """Read a teacher's logits of the training rows, a part at a time.

    :param folder: Its logit data set.
    :raises InputError: If there is no data set.
    """
    paths = dataset.shard_paths(folder).get("train", [])
    classes = len(dataset.provenance(folder)["labels"])
    if classes == 1:
        return _numbers(paths)
    edges = np.linspace(1 / classes, 1.0, BINS + 1)
    counts, sums = np.zeros((2, BINS), np.int64), np.zeros(2)
    ids, said = [pa.array([], pa.string())], [np.empty(0, np.int64)]
    for rows in changes.batches(paths, ["id", "parent_id", "logits"]):
        found = softmax(logits_of(rows))
        sure = found.max(axis=1)
        copies = pc.is_valid(rows["parent_id"])
        augmented = copies.to_numpy().astype(np.int64)
        for kind in (0, 1):
            counts[kind] += np.histogram(sure[augmented == kind], edges)[0]
            sums[kind] += sure[augmented == kind].sum()
        ids += rows["id"].filter(pc.invert(copies)).chunks
        said.append(found.argmax(axis=1)[augmented == 0])
    other = _others(paths, pa.chunked_array(ids).combine_chunks(), np.concatenate(said))
    means = sums / np.maximum(counts.sum(axis=1), 1)
    return Confidence(tuple(edges.tolist()), counts[0], counts[1], (float(means[0]), float(means[1])), other)


def _others(paths: Sequence[Path], ids: pa.Array, said: NDArray[np.int64]) -> dict[str, tuple[int, int]]:
    """Count the copies that a teacher puts into another class than their original, by what was done to them."""
    rows_of, others_of = Counter[str](), Counter[str]()
    columns = [f"{kind}{side}" for kind in KINDS for side in (1, 2)]
    for rows in changes.batches(paths, ["parent_id", *columns, "logits"]):
        places = pc.index_in(rows["parent_id"], value_set=ids).combine_chunks()
        known = places.is_valid().to_numpy(zero_copy_only=False)
        theirs = said[places.drop_null().to_numpy(zero_copy_only=False).astype(np.int64)]
        another = logits_of(rows)[known].argmax(axis=1) != theirs
        rows_of["all"] += len(another)
        others_of["all"] += int(another.sum())
        for kind in KINDS:
            done = pc.or_(*(pc.greater(pc.fill_null(rows[f"{kind}{side}"], 0), 0) for side in (1, 2))).to_numpy()[known]
            rows_of[kind] += int(done.sum())
            others_of[kind] += int(another[done].sum())
    return {kind: (rows, others_of[kind]) for kind, rows in rows_of.items() if rows}


def _numbers(paths: Sequence[Path]) -> Confidence:
    parts: tuple[list[NDArray[Any]], list[NDArray[Any]]] = ([np.empty(0)], [np.empty(0)])
    for rows in changes.batches(paths, ["parent_id", "logits"]):
        values, augmented = logits_of(rows)[:, 0], pc.is_valid(rows["parent_id"]).to_numpy()
        parts[0].append(values[~augmented])
        parts[1].append(values[augmented])
    both = [np.concatenate(part) for part in parts]
    edges = np.histogram_bin_edges(np.concatenate(both), BINS)
    counts = [np.histogram(values, edges)[0] for values in both]
    means = [float(values.mean()) if len(values) else 0.0 for values in both]
    return Confidence(tuple(edges.tolist()), counts[0], counts[1], (means[0], means[1]))


@dataclass(frozen=True)
class Family:
    """An original row and some of its copies, as rows of a logit data set, each with `original`."""

    original: dict[str, Any]
    copies: list[dict[str, Any]]


def families(folder: Path, many: int, copies: int, seed: int) -> list[Family]:
    """Choose originals whose copies show what the rules do; which ones follows from the ids and the seed, not from the order of the rows.

    :param folder: The logit data set.
    :param many: How many originals.
    :param copies: How many copies of each.
    :param seed: Of the draw.
    :return: Those that show most kinds of change first.
    :raises InputError: If there is no data set.
    """
    paths = dataset.shard_paths(folder).get("train", [])
    ids = [pa.array([], pa.string())]
    for rows in changes.batches(paths, ["id", "parent_id", "sentence1"]):
        words = pc.add(pc.count_substring(rows["sentence1"], " "), 1)
        fit = pc.and_(pc.greater_equal(words, LEAST_WORDS), pc.less_equal(words, MOST_WORDS))
        ids += rows["id"].filter(pc.and_(pc.is_null(rows["parent_id"]), fit)).chunks
    everything = pa.chunked_array(ids)
    everything = everything.take(pc.sort_indices(everything))
    drawn = np.random.default_rng(seed).permutation(len(everything))[:POOL]
    pool = everything.take(pa.array(np.sort(drawn), pa.int64())).combine_chunks()
    originals: dict[str, dict[str, Any]] = {}
    found: dict[str, list[dict[str, Any]]] = {}
    for rows in changes.batches(paths):
        mine = pc.and_(pc.is_in(rows["id"], value_set=pool), pc.is_null(rows["parent_id"]))
        for row in rows.filter(pc.or_(mine, pc.is_in(rows["parent_id"], value_set=pool))).to_pylist():
            if row["parent_id"] is None:
                originals[row["id"]] = row
            else:
                found.setdefault(row["parent_id"], []).append(row)
    chosen = sorted(found, key=lambda parent: (-len(_kinds(found[parent])), -min(len(found[parent]), copies), parent))
    return [Family(originals[parent], _varied(found[parent], originals[parent], copies)) for parent in chosen[:many]]


def _done(row: dict[str, Any]) -> frozenset[str]:
    """Return what was done to a row, in a word each."""
    return frozenset([kind for kind in KINDS if row[f"{kind}1"] or row[f"{kind}2"]] + [str(row["side"])])


def _kinds(rows: Sequence[dict[str, Any]]) -> frozenset[str]:
    return frozenset().union(*map(_done, rows))


def _varied(rows: list[dict[str, Any]], original: dict[str, Any], most: int) -> list[dict[str, Any]]:
    """Return copies of a row that show every kind of change there is, in the order in which they were drawn."""
    waiting = sorted(rows, key=lambda row: (row["copy"] if row["copy"] is not None else -1, row["id"]))
    chosen: list[dict[str, Any]] = []
    while waiting and len(chosen) < most:
        known = _kinds(chosen)
        best = max(waiting, key=lambda row: len(_done(row) - known))
        waiting.remove(best)
        chosen.append(best)
    for row in chosen:
        row["original"] = original
    return sorted(chosen, key=lambda row: (row["copy"] if row["copy"] is not None else -1, row["id"]))
