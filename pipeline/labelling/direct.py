"""A teacher as a function from texts to logits, without cache and files, for measuring its latency."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.labelling.batching import encode, prepare
from pipeline.labelling.opening import open_classifier
from pipeline.params.labelling import Labelling
from pipeline.teacher.model import Teacher
from pipeline.teacher.own import OwnTeacher

LONGEST = 8192
"""The truncation length, in tokens, of a teacher without a maximum."""


def as_function(teacher: Teacher | OwnTeacher, max_length: int | None = None) -> Callable[[Sequence[Any]], Any]:
    """Return a function that runs a teacher, changed in place, as the label stage does, in float32: packed if possible, else padded.

    :param max_length: The truncation length in tokens; None: the model's maximum.
    """

    def table_of(texts: Sequence[Any]) -> pa.Table:
        first, second = zip(*(text if isinstance(text, tuple) else (text, None) for text in texts), strict=True)
        return pa.table({"sentence1": pa.array(first, pa.string()), "sentence2": pa.array(second, pa.string())})

    if isinstance(teacher, OwnTeacher):
        return lambda texts: teacher.predict(table_of(texts))
    classifier = open_classifier(teacher, Labelling(dtype="float32"))
    limit = min(length for length in (max_length, teacher.max_length, LONGEST) if length)
    tokenizer = prepare(teacher.tokenizer, limit)

    def predict(texts: Sequence[Any]) -> Any:
        tokens, _ = encode(tokenizer, limit, table_of(texts))
        logits = np.empty((len(texts), len(teacher.labels)), np.float32)
        for rows, found in classifier.run(tokens, np.arange(len(texts))):
            logits[rows] = found
        return logits

    return predict
