"""What `check` finds: problems, which fail it, and warnings."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.params.inputs import ABSENT, read_mapping
from pipeline.params.project import Settings
from pipeline.params.seeds import base_of

DONE_ELSEWHERE = "not needed to train students here: its stage ran elsewhere"


@dataclass
class Findings:
    """The problems and warnings of a task, one line each."""

    settings: Settings
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def at(self, place: str, absent: bool = False) -> Iterator[None]:
        """Record an InputError as a problem of a place in the settings.

        :param absent: The place needs an input that is not on this machine, but a stage has read it elsewhere: a warning. The clone of
            somebody who only trains students lacks the text and the teacher.
        """
        try:
            yield
        except InputError as error:
            # Some name their file and key themselves.
            shown = str(error) if str(error).startswith(place.partition(": ")[0] + ": ") else f"{place}: {error}"
            if absent:
                self.warnings.append(f"{shown} ({DONE_ELSEWHERE})")
            else:
                self.problems.append(shown)

    def place(self, block: str, name: str) -> str:
        """Return the file and the key of a teacher, of vectors or of a student, for messages."""
        overrides: Mapping[str, Any] = getattr(self.settings.task, block)
        own = name in overrides or base_of(name) in overrides
        return f"{f'tasks/{self.settings.name}.yaml' if own else 'params.yaml'}: {block}.{name}"

    def ran(self, output: str, *keys: str) -> bool:
        """Return whether a stage has read an input: its hash is in stamps/TASK/inputs.json or, for an input without one, its output is here.

        :param output: The output, inside data/TASK.
        :param keys: The keys of the hash; none for an input that has none.
        """
        stamp = Path("stamps") / self.settings.name / "inputs.json"
        if not keys or not stamp.exists():  # an output alone does not tell which input it was made from
            return (Path("data") / self.settings.name / output).exists()
        found: Any = read_mapping(stamp)
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return _is_hash(found)


def _is_hash(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_is_hash, value.values()))
    return isinstance(value, str) and value != ABSENT
