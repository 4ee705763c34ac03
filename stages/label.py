"""Label every unique text with the teacher's logits: data/TASK/logits/TEACHER and data/TASK/results/label-TEACHER.json.

python stages/label.py TASK TEACHER
"""

from pathlib import Path

from pipeline import logits, params, tables
from pipeline.console import run_stage
from pipeline.storage import write_json
from pipeline.teacher.label import label, length_limit, provenance, read_augmented
from pipeline.teacher.model import open_recorded


def main(task: str, name: str) -> None:
    """Read the task's examples, augmented rows and teacher; write its logit data set and a summary."""
    settings = params.load(task)
    how = settings.teacher(name).label
    data = Path("data") / task
    path = data / "examples" / "examples.parquet"
    examples, source = tables.read(path, tables.EXAMPLES), tables.metadata_of(path)
    augmented, augmentation = read_augmented(data / "augmented")
    teacher, record = open_recorded(data / "teachers" / name, source["labels"])
    splits, summary = label(teacher, examples, augmented, how)
    facts = provenance(
        source, augmentation, settings.tag.text, {"name": name, **record}, length_limit(teacher, how), how.dtype
    )
    logits.write(data / "logits" / name, splits, facts)
    write_json(data / "results" / f"label-{name}.json", summary)


if __name__ == "__main__":
    run_stage(main, "task", "teacher")
