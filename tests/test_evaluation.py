import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import served
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from logit_rows import PROVENANCE, rows, sentiment

from pipeline.distill.loop import distill
from pipeline.errors import InputError
from pipeline.evaluation import by_class_of, evaluate
from pipeline.logits import writing
from pipeline.machine.devices import device
from pipeline.metrics import classification
from pipeline.metrics.calibration import best_temperature, calibration_error, divergence
from pipeline.params.students import Student
from pipeline.students.trained import TrainedStudent

ROOT = Path(__file__).resolve().parents[1]
ABSENT = (
    "transformers",
    "tokenizers",
    "spacy",
    "nltk",
    "polars",
    "dvc",
    "xxhash",
    "datasets",
    "accelerate",
    "onnx",
    "onnxruntime",
)
BLOCK = f"import sys\nsys.modules.update(dict.fromkeys({ABSENT!r}))\n"  # None there: neither found nor imported
STUDENT = {
    "model": "pipeline.students.bilstm:BiLSTM",
    "params": {"hidden": 4, "classifier": 4},
    "teacher": "large",
    "epochs": 2,
}


def f1(labels: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """Return what the metric `f1` is: of two classes the last one's, of more the mean."""
    names = [str(i) for i in range(classes)]
    return by_class_of(labels, predicted, names)[0][classification.main_f1(names)][0]


def test_f1_is_the_last_class_s_with_two_and_the_mean_with_more_and_its_name_tells_which():
    labels, predicted = np.array([1, 1, 1, 0, 0, 0, 0]), np.array([1, 1, 0, 1, 0, 0, 0])
    assert classification.measures(labels, predicted, 2).accuracy[0] == pytest.approx(5 / 7)
    assert classification.main_f1(["ham", "spam"]) == "f1 (spam)"
    assert classification.main_f1(["ham", "spam", "eggs"]) == "macro f1"
    assert f1(labels, predicted, 2) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert f1(labels, predicted, 3) == pytest.approx((2 / 3 + 2 * 3 / (2 * 3 + 1 + 1) + 0) / 3)
    assert f1(np.array([0, 0]), np.array([0, 0]), 2) == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1))
def test_macro_f1_is_the_harmonic_mean_of_precision_and_recall_by_class(pairs: list[tuple[int, int]]):
    scores, precisions, recalls = [], [], []
    for c in range(4):
        hits = sum(label == c == guess for label, guess in pairs)
        predicted, gold = sum(guess == c for _, guess in pairs), sum(label == c for label, _ in pairs)
        precision, recall = hits / predicted if predicted else 0, hits / gold if gold else 0
        scores.append(2 * precision * recall / (precision + recall) if hits else 0)
        precisions.append(precision if predicted else None)
        recalls.append(recall if gold else None)
    labels, predicted = np.array(pairs).T
    counts = classification.confusion(labels, predicted, 4)
    assert counts.sum() == len(pairs)
    assert all(counts[label, guess] == pairs.count((label, guess)) for label, guess in pairs)
    assert classification.f1(counts[None])[0].tolist() == pytest.approx(scores)
    assert classification.measures(labels, predicted, 4).macro_f1[0] == pytest.approx(sum(scores) / 4)
    assert classification.precision_and_recall(counts) == (precisions, recalls)


def test_intervals_are_those_of_resampled_rows():
    draws = np.random.default_rng(3)
    labels = draws.integers(0, 3, 300)
    predicted = np.where(draws.random(300) < 0.8, labels, draws.integers(0, 3, 300))
    found = classification.measures(labels, predicted, 3)
    assert found.accuracy[0] == (labels == predicted).mean()
    values = {"accuracy": [], "macro_f1": [], "f1": []}
    for _ in range(4000):
        rows_drawn = draws.integers(0, 300, 300)
        counts = np.zeros((1, 3, 3), np.int64)
        np.add.at(counts, (0, labels[rows_drawn], predicted[rows_drawn]), 1)
        values["accuracy"].append((labels[rows_drawn] == predicted[rows_drawn]).mean())
        values["macro_f1"].append(classification.f1(counts)[0].mean())
        values["f1"].append(classification.f1(counts)[0][1])
    measured = {"accuracy": found.accuracy, "macro_f1": found.macro_f1, "f1": found.f1[1]}
    for name, expected in values.items():
        assert measured[name][1:] == pytest.approx(np.quantile(expected, [0.025, 0.975]), abs=0.006), name
    order = draws.permutation(300)
    assert classification.measures(labels[order], predicted[order], 3) == found


def test_intervals_do_not_depend_on_how_many_tables_are_made_at_once():
    """2,000 draws of 100 classes go in parts; the classes above the third never occur."""
    labels, predicted = np.array([0, 1, 2, 0, 1, 2, 2]), np.array([0, 1, 2, 1, 1, 0, 2])
    few, many = (classification.measures(labels, predicted, classes).accuracy for classes in (3, 100))
    assert few == many


@pytest.mark.parametrize("classes", [2, 3])
def test_f1_of_several_draws_is_that_of_each(classes: int):
    labels, predicted = np.random.default_rng(0).integers(0, classes, (2, 50))
    counts = np.zeros((2, classes, classes), np.int64)
    np.add.at(counts, (0, labels, predicted), 1)
    counts[1, 0, 0] = 50
    zeros = np.zeros(50, int)
    for of, pair in zip(classification.f1(counts), ((labels, predicted), (zeros, zeros)), strict=True):
        assert (of[-1] if classes == 2 else of.mean()) == pytest.approx(f1(*pair, classes))


@pytest.fixture(scope="module")
def student() -> TrainedStudent:
    return distill(
        sentiment(40), sentiment(10, 1), Student(**STUDENT), PROVENANCE["labels"], "pretokenised", pairs=False
    )[0]


def test_student_and_teacher_are_measured_on_the_rows_that_have_a_label(tmp_path: Path, student: TrainedStudent):
    texts = ["good", "bad film", "the plot", "lovely", "dull"]
    ours = student.predict_logits(texts).argmax(-1)
    teacher = [1, 0, int(1 - ours[2]), 1, 1]
    labels = [1, 0, None, int(ours[3]), 0]
    table = rows(texts, labels, [(-1, 1) if side else (1, -1) for side in teacher])
    writing.write(tmp_path / "large", {"train": sentiment(4), "validation": table}, PROVENANCE)
    student.save(tmp_path / "student")
    found = evaluate(tmp_path / "student", tmp_path / "large")
    kept = [i for i, label in enumerate(labels) if label is not None]
    right = [labels[i] for i in kept]
    assert found["validation"]["rows"] == 4
    assert found["validation"]["student"]["accuracy"] == np.mean([ours[i] == labels[i] for i in kept])
    assert found["validation"]["student"]["agreement"] == np.mean([ours[i] == teacher[i] for i in kept])
    of_teacher = found["validation"]["teacher"]
    assert of_teacher["accuracy"] == np.mean([teacher[i] == labels[i] for i in kept])
    assert of_teacher["f1 (positive)"] == round(f1(np.array(right), np.array([teacher[i] for i in kept]), 2), 6)
    raw, given = student.predict_logits(texts)[kept], np.array([(-1, 1) if teacher[i] else (1, -1) for i in kept])
    temperature = best_temperature(np.array(right), raw)
    assert found["student"]["temperature"] == pytest.approx(temperature, abs=1e-6)
    expected = {
        "kl to the teacher": divergence(given, raw),
        "calibration error": calibration_error(np.array(right), raw),
        "calibration error, scaled": calibration_error(np.array(right), raw, temperature),
    }
    assert {key: found["validation"]["student"][key] for key in expected} == pytest.approx(expected, abs=1e-6)
    for who in ("student", "teacher"):
        for name in ("accuracy", "f1 (positive)"):
            low, value, high = (found["validation"][who][key] for key in (f"{name} low", name, f"{name} high"))
            assert low <= value <= high
    for who, guesses in (("student", [int(ours[i]) for i in kept]), ("teacher", [teacher[i] for i in kept])):
        pairs = list(zip(right, guesses, strict=True))
        matrix = [[pairs.count((gold, guess)) for guess in (0, 1)] for gold in (0, 1)]
        assert found["validation"][who]["confusion"] == matrix
        listed = found["validation"][who]["classes"]
        assert [(one["class"], one["rows"]) for one in listed] == [
            (name, right.count(i)) for i, name in enumerate(PROVENANCE["labels"])
        ]
        assert listed[1]["f1"] == found["validation"][who]["f1 (positive)"]
        assert [one["recall"] for one in listed] == pytest.approx(
            [matrix[i][i] / right.count(i) for i in (0, 1)], abs=1e-6
        )
    assert "test" not in found
    assert "no labels" not in found
    size = sum(path.stat().st_size for path in (tmp_path / "student").iterdir())
    assert found["student"]["bytes"] == size
    assert found["student"]["parameters"] - found["student"]["parameters without embeddings"] == (
        2 * len(student.vocabulary) * 300
    )
    assert found["teacher"] == PROVENANCE["teacher"]


def test_a_split_without_labels_is_left_out_and_an_unknown_size_is_null(tmp_path: Path, student: TrainedStudent):
    student.save(tmp_path / "student")
    about = PROVENANCE | {"teacher": {"name": "large"}}
    splits = {"train": sentiment(4), "validation": sentiment(4), "test": rows(["good"], [None], [(0, 1)])}
    writing.write(tmp_path / "large", splits, about)
    found = evaluate(tmp_path / "student", tmp_path / "large")
    assert set(found) == {"validation", "no labels", "unknown_words", "student", "teacher"}
    assert found["no labels"] == ["test"]
    assert found["teacher"] == {"name": "large", "parameters": None, "bytes": None}


def test_a_temperature_is_never_measured_on_the_test_rows_that_it_was_fitted_on(
    tmp_path: Path, student: TrainedStudent
):
    student.save(tmp_path / "student")
    writing.write(tmp_path / "large", {"train": sentiment(4), "test": sentiment(20)}, PROVENANCE)
    found = evaluate(tmp_path / "student", tmp_path / "large")
    assert found["student"]["temperature"] is None
    assert "calibration error" in found["test"]["student"]
    assert "calibration error, scaled" not in found["test"]["student"]


def test_a_split_of_one_row_or_of_one_class_has_no_nan_and_no_warning(tmp_path: Path, student: TrainedStudent):
    student.save(tmp_path / "student")
    one_class = rows(["good", "lovely film"], [1, 1], [(0, 1), (0, 1)])
    writing.write(
        tmp_path / "large",
        {"validation": one_class, "test": rows(["bad", "dull"], [0, None], [(1, 0)] * 2)},
        PROVENANCE,
    )
    with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
        warnings.simplefilter("error")
        found = evaluate(tmp_path / "student", tmp_path / "large")
    json.dumps(found, allow_nan=False)
    assert found["test"]["rows"] == 1
    assert [(one["rows"], one["precision"], one["recall"]) for one in found["validation"]["teacher"]["classes"]] == [
        (0, None, None),
        (2, 1.0, 1.0),
    ]


def test_the_share_of_unknown_words_is_of_all_words_of_a_split(tmp_path: Path, student: TrainedStudent):
    student.save(tmp_path / "student")
    texts = ["good qwertz film", "zuiop", ""]
    splits = {"validation": sentiment(4), "test": rows(texts, [1, None, 0], [(0, 1)] * 3)}
    writing.write(tmp_path / "large", splits, PROVENANCE)
    assert evaluate(tmp_path / "student", tmp_path / "large")["unknown_words"] == {"validation": 0.0, "test": 0.5}


def test_a_student_of_other_classes_is_refused(tmp_path: Path, student: TrainedStudent):
    student.save(tmp_path / "student")
    writing.write(tmp_path / "large", {"validation": sentiment(4)}, PROVENANCE | {"labels": ["positive", "negative"]})
    with pytest.raises(InputError, match="its classes are"):
        evaluate(tmp_path / "student", tmp_path / "large")


@pytest.mark.slow
def test_gather_train_and_evaluate_need_the_logit_files_alone(tmp_path: Path):
    """Neither the teacher's folder nor transformers, spaCy, NLTK, polars, DVC, xxhash or datasets is there."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["teachers"] = {"large": {"model": {"source": "folder:nowhere"}, "label": {}}}
    params["students"] = {"tiny": STUDENT | {"epochs": 3, "batch_size": 10}}
    task = yaml.safe_load((ROOT / "tasks/example.yaml").read_text())
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/tiny.yaml").write_text(yaml.safe_dump(task))
    splits = {"train": sentiment(300), "validation": sentiment(60, 1), "test": sentiment(60, 2)}
    data = tmp_path / "data/tiny"
    writing.write(data / "logits/large", splits, PROVENANCE)
    (tmp_path / "block").mkdir()
    (tmp_path / "block/sitecustomize.py").write_text(BLOCK)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path / 'block'}{os.pathsep}{ROOT}"}

    def run(*command: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
        given = [python, *command]
        return subprocess.run(given, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert "import of transformers halted" in run("-c", "import transformers").stderr
    for name in ("gather", "train", "evaluate"):
        done = run(str(ROOT / f"stages/{name}.py"), "tiny", "tiny")
        assert done.returncode == 0, done.stderr
    lines = (data / "results/curves/tiny.csv").read_text().splitlines()
    assert lines[0].split(",")[0::3] == ["epoch", "validation accuracy"]
    assert len(lines) == 4
    found = json.loads((data / "results/students/tiny.json").read_text())
    best = max(float(line.split(",")[-1]) for line in lines[1:])
    assert found["validation"]["student"]["accuracy"] == pytest.approx(best, abs=1e-6)
    assert found["test"]["student"]["accuracy"] > 0.9
    assert found["test"]["teacher"]["accuracy"] == found["test"]["teacher"]["f1 (positive)"] == 1.0
    assert "calibration error, scaled" in found["test"]["student"]
    done = run(str(ROOT / "stages/train.py"), "tiny", "small", python=served.python())
    assert (done.returncode, done.stderr) == (2, "error: params.yaml: students: there is no 'small' (there are tiny)\n")


@pytest.mark.gpu
def test_a_student_predicts_on_the_device(tmp_path: Path, student: TrainedStudent, monkeypatch: pytest.MonkeyPatch):
    """Nothing else of the figures depends on it: with a GPU, its sums are in another order."""
    writing.write(tmp_path / "large", {"train": sentiment(4), "validation": sentiment(40, 2)}, PROVENANCE)
    student.save(tmp_path / "student")
    moved = []
    to = torch.nn.Module.to
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, *given: moved.append(given) or to(module, *given))
    found = evaluate(tmp_path / "student", tmp_path / "large")
    assert moved == [(device(),)]
    monkeypatch.setenv("PIPELINE_DEVICE", "cpu")
    expected = evaluate(tmp_path / "student", tmp_path / "large")
    assert found["validation"]["student"]["accuracy"] == expected["validation"]["student"]["accuracy"]
    divergence = "kl to the teacher"
    assert found["validation"]["student"][divergence] == pytest.approx(
        expected["validation"]["student"][divergence], 1e-2
    )
