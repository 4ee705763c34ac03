"""A teacher's confidence on the training rows, and example rows with their augmented copies."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import tables
from pipeline.logits import changes, dataset
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


def confidence(folder: Path) -> Confidence:
    """Return a teacher's confidence on the training rows of its logit data set, read in batches.

    :raises InputError: If there is no data set.
    """
    paths = dataset.shard_paths(folder).get("train", [])
    about = dataset.provenance(folder)
    classes = len(about["labels"])
    values, copied, pool = [np.empty(0)], [np.empty(0, np.bool_)], [np.empty(0, np.bool_)]
    ids, predicted = [pa.array([], pa.string())], [np.empty(0, np.int64)]
    for rows in changes.batches(paths, dataset.columns_of(about, ("id", "parent_id", "logits"))):
        logits, copies = logits_of(rows), pc.is_valid(rows["parent_id"])
        values.append(logits[:, 0] if classes == 1 else softmax(logits).max(axis=1))
        copied.append(copies.to_numpy())
        pool.append(tables.is_of(rows, tables.POOL))
        ids += rows["id"].filter(pc.invert(copies)).chunks
        predicted.append(logits.argmax(axis=1)[~copied[-1]])
    everything, augmented = np.concatenate(values), np.concatenate(copied)
    unlabelled = np.concatenate(pool)
    if classes > 1:
        everything = everything.clip(1 / classes, 1.0)  # rounding can put 1 / C below the first edge
    edges = np.histogram_bin_edges(everything, BINS, None if classes == 1 else (1 / classes, 1.0))
    sides = everything[~augmented & ~unlabelled], everything[augmented], everything[unlabelled]
    counts = [np.histogram(side, edges)[0] for side in sides]
    means = tuple(float(side.mean()) if len(side) else 0.0 for side in (sides if unlabelled.any() else sides[:2]))
    originals = pa.chunked_array(ids).combine_chunks(), np.concatenate(predicted)
    other = _changed_predictions(paths, *originals) if classes > 1 else {}
    return Confidence(edges, counts[0], counts[1], means, other, counts[2])


def _changed_predictions(
    paths: Sequence[Path], ids: pa.Array, predicted: NDArray[np.int64]
) -> dict[str, tuple[int, int]]:
    """Count the copies whose predicted class differs from their original's, by kind of change."""
    total, changed = Counter[str](), Counter[str]()
    columns = [f"{kind}{side}" for kind in KINDS for side in (1, 2)]
    for rows in changes.batches(paths, ["parent_id", *columns, "logits"]):
        places = pc.index_in(rows["parent_id"], value_set=ids).combine_chunks()
        known = places.is_valid().to_numpy(zero_copy_only=False)
        of_original = predicted[places.drop_null().to_numpy(zero_copy_only=False).astype(np.int64)]
        differs = logits_of(rows)[known].argmax(axis=1) != of_original
        done = {"all": np.ones(len(differs), np.bool_)}
        for kind in KINDS:
            either = pc.or_(*(pc.greater(pc.fill_null(rows[f"{kind}{side}"], 0), 0) for side in (1, 2)))
            done[kind] = either.to_numpy()[known]
        for kind, which in done.items():
            total[kind] += int(which.sum())
            changed[kind] += int(differs[which].sum())
    return {kind: (rows, changed[kind]) for kind, rows in total.items() if rows}


def families(folder: Path, many: int, copies: int, seed: int) -> list[list[Row]]:
    """Choose originals in a logit data set whose copies show what the rules do. The choice depends on the ids and the seed, not on the order of the rows.

    :param many: The number of originals, with up to `copies` copies each.
    :return: Each original, followed by copies that have it under `original`; those with the most kinds of change first.
    :raises InputError: If there is no data set.
    """
    paths = dataset.shard_paths(folder).get("train", [])
    ids = [pa.array([], pa.string())]
    columns = dataset.columns_of(dataset.provenance(folder), ("id", "parent_id", "sentence1"))
    for rows in changes.batches(paths, columns):
        words = pc.add(pc.count_substring(rows["sentence1"], " "), 1)
        fit = pc.and_(pc.greater_equal(words, LEAST_WORDS), pc.less_equal(words, MOST_WORDS))
        ids += rows["id"].filter(pc.and_(pa.array(tables.is_of(rows, tables.SOURCE)), fit.combine_chunks())).chunks
    everything = pa.chunked_array(ids)
    everything = everything.take(pc.sort_indices(everything))
    drawn = np.random.default_rng(seed).permutation(len(everything))[:POOL]
    pool = everything.take(pa.array(np.sort(drawn), pa.int64())).combine_chunks()
    originals: dict[str, Row] = {}
    found: dict[str, list[Row]] = {}
    for rows in changes.batches(paths):
        chosen = pc.and_(pc.is_in(rows["id"], value_set=pool), pc.is_null(rows["parent_id"]))
        for row in rows.filter(pc.or_(chosen, pc.is_in(rows["parent_id"], value_set=pool))).to_pylist():
            if row["parent_id"] is None:
                originals[row["id"]] = row
            else:
                found.setdefault(row["parent_id"], []).append(row)

    def order(parent: str) -> tuple[int, int, str]:
        return -len(_kinds(found[parent])), -min(len(found[parent]), copies), parent

    best = sorted(found, key=order)[:many]
    return [[originals[parent], *_varied(found[parent], originals[parent], copies)] for parent in best]


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
