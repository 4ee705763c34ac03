"""The rows of a source as columns in a temporary file, which the preparation reads in batches: memory does not grow with the text."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.text.records import Fault

SCHEMA = pa.schema(
    [
        pa.field("line", pa.int64(), nullable=False),
        pa.field("sentence1", pa.string()),
        pa.field("sentence2", pa.string()),
        pa.field("label", pa.string()),
    ]
)
COLUMNS = SCHEMA.names[1:]


@dataclass(eq=False)
class SourceRows:
    """The rows of a file, or of all parts of a folder. The values of a row with a fault are null.

    Batches are appended; after the first is read, no more can be.
    """

    name: str  # of the file, for messages
    scratch: Path | None = None  # the folder of the temporary file, which has no name there; None: the system's
    faults: dict[int, Fault] = field(default_factory=dict)  # by position
    # By position: the last line of a row over several lines, and the sentence1 and label of those that look like rows.
    spanning: dict[int, tuple[int, list[tuple[str, str]]]] = field(default_factory=dict)
    left_out: int = 0  # rows that `where` did not select
    parts: list[tuple[int, str]] = field(default_factory=list)  # the position of each file's first row, and its name
    unit: str = "line"  # what `line` numbers, for messages
    class_names: list[str] | None = None  # of a label column of class numbers that names its classes, in their order

    def __post_init__(self) -> None:
        self._starts = [0]  # of each batch, and the end of the last
        self._file: IO[bytes] | None = None
        self._writer: Any = None
        self._reader: Any = None

    def __len__(self) -> int:
        return self._starts[-1]

    def append(self, batch: pa.RecordBatch) -> None:
        """Append rows of SCHEMA.

        :raises InputError: If they cannot be written.
        """
        with _writing(self.scratch):
            if self._file is None:
                self._file = TemporaryFile(dir=self.scratch)  # noqa: SIM115
                self._writer = pa.ipc.new_file(pa.PythonFile(self._file, "w"), SCHEMA)
            self._writer.write_batch(batch)
        self._starts.append(len(self) + len(batch))

    def _read(self, number: int) -> pa.RecordBatch:
        if self._reader is None:
            with _writing(self.scratch):
                self._writer.close()
            self._reader = pa.ipc.open_file(pa.PythonFile(self._file, "r"))
        return self._reader.get_batch(number)

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the rows in batches of SCHEMA, each with the position of its first row."""
        for number, start in enumerate(self._starts[:-1]):
            yield start, self._read(number)

    def take(self, positions: NDArray[np.int64], columns: Sequence[str]) -> pa.RecordBatch:
        """Return columns of the rows at these positions, at least one, which may be in any order."""
        order = np.argsort(positions, kind="stable")
        ascending = positions[order]
        bounds = np.searchsorted(ascending, self._starts)
        parts = []
        for number, (begin, end) in enumerate(pairwise(bounds.tolist())):
            if begin < end:
                batch = self._read(number).select(columns)
                parts.append(batch.take(pa.array(ascending[begin:end] - self._starts[number])))
        return pa.Table.from_batches(parts).combine_chunks().to_batches()[0].take(pa.array(np.argsort(order)))

    @property
    def names(self) -> list[str]:
        """The name of each part's file."""
        return [name for _, name in self.parts] or [self.name]

    def parts_of(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the part that each position is in."""
        starts = [start for start, _ in self.parts] or [0]
        found: NDArray[np.int64] = np.searchsorted(starts, positions, side="right") - 1
        return found


@contextmanager
def _writing(folder: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = "the system's temporary folder" if folder is None else str(folder.resolve())
        raise InputError(
            f"{where}: {error.strerror or error}; the stage needs as much free space there as the text takes"
        ) from error
