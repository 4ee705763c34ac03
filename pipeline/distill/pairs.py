"""A check that a student of pairs reads both sentences."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

logger = logging.getLogger(__name__)

Side = TypeVar("Side")


def warn_of_unread(model: str, first: Side, second: Side, logits: Callable[[Side, Side], Any]) -> None:
    """Log a warning where a student's logits depend on one sentence of a pair alone.

    :param model: The student's import path.
    :param first: The first sentences of some pairs; `second` are the second ones.
    :param logits: The student: from first and second sentences to logits.
    """
    given = logits(first, second)
    reads = [not np.array_equal(logits(side, side), given) for side in (second, first)]  # sentence 1 or 2 is another
    if reads[0] != reads[1]:
        unread = 1 + reads.index(False)
        logger.warning(
            "%s: its logits do not depend on sentence %d of a pair; a student reads sentence 2 from %s",
            *(model, unread, "batch.ids2, or the argument sentence2 of a student that fits itself"),
        )
