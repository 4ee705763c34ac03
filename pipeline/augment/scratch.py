"""Arrays of numbers that one pass writes for the next, one after the other in one file.

There is one file for all arrays because a file system takes longer to create a small file than to fill it, and creates one at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Arrays:
    """The arrays of a file, by name. Only their locations are sent between processes."""

    path: Path
    locations: Mapping[str, tuple[int, str, tuple[int, ...]]]  # offset in bytes, dtype, shape

    @classmethod
    def write(cls, path: Path, arrays: Mapping[str, NDArray[Any]]) -> "Arrays":
        """Write arrays to a new file."""
        locations, offset = {}, 0
        with path.open("wb") as file:
            for name, array in arrays.items():
                array.tofile(file)
                locations[name] = (offset, array.dtype.str, array.shape)
                offset += array.nbytes
        return cls(path, locations)

    def read(self, name: str, first: int = 0, rows: int | None = None) -> NDArray[Any]:
        """Read some rows of an array, along its first dimension: all from `first` on where `rows` is None."""
        offset, dtype, (length, *row) = self.locations[name]
        rows = length - first if rows is None else rows
        offset += first * prod(row) * np.dtype(dtype).itemsize
        return np.fromfile(self.path, dtype, rows * prod(row), offset=offset).reshape(rows, *row)
