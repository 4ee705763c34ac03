"""A task whose source is a logit data set. Nothing is tagged, augmented or labelled, no teacher is loaded, and training starts at once.

The metadata of the examples names the data set, and so does a note in place of each table that is not made.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import tables
from pipeline.errors import InputError
from pipeline.logits import dataset, note, verify
from pipeline.logits.shards import has_origin
from pipeline.params.text import Text
from pipeline.places.remote import is_url
from pipeline.storage import new_folder, sha256_of

FILES = ["README.md", "manifest.json", "data/*.parquet"]


def fetch(source: str) -> Path:
    """Return the folder of a logit data set.

    :param source: folder:PATH, or hub:OWNER/NAME@REVISION, of which FILES are downloaded into the Hub's cache.
    :raises InputError: If it does not exist.
    """
    kind, _, rest = source.partition(":")
    if is_url(rest):
        raise InputError(
            f"{source}: a task reads a folder of this machine; copy the data set with `dvc get-url {rest} FOLDER`, or write "
            "hub:OWNER/NAME@REVISION"
        )
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
        raise InputError(f"{source}: download failed: {' '.join(str(error).split())}") from error


def examples(task: str, text: Text, mode: str) -> tuple[pa.Table, dict[str, Any]]:
    """Return the originals of a logit data set as examples.

    :param text: The block `text` of the task's file, whose source is a logit data set.
    :param mode: How the task splits text into words: pretokenised, raw or characters.
    :return: `tables.examples_schema(C)`, with the row number in its split as `line`, and the metadata of the table.
    :raises InputError: If the data set does not exist, does not pass `verify`, or does not match the task's file.
    """
    source = str(text.source.logits)
    folder = fetch(source)
    verify.refuse_damaged(folder)
    about = dataset.provenance(folder)
    pairs = text.columns.sentence2 is not None
    check_match(task, text, mode, about)
    parts, schema = [], tables.examples_schema(len(text.labels))
    for split in about["rows"]:
        rows = _of(folder, about, split, tables.SOURCE)
        rows = rows.append_column("split", pa.array([split] * rows.num_rows, pa.string()))
        rows = rows.append_column("line", pa.array(range(1, rows.num_rows + 1), pa.int64()))
        parts.append(rows.select(schema.names).cast(schema))
    return pa.concat_tables(parts).unify_dictionaries(), {
        "task": task,
        "labels": text.labels,
        "pairs": pairs,
        "source": {**about["source"], "logits": source},
        note.KEY: {
            "logits": source,
            "manifest_sha256": sha256_of(folder / "manifest.json"),
            "teacher": about["teacher"],
        },
    }


def _of(folder: Path, about: Mapping[str, Any], split: str, origin: str) -> pa.Table:
    columns = dataset.columns_of(about, ["id", "sentence1", "sentence2", "label", "parent_id"])
    rows = dataset.read_split(folder, split, columns)
    return rows.filter(pa.array(tables.is_of(rows, origin)))


def unlabelled(text: Text) -> tuple[pa.Table, dict[str, Any]]:
    """Return the unlabelled text of a logit data set, `tables.UNLABELLED`, and its provenance; none where it has none.

    :param text: As in `examples`, which checks the data set.
    """
    folder = fetch(str(text.source.logits))
    about = dataset.provenance(folder)
    if not has_origin(about):
        return tables.UNLABELLED.empty_table(), {}
    rows = _of(folder, about, tables.SPLITS[0], tables.POOL)
    rows = rows.append_column("line", pa.nulls(rows.num_rows, pa.int64()))
    return rows.select(tables.UNLABELLED.names).cast(tables.UNLABELLED), about["unlabelled"]


def check_match(task: str, text: Text, mode: str, about: Mapping[str, Any]) -> None:
    """Check that a task's file has the labels, the number of sentences and the mode of its logit data set.

    :param about: The data set's provenance.
    :raises InputError: If it has not.
    """
    pairs = text.columns.sentence2 is not None
    for key, wanted, found in (
        ("text.labels", text.labels, about["labels"]),
        ("text.columns.sentence2", "present" if pairs else "absent", "present" if about["pairs"] else "absent"),
        ("tag.text", mode, about["text"]),
    ):
        if wanted != found:
            raise InputError(
                f"tasks/{task}.yaml: {key}: {wanted}: does not match {text.source.logits}, which has {found}"
            )


def place(found: Mapping[str, Any], teacher: str, out: Path) -> dict[str, Any]:
    """Copy the data set in the note of the examples to `out`, the folder in which the label stage writes; the note for any other teacher.

    :param teacher: The teacher's name in params.yaml.
    :return: A summary as JSON: the source, and the rows of each split.
    :raises InputError: If the data set has changed since the examples were made, or does not pass `verify`.
    """
    if teacher != found["teacher"]["name"]:
        note.leave_note(found, out)
        return {"imported": found["logits"], "rows": {}}
    folder = fetch(found["logits"])
    if sha256_of(folder / "manifest.json") != found["manifest_sha256"]:
        raise InputError(
            f"{found['logits']}: changed since the examples were made; run the prepare stage with `dvc repro`"
        )
    with new_folder(out) as temporary:
        dataset.copy(folder, temporary)
        verify.refuse_damaged(temporary)
    return {"imported": found["logits"], "rows": dataset.provenance(out)["rows"]}
