"""Accuracy of a student by which unlabelled texts and copies the teacher labels, for a limited number of labels.

python bench/budget.py example-pool bilstm --budget 18000 --seeds 0 1 2 --jobs 2

The task's outputs hold labels of all rows; each way of choosing reads only those that it chose. All ways have the labels of the task's own training
texts. `random` draws rows at random. `margin` first trains a student on the task's own texts and a third of the budget at random, and then takes the
rows on which the two highest probabilities of this student are closest. `disagreement` trains two such students, and takes the rows on which the
Jensen-Shannon divergence of their classes is largest. Runs are kept in --into, one file each, so the same command continues after a stop.
"""

from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import runs

from pipeline import tables
from pipeline.params.students import Student

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


def run(task: str, student: str, block: Student, way: str, budget: int) -> dict[str, Any]:
    """Choose rows and train a student on them; return what `runs.Task.run` returns."""
    opened = runs.Task(task, student)
    rows = opened.training
    own = tables.is_of(rows, tables.SOURCE)
    order = np.random.default_rng([block.seed, 7]).permutation(np.flatnonzero(~own))

    def with_own(chosen: np.ndarray) -> pa.Table:
        kept = own.copy()
        kept[chosen] = True
        return rows.filter(pa.array(kept))

    chosen = order[:budget]
    if way != "random":
        first, rest = order[: budget // 3], order[budget // 3 :]
        seeds = [block.seed + 100 * number for number in range(1, 2 + (way == "disagreement"))]
        blocks = [block.model_copy(update={"seed": seed}) for seed in seeds]
        students = [opened.trained(each, with_own(first))[0] for each in blocks]
        worth = doubt(students, rows.take(pa.array(rest)))
        chosen = np.concatenate([first, rest[np.argsort(-worth, kind="stable")[: budget - len(first)]]])
    return opened.run(block, with_own(chosen))


def main() -> None:
    """Train every way with every seed, and print the table."""
    parser = runs.options_of(__doc__, ".dvc/tmp/budget", epochs=5)
    parser.add_argument("--budget", type=int, required=True, help="labels in addition to those of the task's own texts")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    asked = parser.parse_args()
    task = runs.Task(asked.task, asked.student)
    there = int((~tables.is_of(task.training, tables.SOURCE)).sum())
    if asked.budget >= there:
        raise SystemExit(f"{task.logits}: has {there} unlabelled texts and copies; choose fewer with --budget")
    listed = []
    for seed, way in product(asked.seeds, asked.ways):
        keys = {"seed": seed, "epochs": asked.epochs, "patience": asked.patience, "rows": "all"}  # they are chosen here
        block = Student.model_validate({**task.block.model_dump(), **keys})
        facts = {"student": block.model_dump(mode="json"), "way": way, "budget": asked.budget}
        listed.append(runs.Run(way, facts, partial(run, task.name, task.student, block, way, asked.budget)))
    runs.show(asked, task, listed)


if __name__ == "__main__":
    main()
