"""A task whose source is a logit data set: nothing is tagged, augmented or labelled again, no teacher is loaded, and training starts at once.

The examples say which data set they are from, and so does a note in place of each table that is not made.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import logits, tables, verify
from pipeline.errors import InputError
from pipeline.settings import Text
from pipeline.storage import new_folder, read_json, sha256_of, write_json

NOTE = "imported.json"

FILES = ["README.md", "manifest.json", "data/*.parquet"]


def fetch(source: str) -> Path:
    """Return the folder of a logit data set.

    :param source: folder:PATH, or hub:OWNER/NAME@REVISION, which is fetched into the Hub's cache; nothing but FILES is.
    :raises InputError: If it is not there.
    """
    kind, _, rest = source.partition(":")
    if kind == "folder":
        if not Path(rest).is_dir():
            raise InputError(f"{source}: no such folder; fetch it with `dvc pull`, `dvc import` or `dvc get`")
        return Path(rest)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, _, revision = rest.partition("@")
    try:
        return Path(snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(f"{source}: cannot be fetched: {' '.join(str(error).split())}") from error


def examples(task: str, text: Text, mode: str) -> tuple[pa.Table, dict[str, Any]]:
    """Return the originals of a logit data set as examples.

    :param task: The task's name.
    :param text: What the task's file says of its text; its source is a logit data set.
    :param mode: How the task says that text becomes words: pretokenised or raw.
    :return: `tables.examples_schema(C)`, a row's line being its place in its split, and the metadata of the table.
    :raises InputError: If the data set is not there, does not pass `verify`, or is not what the task's file says.
    """
    source = str(text.source.logits)
    folder = fetch(source)
    verify.refuse_damaged(folder)
    about = logits.provenance(folder)
    pairs = text.columns.sentence2 is not None
    for key, ours, theirs in (
        ("text.labels", text.labels, about["labels"]),
        ("text.columns.sentence2", "there" if pairs else "absent", "there" if about["pairs"] else "absent"),
        ("tag.text", mode, about["text"]),
    ):
        if ours != theirs:
            raise InputError(f"tasks/{task}.yaml: {key}: {ours}: that of {source} is {theirs}")
    parts, schema = [], tables.examples_schema(len(text.labels))
    for split in about["rows"]:
        rows = logits.read_split(folder, split, ["id", "sentence1", "sentence2", "label", "parent_id"])
        rows = rows.filter(pc.is_null(rows["parent_id"])).drop_columns(["parent_id"])
        known = {"split": [split] * rows.num_rows, "line": np.arange(1, rows.num_rows + 1)}
        columns = [rows[f.name] if f.name not in known else pa.array(known[f.name], f.type) for f in schema]
        parts.append(pa.table(columns, schema=schema))
    found = pa.concat_tables(parts).unify_dictionaries()
    return found, {
        "task": task,
        "labels": text.labels,
        "pairs": pairs,
        "splits": {},
        "source": {**about["source"], "logits": source, "manifest_sha256": sha256_of(folder / "manifest.json")},
        "rows": found.num_rows,
    }


def note_of(examples: Path) -> dict[str, Any] | None:
    """Return which logit data set a task's examples are from; None where they are from text.

    :param examples: examples.parquet.
    """
    source = tables.metadata_of(examples).get("source", {})
    if "logits" not in source:
        return None
    return {"logits": source["logits"], "manifest_sha256": source["manifest_sha256"]}


def leave_note(note: dict[str, Any], folder: Path) -> None:
    """Write a folder that says that its table was not made, and why.

    :param note: From `note_of`.
    :param folder: The folder to write.
    """
    with new_folder(folder) as temporary:
        write_json(temporary / NOTE, note)


def note_in(folder: Path) -> dict[str, Any] | None:
    """Return the note that `leave_note` wrote; None where the table was made."""
    note: dict[str, Any] | None = read_json(folder / NOTE) if (folder / NOTE).exists() else None
    return note


def teacher_of(note: dict[str, Any], teacher: str) -> dict[str, Any]:
    """Return what a data set says of its teacher.

    :param note: From `note_of`.
    :param teacher: The teacher's name in params.yaml, which must be that of the data set.
    :raises InputError: If it is another, or the data set changed since the examples were made.
    """
    _, about = _opened(note, teacher)
    return dict(about["teacher"])


def place(note: dict[str, Any], teacher: str, out: Path) -> dict[str, Any]:
    """Copy a data set to where the label stage would have written it.

    :param note: From `note_of`.
    :param teacher: As in `teacher_of`.
    :param out: The folder to write.
    :return: A summary as JSON: its source, and the rows of each split.
    :raises InputError: As `teacher_of`; or if the copy does not pass `verify`.
    """
    folder, about = _opened(note, teacher)
    with new_folder(out) as temporary:
        logits.copy(folder, temporary)
        verify.refuse_damaged(temporary)
    return {"imported": note["logits"], "rows": about["rows"]}


def _opened(note: dict[str, Any], teacher: str) -> tuple[Path, dict[str, Any]]:
    folder = fetch(note["logits"])
    if sha256_of(folder / "manifest.json") != note["manifest_sha256"]:
        raise InputError(
            f"{note['logits']}: changed since the examples were made; run the prepare stage with `dvc repro`"
        )
    about = logits.provenance(folder)
    theirs = about["teacher"]["name"]
    if theirs != teacher:
        raise InputError(
            f"{note['logits']}: has the logits of the teacher {theirs!r}, and none of {teacher!r}; name {theirs!r} under teachers in params.yaml"
        )
    return folder, about
