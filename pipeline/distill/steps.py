"""One step of training on a batch: kernel by kernel, or on a GPU as CUDA graphs, one for each width of a batch.

A step of a small student is hundreds of short kernels, and starting them takes longer than computing them. A CUDA graph starts all of them
at once. It repeats the kernels that it captured on the same memory, so shapes are fixed and no Python runs: nothing of a step may depend on
the values in a tensor, or on Python state that changes from step to step.
"""

import logging
import os
from collections.abc import Sequence
from typing import Protocol

import torch

from pipeline import plugins
from pipeline.distill.batches import WIDEST
from pipeline.distill.objectives import Objective
from pipeline.errors import InputError
from pipeline.students.contract import Batch, logits_of, path_of

logger = logging.getLogger(__name__)

CAPTURE = "PIPELINE_CUDA_GRAPHS"
"""The environment variable that captures the steps of built-in students on a CUDA GPU, if it is 1. It is off by default until tested on one."""

WARM_UPS = 2
"""Steps of each width before it is captured: libraries choose kernels and allocate memory, and optimisers create their state."""


class Step(Protocol):
    """Updates a student once."""

    def __call__(self, batch: Batch, targets: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the mean loss of a batch before its update, a scalar on the device, which the next call may overwrite.

        :param targets: Labels [B], the teacher's logits [B, C], and weights [B], all on the device.
        """
        ...


class EagerStep:
    """The step of any student, kernel by kernel.

    :param module: The student, with its `optimisers`; C are its classes.
    :param model: Its import path, for messages.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        objective: Objective,
        optimisers: Sequence[torch.optim.Optimizer],
        model: str,
        classes: int,
    ) -> None:
        self.module, self.objective, self.optimisers = module, objective, optimisers
        self.model, self.classes = model, classes
        self.autocast = next(module.parameters()).device.type == "cuda"

    def __call__(self, batch: Batch, targets: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the loss; see `Step`.

        :raises InputError: As in `logits_of`, or if the student has nothing to learn, or is a user's and raises in its gradient.
        """
        labels, logits, weights = targets
        # A captured graph keeps no copy of a weight in bfloat16 that was made before it.
        kept = not (self.autocast and torch.cuda.is_current_stream_capturing())
        with torch.autocast("cuda", torch.bfloat16, enabled=self.autocast, cache_enabled=kept):
            student = logits_of(self.module, batch, self.classes)
        loss = (self.objective(student.float(), logits, labels) * weights).mean()
        if not loss.requires_grad:
            raise InputError(f"{self.model!r}: its logits depend on no trainable parameter")
        self.forget_gradients()
        with plugins.running(self.model, "forward, in its gradient,"):
            loss.backward()  # type: ignore[no-untyped-call]
        for optimiser in self.optimisers:
            optimiser.step()
        return loss.detach()

    def forget_gradients(self) -> None:
        """Set all gradients to None, so that the next backward pass allocates them."""
        for optimiser in self.optimisers:
            optimiser.zero_grad()


class FixedStep:
    """The step of a student on fixed memory, one set of tensors for each width of a batch; on a GPU a CUDA graph repeats it.

    Batches of another size than most, such as the last rows, and batches wider than WIDEST are trained by the eager step. On a CPU the eager
    step trains on the fixed tensors, as the graph does on a GPU.

    :param step: The student's eager step; its optimisers are from `capturable_optimisers`.
    :param rows: Rows of a batch.
    """

    def __init__(self, step: EagerStep, rows: int) -> None:
        self.step, self.rows = step, rows
        self.on_gpu = next(step.module.parameters()).device.type == "cuda"
        self._widths: dict[tuple[int, ...], _Width] = {}
        if self.on_gpu:
            self._pool = torch.cuda.graph_pool_handle()
            self._side = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, batch: Batch, targets: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the loss; see `Step`."""
        key = tuple(ids.shape[1] for ids in (batch.ids1, batch.ids2) if ids is not None)
        if len(batch.ids1) != self.rows or max(key) > WIDEST:
            return self.step(batch, targets)
        width = self._widths.get(key)
        if width is None:
            width = self._widths[key] = _Width(batch, targets)
        width.fill(batch, targets)
        if not self.on_gpu:
            return self.step(width.batch, width.targets)
        if width.graph is None and width.warm_ups < WARM_UPS:
            return self._warm_up(width)
        if width.graph is None:
            self._capture(width)
        return width.replay()

    def _warm_up(self, width: "_Width") -> torch.Tensor:
        """Train on the batch in the tensors of a width, on a stream of its own, as CUDA graphs require."""
        width.warm_ups += 1
        here = torch.cuda.current_stream()
        self._side.wait_stream(here)
        with torch.cuda.stream(self._side):
            loss = self.step(width.batch, width.targets)
        here.wait_stream(self._side)
        return loss

    def _capture(self, width: "_Width") -> None:
        """Record the kernels of a step; none of them runs, and no weight changes."""
        graph = torch.cuda.CUDAGraph()
        # Each graph allocates its gradients from the pool, where those of other graphs may lie: none is read after its graph ran.
        self.step.forget_gradients()
        with torch.cuda.graph(graph, pool=self._pool):
            width.loss = self.step(width.batch, width.targets)
        self.step.forget_gradients()
        width.graph = graph


class _Width:
    """The fixed tensors of batches of one width, and on a GPU their graph.

    :param batch: One of them, with its `targets`; they are copied.
    """

    def __init__(self, batch: Batch, targets: Sequence[torch.Tensor]) -> None:
        self._tensors = [tensor.clone() for tensor in _tensors(batch, targets)]
        inputs = len(self._tensors) - len(targets)
        self.batch, self.targets = Batch(*self._tensors[:inputs]), self._tensors[inputs:]
        self.warm_ups = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.loss: torch.Tensor | None = None

    def fill(self, batch: Batch, targets: Sequence[torch.Tensor]) -> None:
        """Copy a batch into the fixed tensors."""
        torch._foreach_copy_(self._tensors, _tensors(batch, targets))

    def replay(self) -> torch.Tensor:
        """Run the graph and return the loss, which the next run overwrites."""
        assert self.graph is not None and self.loss is not None
        self.graph.replay()
        return self.loss


def _tensors(batch: Batch, targets: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    sides = (batch.ids1, batch.lengths1, batch.ids2, batch.lengths2)
    return [*(tensor for tensor in sides if tensor is not None), *targets]


def captures(module: torch.nn.Module, device: torch.device) -> bool:
    """Return whether a student's steps are captured: where CAPTURE asks for it, on a CUDA GPU, for a student of this library.

    A graph would repeat the Python code of your own student as it ran once, and a failed capture can leave the GPU's allocator unusable, so
    your own students are not tried.
    """
    if os.environ.get(CAPTURE) != "1" or device.type != "cuda":
        return False
    if type(module).__module__.startswith("pipeline.students."):
        return True
    logger.info("%s trains without CUDA graphs: only the students of this library are captured", path_of(module))
    return False
