"""Read the task's text, check every row, split it: data/TASK/examples, data/TASK/source and data/TASK/results/prepare.json."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import storage, tables
from pipeline.console import run_stage
from pipeline.logits import imported
from pipeline.params import project
from pipeline.text import preparation, sources


def main(task: str) -> None:
    """Write the task's examples, where they come from and the report on the source's rows; nothing if a row is refused."""
    settings = project.load(task)
    text, folder = settings.task.text, Path("data", task)
    if text.source.logits is not None:
        examples, about = imported.examples(task, text, settings.tag.text)
        _write(folder, examples, about, {"imported": text.source.logits}, {"read": examples.num_rows})
        return
    rows, provenance = sources.read(text.source, text.columns)
    examples, report = preparation.prepare(rows, text, settings.tag.text)
    pairs = text.columns.sentence2 is not None
    about = {"task": task, "labels": text.labels, "pairs": pairs, "source": provenance}
    _write(folder, examples, about, report.as_json(), report.metrics())


def _write(
    folder: Path, examples: pa.Table, about: dict[str, Any], report: dict[str, Any], metrics: dict[str, Any]
) -> None:
    with storage.new_folder(folder / "examples") as rows, storage.new_folder(folder / "source") as source:
        tables.write_examples(rows, source, examples, about)
        storage.write_json(source / "rows.json", report)
    storage.write_json(folder / "results" / "prepare.json", metrics)


if __name__ == "__main__":
    run_stage(main, "task")
