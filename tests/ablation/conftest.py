"""An ablation small enough to run many times: a tiny corpus, tagged without spaCy, and logits that follow from each text."""

import copy
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from logit_rows import BAD, FILLER, GOOD, sentiment
from logit_sets import LABELS, PROVENANCE, logits_of
from tiny import examples_table

from pipeline import tables
from pipeline.ablation import sets
from pipeline.ablation.cells import Tables, train_all
from pipeline.ablation.params import Ablation
from pipeline.logits import writing
from pipeline.text import tagging

MASK = {"words": {"rule": "pipeline.augment.rules:MaskOrReplace", "p_mask": 0.3, "p_pos": 0.0}}
NGRAM = {"ngram": {"rule": "pipeline.augment.rules:KeepNgram", "p_ng": 0.8, "n_max": 3}}
STUDENT = {
    "model": "pipeline.students.bilstm:BiLSTM",
    "params": {"hidden": 4, "classifier": 4},
    "teacher": "large",
    "batch_size": 20,
}
ABLATION = {
    "seeds": [0, 1],
    "rows_seen": 250,
    "sets": {"mask": {"n_iter": [1, 3], "rules": MASK}, "all": {"n_iter": [2], "rules": NGRAM | MASK}},
    "student": STUDENT,
}
EXAMPLES = {"train": 80, "validation": 30, "test": 30}


def ablation(**changes: object) -> Ablation:
    return Ablation.model_validate(copy.deepcopy(ABLATION) | changes)


def examples() -> pa.Table:
    """Return rows of three splits, each text once; two of the training rows have no label."""
    found: dict[str, tuple] = {}
    for seed, (split, n) in enumerate(EXAMPLES.items()):
        rows = sentiment(n, seed)
        for text, label in zip(rows["sentence1"].to_pylist(), rows["label"].to_pylist(), strict=True):
            found.setdefault(text, (split, text, None, label))
    rows = list(found.values())
    for i in (3, 7):
        rows[i] = (*rows[i][:3], None)
    return examples_table(rows)


@pytest.fixture(scope="session")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what the tag stage would write."""

    def tag(texts: list[str]):
        for words in tagging.split_words(texts):
            yield words, ["WORD" if word in (*GOOD, *BAD, *FILLER) else "OTHER" for word in words], []

    folder = tmp_path_factory.mktemp("tagged") / "tokens"
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(tagging._loaded, ("spacy:tiny", "pretokenised"), tag)
        tagging.write_tables(folder, *tagging.tokens_tables(examples(), "spacy:tiny", "pretokenised", workers=1))
    return folder


@pytest.fixture
def tokens(tagged: Path, tmp_path: Path) -> Path:
    """Return a copy of `tagged`."""
    return Path(shutil.copytree(tagged, tmp_path / "tokens"))


def label(folder: Path, copies: Path) -> Path:
    """Write the logit data set of the examples and some augmented rows, as the label stage would."""
    rows = {}
    for split in tables.SPLITS:
        originals = examples().filter(pa.compute.equal(examples()["split"].cast(pa.string()), split))
        found = [row | {"parent_id": None} for row in originals.drop_columns(["split", "line"]).to_pylist()]
        for path in sorted(copies.glob("*.parquet")) if split == "train" else ():
            found += tables.read(path, tables.AUGMENTED).to_pylist()
        schema = tables.logits_schema(2)
        rows[split] = pa.Table.from_pylist(
            [{name: row.get(name) for name in schema.names} | {"logits": logits_of(row["sentence1"])} for row in found],
            schema=schema,
        )
    writing.write(folder, rows, PROVENANCE | {"labels": LABELS})
    return folder


@pytest.fixture(scope="session")
def made(tagged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the tables of `ablation()`, and its trained students in `cells`."""
    folder = tmp_path_factory.mktemp("made")
    sets.draw(tagged, folder / "augmented", ablation(), workers=1)
    label(folder / "logits", folder / "augmented" / sets.UNION)
    train_all(tables_in(folder), ablation(), folder / "cells", workers=1)
    return folder


def tables_in(folder: Path) -> Tables:
    return Tables(labelled=folder / "logits", sets=folder / "augmented", vectors=None)


@pytest.fixture
def where(made: Path, tokens: Path, tmp_path: Path) -> Tables:
    """Return a copy of the tables of `ablation()`, next to its tokens."""
    for name in ("augmented", "logits"):
        shutil.copytree(made / name, tmp_path / name)
    return tables_in(tmp_path)


@pytest.fixture
def trained(made: Path, tmp_path: Path) -> Path:
    """Return a copy of the students of `ablation()`, for `train_all` to go on from."""
    return Path(shutil.copytree(made / "cells", tmp_path / "cells"))
