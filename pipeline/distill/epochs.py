"""What was seen after each epoch, and which epoch is the best."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """What is known after an epoch: what the curve shows and the student is chosen by."""

    epoch: int
    training_loss: float
    validation_loss: float
    validation_accuracy: float
    """NaN in regression (one class), where the student is chosen by its validation loss."""

    @property
    def score(self) -> float:
        """What the best epoch has most of."""
        return -self.validation_loss if math.isnan(self.validation_accuracy) else self.validation_accuracy

    @property
    def told(self) -> str:
        """What it is chosen by, in words."""
        if math.isnan(self.validation_accuracy):
            return f"validation loss {self.validation_loss:.4f}"
        return f"validation loss {self.validation_loss:.4f}, validation accuracy {self.validation_accuracy:.4f}"


def curve(history: Sequence[Epoch]) -> str:
    """Return the epochs as CSV, for `dvc plots`; without times, so that the same training gives the same file."""
    lines = ["epoch,training loss,validation loss,validation accuracy"]
    lines += [f"{e.epoch},{e.training_loss:.6f},{e.validation_loss:.6f},{e.validation_accuracy:.6f}" for e in history]
    return "\n".join(lines) + "\n"


def best_of(history: Sequence[Epoch]) -> int:
    """Return which epoch is the best, the first on a tie."""
    return max(range(len(history)), key=lambda i: (history[i].score, -i))
