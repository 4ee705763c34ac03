"""A user's own augmentation rules, outside the package: some that keep the contract, and some that break it, each in its own way."""

import dataclasses
import sys
import time

import numpy as np

from pipeline.augment.block import EDITED


class Rule:
    def __init__(self, p=0.5):
        self.p = p

    def fires(self, block, draws):
        return draws.per_word("fire", block.rows, block.positions) < self.p


class Marks(Rule):
    """Write the first word, and mark it."""

    def __call__(self, block, draws, unigrams):
        hit = self.fires(block, draws)
        block.words[hit] = block.words[0]
        block.edits[hit] = EDITED
        block.count("hits", hit.sum())
        return block


class NewArrays(Rule):
    """Set the arrays, as a rule without in-place writes does."""

    def __call__(self, block, draws, unigrams):
        hit = self.fires(block, draws)
        block.words = np.where(hit, unigrams.mask, block.words)
        block.edits = np.where(hit, EDITED, block.edits).astype(np.uint8)
        return block


class Forgets(Rule):
    def __call__(self, block, draws, unigrams):
        block.words[self.fires(block, draws)] = unigrams.mask
        return block


class ForgetsAfterDropping(Rule):
    def __call__(self, block, draws, unigrams):
        gone = self.fires(block, draws)
        gone[block.offsets[:-1]] = False
        block = block.drop(gone)
        block.words[-1:] = block.words[:1]
        return block


class ForgetsSome(Rule):
    """Mark all words that it writes but the last one."""

    def __call__(self, block, draws, unigrams):
        places = np.arange(len(block.words))
        block.words[places] = unigrams.mask
        block.edits[places[:-1]] = EDITED
        return block


class ReturnsNothing(Rule):
    def __call__(self, block, draws, unigrams):
        block.edits[:] = EDITED


class ReturnsWords(Rule):
    def __call__(self, block, draws, unigrams):
        return block.words


class Negative(Rule):
    def __call__(self, block, draws, unigrams):
        block.words[0], block.edits[0] = -1, EDITED
        return block


class TooLarge(Rule):
    def __call__(self, block, draws, unigrams):
        block.words[0], block.edits[0] = unigrams.mask + 1, EDITED
        return block


class Floats(Rule):
    def __call__(self, block, draws, unigrams):
        block.words = block.words * 1.0
        return block


class Shorter(Rule):
    def __call__(self, block, draws, unigrams):
        block.words = block.words[:-1]
        return block


class ManyKinds(Rule):
    def __call__(self, block, draws, unigrams):
        block.edits[0] = 9
        return block


class OtherSizes(Rule):
    def __call__(self, block, draws, unigrams):
        block.words.sum()
        block.size = block.size + np.int32(1)
        return block


class FewerRows(Rule):
    def __call__(self, block, draws, unigrams):
        return dataclasses.replace(block, parents=block.parents[1:], start=block.start[1:], size=block.size[1:])


class WideWindow(Rule):
    """Cut a window that ends in the next sentence."""

    def __call__(self, block, draws, unigrams):
        return block.cut(np.ones(len(block), bool), np.zeros(len(block), int), block.size + 1)


class DropsByPlaces(Rule):
    def __call__(self, block, draws, unigrams):
        return block.drop(np.array([1, 2]))


class DropsAll(Rule):
    def __call__(self, block, draws, unigrams):
        return block.drop(np.ones(len(block.words), bool))


class Fails(Rule):
    def __call__(self, block, draws, unigrams):
        return block.words[[10**9]]


class Exits(Rule):
    def __call__(self, block, draws, unigrams):
        sys.exit()


class NotCallable(Rule):
    pass


class TwoArguments(Rule):
    def __call__(self, block, draws):
        return block


class FailsToStart(Rule):
    def __init__(self):
        self.rate = {}["rate"]


class TwoWords(Marks):
    def extra_words(self, words):
        return ["fine", "not fine"]


class NoWords(Marks):
    def extra_words(self, words):
        return words[0].no_such_attribute


class NoneAsWords(Marks):
    def extra_words(self, words):
        pass


class StringAsWords(Marks):
    def extra_words(self, words):
        return "fine"


class DoesNothing(Rule):
    def __call__(self, block, draws, unigrams):
        return block


class MarksAlone(Rule):
    def __call__(self, block, draws, unigrams):
        block.edits[:] = EDITED
        return block


def function(block, draws, unigrams):
    return block


instance = DoesNothing()


class Slow(Rule):
    """Say that it runs, and do nothing for a long time."""

    def __call__(self, block, draws, unigrams):
        sys.stdout.write("running\n")
        sys.stdout.flush()
        time.sleep(60)
        return block


CONSTANT = 3
