"""Sentences as word ids, and the block of copies that augmentation rules change."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

MASKED: Final = 1
REPLACED: Final = 2
EDITED: Final = 3
KINDS: Final = (MASKED, REPLACED, EDITED)


@dataclass(frozen=True, eq=False)
class Sentences:
    """Sentences in compressed sparse rows. Sentence i is `words[offsets[i]:offsets[i + 1]]`."""

    offsets: I64  # [sentences + 1]
    words: I32  # [words] word ids
    tags: NDArray[np.int16]  # [words]

    @property
    def lengths(self) -> I64:
        """[sentences] number of words."""
        return np.diff(self.offsets)


@dataclass(frozen=True, eq=False)
class Unigrams:
    """The words of the training split by part-of-speech tag, each as often as it occurs."""

    pool: I32  # word ids, grouped by tag
    start: I64  # [tags] the first word of a tag in the pool
    count: I64  # [tags] number of words
    mask: int  # the id of the [MASK] word

    @classmethod
    def of(cls, word_ids: I32, tag_ids: NDArray[np.int16], counts: I64, mask: int) -> "Unigrams":
        """Build the pool from the vocabulary's counts, which have a row for each (word, tag)."""
        order = np.argsort(tag_ids, kind="stable")
        pool = np.repeat(word_ids[order], counts[order])
        count = np.bincount(tag_ids, weights=counts).astype(np.int64)
        return cls(pool, np.cumsum(count) - count, count, mask)

    def draw(self, tags: NDArray[np.int16], uniform: NDArray[np.float64]) -> I32:
        """Draw a word for each tag from the training set's unigram distribution, re-normalised within the tag.

        :param tags: [n] tags that occur in the training set.
        :param uniform: [n] draws from [0, 1).
        """
        return self.pool[self.start[tags] + (uniform * self.count[tags]).astype(np.int64)]


@dataclass(eq=False)
class Block:
    """Copies of sentences, one per row, that the rules change one after the other.

    The words are gathered at the first access, so a rule that only cuts a window (`cut`) costs nothing for the words outside it.
    """

    sentences: Sentences
    parents: I64  # [rows] the sentence that a row copies
    start: I32  # [rows] the first word of the window, in places of the parent
    size: I32  # [rows] number of words left
    ngram: Bool  # [rows] whether a rule chose the window
    window: I32  # [rows] length of the window when it was chosen
    edited: I32  # [rows] number of words that rules dropped
    tally: dict[str, int] = field(default_factory=dict)
    dropped: bool = False  # whether a rule dropped words

    @classmethod
    def copies(cls, sentences: Sentences, parents: I64) -> "Block":
        """Return the block of complete, unchanged copies of the sentences `parents`, [rows]."""
        n = len(parents)
        size = sentences.lengths[parents].astype(np.int32)
        zero = np.zeros(n, np.int32)
        return cls(sentences, parents, zero, size, np.zeros(n, np.bool_), size, zero)

    def __len__(self) -> int:
        return len(self.parents)

    @cached_property
    def offsets(self) -> I64:
        """[rows + 1] the first word of each row."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.size, dtype=np.int64)])

    @cached_property
    def rows(self) -> I32:
        """[words] the row of each word."""
        return np.repeat(np.arange(len(self), dtype=np.int32), self.size)

    @cached_property
    def positions(self) -> I32:
        """[words] the place of each word in the parent."""
        begins = (self.offsets[:-1] - self.start).astype(np.int32)
        return np.arange(self.offsets[-1], dtype=np.int32) - np.repeat(begins, self.size)

    @cached_property
    def origin(self) -> I64:
        """[words] the index of each place in the originals' words."""
        return np.repeat(self.sentences.offsets[self.parents], self.size) + self.positions

    @cached_property
    def words(self) -> I32:
        """[words] word ids. A rule that writes here marks the word in `edits`."""
        return self.sentences.words[self.origin]

    @cached_property
    def tags(self) -> NDArray[np.int16]:
        """[words] the tag of the parent's word at each place."""
        return self.sentences.tags[self.origin]

    def tags_of(self, words: I64) -> NDArray[np.int16]:
        """Return `tags[words]`, without gathering the tags of all words where possible."""
        return self.tags[words] if "tags" in self.__dict__ else self.sentences.tags[self.origin[words]]

    @cached_property
    def edits(self) -> NDArray[np.uint8]:
        """[words] 0 for a word that no rule changed, or MASKED, REPLACED, EDITED."""
        return np.zeros(self.offsets[-1], np.uint8)

    @cached_property
    def moves(self) -> NDArray[np.uint8]:
        """[words] how often a rule moved a word that `edits` already marked; each move counts as one more EDITED word."""
        return np.zeros(self.offsets[-1], np.uint8)

    def count(self, name: str, n: int) -> None:
        """Add n to a count of the run's summary."""
        self.tally[name] = self.tally.get(name, 0) + int(n)  # a number of numpy is no JSON

    def edits_per_row(self) -> dict[int, I32]:
        """Return, for MASKED, REPLACED and EDITED, the number of these words in each row, [rows]. Dropped words count as EDITED."""
        kinds = 1 + max(KINDS)
        words = np.flatnonzero(self.edits != 0)
        edits = self.rows[words].astype(np.int64) * kinds + self.edits[words]
        counts = np.bincount(edits, minlength=len(self) * kinds).reshape(-1, kinds).astype(np.int32)
        counts[:, EDITED] += self.edited
        if "moves" in self.__dict__:
            counts[:, EDITED] += np.bincount(self.rows, self.moves, len(self)).astype(np.int32)
        return {kind: counts[:, kind] for kind in KINDS}

    def touched(self, edits: Mapping[int, I32]) -> Bool:
        """Return whether a rule changed each row, [rows], from the result of `edits_per_row`.

        A replacement counts as a change even if it drew the same word.
        """
        found: Bool = np.any([self.size != self.sentences.lengths[self.parents], *edits.values()], axis=0)
        return found

    def drop(self, gone: Bool) -> "Block":
        """Return the block without some of its words; they count as edits of their row. `cut` is refused afterwards.

        :param gone: [words] the words to drop; each row must keep at least one.
        :raises InputError: If it is not one bool for each word.
        """
        if gone.dtype != np.bool_ or len(gone) != self.offsets[-1]:
            raise InputError(
                f"drops words by {gone.dtype} [{len(gone)}]; pass bool [{self.offsets[-1]}], one for each word"
            )
        lost = np.bincount(self.rows[gone], minlength=len(self)).astype(np.int32)
        block = replace(self, size=self.size - lost, edited=self.edited + lost, dropped=True)
        self._take_words(block, ~gone)
        return block

    def cut(self, where: Bool, start: I32, size: I32) -> "Block":
        """Return the block with some rows cut to a window.

        :param where: [rows] the rows to cut.
        :param start: [rows] the first word of the window, in the current row.
        :param size: [rows] its length, at least 1.
        :raises InputError: If a window is not in its row, or a rule has dropped words: `start` would not be a place of the parent, which
            `ngram_start` records.
        """
        if self.dropped:
            raise InputError("keeps a window after another rule dropped words; list it before the rules that drop them")
        if np.any(where & ((start < 0) | (size < 1) | (start + size > self.size))):
            raise InputError("cuts a window of no words, or one that ends outside its row")
        start = np.where(where, start, 0).astype(np.int32)
        block = replace(
            self,
            start=self.start + start,
            size=np.where(where, size, self.size).astype(np.int32),
            ngram=self.ngram | where,
            window=np.where(where, size, self.window).astype(np.int32),
        )
        if "words" in self.__dict__ or "edits" in self.__dict__:
            shift = np.repeat(block.offsets[:-1] - self.offsets[:-1] - start, block.size)
            self._take_words(block, np.arange(block.offsets[-1]) - shift)
        return block

    def _take_words(self, block: "Block", kept: Bool | I64) -> None:
        for name in ("words", "tags", "positions", "edits", *(["moves"] if "moves" in self.__dict__ else [])):
            block.__dict__[name] = getattr(self, name)[kept]
