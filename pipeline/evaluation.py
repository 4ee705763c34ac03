"""How good a student is, next to its teacher: measured on stored logits and gold labels, so no teacher is loaded."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import logits
from pipeline.distill import COLUMNS, teacher_logits
from pipeline.errors import InputError
from pipeline.students.base import TrainedStudent, parameters_of

Integers = npt.NDArray[np.int64]

SPLITS = ("validation", "test")
DIGITS = 6


def accuracy(labels: Integers, predicted: Integers) -> float:
    """Return the share of rows that are right.

    :param labels: What is right, [n], n > 0.
    :param predicted: What was predicted, [n].
    """
    return float((labels == predicted).mean())


def f1(labels: Integers, predicted: Integers, classes: int) -> float:
    """Return F1 = 2 TP / (2 TP + FP + FN), 0 where a class is neither there nor predicted.

    :param labels: What is right, [n].
    :param predicted: What was predicted, [n].
    :param classes: The number of classes C. With two, the F1 of the last class, the positive one (as GLUE has it for QQP); the
        mean over classes (macro F1) otherwise.
    """
    right = np.bincount(labels[labels == predicted], minlength=classes)
    both = np.bincount(labels, minlength=classes) + np.bincount(predicted, minlength=classes)
    scores = 2 * right / np.maximum(both, 1)
    return float(scores[-1] if classes == 2 else scores.mean())


def measure(student: TrainedStudent, rows: pa.Table) -> dict[str, Any]:
    """Measure a student and its teacher on rows of a logit data set.

    :param student: The student.
    :param rows: n > 0 rows with a label each.
    :return: rows; student: accuracy, f1, and agreement, the share of rows on which it predicts what the teacher does;
        teacher: accuracy and f1.
    """
    classes = len(student.labels)
    labels = rows["label"].to_numpy().astype(np.int64)
    texts = [rows[name] for name in (("sentence1", "sentence2") if student.pairs else ("sentence1",))]
    ours = student.predict_columns(*texts).argmax(-1)
    teachers = teacher_logits(rows, classes).numpy().argmax(-1)
    return {
        "rows": len(labels),
        "student": _scores(labels, ours, classes) | {"agreement": round(accuracy(teachers, ours), DIGITS)},
        "teacher": _scores(labels, teachers, classes),
    }


def _scores(labels: Integers, predicted: Integers, classes: int) -> dict[str, float]:
    return {
        "accuracy": round(accuracy(labels, predicted), DIGITS),
        "f1": round(f1(labels, predicted, classes), DIGITS),
    }


def evaluate(student_folder: Path, logits_folder: Path) -> dict[str, Any]:
    """Measure a student and its teacher on the validation and test splits, where they exist and have labels.

    :param student_folder: What training wrote.
    :param logits_folder: The logit data set of the student's teacher.
    :return: For each split what `measure` says; then for student and teacher the parameters and the bytes on disk, the student's
        parameters without word embeddings, and the teacher's name. A teacher whose size the data set does not tell has null.
    :raises InputError: If a file is missing or damaged, or the classes of the two differ.
    """
    student = TrainedStudent.from_pretrained(student_folder)
    about = logits.provenance(logits_folder)
    if list(student.labels) != list(about["labels"]):
        raise InputError(
            f"{student_folder}: its classes are {list(student.labels)}, those of {logits_folder} are {about['labels']}; "
            "train the student again"
        )
    found: dict[str, Any] = {}
    for split in SPLITS:
        if split in about["rows"]:
            rows = logits.read_split(logits_folder, split, COLUMNS)
            rows = rows.filter(pc.is_valid(rows["label"]))
            if rows.num_rows:
                found[split] = measure(student, rows)
    everything, without = parameters_of(student.module)
    size = sum(file.stat().st_size for file in student_folder.iterdir() if file.is_file())
    teacher = about["teacher"]
    return found | {
        "student": {"parameters": everything, "parameters without embeddings": without, "bytes": size},
        "teacher": {"name": logits_folder.name, "parameters": teacher.get("parameters"), "bytes": teacher.get("bytes")},
    }
