"""sources.py and, through it, records.py: every kind of file as a task would name it."""

import csv
import hashlib
import io
import json
import sys
import unicodedata

import by_row
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.params.text import Columns, Source
from pipeline.text.records import Fault
from pipeline.text.sources import ALL

COLUMNS = Columns(sentence1="text", label="label")
PAIRS = Columns(sentence1="a", sentence2="b", label="label")


@pytest.fixture
def read(tmp_path):
    """Write a file and read it as a source of one file."""

    def read(name, content, columns=COLUMNS, **source):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return by_row.read(Source(files=str(path), **source), columns)[0][ALL]

    return read


def plain(rows):
    return list(zip(rows.lines, rows.sentence1, rows.labels, strict=True))


# --- csv ----------------------------------------------------------------------------------------------------------------


def test_csv_lines_with_quoted_newlines(read):
    rows = read("x.csv", 'text,label\n"one\nand, ""two""\n",1\nthree,0\n"four\r\nfive",1\n\nsix,0')
    assert plain(rows) == [
        (2, 'one\nand, "two"\n', "1"),
        (5, "three", "0"),
        (6, "four\r\nfive", "1"),
        (8, None, None),
        (9, "six", "0"),
    ]
    assert not rows.faults


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_csv_reads_back_what_csv_writes(tmp_path_factory, written, end):
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator=end)
    lines = []
    for row in [("text", "label"), *written]:
        lines.append(buffer.getvalue().count("\n") + 1)
        writer.writerow(row)
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    path.write_bytes(buffer.getvalue().encode())
    rows = by_row.read(Source(files=str(path)), COLUMNS)[0][ALL]
    assert plain(rows) == [(line, *row) for line, row in zip(lines[1:], written, strict=True)]
    assert not rows.faults


@pytest.mark.parametrize("name", ["x.csv", "x.tsv"])
def test_byte_order_mark_crlf_no_final_newline_nul_and_huge_fields(read, name):
    before = csv.field_size_limit(131_072)
    huge = "x" * 300_000
    rows = read(name, f"\ufefftext,label\r\nna\0ïve,1\r\n{huge},0".replace(",", "\t" if name == "x.tsv" else ","))
    assert plain(rows) == [(2, "na\0ïve", "1"), (3, huge, "0")]
    assert csv.field_size_limit(before) == 131_072


def test_csv_rows_that_are_no_rows(read):
    rows = read("x.csv", 'text,label\ngood,1\nonly\na,b,c\n"x"y,1\nlone\rreturn,0\n"two\nlines"z,0\nlast,0\n')
    assert plain(rows)[-1] == (9, "last", "0")
    assert [rows.lines[position] for position in rows.faults] == [3, 4, 5, 6, 7]
    assert {fault.kind for fault in rows.faults.values()} == {"fields"}
    assert rows.faults[1].value == "1 field, but the header has 2"
    assert rows.faults[2].value == "3 fields, but the header has 2"
    assert "ends at line 8" in rows.faults[5].value
    assert all(rows.sentence1[position] is None for position in rows.faults)


def test_csv_quote_that_never_closes_is_refused_with_its_line(read):
    with pytest.raises(InputError, match=r"x\.csv, line 3: a quote opens in this row and never closes"):
        read("x.csv", 'text,label\ngood,1\n"bad,0\nmore,1\nmore,1\n')


# --- tsv ----------------------------------------------------------------------------------------------------------------


def test_tsv_knows_no_quotes_and_no_line_ends_but_lf(read):
    odd = ['say "hello', '"', "'quoted'", "a\u2028b\x85c\x0bd\re", " kept "]
    rows = read("x.TSV", "label\ttext\n" + "".join(f"1\t{text}\n" for text in odd))
    assert plain(rows) == [(line, text, "1") for line, text in enumerate(odd, start=2)]


def test_tsv_fields(read):
    rows = read("x.tsv", "text\tlabel\na\t1\t2\n\nb\nc\t0\n")
    assert rows.lines == [2, 3, 4, 5]
    assert sorted(rows.faults) == [0, 2]
    assert rows.sentence1 == [None, None, None, "c"]


@pytest.mark.parametrize(("name", "end"), [("x.csv", ","), ("x.tsv", "\t")])
def test_bytes_that_are_not_utf8(read, name, end):
    rows = read(name, f"text{end}label\nfine{end}1\n".encode() + b"caf\xe9" + f"{end}1\nna{end}".encode() + b"\xff\n")
    assert rows.lines == [2, 3, 4]
    assert rows.faults == {1: Fault("encoding", r"caf\xe9"), 2: Fault("encoding", r"\xff")}


def test_bytes_in_a_column_that_is_not_read_do_not_matter(read):
    rows = read("x.tsv", b"text\tother\tlabel\nfine\t\xe9\t1\n")
    assert plain(rows) == [(2, "fine", "1")]
    assert not rows.faults


# --- headers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "", "the first line must name the columns"),
        ("x.csv", "\ntext,label\na,1\n", "the first line must name the columns"),
        ("x.tsv", "", "the first line must name the columns"),
        ("x.jsonl", "", "has no rows"),
        ("x.csv", "text,label\n", "has no rows"),
        ("x.tsv", "text\tlabel\n", "has no rows"),
        ("x.tsv", "text\tgold\na\t1\n", r"x\.tsv: has no column 'label'.*'text', 'gold'"),
        ("x.jsonl", '{"text": "a", "gold": 1}\n', r"has no column 'label'.*'text', 'gold'"),
        ("x.csv", "text,label,text\na,1,b\n", "more than one column 'text'"),
        ("x.csv", "text,label\na,1\n".encode("utf-16"), "UTF-16"),
        ("x.parquet", "text,label\na,1\n", "cannot be read as Parquet"),
        ("x.txt", "text,label\na,1\n", r"must be one of \.csv, \.tsv, \.jsonl, \.parquet"),
    ],
)
def test_files_that_cannot_be_read(read, name, content, message):
    with pytest.raises(InputError, match=message):
        read(name, content)


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_of_columns_match_in_another_unicode_form(read, forms):
    ours, theirs = (unicodedata.normalize(form, "catégorie") for form in forms)
    columns = Columns(sentence1="text", label=ours)
    for name, end in (("x.csv", ","), ("x.tsv", "\t")):
        assert read(name, f"text{end}{theirs}\na{end}1\n", columns).labels == ["1"]
    with pytest.raises(InputError, match="in another Unicode form: write both in NFC"):
        read("x.parquet", parquet(**{"text": ["a"], theirs: ["1"]}), columns)


def test_a_header_that_is_not_utf8_is_named_as_such(read):
    with pytest.raises(InputError, match=r"the names of its columns are not UTF-8; convert it, .*iconv -f LATIN1"):
        read("x.csv", "text,catégorie\na,1\n".encode("latin-1"), Columns(sentence1="text", label="catégorie"))


def test_a_quote_that_is_not_doubled_is_named(read):
    rows = read("x.csv", 'text,label\n"He said \\"x\\" twice",1\nfine,0\n')
    assert rows.faults[0].value == "a quote in a field; double it"


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.csv: no such file"):
        by_row.read(Source(files=str(tmp_path / "nowhere.csv")), COLUMNS)


# --- jsonl --------------------------------------------------------------------------------------------------------------


def test_jsonl_values(read):
    values = ["one", 1, 1.0, 0.5, True, None, "", "a\nb\u2028c"]
    rows = read("x.jsonl", "".join(json.dumps({"text": "t", "label": v}, ensure_ascii=False) + "\r\n" for v in values))
    assert rows.labels == ["one", "1", "1", "0.5", "true", None, "", "a\nb\u2028c"]
    assert rows.lines == list(range(1, 9))


def test_jsonl_rows_that_are_no_rows(read):
    good = '{"text": "a", "label": 1}\n'
    bad = ["{'text': 'a'}", "[1]", '{"text": "a"}', '{"text": ["a"], "label": 1}', "[" * 100_000]
    rows = read("x.jsonl", good + "".join(f"{line}\n{good}" for line in bad))
    assert [rows.lines[position] for position in rows.faults] == [2, 4, 6, 8, 10]
    assert {fault.kind for fault in rows.faults.values()} == {"fields"}
    assert "write null" in rows.faults[5].value


def test_jsonl_encoding(read):
    rows = read("x.jsonl", b'{"text": "caf\xe9", "label": 1}\n{"text": "\\ud800", "label": 1}\n  \n')
    assert {position: fault.kind for position, fault in rows.faults.items()} == {0: "encoding", 1: "encoding"}
    assert plain(rows)[2] == (3, None, None)


# --- parquet ------------------------------------------------------------------------------------------------------------


def parquet(**columns):
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (pa.array([1, 0, None], pa.int8()), ["1", "0", None]),
        (pa.array([1.0, float("nan"), None]), ["1", None, None]),
        (pa.array([True, False, None]), ["true", "false", None]),
        (pa.array(["x", "y", None]).dictionary_encode(), ["x", "y", None]),
        (pa.array(["x", "y", None], pa.large_string()), ["x", "y", None]),
        (pa.array([b"x", b"y", None]), ["x", "y", None]),
    ],
)
def test_parquet_values(read, labels, expected):
    rows = read("x.parquet", parquet(text=["a", None, "b"], label=labels))
    assert plain(rows) == list(zip([1, 2, 3], ["a", None, "b"], expected, strict=True))


def test_parquet_text_that_is_not_utf8(read):
    broken = pa.array([b"caf\xe9", b"fine"]).view(pa.string())
    rows = read("x.parquet", parquet(text=broken, label=[1, 1]))
    assert rows.faults == {0: Fault("encoding", r"caf\xe9")}


def test_parquet_columns_that_are_no_text(read):
    with pytest.raises(InputError, match="column 'label' is list"):
        read("x.parquet", parquet(text=["a"], label=[[1]]))
    with pytest.raises(InputError, match="has no column 'label'"):
        read("x.parquet", parquet(text=["a"]))


# --- where, sha256, splits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.parquet"])
@pytest.mark.parametrize(
    ("where", "kept"), [({"n": 1}, ["a", "c"]), ({"n": "1", "ok": True}, ["a"]), ({"n": 2.0}, ["b"])]
)
def test_where_compares_as_text(read, name, where, kept):
    content = {
        "x.csv": "text,label,n,ok\na,0,1,true\nb,0,2,true\nc,0,1,false\n",
        "x.jsonl": "".join(
            json.dumps({"text": t, "label": 0, "n": n, "ok": ok}) + "\n"
            for t, n, ok in [("a", 1, True), ("b", 2, True), ("c", 1, False)]
        ),
        "x.parquet": parquet(text=["a", "b", "c"], label=[0, 0, 0], n=[1, 2, 1], ok=[True, True, False]),
    }
    rows = read(name, content[name], where=where)
    assert rows.sentence1 == kept
    assert rows.left_out == 3 - len(kept)


def test_where_may_be_on_a_column_that_is_read(read):
    assert read("x.parquet", parquet(text=["a", "b"], label=[0, 1]), where={"label": 1}).sentence1 == ["b"]


def test_where_cannot_hide_a_fault(read):
    rows = read("x.csv", "text,label\na,1\nb\nc,0\n", where={"label": 1})
    assert rows.lines == [2, 3]
    assert list(rows.faults) == [1]


def test_where_that_selects_nothing(read):
    with pytest.raises(InputError, match=r"text\.source\.where \{label: 7\} selects none of its 2 rows"):
        read("x.csv", "text,label\na,1\nb,0\n", where={"label": 7})
    with pytest.raises(
        InputError, match=r"\{label: True\} selects none of its 1 row; YAML reads yes, .*: write the word in"
    ):
        read("x.csv", "text,label\na,yes\n", where={"label": True})


def test_sha256(read):
    content = b"text,label\na,1\n"
    digest = hashlib.sha256(content).hexdigest()
    assert read("x.csv", content, sha256=digest.upper()).sentence1 == ["a"]
    with pytest.raises(InputError, match=f"its SHA-256 is .*, not {digest}"):
        read("x.csv", content + b"b,0\n", sha256=digest)


def test_a_file_for_each_split(tmp_path):
    for split in ("test", "train", "validation"):
        (tmp_path / f"{split}.tsv").write_text(f"a\tb\tlabel\nfirst {split}\tsecond\tyes\n")
    files = {split: str(tmp_path / f"{split}.tsv") for split in ("test", "validation", "train")}
    rows, provenance = by_row.read(Source(files=files, licence="mit"), PAIRS)
    assert list(rows) == ["train", "validation", "test"]
    assert rows["test"].sentence1 == ["first test"]
    assert rows["test"].sentence2 == ["second"]
    assert provenance["licence"] == "mit"
    assert provenance["files"]["test"]["path"] == files["test"]
    assert len(provenance["files"]["test"]["sha256"]) == 64


# --- packages -----------------------------------------------------------------------------------------------------------


def test_package_is_read_without_being_imported(tmp_path, monkeypatch):
    package = tmp_path / "shipped_text"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (package / "data" / "x.csv").write_text("text,label\na,1\n")
    monkeypatch.syspath_prepend(tmp_path)
    rows, provenance = by_row.read(Source(package="shipped_text", path="data/x.csv"), COLUMNS)
    assert rows[ALL].name == "shipped_text/data/x.csv"
    assert plain(rows[ALL]) == [(2, "a", "1")]
    assert provenance["package"] == "shipped_text"
    assert provenance["files"][ALL]["path"] == "data/x.csv"
    assert "shipped_text" not in sys.modules
    with pytest.raises(InputError, match=r"has no file 'data/y\.csv'"):
        by_row.read(Source(package="shipped_text", path="data/y.csv"), COLUMNS)


@pytest.mark.parametrize("name", ["no_such_package", "no-such-package"])
def test_missing_package_says_how_to_install_it(name):
    with pytest.raises(InputError, match=f"python -m pip install {name}"):
        by_row.read(Source(package=name, path="x.csv"), COLUMNS)


# --- the Hub ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    """Put a data set in the Hub's place and note how it is asked for."""
    datasets = pytest.importorskip("datasets")
    asked = []

    def put(splits):
        def load_dataset(*args, **kwargs):
            asked.append((args, kwargs))
            if isinstance(splits, Exception):
                raise splits
            return datasets.DatasetDict(
                {
                    split: datasets.Dataset.from_dict(
                        {"text": [f"{split} {n}" for n in range(len(labels))], "label": labels},
                        features=datasets.Features(
                            {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
                        ),
                    )
                    for split, labels in splits.items()
                }
            )

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return asked

    return put


SOURCE = Source(hub="owner/name", config="part", revision="abc123")


def test_hub_class_numbers_become_names(hub, caplog):
    asked = hub({"test": [-1], "train": [0, 1], "validation": [1], "unsupervised": [-1]})
    rows, provenance = by_row.read(SOURCE, COLUMNS)
    assert asked == [(("owner/name", "part"), {"revision": "abc123"})]
    assert list(rows) == ["train", "validation", "test"]
    assert plain(rows["train"]) == [(1, "train 0", "neg"), (2, "train 1", "pos")]
    assert rows["test"].labels == [None]
    assert "not unsupervised" in caplog.text
    assert provenance["revision"] == "abc123"


def test_hub_where_and_one_split(hub):
    hub({"train": [0, 1, 1]})
    source = Source(hub="owner/name", revision="abc123", where={"label": "pos"})
    rows, _ = by_row.read(source, COLUMNS)
    assert plain(rows[ALL]) == [(2, "train 1", "pos"), (3, "train 2", "pos")]
    assert rows[ALL].left_out == 1


def test_hub_splits_by_other_names(hub, caplog):
    hub({"train": [0, 1], "validation_matched": [1], "validation_mismatched": [0], "test_matched": [-1]})
    names = {"test": "validation_mismatched", "train": "train", "validation": "validation_matched"}
    source = Source(hub="owner/name", revision="abc123", hub_splits=names)
    rows, provenance = by_row.read(source, COLUMNS)
    assert [(split, *plain(each)[0]) for split, each in rows.items()] == [
        ("train", 1, "train 0", "neg"),
        ("validation", 1, "validation_matched 0", "pos"),
        ("test", 1, "validation_mismatched 0", "neg"),
    ]
    assert "not test_matched" in caplog.text
    assert provenance["splits"] == names
    source = Source(hub="owner/name", revision="abc123", hub_splits={"train": "all"})
    with pytest.raises(
        InputError, match=r"hub_splits: owner/name@abc123: has no all; it has train, validation_matched"
    ):
        by_row.read(source, COLUMNS)


def test_otherwise_is_read_where_no_file_is_there(hub, tmp_path):
    asked = hub({"train": [0], "validation": [1]})
    files = {split: str(tmp_path / f"{split}.csv") for split in ("train", "validation")}
    source = Source(
        files=files,
        otherwise={"hub": "owner/name", "revision": "abc123", "columns": {"sentence1": "text", "label": "label"}},
    )
    columns = Columns(sentence1="a", label="b")
    rows, provenance = by_row.read(source, columns)
    assert plain(rows["train"]) == [(1, "train 0", "neg")]
    assert provenance["hub"] == "owner/name"

    (tmp_path / "train.csv").write_text("a,b\nours,pos\n")
    with pytest.raises(
        InputError, match=r"validation\.csv: no such file"
    ):  # half of the files is a mistake, no reason to read others
        by_row.read(source, columns)
    (tmp_path / "validation.csv").write_text("a,b\nours too,neg\n")
    rows, provenance = by_row.read(source, columns)
    assert plain(rows["train"]) == [(2, "ours", "pos")]
    assert set(provenance["files"]) == {"train", "validation"}
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"files": "a.csv", "hub_splits": {"train": "all"}}, "hub_splits go with hub"),
        ({"hub": "a/b", "revision": "c", "otherwise": {"files": "a.csv"}}, "otherwise goes with files"),
        ({"files": "a.csv", "otherwise": {"logits": "folder:x"}}, "cannot replace text"),
    ],
)
def test_what_does_not_go_together(given, message):
    with pytest.raises(ValueError, match=message):
        Source(**given)


def test_hub_errors(hub, monkeypatch):
    hub({"train": [0]})
    with pytest.raises(InputError, match=r"owner/name@abc123, train: has no column 'a'"):
        by_row.read(SOURCE, PAIRS)
    hub(ConnectionError("no\nroute"))
    with pytest.raises(InputError, match="owner/name@abc123: no route"):
        by_row.read(SOURCE, COLUMNS)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match="pip install datasets"):
        by_row.read(SOURCE, COLUMNS)
