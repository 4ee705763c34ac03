import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.augment.draws import Draws, mix, row_keys


def keys(seed: int, n: int = 50_000):
    parents = np.arange(2 * n, dtype=np.uint64).reshape(n, 2)
    return row_keys(seed, parents, np.zeros(n, np.int64), np.zeros(n, np.int64))


def test_mix_is_splitmix64():
    # The first three outputs of the published generator from state 1234567.
    golden, state = 0x9E3779B97F4A7C15, 1234567
    states = np.array([(state + (i + 1) * golden) % 2**64 for i in range(3)], np.uint64)
    assert mix(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(st.integers(), st.integers())
def test_any_integer_is_a_seed_and_another_seed_is_other_draws(one: int, other: int):
    same = np.array_equal(keys(one, 4), keys(other, 4))
    assert same == (one == other)


def test_a_row_has_its_own_key_for_each_copy_and_side():
    parents = np.repeat(np.array([[1, 2], [2, 1], [1, 3]], np.uint64), 8, axis=0)
    copies = np.tile(np.repeat(np.arange(4), 2), 3)
    sides = np.tile([0, 1], 12)
    assert len(set(row_keys(0, parents, copies, sides).tolist())) == 24


def test_a_draw_depends_on_its_row_and_place_alone():
    k = keys(0, 6)
    rows, positions = np.array([0, 0, 3, 5]), np.array([0, 7, 7, 2])
    whole = Draws(k, "rule").per_word("use", rows, positions)
    one_by_one = [
        Draws(k[r : r + 1], "rule").per_word("use", np.array([0]), np.array([p]))[0]
        for r, p in zip(rows, positions, strict=True)
    ]
    assert whole.tolist() == one_by_one


def uniformity(x: np.ndarray, cells: int = 64) -> float:
    """Return chi-square over its degrees of freedom, in standard deviations."""
    counts = np.bincount((x * cells).astype(int), minlength=cells)
    expected = len(x) / cells
    chi2 = ((counts - expected) ** 2 / expected).sum()
    return (chi2 - (cells - 1)) / np.sqrt(2 * (cells - 1))


@pytest.mark.parametrize("use", ["a", "b", "fire"])
def test_draws_are_uniform(use: str):
    draws = Draws(keys(7), "rule")
    rows = np.arange(50_000)
    for x in (
        draws.per_row(use),
        draws.per_word(use, rows, np.zeros(50_000, np.int64)),
        draws.per_word(use, rows // 100, rows % 100),
    ):
        assert x.min() >= 0
        assert x.max() < 1
        assert abs(uniformity(x)) < 5


def test_draws_for_different_things_are_independent():
    """Reusing a key for two draws correlates them and no marginal shows it: look at the joint distribution of every pair."""
    k, rows = keys(3), np.arange(50_000)
    draws, zero = Draws(k, "rule"), np.zeros(50_000, np.int64)
    kinds = {
        "row a": draws.per_row("a"),
        "row b": draws.per_row("b"),
        "word a at 0": draws.per_word("a", rows, zero),
        "word a at 1": draws.per_word("a", rows, zero + 1),
        "word b at 0": draws.per_word("b", rows, zero),
        "another rule": Draws(k, "other").per_row("a"),
        "another seed": Draws(keys(4), "rule").per_row("a"),
        "the next row": np.roll(draws.per_row("a"), 1),
    }
    names = list(kinds)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            joint = (kinds[one] * 8).astype(int) * 8 + (kinds[other] * 8).astype(int)
            assert abs(uniformity((joint + 0.5) / 64)) < 5, (one, other)


@given(st.floats(0, 1) | st.sampled_from([0.1, 0.2, 2**-53, 1 - 2**-53, 5e-324]), st.integers())
def test_fires_is_the_draw_below_p(p: float, seed: int):
    keys = row_keys(seed, np.zeros((4, 2), np.uint64), np.arange(4), np.zeros(4, np.int64))
    draws, rows, positions = Draws(keys, "rule"), np.repeat(np.arange(4), 50), np.tile(np.arange(50), 4)
    x = draws.per_word("use", rows, positions)
    assert (draws.fires("use", rows, positions, p) == (x < p)).all()
    for own in x[:20]:  # and to the last bit
        assert (draws.fires("use", rows, positions, own) == (x < own)).all()
