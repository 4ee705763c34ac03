"""The contract of a student that is not a torch module and fits itself: a linear model, boosted trees, a rule.

The class is built as

    Model(classes=C, pairs=False, **params)

with C the number of classes, `pairs` True where a text is a pair of sentences, and `params` the keyword parameters in params.yaml. It has
the methods of `Fits`. Of a student's other keys in params.yaml, teacher, rows and weights apply to it, and objective applies to the losses
that are reported; vectors, optimiser, epochs, seed and the rest do not apply.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from pipeline import plugins
from pipeline.errors import InputError
from pipeline.students.predictor import Floats

METHODS = ("fit", "predict_logits", "save", "load", "parameter_count")


@dataclass(frozen=True)
class Examples:
    """Rows to train on or to validate on."""

    sentence1: list[str]
    sentence2: list[str] | None
    """None unless the texts are pairs."""
    labels: npt.NDArray[Any]
    """int64 [n], gold, or the teacher's argmax where there is no gold label; in regression (one class), numbers in float32."""
    logits: Floats
    """[n, C], the teacher's."""
    weights: Floats
    """[n], how much each row counts; their mean is 1."""


class Fits(Protocol):
    """The methods that this student has."""

    def fit(self, training: Examples, validation: Examples) -> None:
        """Learn from the training rows; the validation rows serve to choose hyperparameters."""

    def predict_logits(self, sentence1: Sequence[str], sentence2: Sequence[str] | None) -> Floats:
        """Return logits, [n, C]."""

    def save(self, folder: Path) -> None:
        """Write all that prediction needs into a folder, in files of any name but config.json, README.md and those of the ONNX network; never pickle."""

    def load(self, folder: Path) -> None:
        """Read what `save` wrote, into a student that was built with the same parameters."""

    def parameter_count(self) -> int:
        """Return the number of learned parameters."""


def build_fitted(model: str, params: Mapping[str, Any], classes: int, pairs: bool) -> Fits:
    """Build a student that fits itself from its import path and its parameters.

    :raises InputError: If it breaks the contract, or does not take the parameters.
    """
    factory = plugins.load(model)  # checked before the call, since a student's folder can name any callable
    missing = [name for name in METHODS if not callable(getattr(factory, name, None))]
    if not isinstance(factory, type) or missing:
        lacks = f" (it lacks {', '.join(missing)})" if 0 < len(missing) < len(METHODS) else ""
        raise InputError(
            f"{model!r}: must be a class, either of torch.nn.Module or with the methods {', '.join(METHODS)}{lacks}"
        )
    student: Fits = plugins.build(model, params, classes=classes, pairs=pairs)
    return student
