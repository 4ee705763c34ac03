"""Runs a teacher's network on tokenised rows, packed or padded."""

import inspect
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.labelling import packing
from pipeline.labelling.batching import Tokens, cut, pack, pad
from pipeline.machine.devices import device, free_memory, memory_that_ran_out
from pipeline.params.labelling import Labelling
from pipeline.teacher.model import Teacher, check_padding

logger = logging.getLogger(__name__)

TOKEN_BUDGETS = {"cpu": 2_048, "mps": 8_192, "cuda": 65_536}
"""Default tokens per batch: on a CPU the activations of a batch should fit its caches, on a GPU they should use all of it. MPS is not measured."""


IN_FLIGHT = 2
"""Batches queued on a GPU before the logits of the first are fetched, so that it never waits for the next batch."""


class Classifier(ABC):
    """A teacher that labels tokenised rows; its model is moved, cast and changed in place."""

    attention: ClassVar[str]
    """packed, padded or filled."""

    def __init__(self, teacher: Teacher, how: Labelling) -> None:
        self._tokenizer = teacher.tokenizer
        self._device = device()
        self._model = teacher.model.to(self._device, getattr(torch, how.dtype))
        if self._device.type == "cpu" and how.dtype == "float32":
            _multiply_with_onednn(self._model)
        if self._device.type == "cpu" and how.dtype == "bfloat16" and lacks_bfloat16():
            logger.warning(
                "this processor has no bfloat16 instructions, so bfloat16 is several times slower than float32 and less precise: set "
                "`label: {dtype: float32}` for this teacher in params.yaml; texts that are already labelled would be labelled again"
            )
        self.takes_types = "token_type_ids" in inspect.signature(self._model.forward).parameters and (
            "token_type_ids" in self._tokenizer.model_input_names
        )
        self._columns = torch.tensor(teacher.columns, device=self._device)
        self.budget = how.token_budget or TOKEN_BUDGETS[self._device.type]

    def run(self, tokens: Tokens, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Label rows in batches within the token budget, which is halved on out-of-memory errors.

        :param tokens: The tokens of a pool; no row is empty.
        :yields: Rows and their logits, float32 [b, C] in the order of the task's labels; each row once.
        :raises InputError: If the memory is too small for a single row.
        """
        batches = self._batches(tokens, rows)
        started: deque[tuple[NDArray[np.int64], Callable[[], NDArray[np.float32]]]] = deque()
        while batches or started:
            if not batches or len(started) == IN_FLIGHT:
                batch, fetch = started.popleft()
                yield batch, fetch()
                continue
            try:
                started.append((batches[0], self._start(tokens, batches[0])))
                batches.popleft()
                continue
            except (RuntimeError, MemoryError) as error:
                memory = memory_that_ran_out(error)
                if memory is None:
                    raise
            # Outside the except block, because the error's traceback keeps the batch's tensors alive.
            batches = self._smaller(tokens, batches, memory)

    def _smaller(self, tokens: Tokens, batches: deque[NDArray[np.int64]], memory: str) -> deque[NDArray[np.int64]]:
        """Halve the budget, and split the remaining rows again."""
        if self._is_smallest(batches[0]):
            raise InputError(
                f"a row of {tokens.lengths[batches[0]][0]} tokens does not fit in {memory} memory; lower label.max_length"
            )
        if memory == "GPU":
            free_memory()
        self.budget //= 2
        logger.warning("out of %s memory: token budget lowered to %d", memory, self.budget)
        return self._batches(tokens, np.concatenate(batches))

    def _is_smallest(self, rows: NDArray[np.int64]) -> bool:
        """Return whether a batch takes as much memory with any smaller budget."""
        return len(rows) == 1

    def _batches(self, tokens: Tokens, rows: NDArray[np.int64]) -> deque[NDArray[np.int64]]:
        batches = cut(tokens.lengths[rows], self.budget, padded=self.attention == "padded")
        return deque(rows[batch] for batch in batches)

    @torch.inference_mode()
    def _start(self, tokens: Tokens, rows: NDArray[np.int64]) -> Callable[[], NDArray[np.float32]]:
        """Queue a batch on the device; return a function that waits for its logits, float32 [b, C]."""
        is_cuda = self._device.type == "cuda"  # elsewhere the copy waits for the batch
        logits = self._forward(tokens, rows)[:, self._columns].float().to("cpu", non_blocking=is_cuda)
        done = torch.cuda.current_stream().record_event() if is_cuda else None

        def fetch() -> NDArray[np.float32]:
            if done is not None:
                done.synchronize()  # waits for this batch only: the GPU already has the next one
            found: NDArray[np.float32] = logits.numpy()
            return found

        return fetch

    @abstractmethod
    def _forward(self, tokens: Tokens, rows: NDArray[np.int64]) -> torch.Tensor:
        """Return the model's logits of a batch, [b, its classes]."""


class PackedClassifier(Classifier):
    """Runs batches without padding, for architectures that `packing.supports`."""

    attention = "packed"

    def __init__(self, teacher: Teacher, how: Labelling) -> None:
        super().__init__(teacher, how)
        self._packed = packing.PackedModel(self._model)

    def _forward(self, tokens: Tokens, rows: NDArray[np.int64]) -> torch.Tensor:
        layout = packing.Layout(tokens.lengths[rows], self._device)
        types = pack(tokens.types, tokens.starts, rows) if self.takes_types else None
        return self._packed(pack(tokens.ids, tokens.starts, rows), types, layout)


class PaddedClassifier(Classifier):
    """Runs batches padded to their longest row; correct for every architecture."""

    attention = "padded"

    def __init__(self, teacher: Teacher, how: Labelling) -> None:
        # Where padding matters, opening the teacher refuses a tokenizer without it; elsewhere the attention mask hides it.
        padding = teacher.tokenizer.pad_token_id
        self._padding = (getattr(teacher.model.config, "pad_token_id", None) or 0) if padding is None else padding
        check_padding(teacher.files, teacher.model, teacher.tokenizer, self._padding)  # before the model is cast
        super().__init__(teacher, how)

    def _forward(self, tokens: Tokens, rows: NDArray[np.int64]) -> torch.Tensor:
        side = self._tokenizer.padding_side
        ids, own = pad(tokens.ids, tokens.starts, rows, self._padding, side)
        inputs = {"input_ids": ids, "attention_mask": own.astype(np.int64)}
        if self.takes_types:
            fill = self._tokenizer.pad_token_type_id
            inputs["token_type_ids"], _ = pad(tokens.types, tokens.starts, rows, fill, side)
        on_device = {name: packing.to_device(value, self._device) for name, value in inputs.items()}
        logits: torch.Tensor = self._model(**on_device).logits
        return logits


def _multiply_with_onednn(model: torch.nn.Module) -> None:
    """Multiply the float32 matrices of linear layers with oneDNN instead of MKL, which is half as fast on AMD processors.

    The sums are still float32, in another order. Inference only: the operation has no gradient.
    """
    multiply = getattr(torch.ops.mkldnn, "_linear_pointwise", None)  # absent from a PyTorch built without oneDNN
    if multiply is not None:
        for module in model.modules():
            if type(module) is torch.nn.Linear:
                module.forward = partial(_linear, multiply, module)  # type: ignore[method-assign]


def _linear(multiply: Any, layer: torch.nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
    # The model was cast to another dtype, which oneDNN may not support on this processor.
    if inputs.dtype != torch.float32:
        return torch.nn.functional.linear(inputs, layer.weight, layer.bias)
    found: torch.Tensor = multiply(inputs, layer.weight, layer.bias, "none", [], "")
    return found


def lacks_bfloat16() -> bool:
    """Return whether this processor is known to lack bfloat16 instructions, so that PyTorch emulates them."""
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # missing in PyTorch 2.10
    known = [has for name, has in capabilities.items() if "bf16" in name]
    return bool(known) and not any(known)
