"""The result of an ablation: accuracies with confidence intervals, and the gain of each ingredient."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ablation.params import NONE, Ablation, Cell
from pipeline.errors import InputError
from pipeline.evaluation import DIGITS
from pipeline.logits.dataset import read_labelled
from pipeline.logits.markdown import aligned
from pipeline.logits.shards import finite_logits
from pipeline.metrics.bootstrap import LEVEL, ends, over_seeds_and_rows
from pipeline.storage import read_json

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """The scores of k cells on one split, validation or test."""

    split: str
    cells: list[Cell]
    scores: Doubles
    """Accuracy of each student, [k, S]."""
    draws: Doubles
    """From `over_seeds_and_rows`, [DRAWS, k]."""
    teacher: float
    """The teacher's accuracy."""

    def difference(self, cell: Cell, base: Cell) -> tuple[float, float, float]:
        """Return the difference between a cell and the one that it is compared with, and the ends of its interval."""
        i, j = self.cells.index(cell), self.cells.index(base)
        low, high = ends(self.draws[:, i] - self.draws[:, j])
        return float(self.scores[i].mean() - self.scores[j].mean()), low, high


def measure(results: Path, labelled: Path, settings: Ablation, split: str) -> Measured | None:
    """Read which rows the students get wrong on a split; None where no row of the split has a gold label.

    :param results: The folder that `cells.train_all` wrote.
    :param labelled: The union's logit data set.
    :raises InputError: If a result is missing, or belongs to other rows.
    """
    rows = read_labelled(labelled, split, ("id", "label", "logits"))
    if rows is None:
        return None
    ids = rows["id"].combine_chunks()
    right = np.ones((len(settings.cells), len(settings.seeds), len(ids)), np.bool_)
    for i, cell in enumerate(settings.cells):
        for j, seed in enumerate(settings.seeds):
            path = results / f"{cell.name(seed)}.json"
            wrong = pa.array(_result(path)[split]["wrong"], pa.string())
            right[i, j] = ~pc.is_in(ids, value_set=wrong).to_numpy(zero_copy_only=False)
            if len(ids) - right[i, j].sum() != len(wrong):
                raise InputError(
                    f"{path}: names rows that {labelled} does not hold; run `dvc repro --force --single-item` on its stage"
                )
    logits = finite_logits(rows, rows["logits"].type.list_size)
    teacher = float((logits.argmax(-1) == rows["label"].to_numpy()).mean())
    return Measured(split, settings.cells, right.mean(axis=-1), over_seeds_and_rows(right), teacher)


def _result(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = read_json(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; run `dvc repro ablation/dvc.yaml`") from error
    return found


def summary(measured: Measured, results: Path, settings: Ablation) -> dict[str, Any]:
    """Return the result on a split as JSON.

    :param results: The folder that `cells.train_all` wrote.
    :return: metric, split, teacher (its accuracy), student (its import path), and for each cell distilled, rules, n_iter, seeds, scores (one a
        seed), their mean, the ends `low` and `high` of its interval, and the rows that were trained on.
    """
    cells = []
    for i, cell in enumerate(measured.cells):
        scores = [round(score, DIGITS) for score in measured.scores[i].tolist()]
        numbers = (float(measured.scores[i].mean()), *ends(measured.draws[:, i]))
        rounded = {name: round(value, DIGITS) for name, value in zip(("mean", "low", "high"), numbers, strict=True)}
        rows = _result(results / f"{cell.name(settings.seeds[0])}.json")["rows"]
        cells.append({**asdict(cell), "seeds": list(settings.seeds), "scores": scores, **rounded, "rows": rows})
    return {
        "metric": "accuracy",
        "split": measured.split,
        "teacher": round(measured.teacher, DIGITS),
        "student": settings.student.model,
        "cells": cells,
    }


def curves(found: dict[str, Any]) -> str:
    """Return a `summary` as CSV for `dvc plots`: accuracy against n_iter; each rule set's curve starts at 0, without augmentation."""
    sets = list(dict.fromkeys(cell["rules"] for cell in found["cells"] if cell["rules"] != NONE))
    lines = ["n_iter,accuracy,low,high,rules,labels"]
    for cell in found["cells"]:
        labels = "teacher's logits" if cell["distilled"] else "gold labels"
        for name in sets if cell["rules"] == NONE else [cell["rules"]]:
            lines.append(f"{cell['n_iter']},{cell['mean']},{cell['low']},{cell['high']},{name},{labels}")
    return "\n".join(lines) + "\n"


def table(measured: Sequence[Measured], found: dict[str, Any]) -> str:
    """Return the accuracies on each split, and the differences on the last one, whose `summary` is given, as a Markdown table."""
    last = measured[-1]
    seeds = len(found["cells"][0]["seeds"])
    heads = [f"{each.split} accuracy" for each in measured]
    rows = [["labels", "rules", "n_iter", "rows", *heads, "over no augmentation", "over gold labels"]]
    for i, cell in enumerate(last.cells):
        shown = [_shown(each.scores[i].mean(), *ends(each.draws[:, i])) for each in measured]
        plain, hard = Cell(cell.distilled, NONE, 0), Cell(False, cell.rules, cell.n_iter)
        gains = [_shown(*last.difference(cell, base), sign="+") if base != cell else "" for base in (plain, hard)]
        labels = "teacher's logits" if cell.distilled else "gold"
        rows.append([labels, cell.rules, str(cell.n_iter), f"{found['cells'][i]['rows']:,}", *shown, *gains])
    teachers = ", ".join(f"{each.split} {100 * each.teacher:.1f}" for each in measured)
    return (
        f"Means over {seeds} seed{'s' * (seeds > 1)}, in percent; in brackets {LEVEL:.0%} intervals over seeds and rows. The last two columns are "
        f"differences on {last.split}, paired by row. The teacher: {teachers}.\n\n{aligned(rows)}\n"
    )


def _shown(value: float, low: float, high: float, sign: str = "") -> str:
    shown = [f"{round(100 * number, 1) + 0.0:{sign}.1f}" for number in (value, low, high)]  # + 0.0: no negative zero
    return f"{shown[0]} ({shown[1]} to {shown[2]})"
