"""The calibration of a model's probabilities, and their divergence from another model's.

Labels are class numbers [n], n > 0. Logits are [n, C]; a temperature divides them.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Logits = npt.NDArray[np.float32] | Doubles

BINS = 15
"""Bins of the expected calibration error, as in Guo et al."""

LEAST, MOST = 0.01, 100.0
"""The range of temperatures: the best one is 0 for a student that is right on every row, and infinite for one without information."""


def log_softmax(logits: Logits) -> Doubles:
    """Return log-probabilities, float64 [n, C]."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: Doubles = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def softmax(logits: Logits) -> Doubles:
    """Return probabilities, float64 [n, C]."""
    result: Doubles = np.exp(log_softmax(logits))
    return result


class Bins(NamedTuple):
    """Confidence and accuracy in bins of confidence: arrays over the bins that have rows."""

    confidence: Doubles
    """The mean probability of the predicted class."""
    accuracy: Doubles
    """The share of rows whose predicted class is the label."""
    rows: Integers


def confidence_bins(labels: Integers, logits: Logits, temperature: float = 1.0) -> Bins:
    """Return confidence and accuracy in BINS bins of equal width over (0, 1], by the probability of the predicted class."""
    probabilities = softmax(logits / temperature)
    confidence = probabilities.max(axis=-1)
    right = probabilities.argmax(axis=-1) == labels
    places = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    rows = np.bincount(places, minlength=BINS)
    filled = rows > 0
    confidences, accuracies = (
        np.bincount(places, values, BINS)[filled] / rows[filled] for values in (confidence, right)
    )
    return Bins(confidences, accuracies, rows[filled])


def calibration_error(labels: Integers, logits: Logits, temperature: float = 1.0) -> float:
    """Return the expected calibration error: sum over bins of (rows of the bin / n) * |accuracy - mean confidence|.

    Guo et al. 2017 (arXiv 1706.04599), equation 3.
    """
    bins = confidence_bins(labels, logits, temperature)
    return float((bins.rows * np.abs(bins.accuracy - bins.confidence)).sum() / len(labels))


def best_temperature(labels: Integers, logits: Logits) -> float:
    """Return the temperature T > 0 that minimises the mean of -log softmax(logits / T)[label].

    Temperature scaling: Guo et al. 2017, section 4.2. The mean is convex in 1 / T, with the slope mean(E[logit] - logit of the label),
    E under softmax(logits / T); bisection finds the zero of the slope.

    :param labels: Those of rows outside the training split.
    :return: Between LEAST and MOST.
    """
    scores = logits.astype(np.float64)
    wanted = scores[np.arange(len(labels)), labels]
    low, high = np.log(1 / MOST), np.log(1 / LEAST)  # of 1 / T
    for _ in range(50):
        middle = (low + high) / 2
        slope = ((softmax(scores * np.exp(middle)) * scores).sum(axis=-1) - wanted).mean()
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def divergence(teacher: Logits, student: Logits) -> float:
    """Return the mean over rows of KL(teacher || student) = sum over classes of p_t * (log p_t - log p_s), in nats, at temperature 1."""
    log_teacher, log_student = log_softmax(teacher), log_softmax(student)
    return float((np.exp(log_teacher) * (log_teacher - log_student)).sum(axis=-1).mean())
