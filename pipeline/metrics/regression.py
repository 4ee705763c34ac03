"""How good numbers are: correlation and error, each with its bootstrap interval. A task of one class is a regression."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pipeline.metrics.bootstrap import ends, resampled_rows

Doubles = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.float32] | Doubles

Measure = Callable[[Doubles, Doubles, Doubles], Doubles]
"""From what is right [n], what was said [n] and how often each row counts [draws, n] to a number for each draw."""


def _correlation(x: Doubles, y: Doubles, counts: Doubles) -> Doubles:
    """Return Pearson's correlation in each draw; x and y are [n], or [draws, n] where they differ from draw to draw."""
    rows = counts.sum(axis=1, keepdims=True)
    x = x - (counts * x).sum(axis=1, keepdims=True) / rows
    y = y - (counts * y).sum(axis=1, keepdims=True) / rows
    both = (counts * x * y).sum(axis=1)
    spread = np.sqrt((counts * x * x).sum(axis=1) * (counts * y * y).sum(axis=1))
    found: Doubles = np.divide(both, spread, out=np.zeros_like(both), where=spread > 0)
    return np.clip(found, -1.0, 1.0)


def _pearson(right: Doubles, said: Doubles, counts: Doubles) -> Doubles:
    return _correlation(right, said, counts)


def _ranks(values: Doubles, counts: Doubles) -> Doubles:
    """Return the rank of each row among the rows of each draw, the mean of their ranks where rows are equal, [draws, n]."""
    kinds, kind = np.unique(values, return_inverse=True)
    order = np.argsort(kind, kind="stable")
    starts = np.searchsorted(kind[order], np.arange(len(kinds)))
    of_kind = np.add.reduceat(counts[:, order], starts, axis=1)
    ranks: Doubles = (np.cumsum(of_kind, axis=1) - (of_kind - 1) / 2)[:, kind]
    return ranks


def _spearman(right: Doubles, said: Doubles, counts: Doubles) -> Doubles:
    return _correlation(_ranks(right, counts), _ranks(said, counts), counts)


def _rmse(right: Doubles, said: Doubles, counts: Doubles) -> Doubles:
    found: Doubles = np.sqrt((counts * np.square(right - said)).sum(axis=1) / counts.sum(axis=1))
    return found


def _of_all(measure: Measure, right: Numbers, said: Numbers) -> float:
    once = np.ones((1, len(right)))
    return float(measure(np.asarray(right, np.float64), np.asarray(said, np.float64), once)[0])


def pearson(right: Numbers, said: Numbers) -> float:
    """Return Pearson's correlation, -1 to 1; 0 where one side has the same number in all rows, of which there is none.

    :param right: What is right, [n], n > 0.
    :param said: What was predicted, [n].
    """
    return _of_all(_pearson, right, said)


def spearman(right: Numbers, said: Numbers) -> float:
    """Return Spearman's correlation, that of the ranks, equal numbers having the mean of theirs; 0 as in `pearson`.

    :param right: What is right, [n], n > 0.
    :param said: What was predicted, [n].
    """
    return _of_all(_spearman, right, said)


def rmse(right: Numbers, said: Numbers) -> float:
    """Return the square root of the mean squared difference, in the unit of the label.

    :param right: What is right, [n], n > 0.
    :param said: What was predicted, [n].
    """
    return _of_all(_rmse, right, said)


MEASURES: dict[str, Measure] = {"pearson": _pearson, "spearman": _spearman, "rmse": _rmse}


def measures(right: Numbers, said: Numbers) -> dict[str, tuple[float, float, float]]:
    """Return Pearson's and Spearman's correlation and the RMSE, each with the ends of its interval.

    Percentile bootstrap over rows (Efron and Tibshirani 1993, chapter 13): n rows are drawn with replacement, DRAWS times.

    :param right: What is right, [n], n > 0.
    :param said: What was predicted, [n].
    :return: By name: the value, and the ends that leave out (1 - LEVEL) / 2 of the draws on either side.
    """
    x, y = np.asarray(right, np.float64), np.asarray(said, np.float64)
    values: dict[str, list[Doubles]] = {name: [] for name in MEASURES}
    for counts in resampled_rows(len(x)):
        for name, measure in MEASURES.items():
            values[name].append(measure(x, y, counts))
    return {name: (_of_all(measure, x, y), *ends(np.concatenate(values[name]))) for name, measure in MEASURES.items()}
