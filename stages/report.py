"""Write the report of a task: data/TASK/report/index.html, a page that needs no network, and data/TASK/report/summary.md.

It includes data/TASK/results/latency.json and data/TASK/results/ablation.json if they exist; run it again after they change.
"""

from pathlib import Path

import pyarrow as pa

from pipeline.console import run_stage
from pipeline.logits import dataset
from pipeline.params import project
from pipeline.report.ablation import read_ablation
from pipeline.report.answers import COLUMNS, answer
from pipeline.report.cautions import read_prepared
from pipeline.report.findings import Findings, read_curve
from pipeline.report.labelled import read
from pipeline.report.page import page
from pipeline.report.summary import summary
from pipeline.report.table import read_results, read_times
from pipeline.storage import need, new_folder

SEED, FAMILIES, COPIES = 0, 4, 5
"""The examples of augmentation: the seed of the draw, the number of originals, the number of copies of each."""


def main(task: str) -> None:
    """Read data/TASK/source, logits, targets, students and results, write data/TASK/report."""
    settings = project.load(task)
    data = Path("data") / task
    results = read_results(data / "results", settings.students)
    for name in results:
        need(data / "students" / name, f"train@{task}-{name}", f"{name} is not trained")
    asked = {name: settings.students[name] for name in results}
    teachers = list(dict.fromkeys(teacher for student in asked.values() for teacher in student.teachers))
    about = {teacher: dataset.provenance(data / "logits" / teacher) for teacher in teachers}
    labelled = {teacher: read(data / "logits" / teacher, FAMILIES, COPIES, SEED) for teacher in teachers}
    curves = {name: read_curve(data / "results" / "curves" / f"{name}.csv") for name in results}
    found = Findings(
        task=task,
        description=settings.task.description,
        labels=list(about[teachers[0]]["labels"]),
        results=results,
        settings=asked,
        answers={name: answer(data / "students" / name, read_rows(data / "targets" / name)) for name in results},
        provenance=about,
        times=read_times(data / "results"),
        curves={name: curve for name, curve in curves.items() if curve is not None},
        confidence={teacher: labelled[teacher].confidence for teacher in teachers},
        families=labelled[teachers[0]].families,
        ablation=read_ablation(data / "results"),
        metrics=settings.task.metrics,
        doubts={teacher: labelled[teacher].doubts for teacher in teachers},
        prepared=read_prepared(data / "source"),
    )
    with new_folder(data / "report") as folder:
        (folder / "index.html").write_text(page(found), encoding="utf-8", newline="\n")
        (folder / "summary.md").write_text(summary(found), encoding="utf-8", newline="\n")


def read_rows(targets: Path) -> dict[str, pa.Table]:
    """Return the validation and test rows on which a student is compared with its teachers, with their averaged logits."""
    splits = [split for split in dataset.provenance(targets)["rows"] if split != "train"]
    return {split: dataset.read_split(targets, split, COLUMNS) for split in splits}


if __name__ == "__main__":
    run_stage(main, "task")
