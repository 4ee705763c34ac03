"""The `label` block of a teacher: how it labels."""

from typing import Literal

from pydantic import Field

from pipeline.params.base import Model, Policy, Positive


class Labelling(Model):
    """How the teacher labels. A change here labels again, with the same teacher."""

    max_length: Positive | None = Field(None, description="Tokens; the model's own maximum where absent")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="What the teacher computes in")
    stored: Literal["float32", "float16"] = Field(
        "float32", description="What the logits are stored in; readers get float32 back"
    )
    token_budget: Positive | None = Field(
        None, description="Tokens in a batch, with any padding; absent: 2,048 on a CPU, 65,536 on a GPU"
    )
    too_long: Policy = Field(
        "keep", description="A row longer than max_length; keep: truncated for the teacher. Counted and reported always"
    )
