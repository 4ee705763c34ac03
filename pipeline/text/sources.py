"""Reads rows from files, a Python package or the Hugging Face Hub, unchanged, each with the line where it starts.

records.py reads the files. Two faults show only while the bytes are read, so they are recorded here: a row with the wrong fields
(`fields`) and text that is not UTF-8 (`encoding`). `pipeline.text.preparation` refuses or drops these rows.
"""

import hashlib
import importlib.metadata
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.params.base import TRUTH
from pipeline.params.text import Columns, Source, parts_of
from pipeline.plugins import folders_of
from pipeline.storage import sha256_of
from pipeline.tables import SPLITS
from pipeline.text.records import (
    Fault,
    Record,
    Spanning,
    as_text,
    check_columns,
    class_names,
    read_records,
    table_records,
)

logger = logging.getLogger(__name__)

ALL = "all"
"""The key of a source of one file, which is not split yet."""
_BYTES = re.compile("[\ud800-\udfff]")
"""Surrogates. Bytes that are not UTF-8 were read as the lone surrogates U+DC80 to U+DCFF."""


@dataclass
class SourceRows:
    """The rows of one file as columns. The values of a row with a fault are None."""

    name: str  # of the file, for messages
    lines: list[int] = field(default_factory=list)  # from 1 with the header; in parquet and on the Hub, rows from 1
    sentence1: list[str | None] = field(default_factory=list)
    sentence2: list[str | None] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    faults: dict[int, Fault] = field(default_factory=dict)  # by position in the lists
    spanning: dict[int, tuple[int, list[tuple[str, str]]]] = field(
        default_factory=dict
    )  # by position: the last line of a row over several lines, and the sentence1 and label of those that look like rows
    left_out: int = 0  # rows that `where` did not select
    parts: list[tuple[int, str]] = field(
        default_factory=list
    )  # of a folder: the position of each part's first row, and its name

    def __len__(self) -> int:
        return len(self.lines)

    class_names: list[str] | None = None  # of a label column of class numbers that names its classes, in their order

    def names(self) -> Iterator[str]:
        """Yield the name of each row's file."""
        ends = [*(start for start, _ in self.parts[1:]), len(self)]
        for (start, name), end in zip(self.parts or [(0, self.name)], ends, strict=True):
            yield from repeat(name, end - start)

    def add(self, line: int, row: Sequence[str | None] | Fault) -> None:
        """Add a row that starts in a line: its sentence1, sentence2 and label, or its fault."""
        if isinstance(row, Fault):
            self.faults[len(self)] = row
            row = (None, None, None)
        self.lines.append(line)
        for column, value in zip((self.sentence1, self.sentence2, self.labels), row, strict=True):
            column.append(value)


def read(source: Source, columns: Columns) -> tuple[dict[str, SourceRows], dict[str, Any]]:
    """Read a task's rows.

    :param source: Paths are relative to the working folder. If none of its files exists, `otherwise` is read.
    :param columns: The source's names for the project's columns.
    :return: The rows of each split (of `ALL` for a source of one file), and the provenance for the table's metadata.
    :raises InputError: If a file, package or column is missing, a SHA-256 differs, a file has no rows, or `where` selects none.
    """
    if source.otherwise is not None and not any(Path(name).exists() for name in _by_split(source.files).values()):
        logger.info(
            "reading text.source.otherwise, since %s does not exist", ", ".join(_by_split(source.files).values())
        )
        source = source.otherwise
    rows, provenance = (_read_files if source.hub is None else _read_hub)(source, source.columns or columns)
    return rows, {**provenance, "where": dict(source.where), "licence": source.licence}


# --- files and packages -------------------------------------------------------------------------------------------------


def _read_files(source: Source, columns: Columns) -> tuple[dict[str, SourceRows], dict[str, Any]]:
    package, wanted, asked_for = source.package, _by_split(source.sha256), _asked_for(source, columns)
    given = _by_split(source.files if package is None else source.path)
    places = {
        split: (Path(path), path) if package is None else (_inside(package, path), f"{package}/{path}")
        for split, path in given.items()
    }
    files = {
        split: {"path": given[split], "sha256": _digest(path, name, wanted.get(split))}
        for split, (path, name) in places.items()
    }
    rows = {}
    for split, (path, name) in places.items():
        parts = files_of(path, name)
        records = [(part, read_records(parts[part], part, asked_for, source.quotes)) for part in parts]
        rows[split] = _collect(name, records, source, columns)
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


def _class_names(files: Mapping[str, Path], label: str | None) -> list[str] | None:
    found = {name: None if label is None else class_names(path, label) for name, path in files.items()}
    (first, names), *others = found.items()
    if other := next((other for other, of_other in others if of_other != names), None):
        raise InputError(f"{first} and {other}: the classes of the label column differ: {names} and {found[other]}")
    return names


def _digest(path: Path, name: str, wanted: str | None) -> str:
    if not path.exists():
        several = "; for several files, name their folder" if "*" in name else ""
        raise InputError(f"{name}: no such file{several}")
    if path.is_dir():
        listed = "".join(f"{sha256_of(part)}  {part.name}\n" for part in _parts(path, name, empty=True))
        digest = hashlib.sha256(listed.encode()).hexdigest()
    else:
        digest = sha256_of(path)
    if wanted is not None and digest != wanted.lower():
        raise InputError(
            f"{name}: its SHA-256 is {digest}, not {wanted} as in text.source.sha256; get the right file or change the key"
        )
    return digest


def files_of(path: Path, name: str) -> dict[str, Path]:
    """Return a file, or the files with bytes of a folder of parts, by their names in messages.

    :raises InputError: If the folder is none of parts.
    """
    return {f"{name}/{part.name}": part for part in _parts(path, name)} if path.is_dir() else {name: path}


def _parts(folder: Path, name: str, empty: bool = False) -> list[Path]:
    """Return the files of a folder of parts, with `empty` also those without a byte, which some writers leave for a part without rows.

    :raises InputError: If it has none, holds a folder, or holds files of several formats.
    """
    parts = parts_of(folder)
    if any(part.name in ("dataset_info.json", "dataset_dict.json") for part in parts):
        raise InputError(f"{name}: the folder is one of `save_to_disk`; write the data set with `to_parquet`")
    if folders := [part.name for part in parts if part.is_dir()]:
        raise InputError(
            f"{name}: the folder holds the folder {folders[0]!r}; put all parts into one folder, with all columns"
        )
    if len(suffixes := sorted({part.suffix.lower() for part in parts})) > 1:
        raise InputError(
            f"{name}: the folder holds files of several formats ({', '.join(suffixes)}); leave those of one"
        )
    if not (filled := [part for part in parts if empty or part.stat().st_size]):
        raise InputError(f"{name}: the folder holds no file with rows")
    return filled


# --- the Hub ------------------------------------------------------------------------------------------------------------


def _read_hub(source: Source, columns: Columns) -> tuple[dict[str, SourceRows], dict[str, Any]]:
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
        rows[split] = _collect(name, [(name, _hub_records(name, found[names[split]], asked_for))], source, columns)
    if len(rows) == 1:
        rows = {ALL: next(iter(rows.values()))}
    provenance = {name: getattr(source, name) for name in ("hub", "config", "revision")}
    return rows, {**provenance, "splits": dict(source.hub_splits)}


def _hub_records(name: str, split: Any, asked_for: Sequence[str]) -> Iterator[Record]:
    """Read a split of a Hub data set. Class numbers become class names; -1, which means no label on the Hub, becomes null."""
    from datasets import ClassLabel

    check_columns(name, split.column_names, asked_for)
    table = split.select_columns(asked_for).with_format("arrow")[:]
    for index, column in enumerate(table.column_names):
        feature = split.features[column]
        if isinstance(feature, ClassLabel):
            named = [None if n is None or n < 0 else feature.names[n] for n in table[column].to_pylist()]
            table = table.set_column(index, column, pa.array(named, pa.string()))
    return table_records(name, table, asked_for)


# --- any source ---------------------------------------------------------------------------------------------------------


def _asked_for(source: Source, columns: Columns) -> list[str]:
    """Return the columns to read, each once: those of the text, the label and `where`."""
    named = [columns.sentence1, columns.sentence2, columns.label, *source.where]
    return list(dict.fromkeys(column for column in named if column is not None))


def _collect(name: str, parts: Sequence[tuple[str, Iterable[Record]]], source: Source, columns: Columns) -> SourceRows:
    """Return the rows that `where` selects, and every row with a fault, which has no values to select by.

    :param parts: The name and records of each file.
    """
    positions = {column: n for n, column in enumerate(_asked_for(source, columns))}
    filters = [(positions[column], as_text(value)) for column, value in source.where.items()]
    wanted = [positions[column] if column else None for column in (columns.sentence1, columns.sentence2, columns.label)]
    rows = SourceRows(name)
    for part, records in parts:
        rows.parts.append((len(rows), part))
        for line, record in records:
            if isinstance(record, Fault):
                rows.add(line, record)
            elif any(record[n] != value for n, value in filters):
                rows.left_out += 1
            else:
                values = [None if n is None else record[n] for n in wanted]
                broken = next(
                    (value for value in values if value and not value.isascii() and _BYTES.search(value)), None
                )
                if isinstance(record, Spanning) and columns.label:
                    of_label = positions[columns.label]
                    inside = [(row[positions[columns.sentence1]], row[of_label]) for row in record.inside]
                    rows.spanning[len(rows)] = record.end, inside
                rows.add(line, values if broken is None else Fault("encoding", _shown(broken)))
    if not len(rows):
        chosen = ", ".join(f"{column}: {value}" for column, value in source.where.items())
        hint = (
            f"{TRUTH}: write the word in quotes"
            if any(isinstance(value, bool) for value in source.where.values())
            else ""
        )
        none = f"text.source.where {{{chosen}}} selects none of its {rows.left_out:,} rows{hint}"
        raise InputError(f"{name}: {none if rows.left_out else 'has no rows'}")
    return rows


def _shown(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode().replace("\\udc", "\\x")
