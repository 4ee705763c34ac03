"""The originals as word ids, ready to be copied, and the way back from word ids to text."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import tables
from pipeline.augment.block import I32, I64, Block, Sentences, Unigrams
from pipeline.errors import InputError
from pipeline.tagging import corpus_digest


@dataclass(frozen=True, eq=False)
class Corpus:
    """The originals of a task, sorted by id, so that nothing depends on the order of the source.

    The first sentences of all rows come first, then the second sentences of all rows: row r's are sentences r and r + rows.
    """

    ids: pa.StringArray  # [rows]
    training: NDArray[np.bool_]  # [rows] in the training split
    sentences: Sentences
    spaces: NDArray[np.int16] | None  # [words] raw text: the white space after each word, an index of space_strings
    space_strings: pa.StringArray
    words: pa.StringArray  # [vocabulary + 1] the last one is [MASK]; then what rules added
    unigrams: Unigrams
    pairs: bool

    @classmethod
    def read(cls, folder: Path) -> "Corpus":
        """Read the tables that the tag stage wrote.

        :param folder: data/<task>/tokens.
        :raises InputError: If a table is missing, or the two are not of the same run.
        """
        vocabulary = tables.read(folder / "vocabulary.parquet", tables.VOCABULARY)
        tokens = tables.read(folder / "tokens.parquet", tables.TOKENS).sort_by("id").combine_chunks()
        metadata = tables.metadata_of(folder / "tokens.parquet")
        if "corpus" not in metadata:
            raise InputError(
                f"{folder / 'tokens.parquet'}: not as the tag stage writes it now: run the tag stage again"
            )
        pairs: bool = metadata["pairs"]
        sides = ("1", "2") if pairs else ("1",)

        def flat(name: str) -> NDArray[np.integer]:
            return np.concatenate([_column(tokens, name + side).values.to_numpy() for side in sides])

        words = flat("words")
        lengths = np.concatenate([_column(tokens, "words" + side).value_lengths().to_numpy() for side in sides])
        if not lengths.all():
            raise InputError(f"{folder / 'tokens.parquet'}: holds a sentence without words: run the tag stage again")
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
        strings = _by_id(vocabulary, len(words) and int(words.max()) + 1)
        return cls(
            ids=_column(tokens, "id"),
            training=np.asarray(pc.equal(tokens["split"].cast(pa.string()), tables.SPLITS[0])),
            sentences=Sentences(offsets, words.astype(np.int32), flat("tags").astype(np.int16)),
            spaces=flat("spaces").astype(np.int16) if metadata["text"] == "raw" else None,
            space_strings=pa.array([*(metadata["spaces"] or []), ""], pa.string()),
            words=pa.concat_arrays([strings, pa.array([tables.MASK])]),
            unigrams=Unigrams.of(
                vocabulary["word_id"].to_numpy(),
                vocabulary["tag_id"].to_numpy(),
                vocabulary["count"].to_numpy(),
                mask=len(strings),
            ),
            pairs=pairs,
        )

    def check(self, folder: Path) -> None:
        """Check that the tables of a folder are of one run, whole and unaltered.

        :param folder: Where this corpus was read from.
        :raises InputError: If the vocabulary is another's, or the texts are not those that the ids were made from.
        """
        tokens = tables.metadata_of(folder / "tokens.parquet")
        found = corpus_digest(self.digests, self.text_digests, self.training)
        if tokens != tables.metadata_of(folder / "vocabulary.parquet") or tokens.get("corpus") != found:
            raise InputError(
                f"{folder}: tokens.parquet and vocabulary.parquet are not of one run, or were altered: run the tag stage again"
            )

    def with_words(self, words: list[str]) -> "Corpus":
        """Return the corpus with more words at the end of its vocabulary, for rules that write words of their own."""
        return replace(self, words=pa.concat_arrays([self.words, pa.array(words, pa.string())]))

    @cached_property
    def digests(self) -> NDArray[np.uint64]:
        """[rows, 2] the rows' ids as numbers."""
        return tables.id_digests(self.ids)

    @cached_property
    def texts(self) -> pa.StringArray:
        """[sentences] the originals' text, as the decoder writes it."""
        return self.decode(self.sentences.words, self.sentences.offsets, self.spaces)

    @cached_property
    def text_digests(self) -> NDArray[np.uint64]:
        """[rows, 2] the ids of the texts as the decoder writes them: pretokenised text with single spaces, whatever the source had."""
        n = len(self.ids)
        return tables.content_digests(self.texts.slice(0, n), self.texts.slice(n) if self.pairs else None)

    @cached_property
    def _spaced(self) -> pa.StringArray:
        return pa.concat_arrays([pc.binary_join_element_wise(self.words, " ", ""), self.words])

    @cached_property
    def _words_and_spaces(self) -> pa.StringArray:
        return pa.concat_arrays([self.words, self.space_strings])

    def decode_rows(self, block: Block, which: NDArray[np.bool_]) -> pa.StringArray:
        """Return the text of some rows of a block.

        :param block: Any block of this corpus.
        :param which: [rows] those to decode.
        """
        words = np.repeat(which, block.size)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(block.size[which], dtype=np.int64)])
        spaces = None if self.spaces is None else self.spaces[block.origin[words]]
        return self.decode(block.words[words], offsets, spaces)

    def decode(self, words: I32, offsets: I64, spaces: NDArray[np.int16] | None = None) -> pa.StringArray:
        """Put words together again: one take from a vocabulary whose strings hold the white space, so that the taken buffer is the text.

        :param words: [words] word ids.
        :param offsets: [n + 1] where each text's words begin; no text is empty.
        :param spaces: [words] raw text: the white space after each; the last of a text is left out.
        :return: [n] texts.
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


def _column(table: pa.Table, name: str) -> pa.Array:
    column = table[name]
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _by_id(vocabulary: pa.Table, needed: int) -> pa.StringArray:
    ids, first = np.unique(vocabulary["word_id"].to_numpy(), return_index=True)
    if len(ids) < needed or not np.array_equal(ids, np.arange(len(ids))):
        raise InputError("tokens.parquet and vocabulary.parquet are not of one run: run the tag stage again")
    return vocabulary["word"].take(pa.array(first)).combine_chunks()
