"""Texts to tokens to batches: sorted by length and split by a token budget, so that batches contain little padding."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer

TOKENISED_ROWS = 1_024
"""Rows per call of the tokenizer, whose result takes some hundred bytes per token."""


@dataclass(frozen=True)
class Tokens:
    """The concatenated tokens of n rows.

    :param ids: Token ids, int64 [total].
    :param types: Token type ids, which distinguish the sentences of a pair, int64 [total].
    :param starts: The offset of each row in `ids` and `types`, int64 [n + 1].
    """

    ids: NDArray[np.int64]
    types: NDArray[np.int64]
    starts: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, int64 [n]."""
        return np.diff(self.starts)


def tokenise(tokenizer: Any, texts: pa.Table, limit: int) -> tuple[Tokens, NDArray[np.bool_]]:
    """Tokenise sentences or pairs, with special tokens; a pair is truncated at its longer sentence.

    :param tokenizer: A fast tokenizer of transformers.
    :param texts: sentence1 and sentence2, n rows; sentence2 is null in all or in none.
    :param limit: The maximum number of tokens per row.
    :return: The tokens, and which rows were truncated, bool [n].
    """
    return encode(prepare(tokenizer, limit), limit, texts)


def prepare(tokenizer: Any, limit: int) -> Tokenizer:
    """Set a tokenizer to truncate rows and not to pad them.

    :param tokenizer: A fast tokenizer of transformers.
    :param limit: The maximum number of tokens per row.
    :return: Its backend, which does not need transformers.
    """
    backend: Tokenizer = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.enable_truncation(limit, strategy="longest_first", direction=tokenizer.truncation_side)
    return backend


def encode(backend: Tokenizer, limit: int, texts: pa.Table) -> tuple[Tokens, NDArray[np.bool_]]:
    """Tokenise as `tokenise` does, with a backend from `prepare`."""
    pairs = texts["sentence2"].null_count < texts.num_rows
    parts, truncated = [], []
    for start in range(0, texts.num_rows, TOKENISED_ROWS):
        some = texts.slice(start, TOKENISED_ROWS)
        first = some["sentence1"].to_pylist()
        rows = backend.encode_batch_fast(
            list(zip(first, some["sentence2"].to_pylist(), strict=True)) if pairs else first
        )
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        ids, types = (
            np.fromiter(itertools.chain.from_iterable(values), np.int64, lengths.sum())
            for values in ((row.ids for row in rows), (row.type_ids for row in rows))
        )
        parts.append(Tokens(ids, types, _starts(lengths)))
        truncated += [len(row) >= limit and bool(row.overflowing) for row in rows]
    return _join(parts), np.array(truncated, dtype=np.bool_)


def _join(parts: Sequence[Tokens]) -> Tokens:
    lengths = np.concatenate([part.lengths for part in parts])
    return Tokens(
        np.concatenate([part.ids for part in parts]), np.concatenate([part.types for part in parts]), _starts(lengths)
    )


def _starts(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)])


def cut(lengths: NDArray[np.int64], budget: int, padded: bool = True) -> list[NDArray[np.int64]]:
    """Split rows into batches of similar length, the longest first, so that a budget that exceeds the memory fails at once.

    :param lengths: Tokens of each row, [n].
    :param budget: Tokens per batch. A longer row is a batch of its own.
    :param padded: Whether padding counts: rows times the longest row, instead of the sum of their lengths.
    :return: The rows of each batch; each of 0 to n - 1 is in exactly one.
    """
    order = np.argsort(-lengths, kind="stable")
    upto = np.cumsum(lengths[order])
    batches = []
    start = 0
    while start < len(order):
        if padded:
            rows = budget // max(1, int(lengths[order[start]]))
        else:
            before = upto[start] - lengths[order[start]]
            rows = int(np.searchsorted(upto, before + budget, side="right")) - start
        batches.append(order[start : start + max(1, rows)])
        start += max(1, rows)
    return batches


def pack(values: NDArray[np.int64], starts: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Gather rows into one array without padding.

    :param values: The concatenated values of all rows, [total].
    :param starts: The offset of each row, [n + 1].
    :param rows: The rows to gather, [b].
    :return: The concatenated values of these rows.
    """
    lengths = starts[rows + 1] - starts[rows]
    ends = np.cumsum(lengths)
    packed: NDArray[np.int64] = values[np.arange(lengths.sum()) + np.repeat(starts[rows] - (ends - lengths), lengths)]
    return packed


def pad(
    values: NDArray[np.int64],
    starts: NDArray[np.int64],
    rows: NDArray[np.int64],
    fill: int,
    side: str = "right",
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Gather rows into one padded array.

    :param values: The concatenated values of all rows, [total].
    :param starts: The offset of each row, [n + 1].
    :param rows: The rows to gather, [b].
    :param fill: The padding value.
    :param side: The side of the padding: right or left.
    :return: The values [b, longest], and which of them are not padding [b, longest].
    """
    lengths = (starts[rows + 1] - starts[rows])[:, None]
    position = np.arange(lengths.max(initial=0))
    if side == "left":
        position = position - (len(position) - lengths)
    own = (position >= 0) & (position < lengths)
    padded = np.full(own.shape, fill, dtype=np.int64)
    padded[own] = values[(starts[rows][:, None] + position)[own]]
    return padded, own
