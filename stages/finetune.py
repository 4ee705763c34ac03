"""Train the teacher's classifier on the task, or record the one it brings: data/TASK/teachers/TEACHER.

python stages/finetune.py TASK TEACHER
"""

from pathlib import Path

from pipeline import params, tables
from pipeline.console import run_stage
from pipeline.storage import new_folder
from pipeline.teacher.finetune import make_teacher


def main(task: str, name: str) -> None:
    """Write teacher.json, and the fine-tuned classifier where the teacher has `finetune`."""
    model = params.load(task).teacher(name).model
    data = Path("data") / task
    path = data / "examples" / "examples.parquet"
    examples = tables.read(path, tables.EXAMPLES)
    with new_folder(data / "teachers" / name) as folder:
        make_teacher(model, examples, tables.metadata_of(path)["labels"], folder)


if __name__ == "__main__":
    run_stage(main, "task", "teacher")
