"""The `students` block: what a student learns, from which rows, and how."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, model_validator
from pydantic import Tag as UnionTag

from pipeline.params.base import Fraction, ImportPath, Model, Positive


class Optimiser(Model):
    """AdaDelta as the paper has it, or AdamW."""

    name: Literal["adadelta", "adamw"] = "adadelta"
    learning_rate: Annotated[float, Field(gt=0)] = 1.0
    rho: Fraction = Field(0.95, description="AdaDelta's decay")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="AdamW's decay")
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="Measure and keep the moving average of the weights, of which this share stays at each batch; 0: the weights themselves",
    )


class Objective(Model):
    """alpha * cross-entropy with the hard label + (1 - alpha) * soft, which compares logits with the teacher's."""

    alpha: Fraction = 0.0
    soft: Literal["mse", "kl", "cosine"] = "mse"
    temperature: Annotated[float, Field(gt=0)] = Field(1.0, description="For kl alone")

    @model_validator(mode="after")
    def _temperature_is_for_kl(self) -> Self:
        if self.soft != "kl" and self.temperature != 1.0:
            raise ValueError(f"temperature goes with soft: kl; {self.soft} compares raw logits")
        return self


class RowWeights(Model):
    """How much a row counts beside others."""

    augmented: Annotated[float, Field(ge=0)] = Field(1.0, description="An augmented row; an original counts 1")
    confidence: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="Times the teacher's greatest probability to this power: with more, rows that it is sure of count more",
    )


Names = Annotated[list[str], Field(min_length=1)]


Weights = Annotated[dict[str, float], Field(min_length=1)]


class Average(Model):
    """Several teachers as one."""

    of: Names | Weights = Field(description="The teachers as a list, or with a weight each")
    average: Literal["logits", "distributions"] = Field("logits", description="What is averaged")


def _kind_of_teacher(value: Any) -> str:
    if isinstance(value, Average) or (isinstance(value, Mapping) and isinstance(value.get("of"), list | Mapping)):
        return "average"
    return "weights" if isinstance(value, Mapping) else "names" if isinstance(value, list) else "name"


class Student(Model):
    """A student: its architecture, what it learns from, how."""

    model: ImportPath
    params: dict[str, Any] = Field({}, description="The architecture's keyword parameters")
    # One key for all that is gathered from teachers, so that DVC gathers again where this changes and for no other change of a student.
    teacher: Annotated[
        Annotated[str, UnionTag("name")]
        | Annotated[Names, UnionTag("names")]
        | Annotated[Weights, UnionTag("weights")]
        | Annotated[Average, UnionTag("average")],
        Discriminator(_kind_of_teacher),
    ] = Field(
        description="The teacher whose logits it learns; several as a list or with a weight each, or `{of: ..., average: distributions}`"
    )
    rows: Literal["all", "originals"] = Field("all", description="originals: without augmented rows")
    vectors: str | None = Field(None, description="The name of the word vectors it starts from; random where absent")
    objective: Objective = Objective()
    weights: RowWeights = RowWeights()
    optimiser: Optimiser = Optimiser()
    batch_size: Positive = 50
    epochs: Positive = 10
    patience: Positive = Field(3, description="Epochs without a better validation accuracy before training stops")
    max_words: Positive = Field(256, description="Words of a sentence that are read; the rest is cut")
    min_count: Positive = Field(1, description="A word seen less often in the training rows is unknown")
    seed: int = 0

    @property
    def teachers(self) -> dict[str, float]:
        """The names of the teachers, each with its weight."""
        asked = self.teacher.of if isinstance(self.teacher, Average) else self.teacher
        if isinstance(asked, dict):
            return dict(asked)
        return dict.fromkeys([asked] if isinstance(asked, str) else asked, 1.0)

    @property
    def average(self) -> Literal["logits", "distributions"]:
        """What is averaged of several teachers."""
        return self.teacher.average if isinstance(self.teacher, Average) else "logits"

    @model_validator(mode="after")
    def _teachers_count(self) -> Self:
        asked = self.teacher.of if isinstance(self.teacher, Average) else self.teacher
        if isinstance(asked, list) and len(set(asked)) < len(asked):
            raise ValueError(f"teacher: {asked}: a name stands there twice; give it a weight instead")
        if not all(math.isfinite(weight) and weight > 0 for weight in self.teachers.values()):
            raise ValueError(f"teacher: {asked}: weights must be greater than 0")
        return self
