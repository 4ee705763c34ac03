"""The measurements of a student and its teacher, from stored logits and gold labels, so that no teacher is loaded.

A student of several teachers is compared with their average, which it was trained on.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.logits import dataset
from pipeline.logits.shards import finite_logits
from pipeline.machine.devices import device
from pipeline.metrics import classification, regression
from pipeline.metrics.calibration import best_temperature, calibration_error, divergence
from pipeline.metrics.classification import Measured
from pipeline.students.contract import parameters_of
from pipeline.students.files import UNKNOWN
from pipeline.students.trained import TrainedStudent

COLUMNS = ("id", "sentence1", "sentence2", "label", "logits")
SPLITS = ("validation", "test")
DIGITS = 6


def measure(
    student: TrainedStudent, rows: pa.Table, temperature: float | None = None
) -> tuple[dict[str, Any], float | None]:
    """Measure a student and its teacher on rows of a logit data set.

    :param rows: n > 0 rows with a label each.
    :param temperature: The temperature that calibrates the student; where None, it is fitted on these rows.
    :return: A mapping, and the temperature. The mapping has rows; student: accuracy, `macro f1` (with two classes the F1 of the last one,
        such as `f1 (positive)`) and agreement (the share of rows on which student and teacher predict the same class), each with its
        interval, `kl to the teacher`, `calibration error`, and the same of the logits divided by the temperature; teacher: accuracy and F1
        with intervals, and its calibration error. Both have `classes` and `confusion`, see `by_class_of`. In regression (one class) the mapping
        has pearson, spearman and rmse of both, and the student's agreement, its Pearson correlation with the teacher; the temperature is
        None.
    """
    classes = len(student.labels)
    logits, teacher_logits = student.predict_columns(*_texts(student, rows)), finite_logits(rows, classes)
    found: dict[str, Any] = {"rows": rows.num_rows}
    if classes == 1:
        gold, predicted, of_teacher = rows["label"].to_numpy(), logits[:, 0], teacher_logits[:, 0]
        agreement = {"agreement": regression.measures(of_teacher, predicted)["pearson"]}
        found["student"] = _named(regression.measures(gold, predicted) | agreement)
        found["teacher"] = _named(regression.measures(gold, of_teacher))
        return found, None
    labels = rows["label"].to_numpy().astype(np.int64)
    temperature = best_temperature(labels, logits) if temperature is None else temperature
    predicted, of_teacher = logits.argmax(-1), teacher_logits.argmax(-1)
    agreement = {"agreement": classification.measures(of_teacher, predicted, classes).accuracy}
    scores, by_class = by_class_of(labels, predicted, student.labels)
    found["student"] = _named(scores | agreement) | {
        "kl to the teacher": round(divergence(teacher_logits, logits), DIGITS),
        "calibration error": round(calibration_error(labels, logits), DIGITS),
        "calibration error, scaled": round(calibration_error(labels, logits, temperature), DIGITS),
        **by_class,
    }
    scores, by_class = by_class_of(labels, of_teacher, student.labels)
    error = {"calibration error": round(calibration_error(labels, teacher_logits), DIGITS)}
    found["teacher"] = _named(scores) | error | by_class
    return found, temperature


def by_class_of(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], names: Sequence[str]
) -> tuple[dict[str, Measured], dict[str, Any]]:
    """Return accuracy and F1, and the scores of each class.

    They are lists, which `dvc metrics show` leaves out. `classes` has for each class its name, the rows with this label, precision and recall
    (null where undefined), and F1 with its interval. `confusion` has a row for each label with the number of predictions of each class.
    """
    classes = len(names)
    found, matrix = (
        classification.measures(labels, predicted, classes),
        classification.confusion(labels, predicted, classes),
    )
    shares = (
        [None if share is None else round(share, DIGITS) for share in shares]
        for shares in classification.precision_and_recall(matrix)
    )
    listed = [
        {"class": name, "rows": rows, "precision": precision, "recall": recall, **_named({"f1": f1})}
        for name, rows, precision, recall, f1 in zip(names, matrix.sum(axis=1).tolist(), *shares, found.f1, strict=True)
    ]
    main = found.f1[-1] if classes == 2 else found.macro_f1
    scores = {"accuracy": found.accuracy, classification.main_f1(names): main}
    return scores, {"classes": listed, "confusion": matrix.tolist()}


def _texts(student: TrainedStudent, rows: pa.Table) -> list[pa.ChunkedArray]:
    return [rows[name] for name in ("sentence1", "sentence2")[: 1 + student.pairs]]


def unknown_share(student: TrainedStudent, rows: pa.Table) -> float:
    """Return the share of the words in rows that are not in the student's vocabulary; 0 where there are no words."""
    ids = np.concatenate([side.ids for side in student.encode(*_texts(student, rows)).sides])
    return float((ids == UNKNOWN).mean()) if len(ids) else 0.0


def _named(measured: Mapping[str, Measured]) -> dict[str, float]:
    """Return values and the ends of their intervals under the names `accuracy`, `accuracy low`, `accuracy high`."""
    ends = ("", " low", " high")
    return {f"{name}{end}": round(x, DIGITS) for name, of in measured.items() for end, x in zip(ends, of, strict=True)}


def evaluate(student_folder: Path, targets_folder: Path) -> dict[str, Any]:
    """Measure a student and its teacher on the validation and test splits that exist and have labels.

    :param targets_folder: The logit data set that the student was trained on.
    :return: For each split, the result of `measure`. `no labels` lists the splits whose rows have none, if there are any, and `unknown_words` has for
        each split the share of the words that the student does not know (empty for a student that fits itself, which has no vocabulary).
        Also, for student and teacher, the parameters and the bytes on disk; the student's
        parameters without word embeddings, and the temperature that calibrates it (fitted on validation; null if that has no labels, and
        in regression); and the teacher's name. Of several teachers, the sizes are summed and the name is like `base + large`. A size that
        is not in the data set is null.
    :raises InputError: If a file is missing or damaged, or the classes of the two differ.
    """
    student = TrainedStudent.from_pretrained(student_folder)
    if isinstance(student.module, torch.nn.Module):
        student.module.to(device())
    about = dataset.provenance(targets_folder)
    if list(student.labels) != list(about["labels"]):
        raise InputError(
            f"{student_folder}: its classes are {list(student.labels)}, those of {targets_folder} are {about['labels']}; "
            "train the student again"
        )
    found: dict[str, Any] = {}
    unknown: dict[str, float] = {}
    unlabelled: list[str] = []
    temperature = None
    for split in SPLITS:  # validation first
        if not about["rows"].get(split):
            continue
        rows = dataset.read_split(targets_folder, split, COLUMNS)
        if student.max_words:
            unknown[split] = round(unknown_share(student, rows), DIGITS)
        rows = rows.filter(pc.is_valid(rows["label"]))
        if not rows.num_rows:
            unlabelled.append(split)
            continue
        found[split], fitted = measure(student, rows, temperature)
        if split == "validation":
            temperature = fitted
        elif temperature is None:  # it was fitted on these very rows
            found[split]["student"].pop("calibration error, scaled", None)
    total, without = parameters_of(student.module)
    teacher = about["teacher"]
    return (
        found
        | ({"no labels": unlabelled} if unlabelled else {})
        | {
            "unknown_words": unknown,
            "student": {
                "parameters": total,
                "parameters without embeddings": without,
                "bytes": sum(file.stat().st_size for file in student_folder.iterdir() if file.is_file()),
                "temperature": None if temperature is None else round(temperature, DIGITS),
            },
            "teacher": {"name": teacher.get("name", "unknown")}
            | {key: teacher.get(key) for key in ("parameters", "bytes")},
        }
    )
