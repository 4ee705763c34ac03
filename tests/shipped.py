"""A student to export: trained in seconds on a sentiment that it can learn."""

import copy
import functools
import json
from pathlib import Path

import pyarrow as pa
from logit_rows import PROVENANCE, sentiment

from pipeline.distill.loop import distill
from pipeline.params.students import Student
from pipeline.serving.export import export
from pipeline.students.trained import TrainedStudent

BILSTM = "pipeline.students.bilstm:BiLSTM"
SMALL = {"hidden": 16, "classifier": 16}


def trained(
    pairs: bool = False, text: str = "pretokenised", model: str = BILSTM, params: dict = SMALL
) -> TrainedStudent:
    """Return a small trained student; the second sentence of a pair is the first one reversed."""
    return copy.deepcopy(_trained(pairs, text, model, json.dumps(params)))


@functools.cache
def _trained(pairs: bool, text: str, model: str, params: str) -> TrainedStudent:
    settings = Student(model=model, params=json.loads(params), teacher="large", epochs=3, seed=1)
    tables = [as_pairs(table) if pairs else table for table in (sentiment(1500), sentiment(100, 1))]
    return distill(*tables, settings, PROVENANCE["labels"], text, pairs)[0]


def as_pairs(table: pa.Table) -> pa.Table:
    turned = [" ".join(text.split()[::-1]) for text in table["sentence1"].to_pylist()]
    return table.set_column(table.schema.get_field_index("sentence2"), "sentence2", pa.array(turned, pa.string()))


def shipped(folder: Path, student: TrainedStudent, results: dict | None = None, name: str = "shipped") -> Path:
    """Export a student, and return the folder to ship."""
    student.save(folder / "trained")
    export(folder / "trained", folder / name, results or {}, PROVENANCE)
    return folder / name


def inputs(table: pa.Table, pairs: bool) -> list:
    first, second = table["sentence1"].to_pylist(), table["sentence2"].to_pylist()
    return list(zip(first, second, strict=True)) if pairs else first
