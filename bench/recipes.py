"""Accuracy of a student by its recipe: optimiser, batch size, units, average of the weights, share of gold labels.

python bench/recipes.py example bilstm --recipes paper adamw --seeds 0 1 2 --jobs 2

The script reads the outputs of a task, data/TASK/logits/TEACHER and data/TASK/vectors, and the student's block in params.yaml; a recipe changes some of
its keys. Each run keeps the epoch with the best validation accuracy; test is only shown. Runs are kept in --into, one file each, so the same
command continues after a stop. Intervals are over seeds and rows.
"""

import argparse
import logging
import time
from itertools import product
from pathlib import Path
from typing import Any

import common
import joblib
import pool

from pipeline import params
from pipeline.distill.loop import distill
from pipeline.logits import dataset
from pipeline.logits.dataset import COLUMNS
from pipeline.machine.memory import keep_freed_memory
from pipeline.params.students import Student
from pipeline.storage import read_json, write_json
from pipeline.vectors.table import read_vectors

PAPER = {"batch_size": 50, "optimiser": {"name": "adadelta", "learning_rate": 1.0, "rho": 0.95, "ema_decay": 0.0}}
ADAMW = {"batch_size": 50, "optimiser": {"name": "adamw", "learning_rate": 0.001, "ema_decay": 0.999}}
WIDE = {
    "batch_size": 256,
    "optimiser": {"name": "adamw", "learning_rate": 0.0005, "ema_decay": 0.999},
    "params": {"hidden": 300},
}
PLAIN = {"rows": "originals", "objective": {"alpha": 1.0}}
RECIPES: dict[str, dict[str, Any]] = {
    "paper": PAPER,
    "adamw": ADAMW,
    "wide": WIDE,
    "plain-adamw": {**ADAMW, **PLAIN},
    **{f"alpha-{alpha}": {**ADAMW, "objective": {"alpha": alpha}} for alpha in (0.0, 0.25, 0.5, 0.75)},
}
"""What each recipe changes in the student's block."""


def changed(block: dict[str, Any], recipe: str, **keys: Any) -> Student:
    """Return a student's block with the keys of a recipe, and further keys."""
    merged = dict(block)
    for key, value in RECIPES[recipe].items():
        merged[key] = {**merged[key], **value} if key in ("params", "objective") else value
    return Student.model_validate({**merged, **keys})


def run(task: str, name: str, recipe: str, seed: int, epochs: int, patience: int, out: Path) -> None:
    """Train once, and write what `pool.write_measured` writes."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    keep_freed_memory()  # as the train stage does
    settings, folder = params.load(task).student(name), Path("data") / task
    block = changed(settings.model_dump(), recipe, seed=seed, epochs=epochs, patience=patience)
    logits = folder / "logits" / next(iter(settings.teachers))
    about = dataset.provenance(logits)
    vectors = read_vectors(folder / "vectors" / f"{settings.vectors}.parquet") if settings.vectors else None
    held_out = {split: dataset.read_split(logits, split, COLUMNS) for split in pool.HELD_OUT}
    rows = dataset.read_split(logits, "train", dataset.columns_of(about))
    started = time.process_time()
    student, history = distill(
        rows, held_out["validation"], block, about["labels"], about["text"], about["pairs"], vectors
    )
    seconds = time.process_time() - started
    pool.write_measured(out, student, history, held_out, about, rows=rows.num_rows, cpu_seconds=seconds)


def main() -> None:
    """Train every recipe with every seed, print the table and write the JSON file if --json is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("student")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=["paper", "adamw"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--patience", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time, one thread each")
    parser.add_argument("--into", type=Path, default=Path(".dvc/tmp/recipes"), help="the folder of the runs")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()

    def path(recipe: str, seed: int) -> Path:
        into: Path = asked.into
        return into / f"{asked.task}-{asked.student}-{recipe}-{seed}.json"

    # The seeds outside, so that a stopped run has the first seeds of all recipes.
    missing = [
        (recipe, seed) for seed, recipe in product(asked.seeds, asked.recipes) if not path(recipe, seed).exists()
    ]
    asked.into.mkdir(parents=True, exist_ok=True)
    joblib.Parallel(n_jobs=asked.jobs)(
        joblib.delayed(run)(
            *(asked.task, asked.student, recipe, seed, asked.epochs, asked.patience, path(recipe, seed))
        )
        for recipe, seed in missing
    )
    teacher = next(iter(params.load(asked.task).student(asked.student).teachers))
    held_out = pool.held_out_of(Path("data") / asked.task / "logits" / teacher)
    runs = {recipe: [read_json(path(recipe, seed)) for seed in asked.seeds] for recipe in asked.recipes}
    results = pool.summary(runs, held_out.rows)
    if asked.json:
        facts = {"task": asked.task, "seeds": asked.seeds, "teacher": held_out.teacher, "results": results}
        write_json(asked.json, {"machine": common.machine(pool.PACKAGES), **common.rounded(facts)})
    print(f"{held_out.shown}\n\n{pool.table(results)}")


if __name__ == "__main__":
    main()
