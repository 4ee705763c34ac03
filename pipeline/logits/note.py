"""The note in a task's tables if its rows come from a logit data set: nothing is tagged or augmented, and the logits have a known teacher.

It is a module of its own, so that stages that only check for the note do not depend on the code that reads data sets.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pipeline import tables
from pipeline.errors import InputError
from pipeline.storage import new_folder, read_json, write_json

KEY = "imported"
"""The key of the note in the metadata of the examples. The note has `logits`, the source; `manifest_sha256`; `teacher`, from the provenance."""

NOTE = "imported.json"


def note_of(examples: Path) -> dict[str, Any] | None:
    """Return the note in examples.parquet; None if the examples come from text."""
    return tables.metadata_of(examples).get(KEY)


def leave_note(note: Mapping[str, Any], folder: Path) -> None:
    """Write a folder with the note of `note_of` instead of a table."""
    with new_folder(folder) as temporary:
        write_json(temporary / NOTE, dict(note))


def note_in(folder: Path) -> dict[str, Any] | None:
    """Return the note that `leave_note` wrote; None if the folder has a table."""
    return dict(read_json(folder / NOTE)) if (folder / NOTE).exists() else None


def check_teachers(note: Mapping[str, Any], task: str, student: str, teachers: Collection[str]) -> None:
    """Check that a student learns from the teacher in the note of `note_of` alone.

    :param teachers: The student's.
    :raises InputError: If another teacher is among them.
    """
    found = note["teacher"]["name"]
    if other := next((name for name in teachers if name != found), None):
        raise InputError(
            f"students.{student}.teacher: {other!r}: the task has logits of {found!r} alone ({note['logits']}); to leave the student out, "
            f"write `{student}: null` under students in tasks/{task}.yaml"
        )


def teacher_of(note: Mapping[str, Any], teacher: str, defined: Collection[str]) -> dict[str, Any]:
    """Return the teacher in the data set's provenance, of which the note of `note_of` has a copy; the note itself for any other teacher.

    :param teacher: The teacher's name in params.yaml.
    :param defined: The teachers in params.yaml.
    :raises InputError: If the data set's teacher is not among them.
    """
    found = note["teacher"]["name"]
    if found not in defined:
        raise InputError(
            f"{note['logits']}: has the logits of the teacher {found!r}; add {found!r} under teachers in params.yaml (defined: {', '.join(defined)})"
        )
    return dict(note["teacher"] if found == teacher else note)
