"""Fine-tune the teacher's classifier, or record the existing one: data/TASK/teachers/TEACHER."""

from pathlib import Path

from pipeline import tables
from pipeline.console import run_stage
from pipeline.logits.note import NOTE, note_of, teacher_of
from pipeline.params import project
from pipeline.storage import new_folder, skip, write_json, write_stamp


def main(task: str, name: str) -> None:
    """Write teacher.json, and the fine-tuned classifier where the teacher has `finetune`."""
    settings = project.load(task)
    data, stamp = Path("data") / task, Path("stamps") / task / "teachers" / f"{name}.json"
    if why := settings.off.get(f"teachers.{name}"):
        return skip(why, data / "teachers" / name, stamp)
    # They import torch and transformers, for which a skipped stage need not wait.
    from pipeline.teacher.finetune import make_teacher
    from pipeline.teacher.recorded import RECORD

    model = settings.teacher(name).model
    note = note_of(data / "examples" / "examples.parquet")
    file = NOTE if note is not None and name != note["teacher"]["name"] else RECORD
    with new_folder(data / "teachers" / name) as folder:
        if note is not None:
            write_json(folder / file, teacher_of(note, name, settings.teachers))
        else:
            examples, about = tables.read_examples(data / "examples")
            make_teacher(model, examples, about["labels"], folder)
    write_stamp(stamp, data / "teachers" / name / file)


if __name__ == "__main__":
    run_stage(main, "task", "teacher", threads=None)
