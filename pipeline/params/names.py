"""The names of tasks, teachers, students and word vectors. A name is a folder, a part of DVC stage names, a key in params.yaml, a word in a command."""

import unicodedata
from collections.abc import Collection, Iterable
from itertools import product
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from pipeline.errors import InputError

MAX_BYTES = 150
"""File systems allow 255 bytes in a name; ours have something before and after them."""

WINDOWS_DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))})
"""Names that Windows reserves for devices, in any case and with any suffix: no file or folder can have one."""

TAKEN = {"tasks": ("raw", "labelled"), "students": ("copies-kept",)}
"""Names that the project's own files have: data/raw, data/labelled, data/<task>/results/curves/copies-kept.csv."""


def checked(name: str) -> str:
    """Return a name if it follows the rule.

    :raises ValueError: If it does not, with the rule and a name that does.
    """
    if (size := len(name.encode(errors="replace"))) > MAX_BYTES:
        raise ValueError(f"a name has at most {MAX_BYTES} bytes, this one has {size}; choose a shorter one")
    right = suggested(name)
    if name != right == composed(name):
        raise ValueError(f"not in Unicode's composed form (NFC); write {right}, which only looks the same")
    if name != right:
        raise ValueError(f"a name has only letters, digits, _ and -, and does not start with -; write {right}")
    if name.lower() in WINDOWS_DEVICES:
        raise ValueError(
            f"Windows reserves this name for a device, so a project with it cannot be cloned there; write {name}_"
        )
    return name


Name = Annotated[str, AfterValidator(checked)]


def suggested(name: str) -> str:
    """Return the name, with `_` in place of what it must not have."""
    found = "".join(char if _is_allowed(char) else "_" for char in composed(name)).lstrip("-")
    return found or "name"


def composed(name: str) -> str:
    """Return a name in Unicode's composed form."""
    return unicodedata.normalize("NFC", name)


def _is_allowed(char: str) -> bool:
    """Return whether a name may have a character: a letter of any script, an accent or vowel sign (Devanagari, Thai), a digit, `_`, `-`."""
    category = unicodedata.category(char)
    return category[0] in "LM" or category == "Nd" or char in "_-"


def check_names(kind: str, names: Iterable[str]) -> None:
    """Check that names do not share a folder with each other or with the project's own files.

    :param kind: The block that defines them: tasks, teachers, students or vectors.
    :raises ValueError: If two names are equal, or differ only in case, or a name is taken.
    """
    seen: dict[str, str] = {}
    for name in names:
        key = _in_a_folder(name)
        if key in TAKEN.get(kind, ()):
            raise ValueError(f"{kind}: {name!r}: data/ has other files of this name; choose another name")
        if name == seen.get(key):
            raise ValueError(f"{kind}: {name!r} is listed twice")
        if key in seen:
            only_case = composed(seen[key]).lower() == composed(name).lower()
            how = "differ only in case" if only_case else "are equal without case, in which ß is ss"
            raise ValueError(
                f"{kind}: {seen[key]!r} and {name!r} {how}: on Windows or macOS they are one folder; rename one of them"
            )
        seen[key] = name


def check_pairs(tasks: Iterable[str], kind: str, names: Collection[str]) -> None:
    """Check that each pair of a task and a name has a DVC stage of its own: DVC joins them by `-`, and runs one of two stages of one name.

    :param kind: teachers or students.
    :raises ValueError: If two pairs are one stage.
    """
    seen: dict[str, tuple[str, str]] = {}
    for task, name in product(tasks, names):
        joined = f"{task}-{name}"
        if joined in seen:
            (other_task, other), one = seen[joined], kind.removesuffix("s")
            renamed = max(task, other_task, key=len)
            raise ValueError(
                f"{kind}: the task {other_task!r} with the {one} {other!r} and the task {task!r} with the {one} {name!r} are one DVC stage, "
                f"...@{joined}; rename the task {renamed!r}, for example to {renamed.replace('-', '_')!r}, or one of the {kind}"
            )
        seen[joined] = task, name


def check_task_file(path: Path) -> None:
    """Check that a task's file is not there under a name that differs only in case or in its Unicode form.

    :raises InputError: If it is. On another system, it would be another file.
    """
    name = composed(path.name)
    for other in path.parent.glob("*.yaml"):
        found = composed(other.name)
        if other.name == path.name or (found == name and path.is_file()):  # macOS finds both forms
            return
        if _in_a_folder(found) == _in_a_folder(name):
            how = "case" if found != name else "Unicode form (NFC, NFD)"
            raise InputError(f"{path}: the file is there as {other.name}, in another {how}; rename it to {path.name}")


def _in_a_folder(name: str) -> str:
    """Return a name as Windows and macOS compare it: without case, in one Unicode form."""
    return composed(composed(name).casefold())
