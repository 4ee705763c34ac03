"""Errors of a function's arguments: one line that names the argument."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from pipeline.errors import InputError
from pipeline.params.reading import validated

M = TypeVar("M", bound=BaseModel)


def settings_of(model: type[M], values: Mapping[str, object], argument: str) -> M:
    """Return the values of an argument as settings of params.yaml.

    :raises InputError: If a key is unknown, or a value invalid.
    """
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
def extra(name: str, what: str) -> Iterator[None]:
    """Import modules of an extra.

    :param what: What needs it, for the message.
    :raises InputError: If one is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(f"{what} needs {error.name}: pip install 'offline-distill[{name}]'") from error
