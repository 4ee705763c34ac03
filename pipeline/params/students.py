"""The `students` block: the architecture of a student, its training rows and its training."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, model_validator
from pydantic import Tag as UnionTag

from pipeline.params.base import Float, Fraction, ImportPath, Model, Positive, Seed, Tasks


class Optimiser(Model):
    """AdaDelta as in the paper, or AdamW."""

    name: Literal["adadelta", "adamw"] = "adadelta"
    learning_rate: Float = Field(1.0, gt=0)
    rho: Fraction = 0.95  # AdaDelta's decay
    weight_decay: Float = Field(0.0, ge=0)  # AdamW's decay
    # Evaluate and save an exponential moving average of the weights with this decay per batch; 0: the weights themselves.
    ema_decay: Float = Field(0.0, ge=0, lt=1)


class Objective(Model):
    """alpha * cross-entropy with the hard label + (1 - alpha) * soft, a loss between the student's and the teacher's logits."""

    alpha: Fraction = 0.0
    soft: Literal["mse", "kl", "cosine"] = "mse"
    temperature: Float = Field(1.0, gt=0)  # only with soft: kl

    @model_validator(mode="after")
    def _temperature_is_for_kl(self) -> Self:
        if self.soft != "kl" and self.temperature != 1.0:
            raise ValueError(f"temperature goes with soft: kl; {self.soft} uses raw logits")
        return self


class RowWeights(Model):
    """The weight of a row in the loss."""

    augmented: Float = Field(1.0, ge=0)  # the weight of an augmented row; that of an original is 1
    # Multiplies the weight by the teacher's highest probability to this power: higher values prefer confident rows.
    confidence: Float = Field(0.0, ge=0)


Names = Annotated[list[str], Field(min_length=1)]
Weights = Annotated[dict[str, Float], Field(min_length=1)]


class Average(Model):
    """The average of several teachers."""

    of: Names | Weights  # the teachers as a list, or each with a weight
    average: Literal["logits", "distributions"] = "logits"  # what is averaged


def _kind_of_teacher(value: Any) -> str:
    if isinstance(value, Average) or (isinstance(value, Mapping) and isinstance(value.get("of"), list | Mapping | str)):
        return "average"
    return "weights" if isinstance(value, Mapping) else "names" if isinstance(value, list) else "name"


class Student(Model):
    """A student: its architecture, its training rows and its training."""

    model: ImportPath
    params: dict[str, Any] = Field({})  # the architecture's keyword parameters
    # The teacher whose logits it learns; several as a list, or each with a weight, or `{of: ..., average: distributions}`. It is one key,
    # so that DVC runs the gather stage again for a change of this key only.
    teacher: Annotated[
        Annotated[str, UnionTag("name")]
        | Annotated[Names, UnionTag("names")]
        | Annotated[Weights, UnionTag("weights")]
        | Annotated[Average, UnionTag("average")],
        Discriminator(_kind_of_teacher),
    ]
    # The tasks that it is trained on; absent: every task. No setting of its training, so no hash of those has it.
    tasks: Tasks | None = Field(None, exclude=True)
    rows: Literal["all", "originals"] = "all"  # originals: without augmented rows
    vectors: str | None = None  # the name of its initial word vectors; absent: random vectors
    objective: Objective = Objective()
    weights: RowWeights = RowWeights()
    optimiser: Optimiser = Optimiser()
    batch_size: Positive = 50
    epochs: Positive = 10
    patience: Positive = 3  # epochs without a better one (validation accuracy, then loss) before training stops
    max_words: Positive = 256  # words of a sentence; longer sentences are truncated
    min_count: Positive = 1  # words that are rarer in the training rows are unknown words
    seed: Seed = 0
    threads: Positive = 1  # CPU threads of its training; its matrices are too small for several to pay

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

    @model_validator(mode="after")
    def _teachers_count(self) -> Self:
        given = self._given
        if isinstance(given, list) and len(set(given)) < len(given):
            raise ValueError(f"teacher: {given}: a name is listed twice; give it a weight instead")
        if not all(weight > 0 for weight in self.teachers.values()):
            raise ValueError(f"teacher: {given}: weights must be greater than 0")
        return self
