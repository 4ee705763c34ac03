"""Train a student from the logit files alone.

python stages/train.py TASK STUDENT

A run that was killed goes on after its last epoch, from data/TASK/students/STUDENT.tmp-checkpoint.safetensors.
"""

from pathlib import Path

from pipeline import ensemble, params, storage
from pipeline.console import run_stage
from pipeline.distill import COLUMNS, curve, distill
from pipeline.vectors import read_vectors


def main(task: str, student: str) -> None:
    """Read data/TASK/logits and data/TASK/vectors, write data/TASK/students/STUDENT and its curve."""
    settings = params.load(task).student(student)
    data = Path("data") / task
    folders = {data / "logits" / teacher: weight for teacher, weight in settings.teachers.items()}
    about = ensemble.provenance(list(folders))
    checkpoint = data / "students" / f"{student}.tmp-checkpoint.safetensors"
    storage.remove_temporaries(checkpoint.parent, checkpoint.name)
    trained, history = distill(
        ensemble.read_split(folders, "train", COLUMNS, settings.average),
        ensemble.read_split(folders, "validation", COLUMNS, settings.average),
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
