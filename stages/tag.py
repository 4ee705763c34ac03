"""Split a task's text into words and tag their parts of speech.

python stages/tag.py TASK
"""

from pathlib import Path

from pipeline import params, tables, tagging
from pipeline.console import run_stage


def main(task: str) -> None:
    """Read data/TASK/examples, write data/TASK/tokens."""
    tag = params.load(task).tag
    data = Path("data") / task
    examples = tables.read(data / "examples" / "examples.parquet", tables.EXAMPLES)
    tokens, vocabulary, metadata = tagging.tokens_tables(examples, tag.tagger, tag.text)
    tables.write(data / "tokens" / "vocabulary.parquet", vocabulary, metadata)
    tables.write(data / "tokens" / "tokens.parquet", tokens, metadata)


if __name__ == "__main__":
    run_stage(main, "task")
