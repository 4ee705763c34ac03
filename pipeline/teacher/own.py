"""User-defined teachers, by import path: an ensemble, a remote service, anything that turns text into logits."""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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

logger = logging.getLogger(__name__)

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
        try:
            found = np.asarray(self.model.predict_logits(given), dtype=np.float32)
        except Exception as error:  # the user's code may raise anything
            logger.debug("%s failed", self.source, exc_info=True)
            raise InputError(f"{self.source}: predict_logits raises {_one_line(error)}") from error
        expected = (texts.num_rows, len(self.columns))
        if found.shape != expected:
            raise InputError(f"{self.source}: predict_logits returns an array of shape {found.shape}, not {expected}")
        return np.ascontiguousarray(found[:, self.columns])


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


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
    try:
        model = plugins.build(path, params)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{source}: raises {_one_line(error)}") from error
    if not callable(getattr(model, "predict_logits", None)):
        raise InputError(f"{source}: has no method predict_logits(texts)")
    columns = match(source, _classes(model, labels), labels, names)
    code = plugins.code_digest(path)
    if _digests.setdefault(sys.modules[path.partition(":")[0]], code) != code:  # in a long-lived worker of a cluster
        raise InputError(f"{source}: its code changed after process {os.getpid()} imported it; restart that process")
    hashes = {file: _hash_of(source, file) for file in files}
    return OwnTeacher(source, dict(params), model, tuple(labels), columns, code, hashes)


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
