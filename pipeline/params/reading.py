"""Reads a YAML file of settings into a model. Every error is one line with the file, the key, the value and the reason."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from pipeline.errors import InputError
from pipeline.params.base import TRUTH
from pipeline.storage import YamlError, load_yaml

OVERRIDES = ("tag", "augment", "teachers", "vectors", "students")
SHOWN = 200
"""Characters of a wrong value in a message."""
_READ_AS = {
    bool: f"{TRUTH}: write the word in quotes",
    type(None): "; YAML reads null, ~ and an empty value as no value: write the text in quotes",
}
_PLAIN = {
    "too_short": "at least one is needed",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "list_type": "must be a list",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
}
"""By pydantic's name of an error, the message in place of pydantic's, which has Python's names of types."""
M = TypeVar("M", bound=BaseModel)


class SettingsError(InputError):
    """An InputError in a file of settings: the message is the first of its problems."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(problems[0])
        self.problems = list(problems)


@contextmanager
def collected(problems: list[str]) -> Iterator[None]:
    """Add the problems of an InputError to a list, instead of raising it."""
    try:
        yield
    except InputError as error:
        problems += getattr(error, "problems", [str(error)])


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    :raises InputError: If the file cannot be read, is not valid YAML (see `storage.load_yaml`), or is not a mapping.
    """
    try:
        value = load_yaml(path.read_bytes())
    except FileNotFoundError as error:
        there = (
            ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml"))) if path.parent.name == "tasks" else ""
        )
        hint = f"the tasks here are {there}" if there else f"run this in the project's folder (this is {Path.cwd()})"
        raise InputError(f"{path}: no such file; {hint}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except YamlError as error:
        raise InputError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: must be a mapping of keys to values{'; the file is empty' if value is None else ''}")
    return value


def validated(model: type[M], value: Mapping[str, Any], path: Path) -> M:
    """Return the content of a file as a model.

    :raises SettingsError: If it is not valid: a line for each problem, with the file, the key and the value.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = [f"{path}: {message}".replace("\n", r"\n") for message in _messages(error.errors(), model, value)]
        raise SettingsError(problems) from None


def _messages(errors: Sequence[Mapping[str, Any]], model: type[BaseModel], value: Mapping[str, Any]) -> Iterator[str]:
    """Yield a message for each key in error: unknown keys first, and no missing key that is there with another spelling."""
    absent = [tuple(error["loc"]) for error in errors if error["type"] == "missing"]
    spelt: set[tuple[int | str, ...]] = set()
    others: dict[str, Mapping[str, Any]] = {}  # by key: pydantic has an error for each type of a union
    for error in errors:
        path = _path(error["loc"], value)
        key = ".".join(path)
        if error["type"] == "extra_forbidden":
            *parents, last = error["loc"]
            known = [loc[-1] for loc in absent if loc[:-1] == tuple(parents)]
            meant = _similar(last, known) or _similar(last, _fields(model, path[:-1]))
            spelt.add((*parents, meant or ""))
            hint = f"; did you mean {meant}?" if meant else f" (value {_shown(error['input'])})"
            yield f"{key}: unknown key{hint}"
        elif error["type"] == "invalid_key" or (
            error["loc"][-1:] == ("[key]",) and not isinstance(error["input"], str)
        ):
            block = ".".join(_path([part for part in error["loc"] if part != "[key]"][:-1], value))
            hint = _READ_AS.get(type(error["input"]), "; write it in quotes")
            yield f"{block}: the key {_shown(error['input'])}: must be a string{hint}"
        elif error["type"] == "missing":
            others[".".join(map(str, error["loc"]))] = error
        else:
            text = _PLAIN.get(error["type"], error["msg"])
            before, also = others.get(key), text.removeprefix("Input should be ").removeprefix("must be ")
            others[key] = {**error, "msg": text} if before is None else {**before, "msg": f"{before['msg']} or {also}"}
    yield from (_message(key, error) for key, error in others.items() if tuple(error["loc"]) not in spelt)


def _fields(model: type[BaseModel], path: Iterable[str]) -> list[str]:
    """Return the keys of the block of a model that a path leads to, through mappings and unions."""
    kinds: list[Any] = [model]
    for part in path:
        inner = [
            kind.model_fields[part].annotation if _is_model(kind) else get_args(kind)[1]
            for kind in kinds
            if not _is_model(kind) or part in kind.model_fields
        ]
        kinds = [plain for kind in inner for plain in _plain(kind)]
    return [name for kind in kinds if _is_model(kind) for name in kind.model_fields]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _plain(kind: Any) -> list[Any]:
    """Return the models and the mappings in a union of types."""
    if _is_model(kind) or get_origin(kind) is dict:
        return [kind]
    return [inner for argument in get_args(kind) for inner in _plain(argument)]


def _similar(name: Any, known: Iterable[Any]) -> str | None:
    """Return the one of some names that a misspelt one resembles, ignoring case; None if none does."""
    names = {each.casefold(): each for each in known if isinstance(each, str)}
    close = get_close_matches(str(name).casefold(), names, n=1)
    return names[close[0]] if close else None


def _message(key: str, error: Mapping[str, Any]) -> str:
    given, message = error["input"], error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        parents, _, name = key.rpartition(".")
        if isinstance(given, Mapping) and (other := _similar(name, given)):  # in a rule, which takes any key
            return f"{f'{parents}.' if parents else ''}{other}: unknown key; did you mean {name}?"
        empty = f"write `{key}: {{}}` to use the values of params.yaml (DVC tracks the key)"
        return f"{key}: missing; {empty if key in OVERRIDES else 'the key is required'}"
    if error["type"] == "string_type" and not isinstance(given, list | Mapping):
        message += _READ_AS.get(type(given), "; write it in quotes")
    elif given is None:
        message += "; the key has no value"
    elif error["type"] == "list_type" and isinstance(given, str):
        message += f"; write [{given}]"
    if key and not isinstance(given, Mapping):
        message = f"{_shown(given)}: {message}"
    return f"{key}: {message}" if key else message


def _shown(value: Any) -> str:
    shown = str(value) if isinstance(value, date) else repr(value)
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."


def _path(loc: Iterable[int | str], value: Any) -> list[str]:
    """Return the keys that lead to an error, without the parts that pydantic adds for unions and for keys of mappings."""
    parts = []
    for part in loc:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            continue
        parts.append(str(part))
    return parts
