"""The checks of the texts and paths that a caller passes. They need NumPy alone, and read columns of other libraries by their methods."""

from collections import UserString
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from pipeline.errors import InputError

Texts = Iterable[Any]
"""A list, tuple, iterator, numpy array, pandas or polars Series, or pyarrow array, of strings or of pairs of strings."""

PAIR = "a pair of strings (sentence1, sentence2)"


class TextTypeError(InputError, TypeError):
    """The texts have the wrong type."""


class TextValueError(InputError, ValueError):
    """A text is missing or invalid, or two columns differ in length."""


def sides_of(texts: Texts, second: Texts | None, pairs: bool, call: str = "predict") -> tuple[list[str], ...]:
    """Return the n first sentences, followed by the n second sentences where a text is a pair.

    :param texts: n strings; for pairs n pairs of strings, or the n first sentences.
    :param second: The n second sentences, where `texts` has the first ones.
    :param call: The function that the caller called, for messages.
    :raises TextTypeError: If an argument is no column of texts, or a text is not what the student reads.
    :raises TextValueError: If a text is missing or not valid Unicode, or the two columns differ in length.
    """
    if second is not None:
        return _two_columns(texts, second, pairs, call)
    items = _items(texts, "texts", pairs, call)
    if not pairs:
        return (_strings(items, "text", call),)
    for i, item in enumerate(items):
        if not (isinstance(item, tuple | list) and len(item) == 2):
            if is_missing(item):
                _refuse_missing(items, i, "text")
            raise TextTypeError(
                f"text {i}: {shown(item)} is not {PAIR}; for two columns, {_of_two(call, 'sentence1', 'sentence2')}"
            )
        for part in item:
            if not isinstance(part, str) and not is_missing(part):
                raise TextTypeError(f"text {i}: {shown(item)} is not {PAIR}")
    return tuple(_strings([item[side] for item in items], f"sentence{side + 1} of text", call) for side in range(2))


def _two_columns(texts: Texts, second: Texts, pairs: bool, call: str) -> tuple[list[str], ...]:
    if not pairs:
        raise TextTypeError(f"this student reads single sentences; pass one list of texts: {call}(texts)")
    if isinstance(texts, str) and isinstance(second, str):
        raise TextTypeError(
            f"sentence1 and sentence2 are two strings; pass two lists: {_of_two(call, '[sentence1]', '[sentence2]')}"
        )
    columns = _items(texts, "sentence1", pairs, call), _items(second, "sentence2", pairs, call)
    if len(columns[0]) != len(columns[1]):
        raise TextValueError(
            f"sentence1 has {len(columns[0]):,} texts and sentence2 has {len(columns[1]):,}; pass as many of each"
        )
    return tuple(_strings(column, f"sentence{side} of text", call) for side, column in enumerate(columns, 1))


def _items(texts: Any, name: str, pairs: bool, call: str) -> list[Any]:
    if problem := _problem(texts, pairs, call):
        raise TextTypeError(f"{name}: {problem}")
    return items_of(texts)


def items_of(texts: Any) -> list[Any]:
    """Return a column of any library as a list of Python objects."""
    for method in ("to_pylist", "to_list", "tolist"):  # pyarrow; pandas and polars; numpy
        if callable(getattr(texts, method, None)):
            return list(getattr(texts, method)())
    items = list(texts)
    if items and hasattr(items[0], "as_py"):  # pyarrow's scalars
        return [item.as_py() if hasattr(item, "as_py") else item for item in items]
    return items


def _problem(texts: Any, pairs: bool, call: str) -> str:
    """Return why a value is no column of texts, and what to pass; empty for a column."""
    kind, wanted = type(texts).__name__, "a list of pairs of strings" if pairs else "a list of strings"
    dimensions = getattr(texts, "ndim", 1)
    match texts:
        case str() | UserString():
            texts = str(texts)
            example = '[("first sentence", "second sentence")]' if pairs else f"[{texts[:20]!r}, ...]"
            return f"{texts[:60]!r} is one string; pass a list of texts: {example}, for one text {call}([text])"
        case bytes() | bytearray() | memoryview():
            return f"{kind} is not {wanted}; decode it first: data.decode().splitlines()"
        case Mapping():
            return f"a {kind} is not {wanted}; pass a list of its values"
        case set() | frozenset():
            return f"a {kind} has no order; pass {wanted}"
    if "GroupBy" in kind or isinstance(texts, type):
        return f"{shown(texts) if isinstance(texts, type) else f'a {kind}'} is not {wanted}; pass {wanted}"
    if hasattr(type(texts), "columns") or hasattr(type(texts), "column_names"):  # pandas, polars, pyarrow, datasets
        columns = 'table["sentence1"]', 'table["sentence2"]'
        example = _of_two(call, *columns) if pairs else f'{call}(table["text"])'
        if hasattr(texts, "collect") and hasattr(texts, "collect_schema"):
            return f"a {kind} has no values yet; call .collect() first, then {example}"
        return f"a {kind} is a table; pass {'two of its columns' if pairs else 'one of its columns'}: {example}"
    if dimensions != 1:
        example = _of_two(call, "array[:, 0]", "array[:, 1]") if pairs else f"{call}(array[:, 0])"
        advice = f"pass columns: {example}" if dimensions == 2 else f"pass {wanted}"
        return f"this {kind} has {dimensions} dimensions, not 1; {advice}"
    if not hasattr(texts, "__iter__"):
        return f"{shown(texts)}, of type {kind}, is not {wanted}"
    return ""


def _of_two(call: str, first: str, second: str) -> str:
    """Return a call with two columns. Of other functions than `predict`, the second argument is something else."""
    return f"{call}({first}, {second})" if call == "predict" else f"{call}({first}, sentence2={second})"


def _strings(items: list[Any], name: str, call: str) -> list[str]:
    """Return the items after a check that each is a string of valid Unicode."""
    try:
        "".join(items).encode()  # checks all at once
    except (TypeError, UnicodeEncodeError):
        _refuse(items, name, call)
    return items


def _refuse(items: list[Any], name: str, call: str) -> NoReturn:
    for i, item in enumerate(items):
        if is_missing(item):
            _refuse_missing(items, i, name)
        if not isinstance(item, str):
            advice = ""
            if isinstance(item, bytes | bytearray):
                advice = "; decode it: text.decode()"
            elif isinstance(item, UserString):
                advice = " but a UserString; pass str(text)"
            elif isinstance(item, tuple | list) and name == "text":
                reads = (
                    "this student reads single sentences" if call == "predict" else "pass strings, or pairs of strings"
                )
                advice = f"; {reads}"
            raise TextTypeError(f"{name} {i}: {shown(item)} is not a string{advice}")
        try:
            item.encode()
        except UnicodeEncodeError as error:
            raise TextValueError(
                f"{name} {i}: character {error.start} ({item[error.start]!r}) is half of a surrogate pair; decode the text again"
            ) from None
    raise AssertionError("every item is a string")


def _refuse_missing(items: list[Any], first: int, name: str) -> NoReturn:
    count = sum(map(is_missing, items))
    some = f" ({count:,} of {len(items):,} are missing)" if count > 1 else ""
    raise TextValueError(f"{name} {first} is missing: {shown(items[first])}{some}; drop it, or pass an empty string")


def is_missing(item: Any) -> bool:
    """Return whether an item is None, NaN, pandas' NA or NaT."""
    if item is None or type(item).__name__ in ("NAType", "NaTType"):
        return True
    return not isinstance(item, str | tuple | list) and getattr(item, "ndim", 0) == 0 and bool(item != item)


def as_path(value: object, argument: str = "folder") -> Path:
    """Return a function's argument as a path.

    :raises InputError: If the value is neither a string nor a path, or is empty.
    """
    if not isinstance(value, str | Path) or not str(value):
        raise InputError(f"{argument}: {shown(value)}: must be a path")
    return Path(value)


def shown(item: Any) -> str:
    """Return a value for a message: one line, at most 60 characters."""
    text = " ".join(repr(item).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
