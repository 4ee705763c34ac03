"""Lays out the rows that a tokenizer makes of the tokens of texts: truncation, special tokens, token types."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from pipeline.labelling.batching import Tokens, gather

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class _Part:
    """A part of a row: a special token, or the tokens of a sentence."""

    sentence: int | None
    """0 or 1; None: a special token."""
    id: int
    type: int


class Layout:
    """The layout of a tokenizer's rows.

    :param backend: From `batching.prepare`.
    :param pairs: Whether the rows are pairs.
    """

    def __init__(self, backend: Tokenizer, pairs: bool) -> None:
        self.special: int = backend.num_special_tokens_to_add(pairs)
        self.direction: str = (backend.truncation or {}).get("direction", "right")
        self._backend, self._pairs = backend, pairs
        self._parts: list[_Part] = []

    def learn(self, first: str, second: str) -> None:
        """Take the layout from the row of two texts that have tokens, without truncation; of the first alone if rows are not pairs."""
        row = self._backend.encode(first, second if self._pairs else None)
        for sentence, token, kind in zip(row.sequence_ids, row.ids, row.type_ids, strict=True):
            if sentence is None or not self._parts or self._parts[-1].sentence != sentence:
                self._parts.append(_Part(sentence, token, kind))

    def rows(self, sentences: list[tuple[Ints, Ints]], limit: int) -> tuple[Tokens, NDArray[np.bool_]]:
        """Return the rows of n texts or pairs, and which were truncated, as `batching.encode` does.

        :param sentences: The token ids of the first and, of pairs, of the second sentences, and the offset of each, int64 [n + 1].
        :param limit: The maximum number of tokens per row.
        """
        whole = [np.diff(starts) for _, starts in sentences]
        room = limit - self.special
        truncated = np.sum(whole, axis=0) > room
        kept = _longest_first(whole, room, truncated) if truncated.any() else whole
        starts = offsets(np.sum(kept, axis=0) + self.special)
        ids, types = np.empty(starts[-1], np.int64), np.zeros(starts[-1], np.int64)
        at = starts[:-1].copy()
        for part in self._parts:
            if part.sentence is None:
                ids[at] = part.id
                types[at] = part.type
                at += 1
                continue
            (own, begins), size = sentences[part.sentence], kept[part.sentence]
            if truncated.any():
                own = gather(own, begins[1:] - size if self.direction == "left" else begins[:-1], size)
            places = np.repeat(at - (np.cumsum(size) - size), size) + np.arange(len(own))
            ids[places] = own
            if part.type:
                types[places] = part.type
            at += size
        return Tokens(ids, types, starts), truncated


def _longest_first(sizes: list[Ints], room: int, truncated: NDArray[np.bool_]) -> list[Ints]:
    """Return how many tokens of each sentence the tokenizer keeps in rows of `room` tokens."""
    if len(sizes) == 1:
        return [np.minimum(sizes[0], room)]
    shorter = np.minimum(*sizes)
    longer = np.maximum(shorter, room - shorter)
    halved = shorter + longer > room
    shorter = np.where(halved, room // 2, shorter)
    longer = np.where(halved, room - room // 2, longer)
    swapped = sizes[0] > sizes[1]
    kept = np.where(swapped, longer, shorter), np.where(swapped, shorter, longer)
    return [np.where(truncated, few, all_) for few, all_ in zip(kept, sizes, strict=True)]


def offsets(sizes: Ints | NDArray[np.bool_]) -> Ints:
    """Return where n consecutive slices of these sizes begin and the last one ends, int64 [n + 1]."""
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
