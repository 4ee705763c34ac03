"""The measurements of a student and its teacher, from stored logits and gold labels, so that no teacher is loaded.

A student of several teachers is compared with their average, which it was trained on.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import InputError
from pipeline.logits import dataset
from pipeline.logits.dataset import COLUMNS
from pipeline.logits.shards import finite_logits
from pipeline.metrics import classification, regression
from pipeline.metrics.calibration import best_temperature, calibration_error, divergence
from pipeline.students.contract import parameters_of
from pipeline.students.trained import TrainedStudent

SPLITS = ("validation", "test")
DIGITS = 6


def measure(
    student: TrainedStudent, rows: pa.Table, temperature: float | None = None
) -> tuple[dict[str, Any], float | None]:
    """Measure a student and its teacher on rows of a logit data set.

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
    agreement = {"agreement": classification.measures(of_teacher, predicted, classes)["accuracy"]}
    found["student"] = _named(classification.measures(labels, predicted, classes) | agreement) | {
        "kl to the teacher": round(divergence(teacher_logits, logits), DIGITS),
        "calibration error": round(calibration_error(labels, logits), DIGITS),
        "calibration error, scaled": round(calibration_error(labels, logits, temperature), DIGITS),
    }
    found["teacher"] = _named(classification.measures(labels, of_teacher, classes)) | {
        "calibration error": round(calibration_error(labels, teacher_logits), DIGITS)
    }
    return found, temperature


def _named(measured: Mapping[str, tuple[float, float, float]]) -> dict[str, float]:
    """Return values and the ends of their intervals under the names `accuracy`, `accuracy low`, `accuracy high`."""
    ends = ("", " low", " high")
    return {f"{name}{end}": round(x, DIGITS) for name, of in measured.items() for end, x in zip(ends, of, strict=True)}


def evaluate(student_folder: Path, targets_folder: Path) -> dict[str, Any]:
    """Measure a student and its teacher on the validation and test splits that exist and have labels.

    :param targets_folder: The logit data set that the student was trained on.
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
    teacher = about["teacher"]
    return found | {
        "student": {
            "parameters": total,
            "parameters without embeddings": without,
            "bytes": sum(file.stat().st_size for file in student_folder.iterdir() if file.is_file()),
            "temperature": None if temperature is None else round(temperature, DIGITS),
        },
        "teacher": {"name": teacher.get("name", "unknown")}
        | {key: teacher.get(key) for key in ("parameters", "bytes")},
    }
