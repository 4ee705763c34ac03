"""Is a logit data set what it says it is? Everything that can be recomputed is; nothing from its folder is executed.

`verify` does so in a process of its own, `check` in this one. Checks are made in steps. What is cheap, and what makes the next step safe, comes first: the manifest, the paths in it, the files and their bytes,
what each file says of its own size. Rows are read only where all of that holds, a part at a time. What a Parquet file says of its size is
believed, as far as it is within the limits below.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipeline import tables
from pipeline.errors import InputError
from pipeline.logits import card, dataset
from pipeline.logits.shards import stored_as
from pipeline.logits.verify_rows import Faults, check_rows
from pipeline.storage import sha256_of

OK, FAILED, SKIPPED = "ok", "FAILED", "not checked"

SHOWN = 3
"""Faults of a kind that are named before it is said how many more there are."""

TEXT_BYTES = 64 << 20
"""Of the manifest, of the card, of a shard's footer, at the most."""

ID_BYTES = 16
"""What an id takes at least, however it is compressed: it is as good as random, and has 128 bits."""

EXPANSION = 100
"""How many times its size a shard may become when it is decompressed; honest ones become 2 to 10 times theirs."""

ENCODINGS = frozenset(
    {"PLAIN", "RLE", "BIT_PACKED", "PLAIN_DICTIONARY", "RLE_DICTIONARY", "DELTA_LENGTH_BYTE_ARRAY", "BYTE_STREAM_SPLIT"}
)
"""Those of which the size can be known before they are decoded. Not DELTA_BYTE_ARRAY: a kilobyte of it can be a gigabyte."""

SHARD_PATH = re.compile(rf"data/({'|'.join(tables.SPLITS)})-[0-9a-f]{{16}}\.parquet")

NEEDED = (
    *("task", "labels", "pairs", "text", "source.licence", "teacher.name", "teacher.source", "teacher.licence"),
    *("teacher.labels", "labelling.fingerprint", "labelling.stored", "augmentation.n_iter", "augmentation.rules"),
    *("augmentation.seed", "versions", "rows"),
)
"""What the provenance must say."""

Fault = Iterator[str]


class Check(NamedTuple):
    """What a check found: its name, OK, FAILED or SKIPPED, and what there is to say."""

    name: str
    outcome: str
    detail: str


@dataclass(frozen=True)
class _DataSet:
    folder: Path
    manifest: Mapping[str, Any]

    @property
    def shards(self) -> list[dict[str, Any]]:
        return list(self.manifest["shards"])

    @property
    def provenance(self) -> Mapping[str, Any]:
        return dict(self.manifest["provenance"])

    def path(self, shard: Mapping[str, Any]) -> Path:
        return self.folder / str(shard["path"])


def verify(folder: Path) -> list[Check]:
    """Check a logit data set in a process of its own, since a corrupt Parquet file can end the process that reads it.

    :param folder: As for `check`.
    :return: What `check` found. Where its process ended, what can be said without opening a shard, and that.
    :raises InputError: As `check`.
    """
    _need_xxhash()
    here = str(Path(__file__).parents[2])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]).strip(os.pathsep),
    }
    command = [sys.executable, "-P", "-m", "pipeline.logits.verify", str(folder.resolve())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return [Check(*found) for found in json.loads(done.stdout)]
    ended = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    fault = f"a shard is so corrupt that reading it ends the process ({ended})"
    return check(folder, lambda _: iter([fault]))


def _need_xxhash() -> None:
    if find_spec("xxhash") is None:
        raise InputError("verify recomputes ids with the Python package xxhash: pip install 'offline-distill[text]'")


def check(folder: Path, sizes: Callable[[_DataSet], Fault] | None = None) -> list[Check]:
    """Check a logit data set in this process.

    :param folder: Its folder. Links in it are followed (the Hub's cache and DVC's are made of them); what they lead to is checked as a file is.
    :param sizes: What to do instead of opening the shards to see what they say of their size.
    :return: What each check found, in order. Where a step of them finds a fault, the steps after it are not made.
    :raises InputError: If xxhash, which ids are made with, is not installed.
    """
    _need_xxhash()
    data: dict[str, _DataSet] = {}

    def manifest() -> Fault:
        found = _read_manifest(folder)
        yield from _faults_of_manifest(found)
        data["set"] = _DataSet(folder, found)

    def on(faults: Callable[[_DataSet], Fault]) -> Callable[[], Fault]:
        return lambda: faults(data["set"])

    steps: list[dict[str, Callable[[], Fault]]] = [
        {"manifest": manifest},
        {"paths": on(_paths), "row counts": on(_row_counts)},
        {"files": on(_files)},
        {"sha256": on(_sha256), "card": on(_card)},
        {"size": on(sizes or _sizes)},
        {
            "schema": on(_schemas),
            "class names": on(_class_names),
            "provenance": on(_provenance),
            "one provenance": on(_one_provenance),
        },
    ]
    checks: list[Check] = []
    for step in steps:
        stopped = any(check.outcome != OK for check in checks)
        checks += [Check(name, SKIPPED, "") if stopped else _made(name, faults) for name, faults in step.items()]
    stopped = any(check.outcome != OK for check in checks)
    return checks + (_of_rows(None) if stopped else _of_rows(data["set"]))


def is_whole(checks: Sequence[Check]) -> bool:
    """Return whether every check was made and found nothing."""
    return all(check.outcome == OK for check in checks)


def refuse_damaged(folder: Path) -> None:
    """Refuse a data set that does not pass.

    :param folder: Its folder.
    :raises InputError: If a check finds something; the message says what.
    """
    faults = [f"{check.name}: {check.detail}" for check in verify(folder) if check.outcome == FAILED]
    if faults:
        raise InputError(f"{folder}: does not pass `python -m pipeline verify`: {'; '.join(faults)}")


def listed(checks: Sequence[Check]) -> str:
    """Lay out what the checks found, a line each."""
    width = max(len(check.name) for check in checks)
    lines = (f"{check.name:{width}}  {check.outcome:{len(SKIPPED)}}  {check.detail}".rstrip() for check in checks)
    return "\n".join(lines)


def _made(name: str, faults: Callable[[], Fault]) -> Check:
    try:
        return _outcome(name, list(faults()))
    except (InputError, OSError, ValueError, KeyError, TypeError, RecursionError, pa.ArrowException) as error:
        # What is damaged can fail anywhere in the libraries that read it.
        return Check(name, FAILED, f"cannot be read: {type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _outcome(name: str, faults: Sequence[str]) -> Check:
    if not faults:
        return Check(name, OK, "")
    more = f"; and {len(faults) - SHOWN:,} more" if len(faults) > SHOWN else ""
    return Check(name, FAILED, "; ".join(faults[:SHOWN]) + more)


def _of_rows(data: _DataSet | None) -> list[Check]:
    if data is None:
        return [Check(name, SKIPPED, "") for name in Faults.NAMES]
    found = Faults()
    try:
        labels, pairs = data.provenance["labels"], data.provenance["pairs"]
        check_rows([(data.path(shard), shard) for shard in data.shards], len(labels), pairs, found)
    except (InputError, OSError, ValueError, pa.ArrowException) as error:
        return [
            Check("rows", FAILED, f"cannot be read: {type(error).__name__}: {' '.join(str(error).split())[:300]}"),
            *(Check(name, SKIPPED, "") for name in Faults.NAMES),
        ]
    return [
        Check(name, OK, "") if not count else Check(name, FAILED, found.told(name))
        for name, count in found.counts.items()
    ]


# --- the manifest and the files -----------------------------------------------------------------------------------------


def _read_manifest(folder: Path) -> Any:
    path = folder / "manifest.json"
    if not path.is_file():
        raise InputError(f"{path}: no such file, so this is no logit data set")
    if path.stat().st_size > TEXT_BYTES:
        raise InputError(f"{path}: has {path.stat().st_size:,} bytes, more than the {TEXT_BYTES:,} allowed")

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def _faults_of_manifest(manifest: Any) -> Fault:
    if not isinstance(manifest, dict) or manifest.get("format") != dataset.FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        yield f"format {found!r}; this version reads format {dataset.FORMAT}"
        return
    about, shards = manifest.get("provenance"), manifest.get("shards")
    if not isinstance(about, dict) or not isinstance(shards, list):
        yield "needs a mapping `provenance` and a list `shards`"
        return
    yield from _faults_of_facts(about)
    kinds = {"path": str, "split": str, "rows": int, "sha256": str, "rows_digest": str}
    for number, shard in enumerate(shards):
        wrong = [k for k, kind in kinds.items() if not isinstance(shard, dict) or type(shard.get(k)) is not kind]
        if wrong:
            yield f"shards[{number}]: {wrong[0]} is missing or of a wrong type"
        elif shard["rows"] < 1 or shard["split"] not in tables.SPLITS:
            yield f"shards[{number}]: {shard['rows']} rows of split {shard['split']!r}"


def _faults_of_facts(about: Mapping[str, Any]) -> Fault:
    labels, rows = about.get("labels"), about.get("rows")
    if not isinstance(labels, list) or not labels or not all(isinstance(name, str) for name in labels):
        yield "provenance.labels: must be a list of class names"
    elif len(set(labels)) != len(labels):
        yield f"provenance.labels: a class name stands there twice: {labels}"
    if not isinstance(rows, dict) or not all(k in tables.SPLITS and type(n) is int for k, n in rows.items()):
        yield f"provenance.rows: must tell the rows of splits {', '.join(tables.SPLITS)}"
    if type(about.get("pairs")) is not bool:
        yield "provenance.pairs: must be true or false"
    if stored_as(about) not in ("float32", "float16"):
        yield f"provenance.labelling.stored: {stored_as(about)!r}: must be float32 or float16"


def _paths(data: _DataSet) -> Fault:
    seen = set()
    for shard in data.shards:
        path = shard["path"]
        matched = SHARD_PATH.fullmatch(path)
        if path.startswith("/") or ".." in Path(path).parts or "\\" in path or ":" in path:
            yield f"{path!r} leaves the folder"
        elif matched is None:
            yield f"{path!r} is no name of a shard (data/SPLIT-16 hex digits.parquet)"
        elif matched[1] != shard["split"]:
            yield f"{path}: is said to be of the split {shard['split']}"
        elif path in seen:
            yield f"{path}: is named twice"
        seen.add(path)


def _row_counts(data: _DataSet) -> Fault:
    told = data.provenance["rows"]
    for split in tables.SPLITS:
        rows = sum(shard["rows"] for shard in data.shards if shard["split"] == split)
        if rows != told.get(split, 0):
            yield f"{split}: its shards have {rows:,} rows, the provenance tells of {told.get(split, 0):,}"


def _files(data: _DataSet) -> Fault:
    named = {shard["path"] for shard in data.shards}
    for name in sorted(named):
        if not (data.folder / name).is_file():
            yield f"{name}: is missing"
    for path in sorted((data.folder / "data").iterdir()) if (data.folder / "data").is_dir() else ():
        if f"data/{path.name}" not in named:
            yield f"data/{path.name}: is not in manifest.json"
    for path in sorted(data.folder.iterdir()):
        if path.name not in ("README.md", "manifest.json", "data") and not path.name.startswith("."):
            yield f"{path.name}: is no part of a logit data set"


def _sha256(data: _DataSet) -> Fault:
    for shard in data.shards:
        found = sha256_of(data.path(shard))
        if found != shard["sha256"]:
            yield f"{shard['path']}: its sha256 is {found[:16]}..., manifest.json says {shard['sha256'][:16]}..."
        elif not shard["path"].endswith(f"-{found[:16]}.parquet"):
            yield f"{shard['path']}: is not named by its sha256, {found[:16]}..."


def _card(data: _DataSet) -> Fault:
    path = data.folder / "README.md"
    if not path.is_file():
        yield "README.md: is missing"
        return
    if path.stat().st_size > TEXT_BYTES:
        yield f"README.md: has {path.stat().st_size:,} bytes, more than the {TEXT_BYTES:,} allowed"
        return
    head = path.read_text(encoding="utf-8").split("---\n", 2)
    front = yaml.safe_load(head[1]) if len(head) == 3 and not head[0] else None
    if not isinstance(front, dict):
        yield "README.md: has no YAML head"
        return
    for key, value in card.front_matter(data.provenance, data.shards).items():
        if key in ("license", "license_name", "teacher_license", "configs") and front.get(key) != value:
            yield f"README.md: {key} is not what follows from manifest.json"
    if "dataset_info" in front:
        yield "README.md: dataset_info overrides what the shards say of their columns and classes"


# --- what the shards say of themselves ----------------------------------------------------------------------------------


def _sizes(data: _DataSet) -> Fault:
    for shard in data.shards:
        path = data.path(shard)
        yield from (f"{shard['path']}: {fault}" for fault in _faults_of_size(path, shard["rows"]))


def _faults_of_size(path: Path, rows: int) -> Fault:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 8))
        footer, magic = int.from_bytes(file.read(4), "little"), file.read(4)
    if magic != b"PAR1" or footer > min(TEXT_BYTES, size):
        yield "is no Parquet file" if magic != b"PAR1" else f"its footer is said to have {footer:,} bytes"
        return
    found = pq.read_metadata(path)
    groups = [found.row_group(i) for i in range(found.num_row_groups)]
    if found.num_rows != rows or sum(group.num_rows for group in groups) != rows:
        yield f"has {found.num_rows:,} rows, manifest.json says {rows:,}"
    if found.num_rows * ID_BYTES > size:
        yield f"decompression bomb: {found.num_rows:,} rows in {size:,} bytes, of which ids alone take {ID_BYTES} a row"
    if any(group.num_columns != found.num_columns for group in groups):
        yield "a row group has other columns than the file"
        return
    chunks = [group.column(k) for group in groups for k in range(group.num_columns)]
    expanded = sum(max(0, chunk.total_uncompressed_size) for chunk in chunks)
    if expanded > EXPANSION * size:
        yield f"decompression bomb: {size:,} bytes that become {expanded:,}, more than {EXPANSION} times as many"
    if other := sorted({encoding for chunk in chunks for encoding in chunk.encodings} - ENCODINGS):
        yield f"decompression bomb: the size of columns in the encoding {other[0]} cannot be known before they are read"


def _schemas(data: _DataSet) -> Fault:
    wanted = dataset.stored_schema(data.folder)
    for shard in data.shards:
        found = pq.read_schema(data.path(shard))
        if found.names != wanted.names:
            other = sorted(set(found.names) ^ set(wanted.names)) or found.names
            yield f"{shard['path']}: its columns are not those of a logit data set: {', '.join(other)}"
            continue
        for have, want in zip(found, wanted, strict=True):
            if have.type != want.type or have.nullable != want.nullable:
                yield f"{shard['path']}: the column {have.name} is {have.type}{_nulls(have)}, not {want.type}{_nulls(want)}"


def _nulls(column: pa.Field) -> str:
    return " with nulls" if column.nullable else " without nulls"


def _class_names(data: _DataSet) -> Fault:
    labels = data.provenance["labels"]
    for shard in data.shards:
        metadata = pq.read_schema(data.path(shard)).metadata or {}
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        label = features.get("label", {})
        if len(labels) == 1 and label != {"dtype": "float32", "_type": "Value"}:
            yield f"{shard['path']}: its label is {label}, not the float32 of a regression"
        found = label.get("names")
        if len(labels) > 1 and found != labels:
            yield f"{shard['path']}: its class names are {found}, manifest.json says {labels}"
    theirs = data.provenance.get("teacher", {}).get("labels", {})
    if set(theirs) != set(labels):
        yield f"the teacher's classes are {sorted(theirs)}, those of the data set {labels}"


def _provenance(data: _DataSet) -> Fault:
    for key in NEEDED:
        value: Any = data.provenance
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None:
            yield f"{key} is missing"
    teacher = data.provenance.get("teacher", {})
    for member in teacher.get("members", [teacher]):  # an average names those that it is of
        if not member.get("sha256") and not str(member.get("source")).startswith("python:"):
            yield "teacher.sha256 is missing"  # a class of one's own has none: its path and its parameters tell which it is


def _one_provenance(data: _DataSet) -> Fault:
    for shard in data.shards:
        found = tables.metadata_of(data.path(shard))
        if found != data.provenance:
            key, theirs, ours = next(_differences(found, data.provenance))
            yield f"{shard['path']}: is of another data set: {key} is {theirs!r:.80}, manifest.json says {ours!r:.80}"


def _differences(found: Any, wanted: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        # The teacher first: whose logits these are is what matters most.
        for name in sorted(found.keys() | wanted.keys(), key=lambda name: (name != "teacher", name)):
            yield from _differences(found.get(name), wanted.get(name), f"{key}.{name}" if key else name)
    elif found != wanted:
        yield key, found, wanted


if __name__ == "__main__":
    sys.stdout.write(json.dumps(check(Path(sys.argv[1]))))
