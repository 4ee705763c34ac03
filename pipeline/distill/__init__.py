"""Training: a student learns a teacher's logits from tables alone.

Cards of published data sets use `from pipeline import distill`; modules of this library import `pipeline.distill.loop`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.distill.loop import COLUMNS, curve, distill

__all__ = ["COLUMNS", "curve", "distill"]


def __getattr__(name: str) -> Any:
    """Import a public function, and torch with it, at its first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.distill import loop

    return getattr(loop, name)
