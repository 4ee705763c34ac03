"""The paper's augmentation rules (Tang et al. 2019, section 3.2 of arXiv 1903.12136), and the contract of a rule.

A rule is built with its parameters from params.yaml, raises ValueError for wrong ones, and is called as
`rule(block, draws, unigrams) -> block` for many rows at once. Its only random numbers are those of `draws`. It may

- change words: write to `block.words`, and mark the words in `block.edits`;
- keep a window: return `block.cut(...)`. The row's `ngram_start` and `ngram_size` record it, in places of the parent;
- drop words: return `block.drop(...)`. They count as edited;
- move words: write to `block.words`, and mark each place whose word changed in `block.edits`.

Rules run in the order of params.yaml. A draw depends on the word's place in the parent, so the order of the two rules of this
module does not change the result; the window first is less work. A window must come before every rule that drops words: afterwards
a place in the row is not a place in the parent, so this order is refused. A window may come after a rule that moves words: it keeps
the places `ngram_start` to `ngram_start + ngram_size - 1`, and the words that moved there from another place count as edited.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from pipeline.augment.block import MASKED, REPLACED, Block, Unigrams
from pipeline.augment.draws import Draws

Asked = dict[str, tuple[str, float]]
"""The denominator of a rule's counter, and its target rate in params.yaml."""


class AugmentationRule(Protocol):
    """A rule, called with a block.

    It may also have these attributes:

    - `asked`, an Asked: the summary then shows the rate found next to the rate asked for.
    - `extra_words(words: list[str]) -> list[str]`: called once with the vocabulary (words[i] has id i; the last one is [MASK]). The
      words it returns get the ids from len(words) on.
    - `keeps_window = True` if it calls `block.cut`, `drops_words = True` if it calls `block.drop`: `offline-distill check` then
      refuses a window after dropped words. Without them, the augment stage refuses it when the rule runs.
    """

    def __call__(self, block: Block, draws: Draws, unigrams: Unigrams) -> Block:
        """Return the block with the rule applied to every row."""
        ...


def check_probability(name: str, value: float) -> None:
    """Raise ValueError for a parameter that is not a number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name}: {value!r}: must be a probability, from 0 to 1")


@dataclass(frozen=True)
class MaskOrReplace:
    """Masking and part-of-speech-guided replacement, with one draw X for both, so that no word gets both.

    X < p_mask: the word becomes [MASK]. p_mask <= X < p_mask + p_pos: it becomes a word drawn from the training set's unigram
    distribution within its own tag, which can be the same word. Otherwise it does not change.
    """

    p_mask: float = 0.1  # the share of words masked
    p_pos: float = 0.1  # the share of words replaced

    def __post_init__(self) -> None:
        check_probability("p_mask", self.p_mask)
        check_probability("p_pos", self.p_pos)
        if self.p_mask + self.p_pos > 1:
            raise ValueError(f"p_mask + p_pos: {self.p_mask} + {self.p_pos} is more than 1")

    @property
    def asked(self) -> Asked:
        """The share of words for each edit. A draw of the same word counts as replaced but changes nothing."""
        return {
            "masked": ("words", self.p_mask),
            "replaced": ("words", self.p_pos),
            "replaced by another word": ("words", self.p_pos),
        }

    def __call__(self, block: Block, draws: Draws, unigrams: Unigrams) -> Block:
        """Return the block with words masked and replaced, in place."""
        touched = np.flatnonzero(draws.fires("edit", block.rows, block.positions, self.p_mask + self.p_pos))
        touched = touched.compress(block.edits[touched] == 0)
        is_mask = draws.fires("edit", block.rows[touched], block.positions[touched], self.p_mask)
        masked, replaced = touched.compress(is_mask), touched.compress(~is_mask)  # 6 times as fast as [is_mask]
        block.words[masked] = unigrams.mask
        block.edits[masked] = MASKED
        uniform = draws.per_word("word", block.rows[replaced], block.positions[replaced])
        drawn = unigrams.draw(block.tags_of(replaced), uniform)
        block.count("words", len(block.rows))
        block.count("masked", len(masked))
        block.count("replaced", len(replaced))
        block.count("replaced by another word", int(np.count_nonzero(drawn != block.words[replaced])))
        block.words[replaced] = drawn
        block.edits[replaced] = REPLACED
        return block


@dataclass(frozen=True)
class KeepNgram:
    """n-gram sampling: with probability p_ng keep one window of n words and remove the rest, n uniform from n_min..n_max.

    All windows that fit are equally likely. A sentence shorter than n is kept in full.
    """

    keeps_window: ClassVar[bool] = True
    p_ng: float = 0.25  # the share of rows cut
    n_min: int = 1  # the shortest window, in words
    n_max: int = 5  # the longest

    def __post_init__(self) -> None:
        check_probability("p_ng", self.p_ng)
        if not 1 <= self.n_min <= self.n_max:
            raise ValueError(f"n_min, n_max: {self.n_min}, {self.n_max}: must be 1 <= n_min <= n_max")

    @property
    def asked(self) -> Asked:
        """The share of rows to cut."""
        return {"cut to an n-gram": ("rows", self.p_ng)}

    def __call__(self, block: Block, draws: Draws, unigrams: Unigrams) -> Block:
        """Return the block with some rows cut to a window."""
        fires = draws.per_row("fire") < self.p_ng
        fired = np.flatnonzero(fires)
        n = self.n_min + (draws.per_row("size", fired) * (self.n_max - self.n_min + 1)).astype(np.int32)
        size, start = block.size.copy(), np.zeros(len(block), np.int32)
        size[fired] = np.minimum(n, block.size[fired])
        start[fired] = (draws.per_row("window", fired) * (block.size[fired] - size[fired] + 1)).astype(np.int32)
        block.count("rows", len(block))
        block.count("cut to an n-gram", len(fired))
        return block.cut(fires, start, size)
