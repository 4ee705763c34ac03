"""The files of a student's folder, read and checked with the standard library alone, so that serving needs neither torch nor pyarrow."""

from collections.abc import Callable, Iterable, Mapping, Set
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.storage import read_json, sha256_of

CONFIG, VOCABULARY, WEIGHTS = "config.json", "vocabulary.json", "model.safetensors"

FORMAT = 1
"""The version of a student's folder; a reader refuses a later one."""

VOCABULARY_FORMAT = 1

PADDING, UNKNOWN, MASKED, FIRST_WORD = range(4)
"""Word ids: padding, any word outside the vocabulary, `[MASK]`, and the first word of vocabulary.json."""


def _are_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _are_hashes(value: Any) -> bool:
    return isinstance(value, dict) and all(Path(name).name == name for name in value)  # no path out of the folder


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


_VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "dimensions": (_is_positive, "a positive integer"),
    "files": (_are_hashes, "a mapping of file names to SHA-256"),
    "labels": (lambda value: bool(value) and _are_strings(value), "a list of class names"),
    "max_words": (_is_positive, "a positive integer"),
    "model": (lambda value: isinstance(value, str), "an import path, package.module:Name"),
    "pairs": (lambda value: isinstance(value, bool), "true or false"),
    "params": (lambda value: isinstance(value, dict), "a mapping of parameters"),
    "text": (lambda value: value in ("pretokenised", "raw", "characters"), "pretokenised, raw or characters"),
    "vocabulary_size": (_is_positive, "a positive integer"),
    "words": (_are_strings, "a list of words"),
}
"""What each key must hold, and its description for the error."""


def read_student_json(path: Path, version: int, keys: Set[str]) -> dict[str, Any]:
    """Read one of the JSON files of a student's folder, which must have the version as its `format`, and the keys.

    :raises InputError: If it is missing, is not JSON, has another format, lacks a key, or has a value of the wrong type.
    """
    try:
        stored = read_json(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path}: no such file; {_advice(path.parent)}") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from error
    found: dict[str, Any] = stored if isinstance(stored, dict) else {}
    if found.get("format") != version:
        other = "" if "format" in found else "; it belongs to no student: pass data/TASK/artefacts/STUDENT"
        raise InputError(f"{path}: format {found.get('format')!r}; this version reads format {version}{other}")
    if missing := sorted(keys - found.keys()):
        raise InputError(f"{path}: {', '.join(missing)}: missing")
    for key in sorted(_VALUES.keys() & found.keys()):
        fits, wanted = _VALUES[key]
        if not fits(found[key]):
            raise InputError(f"{path}: {key}: {repr(found[key])[:60]} is not {wanted}; copy the whole folder again")
    return found


def _advice(folder: Path) -> str:
    """Return what a folder without a student is, and which one to pass instead."""
    wanted = "pass a student's folder, data/TASK/artefacts/STUDENT"
    if folder.is_file():
        return f"{folder} is a file; {wanted}"
    if not folder.is_dir():
        return f"there is no folder {folder}; {wanted}"
    configs = [path for glob in ("*", "artefacts/*") for path in sorted(folder.glob(f"{glob}/{CONFIG}"))]
    inside = [path.parent for path in configs if _is_student(path)]  # a teacher has a config.json, too
    if inside:
        return f"{folder} has students in it; pass one of them: {', '.join(map(str, inside[:5]))}"
    kinds = {"manifest.json": "logit data set", "teacher.json": "teacher's folder"}
    kind = next((f" {folder} is a {kind};" for file, kind in kinds.items() if (folder / file).is_file()), "")
    return f"a student's folder holds one (`dvc repro` makes it);{kind} {wanted}"


def _is_student(config: Path) -> bool:
    try:
        found = read_json(config)
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("format") == FORMAT


def hashes_of(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the value of `files` in config.json: the SHA-256 of each file, in hex, by name."""
    return {name: sha256_of(folder / name) for name in sorted(names)}


def check_files(folder: Path, config: Mapping[str, Any], names: Iterable[str]) -> None:
    """Check that files of a student's folder exist and match the hashes in its config.json.

    :param config: Its config.json. Versions before 2026-11-24 wrote no `files`; without them, the content is not checked.
    :raises InputError: If one is missing or altered.
    """
    hashes = config.get("files", {})
    for name in names:
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path}: no such file; a student's folder holds one")
        if name in hashes and sha256_of(path) != hashes[name]:
            raise InputError(
                f"{path}: altered: its sha256 is not the one in config.json; copy the whole folder again, or rebuild it "
                "with `dvc repro`"
            )
