"""dvc.lock: written atomically, in the order of `dvc repro`, and repaired after a process was killed.

DVC writes dvc.lock and .dvc/tmp/rwlock in place. A process that is killed at that moment leaves half a file, which DVC then refuses.
"""

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.storage import new_file, read_json, write_json

FOLDER = Path(".dvc/tmp/offline-distill-repro")
"""What `repro` keeps between runs. All of it can be deleted."""

COPIES = FOLDER / "locks"
"""The last complete lock file of each dvc.yaml, under the path of the original."""

ADDED = FOLDER / "added.json"
"""The stages that unfinished runs add to each lock file."""

logger = logging.getLogger(__name__)


def restore() -> None:
    """Replace each lock file that is only half-written by the last complete one. The caller holds DVC's lock.

    :raises InputError: If there is no complete one.
    """
    copies = [path.relative_to(COPIES) for path in sorted(COPIES.rglob("*.lock"))]
    for path in dict.fromkeys([Path("dvc.lock"), *copies]):
        if not path.is_file():
            continue
        if b"\n<<<<<<< " in b"\n" + path.read_bytes():
            raise InputError(
                f"{path}: has conflict markers of Git; run `git checkout --ours {path}` or `git checkout --theirs {path}`"
            )
        if is_whole(path):
            _copy(path, COPIES / path)
        elif is_whole(COPIES / path):
            _copy(COPIES / path, path)
            logger.warning("%s was only half-written; restored the last complete one", path)
        else:
            raise InputError(
                f"{path}: only half-written, or not a lock file of DVC; run `git checkout {path}`, or delete it"
            )


def is_whole(path: Path) -> bool:
    """Return whether a file is a complete lock file of DVC."""
    from dvc.exceptions import DvcException
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.serialize import parse_yaml
    from voluptuous import Invalid

    try:
        text = path.read_text(encoding="utf-8")
        return bool(COMPILED_LOCKFILE_SCHEMA(parse_yaml(text, path))) and text.endswith("\n")
    except (OSError, UnicodeDecodeError, DvcException, Invalid):
        return False


def _copy(source: Path, target: Path) -> None:
    if not target.is_file() or source.read_bytes() != target.read_bytes():
        with new_file(target) as temporary:
            shutil.copyfile(source, temporary)


def lock_of(stage: Any) -> Path | None:
    """Return the lock file that has a stage of DVC, relative to the project's folder; None for a stage of a .dvc file."""
    from dvc.stage import PipelineStage

    if not isinstance(stage, PipelineStage):
        return None
    return Path(os.path.relpath(stage.dvcfile.path)).with_suffix(".lock")


def record(stage: Any) -> None:
    """Write the current state of a stage to its lock file, as DVC does, and keep a copy of the file."""
    from dvc.dvcfile import Lockfile

    path = lock_of(stage)
    if path is None:
        stage.dump(update_pipeline=False)
        return
    with new_file(path) as temporary:
        if path.is_file():
            shutil.copyfile(path, temporary)
        written = Lockfile(stage.repo, str(temporary.absolute()))
        written.dump(stage)
        tracked = stage.repo.scm_context.files_to_track  # what core.autostage adds to Git
        if written.relpath in tracked:
            tracked.remove(written.relpath)
            tracked.add(str(path))
    _copy(path, COPIES / path)


# --- the order of the stages in it ----------------------------------------------------------------------------------------


def start(stages: Sequence[Any]) -> None:
    """Note which stages a run may add to the lock files, in addition to those that unfinished runs have added."""
    noted: Mapping[str, list[str]] = read_json(ADDED) if ADDED.is_file() else {}
    added = {}
    for path, names in _by_lock(stages).items():
        there = _stages(path)
        before = set(noted.get(path.as_posix(), []))
        added[path.as_posix()] = [name for name in names if name in before or name not in there]
    write_json(ADDED, {**noted, **added})


def finish(stages: Sequence[Any], complete: bool) -> None:
    """Give the stages that were added to the lock files the order in which `dvc repro` adds them.

    :param stages: The stages of the run, in that order.
    :param complete: Whether all of them are up to date; otherwise a later run adds the rest.
    """
    from dvc.utils.serialize import dump_yaml, parse_yaml_for_update
    from ruamel.yaml.comments import CommentedMap

    added = read_json(ADDED)
    for path in _by_lock(stages):
        there, new = _stages(path), added[path.as_posix()]
        order = [name for name in there if name not in new] + [name for name in new if name in there]
        if order == there:
            continue
        content = parse_yaml_for_update(path.read_text(encoding="utf-8"), path)
        content["stages"] = CommentedMap((name, content["stages"][name]) for name in order)
        with new_file(path) as temporary:
            dump_yaml(temporary, content)
        _copy(path, COPIES / path)
    if complete:
        ADDED.unlink()


def _by_lock(stages: Sequence[Any]) -> dict[Path, list[str]]:
    found: dict[Path, list[str]] = {}
    for stage in stages:
        if path := lock_of(stage):
            found.setdefault(path, []).append(stage.name)
    return found


def _stages(path: Path) -> list[str]:
    from dvc.utils.serialize import load_yaml

    return list(load_yaml(path)["stages"]) if path.is_file() else []


# --- the readers and writers of outputs -----------------------------------------------------------------------------------


def clear_rwlock() -> None:
    """Remove killed processes from DVC's list of who reads and writes which output. The caller holds DVC's lock.

    DVC removes a process that does not exist, but not one whose number another process has: after a restart, a container uses the same
    numbers again.
    """
    path = Path(".dvc/tmp/rwlock")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        since = path.stat().st_mtime
        writers = {
            name: writer for name, writer in found.get("write", {}).items() if writer and _is_running(writer, since)
        }
        readers = {
            name: [one for one in all_ if _is_running(one, since)] for name, all_ in found.get("read", {}).items()
        }
    except FileNotFoundError:
        return
    except (ValueError, TypeError, KeyError, AttributeError):
        path.unlink()
        logger.warning("%s was only half-written; removed it", path)
        return
    write_json(path, {"write": writers, "read": {name: left for name, left in readers.items() if left}})


def _is_running(process: Mapping[str, Any], since: float) -> bool:
    """Return whether a process exists and is older than the file that names it."""
    import psutil

    try:
        return bool(psutil.Process(process["pid"]).create_time() <= since + 1)
    except psutil.NoSuchProcess:
        return False
