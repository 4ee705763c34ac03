"""The table of word vectors: the embed stage writes it, training reads it, without spaCy."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import tables
from pipeline.errors import InputError
from pipeline.students.files import FIRST_WORD, PADDING
from pipeline.students.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch

RANDOM_DIMENSIONS = 300
"""The dimensions of random word vectors: those of word2vec, as in the paper."""

RANDOM_RANGE = 0.25
"""A word without a pretrained vector starts at U(-0.25, 0.25) in each dimension (Kim 2014, arXiv 1408.5882): about the size of
word2vec's vectors. Pretrained vectors are scaled to the same root mean square: spaCy's are 18 times as large and saturate an LSTM."""


class WordVectors(NamedTuple):
    """Words with a vector each."""

    words: Sequence[str]
    matrix: npt.NDArray[np.float32]
    """[words, dimensions]."""


def read_vectors(path: Path) -> WordVectors:
    """Read vectors.parquet, which the embed stage wrote.

    :raises InputError: If it is missing or has other columns.
    """
    words = tables.read(path, pa.schema([("word", pa.string())]))["word"]
    vectors = pq.read_table(path, columns=["vector"], partitioning=None)["vector"].combine_chunks()
    if not pa.types.is_fixed_size_list(vectors.type):
        raise InputError(f"{path}: column 'vector' is {vectors.type}, not a fixed-size list of float32")
    matrix = vectors.flatten().to_numpy().reshape(len(vectors), vectors.type.list_size)
    return WordVectors(words.to_pylist(), matrix)


def initial_embeddings(vocabulary: Vocabulary, vectors: WordVectors | None, seed: int) -> "torch.Tensor":
    """Return the initial embeddings of a student.

    :param vectors: Pretrained vectors, scaled by one factor to the size of random ones (RANDOM_RANGE). Words without one, unknown
        words and `[MASK]` start at random, padding at zero.
    :return: [V, dimensions], float32.
    """
    import torch  # the embed stage reads this module before OpenMP's variables are set

    dimensions = RANDOM_DIMENSIONS if vectors is None else vectors.matrix.shape[1]
    draws = np.random.default_rng(seed)
    table = draws.uniform(-RANDOM_RANGE, RANDOM_RANGE, (len(vocabulary), dimensions)).astype(np.float32)
    table[PADDING] = 0
    if vectors is not None:
        scale = RANDOM_RANGE / math.sqrt(3) / float(np.sqrt(np.square(vectors.matrix).mean()))
        known = pc.index_in(pa.array(vectors.words, pa.string()), value_set=pa.array(vocabulary.words, pa.string()))
        rows = known.fill_null(-1).to_numpy()
        table[FIRST_WORD + rows[rows >= 0]] = scale * vectors.matrix[rows >= 0]
    return torch.from_numpy(table)
