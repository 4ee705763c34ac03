"""Label every text of the ablation once: data/TASK/ablation/logits.

python stages/ablate_label.py TASK

Logits are cached per text in data/labelled and shared with the label stage: a text that either has labelled is not labelled again.
"""

from pathlib import Path

from pipeline import tables
from pipeline.ablation import params, sets
from pipeline.console import run_stage
from pipeline.labelling.label import describe_data_set, label
from pipeline.labelling.labellers import Opening
from pipeline.labelling.rows import LabelRows, augmented_files
from pipeline.teacher.recorded import open_recorded


def main(task: str) -> None:
    """Read the task's examples, the union of its augmented rows and the teacher; write the union's logit data set."""
    settings, ablation = params.load(task)
    how = settings.teacher(ablation.teacher).label
    data = Path("data") / task
    examples, source = tables.read_examples(data / "examples", data / "source")
    files, augmentation = augmented_files(data / "ablation" / "augmented" / sets.UNION)
    folder = (data / "teachers" / ablation.teacher).resolve()
    teacher, record = open_recorded(folder, source["labels"])
    label(
        teacher,
        LabelRows.read(examples, files),
        how,
        stores=Path("data") / "labelled",
        out=data / "ablation" / "logits",
        about=describe_data_set(source, augmentation, settings.tag.text, {"name": ablation.teacher, **record}),
        opening=Opening(folder, tuple(source["labels"]), how),
    )


if __name__ == "__main__":
    run_stage(main, "task")
