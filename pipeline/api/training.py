"""Training of a student from logits in memory or in a folder, as the train and export stages do it."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.api.arguments import kind_of, named, settings_of, worded
from pipeline.api.logit_sets import LogitDataSet
from pipeline.errors import InputError, installed
from pipeline.logits import dataset
from pipeline.logits.shards import logits_of
from pipeline.params.students import Student
from pipeline.params.vectors import Vectors
from pipeline.students.texts import as_path, shown

if TYPE_CHECKING:
    from pipeline.distill.epochs import Epoch
    from pipeline.students.trained import TrainedStudent
    from pipeline.vectors.table import WordVectors

STUDENT = "pipeline.students.bilstm:BiLSTM"
"""The paper's student."""


def distill(
    logits: LogitDataSet | Path | str,
    student: str | type[Any] | Mapping[str, Any] | Student = STUDENT,
    *,
    vectors: "str | Mapping[str, Any] | WordVectors | None" = None,
    checkpoint: Path | str | None = None,
    history: "list[Epoch] | None" = None,
    **settings: Any,
) -> "TrainedStudent":
    """Train a student on a teacher's logits, and return the epoch with the best validation accuracy.

    Where no validation row has a gold label, the teacher's class takes its place: the best epoch is the one that agrees with the teacher
    most. It trains on a GPU if there is one. The same logits, settings and seed give the same student on the same machine.

    :param logits: What `label` returned, or the folder of a logit data set, such as data/TASK/targets/STUDENT.
    :param student: An import path, `module:Class`; the class itself; or a mapping or `pipeline.params.Student` with the keys of a student's
        block in params.yaml, of which `teacher` is not needed. Default: the paper's BiLSTM.
    :param vectors: Initial word vectors: a source as in params.yaml (`spacy:PIPELINE`, `word2vec:FILE`, `text:FILE`), a mapping with the keys
        of a `vectors` block, or a `pipeline.vectors.table.WordVectors`. None: random vectors.
    :param checkpoint: A file that is written after every epoch; a call that was killed continues from it. Remove it afterwards.
    :param history: A list to which the measurements after each epoch are added: loss, validation loss, validation accuracy.
    :param settings: Keys of the student's block, which replace those of `student`: params, epochs, seed, batch_size, optimiser, objective ...
    :return: The student, on the CPU: `predict`, `predict_proba`, `predict_logits`, `save(folder)`.
    :raises InputError: If an argument is wrong, in one line that names it; if the student breaks the contract; if a package is missing.
    """
    if history is not None and not isinstance(history, list):
        raise InputError(f"history: {shown(history)}: must be a list, to which epochs are added")
    place = None if checkpoint is None else as_path(checkpoint, "checkpoint")
    if place is not None and place.is_dir():
        raise InputError(f"checkpoint: {checkpoint}: is a folder; pass the path of a file")
    with installed("distill"):
        from pipeline.distill.loop import distill as train
    with named("student"):
        block = _block(student, settings)
        _check_vectors(block, vectors)
    with named("logits"):
        about, training, validation = _tables(logits)
    if "teacher" in settings:
        _check_teacher(block, about)
    with named("vectors"):
        words = _vectors(vectors, logits, about["text"])
    with named("student"):
        trained, epochs = train(
            training,
            _with_classes(validation, len(about["labels"])),
            block,
            labels=about["labels"],
            text=about["text"],
            pairs=about["pairs"],
            vectors=words,
            checkpoint=place,
        )
    if history is not None:
        history.extend(epochs)
    return trained


def export(student: "TrainedStudent", folder: Path | str, logits: LogitDataSet | Path | str | None = None) -> None:
    """Write a student as ONNX and int8 ONNX with its card: the folder that `Runtime.from_pretrained` loads without torch.

    :param folder: The folder; it replaces the folder of another student.
    :param logits: The data set that it was trained on, for the scores, the teacher and the licence in the card; None: the card has none.
    :raises InputError: If an argument is wrong, or a package is missing. A student that ONNX cannot express gets no network, and its card says why.
    """
    with installed("export"), TemporaryDirectory(ignore_cleanup_errors=True) as name:
        from pipeline.evaluation import evaluate
        from pipeline.serving import export as exporting
        from pipeline.students.trained import TrainedStudent, folder_for

        if not isinstance(student, TrainedStudent):
            raise InputError(
                f"student: {kind_of(student)}: pass what `distill` returned, or TrainedStudent.from_pretrained(folder)"
            )
        out = folder_for(folder)
        saved, given = Path(name) / "student", logits
        student.save(saved)
        if isinstance(given, LogitDataSet):
            given.save(Path(name) / "logits")
            given = Path(name) / "logits"
        source = None if given is None else as_path(given, "logits")
        with worded({f"{Path(name) / 'logits'}": "logits", f"{saved}": "student"}):
            results = {} if source is None else evaluate(saved, source)
        about = {} if source is None else dataset.provenance(source)
        exporting.export(saved, out, results, about)


# --- arguments ----------------------------------------------------------------------------------------------------------


def _block(student: Any, settings: Mapping[str, Any]) -> Student:
    """Return the block of a student. Its teacher is the one of the logits, so the name does not count."""
    if isinstance(student, Student):
        found: Mapping[str, Any] = student.model_dump(exclude_unset=True)
    elif isinstance(student, Mapping):
        found = student
    elif isinstance(student, str):
        found = {"model": student}
    elif isinstance(student, type):
        found = {"model": _path_of(student)}
    else:
        raise InputError(f"{kind_of(student)}: pass `module:Class`, a class, or a mapping with the key `model`")
    return settings_of(Student, {"teacher": "teacher", **found, **settings}, "student")


def _check_vectors(block: Student, vectors: Any) -> None:
    """Check that the word vectors that a block names are passed: a name says nothing without its params.yaml."""
    if block.vectors is not None and vectors is None:
        raise InputError(
            f"vectors: {block.vectors!r} is the name of a block in params.yaml; pass distill(..., vectors='SOURCE'), for example "
            "'spacy:PIPELINE', or leave the key out"
        )


def _check_teacher(block: Student, about: Mapping[str, Any]) -> None:
    """Check that the logits are those of the teachers that the caller names."""
    teacher = about.get("teacher", {})
    known = {part.get("name") for part in teacher.get("members") or [teacher]}
    if block.teachers.keys() != known and None not in known:
        raise InputError(
            f"teacher: {', '.join(block.teachers)}: the logits are those of {', '.join(sorted(known))}; leave teacher out, or pass other logits"
        )


def _path_of(student: type) -> str:
    if student.__module__ == "__main__" or "<locals>" in student.__qualname__:
        raise InputError(
            f"{student.__name__} is defined in the notebook, so a saved student could not be loaded elsewhere: write it to a file, "
            f"such as my_student.py, and pass 'my_student:{student.__name__}'"
        )
    return f"{student.__module__}:{student.__qualname__}"


def _tables(logits: Any) -> tuple[Mapping[str, Any], pa.Table, pa.Table]:
    """Return the provenance, and the training and validation rows with the columns for training."""
    if isinstance(logits, LogitDataSet):
        if missing := [split for split in ("train", "validation") if split not in logits.splits]:
            raise InputError(f"has no {missing[0]} split (it has {', '.join(logits.splits)})")
        rows = [logits.splits[split].select(dataset.columns_of(logits.provenance)) for split in ("train", "validation")]
        return logits.provenance, rows[0], rows[1]
    if not isinstance(logits, str | Path):
        raise InputError(f"{kind_of(logits)}: pass what `label` returned, or the folder of a logit data set")
    folder = Path(logits)
    about = dataset.provenance(folder)
    rows = [dataset.read_split(folder, split, dataset.columns_of(about)) for split in ("train", "validation")]
    return about, rows[0], rows[1]


def _with_classes(validation: pa.Table, classes: int) -> pa.Table:
    """Return validation rows that have a label each: the teacher's class if no row has a gold label."""
    if classes == 1 or validation["label"].null_count < validation.num_rows:
        return validation
    column = validation.schema.get_field_index("label")
    predicted = pa.array(logits_of(validation).argmax(axis=1).astype(np.int32))
    return validation.set_column(column, validation.schema.field(column), predicted)


def _vectors(vectors: Any, logits: LogitDataSet | Path | str, text: Any) -> "WordVectors | None":
    """Return word vectors for the words of the training rows, as the embed stage looks them up."""
    from pipeline.vectors.table import WordVectors

    if vectors is None or isinstance(vectors, WordVectors):
        return vectors
    if not isinstance(vectors, str | Mapping):
        raise InputError(
            f"{kind_of(vectors)}: pass a source such as 'spacy:PIPELINE', a mapping with the key `source`, or WordVectors"
        )
    block = settings_of(Vectors, {"source": vectors} if isinstance(vectors, str) else vectors, "vectors")
    if block.source.startswith("teacher:"):
        raise InputError(
            f"source: {block.source}: a teacher's vectors are for the embed stage; pass a file or a spaCy pipeline"
        )
    with installed("looking up word vectors"):
        from pipeline.vectors import lookup

        columns = ["sentence1", "sentence2", "parent_id"]
        if isinstance(logits, LogitDataSet):
            rows = logits.splits["train"].select(columns)
        else:
            rows = dataset.read_split(Path(logits), "train", columns)
        is_original = pc.is_null(rows["parent_id"])
        originals, copies = rows.filter(is_original), rows.filter(pc.invert(is_original))
        table, _ = lookup.embed(
            block.source,
            [originals["sentence1"], originals["sentence2"].drop_null()],
            text,
            lambda words: lookup.look_up(block.source, words, block.licence),
            lookup.listed_words(block.source),
            block.extra_words,
            lookup.words_in([copies.select(["sentence1", "sentence2"])], text),
        )
    values = table["vector"].combine_chunks()
    matrix = values.flatten().to_numpy().reshape(len(values), values.type.list_size)
    return WordVectors(table["word"].to_pylist(), matrix)
