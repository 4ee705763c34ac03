"""A user's own students, from files outside the package: those that keep the contract, and the errors of those that break it."""

import json
import os
import re
import subprocess
from pathlib import Path

import documented
import numpy as np
import pytest
import served
import torch
import yaml
from logit_rows import PROVENANCE, rows, sentiment

from pipeline.distill.loop import Training, distill
from pipeline.errors import InputError
from pipeline.logits import writing
from pipeline.params.students import Student
from pipeline.students.contract import parameters_of
from pipeline.students.fitted import build_fitted
from pipeline.students.trained import FittedStudent, TrainedStudent
from pipeline.students.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parents[2]
LABELS = ("negative", "positive")
TRAINING, VALIDATION = sentiment(300), sentiment(60, seed=1)


def train(model: str, training=TRAINING, validation=VALIDATION, pairs: bool = False, **changes):
    asked = Student(**({"model": model, "teacher": "large", "batch_size": 10, "epochs": 2} | changes))
    return distill(training, validation, asked, LABELS, "pretokenised", pairs)


def run_stages(folder: Path, student: dict) -> dict:
    """Gather for, train and evaluate a student of a file in a folder, through the stages, and return what was measured."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["teachers"] = {"ours": {"model": {"source": "folder:nowhere"}, "label": {}}}
    params["students"] = {"mine": student}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    (folder / "tasks").mkdir()
    (folder / "tasks/tiny.yaml").write_text((ROOT / "tasks/example.yaml").read_text())
    data = folder / "data/tiny"
    splits = {"train": TRAINING, "validation": VALIDATION, "test": sentiment(60, 2)}
    writing.write(data / "logits/ours", splits, PROVENANCE)
    for stage in ("gather", "train", "evaluate"):
        command = [served.python(), str(ROOT / f"stages/{stage}.py"), "tiny", "mine"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return json.loads((data / "results/students/mine.json").read_text())


def test_the_documented_module_is_trained_and_evaluated_by_the_stages(tmp_path: Path):
    (tmp_path / "bag.py").write_text(documented.block("file", "bag.py"))
    student = yaml.safe_load(documented.block("params", "students"))["bag"]
    found = run_stages(tmp_path, student | {"batch_size": 10})
    assert found["test"]["student"]["accuracy"] > 0.9


def test_the_documented_module_reads_both_sentences_of_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    (tmp_path / "pair_bag.py").write_text(documented.block("file", "bag.py"))
    monkeypatch.syspath_prepend(tmp_path)
    first, second = ["a", "b"] * 50, ["good", "good", "bad", "bad"] * 25
    labels = [1, 1, 0, 0] * 25
    table = rows(first, labels, [(-2.0, 2.0) if label else (2.0, -2.0) for label in labels], sentence2=second)
    optimiser = {"name": "adamw", "learning_rate": 0.03}
    _, history = train("pair_bag:Bag", table, table, pairs=True, optimiser=optimiser, epochs=5)
    assert history[-1].validation_accuracy == 1
    assert "do not depend" not in caplog.text


def test_the_documented_linear_model_is_trained_and_evaluated_by_the_stages(tmp_path: Path):
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    (tmp_path / "linear.py").write_text(documented.block("file", "linear.py"))
    student = yaml.safe_load(documented.block("params", "students: linear"))["linear"]
    found = run_stages(tmp_path, student)
    assert found["test"]["student"]["accuracy"] > 0.9
    assert found["student"]["parameters"] == 2 * 4096 + 2


def test_the_documented_linear_model_learns_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    (tmp_path / "linear_numbers.py").write_text(documented.block("file", "linear.py"))
    monkeypatch.syspath_prepend(tmp_path)
    given = TRAINING["label"].to_pylist()
    table = rows(TRAINING["sentence1"].to_pylist(), given, [[4.0 * label] for label in given])
    asked = Student(model="linear_numbers:Linear", teacher="large", params={"features": 4096})
    student, _ = distill(table, table, asked, ("similarity",), "pretokenised", pairs=False)
    student.save(tmp_path / "student")
    texts = table["sentence1"].to_pylist()
    found = TrainedStudent.from_pretrained(tmp_path / "student").predict_logits(texts)
    assert found.shape == (300, 1)
    assert np.corrcoef(found[:, 0], table["label"].to_numpy())[0, 1] > 0.9


def test_a_student_that_fits_itself_comes_back_from_its_folder(tmp_path: Path):
    student, history = train("plug_ins:WordScores", params={"smoothing": 0.5})
    assert history[0].validation_accuracy > 0.9
    assert len(history) == 1
    student.save(tmp_path / "student")
    assert sorted(path.name for path in (tmp_path / "student").iterdir()) == ["config.json", "scores.json"]
    back = TrainedStudent.from_pretrained(tmp_path / "student")
    assert isinstance(back, FittedStudent)
    assert back.module.smoothing == 0.5
    texts = ["good film", "", "a dull plot"]
    assert np.array_equal(back.predict_logits(texts), student.predict_logits(texts))
    assert back.predict(texts)[0::2] == ["positive", "negative"]
    np.testing.assert_allclose(back.predict_proba(texts).sum(axis=1), 1, rtol=1e-6)
    assert back.predict_logits([]).shape == (0, 2)
    (tmp_path / "student/scores.json").unlink()
    with pytest.raises(InputError, match=r"scores.json: no such file"):
        TrainedStudent.from_pretrained(tmp_path / "student")


@pytest.mark.parametrize("model", ["Brain", "Double"])
def test_logits_of_another_precision_become_float32(model: str):
    student, history = train(f"plug_ins:{model}", epochs=1)
    assert student.predict_logits(["good film"]).dtype == np.float32
    assert history[0].validation_loss > 0


def test_pairs_and_weights_reach_a_student_that_fits_itself():
    first, second = ["a"] * 4 + ["b"] * 4, ["good", "bad"] * 4
    labels = [1, 0] * 4
    given = [(-1, 1) if label else (1, -1) for label in labels]
    table = rows(first, labels, given, sentence2=second)
    student, history = train("plug_ins:WordScores", table, table, pairs=True)
    assert history[0].validation_accuracy == 1
    assert student.predict([("a", "bad"), ("b", "good")]) == ["negative", "positive"]
    with pytest.raises(InputError, match="is not a pair"):
        student.predict(["bad"])
    wrong = rows(
        ["good", "bad", "good", "bad"],
        [1, 0, None, None],
        [(-1, 1), (1, -1), (9, -9), (-9, 9)],
        [None, None, "row0", "row1"],
    )
    right, _ = train("plug_ins:WordScores", wrong, weights={"augmented": 0.0})
    assert right.predict(["good", "bad"]) == ["positive", "negative"]
    misled, _ = train("plug_ins:WordScores", wrong)
    assert misled.predict(["good", "bad"]) == ["negative", "positive"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("TwoArguments", r"TwoArguments: forward\(ids, lengths\) cannot be called with one batch"),
        ("Nothing", "Nothing: forward returned NoneType for 2 rows of 2 classes"),
        ("OneColumn", r"OneColumn: forward returned \[2, 1\] for 2 rows of 2 classes"),
        ("FirstNaN", "the loss is nan in epoch 1, batch 1 of 30"),
        ("Untrainable", "logits depend on no trainable parameter"),
        ("WrongFit", r"fit\(training\) cannot be called with 2 arguments"),
        ("WrongShape", r"predict_logits returned \[60, 1\] for 60 rows of 2 classes"),
        ("NotANumber", r"predict_logits returned \[nan, nan\] for row 0 of 60"),
        ("NoFit", r"must be a class, either of torch.nn.Module or with the methods fit, .* \(it lacks fit\)"),
        ("json", "must be a class, either of torch.nn.Module or with the methods"),
        ("NoSuper", "__init__ raises AttributeError: cannot assign module before Module.__init__.. call"),
        ("NoParameters", "has no parameters to train"),
        ("Lazy", r"has a lazy module \(torch.nn.Lazy...\), whose parameters have no size yet"),
        (
            "MeanOverPadding",
            r"the logits of a text change with the padding next to it .* \(by [\d.e-]+\): use batch.len",
        ),
        ("MaxOverPadding", "the logits of a text change with the padding next to it"),
        ("SumOverTrainedPadding", "the logits of a text change with the padding next to it"),
        ("BatchMean", "the logits of a text change with the padding next to it or the texts in its batch"),
        ("RandomLogits", "two calls on the same batch return different logits"),
        ("AsyncForward", r"AsyncForward: forward is async; write it as def forward\(self, batch\)"),
        ("AsyncFit", "fit is async; write it as def fit"),
        ("LoadsNothing", r"after save and load, its logits differ by [\d.]+ from those after fit"),
        ("Pickles", "save wrote scores.bin, which is pickle"),
        ("SavesObjects", "save wrote scores.npz, which is pickle"),
        ("SavesGzip", "save wrote scores.gz, which is pickle"),
        ("SavesTorch", "save wrote scores.dat, which is pickle"),
        ("SavesNothing", r"save wrote \[\]"),
        (
            "SavesCard",
            "save wrote .*README.md.*; it must write files, no folders and none of README.md, config.json, l",
        ),
        ("SaveFails", "save raises TypeError"),
        ("LoadFails", "load raises JSONDecodeError"),
        ("Complex", "forward returned torch.complex64; it must return float32 logits"),
        ("Frozen", "logits depend on no trainable parameter"),
        ("ForwardFails", "forward raises RuntimeError: "),
        ("ForwardExits", "forward raises SystemExit"),
        ("GradientFails", "forward, in its gradient, raises RuntimeError: one of the variables needed for gradient"),
        ("NaNInEvaluation", r"NaNInEvaluation: forward returned \[nan, nan\] for row 0 of 60; logits are finite"),
        ("FitFails", "fit raises IndexError: index 1000000000 is out of bounds"),
        ("PredictFails", r"predict_logits raises ValueError: first line \("),
        ("PredictsNothing", r"predict_logits returned \[\] for 60 rows of 2 classes"),
    ],
)
def test_a_student_that_breaks_the_contract_is_named(model: str, message: str):
    with pytest.raises(InputError, match=message) as error:
        train(f"plug_ins:{model}")
    assert "\n" not in str(error.value)
    if " raises " in message and model != "GradientFails":
        assert re.search(rf"'plug_ins:{model}': .* \(tests/plug_ins.py, line \d+\)$", str(error.value))


def test_the_place_is_the_innermost_one_in_the_user_s_code():
    with pytest.raises(InputError, match="raises") as error:
        train("plug_ins:ForwardFails")
    line = int(re.findall(r"plug_ins.py, line (\d+)", str(error.value))[0])
    assert "torch.zeros(7, 7)" in (ROOT / "tests/plug_ins.py").read_text().splitlines()[line - 1]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("CountFails", r"parameter_count raises TypeError: .*plug_ins.py, line"),
        ("NegativeCount", "parameter_count returned -1; it must return an int of at least 0"),
        ("NoCount", "parameter_count returned 'many'; it must return an int"),
    ],
)
def test_a_wrong_number_of_parameters_is_refused(model: str, message: str):
    with pytest.raises(InputError, match=rf"'plug_ins:{model}': {message}"):
        parameters_of(build_fitted(f"plug_ins:{model}", {}, 2, False))


PAIRS = TRAINING.slice(0, 40).set_column(
    TRAINING.schema.get_field_index("sentence2"), "sentence2", TRAINING["sentence1"].slice(40, 40)
)


@pytest.mark.parametrize(
    ("model", "unread"),
    [("Module", 2), ("SecondSide", 1), ("FirstSideFitted", 2), ("BothSides", 0), ("WordScores", 0)],
)
def test_a_student_of_pairs_that_ignores_a_sentence_is_named_in_a_warning(caplog, model: str, unread: int):
    train(f"plug_ins:{model}", PAIRS, PAIRS, pairs=True, epochs=1)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == bool(unread)
    if unread:
        assert warnings[0].startswith(f"plug_ins:{model}: its logits do not depend on sentence {unread} of a pair;")


def test_the_check_of_pairs_changes_no_weight(monkeypatch: pytest.MonkeyPatch):
    asked = {"model": "pipeline.students.cnn:CNN", "params": {"dropout": 0.5}, "pairs": True, "epochs": 1}
    found, _ = train(training=PAIRS, validation=PAIRS, **asked)
    monkeypatch.setattr(Training, "_warn_of_unread", lambda self, batch: None)
    expected, _ = train(training=PAIRS, validation=PAIRS, **asked)
    for one, other in zip(found.module.parameters(), expected.module.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("model", "params", "message"),
    [
        ("WordScores", {"smooth": 1}, "does not take these parameters"),
        ("WordScores", {"smoothing": -1}, "smoothing: -1: must not be negative"),
        ("Module", {"hidden": 1}, "does not take these parameters"),
    ],
)
def test_wrong_parameters_are_named(model: str, params: dict, message: str):
    with pytest.raises(InputError, match=message):
        train(f"plug_ins:{model}", params=params)


@pytest.mark.parametrize("model", ["Pickles", "SavesNothing"])
def test_a_refused_save_leaves_nothing(tmp_path: Path, model: str):
    student = build_fitted(f"plug_ins:{model}", {}, 2, False)
    given = {"vocabulary": Vocabulary((), "raw"), "labels": LABELS, "params": {}, "pairs": False}
    with pytest.raises(InputError, match="save wrote"):
        FittedStudent(module=student, model=f"plug_ins:{model}", **given).save(tmp_path / "student")
    assert not list(tmp_path.iterdir())


CALLED = []


def record(**given):
    """Any callable that a config.json can name, such as subprocess:run."""
    CALLED.append(given)


class Recorded:
    """A class without the methods of a student."""

    def __init__(self, **given):
        CALLED.append(given)


@pytest.mark.parametrize("name", ["record", "Recorded"])
@pytest.mark.parametrize("trained", ["plug_ins:WordScores", "plug_ins:Module"])
def test_a_folder_calls_nothing_but_a_class_that_keeps_the_contract(tmp_path: Path, trained: str, name: str):
    student, _ = train(trained, epochs=1)
    student.save(tmp_path / "student")
    config = json.loads((tmp_path / "student/config.json").read_text())
    (tmp_path / "student/config.json").write_text(json.dumps(config | {"model": f"test_contract:{name}"}))
    for load in {TrainedStudent.from_pretrained, type(student).from_pretrained}:
        with pytest.raises(InputError, match=f"'test_contract:{name}': must be a class"):
            load(tmp_path / "student")
    with pytest.raises(InputError, match="must be a class"):
        build_fitted(f"test_contract:{name}", {}, 2, False)
    assert CALLED == []


@pytest.mark.parametrize("key", ["labels", "pairs", "params", "files"])
def test_a_value_of_the_wrong_type_in_config_json_is_named(tmp_path: Path, key: str):
    student, _ = train("plug_ins:WordScores")
    student.save(tmp_path / "student")
    path = tmp_path / "student/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: 7}))
    with pytest.raises(InputError, match=f"config.json: {key}: 7 is not"):
        TrainedStudent.from_pretrained(tmp_path / "student")
