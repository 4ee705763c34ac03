"""Teachers of the user's own, by import path: an ensemble, a remote service, anything that turns text into logits."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import plugins
from pipeline.errors import InputError
from pipeline.teacher.model import match

logger = logging.getLogger(__name__)

SCHEME = "python:"


@dataclass(frozen=True)
class OwnTeacher:
    """An object of the user's that labels.

    It has `predict_logits(texts)`: a list of n strings, or of n pairs of strings, to floats [n, C]. It may have `labels`, the class names
    of the C columns (without it they are the task's, in its order); `fingerprint`, a string that changes when its logits do (without it
    only the import path and the parameters tell one teacher from another); `mask_token`, what it reads as a masked word.

    :param source: Its import path, as params.yaml has it.
    :param params: Its keyword parameters.
    :param model: The object.
    :param labels: The task's class names.
    :param columns: For each of them, the column of the object's output that holds it.
    """

    source: str
    params: Mapping[str, Any]
    model: Any
    labels: tuple[str, ...]
    columns: tuple[int, ...]

    def predict(self, texts: pa.Table) -> NDArray[np.float32]:
        """Return the logits of some texts.

        :param texts: sentence1 and sentence2, n rows; sentence2 is null in all or in none.
        :return: float32 [n, C], in the order of the task's labels.
        :raises InputError: If the object fails, or what it returns is not [n, C] numbers.
        """
        first = texts["sentence1"].to_pylist()
        pairs = texts["sentence2"].null_count < texts.num_rows
        given = list(zip(first, texts["sentence2"].to_pylist(), strict=True)) if pairs else first
        try:
            found = np.asarray(self.model.predict_logits(given), dtype=np.float32)
        except Exception as error:  # whatever the user's code raises is told as theirs
            logger.debug("%s failed", self.source, exc_info=True)
            raise InputError(f"{self.source}: predict_logits raises {_told(error)}") from error
        expected = (texts.num_rows, len(self.columns))
        if found.shape != expected:
            raise InputError(f"{self.source}: predict_logits returns an array of shape {found.shape}, not {expected}")
        return np.ascontiguousarray(found[:, self.columns])


def _told(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def open_own(source: str, params: Mapping[str, Any], labels: Sequence[str], names: Mapping[str, str]) -> OwnTeacher:
    """Build a teacher of the user's own.

    :param source: `python:package.module:Name`.
    :param params: Its keyword parameters.
    :param labels: The task's class names.
    :param names: The teacher's class name -> the task's, where they differ.
    :raises InputError: If it does not import, does not take the parameters, cannot predict, or is for other classes.
    """
    try:
        model = plugins.build(source.removeprefix(SCHEME), params)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{source}: raises {_told(error)}") from error
    if not callable(getattr(model, "predict_logits", None)):
        raise InputError(f"{source}: has no method predict_logits(texts)")
    theirs = [str(name) for name in getattr(model, "labels", labels)]
    return OwnTeacher(source, dict(params), model, tuple(labels), match(source, theirs, labels, names))


def describe_own(teacher: OwnTeacher, licence: str) -> dict[str, Any]:
    """Return what identifies a teacher of the user's own, as JSON, with the keys of `model.describe`.

    :param teacher: The teacher.
    :param licence: Its licence.
    """
    theirs = [str(name) for name in getattr(teacher.model, "labels", teacher.labels)]
    stamp = getattr(teacher.model, "fingerprint", None)
    return {
        "source": teacher.source,
        "params": dict(teacher.params),
        "fingerprint": None if stamp is None else str(stamp),
        "revision": None,
        "sha256": None,
        "licence": licence,
        "architecture": type(teacher.model).__name__,
        "labels": {name: theirs[column] for name, column in zip(teacher.labels, teacher.columns, strict=True)},
        "max_length": None,
        "parameters": None,
        "bytes": None,
    }
