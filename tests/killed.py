"""A student that kills its process in the middle of training, where the environment says so; or only itself. For tests of resuming."""

import os
import signal

import torch
from torch import nn

from pipeline.students.contract import Batch


class EndedError(BaseException):
    """The end of a training that is not the process's, and not an error of the student."""


class Killed(nn.Module):
    """The mean of the word vectors, dropout, one layer; the process dies at the forward call that KILL_AT numbers, or END_AT ends it."""

    def __init__(self, embeddings: torch.Tensor, classes: int, pairs: bool) -> None:
        super().__init__()
        self.words = nn.Embedding.from_pretrained(embeddings, freeze=False, padding_idx=0)
        self.frozen = nn.Embedding.from_pretrained(embeddings.clone(), padding_idx=0)
        self.dropout = nn.Dropout(0.3)
        self.logits = nn.Linear(embeddings.shape[1], classes)
        self.calls = 0

    def forward(self, batch: Batch) -> torch.Tensor:
        self.calls += 1
        if str(self.calls) == os.environ.get("KILL_AT"):
            os.kill(os.getpid(), getattr(signal, os.environ.get("KILL_BY", "SIGKILL")))
        if str(self.calls) == os.environ.get("END_AT"):
            raise EndedError
        summed = (self.words(batch.ids1) + self.frozen(batch.ids1)).sum(dim=1)
        return self.logits(self.dropout(summed / batch.lengths1[:, None]))
