"""Summarise the ablation's results: data/TASK/results/ablation.json, ablation.md and ablation.csv."""

from pathlib import Path

from pipeline.ablation import params, results
from pipeline.console import run_stage, write
from pipeline.errors import InputError
from pipeline.evaluation import SPLITS
from pipeline.storage import skip, why_skipped, write_json, write_text


def main(task: str) -> None:
    """Read data/TASK/ablation/{cells,logits}; write the results on test, or on validation where test has no labels; print the table."""
    data = Path("data") / task
    if why := why_skipped(data / "ablation" / "logits"):
        skip(why, data / "results" / "ablation.json", data / "results" / "ablation.md", text=f"No ablation: {why}\n")
        return write_text(data / "results" / "ablation.csv", results.curves({"cells": []}))
    _, ablation = params.load(task)
    cells, labelled = data / "ablation" / "cells", data / "ablation" / "logits"
    measured = [found for split in SPLITS if (found := results.measure(cells, labelled, ablation, split))]
    if not measured:
        raise InputError(f"{labelled}: no validation or test row has a label, so there is nothing to compare")
    summary = results.summary(measured[-1], cells, ablation)
    table = results.table(measured, summary)
    write_text(data / "results" / "ablation.md", table)
    write_text(data / "results" / "ablation.csv", results.curves(summary))
    write_json(data / "results" / "ablation.json", summary)
    write(table)


if __name__ == "__main__":
    run_stage(main, "task")
