"""Look up pretrained word vectors, or a teacher's, for the words of a task's training text, unlabelled text and augmented rows."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import tables
from pipeline.console import run_stage
from pipeline.params import project
from pipeline.params.vectors import Vectors
from pipeline.storage import need, new_folder
from pipeline.vectors import lookup

EXAMPLES, SENTENCES = "examples/examples.parquet", ("sentence1", "sentence2")


def main(task: str) -> None:
    """Read data/TASK/examples, data/TASK/unlabelled and data/TASK/augmented, write data/TASK/vectors: a file for each of the vectors in params.yaml."""
    settings = project.load(task)
    data, text = Path("data") / task, settings.tag.text
    tables.check(data / EXAMPLES, pa.schema([tables.EXAMPLES.field(name) for name in ("split", *SENTENCES)]))
    need(data / "augmented", f"augment@{task}")
    # A task from a logit data set has a note here and no Parquet.
    augmented = lookup.words_of(sorted((data / "augmented").glob("*.parquet")), text)
    with new_folder(data / "vectors") as folder:
        for name, block in settings.vectors.items():
            look, listed = _teacher(data, block) if block.source.startswith("teacher:") else _file(block)
            table, metadata = lookup.embed(
                block.source,
                _training(data),
                text,
                look,
                listed,
                block.extra_words,
                augmented,
            )
            tables.write(folder / f"{name}.parquet", table, metadata)


def _training(data: Path) -> Iterator[pa.Array]:
    """Yield the sentences of the training examples and of the unlabelled text, a batch at a time."""
    with pq.ParquetFile(data / EXAMPLES) as file:
        for batch in file.iter_batches(columns=["split", *SENTENCES]):
            rows = batch.filter(pc.equal(batch["split"].cast("string"), "train"))
            yield from (rows[name].drop_null() for name in SENTENCES)
    unlabelled, _ = tables.read_unlabelled(data / "unlabelled")
    yield from (chunk for name in SENTENCES for chunk in unlabelled[name].drop_null().chunks)


def _file(block: Vectors) -> tuple[lookup.LookUp, Iterable[str]]:
    return lambda words: lookup.look_up(block.source, words, block.licence), lookup.listed_words(block.source)


def _teacher(data: Path, block: Vectors) -> tuple[lookup.LookUp, Iterable[str]]:
    from pipeline.teacher.recorded import open_recorded
    from pipeline.teacher.word_vectors import listed_words, look_up

    name = block.source.removeprefix("teacher:")
    labels = tables.metadata_of(data / EXAMPLES)["labels"]
    teacher, record = open_recorded((data / "teachers" / name).resolve(), labels)
    listed = listed_words(teacher) if block.extra_words else ()
    return lambda words: look_up(teacher, name, record["licence"], words, block), listed


if __name__ == "__main__":
    run_stage(main, "task", threads=None)
