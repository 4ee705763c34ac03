"""columns.py: reading a file in blocks of columns gives what reading it row by row gives, errors included."""

import bz2
import csv
import errno
import gzip
import io
import json
import os
import re

import by_row
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.params.text import Columns, Source, Text
from pipeline.tables import MASK
from pipeline.text import cleaning, columns, records, rows, sources, streams
from pipeline.text.sources import ALL

COLUMNS = Columns(sentence1="text", label="label")
LABELS = {"0": "negative", "1": "positive"}
SEPARATORS = {"csv": ",", "tsv": "\t"}
HEADERS = [["text", "label"], ["label", "text"], ["id", "text", "label"], ["text", "label", "id"]]
BLOCKS = [(64, 16), (256, 32), (4096, 1)]

TEXTS = st.one_of(
    st.text(st.sampled_from("ab  é\x85\u2028\ufeff'"), max_size=9),
    st.text(st.sampled_from('ab ,\t\n"\r\ufeff'), max_size=9),
    st.sampled_from(
        [f"a {MASK}", "one\n\ntwo", "first,1\nsecond,0\nthird,1\nlast,0", "first\t1\nsecond\t0\nthird\t1", "same"]
    ),
)
JSON_LABELS = st.sampled_from(["0", "1", 0, 1, 1.0, None, "", True, 0.5, 10**20, "?"])
DAMAGE = st.sampled_from(
    [b'"', b'""', b"\r", b"\n", b"\n\n", b"\0", b"\xff", b",", b"\t", b"{}", b" ", b'","', b"}\n{", b"\xed\xa0\x80"]
)
MARK = b"\xef\xbb\xbf"


@st.composite
def files(draw):
    """Return the suffix and bytes of a file, and whether its quotes count."""
    suffix = draw(st.sampled_from(["csv", "csv", "tsv", "jsonl"]))
    end = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    if suffix == "jsonl":
        rows = draw(
            st.lists(st.fixed_dictionaries({"text": TEXTS, "label": JSON_LABELS, "id": st.just(3)}), max_size=30)
        )
        content = "".join(json.dumps(row, ensure_ascii=draw(st.booleans())) + end for row in rows)
    else:
        header, buffer = draw(st.sampled_from(HEADERS)), io.StringIO(newline="")
        rows = draw(
            st.lists(
                st.fixed_dictionaries({"text": TEXTS, "label": st.sampled_from("0011?"), "id": TEXTS}), max_size=30
            )
        )
        quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
        writer = csv.writer(buffer, delimiter=SEPARATORS[suffix], quoting=quoting, lineterminator=end)
        writer.writerows([header, *([row[name] for name in header] for row in rows)])
        content = buffer.getvalue()
    data = content.rstrip("\r\n").encode() if draw(st.booleans()) else content.encode()
    for place, damage in draw(st.lists(st.tuples(st.floats(0, 1), DAMAGE), max_size=2)):
        at = int(place * len(data))
        data = data[:at] + damage + data[at:]
    if suffix != "jsonl" and draw(st.booleans()):  # blocks begin where lines do
        data = re.sub(rb'\n(?=[^"\r\n])', b"\n" + MARK, data)
    quotes = draw(st.sampled_from([None, True, False])) if suffix == "tsv" else None
    return suffix, draw(st.sampled_from([b"", b"", MARK])) + data, quotes


@given(files(), st.sampled_from(BLOCKS), st.sampled_from([{}, {"label": 1}]))
@settings(max_examples=settings().max_examples, deadline=None)
def test_blocks_are_read_as_rows_are_and_prepared_as_they_were(tmp_path_factory, file, blocks, where):
    suffix, data, quotes = file
    path = tmp_path_factory.mktemp("files") / f"x.{suffix}"
    path.write_bytes(data)
    source = Source(files=str(path), quotes=quotes, where=where)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "BLOCK", blocks[0])
        patch.setattr(records, "BLOCK", blocks[0])
        patch.setattr(columns, "SMALLEST", blocks[1])
        try:
            found = by_row.read(source, COLUMNS)[0][ALL]
        except InputError as error:
            right = str(error) if "no rows" not in str(error) and "selects none" not in str(error) else "no rows"
            with pytest.raises(InputError, match=re.escape(right)):
                by_row.read_file(str(path), source, COLUMNS)
            return
    task = Text.model_validate(
        {
            "source": source,
            "columns": COLUMNS,
            "labels": list(LABELS.values()),
            "label_values": LABELS,
            "splits": {"train": 0.5, "validation": 0.5},
            "bad_rows": dict.fromkeys(("fields", "encoding", "unknown_label", "mask"), "drop"),
        }
    )
    for mode in ("raw", "pretokenised"):
        try:
            by_row.prepare({ALL: found}, task, mode)
        except InputError:  # compared there
            continue


@given(
    st.sampled_from(["csv", "tsv"]),
    st.lists(st.text(st.sampled_from("ab\ufeff"), min_size=1, max_size=4), min_size=1, max_size=20),
    st.sampled_from(BLOCKS),
    st.booleans(),
)
@settings(deadline=None)
def test_only_a_mark_at_the_beginning_of_a_file_is_no_text(tmp_path_factory, suffix, texts, blocks, broken):
    path = tmp_path_factory.mktemp("files") / f"x.{suffix}"
    rows = ["\ufefftext,label", *(f"{text},1" for text in texts), *["a row of one field"] * broken]
    path.write_text("\n".join(rows).replace(",", SEPARATORS[suffix]), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "BLOCK", blocks[0])
        patch.setattr(columns, "SMALLEST", blocks[1])
        found = by_row.read(Source(files=str(path)), COLUMNS)[0][ALL]
    assert found.sentence1[: len(texts)] == texts


def test_a_wrong_row_costs_its_neighbours_no_time(tmp_path, monkeypatch):
    some, read = columns._some_records, []
    monkeypatch.setattr(columns, "_some_records", lambda reader: read.append(list(some(reader))) or read[-1])
    path = tmp_path / "x.csv"
    row = f"{'good film ' * 6},1\n"
    path.write_text("text,label\n" + row * 50_000 + "only\n" + row * 50_000 + "\n" + row * 50_000)
    found = sources.read(Source(files=str(path)), COLUMNS)[0][ALL]
    assert len(found) == 150_002
    assert list(found.faults) == [50_000]
    assert sum(map(len, read)) < 3 * columns.SMALLEST / len(row)


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [("gz", gzip.compress), ("bz2", bz2.compress), ("zst", lambda data: pa.compress(data, "zstd", asbytes=True))],
)
@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl"])
def test_compressed_files_are_read_as_they_are_unpacked(tmp_path, name, suffix, pack):
    separator = SEPARATORS.get(name[2:])
    lines = [
        f"film {n}{separator}{n % 2}" if separator else json.dumps({"text": f"film {n}", "label": n % 2})
        for n in range(900)
    ]
    content = "\n".join([f"text{separator}label", *lines] if separator else lines).encode()
    plain, packed = tmp_path / name, tmp_path / f"{name}.{suffix}"
    plain.write_bytes(content)
    packed.write_bytes(pack(content[:5000]) + pack(content[5000:]) if suffix == "gz" else pack(content))
    found, right = (by_row.read(Source(files=str(path)), COLUMNS)[0][ALL] for path in (packed, plain))
    assert (found.lines, found.sentence1, found.labels) == (right.lines, right.sentence1, right.labels)
    packed.write_bytes(pack(content)[:-9])
    with pytest.raises(InputError, match=rf"{name}\.{suffix}: cannot be decompressed: .*damaged, incomplete"):
        sources.read(Source(files=str(packed)), COLUMNS)


@given(st.lists(st.text(st.sampled_from("ab\u180e\u200b\ufeff\0" + cleaning.WHITE_SPACE), max_size=9)))
def test_white_space_is_that_of_python(texts):
    assert cleaning.cleaned(pa.array(texts, pa.string()), "pretokenised").to_pylist() == [
        " ".join(text.split()) for text in texts
    ]
    assert cleaning.cleaned(pa.array(texts, pa.string()), "raw").to_pylist() == [text.strip() for text in texts]


def test_white_space_is_complete():
    letters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    assert "".join(letter for letter in letters if letter.isspace()) == cleaning.WHITE_SPACE
    assert (
        "".join(letter for letter in letters if not f"{letter}a".split()[0].startswith(letter)) == cleaning.WHITE_SPACE
    )
    columns_ = pa.array([f"a{letter}b" for letter in letters])
    for text, letter in zip(cleaning.cleaned(columns_, "pretokenised").to_pylist(), letters, strict=True):
        assert (text == "a b") == letter.isspace()


@pytest.mark.parametrize(
    ("distinct", "most"),
    [(2_500, 2 * records.BLOCK), (3, records.BLOCK + records.STEP * 10_010)],
    ids=["distinct", "repeated, which the metadata hides"],
)
def test_a_part_of_a_parquet_file_is_bounded_by_its_bytes(tmp_path, distinct, most):
    written = pa.table({"text": [f"{n % distinct} {'x' * 10_000}" for n in range(2_500)]})
    pq.write_table(written, tmp_path / "x.parquet")
    found = list(records.parquet_batches(tmp_path / "x.parquet", "x.parquet", ["text"]))
    assert pa.concat_tables(table for _, table in found).equals(written)
    assert [first for first, _ in found] == [1 + sum(len(table) for _, table in found[:n]) for n in range(len(found))]
    assert max(table.nbytes for _, table in found) < most


def test_short_rows_of_a_parquet_file_are_read_in_large_parts(tmp_path):
    pq.write_table(pa.table({"text": ["a"] * 100_000}), tmp_path / "x.parquet", row_group_size=30_000)
    found = records.parquet_batches(tmp_path / "x.parquet", "x.parquet", ["text"])
    assert [len(table) for _, table in found] == [records.BATCH, 100_000 - records.BATCH]


# --- bad input ----------------------------------------------------------------------------------------------------------


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.csv"
    path.write_text("text,label\ngood,1\n")
    read = streams.Stream.peek

    def peek(stream, size):
        with path.open("a") as file:
            file.write("more,1\n")
        return read(stream, size)

    monkeypatch.setattr(streams.Stream, "peek", peek)
    with pytest.raises(InputError, match=r"x\.csv: the file changed while it was read; run the stage again"):
        sources.read(Source(files=str(path)), COLUMNS)


def test_a_row_of_50_mb_is_a_row(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(f'text,label\nfirst,1\n{"long text " * 5_000_000},0\nlast,"1"\n')
    found = sources.read(Source(files=str(path)), COLUMNS)[0][ALL]
    assert [line for _, batch in found.batches() for line in batch["line"].to_pylist()] == [2, 3, 4]


class Full(io.BytesIO):
    """A file on a disk that has room for the header alone."""

    def write(self, data):
        if self.tell() > 600:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    path = tmp_path / "x.csv"
    path.write_text("text,label\n" + "good,1\n" * 900)
    monkeypatch.setattr(rows, "TemporaryFile", lambda dir: Full())
    with pytest.raises(InputError, match="No space left on device; the stage needs as much free space there") as caught:
        sources.read(Source(files=str(path)), COLUMNS, tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]
