"""A teacher's network as a function from tokenised rows to logits."""

import inspect
import logging
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline import params
from pipeline.errors import InputError
from pipeline.teacher.batching import Tokens, cut, pad
from pipeline.teacher.model import Teacher

logger = logging.getLogger(__name__)

TOKEN_BUDGETS = {"cpu": 2_048, "cuda": 65_536}
"""Tokens in a batch by default: on a CPU the batch's activations should stay in its caches, on a GPU they should fill it."""


class Classifier(Protocol):
    """What labels tokenised rows."""

    attention: str

    def run(self, tokens: Tokens, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield rows, and their logits, float32 [b, C] in the order of the task's labels, until each was yielded once."""
        ...


def open_classifier(teacher: Teacher, how: params.Labelling) -> Classifier:
    """Return the fastest classifier that is right for a teacher's architecture.

    :param teacher: The teacher; its model is moved and cast in place.
    :param how: The dtype and the token budget.
    """
    return PaddedClassifier(teacher, how)


class PaddedClassifier:
    """A teacher that reads batches padded to their longest row: right for every architecture.

    :param teacher: The teacher; its model is moved and cast in place.
    :param how: The dtype and the token budget.
    """

    attention = "padded"

    def __init__(self, teacher: Teacher, how: params.Labelling) -> None:
        self._tokenizer = teacher.tokenizer
        if self._tokenizer.pad_token_id is None:
            raise InputError(f"{teacher.files.source}: its tokenizer has no padding token")
        self._device = device()
        self._model = teacher.model.to(self._device, getattr(torch, how.dtype))
        if self._device.type == "cpu" and how.dtype == "float32":
            _multiply_with_onednn(self._model)
        self._takes_types = "token_type_ids" in inspect.signature(self._model.forward).parameters and (
            "token_type_ids" in self._tokenizer.model_input_names
        )
        self._columns = torch.tensor(teacher.columns, device=self._device)
        self.budget = how.token_budget or TOKEN_BUDGETS[self._device.type]

    def run(self, tokens: Tokens, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Label rows in batches within the token budget, which is halved when the GPU's memory runs out.

        :param tokens: A pool of rows.
        :param rows: Those to label.
        :yields: Rows, and their logits, float32 [b, C] in the order of the task's labels.
        :raises InputError: If the memory does not hold a single row.
        """
        batches = deque(rows[batch] for batch in cut(tokens.lengths[rows], self.budget))
        while batches:
            try:
                found = self._logits(tokens, batches[0])
            except torch.OutOfMemoryError:
                found = None
            if found is not None:
                yield batches.popleft(), found
                continue
            if len(batches[0]) == 1:
                raise InputError(
                    f"a row of {tokens.lengths[batches[0]][0]} tokens does not fit the GPU's memory; lower label.max_length"
                )
            torch.cuda.empty_cache()
            self.budget //= 2
            logger.warning("out of GPU memory: going on with a token budget of %d", self.budget)
            left = np.concatenate(batches)
            batches = deque(left[batch] for batch in cut(tokens.lengths[left], self.budget))

    @torch.inference_mode()
    def _logits(self, tokens: Tokens, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        side = self._tokenizer.padding_side
        ids, own = pad(tokens.ids, tokens.starts, rows, self._tokenizer.pad_token_id, side)
        inputs = {"input_ids": ids, "attention_mask": own.astype(np.int64)}
        if self._takes_types:
            fill = self._tokenizer.pad_token_type_id
            inputs["token_type_ids"], _ = pad(tokens.types, tokens.starts, rows, fill, side)
        on_device = {name: torch.from_numpy(value).to(self._device) for name, value in inputs.items()}
        logits = self._model(**on_device).logits[:, self._columns]
        found: NDArray[np.float32] = logits.float().cpu().numpy()
        return found


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
    found: torch.Tensor = multiply(inputs, layer.weight, layer.bias, "none", [], "")
    return found


def device() -> torch.device:
    """Return where the teacher runs: the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
