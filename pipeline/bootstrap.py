"""How sure a mean accuracy over several seeds is: other seeds, other rows."""

import numpy as np
import numpy.typing as npt

from pipeline.regression import CELLS, DRAWS, LEVEL, SEED

Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def over_seeds_and_rows(right: Bools) -> Doubles:
    """Draw the mean accuracies of k cells again and again, over seeds and rows at once (two-way percentile bootstrap).

    Each draw takes n rows with replacement, the same for all cells, since all are measured on the same rows; and, for each cell by itself, S of its
    seeds with replacement; a cell's number is the mean over both, sum_s sum_r v_s w_r right_sr / (S n). (Rows and
    columns of a crossed design resampled separately, the pigeonhole bootstrap: Owen 2007, arXiv 0712.1111; no bootstrap is exact there.) So the ends of an interval
    tell of other rows and other seeds, and a difference of two cells is paired by row. Few seeds tell little: with S of them the part of the
    variance that comes from seeds is estimated as (S - 1) / S of what it is, and with one it is not there.

    :param right: Whether each student of each cell is right on each row, bool [k, S, n].
    :return: [DRAWS, k].
    """
    cells, seeds, rows = right.shape
    flat = right.reshape(cells * seeds, rows).astype(np.float64).T
    draws = np.random.default_rng(SEED)
    found = []
    size = max(1, CELLS // rows)
    for start in range(0, DRAWS, size):
        many = min(size, DRAWS - start)
        by_student = (_counts(draws, many, rows) @ flat / rows).reshape(many, cells, seeds)
        weights = _counts(draws, many * cells, seeds).reshape(many, cells, seeds) / seeds
        found.append((by_student * weights).sum(axis=-1))
    return np.concatenate(found)


def _counts(draws: np.random.Generator, many: int, n: int) -> Doubles:
    """Return how often each of n things is drawn in n draws with replacement, [many, n]."""
    drawn = draws.integers(0, n, (many, n)) + n * np.arange(many)[:, None]
    return np.bincount(drawn.ravel(), minlength=many * n).reshape(many, n).astype(np.float64)


def ends(values: Doubles) -> tuple[float, float]:
    """Return the interval that leaves out (1 - LEVEL) / 2 of the draws on either side.

    :param values: [DRAWS].
    """
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return low, high
