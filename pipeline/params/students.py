"""The `students` block: the architecture of a student, its training rows and its training."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, model_validator
from pydantic import Tag as UnionTag

from pipeline.params.base import Fraction, ImportPath, Model, Positive


class Optimiser(Model):
    """AdaDelta as in the paper, or AdamW."""

    name: Literal["adadelta", "adamw"] = "adadelta"
    learning_rate: Annotated[float, Field(gt=0)] = 1.0
    rho: Fraction = Field(0.95, description="AdaDelta's decay")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="AdamW's decay")
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="Evaluate and save an exponential moving average of the weights with this decay per batch; 0: the weights themselves",
    )


class Objective(Model):
    """alpha * cross-entropy with the hard label + (1 - alpha) * soft, a loss between the student's and the teacher's logits."""

    alpha: Fraction = 0.0
    soft: Literal["mse", "kl", "cosine"] = "mse"
    temperature: Annotated[float, Field(gt=0)] = Field(1.0, description="Only with soft: kl")

    @model_validator(mode="after")
    def _temperature_is_for_kl(self) -> Self:
        if self.soft != "kl" and self.temperature != 1.0:
            raise ValueError(f"temperature goes with soft: kl; {self.soft} uses raw logits")
        return self


class RowWeights(Model):
    """The weight of a row in the loss."""

    augmented: Annotated[float, Field(ge=0)] = Field(
        1.0, description="The weight of an augmented row; that of an original is 1"
    )
    confidence: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="Multiplies the weight by the teacher's highest probability to this power: higher values prefer confident rows",
    )


Names = Annotated[list[str], Field(min_length=1)]
Weights = Annotated[dict[str, float], Field(min_length=1)]


class Average(Model):
    """The average of several teachers."""

    of: Names | Weights = Field(description="The teachers as a list, or each with a weight")
    average: Literal["logits", "distributions"] = Field("logits", description="What is averaged")


def _kind_of_teacher(value: Any) -> str:
    if isinstance(value, Average) or (isinstance(value, Mapping) and isinstance(value.get("of"), list | Mapping)):
        return "average"
    return "weights" if isinstance(value, Mapping) else "names" if isinstance(value, list) else "name"


class Student(Model):
    """A student: its architecture, its training rows and its training."""

    model: ImportPath
    params: dict[str, Any] = Field({}, description="The architecture's keyword parameters")
    # One key for everything about the teachers, so that DVC runs the gather stage again for a change of this key only.
    teacher: Annotated[
        Annotated[str, UnionTag("name")]
        | Annotated[Names, UnionTag("names")]
        | Annotated[Weights, UnionTag("weights")]
        | Annotated[Average, UnionTag("average")],
        Discriminator(_kind_of_teacher),
    ] = Field(
        description="The teacher whose logits it learns; several as a list, or each with a weight, or `{of: ..., average: distributions}`"
    )
    rows: Literal["all", "originals"] = Field("all", description="originals: without augmented rows")
    vectors: str | None = Field(None, description="The name of its initial word vectors; absent: random vectors")
    objective: Objective = Objective()
    weights: RowWeights = RowWeights()
    optimiser: Optimiser = Optimiser()
    batch_size: Positive = 50
    epochs: Positive = 10
    patience: Positive = Field(3, description="Epochs without a better validation accuracy before training stops")
    max_words: Positive = Field(256, description="Words of a sentence; longer sentences are truncated")
    min_count: Positive = Field(1, description="Words that are rarer in the training rows are unknown words")
    seed: int = 0

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
        if not all(math.isfinite(weight) and weight > 0 for weight in self.teachers.values()):
            raise ValueError(f"teacher: {given}: weights must be greater than 0")
        return self
