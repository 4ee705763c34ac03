"""Students that differ only in their seed, which their names show: NAME-seed0, NAME-seed1 and so on."""

import re
from collections.abc import Iterable


def base_of(name: str) -> str | None:
    """Return the NAME of a student named NAME-seed0, NAME-seed1 and so on; None for any other name."""
    match = re.fullmatch(r"(.+)-seed\d+", name)
    return match[1] if match else None


def by_seed(students: Iterable[str]) -> dict[str, list[str]]:
    """Return the names of the students of each NAME with two or more seeds."""
    groups: dict[str, list[str]] = {}
    for name in students:
        if base := base_of(name):
            groups.setdefault(base, []).append(name)
    return {name: group for name, group in groups.items() if len(group) > 1}
