"""What a student and its teacher answer to each row of validation and test, and which rows of those are worth reading."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.logits.shards import finite_logits
from pipeline.metrics.calibration import Bins, best_temperature, calibration_error, confidence_bins, softmax
from pipeline.students.trained import TrainedStudent

Logits = NDArray[np.float32]

COLUMNS = ("id", "sentence1", "sentence2", "label", "logits")
"""Of a logit data set, that are read for a report."""


@dataclass(frozen=True)
class Answers:
    """The logits of a student and of its teacher on the n rows of a split.

    :param rows: The rows, with `id`, `sentence1`, `sentence2`, `label`.
    :param teacher: float32 [n, C].
    :param student: float32 [n, C].
    """

    rows: pa.Table
    teacher: Logits
    student: Logits

    def labelled(self) -> "Answers":
        """Return those of the rows that have a gold label."""
        known = pc.is_valid(self.rows["label"]).combine_chunks()
        there = known.to_numpy(zero_copy_only=False)
        return Answers(self.rows.filter(known), self.teacher[there], self.student[there])

    @property
    def labels(self) -> NDArray[np.int64]:
        """The gold label of each row, -1 where there is none."""
        found: NDArray[np.int64] = pc.fill_null(self.rows["label"], -1).to_numpy().astype(np.int64)
        return found


def answer(folder: Path, splits: Mapping[str, pa.Table]) -> dict[str, Answers]:
    """Let a student answer.

    :param folder: What training wrote.
    :param splits: By split, rows with COLUMNS.
    :return: By split that has rows, what it says.
    :raises InputError: If the student's files are damaged, or it has another number of classes.
    """
    student = TrainedStudent.from_pretrained(folder)
    found = {}
    for split, rows in splits.items():
        if not rows.num_rows:
            continue
        theirs = finite_logits(rows, rows.schema.field("logits").type.list_size)
        if theirs.shape[1] != len(student.labels):
            raise InputError(
                f"{folder}: {len(student.labels)} classes, its logits have {theirs.shape[1]}; train it again"
            )
        texts = [rows[name] for name in (("sentence1", "sentence2") if student.pairs else ("sentence1",))]
        found[split] = Answers(rows.drop_columns(["logits"]), theirs, student.predict_columns(*texts))
    return found


@dataclass(frozen=True)
class Calibration:
    """How far the probabilities of a model can be believed.

    :param raw: Its answers in bins of confidence.
    :param error: The expected calibration error.
    :param temperature: What its logits are best divided by, fitted on validation; None where that has no labels.
    :param scaled: The answers after the division.
    :param scaled_error: The error after it.
    """

    raw: Bins
    error: float
    temperature: float | None
    scaled: Bins | None
    scaled_error: float | None


def calibration(
    measured: tuple[NDArray[np.int64], Logits], fitted: tuple[NDArray[np.int64], Logits] | None
) -> Calibration:
    """Measure the calibration of a model of two classes or more.

    :param measured: Labels [n] and logits [n, C], n > 0, that it is measured on.
    :param fitted: Those of validation, on which the temperature is fitted.
    """
    temperature = None if fitted is None else best_temperature(*fitted)
    return Calibration(
        confidence_bins(*measured),
        calibration_error(*measured),
        temperature,
        None if temperature is None else confidence_bins(*measured, temperature),
        None if temperature is None else calibration_error(*measured, temperature),
    )


@dataclass(frozen=True)
class Said:
    """A row, and what was said of it.

    :param texts: Its sentence, or its two.
    :param gold: Its label: the number of a class, a number in a regression, None where it is unknown.
    :param teacher: The teacher's probabilities [C], or its number [1].
    :param student: The student's.
    """

    texts: tuple[str, ...]
    gold: float | None
    teacher: NDArray[np.float64]
    student: NDArray[np.float64]


def said(answers: Answers, rows: NDArray[np.int64]) -> list[Said]:
    """Return some rows, for reading.

    :param answers: All rows.
    :param rows: Numbers of rows.
    """
    classes = answers.teacher.shape[1]
    shown: list[dict[str, Any]] = answers.rows.take(pa.array(rows, pa.int64())).to_pylist()
    theirs, ours = (
        values[rows].astype(np.float64) if classes == 1 else softmax(values[rows])
        for values in (answers.teacher, answers.student)
    )
    return [
        Said(
            tuple(row[f"sentence{i}"] for i in (1, 2) if row[f"sentence{i}"] is not None),
            row["label"],
            teacher,
            student,
        )
        for row, teacher, student in zip(shown, theirs, ours, strict=True)
    ]


def disagreements(answers: Answers, most: int) -> dict[str, tuple[int, list[Said]]]:
    """Choose rows that tell something of a student and its teacher, the clearest first; equally clear ones by their id.

    :param answers: Rows with or without gold labels.
    :param most: Rows of each kind.
    :return: By kind, how many there are in all, and the first of them. Kinds: `missed`, the student says another class than its sure
        teacher, which is right or of which nobody knows; `better`, the student is right and its teacher is not; `doubtful`, both say the
        same class with confidence and the gold label another. In a regression: `far`, where the two are furthest apart.
    """
    ids = answers.rows["id"].to_pylist()
    classes = answers.teacher.shape[1]
    if classes == 1:
        far = np.abs(answers.teacher[:, 0] - answers.student[:, 0]).astype(np.float64)
        return {"far": _first(answers, np.ones(len(ids), np.bool_), far, ids, most)}
    theirs, ours = softmax(answers.teacher), softmax(answers.student)
    teacher, student, labels = theirs.argmax(1), ours.argmax(1), answers.labels
    sure = theirs.max(1)
    return {
        "missed": _first(answers, (teacher != student) & ((labels == teacher) | (labels < 0)), sure, ids, most),
        "better": _first(answers, (labels == student) & (teacher != student), ours.max(1), ids, most),
        "doubtful": _first(
            answers,
            (labels >= 0) & (teacher == student) & (labels != teacher),
            np.minimum(sure, ours.max(1)),
            ids,
            most,
        ),
    }


def _first(
    answers: Answers, which: NDArray[np.bool_], clear: NDArray[np.float64], ids: list[str], most: int
) -> tuple[int, list[Said]]:
    there = np.flatnonzero(which)
    order = sorted(there.tolist(), key=lambda row: (-clear[row], ids[row]))[:most]
    return len(there), said(answers, np.array(order, np.int64))
