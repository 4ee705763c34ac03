"""Differences, and the format that others read."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import ablation

from pipeline.ablation import results
from pipeline.ablation.cells import Tables
from pipeline.ablation.params import Ablation, Cell
from pipeline.errors import InputError


@pytest.fixture
def finished(where: Tables, trained: Path) -> tuple[Path, Path, Ablation]:
    return trained, where.labelled, ablation()


def test_the_json_is_as_agreed(finished: tuple[Path, Path, Ablation]):
    cells, labelled, asked = finished
    measured = results.measure(cells, labelled, asked, "test")
    found = results.summary(measured, cells, asked)
    assert json.loads(json.dumps(found)) == found
    assert list(found) == ["metric", "split", "teacher", "student", "cells"]
    assert (found["metric"], found["split"], found["student"]) == ("accuracy", "test", asked.student.model)
    assert 0.5 < found["teacher"] <= 1
    kinds = {
        "distilled": bool, "rules": str, "n_iter": int, "seeds": list, "scores": list, "mean": float, "low": float, "high": float, "rows": int,
    }  # fmt: skip
    for cell in found["cells"]:
        assert {key: type(value) for key, value in cell.items()} == kinds
        assert cell["low"] <= cell["mean"] <= cell["high"]
        assert cell["mean"] == pytest.approx(np.mean(cell["scores"]), abs=1e-6)
        result = json.loads(
            (cells / f"{Cell(cell['distilled'], cell['rules'], cell['n_iter']).name(1)}.json").read_text()
        )
        assert cell["scores"][1] == pytest.approx(1 - len(result["test"]["wrong"]) / result["test"]["rows"], abs=1e-6)
        assert cell["rows"] == result["rows"]
    drawn = [("none", 0), ("mask", 1), ("mask", 3), ("all", 2)]
    assert [(c["distilled"], c["rules"], c["n_iter"]) for c in found["cells"]] == [
        (distilled, *each) for distilled in (False, True) for each in drawn
    ]


def test_every_curve_starts_without_augmentation(finished: tuple[Path, Path, Ablation]):
    cells, labelled, asked = finished
    found = results.summary(results.measure(cells, labelled, asked, "test"), cells, asked)
    rows = list(csv.DictReader(io.StringIO(results.curves(found))))
    for labels in ("gold labels", "teacher's logits"):
        for name, numbers in (("mask", ["0", "1", "3"]), ("all", ["0", "2"])):
            curve = [row for row in rows if (row["rules"], row["labels"]) == (name, labels)]
            assert [row["n_iter"] for row in curve] == numbers
            none = next(c for c in found["cells"] if c["n_iter"] == 0 and c["distilled"] == (labels != "gold labels"))
            assert float(curve[0]["accuracy"]) == none["mean"]
    assert len(rows) == 10


def test_the_table_has_the_differences(finished: tuple[Path, Path, Ablation]):
    cells, labelled, asked = finished
    measured = [results.measure(cells, labelled, asked, split) for split in ("validation", "test")]
    found = results.summary(measured[-1], cells, asked)
    lines = results.table(measured, found).strip().splitlines()[2:]
    assert len(lines) == 2 + 8
    columns = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    by_cell = {tuple(row[:3]): row for row in columns[2:]}
    plain, cell = by_cell["gold", "none", "0"], by_cell["teacher's logits", "mask", "3"]
    assert plain[-2:] == ["", ""]
    base = next(c for c in found["cells"] if c["distilled"] and c["rules"] == "none")
    mine = next(c for c in found["cells"] if c["distilled"] and (c["rules"], c["n_iter"]) == ("mask", 3))
    assert float(cell[-2].split()[0]) == pytest.approx(100 * (mine["mean"] - base["mean"]), abs=0.051)


def test_a_missing_result_is_one_line(finished: tuple[Path, Path, Ablation]):
    cells, labelled, asked = finished
    (cells / "hard-none-0-seed1.json").unlink()
    with pytest.raises(InputError, match=r"hard-none-0-seed1.json: no such file; run `dvc repro ablation/dvc.yaml`"):
        results.measure(cells, labelled, asked, "test")


def test_a_result_of_other_rows_is_refused(finished: tuple[Path, Path, Ablation]):
    cells, labelled, asked = finished
    path = cells / "hard-none-0-seed1.json"
    found = json.loads(path.read_text())
    found["test"]["wrong"] = ["0" * 32]
    path.write_text(json.dumps(found))
    with pytest.raises(InputError, match=r"names rows that .* does not hold"):
        results.measure(cells, labelled, asked, "test")
