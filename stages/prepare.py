"""Read the task's text, check every row, split it: data/TASK/examples, data/TASK/source and data/TASK/results/prepare.json."""

from pathlib import Path

from pipeline import storage, tables
from pipeline.console import run_stage
from pipeline.logits import imported
from pipeline.params import project
from pipeline.text import preparation, sources


def main(task: str) -> None:
    """Write the examples, their source and the row report; write nothing if a row is refused."""
    settings = project.load(task)
    text, folder = settings.task.text, Path("data", task)
    if text.source.logits is not None:
        examples, about = imported.examples(task, text, settings.tag.text)
        report, metrics = {"imported": text.source.logits}, {"read": examples.num_rows}
    else:
        read, provenance = sources.read(text.source, text.columns, scratch=Path())
        examples, found = preparation.prepare(read, text, settings.tag.text)
        pairs = text.columns.sentence2 is not None
        about = {"task": task, "labels": text.labels, "pairs": pairs, "source": provenance}
        report, metrics = found.as_json(), found.metrics()
    with storage.new_folder(folder / "examples") as rows, storage.new_folder(folder / "source") as source:
        tables.write_examples(rows, source, examples, about)
        storage.write_json(source / "rows.json", report)
    storage.write_json(folder / "results" / "prepare.json", metrics)


if __name__ == "__main__":
    run_stage(main, "task")
