"""The teacher that the finetune stage recorded in teacher.json, opened for labelling or for its word vectors."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.storage import read_json
from pipeline.teacher.model import Teacher, find_files, open_teacher, tokenizer_sha256
from pipeline.teacher.own import SCHEME, OwnTeacher, describe_own, open_own

logger = logging.getLogger(__name__)

RECORD = "teacher.json"


def open_recorded(folder: Path, labels: Sequence[str]) -> tuple[Teacher | OwnTeacher, dict[str, Any]]:
    """Open the teacher that the finetune stage recorded in a folder; return it and its teacher.json.

    :raises InputError: If the teacher is missing, or its weights, code or files changed since they were recorded.
    """
    path = folder / RECORD
    if not path.is_file():
        raise InputError(f"{path}: no such file; run the finetune stage with `dvc repro`")
    record = read_json(path)
    names = {theirs: ours for ours, theirs in record["labels"].items()}
    if record["source"].startswith(SCHEME):
        own = open_own(record["source"], record["params"], labels, names, [*record.get("files_sha256", {})])
        _refuse_changed(path, record["source"], _changes(record, describe_own(own, record["licence"])))
        return own, record
    source = f"folder:{folder}" if record["finetuned"] else record["source"]
    files = find_files(source)
    if files.sha256 != record["sha256"]:
        hashes = f"the weights in {files.folder} (sha256 {files.sha256}, recorded {record['sha256']})"
        _refuse_changed(path, source, [hashes])
    teacher = open_teacher(files, labels, names)
    if tokenizer_sha256(teacher.tokenizer) != record["tokenizer_sha256"]:
        logger.warning("%s: its tokenizer is not the one in %s: the file or a library changed", source, path)
    return teacher, record


def _changes(record: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what changed in a user's teacher since it was recorded."""
    found = []
    if now["fingerprint"] != record["fingerprint"]:
        found.append(f"its fingerprint ({now['fingerprint']!r}, recorded {record['fingerprint']!r})")
    if now["code_sha256"] != record.get("code_sha256"):
        module = record["source"].removeprefix(SCHEME).partition(":")[0]
        found.append(f"the code of the module {module} or of a local module that it imports")
    hashes = record.get("files_sha256", {})
    return found + [f"the file {file}" for file, sha256 in now["files_sha256"].items() if sha256 != hashes[file]]


def _refuse_changed(path: Path, source: str, changes: Sequence[str]) -> None:
    if changes:
        folder = path.resolve().parent
        raise InputError(
            f"{source}: changed since {path} was written: {'; '.join(changes)}; run the finetune stage again with "
            f"`dvc repro --force --single-item finetune@{folder.parent.parent.name}-{folder.name}`"
        )
