"""Files that are not what their suffix says: read right where that is certain, refused in one line where it is not."""

import csv
import gzip
import hashlib
import io
import json
import os
from pathlib import Path

import by_row
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.params.inputs import Hashes, _content
from pipeline.params.text import BadRows, Columns, Source, Text
from pipeline.text import sources
from pipeline.text.sources import ALL

COLUMNS = Columns(sentence1="text", label="label")
PLAIN = [("good film", "positive"), ("bad film", "negative"), ("nice", "positive")]


@pytest.fixture
def read(tmp_path):
    """Write a file and read it as a source of one file; return its (text, label)."""

    def read(name, content, **source):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        rows = by_row.read(Source(files=str(path), **source), COLUMNS)[0][ALL]
        assert not rows.faults
        return list(zip(rows.sentence1, rows.labels, strict=True))

    return read


def tsv(rows, quoting=csv.QUOTE_MINIMAL, end="\n"):
    """What pandas' to_csv(sep="\\t") writes."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter="\t", quoting=quoting, lineterminator=end).writerows([("text", "label"), *rows])
    return buffer.getvalue()


# --- quotes in tsv ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("rows", "quoting", "line"),
    [
        ([('He said "good" twice', "positive"), ('"Bad" is the word', "negative")], csv.QUOTE_MINIMAL, 5),
        ([("a tab\there", "positive")], csv.QUOTE_MINIMAL, 5),
        ([("two\nlines", "positive"), ("plain", "negative")], csv.QUOTE_MINIMAL, 5),
        ([("label in quotes", 'so "called"')], csv.QUOTE_MINIMAL, 5),
        ([("plain", "negative")], csv.QUOTE_ALL, 1),
        ([('"good"', "positive")], csv.QUOTE_ALL, 1),
    ],
    ids=["doubled", "tab", "line break", "another column", "all", "all and doubled"],
)
def test_a_tsv_of_a_csv_writer_is_refused_until_the_task_says_how_to_read_it(read, rows, quoting, end, line):
    content = tsv([*PLAIN, *rows], quoting, end)
    with pytest.raises(InputError, match=rf"x\.tsv, line {line}: .*text\.source\.quotes: true .* or false") as caught:
        read("x.tsv", content)
    assert "\n" not in str(caught.value)
    assert read("x.tsv", content, quotes=True) == [*PLAIN, *rows]


def test_a_tsv_column_of_quoted_fields_is_refused_though_no_quote_is_doubled(read):
    content = "label\ttext\n" + "".join(f'{n % 2}\t"film {n}"\n' for n in range(40)) + "1\t\n"
    with pytest.raises(
        InputError, match=r'line 2: a field has the quotes of a CSV writer: "film 0"; write .*quotes: true'
    ):
        read("x.tsv", content)
    assert read("x.tsv", content, quotes=True)[0] == ("film 0", "0")
    assert read("x.tsv", content, quotes=False)[0] == ('"film 0"', "0")
    assert len(read("x.tsv", content + "1\tplain\n" * 3)) == 44


def test_quotes_that_are_text_when_the_task_says_so(read):
    content = tsv([*PLAIN, ('He said "good" twice', "positive")])
    assert read("x.tsv", content, quotes=False)[-1] == ('"He said ""good"" twice"', "positive")


@pytest.mark.parametrize(
    "texts",
    [
        ['"all in quotes"', "plain"],
        ['say "hello', '"', "'quoted'", 'a " b', '"opens', 'closes"'],
        ['the 5" and the 6"', '""', '"""'],
        ['"opens here', 'closes there"'],  # a csv writer's line break, were it not for the fields of each line
        ['a "bare" one', 'another "bare" one', '"rare ""doubled"" one"'],
    ],
)
def test_quotes_of_an_unquoted_tsv_are_text(read, texts):
    content = "text\tlabel\n" + "".join(f"{text}\tpositive\n" for text in texts)
    assert [text for text, _ in read("x.tsv", content)] == texts


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl"])
def test_quotes_is_a_key_of_tsv_files(read, name):
    with pytest.raises(InputError, match=r"text\.source\.quotes: true: the key is for \.tsv files"):
        read(name, "text,label\na,b\n", quotes=True)
    with pytest.raises(ValueError, match="quotes goes with files"):
        Source(hub="a/b", revision="c", quotes=True)


# --- other formats, encodings and line ends -----------------------------------------------------------------------------

TABLE = "text,label\ngood film,positive\nbad film,negative\n"
LINES = '{"text": "good", "label": "positive"}\n{"text": "bad", "label": "negative"}\n'
ARRAY = [{"text": "good", "label": "positive"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", TABLE.replace("\n", "\r"), r"a carriage return alone .*`tr '\\r' '\\n' < FILE > NEW`"),
        ("x.tsv", TABLE.replace(",", "\t").replace("\n", "\r"), "a carriage return alone"),
        ("x.tsv", b'"text"\t"label"\ra\tb\r', "a carriage return alone"),
        ("x.jsonl", LINES.replace("\n", "\r"), "a carriage return alone"),
        ("x.csv", 'text,label\r"two\nlines",positive\r', "a carriage return alone"),
        ("x.csv", TABLE.encode("utf-16"), "UTF-16; save it as UTF-8"),
        ("x.tsv", TABLE.replace(",", "\t").encode("utf-16-le"), "UTF-16 or not text: it has NUL bytes"),
        ("x.csv", TABLE.encode("utf-32"), "the file is UTF-32; .*`iconv -f UTF-32 "),
        ("x.csv", TABLE.encode("utf-32-be"), "UTF-32 or not text"),
        ("x.csv", TABLE.encode("utf-32-le"), "UTF-32 or not text"),
        ("x.jsonl", LINES.encode("utf-16-be"), "UTF-16 or not text"),
        ("x.csv", TABLE.replace(",", ";"), r"has no column 'text': semicolons .* where commas.*save it with commas"),
        ("x.csv", TABLE.replace(",", "\t"), r"has no column 'text': tabs .* where commas.*rename it to \.tsv"),
        ("x.tsv", TABLE, r"has no column 'text': commas .* where tabs.*rename it to \.csv"),
        ("x.csv", TABLE.replace(",", "|"), "vertical bars .* save it with commas"),
        ("x.csv.xz", b"", "decompress it with `unxz`; compressed files are read if their suffix is one of .csv.gz"),
        ("x.parquet.gz", b"", "decompress it with `gunzip`; compressed files are read if"),
        ("x.csv", gzip.compress(TABLE.encode(), mtime=0), "compressed; decompress it with `gunzip`"),
        ("x.csv.zip", b"PK\x03\x04", "decompress it with `unzip`"),
        ("x.csv", b"PK\x03\x04rest", "zip archive or an Excel workbook"),
        ("x.xlsx", b"PK\x03\x04rest", r"spreadsheets are not read; save it as CSV"),
        ("x.csv", b"PAR1rest", r"rename it to \.parquet"),
        ("x.json", json.dumps(ARRAY), r"JSON is read as \.jsonl, with one object per line.*jq -c"),
        ("x.jsonl", json.dumps(ARRAY), "line 1: an array; write JSON with one object per line"),
        ("x.jsonl", "\n" + json.dumps(ARRAY, indent=1), "line 2: an array"),
        ("x.jsonl", json.dumps(ARRAY[0], indent=1), "line 1: an object over several lines"),
        ("x.csv", "version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        ("x.parquet", "version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
    ],
)
def test_another_format_is_refused_in_one_line(read, name, content, message):
    with pytest.raises(InputError, match=message) as caught:
        read(name, content)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(name) + 200


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl"])
def test_carriage_returns_in_a_later_part_of_a_file_are_refused(read, name):
    content = {
        "x.csv": TABLE + 'a,b\r"c, d",e\r',
        "x.tsv": TABLE.replace(",", "\t") + "a\tb\rc\td\r",
        "x.jsonl": LINES,
    }[name]
    content += LINES.replace("\n", "\r") if name == "x.jsonl" else ""
    line = 3 if name == "x.jsonl" else 4
    with pytest.raises(InputError, match=rf"line {line}: a carriage return alone ends the lines; .*`tr "):
        read(name, content)


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl"])
def test_utf8_with_a_byte_order_mark_is_read(read, name):
    content = {"x.csv": TABLE, "x.tsv": TABLE.replace(",", "\t"), "x.jsonl": LINES}[name]
    assert len(read(name, "\ufeff" + content)) == 2


def test_a_header_of_many_columns_is_cut(read):
    with pytest.raises(InputError, match=r"'c19' and 980 more") as caught:
        read("x.csv", ",".join(f"c{n}" for n in range(1000)) + "\n")
    assert len(str(caught.value)) < 500


# --- folders of parts ---------------------------------------------------------------------------------------------------


def parquet(rows):
    table = pa.table({"text": [text for text, _ in rows], "label": [label for _, label in rows]})
    buffer = io.BytesIO()
    pq.write_table(table.append_column("__index_level_0__", pa.array(range(len(rows)))), buffer)
    return buffer.getvalue()


def as_csv(rows):
    return tsv(rows).replace("\t", ",").encode()


def folder_of(path, files):
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return str(path)


@pytest.mark.parametrize(("suffix", "written"), [("snappy.parquet", parquet), ("csv", as_csv)])
def test_the_parts_of_a_folder_are_read_in_the_order_of_their_names(tmp_path, suffix, written):
    parts = [PLAIN[:2], [*PLAIN[2:], PLAIN[0], ("odd", "?")]]
    named = {f"part-0000{n}.{suffix}": written(part) for n, part in reversed(list(enumerate(parts)))}
    name = folder_of(tmp_path / "all.parquet", {"_SUCCESS": b"", ".part-00000.crc": b"x", "_metadata": b"x", **named})
    rows, provenance = by_row.read(Source(files={"train": name, "validation": name}), COLUMNS)
    read = rows["train"]
    assert list(zip(read.sentence1, read.labels, strict=True)) == [*parts[0], *parts[1]]
    first = 2 if suffix == "csv" else 1
    assert read.lines == [first, first + 1, first, first + 1, first + 2]
    assert list(read.names()) == [f"{name}/part-00000.{suffix}"] * 2 + [f"{name}/part-00001.{suffix}"] * 3

    listed = "".join(f"{hashlib.sha256(named[part]).hexdigest()}  {part}\n" for part in sorted(named))
    assert provenance["files"]["train"]["sha256"] == hashlib.sha256(listed.encode()).hexdigest()

    task = Text(source=Source(files=name), columns=COLUMNS, labels=["negative", "positive"])
    with pytest.raises(InputError, match=rf"{name}/part-00001\.{suffix}: 1 row: line {first + 2} \('\?'\)"):
        by_row.prepare({"train": read, "validation": rows_of([])}, task, "raw")
    _, report = by_row.prepare(
        {"train": read, "validation": rows_of([("other", "positive"), ("bad film", "negative")])},
        task.model_copy(update={"bad_rows": BadRows(unknown_label="drop")}),
        "raw",
    )
    assert report.problems["repeat"].rows[0].value == f"as in part-00000.{suffix}, line {first}: 'good film'"
    assert report.problems["leak"].rows[0].file == f"{name}/part-00000.{suffix}"


def rows_of(rows):
    found = by_row.SourceRows("other.csv")
    for line, (text, label) in enumerate(rows, start=2):
        found.add(line, (text, None, label))
    return found


def test_a_part_without_a_byte_has_no_rows(tmp_path):
    name = folder_of(tmp_path / "parts", {"part-0.csv": b"", "part-1.csv": as_csv(PLAIN), "part-2.csv": as_csv([])})
    rows, _ = by_row.read(Source(files=name), COLUMNS)
    assert rows[ALL].sentence1 == [text for text, _ in PLAIN]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"_SUCCESS": b""}, "parts: the folder holds no file with rows"),
        ({"a.csv": as_csv(PLAIN), "b.parquet": parquet(PLAIN)}, r"several formats \(\.csv, \.parquet\)"),
        ({"a.csv.xz": b"", "b.csv.xz": b"x"}, r"parts/b\.csv\.xz: decompress it with `unxz`"),
        (
            {"data.arrow": b"", "dataset_info.json": b"{}"},
            "one of `save_to_disk`; write the data set with `to_parquet`",
        ),
        ({"a.csv": as_csv(PLAIN), "b.csv": b"body,label\nx,y\n"}, r"parts/b\.csv: has no column 'text'"),
    ],
)
def test_a_folder_that_is_none_of_parts_is_refused_in_one_line(tmp_path, files, message):
    with pytest.raises(InputError, match=message):
        by_row.read(Source(files=folder_of(tmp_path / "parts", files)), COLUMNS)


def test_folders_in_a_folder_of_parts_are_refused(tmp_path):
    folder_of(tmp_path / "parts", {})
    folder_of(tmp_path / "parts" / "label=positive", {"part-0.csv": as_csv(PLAIN)})
    with pytest.raises(InputError, match="holds the folder 'label=positive'; put all parts into one folder"):
        by_row.read(Source(files=str(tmp_path / "parts")), COLUMNS)


def test_the_files_of_a_pattern_are_read_in_the_order_of_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts = {"b.csv": as_csv(PLAIN[1:]), "a.csv": as_csv(PLAIN[:1]), "_c.csv": b"x", "d.csv": b"", "notes.txt": b"x"}
    folder_of(tmp_path / "parts", parts)
    rows, provenance = by_row.read(Source(files="parts/*.csv"), COLUMNS)
    assert rows[ALL].sentence1 == [text for text, _ in PLAIN]
    assert list(rows[ALL].names()) == ["parts/a.csv", "parts/b.csv", "parts/b.csv"]
    listed = "".join(
        f"{hashlib.sha256(parts[name]).hexdigest()}  parts/{name}\n" for name in ("a.csv", "b.csv", "d.csv")
    )
    digest = hashlib.sha256(listed.encode()).hexdigest()
    assert provenance["files"][ALL] == {"path": "parts/*.csv", "sha256": digest}
    by_row.read(Source(files="parts/*.csv", sha256=digest), COLUMNS)
    (tmp_path / "parts/a[1].csv").write_bytes(as_csv(PLAIN[:2]))  # a file that looks like a pattern
    assert len(by_row.read(Source(files="parts/a[1].csv"), COLUMNS)[0][ALL]) == 2


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("parts/*.tsv", r"parts/\*\.tsv: the pattern matches no file"),
        ("parts/*", r"parts/\*: the pattern matches files of several formats \(\.csv, \.parquet\); leave those of one"),
        ("parts/[ab].csv", r"parts/b\.csv: has no column 'text', which the task's file names; it has 'body', 'label'"),
        ("parts/[d].csv", r"the pattern matches no file with rows"),
    ],
)
def test_a_pattern_of_files_that_do_not_fit_is_refused_in_one_line(tmp_path, monkeypatch, pattern, message):
    monkeypatch.chdir(tmp_path)
    parts = {"a.csv": as_csv(PLAIN), "b.csv": b"body,label\nx,y\n", "c.parquet": parquet(PLAIN), "d.csv": b""}
    folder_of(tmp_path / "parts", parts)
    with pytest.raises(InputError, match=message) as caught:
        by_row.read(Source(files=pattern), COLUMNS)
    assert "\n" not in str(caught.value)


def test_a_pattern_that_matches_folders_is_refused_unless_it_matches_their_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "y", {"a.csv": as_csv(PLAIN[:1])})
    folder_of(tmp_path / "y/b.csv", {"part-0.csv": as_csv(PLAIN[1:])})
    with pytest.raises(
        InputError, match=r"y/\*\.csv: the pattern matches the folder 'y/b\.csv'; write y/\*\.csv/\*\.csv to"
    ):
        sources.read(Source(files="y/*.csv"), COLUMNS)
    assert len(sources.read(Source(files="y/*.csv/*.csv"), COLUMNS)[0][ALL]) == len(PLAIN) - 1
    assert len(sources.read(Source(files="y/**/*.csv"), COLUMNS)[0][ALL]) == len(PLAIN)


@pytest.mark.parametrize("files", ["y", "y/*.csv"])
@pytest.mark.parametrize("link", ["none.csv", "b.csv"])
def test_a_link_to_nothing_is_refused_in_one_line(tmp_path, monkeypatch, files, link):
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "y", {"a.csv": as_csv(PLAIN)})
    (tmp_path / "y/b.csv").symlink_to(link)  # or to itself
    with pytest.raises(
        InputError, match=r"'b\.csv', which is neither a file nor a folder, or a broken link; remove it"
    ):
        sources.read(Source(files=files), COLUMNS)


def test_a_pipe_is_refused_in_one_line(tmp_path):
    path = tmp_path / "x.csv"
    os.mkfifo(path)
    for read in (lambda: sources.read(Source(files=str(path)), COLUMNS), lambda: _content(path, Hashes(), False)):
        with pytest.raises(InputError, match=r"x\.csv: neither a file nor a folder"):
            read()


# --- files that change --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("files", ["y", "y/*.csv"])
def test_parts_are_listed_once(tmp_path, monkeypatch, files):
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "y", {"a.csv": as_csv(PLAIN)})
    digest, hashed = sources.sha256_of, []

    def later(path):
        hashed.append(path.name)
        (tmp_path / "y/b.csv").write_bytes(as_csv(PLAIN))
        return digest(path)

    monkeypatch.setattr(sources, "sha256_of", later)
    rows = sources.read(Source(files=files), COLUMNS)[0][ALL]
    assert (hashed, len(rows), rows.names) == (["a.csv"], len(PLAIN), ["y/a.csv"])


@pytest.mark.parametrize("emptied", [False, True])
def test_a_part_without_a_byte_may_not_be_filled_while_it_is_read(tmp_path, monkeypatch, emptied):
    parts = folder_of(tmp_path / "y", {"a.csv": as_csv(PLAIN), "b.csv": b""})
    digest = sources.sha256_of

    def later(path):
        found = digest(path)
        if path.name == "b.csv":
            path.write_bytes(as_csv(PLAIN))
        elif emptied:
            path.write_bytes(b"")
        return found

    monkeypatch.setattr(sources, "sha256_of", later)
    with pytest.raises(InputError, match=r"[ab]\.csv: the file changed while it was read"):
        sources.read(Source(files=parts), COLUMNS)


@pytest.mark.parametrize("at", ["sha256_of", "read_columns", "class_names"])
@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_a_file_that_is_removed_or_cut_while_it_is_read_is_one_line(tmp_path, monkeypatch, at, name):
    path, step = tmp_path / name, getattr(sources, at)
    for change, message in ((Path.unlink, "was removed"), (lambda path: os.truncate(path, 30), "changed")):
        path.write_bytes((parquet if name == "x.parquet" else as_csv)(PLAIN))

        def changing(*arguments, change=change):
            change(path)
            return step(*arguments)

        monkeypatch.setattr(sources, at, changing)
        with pytest.raises(InputError, match=rf"{name}: the file {message} while it was read; run the stage again"):
            sources.read(Source(files=str(path)), COLUMNS)


# --- stray quotes in csv ------------------------------------------------------------------------------------------------


def prepared(tmp_path, content, **bad_rows):
    path = tmp_path / "x.csv"
    path.write_text(content)
    source = Source(files=str(path))
    columns = Columns(sentence1="text", label="label")
    splits = {"train": 0.5, "validation": 0.5}
    text = Text(source=source, columns=columns, labels=["0", "1"], splits=splits, bad_rows=BadRows(**bad_rows))
    return by_row.prepare(by_row.read(source, columns)[0], text, "raw")


@pytest.mark.parametrize("header", ["text,label", "id,text,label", "label,text"])
@pytest.mark.parametrize("last", [13, 40])
def test_rows_between_two_stray_quotes_are_refused(tmp_path, caplog, header, last):
    texts = [f"film {n}" for n in range(60)]
    texts[10], texts[last] = '"' + texts[10], texts[last] + '"'
    if header == "text,label":
        rows = [f"{text},{n % 2}" for n, text in enumerate(texts)]
    elif header == "label,text":
        rows = [f"{n % 2},{text}" for n, text in enumerate(texts)]
    else:
        rows = [f"{n},{text},{n % 2}" for n, text in enumerate(texts)]
    content = "\n".join([header, *rows, ""])
    with pytest.raises(InputError, match=rf"line 12 \(a quote opens here and closes in line {last + 2}; double quotes"):
        prepared(tmp_path, content)
    _, report = prepared(tmp_path, content, fields="drop")
    assert report.problems["fields"].dropped == 1
    assert f"closes in line {last + 2}" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        "12 Main St\nSpringfield, IL\nUSA, 62701\nPhone, 555\n",  # as many commas as the header, no labels
        "a table:\n1,0\n0,1\n1,1\n",  # labels, no text
        "scores\nfirst,1\nand so on\nit ends\nhere\n",
        "one\n\n\n\ntwo",
    ],
)
def test_texts_over_several_lines_are_kept(tmp_path, text):
    rows = [("text", "label"), (text, "1"), *((f"film {n}", "0") for n in range(20))]
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows(rows)
    table, report = prepared(tmp_path, buffer.getvalue().replace("\r\n", "\n"))
    assert text.strip() in table["sentence1"].to_pylist()
    assert not report.problems["fields"].count
