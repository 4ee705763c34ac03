"""Checks the source of a task's text: its files, their columns and splits. Of each file, the header and the first rows are read."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import pyarrow as pa

from pipeline.checking.findings import Findings
from pipeline.errors import InputError
from pipeline.logits import dataset, imported
from pipeline.logits.note import check_teachers, teacher_of
from pipeline.params.inputs import UNLABELLED
from pipeline.params.text import Columns, Source, Text, Unlabelled, exists
from pipeline.places.place import Place, parquet, place_of
from pipeline.places.remote import RemoteError
from pipeline.plugins import folders_of
from pipeline.text.formats import HEAD_BYTES, check_pointer
from pipeline.text.labels import Labels
from pipeline.text.records import (
    CONVERT,
    Fault,
    Record,
    check_columns,
    check_format,
    check_type,
    class_names,
    read_records,
)
from pipeline.text.sentences import check_language
from pipeline.text.sources import ALL, Selection, files_of, missing

ROWS = 1_000
"""The first rows of a file, which are checked."""


def check_source(found: Findings) -> None:
    """Record what the prepare stage would refuse in a task's settings and in the headers of its files."""
    text, task = found.settings.task.text, found.settings.name
    place = f"tasks/{task}.yaml: text.source"
    source = text.source
    if source.logits is not None:
        folder = source.logits.partition("folder:")[2]
        if folder:  # one of the Hub is not downloaded here
            with found.at(place, absent=not Path(folder).is_dir() and found.ran("examples")):
                _check_logits(found, imported.fetch(source.logits))
        return
    given = _files(source)
    if source.otherwise is not None and all(_is_missing(_found(source, name)) for name in given.values()):
        recorded = any(found.ran("examples", "text", place_of(name).as_posix()) for name in given.values())
        place, source = (place, source) if recorded else (f"{place}.otherwise", source.otherwise)
    splits = list(source.hub_splits)
    if splits and (problem := text.split_problem([] if len(splits) == 1 else splits)):
        found.problems.append(f"tasks/{task}.yaml: {problem}")
    columns = source.columns or text.columns
    if columns.label is None and not text.is_regression:
        found.problems.append(
            f"tasks/{task}.yaml: text.columns.label: missing; students are chosen by their accuracy on labelled validation rows"
        )
    _check_one(found, place, source, columns, ("text",))
    if text.unlabelled is not None:
        _check_unlabelled(found, text.unlabelled)


def _check_unlabelled(found: Findings, block: Unlabelled) -> None:
    place = f"tasks/{found.settings.name}.yaml: text.unlabelled"
    for source in block.sources():
        _check_one(found, place, source, block.columns(), ("text", UNLABELLED))
    if block.split_sentences:
        lacks = any(find_spec(name) is None for name in ("spacy", "nltk"))
        with found.at(f"tasks/{found.settings.name}.yaml", absent=lacks and found.ran("unlabelled")):
            check_language(block.language, tokenise=found.settings.tag.text == "pretokenised")


def _check_one(found: Findings, place: str, source: Source, columns: Columns, keys: Sequence[str]) -> None:
    """Check the files of a source.

    :param keys: Where stamps/TASK/inputs.json has their hashes.
    """
    if source.hub is not None and find_spec("datasets") is None:
        with found.at(place, absent=found.ran("examples")):
            raise InputError("hub: the package datasets is not installed; install it with `pip install datasets`")
    seen: dict[str, str] = {}
    for split, name in _files(source).items():
        path = _found(source, name)
        same = seen.setdefault(str(path.resolve() if isinstance(path, Path) else path), split)
        if same != split and not isinstance(path, InputError):
            found.problems.append(
                f"{place}: {name}: is the file of {same} and of {split}; a text of both is kept in the later split alone, so name two files"
            )
        absent = isinstance(path, InputError) and found.ran("examples", *keys, place_of(name).as_posix())
        with found.at(place, absent):
            if isinstance(path, InputError):
                raise path
            _check_files(path, name, split, source, columns, found.settings.task.text)


def _check_logits(found: Findings, folder: Path) -> None:
    about, settings = dataset.provenance(folder), found.settings
    imported.check_match(settings.name, settings.task.text, settings.tag.text, about)
    note = {"teacher": about["teacher"], "logits": settings.task.text.source.logits}
    teacher_of(note, about["teacher"]["name"], settings.teachers)
    for name, student in settings.students.items():
        check_teachers(note, settings.name, name, student.teachers)


def _files(source: Source) -> dict[str, str]:
    """Return the names of a source's files by split; none for the Hub."""
    given = source.files if source.package is None else source.path
    return {ALL: given} if isinstance(given, str) else dict(given or {})


def _found(source: Source, name: str) -> Place | InputError:
    """Return a file, folder or pattern of a source, or why it is not there."""
    try:
        if source.package is None:
            found = [place] if exists(place := place_of(name)) else []
        else:
            found = [folder / name for folder in folders_of(source.package) if exists(folder / name)]
    except RemoteError as error:
        return error
    return found[0] if found else InputError(_missing(source, name))


def _is_missing(found: Place | InputError) -> bool:
    return isinstance(found, InputError) and not isinstance(found, RemoteError)


def _missing(source: Source, name: str) -> str:
    if source.package is None:
        return missing(name)
    if folders_of(source.package):
        return f"path: the package {source.package!r} has no file {name!r}"
    return f"package: {source.package!r} (its import name) is not installed; install it with `pip install {source.package}`"


def _check_files(path: Place, name: str, split: str, source: Source, columns: Columns, text: Text) -> None:
    """Check a file, or the parts in a folder up to the first one with rows."""
    if not any(_has_rows(part, shown, source, columns, text) for shown, part in files_of(path, name).items()):
        raise InputError(f"{name}: has no rows")
    label = columns.label
    if (
        label is None
        or path.suffix.lower() != ".parquet"
        or not path.is_file()
        or text.is_regression
        or split not in (ALL, "validation")
    ):
        return
    with parquet(path) as file:
        kind = file.schema_arrow.field(label).type
    if pa.types.is_null(kind):
        raise InputError(
            f"{name}: no row has a label in column {label!r} (it has Arrow's null type); label some rows: students are chosen by "
            "their accuracy on labelled validation rows"
        )


def _has_rows(path: Place, name: str, source: Source, columns: Columns, text: Text) -> bool:
    """Check a file by its header and first rows, and return whether it has one."""
    named = (columns.sentence1, columns.sentence2, columns.label, *source.where)
    wanted = list(dict.fromkeys(column for column in named if column is not None))
    try:
        if check_format(path, name, source.quotes) == ".parquet":
            with path.open("rb") as file:
                check_pointer(file.read(HEAD_BYTES), name)
            with parquet(path) as parts:
                schema, rows = parts.schema_arrow, parts.metadata.num_rows
            check_columns(name, schema.names, wanted)
            for column in wanted:
                check_type(name, column, schema.field(column).type)
            if columns.label and not text.is_regression and (classes := class_names(path, columns.label)):
                Labels(text).of_classes(classes, name)
        else:
            return _has_records(read_records(path, name, wanted, source.quotes), name, source, columns, text)
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror or error}") from error
    except pa.ArrowException as error:
        raise InputError(f"{name}: cannot be read as Parquet: {error}") from error
    return bool(rows)


def _has_records(records: Iterator[Record], name: str, source: Source, columns: Columns, text: Text) -> bool:
    """Check the first ROWS records of a file, and return whether there is one."""
    select, line = Selection(source, columns), 0
    for line, record in islice(records, ROWS):
        row = select.values(record)
        if isinstance(row, Fault) and getattr(text.bad_rows, row.kind) == "refuse":
            wrong = f"not UTF-8: {row.value!r}; {CONVERT}" if row.kind == "encoding" else row.value
            raise InputError(f"{name}, line {line}: {wrong}")
    return line > 0
