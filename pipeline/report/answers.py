"""The predictions of a student and its teachers on validation and test rows, their calibration, and the rows on which they disagree."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.logits.shards import finite_logits
from pipeline.metrics.calibration import Bins, best_temperature, calibration_error, confidence_bins, softmax

Logits = NDArray[np.float32]

COLUMNS = ("id", "sentence1", "sentence2", "label", "logits")
"""The columns of a logit data set that a report reads."""


@dataclass(frozen=True)
class Answers:
    """The logits of a student and of its teacher, float32 [n, C], on the n rows of a split.

    :param rows: The rows, with `id`, `sentence1`, `sentence2`, `label`.
    """

    rows: pa.Table
    teacher: Logits
    student: Logits

    def labelled(self) -> "Answers":
        """Return the rows with a gold label."""
        known = pc.is_valid(self.rows["label"]).combine_chunks()
        mask = known.to_numpy(zero_copy_only=False)
        return Answers(self.rows.filter(known), self.teacher[mask], self.student[mask])

    @property
    def labels(self) -> NDArray[np.int64]:
        """The gold label of each row, -1 where there is none."""
        found: NDArray[np.int64] = pc.fill_null(self.rows["label"], -1).to_numpy().astype(np.int64)
        return found


def answer(folder: Path, splits: Mapping[str, pa.Table]) -> dict[str, Answers]:
    """Return a student's predictions on the rows of each split, with COLUMNS; splits without rows are left out.

    :raises InputError: If the student's files are damaged, or its number of classes differs from that of the logits.
    """
    from pipeline.students.trained import TrainedStudent  # imports torch, which a stage loads after it sets its threads

    student = TrainedStudent.from_pretrained(folder)
    found = {}
    for split, rows in splits.items():
        if not rows.num_rows:
            continue
        teacher = finite_logits(rows, rows.schema.field("logits").type.list_size)
        if (classes := teacher.shape[1]) != len(student.labels):
            raise InputError(
                f"{folder}: the student has {len(student.labels)} classes, its soft targets have {classes}; train it again"
            )
        texts = [rows[name] for name in ("sentence1", "sentence2")[: 1 + student.pairs]]
        found[split] = Answers(rows.drop_columns(["logits"]), teacher, student.predict_columns(*texts))
    return found


class Calibration(NamedTuple):
    """A model's predictions at a temperature in bins of confidence, and their expected calibration error."""

    temperature: float
    bins: Bins
    error: float


def calibration(
    measured: tuple[NDArray[np.int64], Logits], fitted: tuple[NDArray[np.int64], Logits] | None
) -> list[Calibration]:
    """Measure the calibration of a model with two or more classes: at temperature 1, then at the best one where `fitted` is given.

    :param measured: Labels [n] and logits [n, C], n > 0, on which it is measured.
    :param fitted: Labels and logits of validation, on which the temperature is fitted.
    """
    temperatures = [1.0] if fitted is None else [1.0, best_temperature(*fitted)]
    return [Calibration(t, confidence_bins(*measured, t), calibration_error(*measured, t)) for t in temperatures]


class AnsweredRow(NamedTuple):
    """A row with its gold label (None where unknown) and both predictions: probabilities [C], or numbers [1] in a regression."""

    texts: tuple[str, ...]
    gold: float | None
    teacher: NDArray[np.float64]
    student: NDArray[np.float64]


def disagreements(answers: Answers, most: int) -> dict[str, tuple[int, list[AnsweredRow]]]:
    """Choose rows on which student, teacher and gold label disagree, the most confident first; ties are ordered by id.

    :return: By kind, how many there are, and up to `most` of them. Kinds: `missed`, the student contradicts its teacher, which is right or whose
        row has no label; `better`, the student is right and its teacher is wrong; `doubtful`, both predict the same class and the gold label
        is another. In a regression: `far`, the rows with the largest difference.
    """
    if answers.teacher.shape[1] == 1:
        far = np.abs(answers.teacher[:, 0] - answers.student[:, 0]).astype(np.float64)
        return {"far": _first(answers, np.ones(len(far), np.bool_), far, most)}
    of_teacher, of_student, labels = softmax(answers.teacher), softmax(answers.student), answers.labels
    teacher, student = of_teacher.argmax(1), of_student.argmax(1)
    sure, sure_too = of_teacher.max(1), of_student.max(1)
    missed = (teacher != student) & ((labels == teacher) | (labels < 0))
    better = (teacher != student) & (labels == student)
    doubtful = (teacher == student) & (labels != teacher) & (labels >= 0)
    return {
        "missed": _first(answers, missed, sure, most),
        "better": _first(answers, better, sure_too, most),
        "doubtful": _first(answers, doubtful, np.minimum(sure, sure_too), most),
    }


def _first(
    answers: Answers, which: NDArray[np.bool_], by: NDArray[np.float64], most: int
) -> tuple[int, list[AnsweredRow]]:
    ids = answers.rows["id"].to_pylist()
    chosen = np.flatnonzero(which)
    order = np.array(sorted(chosen.tolist(), key=lambda row: (-by[row], ids[row]))[:most], np.int64)
    numbers = answers.teacher.shape[1] == 1
    both = (
        logits[order].astype(np.float64) if numbers else softmax(logits[order])
        for logits in (answers.teacher, answers.student)
    )
    rows = [
        AnsweredRow(
            tuple(text for text in (row["sentence1"], row["sentence2"]) if text is not None), row["label"], *predicted
        )
        for row, *predicted in zip(answers.rows.take(pa.array(order)).to_pylist(), *both, strict=True)
    ]
    return len(chosen), rows
