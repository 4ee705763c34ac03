"""How far a student's probabilities can be believed, and how far they are from its teacher's."""

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Logits = npt.NDArray[np.float32] | Doubles

BINS = 15
"""Of the expected calibration error, as Guo et al. have it."""

LEAST, MOST = 0.01, 100.0
"""Temperatures that are looked at: a student that is right on every row would want 0, one that knows nothing infinity."""


def log_softmax(logits: Logits) -> Doubles:
    """Return log-probabilities, float64 [n, C]."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: Doubles = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def calibration_error(labels: Integers, logits: Logits, temperature: float = 1.0) -> float:
    """Return the expected calibration error: sum over bins of (rows of the bin / n) * |accuracy - mean confidence|.

    Guo et al. 2017 (arXiv 1706.04599), equation 3, with BINS bins of equal width over (0, 1]; a row's confidence is the probability
    of the class that it predicts.

    :param labels: What is right, [n], n > 0.
    :param logits: What was said, [n, C].
    :param temperature: What the logits are divided by first.
    """
    probabilities = np.exp(log_softmax(logits / temperature))
    confidence = probabilities.max(axis=-1)
    right = probabilities.argmax(axis=-1) == labels
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, right, BINS) - np.bincount(bins, confidence, BINS)
    return float(np.abs(gaps).sum() / len(labels))


def best_temperature(labels: Integers, logits: Logits) -> float:
    """Return the temperature T > 0 by which logits are best divided: that of the least mean of -log softmax(logits / T)[label].

    Temperature scaling: Guo et al. 2017, section 4.2. The mean is convex in 1 / T, with the slope mean(E[logit] - logit of the label),
    E under softmax(logits / T); where the slope is zero is found by bisection.

    :param labels: What is right, [n], n > 0; of rows that were not trained on.
    :param logits: What was said, [n, C].
    :return: Between LEAST and MOST.
    """
    scores = logits.astype(np.float64)
    wanted = scores[np.arange(len(labels)), labels]
    low, high = np.log(1 / MOST), np.log(1 / LEAST)  # of 1 / T
    for _ in range(50):
        middle = (low + high) / 2
        slope = ((np.exp(log_softmax(scores * np.exp(middle))) * scores).sum(axis=-1) - wanted).mean()
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def divergence(teacher: Logits, student: Logits) -> float:
    """Return the mean over rows of KL(teacher || student) = sum over classes of p_t * (log p_t - log p_s), in nats, at temperature 1.

    :param teacher: The teacher's logits, [n, C], n > 0.
    :param student: The student's, [n, C].
    """
    theirs, ours = log_softmax(teacher), log_softmax(student)
    return float((np.exp(theirs) * (theirs - ours)).sum(axis=-1).mean())
