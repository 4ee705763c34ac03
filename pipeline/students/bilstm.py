"""The paper's student: a single-layer bidirectional LSTM (Tang et al. 2019, section 3.1 of arXiv 1903.12136)."""

import torch
from torch import nn

from pipeline.students.recurrent import exported
from pipeline.students.siamese import Siamese, reversal, word_vectors
from pipeline.students.word_lstm import last_states


class BiLSTM(Siamese):
    """Two embedding channels, one LSTM layer in each direction, its last states into a ReLU layer, then the logits.

    One channel is frozen, the other is trained; both start at the given vectors, so an LSTM reads 2d numbers per word. Both sentences of a
    pair go through the same encoder, and the ReLU layer reads [h1, h2, h1 * h2, |h1 - h2|].

    :param hidden: Units of the LSTM, in each direction; the paper uses 150, and also tried 300.
    :param classifier: Units of the ReLU layer; the paper uses 200, and also tried 400.
    """

    def __init__(
        self, embeddings: torch.Tensor, classes: int, pairs: bool, hidden: int = 150, classifier: int = 200
    ) -> None:
        super().__init__(2 * hidden, classes, pairs, classifier)
        width = embeddings.shape[1]
        self.frozen = word_vectors(embeddings, frozen=True)
        self.tuned = word_vectors(embeddings)
        # A bidirectional layer as two layers of one direction; see `reversal`.
        self.forward_lstm = nn.LSTM(2 * width, hidden)
        self.backward_lstm = nn.LSTM(2 * width, hidden)

    def encode(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the forward state at the last word and the backward state at the first, [B, 2 * hidden]; see `Siamese.encode`."""
        # A subclass can have other layers, or override the methods below.
        if type(self) is BiLSTM and ids.device.type == "cpu" and not torch.onnx.is_in_onnx_export():
            return last_states(self.forward_lstm, self.backward_lstm, (self.frozen, self.tuned), ids, lengths)
        words = ids.T  # [L, B]
        if torch.onnx.is_in_onnx_export():
            return exported(self.forward_lstm, self.backward_lstm, self._vectors(words), lengths)[1]
        last = lengths - 1
        reversed_words = words.gather(0, reversal(ids, lengths))
        states = [self._last(self.forward_lstm, words, last), self._last(self.backward_lstm, reversed_words, last)]
        return torch.cat(states, dim=-1)

    def _last(self, lstm: nn.LSTM, words: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        states, _ = lstm(self._vectors(words))  # [L, B, hidden]
        at: torch.Tensor = last[None, :, None].expand(1, -1, states.shape[-1])
        found: torch.Tensor = states.gather(0, at)[0]
        return found

    def _vectors(self, words: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.frozen(words), self.tuned(words)], dim=-1)
