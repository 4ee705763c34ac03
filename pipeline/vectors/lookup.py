"""Pretrained word vectors, looked up once in the embed stage for the words of the training text."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import InputError
from pipeline.plugins import folders_of
from pipeline.students.vocabulary import Texts, count_words, split_words
from pipeline.tables import MASK, TextMode
from pipeline.vectors.files import read_text_vectors, read_word2vec, words_of_text, words_of_word2vec
from pipeline.vectors.table import WordVectors, vectors_schema

logger = logging.getLogger(__name__)


LISTED = 10_000
"""Words of a source that are looked through at a time."""


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
    return pa.table(
        [pa.array(found.words, pa.string()), vectors], schema=vectors_schema(found.matrix.shape[1])
    ), metadata


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
