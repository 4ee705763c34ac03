"""User-defined teachers, by import path: an ensemble, a remote service, anything that turns text into logits."""

import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import plugins
from pipeline.errors import InputError
from pipeline.storage import sha256_of
from pipeline.teacher.classes import match

SCHEME = "python:"

_digests: WeakKeyDictionary[ModuleType, str | None] = WeakKeyDictionary()
"""`plugins.code_digest` of each imported module, from the first time that it was opened."""


@dataclass(frozen=True)
class OwnTeacher:
    """A user's object that labels.

    It has `predict_logits(texts)`: a list of n strings, or of n pairs of strings, to floats [n, C]. Optional attributes: `labels`, the class
    names of the C columns (default: the task's, in its order); `fingerprint`, a string that changes when the logits change; `mask_token`, the
    word that it reads as a mask.
    """

    source: str
    """Its import path, as in params.yaml."""
    params: Mapping[str, Any]
    model: Any
    labels: tuple[str, ...]
    """The task's class names."""
    columns: tuple[int, ...]
    """For each of `labels`, the column of the object's output that holds it."""
    code_sha256: str | None = None
    """`plugins.code_digest` of its module."""
    files_sha256: Mapping[str, str] = field(default_factory=dict)
    """Path -> SHA-256 of the files that it reads, as far as params.yaml lists them."""

    def predict(self, texts: pa.Table) -> NDArray[np.float32]:
        """Return the logits of texts, float32 [n, C], in the order of the task's labels.

        :param texts: sentence1 and sentence2, n rows; sentence2 is null in all or in none.
        :raises InputError: If the object fails, or does not return [n, C] numbers.
        """
        first = texts["sentence1"].to_pylist()
        pairs = texts["sentence2"].null_count < texts.num_rows
        given = list(zip(first, texts["sentence2"].to_pylist(), strict=True)) if pairs else first
        with plugins.running(self.source.removeprefix(SCHEME), "predict_logits"):
            returned = self.model.predict_logits(given)
        found = _numbers(self.source, returned)
        expected = (texts.num_rows, len(self.columns))
        if found.shape != expected:
            raise InputError(f"{self.source}: predict_logits returns an array of shape {found.shape}, not {expected}")
        return np.ascontiguousarray(found[:, self.columns])


def _numbers(source: str, returned: Any) -> NDArray[np.float32]:
    """Return what predict_logits returned as float32. Raises an InputError if it is not real numbers."""
    what, why = type(returned).__name__ if returned is not None else "None", ""
    try:
        found = np.asarray(returned)
        if returned is not None and found.dtype.kind not in "cmM" and not np.ma.is_masked(returned):
            return found.astype(np.float32, copy=False)
        why = "" if returned is None else f" ({found.dtype})"
    except Exception as error:  # such as a tensor on a GPU
        why = f" ({' '.join(str(error).split())[:200]})"
    if isinstance(returned, list | tuple) and returned:
        what += f" of {type(returned[0]).__name__}"
    if inspect.iscoroutine(returned):
        returned.close()  # otherwise Python warns that it was never awaited
    raise InputError(
        f"{source}: predict_logits must return numbers of shape [texts, classes], one logit per class, not {what}{why}"
    )


def open_own(
    source: str, params: Mapping[str, Any], labels: Sequence[str], names: Mapping[str, str], files: Sequence[str] = ()
) -> OwnTeacher:
    """Build a user's teacher.

    :param source: `python:package.module:Name`.
    :param names: The teacher's class name -> the task's, where they differ.
    :param files: Files that its logits depend on.
    :raises InputError: If it does not import, rejects the parameters, has no predict_logits or other classes, its code changed after it
        was imported, or a file is missing.
    """
    path = source.removeprefix(SCHEME)
    model = plugins.build(path, params)
    opened = own_teacher(source, model, labels, names)
    code = plugins.code_digest(path)
    if _digests.setdefault(sys.modules[path.partition(":")[0]], code) != code:  # in a long-lived worker of a cluster
        raise InputError(f"{source}: its code changed after process {os.getpid()} imported it; restart that process")
    hashes = {file: _hash_of(source, file) for file in files}
    return replace(opened, params=dict(params), code_sha256=code, files_sha256=hashes)


def own_teacher(source: str, model: Any, labels: Sequence[str], names: Mapping[str, str]) -> OwnTeacher:
    """Return a user's object as a teacher, without parameters and hashes.

    :param names: The teacher's class name -> the task's, where they differ.
    :raises InputError: If it has no predict_logits, other classes, or attributes of a wrong type.
    """
    if not callable(getattr(model, "predict_logits", None)):
        raise InputError(f"{source}: has no method predict_logits(texts)")
    check_attributes(source, model)
    columns = match(source, _classes(model, labels), labels, names)
    return OwnTeacher(source, {}, model, tuple(labels), columns)


_ATTRIBUTES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "labels": (
        lambda value: (
            isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | set | frozenset | Iterator)
        ),
        "labels must be a list of class names",
    ),
    "mask_token": (
        lambda value: isinstance(value, str) and bool(value),
        "mask_token must be a string that is not empty; leave it out if the teacher has none",
    ),
    "fingerprint": (
        lambda value: not callable(value) and " at 0x" not in str(value),  # a method, or an object without text
        "fingerprint must be a string; write it as an attribute or @property",
    ),
}
"""Optional attribute of a user's teacher -> whether a value is valid, and what it must be."""


def check_attributes(source: str, model: Any) -> None:
    """Refuse optional attributes of a user's teacher that are of a wrong type, or whose properties raise an exception.

    :param model: The teacher, or its class, of which only the attributes that its objects may not replace are checked.
    """
    for name, (valid, wanted) in _ATTRIBUTES.items():
        with plugins.running(source.removeprefix(SCHEME), f"its attribute {name}"):
            static = inspect.getattr_static(model, name, _ABSENT)
            # An AttributeError of a property's own code does not mean that there is no property.
            value = getattr(model, name, _ABSENT) if static is _ABSENT else getattr(model, name)
            replaced = value is None and model.__init__ is not object.__init__
            if isinstance(model, type) and (replaced or (hasattr(value, "__get__") and not callable(value))):
                continue  # a default that __init__ replaces, or a property
            if value is not _ABSENT and not valid(value):
                shown = "a method" if inspect.isroutine(value) else f"{value!r:.80}"
                raise InputError(f"{source}: {wanted}, not {shown}")


_ABSENT = object()


def _classes(model: Any, labels: Sequence[str]) -> list[str]:
    return [str(name) for name in getattr(model, "labels", labels)]


def _hash_of(source: str, file: str) -> str:
    if not Path(file).is_file():
        raise InputError(f"{source}: model.files lists {file}: no such file in {Path.cwd()}")
    return sha256_of(Path(file))


def describe_own(teacher: OwnTeacher, licence: str) -> dict[str, Any]:
    """Return what identifies a user's teacher, as JSON, with the keys of `model.describe`."""
    classes = _classes(teacher.model, teacher.labels)
    fingerprint = getattr(teacher.model, "fingerprint", None)
    return {
        "source": teacher.source,
        "params": dict(teacher.params),
        "fingerprint": None if fingerprint is None else str(fingerprint),
        "code_sha256": teacher.code_sha256,
        "files_sha256": dict(teacher.files_sha256),
        "revision": None,
        "sha256": None,
        "licence": licence,
        "architecture": type(teacher.model).__name__,
        "labels": {name: classes[column] for name, column in zip(teacher.labels, teacher.columns, strict=True)},
        "max_length": None,
        "parameters": None,
        "bytes": None,
    }
