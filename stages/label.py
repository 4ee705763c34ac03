"""Label every unique text with the teacher's logits: data/TASK/logits/TEACHER and data/TASK/results/label-TEACHER.json.

python stages/label.py TASK TEACHER

What the teacher said of each text is kept in data/labelled, so a run that was ended goes on, and a text is never labelled twice.
"""

from pathlib import Path

from pipeline import tables
from pipeline.console import run_stage
from pipeline.labelling.label import describe_data_set, label
from pipeline.labelling.labellers import Opening
from pipeline.labelling.rows import LabelRows, augmented_files
from pipeline.labelling.store import writing
from pipeline.logits import imported
from pipeline.logits.note import note_of
from pipeline.params import project
from pipeline.storage import remove_temporaries, write_json
from pipeline.teacher.recorded import open_recorded


def main(task: str, name: str) -> None:
    """Read the task's examples, augmented rows and teacher; write its logit data set and a summary."""
    settings = project.load(task)
    how = settings.teacher(name).label
    data = Path("data") / task
    path = data / "examples" / "examples.parquet"
    if (note := note_of(path)) is not None:
        write_json(data / "results" / f"label-{name}.json", imported.place(note, name, data / "logits" / name))
        return
    examples, source = tables.read_examples(path)
    files, augmentation = augmented_files(data / "augmented")
    folder = (data / "teachers" / name).resolve()
    teacher, record = open_recorded(folder, source["labels"])
    summary = label(
        teacher,
        LabelRows.read(examples, files),
        how,
        stores=Path("data") / "labelled",
        out=data / "logits" / name,
        about=describe_data_set(source, augmentation, settings.tag.text, {"name": name, **record}),
        opening=Opening(folder, tuple(source["labels"]), how),
    )
    results = data / "results"
    with writing(results):
        remove_temporaries(results, f"label-{name}.json")
        write_json(results / f"label-{name}.json", summary)


if __name__ == "__main__":
    run_stage(main, "task", "teacher")
