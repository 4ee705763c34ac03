from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.report.by_class import result_tables
from pipeline.report.table import result_table
from pipeline.storage import read_json, write_json


def scores(accuracy: float, **more: Any) -> dict:
    return {"accuracy": accuracy} | more


def of_classes(**f1: float) -> dict:
    """Return scores by class, with intervals of two points on both sides."""
    ends = (("", 0.0), (" low", -0.02), (" high", 0.02))
    listed = [
        {"class": name, "rows": 5, "precision": 0.5, "recall": None} | {f"f1{end}": f + more for end, more in ends}
        for name, f in f1.items()
    ]
    return {"classes": listed, "macro f1": sum(f1.values()) / len(f1)}


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def write_student(results: Path, name: str, accuracy: float, **more: Any) -> None:
    found = {
        "test": {"rows": 9, "student": scores(accuracy, agreement=0.9, **more), "teacher": scores(0.95)},
        "student": {"parameters": 1_000, "parameters without embeddings": 10, "bytes": 4_000_000},
        "teacher": {"name": "large", "parameters": None, "bytes": None},
    }
    write_json(results / "students" / f"{name}.json", found)


def change(results: Path, edit: Callable[[dict], object]) -> None:
    for path in (results / "students").glob("*.json"):
        found = read_json(path)
        edit(found)
        write_json(path, found)


def test_students_follow_their_teacher_the_best_first_with_known_intervals(tmp_path: Path):
    write_student(tmp_path, "old", 0.8)
    write_student(tmp_path, "new", 0.85, **{"accuracy low": 0.821, "accuracy high": 0.879})
    head, _, *rows = cells(result_table(tmp_path))
    assert head == ["", "test accuracy", "agreement", "parameters", "without embeddings", "MB"]
    assert rows == [
        ["large (teacher)", "95.0", "", "", "", ""],
        ["new", "85.0 (82.1 to 87.9)", "90.0", "1,000", "10", "4.0"],
        ["old", "80.0", "90.0", "1,000", "10", "4.0"],
    ]


@pytest.mark.parametrize("metrics", [["accuracy", "f1"], ["accuracy", "f1:spam"], ["accuracy", "f1", "f1:spam"]])
def test_the_column_of_f1_names_its_class(tmp_path: Path, metrics: list[str]):
    write_student(tmp_path, "a-seed0", 0.8, **of_classes(ham=0.9, spam=0.7))
    write_student(tmp_path, "a-seed1", 0.7, **of_classes(ham=0.9, spam=0.8))
    change(tmp_path, lambda found: found["test"]["teacher"].update(of_classes(ham=0.9, spam=0.5)))
    head, _, *rows = cells(result_table(tmp_path, metrics))
    assert head[:4] == ["", "test accuracy", "test F1 (spam)", "agreement"]
    assert [row[:4] for row in rows] == [
        ["large (teacher)", "95.0", "50.0 (48.0 to 52.0)", ""],
        ["a-seed0", "80.0", "70.0 (68.0 to 72.0)", "90.0"],
        ["a-seed1", "70.0", "80.0 (78.0 to 82.0)", "90.0"],
        ["a (mean of 2 seeds)", "75.0 ± 7.1", "75.0 ± 7.1", "90.0 ± 0.0"],
    ]


def test_f1_of_more_classes_is_their_mean_or_that_of_the_class_in_the_metric(tmp_path: Path):
    scores = of_classes(ham=0.9, spam=0.7, eggs=0.2)
    write_student(tmp_path, "a", 0.8, **scores)
    change(tmp_path, lambda found: found["test"]["teacher"].update(scores))
    head, _, *rows = cells(result_table(tmp_path, ["f1", "f1:eggs"]))
    assert head[1:4] == ["test accuracy", "test macro F1", "test F1 (eggs)"]  # students are ranked by accuracy
    assert {tuple(row[2:4]) for row in rows} == {("60.0", "20.0 (18.0 to 22.0)")}


def test_results_of_an_older_version_have_no_f1_of_classes(tmp_path: Path):
    write_student(tmp_path, "a", 0.8, f1=0.7)
    with pytest.raises(InputError, match="no F1 of each class; run `dvc repro`"):
        result_table(tmp_path, ["f1"])


def test_students_that_the_settings_no_longer_have_are_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for name in ("new", "old", "older"):
        write_student(tmp_path, name, 0.8)
    with caplog.at_level("INFO", "pipeline"):
        rows = cells(result_tables(tmp_path, ["accuracy"], ["new", "not yet evaluated"]))
    assert [row[0] for row in rows[2:] if len(row) > 1] == ["large (teacher)", "new"]
    assert [record.getMessage() for record in caplog.records] == ["ignored the results of removed students: old, older"]
    with pytest.raises(InputError, match="no results yet"):
        result_tables(tmp_path, ["accuracy"], ["not yet evaluated"])


def test_a_student_that_was_not_measured_on_the_last_split_is_the_last(tmp_path: Path):
    write_student(tmp_path, "a", 0.9)
    found = read_json(tmp_path / "students/a.json")
    found["validation"] = found.pop("test")
    write_json(tmp_path / "students/a.json", found)
    write_student(tmp_path, "b", 0.8)
    head, _, *rows = cells(result_table(tmp_path))
    assert head[:4] == ["", "validation accuracy", "test accuracy", "agreement"]
    assert [row[:4] for row in rows[1:]] == [["b", "", "80.0", "90.0"], ["a", "90.0", "", ""]]


def test_times_are_shown_where_they_were_measured(tmp_path: Path):
    for name, accuracy in (("a", 0.9), ("b", 0.8), ("c", 0.7)):
        write_student(tmp_path, name, accuracy)
    time = {"p50 ms": 0.25, "p99 ms": 1.0, "texts per second": 4321.0}
    slow = time | {"p50 ms": 12.0, "texts per second": 100.0}
    threads = {
        "1": {"large": {"teacher": slow}, "a": {"torch": slow, "onnx": time, "int8": slow}, "b": {"torch": slow}}
    }
    write_json(tmp_path / "latency.json", {"texts": 5, "threads": threads})
    head, _, *rows = cells(result_table(tmp_path))
    assert head[-2:] == ["p50 ms", "texts/s"]
    assert [row[-2:] for row in rows] == [["12.00", "100"], ["0.25", "4,321"], ["12.00", "100"], ["", ""]]


def test_seeds_of_a_student_have_a_row_with_mean_and_deviation(tmp_path: Path):
    for name, accuracy in (
        ("cnn-seed0", 0.8),
        ("cnn-seed1", 0.84),
        ("cnn-seed10", 0.85),
        ("other-seed0", 0.7),
        ("cnn", 0.5),
    ):
        write_student(tmp_path, name, accuracy)
    rows = cells(result_table(tmp_path))
    assert len(rows) == 2 + 1 + 5 + 1
    assert rows[-1] == ["cnn (mean of 3 seeds)", "83.0 ± 2.6", "90.0 ± 0.0", "", "", ""]


def test_without_results_the_error_names_the_command(tmp_path: Path):
    with pytest.raises(InputError, match="no results yet; run `dvc repro`"):
        result_table(tmp_path)
