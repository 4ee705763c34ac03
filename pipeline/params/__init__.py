"""params.yaml and tasks/*.yaml as frozen models, one module per block.

`from pipeline import params` provides the names that the cards of published data sets use. Code in this project imports the module of the block.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.params.project import Settings, load
    from pipeline.params.students import Student

__all__ = ["Settings", "Student", "load"]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.params import project, students

    return getattr(students if name == "Student" else project, name)
