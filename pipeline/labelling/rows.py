"""The rows that a teacher labels: originals in memory, augmented rows read file by file, each text once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import tables
from pipeline.errors import InputError
from pipeline.storage import read_json

SHOWN = 10
"""Rows that a message names before it counts the rest."""

_TEXT = ("id", "sentence1", "sentence2")
_POOL = pa.schema(
    [
        *(tables.AUGMENTED.field(name) for name in _TEXT),
        pa.field("split", pa.string()),  # split and line are null in augmented rows
        pa.field("line", pa.int64()),
    ]
)


@dataclass(frozen=True)
class LabelRows:
    """The originals of every split and the augmented rows of the training split, and which rows have the same text.

    :param examples: The originals, `tables.EXAMPLES`, E rows.
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
    def read(cls, examples: pa.Table, files: Sequence[Path]) -> "LabelRows":
        """Read the ids of all rows.

        :param examples: The originals, `tables.EXAMPLES`.
        :param files: The files of the augmented rows.
        :raises InputError: If a file has another schema.
        """
        ids = [tables.id_bytes(examples["id"])]
        ids += [tables.id_bytes(tables.read(path, tables.AUGMENTED, ["id"])["id"]) for path in files]
        found = pa.concat_arrays(ids).dictionary_encode()
        text_of = found.indices.to_numpy().astype(np.int64)
        first = np.unique(text_of, return_index=True)[1]
        starts = np.cumsum([0, *map(len, ids)], dtype=np.int64)
        return cls(examples, tuple(files), starts, found.dictionary, first, text_of)

    def ranges(self) -> Iterator[tuple[Path, int, int]]:
        """Yield each file of augmented rows, the number of its first row, and of the row after its last."""
        yield from zip(self.files, self.starts[1:-1].tolist(), self.starts[2:].tolist(), strict=True)

    def pools(self, wanted: NDArray[np.bool_], size: int) -> Iterator[pa.Table]:
        """Split texts into pools of equal size, except for the last one.

        Removing the texts of whole pools leaves the remaining pools unchanged. So a run that resumes after a kill has the same pools left.

        :param wanted: Which texts, bool [n].
        :param size: Texts per pool.
        :yields: id, sentence1, sentence2, split and line (both null in augmented rows), in the order of `texts`.
        """
        chosen = self.first[wanted]
        parts: list[pa.Table] = []
        for number, source in enumerate((None, *self.files)):
            low, high = np.searchsorted(chosen, self.starts[number : number + 2])
            if low == high:
                continue
            parts.append(self._texts_of(source).take(pa.array(chosen[low:high] - self.starts[number])))
            waiting = pa.concat_tables(parts)
            while waiting.num_rows >= size:
                yield waiting.slice(0, size).combine_chunks()
                waiting = waiting.slice(size)
            parts = [waiting]
        if parts and parts[0].num_rows:
            yield parts[0].combine_chunks()

    def _texts_of(self, source: Path | None) -> pa.Table:
        if source is None:
            return self.examples.select([*_TEXT, "split", "line"]).cast(_POOL)
        rows = tables.read(source, tables.AUGMENTED, _TEXT)
        nulls = [pa.nulls(rows.num_rows, _POOL.field(name).type) for name in ("split", "line")]
        return pa.table([*rows.columns, *nulls], schema=_POOL)

    def counts(self, chosen: NDArray[np.bool_]) -> dict[str, int]:
        """Count chosen texts by the split of their first row; augmented rows are counted separately.

        :param chosen: bool [n].
        """
        first = self.first[chosen]
        originals = first[first < self.examples.num_rows]
        found = pc.value_counts(self.examples["split"].cast(pa.string()).take(pa.array(originals)))
        counts = {entry["values"].as_py(): entry["counts"].as_py() for entry in found}
        counts["augmented"] = len(first) - len(originals)
        return {name: counts.get(name, 0) for name in (*tables.SPLITS, "augmented")}

    def named(self, chosen: NDArray[np.bool_]) -> str:
        """Return chosen texts, bool [n], as text for a message: the first `SHOWN`, then a count of the rest."""
        texts = np.flatnonzero(chosen)
        rows = []
        for text in texts[:SHOWN].tolist():
            row = int(self.first[text])
            if row < self.examples.num_rows:
                rows += self.examples.select(["id", "split", "line"]).slice(row, 1).to_pylist()
            else:
                rows.append({"id": self.texts[text].as_py().hex(), "split": None, "line": None})
        return _listed(rows, len(texts))


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


def refuse(texts: pa.Table, rows: NDArray[np.int64], fault: str) -> None:
    """Raise an error that names invalid rows of a pool, if there are any.

    :param texts: The pool: id, split, line.
    :param rows: The invalid rows.
    :param fault: What is wrong with them.
    :raises InputError: If there is at least one.
    """
    if len(rows):
        shown = texts.select(["id", "split", "line"]).take(pa.array(rows[:SHOWN])).to_pylist()
        raise InputError(f"{fault}: {_listed(shown, len(rows))}")


def _listed(rows: Sequence[dict[str, Any]], total: int) -> str:
    """Return rows as text: originals with the line of their source, augmented rows by id only."""
    shown = [
        f"augmented row {row['id']}"
        if row["line"] is None
        else f"{row['split']} row {row['id']} (line {row['line']} of its source)"
        for row in rows
    ]
    return ", ".join(shown) + (f" and {total - len(shown):,} more" if total > len(shown) else "")
