"""Two bidirectional LSTM layers with max-pooling over time: more accurate than the paper's student at about the same size."""

import torch
from torch import nn

from pipeline.students.recurrent import exported
from pipeline.students.siamese import Siamese, real_words, reversal, word_vectors


class BiLSTM2(Siamese):
    """Trained word vectors, two bidirectional LSTM layers, the maximum of each unit over the words, a ReLU layer, the logits.

    Max-pooling over the states of a bidirectional LSTM is InferSent's encoder (Conneau et al. 2017, arXiv 1705.02364). The defaults give
    0.89 M parameters in addition to 300-d word vectors.

    :param hidden: Units of each LSTM layer, in each direction.
    :param classifier: Units of the ReLU layer.
    :param dropout: The dropout before each layer.
    """

    def __init__(
        self,
        embeddings: torch.Tensor,
        classes: int,
        pairs: bool,
        hidden: int = 128,
        classifier: int = 200,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(2 * hidden, classes, pairs, classifier, dropout)
        self.embedding = word_vectors(embeddings)
        widths = (embeddings.shape[1], 2 * hidden)
        self.forward_lstms = nn.ModuleList(nn.LSTM(width, hidden) for width in widths)
        self.backward_lstms = nn.ModuleList(nn.LSTM(width, hidden) for width in widths)

    def encode(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the pooled states, [B, 2 * hidden]; see `Siamese.encode`."""
        backwards = reversal(ids, lengths)[:, :, None]
        states = self.embedding(ids.T)  # [L, B, d]
        for forward, backward in zip(self.forward_lstms, self.backward_lstms, strict=True):
            states = self.dropout(states)
            if torch.onnx.is_in_onnx_export():
                states, _ = exported(forward, backward, states, lengths)  # type: ignore[arg-type]
                continue
            back, _ = backward(states.gather(0, backwards.expand_as(states)))
            back = back.gather(0, backwards.expand_as(back))  # in the order of the words again
            states = torch.cat([forward(states)[0], back], dim=-1)  # [L, B, 2 * hidden]
        padding = ~real_words(ids, lengths).T[:, :, None]
        pooled: torch.Tensor = states.masked_fill(padding, -1.0).amax(dim=0)  # an LSTM's states are greater than -1
        return pooled
