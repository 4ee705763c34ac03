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


def read(folder: Path = Path()) -> dict[str, Any]:
    """Return what a project has recorded of the code.

    :raises InputError: If it has recorded nothing, or the file is damaged.
    """
    path = folder / CODE
    try:
        found = read_json(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run this in the folder of a project that `init` made") from None
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(found.get(key), dict) for key in ("files", "stages")):
        raise InputError(
            f"{path}: not a file that `init` wrote, or damaged; restore it from Git, then run `offline-distill upgrade`"
        )
    return found


def check(stage: str) -> None:
    """Check that the project in the working folder has recorded the installed code of a stage. A checkout, which has its own code, records none.

    :raises InputError: If the code differs from the recorded one, so that DVC would not run again what has changed.
    """
    graph = Path(GRAPHS[0])
    if not CODE.is_file() and not (graph.is_file() and CODE.as_posix() in graph.read_text(encoding="utf-8")):
        return
    there = read() if CODE.is_file() else {"version": None, "stages": {}}
    changed = changes(there["stages"])
    if stage in changed or (stage in EVERY_TIME and changed):
        raise InputError(
            f"{CODE}: written by version {there['version']} with other code than the installed version {version()}; "
            "run `offline-distill upgrade`"
        )


def changes(before: Mapping[str, str]) -> list[str]:
    """Return the stages whose installed code is not the recorded one, in the order of dvc.yaml."""
    return [stage for stage, found in digests().items() if before.get(stage) != found]


def upgrade(folder: Path) -> tuple[str, list[str], list[str]]:
    """Record the installed code in a project, and renew its dvc.yaml files.

    A dvc.yaml that the user has edited stays: the new one is written next to it, as dvc.yaml.new, where it differs from the old one.

    :return: The version that was recorded before; the stages that will run again; the files that were left for the user to merge.
    :raises InputError: If the folder has no project.
    """
    before, now = read(folder), recorded()
    to_merge = []
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
    return str(before.get("version")), changes(before["stages"]), to_merge
