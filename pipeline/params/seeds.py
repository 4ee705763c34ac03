"""Students that differ in their seed alone, by what they are called: NAME-seed0, NAME-seed1 and so on."""

import re
from collections.abc import Iterable


def base_of(name: str) -> str | None:
    """Return the NAME of a student that is called NAME-seed0, NAME-seed1 and so on; None of any other."""
    match = re.fullmatch(r"(.+)-seed\d+", name)
    return match[1] if match else None


def by_seed(students: Iterable[str]) -> dict[str, list[str]]:
    """Return the students of each NAME that has two or more.

    :param students: Their names.
    """
    groups: dict[str, list[str]] = {}
    for name in students:
        if base := base_of(name):
            groups.setdefault(base, []).append(name)
    return {name: each for name, each in groups.items() if len(each) > 1}
