"""Accuracy of a student by the number of unlabelled texts it learns from, with and without augmented copies.

python bench/pool.py example-pool bilstm --sizes 0 15000 60000 --seeds 0 1 2 --jobs 2

The script reads the outputs of a task with `text.unlabelled` and a test split: data/TASK/logits/TEACHER, data/TASK/vectors, and the student's block in
params.yaml. A smaller size is a part of a larger one: the texts with the smallest ids, as `limit` chooses them. Each run keeps the epoch with the
best validation accuracy. Runs are kept in --into, one file each, so the same command continues after a stop. Intervals are over seeds and rows.
"""

from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import runs

from pipeline import tables
from pipeline.params.students import Student


def rows_of(rows: pa.Table, size: int, copies: bool) -> pa.Table:
    """Return the task's own rows, some unlabelled texts, and augmented copies if asked for.

    :param rows: The training split.
    :param size: The number of unlabelled texts.
    """
    kept = tables.is_of(rows, tables.SOURCE) | (tables.is_of(rows, tables.COPY) & copies)
    pool = np.flatnonzero(tables.is_of(rows, tables.POOL))
    order = pc.sort_indices(rows["id"].take(pa.array(pool))).to_numpy()
    kept[pool[order[:size]]] = True
    return rows.filter(pa.array(kept))


def run(task: str, student: str, block: Student, size: int, copies: bool) -> dict[str, Any]:
    """Train once; return what `runs.Task.run` returns."""
    opened = runs.Task(task, student)
    return opened.run(block, rows_of(opened.training, size, copies))


def main() -> None:
    """Train on every size with every seed, and print the table."""
    parser = runs.options_of(__doc__, ".dvc/tmp/pool", epochs=6)
    parser.add_argument("--sizes", type=int, nargs="+", default=[0, 15_000, 60_000])
    parser.add_argument("--copies", choices=("both", "with", "without"), default="both")
    asked = parser.parse_args()
    task = runs.Task(asked.task, asked.student)
    there = int(tables.is_of(task.training, tables.POOL).sum())
    if max(asked.sizes) > there:
        raise SystemExit(f"{task.logits}: has {there} unlabelled texts, not {max(asked.sizes)}")
    listed = []
    with_copies = {"both": (False, True), "with": (True,), "without": (False,)}[asked.copies]
    # The seeds outside, so that a stopped run has the first seeds of all lines.
    for seed, copies, size in product(asked.seeds, with_copies, asked.sizes):
        keys = {"seed": seed, "epochs": asked.epochs, "patience": asked.patience, "rows": "all"}  # they are chosen here
        block = Student.model_validate({**task.block.model_dump(), **keys})
        line = f"{size:,} unlabelled" + (", copies" if copies else "")
        facts = {"student": block.model_dump(mode="json"), "unlabelled": size, "copies": copies}
        listed.append(runs.Run(line, facts, partial(run, task.name, task.student, block, size, copies)))
    runs.show(asked, task, listed)


if __name__ == "__main__":
    main()
