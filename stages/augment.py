"""Draw n_iter copies of each training example with the augmentation rules."""

import re
from pathlib import Path

from pipeline import tables
from pipeline.augment import engine
from pipeline.console import run_stage
from pipeline.logits.note import leave_note, note_in
from pipeline.params import project
from pipeline.storage import write_json, write_text


def main(task: str) -> None:
    """Read data/TASK/tokens and the ids of data/TASK/unlabelled, write data/TASK/augmented and its summary."""
    data = Path("data") / task
    if (note := note_in(data / "tokens")) is not None:
        leave_note(note, data / "augmented")
        summary = {"imported": note["logits"]}
    else:
        settings = project.load(task)
        more, about = tables.read_unlabelled(data / "unlabelled")
        others = None if about.get("augment") else more["id"]  # those of tokens are originals
        how, file = settings.augment, settings.rules_file
        summary = engine.augment(data / "tokens", data / "augmented", how, file=file, unlabelled=others)
    kept = summary.get("kept per example by words", {})
    write_json(data / "results" / "augment.json", summary)
    # The plot sorts bars as text, which is the numeric order for 01-02 and 03-05.
    bars = {re.sub(r"\d+", lambda number: number[0].zfill(2), words): copies for words, copies in kept.items()}
    lines = [f"{words},{copies}\n" for words, copies in bars.items()]
    write_text(data / "results" / "curves" / "copies-kept.csv", "words,copies kept\n" + "".join(lines))


if __name__ == "__main__":
    run_stage(main, "task")
