"""Hashes of the installed code, one for each stage, and what a project has recorded of them."""

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.setting_up.bundle import file_of, version
from pipeline.setting_up.graph import CODE, GRAPHS, code_of_stages, for_project
from pipeline.storage import read_json, write_json, write_text

EVERY_TIME = {"inputs", "ablate_inputs"}
"""The stages that run at every `repro`. They name no code themselves and check the code of all stages."""


@cache
def digests() -> dict[str, str]:
    """Return the hash of the installed code of each stage that depends on code."""
    return {stage: digest(paths) for stage, paths in code_of_stages().items()}


def digest(paths: list[str]) -> str:
    """Return the SHA-256, in hex, of the names and contents of files of code. Line ends do not count.

    :param paths: Files and folders, as dvc.yaml of this repository names them.
    """
    found = hashlib.sha256()
    for path in paths:
        place = file_of(path)
        files = place.rglob("*") if place.is_dir() else [place]
        for file in sorted(file for file in files if file.is_file() and "__pycache__" not in file.parts):
            content = file.read_bytes().replace(b"\r\n", b"\n")
            name = f"{path}/{file.relative_to(place).as_posix()}"
            found.update(f"{name} {len(content)}\n".encode() + content)
    return found.hexdigest()


def recorded() -> dict[str, Any]:
    """Return what `init` or `upgrade` wrote for the installed code: its version, its hashes, and those of the generated files."""
    files = {file: _sha256(for_project(file)) for file in GRAPHS}
    return {"version": version(), "files": files, "stages": digests()}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def read(folder: Path = Path()) -> dict[str, Any] | None:
    """Return what a project has recorded of the code: nothing where the file is missing or damaged; None if the folder has no project."""
    try:
        found = read_json(folder / CODE)
    except FileNotFoundError:
        graph = folder / GRAPHS[0]
        if not graph.is_file() or CODE.as_posix() not in graph.read_text(encoding="utf-8"):
            return None
        found = None
    except ValueError:  # a merge conflict, for one
        found = None
    is_whole = isinstance(found, dict) and all(isinstance(found.get(key), dict) for key in ("files", "stages"))
    return {"version": None, **found} if is_whole else {"version": None, "files": {}, "stages": {}}


def check(stage: str) -> None:
    """Check that the project in the working folder has recorded the installed code of a stage. A checkout, which has its own code, records none.

    :raises InputError: If the code differs from the recorded one, so that DVC would not run again what has changed.
    """
    if (there := read()) is None:
        return
    changed = changes(there["stages"])
    if stage in changed or (stage in EVERY_TIME and changed):
        before = there["version"]
        other = f"written by version {before} with other code than the installed version {version()}"
        raise InputError(f"{CODE}: {other if before else 'missing or damaged'}; run `offline-distill upgrade`")


def changes(before: Mapping[str, str]) -> list[str]:
    """Return the stages whose installed code is not the recorded one, in the order of dvc.yaml."""
    return [stage for stage, found in digests().items() if before.get(stage) != found]


def upgrade(folder: Path) -> tuple[str | None, list[str], list[str]]:
    """Record the installed code in a project, and renew its dvc.yaml files.

    A dvc.yaml that the user has edited stays: the new one is written next to it, as dvc.yaml.new, where it differs from the old one.

    :return: The version that was recorded before, None if the record is missing or damaged; the stages that will run again; the files that were left for the user to merge.
    :raises InputError: If the folder has no project.
    """
    if (before := read(folder)) is None:
        raise InputError(f"{folder / CODE}: no such file; run this in the folder of a project that `init` made")
    now, to_merge = recorded(), []
    for file in GRAPHS:
        path, text = folder / file, for_project(file)
        old = before["files"].get(file)
        if old == now["files"][file] and path.is_file():
            continue
        if path.is_file() and _sha256(path.read_text(encoding="utf-8")) not in (old, now["files"][file]):
            path = path.with_name(f"{path.name}.new")
            to_merge.append(file)
        write_text(path, text)
    write_json(folder / CODE, now)
    return before["version"], changes(before["stages"]), to_merge
