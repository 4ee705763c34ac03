"""Training of a student that fits itself, such as a linear model: it gets all rows at once."""

import inspect
import logging
import math
from collections.abc import Sequence

import pyarrow as pa
import torch

from pipeline.distill.epochs import Epoch
from pipeline.distill.targets import objective_of, targets
from pipeline.errors import InputError
from pipeline.params.students import Student
from pipeline.students.fitted import Examples, Fits, build_fitted
from pipeline.students.trained import FittedStudent
from pipeline.students.vocabulary import Vocabulary
from pipeline.tables import TextMode

logger = logging.getLogger(__name__)


def fit(
    training: pa.Table, validation: pa.Table, settings: Student, labels: Sequence[str], text: TextMode, pairs: bool
) -> tuple[FittedStudent, list[Epoch]]:
    """Build a student and let it fit itself.

    :param training: Rows of a logit data set to train on.
    :param validation: Rows to validate on, each with a label.
    :param settings: The student's block of params.yaml.
    :param labels: The C class names, in the order of the logits.
    :param text: How the task's text is split into words.
    :param pairs: Whether the rows are pairs of sentences.
    :return: The student, and a history of one epoch.
    :raises InputError: If it breaks the contract in `pipeline.students.fitted`.
    """
    module = build_fitted(settings.model, settings.params, len(labels), pairs)
    given = [_examples(table, settings, len(labels), pairs) for table in (training, validation)]
    _check_signatures(module, settings.model, given[1])
    module.fit(*given)
    student = FittedStudent(
        module=module,
        vocabulary=Vocabulary((), text),
        labels=tuple(labels),
        model=settings.model,
        params=settings.params,
        pairs=pairs,
    )
    objective = objective_of(settings, len(labels))
    losses = []
    for table, rows in zip((validation, training), reversed(given), strict=True):
        sides = [table[name] for name in (("sentence1", "sentence2") if pairs else ("sentence1",))]
        logits = torch.from_numpy(student.predict_columns(*sides))
        hard = torch.from_numpy(rows.labels)
        loss = objective(logits, torch.from_numpy(rows.logits), hard) * torch.from_numpy(rows.weights)
        losses.append((loss.mean().item(), (logits.argmax(dim=-1) == hard).double().mean().item()))
    (validation_loss, accuracy), (training_loss, _) = losses
    accuracy = accuracy if len(labels) > 1 else math.nan
    found = Epoch(1, training_loss, validation_loss, accuracy)
    logger.info("fitted: %s", found.summary)
    return student, [found]


def _examples(table: pa.Table, settings: Student, classes: int, pairs: bool) -> Examples:
    labels, logits, weights = (tensor.numpy() for tensor in targets(table, classes, settings))
    second = table["sentence2"].to_pylist() if pairs else None
    return Examples(table["sentence1"].to_pylist(), second, labels, logits, weights)


def _check_signatures(module: Fits, model: str, rows: Examples) -> None:
    calls = {"fit": (rows, rows), "predict_logits": (rows.sentence1, rows.sentence2), "save": (".",), "load": (".",)}
    for name, arguments in calls.items():
        signature = inspect.signature(getattr(module, name))
        try:
            signature.bind(*arguments)
        except TypeError as error:
            raise InputError(
                f"{model!r}: {name}{signature} cannot be called with {len(arguments)} arguments ({error}); see pipeline.students.fitted"
            ) from error
