"""A small valid logit data set, and a careless tool that rewrites parts of it together with their hashes."""

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage, tables
from pipeline.logits import writing

LABELS = ["negative", "positive"]
ORIGINALS = {
    "train": [
        ("a good film about a long war", 1),
        ("the plot is dull and the end is worse", 0),
        ("warm , fine and | *odd*", 1),
        ("nothing here <b>works</b>", 0),
    ],
    "validation": [("a lovely film", 1), ("a bad film", 0), ("a stale plot", 0), ("what is it", None)],
    "test": [("a fine plot", 1), ("a cold war", 0)],
}
COPIES = [  # parent, copy, text, lineage
    (0, 0, "a [MASK] film about a short war", {"masked1": 1, "replaced1": 1}),
    (0, 3, "film about a long", {"ngram_start1": 2, "ngram_size1": 4}),
    (1, 0, "the plot is dull and the war is worse", {"replaced1": 1}),
    (1, 2, "is the plot dull and the end worse", {"edited1": 3}),
    (2, 1, "[MASK] , fine and | *odd*", {"masked1": 1}),
]
RULES = {
    "ngram": {"rule": "pipeline.augment.rules:KeepNgram", "p_ng": 0.25},
    "words": {"rule": "pipeline.augment.rules:MaskOrReplace", "p_mask": 0.1, "p_pos": 0.1},
}
PROVENANCE: dict[str, Any] = {
    "task": "films",
    "labels": LABELS,
    "pairs": False,
    "text": "pretokenised",
    "source": {"package": "films", "licence": "cc-by-4.0"},
    "augmentation": {
        "seed": 0,
        "n_iter": 4,
        "rules": RULES,
        "tagger": "spacy:tiny",
        "summary": {
            "drawn": 16,
            "kept": 5,
            "duplicates": 4,
            "leaks": 1,
            "unchanged": 6,
            "rates": {"masked": {"asked": 0.1, "found": 0.0987}},
            "kept per example by words": {"3-5": 1.0, "6-8": 1.67},
        },
    },
    "teacher": {
        "name": "large",
        "source": "hub:owner/large@abc",
        "revision": "abc",
        "sha256": "53aa" * 16,
        "tokenizer_sha256": "77bb" * 16,
        "licence": "apache-2.0",
        "architecture": "BertForSequenceClassification",
        "labels": {"negative": "LABEL_0", "positive": "LABEL_1"},
        "parameters": 335_000_000,
        "bytes": 1_340_000_000,
        "finetuned": False,
    },
    "versions": {"torch": "2.13.0"},
    "labelling": {
        "max_length": 128,
        "dtype": "float32",
        "stored": "float32",
        "device": "cpu",
        "fingerprint": "0f" * 16,
    },
}


def rows(split: str, seed: int = 0, copies: list = COPIES) -> pa.Table:
    """Return the rows of a split; the logits of a text depend on the text alone."""
    texts = [text for text, _ in ORIGINALS[split]]
    found: dict[str, list] = {"sentence1": list(texts), "label": [label for _, label in ORIGINALS[split]]}
    ids = tables.content_ids(texts)
    lineage: list[dict] = [{} for _ in texts]
    for parent, number, text, done in copies if split == "train" else ():
        found["sentence1"].append(text)
        found["label"].append(None)
        none = {"masked1": 0, "replaced1": 0, "edited1": 0}
        lineage.append({"parent_id": ids[parent], "copy": number, "side": "first", **none, **done})
    found["id"] = tables.content_ids(found["sentence1"])
    found["logits"] = [logits_of(text, seed) for text in found["sentence1"]]
    n = len(found["id"])
    columns = [
        found.get(field.name, [row.get(field.name) for row in lineage] if field.name != "sentence2" else [None] * n)
        for field in tables.logits_schema(2)
    ]
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, tables.logits_schema(2), strict=True)],
        schema=tables.logits_schema(2),
    )


def logits_of(text: str, seed: int = 0) -> list[float]:
    number = int(hashlib.sha256(f"{seed} {text}".encode()).hexdigest()[:8], 16)
    sure = float(np.float32(number / 2**32 * 3))
    return [-sure, sure] if any(word in text for word in ("good", "lovely", "fine", "warm")) else [sure, -sure]


def write(folder: Path, provenance: dict[str, Any] | None = None, **splits: pa.Table) -> Path:
    """Write the data set, with other rows for the splits that are given."""
    writing.write(folder, {split: splits.get(split, rows(split)) for split in tables.SPLITS}, provenance or PROVENANCE)
    return folder


def changed(**changes: Any) -> dict[str, Any]:
    """Return the provenance with some values changed: teacher__sha256="..."."""
    found = copy.deepcopy(PROVENANCE)
    for key, value in changes.items():
        *parts, last = key.split("__")
        inner = found
        for part in parts:
            inner = inner[part]
        if value is None:
            del inner[last]
        else:
            inner[last] = value
    return found


def manifest_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def shard_of(folder: Path, split: str = "train") -> Path:
    return next((folder / "data").glob(f"{split}-*.parquet"))


def with_manifest(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest."""
    manifest = manifest_of(folder)
    change(manifest)
    storage.write_json(folder / "manifest.json", manifest)


def carelessly(folder: Path, change: Callable[[pa.Table], pa.Table], split: str = "train", **writing: Any) -> None:
    """Rewrite a shard, its name and its sha256, also in the manifest and the card."""
    path = shard_of(folder, split)
    table = change(pq.read_table(path))
    path.unlink()
    pq.write_table(table, path, **{"compression": "zstd", **writing})
    renamed(folder, path)


def renamed(folder: Path, path: Path) -> None:
    """Give a rewritten shard the name and the entry that match its bytes."""
    split = path.name.partition("-")[0]
    sha256 = storage.sha256_of(path)
    new = path.rename(path.with_name(f"{split}-{sha256[:16]}.parquet"))
    manifest = manifest_of(folder)
    for shard in manifest["shards"]:
        if shard["split"] == split:
            shard["path"], shard["sha256"] = f"data/{new.name}", sha256
    storage.write_json(folder / "manifest.json", manifest)
    text = (folder / "README.md").read_text(encoding="utf-8")
    storage.write_text(folder / "README.md", text.replace(path.name, new.name))


def column(table: pa.Table, name: str, values: Any) -> pa.Table:
    """Return a table with other values in a column."""
    field = table.schema.field(name)
    return table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
