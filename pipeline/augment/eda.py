"""Random deletion and random swap after EDA (Wei and Zou 2019, arXiv 1901.11196, section 2).

Two worked examples of the contract in pipeline/augment/rules.py: one drops words, the other moves them. EDA applies one of its
operations to each augmented sentence; here every rule of params.yaml is applied to each copy, one after the other.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.augment.block import EDITED, Block, Unigrams
from pipeline.augment.draws import Draws
from pipeline.augment.rules import Asked, check_probability


@dataclass(frozen=True)
class RandomDeletion:
    """Random deletion: each word is dropped with probability p, independently.

    If all words of a row would be dropped, one of them stays, each with the same probability. A row of one word keeps it.
    """

    drops_words: ClassVar[bool] = True
    p: float = 0.1  # the share of words dropped

    def __post_init__(self) -> None:
        check_probability("p", self.p)

    @property
    def asked(self) -> Asked:
        """The share of words to drop."""
        return {"deletion: dropped": ("deletion: words", self.p)}

    def __call__(self, block: Block, draws: Draws, unigrams: Unigrams) -> Block:
        """Return the block with words dropped."""
        gone = draws.per_word("delete", block.rows, block.positions) < self.p
        left = block.size - np.bincount(block.rows[gone], minlength=len(block))
        emptied = np.flatnonzero(left == 0)
        survivor = (draws.per_row("survivor")[emptied] * block.size[emptied]).astype(np.int64)
        gone[block.offsets[emptied] + survivor] = False
        block.count("deletion: words", len(gone))
        block.count("deletion: dropped", int(np.count_nonzero(gone)))
        return block.drop(gone)


@dataclass(frozen=True)
class RandomSwap:
    """Random swap: n = max(1, floor(alpha * words)) times, two places of the row exchange their words.

    The two are distinct, and all pairs are equally likely. A row of one word does not change. A later swap can undo an earlier one: a
    word counts as edited if its final place is not its first.
    """

    alpha: float = 0.1  # swaps per word of a row; 0 for none

    def __post_init__(self) -> None:
        check_probability("alpha", self.alpha)

    def __call__(self, block: Block, draws: Draws, unigrams: Unigrams) -> Block:
        """Return the block with words moved, in place."""
        n = np.maximum(1, (self.alpha * block.size).astype(np.int64))
        n[(block.size < 2) | (self.alpha == 0)] = 0
        # One entry per swap: its row, and its number in the row, which takes the part of the position in a draw.
        rows = np.repeat(np.arange(len(block)), n)
        turn = np.arange(len(rows)) - np.repeat(np.cumsum(n) - n, n)
        size, begin = block.size[rows], block.offsets[rows]
        first = (draws.per_word("first", rows, turn) * size).astype(np.int64)
        second = (draws.per_word("second", rows, turn) * (size - 1)).astype(np.int64)
        second += second >= first  # uniform over the other places
        one, other = begin + first, begin + second

        source = np.arange(block.offsets[-1])  # the place that each word comes from
        by_turn = np.split(np.argsort(turn, kind="stable"), np.cumsum(np.bincount(turn)))
        for swaps in by_turn:  # one of each row at a time, so that no place is written twice
            i, j = one[swaps], other[swaps]
            source[i], source[j] = source[j], source[i]

        moved = np.flatnonzero(source != np.arange(len(source)))
        edits = block.edits[source[moved]]
        # Words take their edits with them. Tags, positions and white space belong to the place in the parent, so they stay.
        block.words[moved] = block.words[source[moved]]
        block.edits[moved] = np.where(edits == 0, EDITED, edits)
        block.moves[moved] = block.moves[source[moved]] + (edits != 0)  # masked and moved: both masked and edited
        block.count("swap: swaps", len(rows))
        block.count("swap: words moved", len(moved))
        return block
