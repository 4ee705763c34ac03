"""The optimisers of a student: the paper's AdaDelta, or AdamW. Both update word vectors by row."""

from collections.abc import Iterable
from typing import Any

import torch

from pipeline.params.students import Optimiser


class RowAdadelta(torch.optim.Optimizer):
    """AdaDelta (Zeiler 2012, arXiv 1212.5701) for embeddings, which updates only the rows of words in the batch.

    It equals torch.optim.Adadelta up to rounding: there, a row without a gradient keeps its weights as well, and its two running averages
    decay by rho per step; here, that decay is applied when the row next has a gradient. torch's version takes no sparse gradients, and reads
    all V x d numbers at every step.

    :param parameters: Weights [V, d] of embeddings with `sparse=True`.
    :param lr: The factor of each update.
    :param rho: The decay of the running averages.
    :param eps: Added under both square roots.
    """

    def __init__(self, parameters: Iterable[torch.Tensor], lr: float, rho: float, eps: float = 1e-6) -> None:
        super().__init__(parameters, {"lr": lr, "rho": rho, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update the rows that have a gradient. The closure is not called: AdaDelta needs none."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, *_rows_of(weight.grad), group["lr"], group["rho"], group["eps"])

    def _update(
        self, weight: torch.Tensor, rows: torch.Tensor, values: torch.Tensor, lr: float, rho: float, eps: float
    ) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = 0
            # The last step that updated each row.
            state["seen"] = torch.zeros(len(weight), dtype=torch.int64, device=weight.device)
            state["square"] = torch.zeros_like(weight)
            state["delta"] = torch.zeros_like(weight)
        state["step"] += 1
        missed = rho ** (state["step"] - 1 - state["seen"][rows]).to(weight.dtype)[:, None]
        # index_select and index_copy_ are a third faster than indexing with brackets on a CPU.
        square = state["square"].index_select(0, rows).mul_(missed * rho).addcmul_(values, values, value=1 - rho)
        delta = state["delta"].index_select(0, rows).mul_(missed)
        change = (delta + eps).div_(square + eps).sqrt_().mul_(values)
        state["square"].index_copy_(0, rows, square)
        state["delta"].index_copy_(0, rows, delta.mul_(rho).addcmul_(change, change, value=1 - rho))
        state["seen"][rows] = state["step"]
        weight.index_add_(0, rows, change, alpha=-lr)


class RowAdam(torch.optim.SparseAdam):
    """torch's SparseAdam for embeddings, which also takes dense gradients; it updates only the rows of words in the batch.

    A row without a gradient keeps its weights and its two running averages, where Adam moves the one and decays the others at every step.
    """

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update the rows that have a gradient. The closure is not called: Adam needs none."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None and not weight.grad.is_sparse:
                    weight.grad = weight.grad.to_sparse(1)
        super().step()  # type: ignore[no-untyped-call]


def _rows_of(gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the numbers of the rows that have a gradient, [n], and their gradients, [n, d]."""
    if gradient.is_sparse:
        gradient = gradient.coalesce()
        return gradient.indices()[0], gradient.values()
    # Dense on MPS, and where the student also uses the weights outside the embedding.
    rows = gradient.ne(0).any(dim=1).nonzero()[:, 0]
    return rows, gradient.index_select(0, rows)


def make_optimisers(module: torch.nn.Module, settings: Optimiser) -> list[torch.optim.Optimizer]:
    """Return the optimisers of a module's parameters: one for its embeddings, by row, and one for the others.

    AdamW updates every row at every step with weight decay, and on a GPU. Embeddings that are updated by row are set to sparse gradients,
    except on MPS, which lacks sparse tensors.
    """
    rate = settings.learning_rate
    tuned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    embeddings = [
        part for part in module.modules() if isinstance(part, torch.nn.Embedding) and part.weight.requires_grad
    ]
    adadelta = settings.name == "adadelta"
    by_row = {
        id(part.weight): part.weight
        for part in embeddings
        if adadelta or (part.weight.device.type == "cpu" and not settings.weight_decay)
    }
    for part in embeddings:
        part.sparse = id(part.weight) in by_row and part.weight.device.type != "mps"
    others = [parameter for parameter in tuned if id(parameter) not in by_row]
    made: list[torch.optim.Optimizer] = []
    if others and adadelta:
        made.append(torch.optim.Adadelta(others, lr=rate, rho=settings.rho))
    elif others:
        made.append(torch.optim.AdamW(others, lr=rate, weight_decay=settings.weight_decay, fused=True))
    if by_row:
        weights = by_row.values()
        made.append(RowAdadelta(weights, lr=rate, rho=settings.rho) if adadelta else RowAdam(weights, lr=rate))
    return made


def capturable_optimisers(module: torch.nn.Module, settings: Optimiser) -> list[torch.optim.Optimizer]:
    """Return optimisers with the same updates as those of `make_optimisers` on a GPU up to rounding, whose steps a CUDA graph can repeat.

    All gradients are dense, and every row is updated at every step: fewer kernels, of fixed shapes.
    """
    for part in module.modules():
        if isinstance(part, torch.nn.Embedding):
            part.sparse = False
    tuned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    on_gpu = tuned[0].device.type == "cuda"  # PyTorch refuses `capturable` on a CPU
    if settings.name == "adamw":
        decay = settings.weight_decay
        return [torch.optim.AdamW(tuned, settings.learning_rate, weight_decay=decay, fused=True, capturable=on_gpu)]
    return [torch.optim.Adadelta(tuned, settings.learning_rate, settings.rho, foreach=True, capturable=on_gpu)]
