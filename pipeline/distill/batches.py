"""Training rows as tensors on the device: words become ids once, and the device gathers a batch without Python code per row."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pipeline.students.contract import Batch, Encoded
from pipeline.students.vocabulary import WordIds

POOL_BATCHES = 100
"""Batches whose rows are sorted by length together: a larger pool means less padding and less random batches."""

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

    def padded(self, rows: torch.Tensor, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return word ids, int64 [B, columns], and lengths, int64 [B] of at least 1."""
        lengths = self.lengths[rows][:, None]
        places = torch.arange(columns, device=rows.device)
        at = (self.starts[rows][:, None] + places).clamp_(max=len(self.ids) - 1)
        ids = self.ids[at].masked_fill_(places >= lengths, 0).long()
        return ids, lengths[:, 0].clamp(min=1)


class DeviceRows:
    """Rows that are moved to the device once."""

    def __init__(self, rows: TrainingRows, device: torch.device) -> None:
        self._sides = [_Side(words, device) for words in rows.texts.sides]
        self._lengths = [np.diff(words.offsets) for words in rows.texts.sides]
        self._longest = rows.texts.lengths
        self._targets = [tensor.to(device) for tensor in (rows.labels, rows.logits, rows.weights)]
        self._device = device

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._longest)

    def epoch(self, batch_size: int, draws: np.random.Generator) -> Iterator[tuple[Batch, list[torch.Tensor]]]:
        """Yield every row once, in `epoch_batches`, each with its labels, logits and weights, all on the device."""
        batches = epoch_batches(self._longest, batch_size, draws)
        sizes = [len(batch) for batch in batches]
        order = np.concatenate(batches)
        starts = np.cumsum([0, *sizes[:-1]])
        # The longest row of each batch is computed on the CPU, so that the device does not have to synchronise.
        columns = [np.maximum(np.maximum.reduceat(lengths[order], starts), 1).tolist() for lengths in self._lengths]
        on_device = torch.from_numpy(order).to(self._device)
        for i, rows in enumerate(torch.split(on_device, sizes)):
            sides = zip(self._sides, columns, strict=True)
            parts = [part for side, widths in sides for part in side.padded(rows, widths[i])]
            yield Batch(*parts), [target[rows] for target in self._targets]


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
