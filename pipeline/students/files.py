"""The files of a student's folder: read and checked with the standard library alone, so that serving needs neither torch nor pyarrow."""

from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.storage import read_json, sha256_of

FORMAT = 1
"""The version of a student's folder; a reader refuses a later one."""


def read_student_json(path: Path, version: int, keys: Set[str]) -> dict[str, Any]:
    """Read one of the JSON files of a student's folder.

    :param path: The file.
    :param version: The `format` that it must be of.
    :param keys: What it must hold.
    :raises InputError: If it is missing, is not JSON, is of another format, or lacks a key.
    """
    try:
        stored = read_json(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; a student's folder holds one (`dvc repro` makes it)") from error
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from error
    found: dict[str, Any] = stored if isinstance(stored, dict) else {}
    if found.get("format") != version:
        raise InputError(f"{path}: format {found.get('format')!r}; this version reads format {version}")
    if missing := sorted(keys - found.keys()):
        raise InputError(f"{path}: {', '.join(missing)}: missing")
    return found


def hashes_of(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return what config.json says of the other files under `files`: the SHA-256 of each, in hex, by name."""
    return {name: sha256_of(folder / name) for name in sorted(names)}


def check_files(folder: Path, config: Mapping[str, Any], names: Iterable[str]) -> None:
    """Check that files of a student's folder are there and are those that config.json was written with.

    :param folder: The student's folder.
    :param config: Its config.json; one without `files` (written before there were any) tells nothing of what is in the files.
    :param names: The files that are about to be read.
    :raises InputError: If one is missing or altered.
    """
    known = config.get("files", {})
    for name in names:
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path}: no such file; a student's folder holds one")
        if name in known and sha256_of(path) != known[name]:
            raise InputError(
                f"{path}: altered: its sha256 is not the one in config.json; copy the whole folder again, or make it anew with "
                "`dvc repro`"
            )
