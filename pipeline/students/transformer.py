"""A small Transformer encoder, trained from word vectors."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from pipeline.students.files import PADDING
from pipeline.students.siamese import Siamese, real_words, word_vectors


class Layer(nn.Module):
    """One layer with normalisation before attention and before the feed-forward network (pre-LN, Xiong et al. 2020, arXiv 2002.04745).

    Pre-LN needs no warm-up of the learning rate.

    :param width: The size of a word's state.
    :param heads: Attention heads.
    :param inner: Units of the feed-forward network.
    :param dropout: The dropout of both residual branches.
    """

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.inner_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, words: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Return the words' next states, [B, L, width]; `real` is as from `real_words`."""
        batch, length, width = words.shape
        parts = self.query_key_value(self.attention_norm(words)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # [B, heads, L, width / heads] each
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=real[:, None, None, :])
        words = words + self.dropout(self.output(seen.transpose(1, 2).reshape(batch, length, width)))
        inner: torch.Tensor = self.down(F.gelu(self.up(self.inner_norm(words))))
        states: torch.Tensor = words + self.dropout(inner)
        return states


class Transformer(Siamese):
    """Trained word vectors, a projection, positions, Transformer layers, the mean over the words, a ReLU layer, the logits.

    Positions are the sines and cosines of Vaswani et al. 2017 (arXiv 1706.03762, section 3.5), so that a text can have any length.
    The defaults give 0.66 M parameters in addition to 300-d word vectors. Train it with AdamW.

    :param layers: The number of Transformer layers.
    :param width: The size of a word's state; a multiple of 2 * heads.
    :param heads: Attention heads.
    :param inner: Units of a layer's feed-forward network.
    :param classifier: Units of the ReLU layer.
    :param dropout: The dropout of words, residual branches and features.
    """

    def __init__(
        self,
        embeddings: torch.Tensor,
        classes: int,
        pairs: bool,
        layers: int = 3,
        width: int = 128,
        heads: int = 4,
        inner: int = 512,
        classifier: int = 200,
        dropout: float = 0.1,
    ) -> None:
        if heads < 1 or width % (2 * heads):
            raise ValueError(f"width: {width}: must be a multiple of twice the heads, {heads}")
        super().__init__(width, classes, pairs, classifier, dropout)
        self.width = width
        self.embedding = word_vectors(embeddings)
        self.projection = nn.Linear(embeddings.shape[1], width)
        self.layers = nn.ModuleList(Layer(width, heads, inner, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def encode(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the mean of the words' last states, [B, width]; see `Siamese.encode`."""
        real = real_words(ids, lengths)
        words = self.projection(self.embedding(ids.masked_fill(~real, PADDING)))
        words = self.dropout(words + self.positions(ids.shape[1], words))
        for layer in self.layers:
            words = layer(words, real)
        kept = self.norm(words) * real[:, :, None]
        mean: torch.Tensor = kept.sum(dim=1) / lengths[:, None]
        return mean

    def positions(self, length: int, like: torch.Tensor) -> torch.Tensor:
        """Return the vectors of positions, [length, width], with the device and dtype of `like`."""
        places = torch.arange(length, device=like.device, dtype=torch.float32)[:, None]
        even = torch.arange(0, self.width, 2, device=like.device, dtype=torch.float32)
        angles = places * torch.exp(even * (-math.log(10_000.0) / self.width))
        return torch.cat([angles.sin(), angles.cos()], dim=-1).to(like.dtype)
