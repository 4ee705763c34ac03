"""Builds students as training does, with made-up word vectors, and lets them answer two made-up texts."""

from collections.abc import Mapping

import numpy as np
import torch

from pipeline import plugins
from pipeline.distill.fitting import check_signatures
from pipeline.distill.loop import check_signature
from pipeline.errors import InputError
from pipeline.params.project import Settings
from pipeline.params.students import Student
from pipeline.students.contract import Batch, build, check_padding, is_module
from pipeline.students.fitted import Examples, build_fitted
from pipeline.vectors.table import RANDOM_DIMENSIONS

WORDS = 1_000
"""Rows of the word vectors."""


def check_student(settings: Settings, student: Student, dimensions: Mapping[str, int | None]) -> str | None:
    """Build a student and call it.

    :param dimensions: Of the word vectors, by name; where None, they are unknown, and only the names of its parameters are checked.
    :return: A warning, where `forward` raises an IndexError: the made-up sizes can be the cause. None otherwise.
    :raises InputError: If it does not import, does not take its parameters, or breaks its contract.
    """
    text = settings.task.text
    classes, pairs = len(text.labels), text.columns.sentence2 is not None
    if not is_module(student.model):
        rows = Examples(
            ["a"], ["a"] if pairs else None, np.zeros(1), np.zeros((1, classes), np.float32), np.ones(1, np.float32)
        )
        check_signatures(build_fitted(student.model, student.params, classes, pairs), student.model, rows)
        return None
    width = RANDOM_DIMENSIONS if student.vectors is None else dimensions[student.vectors]
    if width is None:
        plugins.check_params(student.model, student.params, embeddings=None, classes=classes, pairs=pairs)
    else:
        embeddings = torch.rand(WORDS, width)
        embeddings[0] = 0
        module = build(student.model, student.params, embeddings, classes, pairs)
        longest, shorter = min(16, student.max_words), min(9, student.max_words)
        words, lengths = torch.randint(1, WORDS, (2, longest)), torch.tensor([shorter, longest])
        words[0, shorter:] = 0
        batch = Batch(words, lengths, words, lengths) if pairs else Batch(words, lengths)
        check_signature(module, batch)
        try:
            check_padding(module, batch, classes)
        except InputError as error:
            if not isinstance(error.__cause__, IndexError):
                raise
            return (
                f"{error}, with {WORDS:,} word vectors and texts of {longest} words, which are made up for this check"
            )
        except Exception as error:  # a wrong value of a parameter can show here alone
            message = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"{student.model!r}: forward raises {message}, with the parameters {student.params}"
            ) from error
    return None
