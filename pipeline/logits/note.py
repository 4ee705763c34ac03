"""The note that a task's tables carry where its rows come from a logit data set: nothing was tagged or augmented, and whose logits they are.

A module of its own, so that stages which only look for the note do not depend on the code that reads data sets.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import tables
from pipeline.errors import InputError
from pipeline.storage import new_folder, read_json, write_json

KEY = "imported"
"""Where the metadata of the examples has the note: `logits`, the source; `manifest_sha256`; `teacher`, from the data set's provenance."""

NOTE = "imported.json"


def note_of(examples: Path) -> dict[str, Any] | None:
    """Return the note of a task's examples; None where they come from text.

    :param examples: examples.parquet.
    """
    found: dict[str, Any] | None = tables.metadata_of(examples).get(KEY)
    return found


def leave_note(note: Mapping[str, Any], folder: Path) -> None:
    """Write a folder that holds the note in place of a table.

    :param note: From `note_of`.
    :param folder: The folder to write.
    """
    with new_folder(folder) as temporary:
        write_json(temporary / NOTE, dict(note))


def note_in(folder: Path) -> dict[str, Any] | None:
    """Return the note that `leave_note` wrote; None where the table was made."""
    note: dict[str, Any] | None = read_json(folder / NOTE) if (folder / NOTE).exists() else None
    return note


def teacher_of(note: Mapping[str, Any], teacher: str) -> dict[str, Any]:
    """Return what the data set's provenance says about its teacher.

    :param note: From `note_of`.
    :param teacher: The teacher's name in params.yaml, which must be the data set's.
    :raises InputError: If it is another.
    """
    theirs = note["teacher"]["name"]
    if theirs != teacher:
        raise InputError(
            f"{note['logits']}: has the logits of the teacher {theirs!r}, and none of {teacher!r}; name {theirs!r} under teachers in params.yaml"
        )
    return dict(note["teacher"])
