"""Draw n_iter copies of each training example with the augmentation rules.

python stages/augment.py TASK
"""

import re
from pathlib import Path

from pipeline import params
from pipeline.augment import engine
from pipeline.console import run_stage
from pipeline.storage import write_json, write_text


def main(task: str) -> None:
    """Read data/TASK/tokens, write data/TASK/augmented and its summary."""
    data = Path("data") / task
    settings = params.load(task)
    file = settings.file_of("augment", "rules")
    summary = engine.augment(data / "tokens", data / "augmented", settings.augment, file=file)
    write_json(data / "results" / "augment.json", summary)
    kept = summary["kept per example by words"]
    # The plot sorts its bars as text: with 01-02 and 03-05 that is the order of the numbers.
    bars = {re.sub(r"\d+", lambda number: number[0].zfill(2), words): copies for words, copies in kept.items()}
    lines = [f"{words},{copies}\n" for words, copies in bars.items()]
    write_text(data / "results" / "curves" / "copies-kept.csv", "words,copies kept\n" + "".join(lines))


if __name__ == "__main__":
    run_stage(main, "task")
