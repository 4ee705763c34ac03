"""Writes files and folders that are either whole or absent, and reads JSON and YAML."""

import hashlib
import json
import logging
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError

if TYPE_CHECKING:
    from pipeline.places.place import Place

logger = logging.getLogger(__name__)
TEMPORARY = ".tmp-"
WINDOWS = os.name == "nt"
ATTEMPTS, ATTEMPT_S = 20, 0.1
"""How often a rename is tried again on Windows, and the seconds between two attempts."""
YAML_REPEATED = 100_000
"""How many values the aliases of a YAML document may repeat in total. Nine levels of nine aliases each are 400 million."""


@cache
def _host() -> str:
    """Return 8 hex digits for the machine and its table of process ids, which a container does not share with its host."""
    try:
        processes = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux
        processes = ""
    return hashlib.sha256(f"{platform.node()} {processes}".encode()).hexdigest()[:8]


def _temporary(path: Path) -> Path:
    """Return a new temporary name for a path, and remove the temporaries of the path whose writers were killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = re.compile(rf"{re.escape(path.name + TEMPORARY)}{_host()}-(\d+)-[0-9a-f]{{8}}")
    for other in list(path.parent.iterdir()):
        if (found := name.fullmatch(other.name)) and not _is_alive(int(found[1])):
            _remove(other)
    return path.with_name(f"{path.name}{TEMPORARY}{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def _is_alive(process: int) -> bool:
    if WINDOWS:  # there, os.kill ends the process
        try:
            import psutil
        except ModuleNotFoundError:  # it comes with DVC
            return True
        return bool(psutil.pid_exists(process))
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write; on success it becomes `path` and replaces an existing file at once, on any error it is removed.

    It is in the same folder, which is made when missing, so that the rename is atomic. If the process is killed, the file stays until the
    next `new_file` of the same path on the same machine.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        _replace(temporary, path)
    finally:
        _remove(temporary)


def _replace(source: Path, target: Path) -> None:
    """Rename a file or folder. Windows refuses while another process has a file of it open, such as a virus scanner: wait for it."""
    for _ in range(ATTEMPTS if WINDOWS else 0):
        try:
            source.replace(target)
            return
        except PermissionError:
            time.sleep(ATTEMPT_S)
    source.replace(target)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder next to `path`; on success it becomes `path` and replaces an existing one, on any error it is removed.

    `path` is never there in part: an existing folder is renamed before it is removed. Temporary folders are cleaned up as in `new_file`.
    """
    temporary, old = _temporary(path), _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            _replace(path, old)
        _replace(temporary, path)
    finally:
        if old.exists() and not path.exists():  # interrupted between the two renames
            _replace(old, path)
        _remove(temporary)
        _remove(old)


def remove_temporaries(folder: Path, name: str = "*") -> None:
    """Remove the temporary files of all writers. Only for files that no other process is writing.

    :param name: The final name of the files, or a pattern of names.
    """
    for path in sorted(folder.glob(f"{name}{TEMPORARY}*")):
        path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically: UTF-8, indented by two spaces, keys in the given order, a final newline."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: "Place") -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_of(path: "Place") -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_stamp(path: Path, of: Path) -> None:
    """Write the SHA-256 of a file as JSON: small enough for Git, so that a clone without the file detects a new version."""
    write_json(path, {"file": of.as_posix(), "sha256": sha256_of(of)})


def check_stamp(path: Path, fetch: str) -> None:
    """Check that the file that a stamp names is here, and is the one that was stamped. Without a stamp, nothing is checked.

    :param fetch: The command that brings the file, for the message.
    :raises InputError: If the file is missing or another one.
    """
    if not path.is_file():
        return
    stamp = read_json(path)
    file = Path(stamp["file"])
    if not file.is_file():
        raise InputError(f"{file}: not on this machine; fetch it with `{fetch}`")
    if sha256_of(file) != stamp["sha256"]:
        raise InputError(f"{file}: older than the file that {path} names, or changed; fetch it with `{fetch}`")


def need(path: Path, stage: str, fault: str = "no such file or folder") -> None:
    """Check that an input of a stage exists: only `dvc repro` runs the stages before it.

    :param stage: The stage that writes it, as DVC names it.
    :raises InputError: If it does not exist.
    """
    if not path.exists():
        raise InputError(f"{path}: {fault}; run `dvc repro {stage}`")


# --- skipped stages -------------------------------------------------------------------------------------------------------

SKIPPED = "skipped.json"


def skip(why: str, *outs: Path, text: str = "") -> None:
    """Log that a stage is skipped, and write its outputs, since DVC requires them: `{}` in JSON, a folder with the reason in SKIPPED.

    :param why: The setting that says that the stage does not apply to its task.
    :param text: The content of outputs that are neither JSON nor a folder.
    """
    logger.info("skipped: %s", why)
    for out in outs:
        if out.suffix == ".json":
            write_json(out, {})
        elif out.suffix:
            write_text(out, text)
        else:
            with new_folder(out) as folder:
                write_json(folder / SKIPPED, {"skipped": why})


def why_skipped(folder: Path) -> str | None:
    """Return why the stage that wrote a folder was skipped; None if it was not."""
    path = folder / SKIPPED
    return str(read_json(path)["skipped"]) if path.is_file() else None


# --- YAML -----------------------------------------------------------------------------------------------------------------


_CONFLICT = re.compile(r"^(?:<{7}|={7}|>{7}|\|{7})(?=\s)", re.MULTILINE)
_INTEGER = re.compile(r"[-+]?(?:0b[01][01_]*|0o[0-7][0-7_]*|0x[0-9a-fA-F][0-9a-fA-F_]*|[0-9][0-9_]*)$")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9][0-9_]*|[0-9][0-9_]*(?:\.[0-9_]*|(?=[eE])))(?:[eE][-+]?[0-9]+)?$"
    r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
)
"""Numbers of YAML 1.2. PyYAML's are those of YAML 1.1: 010 is 8, 1:30 is 90, and 1e-05 is a string."""


class YamlError(ValueError):
    """A text is not valid YAML. The message is one line, which starts with the line number where there is one."""


def load_yaml(text: str | bytes) -> Any:
    """Return the value of a YAML document: plain Python types only, as `yaml.safe_load` does.

    Numbers are those of YAML 1.2, and so those of DVC: 1e-05 is a number, 010 is ten, and 1:30 is a string.

    :raises YamlError: If bytes are not UTF-8, the text is not valid YAML, a merge conflict is unresolved, a mapping lists a key twice, a value contains
        itself, or aliases repeat more than YAML_REPEATED values.
    """
    import yaml

    found = text if isinstance(text, str) else _decoded(text)
    if conflict := _CONFLICT.search(found):
        line = found.count("\n", 0, conflict.start()) + 1
        raise YamlError(f"line {line}: an unresolved merge conflict ({conflict[0]})")
    try:
        return _yaml_loader()(found).get_single_data()
    except yaml.YAMLError as error:
        if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
            raise YamlError(" ".join(str(error).split())) from None
        context = f" ({error.context})" if error.context else ""
        spaces = "; indent with spaces" if "'\\t'" in str(error.problem) else ""
        raise YamlError(f"line {error.problem_mark.line + 1}: {error.problem}{context}{spaces}") from None
    except RecursionError:
        raise YamlError("the values are nested too deeply") from None


def _decoded(text: bytes) -> str:
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

    whole, decimal = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
    Loader.yaml_implicit_resolvers = {
        first: [rule for rule in rules if rule[0] not in (whole, decimal)]
        for first, rules in SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver(whole, _INTEGER, list("-+0123456789"))
    Loader.add_implicit_resolver(decimal, _FLOAT, list("-+.0123456789"))
    Loader.add_constructor(whole, _integer)
    return Loader


def _integer(loader: Any, node: Any) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    return int(text, 0 if text.lstrip("-+")[1:2] in ("b", "o", "x") else 10)


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
    sizes[node] = 1 + sum(_check_node(part, construct, sizes) for part in parts)
    if sizes[node] > YAML_REPEATED + len(sizes):
        raise _wrong(node, f"aliases repeat more than {YAML_REPEATED:,} values")
    return sizes[node]


def _check_keys(node: Any, construct: Callable[[Any], Any]) -> None:
    lines: dict[Any, int] = {}
    for key, _ in node.value:
        if key.id == "scalar":
            no_value = key.tag.endswith((":merge", ":value"))  # the keys << and =
            name = key.value if no_value else construct(key)
            if name in lines:
                raise _wrong(key, f"the key {key.value!r} is already in line {lines[name]}")
            lines[name] = key.start_mark.line + 1
