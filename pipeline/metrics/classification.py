"""How good predicted classes are: accuracy and F1, with bootstrap intervals."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from pipeline.metrics.bootstrap import CELLS, DRAWS, SEED, ends

Integers = npt.NDArray[np.int64]


def accuracy(labels: Integers, predicted: Integers) -> float:
    """Return the share of rows that are right.

    :param labels: What is right, [n], n > 0.
    :param predicted: What was predicted, [n].
    """
    return float((labels == predicted).mean())


def f1(labels: Integers, predicted: Integers, classes: int) -> float:
    """Return F1 = 2 TP / (2 TP + FP + FN), 0 where a class is neither there nor predicted.

    :param labels: What is right, [n].
    :param predicted: What was predicted, [n].
    :param classes: The number of classes C. With two, the F1 of the last class, the positive one (as GLUE has it for QQP); the
        mean over classes (macro F1) otherwise.
    """
    right = np.bincount(labels[labels == predicted], minlength=classes)
    both = np.bincount(labels, minlength=classes) + np.bincount(predicted, minlength=classes)
    scores = 2 * right / np.maximum(both, 1)
    return float(scores[-1] if classes == 2 else scores.mean())


Statistic = Callable[[Integers], npt.NDArray[np.float64]]


def intervals(
    columns: Sequence[Integers], classes: int, statistics: Mapping[str, Statistic]
) -> dict[str, tuple[float, float]]:
    """Return percentile bootstrap confidence intervals of statistics that only count rows (Efron and Tibshirani 1993, chapter 13).

    Drawing n rows with replacement draws, of each kind of row there is, a multinomial number; so a draw costs as much as there are
    kinds (combinations of classes), however many rows.

    :param columns: What is known of each row, as classes: k arrays [n], n > 0, each value less than C. At most a few.
    :param classes: The number of classes C.
    :param statistics: By name, functions of counts [DRAWS, C, ..., C] (k times C) to a number for each draw.
    :return: The ends of each statistic's interval that leave out (1 - LEVEL) / 2 of the draws on either side.
    """
    shape = (classes,) * len(columns)
    kinds, counts = np.unique(np.ravel_multi_index(tuple(columns), shape), return_counts=True)
    drawn = np.random.default_rng(SEED).multinomial(counts.sum(), counts / counts.sum(), size=DRAWS)
    cells = classes ** len(columns)
    values: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in statistics}
    for part in np.array_split(drawn, 1 + DRAWS * cells // CELLS):  # with many classes, not all tables at once
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
