"""The training loop: a student learns a teacher's logits from tables alone. It loads no teacher and no tokenizer."""

import dataclasses
import inspect
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from pipeline.console import progress
from pipeline.distill import objectives
from pipeline.distill.averaging import MovingAverage
from pipeline.distill.batches import DeviceRows, TrainingRows
from pipeline.distill.checkpoint import Checkpoint, code_of, fingerprint, learned
from pipeline.distill.epochs import Epoch as Epoch
from pipeline.distill.epochs import best_of, still_improves
from pipeline.distill.epochs import curve as curve
from pipeline.distill.fitting import fit
from pipeline.distill.optimisers import capturable_optimisers, make_optimisers
from pipeline.distill.pairs import warn_of_unread
from pipeline.distill.steps import EagerStep, FixedStep, Step, captures
from pipeline.distill.targets import chosen_rows, objective_of, targets
from pipeline.errors import InputError
from pipeline.logits.dataset import COLUMNS as COLUMNS
from pipeline.machine import devices
from pipeline.machine.threads import torch_threads
from pipeline.params.students import Student
from pipeline.students.contract import Batch, build, check_padding, is_module, logits_of, predict
from pipeline.students.trained import TrainedStudent
from pipeline.students.vocabulary import MANY, Texts, Vocabulary, few_words, unknown_share
from pipeline.tables import TextMode
from pipeline.vectors.table import WordVectors, initial_embeddings

logger = logging.getLogger(__name__)

CHECK_BATCHES = 64
"""Batches between two checks of the losses: a check waits until the GPU has finished."""


def distill(
    training: pa.Table,
    validation: pa.Table,
    settings: Student,
    labels: Sequence[str],
    text: TextMode,
    pairs: bool,
    vectors: WordVectors | None = None,
    checkpoint: Path | None = None,
) -> tuple[TrainedStudent, list[Epoch]]:
    """Train a student, and keep the epoch with the best validation accuracy (against the gold label), on a tie the lowest validation loss.

    The same tables, settings and machine give the same weights, whatever ran before in the process. With one class the task is
    regression: the student learns numbers, alpha * gold + (1 - alpha) * the teacher's, and the epoch with the lowest validation loss is kept.

    :param training: Rows of a logit data set with COLUMNS; with `rows: originals`, rows with a parent_id are left out.
    :param validation: Rows of the validation split; rows without a label are left out.
    :param labels: The C class names, in the order of the logits.
    :param text: How the text is split into words.
    :param vectors: Pretrained word vectors, whose words join the vocabulary; random vectors where None.
    :param checkpoint: The file that is written after every epoch, and from which a killed run resumes; the caller removes it after saving
        the student. None writes no file.
    :return: The student, and the measurements after each epoch.
    :raises InputError: If there is no row to train on or to validate on, the logits do not fit the classes, the student breaks the
        contract, or the loss is NaN.
    """
    training, validation = chosen_rows(training, validation, settings, len(labels))
    if not is_module(settings.model):
        return fit(training, validation, settings, labels, text, pairs)
    sentences = ("sentence1", "sentence2") if pairs else ("sentence1",)
    others = () if vectors is None else vectors.words
    vocabulary = Vocabulary.build([training[name] for name in sentences], text, settings.min_count, others)
    _warn_of_words(vocabulary, [validation[name] for name in sentences])
    embeddings = initial_embeddings(vocabulary, vectors, settings.seed)
    device = devices.device()
    with torch_threads(settings.threads), _seeded(settings.seed, device):
        module = build(settings.model, settings.params, embeddings, len(labels), pairs)
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
        rows, held_out = (encoded_rows(table, student, settings) for table in (training, validation))
        _check_module(module, rows)
        module.to(device)
        history = Training(module, rows, held_out, settings, checkpoint, captures(module, device)).run()
    module.to("cpu").eval()
    return student, history


def _check_module(module: torch.nn.Module, rows: TrainingRows) -> None:
    """Check that a student takes a batch, and that padding does not change its logits: on the shortest and the longest text."""
    lengths = rows.texts.lengths
    shortest = int(np.where(lengths > 0, lengths, lengths.max()).argmin())
    batch = rows.texts.batch(np.array([shortest, lengths.argmax()]), torch.device("cpu"))
    check_signature(module, batch)
    check_padding(module, batch, rows.logits.shape[1])


def _warn_of_words(vocabulary: Vocabulary, validation: Sequence[Texts]) -> None:
    if warning := few_words(validation, vocabulary.text):
        logger.warning("%s", warning)
    if (share := unknown_share(vocabulary, *validation)) > MANY:
        logger.warning(
            "%.0f%% of the words of the validation split are not in the vocabulary, and the student cannot tell them apart: "
            "add training text, lower min_count, or add word vectors",
            100 * share,
        )


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators and make a GPU's sums deterministic; restore both afterwards."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it an LSTM's sums differ from run to run
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with devices.generators_restored(device):
            torch.manual_seed(seed)
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def encoded_rows(table: pa.Table, student: TrainedStudent, settings: Student) -> TrainingRows:
    """Return rows of a logit data set with COLUMNS as training reads them: their words as ids, with the targets.

    :raises InputError: If the logits do not fit the classes, or all rows have weight 0.
    """
    texts = student.encode(*(table[name] for name in ("sentence1", "sentence2")[: 1 + student.pairs]))
    return TrainingRows(texts, *targets(table, len(student.labels), settings))


# --- the loop -----------------------------------------------------------------------------------------------------------


class Training:
    """A student in training, with its optimisers and its checkpoint.

    :param module: The student; trained in place.
    :param checkpoint: The file to resume from and to write; None for no file.
    :param captured: Whether steps are captured as CUDA graphs, on batches of few widths; on a CPU they use the same memory as there.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        rows: TrainingRows,
        validation: TrainingRows,
        settings: Student,
        checkpoint: Path | None,
        captured: bool = False,
    ) -> None:
        self.module, self.validation, self.settings = module, validation, settings
        self.device = next(module.parameters()).device
        self.rows = DeviceRows(rows, self.device, bucketed=captured)
        self.classes = rows.logits.shape[1]
        self.objective = objective_of(settings, self.classes)
        self.optimisers = (capturable_optimisers if captured else make_optimisers)(module, settings.optimiser)
        eager = EagerStep(module, self.objective, self.optimisers, settings.model, self.classes)
        self.step: Step = FixedStep(eager, settings.batch_size) if captured else eager
        decay = settings.optimiser.ema_decay
        self.average = MovingAverage(module, decay) if decay else None
        self.checkpoint = None
        if checkpoint is not None:
            sides = [*rows.texts.sides, *validation.texts.sides]
            arrays = [*(array for side in sides for array in side), rows.labels, rows.logits, rows.weights]
            code = code_of(settings.model)
            how = {"device": self.device.type, "captured": captured}
            facts = {"settings": settings.model_dump(mode="json"), "code": code, **how}
            key = fingerprint(module, [*arrays, validation.labels, validation.logits], facts)
            self.checkpoint = Checkpoint(checkpoint, key)

    def run(self) -> list[Epoch]:
        """Train the module, load the weights of its best epoch, and return the measurements after each epoch."""
        history: list[Epoch] = []
        best: dict[str, torch.Tensor] = {}
        if self.checkpoint is not None:
            stored, best, average = self.checkpoint.load(self.module, self.optimisers)
            history = [Epoch(**epoch) for epoch in stored]
            if self.average is not None and average:
                self.average.weights = average
        while len(history) < self.settings.epochs and not self._patience_is_over(history):
            history.append(self._epoch(len(history)))
            is_best = best_of(history) == len(history) - 1
            if is_best:
                measured = learned(self.module) if self.average is None else self.average.weights
                best = {name: value.clone() for name, value in measured.items()}
            if self.checkpoint is not None:
                epochs = [dataclasses.asdict(epoch) for epoch in history]
                averaged = self.average.weights if self.average is not None else None
                weights = None if is_best and averaged is None else best
                self.checkpoint.save(epochs, self.module, weights, self.optimisers, averaged)
        self.module.load_state_dict(best, strict=False)
        kept = history[best_of(history)]
        more = (
            "; it still improves: a larger `epochs` may help" if still_improves(history, self.settings.epochs) else ""
        )
        logger.info("kept epoch %d of %d: %s%s", kept.epoch, len(history), kept.summary, more)
        return history

    def _patience_is_over(self, history: Sequence[Epoch]) -> bool:
        return bool(history) and len(history) - 1 - best_of(history) >= self.settings.patience

    def _epoch(self, number: int) -> Epoch:
        started = time.perf_counter()
        # Seeded per epoch, so that dropout is the same in a run that resumes here.
        torch.manual_seed(int(np.random.SeedSequence([self.settings.seed, number]).generate_state(1)[0]))
        loss = self.learn(number)
        trained = time.perf_counter() - started
        with self.average.in_place() if self.average is not None else nullcontext():
            found = Epoch(number + 1, loss, *_measure(self.module, self.validation, self.objective))
        logger.info(
            "epoch %d: training loss %.4f, %s (%.0f s, %.0f rows/s)",
            *(found.epoch, loss, found.summary),
            *(time.perf_counter() - started, len(self.rows) / trained),
        )
        return found

    def learn(self, number: int) -> float:
        """Train on every row once and return the mean loss."""
        self.module.train()
        draws = np.random.default_rng([self.settings.seed, number])
        batches = -(-len(self.rows) // self.settings.batch_size)
        total, waiting, done = 0.0, [], 0
        with progress(len(self.rows), f"epoch {number + 1} of {self.settings.epochs}", "rows") as advance:
            for i, (batch, wanted) in enumerate(self.rows.epoch(self.settings.batch_size, draws)):
                loss = self.step(batch, wanted)
                rows = len(batch.ids1)
                waiting.append(loss * rows)  # before the next step overwrites it
                if self.average is not None:
                    self.average.update(number, i, batches)
                if number == 0 and i == 0:
                    self._warn_of_unread(batch)
                if i == 0 or len(waiting) == CHECK_BATCHES:
                    total += self._sum(waiting, number, i)
                    waiting = []
                done += rows
                advance(rows)
        return (total + (self._sum(waiting, number, i) if waiting else 0.0)) / done

    def _warn_of_unread(self, batch: Batch) -> None:
        """Warn where the student ignores a sentence of pairs. It changes no weight and no random number."""
        if batch.ids2 is None:
            return

        def logits(one: tuple[Any, Any], other: tuple[Any, Any]) -> Any:
            return logits_of(self.module, Batch(*one, *other), self.classes).float().cpu().numpy()

        self.module.eval()
        with devices.generators_restored(self.device), torch.no_grad():
            sides = (batch.ids1, batch.lengths1), (batch.ids2, batch.lengths2)
            warn_of_unread(self.settings.model, *sides, logits)
        self.module.train()

    def _sum(self, losses: Sequence[torch.Tensor], epoch: int, last: int) -> float:
        """Check that the losses of the batches up to `last` are finite, and return their sum."""
        values = torch.stack(tuple(losses)).cpu().double()  # MPS has no float64
        wrong = (~values.isfinite()).nonzero()
        if len(wrong):
            batch = last - len(values) + 1 + int(wrong[0])
            batches = -(-len(self.rows) // self.settings.batch_size)
            raise InputError(
                f"the loss is {values[wrong[0]].item()} in epoch {epoch + 1}, batch {batch + 1} of {batches}: "
                f"try a learning_rate lower than {self.settings.optimiser.learning_rate}"
            )
        return float(values.sum())


def _measure(module: torch.nn.Module, rows: TrainingRows, objective: objectives.Objective) -> tuple[float, float]:
    student = torch.from_numpy(predict(module, rows.texts, rows.logits.shape[1]))
    return objectives.measured(objective, student, rows.logits, rows.labels, rows.weights)


def check_signature(module: torch.nn.Module, batch: Batch) -> None:
    """Check that a student can be called with a batch.

    :raises InputError: If its forward takes other arguments, or is async.
    """
    if inspect.iscoroutinefunction(module.forward):
        raise InputError(f"{type(module).__name__}: forward is async; write it as def forward(self, batch)")
    try:
        inspect.signature(module.forward).bind(batch)
    except TypeError as error:
        raise InputError(
            f"{type(module).__name__}: forward{inspect.signature(module.forward)} cannot be called with one batch ({error}); "
            "write it as forward(self, batch)"
        ) from error
