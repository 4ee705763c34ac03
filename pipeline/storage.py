"""Files that are either whole or absent: written to a temporary name, flushed to disk, renamed."""

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

TEMPORARY = ".tmp-"
YAML_REPEATED = 100_000
"""How many values the aliases of a YAML document may repeat in total. Nine levels of nine aliases each are 400 million."""


def _temporary(path: Path) -> Path:
    return path.with_name(f"{path.name}{TEMPORARY}{os.getpid()}-{uuid.uuid4().hex[:8]}")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write; on success it becomes `path`, on any error it is removed.

    :param path: The final path. Its folder is made when missing; a file already there is replaced at once.
    :yields: A path in the same folder (so that the rename is atomic).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path, name: str = "*") -> None:
    """Remove the temporary files that killed writers left. Only for files that nobody else writes now.

    :param folder: The folder.
    :param name: The final name of the files, or a pattern of names.
    """
    for path in sorted(folder.glob(f"{name}{TEMPORARY}*")):
        path.unlink()


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; on success it becomes `path`, whole, and replaces what was there.

    :param path: The final folder.
    :yields: An empty folder beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically: UTF-8, two spaces, keys in the order given, a final newline."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- YAML -----------------------------------------------------------------------------------------------------------------


class YamlError(ValueError):
    """A text is not valid YAML. The message is one line, which starts with the line number where there is one."""


def load_yaml(text: str | bytes) -> Any:
    """Return the value of a YAML document: plain Python types only, as `yaml.safe_load` does.

    :param text: The document; bytes must be UTF-8.
    :raises YamlError: If it is not valid YAML, a mapping lists a key twice, a value contains itself, or aliases repeat more than
        YAML_REPEATED values.
    """
    import yaml

    found = _decoded(text)
    try:
        return _yaml_loader()(found).get_single_data()
    except yaml.YAMLError as error:
        if conflict := re.search(r"^<{7} ", found, re.MULTILINE):
            line = found.count("\n", 0, conflict.start()) + 1
            raise YamlError(f"line {line}: an unresolved merge conflict (<<<<<<<)") from None
        if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
            raise YamlError(" ".join(str(error).split())) from None
        context = f" ({error.context})" if error.context else ""
        raise YamlError(f"line {error.problem_mark.line + 1}: {error.problem}{context}") from None
    except RecursionError:
        raise YamlError("the values are nested too deeply") from None


def _decoded(text: str | bytes) -> str:
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise YamlError(f"line {line}: not UTF-8; save the file as UTF-8") from None


@cache
def _yaml_loader() -> Any:
    """Return the loader class of `load_yaml`. It is defined here so that a program that reads no YAML needs no PyYAML."""
    from yaml import SafeLoader

    class Loader(SafeLoader):
        def construct_document(self, node: Any) -> Any:
            _check_node(node, self.construct_object, {})
            return super().construct_document(node)

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            try:
                return super().construct_object(node, deep)
            except YamlError:
                raise
            except (ArithmeticError, LookupError, TypeError, ValueError):  # 2026-02-30 is not a date
                raise _wrong(node, f"{node.value!r} is not a valid {node.tag.rpartition(':')[2]}") from None

    return Loader


def _wrong(node: Any, problem: str) -> YamlError:
    return YamlError(f"line {node.start_mark.line + 1}: {problem}")


def _check_node(node: Any, construct: Callable[[Any], Any], sizes: dict[Any, int]) -> int:
    """Return the number of values in a YAML node with every alias written out, and refuse what `load_yaml` refuses.

    PyYAML shares the value of an alias but copies the keys of a merge (`<<`): nested merges can take exponential time.
    """
    if node in sizes:  # an alias
        if not sizes[node]:
            raise _wrong(node, "the value contains itself")
        return sizes[node]
    sizes[node] = 0
    parts = [] if node.id == "scalar" else node.value
    if node.id == "mapping":
        _check_keys(node, construct)
        parts = [part for pair in node.value for part in pair]
    size = 1 + sum(_check_node(part, construct, sizes) for part in parts)
    if size > YAML_REPEATED + len(sizes):
        raise _wrong(node, f"aliases repeat more than {YAML_REPEATED:,} values")
    sizes[node] = size
    return size


def _check_keys(node: Any, construct: Callable[[Any], Any]) -> None:
    lines: dict[Any, int] = {}
    for key, _ in node.value:
        if key.id == "scalar":
            no_value = key.tag.endswith((":merge", ":value"))  # the keys << and =
            name = key.value if no_value else construct(key)
            if name in lines:
                raise _wrong(key, f"the key {key.value!r} is already in line {lines[name]}")
            lines[name] = key.start_mark.line + 1
