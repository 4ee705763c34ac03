"""The drift audit: label some rows of a logit data set again, and compare the logits with the stored ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.labelling.label import predict
from pipeline.logits import dataset
from pipeline.logits.markdown import aligned
from pipeline.params.labelling import Labelling
from pipeline.teacher.model import Teacher, find_files, open_teacher
from pipeline.teacher.own import OwnTeacher
from pipeline.teacher.recorded import RECORD, open_recorded

WORDS = ((1, 2), (3, 5), (6, 8), (9, 12), (13, 20), (21, math.inf))
"""Rows are grouped by their number of words, both sentences of a pair together."""

IDENTITY = ("sha256", "fingerprint", "code_sha256", "files_sha256")
"""Keys of teacher.json that must be those of the data set's teacher, as far as the data set has them."""


@dataclass(frozen=True)
class Drift:
    """The difference between stored and new logits of a group of rows, in one dtype.

    `largest` and `mean` are absolute differences over rows and classes; `flips` counts the rows whose predicted class differs.
    """

    dtype: str
    words: str
    rows: int
    largest: float
    mean: float
    flips: int


def audit(
    folder: Path, share: float, seed: int = 0, dtypes: Sequence[str] = (), teacher_folder: Path | None = None
) -> list[Drift]:
    """Label a random share of a logit data set's rows again.

    :param share: The share of the rows of all splits, above 0 and up to 1; at least one row is labelled.
    :param dtypes: The dtypes to compute in; if empty, the dtype of the data set.
    :param teacher_folder: The folder with its teacher.json; None: the folder that the stages use, next to the data set's.
    :return: For each dtype, the differences by length, and then of all rows, with words "all".
    :raises InputError: If the data set or its teacher is missing, or the teacher is a different one.
    """
    about = dataset.provenance(folder)
    labelling = about.get("labelling", {})
    rows = _sample(folder, share, seed)
    stored = rows["logits"].combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    lengths = _words(rows)
    found = []
    for dtype in dtypes or (labelling.get("dtype") or "float32",):
        teacher = _teacher(folder, about, teacher_folder)
        how = Labelling.model_validate({"dtype": dtype, "max_length": labelling.get("max_length")})
        again = predict(teacher, rows.select(["id", "sentence1", "sentence2"]), how).logits
        found += _drifts(dtype, stored.reshape(again.shape), again, lengths)
    return found


def _sample(folder: Path, share: float, seed: int) -> pa.Table:
    """Read a random sample; row numbers are drawn first, so that only the sample is in memory."""
    total = sum(shard["rows"] for shard in dataset.manifest(folder)["shards"])
    if not total:
        raise InputError(f"{folder}: has no rows")
    chosen = np.random.default_rng(seed).choice(total, max(1, round(share * total)), replace=False)
    return dataset.read_rows(folder, np.sort(chosen), ["id", "sentence1", "sentence2", "logits"])


def _words(rows: pa.Table) -> NDArray[np.int64]:
    found = np.zeros(rows.num_rows, np.int64)
    for name in ("sentence1", "sentence2"):
        words = pc.list_value_length(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(rows[name])))
        found += pc.fill_null(words, 0).to_numpy()
    return found


def _teacher(folder: Path, about: dict[str, Any], teacher_folder: Path | None) -> Teacher | OwnTeacher:
    """Open the teacher of a data set, and refuse a different one."""
    record = about["teacher"]
    place = teacher_folder or folder.resolve().parents[1] / "teachers" / str(record["name"])
    if not (place / RECORD).is_file():
        if teacher_folder is not None or record.get("finetuned") or record["source"].startswith("python:"):
            raise InputError(f"{place / RECORD}: no such file; name the teacher's folder with --teacher")
        names = {theirs: ours for ours, theirs in record["labels"].items()}
        return open_teacher(find_files(record["source"], record["sha256"]), about["labels"], names)
    teacher, found = open_recorded(place, about["labels"])
    for key in IDENTITY:
        if key in record and found.get(key) != record[key]:
            raise InputError(
                f"{place}: is not the data set's teacher: its {key} is {found.get(key)}, not {record[key]}"
            )
    return teacher


def _drifts(
    dtype: str, stored: NDArray[np.float32], again: NDArray[np.float32], lengths: NDArray[np.int64]
) -> list[Drift]:
    differences = np.abs(stored - again)
    flips = stored.argmax(axis=1) != again.argmax(axis=1)
    found = []
    for low, high in (*WORDS, (0, math.inf)):
        rows = (lengths >= low) & (lengths <= high)
        if rows.any():
            name = "all" if low == 0 else f"{low}+" if high == math.inf else f"{low}-{high}"
            largest, mean = float(differences[rows].max()), float(differences[rows].mean())
            found.append(Drift(dtype, name, int(rows.sum()), largest, mean, int(flips[rows].sum())))
    return found


def show(found: Sequence[Drift]) -> str:
    """Return the differences as a Markdown table."""
    head = ["dtype", "words", "rows", "largest difference", "mean", "argmax flips"]
    rows = [[d.dtype, d.words, f"{d.rows:,}", f"{d.largest:.2e}", f"{d.mean:.2e}", f"{d.flips:,}"] for d in found]
    return aligned([head, *rows])
