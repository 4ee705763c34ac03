"""The losses and the accuracy after each epoch, and the choice of the best epoch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """The measurements after an epoch: the points of the curve, and the rank that selects the student."""

    epoch: int
    training_loss: float
    validation_loss: float
    validation_accuracy: float
    """NaN in regression (one class), where the validation loss selects the student."""

    @property
    def rank(self) -> tuple[float, float]:
        """The numbers that are highest in the best epoch: the accuracy, then the negative loss; in regression the negative loss alone."""
        # Accuracy stays the same for epochs where one class is frequent, while the student learns the rare one.
        return 0.0 if math.isnan(self.validation_accuracy) else self.validation_accuracy, -self.validation_loss

    @property
    def summary(self) -> str:
        """The validation measurements as text for the log."""
        accuracy = self.validation_accuracy
        more = "" if math.isnan(accuracy) else f", validation accuracy {accuracy:.4f}"
        return f"validation loss {self.validation_loss:.4f}{more}"


def curve(history: Sequence[Epoch]) -> str:
    """Return the epochs as CSV for `dvc plots`, without times, so that the same training gives the same file."""
    lines = ["epoch,training loss,validation loss,validation accuracy"]
    lines += [f"{e.epoch},{e.training_loss:.6f},{e.validation_loss:.6f},{e.validation_accuracy:.6f}" for e in history]
    return "\n".join(lines) + "\n"


def best_of(history: Sequence[Epoch]) -> int:
    """Return the index of the best epoch: the highest accuracy, then the lowest validation loss, then the earliest."""
    return max(range(len(history)), key=lambda i: (history[i].rank, -i))


def still_improves(history: Sequence[Epoch], epochs: int) -> bool:
    """Return whether the last of all epochs is the best one and lowers the validation loss, so that more epochs may give a better student.

    :param epochs: The number of epochs in the settings.
    """
    is_last = 1 < len(history) == epochs == best_of(history) + 1
    return is_last and history[-1].validation_loss < history[-2].validation_loss
