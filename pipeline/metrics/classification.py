"""Accuracy and F1 of predicted classes, with bootstrap intervals."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from pipeline.metrics.bootstrap import CELLS, DRAWS, SEED, ends

Integers = npt.NDArray[np.int64]


def accuracy(labels: Integers, predicted: Integers) -> float:
    """Return the share of rows whose predicted class is the label.

    :param labels: Class numbers, [n], n > 0.
    :param predicted: Class numbers, [n].
    """
    return float((labels == predicted).mean())


def f1(labels: Integers, predicted: Integers, classes: int) -> float:
    """Return F1 = 2 TP / (2 TP + FP + FN); 0 for a class that occurs in neither column.

    :param labels: Class numbers, [n].
    :param predicted: Class numbers, [n].
    :param classes: The number of classes C. With two, the result is the F1 of the last class, the positive one (as in GLUE for QQP);
        otherwise it is the mean over classes (macro F1).
    """
    counts = np.bincount(labels * classes + predicted, minlength=classes**2)
    return float(f1_of_counts(counts.reshape(1, classes, classes))[0])


Statistic = Callable[[Integers], npt.NDArray[np.float64]]


def intervals(
    columns: Sequence[Integers], classes: int, statistics: Mapping[str, Statistic]
) -> dict[str, tuple[float, float]]:
    """Return percentile bootstrap confidence intervals of statistics that only count rows (Efron and Tibshirani 1993, chapter 13).

    A draw of n rows with replacement contains a multinomial number of rows of each combination of classes. The cost of a draw thus depends on
    the number of combinations, and not on the number of rows.

    :param columns: The k classes of each row, such as label and prediction: k arrays [n], n > 0, each value less than C. k is small.
    :param classes: The number of classes C.
    :param statistics: By name, functions from counts [DRAWS, C, ..., C] (k times C) to a number for each draw.
    :return: The ends of each statistic's interval, which excludes (1 - LEVEL) / 2 of the draws on each side.
    """
    shape = (classes,) * len(columns)
    kinds, counts = np.unique(np.ravel_multi_index(tuple(columns), shape), return_counts=True)
    drawn = np.random.default_rng(SEED).multinomial(counts.sum(), counts / counts.sum(), size=DRAWS)
    cells = classes ** len(columns)
    values: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in statistics}
    for part in np.array_split(drawn, 1 + DRAWS * cells // CELLS):  # limits memory with many classes
        table = np.zeros((len(part), cells), np.int64)
        table[:, kinds] = part
        for name, statistic in statistics.items():
            values[name].append(statistic(table.reshape(len(part), *shape)))
    return {name: ends(np.concatenate(parts)) for name, parts in values.items()}


def f1_of_counts(counts: Integers) -> npt.NDArray[np.float64]:
    """Return `f1` of confusion matrices [draws, C, C] of label and prediction."""
    right = np.diagonal(counts, axis1=1, axis2=2)
    both = counts.sum(axis=1) + counts.sum(axis=2)
    scores: npt.NDArray[np.float64] = 2 * right / np.maximum(both, 1)
    return scores[:, -1] if scores.shape[1] == 2 else scores.mean(axis=1)


def share_equal(counts: Integers) -> npt.NDArray[np.float64]:
    """Return the share of rows on the diagonal of matrices [draws, C, C]."""
    shares: npt.NDArray[np.float64] = np.trace(counts, axis1=1, axis2=2) / counts.sum(axis=(1, 2))
    return shares
