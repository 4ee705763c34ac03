"""Label every unique text with the teacher's logits: data/TASK/logits/TEACHER, data/TASK/results/label-TEACHER.json and a stamp.

Logits are cached per text in data/labelled: a killed run resumes, and no text is labelled twice. The stamp,
stamps/TASK/logits/TEACHER.json, belongs in Git.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.console import run_stage
from pipeline.labelling.stopwatch import Stopwatch
from pipeline.logits.note import NOTE, note_of
from pipeline.params import project
from pipeline.storage import remove_temporaries, skip, why_skipped, write_json, write_stamp

logger = logging.getLogger("pipeline.stages")


def main(task: str, name: str) -> None:
    """Read the task's examples, unlabelled text, augmented rows and teacher; write its logit data set and a summary."""
    data, stamps = Path("data") / task, Path("stamps") / task / "logits"
    out = data / "logits" / name
    if why := why_skipped(data / "teachers" / name):
        return skip(why, out, data / "results" / f"label-{name}.json", stamps / f"{name}.json")
    watch = Stopwatch("imports")
    # They import pyarrow, for which a skipped stage need not wait.
    from pipeline.labelling.rows import TaskRows
    from pipeline.labelling.store import writing
    from pipeline.logits import imported
    from pipeline.logits.doubts import log_doubts

    settings = project.load(task)
    how = settings.teacher(name).label
    if (note := note_of(data / "examples" / "examples.parquet")) is not None:
        summary = imported.place(note, name, out)
    else:
        with ThreadPoolExecutor(1, "read rows") as executor:  # while torch and transformers are imported
            reading = executor.submit(TaskRows.read, data, data / "augmented", data / "unlabelled")
            from pipeline.labelling.label import label_task

            watch("reading")  # what is left of it
            rows = reading.result()
        summary = label_task(data, name, rows, out, how, settings.tag.text, watch)
    watch("summary")
    with writing(data / "results"):
        remove_temporaries(data / "results", f"label-{name}.json")
        write_json(data / "results" / f"label-{name}.json", summary)
    with writing(stamps):  # a clone without the data set detects new logits by the stamp
        remove_temporaries(stamps, f"{name}.json")
        is_note = (out / NOTE).exists()
        write_stamp(stamps / f"{name}.json", out / (NOTE if is_note else "manifest.json"))
    if not is_note:
        log_doubts(out, name)
        logger.info("seconds: %s", watch)


if __name__ == "__main__":
    run_stage(main, "task", "teacher", resumes=True, threads=None)
