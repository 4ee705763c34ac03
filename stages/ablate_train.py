"""Train and measure the ablation's students: data/TASK/ablation/cells, a JSON file each.

It trains one student per GPU, or one per core without a GPU, at a time. A killed run resumes with the missing students.
"""

from pathlib import Path

from pipeline.ablation import params
from pipeline.console import run_stage
from pipeline.storage import SKIPPED, skip, why_skipped


def main(task: str) -> None:
    """Read data/TASK/ablation/{augmented,logits} and data/TASK/vectors, write data/TASK/ablation/cells."""
    data = Path("data") / task
    if why := why_skipped(data / "ablation" / "augmented"):
        return skip(why, data / "ablation" / "cells" / SKIPPED)  # next to the results of earlier runs, which it keeps
    from pipeline.ablation.cells import Tables, train_all  # torch, for which a skipped stage need not wait

    _, ablation = params.load(task)
    vectors = ablation.student.vectors
    path = data / "vectors" / f"{vectors}.parquet" if vectors else None
    where = Tables(data / "ablation" / "logits", data / "ablation" / "augmented", path)
    train_all(where, ablation, data / "ablation" / "cells")


if __name__ == "__main__":
    run_stage(main, "task", resumes=True)
