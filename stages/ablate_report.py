"""Put the ablation's results together: data/TASK/results/ablation.json, ablation.md and ablation.csv.

python stages/ablate_report.py TASK
"""

import sys
from pathlib import Path

from pipeline.ablation import params, results
from pipeline.console import run_stage
from pipeline.errors import InputError
from pipeline.evaluation import SPLITS
from pipeline.storage import write_json, write_text


def main(task: str) -> None:
    """Read data/TASK/ablation/{cells,logits}; write the results, of the test split where it has labels; print the table."""
    _, ablation = params.load(task)
    data = Path("data") / task
    cells, labelled = data / "ablation" / "cells", data / "ablation" / "logits"
    splits = [results.measure(cells, labelled, ablation, split) for split in SPLITS]
    measured = [each for each in splits if each is not None]
    if not measured:
        raise InputError(f"{labelled}: neither validation nor test rows have labels, so nothing can be compared")
    found = results.summary(measured[-1], cells, ablation)
    table = results.table(measured, found)
    write_text(data / "results" / "ablation.md", table)
    write_text(data / "results" / "ablation.csv", results.curves(found))
    write_json(data / "results" / "ablation.json", found)
    sys.stdout.write(table)


if __name__ == "__main__":
    run_stage(main, "task")
