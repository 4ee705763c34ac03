"""Accuracy and F1 of predicted classes, with bootstrap intervals."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pipeline.metrics.bootstrap import CELLS, DRAWS, SEED, ends

Integers = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


def accuracy(counts: Integers) -> Doubles:
    """Return the share of rows whose predicted class is the label, from confusion matrices [draws, C, C] of label and prediction."""
    shares: Doubles = np.trace(counts, axis1=1, axis2=2) / counts.sum(axis=(1, 2))
    return shares


def f1(counts: Integers) -> Doubles:
    """Return F1 = 2 TP / (2 TP + FP + FN), from confusion matrices [draws, C, C] of label and prediction.

    With two classes, this is the F1 of the last class, the positive one (as in GLUE for QQP); otherwise it is the mean over classes (macro F1).
    A class that occurs in neither column has 0.
    """
    right = np.diagonal(counts, axis1=1, axis2=2)
    both = counts.sum(axis=1) + counts.sum(axis=2)
    scores: Doubles = 2 * right / np.maximum(both, 1)
    return scores[:, -1] if scores.shape[1] == 2 else scores.mean(axis=1)


MEASURES: dict[str, Callable[[Integers], Doubles]] = {"accuracy": accuracy, "f1": f1}


def measures(labels: Integers, predicted: Integers, classes: int) -> dict[str, tuple[float, float, float]]:
    """Return accuracy and F1, each with the ends of its interval.

    Percentile bootstrap over rows (Efron and Tibshirani 1993, chapter 13). A draw of n rows with replacement contains a multinomial number of
    rows of each pair of label and prediction. The cost of a draw thus depends on the number of pairs, and not on the number of rows.

    :param labels: Class numbers, [n], n > 0.
    :param predicted: Class numbers, [n].
    :param classes: The number of classes C.
    :return: By name: the value, and the ends of the interval, which excludes (1 - LEVEL) / 2 of the draws on each side.
    """
    pairs, counts = np.unique(labels * classes + predicted, return_counts=True)
    drawn = np.random.default_rng(SEED).multinomial(counts.sum(), counts / counts.sum(), size=DRAWS)
    values: dict[str, list[Doubles]] = {name: [] for name in MEASURES}
    for part in np.array_split(np.vstack([counts, drawn]), 1 + DRAWS * classes**2 // CELLS):  # limits memory
        table = np.zeros((len(part), classes**2), np.int64)
        table[:, pairs] = part
        for name, measure in MEASURES.items():
            values[name].append(measure(table.reshape(-1, classes, classes)))
    found = {name: np.concatenate(parts) for name, parts in values.items()}
    return {name: (float(of[0]), *ends(of[1:])) for name, of in found.items()}
