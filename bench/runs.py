"""Runs of a student on a task's logit data set, each kept in a file, and their table: shared by pool.py, recipes.py and budget.py.

The file of a run is named by a hash of all that the run depends on, so a run is only taken from a file if it would give the same figures.
"""

import argparse
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import common
import joblib
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import params
from pipeline.distill.epochs import Epoch, best_of
from pipeline.distill.loop import distill
from pipeline.distill.targets import chosen_rows
from pipeline.logits import dataset
from pipeline.logits.dataset import COLUMNS
from pipeline.logits.markdown import aligned
from pipeline.logits.shards import finite_logits
from pipeline.machine.memory import keep_freed_memory
from pipeline.metrics import bootstrap
from pipeline.params.students import Student
from pipeline.storage import read_json, sha256_of, write_json
from pipeline.students.trained import TrainedStudent
from pipeline.vectors.table import read_vectors

PACKAGES = ("torch", "numpy")
HELD_OUT = ("validation", "test")
ROOT = Path(__file__).resolve().parents[1]
CODE = ("pipeline/distill", "pipeline/students", "pipeline/vectors", "bench")
"""The folders whose code can change the figures of a run."""


class Task:
    """The outputs of a task that runs read: the logit data set of a student's teacher, and word vectors.

    :param name: The task; its outputs are in data/NAME.
    :param student: The name of a student of params.yaml, whose block the runs change.
    """

    def __init__(self, name: str, student: str) -> None:
        self.name, self.student = name, student
        self.block = params.load(name).student(student)
        self.teacher = next(iter(self.block.teachers))
        self.logits = Path("data") / name / "logits" / self.teacher
        self.about = dataset.provenance(self.logits)
        if lacking := [split for split in HELD_OUT if not self.about["rows"].get(split)]:
            raise SystemExit(f"{self.logits}: has no {lacking[0]} split, which the table needs")
        self._vectors = Path("data") / name / "vectors" / f"{self.block.vectors}.parquet"

    @cached_property
    def held_out(self) -> dict[str, pa.Table]:
        """The rows of the held-out splits that have a label."""
        rows = {split: dataset.read_split(self.logits, split, COLUMNS) for split in HELD_OUT}
        return {split: table.filter(pc.is_valid(table["label"])) for split, table in rows.items()}

    @cached_property
    def training(self) -> pa.Table:
        """The rows of the training split."""
        return dataset.read_split(self.logits, "train", dataset.columns_of(self.about))

    @property
    def facts(self) -> dict[str, Any]:
        """What every run on these outputs depends on, as JSON."""
        files = sorted(path for folder in CODE for path in (ROOT / folder).rglob("*.py"))
        code = hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()
        vectors = sha256_of(self._vectors) if self.block.vectors else None
        return {"logits": sha256_of(self.logits / "manifest.json"), "vectors": vectors, "code": code}

    def trained(self, block: Student, rows: pa.Table) -> tuple[TrainedStudent, Sequence[Epoch]]:
        """Train a student on some rows, with the epoch chosen on validation."""
        vectors = read_vectors(self._vectors) if self.block.vectors else None
        how = (block, self.about["labels"], self.about["text"], self.about["pairs"], vectors)
        return distill(rows, self.held_out["validation"], *how)

    def run(self, block: Student, rows: pa.Table) -> dict[str, Any]:
        """Train once; return the rows that were used, the processor time, and what `measured` returns."""
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
        keep_freed_memory()  # as the train stage does
        used, _ = chosen_rows(rows, self.held_out["validation"], block, len(self.about["labels"]))
        started = time.process_time()
        student, history = self.trained(block, rows)
        seconds = time.process_time() - started
        return {"rows": used.num_rows, "cpu_seconds": seconds, **self.measured(student, history)}

    def measured(self, student: TrainedStudent, history: Sequence[Epoch]) -> dict[str, Any]:
        """Return the epoch, and of each held-out split the wrong rows and the agreement with the teacher, as JSON."""
        found: dict[str, Any] = {"epoch": best_of(history) + 1, "epochs": len(history)}
        for split, rows in self.held_out.items():
            sides = ("sentence1", "sentence2") if self.about["pairs"] else ("sentence1",)
            predicted = student.predict_columns(*(rows[side] for side in sides)).argmax(axis=-1)
            found[split] = {
                "wrong": np.flatnonzero(predicted != rows["label"].to_numpy()).tolist(),
                "agreement": float((predicted == self._of_teacher(rows)).mean()),
            }
        return found

    @property
    def accuracy(self) -> dict[str, float]:
        """The teacher's accuracy on each held-out split."""
        return {
            split: float((self._of_teacher(rows) == rows["label"].to_numpy()).mean())
            for split, rows in self.held_out.items()
        }

    def _of_teacher(self, rows: pa.Table) -> npt.NDArray[np.int64]:
        found: npt.NDArray[np.int64] = finite_logits(rows, len(self.about["labels"])).argmax(axis=-1)
        return found


class Run(NamedTuple):
    """A run of a line of the table."""

    line: str
    """The name of the line; it has one run for each seed."""
    facts: dict[str, Any]
    """What the run depends on in addition to `Task.facts`, as JSON."""
    make: Callable[[], dict[str, Any]]
    """Trains, and returns what `Task.run` returns."""


def options_of(doc: str | None, into: str, epochs: int) -> argparse.ArgumentParser:
    """Return a parser with the options that all scripts have.

    :param into: The default folder of the runs.
    :param epochs: The default number of epochs.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("student")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=epochs, help="the most epochs of a run")
    parser.add_argument("--patience", type=int, default=2, help="epochs without a better one after which a run ends")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time, one thread each")
    parser.add_argument("--into", type=Path, default=Path(into), help="the folder of the runs")
    parser.add_argument("--json", type=Path)
    return parser


def show(asked: argparse.Namespace, task: Task, runs: Sequence[Run]) -> None:
    """Make the runs that have no file yet, in their order, print the table, and write the JSON file if --json is given."""
    common_facts = task.facts

    def path(run: Run) -> Path:
        facts = json.dumps({**common_facts, **run.facts}, sort_keys=True)
        into: Path = asked.into
        return into / f"{task.name}-{task.student}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}.json"

    missing = [run for run in runs if not path(run).exists()]
    asked.into.mkdir(parents=True, exist_ok=True)
    joblib.Parallel(n_jobs=asked.jobs)(joblib.delayed(_make)(run, path(run)) for run in missing)
    lines: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        lines.setdefault(run.line, []).append(read_json(path(run))["found"])
    results = summary(lines, {split: rows.num_rows for split, rows in task.held_out.items()})
    if asked.json:
        blocks = {run.line: run.facts for run in reversed(runs)}
        facts = {"task": task.name, "seeds": asked.seeds, "teacher": task.accuracy, "runs": blocks, "results": results}
        write_json(asked.json, {"machine": common.machine(PACKAGES), **common.rounded(facts)})
    teacher = ", ".join(f"{split} {100 * value:.1f}" for split, value in task.accuracy.items())
    print(f"teacher: {teacher}\n\n{table(results)}")


def _make(run: Run, out: Path) -> None:
    write_json(out, {"line": run.line, "facts": run.facts, "found": run.make()})


def hits(runs: Sequence[dict[str, Any]], split: str, rows: int) -> npt.NDArray[np.bool_]:
    """Return whether each row of a split is right in each run, [runs, rows]."""
    right = np.ones((len(runs), rows), np.bool_)
    for number, one in enumerate(runs):
        right[number, one[split]["wrong"]] = False
    return right


def summary(lines: Mapping[str, Sequence[dict[str, Any]]], rows: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the figures of each line of the table, with intervals over seeds and rows. Differences from the first line are paired by row.

    :param lines: The runs of each line, as `Task.run` returns them.
    :param rows: The number of rows of each held-out split.
    """
    found = []
    first = next(iter(lines.values()))
    for name, runs in lines.items():
        facts: dict[str, Any] = {"line": name, "rows": runs[0]["rows"]}
        facts["epochs kept"] = [one["epoch"] for one in runs]
        if "cpu_seconds" in runs[0]:
            facts["cpu_seconds"] = float(np.mean([one["cpu_seconds"] for one in runs]))
        for split in HELD_OUT:
            right, before = (hits(some, split, rows[split]) for some in (runs, first))
            drawn = bootstrap.over_seeds_and_rows(np.stack([before, right]))
            facts[split] = {
                "accuracies": right.mean(axis=1).tolist(),
                "interval": bootstrap.ends(drawn[:, 1]),
                "over the first": [float(right.mean() - before.mean()), *bootstrap.ends(drawn[:, 1] - drawn[:, 0])],
                "agreement": float(np.mean([one[split]["agreement"] for one in runs])),
            }
        found.append(facts)
    return found


def table(results: Sequence[dict[str, Any]]) -> str:
    """Return the figures as a Markdown table, accuracies in percent."""
    heads = ["", "rows", "validation", "test", "test by seed", "agreement on test"]
    lines = [[*heads, *(f"{split}, over the first" for split in HELD_OUT)]]
    for number, each in enumerate(results):
        cells = [each["line"], f"{each['rows']:,}"]
        for split in HELD_OUT:
            low, high = each[split]["interval"]
            mean = float(np.mean(each[split]["accuracies"]))
            cells.append(f"{100 * mean:.1f} ({100 * low:.1f} to {100 * high:.1f})")
        seeds = ", ".join(f"{100 * value:.1f}" for value in each["test"]["accuracies"])
        cells += [seeds, f"{100 * each['test']['agreement']:.1f}"]
        for split in HELD_OUT:
            gain, low, high = (100 * value for value in each[split]["over the first"])
            cells.append(f"{gain:+.1f} ({low:+.1f} to {high:+.1f})" if number else "")
        lines.append(cells)
    return aligned(lines)
