"""Writes unlabelled text as the text of a task is written: cut into sentences, in its case, and tokenised if the task is pretokenised."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.console import progress
from pipeline.errors import InputError, not_installed
from pipeline.tables import MASK
from pipeline.text import cleaning
from pipeline.text.rows import SCHEMA, SourceRows

DOCUMENTS = 500
"""Documents that a worker cuts at a time."""
CAPITALS = 0.01
"""The share of texts with a capital letter up to which text counts as lower-cased."""

_BREAK = r"(?i)<br\s*/?>"
_PARAGRAPHS = re.compile(r"\n\s*\n")
_CLITIC = re.compile(r"n't|'(s|m|d|ll|re|ve)", re.IGNORECASE)
_QUOTES = {"``": '"', "''": '"'}
_BARE = {f"{_BREAK}|{cleaning.ANY}+": "", "[\u2018\u2019]": "'", "[\u201c\u201d]|``|''": '"'}
_TYPOGRAPHIC = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")


@dataclass(frozen=True)
class Style:
    """How the text of a task is written.

    :param lower: Without capital letters.
    :param tokenised: Words are separated by white space. The rest counts for such text alone.
    :param whole: Contractions such as `it's` are one word. Penn Treebank has two: `it 's`.
    :param quotes: Penn Treebank's quotes, ``` `` ``` and `''`, are the words of quotes.
    :param typographic: Apostrophes and quotes have typographic forms; otherwise those are replaced.
    :param marks: The runs of punctuation, such as `...`, that are one word; any other run is a word for each character.
    """

    lower: bool
    tokenised: bool
    whole: bool = False
    quotes: bool = False
    typographic: bool = False
    marks: frozenset[str] = frozenset()

    @classmethod
    def of(cls, words: Mapping[str, int], capitals: float, tokenised: bool) -> "Style":
        """Return the style of texts.

        :param words: The count of each word, split at white space.
        :param capitals: The share of the texts with a capital letter.
        """
        clitics = {True: 0, False: 0}
        for word, count in words.items():
            if "'" in word and (found := re.search(r"(n't|'(s|m|d|ll|re|ve))$", word, re.IGNORECASE)):
                clitics[found.start() > 0] += count
        marks = {word for word in words if len(word) > 1 and not re.search(r"\w", word)}
        return cls(
            lower=capitals <= CAPITALS,
            tokenised=tokenised,
            whole=clitics[True] > clitics[False],
            quotes="``" in words,
            typographic=any(re.search("[\u2018\u2019\u201c\u201d]", word) for word in words),
            marks=frozenset(marks | set(_QUOTES) if "``" in words else marks),
        )

    def words(self, tokens: list[str]) -> Iterator[str]:
        """Yield Penn Treebank's words of a sentence as the words of this style."""
        waiting = ""
        for token in tokens:
            if self.whole and waiting and _CLITIC.fullmatch(token):
                waiting += token
                continue
            if waiting:
                yield waiting
            waiting = ""
            token = token if self.quotes else _QUOTES.get(token, token)
            if len(token) > 1 and token not in self.marks and not re.search(r"\w", token):
                yield from token
            else:
                waiting = token
        if waiting:
            yield waiting


def written(
    rows: SourceRows,
    style: Style,
    language: str | None,
    scratch: Path | None = None,
    workers: int | None = None,
    look: Callable[[np.ndarray[Any, Any], pa.Array], None] | None = None,
) -> SourceRows:
    """Return rows in the style of a task. They keep their lines and faults. A text with [MASK] stays as it is: `Check` finds it.

    :param language: spaCy's code of the language, to cut each document into sentences, which are tokenised if the style is; None: rows stay
        whole. A document without a sentence is one row.
    :param scratch: As in `SourceRows`.
    :param workers: Processes; None for one per core. The result does not depend on it.
    :param look: Called with documents that were cut: the number of sentences of each, and the documents.
    :raises InputError: If a package is missing, or spaCy has no such language.
    """
    if language is None and not style.lower:
        return rows
    found = SourceRows(rows.name, scratch, left_out=rows.left_out)
    starts = [np.zeros(1, np.int64)]  # of each row in what is found
    if language is None:
        for _, batch in rows.batches():
            starts.append(np.ones(len(batch), np.int64))
            found.append(_lowered(batch))
    else:
        for counts, batch, documents in _cut(rows, style, language, workers):
            starts.append(counts)
            found.append(batch)
            if look is not None:
                look(counts, documents)
    ends = np.cumsum(np.concatenate(starts))
    found.parts = [(int(ends[first]), name) for first, name in rows.parts]
    found.faults = {int(ends[position]): fault for position, fault in rows.faults.items()}
    return found


def bare(texts: pa.Array) -> pa.Array:
    """Return texts without white space and HTML's line breaks, in lower case, with plain quotes: equal however a text was written; "" for a null."""
    found = pc.utf8_lower(pc.fill_null(texts, ""))
    for pattern, plain in _BARE.items():
        found = pc.replace_substring_regex(found, pattern, plain)
    return found


def _lowered(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [_lower(batch[name]) if name.startswith("sentence") else batch[name] for name in SCHEMA.names]
    return pa.record_batch(columns, schema=SCHEMA)


def _lower(texts: pa.Array) -> pa.Array:
    return pc.if_else(pc.match_substring(texts, MASK), texts, pc.utf8_lower(texts))


def _cut(
    rows: SourceRows, style: Style, language: str, workers: int | None
) -> Iterator[tuple[np.ndarray[Any, Any], pa.RecordBatch, pa.Array]]:
    """Yield the sentences of some documents at a time: the number of each document's, at least 1, the sentences, and the documents."""
    from joblib import Parallel, delayed, effective_n_jobs

    check_language(language, style.tokenised)  # raises here rather than in a worker

    def parts() -> Iterator[pa.RecordBatch]:
        for _, batch in rows.batches():
            yield from (batch.slice(begin, DOCUMENTS) for begin in range(0, len(batch), DOCUMENTS))

    processes = min(workers or effective_n_jobs(-1), 1 + len(rows) // DOCUMENTS)
    run = Parallel(n_jobs=processes, return_as="generator")
    with progress(len(rows), "cutting into sentences", "texts") as advance:
        cut = run(delayed(cut_batch)(part, style, language) for part in parts())
        for (counts, batch), part in zip(cut, parts(), strict=True):
            yield counts, batch, part["sentence1"]
            advance(len(counts))


def cut_batch(batch: pa.RecordBatch, style: Style, language: str) -> tuple[np.ndarray[Any, Any], pa.RecordBatch]:
    """Return the number of sentences of each document, at least 1, and the sentences with the lines of their documents."""
    cut, tokenise = sentencizer(language), partial(_tokenised, style=style) if style.tokenised else str
    documents = pc.replace_substring_regex(batch["sentence1"], _BREAK, "\n\n").to_pylist()
    sentences: list[list[str | None]] = [[*cut(text)] if text else [text] for text in documents]
    counts = np.array([max(1, len(each)) for each in sentences], np.int64)
    texts = pa.array(chain.from_iterable(each or [""] for each in sentences), pa.string())
    if style.lower:
        texts = _lower(texts)
    if style.tokenised:
        texts = pa.array(
            [text if not text or MASK in text else tokenise(text) for text in texts.to_pylist()], pa.string()
        )
    none = pa.nulls(len(texts), pa.string())
    return counts, pa.record_batch([np.repeat(np.asarray(batch["line"]), counts), texts, none, none], schema=SCHEMA)


def check_language(language: str, tokenise: bool) -> None:
    """Check that sentences of a language can be cut and, if asked for, tokenised.

    :raises InputError: If a package is missing, or spaCy has no such language.
    """
    sentencizer(language)
    if tokenise:
        _treebank()


@cache
def sentencizer(language: str) -> Callable[[str], Iterator[str]]:
    """Return a function that cuts a document into sentences, which do not cross a blank line.

    :param language: spaCy's code of the language.
    :raises InputError: If spaCy is not installed, or has no such language.
    """
    try:
        import spacy

        nlp = spacy.blank(language)
    except ModuleNotFoundError as error:
        raise InputError(
            f"text.unlabelled.split_sentences: {not_installed('spacy', 'cutting text into sentences')}"
        ) from error
    except ImportError as error:
        why = f"spaCy has no language {language!r}"
        if find_spec(f"spacy.lang.{language}"):  # it needs another package
            why = f"spaCy cannot cut {language!r}: {str(error).splitlines()[0]}"
        raise InputError(f"text.unlabelled.language: {why}; write `xx` for any language") from error
    nlp.add_pipe("sentencizer")
    nlp.max_length = 10**9

    def cut(text: str) -> Iterator[str]:
        for doc in nlp.pipe(paragraph for paragraph in _PARAGRAPHS.split(text) if paragraph.strip()):
            yield from (sentence.text.strip() for sentence in doc.sents)

    return cut


@cache
def _treebank() -> Callable[[str], list[str]]:
    try:
        from nltk.tokenize import TreebankWordTokenizer
    except ModuleNotFoundError as error:
        raise InputError(f"text.unlabelled.split_sentences: {not_installed('nltk', 'tokenising sentences')}") from error
    tokenize: Callable[[str], list[str]] = TreebankWordTokenizer().tokenize
    return tokenize


def _tokenised(sentence: str, style: Style) -> str:
    plain = sentence if style.typographic else sentence.translate(_TYPOGRAPHIC)
    return " ".join(style.words(_treebank()(plain)))
