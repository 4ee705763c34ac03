"""Accuracy, F1, precision and recall of predicted classes, with bootstrap intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.metrics.bootstrap import CELLS, DRAWS, SEED, ends

Integers = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

Measured = tuple[float, float, float]
"""A value and the ends of its interval, which excludes (1 - LEVEL) / 2 of the draws on each side."""


class Measures(NamedTuple):
    """The accuracy, the mean over classes of F1 (macro F1), and the F1 of each class."""

    accuracy: Measured
    macro_f1: Measured
    f1: list[Measured]


def confusion(labels: Integers, predicted: Integers, classes: int) -> Integers:
    """Return the number of rows with each label (first axis) and each predicted class (second axis), int64 [C, C]."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def accuracy(counts: Integers) -> Doubles:
    """Return the share of rows whose predicted class is the label, from confusion matrices [draws, C, C] of label and prediction."""
    shares: Doubles = np.trace(counts, axis1=1, axis2=2) / counts.sum(axis=(1, 2))
    return shares


def f1(counts: Integers) -> Doubles:
    """Return F1 = 2 TP / (2 TP + FP + FN) of each class, [draws, C], from confusion matrices [draws, C, C] of label and prediction.

    A class that is neither a label nor predicted has 0.
    """
    right = np.diagonal(counts, axis1=1, axis2=2)
    both = counts.sum(axis=1) + counts.sum(axis=2)
    scores: Doubles = 2 * right / np.maximum(both, 1)
    return scores


def precision_and_recall(counts: Integers) -> tuple[list[float | None], list[float | None]]:
    """Return the precision and the recall of each class, from a confusion matrix [C, C].

    None where it is undefined: the precision of a class that is never predicted, the recall of one without rows.
    """
    right = np.diagonal(counts).tolist()
    precision, recall = (
        [hits / rows if rows else None for hits, rows in zip(right, counts.sum(axis=axis).tolist(), strict=True)]
        for axis in (0, 1)
    )
    return precision, recall


def f1_of(name: str) -> str:
    """Return what the F1 of a class is called in results."""
    return f"f1 ({name})"


def main_f1(names: Sequence[str]) -> str:
    """Return what the metric `f1` is called in results: with two classes the F1 of the last one, as GLUE has it for QQP, otherwise macro F1."""
    return f1_of(names[-1]) if len(names) == 2 else "macro f1"


def measures(labels: Integers, predicted: Integers, classes: int) -> Measures:
    """Return accuracy and F1, each with the ends of its interval.

    Percentile bootstrap over rows (Efron and Tibshirani 1993, chapter 13). A draw of n rows with replacement contains a multinomial number of
    rows of each pair of label and prediction. The cost of a draw thus depends on the number of pairs, and not on the number of rows.

    :param labels: Class numbers, [n], n > 0.
    :param predicted: Class numbers, [n].
    :param classes: The number of classes C.
    """
    pairs, counts = np.unique(labels * classes + predicted, return_counts=True)
    drawn = np.random.default_rng(SEED).multinomial(counts.sum(), counts / counts.sum(), size=DRAWS)
    parts = []
    for part in np.array_split(np.vstack([counts, drawn]), 1 + DRAWS * classes**2 // CELLS):  # limits memory
        table = np.zeros((len(part), classes**2), np.int64)
        table[:, pairs] = part
        matrices = table.reshape(-1, classes, classes)
        of_classes = f1(matrices)
        parts.append(np.column_stack([accuracy(matrices), of_classes.mean(axis=1), of_classes]))
    values = np.concatenate(parts)
    first, second, *others = [(float(of[0]), *ends(of[1:])) for of in values.T]
    return Measures(first, second, others)
