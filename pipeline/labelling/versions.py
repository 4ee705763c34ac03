"""The versions of the libraries that compute logits."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import metadata

LIBRARIES = ("offline-distill", "torch", "transformers", "tokenizers")


def library_versions() -> dict[str, str]:
    """Return the version of each of `LIBRARIES` in this process."""
    found = dict.fromkeys(LIBRARIES, "not installed")  # a checkout can run without being installed
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def merged(versions: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Merge mappings of library -> version; several versions of one library are sorted and joined with ", "."""
    found: dict[str, set[str]] = {}
    for each in versions:
        for name, version in each.items():
            found.setdefault(name, set()).update(version.split(", "))
    return {name: ", ".join(sorted(several)) for name, several in found.items()}
