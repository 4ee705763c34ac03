"""Finds the files of a project that this installation brings: dvc.yaml, the stage scripts, the example's settings."""

import importlib.metadata
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def bundle() -> Path:
    """Return the folder of these files: pipeline/project of an installed wheel, the repository's root in a checkout."""
    installed = PACKAGE / "project"
    return installed if installed.is_dir() else PACKAGE.parent


def file_of(path: str) -> Path:
    """Return a file or folder of the repository in this installation, such as `stages/train.py` or `pipeline/students`."""
    return (PACKAGE.parent if path.partition("/")[0] == PACKAGE.name else bundle()) / path


def version() -> str:
    """Return the version of this installation; "unknown" if the package is not installed, as with PYTHONPATH alone."""
    try:
        return importlib.metadata.version("offline-distill")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
