"""Gather what a student learns from, its soft targets: its teacher's logits, or the average of several teachers'.

python stages/gather.py TASK STUDENT

A stage of its own because DVC cannot say which teachers a student has: this one reads from the folder of all, and what comes after it
depends on what the student has alone. No weights are read, and nothing is computed for a single teacher.
"""

from pathlib import Path

from pipeline.console import run_stage
from pipeline.logits.gather import gather
from pipeline.params import project


def main(task: str, student: str) -> None:
    """Read data/TASK/logits, write data/TASK/targets/STUDENT, a logit data set."""
    how = project.load(task).student(student)
    data = Path("data") / task
    folders = {data / "logits" / teacher: weight for teacher, weight in how.teachers.items()}
    gather(folders, data / "targets" / student, how.average, originals=how.rows == "originals")


if __name__ == "__main__":
    run_stage(main, "task", "student")
