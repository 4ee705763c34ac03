"""A student's vocabulary: how text is split into words, and the id of each word."""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.storage import write_json
from pipeline.students import scripts
from pipeline.students.files import FIRST_WORD, MASKED, UNKNOWN, VOCABULARY_FORMAT, read_student_json
from pipeline.tables import MASK, TextMode

MANY = 0.2
"""The share of texts in a script without spaces, or of unknown words, from which on there is a warning."""
EXAMINED = 10_000
"""How many texts are examined for it."""
FEW, LONG = 2, 30
"""Texts of so few words with so many characters are not split into words."""

Texts: TypeAlias = pa.Array | pa.ChunkedArray

# In RE2, which has no look-ahead: n't is split from its verb first, then every token gets a space on both sides.
# \x{2019} is the typographic apostrophe.
_NOT = r"(?i)(n['\x{2019}]t)\b"
_TOKEN = r"(\[MASK\]|(?i:n['\x{2019}]t|['\x{2019}](?:s|m|d|ll|re|ve))\b|[\pL\pM\pN_]+|[^\pL\pM\pN_\s])"


class WordIds(NamedTuple):
    """The word ids of n texts, concatenated: text i has `ids[offsets[i]:offsets[i + 1]]`."""

    offsets: npt.NDArray[np.int64]
    """[n + 1], from 0."""
    ids: npt.NDArray[np.int32]
    """[total number of words]."""


def split_words(texts: Texts, mode: TextMode) -> pa.ListArray | pa.ChunkedArray:
    """Split texts into words. Case is kept; a blank text has no words.

    :param mode: pretokenised: words are separated by white space. raw: a word is a run of letters and digits, one punctuation mark, one of
        the English clitics n't 's 'm 'd 'll 're 've, or `[MASK]`. characters: as raw, but each character of a script without spaces is a
        word, with its marks.
    :return: A list of words for each text, in the same chunks as `texts`.
    """
    if isinstance(texts, pa.ChunkedArray):
        return pa.chunked_array([split_words(chunk, mode) for chunk in texts.chunks], pa.list_(pa.string()))
    if mode == "characters":
        texts = pc.replace_substring_regex(texts, pattern=f"({scripts.CHARACTER})", replacement=r" \1 ")
    if mode != "pretokenised":
        parted = pc.replace_substring_regex(texts, pattern=_NOT, replacement=r" \1")
        texts = pc.replace_substring_regex(parted, pattern=_TOKEN, replacement=r" \1 ")
    lists = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(texts))
    words = lists.flatten()
    real = pc.not_equal(words, "")
    if pc.all(real).as_py():
        return lists
    # Arrow splits a blank text into one empty word.
    kept = np.concatenate([[0], np.cumsum(real.to_numpy(zero_copy_only=False))])
    offsets = kept[np.asarray(lists.offsets)].astype(np.int32)
    return pa.ListArray.from_arrays(offsets, words.filter(real))


def count_words(columns: Iterable[Texts], mode: TextMode) -> list[tuple[str, int]]:
    """Return each word with its count, the most frequent first, and words with equal counts in alphabetical (code point) order."""
    counts: Counter[str] = Counter()
    for texts in columns:
        for chunk in texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]:
            found = split_words(chunk, mode).flatten().value_counts()
            counts.update(dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True)))
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def few_words(columns: Iterable[Texts], mode: TextMode) -> str | None:
    """Return a warning where texts have few words but many characters, as those of a script without spaces; otherwise None.

    :param columns: Columns of texts; null is no text.
    """
    texts = pa.chunked_array([chunk for column in columns for chunk in pa.chunked_array(column).chunks], pa.string())
    texts = texts.drop_null().slice(0, EXAMINED)
    if not len(texts):
        return None
    remedy = "write `tag: {text: characters}` in the task's file, or separate the words with spaces"
    clauses = 0.0 if mode == "characters" else pc.mean(pc.match_substring_regex(texts, scripts.CLAUSE)).as_py()
    if clauses > MANY:
        return (
            f"{clauses:.0%} of the texts are in a script without spaces, so that whole clauses count as words: {remedy}"
        )
    words = float(np.median(pc.list_value_length(split_words(texts, mode)).to_numpy()))
    characters = float(np.median(pc.utf8_length(texts).to_numpy()))
    if words > FEW or characters < LONG:
        return None
    return f"half of the texts have at most {words:.0f} words, but {characters:.0f} characters: if they have no spaces, {remedy}"


@dataclass(frozen=True)
class Vocabulary:
    """A student's words, and how text is split into them.

    Ids: 0 is padding, 1 any other word, 2 `[MASK]`; the words start at 3. A word outside the vocabulary gets the id of its lower case if that is
    in it: `Mia` at the start of a title is still `mia`.
    """

    words: tuple[str, ...]
    text: TextMode

    @classmethod
    def build(
        cls, columns: Iterable[Texts], text: TextMode, min_count: int = 1, others: Sequence[str] = ()
    ) -> "Vocabulary":
        """Build the vocabulary of training texts, the most frequent word first.

        :param columns: Columns of texts, of the training split alone.
        :param min_count: A word with fewer occurrences is left out, so it is unknown.
        :param others: Words that have a vector. Those that are not in the texts follow, in this order.
        """
        counted = dict(count_words(columns, text))
        known = [word for word, count in counted.items() if count >= min_count and word != MASK]
        return cls((*known, *(word for word in others if word not in counted)), text)

    def __len__(self) -> int:
        """Return the number of ids, including those that stand for no word."""
        return FIRST_WORD + len(self.words)

    @cached_property
    def _table(self) -> pa.Array:
        return pa.array([MASK, *self.words], pa.string())

    def encode(self, texts: Texts, max_words: int) -> WordIds:
        """Return the word ids of texts; one of more than max_words is cut."""
        if isinstance(texts, pa.ChunkedArray):
            parts = [self.encode(chunk, max_words) for chunk in texts.chunks or [pa.array([], pa.string())]]
            lengths = np.concatenate([np.diff(part.offsets) for part in parts])
            return WordIds(_offsets(lengths), np.concatenate([part.ids for part in parts]))
        lists = split_words(texts, self.text)
        found = self._found(lists.flatten())
        ids = pc.fill_null(pc.add(found, MASKED), UNKNOWN).to_numpy(zero_copy_only=False).astype(np.int32, copy=False)
        offsets = np.asarray(lists.offsets).astype(np.int64)
        lengths = np.diff(offsets)
        if lengths.size == 0 or lengths.max() <= max_words:
            return WordIds(offsets, ids)
        place = np.arange(len(ids)) - np.repeat(offsets[:-1], lengths)
        return WordIds(_offsets(np.minimum(lengths, max_words)), ids[place < max_words])

    def _found(self, words: pa.Array) -> pa.Array:
        """Return the position in the table of each word, or of its lower case; null if both are missing."""
        places = pc.index_in(words, value_set=self._table)
        if not places.null_count:
            return places
        missing = words.filter(pc.is_null(places)).dictionary_encode()
        lower = pa.array([word.lower() for word in missing.dictionary.to_pylist()], pa.string())  # as Runtime does it
        return pc.replace_with_mask(
            places, pc.is_null(places), pc.index_in(lower, value_set=self._table).take(missing.indices)
        )

    def save(self, path: Path) -> None:
        """Write the vocabulary as JSON, one word per line."""
        write_json(path, {"format": VOCABULARY_FORMAT, "text": self.text, "words": list(self.words)})

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Read what `save` wrote.

        :raises InputError: If the file is missing, is not a vocabulary, or has a later format.
        """
        stored = read_student_json(path, VOCABULARY_FORMAT, {"words", "text"})
        return cls(tuple(stored["words"]), stored["text"])


def unknown_share(vocabulary: Vocabulary, *sentences: Texts) -> float:
    """Return the share of the words of texts that are not in a vocabulary; 0 where there are no words, or the student has no vocabulary.

    :param sentences: Columns of texts, without nulls.
    """
    if not vocabulary.words:
        return 0.0
    ids = np.concatenate([vocabulary.encode(texts, sys.maxsize).ids for texts in sentences])
    return float((ids == UNKNOWN).mean()) if len(ids) else 0.0


def _offsets(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
