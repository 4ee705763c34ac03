"""Training of a student that fits itself, such as a linear model: it gets all rows at once."""

import inspect
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from pipeline import plugins
from pipeline.distill import objectives
from pipeline.distill.epochs import Epoch
from pipeline.distill.pairs import warn_of_unread
from pipeline.distill.targets import objective_of, targets
from pipeline.errors import InputError
from pipeline.params.students import Student
from pipeline.students.fitted import Examples, Fits, build_fitted
from pipeline.students.trained import FittedStudent
from pipeline.students.vocabulary import Vocabulary
from pipeline.tables import TextMode

logger = logging.getLogger(__name__)

SOME_ROWS = 256
"""Validation rows on which a student is checked: for reading both sentences of a pair, and for the same logits after `load`."""


def fit(
    training: pa.Table, validation: pa.Table, settings: Student, labels: Sequence[str], text: TextMode, pairs: bool
) -> tuple[FittedStudent, list[Epoch]]:
    """Build a student and let it fit itself.

    The parameters are those of `distill.loop.distill`, with a label in each validation row. The history has one epoch.

    :raises InputError: If it raises, or breaks the contract in `pipeline.students.fitted`.
    """
    module = build_fitted(settings.model, settings.params, len(labels), pairs)
    tables = training, validation
    wanted = [targets(table, len(labels), settings) for table in tables]
    columns = [[table[name] for name in ("sentence1", "sentence2")[: 1 + pairs]] for table in tables]
    given = []
    for sides, tensors in zip(columns, wanted, strict=True):
        first, *second = (side.to_pylist() for side in sides)
        given.append(Examples(first, second[0] if second else None, *(tensor.numpy() for tensor in tensors)))
    check_signatures(module, settings.model, given[1])
    with plugins.running(settings.model, "fit"):
        module.fit(*given)
    student = FittedStudent(
        module=module,
        vocabulary=Vocabulary((), text),
        labels=tuple(labels),
        model=settings.model,
        params=settings.params,
        pairs=pairs,
    )
    some = [column.slice(0, SOME_ROWS) for column in columns[1]]
    if pairs:
        warn_of_unread(settings.model, some[0], some[1], student.predict_columns)
    _check_loaded(student, some)
    objective = objective_of(settings, len(labels))
    measured = []
    for sides, (hard, teacher, weights) in zip(reversed(columns), reversed(wanted), strict=True):
        logits = torch.from_numpy(student.predict_columns(*sides))
        measured.append(objectives.measured(objective, logits, teacher, hard, weights))
    (validation_loss, accuracy), (training_loss, _) = measured
    found = Epoch(1, training_loss, validation_loss, accuracy)
    logger.info("fitted: %s", found.summary)
    return student, [found]


def _check_loaded(student: FittedStudent, rows: Sequence[pa.ChunkedArray]) -> None:
    """Check that a student which is saved and loaded returns the same logits for some rows.

    :raises InputError: If it does not, or cannot be saved and loaded.
    """
    with tempfile.TemporaryDirectory() as folder:
        student.save(Path(folder) / "student")
        loaded = FittedStudent.from_pretrained(Path(folder) / "student").predict_columns(*rows)
    fitted = student.predict_columns(*rows)
    if not np.allclose(loaded, fitted, rtol=1e-3, atol=1e-3 * np.abs(fitted).max(initial=0)):
        raise InputError(
            f"{student.model!r}: after save and load, its logits differ by {np.abs(loaded - fitted).max():.2g} from those after "
            "fit; save must write all that predict_logits reads, and load must restore it"
        )


def check_signatures(module: Fits, model: str, rows: Examples) -> None:
    """Check that a student's methods can be called as the contract says.

    :raises InputError: If one of them takes other arguments.
    """
    calls = {"fit": (rows, rows), "predict_logits": (rows.sentence1, rows.sentence2), "save": (".",), "load": (".",)}
    for name, arguments in calls.items():
        if inspect.iscoroutinefunction(getattr(module, name)):
            raise InputError(f"{model!r}: {name} is async; write it as def {name}")
        signature = inspect.signature(getattr(module, name))
        try:
            signature.bind(*arguments)
        except TypeError as error:
            raise InputError(
                f"{model!r}: {name}{signature} cannot be called with {len(arguments)} arguments ({error}); see pipeline.students.fitted"
            ) from error
