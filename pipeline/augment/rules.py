"""The paper's augmentation rules (Tang et al. 2019, section 3.2 of arXiv 1903.12136).

A rule is built with the parameters that params.yaml gives it, refuses wrong ones with ValueError, and is called as
`rule(block, draws, unigrams) -> block`: it changes words (and says so in `block.edits`) or cuts windows, for all rows at once, with random
numbers from `draws` alone. Draws belong to a word's place in its parent, so the order of these two rules changes nothing; the window first is less work.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.augment.block import MASKED, REPLACED, Block, Unigrams
from pipeline.augment.draws import Draws

Asked = dict[str, tuple[str, float]]
"""For names that a rule counts: what they are a share of (another counted name), and the share that was asked for."""


class AugmentationRule(Protocol):
    """What a rule is.

    Two more things it may have: `asked` (an Asked, so that the summary shows rates beside what was asked), and
    `extra_words(words: list[str]) -> list[str]`, called once with the vocabulary (words[i] has id i; the last one is [MASK]), whose words get
    the ids from len(words) on.
    """

    def __call__(self, block: Block, draws: Draws, unigrams: Unigrams) -> Block:
        """Return the block with the rule applied to every row."""
        ...


def check_probability(name: str, value: float) -> None:
    """Refuse, with ValueError, what is no number from 0 to 1; for the parameters of rules."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name}: {value!r}: must be a probability, from 0 to 1")


@dataclass(frozen=True)
class MaskOrReplace:
    """Masking and part-of-speech-guided replacement, one draw X for both, so that no word gets both.

    X < p_mask: the word becomes [MASK]. p_mask <= X < p_mask + p_pos: it becomes a word drawn from the training set's unigram
    distribution within its own tag (which can be the same word again). Otherwise it stays.

    :param p_mask: The share of words masked.
    :param p_pos: The share of words replaced.
    """

    p_mask: float = 0.1
    p_pos: float = 0.1

    def __post_init__(self) -> None:
        check_probability("p_mask", self.p_mask)
        check_probability("p_pos", self.p_pos)
        if self.p_mask + self.p_pos > 1:
            raise ValueError(f"p_mask + p_pos: {self.p_mask} + {self.p_pos} is more than 1")

    @property
    def asked(self) -> Asked:
        """What share of words each edit shall reach; a draw of the same word fires and changes nothing."""
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
        masked, replaced = touched.compress(is_mask), touched.compress(~is_mask)  # a sixth of the time of [is_mask]
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
    """n-gram sampling: with probability p_ng keep one window of n words and drop the rest, n uniform from n_min..n_max.

    Every window that fits is as likely as any other; a sentence shorter than n keeps what it has.

    :param p_ng: The share of rows cut.
    :param n_min: The shortest window, in words.
    :param n_max: The longest.
    """

    p_ng: float = 0.25
    n_min: int = 1
    n_max: int = 5

    def __post_init__(self) -> None:
        check_probability("p_ng", self.p_ng)
        if not 1 <= self.n_min <= self.n_max:
            raise ValueError(f"n_min, n_max: {self.n_min}, {self.n_max}: must be 1 <= n_min <= n_max")

    @property
    def asked(self) -> Asked:
        """What share of rows shall be cut."""
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
