"""The inputs of a task's stages that DVC does not track: resolved settings, and hashes of files and code wherever they are.

The inputs stage runs at every `dvc repro` and writes them to stamps/<task>/inputs.json. Later stages depend on their part of that file, so a
change re-runs what it affects: source files of a task, user-defined code, the weights of a teacher, files of word vectors.
"""

import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline import plugins
from pipeline.errors import InputError
from pipeline.params.augment import Rule
from pipeline.params.project import Settings
from pipeline.params.students import Student
from pipeline.params.teachers import TeacherModel
from pipeline.params.text import Source, Text, exists, is_pattern, parts_of
from pipeline.places.place import Place, place_of
from pipeline.places.remote import Remote, RemoteError
from pipeline.storage import read_json, sha256_of, write_json

logger = logging.getLogger(__name__)

MODEL_FILES = ("config.json", "*token*.json", "vocab.json", "*.index.json", "*.safetensors", "*.txt", "*.model")
"""The files of a model's folder that transformers reads."""

CODE = "in pipeline/"
"""Recorded instead of a hash for code of this library, which DVC tracks."""

ABSENT = "absent"
"""Recorded instead of a hash for a file that is missing on the machine that prepares the task."""

UNLABELLED, OTHERWISE = "unlabelled/", "otherwise/"
"""The keys of the files of unlabelled text and of `otherwise` next to those of the source: paths that no file has."""

OFF = "off"
"""Recorded for a teacher or student that the task does not use."""


class Hashes:
    """SHA-256 of files, computed again only where size, modification time or inode has changed.

    :param memory: The file that keeps them from one run to the next; nothing is kept where None.
    """

    def __init__(self, memory: Path | None = None) -> None:
        self._memory = memory
        self._known: dict[str, list[Any]] = {}
        if memory is not None and memory.is_file():
            self._known = read_mapping(memory)

    def of(self, path: Path) -> str | None:
        """Return the SHA-256 of a file, in hex; None where there is no such file."""
        try:
            if not path.is_file():
                return None
        except OSError:  # no file can have this name: it is too long, for one
            return None
        stat, key = path.stat(), str(path.resolve())
        state = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        known = self._known.get(key)
        if not isinstance(known, list) or known[:3] != state:
            self._known[key] = [*state, sha256_of(path)]
        return str(self._known[key][3])

    def save(self) -> None:
        """Keep the hashes for the next run."""
        if self._memory is not None:
            write_json(self._memory, self._known)


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a JSON file that can be computed again: a damaged one (killed writer, merge conflict) counts as empty."""
    try:
        found = read_json(path)
    except FileNotFoundError:
        return {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        logger.warning("%s: not a JSON mapping; it is written again", path)
        return {}
    return found


def inputs(settings: Settings, hashes: Hashes, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the stages of a task depend on, by section.

    :param before: What this returned the last time. Where something is not on this machine (the teacher, in the clone of somebody who only
        trains students), its recorded value is kept.
    :return: As JSON: `text` (source files), `tagger`, `rules` (settings, code, files that parameters name; a list, since their order
        counts), and by name `teachers` (settings, weights or code), `labelling` (settings), `vectors` (files), `gather` (settings) and
        `students` (settings, code); OFF for those that the task does not use. Settings are those of params.yaml with the task's overrides and all defaults, as a hash.
    :raises InputError: If user-defined code is not valid Python.
    """
    students = settings.students
    prepares = (Path("data") / settings.name / "examples").is_dir()  # not a clone that only trains students
    teachers = {
        name: {"settings": _digest(teacher.model), **_teacher(teacher.model, hashes)}
        for name, teacher in settings.teachers.items()
    }
    teachers = _kept(teachers, before.get("teachers"))
    found: dict[str, Any] = {
        "text": _text(settings.task.text, hashes, prepares),
        "tagger": _tagger(settings.tag.tagger, hashes),
        "rules": [_rule(rule, hashes) for rule in settings.augment.rules.values()],
        "teachers": teachers,
        "labelling": {name: _digest(teacher.label) for name, teacher in settings.teachers.items()},
        "vectors": {name: _vectors(vectors.source, hashes, teachers) for name, vectors in settings.vectors.items()},
        "gather": {name: _gathered(student) for name, student in students.items()},
        "students": {
            name: {"settings": _digest(student), "code": code(student.model)} for name, student in students.items()
        },
    }
    for kind, _, name in (key.partition(".") for key in settings.off):  # DVC requires every key
        if kind == "teachers":  # what is recorded of it stays, for a machine without its weights
            earlier = _mapping(_mapping(before.get("teachers")).get(name))
            found["teachers"][name] = {**earlier, OFF: True}
            found["labelling"][name] = OFF
        else:
            found["gather"][name] = OFF
            found["students"][name] = {"settings": OFF, "code": OFF}
    return {section: _kept(value, before.get(section)) for section, value in found.items()}


def code(path: str) -> str:
    """Return the hash of the code behind an import path, or CODE; InputError if there is no such module, or it is not valid Python."""
    return plugins.code_digest(path) or CODE


def _rule(rule: Rule, hashes: Hashes) -> dict[str, Any]:
    files: dict[str, Any] = {}
    for value in rule.params.values():
        if isinstance(value, str):
            folder = Path(value)
            files[value] = _weights(folder, hashes) if (folder / "config.json").is_file() else hashes.of(folder)
    return {"settings": _digest(rule), "code": code(rule.rule), "files": files}


def _kept(found: Any, before: Any) -> Any:
    """Return what was found, with the earlier value where there is none now."""
    if isinstance(found, list) and isinstance(before, list) and len(found) == len(before):
        return [_kept(value, earlier) for value, earlier in zip(found, before, strict=True)]
    if isinstance(found, Mapping):
        earlier = _mapping(before)
        return {key: _kept(value, earlier.get(key)) for key, value in found.items()}
    return before if found is None else found


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _gathered(student: Student) -> str:
    confidence = [student.min_confidence] if student.min_confidence else []
    return _digest([list(student.teachers.items()), student.average, student.rows, *confidence])


def _text(text: Text, hashes: Hashes, prepares: bool) -> dict[str, Any]:
    """Hash the files of a task's source, and under UNLABELLED those of its unlabelled text."""
    found = _source(text.source, hashes, prepares)
    if text.unlabelled is None:
        return found
    files: dict[str, Any] = {}
    for source in text.unlabelled.sources():
        files |= _source(source, hashes, prepares)
    return found | {UNLABELLED: files}


def _source(source: Source, hashes: Hashes, prepares: bool) -> dict[str, Any]:
    """Hash the files of a source. With `otherwise`, the existence of the files counts too: it decides which of the two is read."""
    given = source.files if source.package is None else source.path
    if source.logits is not None and source.logits.startswith("folder:"):
        given = f"{source.logits.removeprefix('folder:')}/manifest.json"
    names = [given] if isinstance(given, str) else (given or {}).values()
    missing = ABSENT if source.otherwise is not None and prepares else None
    found: dict[str, Any] = {}
    for name in names:
        folders = [] if source.package is None else plugins.folders_of(source.package)
        places = [place_of(name)] if source.package is None else [folder / name for folder in folders]
        key = places[0].as_posix() if source.package is None else Path(name).as_posix()
        try:
            there = next((place for place in places if exists(place)), None)
            found[key] = missing if there is None else _content(there, hashes, source.sha256 is not None)
        except RemoteError as error:  # a machine that only trains students may have no access
            logger.warning("%s; what is recorded of it is kept", error)
            found[key] = None
    return found if source.otherwise is None else found | {OTHERWISE: _source(source.otherwise, hashes, prepares)}


def _content(place: Place, hashes: Hashes, pinned: bool) -> Any:
    """Hash a file, or each file of a folder or pattern.

    :param pinned: Whether the settings have the SHA-256.
    """
    if not place.is_file():
        whole = is_pattern(place)  # it can match files of several folders
        parts = parts_of(place)
        return {part.as_posix() if whole else part.name: _content(part, hashes, pinned) for part in parts}
    return _version(place, pinned) if isinstance(place, Remote) else hashes.of(place)


def _version(place: Remote, pinned: bool) -> str | None:
    """Return what the file system states of a file behind a URL: stages run again where it changes, and nobody reads 100 GB for a hash."""
    found = place.version()
    if found is None and not pinned:
        raise InputError(
            f"{place}: the server states neither an ETag nor a date, so a change would go unnoticed; write its SHA-256 "
            "beside it, under sha256"
        )
    return found


def _teacher(model: TeacherModel, hashes: Hashes) -> dict[str, Any]:
    kind, _, place = model.source.partition(":")
    if kind == "python":
        files = {name: hashes.of(Path(name)) for name in model.files}
        return {"code": code(place), "files": files, "fingerprint": _fingerprint(place, model.params)}
    folder = Path(place) if kind == "folder" else None
    if kind == "package":
        package, _, inside = place.partition(":")
        folder = next((found / inside for found in plugins.folders_of(package)), None)
    if folder is None:
        return {}  # a Hub's revision is pinned
    return {"weights": _weights(folder, hashes)}


def _weights(folder: Path, hashes: Hashes) -> dict[str, str | None] | None:
    """Hash the files of a model; None where the small files alone are there, which may be in Git."""
    if not any(folder.glob("*.safetensors")):
        return None
    paths = sorted({path for glob in MODEL_FILES for path in folder.glob(glob)}, key=Path.as_posix)
    return {path.relative_to(folder).as_posix(): hashes.of(path) for path in paths}


def _fingerprint(path: str, params: Mapping[str, Any]) -> str | None:
    """Return the attribute `fingerprint` of a `python:` teacher. It is built only if the word occurs in its code, which can take long."""
    module = path.partition(":")[0]
    if not any(b"fingerprint" in file.read_bytes() for file in plugins.source_files(module).values()):
        return ""
    try:
        return str(getattr(plugins.build(path, params), "fingerprint", ""))
    except (Exception, SystemExit) as error:  # on a machine that only trains students, the class may not find its files
        logger.warning("%s: cannot be built here (%s); its recorded fingerprint is kept", path, error)
        return None


def _tagger(tagger: str, hashes: Hashes) -> dict[str, Any]:
    kind, _, name = tagger.partition(":")
    if name.startswith("blank:"):
        packages = ("spacy", "jieba", "sudachipy", "pythainlp")
        absent = ABSENT if find_spec("spacy") else None  # a machine without spaCy does not tag: what is recorded stays
        return {found: importlib.metadata.version(found) if find_spec(found) else absent for found in packages}
    if kind == "spacy":
        return _package(name, hashes, "**/meta.json")
    return {"version": importlib.metadata.version(kind) if find_spec(kind) else None}


def _vectors(source: str, hashes: Hashes, teachers: Mapping[str, Any]) -> dict[str, Any]:
    kind, _, place = source.partition(":")
    if kind in ("word2vec", "text"):
        return {place: hashes.of(Path(place))}
    if kind == "teacher":
        return {"teacher": _digest(teachers.get(place))}
    return _package(place, hashes, "**/meta.json", "**/vocab/*")


def _package(name: str, hashes: Hashes, *globs: str) -> dict[str, Any]:
    """Hash files of an installed spaCy pipeline."""
    folders = plugins.folders_of(name)
    found = {path for folder in folders for glob in globs for path in folder.glob(glob) if path.is_file()}
    paths = sorted(found, key=Path.as_posix)
    return {"package": _digest([hashes.of(path) for path in paths]) if paths else None}


def _digest(value: Any) -> str:
    """Return the SHA-256 of a block of settings with its defaults, or of anything that JSON holds."""
    given = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()
