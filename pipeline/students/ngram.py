"""The mean of word and n-gram vectors: no recurrence, so the fastest student."""

import torch
from torch import nn

from pipeline.students.files import PADDING
from pipeline.students.siamese import Siamese, real_words, word_vectors

_PRIME, _MODULUS = 1_000_003, 2**31 - 1  # their product with an id stays far below 2^63


class NgramMean(Siamese):
    """The concatenated means of a sentence's word vectors and of its n-grams' vectors, then a ReLU layer and the logits.

    Bags of words and hashed n-grams are fastText's classifier (Joulin et al. 2017, arXiv 1607.01759); the layer on top of the mean is
    that of deep averaging networks (Iyyer et al. 2015). A hash of its word ids selects the vector of an n-gram; n-grams with the same
    hash share a vector.

    :param n: The longest n-gram, in words; 1 for words alone.
    :param buckets: The number of n-gram vectors.
    :param dimensions: The dimensions of an n-gram's vector.
    :param classifier: Units of the ReLU layer; 0 for none, as in fastText.
    :param dropout: The dropout of the means.
    """

    def __init__(
        self,
        embeddings: torch.Tensor,
        classes: int,
        pairs: bool,
        n: int = 2,
        buckets: int = 50_000,
        dimensions: int = 50,
        classifier: int = 200,
        dropout: float = 0.0,
    ) -> None:
        if n < 1 or buckets < 1:
            raise ValueError(f"n: {n}, buckets: {buckets}: must be at least 1")
        super().__init__(embeddings.shape[1] + (dimensions if n > 1 else 0), classes, pairs, classifier, dropout)
        self.n, self.buckets = n, buckets
        # Not EmbeddingBag: with sparse gradients it is not faster on a CPU, and ONNX has no equivalent.
        self.words = word_vectors(embeddings)
        self.ngrams = nn.Embedding(1 + buckets, dimensions, padding_idx=PADDING) if n > 1 else None
        if self.ngrams is not None:
            nn.init.uniform_(self.ngrams.weight, -0.25, 0.25)  # the range of random word vectors
            with torch.no_grad():
                self.ngrams.weight[PADDING] = 0

    def encode(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the means, [B, d + dimensions]; see `Siamese.encode`."""
        real = real_words(ids, lengths)
        words: torch.Tensor = self.words(ids.masked_fill(~real, PADDING)).sum(dim=1) / lengths[:, None]
        if self.ngrams is None:
            return words
        buckets = self.hashed(ids, real)
        counts = (buckets != PADDING).sum(dim=1, keepdim=True).clamp(min=1)
        return torch.cat([words, self.ngrams(buckets).sum(dim=1) / counts], dim=-1)

    def hashed(self, ids: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Return the buckets of all n-grams of 2 to n words, int64 [B, (n - 1) * L], 0 where no n-gram starts; see `real_words`."""
        found = []
        hashes, whole = ids, real
        for size in range(2, self.n + 1):
            # The hash of the n-gram that starts at a word, from the hash of its words but the last, and the last.
            following = nn.functional.pad(ids[:, size - 1 :], (0, size - 1))[:, : ids.shape[1]]
            follows = nn.functional.pad(real[:, size - 1 :], (0, size - 1))[:, : ids.shape[1]]
            hashes = (hashes * _PRIME + following) % _MODULUS
            whole = whole & follows
            found.append((1 + hashes % self.buckets).masked_fill(~whole, PADDING))
        return torch.cat(found, dim=-1)
