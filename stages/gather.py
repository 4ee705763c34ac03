"""Gather what a student learns from, its soft targets: its teacher's logits, or the average of several teachers'.

DVC cannot express which teachers a student has. So this stage depends on the stamps of all logits, stamps/TASK/logits, and reads the data
sets of its teachers alone. No weights are read, and nothing is computed for a single teacher.
"""

from pathlib import Path

from pipeline.console import run_stage
from pipeline.params import project
from pipeline.storage import check_stamp, skip


def main(task: str, student: str) -> None:
    """Read data/TASK/logits, write data/TASK/targets/STUDENT, a logit data set."""
    settings = project.load(task)
    data = Path("data") / task
    if why := settings.off.get(f"students.{student}"):
        return skip(why, data / "targets" / student)
    from pipeline.logits.gather import gather  # here, so that a skipped stage need not wait for it
    from pipeline.logits.note import check_teachers, note_in

    how = settings.student(student)
    folders = {data / "logits" / teacher: weight for teacher, weight in how.teachers.items()}
    for folder in folders:
        check_stamp(Path("stamps") / task / "logits" / f"{folder.name}.json", f"dvc pull {folder.as_posix()}")
        if (note := note_in(folder)) is not None:
            check_teachers(note, task, student, how.teachers)
    gather(folders, data / "targets" / student, how.average, how.origins, how.min_confidence)


if __name__ == "__main__":
    run_stage(main, "task", "student")
