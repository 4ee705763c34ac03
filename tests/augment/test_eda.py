"""Random deletion and random swap against their definition (EDA, Wei and Zou 2019)."""

from collections import Counter
from collections.abc import Callable
from math import factorial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from letters import settings

from pipeline.augment import engine
from pipeline.augment.block import EDITED, MASKED, Block, Sentences, Unigrams
from pipeline.augment.copies import Plan
from pipeline.augment.draws import Draws, row_keys
from pipeline.augment.eda import RandomDeletion, RandomSwap
from pipeline.augment.rules import KeepNgram, MaskOrReplace
from pipeline.errors import InputError

COPIES = 20_000
MASK = 99
UNIGRAMS = Unigrams.of(np.arange(MASK, dtype=np.int32), np.zeros(MASK, np.int16), np.ones(MASK, np.int64), MASK)
DELETION = {"rule": "pipeline.augment.eda:RandomDeletion", "p": 0.3}
SWAP = {"rule": "pipeline.augment.eda:RandomSwap", "alpha": 0.3}
ROWS = [("train", " ".join(f"w{i}x{j}" for j in range(1 + i % 9))) for i in range(60)]


def copies_of(*lengths: int, n: int = COPIES) -> Block:
    """Return n copies of sentences whose words are 0, 1, 2, ... each."""
    words = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Block.copies(
        Sentences(offsets, words, np.zeros(len(words), np.int16)), np.repeat(np.arange(len(lengths)), n)
    )


def apply(rule, block: Block, seed: int = 0, name: str = "rule") -> Block:
    n = len(block)
    parents = np.stack([block.parents, block.parents + 1], axis=1).astype(np.uint64)
    return rule(block, Draws(row_keys(seed, parents, np.arange(n), np.zeros(n, np.int64)), name), UNIGRAMS)


def rows_of(block: Block) -> list[list[int]]:
    return [row.tolist() for row in np.split(block.words, block.offsets[1:-1])]


def sigmas(count: int, n: int, p: float) -> float:
    return abs(count - n * p) / np.sqrt(n * p * (1 - p))


def chi_square_sigmas(counts: np.ndarray) -> float:
    """Return how far equal counts are from equal, in standard deviations of chi-square."""
    chi2, freedom = ((counts - counts.mean()) ** 2 / counts.mean()).sum(), len(counts) - 1
    return (chi2 - freedom) / np.sqrt(2 * freedom)


# --- deletion -----------------------------------------------------------------------------------------------------------


def test_each_word_is_deleted_as_often_as_asked_and_independently():
    block = apply(RandomDeletion(p=0.5), copies_of(4))
    patterns = Counter(map(tuple, rows_of(block)))
    assert sum(patterns.values()) == COPIES
    assert all(list(row) == sorted(row) for row in patterns)  # the order stays
    for row, count in patterns.items():
        # 16 subsets alike; the empty one is shared by the four rows of one word.
        assert sigmas(count, COPIES, (1 + (len(row) == 1) / 4) / 16) < 5
    assert len(patterns) == 15


@pytest.mark.parametrize("p", [0.0, 0.1, 1.0])
def test_deletion_rate_and_count(p: float):
    block = apply(RandomDeletion(p), copies_of(1, 30, n=2000))
    lost = np.array([1, 30])[block.parents] - block.size
    assert (lost == block.edits_per_row()[EDITED]).all()
    assert (lost[:2000] == 0).all()  # the one word of a row stays
    assert block.tally == {"deletion: words": 62_000, "deletion: dropped": lost.sum()}
    if p in (0, 1):
        assert (lost[2000:] == 29 * p).all()
        assert block.touched(block.edits_per_row()).tolist() == [False] * 2000 + [p == 1] * 2000
    else:
        assert sigmas(lost.sum(), 60_000, p) < 5


def test_the_survivor_of_a_row_is_any_of_its_words():
    block = apply(RandomDeletion(p=1.0), copies_of(5))
    assert (block.size == 1).all()
    assert chi_square_sigmas(np.bincount(block.words, minlength=5)) < 5


# --- swap ---------------------------------------------------------------------------------------------------------------


def test_one_swap_exchanges_any_two_places():
    rows = Counter(map(tuple, rows_of(apply(RandomSwap(alpha=0.1), copies_of(5)))))
    assert len(rows) == 10  # the pairs of 5 places
    assert all(sum(word != place for place, word in enumerate(row)) == 2 for row in rows)
    assert chi_square_sigmas(np.array(list(rows.values()))) < 5


@pytest.mark.parametrize(
    ("alpha", "length", "n"), [(0.1, 9, 1), (0.1, 30, 3), (0.5, 5, 2), (1.0, 7, 7), (0.0, 9, 0), (1.0, 1, 0)]
)
def test_there_are_as_many_swaps_as_eda_makes(alpha: float, length: int, n: int):
    block = apply(RandomSwap(alpha), copies_of(length, n=500))
    assert block.tally["swap: swaps"] == 500 * n
    rows = rows_of(block)
    assert all(sorted(row) == list(range(length)) for row in rows)
    # A permutation of n exchanges has the sign (-1)^n, whatever they are.
    signs = {round(np.linalg.det(np.eye(length)[row])) for row in rows}
    assert signs == {(-1) ** n}


def test_swaps_are_independent_of_each_other():
    """After many exchanges of a row of 4, all permutations of one sign are alike."""
    rows = rows_of(apply(RandomSwap(alpha=1.0), apply(RandomSwap(alpha=1.0), copies_of(4), name="one"), name="two"))
    counts = Counter(map(tuple, rows))
    assert len(counts) == factorial(4) // 2
    assert chi_square_sigmas(np.array(list(counts.values()))) < 5


def test_the_words_that_moved_are_the_ones_counted_and_places_stay():
    block = apply(RandomSwap(alpha=0.4), copies_of(2, 6, 30, n=300))
    moved = block.words != block.positions  # word i began at place i
    assert (block.edits == np.where(moved, EDITED, 0)).all()
    assert (block.edits_per_row()[EDITED] == np.bincount(block.rows[moved], minlength=len(block))).all()
    assert block.tally["swap: words moved"] == moved.sum() > 0
    assert block.positions.tolist() == [*range(2)] * 300 + [*range(6)] * 300 + [*range(30)] * 300


def test_two_swaps_can_undo_each_other_and_nothing_happened():
    block = apply(RandomSwap(alpha=1.0), copies_of(2, n=10))
    assert block.words.tolist() == [0, 1] * 10
    assert not block.touched(block.edits_per_row()).any()


def test_a_masked_word_that_moves_is_still_a_masked_word():
    block = apply(MaskOrReplace(p_mask=0.5, p_pos=0.0), copies_of(8, n=500), name="words")
    masked = block.edits_per_row()[MASKED]
    swapped = apply(RandomSwap(alpha=0.5), block, name="swap")
    assert (swapped.edits_per_row()[MASKED] == masked).all()
    assert ((swapped.words == MASK) == (swapped.edits == MASKED)).all()
    assert swapped.edits_per_row()[EDITED].sum() == swapped.tally["swap: words moved"]


def test_a_very_long_row_among_short_ones():
    block = apply(RandomSwap(alpha=0.1), copies_of(3, 100_000, n=2))
    assert block.tally["swap: swaps"] == 2 + 2 * 10_000
    assert sorted(rows_of(block)[3]) == list(range(100_000))


# --- both ---------------------------------------------------------------------------------------------------------------


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    p=st.floats(0, 1),
    alpha=st.floats(0, 1),
    seed=st.integers(),
    swap_first=st.booleans(),
)
def test_a_row_keeps_words_of_its_own_and_its_counts_are_right(lengths, p, alpha, seed, swap_first):
    rules = [RandomDeletion(p), RandomSwap(alpha)]
    block = copies_of(*lengths, n=4)
    for rule in reversed(rules) if swap_first else rules:
        block = apply(rule, block, seed, type(rule).__name__)
    assert block.size.min() >= 1
    assert block.offsets[-1] == len(block.words) == len(block.edits) == len(block.positions)
    for row, parent in zip(rows_of(block), block.parents, strict=True):
        assert len(set(row)) == len(row)
        assert set(row) <= set(range(lengths[parent]))
    moved = block.words != block.positions
    assert (block.edits == np.where(moved, EDITED, 0)).all()
    lost = np.array(lengths)[block.parents] - block.size
    edited = lost + np.bincount(block.rows[moved], minlength=len(block))
    assert (block.edits_per_row()[EDITED] == edited).all()
    assert (block.touched(block.edits_per_row()) == (edited > 0)).all()


@pytest.mark.parametrize("rule", [RandomDeletion(0.4), RandomSwap(0.4)])
def test_a_row_does_not_depend_on_its_neighbours(rule):
    lengths = [1, 4, 9, 30]
    together = rows_of(apply(rule, copies_of(*lengths, n=1)))
    assert together == rows_of(apply(rule, copies_of(*lengths, n=1)))
    assert together != rows_of(apply(rule, copies_of(*lengths, n=1), seed=1))
    sentences = copies_of(*lengths, n=1).sentences
    for i in range(len(lengths)):
        alone = Block.copies(sentences, np.array([i]))
        parents = np.array([[i, i + 1]], np.uint64)
        draws = Draws(row_keys(0, parents, np.array([i]), np.zeros(1, np.int64)), "rule")
        assert rows_of(rule(alone, draws, UNIGRAMS)) == [together[i]]


@pytest.mark.parametrize(
    ("rule", "params", "named"),
    [
        (RandomDeletion, {"p": 1.1}, "p"),
        (RandomDeletion, {"p": "all"}, "p"),
        (RandomSwap, {"alpha": -0.1}, "alpha"),
        (RandomSwap, {"alpha": float("nan")}, "alpha"),
    ],
)
def test_wrong_parameters_are_refused_by_name(rule, params, named):
    with pytest.raises(ValueError, match=f"^{named}:"):
        rule(**params)


# --- windows ------------------------------------------------------------------------------------------------------------

NGRAM = {"rule": "pipeline.augment.rules:KeepNgram", "p_ng": 1.0, "n_max": 3}


def test_a_window_after_deletion_is_refused_with_the_order_to_write():
    """Its place would be counted in the words that are left, not in the parent's."""
    with pytest.raises(
        InputError,
        match=r"tasks/films\.yaml: augment\.rules: 'ngram' keeps a window of words and comes after 'deletion', which drops words: "
        "list 'ngram' before 'deletion'",
    ):
        Plan.of(settings(deletion=DELETION, swap=SWAP, ngram=NGRAM), "tasks/films.yaml")
    assert list(Plan.of(settings(ngram=NGRAM, deletion=DELETION, swap=SWAP)).rules) == ["ngram", "deletion", "swap"]
    assert list(Plan.of(settings(swap=SWAP, ngram=NGRAM)).rules) == ["swap", "ngram"]


OWN_RULES = """
class Halve:
    def __call__(self, block, draws, unigrams):
        return block.drop(block.positions % 2 == 1)


class First:
    def __call__(self, block, draws, unigrams):
        return block.cut(block.size > 0, 0 * block.start, 0 * block.size + 1)
"""


def test_a_users_window_after_dropped_words_is_refused_when_it_runs(
    write_tokens: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "own_rules.py").write_text(OWN_RULES)
    monkeypatch.syspath_prepend(tmp_path)
    tokens, halve, first = write_tokens(ROWS), {"rule": "own_rules:Halve"}, {"rule": "own_rules:First"}
    with pytest.raises(
        InputError, match=r"augment\.rules\.first: keeps a window after another rule dropped words; list it"
    ):
        engine.augment(tokens, tmp_path / "out", settings(halve=halve, first=first), workers=1)
    assert engine.augment(tokens, tmp_path / "out", settings(first=first, halve=halve), workers=1)["kept"] > 0


def test_a_window_before_deletion_is_in_the_words_of_the_parent(write_tokens: Callable, tmp_path: Path):
    asked = settings(ngram=NGRAM, deletion=DELETION)
    engine.augment(write_tokens(ROWS), tmp_path / "out", asked, workers=1)
    for row in augmented(tmp_path / "out").to_pylist():
        places = [int(word.split("x")[1]) for word in row["sentence1"].split(" ")]
        start, size = row["ngram_start1"], row["ngram_size1"]
        assert set(places) <= set(range(start, start + size))
        assert row["edited1"] == size - len(places)


def test_a_window_after_a_swap_keeps_places_and_counts_the_moved_words_inside(write_tokens: Callable, tmp_path: Path):
    engine.augment(write_tokens(ROWS), tmp_path / "out", settings(swap=SWAP, ngram=NGRAM), workers=1)
    table = augmented(tmp_path / "out").to_pylist()
    for row in table:
        places = [int(word.split("x")[1]) for word in row["sentence1"].split(" ")]
        moved = sum(place != row["ngram_start1"] + i for i, place in enumerate(places))
        assert (row["edited1"], row["ngram_size1"]) == (moved, len(places))
    assert len({row["edited1"] for row in table}) > 2


def test_a_masked_word_that_moved_out_of_the_window_is_not_counted():
    block = apply(MaskOrReplace(p_mask=0.5, p_pos=0.0), copies_of(30, n=500), name="words")
    block = apply(RandomSwap(alpha=1.0), block, name="swap")
    whole = block.edits_per_row()[EDITED]
    block = apply(KeepNgram(p_ng=1.0, n_max=3), block, name="ngram")
    inside = block.edits_per_row()[EDITED]
    assert (inside <= block.size).all()
    assert whole.max() > block.size.max() >= inside.max() == 3


# --- from params.yaml ---------------------------------------------------------------------------------------------------


def augmented(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in sorted(folder.glob("*.parquet"))])


def test_deletion_end_to_end(write_tokens: Callable, tmp_path: Path):
    summary = engine.augment(write_tokens(ROWS), tmp_path / "out", settings(deletion=DELETION), workers=1)
    table = augmented(tmp_path / "out").to_pylist()
    assert summary["kept"] == len(table) > 100
    lengths = {text.split("x")[0]: len(text.split(" ")) for _, text in ROWS}
    for row in table:
        words = row["sentence1"].split(" ")
        assert words == sorted(words)
        assert row["edited1"] == lengths[words[0].split("x")[0]] - len(words) > 0
        assert (row["masked1"], row["replaced1"], row["ngram_start1"]) == (0, 0, None)


def test_swap_end_to_end(write_tokens: Callable, tmp_path: Path):
    summary = engine.augment(write_tokens(ROWS), tmp_path / "out", settings(swap=SWAP), workers=1)
    table = augmented(tmp_path / "out").to_pylist()
    assert summary["kept"] == len(table) > 100
    for row in table:
        words = row["sentence1"].split(" ")
        assert row["edited1"] == sum(word.split("x")[1] != str(place) for place, word in enumerate(words)) >= 2


def test_swap_leaves_the_white_space_of_raw_text_where_it_is(write_tokens: Callable, tmp_path: Path):
    tokens = write_tokens([("train", "one two three")], mode="raw")
    engine.augment(tokens, tmp_path / "out", settings(n_iter=30, swap=SWAP), workers=1)
    assert set(augmented(tmp_path / "out")["sentence1"].to_pylist()) == {
        "two one three",
        "three two one",
        "one three two",
    }


def test_block_and_shard_sizes_change_no_row(write_tokens: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tokens, asked = write_tokens(ROWS), settings(deletion=DELETION, swap=SWAP)
    engine.augment(tokens, tmp_path / "one", asked, workers=1)
    monkeypatch.setattr(engine, "BLOCK_WORDS", 100)
    engine.augment(tokens, tmp_path / "many", asked, workers=1, shard_rows=37)
    assert augmented(tmp_path / "many").equals(augmented(tmp_path / "one"))
