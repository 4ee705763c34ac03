"""The checks of `verify` that read no row: the manifest, the files, the card, and the footers of the shards.

A check takes a data set and yields its faults in words.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import tables
from pipeline.errors import InputError
from pipeline.logits.card import front_matter
from pipeline.logits.dataset import FORMATS, READABLE, format_of
from pipeline.logits.shards import shard_schema, stored_as
from pipeline.places.place import Place, parquet
from pipeline.places.remote import Remote
from pipeline.storage import load_yaml, sha256_of

TEXT_BYTES = 64 << 20
"""The most bytes of the manifest, of the card, and of a shard's footer."""

HEAD_LETTERS = 1 << 20
"""The most characters of the card's YAML head, which is enough for 20,000 shards. PyYAML parses about 100,000 a second."""

ID_BYTES = 16
"""The fewest bytes that an id takes, whatever the compression: its 128 bits are as good as random."""

EXPANSION = 100
"""The most times its size that a shard may have after decompression; the shards that `write` makes grow 2 to 10 times."""

ENCODINGS = frozenset(
    {"PLAIN", "RLE", "BIT_PACKED", "PLAIN_DICTIONARY", "RLE_DICTIONARY", "DELTA_LENGTH_BYTE_ARRAY", "BYTE_STREAM_SPLIT"}
)
"""Encodings whose decoded size is known before decoding. DELTA_BYTE_ARRAY is not: a kilobyte of it can become a gigabyte."""

SHARD_PATH = re.compile(rf"data/({'|'.join(tables.SPLITS)})-[0-9a-f]{{16}}\.parquet")

OWN_FILES = ("README.md", "manifest.json", "data")
"""What the folder of a data set holds; hidden files are ignored."""

NEEDED = """
task labels pairs text source.licence teacher.name teacher.source teacher.licence teacher.labels labelling.fingerprint
labelling.stored augmentation.n_iter augmentation.rules augmentation.seed versions rows
"""
"""Keys that the provenance must have."""

Faults = Iterator[str]


@dataclass
class DataSet:
    """A data set that is being checked. The check `manifest` sets what manifest.json has."""

    folder: Place
    provenance: dict[str, Any] = field(default_factory=dict)
    shards: list[dict[str, Any]] = field(default_factory=list)


def value_of(facts: Any, key: str) -> Any:
    """Return the value of a dotted key in nested mappings; None if one of them lacks it."""
    for part in key.split("."):
        facts = facts.get(part) if isinstance(facts, Mapping) else None
    return facts


# --- the manifest -------------------------------------------------------------------------------------------------------


def manifest(data: DataSet) -> Faults:
    """Check the types in manifest.json, and keep it in `data`."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not valid JSON")

    found = json.loads(_read(data.folder / "manifest.json"), parse_constant=refuse)
    if not isinstance(found, dict) or found.get("format") not in FORMATS:
        shown = found.get("format") if isinstance(found, dict) else type(found).__name__
        yield f"format {shown!r}; {READABLE}"
        return
    about, shards = found.get("provenance"), found.get("shards")
    if not isinstance(about, dict) or not isinstance(shards, list):
        yield "needs a mapping `provenance` and a list `shards`"
        return
    if found["format"] != format_of(about):
        yield f"format {found['format']}, but the provenance is of format {format_of(about)}"
    yield from _faults_of_facts(about)
    kinds = {"path": str, "split": str, "rows": int, "sha256": str, "rows_digest": str}
    for number, shard in enumerate(shards):
        wrong = [k for k, kind in kinds.items() if not isinstance(shard, dict) or type(shard.get(k)) is not kind]
        if wrong:
            yield f"shards[{number}]: {wrong[0]} is missing or has the wrong type"
        elif shard["rows"] < 1 or shard["split"] not in tables.SPLITS:
            yield f"shards[{number}]: {shard['rows']} rows of split {shard['split']!r}"
    data.provenance, data.shards = about, shards


def _read(path: Place) -> str:
    if not path.is_file():
        raise InputError(f"{path}: no such file, so this folder is not a logit data set")
    if path.stat().st_size > TEXT_BYTES:
        raise InputError(f"{path}: has {path.stat().st_size:,} bytes, more than the {TEXT_BYTES:,} allowed")
    return path.read_text(encoding="utf-8")


def _faults_of_facts(about: Mapping[str, Any]) -> Faults:
    labels, rows = about.get("labels"), about.get("rows")
    if not isinstance(labels, list) or not labels or not all(isinstance(name, str) for name in labels):
        yield "provenance.labels: must be a list of class names"
    elif len(set(labels)) != len(labels):
        yield f"provenance.labels: a class name is listed twice: {labels}"
    if not isinstance(rows, dict) or not all(k in tables.SPLITS and type(n) is int for k, n in rows.items()):
        yield f"provenance.rows: must give the number of rows of each split ({', '.join(tables.SPLITS)})"
    more = about.get("unlabelled")
    if "unlabelled" in about and not (isinstance(more, dict) and isinstance(more.get("licence"), str)):
        yield "provenance.unlabelled: must be a mapping with the licence of the unlabelled text"
    if type(about.get("pairs")) is not bool:
        yield "provenance.pairs: must be true or false"
    if stored_as(about) not in ("float32", "float16"):
        yield f"provenance.labelling.stored: {stored_as(about)!r}: must be float32 or float16"


def provenance(data: DataSet) -> Faults:
    """Check that the provenance has the keys that it must have, and that the teacher's classes are those of the data set."""
    for key in NEEDED.split():
        if value_of(data.provenance, key) is None:
            yield f"{key} is missing"
    teacher, labels = data.provenance.get("teacher", {}), data.provenance["labels"]
    for member in teacher.get("members", [teacher]):  # an average lists its teachers
        # A Python class has no file of weights: its import path and parameters identify it.
        if not member.get("sha256") and not str(member.get("source")).startswith("python:"):
            yield "teacher.sha256 is missing"
    if set(teacher.get("labels", {})) != set(labels):
        yield f"teacher.labels: has the classes {sorted(teacher.get('labels', {}))}, not {labels}"


# --- the files ----------------------------------------------------------------------------------------------------------


def paths(data: DataSet) -> Faults:
    """Check that each path in the manifest is the name of a shard in the folder."""
    seen = set()
    for shard in data.shards:
        path = shard["path"]
        matched = SHARD_PATH.fullmatch(path)
        if path.startswith("/") or ".." in Path(path).parts or "\\" in path or ":" in path:
            yield f"{path!r} leaves the folder"
        elif matched is None:
            yield f"{path!r} is not the name of a shard (data/SPLIT-16 hex digits.parquet)"
        elif matched[1] != shard["split"]:
            yield f"{path}: manifest.json lists it under the split {shard['split']}"
        elif path in seen:
            yield f"{path}: is listed twice"
        seen.add(path)


def row_counts(data: DataSet) -> Faults:
    """Check that the rows of the shards add up to those of the provenance."""
    wanted = data.provenance["rows"]
    for split in tables.SPLITS:
        rows = sum(shard["rows"] for shard in data.shards if shard["split"] == split)
        if rows != wanted.get(split, 0):
            yield f"{split}: its shards have {rows:,} rows, the provenance has {wanted.get(split, 0):,}"


def files(data: DataSet) -> Faults:
    """Check that the shards exist, and that the folder holds no other file; a web server lists no files."""
    named = {shard["path"] for shard in data.shards}
    for name in sorted(named):
        if not (data.folder / name).is_file():
            yield f"{name}: is missing"
    if isinstance(data.folder, Remote) and data.folder.is_http:
        return
    for path in _sorted(data.folder / "data") if (data.folder / "data").is_dir() else ():
        if f"data/{path.name}" not in named:
            yield f"data/{path.name}: is not in manifest.json"
    for path in _sorted(data.folder):
        if path.name not in OWN_FILES and not path.name.startswith("."):
            yield f"{path.name}: does not belong to a logit data set"


def _sorted(folder: Place) -> list[Place]:
    return sorted(folder.iterdir(), key=lambda path: path.name)


def sha256(data: DataSet) -> Faults:
    """Check that the bytes of each shard have the SHA-256 of its entry and of its name."""
    for shard in data.shards:
        found = sha256_of(data.folder / shard["path"])
        if found != shard["sha256"]:
            yield f"{shard['path']}: its sha256 is {found[:16]}..., manifest.json has {shard['sha256'][:16]}..."
        elif not shard["path"].endswith(f"-{found[:16]}.parquet"):
            yield f"{shard['path']}: its name is not its sha256, {found[:16]}..."


def card(data: DataSet) -> Faults:
    """Check that the head of README.md has the licences and the shards of the manifest."""
    before, *head = _read(data.folder / "README.md").split("---\n", 2)
    head = [] if before else head[:-1]
    if head and len(head[0]) > HEAD_LETTERS:
        yield f"README.md: its YAML head has {len(head[0]):,} characters, more than the {HEAD_LETTERS:,} allowed"
        return
    try:
        front = load_yaml(head[0]) if head else None
    except ValueError as error:
        yield f"README.md: {error}"
        return
    if not isinstance(front, dict):
        yield "README.md: has no YAML head"
        return
    for key, value in front_matter(data.provenance, data.shards).items():
        if key in ("license", "license_name", "teacher_license", "configs") and front.get(key) != value:
            yield f"README.md: {key} does not match manifest.json"
    if "dataset_info" in front:
        yield "README.md: dataset_info overrides the columns and classes in the shards; remove it"


# --- the footers of the shards ------------------------------------------------------------------------------------------


def sizes(data: DataSet) -> Faults:
    """Check the sizes that the footer of each shard states, before anything is decompressed."""
    for shard in data.shards:
        faults = _faults_of_size(data.folder / shard["path"], shard["rows"])
        yield from (f"{shard['path']}: {fault}" for fault in faults)


def _faults_of_size(path: Place, rows: int) -> Faults:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 8))
        footer, magic = int.from_bytes(file.read(4), "little"), file.read(4)
    if magic != b"PAR1" or footer > min(TEXT_BYTES, size):
        yield "is not a Parquet file" if magic != b"PAR1" else f"states a footer of {footer:,} bytes"
        return
    with parquet(path) as opened:
        found = opened.metadata
    groups = [found.row_group(i) for i in range(found.num_row_groups)]
    if found.num_rows != rows or sum(group.num_rows for group in groups) != rows:
        yield f"has {found.num_rows:,} rows, manifest.json has {rows:,}"
    if found.num_rows * ID_BYTES > size:
        yield f"decompression bomb: {found.num_rows:,} rows in {size:,} bytes, but ids alone take {ID_BYTES} bytes a row"
    if any(group.num_columns != found.num_columns for group in groups):
        yield "a row group has other columns than the file"
        return
    chunks = [group.column(k) for group in groups for k in range(group.num_columns)]
    expanded = sum(max(0, chunk.total_uncompressed_size) for chunk in chunks)
    if expanded > EXPANSION * size:
        yield f"decompression bomb: {size:,} bytes become {expanded:,}, more than {EXPANSION} times as many"
    if other := sorted({encoding for chunk in chunks for encoding in chunk.encodings} - ENCODINGS):
        yield f"decompression bomb: a column has the encoding {other[0]}, whose decoded size is unknown before decoding"


def schema(data: DataSet) -> Faults:
    """Check that each shard has the columns, types and metadata that follow from the provenance in the manifest."""
    wanted = _described(shard_schema(data.provenance))
    for shard in data.shards:
        with parquet(data.folder / shard["path"]) as opened:
            found = _described(opened.schema_arrow)
        for part in wanted:
            for key, value, right in list(_differences(found[part], wanted[part], part))[:1]:
                yield f"{shard['path']}: {key} is {value!r:.80}, but manifest.json requires {right!r:.80}"


def _described(schema: pa.Schema) -> dict[str, Any]:
    """Return what a schema and its metadata say: columns for Arrow, features for `datasets`, the provenance."""
    metadata = schema.metadata or {}
    huggingface, ours = (json.loads(metadata.get(key, b"{}")) for key in (b"huggingface", tables.METADATA_KEY))
    return {
        "column": {column.name: (column.type, "nullable" if column.nullable else "not null") for column in schema},
        "columns": schema.names,
        "features": huggingface.get("info", {}).get("features", {}),
        "provenance": ours,
    }


def _differences(found: Any, wanted: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        # The teacher first: which teacher the logits are of matters most.
        for name in sorted(found.keys() | wanted.keys(), key=lambda name: (name != "teacher", name)):
            yield from _differences(found.get(name), wanted.get(name), f"{key}.{name}")
    elif found != wanted:
        yield key, found, wanted
