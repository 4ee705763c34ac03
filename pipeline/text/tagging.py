"""Splits text into words with part-of-speech tags.

In pretokenised mode, text is split at white space, the tagger gets these words, and joining them with spaces gives the text back.
In raw mode, the words are the tagger's own tokens with the white space after each, so that joining them gives the same bytes. In the mode
`characters`, tokens in a script without spaces are cut into characters, unless the tagger segments its language.
The texts are tagged in shards, each of which returns arrays of tags: `nlp.pipe(n_process=...)` sends whole documents between
processes, which costs what it gains.
"""

import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import tables
from pipeline.console import progress
from pipeline.errors import InputError, not_installed
from pipeline.students import scripts
from pipeline.students.vocabulary import few_words
from pipeline.tables import MASK, SPLITS, TOKENS, VOCABULARY, TextMode, content_digests, id_digests

logger = logging.getLogger(__name__)

SEGMENTED = {"zh": "jieba", "ja": "sudachipy sudachidict_core", "th": "pythainlp"}
"""Languages without spaces that spaCy's tokenizers segment, and the packages that they need."""
SHARD = 1000
ROW_GROUP = 4_096
"""Rows of a row group of the tokens table, which is read at once."""
BATCH_CHARACTERS = 20_000
"""Characters that spaCy tags at a time: it needs 12 kB per word, and long texts are also faster in small batches."""

Tagged = tuple[list[str], list[str], list[str]]
"""The words, tags and following white space (empty in pretokenised mode) of one text."""


@dataclass(frozen=True)
class TaggedTexts:
    """The words and tags of n texts as flat arrays. Text i has `words[offsets[i]:offsets[i + 1]]`."""

    offsets: np.ndarray  # int64 [n + 1]
    words: pa.DictionaryArray  # string [words]
    tags: pa.DictionaryArray  # string [words]
    spaces: pa.DictionaryArray | None  # string [words], raw mode only


def tag_texts(
    texts: Iterable[str] | pa.ChunkedArray, tagger: str, mode: TextMode, workers: int | None = None
) -> TaggedTexts:
    """Return the tagged words of texts. They are tagged in parallel; the result does not depend on the number of workers.

    :param texts: None may be blank.
    :param tagger: "spacy:PIPELINE", any installed pipeline with a tagger, or "nltk:perceptron".
    :param workers: Processes; None for one per core.
    :raises InputError: If the tagger or its data is not installed.
    """
    from joblib import Parallel, delayed, effective_n_jobs

    if not isinstance(texts, pa.ChunkedArray):
        texts = pa.chunked_array([pa.array(list(texts), pa.string())])
    load_tagger(tagger, mode)  # raises here rather than in a worker
    starts = range(0, max(len(texts), 1), SHARD)
    shards = (texts.slice(start, SHARD).to_pylist() for start in starts)
    run = Parallel(n_jobs=min(workers or effective_n_jobs(-1), len(starts)), return_as="generator")
    tagged = []
    with progress(len(texts), "tagging", "texts") as advance:
        for shard in run(delayed(_tag_shard)(shard, tagger, mode) for shard in shards):
            tagged.append(shard)
            advance(len(shard[0]))
    counts, words, tags, spaces = zip(*tagged, strict=True)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(counts))])
    return TaggedTexts(offsets, _encode(words), _encode(tags), _encode(spaces) if mode != "pretokenised" else None)


def _encode(arrays: Sequence[pa.Array]) -> pa.DictionaryArray:
    """Return the strings with a sorted dictionary, so that the index of a string does not depend on the order of the rows."""
    strings = pa.chunked_array(arrays, pa.string())
    dictionary = strings.unique().sort()
    return pa.DictionaryArray.from_arrays(pc.index_in(strings, value_set=dictionary).combine_chunks(), dictionary)


def _tag_shard(texts: list[str], tagger: str, mode: TextMode) -> tuple[np.ndarray, pa.Array, pa.Array, pa.Array]:
    tagged = list(load_tagger(tagger, mode)(texts))
    counts = np.array([len(words) for words, _, _ in tagged], np.int64)
    words, tags, spaces = (pa.array(chain.from_iterable(text[i] for text in tagged), pa.string()) for i in range(3))
    return counts, words, tags, spaces


_loaded: dict[tuple[str, TextMode], Callable[[list[str]], Iterator[Tagged]]] = {}


def load_tagger(tagger: str, mode: TextMode) -> Callable[[list[str]], Iterator[Tagged]]:
    """Return a function from texts to their words, tags and white space. Each process loads a tagger once.

    :raises InputError: If it is not installed, with the command that installs it.
    """
    if (tagger, mode) not in _loaded:
        kind, _, name = tagger.partition(":")
        if find_spec(kind) is None:
            raise InputError(f"tagger {tagger}: {not_installed(kind)}")
        _loaded[tagger, mode] = {"spacy": _spacy, "nltk": _nltk}[kind](name, mode)
    return _loaded[tagger, mode]


def _spacy(name: str, mode: TextMode) -> Callable[[list[str]], Iterator[Tagged]]:
    blank = name.removeprefix("blank:") if name.startswith("blank:") else None
    try:
        import spacy
        from spacy.tokens import Doc

        if blank is not None:
            jieba = blank == "zh" and find_spec("jieba") is not None  # without it, into characters
            nlp = spacy.blank(blank, config={"nlp": {"tokenizer": {"segmenter": "jieba"}}} if jieba else {})
        else:
            nlp = spacy.load(name, exclude=["parser", "ner", "lemmatizer", "attribute_ruler", "senter"])
    except (TypeError, AttributeError) as error:  # spaCy calls the `load` of any package
        raise InputError(f"tagger spacy:{name}: {name} is no spaCy pipeline; set tag.tagger to one") from error
    except (ImportError, OSError) as error:
        if "E048" in str(error):
            raise InputError(
                f"tagger spacy:{name}: spaCy has no language {blank!r}; set tag.tagger to another one"
            ) from error
        needed = name if blank is None else SEGMENTED.get(blank, "")
        download = f" or `python -m spacy download {name}`," if blank is None else ""
        raise InputError(
            f"tagger spacy:{name}: {' '.join(str(error).split())}; install it with `pip install spacy {needed}`{download} or set "
            "tag.tagger to another one"
        ) from error
    nlp.max_length = sys.maxsize  # the limit is for the parser and NER, which are not loaded
    if "tagger" not in nlp.pipe_names and blank is None:
        raise InputError(f"tagger spacy:{name}: this pipeline has no tagger (it has {', '.join(nlp.pipe_names)})")

    def pretokenised(texts: list[str]) -> Iterator[Tagged]:
        docs = (Doc(nlp.vocab, words=words) for words in split_words(texts))
        for doc in nlp.pipe(docs, batch_size=_batch_size(texts)):
            yield [t.text for t in doc], [t.tag_ for t in doc], []

    def raw(texts: list[str]) -> Iterator[Tagged]:
        for doc in nlp.pipe(texts, batch_size=_batch_size(texts)):
            tagged = _fold_spaces(doc)
            yield _cut(tagged) if mode == "characters" and nlp.lang not in SEGMENTED else tagged

    return pretokenised if mode == "pretokenised" else raw


def _batch_size(texts: list[str]) -> int:
    return max(1, BATCH_CHARACTERS * len(texts) // max(1, sum(map(len, texts))))


def _fold_spaces(doc: Any) -> Tagged:
    """Return the words of a spaCy document with the white space after each.

    spaCy makes a token of white space beyond one space, which is not a word to augment.
    """
    words: list[str] = []
    tags: list[str] = []
    spaces: list[str] = []
    for token in doc:
        if token.is_space and words:
            spaces[-1] += token.text_with_ws
        else:
            words.append(token.text)
            tags.append(token.tag_)
            spaces.append(token.whitespace_)
    return words, tags, spaces


def _cut(tagged: Tagged) -> Tagged:
    """Cut words in scripts without spaces into characters, each with the tag of its word."""
    cut: Tagged = ([], [], [])
    for word, tag, space in zip(*tagged, strict=True):
        pieces = [word] if word.isascii() else re.findall(scripts.PIECE, word)
        cut[0].extend(pieces)
        cut[1].extend([tag] * len(pieces))
        cut[2].extend([*[""] * (len(pieces) - 1), space])
    return cut


def _nltk(name: str, mode: TextMode) -> Callable[[list[str]], Iterator[Tagged]]:
    if mode != "pretokenised":
        raise InputError(
            "tagger nltk:perceptron: it tags pretokenised text only; for raw text set tag.tagger to spacy:PIPELINE"
        )
    if name != "perceptron":
        raise InputError(f"tagger nltk:{name}: the only NLTK tagger is nltk:perceptron")
    try:
        from nltk.tag import PerceptronTagger

        perceptron = PerceptronTagger()
    except (ImportError, LookupError) as error:
        raise InputError(
            "tagger nltk:perceptron: not installed; install it with `pip install nltk` and "
            "`python -m nltk.downloader averaged_perceptron_tagger_eng`"
        ) from error

    def tag(texts: list[str]) -> Iterator[Tagged]:
        for words in split_words(texts):
            yield words, [tag for _, tag in perceptron.tag(words)], []

    return tag


def split_words(texts: list[str]) -> Iterator[list[str]]:
    """Split each text at Unicode white space."""
    return iter(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(pa.array(texts, pa.string()))).to_pylist())


def tokens_tables(
    examples: pa.Table, tagger: str, mode: TextMode, workers: int | None = None
) -> tuple[pa.Table, pa.Table, dict[str, Any]]:
    """Tag every sentence of the examples.

    :param examples: The table of tables.EXAMPLES. The other parameters are those of `tag_texts`.
    :return: The tables of tables.TOKENS, in the order of the ids, and of tables.VOCABULARY, and the metadata of both (tags, spaces,
        pairs, tagger, text, corpus).
    :raises InputError: If a sentence has no words or contains tables.MASK, or the tagger is not installed.
    """
    # Sorted, so that the order of the source does not matter.
    examples = tables.take(examples, pc.sort_indices(examples["id"]).to_numpy())
    pairs = examples["sentence2"].null_count < len(examples)
    n = len(examples)
    sides = [_checked(examples, f"sentence{number}") for number in ((1, 2) if pairs else (1,))]
    if warning := few_words(sides, mode):
        logger.warning("%s", warning)
    tagged = tag_texts(
        pa.chunked_array([chunk for side in sides for chunk in side.chunks], pa.string()), tagger, mode, workers
    )

    columns: dict[str, pa.Array] = {field.name: pa.nulls(n, field.type) for field in TOKENS}
    columns |= {"id": examples["id"], "split": examples["split"]}
    for side in range(len(sides)):
        offsets = pa.array(tagged.offsets[side * n : (side + 1) * n + 1], pa.int32())
        for name, strings in (("words", tagged.words), ("tags", tagged.tags), ("spaces", tagged.spaces)):
            if strings is not None:
                columns[f"{name}{side + 1}"] = pa.ListArray.from_arrays(offsets, strings.indices)
    tokens = pa.table(columns).cast(TOKENS)
    in_training = np.asarray(pc.equal(examples["split"].cast(pa.string()), SPLITS[0]))
    metadata = {
        "tags": tagged.tags.dictionary.to_pylist(),
        "spaces": tagged.spaces.dictionary.to_pylist() if tagged.spaces is not None else None,
        "pairs": pairs,
        "tagger": tagger,
        "text": mode,
        "corpus": tables.digest_of_rows(
            [tables.digest_rows(id_digests(examples["id"]), _digests_of_decoded(sides, mode), in_training).tobytes()]
        ),
    }
    return tokens, _vocabulary(tagged, np.tile(in_training, len(sides))), metadata


def _checked(examples: pa.Table, name: str) -> pa.ChunkedArray:
    """Return a column of sentences without white space at both ends; each has words and no [MASK]."""
    texts = pc.utf8_trim_whitespace(pc.fill_null(examples[name], ""))
    for wrong, where in (("has no words", pc.equal(texts, "")), (f"holds {MASK}", pc.match_substring(texts, MASK))):
        if (row := pc.index(where, True).as_py()) >= 0:
            raise InputError(
                f"examples.parquet: id {examples['id'][row]}: {name} {wrong}; run the prepare stage, which refuses such rows"
            )
    return texts


def _digests_of_decoded(sides: list[pa.ChunkedArray], mode: TextMode) -> np.ndarray:
    """Return the ids [rows, 2] of the texts that joining the words gives.

    They are the rows' ids, except in pretokenised examples of an earlier version, which can have several spaces between words.
    """
    if mode == "pretokenised":
        sides = [pc.binary_join(pc.utf8_split_whitespace(side), " ") for side in sides]
    return content_digests(*sides)


def write_tables(folder: Path, tokens: pa.Table, vocabulary: pa.Table, metadata: dict[str, Any]) -> None:
    """Write the tables of `tokens_tables`: tokens.parquet, with small row groups, and vocabulary.parquet."""
    tables.write(folder / "vocabulary.parquet", vocabulary, metadata)
    tables.write(folder / "tokens.parquet", tokens, metadata, ROW_GROUP)


def _vocabulary(tagged: TaggedTexts, in_training: np.ndarray) -> pa.Table:
    """Return the count of each (word, tag) in the training split; 0 if only other splits have it."""
    word, tag = np.asarray(tagged.words.indices), np.asarray(tagged.tags.indices)
    key = word.astype(np.int64) * len(tagged.tags.dictionary) + tag
    pairs = np.unique(key)
    known, number = np.unique(key[np.repeat(in_training, np.diff(tagged.offsets))], return_counts=True)
    counts = np.zeros(len(pairs), np.int64)
    counts[np.searchsorted(pairs, known)] = number
    word_id, tag_id = np.divmod(pairs, len(tagged.tags.dictionary))
    return pa.table(
        {
            "word_id": pa.array(word_id, pa.int32()),
            "word": tagged.words.dictionary.take(pa.array(word_id)),
            "tag_id": pa.array(tag_id, pa.int16()),
            "tag": tagged.tags.dictionary.take(pa.array(tag_id)),
            "count": pa.array(counts),
        }
    ).cast(VOCABULARY)
