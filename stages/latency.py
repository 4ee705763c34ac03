"""Time a task's shipped students and their teachers on this machine: data/TASK/results/latency.json, which the result table shows.

This is not a stage of dvc.yaml, because times depend on the machine: run it on the target machine while nothing else runs. It loads the
teacher, so that one run measures all.
"""

import logging
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from pipeline.console import run_stage
from pipeline.labelling import direct
from pipeline.logits import dataset
from pipeline.machine.threads import cores
from pipeline.params import project
from pipeline.serving import latency
from pipeline.storage import write_json

logger = logging.getLogger("pipeline.stages")


def main(task: str) -> None:
    """Read data/TASK/artefacts, teachers and targets, write the times with one thread and with all."""
    from pipeline.teacher.model import quieten
    from pipeline.teacher.recorded import open_recorded

    quieten()
    settings = project.load(task)
    data = Path("data") / task
    students = latency.exported(task, data, settings.students)
    names = sorted({teacher for name in students for teacher in settings.students[name].teachers})
    targets = data / "targets" / students[0]  # all students have the same originals
    about = dataset.provenance(targets)
    texts = _texts(targets, about["pairs"])
    found = {}
    for threads in sorted({1, cores()}):
        with latency.threads_limited(threads):
            contenders = {}
            for name in names:
                teacher, _ = open_recorded((data / "teachers" / name).resolve(), about["labels"])
                contenders[f"{name} teacher"] = direct.as_function(teacher, settings.teacher(name).label.max_length)
            for name in students:
                for kind, predict in latency.of_student(data / "artefacts" / name, threads).items():
                    contenders[f"{name} {kind}"] = predict
            measured = latency.measure(contenders, texts)
        by_name: dict[str, dict[str, dict[str, float]]] = {}
        for key, times in measured.items():
            name, kind = key.rsplit(" ", 1)
            by_name.setdefault(name, {})[kind] = {what: round(value, 4) for what, value in times.items()}
            single, rate = times["p50 ms"], times["texts per second"]
            logger.info(
                "%d thread(s), %s: %.3f ms per single text, %.0f texts/s in batches", threads, key, single, rate
            )
        found[str(threads)] = by_name
    write_json(data / "results" / "latency.json", {"texts": len(texts), "threads": found})


def _texts(folder: Path, pairs: bool) -> list[str] | list[tuple[str, str]]:
    """Return up to BATCH original texts of the last split, evenly spaced."""
    split = list(dataset.provenance(folder)["rows"])[-1]
    rows = dataset.read_split(folder, split, ("sentence1", "sentence2", "parent_id"))
    rows = rows.filter(pc.is_null(rows["parent_id"]))
    rows = rows.take(np.unique(np.linspace(0, rows.num_rows - 1, latency.BATCH).astype(np.int64)))
    first, second = rows["sentence1"].to_pylist(), rows["sentence2"].to_pylist()
    return list(zip(first, second, strict=True)) if pairs else first


if __name__ == "__main__":
    run_stage(main, "task", threads=None)
