"""Measure a student, and its teacher from the stored logits, on validation and test.

python stages/evaluate.py TASK STUDENT
"""

from pathlib import Path

from pipeline import params
from pipeline.console import run_stage
from pipeline.evaluation import evaluate
from pipeline.storage import write_json


def main(task: str, student: str) -> None:
    """Read data/TASK/students/STUDENT and its teacher's logits, write data/TASK/results/students/STUDENT.json."""
    teacher = next(iter(params.load(task).student(student).teachers))  # of several, the one named first
    data = Path("data") / task
    found = evaluate(data / "students" / student, data / "logits" / teacher)
    write_json(data / "results" / "students" / f"{student}.json", found)


if __name__ == "__main__":
    run_stage(main, "task", "student")
