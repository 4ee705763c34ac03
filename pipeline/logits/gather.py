"""What a student learns from: its teacher's logit data set, or those of several teachers as one, joined on id and averaged."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError
from pipeline.logits import dataset, writing
from pipeline.logits.shards import Stream, logits_of
from pipeline.metrics.calibration import softmax
from pipeline.storage import new_folder

Average = Literal["logits", "distributions"]
Doubles = npt.NDArray[np.float64]


def gather(folders: Mapping[Path, float], out: Path, average: Average = "logits") -> None:
    """Write the logit data set that a student learns from. The same data sets, weights and average give the same bytes.

    Of one teacher it is that teacher's, byte for byte, so that however many students have it, DVC stores it once. Of several it has the
    rows of the first with the averaged logits, in float32; its provenance says what is averaged.

    :param folders: The teachers' data sets, at least one, each with its weight; weights count relative to their sum.
    :param out: The folder to write; it appears whole or not at all, and replaces what was there.
    :param average: logits: z = sum of w_i z_i. distributions: z = log(sum of w_i softmax(z_i)), so that softmax(z) is the mean of the
        distributions.
    :raises InputError: If one has a row that another lacks; see also `provenance` and `dataset.read_split`.
    """
    first, *others = folders
    with new_folder(out) as temporary:
        if not others:
            dataset.copy(first, temporary)
            return
        about = _provenance(folders, average)
        splits = {split: Stream(n, _averaged(folders, split, average)) for split, n in about["rows"].items()}
        writing.write(temporary, splits, about)


def provenance(folders: Sequence[Path]) -> dict[str, Any]:
    """Return where the data sets come from: what the first one says, after a check that the others are of the same task.

    :param folders: The data sets, at least one.
    :raises InputError: If one is missing, or two differ in their classes, in how text becomes words, or in whether texts are pairs.
    """
    first, *others = ((folder, dataset.provenance(folder)) for folder in folders)
    for folder, about in others:
        if sorted(about["labels"]) != sorted(first[1]["labels"]):
            raise InputError(
                f"{folder}: its classes are {about['labels']}, those of {first[0]} are {first[1]['labels']}; "
                "teachers of other classes cannot be averaged"
            )
        for key in ("text", "pairs"):
            if about[key] != first[1][key]:
                raise InputError(f"{folder}: {key} is {about[key]!r}, that of {first[0]} is {first[1][key]!r}")
    return first[1]


# --- the rows -----------------------------------------------------------------------------------------------------------


def _averaged(folders: Mapping[Path, float], split: str, average: Average) -> Iterator[pa.Table]:
    """Yield the first data set's rows, a part at a time, with averaged logits; of the others only ids and logits are in memory."""
    (first, weight), *others = folders.items()
    labels, total = provenance(list(folders))["labels"], sum(folders.values())
    ids = dataset.read_split(first, split, ("id",))["id"].combine_chunks()
    terms = softmax if average == "distributions" else np.float64  # what is averaged
    rest = np.zeros((len(ids), len(labels)))
    for folder, theirs in others:
        rest += theirs / total * terms(_matched(folder, split, ids, labels, first))
    start = 0
    for part in dataset.stream_split(first, split):
        end = start + part.num_rows
        mean = weight / total * terms(logits_of(part)) + rest[start:end]
        found = mean if average == "logits" else np.log(np.maximum(mean, np.finfo(np.float32).tiny))
        column = pa.FixedSizeListArray.from_arrays(pa.array(found.astype(np.float32).ravel()), len(labels))
        place = part.schema.get_field_index("logits")
        yield part.set_column(place, part.schema.field(place), column)
        start = end


def _matched(folder: Path, split: str, ids: pa.Array, labels: Sequence[str], first: Path) -> npt.NDArray[np.float32]:
    """Return a data set's logits, [n, C], in the order of the first one's rows and classes."""
    rows = dataset.read_split(folder, split, ("id", "logits"))
    places = pc.index_in(ids, value_set=rows["id"].combine_chunks())
    back = pc.index_in(rows["id"], value_set=ids)
    if places.null_count or back.null_count:
        raise InputError(
            f"{folder}: its {split} split lacks {places.null_count} of the {len(ids)} rows of {first}, which lacks "
            f"{back.null_count} of its {rows.num_rows}; label both from the same augmented rows"
        )
    theirs = dataset.provenance(folder)["labels"]
    values = logits_of(rows)[:, [theirs.index(name) for name in labels]]
    found: npt.NDArray[np.float32] = values[places.to_numpy()]
    return found


# --- what the average says of itself ------------------------------------------------------------------------------------


def _provenance(folders: Mapping[Path, float], average: Average) -> dict[str, Any]:
    """Return the provenance of an average: the first one's, with a teacher that names all."""
    found = provenance(list(folders))
    about = [dataset.provenance(folder) for folder in folders]
    members = [
        {"weight": weight, **each.get("teacher", {}), "labelling": each.get("labelling", {})}
        for weight, each in zip(folders.values(), about, strict=True)
    ]
    names = {folder.name: weight for folder, weight in folders.items()}
    labellings: list[dict[str, Any]] = [member["labelling"] for member in members]
    return found | {
        "teacher": {
            "name": name_of(names, average),
            "source": f"the average of the {average} of {len(members)} teachers",
            "fingerprint": _digest([[average, *members]]),
            "licence": " and ".join(_each(members, "licence")) or "unknown",
            "architecture": " and ".join(_each(members, "architecture")) or "unknown",
            "labels": {name: name for name in found["labels"]},
            "parameters": _sum(members, "parameters"),
            "bytes": _sum(members, "bytes"),
            "finetuned": any(member.get("finetuned") for member in members),
            "average": average,
            "members": members,
        },
        "labelling": {
            "max_length": _same(labellings, "max_length"),
            "dtype": _same(labellings, "dtype"),
            "stored": "float32",
            "fingerprint": _digest(labellings),
        },
    }


def name_of(weights: Mapping[str, float], average: Average) -> str:
    """Return what an average of teachers is called: `base + large`, `1 base + 3 large (distributions)`.

    :param weights: The teachers, each with its weight; weights are told where they differ.
    :param average: What is averaged; told where it is not logits.
    """
    differ = len(set(weights.values())) > 1
    names = " + ".join(f"{weight:g} {name}" if differ else name for name, weight in weights.items())
    return names if average == "logits" else f"{names} ({average})"


def _each(members: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    """Return the different values of a key, in their order."""
    return list(dict.fromkeys(str(member[key]) for member in members if member.get(key)))


def _sum(members: Sequence[Mapping[str, Any]], key: str) -> int | None:
    values = [member.get(key) for member in members]
    return None if None in values else sum(value for value in values if value is not None)


def _same(members: Sequence[Mapping[str, Any]], key: str) -> Any:
    """Return the value of a key that all have alike; None where they differ."""
    values = [member.get(key) for member in members]
    return values[0] if all(value == values[0] for value in values) else None


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
