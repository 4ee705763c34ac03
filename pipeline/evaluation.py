"""How good a student is, next to its teacher: measured on stored logits and gold labels, so no teacher is loaded.

A student of several teachers is compared with their average, which is what it learned.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import logits, regression
from pipeline.calibration import best_temperature, calibration_error, divergence
from pipeline.distill import COLUMNS, teacher_logits
from pipeline.errors import InputError
from pipeline.regression import DRAWS, LEVEL, SEED, Numbers
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


Statistic = Callable[[Integers], npt.NDArray[np.float64]]


def intervals(
    columns: Sequence[Integers], classes: int, statistics: Mapping[str, Statistic]
) -> dict[str, tuple[float, float]]:
    """Return percentile bootstrap confidence intervals of statistics that only count rows (Efron and Tibshirani 1993, chapter 13).

    Drawing n rows with replacement draws, of each kind of row there is, a multinomial number; so a draw costs as much as there are
    kinds (combinations of classes), however many rows.

    :param columns: What is known of each row, as classes: k arrays [n], n > 0, each value less than C. At most a few.
    :param classes: The number of classes C.
    :param statistics: By name, functions of counts [DRAWS, C, ..., C] (k times C) to a number for each draw.
    :return: The ends of each statistic's interval that leave out (1 - LEVEL) / 2 of the draws on either side.
    """
    shape = (classes,) * len(columns)
    kinds, counts = np.unique(np.ravel_multi_index(tuple(columns), shape), return_counts=True)
    drawn = np.random.default_rng(SEED).multinomial(counts.sum(), counts / counts.sum(), size=DRAWS)
    cells = classes ** len(columns)
    values: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in statistics}
    for part in np.array_split(drawn, 1 + DRAWS * cells // 4_000_000):  # with many classes, not all tables at once
        table = np.zeros((len(part), cells), np.int64)
        table[:, kinds] = part
        for name, statistic in statistics.items():
            values[name].append(statistic(table.reshape(len(part), *shape)))
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    ends = {name: np.quantile(np.concatenate(parts), tails).tolist() for name, parts in values.items()}
    return {name: (low, high) for name, (low, high) in ends.items()}


def _f1_of_counts(counts: Integers) -> npt.NDArray[np.float64]:
    """Return `f1` of confusion matrices [draws, C, C] of label and prediction."""
    right = np.diagonal(counts, axis1=1, axis2=2)
    both = counts.sum(axis=1) + counts.sum(axis=2)
    scores: npt.NDArray[np.float64] = 2 * right / np.maximum(both, 1)
    return scores[:, -1] if scores.shape[1] == 2 else scores.mean(axis=1)


def _share_equal(counts: Integers) -> npt.NDArray[np.float64]:
    """Return the share of rows on the diagonal of matrices [draws, C, C]."""
    shares: npt.NDArray[np.float64] = np.trace(counts, axis1=1, axis2=2) / counts.sum(axis=(1, 2))
    return shares


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
    ours, theirs = student.predict_columns(*texts), teacher_logits(rows, classes).numpy()
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
    return intervals((teachers, predicted), classes, {"agreement": _share_equal})["agreement"]


def _scores(labels: Integers, predicted: Integers, classes: int) -> dict[str, float]:
    ends = intervals((labels, predicted), classes, {"accuracy": _share_equal, "f1": _f1_of_counts})
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
    about = logits.provenance(targets_folder)
    if list(student.labels) != list(about["labels"]):
        raise InputError(
            f"{student_folder}: its classes are {list(student.labels)}, those of {targets_folder} are {about['labels']}; "
            "train the student again"
        )
    found: dict[str, Any] = {}
    temperature = None
    for split in SPLITS:  # validation first
        if split in about["rows"]:
            rows = logits.read_split(targets_folder, split, COLUMNS)
            rows = rows.filter(pc.is_valid(rows["label"]))
            if rows.num_rows:
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
