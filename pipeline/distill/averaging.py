"""The moving average of a student's weights over training, which changes smoothly where the weights fluctuate."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.distill.checkpoint import Tensors, learned

EVERY = 10
"""Batches between two updates of the average: an update reads all word vectors, which takes a fifth of the time of a small batch."""


class MovingAverage:
    """The exponential moving average of the weights that a module learns (after Polyak and Juditsky 1992, doi 10.1137/0330046, who take a plain mean).

    At the k-th update (from 1) the decay is at most k / (k + 9), so that the random initial weights soon lose their influence.

    :param decay: The share of the average that remains at each batch.
    """

    def __init__(self, module: torch.nn.Module, decay: float) -> None:
        self.module, self.decay = module, decay
        self.weights = learned(module)

    @torch.no_grad()
    def update(self, epoch: int, batch: int, batches: int) -> None:
        """Update the average after a batch, if it is an EVERY-th one or the last of its epoch, after which the student is measured.

        :param epoch: The epoch, from 0.
        :param batch: The batch in the epoch, from 0; an epoch has `batches` of them.
        """
        since = batch % EVERY + 1
        if since < EVERY and batch < batches - 1:
            return
        updates = epoch * -(-batches // EVERY) + batch // EVERY + 1
        share = max(1 - self.decay**since, 9 / (updates + 9))
        now = self.module.state_dict()
        floats = [name for name, average in self.weights.items() if average.is_floating_point()]
        # One kernel on a GPU. The share changes from update to update, so that it is no part of a captured step.
        torch._foreach_lerp_([self.weights[name] for name in floats], [now[name] for name in floats], share)
        for name in self.weights.keys() - set(floats):
            self.weights[name].copy_(now[name])  # a counter, such as BatchNorm's

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the module the averaged weights, and restore its own weights afterwards."""
        own: Tensors = learned(self.module)
        self.module.load_state_dict(self.weights, strict=False)
        try:
            yield
        finally:
            self.module.load_state_dict(own, strict=False)
