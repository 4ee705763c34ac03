"""Labels tables in memory as the label stage does: written to files, labelled, and read back from the data set."""

import tempfile
from pathlib import Path

import pyarrow as pa

from pipeline import tables
from pipeline.labelling import label as labelling
from pipeline.labelling.rows import LabelRows
from pipeline.logits import dataset
from pipeline.params.labelling import Labelling
from pipeline.teacher.model import Teacher
from pipeline.teacher.own import OwnTeacher

NO_COPIES = tables.AUGMENTED.empty_table()


def label_in(
    folder: Path,
    teacher: Teacher | OwnTeacher,
    examples: pa.Table,
    augmented: pa.Table = NO_COPIES,
    how: Labelling | None = None,
    copies_in_file: int = 1_000,
    **more: object,
) -> dict:
    """Label in a folder with the stores in `stores` and the data set in `out`, and return the summary."""
    files = []
    for start in range(0, augmented.num_rows, copies_in_file):
        files.append(folder / f"augmented-{start:05}.parquet")
        tables.write(files[-1], augmented.slice(start, copies_in_file))
    about = {"task": "films", "labels": list(teacher.labels), "pairs": False}
    rows = LabelRows.read(examples, files)
    how = how or Labelling()
    return labelling.label(teacher, rows, how, folder / "stores", folder / "out", about, **more)


def label(
    teacher: Teacher | OwnTeacher, examples: pa.Table, augmented: pa.Table, how: Labelling, **more: object
) -> tuple[dict[str, pa.Table], dict]:
    """Label, and return the rows of each split and the summary."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        summary = label_in(folder, teacher, examples, augmented, how, **more)
        splits = {split: dataset.read_split(folder / "out", split) for split in summary["rows"]}
    return splits, summary
