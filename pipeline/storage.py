"""Files that are either whole or absent: written to a temporary name, flushed to disk, renamed."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import InputError

TEMPORARY = ".tmp-"


def _temporary(path: Path) -> Path:
    return path.with_name(f"{path.name}{TEMPORARY}{os.getpid()}-{uuid.uuid4().hex[:8]}")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write; on success it becomes `path`, on any error it is removed.

    :param path: The final path. Its folder is made when missing; a file already there is replaced at once.
    :yields: A path in the same folder (so that the rename is atomic).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path, name: str = "*") -> None:
    """Remove the temporary files that killed writers left. Only for files that nobody else writes now.

    :param folder: The folder.
    :param name: The final name of the files, or a pattern of names.
    """
    for path in sorted(folder.glob(f"{name}{TEMPORARY}*")):
        path.unlink()


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; on success it becomes `path`, whole, and replaces what was there.

    :param path: The final folder.
    :yields: An empty folder beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically: UTF-8, two spaces, keys in the order given, a final newline."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_stamp(path: Path, of: Path) -> None:
    """Write the SHA-256 of a file as JSON: small enough for Git, so that a clone without the file sees that it is another one.

    :param path: The stamp.
    :param of: The file.
    """
    write_json(path, {"file": of.as_posix(), "sha256": sha256_of(of)})


def check_stamp(path: Path, fetch: str) -> None:
    """Check that the file that a stamp names is here, and is the one that was stamped.

    :param path: The stamp; nothing is checked where there is none.
    :param fetch: The command that brings the file, for the message.
    :raises InputError: If the file is missing or another one.
    """
    if not path.is_file():
        return
    stamp = read_json(path)
    file = Path(stamp["file"])
    if not file.is_file():
        raise InputError(f"{file}: not on this machine; fetch it with `{fetch}`")
    if sha256_of(file) != stamp["sha256"]:
        raise InputError(
            f"{file}: not the file that {path} names, but an older or a changed one; fetch it with `{fetch}`"
        )
