"""The Parquet tables that stages write and read: schemas, metadata, and the ids that rows are joined on.

Every table is compressed with zstd. Readers join rows on `id` and do not depend on row order.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
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
TextMode = Literal["pretokenised", "raw", "characters"]
"""How text is split into words: at white space, by the tagger, or by the tagger and into characters of scripts without spaces."""
MASK = "[MASK]"
"""The placeholder of a masked word in every table. The label stage replaces it with the teacher's mask token."""
METADATA_KEY = b"offline_distill"
"""The key of our JSON in a Parquet file's metadata: the source of the rows and the settings that made them."""
SUMMARY = "summary.json"
"""The file next to the augmented rows that counts the copies. The card of the logit data set shows it too."""
HASHED = 4_096
"""Texts that are converted to Python objects at a time for hashing. Batches reuse the memory, which takes 0.6 of the time."""

TAKEN, TAKEN_FROM = 1 << 19, 1 << 16
"""Rows that `take` returns as one chunk, and rows among which it looks at a time."""

ROW_GROUP, ROW_GROUP_BYTES = 1 << 20, 256 << 20
"""The most rows of a row group of examples, and the bytes from which on it has fewer."""

_ID = pa.field("id", pa.string(), nullable=False)
_NAME = pa.dictionary(pa.int32(), pa.string())

EXAMPLES = pa.schema(
    [
        _ID,
        pa.field("split", _NAME, nullable=False),
        pa.field("sentence1", pa.string(), nullable=False),
        pa.field("sentence2", pa.string()),  # null in a task of single sentences
        pa.field("label", pa.int32()),  # null if unknown; float32 in a regression, see examples_schema
        pa.field("line", pa.int64()),  # the first line of the row in its source file, from 1; null if not read
    ]
)

UNLABELLED = pa.schema([EXAMPLES.field(name) for name in ("id", "sentence1", "sentence2", "line")])
"""The unlabelled text of a task, rows of the training split. Its file's metadata is {} for a task without."""

ORIGIN = pa.field("origin", _NAME, nullable=False)
ORIGINS = SOURCE, POOL, COPY = ("source", "unlabelled", "augmented")
"""Where a row comes from: the task's source, its unlabelled text, or augmentation. Only a data set with unlabelled text has the column."""

SOURCE_LINES = pa.schema([_ID, pa.field("line", pa.int64(), nullable=False)])
"""The source line of each example, in a separate file: if rows of the source move or lose a repeat, the examples stay the same."""


def label_type(classes: int) -> pa.DataType:
    """Return the type of gold labels: int32 class numbers; float32 with one class, which is a regression."""
    return pa.int32() if classes > 1 else pa.float32()


def examples_schema(classes: int) -> pa.Schema:
    """Return EXAMPLES with the label type of a task with this number of classes."""
    return EXAMPLES.set(EXAMPLES.get_field_index("label"), pa.field("label", label_type(classes)))


TOKENS = pa.schema(
    [
        _ID,
        pa.field("split", _NAME, nullable=False),
        pa.field("words1", pa.list_(pa.int32()), nullable=False),  # rows of VOCABULARY
        pa.field("tags1", pa.list_(pa.int16()), nullable=False),  # indices into the metadata's "tags"
        pa.field("spaces1", pa.list_(pa.int16())),  # raw text: white space after a word, indices into "spaces"
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
        pa.field("count", pa.int64(), nullable=False),  # in the training split; 0 if only in other splits
    ]
)

_LINEAGE = [
    pa.field("parent_id", pa.string()),  # the original that was copied; null in an original
    pa.field("copy", pa.int32()),  # the number of the copy, from 0 to n_iter - 1
    pa.field("side", _NAME),  # the augmented sentence: first, second, both
    *(
        pa.field(f"{name}{side}", pa.int32())
        for side in (1, 2)
        for name in (
            "masked",  # words replaced with [MASK], among the words left
            "replaced",  # words for which the part-of-speech rule drew a word, possibly the same one
            "edited",  # words that other rules changed
            "ngram_start",  # the first word of the window that was kept, in words of the parent; null without a window
            "ngram_size",
        )
    ),
]
_SENTENCES = [pa.field("sentence1", pa.string(), nullable=False), pa.field("sentence2", pa.string())]

AUGMENTED = pa.schema([_ID, *_LINEAGE, *_SENTENCES])


def logits_schema(classes: int, dtype: pa.DataType | None = None, origin: bool = False) -> pa.Schema:
    """Return the schema of a logit data set.

    :param classes: The number of classes C.
    :param dtype: float32 (default) or float16.
    :param origin: Whether it has unlabelled text.
    :return: id, the sentences, the gold label (null in augmented rows; `label_type`), the origin, the lineage, logits as fixed-size lists of C.
    """
    label = pa.field("label", label_type(classes))
    logits = pa.field("logits", pa.list_(dtype or pa.float32(), classes), nullable=False)
    return pa.schema([_ID, *_SENTENCES, label, *([ORIGIN] if origin else []), *_LINEAGE, logits])


def is_of(rows: pa.Table, origin: str) -> NDArray[np.bool_]:
    """Return which rows of a logit data set have an origin, bool [n].

    :param rows: Rows with parent_id, and with origin if the data set has it.
    """
    if "origin" in rows.column_names:
        return np.asarray(pc.equal(rows["origin"].cast(pa.string()), origin))
    copied = np.asarray(pc.is_valid(rows["parent_id"]))
    return {SOURCE: ~copied, COPY: copied}.get(origin, np.zeros_like(copied))


# --- ids ------------------------------------------------------------------------------------------------------------------


def content_ids(sentence1: Iterable[str], sentence2: Iterable[str | None] | None = None) -> list[str]:
    """Return the id of each row: XXH3-128 of its UTF-8 text. The byte 0xFF, which is not valid in UTF-8, separates a pair.

    :param sentence2: Second sentences; None, or all None, in a task of single sentences.
    :return: 32 hex digits per row, the canonical big-endian form of https://github.com/Cyan4973/xxHash.
    """
    first = pa.array(sentence1, pa.string())
    second = None if sentence2 is None else pa.array(sentence2, pa.string())
    pairs = second is not None and second.null_count < len(second)
    ids: list[str] = hex_ids(content_digests(first, second if pairs else None)).to_pylist()
    return ids


def content_digests(sentence1: pa.Array, sentence2: pa.Array | None = None) -> NDArray[np.uint64]:
    """Return the ids of `content_ids` as numbers: uint64 [n, 2], the high half first.

    :param sentence1: [n] strings without nulls.
    :param sentence2: [n] strings without nulls, or None for single sentences.
    """
    from xxhash import xxh3_128_digest

    texts = sentence1.cast(pa.binary())
    if sentence2 is not None:
        texts = pc.binary_join_element_wise(texts, sentence2.cast(pa.binary()), b"\xff")
    parts = (texts.slice(begin, HASHED) for begin in range(0, len(texts), HASHED))
    digests = b"".join(b"".join(map(xxh3_128_digest, part.to_pylist())) for part in parts)
    return np.frombuffer(digests, ">u8").astype(np.uint64).reshape(-1, 2)


def hex_ids(digests: NDArray[np.uint64]) -> pa.StringArray:
    """Return digests, uint64 [n, 2] with the high half first, as ids of 32 hex digits, [n]."""
    letters = digests.astype(">u8").tobytes().hex().encode()
    offsets = np.arange(len(digests) + 1, dtype=np.int32) * 32
    return pa.StringArray.from_buffers(len(digests), pa.py_buffer(offsets), pa.py_buffer(letters))


def id_digests(ids: pa.Array) -> NDArray[np.uint64]:
    """Return ids as digests, the inverse of `hex_ids`."""
    return np.frombuffer(bytes.fromhex("".join(ids.to_pylist())), ">u8").astype(np.uint64).reshape(-1, 2)


def id_bytes(ids: pa.ChunkedArray) -> pa.FixedSizeBinaryArray:
    """Return ids as 16 bytes each, half the size; InputError if an id is not 32 hex digits."""
    try:
        fixed = ids.cast(pa.binary(32)).combine_chunks()
        letters = memoryview(fixed.buffers()[1])[32 * fixed.offset : 32 * (fixed.offset + len(fixed))]
        raw = bytes.fromhex(str(letters, "ascii"))
    except ValueError:  # ArrowInvalid is a ValueError
        raw = b""
    if len(raw) != 16 * len(ids) or ids.null_count:  # fromhex skips white space
        raise InputError("an id is not 32 hex digits; write the table again with `dvc repro --force`")
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(ids), [None, pa.py_buffer(raw)])


def digest_rows(ids: NDArray[np.uint64], texts: NDArray[np.uint64], in_training: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the input of `digest_of_rows`, big-endian uint64 [rows, 5].

    :param ids: uint64 [rows, 2] the ids of the examples.
    :param texts: uint64 [rows, 2] the ids of the texts that joining the words gives: in pretokenised mode, one space between words.
    :param in_training: [rows] whether each is in the training split.
    """
    return np.column_stack([ids, texts, in_training.astype(np.uint64)]).astype(">u8", order="C")


def digest_of_rows(parts: Iterable[bytes]) -> str:
    """Return the digest of a corpus, XXH3-128 in 32 hex digits. Tables with the same digest hold the same complete corpus.

    :param parts: The bytes of `digest_rows`, in the order of the ids, in parts of any size.
    """
    from xxhash import xxh3_128

    hasher = xxh3_128()
    for part in parts:
        hasher.update(part)
    return hasher.hexdigest()


def take(rows: pa.Table, places: NDArray[np.int64]) -> pa.Table:
    """Return rows by number, in chunks of TAKEN rows.

    Arrow's `take` first joins the chunks of each column, which copies all of the table and fails where a column has more than 2 GiB of text.
    """
    parts = [_taken(rows, places[start : start + TAKEN]) for start in range(0, len(places), TAKEN)]
    return pa.concat_tables(parts or [rows.slice(0, 0)])


def _taken(rows: pa.Table, places: NDArray[np.int64]) -> pa.Table:
    order = np.argsort(places, kind="stable")
    ascending = places[order]
    starts = range(0, rows.num_rows, TAKEN_FROM)
    ends = np.searchsorted(ascending, [*starts, rows.num_rows])
    parts = [
        rows.slice(start, TAKEN_FROM).take(pa.array(ascending[low:high] - start))
        for start, (low, high) in zip(starts, pairwise(ends), strict=True)
        if low < high
    ]
    found = pa.concat_tables(parts).combine_chunks()
    if (order[1:] > order[:-1]).all():
        return found
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return found.take(pa.array(back))


# --- files ----------------------------------------------------------------------------------------------------------------


def with_metadata(schema: pa.Schema, metadata: Mapping[str, Any]) -> pa.Schema:
    """Return the schema with our JSON under METADATA_KEY. Other keys are kept."""
    content = json.dumps(metadata, ensure_ascii=False)  # in the given order: that of augmentation rules counts
    return schema.with_metadata({**(schema.metadata or {}), METADATA_KEY: content})


def metadata_of(path: Path) -> dict[str, Any]:
    """Return the JSON that `with_metadata` wrote to a Parquet file; empty if there is none."""
    check(path, pa.schema([]))
    stored = pq.read_schema(path).metadata or {}
    found: dict[str, Any] = json.loads(stored.get(METADATA_KEY, b"{}"))
    return found


def write(
    path: Path, table: pa.Table, metadata: Mapping[str, Any] | None = None, row_group_rows: int | None = None
) -> None:
    """Write a table as one Parquet file with zstd. The write is atomic, and the same rows give the same bytes.

    :param table: The rows, in the schema of the file.
    :param metadata: Our JSON for the file's metadata.
    :param row_group_rows: Rows per row group, the smallest part that a reader can read; None for a million.
    """
    if metadata is not None:
        table = table.cast(with_metadata(table.schema, metadata))
    with new_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=row_group_rows)


def read(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the columns of `schema` from a Parquet file, or only some of them.

    :raises InputError: If the file is missing, is not Parquet, has other columns or types, or has nulls in a column without nulls.
    """
    wanted = pa.schema([schema.field(name) for name in columns]) if columns is not None else schema
    check(path, wanted)
    try:
        return pq.read_table(path, columns=wanted.names, partitioning=None).cast(wanted)
    except (pa.ArrowException, ValueError) as error:
        raise InputError(f"{path}: values do not match the schema: {error}; run its stage again") from error


def write_examples(
    folder: Path, source: Path, examples: pa.Table | pa.RecordBatchReader, about: Mapping[str, Any]
) -> None:
    """Write a task's examples to one folder and their provenance to another.

    :param folder: The folder for examples.parquet, which has no lines. Most stages depend only on this folder.
    :param source: The folder for lines.parquet and source.json.
    :param examples: The rows, `examples_schema(C)`. They are read and written in row groups.
    :param about: task, labels, pairs, and `source`, the provenance as JSON.
    """
    metadata = {key: value for key, value in about.items() if key != "source"}
    names = [name for name in examples.schema.names if name != "line"]
    schema = with_metadata(pa.schema([examples.schema.field(name) for name in names]), metadata)
    with (
        new_file(folder / "examples.parquet") as of_rows,
        new_file(source / "lines.parquet") as of_lines,
        pq.ParquetWriter(of_rows, schema, compression="zstd") as rows,
        pq.ParquetWriter(of_lines, SOURCE_LINES, compression="zstd") as lines,
    ):
        for group in _row_groups(examples.to_batches() if isinstance(examples, pa.Table) else examples):
            rows.write_table(group.select(names).cast(schema), ROW_GROUP)
            lines.write_table(group.select(SOURCE_LINES.names).cast(SOURCE_LINES), ROW_GROUP)
            del group  # before the next one is made
    write_json(source / "source.json", about["source"])


def _row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield tables of ROW_GROUP rows each, or fewer where these take more than ROW_GROUP_BYTES."""
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        while len(batch):
            part = batch.slice(0, ROW_GROUP - rows)
            held.append(part)
            rows, size, batch = rows + len(part), size + part.nbytes, batch.slice(len(part))
            if rows == ROW_GROUP or size > ROW_GROUP_BYTES:
                yield _united(held)
                rows = size = 0
    if held:
        yield _united(held)


def _united(batches: list[pa.RecordBatch]) -> pa.Table:
    """Return batches as one table of one chunk, and empty the list to free their memory."""
    table = pa.Table.from_batches(batches)
    batches.clear()
    return table.combine_chunks()


def read_examples(folder: Path, source: Path | None = None) -> tuple[pa.Table, dict[str, Any]]:
    """Read the files of `write_examples`. Without a source folder, lines are null and the provenance is absent.

    :return: The rows, `examples_schema(C)`, and task, labels (the C class names), pairs, with a source folder also `source`.
    :raises InputError: As `read`.
    """
    path = folder / "examples.parquet"
    check(path, pa.schema([field for field in EXAMPLES if field.name not in ("label", "line")]))
    about = metadata_of(path)
    schema = examples_schema(len(about.get("labels", ())) or 2)
    rows = read(path, schema, [name for name in schema.names if name != "line"])
    lines = pa.nulls(rows.num_rows, pa.int64())
    if source is not None:
        known = read(source / "lines.parquet", SOURCE_LINES)
        lines = known["line"].take(pc.index_in(rows["id"], value_set=known["id"].combine_chunks()))
        about["source"] = read_json(source / "source.json")
    return rows.append_column(schema.field("line"), lines).select(schema.names), about


def read_unlabelled(folder: Path) -> tuple[pa.Table, dict[str, Any]]:
    """Return the unlabelled text of a task, UNLABELLED, and the metadata of its file. Both are empty for a task without."""
    path = folder / "unlabelled.parquet"
    if not path.exists():  # an earlier version prepared the task
        return UNLABELLED.empty_table(), {}
    return read(path, UNLABELLED), metadata_of(path)


def with_unlabelled(examples: pa.Table, unlabelled: pa.Table) -> pa.Table:
    """Return examples, of any columns of EXAMPLES, followed by the unlabelled text as rows of the training split without a label."""
    split = pa.array([SPLITS[0]] * unlabelled.num_rows, pa.string())
    found = {name: unlabelled[name] for name in unlabelled.column_names} | {"split": split}
    columns = [found.get(field.name, pa.nulls(len(split), field.type)) for field in examples.schema]
    more = pa.table(columns, names=examples.schema.names).cast(examples.schema)
    return pa.concat_tables([examples, more]).unify_dictionaries()


def check(path: Path, schema: pa.Schema) -> None:
    """Check that a file is Parquet and has the columns of `schema`, without reading a row.

    :raises InputError: If it is missing, is not Parquet, or has other columns or types.
    """
    try:
        found = pq.read_schema(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; run the stage that writes it with `dvc repro`") from error
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: not a Parquet file: {error}") from error
    for field in schema:
        index = found.get_field_index(field.name)
        if index < 0:
            raise InputError(f"{path}: has no column {field.name!r} (it has {', '.join(found.names)})")
        if found.field(index).type != field.type and not pa.types.is_dictionary(field.type):
            raise InputError(f"{path}: column {field.name!r} is {found.field(index).type}, not {field.type}")
