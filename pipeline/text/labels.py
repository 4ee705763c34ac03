"""From the label values of a source to the task's classes, and advice on the values that are none of them."""

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from pipeline.errors import InputError
from pipeline.params.text import Text

_WHOLE = re.compile(r"(-?\d+)\.0+")
_MISSING = frozenset({"", "-1", "nan", "none", "null", "na", "n/a", "?"})
_TRUTH = (("false", "true"), ("no", "yes"), ("n", "y"), ("f", "t"))
SHOWN = 5


class Labels:
    """The values of a task's labels.

    Values match in Unicode form NFC, and whole numbers with or without `.0`, which pandas adds in a column with missing values.
    """

    def __init__(self, text: Text) -> None:
        self._names = text.labels
        self._given = dict(text.label_values) or dict(zip(text.labels, text.labels, strict=True))
        self._mapped = bool(text.label_values)
        numbers = {_nfc(name): number for number, name in enumerate(text.labels)}
        exact = {value: None if name is None else numbers[_nfc(name)] for value, name in self._given.items()}
        self._numbers: dict[str, int | None] = {_canonical(value): number for value, number in exact.items()} | exact

    def number(self, value: str) -> int | None:
        """Return the class number of a value; None where it means no label.

        :raises KeyError: If it is no value of the task's.
        """
        try:
            return self._numbers[value]
        except KeyError:
            return self._numbers[_canonical(value)]

    def of_classes(self, names: Sequence[str], file: str) -> Mapping[str, str | None]:
        """Return the value of each class number in a file that names its classes, as a ClassLabel of the Hugging Face does.

        -1 is no label there. Where the task's labels are the numbers themselves, the names do not count.

        :param names: The names, in the order of the numbers.
        :raises InputError: If neither names nor numbers are values of the task.
        """
        unlabelled: dict[str, str | None] = {} if "-1" in self._numbers else {"-1": None}
        named = any(_canonical(name) in self._numbers for name in names)
        numbered = any(str(number) in self._numbers for number in range(len(names)))
        if numbered and (self._mapped or not named):
            return unlabelled
        if not named:
            raise InputError(
                f"{file}: the classes of the label column (ClassLabel) are {_listed(names)}, the task's labels are "
                f"{_listed(self._names)}; map them with text.label_values, a mapping of the first to the second"
            )
        return unlabelled | {str(number): name for number, name in enumerate(names)}

    def advice(self, unknown: Iterable[str]) -> list[str]:
        """Return lines on values that are none of the task's: what these are, and what to write."""
        listed = f"The task's labels are {_listed(self._names)}"
        if self._mapped:
            maps = (f"{v!r} to {'no label' if name is None else repr(name)}" for v, name in self._given.items())
            listed += f"; text.label_values maps {', '.join(maps)}"
        folded = {_folded(value): name for value, name in self._given.items()}
        found = list(dict.fromkeys(unknown))
        near = {value: folded[_folded(value)] for value in found if _folded(value) in folded}
        none = {
            value: None for value in found if value not in near and _canonical(value.strip().casefold()) in _MISSING
        }
        lines = [f"{listed}."]
        guess = {} if self._mapped or near else self._guess(found, none)
        if guess:
            kind = "class numbers" if any(value.isdigit() for value in guess) else "these values"
            first, name = next(iter(guess.items()))
            lines.append(f"For {kind}, write text.label_values, such as {_shown(guess)}, if {first} is {name}.")
        elif near or none:
            lines.append(
                f"Did you mean text.label_values: {_shown(self._given | dict([*near.items(), *none.items()][:SHOWN]))}?"
            )
        elif self._mapped:
            lacking = dict.fromkeys(found[:SHOWN], "CLASS")
            lines.append(
                f"It lacks {_listed(lacking)}; write the class of each, or null for no label: "
                f"text.label_values: {_shown(self._given | lacking)}"
            )
        else:
            lines.append("Map each value to one of them with text.label_values, or to null for no label.")
        return lines

    def _guess(self, found: Sequence[str], none: Mapping[str, None]) -> dict[str, str | None]:
        """Return values that are numbers or truth values, each with a class in the order of the task's; nothing if they are others.

        :param none: The values that usually mean no label.
        """
        names, values = self._names, {_canonical(value): None for value in found}
        if values and all(re.fullmatch(r"-?\d+", value) for value in values):
            numbers = sorted(map(int, values))
            if len(numbers) == len(names) and numbers != [-1, 0]:
                return dict(zip(map(str, numbers), names, strict=True))
        rest = [value for value in values if value not in map(_canonical, none)]
        if rest and all(value.isdigit() for value in rest):
            numbers = sorted(map(int, rest))
            start = min(numbers[0], 1)
            if numbers[-1] < start + len(names):
                return dict(zip(map(str, range(start, start + len(names))), names, strict=True)) | dict(none)
        for pair in _TRUTH:
            if len(names) == 2 and rest and all(value.casefold() in pair for value in rest):
                ordered = sorted(rest, key=lambda value: pair.index(value.casefold()))
                return {value: names[pair.index(value.casefold())] for value in ordered} | dict(none)
        return {}


def _shown(mapping: Mapping[str, str | None]) -> str:
    return json.dumps(mapping, ensure_ascii=False)


def _nfc(value: str) -> str:
    return value if value.isascii() else unicodedata.normalize("NFC", value)


def _canonical(value: str) -> str:
    whole = _WHOLE.fullmatch(value)
    return whole[1] if whole else _nfc(value)


def _folded(value: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", value).casefold().split())


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
