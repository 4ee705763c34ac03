"""Errors of a function's arguments: one line that names the argument."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.errors import InputError
from pipeline.students.texts import shown

if TYPE_CHECKING:
    from pydantic import BaseModel

M = TypeVar("M", bound="BaseModel")


def settings_of(model: type[M], values: Mapping[str, object], argument: str) -> M:
    """Return the values of an argument as settings of params.yaml.

    :raises InputError: If a key is unknown, or a value invalid.
    """
    from pipeline.params.reading import validated  # here, so that reading a data set needs no pydantic

    try:
        return validated(model, values, Path(argument))
    except InputError as error:  # its advice is for a file
        message = str(error).partition("; YAML reads ")[0].removesuffix("; the key has no value")
        raise InputError(message) from None


def mapping(values: object, argument: str) -> Mapping[str, Any]:
    """Return a mapping of an argument; {} for None.

    :raises InputError: If it is none.
    """
    if values is not None and not isinstance(values, Mapping):
        raise InputError(f"{argument}: {shown(values)}: must be a mapping of keys to values")
    return values or {}


def kind_of(value: object) -> str:
    """Return the type of a value for a message: "a list", "the class Bag"."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


@contextmanager
def named(argument: str) -> Iterator[None]:
    """Write the name of an argument in front of an InputError, and its lines as one.

    :raises InputError: As above.
    """
    try:
        yield
    except InputError as error:
        message = " ".join(str(error).split())
        raise InputError(message if message.startswith(f"{argument}: ") else f"{argument}: {message}") from error


@contextmanager
def worded(words: Mapping[str, str]) -> Iterator[None]:
    """Replace parts of an InputError's message: what a file of settings has and a call has not, or the path of a temporary folder.

    :param words: By part, what takes its place; in this order.
    :raises InputError: As above.
    """
    try:
        yield
    except InputError as error:
        message = str(error)
        for part, other in words.items():
            message = message.replace(part, other)
        raise InputError(message) from error
