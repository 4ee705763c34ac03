"""Chooses the training rows that a student learns from, by their origin and by its teacher's confidence."""

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import tables
from pipeline.logits.shards import logits_of


def left_out(rows: pa.Table, origins: Collection[str], min_confidence: float = 0.0) -> pa.Array:
    """Return the ids of the rows that are left out, without the copies of rows: those follow from `chosen`.

    :param rows: id, parent_id, and origin where the data set has it; with a `min_confidence`, also logits.
    :param origins: The origins of the rows to keep, as in `tables.ORIGINS`.
    :param min_confidence: Unlabelled rows on which the teacher's highest probability is lower are left out.
    """
    out = np.zeros(rows.num_rows, np.bool_)
    for origin in (tables.SOURCE, tables.POOL):
        if origin not in origins:
            out |= tables.is_of(rows, origin)
    if min_confidence > 0:
        logits = logits_of(rows).astype(np.float64)
        highest = logits.max(axis=1, initial=-np.inf, keepdims=True)
        confidence = 1 / np.exp(logits - highest).sum(axis=1)
        out |= tables.is_of(rows, tables.POOL) & (confidence < min_confidence)
    return rows["id"].filter(pa.array(out)).combine_chunks()


def chosen(rows: pa.Table, without: pa.Array, copies: bool) -> pa.Table:
    """Return rows without some of them and without the copies of these, or without all copies.

    :param without: The ids of `left_out`.
    :param copies: Whether to keep copies.
    """
    if not copies:
        rows = rows.filter(pc.is_null(rows["parent_id"]))
    if not len(without):
        return rows
    either = (pc.is_in(rows[name], value_set=without) for name in ("id", "parent_id"))
    return rows.filter(pc.invert(pc.or_(*either)))
