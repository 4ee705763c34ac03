"""Kim's convolutional network (Kim 2014, arXiv 1408.5882): filters over words, max-pooling over time."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from pipeline.students.files import PADDING
from pipeline.students.siamese import Siamese, real_words, word_vectors


class CNN(Siamese):
    """Kim's CNN-non-static: filters of several widths over trained word vectors, the maximum of each filter, dropout, the logits.

    A filter reads every window of its width; of a shorter sentence it reads one window, with padding.

    :param widths: The widths of the filters, in words.
    :param filters: The number of filters of each width.
    :param classifier: Units of a ReLU layer before the logits; the paper has none.
    :param dropout: The dropout of the pooled values.
    """

    def __init__(
        self,
        embeddings: torch.Tensor,
        classes: int,
        pairs: bool,
        widths: Sequence[int] = (3, 4, 5),
        filters: int = 100,
        classifier: int = 0,
        dropout: float = 0.5,
    ) -> None:
        if not widths or min(widths) < 1:
            raise ValueError(f"widths: {list(widths)}: must be a list of positive numbers")
        super().__init__(len(widths) * filters, classes, pairs, classifier, dropout)
        self.embedding = word_vectors(embeddings)
        self.convolutions = nn.ModuleList(nn.Conv1d(embeddings.shape[1], filters, width) for width in widths)

    def encode(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the maximum of each filter, [B, widths * filters]; see `Siamese.encode`."""
        real = real_words(ids, lengths)
        words = self.embedding(ids.masked_fill(~real, PADDING)).transpose(1, 2)  # [B, d, L]; padding is zero
        places = torch.arange(ids.shape[1], device=ids.device)
        pooled = []
        for convolution in self.convolutions:
            (width,) = convolution.kernel_size  # type: ignore[misc]
            values = torch.relu(convolution(F.pad(words, (0, width - 1))))  # [B, filters, L]
            windows = places < (lengths - width + 1).clamp(min=1)[:, None]
            pooled.append((values * windows[:, None, :]).amax(dim=-1))  # a ReLU gives no number below zero
        return torch.cat(pooled, dim=-1)
