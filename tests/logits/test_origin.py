"""A data set with unlabelled text: the column origin, format 2, and what each reader does with it. One without keeps its bytes."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from logit_sets import COPIES, PROVENANCE, carelessly, changed, column, logits_of, manifest_of, rows, with_manifest
from logit_sets import write as write_set

from pipeline import tables
from pipeline.logits import changes, dataset, gather, imported, merge, stats, verify
from pipeline.params.text import Text
from pipeline.report import labelled

POOL = ["fine , more or less", "no film at all", "it is what it is"]
ABOUT = {
    "licence": "mit",
    "source": [{"files": {"all": {"path": "pool.csv", "sha256": "ab"}}}],
    "texts": 9,
    "dropped": {"repeat": 6},
}


def with_pool(table: pa.Table, texts: list[str] = POOL, seed: int = 0) -> pa.Table:
    """Return training rows with unlabelled text between the originals and their copies, and the column origin."""
    schema = tables.logits_schema(2, origin=True)
    given = {
        "id": tables.content_ids(texts),
        "sentence1": texts,
        "logits": [logits_of(text, seed) for text in texts],
        "origin": [tables.POOL] * len(texts),
    }
    pool = pa.table([pa.array(given.get(f.name, [None] * len(texts)), f.type) for f in schema], schema=schema)
    origins = np.where(tables.is_of(table, tables.COPY), tables.COPY, tables.SOURCE)
    own = table.add_column(4, tables.ORIGIN, pa.array(origins).cast(tables.ORIGIN.type)).cast(schema)
    copies = pa.array(tables.is_of(own, tables.COPY))
    return pa.concat_tables([own.filter(pc.invert(copies)), pool, own.filter(copies)]).unify_dictionaries()


def write(folder: Path, texts: list[str] = POOL, seed: int = 0, **splits: pa.Table) -> Path:
    given = {split: splits.get(split, rows(split, seed)) for split in tables.SPLITS}
    given = {split: with_pool(table, texts if split == "train" else [], seed) for split, table in given.items()}
    return write_set(folder, changed(unlabelled=ABOUT), **given)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def failed(folder: Path) -> dict[str, str]:
    return {check.name: check.detail for check in verify.check(folder) if check.outcome == verify.FAILED}


def test_a_set_with_unlabelled_text_is_of_format_2_and_one_without_of_format_1(tmp_path: Path):
    assert manifest_of(write(tmp_path / "pool"))["format"] == 2
    assert manifest_of(write_set(tmp_path / "none"))["format"] == 1
    assert not failed(tmp_path / "pool")
    found = dataset.read_split(tmp_path / "pool", "train")
    assert found["origin"].to_pylist() == ["source"] * 4 + ["unlabelled"] * 3 + ["augmented"] * 5
    assert "origin" not in dataset.read_split(tmp_path / "none", "train").column_names
    columns = {name: dataset.columns_of(dataset.provenance(tmp_path / name)) for name in ("pool", "none")}
    assert columns == {"pool": [*dataset.COLUMNS, "origin"], "none": [*dataset.COLUMNS]}


@pytest.mark.parametrize(
    ("change", "check", "fault"),
    [
        (lambda t: column(t, "origin", ["source"] * 12), "lineage", "origin that does not match parent_id"),
        (lambda t: column(t, "origin", ["web"] * 4 + t["origin"].to_pylist()[4:]), "lineage", "an unknown origin"),
        (lambda t: column(t, "label", [1] * 7 + [None] * 5), "lineage", "an unlabelled row with a gold label"),
    ],
    ids=["copy", "unknown", "label"],
)
def test_a_wrong_origin_is_found(tmp_path: Path, change, check: str, fault: str):
    folder = write(tmp_path / "set")
    carelessly(folder, change)
    assert fault in failed(folder)[check]


def test_an_unlabelled_row_outside_of_training_and_a_false_format_are_found(tmp_path: Path):
    folder = write(tmp_path / "set")
    carelessly(folder, lambda t: column(t, "origin", ["source"] * 3 + ["unlabelled"]), "validation")
    assert "an unlabelled row in the split validation" in failed(folder)["lineage"]
    with_manifest(folder, lambda manifest: manifest.update(format=1))
    assert "format 1, but the provenance is of format 2" in failed(folder)["manifest"]
    with_manifest(folder, lambda manifest: manifest["provenance"].update(unlabelled={}))
    assert "provenance.unlabelled: must be a mapping with the licence" in failed(folder)["manifest"]


# --- what a student learns from -------------------------------------------------------------------------------------------


def origins_of(folder: Path, **how) -> list[str]:
    gather.gather({folder: 1.0}, folder.parent / "targets", **how)
    assert not failed(folder.parent / "targets")
    found = dataset.read_split(folder.parent / "targets", "train", dataset.COLUMNS)
    names = dict(
        zip(
            dataset.read_split(folder, "train")["id"].to_pylist(),
            dataset.read_split(folder, "train")["origin"].to_pylist(),
            strict=True,
        )
    )
    assert dataset.read_split(folder.parent / "targets", "validation").num_rows == 4
    return [names[each] for each in found["id"].to_pylist()]


def test_originals_do_not_depend_on_the_unlabelled_text(tmp_path: Path):
    for name, folder in (("pool", write(tmp_path / "pool")), ("none", write_set(tmp_path / "none"))):
        gather.gather({folder: 1.0}, tmp_path / f"{name}-plain", origins=[tables.SOURCE])
        gather.gather({folder: 1.0}, tmp_path / f"{name}-rules", origins=[tables.SOURCE, tables.COPY])
        gather.gather({folder: 1.0}, tmp_path / f"{name}-all")
    assert files_of(tmp_path / "pool-plain") == files_of(tmp_path / "none-plain")
    assert files_of(tmp_path / "pool-rules") == files_of(tmp_path / "none-rules")
    for name in ("pool", "none"):
        assert files_of(tmp_path / f"{name}-all") == files_of(tmp_path / name)
    assert files_of(tmp_path / "none-rules") == files_of(tmp_path / "none")


def test_rows_are_chosen_by_origin(tmp_path: Path):
    folder = write(tmp_path / "set")
    assert origins_of(folder, origins=["source", "unlabelled"]) == ["source"] * 4 + ["unlabelled"] * 3
    about = dataset.provenance(tmp_path / "targets")
    assert (about["augmentation"], about["unlabelled"]) == (gather.NO_AUGMENTATION, ABOUT)
    assert origins_of(folder, origins=["unlabelled", "augmented"]) == ["unlabelled"] * 3


def test_a_copy_goes_with_the_unlabelled_row_that_it_was_made_from(tmp_path: Path):
    table = with_pool(rows("train"))
    parents = table["parent_id"].to_pylist()
    parents[-1] = tables.content_ids(POOL)[0]
    folder = write_set(
        tmp_path / "set",
        changed(unlabelled=ABOUT),
        train=column(table, "parent_id", parents),
        **{split: with_pool(rows(split), []) for split in ("validation", "test")},
    )
    assert not failed(folder)
    assert origins_of(folder, origins=["source", "augmented"]) == ["source"] * 4 + ["augmented"] * 4


def test_unsure_unlabelled_rows_are_left_out_and_no_others(tmp_path: Path):
    folder = write(tmp_path / "set")
    found = dataset.read_split(folder, "train", ("origin", "logits"))
    logits = np.array(found["logits"].to_pylist())
    sure = 1 / (1 + np.exp(-np.abs(logits[:, 1] - logits[:, 0])))
    of_pool = np.sort(sure[4:7])
    assert origins_of(folder, min_confidence=float(of_pool[1])).count("unlabelled") == 2
    assert origins_of(folder, min_confidence=1.0) == ["source"] * 4 + ["augmented"] * 5
    write(tmp_path / "other", seed=1)
    gather.gather({folder: 1.0, tmp_path / "other": 1.0}, tmp_path / "mean", min_confidence=float(of_pool[1]))
    mean = dataset.read_split(tmp_path / "mean", "train")
    average = np.array(mean["logits"].to_pylist())[tables.is_of(mean, tables.POOL)]
    assert (1 / (1 + np.exp(-np.abs(average[:, 1] - average[:, 0]))) >= of_pool[1]).all()


# --- other readers --------------------------------------------------------------------------------------------------------


def test_the_card_and_the_statistics_count_by_origin(tmp_path: Path):
    folder = write(tmp_path / "set")
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in (folder / "README.md").read_text().splitlines()
    ]
    for line in (["train: source", "4"], ["train: unlabelled", "3"], ["train: augmented", "5"]):
        assert line in lines
    assert ["**Unlabelled text**", "pool.csv; 6 of 9 texts left out"] in lines
    assert ["**Licence of the text**", "cc-by-4.0 and mit"] in lines
    assert "license_name: cc-by-4.0 and mit" in (folder / "README.md").read_text()
    assert "unlabelled (3 rows)" in stats.stats(folder)
    assert "original (10 rows)" in stats.stats(folder)
    found = changes.describe({"parent_id": None, "origin": "unlabelled"})
    assert (found, changes.describe({"parent_id": None})) == ("unlabelled", "original")
    assert "unlabelled" not in (write_set(tmp_path / "none") / "README.md").read_text().lower()


def test_the_report_counts_by_origin_and_shows_copies_of_originals(tmp_path: Path):
    read = labelled.read(write(tmp_path / "set"), many=4, copies=5, seed=0)
    found = read.confidence
    assert [int(each.sum()) for each in (found.original, found.augmented, found.unlabelled)] == [4, 5, 3]
    assert len(found.means) == 3
    assert len(labelled.read(write_set(tmp_path / "none"), 4, 5, 0).confidence.means) == 2
    shown = {row["sentence1"] for family in read.families for row in family}
    assert shown and not shown & set(POOL)


def test_sets_with_and_without_unlabelled_text_are_merged(tmp_path: Path):
    pool, none = (
        write(tmp_path / "pool", [*POOL, COPIES[0][2]], train=rows("train", copies=COPIES[1:])),
        write_set(tmp_path / "none"),
    )
    for number, order in enumerate(([pool, none], [none, pool])):
        out = tmp_path / f"out-{number}"
        assert merge.merge(order, out)["train"] == 4 + 4 + 4
        assert not failed(out)
        found = dataset.read_split(out, "train")
        origin = dict(zip(found["sentence1"].to_pylist(), found["origin"].to_pylist(), strict=True))
        assert origin[COPIES[0][2]] == "unlabelled"  # a row without a parent is preferred
        assert list(origin.values()).count("augmented") == 4
        assert dataset.provenance(out)["unlabelled"]["licence"] == "mit"


def test_a_merged_set_names_all_unlabelled_text():
    one = {"licence": "mit", "source": [{"package": "a"}], "read": 9, "texts": 9, "dropped": {"repeat": 2}}
    other = one | {"source": [{"package": "b"}], "dropped": {"repeat": 1, "in test": 4}, "augment": True}
    found = merge._unlabelled([one, other])
    assert (found["source"], found["texts"], found["augment"]) == ([{"package": "a"}, {"package": "b"}], 18, True)
    assert found["dropped"] == {"repeat": 3, "in test": 4}


def test_a_task_of_a_logit_data_set_keeps_its_unlabelled_text_apart(tmp_path: Path):
    folder = write(tmp_path / "set")
    block = {
        "source": {"logits": f"folder:{folder}"},
        "columns": {"sentence1": "sentence1", "label": "label"},
        "labels": PROVENANCE["labels"],
    }
    text = Text.model_validate(block)
    examples, _ = imported.examples("films", text, "pretokenised")
    assert not set(examples["sentence1"].to_pylist()) & set(POOL)
    more, about = imported.unlabelled(text)
    assert (more["sentence1"].to_pylist(), more.schema, about) == (POOL, tables.UNLABELLED, ABOUT)
    none = text.model_copy(
        update={"source": text.source.model_copy(update={"logits": f"folder:{write_set(tmp_path / 'none')}"})}
    )
    assert imported.unlabelled(none)[0].num_rows == 0
