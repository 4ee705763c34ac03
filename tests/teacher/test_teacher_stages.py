import logging
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import served
import yaml
from tiny import augmented_table, examples_table, tiny_teacher

from pipeline import storage, tables
from pipeline.errors import InputError
from pipeline.logits import dataset

ROOT = Path(__file__).resolve().parents[2]
ABSENT = ("spacy", "nltk", "polars", "dvc", "xxhash", "datasets", "accelerate")
"""Packages that a machine that only labels does not have."""

WORDS = ["good", "bad", "film", "plot", "the", "a", "is"]
LABELS = ["negative", "positive"]
TEACHERS = {
    "trained": {
        "model": {"source": "folder:models/encoder", "licence": "mit", "finetune": {"epochs": 1, "batch_size": 4}},
        "label": {"max_length": 32},
    },
    "brought": {
        "model": {"source": "folder:models/classifier", "labels": {"LABEL_0": "positive", "LABEL_1": "negative"}},
        "label": {},
    },
}


BY_WORD = """
import numpy as np

class ByWord:
    def __init__(self, words: str) -> None:
        self.words = words.split()

    def predict_logits(self, texts):
        return np.array([[4.0 * (word in text) + len(text) / 100 for word in self.words] for text in texts])
"""
"""A teacher whose classes are recognised by a word each."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    student = next(iter(params["students"].values())) | {"teacher": "brought"}
    storage.write_text(
        folder / "params.yaml",
        yaml.safe_dump(params | {"teachers": TEACHERS, "students": {"one": student}}, sort_keys=False),
    )
    storage.write_text(folder / "tasks/films.yaml", (ROOT / "tasks/example.yaml").read_text())
    examples = examples_table(
        [
            (split, f"{word} {rest} {split}", None, int(word == "good"))
            for split, rests in (("train", ["film", "plot"]), ("validation", ["film"]), ("test", ["plot"]))
            for rest in rests
            for word in ("good", "bad")
        ]
    )
    source = {"task": "films", "labels": LABELS, "pairs": False, "source": {"licence": "cc-by-4.0"}}
    tables.write_examples(folder / "data/films/examples", folder / "data/films/source", examples, source)
    copies = augmented_table([(examples["id"][0].as_py(), "[MASK] film train", None)])
    tables.write(folder / "data/films/augmented/augmented-00000.parquet", copies, {"seed": 0, "n_iter": 1})
    tiny_teacher(folder / "models/encoder", WORDS)
    tiny_teacher(folder / "models/classifier", WORDS, ["LABEL_0", "LABEL_1"])
    absent = f"import sys\nsys.modules.update(dict.fromkeys({ABSENT}))\n"  # None: neither found nor imported
    storage.write_text(folder / "lean/sitecustomize.py", absent)
    return folder


def in_subprocess(project: Path, python: str, *command: str, lean: bool = False) -> str:
    path = [str(project / "lean")] if lean else []
    done = subprocess.run(
        [python, *command],
        cwd=project,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*path, str(ROOT)]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def here(stage: str, *arguments: str) -> None:
    runpy.run_path(str(ROOT / f"stages/{stage}.py"))["main"](*arguments)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_labelling_needs_few_packages(project: Path):
    log = in_subprocess(project, served.python(), str(ROOT / "stages/finetune.py"), "films", "trained")
    assert "it/s" not in log, "no progress bars without a terminal"
    assert "MISSING" not in log
    check = "import sys; assert sys.modules['polars'] is None, 'polars should be absent'"
    in_subprocess(project, sys.executable, "-c", check, lean=True)
    log = in_subprocess(project, sys.executable, str(ROOT / "stages/label.py"), "films", "trained", lean=True)
    assert "labelled 9 texts of 9 rows" in log
    assert "it/s" not in log
    assert dataset.read_split(project / "data/films/logits/trained", "train").num_rows == 5


@pytest.mark.parametrize("name", TEACHERS)
def test_a_teacher_is_made_and_labels(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
):
    monkeypatch.chdir(project)
    here("finetune", "films", name)
    with caplog.at_level(logging.INFO, "pipeline"):
        here("label", "films", name)
    parts = re.findall(r"([a-z ]+) \d+\.\d(?:, |$)", caplog.messages[-1].removeprefix("seconds: "))
    assert parts == [
        "imports",
        "reading",
        "opening the teacher",
        "reading known logits",
        "labelling",
        "writing",
        "summary",
    ]
    data = project / "data/films"
    record = storage.read_json(data / "teachers" / name / "teacher.json")
    assert record["finetuned"] == (name == "trained") == (data / "teachers" / name / "model.safetensors").exists()
    folder = data / "logits" / name
    found = {split: dataset.read_split(folder, split).num_rows for split in tables.SPLITS}
    summary = storage.read_json(data / "results" / f"label-{name}.json")
    assert summary["rows"] == found == {"train": 5, "validation": 2, "test": 2}
    facts = dataset.provenance(folder)
    assert facts["teacher"] == {"name": name, **record}
    assert (facts["augmentation"], facts["text"]) == ({"seed": 0, "n_iter": 1}, "pretokenised")
    assert facts["labelling"]["max_length"] == (32 if name == "trained" else 512)
    before = contents(folder)
    here("label", "films", name)
    assert contents(folder) == before, "the same rows and teacher give the same bytes"


def test_labelling_warns_of_a_teacher_whose_class_names_are_swapped(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    project = shutil.copytree(project, tmp_path / "project")
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(project)
    storage.write_text(project / "by_word.py", BY_WORD)
    for words, warned in (("bad good", []), ("good bad", ["teacher brought: its accuracy on 6 labelled"])):
        teacher = {"model": {"source": "python:by_word:ByWord", "params": {"words": words}}, "label": {}}
        given = yaml.safe_load((project / "params.yaml").read_text()) | {"teachers": {"brought": teacher}}
        storage.write_text(project / "params.yaml", yaml.safe_dump(given))
        caplog.clear()
        here("finetune", "films", "brought")
        here("label", "films", "brought")
        found = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert [text[: len(start)] for text, start in zip(found, warned, strict=True)] == warned
        assert all("its class names may be swapped" in text for text in found)


def test_errors_name_the_fault_and_write_nothing(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(project)
    with pytest.raises(
        InputError, match=r"^params\.yaml: teachers: there is no 'absent' \(there are trained, brought\)$"
    ):
        here("finetune", "films", "absent")
    here("finetune", "films", "brought")
    before = contents(project / "data")
    weights = project / "models/classifier/model.safetensors"
    content = weights.read_bytes()
    tiny_teacher(weights.parent, WORDS, ["LABEL_0", "LABEL_1"], seed=1)
    with pytest.raises(
        InputError,
        match=r"^folder:models/classifier: changed since .*/teacher\.json was written: the weights in models/classifier .*`dvc repro --force --single-item finetune@films-brought`",
    ):
        here("label", "films", "brought")
    weights.write_bytes(content)
    storage.write_text(weights.parent / "config.json", "{}")
    with pytest.raises(InputError, match=r"^folder:models/classifier: "):
        here("finetune", "films", "brought")
    assert contents(project / "data") == before
