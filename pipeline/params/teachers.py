"""The `model` block of a teacher: its weights and its fine-tuning."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from pipeline.params.base import Float, Fraction, Model, Positive, Seed, Sha256, check_importable, form


class Finetune(Model):
    """How the finetune stage trains a classifier on an encoder without one."""

    epochs: Positive = 2
    """Passes over the training rows."""
    batch_size: Positive = 32
    """Rows in a batch."""
    learning_rate: Float = Field(5e-5, gt=0)
    """AdamW's learning rate at the end of the warm-up."""
    weight_decay: Float = Field(0.01, ge=0)
    """AdamW's weight decay."""
    warmup: Fraction = 0.1
    """Share of the steps over which the learning rate rises."""
    max_length: Positive = 128
    """Tokens of a row; longer rows are truncated for fine-tuning."""
    seed: Seed = 0
    """Seed of the new head and of the order of the rows."""


class TeacherModel(Model):
    """The weights and their fine-tuning. A change makes a new teacher."""

    source: Annotated[
        str,
        form(
            r"package:[^:]+:.+|hub:[^/]+/[^@]+@\w+|folder:.+|python:[^:]+:\w+",
            "folder:PATH",
            "package:NAME:FOLDER",
            "hub:OWNER/NAME@REVISION",
            "python:MODULE:NAME",
        ),
    ]
    """`folder:PATH`, `package:NAME:FOLDER_INSIDE`, `hub:OWNER/NAME@REVISION`, or `python:MODULE:NAME`, a class of your own."""
    params: dict[str, Any] = Field({})
    """With `python:`: the class's keyword parameters."""
    files: list[str] = Field([])
    """With `python:`: files that its logits depend on, such as weights; their hashes are recorded."""
    sha256: Sha256 | None = None
    """The SHA-256 of its `model.safetensors`, which is checked."""
    licence: str = "unknown"
    """The weights' licence, for the cards of data sets and students."""
    labels: dict[str, str] = Field({})
    """From the teacher's class names to the task's, if they differ: `{LABEL_0: negative}`."""
    finetune: Finetune | None = None
    """For an encoder without a classification head; absent: the model has one."""

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
