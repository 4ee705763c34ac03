"""Split a task's text into words and tag their parts of speech."""

from pathlib import Path

from pipeline import tables
from pipeline.console import run_stage
from pipeline.logits.note import leave_note, note_of
from pipeline.params import project
from pipeline.text import tagging


def main(task: str) -> None:
    """Read data/TASK/examples, and data/TASK/unlabelled if it is augmented; write data/TASK/tokens."""
    tag = project.load(task).tag
    data = Path("data") / task
    if (note := note_of(data / "examples" / "examples.parquet")) is not None:
        leave_note(note, data / "tokens")
        return
    columns = ["id", "split", "sentence1", "sentence2"]
    examples = tables.read(data / "examples" / "examples.parquet", tables.EXAMPLES, columns)
    more, about = tables.read_unlabelled(data / "unlabelled")
    if about.get("augment"):
        examples = tables.with_unlabelled(examples, more)
    tokens, vocabulary, metadata = tagging.tokens_tables(examples, tag.tagger, tag.text)
    tagging.write_tables(data / "tokens", tokens, vocabulary, metadata)


if __name__ == "__main__":
    run_stage(main, "task")
