"""The `label` block of a teacher: how it labels texts."""

from typing import Literal

from pipeline.params.base import Model, Policy, Positive


class Labelling(Model):
    """How the teacher labels. A change runs the label stage again, with the same teacher."""

    max_length: Positive | None = None
    """Tokens of a text that the teacher reads; absent: the model's own maximum."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """The type that the teacher computes in."""
    stored: Literal["float32", "float16"] = "float32"
    """The type of the stored logits; readers get float32."""
    token_budget: Positive | None = None
    """Tokens in a batch, with padding; absent: 2,048 on a CPU, 8,192 on MPS, 65,536 on a CUDA GPU."""
    too_long: Policy = "keep"
    """What to do with a row longer than `max_length`. `keep`: the teacher reads the truncated text. The rows are always counted."""
