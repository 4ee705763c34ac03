"""Accuracy of a student by the number of unlabelled texts it learns from, with and without augmented copies.

python bench/pool.py example-pool bilstm --sizes 0 15000 60000 --seeds 0 1 2 --jobs 2

The script reads the outputs of a task with `text.unlabelled`: data/TASK/logits/TEACHER, data/TASK/vectors, and the student's block in params.yaml.
A smaller size is a part of a larger one: the texts with the smallest ids, as `limit` chooses them. Each run keeps the epoch with the best validation
accuracy. Runs are kept in --into, one file each, so the same command continues after a stop. Intervals are over seeds and rows.
"""

import argparse
import logging
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import common
import joblib
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import params, tables
from pipeline.distill.epochs import Epoch, best_of
from pipeline.distill.loop import distill
from pipeline.logits import dataset
from pipeline.logits.dataset import COLUMNS
from pipeline.logits.markdown import aligned
from pipeline.logits.shards import finite_logits
from pipeline.machine.memory import keep_freed_memory
from pipeline.metrics import bootstrap
from pipeline.params.students import Student
from pipeline.storage import read_json, write_json
from pipeline.students.trained import TrainedStudent
from pipeline.vectors.table import read_vectors

PACKAGES = ("torch", "numpy")
HELD_OUT = ("validation", "test")


class Cell(NamedTuple):
    """The training rows of a run."""

    pool: int
    """The number of unlabelled texts."""
    copies: bool
    """Whether augmented copies are used."""

    @property
    def name(self) -> str:
        """Its name in the table."""
        return f"{self.pool:,} unlabelled" + (", copies" if self.copies else "")


def rows_of(folder: Path, cell: Cell) -> pa.Table:
    """Return the training rows of a cell.

    :param folder: The logit data set.
    """
    rows = dataset.read_split(folder, "train", dataset.columns_of(dataset.provenance(folder)))
    kept = tables.is_of(rows, tables.SOURCE) | (tables.is_of(rows, tables.COPY) & cell.copies)
    pool = np.flatnonzero(tables.is_of(rows, tables.POOL))
    if cell.pool > len(pool):
        raise SystemExit(f"{folder}: has {len(pool)} unlabelled texts, not {cell.pool}")
    order = pc.sort_indices(rows["id"].take(pa.array(pool))).to_numpy()
    kept[pool[order[: cell.pool]]] = True
    return rows.filter(pa.array(kept))


def run(task: str, student: str, teacher: str, cell: Cell, seed: int, epochs: int, patience: int, out: Path) -> None:
    """Train once, and write whether each held-out row is right, the epoch and the processor time."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    keep_freed_memory()  # as the train stage does
    settings, folder = params.load(task).student(student), Path("data") / task
    block = Student.model_validate({**settings.model_dump(), "seed": seed, "epochs": epochs, "patience": patience})
    block = block.model_copy(update={"rows": "all"})  # they are chosen here
    about = dataset.provenance(folder / "logits" / teacher)
    vectors = read_vectors(folder / "vectors" / f"{settings.vectors}.parquet") if settings.vectors else None
    held_out = {split: dataset.read_split(folder / "logits" / teacher, split, COLUMNS) for split in HELD_OUT}
    training = rows_of(folder / "logits" / teacher, cell)
    started = time.process_time()
    how = (block, about["labels"], about["text"], about["pairs"], vectors)
    trained, history = distill(training, held_out["validation"], *how)
    seconds = time.process_time() - started
    write_measured(out, trained, history, held_out, about, rows=training.num_rows, cpu_seconds=seconds)


def write_measured(
    out: Path,
    student: TrainedStudent,
    history: Sequence[Epoch],
    held_out: Mapping[str, pa.Table],
    about: Mapping[str, Any],
    **facts: float,
) -> None:
    """Write the wrong rows and the agreement with the teacher on the held-out splits, the epoch, and further facts."""
    found: dict[str, Any] = {**facts, "epoch": best_of(history) + 1, "epochs": len(history)}
    for split, rows in held_out.items():
        sides = ("sentence1", "sentence2") if about["pairs"] else ("sentence1",)
        predicted = student.predict_columns(*(rows[side] for side in sides)).argmax(axis=-1)
        of_teacher = finite_logits(rows, len(about["labels"])).argmax(axis=-1)
        found[split] = {
            "wrong": np.flatnonzero(predicted != rows["label"].to_numpy()).tolist(),
            "agreement": float((predicted == of_teacher).mean()),
        }
    write_json(out, found)


class HeldOut(NamedTuple):
    """The held-out splits of a logit data set."""

    rows: dict[str, int]
    """The number of rows of each."""
    teacher: dict[str, float]
    """The teacher's accuracy on each."""

    @property
    def shown(self) -> str:
        """The teacher's line above a table."""
        return f"teacher: {', '.join(f'{split} {100 * value:.1f}' for split, value in self.teacher.items())}"


def held_out_of(folder: Path) -> HeldOut:
    """Return the rows of the held-out splits, and the teacher's accuracy on them.

    :param folder: The logit data set.
    """
    classes = len(dataset.provenance(folder)["labels"])
    splits = {split: dataset.read_split(folder, split, COLUMNS) for split in HELD_OUT}
    right = {
        split: finite_logits(rows, classes).argmax(axis=-1) == rows["label"].to_numpy()
        for split, rows in splits.items()
    }
    return HeldOut(
        {split: rows.num_rows for split, rows in splits.items()}, {split: float(r.mean()) for split, r in right.items()}
    )


def hits(runs: Sequence[dict[str, Any]], split: str, rows: int) -> npt.NDArray[np.bool_]:
    """Return whether each row of a split is right in each run, [runs, rows]."""
    right = np.ones((len(runs), rows), np.bool_)
    for number, one in enumerate(runs):
        right[number, one[split]["wrong"]] = False
    return right


def summary(cells: Mapping[str, Sequence[dict[str, Any]]], rows: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the figures of the runs of each cell; `rows` are those of the held-out splits."""
    found = []
    for name, runs in cells.items():
        facts: dict[str, Any] = {"cell": name, "rows": runs[0]["rows"]}
        facts["epochs kept"] = [one["epoch"] for one in runs]
        if "cpu_seconds" in runs[0]:
            facts["cpu_seconds"] = float(np.mean([one["cpu_seconds"] for one in runs]))
        for split in HELD_OUT:
            right = hits(runs, split, rows[split])
            facts[split] = {
                "accuracies": right.mean(axis=1).tolist(),
                "interval": bootstrap.ends(bootstrap.over_seeds_and_rows(right[None])[:, 0]),
                "agreement": float(np.mean([one[split]["agreement"] for one in runs])),
            }
        found.append(facts)
    return found


def table(results: Sequence[dict[str, Any]]) -> str:
    """Return the figures as a Markdown table, accuracies in percent."""
    lines = [["training rows", "rows", "validation", "test", "test by seed", "agreement on test"]]
    for each in results:
        cells = [each["cell"], f"{each['rows']:,}"]
        for split in HELD_OUT:
            low, high = each[split]["interval"]
            mean = float(np.mean(each[split]["accuracies"]))
            cells.append(f"{100 * mean:.1f} ({100 * low:.1f} to {100 * high:.1f})")
        seeds = ", ".join(f"{100 * value:.1f}" for value in each["test"]["accuracies"])
        lines.append([*cells, seeds, f"{100 * each['test']['agreement']:.1f}"])
    return aligned(lines)


def main() -> None:
    """Train every cell with every seed, print the table and write the JSON file if --json is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("student")
    parser.add_argument("--sizes", type=int, nargs="+", default=[0, 15_000, 60_000])
    parser.add_argument("--copies", choices=("both", "with", "without"), default="both")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--patience", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time, one thread each")
    parser.add_argument("--into", type=Path, default=Path(".dvc/tmp/pool"), help="the folder of the runs")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    settings = params.load(asked.task)
    teacher = next(iter(settings.student(asked.student).teachers))
    folder = Path("data") / asked.task / "logits" / teacher
    with_copies = {"both": (False, True), "with": (True,), "without": (False,)}[asked.copies]
    cells = [Cell(size, copies) for copies, size in product(with_copies, asked.sizes)]

    into: Path = asked.into

    def path(cell: Cell, seed: int) -> Path:
        return into / f"{asked.task}-{asked.student}-{cell.pool}-{int(cell.copies)}-{seed}.json"

    # The seeds outside, so that a stopped run has the first seeds of all cells.
    missing = [(cell, seed) for seed, cell in product(asked.seeds, cells) if not path(cell, seed).exists()]
    into.mkdir(parents=True, exist_ok=True)
    joblib.Parallel(n_jobs=asked.jobs)(
        joblib.delayed(run)(
            *(asked.task, asked.student, teacher, cell, seed, asked.epochs, asked.patience, path(cell, seed))
        )
        for cell, seed in missing
    )
    runs = {cell.name: [read_json(path(cell, seed)) for seed in asked.seeds] for cell in cells}
    held_out = held_out_of(folder)
    results = summary(runs, held_out.rows)
    if asked.json:
        block = settings.student(asked.student).model_dump(mode="json")
        facts = {"task": asked.task, "student": block, "seeds": asked.seeds, "teacher": held_out.teacher}
        write_json(asked.json, {"machine": common.machine(PACKAGES), **common.rounded({**facts, "results": results})})
    print(f"{held_out.shown}\n\n{table(results)}")


if __name__ == "__main__":
    main()
