import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import tables
from pipeline.errors import InputError

UNICODE = st.text(st.characters(codec="utf-8"))


def examples(n=3, split="train"):
    columns = {
        "id": [f"{i:032x}" for i in range(n)],
        "split": [split] * n,
        "sentence1": [f"text {i}" for i in range(n)],
        "sentence2": [None] * n,
        "label": [0] * n,
        "line": range(1, n + 1),
    }
    return pa.table(columns).cast(tables.EXAMPLES)


# --- ids ----------------------------------------------------------------------------------------------------------------


def test_ids_do_not_change_from_one_version_to_the_next():
    # the first is XXH3-128 of nothing, from the algorithm's own test vectors
    assert tables.content_ids(["", "a film", "naïve"]) == [
        "99aa06d3014798d86001c324468d497f",
        "a472d331f5fb249cc137cd91d94de8c3",
        "75cf51022852202d973709312f5ed1e7",
    ]
    assert tables.content_ids(["a"], ["b"]) == ["e5e3a0fcdb3add313c2d4efbd578b52d"]


def test_a_sentence_has_the_same_id_in_any_table():
    together = tables.content_ids(["a", "b", "a"])
    assert together == [*tables.content_ids(["a", "b"]), *tables.content_ids(["a"])]
    assert tables.content_ids(["a"], [None]) == tables.content_ids(["a"])
    assert tables.content_ids([]) == []


@given(UNICODE, UNICODE, UNICODE, UNICODE)
def test_the_pair_boundary_is_unambiguous(a, b, c, d):
    same = (a, b) == (c, d)
    assert (tables.content_ids([a], [b]) == tables.content_ids([c], [d])) == same
    assert tables.content_ids([a + b]) != tables.content_ids([a], [b])
    if a:
        assert tables.content_ids([a[:-1]], [a[-1] + b]) != tables.content_ids([a], [b])


@given(st.lists(UNICODE))
def test_digests_are_the_ids(texts):
    ids = tables.content_ids(texts)
    digests = tables.content_digests(pa.array(texts, pa.string()))
    assert digests.shape == (len(texts), 2)
    assert digests.dtype == np.uint64
    assert tables.hex_ids(digests).to_pylist() == ids
    assert [f"{int(high):016x}{int(low):016x}" for high, low in digests] == ids
    assert np.array_equal(tables.id_digests(pa.array(ids, pa.string())), digests)


# --- files --------------------------------------------------------------------------------------------------------------


def test_write_and_read(tmp_path):
    path = tmp_path / "new" / "x.parquet"
    tables.write(path, examples(), {"task": "films", "labels": ["né", "b"]})
    assert tables.read(path, tables.EXAMPLES).equals(examples())
    assert tables.read(path, tables.EXAMPLES, ["line", "id"]).column_names == ["line", "id"]
    assert tables.metadata_of(path) == {"task": "films", "labels": ["né", "b"]}
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"
    assert [found.name for found in path.parent.iterdir()] == ["x.parquet"]


def test_the_same_rows_are_the_same_bytes(tmp_path):
    tables.write(tmp_path / "a", examples(), {"x": 1, "rules": {"second": 1, "first": 2}})
    tables.write(tmp_path / "b", examples(), {"x": 1, "rules": {"second": 1, "first": 2}})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    # Augmentation rules apply in their order, so the metadata keeps it.
    assert list(tables.metadata_of(tmp_path / "a")["rules"]) == ["second", "first"]


def test_metadata_keeps_what_others_put_there(tmp_path):
    schema = tables.with_metadata(tables.EXAMPLES.with_metadata({"huggingface": "{}"}), {"rows": 3})
    assert schema.metadata[b"huggingface"] == b"{}"
    tables.write(tmp_path / "x", examples())
    assert tables.metadata_of(tmp_path / "x") == {}


def test_a_table_with_nulls_where_there_may_be_none_is_not_read(tmp_path):
    path = tmp_path / "x.parquet"
    nullable = pa.schema([field.with_nullable(True) for field in tables.EXAMPLES])
    broken = examples().cast(nullable).set_column(0, "id", pa.array(["a", None, "b"]))
    pq.write_table(broken, path)
    with pytest.raises(InputError, match=r"x\.parquet: .*'id' with null values"):
        tables.read(path, tables.EXAMPLES)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("label", pa.array(["0", "1", "2"]), "column 'label' is string, not int32"),
        ("split", pa.array([1, 2, 3]), "values do not match the schema"),
    ],
)
def test_a_table_with_another_type_is_not_read(tmp_path, name, values, message):
    table = examples()
    pq.write_table(table.set_column(table.column_names.index(name), name, values), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=message):
        tables.read(tmp_path / "x.parquet", tables.EXAMPLES)


def test_a_missing_column_is_named_with_those_there_are(tmp_path):
    pq.write_table(examples().select(["id", "label"]), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"has no column 'split' \(it has id, label\)"):
        tables.read(tmp_path / "x.parquet", tables.EXAMPLES)


def test_files_that_are_no_tables(tmp_path):
    with pytest.raises(InputError, match="no such file; run the stage"):
        tables.read(tmp_path / "nowhere.parquet", tables.EXAMPLES)
    (tmp_path / "x.parquet").write_text("text,label\n")
    with pytest.raises(InputError, match="not a Parquet file"):
        tables.read(tmp_path / "x.parquet", tables.EXAMPLES)


@pytest.mark.parametrize("dtype", [None, pa.float16()])
def test_logits_schema(dtype):
    schema = tables.logits_schema(3, dtype)
    assert schema.field("logits").type == pa.list_(dtype or pa.float32(), 3)
    assert not schema.field("logits").nullable
    # a row of augmented says how it arose, and the logit data set repeats it
    lineage = [field for field in tables.AUGMENTED if field.name not in ("id", "sentence1", "sentence2")]
    assert all(schema.field(field.name) == field for field in lineage)


@pytest.mark.parametrize("places", [[], [0], [9, 3, 3, 0, 19, 7], list(range(20)), [5, 6, 7]])
def test_rows_are_taken_from_parts_of_a_table(places: list[int], monkeypatch: pytest.MonkeyPatch):
    """Arrow's own `take` copies the whole table, and fails where a column has more than 2 GiB of text."""
    monkeypatch.setattr(tables, "TAKEN", 4)
    monkeypatch.setattr(tables, "TAKEN_FROM", 3)
    parts = [
        pa.table(
            {"text": [f"row {n}" for n in part], "split": pa.array([f"{part[0]}"] * len(part)).dictionary_encode()}
        )
        for part in (range(5), range(5, 6), range(6, 20))
    ]
    rows = pa.concat_tables(parts)
    found = tables.take(rows, np.array(places, np.int64))
    assert found.to_pylist() == [rows.to_pylist()[place] for place in places]
    assert [len(chunk) for chunk in found["text"].chunks if len(chunk)] == [
        len(places[at : at + 4]) for at in range(0, len(places), 4)
    ]
