"""Read the task's text, check every row, split it: data/TASK/examples and data/TASK/results/prepare.json.

python stages/prepare.py TASK
"""

from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import storage, tables
from pipeline.console import run_stage
from pipeline.logits import imported
from pipeline.params import project
from pipeline.text import preparation, sources


def main(task: str) -> None:
    """Write the task's examples and the report on its rows; nothing if a row is refused."""
    settings = project.load(task)
    text, folder = settings.task.text, Path("data", task)
    if text.source.logits is not None:
        examples, metadata = imported.examples(task, text, settings.tag.text)
        _write(folder, examples, metadata, {"imported": text.source.logits}, {"read": examples.num_rows})
        return
    rows, provenance = sources.read(text.source, text.columns)
    examples, report = preparation.prepare(rows, text, settings.tag.text)
    metadata = {
        "task": task,
        "labels": text.labels,
        "pairs": text.columns.sentence2 is not None,
        "splits": dict(text.splits),
        "source": provenance,
        "rows": examples.num_rows,
    }
    _write(folder, examples, metadata, report.as_json(), report.metrics())


def _write(
    folder: Path, examples: pa.Table, metadata: dict[str, Any], report: dict[str, Any], metrics: dict[str, Any]
) -> None:
    with storage.new_folder(folder / "examples") as temporary:
        tables.write(temporary / "examples.parquet", examples, metadata)
        storage.write_json(temporary / "report.json", report)
    storage.write_json(folder / "results" / "prepare.json", metrics)


if __name__ == "__main__":
    run_stage(main, "task")
