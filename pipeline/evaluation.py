"""The measurements of a student and its teacher, from stored logits and gold labels, so that no teacher is loaded.

A student of several teachers is compared with their average, which it was trained on.
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
    :param temperature: The temperature that calibrates the student; where None, it is fitted on these rows.
    :return: A mapping, and the temperature. The mapping has rows; student: accuracy, f1 and agreement (the share of rows on which student and
        teacher predict the same class), each with its interval, `kl to the teacher`, `calibration error`, and the same of the logits divided by
        the temperature; teacher: accuracy and f1 with intervals, and its calibration error. In regression (one class) it has pearson,
        spearman and rmse of both, and the student's agreement, its Pearson correlation with the teacher; the temperature is None.
    """
    classes = len(student.labels)
    texts = [rows[name] for name in (("sentence1", "sentence2") if student.pairs else ("sentence1",))]
    logits, teacher_logits = student.predict_columns(*texts), finite_logits(rows, classes)
    if classes == 1:
        return _measure_numbers(rows["label"].to_numpy(), logits[:, 0], teacher_logits[:, 0]), None
    labels = rows["label"].to_numpy().astype(np.int64)
    temperature = best_temperature(labels, logits) if temperature is None else temperature
    predicted, of_teacher = logits.argmax(-1), teacher_logits.argmax(-1)
    agreement = intervals((of_teacher, predicted), classes, {"agreement": share_equal})["agreement"]
    found = {
        "rows": len(labels),
        "student": {
            **_scores(labels, predicted, classes),
            **_with_interval("agreement", accuracy(of_teacher, predicted), agreement),
            "kl to the teacher": round(divergence(teacher_logits, logits), DIGITS),
            "calibration error": round(calibration_error(labels, logits), DIGITS),
            "calibration error, scaled": round(calibration_error(labels, logits, temperature), DIGITS),
        },
        "teacher": {
            **_scores(labels, of_teacher, classes),
            "calibration error": round(calibration_error(labels, teacher_logits), DIGITS),
        },
    }
    return found, temperature


def _measure_numbers(labels: Numbers, predicted: Numbers, of_teacher: Numbers) -> dict[str, Any]:
    agreement, low, high = regression.measures(of_teacher, predicted)["pearson"]
    return {
        "rows": len(labels),
        "student": {**_numbers(labels, predicted), **_with_interval("agreement", agreement, (low, high))},
        "teacher": _numbers(labels, of_teacher),
    }


def _numbers(labels: Numbers, predicted: Numbers) -> dict[str, float]:
    named: dict[str, float] = {}
    for name, (value, low, high) in regression.measures(labels, predicted).items():
        named |= _with_interval(name, value, (low, high))
    return named


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
    """Measure a student and its teacher on the validation and test splits that exist and have labels.

    :param student_folder: The student's folder.
    :param targets_folder: The logit data set that it was trained on.
    :return: For each split, the result of `measure`. Also, for student and teacher, the parameters and the bytes on disk; the student's
        parameters without word embeddings, and the temperature that calibrates it (fitted on validation; null if that has no labels, and
        in regression); and the teacher's name. Of several teachers, the sizes are summed and the name is like `base + large`. A size that
        is not in the data set is null.
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
            elif temperature is None:  # it was fitted on these very rows
                found[split]["student"].pop("calibration error, scaled", None)
    total, without = parameters_of(student.module)
    size = sum(file.stat().st_size for file in student_folder.iterdir() if file.is_file())
    teacher = about["teacher"]
    return found | {
        "student": {
            "parameters": total,
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
