"""Look up pretrained vectors, or those of a teacher, for the words of a task's training text.

python stages/embed.py TASK
"""

from collections.abc import Iterable
from pathlib import Path

import pyarrow.compute as pc

from pipeline import tables
from pipeline.console import run_stage
from pipeline.params import project
from pipeline.params.vectors import Vectors
from pipeline.storage import new_folder
from pipeline.vectors import lookup


def main(task: str) -> None:
    """Read data/TASK/examples, write data/TASK/vectors: a file for each of the vectors that params.yaml defines."""
    settings = project.load(task)
    data = Path("data") / task
    columns = ["split", "sentence1", "sentence2"]
    examples = tables.read(data / "examples" / "examples.parquet", tables.EXAMPLES, columns)
    training = examples.filter(pc.equal(examples["split"].cast("string"), "train"))
    texts = [training["sentence1"], training["sentence2"].drop_null()]
    with new_folder(data / "vectors") as folder:
        for name, asked in settings.vectors.items():
            look, listed = _teacher(data, asked) if asked.source.startswith("teacher:") else _file(asked)
            table, metadata = lookup.embed(asked.source, texts, settings.tag.text, look, listed, asked.extra_words)
            tables.write(folder / f"{name}.parquet", table, metadata)


def _file(asked: Vectors) -> tuple[lookup.LookUp, Iterable[str]]:
    return lambda words, _: lookup.look_up(asked.source, words, asked.licence), lookup.listed_words(asked.source)


def _teacher(data: Path, asked: Vectors) -> tuple[lookup.LookUp, Iterable[str]]:
    from pipeline.teacher.recorded import open_recorded
    from pipeline.teacher.word_vectors import listed_words, look_up

    name = asked.source.removeprefix("teacher:")
    labels = tables.metadata_of(data / "examples" / "examples.parquet")["labels"]
    teacher, record = open_recorded((data / "teachers" / name).resolve(), labels)
    listed = listed_words(teacher) if asked.extra_words else ()
    return lambda words, counts: look_up(teacher, name, record["licence"], words, counts, asked), listed


if __name__ == "__main__":
    run_stage(main, "task")
