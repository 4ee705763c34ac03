import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import augmented_table, examples_table

from pipeline import tables
from pipeline.errors import InputError
from pipeline.labelling.rows import LabelRows
from pipeline.labelling.store import LabelStore, Writer, fingerprint, locked

FACTS = {"sha256": "00", "dtype": "float32"}
VERSIONS = {"torch": "2.13.0", "tokenizers": "0.22"}


def ids(*texts: str) -> pa.Array:
    return pa.array([hashlib.md5(text.encode()).digest() for text in texts], pa.binary(16))


def logits(*rows: float) -> np.ndarray:
    return np.array([[value, -value] for value in rows], dtype=np.float32)


def cut(*rows: bool) -> np.ndarray:
    return np.array(rows, dtype=np.bool_)


def test_what_was_added_is_found_now_and_after_the_store_was_closed(tmp_path: Path):
    with LabelStore.opened(tmp_path, FACTS, 2) as store:
        assert store.places(ids("a"), False).tolist() == [-1]
        store.add(ids("a", "b"), logits(1, 2), cut(False, True), VERSIONS)
        store.add(ids("c"), logits(3), cut(False), VERSIONS)
    for _ in range(2):
        with LabelStore.opened(tmp_path, FACTS, 2) as store:
            places = store.places(ids("c", "z", "b", "a"), False)
            assert (places >= 0).tolist() == [True, False, True, True]
            values, truncated = store.take(places[[0, 2, 3, 0]])
            assert values.tolist() == logits(3, 2, 1, 3).tolist()
            assert truncated.tolist() == [False, True, False, False]
            assert len(store.take(places[:0])[0]) == 0


@given(parts=st.lists(st.lists(st.integers(0, 99), max_size=9), max_size=6), wanted=st.lists(st.integers(0, 99)))
def test_any_text_comes_back_from_any_part(parts: list[list[int]], wanted: list[int], tmp_path_factory):
    with LabelStore.opened(tmp_path_factory.mktemp("store"), FACTS, 2) as store:
        for part in filter(None, parts):
            store.add(ids(*map(str, part)), logits(*part), np.array(part) % 3 == 0, VERSIONS)
        places = store.places(ids(*map(str, wanted)), False)
        known = {number for part in parts for number in part}
        assert (places >= 0).tolist() == [number in known for number in wanted]
        found = [number for number in wanted if number in known]
        values, truncated = store.take(places[places >= 0])
        assert values[:, 0].tolist() == found
        assert truncated.tolist() == [number % 3 == 0 for number in found]


def test_a_part_is_named_by_its_bytes_and_the_same_rows_give_the_same(tmp_path: Path):
    names = []
    for number in range(2):
        with LabelStore.opened(tmp_path / str(number), FACTS, 2) as store:
            store.add(ids("a", "b"), logits(1, 2), cut(False, True), VERSIONS)
            names.append([path.name for path in store.folder.glob("*.arrow")])
            assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in store.folder.glob("*.arrow")] == [
                name.removesuffix(".arrow") for name in names[-1]
            ]
    assert names[0] == names[1]


@pytest.mark.parametrize("damage", ["flipped", "cut off", "empty", "another's"])
def test_a_damaged_part_is_logged_and_removed_and_the_rest_stays(tmp_path: Path, caplog, damage: str):
    with LabelStore.opened(tmp_path, FACTS, 2) as store:
        store.add(ids("a"), logits(1), cut(False), VERSIONS)
        (first,) = store.folder.glob("*.arrow")
        store.add(ids("b"), logits(2), cut(False), VERSIONS)
    whole = first.read_bytes()
    other = next(path for path in first.parent.glob("*.arrow") if path != first).read_bytes()
    flipped = whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]
    first.write_bytes({"flipped": flipped, "cut off": whole[:-9], "empty": b"", "another's": other}[damage])
    (first.parent / f"{'0' * 64}.arrow.tmp-1-2").write_bytes(b"of a run that was killed")
    with LabelStore.opened(tmp_path, FACTS, 2) as store:
        assert (store.places(ids("a", "b"), False) >= 0).tolist() == [False, True]
    assert f"{first}: damaged" in caplog.text
    assert len(list(first.parent.glob("*.arrow*"))) == 1


def test_texts_left_out_as_too_long_are_labelled_when_they_are_wanted(tmp_path: Path):
    with LabelStore.opened(tmp_path, FACTS, 2) as store:
        store.add(ids("a", "long"), logits(1, float("nan")), cut(False, True), VERSIONS)
        assert (store.places(ids("a", "long"), True) >= 0).tolist() == [True, True]
        assert (store.places(ids("a", "long"), False) >= 0).tolist() == [True, False]
        store.add(ids("long"), logits(5), cut(True), VERSIONS)
        assert store.take(store.places(ids("long"), False))[0].tolist() == logits(5).tolist()


def test_each_fingerprint_has_its_own_store(tmp_path: Path):
    other = {**FACTS, "dtype": "bfloat16"}
    assert fingerprint(FACTS) == fingerprint(dict(reversed(FACTS.items()))) != fingerprint(other)
    with LabelStore.opened(tmp_path, FACTS, 2) as store, LabelStore.opened(tmp_path, other, 2) as second:
        store.add(ids("a"), logits(1), cut(False), VERSIONS)
        assert second.places(ids("a"), False).tolist() == [-1]


def test_a_lock_is_held_once_and_names_its_holder(tmp_path: Path):
    with locked(tmp_path / "lock", "the store"):
        message = rf"^the store is in use by process {os.getpid()} on \S+ since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d; wait"
        with pytest.raises(InputError, match=message), locked(tmp_path / "lock", "the store"):
            pass
    with locked(tmp_path / "lock", "the store"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_a_lock_whose_holder_was_killed_is_free(tmp_path: Path):
    code = "import os, sys; from pathlib import Path; from pipeline.labelling.store import locked\n"
    code += "with locked(Path(sys.argv[1]), 'the store'): os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "lock")], check=False)
    assert done.returncode == -9
    killed = (tmp_path / "lock.holder").read_text()
    assert killed.startswith("process ")
    with locked(tmp_path / "lock", "the store"):
        assert (tmp_path / "lock.holder").read_text() != killed
        (tmp_path / "lock.holder").unlink()
        with pytest.raises(InputError, match="in use by another process; wait"), locked(tmp_path / "lock", "the store"):
            pass


def test_versions_are_those_of_the_parts(tmp_path: Path):
    with LabelStore.opened(tmp_path, FACTS, 2) as store:
        store.add(ids("a", "b"), logits(1, 2), cut(False, False), {"torch": "2.9", "tokenizers": "1"})
        store.add(ids("c"), logits(3), cut(False), {"torch": "2.8, 2.10", "tokenizers": "1"})
    for _ in range(2):
        with LabelStore.opened(tmp_path, FACTS, 2) as store:
            assert store.versions(store.places(ids("b"), False)) == {"torch": "2.9", "tokenizers": "1"}
            assert store.versions(store.places(ids("c", "a"), False)) == {"torch": "2.10, 2.8, 2.9", "tokenizers": "1"}
            assert store.versions(store.places(ids(), False)) == {}


def test_the_error_of_the_writer_fails_the_run_and_earlier_parts_are_written(tmp_path: Path, monkeypatch):
    with LabelStore.opened(tmp_path, FACTS, 2) as store:
        add = store.add

        def fail_at_b(texts: pa.Array, *rest: object) -> None:
            if texts == ids("b"):
                raise InputError("no room")
            add(texts, *rest)

        monkeypatch.setattr(store, "add", fail_at_b)
        with pytest.raises(InputError, match="no room"), Writer(store) as writer:
            for text in "abcdefg":
                writer.put(ids(text), logits(1), cut(False), VERSIONS)
        assert store.places(ids("a", "b"), False).tolist() == [0, -1]
        with pytest.raises(InputError, match="no room"), Writer(store) as writer:
            writer.put(ids("b"), logits(1), cut(False), VERSIONS)
        with pytest.raises(ZeroDivisionError), Writer(store) as writer:
            writer.put(ids("z"), logits(1), cut(False), VERSIONS)
            raise ZeroDivisionError
        assert store.places(ids("z"), False)[0] >= 0


# --- pools --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> LabelRows:
    """Return 500 rows with 400 texts, in the examples and three files."""
    folder = tmp_path_factory.mktemp("rows")
    examples = examples_table([("train" if i % 3 else "test", f"text {i}", None, 0) for i in range(100)])
    files = []
    for start in (50, 200, 250):
        files.append(folder / f"augmented-{start:05}.parquet")
        tables.write(files[-1], augmented_table([("p", f"text {i}", None) for i in range(start, start + 150)]))
    return LabelRows.read(examples, files)


def texts_of(pools: list[pa.Table]) -> list[list[str]]:
    return [pool["sentence1"].to_pylist() for pool in pools]


def test_each_text_is_in_one_pool_in_the_order_of_the_rows(rows: LabelRows):
    pools = list(rows.pools(np.ones(len(rows.texts), np.bool_), 20))
    assert [text for pool in texts_of(pools) for text in pool] == [f"text {i}" for i in range(400)]
    assert len(pools) > 10
    lines = [line for pool in pools for line in pool["line"].to_pylist()]
    assert lines == [*range(2, 102), *[None] * 300]
    assert tables.id_bytes(pa.concat_tables(pools)["id"]) == rows.texts
    assert rows.texts.take(pa.array(rows.text_of)).to_pylist()[100:150] == rows.texts.to_pylist()[50:100]
    assert list(rows.pools(np.zeros(len(rows.texts), np.bool_), 20)) == []


@given(gone=st.sets(st.integers(0, 40)), wanted=st.integers(0, 2**32))
def test_removing_pools_leaves_the_rest_unchanged(rows: LabelRows, gone: set[int], wanted: int):
    chosen = np.random.default_rng(wanted).random(len(rows.texts)) < 0.8
    pools = texts_of(list(rows.pools(chosen, 20)))
    done = {text for number, pool in enumerate(pools) if number in gone for text in pool}
    left = chosen & np.array([f"text {i}" not in done for i in range(len(rows.texts))])
    assert texts_of(list(rows.pools(left, 20))) == [pool for number, pool in enumerate(pools) if number not in gone]


def test_ids_are_converted_to_bytes_and_an_invalid_id_is_refused():
    given = tables.content_ids([f"text {i}" for i in range(9)])
    for chunks in ([given], [given[:4], given[4:]], [[], given]):
        found = tables.id_bytes(pa.chunked_array([pa.array(chunk, pa.string()) for chunk in chunks]))
        assert [value.hex() for value in found.to_pylist()] == given
    assert len(tables.id_bytes(pa.chunked_array([], pa.string()))) == 0
    sliced = pa.chunked_array([pa.array(given)]).slice(3, 2)
    assert [value.hex() for value in tables.id_bytes(sliced).to_pylist()] == given[3:5]
    for wrong in ("p", "z" * 32, "a" * 34, "é" * 16, "a" * 30 + "  ", None):
        with pytest.raises(InputError, match="an id is not 32 hex digits"):
            tables.id_bytes(pa.chunked_array([[given[0], wrong]]))
