"""What a task's stages depend on and DVC does not see by itself: resolved settings, and hashes of files and code wherever they are.

The inputs stage runs at every `dvc repro` and writes this as stamps/<task>/inputs.json. Later stages depend on their part of it, so a change
outside DVC's sight re-runs what it affects: the source files of a task, code of the user's own, a teacher's weights, files of word vectors.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline import plugins
from pipeline.params.project import Settings
from pipeline.params.teachers import TeacherModel
from pipeline.params.text import Source
from pipeline.storage import read_json, sha256_of, write_json

logger = logging.getLogger(__name__)

MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
"""The files of a model's folder that transformers reads."""

CODE = "in pipeline/"
"""In the place of a hash: code of this library, which DVC watches."""


class Hashes:
    """SHA-256 of files, computed again only where size, modification time or inode has changed.

    :param memory: The file that keeps them from one run to the next; nothing is kept where None.
    """

    def __init__(self, memory: Path | None = None) -> None:
        self._memory = memory
        self._known: dict[str, list[Any]] = {}
        if memory is not None and memory.is_file():
            try:
                self._known = dict(read_json(memory))
            except ValueError:  # written by a process that was killed: it costs time and nothing else
                logger.info("%s: not valid JSON; files are hashed again", memory)

    def of(self, path: Path) -> str | None:
        """Return the SHA-256 of a file, in hex; None where there is no such file."""
        if not path.is_file():
            return None
        stat, key = path.stat(), str(path.resolve())
        state = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        if self._known.get(key, [])[:3] != state:
            self._known[key] = [*state, sha256_of(path)]
        return str(self._known[key][3])

    def save(self) -> None:
        """Keep the hashes for the next run."""
        if self._memory is not None:
            write_json(self._memory, self._known)


def inputs(settings: Settings, hashes: Hashes, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the stages of a task depend on, by section.

    :param before: What this returned the last time. Where something is not on this machine (the teacher, in the clone of somebody who only
        trains students), its recorded value is kept.
    :return: As JSON: `text` (source files), `tagger`, `rules` (code), `teachers` (settings, weights or code), `labelling` (settings), `vectors`
        (files), `gather` (settings) and `students` (settings, code), the last five by name. Settings are those of params.yaml with the task's
        overrides and all defaults, as a hash.
    :raises InputError: If code of the user's own is not valid Python.
    """
    students = settings.students
    found = {
        "text": _source(settings.task.text.source, hashes),
        "tagger": _tagger(settings.tag.tagger, hashes),
        "rules": {name: code(rule.rule) for name, rule in settings.augment.rules.items()},
        "teachers": {
            name: {"settings": _digest(teacher.model), **_teacher(teacher.model, hashes)}
            for name, teacher in settings.teachers.items()
        },
        "labelling": {name: _digest(teacher.label) for name, teacher in settings.teachers.items()},
        "vectors": {name: _vectors(vectors.source, hashes) for name, vectors in settings.vectors.items()},
        "gather": {
            name: _digest([student.teachers, student.average, student.rows]) for name, student in students.items()
        },
        "students": {
            name: {"settings": _digest(student), "code": code(student.model)} for name, student in students.items()
        },
    }
    return {section: _kept(value, before.get(section)) for section, value in found.items()}


def code(path: str) -> str:
    """Return the hash of the code behind an import path, or CODE; InputError if there is no such module, or it is not valid Python."""
    return plugins.code_digest(path) or CODE


def _kept(found: Any, before: Any) -> Any:
    """Return what was found, with the earlier value where there is none now."""
    if isinstance(found, Mapping):
        earlier = before if isinstance(before, Mapping) else {}
        return {key: _kept(value, earlier.get(key)) for key, value in found.items()}
    return before if found is None else found


def _source(source: Source, hashes: Hashes) -> dict[str, Any]:
    """Hash the files of a source. Which of `files` and `otherwise` is read follows from what is there, so both count."""
    given = source.files if source.package is None else source.path
    if source.logits is not None and source.logits.startswith("folder:"):
        given = f"{source.logits.removeprefix('folder:')}/manifest.json"
    names = [given] if isinstance(given, str) else (given or {}).values()
    folders = [Path()] if source.package is None else plugins.folders_of(source.package)[:1]
    found: dict[str, Any] = {Path(name).as_posix(): hashes.of(folder / name) for folder in folders for name in names}
    return found if source.otherwise is None else found | {"otherwise": _source(source.otherwise, hashes)}


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
    paths = sorted(path for glob in MODEL_FILES for path in folder.glob(glob))
    return {"weights": {path.relative_to(folder).as_posix(): hashes.of(path) for path in paths} or None}


def _fingerprint(path: str, params: Mapping[str, Any]) -> str | None:
    """Return the attribute `fingerprint` of a teacher of the user's own. It is built only where its module's source has that word."""
    module = path.partition(":")[0]
    if not any(b"fingerprint" in file.read_bytes() for file in plugins.source_files(module).values()):
        return ""
    try:
        return str(getattr(plugins.build(path, params), "fingerprint", ""))
    except Exception as error:  # on a machine that only trains students, the user's class may not find its files
        logger.warning("%s: cannot be built here (%s); its recorded fingerprint is kept", path, error)
        return None


def _tagger(tagger: str, hashes: Hashes) -> dict[str, Any]:
    kind, _, name = tagger.partition(":")
    return _package(name if kind == "spacy" else kind, hashes)


def _vectors(source: str, hashes: Hashes) -> dict[str, Any]:
    kind, _, place = source.partition(":")
    if kind in ("word2vec", "text"):
        return {place: hashes.of(Path(place))}
    return _package(place, hashes) if kind == "spacy" else {}


def _package(name: str, hashes: Hashes) -> dict[str, Any]:
    """Hash what a spaCy pipeline says about itself, its version among it."""
    metas = [path for folder in plugins.folders_of(name) for path in sorted(folder.glob("**/meta.json"))]
    return {"meta": None if not metas else _digest([hashes.of(path) for path in metas])}


def _digest(value: Any) -> str:
    """Return the SHA-256 of a block of settings with its defaults, or of anything that JSON holds."""
    given = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()
