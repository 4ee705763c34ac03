"""The teacher that the finetune stage recorded in teacher.json, opened for labelling or for its word vectors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.storage import read_json
from pipeline.teacher.model import Teacher, find_files, open_teacher
from pipeline.teacher.own import OwnTeacher, describe_own, open_own

RECORD = "teacher.json"


def open_recorded(folder: Path, labels: Sequence[str]) -> tuple[Teacher | OwnTeacher, dict[str, Any]]:
    """Open the teacher that the finetune stage wrote down.

    :param folder: The folder of its teacher.json.
    :param labels: The task's class names.
    :return: The teacher, and teacher.json.
    :raises InputError: If the weights are gone, or are no longer those that were written down.
    """
    path = folder / RECORD
    if not path.is_file():
        raise InputError(f"{path}: no such file; run the finetune stage with `dvc repro`")
    record = read_json(path)
    names = {theirs: ours for ours, theirs in record["labels"].items()}
    if record["source"].startswith("python:"):
        own = open_own(record["source"], record["params"], labels, names)
        if describe_own(own, record["licence"])["fingerprint"] != record["fingerprint"]:
            raise InputError(
                f"{record['source']}: its fingerprint is no longer {record['fingerprint']!r}, as {path} has it; run the finetune "
                "stage anew with `dvc repro --force --single-item`"
            )
        return own, record
    source = f"folder:{folder}" if record["finetuned"] else record["source"]
    return open_teacher(find_files(source, record["sha256"]), labels, names), record
