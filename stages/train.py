"""Train a student from its soft targets alone.

python stages/train.py TASK STUDENT

A run that was killed goes on after its last epoch, from data/TASK/students/STUDENT.tmp-checkpoint.safetensors.
"""

from pathlib import Path

from pipeline import logits, params, storage
from pipeline.console import run_stage
from pipeline.distill import COLUMNS, curve, distill
from pipeline.vectors import read_vectors


def main(task: str, student: str) -> None:
    """Read data/TASK/targets/STUDENT and data/TASK/vectors, write data/TASK/students/STUDENT and its curve."""
    settings = params.load(task).student(student)
    data = Path("data") / task
    targets = data / "targets" / student
    about = logits.provenance(targets)
    checkpoint = data / "students" / f"{student}.tmp-checkpoint.safetensors"
    storage.remove_temporaries(checkpoint.parent, checkpoint.name)
    trained, history = distill(
        logits.read_split(targets, "train", COLUMNS),
        logits.read_split(targets, "validation", COLUMNS),
        settings,
        labels=about["labels"],
        text=about["text"],
        pairs=about["pairs"],
        vectors=read_vectors(data / "vectors" / f"{settings.vectors}.parquet") if settings.vectors else None,
        checkpoint=checkpoint,
    )
    trained.save(data / "students" / student)
    storage.write_text(data / "results" / "curves" / f"{student}.csv", curve(history))
    checkpoint.unlink(missing_ok=True)


if __name__ == "__main__":
    run_stage(main, "task", "student")
