"""Files that an installed Python package ships, found without running any of its code."""

import importlib.util
from pathlib import Path


def folders_of(package: str) -> list[Path]:
    """Return the folders of an installed package; more than one only if it is a namespace package.

    :param package: The name that Python imports. A dotted name is no package here: to find it Python would import what it is inside of.
    :return: Nothing, an empty list, where there is no such package, or it is a single file.
    """
    if not package.isidentifier():
        return []
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # ValueError: a module that was imported without a spec, such as __main__
        return []
    return [] if spec is None else [Path(folder) for folder in spec.submodule_search_locations or []]
