"""Merging logit data sets of one task and one teacher."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import tables
from pipeline.errors import InputError
from pipeline.logits import dataset, verify, writing
from pipeline.logits.shards import has_origin, logits_of
from pipeline.logits.verify_files import value_of

TOLERANCE = 1e-3
"""The largest allowed difference between two logits of one text. Another machine or another order of sums causes smaller ones."""

SAME = """
task labels pairs text teacher.sha256 teacher.tokenizer_sha256 teacher.params teacher.fingerprint teacher.labels
labelling.max_length labelling.dtype labelling.stored
"""
"""Keys whose values must be equal: the classes, the teacher, the tokenisation, and how the logits were computed and stored."""


def merge(folders: Sequence[Path], out: Path, tolerance: float = TOLERANCE) -> dict[str, int]:
    """Merge logit data sets. All rows are in memory at once.

    A text of several data sets is kept once, with the logits of the first one. An original is preferred to an augmented row of the same text.

    :param folders: The data sets; each is verified first.
    :param out: The folder to write, which is none of the data sets.
    :param tolerance: The largest allowed difference between two logits of one text.
    :return: The rows of each split.
    :raises InputError: If a data set is damaged; if teacher, class names or tokenisation differ; if one text has two logits, two gold labels,
        or is in two splits.
    """
    if len(folders) < 2:
        raise InputError("merge needs at least two logit data sets")
    if out.resolve() in {folder.resolve() for folder in folders}:
        raise InputError(f"{out}: is one of the data sets to merge; choose another folder")
    for folder in folders:
        verify.refuse_damaged(folder)
    about = [dataset.provenance(folder) for folder in folders]
    _refuse_differences(folders, about)
    splits = {}
    for split in tables.SPLITS:
        having = (folder for folder, facts in zip(folders, about, strict=True) if split in facts["rows"])
        if parts := [dataset.read_split(folder, split) for folder in having]:
            splits[split] = _union(_alike(parts, any(map(has_origin, about))), split, tolerance)
    _refuse_leaks(splits)
    writing.write(out, splits, _provenance(about))
    return {split: rows.num_rows for split, rows in splits.items()}


def _refuse_differences(folders: Sequence[Path], about: Sequence[Mapping[str, Any]]) -> None:
    # The same weights can come from several sources; a Python class has no weights, so its import path identifies it.
    for key in SAME.split() + ([] if about[0]["teacher"].get("sha256") else ["teacher.source"]):
        values = [value_of(facts, key) for facts in about]
        for folder, value in zip(folders, values, strict=True):
            if value != values[0]:
                raise InputError(
                    f"{folder}: its {key} is {value!r}, that of {folders[0]} is {values[0]!r}; only data sets of one task and teacher can be merged"
                )


def _alike(parts: Sequence[pa.Table], origin: bool) -> list[pa.Table]:
    """Return rows of data sets with the column origin, if one of the data sets has it."""
    found = []
    for rows in parts:
        if origin and "origin" not in rows.column_names:
            names = np.where(tables.is_of(rows, tables.COPY), tables.COPY, tables.SOURCE)
            place = rows.schema.get_field_index("label") + 1
            rows = rows.add_column(place, tables.ORIGIN, pa.array(names).cast(tables.ORIGIN.type))
        found.append(rows)
    return found


def _union(parts: Sequence[pa.Table], split: str, tolerance: float) -> pa.Table:
    rows = pa.concat_tables(parts).unify_dictionaries()
    # Originals first: they have gold labels, and they are the parents. Unlabelled text, which can be a parent, is next.
    order = 2 * tables.is_of(rows, tables.COPY) + tables.is_of(rows, tables.POOL)
    rows = rows.take(pa.array(np.argsort(order, kind="stable")))
    codes = rows["id"].combine_chunks().dictionary_encode().indices.to_numpy()
    texts, first = np.unique(codes, return_index=True)
    values = logits_of(rows)
    apart = np.abs(values - values[first][codes]).max(axis=1, initial=0)
    if (apart > tolerance).any():
        row = int(apart.argmax())
        raise InputError(
            f"{split}: {(apart > tolerance).sum()} texts have two logits, more than {tolerance} apart; for example {rows['id'][row].as_py()}: "
            f"{values[first[codes[row]]].tolist()} and {values[row].tolist()}"
        )
    labels = pc.fill_null(rows["label"], pa.scalar(0, rows["label"].type)).to_numpy()
    known = np.flatnonzero(pc.is_valid(rows["label"]).to_numpy())
    gold, unknown = np.zeros(len(texts), labels.dtype), np.ones(len(texts), np.bool_)
    gold[codes[known[::-1]]] = labels[known[::-1]]  # the first known label
    unknown[codes[known]] = False
    if (other := known[labels[known] != gold[codes[known]]]).size:
        raise InputError(
            f"{split}: {len(other)} texts have two gold labels, for example {rows['id'][int(other[0])].as_py()}"
        )
    column = pa.array(gold[codes], mask=unknown[codes])
    rows = rows.set_column(rows.schema.get_field_index("label"), rows.schema.field("label"), column)
    return rows.take(pa.array(np.sort(first)))


def _refuse_leaks(splits: Mapping[str, pa.Table]) -> None:
    for split, later in combinations(splits, 2):
        both = splits[split]["id"].filter(pc.is_in(splits[split]["id"], value_set=splits[later]["id"]))
        if len(both):
            raise InputError(
                f"{len(both)} texts are {split} texts of one data set and {later} texts of another, for example {both[0].as_py()}"
            )


def _provenance(about: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the provenance of the first data set, with the source, rules and rows of each part under `merged`."""
    parts: list[Any] = []
    for facts in about:
        keys = ("source", "augmentation", "unlabelled", "labelling", "rows")
        parts += facts.get("merged", [{key: facts[key] for key in keys if key in facts}])
    more = [facts["unlabelled"] for facts in about if has_origin(facts)]
    unlabelled = {"unlabelled": {**more[0], "licence": _licences(more)}} if more else {}
    return {
        **about[0],
        **unlabelled,
        "source": {**about[0]["source"], "licence": _licences([facts["source"] for facts in about])},
        "augmentation": {key: value for key, value in about[0]["augmentation"].items() if key != "summary"},
        "merged": parts,
    }


def _licences(sources: Sequence[Mapping[str, Any]]) -> str:
    return " and ".join(dict.fromkeys(str(source["licence"]) for source in sources))
