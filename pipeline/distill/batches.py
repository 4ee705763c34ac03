"""Training rows as tensors on the device: words become ids once, and the device gathers a batch without Python code per row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pipeline.students.contract import Batch, Encoded
from pipeline.students.vocabulary import WordIds

POOL_BATCHES = 100
"""Batches whose rows are sorted by length together: a larger pool means less padding and less random batches."""

PLACES = 2**20
"""Words and padding of one side that are gathered together at most, unless one batch has more: it limits the memory of an epoch's data."""

WIDEST = 256
"""The widest bucket, in words; no sentence is longer with the default `max_words`."""

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrainingRows:
    """Rows to train on or to validate on, on the CPU."""

    texts: Encoded
    labels: torch.Tensor
    """int64 [n], gold or the teacher's; float32 in regression."""
    logits: torch.Tensor
    """float32 [n, C], the teacher's."""
    weights: torch.Tensor
    """float32 [n], with a mean of 1."""


class _Side:
    """One sentence of each row, on a device."""

    def __init__(self, words: WordIds, device: torch.device) -> None:
        self.starts = torch.from_numpy(words.offsets[:-1]).to(device)
        self.lengths = torch.from_numpy(np.diff(words.offsets)).to(device)
        # One more id, so that gathering works where no row has a word.
        self.ids = torch.from_numpy(np.concatenate([words.ids, np.zeros(1, np.int32)])).to(device)

    def padded(self, rows: torch.Tensor, columns: torch.Tensor, places: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return word ids, padded with 0 to each row's own number of columns, and lengths of at least 1.

        :param rows: Row numbers, [n]; their `columns`, [n], sum to `places`, a number on the CPU, so that a GPU does not have to synchronise.
        :return: The ids of all rows one after another, int64 [places], and int64 [n].
        """
        lengths = self.lengths[rows]
        row = torch.repeat_interleave(columns, output_size=places)
        column = torch.arange(places, device=rows.device) - (columns.cumsum(0) - columns)[row]
        at = (self.starts[rows][row] + column).clamp_(max=len(self.ids) - 1)
        ids = self.ids[at].masked_fill_(column >= lengths[row], 0).long()
        return ids, lengths.clamp(min=1)


class DeviceRows:
    """Rows that are moved to the device once.

    :param bucketed: Whether batches are as wide as `bucket_widths` says, both sentences of a pair the same. Otherwise each side of a batch is
        as wide as its longest sentence.
    """

    def __init__(self, rows: TrainingRows, device: torch.device, bucketed: bool = False) -> None:
        self._sides = [_Side(words, device) for words in rows.texts.sides]
        self._lengths = [np.diff(words.offsets) for words in rows.texts.sides]
        self._longest = rows.texts.lengths
        self._targets = [tensor.to(device) for tensor in (rows.labels, rows.logits, rows.weights)]
        self._device = device
        self._bucketed = bucketed

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._longest)

    def epoch(self, batch_size: int, draws: np.random.Generator) -> Iterator[tuple[Batch, tuple[torch.Tensor, ...]]]:
        """Yield every row once, in `epoch_batches`, each with its labels, logits and weights, all on the device.

        The tensors of up to POOL_BATCHES batches are gathered together: a batch is a view of them.
        """
        batches = epoch_batches(self._longest, batch_size, draws)
        sizes = np.array([len(batch) for batch in batches])
        order = np.concatenate(batches)
        ends = np.cumsum([0, *sizes])
        # The widths are computed on the CPU, so that the device does not have to synchronise.
        given = [self._longest] * len(self._sides) if self._bucketed else self._lengths
        widths = [np.maximum(np.maximum.reduceat(lengths[order], ends[:-1]), 1) for lengths in given]
        if self._bucketed:
            widths = [bucket_widths(width) for width in widths]
        # All copies to the device are made here, since a copy waits for the kernels before it.
        rows = torch.from_numpy(order).to(self._device)
        columns = [torch.from_numpy(np.repeat(width, sizes)).to(self._device) for width in widths]
        for piece in _pieces(sizes * np.maximum.reduce(widths)):
            place = slice(ends[piece.start], ends[piece.stop])
            many = sizes[piece].tolist()
            parts: list[Sequence[torch.Tensor]] = []
            for side, width, column in zip(self._sides, widths, columns, strict=True):
                places = (sizes[piece] * width[piece]).tolist()
                ids, lengths = side.padded(rows[place], column[place], sum(places))
                parts.append([part.view(n, -1) for part, n in zip(torch.split(ids, places), many, strict=True)])
                parts.append(torch.split(lengths, many))
            targets = [torch.split(target[rows[place]], many) for target in self._targets]
            for one, wanted in zip(zip(*parts, strict=True), zip(*targets, strict=True), strict=True):
                yield Batch(*one), wanted


def _pieces(places: Integers) -> Iterator[slice]:
    """Cut batches into pieces that are gathered together, given the places of each: up to POOL_BATCHES of them with PLACES in all."""
    ends = np.cumsum(places)
    start = 0
    while start < len(places):
        fits = int(np.searchsorted(ends, ends[start] - places[start] + PLACES, side="right"))
        stop = max(start + 1, min(fits, start + POOL_BATCHES))
        yield slice(start, stop)
        start = stop


def bucket_widths(columns: Integers) -> Integers:
    """Return the widths to which batches are padded, so that few differ: multiples of 4 up to 64, then of 16 up to WIDEST; wider ones stay."""
    step = np.where(columns <= 64, 4, np.where(columns <= WIDEST, 16, 1))
    return -(-columns // step) * step


def epoch_batches(lengths: Integers, batch_size: int, draws: np.random.Generator) -> list[Integers]:
    """Return the batches of one epoch: random batches of rows of similar length, in random order.

    The rows are shuffled and cut into pools of POOL_BATCHES batches; each pool is sorted by length and cut into batches; then
    the batches of all pools are shuffled.

    :param lengths: Words of each row, [n].
    :param batch_size: Rows in a batch; the last one of the pools can have fewer.
    :return: Row numbers, each exactly once.
    """
    shuffled = draws.permutation(len(lengths))
    pool = np.arange(len(lengths)) // (batch_size * POOL_BATCHES)
    ordered = shuffled[np.lexsort((lengths[shuffled], pool))]
    batches = [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
    return [batches[i] for i in draws.permutation(len(batches))]
