"""The tables that the stages hand to each other: their columns, their metadata, and the id that joins them.

Every table is Parquet with zstd. Rows are joined on `id`, never by their order.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.storage import new_file, read_json, write_json

SPLITS = ("train", "validation", "test")
SIDES = ("first", "second", "both")
TextMode = Literal["pretokenised", "raw"]
"""How text is split into words: at white space, or by the tagger."""
MASK = "[MASK]"
"""The word that stands for a masked one in every table; the labelling stage turns it into the teacher's own mask token."""

METADATA_KEY = b"offline_distill"
"""The key of our JSON in a Parquet file's metadata: where the rows come from and how they were made."""

SUMMARY = "summary.json"
"""The file beside the augmented rows that says what came of the copies; the logit data set's card has it too."""

HASHED = 4_096
"""Texts that are Python objects at a time while they are hashed: their memory is then used again, not asked for anew, which takes 0.6 of the time."""

_NAME = pa.dictionary(pa.int32(), pa.string())

EXAMPLES = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("split", _NAME, nullable=False),
        pa.field("sentence1", pa.string(), nullable=False),
        pa.field("sentence2", pa.string()),  # null in a task of single sentences
        pa.field("label", pa.int32()),  # null where unknown; float32 in a regression, see examples_schema
        pa.field("line", pa.int64()),  # where the row starts in its source file, from 1; null where that is not read
    ]
)

SOURCE_LINES = pa.schema([pa.field("id", pa.string(), nullable=False), pa.field("line", pa.int64(), nullable=False)])
"""Where each example comes from, in a file of its own: a source whose rows move, or lose a repeat, gives the same examples."""


def label_type(classes: int) -> pa.DataType:
    """Return the type of gold labels: int32, the number of a class; float32 with one class, which is a regression.

    :param classes: The number of classes C.
    """
    return pa.int32() if classes > 1 else pa.float32()


def examples_schema(classes: int) -> pa.Schema:
    """Return EXAMPLES with the label of a task of so many classes.

    :param classes: The number of classes C.
    """
    place = EXAMPLES.get_field_index("label")
    return EXAMPLES.set(place, pa.field("label", label_type(classes)))


TOKENS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("split", _NAME, nullable=False),
        pa.field("words1", pa.list_(pa.int32()), nullable=False),  # rows of VOCABULARY
        pa.field("tags1", pa.list_(pa.int16()), nullable=False),  # indices of the metadata's "tags"
        pa.field(
            "spaces1", pa.list_(pa.int16())
        ),  # raw text only: the white space after it, an index of the metadata's "spaces"
        pa.field("words2", pa.list_(pa.int32())),
        pa.field("tags2", pa.list_(pa.int16())),
        pa.field("spaces2", pa.list_(pa.int16())),
    ]
)

VOCABULARY = pa.schema(
    [
        pa.field("word_id", pa.int32(), nullable=False),
        pa.field("word", pa.string(), nullable=False),
        pa.field("tag_id", pa.int16(), nullable=False),
        pa.field("tag", pa.string(), nullable=False),
        pa.field(
            "count", pa.int64(), nullable=False
        ),  # in the training split; 0 for a word or tag seen in the others only
    ]
)

_LINEAGE = [
    pa.field("parent_id", pa.string()),  # the original that it was made from; null in an original
    pa.field("copy", pa.int32()),  # which of the n_iter copies, from 0
    pa.field("side", _NAME),  # which sentence was augmented: first, second, both
    *(
        pa.field(f"{name}{side}", pa.int32())
        for side in (1, 2)
        for name in (
            "masked",  # words that became [MASK], of those that are left
            "replaced",  # words for which the part-of-speech rule drew (the draw can be the same word)
            "edited",  # words that other rules changed
            "ngram_start",  # the window that was kept, in words of the parent; null where all were kept
            "ngram_size",
        )
    ),
]

AUGMENTED = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        *_LINEAGE,
        pa.field("sentence1", pa.string(), nullable=False),
        pa.field("sentence2", pa.string()),
    ]
)


def logits_schema(classes: int, dtype: pa.DataType | None = None) -> pa.Schema:
    """Return the schema of a logit data set.

    :param classes: The number of classes C.
    :param dtype: float32 (default) or float16.
    :return: id, the sentences, the gold label (null in augmented rows; `label_type`), the lineage, logits as fixed-size lists of C.
    """
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("sentence1", pa.string(), nullable=False),
            pa.field("sentence2", pa.string()),
            pa.field("label", label_type(classes)),
            *_LINEAGE,
            pa.field("logits", pa.list_(dtype or pa.float32(), classes), nullable=False),
        ]
    )


def content_ids(sentence1: Iterable[str], sentence2: Iterable[str | None] | None = None) -> list[str]:
    """Return the id of each row: XXH3-128 of its UTF-8 text; in a pair the byte 0xFF, which no UTF-8 holds, stands between.

    :param sentence1: First sentences.
    :param sentence2: Second sentences; None, or all None, in a task of single sentences.
    :return: 32 hex digits a row, the canonical big-endian form of https://github.com/Cyan4973/xxHash.
    """
    first = pa.array(sentence1, pa.string())
    second = None if sentence2 is None else pa.array(sentence2, pa.string())
    pairs = second is not None and second.null_count < len(second)
    ids: list[str] = hex_ids(content_digests(first, second if pairs else None)).to_pylist()
    return ids


def content_digests(sentence1: pa.Array, sentence2: pa.Array | None = None) -> NDArray[np.uint64]:
    """Return the ids of `content_ids` as numbers, for work on many rows.

    :param sentence1: [n] strings without nulls.
    :param sentence2: [n] strings without nulls, or None for single sentences.
    :return: uint64 [n, 2], the high half first.
    """
    from xxhash import xxh3_128_digest

    texts = sentence1.cast(pa.binary())
    if sentence2 is not None:
        texts = pc.binary_join_element_wise(texts, sentence2.cast(pa.binary()), b"\xff")
    parts = (texts.slice(begin, HASHED) for begin in range(0, len(texts), HASHED))
    digests = b"".join(b"".join(map(xxh3_128_digest, part.to_pylist())) for part in parts)
    return np.frombuffer(digests, ">u8").astype(np.uint64).reshape(-1, 2)


def hex_ids(digests: NDArray[np.uint64]) -> pa.StringArray:
    """Write digests as ids.

    :param digests: uint64 [n, 2], the high half first.
    :return: [n] strings of 32 hex digits.
    """
    letters = digests.astype(">u8").tobytes().hex().encode()
    offsets = np.arange(len(digests) + 1, dtype=np.int32) * 32
    return pa.StringArray.from_buffers(len(digests), pa.py_buffer(offsets), pa.py_buffer(letters))


def id_digests(ids: pa.Array) -> NDArray[np.uint64]:
    """Read ids back into digests, the inverse of `hex_ids`.

    :param ids: [n] strings of 32 hex digits.
    :return: uint64 [n, 2], the high half first.
    """
    return np.frombuffer(bytes.fromhex("".join(ids.to_pylist())), ">u8").astype(np.uint64).reshape(-1, 2)


def id_bytes(ids: pa.ChunkedArray) -> pa.FixedSizeBinaryArray:
    """Return ids as 16 bytes each, half the size.

    :param ids: [n] strings of 32 hex digits.
    :raises InputError: If one is something else.
    """
    strings = ids.combine_chunks()
    strings = pa.concat_arrays(strings.chunks) if isinstance(strings, pa.ChunkedArray) else strings
    _, offsets, letters = strings.buffers()
    ends = np.frombuffer(offsets, np.int32)[strings.offset : strings.offset + len(strings) + 1] if len(strings) else [0]
    try:
        raw = bytes.fromhex(str(memoryview(letters)[ends[0] : ends[-1]], "ascii")) if len(strings) else b""
    except ValueError:
        raw = None
    if raw is None or (np.diff(ends) != 32).any():
        raise InputError("an id is not 32 hex digits; make the table anew with `dvc repro --force`")
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(strings), [None, pa.py_buffer(raw)])


def digest_rows(ids: NDArray[np.uint64], texts: NDArray[np.uint64], in_training: NDArray[np.bool_]) -> NDArray[Any]:
    """Return what `digest_of_rows` is made of.

    :param ids: uint64 [rows, 2] the examples' ids.
    :param texts: uint64 [rows, 2] the ids of their texts as words put them together again: in pretokenised mode white space is one space.
    :param in_training: [rows] in the training split.
    :return: Big-endian uint64 [rows, 5].
    """
    return np.column_stack([ids, texts, in_training.astype(np.uint64)]).astype(">u8", order="C")


def digest_of_rows(parts: Iterable[bytes]) -> str:
    """Return one digest of a corpus: two tables that carry it are of one run, and hold all of its text.

    :param parts: The bytes of `digest_rows`, in the order of the ids, cut anywhere.
    :return: XXH3-128, 32 hex digits.
    """
    from xxhash import xxh3_128

    hasher = xxh3_128()
    for part in parts:
        hasher.update(part)
    return hasher.hexdigest()


def with_metadata(schema: pa.Schema, metadata: Mapping[str, Any]) -> pa.Schema:
    """Return the schema with our JSON under METADATA_KEY, other keys kept."""
    return schema.with_metadata(
        {**(schema.metadata or {}), METADATA_KEY: json.dumps(metadata, ensure_ascii=False, sort_keys=True)}
    )


def metadata_of(path: Path) -> dict[str, Any]:
    """Return the JSON that `with_metadata` put into a Parquet file; empty where there is none."""
    stored = pq.read_schema(path).metadata or {}
    found: dict[str, Any] = json.loads(stored.get(METADATA_KEY, b"{}"))
    return found


def write(
    path: Path, table: pa.Table, metadata: Mapping[str, Any] | None = None, row_group_rows: int | None = None
) -> None:
    """Write a table as one Parquet file with zstd, atomically and with the same bytes for the same rows.

    :param path: The file.
    :param table: The rows, in the schema that they shall have.
    :param metadata: Our JSON for the file's metadata.
    :param row_group_rows: The rows that a reader of a part of the table reads at once; a million where None.
    """
    if metadata is not None:
        table = table.cast(with_metadata(table.schema, metadata))
    with new_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=row_group_rows)


def read(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file that must have the columns of `schema`.

    :param path: The file.
    :param schema: What it must hold.
    :param columns: The columns to read; all of the schema's where None.
    :raises InputError: If the file is missing, is no Parquet, has other columns or types, or nulls where there may be none.
    """
    wanted = pa.schema([schema.field(name) for name in columns]) if columns is not None else schema
    check(path, wanted)
    try:
        return pq.read_table(path, columns=wanted.names, partitioning=None).cast(wanted)
    except (pa.ArrowException, ValueError) as error:
        raise InputError(f"{path}: does not hold what it should: {error}") from error


def write_examples(folder: Path, source: Path, examples: pa.Table, about: Mapping[str, Any]) -> None:
    """Write a task's examples: the rows in one folder, where they come from in another.

    :param folder: The folder to write examples.parquet into, without lines. Stages that need no more depend on it alone.
    :param source: The folder to write lines.parquet and source.json into.
    :param examples: The rows, `examples_schema(C)`.
    :param about: task, labels, pairs, and `source`, what was read, as JSON.
    """
    metadata = {key: value for key, value in about.items() if key != "source"}
    write(folder / "examples.parquet", examples.drop_columns(["line"]), metadata)
    write(source / "lines.parquet", examples.select(SOURCE_LINES.names).cast(SOURCE_LINES))
    write_json(source / "source.json", about["source"])


def read_examples(folder: Path, source: Path | None = None) -> tuple[pa.Table, dict[str, Any]]:
    """Read what `write_examples` wrote.

    :param folder: The folder of examples.parquet.
    :param source: The folder of lines.parquet and source.json. Without it lines are null, and nothing tells where the rows come from.
    :return: The rows, `examples_schema(C)`, and task, labels (the C class names), pairs, with a source folder also `source`.
    :raises InputError: As `read`.
    """
    path = folder / "examples.parquet"
    stored = EXAMPLES.remove(EXAMPLES.get_field_index("line"))
    check(path, stored.remove(stored.get_field_index("label")))
    about = metadata_of(path)
    schema = examples_schema(len(about.get("labels", ())) or 2)
    rows = read(path, schema, stored.names)
    lines = pa.nulls(rows.num_rows, pa.int64())
    if source is not None:
        known = read(source / "lines.parquet", SOURCE_LINES)
        lines = known["line"].take(pc.index_in(rows["id"], value_set=known["id"].combine_chunks()))
        about["source"] = read_json(source / "source.json")
    return rows.append_column(schema.field("line"), lines).select(schema.names), about


def check(path: Path, schema: pa.Schema) -> None:
    """Check that a file is Parquet and has the columns of `schema`, without reading a row.

    :param path: The file.
    :param schema: What it must hold.
    :raises InputError: If it is missing, is no Parquet, or has other columns or types.
    """
    try:
        found = pq.read_schema(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; run the stage that makes it with `dvc repro`") from error
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: not a Parquet file: {error}") from error
    for field in schema:
        index = found.get_field_index(field.name)
        if index < 0:
            raise InputError(f"{path}: has no column {field.name!r} (it has {', '.join(found.names)})")
        if found.field(index).type != field.type and not pa.types.is_dictionary(field.type):
            raise InputError(f"{path}: column {field.name!r} is {found.field(index).type}, not {field.type}")
