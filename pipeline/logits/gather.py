"""The targets of a student: the logit data set of its teacher, or the average of several teachers' data sets, joined on id."""

import hashlib
import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import tables
from pipeline.errors import InputError
from pipeline.logits import choice, dataset, writing
from pipeline.logits.shards import Stream, has_origin, logits_of, with_logits
from pipeline.metrics.calibration import softmax
from pipeline.storage import new_folder

logger = logging.getLogger(__name__)

Average = Literal["logits", "distributions"]

NO_IDS = pa.array([], pa.string())
KEYS = {tables.COPY: "augmentation", tables.POOL: "unlabelled"}
"""By origin: the key of the provenance that describes its rows."""

NO_AUGMENTATION = {"seed": 0, "n_iter": 0, "rules": {}}
"""The provenance of targets without augmented rows, whatever the seed of the rows that were left out."""


@dataclass(frozen=True)
class _Chosen:
    """The rows of a split to write."""

    without: pa.Array
    copies: bool

    def of(self, rows: pa.Table) -> pa.Table:
        return choice.chosen(rows, self.without, self.copies)


def gather(
    folders: Mapping[Path, float],
    out: Path,
    average: Average = "logits",
    origins: Collection[str] = tables.ORIGINS,
    min_confidence: float = 0.0,
) -> None:
    """Write the logit data set that a student learns from. The same data sets and settings give the same bytes.

    All rows of one teacher are copied byte for byte, so DVC stores them once for all students of that teacher. Several teachers are
    averaged: the rows of the first one get the average logits in float32, and the provenance lists the teachers.

    :param folders: The teachers' data sets, at least one, each with its weight. Weights count relative to their sum.
    :param out: The folder to write. It replaces an existing one only after it is complete.
    :param average: logits: z = sum of w_i z_i. distributions: z = log(sum of w_i softmax(z_i)), so that softmax(z) is the mean of the
        distributions.
    :param origins: The origins of the training rows to write, as in `tables.ORIGINS`. What is left out is not in the provenance either: without
        augmented rows the bytes do not depend on how copies were drawn, without unlabelled rows not on the unlabelled text.
    :param min_confidence: As in `choice.left_out`.
    :raises InputError: As `dataset.read_split`; or if one data set has a row that another lacks, or two differ in their classes, in how text
        is split into words, or in whether texts are pairs.
    """
    first, *others = folders
    with new_folder(out) as temporary:
        about = _average_provenance(folders, average) if others else dataset.provenance(first)
        there = tables.ORIGINS if has_origin(about) else (tables.SOURCE, tables.COPY)
        confident = min_confidence if has_origin(about) and tables.POOL in origins else 0.0
        if set(there) <= set(origins) and not confident:
            if not others:
                dataset.copy(first, temporary)
                return
            chosen = dict.fromkeys(about["rows"], _Chosen(NO_IDS, True))
        else:
            chosen = {split: _choose(folders, split, average, origins, confident) for split in about["rows"]}
        about = _without(about, set(there) - set(origins))
        rows = {split: len(_ids(first, split, chosen[split])) for split in about["rows"]}
        splits = {
            split: Stream(n, _rows(folders, split, average, chosen[split], has_origin(about)))
            for split, n in rows.items()
        }
        writing.write(temporary, splits, about)


def _choose(
    folders: Mapping[Path, float], split: str, average: Average, origins: Collection[str], min_confidence: float
) -> _Chosen:
    """Return the rows of a split to write, and log what the confidence leaves out. Rows of the source for evaluation always stay."""
    first = next(iter(folders))
    if split != tables.SPLITS[0]:
        return _Chosen(NO_IDS, tables.COPY in origins)
    rows = dataset.read_split(first, split, dataset.columns_of(dataset.provenance(first), ("id", "parent_id")))
    without = choice.left_out(rows, origins)
    if min_confidence:
        everything = _Chosen(NO_IDS, True)
        parts = (
            choice.left_out(part, origins, min_confidence) for part in _rows(folders, split, average, everything, True)
        )
        unsure = pa.concat_arrays([NO_IDS, *parts])
        logger.info(
            "left out %s of %s unlabelled rows, on which the teacher's confidence is below %g",
            *(f"{n:,}" for n in (len(unsure) - len(without), tables.is_of(rows, tables.POOL).sum())),
            min_confidence,
        )
        without = unsure
    return _Chosen(without, tables.COPY in origins)


def _common_provenance(folders: Sequence[Path]) -> dict[str, Any]:
    """Return the provenance of the first data set, after a check that all have the same classes, split of text into words, and pairs or not."""
    first = dataset.provenance(folders[0])
    for folder, key in product(folders[1:], ("labels", "text", "pairs")):
        found, wanted = dataset.provenance(folder)[key], first[key]
        if found != wanted and not (key == "labels" and sorted(found) == sorted(wanted)):
            raise InputError(
                f"{folder}: {key} is {found!r}, but {wanted!r} in {folders[0]}; only teachers of the same {key} can be averaged"
            )
    return first


def _ids(folder: Path, split: str, chosen: _Chosen) -> pa.Array:
    return chosen.of(dataset.read_split(folder, split, ("id", "parent_id")))["id"].combine_chunks()


def _rows(
    folders: Mapping[Path, float], split: str, average: Average, chosen: _Chosen, origin: bool
) -> Iterator[pa.Table]:
    """Yield the first data set's rows with average logits, a batch at a time. Of the other ones, only ids and logits are in memory.

    :param origin: Whether the rows keep the column origin.
    """
    (first, weight), *others = folders.items()
    labels, total = _common_provenance(list(folders))["labels"], sum(folders.values())
    ids = _ids(first, split, chosen) if others else NO_IDS
    terms = softmax if average == "distributions" else np.float64  # what is averaged
    rest = np.zeros((len(ids), len(labels)))
    for folder, share in others:
        rest += share / total * terms(_matched(folder, split, ids, labels, first, chosen))
    start = 0
    for part in dataset.stream_split(first, split):
        part = chosen.of(part)
        if not origin and "origin" in part.column_names:
            part = part.drop_columns("origin")
        if others:
            end = start + part.num_rows
            mean = weight / total * terms(logits_of(part)) + rest[start:end]
            found = mean if average == "logits" else np.log(np.maximum(mean, np.finfo(np.float32).tiny))
            part, start = with_logits(part, found.astype(np.float32)), end
        yield part


def _matched(
    folder: Path, split: str, ids: pa.Array, labels: Sequence[str], first: Path, chosen: _Chosen
) -> npt.NDArray[np.float32]:
    """Return a data set's logits, [n, C], in the order of the first one's rows and classes."""
    rows = chosen.of(dataset.read_split(folder, split, ("id", "parent_id", "logits")))
    places = pc.index_in(ids, value_set=rows["id"].combine_chunks())
    back = pc.index_in(rows["id"], value_set=ids)
    if places.null_count or back.null_count:
        raise InputError(
            f"{folder}: its {split} split lacks {places.null_count} of the {len(ids)} rows of {first}, which lacks "
            f"{back.null_count} of its {rows.num_rows}; label both from the same augmented rows"
        )
    names = dataset.provenance(folder)["labels"]
    values = logits_of(rows)[:, [names.index(name) for name in labels]]
    found: npt.NDArray[np.float32] = values[places.to_numpy()]
    return found


def _without(about: Mapping[str, Any], origins: Collection[str]) -> dict[str, Any]:
    """Return a provenance without that of rows of some origins."""
    if not origins:
        return dict(about)
    gone = {key for origin, key in KEYS.items() if origin in origins}
    found = {key: value for key, value in about.items() if key not in gone - {"augmentation"}}
    if tables.COPY in origins:
        found["augmentation"] = NO_AUGMENTATION
    if "merged" in about:
        found["merged"] = [{k: part[k] for k in part if k not in {*gone, "rows"}} for part in about["merged"]]
    return found


def _average_provenance(folders: Mapping[Path, float], average: Average) -> dict[str, Any]:
    """Return the provenance of an average: that of the first data set, with a teacher that lists all of them."""
    found = _common_provenance(list(folders))
    members = []
    for folder, weight in folders.items():
        about = dataset.provenance(folder)
        members.append({"weight": weight, **about.get("teacher", {}), "labelling": about.get("labelling", {})})
    names = {folder.name: weight for folder, weight in folders.items()}
    labellings = [dict(member["labelling"]) for member in members]
    return found | {
        "teacher": {
            "name": _name_of(names, average),
            "source": f"the average of the {average} of {len(members)} teachers",
            "fingerprint": _digest([[average, *members]]),
            **{key: _each(members, key) for key in ("licence", "architecture")},
            "labels": {name: name for name in found["labels"]},
            **{key: _sum(members, key) for key in ("parameters", "bytes")},
            "finetuned": any(member.get("finetuned") for member in members),
            "average": average,
            "members": members,
        },
        "labelling": {
            **{key: _same(labellings, key) for key in ("max_length", "dtype")},
            "stored": "float32",
            "fingerprint": _digest(labellings),
        },
    }


def _name_of(weights: Mapping[str, float], average: Average) -> str:
    """Return the name of an average: `base + large`, or with weights that differ `1 base + 3 large (distributions)`."""
    differ = len(set(weights.values())) > 1
    names = " + ".join(f"{weight:g} {name}" if differ else name for name, weight in weights.items())
    return names if average == "logits" else f"{names} ({average})"


def _each(members: Sequence[Mapping[str, Any]], key: str) -> str:
    return " and ".join(dict.fromkeys(str(member[key]) for member in members if member.get(key))) or "unknown"


def _sum(members: Sequence[Mapping[str, Any]], key: str) -> int | None:
    values: list[Any] = [member.get(key) for member in members]
    return None if None in values else sum(values)


def _same(members: Sequence[Mapping[str, Any]], key: str) -> Any:
    """Return the value of a key if all members have the same; else None."""
    value = members[0].get(key)
    return value if all(member.get(key) == value for member in members) else None


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
