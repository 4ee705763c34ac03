"""The rows that a teacher labels: originals in memory, augmented rows read file by file, each text once."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import tables
from pipeline.errors import InputError
from pipeline.storage import read_json

SHOWN = 10
"""Rows that a message names before it counts the rest."""

_TEXT = ("id", "sentence1", "sentence2")
_ROW = ("id", "split", "sentence1", "sentence2", "line")


@dataclass(frozen=True)
class LabelRows:
    """The originals of every split and the augmented rows of the training split, and which rows have the same text.

    :param examples: The originals, `tables.EXAMPLES`, E rows. The last ones are the unlabelled text, if there is any; then there is a column origin.
    :param files: The augmented rows, files of `tables.AUGMENTED`.
    :param starts: The number of the first row of the examples (0), of each file, and of all rows, int64 [files + 2].
    :param texts: The ids of the unique texts, in the order of their first rows: [n] of 16 bytes.
    :param first: The first row of each text, int64 [n], ascending.
    :param text_of: The text of each row, int64 [rows].
    """

    examples: pa.Table
    files: tuple[Path, ...]
    starts: NDArray[np.int64]
    texts: pa.Array
    first: NDArray[np.int64]
    text_of: NDArray[np.int64]

    @classmethod
    def read(cls, examples: pa.Table, files: Sequence[Path], unlabelled: pa.Table | None = None) -> "LabelRows":
        """Read the ids of all rows. Raises an InputError if a file has another schema.

        :param unlabelled: The unlabelled text, `tables.UNLABELLED`; None: none.
        """
        if unlabelled is not None and unlabelled.num_rows:
            origins = np.repeat([tables.SOURCE, tables.POOL], [examples.num_rows, unlabelled.num_rows])
            examples = tables.with_unlabelled(examples, unlabelled).append_column("origin", pa.array(origins))
        ids = [tables.id_bytes(examples["id"])]
        ids += [tables.id_bytes(tables.read(path, tables.AUGMENTED, ["id"])["id"]) for path in files]
        found = pa.concat_arrays(ids).dictionary_encode()
        text_of = found.indices.to_numpy().astype(np.int64)
        first = np.unique(text_of, return_index=True)[1]
        starts = np.cumsum([0, *map(len, ids)], dtype=np.int64)
        return cls(examples, tuple(files), starts, found.dictionary, first, text_of)

    @property
    def has_unlabelled(self) -> bool:
        """Whether there is unlabelled text."""
        return "origin" in self.examples.column_names

    def ranges(self) -> Iterator[tuple[Path, int, int]]:
        """Yield each file of augmented rows, the number of its first row, and of the row after its last."""
        yield from zip(self.files, self.starts[1:-1].tolist(), self.starts[2:].tolist(), strict=True)

    def pools(self, wanted: NDArray[np.bool_], size: int) -> Iterator[pa.Table]:
        """Split texts into pools of equal size, except for the last one.

        Removing the texts of whole pools leaves the remaining pools unchanged. So a run that resumes after a kill has the same pools left.

        :param wanted: Which texts, bool [n].
        :yields: id, sentence1, sentence2, split and line (both null in augmented rows), in the order of `texts`.
        """
        chosen = self.first[wanted]
        originals = self.examples.select(_ROW)
        parts, missing = [originals.slice(0, 0)], size  # so that every pool has all columns
        for number, source in enumerate((None, *self.files)):
            low, high = np.searchsorted(chosen, self.starts[number : number + 2])
            if low == high:
                continue
            rows = tables.read(source, tables.AUGMENTED, _TEXT) if source else originals
            places = chosen[low:high] - self.starts[number]
            while len(places):
                parts.append(tables.take(rows, places[:missing]))
                places, missing = places[missing:], missing - parts[-1].num_rows
                if not missing:
                    yield pa.concat_tables(parts, promote_options="default").combine_chunks()
                    parts, missing = parts[:1], size
        if missing < size:
            yield pa.concat_tables(parts, promote_options="default").combine_chunks()

    def counts(self, chosen: NDArray[np.bool_]) -> dict[str, int]:
        """Count chosen texts, bool [n], by the split of their first row; augmented rows are counted separately."""
        first = self.first[chosen]
        originals = first[first < self.examples.num_rows]
        counts = Counter(self.examples["split"].take(pa.array(originals)).to_pylist())
        counts["augmented"] = len(first) - len(originals)
        return {name: counts[name] for name in (*tables.SPLITS, "augmented")}

    def named(self, chosen: NDArray[np.bool_]) -> str:
        """Return chosen texts, bool [n], as text for a message: the first `SHOWN`, then a count of the rest."""
        texts = np.flatnonzero(chosen)
        first = self.first[texts[:SHOWN]]  # ascending, so originals come first
        originals = tables.take(self.examples, first[first < self.examples.num_rows]).to_pylist()
        augmented = self.texts.take(pa.array(texts[len(originals) : SHOWN])).to_pylist()
        return _listed([*originals, *({"id": text.hex()} for text in augmented)], len(texts))


def augmented_files(folder: Path) -> tuple[list[Path], dict[str, Any]]:
    """Return the files of augmented rows in a folder, and the parameters of the augmentation, with its `summary` if there is one.

    :raises InputError: If there are no files.
    """
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        raise InputError(f"{folder}: has no Parquet file; run the augment stage with `dvc repro`")
    parameters = tables.metadata_of(paths[0])
    summary = folder / tables.SUMMARY
    return paths, {**parameters, "summary": read_json(summary)} if summary.exists() else parameters


class TaskRows(NamedTuple):
    """The rows of a task that a teacher labels, and where they come from, as the files of the stages before have it."""

    rows: LabelRows
    """The examples, the unlabelled text and the augmented rows."""
    examples: pa.Table
    """The examples alone, `tables.EXAMPLES`."""
    source: dict[str, Any]
    """The metadata of the examples: task, labels, pairs, source."""
    augmentation: dict[str, Any]
    """The metadata of the augmented rows."""
    unlabelled: dict[str, Any] | None
    """The metadata of the unlabelled text; None where there is none."""

    @classmethod
    def read(cls, data: Path, augmented: Path, unlabelled: Path | None = None) -> "TaskRows":
        """Read the outputs of the stages before. Raises an InputError if one is missing or has another schema.

        :param data: The task's folder.
        :param augmented: The folder of the augmented rows.
        :param unlabelled: The folder of the unlabelled text; None: without.
        """
        examples, source = tables.read_examples(data / "examples", data / "source")
        files, augmentation = augmented_files(augmented)
        more, about = tables.read_unlabelled(unlabelled) if unlabelled else (None, None)
        rows = LabelRows.read(examples, files, more)
        return cls(rows, examples, source, augmentation, about if rows.has_unlabelled else None)


def refuse(texts: pa.Table, rows: NDArray[np.int64], fault: str) -> None:
    """Raise an InputError that names invalid rows of a pool and their fault, if there are any.

    :param texts: The pool: id; optional: split and line.
    """
    if len(rows):
        raise InputError(f"{fault}: {_listed(texts.take(pa.array(rows[:SHOWN])).to_pylist(), len(rows))}")


def _listed(rows: Sequence[dict[str, Any]], total: int) -> str:
    """Return rows as text: originals with the line of their source, augmented rows by id only."""
    shown = [
        f"augmented row {row['id']}"
        if row.get("line") is None
        else f"{row['split']} row {row['id']} (line {row['line']} of its source)"
        for row in rows
    ]
    return ", ".join(shown) + (f" and {total - len(shown):,} more" if total > len(shown) else "")
