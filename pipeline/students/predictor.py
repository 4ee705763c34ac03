"""The public methods of everything that predicts from text. It needs NumPy alone, so that serving imports neither torch nor pyarrow."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.students.texts import Texts, sides_of

Floats = npt.NDArray[np.float32]


class Predictor(ABC):
    """Text in, logits, probabilities or classes out. A subclass computes the logits."""

    labels: tuple[str, ...]
    """Class names, in the order of the logits."""
    pairs: bool
    """Whether a text is a pair of sentences."""

    @abstractmethod
    def _logits(self, *sides: Sequence[str]) -> Floats:
        """Return raw logits, float32 [n, C], of n first sentences, followed by n second sentences where a text is a pair."""

    def predict_logits(self, texts: Texts, sentence2: Texts | None = None) -> Floats:
        """Return raw logits.

        :param texts: n strings, or n pairs of strings for a student that reads pairs: a list, tuple, iterator, numpy array, pandas or polars
            Series, or pyarrow array. One string alone is refused: pass `[text]`.
        :param sentence2: For pairs in two columns: `texts` then has the n first sentences, this the n second ones.
        :return: float32 [n, C], in the order of `labels`; [0, C] for no texts.
        :raises InputError: If a text is not what the student reads; it is also a TypeError, or a ValueError for a missing text or columns of
            different lengths.
        """
        return self._logits(*sides_of(texts, sentence2, self.pairs))

    def predict_proba(self, texts: Texts, sentence2: Texts | None = None) -> Floats:
        """Return class probabilities, the softmax of the logits: float32 [n, C].

        :raises InputError: If the task is regression (one class), or as in `predict_logits`.
        """
        if len(self.labels) == 1:
            raise InputError(f"{self.labels[0]!r} is a number, which has no probabilities; call predict")
        logits = self.predict_logits(texts, sentence2)
        scores = np.exp(logits - logits.max(axis=-1, keepdims=True))
        probabilities: Floats = scores / scores.sum(axis=-1, keepdims=True)
        return probabilities

    def predict(self, texts: Texts, sentence2: Texts | None = None) -> list[Any]:
        """Return the class name of each text; in regression (one class), its number; for texts and errors, see `predict_logits`."""
        logits = self.predict_logits(texts, sentence2)
        return list(logits[:, 0].tolist()) if len(self.labels) == 1 else [self.labels[i] for i in logits.argmax(-1)]
