"""The scores of each class: precision, recall and F1 of the best student and its teacher, and what they confuse."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.logits.markdown import aligned
from pipeline.report.cautions import of_results
from pipeline.report.markup import visible
from pipeline.report.table import best_of, read_results, read_times, result_rows, splits_of

SHOWN = 20
"""Classes in the table; of more, those with the student's lowest F1."""

UNDEFINED = "-"
"""In place of the precision of a class that is never predicted, and of the recall of one without rows."""

HEAD = ("rows", *(f"{who} {what}" for who in ("teacher", "student") for what in ("precision", "recall", "F1")))


def result_tables(results: Path, metrics: Sequence[str], students: Collection[str]) -> str:
    """Return the result table of a task as Markdown, the scores of each class where they are known, and the warnings.

    :param results: data/<task>/results, as the evaluate stage leaves it.
    :param students: The students in the settings; results of others are ignored.
    :raises InputError: If no student has been evaluated, or no row had a label.
    """
    found = read_results(results, students)
    parts = [aligned([[_line(cell) for cell in row] for row in result_rows(found, read_times(results), metrics)])]
    if rows := class_rows(found):
        parts += [class_caption(found), aligned([[_line(cell) for cell in row] for row in rows])]
    return "\n\n".join([*parts, *(f"warning: {_line(text)}" for text in of_results(found))])


def _line(text: str) -> str:
    """Return a name as a cell of a table in a terminal."""
    return " ".join(visible(text).split()).replace("|", r"\|")


def class_caption(students: Mapping[str, Any]) -> str:
    """Return what the table of the classes shows."""
    best, split = best_of(students), splits_of(students)[-1]
    found = students[best][split]
    many = len(found["student"]["classes"])
    text = (
        f"Each class on {split}, in percent: the teacher is {students[best]['teacher']['name']}, the student is {best}."
    )
    if many > SHOWN:
        text += f" Shown are the {SHOWN} of {many} classes with the student's lowest F1."
    if any(one["rows"] == 0 for one in found["student"]["classes"]):
        text += " A class without rows has no recall."
    return text


def class_rows(students: Mapping[str, Any]) -> list[list[str]]:
    """Return a row for each class, header first; none where the scores of the classes are unknown, as in a regression.

    :param students: As `table.read_results` returns them.
    """
    found = students[best_of(students)][splits_of(students)[-1]]
    teacher, student = found["teacher"].get("classes"), found["student"].get("classes")
    if not teacher or not student:
        return []
    matrix = np.array(found["student"]["confusion"])
    shown = list(range(len(student)))
    if len(student) > SHOWN:
        with_rows = [i for i in shown if student[i]["rows"]]
        shown = sorted(with_rows, key=lambda i: (student[i]["f1"], i))[:SHOWN]
    rows = [["", *HEAD, "student's most frequent error"]]
    for i in shown:
        scores = [_percent(of[i], key) for of in (teacher, student) for key in ("precision", "recall", "f1")]
        rows.append([student[i]["class"], f"{student[i]['rows']:,}", *scores, _error(matrix[i], i, student)])
    return rows


def _percent(one: Mapping[str, Any], key: str) -> str:
    known = one[key] is not None and (key != "f1" or one["rows"] or one["precision"] is not None)
    return f"{100 * one[key]:.1f}" if known else UNDEFINED


def _error(predicted: np.ndarray[Any, np.dtype[np.int64]], label: int, classes: Sequence[Mapping[str, Any]]) -> str:
    """Return the class that is most often predicted for the rows of another, with their number; empty where all are right."""
    wrong = np.where(np.arange(len(predicted)) == label, 0, predicted)
    most = int(wrong.argmax())
    return f"{classes[most]['class']} ({wrong[most]:,})" if wrong[most] else ""
