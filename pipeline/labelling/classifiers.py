"""A teacher's network as a function from tokenised rows to logits."""

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
from pipeline.params.labelling import Labelling
from pipeline.teacher.model import Teacher

logger = logging.getLogger(__name__)

TOKEN_BUDGETS = {"cpu": 2_048, "cuda": 65_536}
"""Tokens in a batch by default: on a CPU the batch's activations should stay in its caches, on a GPU they should fill it."""


def open_classifier(teacher: Teacher, how: Labelling) -> "Classifier":
    """Return the fastest classifier that is right for a teacher's architecture.

    :param teacher: The teacher; its model is moved, cast and changed in place.
    :param how: The dtype and the token budget.
    """
    return kind_of(teacher)(teacher, how)


def kind_of(teacher: Teacher) -> "type[PackedClassifier | PaddedClassifier]":
    """Return which classifier `open_classifier` opens; its `attention` is packed or padded."""
    return PackedClassifier if packing.supports(teacher.model) else PaddedClassifier


IN_FLIGHT = 2
"""Batches that are handed to a GPU before the logits of the first are waited for, so that it never waits for the next one."""


class Classifier(ABC):
    """What labels tokenised rows.

    :param teacher: The teacher; its model is moved, cast and changed in place.
    :param how: The dtype and the token budget.
    """

    attention: ClassVar[str]

    def __init__(self, teacher: Teacher, how: Labelling) -> None:
        self._tokenizer = teacher.tokenizer
        self._device = device()
        self._model = teacher.model.to(self._device, getattr(torch, how.dtype))
        if self._device.type == "cpu" and how.dtype == "float32":
            _multiply_with_onednn(self._model)
        if self._device.type == "cpu" and how.dtype == "bfloat16" and lacks_bfloat16():
            logger.warning("this processor has no instructions for bfloat16: float32 would be faster, and exact")
        self._takes_types = "token_type_ids" in inspect.signature(self._model.forward).parameters and (
            "token_type_ids" in self._tokenizer.model_input_names
        )
        self._columns = torch.tensor(teacher.columns, device=self._device)
        self.budget = how.token_budget or TOKEN_BUDGETS[self._device.type]

    def run(self, tokens: Tokens, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Label rows in batches within the token budget, which is halved when memory runs out.

        :param tokens: A pool of rows, none of them empty.
        :param rows: Those to label.
        :yields: Rows, and their logits, float32 [b, C] in the order of the task's labels, until each was yielded once.
        :raises InputError: If the memory does not hold a single row.
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
                memory = _memory_that_ran_out(error)
                if memory is None:
                    raise
            # Not above: until the error is gone, its traceback holds what the batch had allocated.
            batches = self._smaller(tokens, batches, memory)

    def _smaller(self, tokens: Tokens, batches: deque[NDArray[np.int64]], memory: str) -> deque[NDArray[np.int64]]:
        """Halve the budget when memory has run out, and cut what is left again."""
        if len(batches[0]) == 1:
            raise InputError(
                f"a row of {tokens.lengths[batches[0]][0]} tokens does not fit the {memory}'s memory; lower label.max_length"
            )
        if memory == "GPU":
            torch.cuda.empty_cache()
        self.budget //= 2
        logger.warning("out of %s memory: going on with a token budget of %d", memory, self.budget)
        return self._batches(tokens, np.concatenate(batches))

    def _batches(self, tokens: Tokens, rows: NDArray[np.int64]) -> deque[NDArray[np.int64]]:
        batches = cut(tokens.lengths[rows], self.budget, padded=self.attention == "padded")
        return deque(rows[batch] for batch in batches)

    @torch.inference_mode()
    def _start(self, tokens: Tokens, rows: NDArray[np.int64]) -> Callable[[], NDArray[np.float32]]:
        """Hand a batch to the device; what is returned waits for its logits, float32 [b, C]."""
        logits = self._forward(tokens, rows)[:, self._columns].float().to("cpu", non_blocking=True)
        done = torch.cuda.Event() if self._device.type == "cuda" else None  # type: ignore[no-untyped-call]
        if done is not None:
            done.record()

        def fetch() -> NDArray[np.float32]:
            if done is not None:
                done.synchronize()  # of this batch alone: the GPU has the next one already
            found: NDArray[np.float32] = logits.numpy()
            return found

        return fetch

    @abstractmethod
    def _forward(self, tokens: Tokens, rows: NDArray[np.int64]) -> torch.Tensor:
        """Return the model's own logits of a batch, [b, its classes]."""


class PackedClassifier(Classifier):
    """A teacher that reads batches without padding, of an architecture that `packing.supports`."""

    attention = "packed"

    def __init__(self, teacher: Teacher, how: Labelling) -> None:
        super().__init__(teacher, how)
        self._packed = packing.PackedModel(self._model)

    def _forward(self, tokens: Tokens, rows: NDArray[np.int64]) -> torch.Tensor:
        layout = packing.Layout(tokens.lengths[rows], self._device)
        types = pack(tokens.types, tokens.starts, rows) if self._takes_types else None
        return self._packed(pack(tokens.ids, tokens.starts, rows), types, layout)


class PaddedClassifier(Classifier):
    """A teacher that reads batches padded to their longest row: right for every architecture."""

    attention = "padded"

    def __init__(self, teacher: Teacher, how: Labelling) -> None:
        if teacher.tokenizer.pad_token_id is None:
            raise InputError(f"{teacher.files.source}: its tokenizer has no padding token")
        super().__init__(teacher, how)

    def _forward(self, tokens: Tokens, rows: NDArray[np.int64]) -> torch.Tensor:
        side = self._tokenizer.padding_side
        ids, own = pad(tokens.ids, tokens.starts, rows, self._tokenizer.pad_token_id, side)
        inputs = {"input_ids": ids, "attention_mask": own.astype(np.int64)}
        if self._takes_types:
            fill = self._tokenizer.pad_token_type_id
            inputs["token_type_ids"], _ = pad(tokens.types, tokens.starts, rows, fill, side)
        on_device = {name: packing.to_device(value, self._device) for name, value in inputs.items()}
        logits: torch.Tensor = self._model(**on_device).logits
        return logits


def _memory_that_ran_out(error: Exception) -> str | None:
    """Return whose memory did not suffice, GPU or machine; None for an error of another kind."""
    if isinstance(error, torch.OutOfMemoryError):
        return "GPU"
    # PyTorch's allocator of CPU memory raises a plain RuntimeError.
    return "machine" if isinstance(error, MemoryError) or "can't allocate memory" in str(error) else None


def _multiply_with_onednn(model: torch.nn.Module) -> None:
    """Let oneDNN, not MKL, multiply the linear layers' float32 matrices: on AMD processors MKL is half as fast.

    The sums are float32 still, in another order. Inference only: the operation has no gradient.
    """
    multiply = getattr(torch.ops.mkldnn, "_linear_pointwise", None)  # absent from a PyTorch built without oneDNN
    if multiply is not None:
        for module in model.modules():
            if type(module) is torch.nn.Linear:
                module.forward = partial(_linear, multiply, module)  # type: ignore[method-assign]


def _linear(multiply: Any, layer: torch.nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
    # A model that computes in another precision now: oneDNN may have no multiplication of it on this processor.
    if inputs.dtype != torch.float32:
        return torch.nn.functional.linear(inputs, layer.weight, layer.bias)
    found: torch.Tensor = multiply(inputs, layer.weight, layer.bias, "none", [], "")
    return found


def device() -> torch.device:
    """Return where the teacher runs: the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def lacks_bfloat16() -> bool:
    """Return whether this processor is known to have no instructions for bfloat16."""
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # newer than PyTorch 2.10
    known = [has for name, has in capabilities.items() if "bf16" in name]
    return bool(known) and not any(known)
