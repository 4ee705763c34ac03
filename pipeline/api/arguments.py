"""Errors of a function's arguments: one line that names the argument."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

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
