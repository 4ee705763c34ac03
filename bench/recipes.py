"""Accuracy of a student by its recipe: optimiser, batch size, units, average of the weights, share of gold labels.

python bench/recipes.py example bilstm --recipes paper adamw --seeds 0 1 2 --jobs 2

The script reads the outputs of a task with a test split, data/TASK/logits/TEACHER and data/TASK/vectors, and the student's block in params.yaml; a recipe changes some of
its keys. Each run keeps the epoch with the best validation accuracy; test is only shown. Runs are kept in --into, one file each, so the same
command continues after a stop. Intervals are over seeds and rows.
"""

from functools import partial
from itertools import product
from typing import Any

import runs

from pipeline.params.students import Student

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
    "paper-pairs": {**PAPER, "batch_size": 256},
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


def run(task: str, student: str, block: Student) -> dict[str, Any]:
    """Train once; return what `runs.Task.run` returns."""
    opened = runs.Task(task, student)
    return opened.run(block, opened.training)


def main() -> None:
    """Train every recipe with every seed, and print the table."""
    parser = runs.options_of(__doc__, ".dvc/tmp/recipes", epochs=5)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=["paper", "adamw"])
    asked = parser.parse_args()
    task = runs.Task(asked.task, asked.student)
    listed = []
    # The seeds outside, so that a stopped run has the first seeds of all recipes.
    for seed, recipe in product(asked.seeds, asked.recipes):
        keys = {"seed": seed, "epochs": asked.epochs, "patience": asked.patience}
        block = changed(task.block.model_dump(), recipe, **keys)
        facts = {"student": block.model_dump(mode="json")}
        listed.append(runs.Run(recipe, facts, partial(run, task.name, task.student, block)))
    runs.show(asked, task, listed)


if __name__ == "__main__":
    main()
