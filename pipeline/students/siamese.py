"""The base class of the built-in students: one encoder for both sentences of a pair, the paper's features of a pair, the last layers."""

from abc import ABC, abstractmethod

import torch
from torch import nn

from pipeline.students.contract import Batch
from pipeline.students.files import PADDING


class Siamese(nn.Module, ABC):
    """A student that encodes a sentence as a vector, and computes logits from one vector or two.

    Both sentences of a pair go through one encoder, and the features are [h1, h2, h1 * h2, |h1 - h2|] (Tang et al. 2019, section 3.1 of
    arXiv 1903.12136). A subclass implements `encode`.

    :param width: The size of an encoded sentence.
    :param classifier: Units of the ReLU layer before the logits; 0 for none.
    :param dropout: The dropout of the features.
    """

    def __init__(self, width: int, classes: int, pairs: bool, classifier: int, dropout: float = 0.0) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: {dropout}: must be at least 0 and less than 1")
        features = width * (4 if pairs else 1)
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(features, classifier) if classifier else None
        self.logits = nn.Linear(classifier or features, classes)

    @abstractmethod
    def encode(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the vectors of sentences, [B, width], from word ids, [B, L], and the words of each sentence, [B], at least 1.

        They are the same whatever ids the padding has.
        """

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the logits, [B, C]."""
        features = self.encode(batch.ids1, batch.lengths1)
        if batch.ids2 is not None and batch.lengths2 is not None:
            second = self.encode(batch.ids2, batch.lengths2)
            features = torch.cat([features, second, features * second, (features - second).abs()], dim=-1)
        features = self.dropout(features)
        if self.dense is not None:
            features = torch.relu(self.dense(features))
        logits: torch.Tensor = self.logits(features)
        return logits


def word_vectors(embeddings: torch.Tensor, frozen: bool = False) -> nn.Embedding:
    """Return an embedding that starts at a copy of given vectors, float32 [V, d]; training leaves frozen ones unchanged."""
    made: nn.Embedding = nn.Embedding.from_pretrained(  # type: ignore[no-untyped-call]
        embeddings.clone(), freeze=frozen, padding_idx=PADDING
    )
    return made


def real_words(ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Return True for words and False for padding, bool [B, L], from word ids [B, L] and the words of each sentence [B]."""
    return torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]


def reversal(ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Return the indices that reverse each sentence and keep its padding on the right.

    An LSTM that reads a reversed sentence thus reaches its last state before the padding. Sequences are not packed: torch's fast CPU kernel and
    ONNX do not support packed sequences.

    :return: int64 [L, B], for `gather` along the first dimension; in the padding it is 0.
    """
    steps = torch.arange(ids.shape[1], device=ids.device)[:, None]
    return (lengths - 1 - steps).clamp(min=0)
