"""Errors of a function's arguments: one line that names the argument."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.errors import InputError, not_installed

if TYPE_CHECKING:
    from pydantic import BaseModel

M = TypeVar("M", bound="BaseModel")


def settings_of(model: type[M], values: Mapping[str, object], argument: str) -> M:
    """Return the values of an argument as settings of params.yaml.

    :raises InputError: If a key is unknown, or a value invalid.
    """
    from pipeline.params.reading import validated  # here, so that reading a data set needs no pydantic

    return validated(model, values, Path(argument))


def mapping(values: object, argument: str) -> Mapping[str, Any]:
    """Return a mapping of an argument; {} for None.

    :raises InputError: If it is none.
    """
    if values is not None and not isinstance(values, Mapping):
        raise InputError(f"{argument}: {shown(values)}: must be a mapping of keys to values")
    return values or {}


def path_of(value: object, argument: str) -> Path:
    """Return a path.

    :raises InputError: If the value is neither a string nor a path.
    """
    if not isinstance(value, str | Path) or not str(value):
        raise InputError(f"{argument}: {shown(value)}: must be a path")
    return Path(value)


def shown(value: object) -> str:
    """Return a value for a message: one line, at most 60 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


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
def installed(what: str) -> Iterator[None]:
    """Turn a module that is not installed into an InputError that names its extra.

    :param what: What needs it, for the message.
    :raises InputError: As above.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if message := not_installed(error.name, what):
            raise InputError(message) from error
        raise
