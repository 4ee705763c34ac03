"""Train a student from the logit files alone.

python stages/train.py TASK STUDENT
"""

from pathlib import Path

from pipeline import logits, params, storage
from pipeline.console import run_stage
from pipeline.distill import COLUMNS, curve, distill
from pipeline.vectors import read_vectors


def main(task: str, student: str) -> None:
    """Read data/TASK/logits and data/TASK/vectors, write data/TASK/students/STUDENT and its curve."""
    settings = params.load(task).student(student)
    data = Path("data") / task
    folder = data / "logits" / settings.teacher
    about = logits.provenance(folder)
    trained, history = distill(
        logits.read_split(folder, "train", COLUMNS),
        logits.read_split(folder, "validation", COLUMNS),
        settings,
        labels=about["labels"],
        text=about["text"],
        pairs=about["pairs"],
        vectors=read_vectors(data / "vectors" / f"{settings.vectors}.parquet") if settings.vectors else None,
    )
    trained.save(data / "students" / student)
    storage.write_text(data / "results" / "curves" / f"{student}.csv", curve(history))


if __name__ == "__main__":
    run_stage(main, "task", "student")
