"""Measure a student, and its teachers from its soft targets, on validation and test."""

from pathlib import Path

from pipeline.console import run_stage
from pipeline.storage import need, skip, why_skipped, write_json


def main(task: str, student: str) -> None:
    """Read data/TASK/students/STUDENT and data/TASK/targets/STUDENT, write data/TASK/results/students/STUDENT.json."""
    data = Path("data") / task
    out = data / "results" / "students" / f"{student}.json"
    if why := why_skipped(data / "targets" / student):
        return skip(why, out)
    need(data / "students" / student, f"train@{task}-{student}", f"{student} is not trained")
    from pipeline.evaluation import evaluate  # torch, for which a skipped stage need not wait

    write_json(out, evaluate(data / "students" / student, data / "targets" / student))


if __name__ == "__main__":
    run_stage(main, "task", "student")
