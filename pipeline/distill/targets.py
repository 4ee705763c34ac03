"""The targets of training from a logit data set: which rows, their hard labels, the teacher's logits, the weight of each row."""

from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from pipeline import tables
from pipeline.distill import objectives
from pipeline.errors import InputError
from pipeline.logits import choice
from pipeline.logits.shards import finite_logits
from pipeline.params.students import Student


def chosen_rows(training: pa.Table, validation: pa.Table, settings: Student, classes: int) -> tuple[pa.Table, pa.Table]:
    """Return the rows to train on, and the rows to validate on.

    :param training: Rows of the training split, of which the settings `rows` and `min_confidence` choose some.
    :param validation: Rows of the validation split; rows without a label are left out, unless the task is regression (one class).
    :raises InputError: If no row is left of either.
    """
    without = choice.left_out(training, settings.origins, settings.min_confidence if classes > 1 else 0.0)
    training = choice.chosen(training, without, tables.COPY in settings.origins)
    if classes > 1:
        validation = validation.filter(pc.is_valid(validation["label"]))
    elif settings.objective.soft != "mse":
        raise InputError(
            f"objective.soft: {settings.objective.soft}: a task of one class is regression; write soft: mse"
        )
    if not training.num_rows:
        unsure = f", min_confidence: {settings.min_confidence:g}" if settings.min_confidence else ""
        raise InputError(f"no row to train on (rows: {settings.rows}{unsure})")
    if not validation.num_rows:
        raise InputError(
            "the validation split has no row with a label, and the validation accuracy selects the best epoch"
        )
    return training, validation


def targets(table: pa.Table, classes: int, settings: Student) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return hard labels, int64 [n], logits, float32 [n, C], and weights, float32 [n] with a mean of 1.

    With one class, which is regression, hard labels are numbers, float32 [n].

    :param table: n rows with COLUMNS.
    :raises InputError: If the logits do not fit the classes, or all rows have weight 0.
    """
    logits = torch.from_numpy(finite_logits(table, classes))
    if classes == 1:
        labels = torch.from_numpy(pc.fill_null(table["label"].cast(pa.float32()), np.nan).to_numpy().copy())
    else:
        labels = torch.from_numpy(pc.fill_null(table["label"], -1).to_numpy().astype(np.int64))
        if labels.max() >= classes:
            raise InputError(f"the logit data set has label {labels.max()}, but only {classes} classes")
    how = settings.weights
    given = torch.ones(table.num_rows)
    for origin, weight in ((tables.COPY, how.augmented), (tables.POOL, how.unlabelled)):
        given[torch.from_numpy(tables.is_of(table, origin))] = weight
    weights = objectives.row_weights(given, logits, how.confidence)
    if not weights.any():
        raise InputError(
            "weights: all training rows have the weight 0, so that no row counts; raise weights.augmented or weights.unlabelled"
        )
    return objectives.hard_labels(labels, logits), logits, weights


def objective_of(settings: Student, classes: int) -> objectives.Objective:
    """Return the objective of a student."""
    block = settings.objective
    soft: dict[str, objectives.Soft] = {
        "mse": objectives.mse,
        "cosine": objectives.cosine,
        "kl": partial(objectives.kl, temperature=block.temperature),
    }
    hard = objectives.cross_entropy if classes > 1 else objectives.squared_error
    return objectives.combine(block.alpha, soft[block.soft], hard)
