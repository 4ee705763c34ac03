"""The paper's student: a single-layer bidirectional LSTM (Tang et al. 2019, section 3.1 of arXiv 1903.12136)."""

from functools import partial

import torch
from torch import nn

from pipeline.students.base import Batch
from pipeline.students.vocabulary import PADDING


class BiLSTM(nn.Module):
    """Two embedding channels, one LSTM layer in each direction, its last states into a ReLU layer, then the logits.

    One channel is frozen, the other is tuned; both start at the given vectors, so an LSTM reads 2d numbers a word. A pair of
    sentences goes through the same encoder, and the ReLU layer reads [h1, h2, h1 * h2, |h1 - h2|].

    :param embeddings: Initial word vectors, float32 [V, d].
    :param classes: The number of classes C.
    :param pairs: Whether a text is a pair of sentences.
    :param hidden: Units of the LSTM, in each direction; the paper has 150, and tried 300.
    :param classifier: Units of the ReLU layer; the paper has 200, and tried 400.
    """

    def __init__(
        self, embeddings: torch.Tensor, classes: int, pairs: bool, hidden: int = 150, classifier: int = 200
    ) -> None:
        super().__init__()
        width = embeddings.shape[1]
        channel = partial(nn.Embedding.from_pretrained, padding_idx=PADDING)
        self.frozen = channel(embeddings.clone(), freeze=True)
        self.tuned = channel(embeddings.clone(), freeze=False)
        # Two layers of one direction are what a bidirectional one is. Each reads its words from the left, so that padding stands
        # behind the last state and no packing is needed: torch's fast CPU kernel and ONNX know no packed sequences.
        self.forward_lstm = nn.LSTM(2 * width, hidden)
        self.backward_lstm = nn.LSTM(2 * width, hidden)
        self.dense = nn.Linear(2 * hidden * (4 if pairs else 1), classifier)
        self.logits = nn.Linear(classifier, classes)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the logits, [B, C]."""
        features = self.encode(batch.ids1, batch.lengths1)
        if batch.ids2 is not None and batch.lengths2 is not None:
            other = self.encode(batch.ids2, batch.lengths2)
            features = torch.cat([features, other, features * other, (features - other).abs()], dim=-1)
        logits: torch.Tensor = self.logits(torch.relu(self.dense(features)))
        return logits

    def encode(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the last states of both directions.

        :param ids: Word ids, [B, L].
        :param lengths: Words of each sentence, [B], at least 1.
        :return: [B, 2 * hidden]: the forward state at the last word, the backward state at the first.
        """
        words = ids.T  # [L, B]
        last = lengths - 1
        steps = torch.arange(len(words), device=ids.device)[:, None]
        reversed_words = words.gather(0, (last - steps).clamp(min=0))
        states = [self._last(self.forward_lstm, words, last), self._last(self.backward_lstm, reversed_words, last)]
        return torch.cat(states, dim=-1)

    def _last(self, lstm: nn.LSTM, words: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        states, _ = lstm(torch.cat([self.frozen(words), self.tuned(words)], dim=-1))  # [L, B, hidden]
        found: torch.Tensor = states[last, torch.arange(len(last), device=last.device)]
        return found
