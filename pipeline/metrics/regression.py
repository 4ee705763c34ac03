"""Correlation and error of predicted numbers [n] against gold numbers [n], n > 0, with bootstrap intervals. A task of one class is regression."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pipeline.metrics.bootstrap import ends, resampled_rows

Doubles = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.float32] | Doubles

Measure = Callable[[Doubles, Doubles, Doubles], Doubles]
"""From gold numbers [n], predicted numbers [n] and the count of each row in each draw [draws, n] to a number for each draw."""


def _correlation(x: Doubles, y: Doubles, counts: Doubles) -> Doubles:
    """Return Pearson's correlation in each draw; x and y are [n], or [draws, n] if they differ between draws."""
    rows = counts.sum(axis=1, keepdims=True)
    x = x - (counts * x).sum(axis=1, keepdims=True) / rows
    y = y - (counts * y).sum(axis=1, keepdims=True) / rows
    both = (counts * x * y).sum(axis=1)
    spread = np.sqrt((counts * x * x).sum(axis=1) * (counts * y * y).sum(axis=1))
    found: Doubles = np.divide(both, spread, out=np.zeros_like(both), where=spread > 0)
    return np.clip(found, -1.0, 1.0)


def _ranks(values: Doubles, counts: Doubles) -> Doubles:
    """Return the rank of each row among the rows of each draw, [draws, n]; equal rows get the mean of their ranks."""
    kinds, kind = np.unique(values, return_inverse=True)
    order = np.argsort(kind, kind="stable")
    starts = np.searchsorted(kind[order], np.arange(len(kinds)))
    of_kind = np.add.reduceat(counts[:, order], starts, axis=1)
    ranks: Doubles = (np.cumsum(of_kind, axis=1) - (of_kind - 1) / 2)[:, kind]
    return ranks


def _spearman(right: Doubles, predicted: Doubles, counts: Doubles) -> Doubles:
    return _correlation(_ranks(right, counts), _ranks(predicted, counts), counts)


def _rmse(right: Doubles, predicted: Doubles, counts: Doubles) -> Doubles:
    found: Doubles = np.sqrt((counts * np.square(right - predicted)).sum(axis=1) / counts.sum(axis=1))
    return found


def _of_all(measure: Measure, right: Numbers, predicted: Numbers) -> float:
    once = np.ones((1, len(right)))
    return float(measure(np.asarray(right, np.float64), np.asarray(predicted, np.float64), once)[0])


def pearson(right: Numbers, predicted: Numbers) -> float:
    """Return Pearson's correlation, -1 to 1; 0 where it is undefined, since one side has the same number in all rows."""
    return _of_all(_correlation, right, predicted)


def resampled_pearson(right: Numbers, predicted: Numbers) -> Doubles:
    """Return Pearson's correlation in each of DRAWS resamples of the rows, which are the same for all predictions: [DRAWS]."""
    x, y = np.asarray(right, np.float64), np.asarray(predicted, np.float64)
    return np.concatenate([_correlation(x, y, counts) for counts in resampled_rows(len(x))])


def spearman(right: Numbers, predicted: Numbers) -> float:
    """Return Spearman's correlation, that of the ranks; equal numbers get the mean of their ranks; 0 as in `pearson`."""
    return _of_all(_spearman, right, predicted)


def rmse(right: Numbers, predicted: Numbers) -> float:
    """Return the square root of the mean squared difference, in the unit of the label."""
    return _of_all(_rmse, right, predicted)


MEASURES: dict[str, Measure] = {"pearson": _correlation, "spearman": _spearman, "rmse": _rmse}


def measures(right: Numbers, predicted: Numbers) -> dict[str, tuple[float, float, float]]:
    """Return Pearson's and Spearman's correlation and the RMSE, each with the ends of its interval.

    Percentile bootstrap over rows (Efron and Tibshirani 1993, chapter 13): n rows are drawn with replacement, DRAWS times.

    :return: By name: the value, and the ends of the interval, which excludes (1 - LEVEL) / 2 of the draws on each side.
    """
    x, y = np.asarray(right, np.float64), np.asarray(predicted, np.float64)
    values: dict[str, list[Doubles]] = {name: [] for name in MEASURES}
    for counts in resampled_rows(len(x)):
        for name, measure in MEASURES.items():
            values[name].append(measure(x, y, counts))
    return {name: (_of_all(measure, x, y), *ends(np.concatenate(values[name]))) for name, measure in MEASURES.items()}
