"""How good a student is, next to its teacher: measured on stored logits and gold labels, so no teacher is loaded.

A student of several teachers is compared with their average, which is what it learned.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import InputError
from pipeline.logits import dataset
from pipeline.logits.dataset import COLUMNS
from pipeline.logits.shards import finite_logits
from pipeline.metrics import regression
from pipeline.metrics.calibration import best_temperature, calibration_error, divergence
from pipeline.metrics.classification import Integers, accuracy, f1, f1_of_counts, intervals, share_equal
from pipeline.metrics.regression import Numbers
from pipeline.students.contract import parameters_of
from pipeline.students.trained import TrainedStudent

SPLITS = ("validation", "test")
DIGITS = 6


def measure(
    student: TrainedStudent, rows: pa.Table, temperature: float | None = None
) -> tuple[dict[str, Any], float | None]:
    """Measure a student and its teacher on rows of a logit data set.

    :param student: The student.
    :param rows: n > 0 rows with a label each.
    :param temperature: What calibrates the student; where None, it is fitted on these rows.
    :return: A mapping, and the temperature. In the mapping: rows; student: accuracy, f1 and agreement (the share of rows on which it
        predicts what the teacher does), each with its interval, `kl to the teacher`, `calibration error` and the same after the logits
        were divided by the temperature; teacher: accuracy and f1 with intervals, and its calibration error. Of a regression (one class):
        pearson, spearman and rmse of both, and the student's agreement, its Pearson correlation with the teacher; no temperature.
    """
    classes = len(student.labels)
    texts = [rows[name] for name in (("sentence1", "sentence2") if student.pairs else ("sentence1",))]
    ours, theirs = student.predict_columns(*texts), finite_logits(rows, classes)
    if classes == 1:
        return _measure_numbers(rows["label"].to_numpy(), ours[:, 0], theirs[:, 0]), None
    labels = rows["label"].to_numpy().astype(np.int64)
    temperature = best_temperature(labels, ours) if temperature is None else temperature
    predicted, teachers = ours.argmax(-1), theirs.argmax(-1)
    found = {
        "rows": len(labels),
        "student": {
            **_scores(labels, predicted, classes),
            **_with_interval("agreement", accuracy(teachers, predicted), _agreement(teachers, predicted, classes)),
            "kl to the teacher": round(divergence(theirs, ours), DIGITS),
            "calibration error": round(calibration_error(labels, ours), DIGITS),
            "calibration error, scaled": round(calibration_error(labels, ours, temperature), DIGITS),
        },
        "teacher": {
            **_scores(labels, teachers, classes),
            "calibration error": round(calibration_error(labels, theirs), DIGITS),
        },
    }
    return found, temperature


def _measure_numbers(right: Numbers, ours: Numbers, theirs: Numbers) -> dict[str, Any]:
    agreement, *ends = regression.measures(theirs, ours)["pearson"]
    return {
        "rows": len(right),
        "student": {**_numbers(right, ours), **_with_interval("agreement", agreement, (ends[0], ends[1]))},
        "teacher": _numbers(right, theirs),
    }


def _numbers(right: Numbers, said: Numbers) -> dict[str, float]:
    found = regression.measures(right, said)
    parts = [_with_interval(name, value, (low, high)) for name, (value, low, high) in found.items()]
    return {key: value for part in parts for key, value in part.items()}


def _agreement(teachers: Integers, predicted: Integers, classes: int) -> tuple[float, float]:
    return intervals((teachers, predicted), classes, {"agreement": share_equal})["agreement"]


def _scores(labels: Integers, predicted: Integers, classes: int) -> dict[str, float]:
    ends = intervals((labels, predicted), classes, {"accuracy": share_equal, "f1": f1_of_counts})
    return {
        **_with_interval("accuracy", accuracy(labels, predicted), ends["accuracy"]),
        **_with_interval("f1", f1(labels, predicted, classes), ends["f1"]),
    }


def _with_interval(name: str, value: float, ends: tuple[float, float]) -> dict[str, float]:
    named = {name: value, f"{name} low": ends[0], f"{name} high": ends[1]}
    return {key: round(number, DIGITS) for key, number in named.items()}


def evaluate(student_folder: Path, targets_folder: Path) -> dict[str, Any]:
    """Measure a student and its teacher on the validation and test splits, where they exist and have labels.

    :param student_folder: What training wrote.
    :param targets_folder: The logit data set that it learned from.
    :return: For each split what `measure` says; then for student and teacher the parameters and the bytes on disk, the student's
        parameters without word embeddings and the temperature that calibrates it (fitted on validation; null where that has no
        labels, and in a regression), and the teacher's name; of several teachers the sum of their sizes, and a name such as
        `base + large`. A teacher whose size the data set does not tell has null.
    :raises InputError: If a file is missing or damaged, or the classes of the two differ.
    """
    student = TrainedStudent.from_pretrained(student_folder)
    about = dataset.provenance(targets_folder)
    if list(student.labels) != list(about["labels"]):
        raise InputError(
            f"{student_folder}: its classes are {list(student.labels)}, those of {targets_folder} are {about['labels']}; "
            "train the student again"
        )
    found: dict[str, Any] = {}
    temperature = None
    for split in SPLITS:  # validation first
        rows = dataset.read_labelled(targets_folder, split, COLUMNS)
        if rows is not None:
            found[split], fitted = measure(student, rows, temperature)
            if split == "validation":
                temperature = fitted
            elif temperature is None:  # fitted on the rows that it would be measured on
                found[split]["student"].pop("calibration error, scaled", None)
    everything, without = parameters_of(student.module)
    size = sum(file.stat().st_size for file in student_folder.iterdir() if file.is_file())
    teacher = about["teacher"]
    return found | {
        "student": {
            "parameters": everything,
            "parameters without embeddings": without,
            "bytes": size,
            "temperature": None if temperature is None else round(temperature, DIGITS),
        },
        "teacher": {
            "name": teacher.get("name", "unknown"),
            "parameters": teacher.get("parameters"),
            "bytes": teacher.get("bytes"),
        },
    }
