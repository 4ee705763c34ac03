"""Reads rows from files, a Python package or the Hugging Face Hub, unchanged, each with the line where it starts.

records.py reads the files. Two faults show only while the bytes are read, so they are recorded here: a row with the wrong fields
(`fields`) and text that is not UTF-8 (`encoding`). `pipeline.text.preparation` refuses or drops these rows.
"""

import hashlib
import importlib.metadata
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError, counted
from pipeline.params.base import TRUTH
from pipeline.params.text import Columns, Source, exists, is_pattern, parts_of
from pipeline.places.place import Place, place_of, unchanged
from pipeline.places.remote import Remote
from pipeline.plugins import folders_of
from pipeline.storage import sha256_of
from pipeline.tables import SPLITS
from pipeline.text.columns import Block, read_columns, table_columns
from pipeline.text.formats import suffix_of
from pipeline.text.records import BATCH, Fault, Record, Spanning, as_text, check_columns, class_names
from pipeline.text.rows import COLUMNS, SCHEMA, SourceRows

logger = logging.getLogger(__name__)

ALL = "all"
"""The key of a source of one file, which is not split yet."""
_BYTES = re.compile("[\ud800-\udfff]")
"""Surrogates. Bytes that are not UTF-8 were read as the lone surrogates U+DC80 to U+DCFF."""


def read(source: Source, columns: Columns, scratch: Path | None = None) -> tuple[dict[str, SourceRows], dict[str, Any]]:
    """Read a task's rows.

    :param source: Paths are relative to the working folder. If none of its files exists, `otherwise` is read.
    :param columns: The source's names for the project's columns.
    :param scratch: The folder for temporary files, which take as much space as the text; None: the system's.
    :return: The rows of each split (of `ALL` for a source of one file), and the provenance for the table's metadata.
    :raises InputError: If a file, package or column is missing, a SHA-256 differs, a file has no rows, or `where` selects none.
    """
    if source.otherwise is not None and not any(exists(place_of(name)) for name in _by_split(source.files).values()):
        logger.info(
            "reading text.source.otherwise, since %s does not exist", ", ".join(_by_split(source.files).values())
        )
        source = source.otherwise
    rows, provenance = (_read_files if source.hub is None else _read_hub)(source, source.columns or columns, scratch)
    return rows, {**provenance, "where": dict(source.where), "licence": source.licence}


# --- files and packages -------------------------------------------------------------------------------------------------


def _read_files(source: Source, columns: Columns, scratch: Path | None) -> tuple[dict[str, SourceRows], dict[str, Any]]:
    package, wanted, asked_for = source.package, _by_split(source.sha256), _asked_for(source, columns)
    given = _by_split(source.files if package is None else source.path)
    places: dict[str, tuple[Place, str]] = {
        split: (place_of(path), path) if package is None else (_inside(package, path), f"{package}/{path}")
        for split, path in given.items()
    }
    files: dict[str, dict[str, str]] = {}
    listed: dict[str, dict[str, Place]] = {}  # by split: the files, which are listed once
    rows: dict[str, SourceRows] = {}
    with ExitStack() as reading:
        for split, (path, name) in places.items():
            if not exists(path):
                raise InputError(missing(name))
            listed[split] = files_of(path, name, empty=True)
            for part, file in listed[split].items():
                reading.enter_context(unchanged(file, part))  # from the digest to the last row
            files[split] = {"path": given[split], "sha256": _digest(path, name, listed[split], wanted.get(split))}
        for split, (path, name) in places.items():
            parts = listed[split] if path.is_file() else _filled(listed[split])
            blocks = [(part, read_columns(parts[part], part, asked_for, source.quotes)) for part in parts]
            rows[split] = _collect(SourceRows(name, scratch), blocks, source, columns)
            rows[split].class_names = _class_names(parts, columns.label)
    provenance = {} if package is None else {"package": package, "version": _version(package)}
    return rows, {**provenance, "files": files}


def _by_split(value: str | Mapping[str, str] | None) -> dict[str, str]:
    if value is None:
        return {}
    return {ALL: value} if isinstance(value, str) else {split: value[split] for split in SPLITS if split in value}


def _inside(package: str, path: str) -> Path:
    """Find a file inside an installed package without importing it."""
    folders = folders_of(package)
    if not folders:
        raise InputError(
            f"text.source.package: the package {package!r} (its import name) is not installed; "
            f"install it with `python -m pip install {package}`"
        )
    for folder in folders:
        if (folder / path).exists():
            return folder / path
    raise InputError(f"text.source.path: the package {package!r} has no file {path!r}")


def _version(package: str) -> str | None:
    distributions = importlib.metadata.packages_distributions().get(package)
    return importlib.metadata.version(distributions[0]) if distributions else None


def _class_names(files: Mapping[str, Place], label: str | None) -> list[str] | None:
    found = {name: None if label is None else class_names(path, label) for name, path in files.items()}
    (first, names), *others = found.items()
    if other := next((other for other, of_other in others if of_other != names), None):
        raise InputError(f"{first} and {other}: the classes of the label column differ: {names} and {found[other]}")
    return names


def _digest(path: Place, name: str, files: Mapping[str, Place], wanted: str | None) -> str:
    """Return the SHA-256 of a file, or that of the list of a folder's or pattern's files, as `sha256sum` writes it."""
    if path.is_file():
        digest = sha256_of(path)
    else:
        names = [file.name if path.is_dir() else file.as_posix() for file in files.values()]
        listed = "".join(f"{sha256_of(file)}  {shown}\n" for file, shown in zip(files.values(), names, strict=True))
        digest = hashlib.sha256(listed.encode()).hexdigest()
    if wanted is not None and digest != wanted.lower():
        raise InputError(
            f"{name}: its SHA-256 is {digest}, not {wanted} as in text.source.sha256; get the right file or change the key"
        )
    return digest


def missing(name: str) -> str:
    """Return what to say where `exists` is false."""
    place = place_of(name)
    if is_pattern(place):
        return f"{name}: the pattern matches no file"
    return f"{name}: {place.missing if isinstance(place, Remote) else 'no such file'}"


def files_of(path: Place, name: str, empty: bool = False) -> dict[str, Place]:
    """Return a file, or the files of a folder of parts or of a pattern, by their names in messages.

    :param empty: Also the parts without a byte, which some writers leave where there are no rows.
    :raises InputError: If it is neither a file nor a folder of parts nor a pattern of files, or the files have several formats.
    """
    if path.is_file():
        return {name: path}
    folder = path.is_dir()
    parts = {f"{name}/{part.name}" if folder else part.as_posix(): part for part in parts_of(path)}
    which = "the folder holds" if folder else "the pattern matches"
    if any(part.name in ("dataset_info.json", "dataset_dict.json") for part in parts.values()):
        raise InputError(f"{name}: the folder is one of `save_to_disk`; write the data set with `to_parquet`")
    if other := next((part for part in parts.values() if not part.is_file()), None):
        raise InputError(f"{name}: {which} {_not_a_file(other, name, folder)}")
    if len(suffixes := sorted(set(map(suffix_of, parts.values())))) > 1:
        raise InputError(f"{name}: {which} files of several formats ({', '.join(suffixes)}); leave those of one")
    if not (filled := _filled(parts)):
        raise InputError(f"{name}: {which} no file with rows")
    return parts if empty else filled


def _filled(files: Mapping[str, Place]) -> dict[str, Place]:
    return {name: file for name, file in files.items() if file.stat().st_size}


def _not_a_file(place: Place, name: str, in_folder: bool) -> str:
    if not place.is_dir():
        return f"{place.name!r}, which is neither a file nor a folder, or a broken link; remove it"
    if in_folder:
        return f"the folder {place.name!r}; put all parts into one folder, with all columns"
    inside = f"{name}/*{place_of(name).suffix}"
    return f"the folder {place.as_posix()!r}; write {inside} to read the files in it, or a pattern that matches files alone"


# --- the Hub ------------------------------------------------------------------------------------------------------------


def _read_hub(source: Source, columns: Columns, scratch: Path | None) -> tuple[dict[str, SourceRows], dict[str, Any]]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise InputError(
            "text.source.hub: the package datasets is not installed; install it with `python -m pip install datasets`"
        ) from error
    label = f"{source.hub}@{source.revision}"
    try:
        found = load_dataset(source.hub, source.config, revision=source.revision)
    except (OSError, ValueError) as error:
        raise InputError(f"text.source.hub: {label}: {' '.join(str(error).split())}") from error
    names = {str(split): name for split, name in source.hub_splits.items()} or {s: s for s in SPLITS if s in found}
    if missing := [name for name in names.values() if name not in found]:
        raise InputError(f"text.source.hub_splits: {label}: has no {', '.join(missing)}; it has {', '.join(found)}")
    if unread := [split for split in found if split not in names.values()]:
        logger.warning("reading only %s of %s, not %s", ", ".join(names.values()), label, ", ".join(unread))
    asked_for = _asked_for(source, columns)
    rows = {}
    for split in (split for split in SPLITS if split in names):
        name = f"{label}, {names[split]}"
        blocks = _hub_blocks(name, found[names[split]], asked_for)
        rows[split] = _collect(SourceRows(name, scratch), [(name, blocks)], source, columns)
    if len(rows) == 1:
        rows = {ALL: next(iter(rows.values()))}
    provenance = {name: getattr(source, name) for name in ("hub", "config", "revision")}
    return rows, {**provenance, "splits": dict(source.hub_splits)}


def _hub_blocks(name: str, split: Any, asked_for: Sequence[str]) -> Iterator[Block | list[Record]]:
    """Read a split of a Hub data set. Class numbers become class names; -1, which means no label on the Hub, becomes null."""
    from datasets import ClassLabel

    check_columns(name, split.column_names, asked_for)
    table = split.select_columns(asked_for).with_format("arrow")[:]
    for index, column in enumerate(table.column_names):
        feature = split.features[column]
        if isinstance(feature, ClassLabel):
            numbers = pc.if_else(pc.less(table[column], 0), None, table[column])
            table = table.set_column(index, column, pa.array(feature.names, pa.string()).take(numbers))
    first = 1
    for batch in table.to_batches(BATCH):
        yield table_columns(name, pa.Table.from_batches([batch]), asked_for, first)
        first += len(batch)


# --- texts in memory ----------------------------------------------------------------------------------------------------


def of_columns(
    name: str, sentence1: Sequence[str | None], sentence2: Sequence[str | None] | None, labels: Sequence[str | None]
) -> SourceRows:
    """Return texts in memory as rows, whose lines are their positions.

    :raises InputError: If there are none.
    """
    columns = Columns(sentence1="sentence1", sentence2=None if sentence2 is None else "sentence2", label="label")
    given = [column for column in (sentence1, sentence2, labels) if column is not None]
    blocks: Iterator[list[Record]] = (
        list(enumerate(zip(*(column[start : start + BATCH] for column in given), strict=True), start))
        for start in range(0, len(sentence1), BATCH)
    )
    return _collect(SourceRows(name, unit="text"), [(name, blocks)], Source(files=name), columns)


# --- any source ---------------------------------------------------------------------------------------------------------


def _asked_for(source: Source, columns: Columns) -> list[str]:
    """Return the columns to read, each once: those of the text, the label and `where`."""
    named = [columns.sentence1, columns.sentence2, columns.label, *source.where]
    return list(dict.fromkeys(column for column in named if column is not None))


def _collect(
    rows: SourceRows,
    parts: Sequence[tuple[str, Iterable[Block] | Iterable[list[Record]] | Iterable[Block | list[Record]]]],
    source: Source,
    columns: Columns,
) -> SourceRows:
    """Append the rows that `where` selects, and every row with a fault, which has no values to select by.

    :param parts: The name and rows of each file.
    """
    select = Selection(source, columns)
    for part, blocks in parts:
        rows.parts.append((len(rows), part))
        for block in blocks:
            if isinstance(block, list):
                select.records(rows, block)
            else:
                select.columns(rows, block)
    if not len(rows):
        chosen = ", ".join(f"{column}: {value}" for column, value in source.where.items())
        hint = (
            f"{TRUTH}: write the word in quotes"
            if any(isinstance(value, bool) for value in source.where.values())
            else ""
        )
        none = f"text.source.where {{{chosen}}} selects none of its {counted(rows.left_out, 'row')}{hint}"
        raise InputError(f"{rows.name}: {none if rows.left_out else 'has no rows'}")
    return rows


class Selection:
    """The rows and columns to take of those that are read."""

    def __init__(self, source: Source, columns: Columns) -> None:
        self._positions = {column: n for n, column in enumerate(_asked_for(source, columns))}
        self._filters = [(self._positions[column], as_text(value)) for column, value in source.where.items()]
        named = (columns.sentence1, columns.sentence2, columns.label)
        self._wanted = [self._positions[column] if column else None for column in named]

    def columns(self, rows: SourceRows, block: Block) -> None:
        """Append rows without faults."""
        start, count = len(rows), len(block.lines)
        values = [pa.nulls(count, pa.string()) if n is None else block.values[n] for n in self._wanted]
        batch = pa.record_batch([pa.array(block.lines), *values], schema=SCHEMA)
        at = np.arange(count)
        if self._filters:
            masks = [_equal(block.values[n], value).to_numpy(zero_copy_only=False) for n, value in self._filters]
            at = np.flatnonzero(np.logical_and.reduce(masks))
            batch = batch.take(at)
            rows.left_out += count - len(batch)
        for position, record in block.spanning.items():
            place = int(np.searchsorted(at, position))
            if place < len(at) and at[place] == position:
                self._add_spanning(rows, start + place, record)
        if len(batch):
            rows.append(batch)

    def records(self, rows: SourceRows, block: Sequence[Record]) -> None:
        """Append rows, each with its values or its fault."""
        start = len(rows)
        lines: list[int] = []
        taken: list[Sequence[str | None]] = []
        for line, record in block:
            values = self.values(record)
            if values is None:
                rows.left_out += 1
                continue
            if isinstance(record, Spanning):
                self._add_spanning(rows, start + len(lines), record)
            if isinstance(values, Fault):
                rows.faults[start + len(lines)] = values
                values = [None] * len(COLUMNS)
            lines.append(line)
            taken.append(values)
        if lines:
            arrays = [pa.array(column, pa.string()) for column in zip(*taken, strict=True)]
            rows.append(pa.record_batch([pa.array(lines, pa.int64()), *arrays], schema=SCHEMA))

    def values(self, record: Sequence[str | None] | Fault) -> Sequence[str | None] | Fault | None:
        """Return the values of COLUMNS in a row, or its fault; None if `where` leaves it out."""
        if isinstance(record, Fault):
            return record
        if any(record[n] != value for n, value in self._filters):
            return None
        values = [None if n is None else record[n] for n in self._wanted]
        broken = _broken(values)
        return values if broken is None else Fault("encoding", _shown(broken))

    def _add_spanning(self, rows: SourceRows, position: int, record: Spanning) -> None:
        first, _, label = self._wanted
        if first is not None and label is not None:
            rows.spanning[position] = record.end, [(row[first], row[label]) for row in record.inside]


def _equal(values: pa.Array, value: str | None) -> pa.BooleanArray:
    return values.is_null() if value is None else pc.fill_null(pc.equal(values, value), False)


def _broken(values: Iterable[str | None]) -> str | None:
    """Return the first value with bytes that are not UTF-8."""
    return next((value for value in values if value and not value.isascii() and _BYTES.search(value)), None)


def _shown(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode().replace("\\udc", "\\x")
