"""Imports the rules, students and teachers that params.yaml names by import path, `package.module:Name`.

Importing runs code: a person who can edit params.yaml can run code, as with dvc.yaml. Modules are found on Python's path with the
working folder first, so the class of a file `my_student.py` next to dvc.yaml is `my_student:MyStudent`.
"""

import ast
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from itertools import accumulate
from pathlib import Path
from typing import Any

from pipeline.errors import InputError


def _split(path: str) -> tuple[str, str]:
    module, _, name = path.partition(":")
    if not module or not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise InputError(f"{path!r} is not an import path; write it as package.module:Name")
    return module, name


def _find_here_first() -> None:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def check(path: str) -> None:
    """Check that the module of an import path exists and defines or imports the name, without running the module.

    :raises InputError: If the module is not found, or its source does not define or import the name.
    """
    module, name = _split(path)
    _find_here_first()
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError) as error:
        raise InputError(f"{path!r} does not import: {error}") from error
    if spec is None:
        raise InputError(
            f"{path!r} does not import: no module named {module!r} (looked in {Path.cwd()} and the installed packages)"
        )
    if spec.origin is None or not spec.origin.endswith(".py"):
        return
    names = _names_defined(Path(spec.origin))
    if name not in names and not names & {"*", "__getattr__"}:  # with these, only running the module shows its names
        raise InputError(f"{path!r} does not import: {spec.origin} defines no {name!r}")


def _names_defined(source: Path) -> set[str]:
    names = set()
    for node in ast.walk(_parsed(source)):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names.update(alias.asname or alias.name for alias in aliases)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
    return names


def _parsed(source: Path) -> ast.Module:
    try:
        return ast.parse(source.read_bytes(), filename=str(source))
    except SyntaxError as error:
        raise InputError(f"{source}, line {error.lineno}: {error.msg}") from error


def load(path: str) -> Any:
    """Import `package.module:Name` and return the object with this name.

    :raises InputError: If the module does not import, whatever it raises, or has no such name.
    """
    module, name = _split(path)
    _find_here_first()
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{path!r} does not import: {error}{_place(error, module)}") from error
    except (Exception, SystemExit) as error:  # the module's code can raise anything, and call sys.exit
        raise InputError(f"{path!r} does not import: {_described(error, module)}") from error


@contextmanager
def running(path: str, method: str) -> Iterator[None]:
    """Turn an exception of a user's code into an InputError of one line, with the place in that code. Those of this library's classes pass.

    :param path: The import path of its class or function.
    :param method: What is called.
    """
    module = path.partition(":")[0]
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        if module.partition(".")[0] == _LIBRARY:
            raise
        raise InputError(f"{path!r}: {method} raises {_described(error, module)}") from error


def _described(error: BaseException, module: str) -> str:
    lines = str(error).strip().splitlines()
    if isinstance(error, SyntaxError) and error.filename:
        return f"SyntaxError: {error.msg} ({_relative(error.filename)}, line {error.lineno})"
    return f"{type(error).__name__}{f': {lines[0]}' if lines else ''}{_place(error, module)}"


def _place(error: BaseException, module: str) -> str:
    """Return the file and line of the innermost frame of a user's code: of the module's top-level package, or of the working folder."""
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        file, package = Path(frame.f_code.co_filename), str(frame.f_globals.get("__name__", "")).partition(".")[0]
        here = file.is_relative_to(Path.cwd()) and "site-packages" not in file.parts
        if package != _LIBRARY and (package == module.partition(".")[0] or here):
            found = f" ({_relative(file)}, line {line})"
    return found


def _relative(file: Path | str) -> str:
    path = Path(file)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def build(path: str, params: Mapping[str, Any], **given: Any) -> Any:
    """Import a class or function and call it with the parameters of params.yaml and those of the contract.

    :param params: Keyword parameters from params.yaml.
    :param given: Keyword arguments of the contract, such as the number of classes.
    :raises InputError: If it does not import, does not take these parameters, or raises an exception.
    """
    factory = check_params(path, params, **given)
    try:
        return factory(**given, **params)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path!r}: {' '.join(str(error).split())}") from error
    except (Exception, SystemExit) as error:  # a wrong value can raise anything, such as a TypeError inside torch
        given_too = f", with the parameters {dict(params)}" if params else ""
        module = path.partition(":")[0]
        raise InputError(f"{path!r}: __init__ raises {_described(error, module)}{given_too}") from error


def check_params(path: str, params: Mapping[str, Any], **given: Any) -> Any:
    """Return the class or function of an import path, after a check that it takes the parameters that `build` passes.

    :raises InputError: If it does not import, does not take these parameters, or a value is not of the plain type that its signature has.
    """
    factory = load(path)
    if not callable(factory):
        raise InputError(f"{path!r} is a {type(factory).__name__}, not a class or function")
    try:
        signature = inspect.signature(factory)
    except ValueError:  # a built-in class may have none
        return factory
    if set_already := sorted(given.keys() & params.keys()):
        raise InputError(f"{path!r}: {', '.join(set_already)}: set by the pipeline; remove it from the parameters")
    try:
        signature.bind(**given, **params)
    except TypeError as error:
        raise InputError(
            f"{path!r} does not take these parameters: {error}; it is called as {path.partition(':')[2]}{signature}"
        ) from error
    for name, value in params.items():
        if name in signature.parameters:
            _check_type(f"{path!r}: {name}", value, signature.parameters[name].annotation)
    return factory


def number_hint(text: str) -> str:
    """Return how to write the number that a text means in YAML, as the end of a message; an empty text if it is none."""
    number, thousands = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", r"\d+,\d{3}"
    if re.fullmatch(number, text):
        return "; write the number without quotes"
    plain = text.removesuffix("%").strip().replace(",", ".", 1)  # 10% and 0,1
    if not re.fullmatch(number, plain) or re.fullmatch(thousands, text):
        return ""
    return f"; write {float(plain) / (100 if text.endswith('%') else 1):g}"


_PLAIN: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}
"""By the name of an annotation, the types of a value in YAML that it takes."""


def _check_type(place: str, value: Any, annotation: Any) -> None:
    """Refuse a value that is not of an annotated plain type. Other annotations, and null, are not checked."""
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    types = _PLAIN.get(name)
    if types is None or value is None or (isinstance(value, types) and (name == "bool" or not isinstance(value, bool))):
        return
    hint = ""
    if isinstance(value, str) and name in ("int", "float"):
        hint = number_hint(value)
    elif name == "str":
        hint = "; write it in quotes"
    raise InputError(f"{place}: {value!r}: must be {'an' if name == 'int' else 'a'} {name}{hint}")


# --- the code of an import path ---------------------------------------------------------------------------------------------

_LIBRARY = __name__.partition(".")[0]
_CHANGE_NO_BYTES = frozenset({"pipeline.console", "pipeline.errors"})


def code_digest(path: str) -> str | None:
    """Return a hash of the code of an import path, which changes with the code. No code is run.

    It covers the module and all modules that it imports, also inside functions, that are files of the working folder or of the
    module's own top-level package.

    :return: SHA-256, in hex, of the names and the bytes of these files; None for classes of this library, which DVC tracks itself.
    :raises InputError: If the module is not found, or a file is not valid Python.
    """
    module, _ = _split(path)
    return None if module.partition(".")[0] == _LIBRARY else _digest(source_files(module))


def source_files(module: str) -> dict[str, Path]:
    """Return the files that `code_digest` covers, by dotted name.

    :raises InputError: If the module is not found, or a file is not valid Python.
    """
    _find_here_first()
    if _spec(module) is None:
        raise InputError(f"no module named {module!r} (looked in {Path.cwd()} and the installed packages)")
    here, top = Path.cwd(), module.partition(".")[0]

    def own_file(name: str) -> Path | None:
        spec, package = _spec(name), name.partition(".")[0]
        if spec is None or spec.origin is None or not spec.origin.endswith(".py") or package == _LIBRARY:
            return None
        file = Path(spec.origin).absolute()  # a link in the working folder is followed, wherever it leads
        return file if package == top or (file.is_relative_to(here) and "site-packages" not in file.parts) else None

    return _reached([module], own_file)


def _spec(module: str) -> ModuleSpec | None:
    """Find a module without importing its packages; None if there is no such module."""
    top, *inner = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # ValueError: a module that was imported without a spec, such as __main__
        return None
    for i in range(1, len(inner) + 1):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join([top, *inner[:i]]), spec.submodule_search_locations)
    return spec


def library_digest(*modules: str) -> str:
    """Return a hash of the source files of this library that modules reach through their imports, also inside functions.

    No module is imported. Left out: imports for type checkers alone, `__init__.py` of packages with what their `__getattr__` serves, and
    the two modules that change no bytes, console.py and errors.py. Add `code_digest` for a user's own module.

    :param modules: Dotted names, of this library or a user's; of a user's module, what its own files import from this library is followed.
    :return: SHA-256, in hex, of the names and the bytes of those files.
    :raises InputError: If a module is not found, or a file is not valid Python.
    """
    starts: set[str] = set()
    for module in modules:
        if not module.startswith(f"{_LIBRARY}."):
            starts.update(*(_imports(name, file) for name, file in source_files(module).items()))
        elif _library_file(module) is None:
            raise InputError(f"no module named {module!r} in {Path(__file__).parent}")
        else:
            starts.add(module)
    return _digest_of_reached(frozenset(starts))


@cache
def _digest_of_reached(starts: frozenset[str]) -> str:
    return _digest(_reached(starts, _library_file))


def _library_file(module: str) -> Path | None:
    """Return the file of a module of this library; None for a package, a name inside a module, or a module that changes no bytes."""
    package, *parts = module.split(".")
    file = Path(__file__).parent.joinpath(*parts).with_suffix(".py")
    return file if package == _LIBRARY and module not in _CHANGE_NO_BYTES and file.is_file() else None


def _reached(starts: Iterable[str], file_of: Callable[[str], Path | None]) -> dict[str, Path]:
    """Return the files of modules and of what they import, by dotted name. Modules without a file are not followed."""
    found: dict[str, Path] = {}
    waiting = set(starts)
    while waiting:
        name = waiting.pop()
        if name not in found and (file := file_of(name)) is not None:
            found[name] = file
            waiting |= _imports(name, file)
    return found


def _digest(files: Mapping[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, file in sorted(files.items()):
        content = file.read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _imports(module: str, file: Path) -> set[str]:
    """Return the dotted names that a module imports or may import: its packages, and both x and x.y for `from x import y`."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    found = set(accumulate(module.split(".")[:-1], "{}.{}".format))
    for node in _nodes_that_run(_parsed(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: -(node.level - 1) or None] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


def _nodes_that_run(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")):
            yield child
            yield from _nodes_that_run(child)


# --- files inside packages ------------------------------------------------------------------------------------------------


def folders_of(package: str) -> list[Path]:
    """Return the folders of an installed package; none if there is no such package, or it is a single file.

    :param package: Its import name, without dots: to find a subpackage, Python would import the package. Only a namespace package has
        more than one folder.
    """
    spec = _spec(package) if package.isidentifier() else None
    return [] if spec is None else [Path(folder) for folder in spec.submodule_search_locations or []]
