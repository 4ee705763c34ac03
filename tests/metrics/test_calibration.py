import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.metrics.calibration import LEAST, MOST, best_temperature, calibration_error, divergence, log_softmax


def logits_of(*probabilities: tuple[float, ...]) -> np.ndarray:
    return np.log(np.array(probabilities)) + 5  # a constant more changes no probability


def test_the_calibration_error_is_the_mean_gap_of_the_bins():
    """Two rows at 0.9, one of them right; one at 0.7, right; one at 0.55, wrong."""
    logits = logits_of((0.9, 0.1), (0.1, 0.9), (0.7, 0.3), (0.45, 0.55))
    labels = np.array([0, 0, 0, 0])
    assert calibration_error(labels, logits) == pytest.approx((2 * abs(0.5 - 0.9) + abs(1 - 0.7) + abs(0 - 0.55)) / 4)


def test_gaps_in_one_bin_cancel_out_and_between_bins_do_not():
    """Bins are 1/15 wide: 0.61 and 0.66 share one, 0.61 and 0.68 do not."""
    labels = np.array([0, 1])
    together, apart = (calibration_error(labels, logits_of((0.61, 0.39), (p, 1 - p))) for p in (0.66, 0.68))
    assert together == pytest.approx(abs(1 - 0.61 - 0.66) / 2)
    assert apart == pytest.approx((1 - 0.61 + 0.68) / 2)


def test_a_confident_model_has_no_error_if_right_and_the_largest_if_wrong():
    logits = np.array([[1000.0, 0.0], [0.0, 1000.0]], np.float32)
    assert calibration_error(np.array([0, 1]), logits) == 0
    assert calibration_error(np.array([1, 0]), logits) == 1


def test_the_temperature_that_was_put_in_is_found_and_calibrates():
    draws = np.random.default_rng(0)
    logits = draws.normal(0, 2, (20_000, 3))
    cumulative = np.exp(log_softmax(logits)).cumsum(axis=1)
    labels = (draws.random((20_000, 1)) > cumulative).sum(axis=1)
    sure = 3 * logits
    assert best_temperature(labels, sure) == pytest.approx(3, rel=0.03)
    assert calibration_error(labels, sure, 3.0) < 0.01 < 0.1 < calibration_error(labels, sure)


@given(st.lists(st.tuples(st.integers(0, 2), *[st.floats(-5, 5)] * 3), min_size=1, max_size=20))
def test_no_other_temperature_has_a_smaller_loss(rows: list[tuple[int, float, float, float]]):
    labels, logits = np.array([row[0] for row in rows]), np.array([row[1:] for row in rows])
    loss = lambda t: -log_softmax(logits / t)[np.arange(len(labels)), labels].mean()  # noqa: E731
    best = best_temperature(labels, logits)
    assert LEAST <= best <= MOST * (1 + 1e-9)
    for other in (LEAST, 0.1, best * 0.97, best * 1.03, 1.0, 10.0, MOST):
        if LEAST <= other <= MOST:
            assert loss(best) <= loss(other) + 1e-9


def test_extremes_stop_at_the_ends():
    logits = np.array([[2.0, 0.0]])
    assert best_temperature(np.array([0]), logits) == pytest.approx(LEAST)
    assert best_temperature(np.array([1]), logits) == pytest.approx(MOST)


def test_the_divergence_has_its_textbook_value():
    teacher, student = logits_of((0.5, 0.5), (0.9, 0.1)), logits_of((0.25, 0.75), (0.9, 0.1))
    expected = (0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)) / 2
    assert divergence(teacher, student) == pytest.approx(expected)
    assert divergence(teacher, teacher - 3) == pytest.approx(0, abs=1e-12)
    assert divergence(student, teacher) != pytest.approx(expected)


def test_the_calibration_error_against_a_loop():
    draws = np.random.default_rng(0)
    confidences, right = draws.uniform(0.5, 1, 1_000), draws.integers(0, 2, 1_000).astype(bool)
    logits = np.log(np.stack([confidences, 1 - confidences], axis=1))
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidences > low) & (confidences <= low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidences[inside].mean())
    assert calibration_error(np.where(right, 0, 1), logits) == pytest.approx(expected)
