"""Accuracy of a student by which unlabelled texts and copies the teacher labels, for a limited number of labels.

python bench/budget.py example-pool bilstm --budget 18000 --seeds 0 1 2 --jobs 2

The task's outputs hold labels of all rows; each way of choosing reads only those that it chose. All ways have the labels of the task's own training
texts. `random` draws rows at random. `margin` first trains a student on the task's own texts and a third of the budget at random, and then takes the
rows on which the two highest probabilities of this student are closest. `disagreement` trains two such students, and takes the rows on which the
Jensen-Shannon divergence of their classes is largest. Runs are kept in --into, one file each, so the same command continues after a stop.
"""

import argparse
import logging
from itertools import product
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pool
import pyarrow as pa

from pipeline import params, tables
from pipeline.distill.loop import distill
from pipeline.logits import dataset
from pipeline.logits.dataset import COLUMNS
from pipeline.machine.memory import keep_freed_memory
from pipeline.params.students import Student
from pipeline.storage import read_json
from pipeline.vectors.table import read_vectors

WAYS = ("random", "margin", "disagreement")


def entropy(shares: np.ndarray) -> np.ndarray:
    """Return the entropy of distributions, [n, C], in nats."""
    found: np.ndarray = -(shares * np.log(np.maximum(shares, 1e-300))).sum(axis=1)
    return found


def doubt(students: list[Any], rows: pa.Table) -> np.ndarray:
    """Return how unsure students are of rows, [n]: a higher number is chosen first."""
    sides = ("sentence1", "sentence2") if rows["sentence2"].null_count < rows.num_rows else ("sentence1",)
    shares = [
        student.predict_proba(*(rows[side].to_pylist() for side in sides)).astype(np.float64) for student in students
    ]
    if len(shares) == 1:
        best = np.sort(shares[0], axis=1)
        margin: np.ndarray = best[:, -2] - best[:, -1]
        return margin
    return entropy(sum(shares) / len(shares)) - sum(map(entropy, shares)) / len(shares)


def run(task: str, name: str, teacher: str, way: str, budget: int, seed: int, epochs: int, out: Path) -> None:
    """Choose rows, train a student on them, and write what `pool.measured` returns."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    keep_freed_memory()  # as the train stage does
    settings, folder = params.load(task).student(name), Path("data") / task
    block = settings.model_dump() | {"epochs": epochs, "patience": epochs}
    about = dataset.provenance(folder / "logits" / teacher)
    vectors = read_vectors(folder / "vectors" / f"{settings.vectors}.parquet") if settings.vectors else None
    held_out = {split: dataset.read_split(folder / "logits" / teacher, split, COLUMNS) for split in pool.HELD_OUT}
    rows = dataset.read_split(folder / "logits" / teacher, "train", dataset.columns_of(about))
    own = tables.is_of(rows, tables.SOURCE)
    order = np.random.default_rng([seed, 7]).permutation(np.flatnonzero(~own))

    def trained(chosen: np.ndarray, seed: int) -> Any:
        kept = own.copy()
        kept[chosen] = True
        student = Student.model_validate({**block, "seed": seed}).model_copy(update={"rows": "all"})
        how = (student, about["labels"], about["text"], about["pairs"], vectors)
        return distill(rows.filter(pa.array(kept)), held_out["validation"], *how)

    chosen = order[:budget]
    if way != "random":
        first, rest = order[: budget // 3], order[budget // 3 :]
        students = [trained(first, seed + 100 * i)[0] for i in range(1, 2 + (way == "disagreement"))]
        worth = doubt(students, rows.take(pa.array(rest)))
        chosen = np.concatenate([first, rest[np.argsort(-worth, kind="stable")[: budget - len(first)]]])
    student, history = trained(chosen, seed)
    pool.write_measured(out, student, history, held_out, about, rows=int(own.sum()) + len(chosen))


def main() -> None:
    """Train every way with every seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("student")
    parser.add_argument("--budget", type=int, required=True, help="labels in addition to those of the task's own texts")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time, one thread each")
    parser.add_argument("--into", type=Path, default=Path(".dvc/tmp/budget"), help="the folder of the runs")
    asked = parser.parse_args()
    teacher = next(iter(params.load(asked.task).student(asked.student).teachers))
    into: Path = asked.into

    def path(way: str, seed: int) -> Path:
        return into / f"{asked.task}-{asked.student}-{way}-{asked.budget}-{seed}.json"

    missing = [(way, seed) for seed, way in product(asked.seeds, asked.ways) if not path(way, seed).exists()]
    into.mkdir(parents=True, exist_ok=True)
    joblib.Parallel(n_jobs=asked.jobs)(
        joblib.delayed(run)(
            *(asked.task, asked.student, teacher, way, asked.budget, seed, asked.epochs, path(way, seed))
        )
        for way, seed in missing
    )
    held_out = pool.held_out_of(Path("data") / asked.task / "logits" / teacher)
    runs = {way: [read_json(path(way, seed)) for seed in asked.seeds] for way in asked.ways}
    print(f"{held_out.shown}\n\n{pool.table(pool.summary(runs, held_out.rows))}")


if __name__ == "__main__":
    main()
