"""The seconds that the parts of a run take."""

import time
from typing import Self


class Stopwatch:
    """Measures parts of a run, one after the other: each call names the part that begins."""

    def __init__(self, part: str) -> None:
        self._parts: dict[str, float] = {}
        self._part, self._since = part, time.perf_counter()

    def __call__(self, part: str) -> Self:
        """End the part that runs, and begin another, or go on with one that ran before."""
        now = time.perf_counter()
        self._parts[self._part] = self._parts.get(self._part, 0.0) + now - self._since
        self._part, self._since = part, now
        return self

    def __str__(self) -> str:
        """Return the seconds of each part, that which runs included, in the order in which they began: `reading 1.2, writing 0.3`."""
        self(self._part)
        return ", ".join(f"{part} {seconds:.1f}" for part, seconds in self._parts.items())
