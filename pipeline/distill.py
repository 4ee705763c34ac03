"""The training loop: a student learns a teacher's logits, from tables alone. No teacher and no tokeniser is loaded here."""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from pipeline import objectives
from pipeline.console import progress
from pipeline.errors import InputError
from pipeline.params import Optimiser, Student
from pipeline.students.base import Encoded, TrainedStudent, build, logits_of, predict
from pipeline.students.vocabulary import TextMode, Vocabulary
from pipeline.vectors import WordVectors, initial_embeddings

logger = logging.getLogger(__name__)

POOL_BATCHES = 100
"""Batches whose rows are sorted by length together: more means less padding and a less random mixture."""

COLUMNS = ("id", "sentence1", "sentence2", "label", "parent_id", "logits")
"""The columns of a logit data set that training reads."""

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Epoch:
    """What is known after an epoch: what the curve shows and the student is chosen by."""

    epoch: int
    training_loss: float
    validation_loss: float
    validation_accuracy: float


def curve(history: Sequence[Epoch]) -> str:
    """Return the epochs as CSV, for `dvc plots`; without times, so that the same training gives the same file."""
    lines = ["epoch,training loss,validation loss,validation accuracy"]
    lines += [f"{e.epoch},{e.training_loss:.6f},{e.validation_loss:.6f},{e.validation_accuracy:.6f}" for e in history]
    return "\n".join(lines) + "\n"


def distill(
    training: pa.Table,
    validation: pa.Table,
    settings: Student,
    labels: Sequence[str],
    text: TextMode,
    pairs: bool,
    vectors: WordVectors | None = None,
) -> tuple[TrainedStudent, list[Epoch]]:
    """Train a student and keep the epoch with the best validation accuracy (against the gold label).

    The same tables, settings and machine give the same weights, whatever happened before in the process.

    :param training: Rows of a logit data set with COLUMNS; with `rows: originals`, those with a parent_id are left out.
    :param validation: Rows of the validation split; those without a label are left out.
    :param settings: The student's block of params.yaml.
    :param labels: The C class names, in the order of the logits.
    :param text: How the text is split into words.
    :param pairs: Whether the rows are pairs of sentences.
    :param vectors: Pretrained word vectors; random ones where None.
    :return: The student, and what was seen after each epoch.
    :raises InputError: If there is nothing to train on or to choose by, the logits do not fit the classes, or the loss is NaN.
    """
    if settings.rows == "originals":
        training = training.filter(pc.is_null(training["parent_id"]))
    validation = validation.filter(pc.is_valid(validation["label"]))
    if not training.num_rows:
        raise InputError(f"there is no row to train on (rows: {settings.rows})")
    if not validation.num_rows:
        raise InputError(
            "the validation split has no row with a label: students are chosen by their validation accuracy"
        )
    sentences = ("sentence1", "sentence2") if pairs else ("sentence1",)
    vocabulary = Vocabulary.build([training[name] for name in sentences], text, settings.min_count)
    embeddings = initial_embeddings(vocabulary, vectors, settings.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with _seeded(settings.seed, device):
        module = build(settings.model, settings.params, embeddings, len(labels), pairs).to(device)
        student = TrainedStudent(
            module=module,
            vocabulary=vocabulary,
            labels=tuple(labels),
            model=settings.model,
            params=settings.params,
            pairs=pairs,
            dimensions=embeddings.shape[1],
            max_words=settings.max_words,
        )
        history = _fit(module, _Rows.of(training, student), _Rows.of(validation, student), settings)
    module.to("cpu").eval()
    return student, history


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators, and put their state back afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@dataclass(frozen=True)
class _Rows:
    """Rows to learn from or to be measured on."""

    texts: Encoded
    labels: torch.Tensor  # int64 [n], gold or the teacher's
    logits: torch.Tensor  # float32 [n, C], the teacher's

    @classmethod
    def of(cls, table: pa.Table, student: TrainedStudent) -> "_Rows":
        classes = len(student.labels)
        texts = student.encode(table["sentence1"], table["sentence2"] if student.pairs else None)
        logits = teacher_logits(table, classes)
        labels = torch.from_numpy(pc.fill_null(table["label"], -1).to_numpy().astype(np.int64))
        if labels.max() >= classes:
            raise InputError(f"label {labels.max()} in the logit data set, which has {classes} classes")
        return cls(texts, objectives.hard_labels(labels, logits), logits)


def teacher_logits(table: pa.Table, classes: int) -> torch.Tensor:
    """Return a table's logits as a tensor, float32 [n, C].

    :param table: Rows of a logit data set.
    :param classes: The number of classes C.
    :raises InputError: If the logits are of another number of classes, or one is not finite.
    """
    column = table["logits"].combine_chunks()
    if column.type.list_size != classes:
        raise InputError(f"the logits are of {column.type.list_size} classes, the data set names {classes}")
    logits = torch.from_numpy(column.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, classes))
    finite = logits.isfinite().all(dim=-1)
    if not finite.all():
        row = int(finite.int().argmin())
        raise InputError(f"row {table['id'][row].as_py()}: logits {logits[row].tolist()} are not finite; label again")
    return logits


# --- the loop -----------------------------------------------------------------------------------------------------------


def _fit(module: torch.nn.Module, training: _Rows, validation: _Rows, settings: Student) -> list[Epoch]:
    """Train a module in place and leave it with the weights of its best epoch."""
    asked = settings.objective
    soft = objectives.mse if asked.soft == "mse" else partial(objectives.kl, temperature=asked.temperature)
    objective = objectives.combine(asked.alpha, soft)
    optimisers = make_optimisers(module, settings.optimiser)
    history: list[Epoch] = []
    best, weights = -1, {}
    for epoch in range(settings.epochs):
        started = time.perf_counter()
        loss = _train_epoch(module, training, objective, optimisers, settings, epoch)
        history.append(Epoch(epoch + 1, loss, *_measure(module, validation, objective)))
        seconds = time.perf_counter() - started
        logger.info(
            "epoch %d: training loss %.4f, validation loss %.4f, validation accuracy %.4f (%.0f s, %.0f rows/s)",
            *(epoch + 1, loss, history[-1].validation_loss, history[-1].validation_accuracy),
            *(seconds, len(training.texts) / seconds),
        )
        if best < 0 or history[-1].validation_accuracy > history[best].validation_accuracy:
            best, weights = epoch, _copy(module)
        elif epoch - best >= settings.patience:
            break
    module.load_state_dict(weights)
    logger.info(
        "kept epoch %d of %d: validation accuracy %.4f", best + 1, len(history), history[best].validation_accuracy
    )
    return history


def _copy(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.detach().clone() for key, value in module.state_dict().items()}


def _train_epoch(
    module: torch.nn.Module,
    rows: _Rows,
    objective: objectives.Objective,
    optimisers: Sequence[torch.optim.Optimizer],
    settings: Student,
    epoch: int,
) -> float:
    """Train on every row once and return the mean loss."""
    device = next(module.parameters()).device
    module.train()
    total = 0.0
    batches = epoch_batches(rows.texts.lengths, settings.batch_size, np.random.default_rng([settings.seed, epoch]))
    with progress(len(rows.texts), f"epoch {epoch + 1} of {settings.epochs}", "rows") as advance:
        for i, chosen in enumerate(batches):
            student = logits_of(module, rows.texts.batch(chosen, device), rows.logits.shape[1])
            loss = objective(student, rows.logits[chosen].to(device), rows.labels[chosen].to(device))
            value = loss.item()
            if not np.isfinite(value):
                raise InputError(
                    f"the loss is {value} in epoch {epoch + 1}, batch {i + 1} of {len(batches)}: "
                    f"try a lower learning_rate than {settings.optimiser.learning_rate}"
                )
            for optimiser in optimisers:
                optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            for optimiser in optimisers:
                optimiser.step()
            total += value * len(chosen)
            advance(len(chosen))
    return total / len(rows.texts)


def _measure(module: torch.nn.Module, rows: _Rows, objective: objectives.Objective) -> tuple[float, float]:
    """Return the loss and the accuracy on validation rows."""
    student = torch.from_numpy(predict(module, rows.texts, rows.logits.shape[1]))
    accuracy = (student.argmax(dim=-1) == rows.labels).double().mean()
    return objective(student, rows.logits, rows.labels).item(), accuracy.item()


def epoch_batches(lengths: Integers, batch_size: int, draws: np.random.Generator) -> list[Integers]:
    """Cut n rows into batches for one epoch: rows of like length together, batches and their mixture at random.

    The rows are shuffled and cut into pools of POOL_BATCHES batches; each pool is sorted by length and cut into batches; then
    the batches of all pools are shuffled.

    :param lengths: Words of each row, [n].
    :param batch_size: Rows of a batch; the one that is left over has fewer.
    :param draws: The random stream of this epoch.
    :return: Row numbers, each exactly once.
    """
    shuffled = draws.permutation(len(lengths))
    pool = np.arange(len(lengths)) // (batch_size * POOL_BATCHES)
    ordered = shuffled[np.lexsort((lengths[shuffled], pool))]
    batches = [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
    return [batches[i] for i in draws.permutation(len(batches))]


# --- optimisers ---------------------------------------------------------------------------------------------------------


class RowAdadelta(torch.optim.Optimizer):
    """AdaDelta (Zeiler 2012, arXiv 1212.5701) for embeddings, updating only the rows that a batch has words for.

    The same as torch.optim.Adadelta up to rounding: a row without a gradient keeps its weights there too, and its two running
    averages only decay by rho a step, which is made up for when the row comes again. torch's own takes no sparse gradients, and
    walks all V x d numbers at every step.

    :param parameters: Weights [V, d] of embeddings with `sparse=True`.
    :param lr: The factor of each update.
    :param rho: The decay of the running averages.
    :param eps: Added under both square roots.
    """

    def __init__(self, parameters: Iterable[torch.Tensor], lr: float, rho: float, eps: float = 1e-6) -> None:
        super().__init__(parameters, {"lr": lr, "rho": rho, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update the rows that have a gradient. No closure is called: AdaDelta needs none."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    # Dense where the student uses the same weights elsewhere too.
                    gradient = weight.grad if weight.grad.is_sparse else weight.grad.to_sparse(1)
                    self._update(weight, gradient.coalesce(), group["lr"], group["rho"], group["eps"])

    def _update(self, weight: torch.Tensor, gradient: torch.Tensor, lr: float, rho: float, eps: float) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = 0
            state["seen"] = torch.zeros(
                len(weight), dtype=torch.int64, device=weight.device
            )  # the step it was last updated at
            state["square"] = torch.zeros_like(weight)
            state["delta"] = torch.zeros_like(weight)
        state["step"] += 1
        rows, values = gradient.indices()[0], gradient.values()
        missed = rho ** (state["step"] - 1 - state["seen"][rows]).to(weight.dtype)[:, None]
        square = (state["square"][rows] * missed).mul_(rho).addcmul_(values, values, value=1 - rho)
        delta = state["delta"][rows] * missed
        change = (delta + eps).sqrt_().div_((square + eps).sqrt_()).mul_(values)
        state["square"][rows] = square
        state["delta"][rows] = delta.mul_(rho).addcmul_(change, change, value=1 - rho)
        state["seen"][rows] = state["step"]
        weight.index_add_(0, rows, change, alpha=-lr)


def make_optimisers(module: torch.nn.Module, settings: Optimiser) -> list[torch.optim.Optimizer]:
    """Return what updates a module's parameters.

    :param module: The student. Its embeddings are switched to sparse gradients for AdaDelta, to dense ones for AdamW.
    :param settings: `adadelta` as the paper has it, or `adamw`, which moves every row at every step and takes dense gradients.
    """
    tuned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    embeddings = [
        part for part in module.modules() if isinstance(part, torch.nn.Embedding) and part.weight.requires_grad
    ]
    for part in embeddings:
        part.sparse = settings.name == "adadelta"
    if settings.name == "adamw":
        return [torch.optim.AdamW(tuned, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)]
    by_row = {id(part.weight): part.weight for part in embeddings}
    others = [parameter for parameter in tuned if id(parameter) not in by_row]
    made: list[torch.optim.Optimizer] = []
    if others:
        made.append(torch.optim.Adadelta(others, lr=settings.learning_rate, rho=settings.rho))
    if by_row:
        made.append(RowAdadelta(by_row.values(), lr=settings.learning_rate, rho=settings.rho))
    return made
