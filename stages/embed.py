"""Look up pretrained vectors for the words of a task's training text.

python stages/embed.py TASK
"""

from pathlib import Path

import pyarrow.compute as pc

from pipeline import params, tables, vectors
from pipeline.console import run_stage
from pipeline.storage import new_folder


def main(task: str) -> None:
    """Read data/TASK/examples, write data/TASK/vectors: a file for each of the vectors that params.yaml defines."""
    settings = params.load(task)
    data = Path("data") / task
    columns = ["split", "sentence1", "sentence2"]
    examples = tables.read(data / "examples" / "examples.parquet", tables.EXAMPLES, columns)
    training = examples.filter(pc.equal(examples["split"].cast("string"), "train"))
    texts = [training["sentence1"], training["sentence2"].drop_null()]
    with new_folder(data / "vectors") as folder:
        for name, asked in settings.vectors.items():
            table, metadata = vectors.embed(asked.source, texts, settings.tag.text)
            tables.write(folder / f"{name}.parquet", table, metadata)


if __name__ == "__main__":
    run_stage(main, "task")
