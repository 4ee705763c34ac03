"""Texts to tokens to batches: sorted by length and split by a token budget, so that batches contain little padding."""

from dataclasses import dataclass
from itertools import chain
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


def prepare(tokenizer: Any, limit: int) -> Tokenizer:
    """Return the backend of a fast tokenizer, which does not need transformers, set to truncate rows and not to pad them."""
    backend: Tokenizer = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.enable_truncation(limit, strategy="longest_first", direction=tokenizer.truncation_side)
    return backend


def encode(backend: Tokenizer, limit: int, texts: pa.Table) -> tuple[Tokens, NDArray[np.bool_]]:
    """Tokenise sentences or pairs, with special tokens; a pair is truncated at its longer sentence.

    :param backend: From `prepare`, with the same limit: the maximum number of tokens per row.
    :param texts: sentence1 and sentence2, n rows; sentence2 is null in all or in none.
    :return: The tokens, and which rows were truncated, bool [n].
    """
    pairs = texts["sentence2"].null_count < texts.num_rows
    ids, types, lengths, truncated = [], [], [0], []
    for start in range(0, texts.num_rows, TOKENISED_ROWS):
        some = texts.slice(start, TOKENISED_ROWS)
        first = some["sentence1"].to_pylist()
        rows = backend.encode_batch_fast(
            list(zip(first, some["sentence2"].to_pylist(), strict=True)) if pairs else first
        )
        ids.append(np.fromiter(chain.from_iterable(row.ids for row in rows), np.int64))
        types.append(np.fromiter(chain.from_iterable(row.type_ids for row in rows), np.int64))
        lengths += map(len, rows)
        truncated += [len(row) >= limit and bool(row.overflowing) for row in rows]
    starts = np.cumsum(lengths, dtype=np.int64)
    return Tokens(np.concatenate(ids), np.concatenate(types), starts), np.array(truncated, dtype=np.bool_)


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
    """Return the concatenated values of some rows, [b] row numbers.

    :param values: The concatenated values of all rows, [total].
    :param starts: The offset of each row, [n + 1].
    """
    return gather(values, starts[rows], starts[rows + 1] - starts[rows])


def gather(values: NDArray[np.int64], begins: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the concatenated slices of values that begin at `begins` and have `lengths`, both [n]."""
    ends = np.cumsum(lengths)
    gathered: NDArray[np.int64] = values[np.arange(lengths.sum()) + np.repeat(begins - (ends - lengths), lengths)]
    return gathered


def pad(
    values: NDArray[np.int64],
    starts: NDArray[np.int64],
    rows: NDArray[np.int64],
    fill: int,
    side: str = "right",
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the values of some rows padded with `fill` on a side, right or left, [b, longest], and which are not padding.

    The first three parameters are those of `pack`.
    """
    lengths = (starts[rows + 1] - starts[rows])[:, None]
    position = np.arange(lengths.max(initial=0))
    if side == "left":
        position = position - (len(position) - lengths)
    own = (position >= 0) & (position < lengths)
    padded = np.full(own.shape, fill, dtype=np.int64)
    padded[own] = values[(starts[rows][:, None] + position)[own]]
    return padded, own
