"""The versions of the libraries that compute logits."""

from collections.abc import Iterable, Mapping
from importlib import metadata

LIBRARIES = ("offline-distill", "torch", "transformers", "tokenizers")


def library_versions() -> dict[str, str]:
    """Return the version of each of `LIBRARIES` in this process."""
    return {name: _version(name) for name in LIBRARIES}


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:  # a checkout that runs without being installed
        return "not installed"


def merged(versions: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Merge mappings of library -> version; several versions of one library are sorted and joined with ", "."""
    found: dict[str, set[str]] = {}
    for each in versions:
        for name, version in each.items():
            found.setdefault(name, set()).update(version.split(", "))
    return {name: ", ".join(sorted(several)) for name, several in found.items()}
