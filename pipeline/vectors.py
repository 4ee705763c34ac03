"""Pretrained word vectors: looked up once in the embed stage, read by training as a table of the words found."""

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from pipeline import tables
from pipeline.errors import InputError
from pipeline.packages import folders_of
from pipeline.students.vocabulary import FIRST_WORD, PADDING, TextMode, Texts, Vocabulary, count_words, split_words
from pipeline.tables import MASK
from pipeline.vector_files import read_text_vectors, read_word2vec, words_of_text, words_of_word2vec

logger = logging.getLogger(__name__)

RANDOM_DIMENSIONS = 300
"""The dimensions of the vectors of a student that starts from none: those of word2vec, as in the paper."""

LISTED = 10_000
"""Words of a source that are looked through at a time."""

RANDOM_RANGE = 0.25
"""A word without a pretrained vector starts at U(-0.25, 0.25) in each dimension (Kim 2014, arXiv 1408.5882): about the size of
word2vec's vectors. Pretrained ones are scaled to the same root mean square: spaCy's are 18 times as large, and saturate an LSTM."""


class WordVectors(NamedTuple):
    """Words with a vector each."""

    words: Sequence[str]
    matrix: npt.NDArray[np.float32]
    """[words, dimensions]."""


# --- looking up ---------------------------------------------------------------------------------------------------------

LookUp = Callable[[Sequence[str], Sequence[int]], tuple[WordVectors, dict[str, Any]]]
"""From words and how often each stands in the training text to those that have a vector, and what is told of the source."""


def look_up(source: str, words: Sequence[str], licence: str = "unknown") -> tuple[WordVectors, dict[str, Any]]:
    """Look up words in a source of pretrained vectors: as they are first, then in lower case.

    :param source: `spacy:PIPELINE`, an installed spaCy pipeline with vectors, of which only the vectors are read and nothing is
        imported; `word2vec:FILE`, binary; or `text:FILE`, of GloVe or fastText.
    :param words: The words.
    :param licence: Of a file; a pipeline tells its own.
    :return: The words found, in the order given, with their vectors; the source, its name, version and licence.
    :raises InputError: If there is no such source, or it has no vectors for whole words.
    """
    kind, _, place = source.partition(":")
    if kind == "spacy":
        return _look_up_spacy(source, words)
    read = {"word2vec": read_word2vec, "text": read_text_vectors}[kind]
    lower = [word.lower() for word in words]
    held = read(Path(place), list(dict.fromkeys([*words, *lower])))
    vectors = [held.get(word, held.get(other)) for word, other in zip(words, lower, strict=True)]
    found = [i for i, vector in enumerate(vectors) if vector is not None]
    matrix = np.array([vectors[i] for i in found], np.float32)
    about = {
        "source": source,
        "name": Path(place).name,
        "version": f"{Path(place).stat().st_size} bytes",
        "licence": licence,
    }
    return WordVectors([words[i] for i in found], matrix), about


def _look_up_spacy(source: str, words: Sequence[str]) -> tuple[WordVectors, dict[str, Any]]:
    folder, table = _spacy_table(source)
    rows = table.find(keys=words)
    rows = np.where(rows >= 0, rows, table.find(keys=[word.lower() for word in words]))
    found = np.flatnonzero(rows >= 0)
    matrix = np.asarray(table.data[rows[found]], dtype=np.float32)
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    about = {
        "source": source,
        "name": f"{meta['lang']}_{meta['name']}",
        "version": meta["version"],
        "licence": meta.get("license") or "unknown",
    }
    return WordVectors([words[i] for i in found.tolist()], matrix), about


def listed_words(source: str) -> Iterator[str]:
    """Yield the words that a source has vectors for, in its order, which is mostly from the commonest to the rarest.

    :param source: As in `look_up`. Of the words of a spaCy pipeline that share a vector, the first alone.
    :raises InputError: As in `look_up`.
    """
    kind, _, place = source.partition(":")
    if kind != "spacy":
        yield from {"word2vec": words_of_word2vec, "text": words_of_text}[kind](Path(place))
        return
    from spacy.strings import StringStore

    folder, table = _spacy_table(source)
    strings = StringStore().from_disk(folder / "vocab" / "strings.json")
    first: dict[int, int] = {}
    for key, row in table.key2row.items():
        first.setdefault(row, key)
    yield from (strings[key] for _, key in sorted(first.items()))


def _spacy_table(source: str) -> tuple[Path, Any]:
    """Return the folder of a spaCy pipeline and its table of vectors."""
    from spacy.vectors import Vectors

    folder = _spacy_folder(source.removeprefix("spacy:"))
    table = Vectors().from_disk(folder / "vocab", exclude=["strings"])
    if table.mode != "default":
        raise InputError(
            f"{folder}: its vectors are made from parts of words ({table.mode}); vectors of words are needed"
        )
    return folder, table


def _spacy_folder(package: str) -> Path:
    """Find the folder of a spaCy pipeline (meta.json, vocab/) inside an installed package without importing it."""
    roots = folders_of(package)
    if not roots:
        raise InputError(f"vectors {'spacy:' + package!r}: no such package; `pip install {package.replace('_', '-')}`")
    folders = [path.parent.parent for root in roots for path in sorted(root.glob("**/vocab/vectors"))]
    if len(folders) != 1 or not (folders[0] / "meta.json").is_file():
        raise InputError(f"vectors {'spacy:' + package!r}: {roots[0]} holds no spaCy pipeline with vectors")
    return folders[0]


def embed(
    source: str,
    columns: Sequence[Texts],
    text: TextMode,
    look: LookUp | None = None,
    listed: Iterable[str] = (),
    extra_words: int = 0,
) -> tuple[pa.Table, dict[str, Any]]:
    """Look up the vectors of all words of the training texts, and of some that are not in them.

    :param source: As in `look_up`, or whatever `look` looks into.
    :param columns: Columns of training texts: first sentences, second sentences.
    :param text: How they are split into words.
    :param look: What looks them up; `look_up` in the source where None.
    :param listed: Words of the source, the first ones first.
    :param extra_words: How many of those are taken, as long as they last. One that differs from a word of the texts, or from one before it, in
        its case alone is not.
    :return: A table of word and vector (fixed-size list<float32>), the commonest word first and extra words last, and metadata: the source,
        its version and licence, the share of types (distinct words) and of tokens (all words) of the texts that it covers, and the number
        of extra words.
    :raises InputError: As in `look_up`, or if no word of the texts has a vector.
    """
    counts = dict(count_words(columns, text))
    words = [*counts, *_others(counts, iter(listed), text, extra_words)]
    found, about = look_up(source, words) if look is None else look(words, [counts.get(word, 0) for word in words])
    covered = [word for word in found.words if word in counts]
    if not covered:
        raise InputError(f"vectors {source!r}: none of the {len(counts)} words of the training text has a vector")
    metadata = about | {
        "text": text,
        "types": round(len(covered) / len(counts), 4),
        "tokens": round(sum(counts[word] for word in covered) / sum(counts.values()), 4),
        "extra words": len(found.words) - len(covered),
    }
    logger.info(
        "%s: %d of %d words have a vector: %.1f%% of types, %.1f%% of tokens; %d other words",
        *(source, len(covered), len(counts), 100 * metadata["types"], 100 * metadata["tokens"]),
        metadata["extra words"],
    )
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(found.matrix.reshape(-1)), found.matrix.shape[1])
    return pa.table([pa.array(found.words, pa.string()), vectors], schema=_schema(found.matrix.shape[1])), metadata


def _others(known: Iterable[str], listed: Iterator[str], text: TextMode, many: int) -> list[str]:
    """Return the first words that are one word to a student, and not known in any case."""
    seen = {word.lower() for word in (*known, MASK)}
    found: list[str] = []
    while len(found) < many and (part := list(islice(listed, LISTED))):
        for word, split in zip(part, split_words(pa.array(part, pa.string()), text).to_pylist(), strict=True):
            if split == [word] and word.lower() not in seen:
                seen.add(word.lower())
                found.append(word)
    return found[:many]


# --- reading, without spaCy ---------------------------------------------------------------------------------------------


def _schema(dimensions: int) -> pa.Schema:
    return pa.schema([("word", pa.string()), ("vector", pa.list_(pa.float32(), dimensions))])


def read_vectors(path: Path) -> WordVectors:
    """Read the table that the embed stage wrote.

    :param path: vectors.parquet.
    :raises InputError: If it is missing or has other columns.
    """
    words = tables.read(path, pa.schema([("word", pa.string())]))["word"]
    vectors = pq.read_table(path, columns=["vector"], partitioning=None)["vector"].combine_chunks()
    if not pa.types.is_fixed_size_list(vectors.type):
        raise InputError(f"{path}: column 'vector' is {vectors.type}, not a fixed-size list of float32")
    matrix = vectors.flatten().to_numpy().reshape(len(vectors), vectors.type.list_size)
    return WordVectors(words.to_pylist(), matrix)


def initial_embeddings(vocabulary: Vocabulary, vectors: WordVectors | None, seed: int) -> torch.Tensor:
    """Return the embeddings that a student starts from.

    :param vocabulary: The student's.
    :param vectors: Pretrained vectors, scaled by one factor to the size of random ones (RANDOM_RANGE). Words without one, unknown
        words and `[MASK]` start at random, padding at zero.
    :param seed: Of the random ones.
    :return: [V, dimensions], float32.
    """
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
