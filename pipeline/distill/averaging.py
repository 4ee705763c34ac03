"""The moving average of a student's weights over training, which stands still where the weights jump about."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from pipeline.distill.checkpoint import Tensors, learnt

EVERY = 10
"""Batches from one look at the weights to the next: each look walks through all word vectors, which takes a fifth as long as a small batch."""


class MovingAverage:
    """The exponential moving average of what a module learns (Polyak and Juditsky 1992, doi 10.1137/0330046, with weights that fade).

    Before the k-th look (from 1) the decay is at most k / (k + 9), so that the random weights of the beginning are soon forgotten.

    :param module: The student as it was built.
    :param decay: The share of the average that stays at each batch.
    """

    def __init__(self, module: torch.nn.Module, decay: float) -> None:
        self.module, self.decay = module, decay
        self.weights = learnt(module)

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Go on from an average of before."""
        self.weights = dict(weights)

    @torch.no_grad()
    def update(self, epoch: int, batch: int, batches: int) -> None:
        """Look at the weights after a batch, if it is one to look after: every EVERY-th, and the last of an epoch, which is measured.

        :param epoch: Which epoch, from 0.
        :param batch: Which of its batches, from 0.
        :param batches: How many it has.
        """
        since = batch % EVERY + 1
        if since < EVERY and batch < batches - 1:
            return
        looks = epoch * -(-batches // EVERY) + batch // EVERY + 1
        share = max(1 - self.decay**since, 9 / (looks + 9))
        now = self.module.state_dict()
        for name, average in self.weights.items():
            if average.is_floating_point():
                average.lerp_(now[name], share)
            else:
                average.copy_(now[name])  # a count

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the module the averaged weights, and its own ones back afterwards."""
        own: Tensors = learnt(self.module)
        self.module.load_state_dict(self.weights, strict=False)
        try:
            yield
        finally:
            self.module.load_state_dict(own, strict=False)
