"""The logit data set: the label stage writes it, and training reads it.

`from pipeline import logits` has the functions that the cards of published data sets use. Modules of this package import `pipeline.logits.dataset`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.logits.dataset import manifest, provenance, read_rows, read_split, stream_split
    from pipeline.logits.writing import write

__all__ = ["manifest", "provenance", "read_rows", "read_split", "stream_split", "write"]


def __getattr__(name: str) -> Any:
    """Import a public function on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.logits import dataset, writing

    return getattr(writing if name == "write" else dataset, name)
