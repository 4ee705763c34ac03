"""The `model` block of a teacher: its weights and its fine-tuning."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from pipeline.params.base import Fraction, Model, Positive, check_importable


class Finetune(Model):
    """How the finetune stage trains a classifier on an encoder without one."""

    epochs: Positive = 2
    batch_size: Positive = 32
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Fraction = Field(0.1, description="The share of the steps over which the learning rate rises")
    max_length: Positive = Field(128, description="Tokens; longer rows are truncated for fine-tuning")
    seed: int = 0


class TeacherModel(Model):
    """The weights and their fine-tuning. A change makes a new teacher."""

    source: str = Field(
        pattern=r"^(package:[^:]+:.+|hub:[^/]+/[^@]+@\w+|folder:.+|python:[^:]+:\w+)$",
        description="package:NAME:FOLDER_INSIDE, hub:OWNER/NAME@REVISION, folder:PATH, or python:MODULE:NAME, your own class",
    )
    params: dict[str, Any] = Field({}, description="With python: the class's keyword parameters")
    files: list[str] = Field(
        [], description="With python: files that its logits depend on, such as weights; their hashes are recorded"
    )
    sha256: str | None = Field(None, description="The SHA-256 of its model.safetensors, which is checked")
    licence: str = Field("unknown", description="The weights' licence, for the cards of data sets and students")
    labels: dict[str, str] = Field(
        {}, description="The teacher's class name -> the task's class name, if they differ (LABEL_0: negative)"
    )
    finetune: Finetune | None = Field(
        None, description="For an encoder without a classifier; absent: the model has one"
    )

    @model_validator(mode="after")
    def _own(self) -> Self:
        if not self.source.startswith("python:"):
            for key in ("params", "files"):
                if getattr(self, key):
                    raise ValueError(f"{key} goes with source: python:MODULE:NAME")
            return self
        if self.sha256 is not None or self.finetune is not None:
            raise ValueError("sha256 and finetune go with a model of transformers, not with python:")
        check_importable(self.source.removeprefix("python:"))
        return self
