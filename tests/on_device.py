"""Tolerances of tests with the marker gpu."""

from pipeline.machine.devices import device


def within(exact: float, rounded: float) -> float:
    """Return a tolerance: the first on a CPU; the second on a GPU, where training and students' networks compute in bfloat16 and TF32."""
    return exact if device().type == "cpu" else rounded
