"""Read the task's text, check every row, split it: data/TASK/examples and data/TASK/results/prepare.json.

python stages/prepare.py TASK
"""

from pathlib import Path

from pipeline import params, preparation, sources, storage, tables
from pipeline.console import run_stage


def main(task: str) -> None:
    """Write the task's examples and the report on its rows; nothing if a row is refused."""
    text = params.load(task).task.text
    rows, provenance = sources.read(text.source, text.columns)
    examples, report = preparation.prepare(rows, text)
    metadata = {
        "task": task,
        "labels": text.labels,
        "pairs": text.columns.sentence2 is not None,
        "splits": dict(text.splits),
        "source": provenance,
        "rows": examples.num_rows,
    }
    folder = Path("data", task)
    with storage.new_folder(folder / "examples") as temporary:
        tables.write(temporary / "examples.parquet", examples, metadata)
        storage.write_json(temporary / "report.json", report.as_json())
    storage.write_json(folder / "results" / "prepare.json", report.metrics())


if __name__ == "__main__":
    run_stage(main, "task")
