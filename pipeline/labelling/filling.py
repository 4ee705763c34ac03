"""Batches of rows of a fixed length, each filled with several short texts, so that batches have few different shapes.

On a GPU, short texts run faster in these rows than packed: attention is one call of a fast kernel, and the encoder's layers can be compiled.
A mask keeps the texts of a row separate. Texts longer than a row are packed.

It is off by default (`FILLED`): it is tested on a CPU, and `make gpu-check` compares it with packed batches on a GPU.
"""

import logging
import os
from collections import deque
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.labelling import gelu, packing
from pipeline.labelling.batching import Tokens, pack
from pipeline.labelling.classifiers import Classifier
from pipeline.params.labelling import Labelling
from pipeline.teacher.model import Teacher

logger = logging.getLogger(__name__)

FILLED = "PIPELINE_FILLED_ROWS"
"""The environment variable that labels in filled rows on a CUDA GPU, if it is 1: their logits are cached apart from packed ones."""

COMPILE_AFTER = 100_000_000
"""Tokens in filled rows after which the layers are compiled, in each process.

A short job is over before compiling pays. With BERT-base's shape on an H100, compiling takes 12 s and saves 0.05 s per million tokens, or 0.11 s
with GELU in the product, so it pays after 100 to 240 million (2026-11-26; `bench/label.py --part files` prints the number of a GPU).
"""

WIDTH = 128
"""Tokens of a row."""

HALVINGS = 3
"""A batch has as many rows as the token budget allows, or half, a quarter or an eighth of them. Each shape is compiled once."""

SHAPES_COMPILED = 64
"""All layers of all models of a process count against one limit. ModernBERT alone has three kinds of layers in up to four shapes."""


def fill(lengths: NDArray[np.int64], width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distribute sequences over rows; each row gets the longest sequences that still fit.

    :param lengths: Tokens of each sequence, [n], n > 0, from 1 to width.
    :return: The sequences in the order of their rows, [n], and the row of each, [n], ascending.
    """
    order = np.argsort(-lengths, kind="stable")
    counts = np.bincount(lengths, minlength=width + 1)
    left = counts.tolist()
    first = (len(lengths) - np.cumsum(counts)).tolist()  # the place in the order of the first sequence of a length
    sequences, rows, row = [], [], 0
    while pattern := _pattern(left, width):
        times = min(left[length] // count for length, count in pattern.items())
        for length, count in pattern.items():
            sequences.append(order[first[length] : first[length] + times * count])
            rows.append(np.repeat(np.arange(row, row + times), count))
            first[length] += times * count
            left[length] -= times * count
        row += times
    by_row = np.argsort(np.concatenate(rows), kind="stable")
    return np.concatenate(sequences)[by_row], np.concatenate(rows)[by_row]


def _pattern(left: list[int], width: int) -> dict[int, int]:
    """Return the lengths of the sequences of a row, and how many of each.

    :param left: The number of sequences of each length that have no row yet.
    """
    pattern: dict[int, int] = {}
    for length in range(width, 0, -1):
        if left[length] and length <= width:
            pattern[length] = min(width // length, left[length])
            width -= length * pattern[length]
    return pattern


class Filled(packing.Layout):
    """The places of sequences in rows of WIDTH tokens: in their order, each row with as many as fit."""

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The place of the first token of each sequence, row * WIDTH + offset, int64 [b]."""
        ends = np.cumsum(self.lengths)
        begins = ends - self.lengths
        following = np.searchsorted(ends, begins + WIDTH, side="right").tolist()  # the first that does not fit
        firsts, at = [], 0
        while at < len(following):
            firsts.append(at)
            at = following[at]
        counts = np.diff(firsts, append=len(following))
        places: NDArray[np.int64] = np.repeat(np.arange(len(firsts)) * WIDTH - begins[firsts], counts) + begins
        return places

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self.starts[-1]) // WIDTH + 1

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """The place of each token, int64 [total]."""
        before = np.cumsum(self.lengths) - self.lengths
        places: NDArray[np.int64] = np.repeat(self.starts - before, self.lengths) + np.arange(self.lengths.sum())
        return places

    def tokens(self, states: torch.Tensor) -> torch.Tensor:
        """Return the states of the sequences' tokens, [total, d], from those of all places."""
        return states[packing.to_device(self.places, self.device)]

    def spread(self, values: NDArray[np.int64], rows: int) -> torch.Tensor:
        """Return the values of the tokens at their places and zeros elsewhere, int64 [rows, WIDTH], on the device."""
        found = np.zeros(rows * WIDTH, dtype=np.int64)
        found[self.places] = values
        return packing.to_device(found.reshape(rows, WIDTH), self.device)


class FilledModel(packing.PackedModel):
    """Runs a classifier that `packing.supports` accepts on packed batches and on filled rows. It is changed in place."""

    def filled(
        self, ids: NDArray[np.int64], types: NDArray[np.int64] | None, layout: Filled, rows: int
    ) -> torch.Tensor:
        """Return the logits of sequences in filled rows, [b, classes] in the model's dtype.

        :param ids: Concatenated token ids, [total].
        :param types: Token type ids, [total]; None if the model takes none.
        :param rows: The number of rows, with empty ones at the end.
        """
        positions = self._positions(ids, packing.Layout(layout.lengths, layout.device))
        inputs = {"input_ids": layout.spread(ids, rows), "position_ids": layout.spread(positions, rows)}
        if types is not None:
            inputs["token_type_ids"] = layout.spread(types, rows)
        segments = layout.spread(np.repeat(np.arange(1, len(layout.lengths) + 1), layout.lengths), rows)
        apart = segments[:, None, :, None] != segments[:, None, None, :]
        mask = torch.zeros(apart.shape, dtype=self._model.dtype, device=layout.device)
        return self._run(inputs, layout, mask.masked_fill_(apart, -torch.inf))

    def compile(self, backend: str) -> None:
        """Compile the layers of the encoder, except the last one if its states are pooled within it. Equal layers share their code."""
        config = torch._dynamo.config
        config.recompile_limit = max(config.recompile_limit, SHAPES_COMPILED)
        for layer in self._layers():
            if self._last_mixing not in set(layer.modules()):
                layer.compile(dynamic=False, fullgraph=True, backend=backend)

    def forget_compiled(self) -> None:
        """Run the layers without compiled code again."""
        for layer in self._layers():
            layer._compiled_call_impl = None

    def _layers(self) -> torch.nn.ModuleList:
        return next(module for module in self._model.base_model.modules() if isinstance(module, torch.nn.ModuleList))


def are_asked(how: Labelling, device: torch.device) -> bool:
    """Return whether FILLED asks for filled rows, on a CUDA GPU since Ampere and in half precision: otherwise, their attention has no fast kernel."""
    if os.environ.get(FILLED) != "1" or device.type != "cuda" or how.dtype == "float32":
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


class FilledClassifier(Classifier):
    """Runs short texts in filled rows and longer ones packed, for architectures that `packing.supports`."""

    attention = "filled"

    def __init__(
        self, teacher: Teacher, how: Labelling, backend: str | None = "inductor", compile_after: int = COMPILE_AFTER
    ) -> None:
        """Move, cast and change the model.

        :param backend: The backend of torch.compile; None: the layers are not compiled.
        :param compile_after: Tokens after which they are.
        """
        super().__init__(teacher, how)
        if self._device.type == "cuda" and how.dtype != "float32":
            gelu.fuse(self._model)
        self._filled = FilledModel(self._model)
        self._backend, self._left = backend, compile_after
        self._compiled = False

    def _batches(self, tokens: Tokens, rows: NDArray[np.int64]) -> deque[NDArray[np.int64]]:
        lengths = tokens.lengths[rows]
        short = (lengths <= WIDTH) & (self.budget >= WIDTH)
        batches = super()._batches(tokens, rows[~short])
        if short.any():
            order, row = fill(lengths[short], WIDTH)
            most = self.budget // WIDTH
            ends = np.searchsorted(row, np.arange(most, row[-1] + 1, most))
            batches.extend(np.split(rows[short][order], ends))
        return batches

    def _forward(self, tokens: Tokens, rows: NDArray[np.int64]) -> torch.Tensor:
        lengths = tokens.lengths[rows]
        ids = pack(tokens.ids, tokens.starts, rows)
        types = pack(tokens.types, tokens.starts, rows) if self.takes_types else None
        if self.budget < WIDTH or lengths.max() > WIDTH:
            with torch.compiler.set_stance("force_eager"):
                return self._filled(ids, types, packing.Layout(lengths, self._device))
        if self._backend is not None and self._left <= 0:
            logger.info("compiling the teacher's layers, which takes some seconds and makes the remaining texts faster")
            self._filled.compile(self._backend)
            self._backend, self._compiled = None, True
        self._left -= len(ids)
        layout = Filled(lengths, self._device)
        sizes = [self.budget // WIDTH >> halvings for halvings in range(HALVINGS + 1)]
        size = min((size for size in sizes if size >= layout.rows), default=layout.rows)
        try:
            return self._filled.filled(ids, types, layout, size)
        except (
            torch._dynamo.exc.TorchDynamoException
        ) as error:  # there is no C compiler, for one, or too little memory to compile
            if not self._compiled:
                raise
            why = " ".join(str(error).strip().split("\n\n")[0].split())
            logger.warning("the teacher's layers cannot be compiled; going on without: %s", why)
            self._filled.forget_compiled()
            self._compiled = False
        return self._filled.filled(ids, types, layout, size)

    def _is_smallest(self, rows: NDArray[np.int64]) -> bool:
        return len(rows) == 1 and self.budget // WIDTH >> HALVINGS <= 1  # a batch has empty rows
