"""The logit data set: Parquet shards with the text, its lineage and the teacher's logits. Whatever trains a student reads this alone.

- README.md: the data set's card, which `datasets.load_dataset(folder)` reads too;
- manifest.json: format, provenance, and path, split, rows and sha256 of each shard;
- data/<split>-<16 hex>.parquet: the rows; a shard is named by the start of its sha256.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipeline import tables
from pipeline.console import aligned
from pipeline.errors import InputError
from pipeline.storage import new_file, read_json, remove_temporaries, sha256_of, write_json, write_text

logger = logging.getLogger(__name__)

FORMAT = 1
"""The version of the layout above; a reader refuses a later one."""

SHARD_ROWS = 1_000_000
"""Rows in a shard: few large files, 100 to 250 MB each with sentences."""

_COLUMNS = {
    "id": "Content hash (XXH3-128) of the sentence or pair",
    "sentence1": "The text, or the first of a pair",
    "sentence2": "The second of a pair; null in a task of single sentences",
    "label": "The gold label; null where unknown, and in every augmented row",
    "parent_id": "The original that the row was made from; null in an original",
    "copy": "Which copy of the original, from 0",
    "side": "Which sentence was augmented: first, second, both",
    "masked1, masked2": "Words that became `[MASK]`, in the first and the second sentence",
    "replaced1, replaced2": "Words drawn anew within their part of speech",
    "edited1, edited2": "Words that other rules changed",
    "ngram_start1, ngram_start2": "Where the kept n-gram starts in the parent, in words; null where all were kept",
    "ngram_size1, ngram_size2": "Its words",
    "logits": "The teacher's raw outputs (temperature 1), in the order of the label names",
}


@dataclass(frozen=True)
class Stream:
    """Rows that come a table at a time, so that they need not be in memory together.

    :param num_rows: How many there are in all.
    :param parts: The tables; they can be read once.
    """

    num_rows: int
    parts: Iterable[pa.Table]


def write(folder: Path, splits: Mapping[str, pa.Table | Stream], provenance: Mapping[str, Any]) -> None:
    """Write a logit data set, or bring the one that is there up to date. The same rows and provenance give the same bytes.

    New shards are written first, then the card and the manifest, and only then are shards that the manifest does not name
    removed: what a killed run leaves is never read as something whole, and the next run cleans up.

    :param folder: The data set's folder; it may exist.
    :param splits: The rows of each split, as `tables.logits_schema(C)`; a shard's are in memory at a time.
    :param provenance: Where the rows come from, as JSON. Its `labels` are the C class names in the order of the logits;
        `rows`, the rows of each split, is added here.
    """
    (folder / "data").mkdir(parents=True, exist_ok=True)
    provenance = {**provenance, "rows": {split: table.num_rows for split, table in splits.items()}}
    schema = _stored_schema(provenance)
    shards: list[dict[str, Any]] = [
        {"path": f"data/{path.name}", "split": split, "rows": rows, "sha256": sha256}
        for split, table in splits.items()
        for path, rows, sha256 in _write_shards(folder / "data", split, table, schema)
    ]
    write_text(folder / "README.md", _card(provenance, shards))
    write_json(folder / "manifest.json", {"format": FORMAT, "provenance": provenance, "shards": shards})
    remove_temporaries(folder)
    named = {folder / shard["path"] for shard in shards}
    for path in sorted((folder / "data").iterdir()):  # and the temporary files of killed runs
        if path not in named:
            logger.info("removing %s, which is no part of the data set any more", path)
            path.unlink()


def _write_shards(
    folder: Path, split: str, rows: pa.Table | Stream, schema: pa.Schema
) -> Iterator[tuple[Path, int, str]]:
    # An empty split has no shard: datasets fails on one without rows.
    for table in _regrouped(part.cast(schema) for part in (rows.parts if isinstance(rows, Stream) else [rows])):
        # One chunk a column: where pages end in the file must follow from the rows, not from how they came together.
        shard = table.combine_chunks()
        sink = pa.BufferOutputStream()
        pq.write_table(shard, sink, compression="zstd")
        content = sink.getvalue()
        sha256 = hashlib.sha256(content).hexdigest()
        path = folder / f"{split}-{sha256[:16]}.parquet"
        with new_file(path) as temporary:
            temporary.write_bytes(content)
        yield path, shard.num_rows, sha256


def _regrouped(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the same rows SHARD_ROWS at a time."""
    waiting: list[pa.Table] = []
    for part in parts:
        while part.num_rows:
            missing = SHARD_ROWS - sum(table.num_rows for table in waiting)
            waiting.append(part.slice(0, missing))
            part = part.slice(missing)
            if waiting[-1].num_rows == missing:
                yield pa.concat_tables(waiting)
                waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _stored_schema(provenance: Mapping[str, Any]) -> pa.Schema:
    """Return the schema of the shards: `tables.logits_schema(C)` in the types of `datasets`, with its metadata and ours."""
    schema = tables.logits_schema(len(provenance["labels"]))
    for i, field in enumerate(schema):
        if pa.types.is_dictionary(field.type):
            schema = schema.set(i, field.with_type(field.type.value_type))
        elif field.name == "label":  # a ClassLabel is int64; datasets drops the class names from any other
            schema = schema.set(i, field.with_type(pa.int64()))
    features: dict[str, Any] = {
        field.name: {"dtype": str(field.type), "_type": "Value"} for field in schema if field.name != "logits"
    }
    features["label"] = {"names": list(provenance["labels"]), "_type": "ClassLabel"}
    logits = schema.field("logits").type
    features["logits"] = {  # as datasets < 4 wrote it; later ones read it, while older ones fail on "List"
        "feature": {"dtype": "float32", "_type": "Value"},
        "length": logits.list_size,
        "_type": "Sequence",
    }
    info = json.dumps({"info": {"features": features}}, ensure_ascii=False)
    return tables.with_metadata(schema.with_metadata({"huggingface": info}), provenance)


def _shards_in(folder: Path) -> list[str]:
    return [f"data/{path.name}" for path in sorted((folder / "data").glob("*.parquet"))]


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        manifest: dict[str, Any] = read_json(path)
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: no such file, so {folder} is no logit data set; make it with `dvc repro` or fetch it with `dvc pull`"
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}; make it anew with `dvc repro --force`") from error
    if manifest.get("format") != FORMAT:
        raise InputError(f"{path}: format {manifest.get('format')!r}; this version reads format {FORMAT}")
    return manifest


def provenance(folder: Path) -> dict[str, Any]:
    """Return where a logit data set comes from: task, labels, teacher, augmentation, source, versions, rows.

    :param folder: The data set's folder.
    :raises InputError: If there is no data set, or one of a later format.
    """
    found: dict[str, Any] = _manifest(folder)["provenance"]
    return found


def stored_schema(folder: Path) -> pa.Schema:
    """Return the schema of the shards as they are in the files, which `read_split` turns into `tables.logits_schema(C)`.

    :param folder: The data set's folder.
    :raises InputError: If there is no data set, or one of a later format.
    """
    return _stored_schema(provenance(folder))


def intact_shards(folder: Path) -> Iterator[Path]:
    """Yield the shards whose bytes are those that the manifest tells of; a warning names each that is missing or altered.

    :param folder: The data set's folder.
    :raises InputError: If there is no data set, or one of a later format.
    """
    for shard in _manifest(folder)["shards"]:
        path = folder / shard["path"]
        if path.is_file() and sha256_of(path) == shard["sha256"]:
            yield path
        else:
            fault = "is altered" if path.is_file() else "is missing"
            logger.warning("%s: %s: its sha256 is not that of manifest.json, so nothing is taken from it", path, fault)


def read_split(folder: Path, split: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the rows of one split, in the order in which they were written.

    :param folder: The data set's folder.
    :param split: train, validation or test.
    :param columns: The columns to read; all where None.
    :return: The rows, in the types of `tables.logits_schema(C)`.
    :raises InputError: If there is no data set or no such split, or the shards are not those that the manifest names.
    """
    manifest = _manifest(folder)
    named = {shard["path"] for shard in manifest["shards"]}
    found = set(_shards_in(folder))
    for path in sorted(named ^ found):
        fault = "is missing" if path in named else "is not in manifest.json"
        raise InputError(
            f"{folder / path}: {fault}; write the data set anew with `dvc repro` or fetch it with `dvc pull`"
        )
    rows = manifest["provenance"]["rows"]
    if split not in rows:
        raise InputError(f"{folder}: has no split {split!r} (it has {', '.join(rows)})")
    stored = _stored_schema(manifest["provenance"])
    schema = tables.logits_schema(len(manifest["provenance"]["labels"]))
    schema = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    parts = [schema.empty_table()]
    for shard in manifest["shards"]:
        if shard["split"] != split:
            continue
        part = tables.read(folder / shard["path"], stored, columns)
        if part.num_rows != shard["rows"]:
            raise InputError(
                f"{folder / shard['path']}: holds {part.num_rows} rows, manifest.json says {shard['rows']}; "
                "write the data set anew with `dvc repro --force` or fetch it with `dvc pull`"
            )
        parts.append(part.cast(schema))
    return pa.concat_tables(parts).unify_dictionaries()


def _card(provenance: Mapping[str, Any], shards: Sequence[Mapping[str, Any]]) -> str:
    task, labels, rows = provenance["task"], provenance["labels"], provenance["rows"]
    files = [
        {"split": split, "path": [shard["path"] for shard in shards if shard["split"] == split]}
        for split in rows
        if rows[split]
    ]
    front = {
        "license": provenance.get("source", {}).get("licence", "unknown"),
        "task_categories": ["text-classification"],
        # Shards by their names, which change with what they hold: from a pattern, datasets would serve old rows from its cache.
        "configs": [{"config_name": "default", "data_files": files}],
    }
    counts = aligned([("split", "rows"), *((split, f"{n:,}") for split, n in rows.items())])
    columns = "\n".join(["| column | holds |", "| --- | --- |", *(f"| {k} | {v} |" for k, v in _COLUMNS.items())])
    return f"""---
{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---

# {task}: text with a teacher's logits

Made by [offline-distill](https://arxiv.org/abs/1903.12136): original and augmented rows of the task `{task}`, each with the raw
logits of a teacher, so that students are trained from these files alone. `label` and the columns of `logits` are, in order:
{", ".join(f"`{name}`" for name in labels)}.

{counts}

## Columns

{columns}

## Provenance

The licence above is the text's; the teacher's stands below.

```json
{json.dumps(provenance, indent=2, ensure_ascii=False)}
```
"""
