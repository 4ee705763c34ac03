"""The paper's rules against their definition, and against what re-implementations got wrong."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.augment.block import MASKED, REPLACED, Block, Sentences, Unigrams
from pipeline.augment.draws import Draws, row_keys
from pipeline.augment.rules import KeepNgram, MaskOrReplace

COPIES = 40_000
# Six words in three tags, with counts; the last tag has one word. The mask is word 6.
COUNTS = {0: (0, 50), 1: (0, 30), 2: (0, 20), 3: (1, 9), 4: (1, 1), 5: (2, 7)}
UNIGRAMS = Unigrams.of(
    np.array(list(COUNTS), np.int32),
    np.array([tag for tag, _ in COUNTS.values()], np.int16),
    np.array([count for _, count in COUNTS.values()]),
    mask=6,
)
TAG = np.array([tag for tag, _ in COUNTS.values()], np.int16)


def copies_of(*sentences: list[int], n: int = COPIES) -> Block:
    words = np.array([word for sentence in sentences for word in sentence], np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(sentence) for sentence in sentences])])
    return Block.copies(Sentences(offsets, words, TAG[words]), np.repeat(np.arange(len(sentences)), n))


def draws_for(block: Block, seed: int = 0, rule: str = "rule") -> Draws:
    n = len(block)
    parents = np.stack([block.parents, block.parents + 1], axis=1).astype(np.uint64)
    return Draws(row_keys(seed, parents, np.arange(n), np.zeros(n, np.int64)), rule)


def apply(rule, block: Block, seed: int = 0, name: str = "rule") -> Block:
    return rule(block, draws_for(block, seed, name), UNIGRAMS)


def sigmas(count: int, n: int, p: float) -> float:
    """Return how many standard deviations a count lies from n * p."""
    return abs(count - n * p) / np.sqrt(n * p * (1 - p))


def chi_square_sigmas(counts: np.ndarray, expected: np.ndarray) -> float:
    chi2, freedom = ((counts - expected) ** 2 / expected).sum(), len(counts) - 1
    return (chi2 - freedom) / np.sqrt(2 * freedom)


def test_masking_and_replacement_fire_as_often_as_asked_and_never_both():
    block = apply(MaskOrReplace(p_mask=0.1, p_pos=0.3), copies_of([0, 1, 2, 3, 4, 5]))
    for position in range(6):
        edits = block.edits.reshape(-1, 6)[:, position]
        assert sigmas((edits == MASKED).sum(), COPIES, 0.1) < 5
        assert sigmas((edits == REPLACED).sum(), COPIES, 0.3) < 5
    words = block.words
    assert (words[block.edits == MASKED] == 6).all()
    assert (words[block.edits != MASKED] != 6).all()
    assert (words[block.edits == 0] == np.tile([0, 1, 2, 3, 4, 5], COPIES)[block.edits == 0]).all()


def test_words_are_edited_independently_of_each_other():
    edits = apply(MaskOrReplace(p_mask=0.5, p_pos=0.0), copies_of([0, 0, 1])).edits.reshape(-1, 3) == MASKED
    patterns = np.bincount(edits @ [1, 2, 4], minlength=8)
    assert chi_square_sigmas(patterns, np.full(8, COPIES / 8)) < 5


def test_replacements_follow_the_tags_unigram_distribution():
    block = apply(MaskOrReplace(p_mask=0.0, p_pos=1.0), copies_of([0, 3, 5]))
    drawn = block.words.reshape(-1, 3)
    for position, tag in enumerate((0, 1, 2)):
        words = [word for word, (its_tag, _) in COUNTS.items() if its_tag == tag]
        counts = np.array([(drawn[:, position] == word).sum() for word in words])
        assert counts.sum() == COPIES  # no word of another tag, and no [MASK]
        weights = np.array([COUNTS[word][1] for word in words])
        if len(words) > 1:
            assert chi_square_sigmas(counts, COPIES * weights / weights.sum()) < 5


def test_a_draw_of_the_same_word_has_fired_but_changed_nothing():
    block = apply(MaskOrReplace(p_mask=0.0, p_pos=1.0), copies_of([5], n=10))  # the tag's only word
    assert block.edits_per_row()[REPLACED].tolist() == [1] * 10
    assert block.tally == {"words": 10, "masked": 0, "replaced": 10, "replaced by another word": 0}


@pytest.mark.parametrize("length", [1, 2, 3, 5, 9])
def test_every_window_that_fits_is_as_likely_as_any_other(length: int):
    block = apply(KeepNgram(p_ng=1.0), copies_of([i % 6 for i in range(length)]))
    assert block.ngram.all()
    sizes = np.bincount(block.size, minlength=6)
    expected = np.array([0, *(COPIES / 5 for _ in range(5))])
    if length < 5:  # a sentence shorter than n keeps what it has
        expected[length] += expected[length + 1 :].sum()
        expected[length + 1 :] = 0
    assert (sizes[expected == 0] == 0).all()
    if length > 1:
        assert chi_square_sigmas(sizes[expected > 0], expected[expected > 0]) < 5
    for size in range(1, min(length, 5) + 1):
        starts = np.bincount(block.start[block.size == size], minlength=length - size + 1)
        assert len(starts) == length - size + 1  # the last window is reached, and nothing beyond it
        if len(starts) > 1:
            assert chi_square_sigmas(starts, np.full(len(starts), starts.sum() / len(starts))) < 5


def test_the_ngram_is_kept_and_the_rest_dropped():
    block = apply(KeepNgram(p_ng=0.25), copies_of([0, 1, 2, 3, 4, 5, 0, 1]))
    assert sigmas(block.ngram.sum(), COPIES, 0.25) < 5
    original = np.array([0, 1, 2, 3, 4, 5, 0, 1])
    for row in range(200):
        words = block.words[block.offsets[row] : block.offsets[row + 1]]
        begin = block.start[row]
        assert words.tolist() == original[begin : begin + block.size[row]].tolist()
        assert block.ngram[row] or len(words) == 8


def test_window_mask_and_replacement_are_independent():
    """Whether the window fires, where it lies, whether its first word is masked and what replaces it: no pair is correlated."""
    block = apply(KeepNgram(p_ng=0.5, n_max=2), copies_of([0] * 4, n=200_000), name="ngram")
    block = apply(MaskOrReplace(p_mask=0.5, p_pos=0.5), block, name="words")
    first = block.offsets[:-1]
    facts = {
        "fired": block.ngram,
        "size": block.size == 1,
        "start": block.start >= 2,
        "masked": block.edits[first] == MASKED,
        "word": block.words[first] == 0,
    }
    cut = block.ngram
    replaced = block.edits[first] == REPLACED
    for one, other, among in [
        ("fired", "masked", None),
        ("size", "start", None),
        ("start", "masked", cut),
        ("size", "masked", cut),
        ("start", "word", cut & replaced),
        ("fired", "word", replaced),
    ]:
        where = slice(None) if among is None else among
        if (one, other) == ("size", "start"):  # a shorter window can start later: compare at the same start range
            where = cut & (block.start <= 2)
            share = [np.mean(facts["start"][where & (block.size == s)]) for s in (1, 2)]
            assert share == pytest.approx([1 / 3, 1 / 3], abs=0.02)
            continue
        correlation = np.corrcoef(facts[one][where], facts[other][where])[0, 1]
        assert abs(correlation) < 5 / np.sqrt(np.size(facts[one][where])), (one, other)


def test_the_order_of_the_two_rules_changes_nothing():
    sentences = ([0, 1, 2, 3, 4, 5], [5, 4, 3], [0])
    one = apply(MaskOrReplace(), apply(KeepNgram(), copies_of(*sentences, n=500), name="ngram"), name="words")
    two = apply(KeepNgram(), apply(MaskOrReplace(), copies_of(*sentences, n=500), name="words"), name="ngram")
    for name in ("words", "edits", "positions", "offsets", "start", "size", "ngram"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name


@settings(max_examples=40, deadline=None)
@given(
    sentences=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=12), min_size=1, max_size=5),
    p_mask=st.floats(0, 1),
    share=st.floats(0, 1),
    p_ng=st.floats(0, 1),
    seed=st.integers(),
)
def test_a_block_stays_a_block(sentences, p_mask, share, p_ng, seed):
    block = copies_of(*sentences, n=5)
    block = apply(KeepNgram(p_ng), block, seed, "ngram")
    block = apply(MaskOrReplace(p_mask, (1 - p_mask) * share), block, seed, "words")
    assert block.size.min() >= 1
    assert block.offsets[-1] == len(block.words) == len(block.edits) == block.size.sum()
    original = np.concatenate([sentences[p] for p in block.parents]) if len(block) else np.zeros(0)
    starts = np.concatenate([[0], np.cumsum([len(sentences[p]) for p in block.parents])])[:-1]
    untouched = block.edits == 0
    assert (block.words == original[starts[block.rows] + block.positions])[untouched].all()
    assert (
        (block.positions >= 0) & (block.positions < np.array([len(sentences[p]) for p in block.parents])[block.rows])
    ).all()
    assert (
        block.edits_per_row()[MASKED] + block.edits_per_row()[REPLACED]
        == np.bincount(block.rows[~untouched], minlength=len(block))
    ).all()


@pytest.mark.parametrize(
    ("rule", "params", "named"),
    [
        (MaskOrReplace, {"p_mask": 1.5}, "p_mask"),
        (MaskOrReplace, {"p_pos": -0.1}, "p_pos"),
        (MaskOrReplace, {"p_mask": 0.6, "p_pos": 0.5}, "p_mask + p_pos"),
        (MaskOrReplace, {"p_mask": "much"}, "p_mask"),
        (MaskOrReplace, {"p_mask": float("nan")}, "p_mask"),
        (KeepNgram, {"p_ng": 2}, "p_ng"),
        (KeepNgram, {"n_min": 0}, "n_min"),
        (KeepNgram, {"n_min": 4, "n_max": 3}, "n_max"),
    ],
)
def test_wrong_parameters_are_refused_by_name(rule, params, named):
    with pytest.raises(ValueError, match=named.replace("+", r"\+")):
        rule(**params)
