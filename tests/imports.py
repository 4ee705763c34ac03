"""Which module imports which, read from the source: imports inside functions count, those for type checkers alone do not."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path


def modules(root: Path) -> dict[str, Path]:
    """Return the project's modules by dotted name: `pipeline...` and `stages...`."""
    found = {}
    for path in sorted([*root.glob("pipeline/**/*.py"), *root.glob("stages/*.py")]):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """Return the modules that a file imports.

    A package's `__getattr__` is left out: it serves `from pipeline import logits`, which nothing in here may write.
    """
    return {name for name in _names(path.read_text(encoding="utf-8"), path.name == "__init__.py") if name in known}


@cache
def _names(code: str, is_package: bool) -> set[str]:
    """Return all names that the code imports, modules and what is in them."""
    found = set()
    for node in _run(ast.parse(code), is_package):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def _run(node: ast.AST, is_package: bool) -> Iterator[ast.AST]:
    """Yield the nodes of code that can run."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if is_package and isinstance(child, ast.FunctionDef) and child.name == "__getattr__":
            continue
        yield child
        yield from _run(child, is_package)


@cache
def graph(root: Path) -> dict[str, set[str]]:
    """Return what each module imports; a package alone is left out where one of its modules is meant."""
    known = modules(root)
    packages = {name for name, path in known.items() if path.name == "__init__.py"}
    return {name: imported(path, known) - packages - {name} for name, path in known.items()}


def reached(arrows: dict[str, set[str]], start: set[str], closed: frozenset[str] = frozenset()) -> set[str]:
    """Return the modules that can be reached; what `closed` ones import is not followed."""
    found: set[str] = set()
    waiting = set(start)
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= (set() if name in closed else arrows[name]) - found
    return found
