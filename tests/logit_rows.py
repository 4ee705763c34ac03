"""Rows of a logit data set in memory, with a sentiment that a student can learn."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipeline import tables

GOOD, BAD = ("good", "lovely", "fine", "warm"), ("bad", "dull", "cold", "stale")
FILLER = ("the", "film", "is", "a", "plot", ",", ".", "it", "was")
PROVENANCE = {
    "task": "tiny",
    "labels": ["negative", "positive"],
    "text": "pretokenised",
    "pairs": False,
    "teacher": {"name": "large", "parameters": 335_000_000, "bytes": 1_340_000_000},
}


def rows(
    sentence1: Sequence[str],
    labels: Sequence[int | None],
    logits: Sequence[Sequence[float]],
    parents: Sequence[str | None] | None = None,
    sentence2: Sequence[str] | None = None,
) -> pa.Table:
    n, classes = len(sentence1), len(logits[0]) if logits else 2
    schema = tables.logits_schema(classes)
    given = {
        "id": pa.array([f"row{i}" for i in range(n)]),
        "sentence1": pa.array(sentence1, pa.string()),
        "sentence2": pa.array(sentence2 or [None] * n, pa.string()),
        "label": pa.array(labels, tables.label_type(classes)),
        "parent_id": pa.array(parents or [None] * n, pa.string()),
        "logits": pa.array([list(row) for row in logits], pa.list_(pa.float32(), classes)),
    }
    return pa.table([given.get(field.name, pa.nulls(n, field.type)) for field in schema], schema=schema)


def sentiment(n: int, seed: int = 0) -> pa.Table:
    """Return n rows with one word of sentiment each among filler words; the teacher is right and confident."""
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, 2, n).tolist()
    texts = []
    for label in labels:
        words = draws.choice(FILLER, draws.integers(0, 9)).tolist()
        words.insert(int(draws.integers(0, len(words) + 1)), str(draws.choice(GOOD if label else BAD)))
        texts.append(" ".join(words))
    return rows(texts, labels, [(-2.0, 2.0) if label else (2.0, -2.0) for label in labels])
