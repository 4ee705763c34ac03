"""The `students` block: the architecture of a student, its training rows and its training."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, model_validator
from pydantic import Tag as UnionTag

from pipeline.params.base import Float, Fraction, ImportPath, Model, Positive, Seed, Tasks
from pipeline.tables import ORIGINS


class Optimiser(Model):
    """AdaDelta as in the paper, or AdamW."""

    name: Literal["adadelta", "adamw"] = "adadelta"
    """The optimiser."""
    learning_rate: Float = Field(1.0, gt=0)
    """The learning rate. 1.0 is AdaDelta's; for AdamW, write about 0.001."""
    rho: Fraction = 0.95
    """AdaDelta's decay of the running averages."""
    weight_decay: Float = Field(0.0, ge=0)
    """AdamW's weight decay. With it, each step updates all word vectors, not only those of the batch."""
    ema_decay: Float = Field(0.0, ge=0, lt=1)
    """Evaluate and save an exponential moving average of the weights with this decay per batch; 0: the weights themselves."""


class Objective(Model):
    """alpha * cross-entropy with the hard label + (1 - alpha) * soft, a loss between the student's and the teacher's logits."""

    alpha: Fraction = 0.0
    """Weight of the cross-entropy with the hard label; 1 - alpha is that of `soft`."""
    soft: Literal["mse", "kl", "cosine"] = "mse"
    """The loss between the student's and the teacher's logits."""
    temperature: Float = Field(1.0, gt=0)
    """Divides both logits; only with `soft: kl`."""

    @model_validator(mode="after")
    def _temperature_is_for_kl(self) -> Self:
        if self.soft != "kl" and self.temperature != 1.0:
            raise ValueError(f"temperature goes with soft: kl; {self.soft} uses raw logits")
        return self


class RowWeights(Model):
    """The weight of a row in the loss."""

    augmented: Float = Field(1.0, ge=0)
    """The weight of an augmented row; that of an original is 1."""
    unlabelled: Float = Field(1.0, ge=0)
    """The weight of a row of `text.unlabelled`. (since 0.2.0)"""
    confidence: Float = Field(0.0, ge=0)
    """Multiplies the weight by the teacher's highest probability to this power: higher values prefer confident rows."""


Names = Annotated[list[str], Field(min_length=1)]
Origins = Annotated[list[Literal["source", "unlabelled", "augmented"]], Field(min_length=1)]
Weights = Annotated[dict[str, Float], Field(min_length=1)]


class Average(Model):
    """The average of several teachers."""

    of: Names | Weights
    """The teachers, as a list or each with a weight."""
    average: Literal["logits", "distributions"] = "logits"
    """What is averaged."""


def _kind_of_teacher(value: Any) -> str:
    if isinstance(value, Average) or (isinstance(value, Mapping) and isinstance(value.get("of"), list | Mapping | str)):
        return "average"
    return "weights" if isinstance(value, Mapping) else "names" if isinstance(value, list) else "name"


class Student(Model):
    """A student: its architecture, its training rows and its training."""

    model: ImportPath
    """The import path of the architecture's class, `MODULE:NAME`."""
    params: dict[str, Any] = Field({})
    """The architecture's keyword parameters."""
    # One key, so that DVC runs the gather stage again for a change of this key only.
    teacher: Annotated[
        Annotated[str, UnionTag("name")]
        | Annotated[Names, UnionTag("names")]
        | Annotated[Weights, UnionTag("weights")]
        | Annotated[Average, UnionTag("average")],
        Discriminator(_kind_of_teacher),
    ]
    """The teacher whose logits it learns; several as a list, or each with a weight, or `{of: ..., average: distributions}`."""
    # Not a setting of its training, so the hashes of those do not contain it.
    tasks: Tasks | None = Field(None, exclude=True)
    """The tasks that it is trained on; absent: every task."""
    rows: Literal["all", "originals"] | Origins = "all"
    """The training rows. `originals`: those of `text.source` alone. A list of origins: `source`, `unlabelled` (`text.unlabelled`) and
    `augmented` (the copies of these rows)."""
    min_confidence: Fraction = 0.0
    """Leave out unlabelled rows on which the teacher's highest probability is lower. (since 0.2.0)"""
    vectors: str | None = None
    """The name of its initial word vectors, a key of `vectors`; absent: random vectors."""
    objective: Objective = Objective()
    """The loss."""
    weights: RowWeights = RowWeights()
    """The weight of each row in the loss."""
    optimiser: Optimiser = Optimiser()
    """The optimiser and its parameters."""
    batch_size: Positive = 50
    """Rows in a batch."""
    epochs: Positive = 10
    """Most passes over the training rows."""
    patience: Positive = 3
    """Training stops after this many epochs without a better one (validation accuracy, then validation loss)."""
    max_words: Positive = 256
    """Words of a sentence that the student reads; longer sentences are truncated."""
    min_count: Positive = 1
    """Words that occur less often in the training rows count as unknown."""
    seed: Seed = 0
    """Seed of the initial weights, of dropout and of the order of the rows."""
    threads: Positive = 1
    """CPU threads of its training. Its matrices are too small for several to pay: train several students at the same time instead."""

    @property
    def _given(self) -> str | Names | Weights:
        return self.teacher.of if isinstance(self.teacher, Average) else self.teacher

    @property
    def teachers(self) -> dict[str, float]:
        """The names of the teachers, each with its weight."""
        given = self._given
        if isinstance(given, dict):
            return dict(given)
        return dict.fromkeys([given] if isinstance(given, str) else given, 1.0)

    @property
    def average(self) -> Literal["logits", "distributions"]:
        """What is averaged over several teachers."""
        return self.teacher.average if isinstance(self.teacher, Average) else "logits"

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins of the training rows, as in `tables.ORIGINS`."""
        if isinstance(self.rows, list):
            return tuple(origin for origin in ORIGINS if origin in self.rows)
        return ORIGINS if self.rows == "all" else ORIGINS[:1]

    @model_validator(mode="after")
    def _copies_have_parents(self) -> Self:
        if isinstance(self.rows, list) and set(self.rows) == {"augmented"}:
            raise ValueError("rows: augmented goes with source or unlabelled, the rows whose copies are kept")
        return self

    @model_validator(mode="after")
    def _teachers_count(self) -> Self:
        given = self._given
        if isinstance(given, list) and len(set(given)) < len(given):
            raise ValueError(f"teacher: {given}: a name is listed twice; give it a weight instead")
        if not all(weight > 0 for weight in self.teachers.values()):
            raise ValueError(f"teacher: {given}: weights must be greater than 0")
        return self
