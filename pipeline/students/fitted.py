"""A student that is no torch module: it fits itself, by whatever means. A linear model, boosted trees, a rule.

It is a class that is built as

    Model(classes=C, pairs=False, **params)

with C the number of classes, `pairs` True where a text is a pair of sentences, and `params` the keyword parameters that params.yaml has
for it; and that has the methods of `Fits`. Of the student's other keys in params.yaml, teacher, rows and weights hold for it, and
objective for the losses that are told; the others (vectors, optimiser, epochs, seed and so on) do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline import plugins

METHODS = ("fit", "predict_logits", "save", "load", "parameter_count")

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Examples:
    """Rows to learn from or to be chosen by."""

    sentence1: list[str]
    sentence2: list[str] | None
    """None unless the texts are pairs."""
    labels: npt.NDArray[Any]
    """int64 [n], gold, or the teacher's argmax where there is no gold label; in a regression (one class) float32, such numbers."""
    logits: Floats
    """[n, C], the teacher's."""
    weights: Floats
    """[n], how much each row counts; their mean is 1."""


class Fits(Protocol):
    """What such a student has."""

    def fit(self, training: Examples, validation: Examples) -> None:
        """Learn from the training rows; the validation rows are there to choose by."""

    def predict_logits(self, sentence1: Sequence[str], sentence2: Sequence[str] | None) -> Floats:
        """Return logits, [n, C]."""

    def save(self, folder: Path) -> None:
        """Write what it takes to predict into a folder, in files of any name but config.json; never pickle."""

    def load(self, folder: Path) -> None:
        """Read what `save` wrote, into a student that was built with the same parameters."""

    def parameter_count(self) -> int:
        """Return how many numbers it has learnt."""


def build_fitted(model: str, params: dict[str, Any], classes: int, pairs: bool) -> Fits:
    """Build such a student.

    :param model: Its import path.
    :param params: Its keyword parameters.
    :param classes: The number of classes C.
    :param pairs: Whether a text is a pair of sentences.
    :raises InputError: If it does not take the parameters.
    """
    student: Fits = plugins.build(model, params, classes=classes, pairs=pairs)
    return student
