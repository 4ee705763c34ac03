"""Percentile bootstrap intervals (Efron and Tibshirani 1993, chapter 13): over rows, and over seeds and rows."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

DRAWS, SEED, LEVEL = 2000, 0, 0.95
"""The number of resamples, their seed, and the share of them inside an interval."""

CELLS = 4_000_000
"""Resamples times rows in memory at once. It limits memory; no interval depends on it."""


def ends(values: Doubles) -> tuple[float, float]:
    """Return the interval that excludes (1 - LEVEL) / 2 of the resamples on each side.

    :param values: A statistic of each resample, [DRAWS].
    """
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return low, high


def counts(generator: np.random.Generator, many: int, n: int) -> Doubles:
    """Return how often n draws with replacement give each of n items, in `many` resamples: [many, n]."""
    drawn = generator.integers(0, n, (many, n)) + n * np.arange(many)[:, None]
    return np.bincount(drawn.ravel(), minlength=many * n).reshape(many, n).astype(np.float64)


def resampled_rows(rows: int) -> Iterator[Doubles]:
    """Yield the row counts of DRAWS resamples in blocks of up to CELLS numbers: [block, rows]."""
    generator = np.random.default_rng(SEED)
    size = max(1, CELLS // rows)
    for start in range(0, DRAWS, size):
        yield counts(generator, min(size, DRAWS - start), rows)


def over_seeds_and_rows(right: Bools) -> Doubles:
    """Return resampled mean accuracies of k cells, over seeds and rows at once (two-way percentile bootstrap).

    Each resample draws n rows with replacement, the same rows for all cells, since all are measured on the same rows. It also draws S seeds
    with replacement for each cell. A cell's value is the mean over both, sum_s sum_r v_s w_r right_sr / (S n). The rows and columns of a crossed
    design are resampled separately: this is the pigeonhole bootstrap (Owen 2007, arXiv 0712.1111), since no exact bootstrap exists for it. An
    interval thus covers other rows and other seeds, and the difference of two cells is paired by row. With S seeds the variance between seeds is
    estimated as (S - 1) / S of its value; with one seed it is missing.

    :param right: Whether each student of each cell predicts the label of each row, bool [k, S, n].
    :return: [DRAWS, k].
    """
    cells, seeds, rows = right.shape
    flat = right.reshape(cells * seeds, rows).astype(np.float64).T
    of_seeds = np.random.default_rng([SEED, 1])  # its own stream, so that the resampled rows do not depend on CELLS
    found = []
    for of_rows in resampled_rows(rows):
        by_student = (of_rows @ flat / rows).reshape(len(of_rows), cells, seeds)
        weights = counts(of_seeds, len(of_rows) * cells, seeds).reshape(len(of_rows), cells, seeds) / seeds
        found.append((by_student * weights).sum(axis=-1))
    return np.concatenate(found)
