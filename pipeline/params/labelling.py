"""The `label` block of a teacher: how it labels texts."""

from typing import Literal

from pydantic import Field

from pipeline.params.base import Model, Policy, Positive


class Labelling(Model):
    """How the teacher labels. A change runs the label stage again, with the same teacher."""

    max_length: Positive | None = Field(None, description="Tokens; absent: the model's own maximum")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="The type that the teacher computes in"
    )
    stored: Literal["float32", "float16"] = Field(
        "float32", description="The type of the stored logits; readers get float32"
    )
    token_budget: Positive | None = Field(
        None, description="Tokens in a batch, including padding; absent: 2,048 on a CPU, 65,536 on a GPU"
    )
    too_long: Policy = Field(
        "keep", description="A row longer than max_length; keep: truncated for the teacher. Always counted and reported"
    )
