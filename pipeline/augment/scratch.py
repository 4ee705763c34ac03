"""Arrays of numbers that one pass leaves for the next: end to end in one file.

One file and not one for each array, since a file system takes longer to make a small file than to fill it, and makes only one at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Place:
    """Where an array stands in its file."""

    offset: int  # bytes
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Arrays:
    """The arrays of a file, by name; it travels between processes as their places alone."""

    path: Path
    places: Mapping[str, Place]

    @classmethod
    def write(cls, path: Path, arrays: Mapping[str, NDArray[Any]]) -> "Arrays":
        """Write arrays to a new file."""
        places, offset = {}, 0
        with path.open("wb") as file:
            for name, array in arrays.items():
                array.tofile(file)
                places[name] = Place(offset, array.dtype.str, array.shape)
                offset += array.nbytes
        return cls(path, places)

    def read(self, name: str, first: int = 0, rows: int | None = None) -> NDArray[Any]:
        """Read some rows of an array, along its first dimension.

        :param name: Which array.
        :param first: The first row.
        :param rows: How many; all from the first on where None.
        """
        place = self.places[name]
        rows = place.shape[0] - first if rows is None else rows
        dtype, width = np.dtype(place.dtype), prod(place.shape[1:])
        offset = place.offset + first * width * dtype.itemsize
        return np.fromfile(self.path, dtype, rows * width, offset=offset).reshape(rows, *place.shape[1:])
