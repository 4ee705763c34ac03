"""Intervals of means over seeds and rows."""

import numpy as np
import pytest

from pipeline.metrics import bootstrap, classification, regression
from pipeline.metrics.bootstrap import DRAWS, ends, over_seeds_and_rows


def students(seeds: int, rows: int, share: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((seeds, rows)) < share


def test_an_interval_is_as_wide_as_theory_says():
    """Independent rows, the same for every seed: the binomial's standard error; and nothing of it comes from seeds."""
    one = students(1, 900, 0.8)
    right = np.repeat(one, 3, axis=0)[None]
    draws = over_seeds_and_rows(right)
    p = one.mean()
    assert draws.shape == (DRAWS, 1)
    assert draws.mean() == pytest.approx(p, abs=0.002)
    assert draws.std() == pytest.approx((p * (1 - p) / 900) ** 0.5, rel=0.08)


def test_seeds_that_differ_widen_it():
    """Three students, each right on a share of its own of all rows: the plug-in variance of their mean is that of 3 draws of 3."""
    rows = np.arange(10_000)
    shares = np.array([0.6, 0.7, 0.95])
    right = (rows % 1000 < shares[:, None] * 1000)[None]
    assert over_seeds_and_rows(right).std() == pytest.approx((shares.var() / 3) ** 0.5, rel=0.1)


def test_cells_are_paired_by_row():
    """Two cells that differ on no row differ by nothing, however wide the interval of each."""
    one = np.repeat(students(1, 500, 0.75), 2, axis=0)
    draws = over_seeds_and_rows(np.stack([one, one]))
    assert ends(draws[:, 0] - draws[:, 1]) == pytest.approx((0, 0), abs=1e-12)
    low, high = ends(draws[:, 0])
    assert high - low > 0.05


@pytest.mark.parametrize("cells", [1, 50, 50 * 7, 50 * 1999])
def test_the_memory_limit_changes_no_resample(monkeypatch: pytest.MonkeyPatch, cells: int):
    right = students(6, 50, 0.7).reshape(2, 3, 50)
    before = over_seeds_and_rows(right)
    assert np.array_equal(over_seeds_and_rows(right), before)
    monkeypatch.setattr(bootstrap, "CELLS", cells)
    assert np.array_equal(over_seeds_and_rows(right), before)


@pytest.mark.parametrize("cells", [1, 50, 50 * 7, 50 * 1999])
def test_the_memory_limit_changes_no_interval_of_a_regression(monkeypatch: pytest.MonkeyPatch, cells: int):
    draws = np.random.default_rng(0)
    right = draws.normal(size=50).round(1)  # with ties
    predicted = right + draws.normal(size=50)
    before = regression.measures(right, predicted)
    monkeypatch.setattr(bootstrap, "CELLS", cells)
    assert regression.measures(right, predicted) == before


@pytest.mark.parametrize("classes", [2, 3, 17])
@pytest.mark.parametrize("tables", [0.1, 1, 7, 1999])
def test_the_memory_limit_changes_no_interval_of_classes(monkeypatch: pytest.MonkeyPatch, classes: int, tables: float):
    labels, predicted = np.random.default_rng(0).integers(0, classes, (2, 300))
    before = classification.measures(labels, predicted, classes)
    monkeypatch.setattr(classification, "CELLS", max(1, int(tables * classes**2)))
    assert classification.measures(labels, predicted, classes) == before
