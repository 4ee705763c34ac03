"""How long the stages took on this machine, and how long a run will take."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.storage import read_json, write_json


class Durations:
    """The seconds that each stage took the last time, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seconds: dict[str, float] = {}
        if path.is_file():
            self._seconds = read_json(path)

    def save(self, stage: str, seconds: float) -> None:
        """Record how long a stage took."""
        self._seconds[stage] = round(seconds, 1)
        write_json(self._path, self._seconds)

    def of(self, stage: str) -> float | None:
        """Return the seconds of a stage, or the mean of those with the same name before the @; None if there are none."""
        if stage in self._seconds:
            return self._seconds[stage]
        kind = stage.partition("@")[0]
        alike = [seconds for name, seconds in self._seconds.items() if name.partition("@")[0] == kind]
        return sum(alike) / len(alike) if alike else None

    def expected(self, stages: Sequence[Any], needs: Mapping[Any, set[Any]], jobs: int) -> float | None:
        """Return about how many seconds a run takes; None if the duration of a stage is not known.

        :param stages: The stages to run, in an order that respects their dependencies.
        :param needs: The stages that each of them depends on.
        :param jobs: The number of stages that run at the same time.
        """
        ends: dict[Any, float] = {}
        total = 0.0
        for stage in stages:
            seconds = self.of(stage.addressing)
            if seconds is None:
                return None
            total += seconds
            ends[stage] = seconds + max((ends.get(needed, 0.0) for needed in needs[stage]), default=0.0)
        return max([total / jobs, *ends.values()])
