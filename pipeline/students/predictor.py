"""The public methods of everything that predicts from text. It needs NumPy alone, so that serving imports neither torch nor pyarrow."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError

Floats = npt.NDArray[np.float32]
SinglesOrPairs = Sequence[str] | Sequence[tuple[str, str]]


class Predictor(ABC):
    """Text in, logits, probabilities or classes out. A subclass computes the logits."""

    labels: tuple[str, ...]
    """Class names, in the order of the logits."""
    pairs: bool
    """Whether a text is a pair of sentences."""

    @abstractmethod
    def _logits(self, *sides: Sequence[str]) -> Floats:
        """Return raw logits, float32 [n, C], of n first sentences, followed by n second sentences where a text is a pair."""

    def predict_logits(self, texts: SinglesOrPairs) -> Floats:
        """Return raw logits.

        :param texts: A list of n strings, or of n pairs of strings for a student that reads pairs.
        :return: float32 [n, C], in the order of `labels`.
        :raises InputError: If a text is not what the student reads.
        """
        if isinstance(texts, str):
            raise InputError(f"texts: {texts[:60]!r} is one string; pass a list of texts: [{texts[:20]!r}, ...]")
        width = 2 if self.pairs else 1
        rows = [tuple(text) if isinstance(text, tuple | list) else (text,) for text in texts]
        for i, row in enumerate(rows):
            if len(row) != width or not all(isinstance(part, str) for part in row):
                wanted = "a pair of strings (sentence1, sentence2)" if self.pairs else "a string"
                raise InputError(f"text {i}: {texts[i]!r} is not {wanted}")
        return self._logits(*([row[side] for row in rows] for side in range(width)))

    def predict_proba(self, texts: SinglesOrPairs) -> Floats:
        """Return class probabilities, the softmax of the logits: float32 [n, C].

        :raises InputError: If the task is regression (one class), or as in `predict_logits`.
        """
        if len(self.labels) == 1:
            raise InputError(f"{self.labels[0]!r} is a number, which has no probabilities; call predict")
        logits = self.predict_logits(texts)
        scores = np.exp(logits - logits.max(axis=-1, keepdims=True))
        probabilities: Floats = scores / scores.sum(axis=-1, keepdims=True)
        return probabilities

    def predict(self, texts: SinglesOrPairs) -> list[Any]:
        """Return the class name of each text; in regression (one class), its number; for texts and errors, see `predict_logits`."""
        logits = self.predict_logits(texts)
        return list(logits[:, 0].tolist()) if len(self.labels) == 1 else [self.labels[i] for i in logits.argmax(-1)]
