from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.report.table import result_table
from pipeline.storage import read_json, write_json


def scores(accuracy: float, **more: float) -> dict:
    return {"accuracy": accuracy, "f1": 0.5} | more


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def write_student(results: Path, name: str, accuracy: float, **more: float) -> None:
    found = {
        "test": {"rows": 9, "student": scores(accuracy, agreement=0.9, **more), "teacher": scores(0.95)},
        "student": {"parameters": 1_000, "parameters without embeddings": 10, "bytes": 4_000_000},
        "teacher": {"name": "large", "parameters": None, "bytes": None},
    }
    write_json(results / "students" / f"{name}.json", found)


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


def test_a_task_can_have_f1_next_to_accuracy_which_ranks_students(tmp_path: Path):
    write_student(tmp_path, "a-seed0", 0.8, f1=0.7, **{"f1 low": 0.65, "f1 high": 0.75})
    write_student(tmp_path, "a-seed1", 0.7, f1=0.8)
    head, _, *rows = cells(result_table(tmp_path, ["accuracy", "f1"]))
    assert head[:4] == ["", "test accuracy", "test f1", "agreement"]
    assert [row[:4] for row in rows] == [
        ["large (teacher)", "95.0", "50.0", ""],
        ["a-seed0", "80.0", "70.0 (65.0 to 75.0)", "90.0"],
        ["a-seed1", "70.0", "80.0", "90.0"],
        ["a (mean of 2 seeds)", "75.0 ± 7.1", "75.0 ± 7.1", "90.0 ± 0.0"],
    ]


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
