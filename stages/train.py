"""Train a student from its soft targets alone.

A killed run resumes after its last epoch, from data/TASK/students/STUDENT.tmp-checkpoint.safetensors.
"""

from pathlib import Path

from pipeline import storage
from pipeline.console import run_stage
from pipeline.distill.epochs import curve
from pipeline.errors import InputError


def main(task: str, student: str) -> None:
    """Read data/TASK/targets/STUDENT and data/TASK/vectors, write data/TASK/students/STUDENT and its curve."""
    data = Path("data") / task
    targets, points = data / "targets" / student, data / "results" / "curves" / f"{student}.csv"
    if why := storage.why_skipped(targets):
        return storage.skip(why, data / "students" / student, points, text=curve([]))
    # They import torch, for which a skipped stage need not wait.
    from pipeline.distill.loop import distill
    from pipeline.logits import dataset
    from pipeline.logits.dataset import COLUMNS
    from pipeline.machine.memory import keep_freed_memory
    from pipeline.params import project
    from pipeline.vectors.table import read_vectors

    keep_freed_memory()
    block = project.load(task).student(student)
    storage.need(targets, f"gather@{task}-{student}")
    about = dataset.provenance(targets)
    checkpoint = data / "students" / f"{student}.tmp-checkpoint.safetensors"
    storage.remove_temporaries(checkpoint.parent, checkpoint.name)
    try:
        trained, history = distill(
            dataset.read_split(targets, "train", dataset.columns_of(about)),
            dataset.read_split(targets, "validation", COLUMNS),
            block,
            labels=about["labels"],
            text=about["text"],
            pairs=about["pairs"],
            vectors=read_vectors(data / "vectors" / f"{block.vectors}.parquet") if block.vectors else None,
            checkpoint=checkpoint,
        )
        trained.save(data / "students" / student)
    except InputError as error:
        raise InputError(f"students.{student}: {error}") from error
    storage.write_text(points, curve(history))
    checkpoint.unlink(missing_ok=True)


if __name__ == "__main__":
    run_stage(main, "task", "student", resumes=True)
