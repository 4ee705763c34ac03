"""The lookup of pretrained word vectors: once, in the embed stage, for the words that students train on."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import tables
from pipeline.errors import InputError
from pipeline.plugins import folders_of
from pipeline.students.vocabulary import Texts, count_words, split_words
from pipeline.tables import MASK, TextMode
from pipeline.vectors.files import read_text_vectors, read_word2vec, words_of_text, words_of_word2vec
from pipeline.vectors.table import WordVectors

logger = logging.getLogger(__name__)

LISTED = 10_000
"""Words of a source that are read at a time."""

FORMATS = {"word2vec": (read_word2vec, words_of_word2vec), "text": (read_text_vectors, words_of_text)}
"""By kind of a source: the reader of vectors, and the reader of words."""

LookUp = Callable[[Sequence[str]], tuple[WordVectors, dict[str, Any]]]
"""From words to the ones that have a vector, and the source with its name, version and licence."""


def look_up(source: str, words: Sequence[str], licence: str = "unknown") -> tuple[WordVectors, dict[str, Any]]:
    """Look up words in a source of pretrained vectors: in their own case first, then in lower case.

    :param source: `spacy:PIPELINE`, an installed spaCy pipeline with vectors, of which the vectors are read and nothing is imported; `word2vec:FILE`, binary; or `text:FILE`, of GloVe or fastText.
    :param licence: The licence of a file; a pipeline has its own.
    :return: The words that have a vector, in the order of `words`, with their vectors; the source, its name, version and licence.
    :raises InputError: If the source is not found, or has no vectors of whole words.
    """
    kind, _, place = source.partition(":")
    lower = [word.lower() for word in words]
    if kind == "spacy":
        folder, table = _spacy_table(place)
        rows = table.find(keys=words)
        rows = np.where(rows >= 0, rows, table.find(keys=lower))
        found = np.flatnonzero(rows >= 0).tolist()
        matrix = np.asarray(table.data[rows[found]], np.float32)
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        name, version = f"{meta['lang']}_{meta['name']}", meta["version"]
        licence = meta.get("license") or "unknown"
    else:
        by_word = FORMATS[kind][0](Path(place), list(dict.fromkeys([*words, *lower])))
        vectors = [by_word.get(word, by_word.get(other)) for word, other in zip(words, lower, strict=True)]
        found = [i for i, vector in enumerate(vectors) if vector is not None]
        matrix = np.array([vectors[i] for i in found], np.float32)
        name, version = Path(place).name, f"{Path(place).stat().st_size} bytes"
    with np.errstate(over="ignore"):
        size = float(np.square(matrix).mean()) if found else 1.0
    if not 0 < size < np.inf:  # training scales by it
        wrong = "are all zero or close to it" if size == 0 else "hold numbers that are too large or not finite"
        raise InputError(f"vectors {source!r}: the {len(found):,} vectors of the task's words {wrong}")
    about = {"source": source, "name": name, "version": version, "licence": licence}
    return WordVectors([words[i] for i in found], matrix), about


def listed_words(source: str) -> Iterator[str]:
    """Yield the words of a source in its order, which in most sources is from frequent to rare.

    :param source: As in `look_up`. Where words of a spaCy pipeline share a vector, the first one is yielded.
    :raises InputError: As in `look_up`.
    """
    kind, _, place = source.partition(":")
    if kind != "spacy":
        yield from FORMATS[kind][1](Path(place))
        return
    from spacy.strings import StringStore

    folder, table = _spacy_table(place)
    strings = StringStore().from_disk(folder / "vocab" / "strings.json")
    first: dict[int, int] = {}
    for key, row in table.key2row.items():
        first.setdefault(row, key)
    yield from (strings[key] for _, key in sorted(first.items()))


def _spacy_table(package: str) -> tuple[Path, Any]:
    """Return the folder of a spaCy pipeline (meta.json, vocab/) and its table of vectors. Its package is not imported."""
    from spacy.vectors import Vectors

    roots = folders_of(package)
    if not roots:
        raise InputError(f"vectors {'spacy:' + package!r}: no such package; `pip install {package.replace('_', '-')}`")
    folders = [path.parent.parent for root in roots for path in sorted(root.glob("**/vocab/vectors"))]
    if len(folders) != 1 or not (folders[0] / "meta.json").is_file():
        raise InputError(f"vectors {'spacy:' + package!r}: {roots[0]} holds no spaCy pipeline with vectors")
    table = Vectors().from_disk(folders[0] / "vocab", exclude=["strings"])
    if table.mode != "default":
        raise InputError(
            f"{folders[0]}: its vectors are of parts of words ({table.mode}); name a pipeline with vectors of whole words"
        )
    return folders[0], table


def words_of(files: Iterable[Path], text: TextMode) -> list[str]:
    """Return the words of augmented rows, the most frequent first, without `[MASK]`. One file at a time is in memory.

    :param files: Files in the schema of `tables.AUGMENTED`.
    :raises InputError: If a file does not hold augmented rows.
    """
    return words_in((tables.read(file, tables.AUGMENTED, ["sentence1", "sentence2"]) for file in files), text)


def words_in(parts: Iterable[pa.Table], text: TextMode) -> list[str]:
    """Return the words of augmented rows, as `words_of`, from tables of sentence1 and sentence2."""
    columns = (column.drop_null() for part in parts for column in part.columns)
    return [word for word, _ in count_words(columns, text) if word != MASK]


def embed(
    source: str,
    columns: Iterable[Texts],
    text: TextMode,
    look: LookUp,
    listed: Iterable[str] = (),
    extra_words: int = 0,
    augmented: Iterable[str] = (),
) -> tuple[pa.Table, dict[str, Any]]:
    """Look up the vectors of all words of the training texts, of the augmented rows, and of the first words of the source.

    :param source: Its name, for the log and for errors.
    :param columns: Columns of training texts, of first or of second sentences.
    :param listed: The words of the source, in its order.
    :param extra_words: The number of these to add. A word is left out if it differs only in case from a word of the texts, of the augmented
        rows, or from an earlier one of the source.
    :param augmented: The words of the augmented rows. A rule can add words that are not in the training texts, such as synonyms.
    :return: A table of word and vector (fixed-size list<float32>), and its metadata. Words of the training texts come first, then those of the
        augmented rows, each the most frequent first, then the extra words. Metadata: the source, its version and licence; the share of types
        (distinct words) and of tokens (all words) of the training texts that have a vector; the number of extra words; and, if there are any,
        the number of words that only augmented rows have.
    :raises InputError: As `look`, or if no word of the training texts has a vector.
    """
    counts = dict(count_words(columns, text))
    added = [word for word in augmented if word not in counts]
    words = [*counts, *added, *_others([*counts, *added], iter(listed), text, extra_words)]
    found, about = look(words)
    covered = [word for word in found.words if word in counts]
    if not covered:
        raise InputError(f"vectors {source!r}: none of the {len(counts)} words of the training text has a vector")
    covered_added = len(set(added).intersection(found.words))
    extra = len(found.words) - len(covered) - covered_added
    types, tokens = len(covered) / len(counts), sum(counts[word] for word in covered) / sum(counts.values())
    metadata = about | {"text": text, "types": round(types, 4), "tokens": round(tokens, 4), "extra words": extra}
    if covered_added:
        metadata["augmented words"] = covered_added
    logger.info(
        "%s: %d of %d words of the training text have a vector: %.1f%% of types, %.1f%% of tokens",
        *(source, len(covered), len(counts), 100 * types, 100 * tokens),
    )
    if added or extra:
        logger.info("%s: %d more words occur only in augmented rows; %d extra words", source, covered_added, extra)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(found.matrix.reshape(-1)), found.matrix.shape[1])
    return pa.table({"word": pa.array(found.words, pa.string()), "vector": vectors}), metadata


def _others(known: Iterable[str], listed: Iterator[str], text: TextMode, many: int) -> list[str]:
    """Return the first words that a student reads as one word and that differ from the known ones in more than case."""
    seen = {word.lower() for word in (*known, MASK)}
    found: list[str] = []
    while len(found) < many and (part := list(islice(listed, LISTED))):
        for word, split in zip(part, split_words(pa.array(part, pa.string()), text).to_pylist(), strict=True):
            if split == [word] and word.lower() not in seen:
                seen.add(word.lower())
                found.append(word)
    return found[:many]
