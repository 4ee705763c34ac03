"""Reads the files of a user's task, and writes the settings that follow from them."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from pipeline.errors import InputError
from pipeline.logits.markdown import render
from pipeline.params.reading import validated
from pipeline.params.teachers import TeacherModel
from pipeline.params.text import Columns, Source
from pipeline.places.remote import is_url
from pipeline.tables import SPLITS
from pipeline.text import sources
from pipeline.text.rows import SourceRows

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
"""How a single file is split."""
TEACHER, VECTORS = "ours", "teacher-words"
"""The names in params.yaml."""
SHOWN = 10
"""Class names in the summary."""
FEW = 20
"""Up to so many values, a column of labels is not questioned."""

ABSENT = ", which the task's file names"
"""What the message of an absent column has, and is not true before there is this file."""

_WHOLE = re.compile(r"(-?\d+)(?:\.0+)?")
_NUMBER = re.compile(r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class Given:
    """The files of a task and their columns, as the command line names them."""

    files: Sequence[str]
    """One file, which is split, or one for each of SPLITS, in their order."""
    text: str = "text"
    text2: str | None = None
    label: str = "label"
    teacher: str | None = None


@dataclass(frozen=True)
class Found:
    """What the files hold."""

    files: str | dict[str, str]
    columns: dict[str, str]
    labels: list[str]
    """Class names; a single one, that of the column, where it holds numbers."""
    rows: dict[str, int]
    unreadable: Sequence[str] = ()
    """The file, line and value of each row that cannot be read."""

    @property
    def is_regression(self) -> bool:
        """Whether the labels are numbers."""
        return len(self.labels) == 1

    def __str__(self) -> str:
        """Return a line for the user."""
        counts = ", ".join(
            f"{n:,} rows{'' if split == sources.ALL else f' in {split}'}" for split, n in self.rows.items()
        )
        more = f" and {len(self.labels) - SHOWN} more" if len(self.labels) > SHOWN else ""
        kind = (
            "numbers (a regression)"
            if self.is_regression
            else f"{len(self.labels)} classes: {', '.join(self.labels[:SHOWN])}{more}"
        )
        n, first = len(self.unreadable), next(iter(self.unreadable), "")
        more = f"; {n:,} {'row' if n == 1 else 'rows'} cannot be read, the first: {first}" if n else ""
        return f"{counts}; {kind}{more}"


def read(given: Given, folder: Path) -> Found:
    """Read the files of a task.

    :param folder: The project's folder, to which the file names in the result are relative where they are inside.
    :raises InputError: If a file or column is missing, or the labels are not classes.
    """
    if not all(given.files):
        raise InputError("--files: a name is empty; is a variable of the shell not set?")
    if len(given.files) > len(SPLITS):
        raise InputError(f"--files: {len(given.files)} files; name one file, or up to three: train, validation, test")
    files = dict(zip(SPLITS, given.files, strict=False)) if len(given.files) > 1 else given.files[0]
    columns = {"sentence1": given.text, "sentence2": given.text2, "label": given.label}
    named = {key: name for key, name in columns.items() if name is not None}
    checked = validated(Columns, named, Path("--text, --text2, --label"))
    try:
        rows, _ = sources.read(Source(files=files), checked)
    except InputError as error:
        hint = "; name the columns with --text, --text2 and --label" if ABSENT in str(error) else ""
        raise InputError(f"{str(error).replace(ABSENT, '')}{hint}") from error
    placed = (
        _place(files, folder)
        if isinstance(files, str)
        else {split: _place(file, folder) for split, file in files.items()}
    )
    unreadable = [line for of_split in rows.values() for line in _unreadable(of_split)]
    counts = {split: len(of_split) for split, of_split in rows.items()}
    return Found(placed, named, _labels(rows, given.label), counts, unreadable)


def _place(file: str, folder: Path) -> str:
    """Return a path as seen from the project's folder, absolute if it is outside the project and its Git repository; a URL as it is."""
    if is_url(file):
        return file
    path, root = (Path(os.path.abspath(given)) for given in (file, folder))  # noqa: PTH100  # without `..`, and with links as they are
    if path.is_relative_to(repository_of(root) or root):  # a clone has it in the same place
        return Path(os.path.relpath(path, root)).as_posix()
    return path.as_posix()


def repository_of(folder: Path) -> Path | None:
    """Return the root of the Git repository of an absolute path; None if there is none."""
    return next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), None)


def _unreadable(rows: SourceRows) -> list[str]:
    positions = np.array(sorted(rows.faults), np.int64)
    if not len(positions):
        return []
    lines, names = rows.take(positions, ["line"])["line"].to_pylist(), rows.names
    parts = rows.parts_of(positions).tolist()
    return [
        f"{names[part]}, line {line}: {rows.faults[n].value}"
        for n, line, part in zip(positions.tolist(), lines, parts, strict=True)
    ]


def _counts(values: pa.ChunkedArray) -> dict[str | None, int]:
    return {item["values"]: item["counts"] for item in values.value_counts().to_pylist()}


def _labels(rows: Mapping[str, SourceRows], column: str) -> list[str]:
    if names := next((of_split.class_names for of_split in rows.values() if of_split.class_names), None):
        return names
    labels = pa.chunked_array(
        [batch["label"] for of_split in rows.values() for _, batch in of_split.batches()], pa.string()
    )
    given = {value: count for value, count in _counts(labels).items() if value}
    count, values = sum(given.values()), set(given)
    name = next(iter(rows.values())).name
    if all(_NUMBER.fullmatch(value) for value in values):
        if not all(_WHOLE.fullmatch(value) for value in values):
            return [column]
        values = {_WHOLE.sub(r"\1", value) for value in values}
    if len(values) < 2:
        raise InputError(f"{name}: column {column!r} has {len(values)} classes; name the column of labels with --label")
    if len(values) > FEW and 2 * len(values) > count:
        raise InputError(
            f"{name}: column {column!r} has {len(values):,} values in {count:,} rows, which are no classes; name the column of labels "
            "with --label"
        )
    return sorted(values, key=int if all(_WHOLE.fullmatch(value) for value in values) else None)


def teacher_of(given: Given, folder: Path) -> str | None:
    """Return the source of the teacher as the project in `folder` names it; None if there is none.

    :raises InputError: If it does not have the form of a source. `check` looks for its files, and imports a class of your own.
    """
    if given.teacher is None or given.teacher.startswith("python:"):
        return given.teacher
    source = validated(TeacherModel, {"source": given.teacher}, Path("--teacher")).source
    kind, _, place = source.partition(":")
    return f"folder:{_place(place, folder)}" if kind == "folder" and Path(place).is_dir() else source


def task_file(found: Found) -> str:
    """Return the text of tasks/TASK.yaml."""
    read_from = " and ".join(name for key, name in found.columns.items() if key != "label")
    return _rendered(
        "task.yaml.jinja",
        found,
        description=f"Predict {found.columns['label']} from {read_from}",
        splits=SHARES if isinstance(found.files, str) else {},
    )


def params_file(task: str, found: Found, teacher: str | None) -> str:
    """Return the text of params.yaml for a task and a teacher; None writes a place to fill in."""
    has_words = teacher is None or not teacher.startswith("python:")
    return _rendered(
        "params.yaml.jinja",
        found,
        task=task,
        teacher=teacher or "",
        name=TEACHER,
        vectors=VECTORS if has_words else None,
    )


def _rendered(template: str, found: Found, **values: Any) -> str:
    """Return a template filled in with what the files hold. `quoted` writes a text as YAML, `plain` without quotes if it can."""

    def quoted(text: str) -> str:
        return json.dumps(text, ensure_ascii=False)

    def plain(name: str) -> str:  # not 2024, 1e5, yes, null
        return name if name[0].isalpha() and yaml.safe_load(name) == name else quoted(name)

    return render(Path(__file__).with_name(template), found=found, quoted=quoted, plain=plain, **values)
