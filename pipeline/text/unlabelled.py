"""Prepares the unlabelled text of a task: rows that join the training split without a label.

They are read and checked as the task's own rows are. A text that is in a split of the task, or occurs twice, is left out, and so are those
that `text.unlabelled` filters: by length, by similarity to the training text, by number. A text is in a split if it has the same characters,
in upper or lower case and with any white space, because another tokenizer may have put spaces elsewhere.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import tables
from pipeline.errors import InputError
from pipeline.params.text import Text, Unlabelled
from pipeline.students.vocabulary import count_words, split_words
from pipeline.tables import SPLITS, TextMode
from pipeline.text import sources
from pipeline.text.preparation import Check
from pipeline.text.row_report import refuse
from pipeline.text.rows import SourceRows
from pipeline.text.sentences import Style, bare, written

logger = logging.getLogger(__name__)

Numbers = NDArray[np.int64]
Words = Mapping[str, int]

CHECKED = ("fields", "encoding", "blank", "mask", "repeat")
"""The kinds of invalid rows for which a row without a label can be left out."""
FILTERED = (
    *(f"in {split}" for split in SPLITS),
    "few words",
    "many words",
    "unlike the training text",
    "over the limit",
)
"""The other reasons. Texts of the splits go before repeats, the rest after them in this order."""

FILTERED_OUT = 127
"""What marks the rows of FILTERED in `Check.dropped`, where the kinds of invalid rows have small numbers."""

CHOOSING = ("column", "column2", "split_sentences", "language", "min_words", "max_words", "similar", "limit")
"""The settings that decide which texts are kept."""


def read(block: Unlabelled, scratch: Path | None = None) -> tuple[list[SourceRows], list[dict[str, Any]]]:
    """Return the rows of each file or split, and the provenance of each.

    :param scratch: As in `sources.read`.
    :raises InputError: As `sources.read`.
    """
    found = []
    for source in block.sources():
        with named():
            rows, provenance = sources.read(source, block.columns(), scratch)
        found.append((rows[sources.ALL], provenance))
    return [rows for rows, _ in found], [provenance for _, provenance in found]


@contextmanager
def named() -> Iterator[None]:
    """Name the block in an InputError about a source."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace("text.source", "text.unlabelled")) from error


@dataclass(frozen=True)
class Own:
    """What counts of a task's own examples."""

    keys: pa.Array  # [n] of 16 bytes, of each example; see `keys_of`
    splits: NDArray[np.int8]  # [n] numbers of SPLITS
    words: Words  # the counts of the words of the training text
    capitals: float  # the share of the training texts with a capital letter

    @classmethod
    def of(cls, examples: Iterable[pa.RecordBatch], mode: TextMode) -> "Own":
        """Read examples, `tables.EXAMPLES` with split, sentence1 and sentence2, batch by batch."""
        keys, splits, words = [pa.array([], pa.binary(16))], [np.zeros(0, np.int8)], Counter[str]()
        texts = capitals = 0
        for batch in examples:
            split = batch["split"].cast(pa.string())
            splits.append(np.asarray(pc.index_in(split, value_set=pa.array(SPLITS))).astype(np.int8))
            first, second = batch["sentence1"], batch["sentence2"]
            keys.append(keys_of(first) if second.null_count == len(second) else keys_of(first, second))
            training = batch.filter(pc.equal(split, SPLITS[0]))
            for column in (training["sentence1"], training["sentence2"].drop_null()):
                words.update(dict(count_words([column], mode)))
                texts += len(column)
                capitals += pc.sum(pc.not_equal(pc.utf8_lower(column), column)).as_py() or 0
        return cls(pa.concat_arrays(keys), np.concatenate(splits), words, capitals / max(1, texts))

    def splits_of(self, keys: pa.Array) -> NDArray[np.int8]:
        """Return the split that has each text, a number of SPLITS, -1 for none, [n].

        :param keys: As `keys_of` returns them.
        """
        at = np.asarray(pc.fill_null(pc.index_in(keys, value_set=self.keys), -1))
        return np.where(at >= 0, self.splits[at], -1).astype(np.int8) if len(self.splits) else at.astype(np.int8)


def keys_of(*sides: pa.Array) -> pa.Array:
    """Return what texts are compared by, [n] of 16 bytes: a hash of their characters without white space, in lower case, with plain quotes.

    :param sides: The texts, or the first and the second texts of pairs.
    """
    digests = tables.content_digests(*map(bare, sides))
    found = np.ascontiguousarray(digests).astype(">u8").tobytes()
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(digests), [None, pa.py_buffer(found)])


@dataclass(frozen=True)
class Prepared:
    """The rows that are kept, `tables.UNLABELLED`, and the counts of all rows, as JSON."""

    rows: pa.Table
    report: dict[str, Any]

    def about(self, block: Unlabelled, provenance: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the metadata of the table: the licence, the source, the settings that chose the rows, and the counts, as JSON.

        :param provenance: As `read` returns it.
        """
        chosen = block.model_dump(mode="json", include=set(CHOOSING), exclude_defaults=True)
        counts = {key: self.report[key] for key in ("read", "texts", "dropped")}
        source = [{key: value for key, value in part.items() if key != "licence"} for part in provenance]
        return {"licence": block.licence, "source": source, "augment": block.augment, "settings": chosen, **counts}


def prepare(
    rows: Sequence[SourceRows],
    block: Unlabelled,
    text: Text,
    mode: TextMode,
    own: Own,
    scratch: Path | None = None,
    workers: int | None = None,
) -> Prepared:
    """Check unlabelled rows and choose those to keep.

    :param rows: What `read` returns.
    :param text: The task's block, which says what to do with invalid rows.
    :param scratch: As in `sources.read`.
    :param workers: Processes that cut documents into sentences; None for one per core. The result does not depend on it.
    :raises InputError: If there are rows that the task refuses, or no row is left.
    """
    read, left_out = sum(map(len, rows)), sum(part.left_out for part in rows)
    style = Style.of(own.words, own.capitals, mode == "pretokenised")
    language = block.language if block.split_sentences else None
    of_documents: list[NDArray[np.int8]] = []

    def look(counts: Numbers, documents: pa.Array) -> None:
        # A text of the task can be a document of several sentences, each of which is another text.
        of_documents.append(np.repeat(own.splits_of(keys_of(documents)), counts))

    rows = [written(part, style, language, scratch, workers, look) for part in rows]
    settings = text.model_copy(
        update={
            "columns": block.columns(),
            "splits": {},
            "bad_rows": text.bad_rows.model_copy(update={"repeat": "drop"}),
        }
    )
    check = Check(rows, settings, mode)
    check.rows([SPLITS[0]] * len(rows))
    check.warn_of_length()
    found = _Filter(rows, check, mode)
    found.drop_those_of(own, of_documents)
    found.drop_repeats()
    problems = check.problems()
    refuse(problems, [])
    found.drop_by_words(block)
    found.drop_unlike(own.words, block.similar)
    found.drop_beyond(block.limit)
    report: dict[str, Any] = {
        "read": read,
        "left_out_by_where": left_out,
        "texts": sum(map(len, rows)),
        "kept": int(found.kept.sum()),
        "dropped": {kind: problems[kind].dropped for kind in CHECKED} | found.counts,
        "words": _lengths(found.words[found.kept]),
        "lower_cased": style.lower,
    }
    if sum(report["dropped"].values()) + report["kept"] != report["texts"]:
        raise AssertionError("a text is neither kept nor counted as dropped")
    _log(report)
    return Prepared(found.table(), report)


def _lengths(words: Numbers) -> dict[str, float]:
    return (
        {} if not len(words) else {"min": int(words.min()), "median": float(np.median(words)), "max": int(words.max())}
    )


def _log(report: Mapping[str, Any]) -> None:
    """Log the counts; InputError if no row is left."""
    dropped = {kind: count for kind, count in report["dropped"].items() if count}
    reasons = ", ".join(f"{count:,} {kind}" for kind, count in dropped.items()) or "none"
    counts = f"{report['texts']:,} texts of {report['read']:,} rows"
    if not report["kept"]:
        raise InputError(f"text.unlabelled: no text is left of {counts}; dropped: {reasons}")
    logger.info("unlabelled text: kept %s of %s; dropped: %s", f"{report['kept']:,}", counts, reasons)


class _Filter:
    """Drops checked rows for reasons of FILTERED, and counts them. Rows are numbered as in the check."""

    def __init__(self, rows: Sequence[SourceRows], check: Check, mode: TextMode) -> None:
        self._rows, self._check, self._mode = rows, check, mode
        self._starts = np.cumsum([0, *map(len, rows)]).tolist()
        self.kept = check.dropped == 0
        self.words: Numbers = np.sum(list(check.words.values()), axis=0, dtype=np.int64)
        self.counts = dict.fromkeys(FILTERED, 0)

    def _drop(self, rows: NDArray[np.bool_], reason: str) -> None:
        rows = rows & self.kept
        self.counts[reason] += int(rows.sum())
        self._check.dropped[rows] = FILTERED_OUT
        self.kept &= ~rows

    def drop_repeats(self) -> None:
        """Keep each text once. Those of the task went before, so that none of their rows is the one that is kept."""
        self._check.repeats()
        self.kept &= self._check.dropped == 0

    def _batches(self) -> Iterator[tuple[slice, pa.RecordBatch]]:
        for start, part in zip(self._starts, self._rows, strict=False):
            for first, batch in part.batches():
                yield slice(start + first, start + first + len(batch)), batch

    def _texts(self) -> Iterator[tuple[slice, list[pa.Array]]]:
        """Yield the texts of the rows that are kept, by column, and the place of their batch."""
        for place, batch in self._batches():
            if self.kept[place].any():
                yield place, self._check.cleaned(batch.filter(pa.array(self.kept[place])))

    def drop_those_of(self, own: Own, of_documents: Sequence[NDArray[np.int8]]) -> None:
        """Drop the texts that are examples of the task, and the sentences of documents that are.

        :param of_documents: The split that has the document of each row, in parts; none if documents were not cut.
        """
        split = np.full(len(self.kept), -1, np.int8)
        for place, batch in self._batches():
            split[place] = own.splits_of(keys_of(*(batch[column] for column in self._check.words)))
        if of_documents:
            split = np.maximum(split, np.concatenate(of_documents))
        for number, name in enumerate(SPLITS):
            self._drop(split == number, f"in {name}")

    def drop_by_words(self, block: Unlabelled) -> None:
        """Drop texts that are too short or too long."""
        self._drop(self.words < block.min_words, "few words")
        if block.max_words is not None:
            self._drop(self.words > block.max_words, "many words")

    def drop_unlike(self, training: Words, share: float) -> None:
        """Keep the share of the texts whose words are most typical of the training text, compared with all of the texts.

        A text's score is the mean over its words of log p(word | training text) - log p(word | unlabelled text), with one added to each
        count: the cross-entropy difference of Moore and Lewis (2010), with single words.
        """
        many = int(np.ceil(round(share * int(self.kept.sum()), 6)))  # 0.55 * 100 is a little more than 55
        if share == 1 or not many:
            return
        counts = Counter[str]()
        for _, texts in self._texts():
            for column in texts:
                counts.update(dict(count_words([column], self._mode)))
        words = pa.array(counts, pa.string())
        own = np.array([training.get(word, 0) for word in counts], np.float64) + 1
        theirs = np.array(list(counts.values()), np.float64) + 1
        gains = np.log(own / (sum(training.values()) + len(own))) - np.log(theirs / theirs.sum())
        scores = np.full(len(self.kept), -np.inf)
        for place, texts in self._texts():
            total, number = np.zeros(len(texts[0])), np.zeros(len(texts[0]))
            for column in texts:
                lists = split_words(column, self._mode)
                of_text = np.repeat(np.arange(len(lists)), np.asarray(lists.value_lengths()))
                gain = gains[np.asarray(pc.index_in(lists.flatten(), value_set=words))]
                total += np.bincount(of_text, gain, len(lists))
                number += np.bincount(of_text, minlength=len(lists))
            scores[place][self.kept[place]] = total / np.maximum(number, 1)
        candidates = np.flatnonzero(self.kept)
        order = np.lexsort((self._check.ids[0, candidates], -scores[candidates]))  # on a tie, by the hash of the text
        self._drop_rest(candidates[order[:many]], "unlike the training text")

    def drop_beyond(self, limit: int | None) -> None:
        """Keep at most so many texts, those with the smallest ids."""
        if limit is not None and limit < self.kept.sum():
            candidates = np.flatnonzero(self.kept)
            high, low = self._check.ids[:, candidates]
            self._drop_rest(candidates[np.lexsort((low, high))[:limit]], "over the limit")

    def _drop_rest(self, chosen: Numbers, reason: str) -> None:
        rest = np.ones(len(self.kept), np.bool_)
        rest[chosen] = False
        self._drop(rest, reason)

    def table(self) -> pa.Table:
        """Return the rows that are kept, `tables.UNLABELLED`."""
        parts = []
        for place, batch in self._batches():
            kept = self.kept[place]
            rows = batch.filter(pa.array(kept))
            first, *second = self._check.cleaned(rows)
            ids = tables.hex_ids(self._check.ids[:, place][:, kept].T)
            columns = [ids, first, *(second or [pa.nulls(len(rows), pa.string())]), rows["line"]]
            parts.append(pa.record_batch(columns, schema=tables.UNLABELLED))
        return pa.Table.from_batches(parts, tables.UNLABELLED)
