"""Read the task's text, check every row, split it: data/TASK/examples, data/TASK/source and data/TASK/results/prepare.json.

data/TASK/unlabelled has the unlabelled text; no rows for a task without.
"""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline import storage, tables
from pipeline.console import run_stage
from pipeline.logits import imported
from pipeline.params import project
from pipeline.text import preparation, sources, unlabelled


def main(task: str) -> None:
    """Write the examples, their source, the unlabelled text and the row report; write nothing if a row is refused."""
    settings = project.load(task)
    text, mode, folder = settings.task.text, settings.tag.text, Path("data", task)
    more, read_more = tables.UNLABELLED.empty_table(), None
    about_more: dict[str, Any] = {}
    report: dict[str, Any]
    if text.source.logits is not None:
        examples, about = imported.examples(task, text, mode)
        more, about_more = imported.unlabelled(text)
        report, metrics = {"imported": text.source.logits}, {"read": examples.num_rows}
    else:
        read, provenance = sources.read(text.source, text.columns, scratch=Path())
        if text.unlabelled is not None:
            read_more = unlabelled.read(text.unlabelled, scratch=Path())
        examples, found = preparation.prepare(read, text, mode)
        pairs = text.columns.sentence2 is not None
        about = {"task": task, "labels": text.labels, "pairs": pairs, "source": provenance}
        report, metrics = found.as_json(), found.metrics()
    with (
        storage.new_folder(folder / "examples") as rows,
        storage.new_folder(folder / "source") as source,
        storage.new_folder(folder / "unlabelled") as pool,
    ):
        tables.write_examples(rows, source, examples, about)
        if text.unlabelled is not None and read_more is not None:
            with pq.ParquetFile(rows / "examples.parquet") as file:
                own = unlabelled.Own.of(file.iter_batches(columns=["split", "sentence1", "sentence2"]), mode)
            prepared = unlabelled.prepare(read_more[0], text.unlabelled, text, mode, own, scratch=Path())
            more, about_more = prepared.rows, prepared.about(text.unlabelled, read_more[1])
            report["unlabelled text"] = prepared.report
            metrics["unlabelled text"] = {key: prepared.report[key] for key in ("read", "texts", "kept")}
        tables.write(pool / "unlabelled.parquet", more, about_more)
        storage.write_json(source / "rows.json", report)
    storage.write_json(folder / "results" / "prepare.json", metrics)


if __name__ == "__main__":
    run_stage(main, "task")
