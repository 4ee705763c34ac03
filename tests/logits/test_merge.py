import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from logit_sets import changed, column, rows, shard_of, write

from pipeline.errors import InputError
from pipeline.logits import dataset, merge, verify, writing


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "verify", verify.check)  # saves seconds


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return write(tmp_path / "one", train=rows("train").slice(0, 7))


def other(folder: Path, **changes: object) -> Path:
    """Return a data set of the same originals with other copies, drawn with another seed. One copy is in both."""
    copies = [
        (0, 0, "a good [MASK] about a long war", {"masked1": 1}),
        (1, 1, "the plot is dull and the war is worse", {"replaced1": 1}),
        (3, 0, "nothing [MASK] <b>works</b>", {"masked1": 1}),
    ]
    return write(folder, changed(augmentation__seed=1, **changes), train=rows("train", copies=copies))


def test_a_merged_data_set_has_every_text_once_and_passes_verify(one: Path, tmp_path: Path):
    two = other(tmp_path / "two")
    found = merge.merge([one, two], tmp_path / "both")
    assert found == {"train": 9, "validation": 4, "test": 2}
    assert verify.is_whole(verify.verify(tmp_path / "both")), verify.listed(verify.verify(tmp_path / "both"))
    parts = [dataset.read_split(folder, "train") for folder in (one, two)]
    both = dataset.read_split(tmp_path / "both", "train")
    assert both["id"].to_pylist() == list(dict.fromkeys(id for part in parts for id in sorted_originals(parts, part)))
    about = dataset.provenance(tmp_path / "both")
    assert [part["augmentation"]["seed"] for part in about["merged"]] == [0, 1]
    assert "merged from 2 data sets" in (tmp_path / "both" / "README.md").read_text()


def sorted_originals(parts: list[pa.Table], part: pa.Table) -> list[str]:
    """Return ids in the order of the merged rows: the originals of all parts come first."""
    originals = [row["id"] for p in parts for row in p.to_pylist() if row["parent_id"] is None]
    copies = [row["id"] for row in part.to_pylist() if row["parent_id"] is not None]
    return [*originals, *copies]


def test_rows_that_come_in_many_batches_are_merged_alike(one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    two = other(tmp_path / "two")
    merge.merge([one, two], tmp_path / "both")
    monkeypatch.setattr(dataset, "ROW_GROUP_ROWS", 2)
    merge.merge([one, two], tmp_path / "again")
    assert (tmp_path / "again" / "manifest.json").read_bytes() == (tmp_path / "both" / "manifest.json").read_bytes()


def test_data_sets_of_test_rows_alone_are_merged(tmp_path: Path):
    none = {split: rows(split).slice(0, 0) for split in ("train", "validation")}
    folders = [write(tmp_path / name, **none) for name in ("one", "two")]
    assert merge.merge(folders, tmp_path / "both") == {"train": 0, "validation": 0, "test": 2}


def test_a_merge_of_a_merged_data_set_lists_every_part(one: Path, tmp_path: Path):
    merge.merge([one, other(tmp_path / "two")], tmp_path / "both")
    merge.merge([tmp_path / "both", write(tmp_path / "three")], tmp_path / "all")
    assert len(dataset.provenance(tmp_path / "all")["merged"]) == 3


def test_an_original_is_preferred_to_a_copy_of_the_same_text_and_a_known_label_to_none(one: Path, tmp_path: Path):
    copied = rows("train", copies=[(0, 0, "a brand new film", {"replaced1": 1})])
    first = write(tmp_path / "first", train=copied)
    known = column(copied.slice(4), "label", [1])
    for name in ("parent_id", "copy", "side", "masked1", "replaced1", "edited1"):
        known = column(known, name, [None])
    second = write(tmp_path / "second", train=known)
    merge.merge([first, second], tmp_path / "both")
    row = next(
        row
        for row in dataset.read_split(tmp_path / "both", "train").to_pylist()
        if row["sentence1"] == "a brand new film"
    )
    assert (row["parent_id"], row["label"]) == (None, 1)


def test_small_differences_of_logits_are_tolerated(one: Path, tmp_path: Path):
    values = [[a + 1e-5, b] for a, b in rows("train")["logits"].to_pylist()]
    two = write(tmp_path / "two", train=column(rows("train"), "logits", values))
    merge.merge([one, two], tmp_path / "both")
    merged = dataset.read_split(tmp_path / "both", "train").to_pylist()
    assert merged[0]["logits"] == rows("train")["logits"][0].as_py()
    with pytest.raises(InputError, match=r"train: \d texts have two logits, more than 1e-06 apart"):
        merge.merge([one, two], tmp_path / "strict", tolerance=1e-6)
    assert not (tmp_path / "strict").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"teacher__sha256": "99" * 32},
            r"two: its teacher\.sha256 is '9999.*only data sets of one task and teacher can be merged",
        ),
        ({"teacher__tokenizer_sha256": "99" * 32}, r"its teacher\.tokenizer_sha256 is"),
        ({"labelling__max_length": 64}, r"its labelling\.max_length is 64, that of .*one is 128"),
        ({"labelling__stored": "float16"}, r"its labelling\.stored is 'float16'"),
        ({"text": "raw"}, r"its text is 'raw'"),
        ({"task": "plays"}, r"its task is 'plays'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_data_sets_of_another_task_or_teacher_are_refused(one: Path, tmp_path: Path, change: dict, message: str):
    with pytest.raises(InputError, match=message):
        merge.merge([one, other(tmp_path / "two", **change)], tmp_path / "both")


def test_python_teachers_are_identified_by_path_and_parameters(tmp_path: Path):
    def own(name: str, **of: object) -> Path:
        given = {"sha256": None, "source": "python:ours:Ours", "params": {"n": 1}, "fingerprint": None, **of}
        about = changed()
        about["teacher"] |= given
        return write(tmp_path / name, about)

    one = own("one")
    assert merge.merge([one, own("same")], tmp_path / "both")["train"] == 9
    with pytest.raises(InputError, match=r"its teacher\.source is 'python:ours:Other'"):
        merge.merge([one, own("path", source="python:ours:Other")], tmp_path / "path-both")
    with pytest.raises(InputError, match=r"its teacher\.params is \{'n': 2\}"):
        merge.merge([one, own("params", params={"n": 2})], tmp_path / "params-both")
    with pytest.raises(InputError, match=r"its teacher\.fingerprint is 'b'"):
        merge.merge([one, own("stamp", fingerprint="b")], tmp_path / "stamp-both")


def test_other_class_names_are_refused(one: Path, tmp_path: Path):
    labels = ["bad", "good"]
    renamed = changed(labels=labels, teacher__labels={"bad": "LABEL_0", "good": "LABEL_1"})
    with pytest.raises(InputError, match=r"its labels is \['bad', 'good'\]"):
        merge.merge([one, write(tmp_path / "two", renamed)], tmp_path / "both")


def test_conflicts_are_refused(one: Path, tmp_path: Path):
    train = rows("train")
    two = write(tmp_path / "two", train=rows("train", seed=1))
    with pytest.raises(InputError, match=r"train: 7 texts have two logits, more than 0\.001 apart"):
        merge.merge([one, two], tmp_path / "both")
    three = write(tmp_path / "three", train=column(train, "label", [0, *train["label"].to_pylist()[1:]]))
    with pytest.raises(InputError, match="train: 1 texts have two gold labels"):
        merge.merge([one, three], tmp_path / "both")
    four = write(tmp_path / "four", train=rows("validation"), validation=train.slice(0, 2), test=train.slice(2, 2))
    with pytest.raises(InputError, match="texts are train texts of one data set and validation texts of another"):
        merge.merge([one, four], tmp_path / "both")


def test_a_damaged_data_set_is_refused(one: Path, tmp_path: Path):
    two = write(tmp_path / "two")
    shard_of(two, "test").unlink()
    with pytest.raises(InputError, match=r"two: does not pass .*files: data/test-\w+\.parquet: is missing"):
        merge.merge([one, two], tmp_path / "both")
    with pytest.raises(InputError, match="is one of the data sets to merge"):
        merge.merge([one, two], one)
    with pytest.raises(InputError, match="at least two logit data sets"):
        merge.merge([one], tmp_path / "both")


@pytest.mark.parametrize("tolerance", [float("nan"), float("inf"), -1.0])
def test_a_tolerance_that_checks_nothing_or_refuses_everything_is_refused(one: Path, tmp_path: Path, tolerance: float):
    two = write(tmp_path / "two", train=rows("train", seed=1))
    with pytest.raises(InputError, match=rf"--tolerance: {tolerance}: must be a finite number of at least 0"):
        merge.merge([one, two], tmp_path / "both", tolerance)
    assert not (tmp_path / "both").exists()


@pytest.fixture
def nothing_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a data set is verified: what is wrong with the output is found before."""
    monkeypatch.setattr(verify, "verify", lambda folder: pytest.fail(f"{folder} was verified"))


def test_an_output_inside_a_data_set_or_around_it_is_refused(one: Path, tmp_path: Path, nothing_read: None):
    two = write(tmp_path / "two")
    before = sorted(tmp_path.rglob("*"))
    for out, inside in ((one / "sub", "one/sub is inside .*one,"), (tmp_path, "one is inside .*,")):
        with pytest.raises(InputError, match=inside):
            merge.merge([two, one] if out != tmp_path else [one, two], out)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["my.txt", "data/rows.parquet", "data/folder/x"])
def test_an_output_with_other_files_is_refused(one: Path, tmp_path: Path, nothing_read: None, name: str):
    two, out = write(tmp_path / "two"), tmp_path / "both"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("mine")
    with pytest.raises(
        InputError, match=r"both: holds (my\.txt|data/rows\.parquet|data/folder), which does not belong"
    ):
        merge.merge([one, two], out)
    assert [path for path in out.rglob("*") if path.is_file()] == [out / name]
    assert name.startswith("data") == (out / "data").exists()


def test_an_earlier_output_or_what_a_killed_merge_leaves_is_replaced(one: Path, tmp_path: Path):
    two, out = write(tmp_path / "two"), tmp_path / "both"
    merge.merge([two, two], out)
    before = dataset.manifest(out)
    shard = next((out / "data").iterdir())
    (out / "manifest.json").unlink()
    shard.rename(shard.with_name(f"{shard.name}.tmp-0-1-2"))
    (out / "README.md").rename(out / "README.md.tmp-0-1-2")
    merge.merge([two, two], out)
    assert dataset.manifest(out) == before
    merge.merge([two, other(tmp_path / "three")], out)
    assert verify.is_whole(verify.verify(out))


@pytest.mark.parametrize("name", ["file", "file/below", "x" * 300])
def test_an_impossible_output_is_refused(one: Path, tmp_path: Path, nothing_read: None, name: str):
    two = write(tmp_path / "two")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written: ") as raised:
        merge.merge([one, two], tmp_path / name)
    assert "\n" not in str(raised.value)
    assert (tmp_path / "file").read_text() == ""


def test_a_full_disk_names_the_output_and_leaves_no_empty_folder(
    one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    two = write(tmp_path / "two")

    def full(*_: Any) -> Iterator[None]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield

    monkeypatch.setattr(writing, "write_shards", full)
    with pytest.raises(InputError, match="new/both: cannot be written: No space left on device; choose"):
        merge.merge([one, two], tmp_path / "new" / "both")
    assert not (tmp_path / "new").exists()
