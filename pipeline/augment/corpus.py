"""Reads the originals as word ids, a range of rows at a time, and decodes word ids to text."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import tables
from pipeline.augment.block import I32, I64, Bool, Sentences, Unigrams
from pipeline.errors import InputError


@dataclass(frozen=True, eq=False)
class Originals:
    """Some of a task's originals, in the order of their ids.

    The first sentences of all rows come first, then the second sentences of all rows: row r has the sentences r and r + rows.
    """

    digests: NDArray[np.uint64]  # [rows, 2] the rows' ids as numbers
    training: Bool  # [rows] in the training split
    sentences: Sentences
    spaces: NDArray[np.int16] | None  # [words] raw text: the white space after each word, an index of space_strings
    texts: pa.StringArray  # [sentences] the text that the words decode to
    text_digests: NDArray[np.uint64]
    """[rows, 2] the ids of these texts. They are `digests`, except in pretokenised examples of an earlier version of the prepare stage, whose
    texts can have several spaces between words."""

    def __len__(self) -> int:
        return len(self.digests)


@dataclass(frozen=True, eq=False)
class Corpus:
    """The tables of the tag stage: the vocabulary in memory, the rows on disk."""

    folder: Path
    rows: int
    space_strings: pa.StringArray
    words: pa.StringArray  # [vocabulary + 1] the last one is [MASK]; then the words that rules added
    unigrams: Unigrams
    pairs: bool
    raw: bool
    digest: str
    """The result of `tables.digest_of_rows` for the rows."""

    @classmethod
    def read(cls, folder: Path) -> "Corpus":
        """Open the tables that the tag stage wrote to data/<task>/tokens.

        :raises InputError: If a table is missing, or the two were not written by the same run.
        """
        vocabulary = tables.read(folder / "vocabulary.parquet", tables.VOCABULARY)
        path = folder / "tokens.parquet"
        tables.check(path, tables.TOKENS)
        metadata = tables.metadata_of(path)
        if "corpus" not in metadata:
            raise InputError(f"{path}: an earlier version wrote this table; run the tag stage again")
        word_ids, tag_ids, counts = (vocabulary[name].to_numpy() for name in ("word_id", "tag_id", "count"))
        ids, first = np.unique(word_ids, return_index=True)
        if metadata != tables.metadata_of(folder / "vocabulary.parquet") or (ids != np.arange(len(ids))).any():
            raise _altered(folder)
        strings = vocabulary["word"].take(pa.array(first)).combine_chunks()
        return cls(
            folder=folder,
            rows=pq.read_metadata(path).num_rows,
            space_strings=pa.array([*(metadata["spaces"] or []), ""], pa.string()),
            words=pa.concat_arrays([strings, pa.array([tables.MASK])]),
            unigrams=Unigrams.of(word_ids, tag_ids, counts, mask=len(strings)),
            pairs=metadata["pairs"],
            raw=metadata["text"] != "pretokenised",
            digest=metadata["corpus"],
        )

    def originals(self, begin: int = 0, end: int | None = None) -> Originals:
        """Read the rows [begin, end) of the table; InputError if they are not valid."""
        table = self._read(begin, self.rows if end is None else end)
        sides = ("1", "2") if self.pairs else ("1",)

        def flat(name: str) -> NDArray[np.integer]:
            return np.concatenate([_column(table, name + side).flatten().to_numpy() for side in sides])

        words, tags = flat("words").astype(np.int32), flat("tags").astype(np.int16)
        lengths = np.concatenate([_column(table, "words" + side).value_lengths().to_numpy() for side in sides])
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
        training = np.asarray(pc.equal(table["split"].cast(pa.string()), tables.SPLITS[0]))
        known = len(words) == 0 or (
            words.min() >= 0
            and words.max() < self.unigrams.mask
            and tags.min() >= 0
            and tags.max() < len(self.unigrams.count)
        )
        if not lengths.all() or len(words) != len(tags) or not known:
            raise _altered(self.folder)
        if not self.unigrams.count[tags[np.repeat(np.tile(training, len(sides)), lengths)]].all():
            raise _altered(self.folder)  # a rule would draw from nothing
        spaces = flat("spaces").astype(np.int16) if self.raw else None
        texts = self.decode(words, offsets, spaces)
        n = len(table)
        text_digests = tables.content_digests(texts.slice(0, n), texts.slice(n) if self.pairs else None)
        ids = tables.id_digests(_column(table, "id"))
        return Originals(ids, training, Sentences(offsets, words, tags), spaces, texts, text_digests)

    def check(self, rows: Iterable[bytes]) -> None:
        """Raise an InputError if `tables.digest_rows` of all originals, in order, are not those of the rows that the tag stage wrote."""
        if tables.digest_of_rows(rows) != self.digest:
            raise _altered(self.folder)

    @cached_property
    def _metadata(self) -> Any:
        return pq.read_metadata(self.folder / "tokens.parquet")

    def _read(self, begin: int, end: int) -> pa.Table:
        """Read the row groups of the rows [begin, end)."""
        metadata = self._metadata
        starts = np.cumsum([0, *(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))])
        groups = [i for i in range(metadata.num_row_groups) if starts[i] < end and starts[i + 1] > begin]
        columns = [f.name for f in tables.TOKENS if self.pairs or not f.name.endswith("2")]
        columns = [name for name in columns if self.raw or not name.startswith("spaces")]
        # A file for each read: the threads of a Dask worker share this corpus, and a reader is not safe between threads.
        with pq.ParquetFile(self.folder / "tokens.parquet", metadata=metadata) as file:
            table = file.read_row_groups(groups, columns, use_threads=False)
        first = int(starts[groups[0]]) if groups else 0
        return table.slice(begin - first, end - begin).combine_chunks()

    @cached_property
    def _spaced(self) -> pa.StringArray:
        return pa.concat_arrays([pc.binary_join_element_wise(self.words, " ", ""), self.words])

    @cached_property
    def _words_and_spaces(self) -> pa.StringArray:
        return pa.concat_arrays([self.words, self.space_strings])

    def decode(self, words: I32, offsets: I64, spaces: NDArray[np.int16] | None = None) -> pa.StringArray:
        """Return the texts of word ids.

        One `take` from a vocabulary whose strings include the white space: the buffer that it returns is the text.

        :param words: [words] word ids.
        :param offsets: [n + 1] the first word of each of the n texts; no text is empty.
        :param spaces: [words] raw text: the white space after each word, which is ignored for the last word of a text.
        """
        last = offsets[1:] - 1
        if spaces is None:
            ids = words.astype(np.int32)
            ids[last] += len(self.words)
            taken = self._spaced.take(pa.array(ids))
            ends = offsets
        else:
            ids = np.empty(2 * len(words), np.int32)
            ids[::2] = words
            ids[1::2] = spaces + len(self.words)
            ids[2 * last + 1] = len(self.words) + len(self.space_strings) - 1
            taken = self._words_and_spaces.take(pa.array(ids))
            ends = 2 * offsets
        byte_offsets = np.frombuffer(taken.buffers()[1], np.int32)[ends]
        return pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(byte_offsets), taken.buffers()[2])


def _altered(folder: Path) -> InputError:
    return InputError(
        f"{folder}: tokens.parquet and vocabulary.parquet are not of one run, or were changed; run the tag stage again"
    )


def _column(table: pa.Table, name: str) -> pa.Array:
    column = table[name]
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
