"""Tokenises texts by their words: each distinct word is encoded once, and the token ids of a row are gathered with NumPy.

A word is the text between two spaces. Where a tokenizer never reads across a space, the tokens of a text are those of its words. This holds for
BERT's WordPiece, for byte-level BPE (a space belongs to the word that follows it, so the first word of a text is another entry), and for Unigram
and SentencePiece's BPE with their mark for a space. `open_words` tests it for a tokenizer, and `Words.encode` compares a sample of each pool with
the tokenizer before it returns it. Rows for which it is not certain are left to the tokenizer. Unless white space leaves no trace in the tokens,
as with WordPiece, these are the rows of one word, with several spaces in a row, with other white space, or with characters that are not printable.
"""

import itertools
import json
import logging
import random
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tokenizers import Tokenizer

from pipeline.labelling.batching import TOKENISED_ROWS, Tokens, encode, gather, pack
from pipeline.labelling.layout import Layout, offsets

logger = logging.getLogger(__name__)

FEWEST_ROWS = 4_096
"""Rows of the first pool from which encoding its words saves more time than the tests of the tokenizer take."""

CHECKED_FIRST, CHECKED = 1_024, 32
"""Rows that are compared with the tokenizer in the first pool, and in each pool; in each pool, as many again of those with new words."""

MOST_WORDS = 1_000_000
"""Distinct words that are kept; this bounds the memory."""

_BESIDE = ("two", "the", "a", "e", "1")
"""Each new word is encoded between two of the first of these that the tokenizer knows, to see that neither changes the other."""

_ACROSS = re.compile("[^ \u2581\u0120][ \u2581\u0120]")
"""In a token, the end of a word and a space, or what stands for it in SentencePiece's and in byte-level models."""

_COMMON = (
    "a film 12 000 345 The NASA it 's n't don't well-made - -- ... … , !? ( \" `` 3 1,000 3.14 $5 5% #tag @you a.b@c.de "
    "http://a.b/c?d=e é e\u0301 Straße ﬁ ½ İ фильм 日本語 映画が คน हिन्दी 한국어 عربى 🎬 👍🏽 ❤\ufe0f \u2581 \u2581a Ġ \ufffd \u00b4 ﷺ"
)
_ODD = "|\t|\n|a\tb|b\n|\n\nc|\u00a0|d\u00a0|\u200b|e\u200d|\u0301|\ufeff|\x01|\u3000"
"""Words of the tests of a tokenizer: common ones, and those that white space can join with their neighbours."""

_WHOLE, _ROOM = 10_000, 7
"""Tokens of the texts of the tests: of whole texts, and to which they are truncated, without the special tokens."""

_READS_ACROSS = "the tokenizer reads across spaces"


def open_words(backend: Tokenizer, limit: int, first: pa.Table) -> "Words | None":
    """Return a tokenizer's `Words`; None, after a log line that says why, if they differ from the tokenizer or save nothing.

    :param backend: From `batching.prepare`, with the same limit; `Words` changes its truncation while it runs.
    :param first: The first pool: sentence1 and sentence2.
    """
    if first.num_rows < FEWEST_ROWS:
        return None
    words = Words(backend, limit, pairs=first["sentence2"].null_count < first.num_rows)
    why = words.fault() or words.drawback(first)
    if why:
        logger.info("tokenising whole texts instead of distinct words: %s", why)
    return None if why else words


@dataclass(frozen=True)
class _Side:
    """The words of n sentences.

    :param words: The number of each word in the table, int64 [total].
    :param starts: The offset of each sentence in `words`, int64 [n + 1].
    :param certain: Which sentences' tokens are those of their words, bool [n].
    :param new: Which sentences have a word that no earlier pool has, bool [n].
    """

    words: NDArray[np.int64]
    starts: NDArray[np.int64]
    certain: NDArray[np.bool_]
    new: NDArray[np.bool_]


class Words:
    """Encodes pools as `batching.encode` does, from the tokens of their distinct words. `fault` must have returned None.

    :param pairs: Whether the rows are pairs.
    """

    def __init__(self, backend: Tokenizer, limit: int, pairs: bool) -> None:
        self._backend, self._limit, self._pairs = backend, limit, pairs
        self._layout = Layout(backend, pairs)
        self._beside = _BESIDE[0]
        self._any_space = False  # whether white space leaves no trace in the tokens
        self._reads_ends = False  # whether a word may have other tokens at the end of a text
        self._differs = False
        self._forget()

    def _forget(self) -> None:
        self._known = pa.array([], pa.string())  # all but the first word of a text begin with their space
        self._ids = np.empty(0, np.int64)
        self._starts = np.zeros(1, np.int64)
        self._certain = np.empty(0, np.bool_)
        self._alone = np.empty(0, np.bool_)  # which words have the same tokens as a whole text

    def encode(self, texts: pa.Table) -> tuple[Tokens, NDArray[np.bool_]]:
        """Tokenise sentences or pairs as `batching.encode`, which gets a pool of which a sample differs, and all later ones."""
        if len(self._known) > MOST_WORDS:
            self._forget()
        sides = None if self._differs else self._sides(texts)
        if sides is None:
            return encode(self._backend, self._limit, texts)
        tokens, truncated, certain = self._rows(texts, sides)
        new = np.logical_or.reduce([side.new for side in sides])
        sample = [_spread(np.flatnonzero(rows), CHECKED) for rows in (certain, certain & new)]
        if self._equal(texts, tokens, truncated, np.union1d(*sample)):
            return tokens, truncated
        self._differs = True
        logger.warning(
            "tokenising whole texts from here on, which is slower: %s in texts of this task. The texts before were compared in samples "
            "alone; to label them again, delete data/labelled and the task's logits",
            _READS_ACROSS,
        )
        return encode(self._backend, self._limit, texts)

    # --- whether it holds -----------------------------------------------------------------------------------------------

    def fault(self) -> str | None:
        """Return why the tokens of words may differ from the tokenizer's; None if they are equal in all tests."""
        if self._limit <= self._layout.special:
            return f"{self._limit} tokens leave no room for text"
        if getattr(self._backend.model, "dropout", None):
            return "the tokenizer drops merges at random"
        added = [token.content for token in self._backend.get_added_tokens_decoder().values()]
        if pattern := next(filter(_ACROSS.search, self._patterns("String")), None):
            return f"its pattern {pattern!r} contains a space"
        tokens = [
            *added,
            *map(self._normalised, added),
            *([] if self._splits_at_spaces() else self._backend.get_vocab()),
        ]
        crossing = next((token for token in tokens if _ACROSS.search(token)), None)
        if crossing is not None:
            return f"its token {crossing!r} contains a space"
        if not self._splits_at_spaces() and type(self._backend.model).__name__ != "BPE":
            return f"{_READS_ACROSS} of a text, which it does not split"
        known = next(filter(self._can_see_joined, _BESIDE), None)
        if known is None:
            return f"the tokenizer has no tokens for any of {', '.join(_BESIDE)}"
        self._beside = known
        self._reads_ends = any("$" in pattern.replace(r"\$", "") for pattern in self._patterns("Regex"))
        self._backend.no_truncation()
        self._layout.learn(known, known)
        common = [*_COMMON.split(" "), "x" * 120, *added[:10], *(f"({token})." for token in added[:10])]
        self._any_space = True
        if self._equal_on_texts_of([*common, *_ODD.split("|")]):
            return None
        self._any_space = False
        self._forget()
        return None if self._equal_on_texts_of(common) and self._certain.mean() > 0.5 else _READS_ACROSS

    def drawback(self, first: pa.Table) -> str | None:
        """Return why the tokens of words save nothing, or differ from the tokenizer's, in the first pool."""
        known = len(self._known)
        sides = self._sides(first)
        if sides is None:
            return "a text is missing"
        tokens, truncated, certain = self._rows(first, sides)
        rows, words, distinct = first.num_rows, sum(len(side.words) for side in sides), len(self._known) - known
        if certain.mean() < 0.5:
            return f"{rows - certain.sum()} of the first {rows} texts are one word or have unusual white space"
        if 2 * distinct > words:
            return f"{distinct} of the first {words} words are distinct"
        if not self._equal(first, tokens, truncated, _spread(np.flatnonzero(certain), CHECKED_FIRST)):
            return f"{_READS_ACROSS} in texts of this task"
        return None

    def _splits_at_spaces(self) -> bool:
        normalizer, splitter = self._backend.normalizer, self._backend.pre_tokenizer
        text = "xx yy" if normalizer is None else normalizer.normalize_str("xx yy")
        pieces = [text] if splitter is None else [piece for piece, _ in splitter.pre_tokenize_str(text)]
        return not any("xx" in piece and "yy" in piece for piece in pieces)

    def _patterns(self, kind: str) -> Iterator[str]:
        """Yield what the normalizer and the pre-tokenizer look for: their strings (`String`) or regular expressions (`Regex`)."""
        state = json.loads(self._backend.to_str())
        waiting = [state["normalizer"], state["pre_tokenizer"]]
        while waiting:
            part = waiting.pop()
            if isinstance(part, dict):
                pattern = part.get("pattern")
                if isinstance(pattern, dict) and kind in pattern:
                    yield pattern[kind]
            waiting.extend(part.values() if isinstance(part, dict) else part if isinstance(part, list) else [])

    def _normalised(self, text: str) -> str:
        normalizer = self._backend.normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text)).strip()

    def _can_see_joined(self, word: str) -> bool:
        """Return whether a word has other tokens after a space than joined to another; a word that is unknown has not."""
        ids, starts = self._whole([word, f"{word} {word}", f"q{word}"])
        after, joined = ids[2 * starts[1] : starts[2]], ids[starts[2] :]
        return len(after) > 0 and not np.array_equal(joined[-len(after) :], after)

    def _equal_on_texts_of(self, words: list[str]) -> bool:
        """Return whether texts made of odd words, with all neighbours, whole and truncated, have the tokenizer's tokens."""
        draws = random.Random(0)
        beside = [*_neighbours(words), words[0]]
        neighbours = [" ".join(beside[start : start + 33]) for start in range(0, len(beside), 32)]
        short = [word for word in words if len(word) < 20]
        longer = [" ".join(draws.choices(some, k=draws.randint(0, 14))) for some in [short, short[-20:]] * 200]
        limit = self._limit
        try:
            for texts, most in (neighbours, _WHOLE), (longer, _WHOLE), (longer, self._layout.special + _ROOM):
                self._limit = most
                self._truncate()
                second = texts[7:] + texts[:7] if self._pairs else [None] * len(texts)
                pool = pa.table({"sentence1": pa.array(texts, pa.string()), "sentence2": pa.array(second, pa.string())})
                sides = self._sides(pool)
                if sides is None or not self._equal(pool, *self._rows(pool, sides)[:2], np.arange(len(texts))):
                    return False
        finally:
            self._limit = limit
            self._truncate()
        return True

    def _equal(self, texts: pa.Table, tokens: Tokens, truncated: NDArray[np.bool_], rows: NDArray[np.int64]) -> bool:
        """Return whether the tokenizer gives the same tokens of some rows."""
        if not len(rows):
            return True
        expected, cut = encode(self._backend, self._limit, texts.take(pa.array(rows)))
        return (
            np.array_equal(tokens.lengths[rows], expected.lengths)
            and np.array_equal(pack(tokens.ids, tokens.starts, rows), expected.ids)
            and np.array_equal(pack(tokens.types, tokens.starts, rows), expected.types)
            and np.array_equal(truncated[rows], cut)
        )

    # --- words ----------------------------------------------------------------------------------------------------------

    def _sides(self, texts: pa.Table) -> list[_Side] | None:
        """Return the words of each sentence; None if one is missing, which is the tokenizer's error to raise."""
        columns = [texts["sentence1"], texts["sentence2"]] if self._pairs else [texts["sentence1"]]
        if any(column.null_count for column in columns):
            return None
        return [self._side(column) for column in columns]

    def _side(self, column: pa.ChunkedArray) -> _Side:
        # Words are slices of the texts' bytes, each with the space before it, so an array of them needs only new offsets.
        texts = pa.concat_arrays([*column.cast(pa.string()).chunks, pa.array([""])])
        _, offsets, data = texts.buffers()
        ends = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(column) + 1]
        characters = np.frombuffer(data or b"", np.uint8)[: ends[-1]]
        begins_word = characters == ord(" ")
        firsts = ends[:-1][ends[:-1] < ends[1:]]  # of texts that are not empty
        begins_word[: ends[0]] = False
        after_space = np.zeros(len(column), np.bool_)
        after_space[ends[:-1] < ends[1:]] = begins_word[firsts]
        begins_word[firsts] = True
        begins = np.flatnonzero(begins_word).astype(np.int32)
        spans = pa.py_buffer(np.append(begins, ends[-1]))
        known = len(self._known)
        words = self._numbers(pa.StringArray.from_buffers(len(begins), spans, data or pa.py_buffer(b"")))
        starts = np.append(np.searchsorted(begins, ends[:-1]), len(begins))
        certain = ~_any(~self._certain[words], starts)
        several = np.diff(starts) > 1
        if self._any_space:
            certain &= several | ~_any(~self._alone[words], starts)
        else:
            certain &= several & ~after_space
        return _Side(words, starts, certain, _any(words >= known, starts))

    def _numbers(self, words: pa.StringArray) -> NDArray[np.int64]:
        """Return the number of each word in the table, [n], after encoding those that it does not have."""
        found = pc.index_in(words, value_set=self._known)
        if found.null_count:
            missing = found.is_null()
            others = words.filter(missing)
            self._learn(others.unique())
            found = pc.replace_with_mask(found, missing, pc.index_in(others, value_set=self._known))
        numbers: NDArray[np.int64] = found.to_numpy().astype(np.int64)
        return numbers

    def _learn(self, new: pa.StringArray) -> None:
        """Add words to the table."""
        if self._any_space:  # then the first word of a text has the tokens that it has after a space
            inner = pc.starts_with(new, " ")
            self._encode_words(new.filter(inner))
            new = new.filter(pc.invert(inner))
            twins = pc.index_in(pc.binary_join_element_wise(" ", new, ""), value_set=self._known)
            known = twins.is_valid()
            at = twins.drop_null().to_numpy().astype(np.int64)
            sizes = self._starts[at + 1] - self._starts[at]
            self._add(new.filter(known), pack(self._ids, self._starts, at), sizes, self._certain[at])
            new = new.filter(pc.invert(known))
        self._encode_words(new)

    def _add(
        self, words: pa.StringArray, ids: NDArray[np.int64], sizes: NDArray[np.int64], certain: NDArray[np.bool_]
    ) -> None:
        self._ids = np.concatenate([self._ids, ids])
        self._starts = np.concatenate([self._starts, self._starts[-1] + np.cumsum(sizes)])
        self._certain = np.append(self._certain, certain)
        alone = np.asarray(pc.and_(pc.string_is_ascii(words), pc.ascii_is_printable(words)))
        self._alone = np.append(self._alone, alone & (not self._reads_ends))
        self._known = pa.concat_arrays([self._known, words])

    def _encode_words(self, new: pa.StringArray) -> None:
        """Add words with the tokenizer's tokens; those that may have other tokens next to other words are not certain."""
        if not len(new):
            return
        words = new.to_pylist()
        inner = np.array([word[:1] == " " for word in words])
        # An inner word is between two others and, unless it has only ASCII letters and digits, at the end of the text as well.
        twice = inner & ~np.array(
            [not self._reads_ends and word.isascii() and word[1:].isalnum() for word in words], np.bool_
        )
        texts = [
            f"{self._beside if between else ''}{word} {self._beside}{word if last else ''}"
            for word, between, last in zip(words, inner.tolist(), twice.tolist(), strict=True)
        ]
        ids, starts = self._whole([self._beside, f"{self._beside} {self._beside}", *texts])
        before, after = ids[: starts[1]], ids[2 * starts[1] : starts[2]]
        others, sizes = inner * len(before) + len(after), np.diff(starts)[2:]
        begins = starts[2:-1] + inner * len(before)
        own = np.maximum(0, sizes - others) // (1 + twice)
        certain = (sizes == others + own + twice * own) & _equal_at(ids, begins + own, after)
        certain &= ~inner | _equal_at(ids, starts[2:-1], before)
        certain &= (own > 0) | twice  # where unknown words are fused, one can vanish next to another
        found = gather(ids, begins, own)
        again = gather(ids, np.where(twice & certain, begins + own + len(after), begins), own)
        certain &= ~_any(found != again, offsets(own))
        if not self._any_space:
            certain &= np.array([_is_plain(word) for word in words])
        self._add(new, found, own, certain)

    def _whole(self, texts: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the concatenated ids of texts without special tokens and truncation, and the offset of each text."""
        self._backend.no_truncation()
        ids, sizes = [], []
        for start in range(0, len(texts), TOKENISED_ROWS):
            rows = self._backend.encode_batch_fast(texts[start : start + TOKENISED_ROWS], add_special_tokens=False)
            ids.append(np.fromiter(itertools.chain.from_iterable(row.ids for row in rows), np.int64))
            sizes.append(np.fromiter(map(len, rows), np.int64, len(rows)))
        self._truncate()
        return np.concatenate(ids), offsets(np.concatenate(sizes))

    def _truncate(self) -> None:
        self._backend.enable_truncation(self._limit, strategy="longest_first", direction=self._layout.direction)

    # --- rows -----------------------------------------------------------------------------------------------------------

    def _rows(self, texts: pa.Table, sides: list[_Side]) -> tuple[Tokens, NDArray[np.bool_], NDArray[np.bool_]]:
        """Return the tokens of rows, which were truncated, and which are made of words; the others are the tokenizer's, bool [n]."""
        certain = np.logical_and.reduce([side.certain for side in sides])
        tokens, truncated = self._layout.rows([self._of_words(side, certain) for side in sides], self._limit)
        if certain.all():
            return tokens, truncated, certain
        rest = np.flatnonzero(~certain)
        whole, cut = encode(self._backend, self._limit, texts.take(pa.array(rest)))
        order = np.empty(len(certain), np.int64)
        order[np.concatenate([np.flatnonzero(certain), rest])] = np.arange(len(certain))
        starts = np.concatenate([tokens.starts, tokens.starts[-1] + whole.starts[1:]])
        ids, types = (
            pack(np.concatenate(both), starts, order) for both in ((tokens.ids, whole.ids), (tokens.types, whole.types))
        )
        sizes = np.diff(starts)[order]
        return Tokens(ids, types, offsets(sizes)), np.concatenate([truncated, cut])[order], certain

    def _of_words(self, side: _Side, rows: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the token ids of some sentences, bool [n], and the offset of each."""
        words, sizes = side.words, np.diff(side.starts)
        if not rows.all():
            words, sizes = words[np.repeat(rows, sizes)], sizes[rows]
        upto = offsets(self._starts[words + 1] - self._starts[words])
        return pack(self._ids, self._starts, words), upto[offsets(sizes)]


def _neighbours(words: list[str]) -> Iterator[str]:
    """Yield n words n times each, so that each follows each, and itself; the first follows the last."""
    for number, word in enumerate(words):
        yield word
        for other in words[number + 1 :]:
            yield from (word, other)


def _is_plain(word: str) -> bool:
    """Return whether a word, perhaps after a space, has only characters that cannot change what is on the other side of a space."""
    own = word.removeprefix(" ")
    return bool(own) and own.isprintable() and not unicodedata.category(own[0]).startswith("M")


def _equal_at(values: NDArray[np.int64], begins: NDArray[np.int64], given: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return for each offset, [n], whether the values from there on begin with the given ones."""
    places = np.minimum(begins[:, None] + np.arange(len(given)), len(values) - 1)
    found: NDArray[np.bool_] = (values[places] == given).all(axis=1)
    return found


def _any(values: NDArray[np.bool_], starts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return for each of n slices of values whether any is true; `starts` are the offsets, [n + 1]."""
    found: NDArray[np.bool_] = np.diff(offsets(values)[starts]) > 0
    return found


def _spread(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return at most so many of some rows, at even distances."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows)), dtype=np.int64))]
