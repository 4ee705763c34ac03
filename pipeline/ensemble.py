"""Several teachers as one: their logit data sets joined on id, their logits or their distributions averaged."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import logits
from pipeline.errors import InputError

Average = Literal["logits", "distributions"]
Floats = npt.NDArray[np.float32]


def provenance(folders: Sequence[Path]) -> dict[str, Any]:
    """Return where the data sets come from: what the first one says, after a check that the others are of the same task.

    :param folders: The data sets, at least one.
    :raises InputError: If one is missing, or two differ in their classes, in how text becomes words, or in whether texts are pairs.
    """
    first, *others = ((folder, logits.provenance(folder)) for folder in folders)
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


def read_split(
    folders: Mapping[Path, float], split: str, columns: Sequence[str], average: Average = "logits"
) -> pa.Table:
    """Read the rows of a split with the averaged logits of all teachers.

    :param folders: The data sets, each with its weight; weights count relative to their sum.
    :param split: train, validation or test.
    :param columns: The columns to read, id and logits among them.
    :param average: logits: z = sum of w_i z_i. distributions: z = log(sum of w_i softmax(z_i)), so that softmax(z) is the mean of the
        distributions.
    :return: The rows of the first data set in its order; the classes in its order, too.
    :raises InputError: If one has a row that another lacks; see also `provenance` and `logits.read_split`.
    """
    (first, _), *others = folders.items()
    labels = provenance(list(folders))["labels"]
    rows = logits.read_split(first, split, columns)
    if not others:
        return rows
    total = sum(folders.values())
    shares = [weight / total for weight in folders.values()]
    ids = rows["id"].combine_chunks()
    mean = shares[0] * _averaged(_values(rows), average)
    for (folder, _), share in zip(others, shares[1:], strict=True):
        other = logits.read_split(folder, split, ("id", "logits"))
        theirs = logits.provenance(folder)["labels"]
        values = _values(other)[:, [theirs.index(name) for name in labels]]
        places = pc.index_in(ids, value_set=other["id"].combine_chunks())
        back = pc.index_in(other["id"], value_set=ids)
        if places.null_count or back.null_count:
            raise InputError(
                f"{folder}: its {split} split lacks {places.null_count} of the {len(rows)} rows of {first}, which lacks "
                f"{back.null_count} of its {len(other)}; label both from the same augmented rows"
            )
        mean = mean + share * _averaged(values, average)[places.to_numpy()]
    found = mean if average == "logits" else np.log(np.maximum(mean, np.finfo(np.float32).tiny))
    column = pa.FixedSizeListArray.from_arrays(pa.array(found.astype(np.float32).ravel()), len(labels))
    place = rows.schema.get_field_index("logits")
    return rows.set_column(place, rows.schema.field(place), column)


def _values(rows: pa.Table) -> npt.NDArray[np.float64]:
    column = rows["logits"].combine_chunks()
    values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    shaped: npt.NDArray[np.float64] = values.reshape(len(rows), column.type.list_size)
    return shaped


def _averaged(values: npt.NDArray[np.float64], average: Average) -> npt.NDArray[np.float64]:
    if average == "logits":
        return values
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    shares: npt.NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares
