"""Sets up a project in a folder, which may be a Git repository with other files. No existing file is overwritten."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError, not_installed
from pipeline.params import project
from pipeline.params.names import check_names, checked, suggested
from pipeline.params.reading import read_yaml
from pipeline.setting_up import code, own_task
from pipeline.setting_up.bundle import bundle
from pipeline.setting_up.graph import CODE, GRAPHS, for_project
from pipeline.setting_up.own_task import Given
from pipeline.storage import write_json, write_text

EXAMPLE = "example"
REQUIREMENTS = "requirements-example.lock"
"""The packages of the example: its text, teacher, tagger and word vectors."""
TEMPLATES = ".dvc/plots"
"""The plot templates of DVC that dvc.yaml files name."""


@dataclass(frozen=True)
class Made:
    """What `init` did."""

    written: list[str]
    """The files that are new, or have new lines, relative to the folder."""
    summary: str
    """What the task's files hold, and what was done in addition to writing files."""
    commands: list[str]
    """What to run next, in the folder."""


def init(folder: Path, task: str | None = None, given: Given | None = None) -> Made:
    """Set up a project, or add a task to an existing one. Nothing is written if there is an error.

    :param task: Its name; None for that of the folder, or, without files, for the example.
    :param given: The files of the task; None for one of the tasks that come with the package.
    :raises InputError: If a file exists with other content, a file of text cannot be read, or DVC is not installed.
    """
    name = _name(task or (EXAMPLE if given is None else suggested(folder.resolve().name)))
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a file, not a folder; name a folder for the project")
    if (folder / CODE).is_file():
        return _add_task(folder, name, given)
    if given is None:
        files = _bundled(name)
        summary, commands, weights = f"the task {name}, which comes with the package", [], []
    else:
        found = own_task.read(given, folder)
        teacher = own_task.teacher_of(given, folder)
        params = own_task.params_file(name, found, teacher)
        files = {"params.yaml": params, f"tasks/{name}.yaml": own_task.task_file(found)}
        files["ablation/params.yaml"] = _ablation_of(params)
        summary, commands, weights = f"{name}: {found}", _about_teacher(given), _weights(folder, teacher)
    if REQUIREMENTS in files:
        commands.append(f"python -m pip install --require-hashes --no-deps --requirement {REQUIREMENTS}")
    files |= {file: for_project(file) for file in GRAPHS}
    files |= {f"{TEMPLATES}/{path.name}": _text(path) for path in sorted((bundle() / TEMPLATES).glob("*.json"))}
    new = _new(folder, files)
    staged = "\nDVC has staged its files in .dvc/ and .dvcignore in Git" if _init_dvc(folder) else ""
    for file in new:
        write_text(folder / file, files[file])
    lines = {".gitignore": _ignored(name) + weights, ".dvcignore": _text(bundle() / ".dvcignore").split()}
    extended = [file for file, wanted in lines.items() if _append(folder / file, wanted)]
    write_json(folder / CODE, code.recorded())
    commands += ["offline-distill check", "offline-distill repro"]
    return Made([*new, *extended, CODE.as_posix()], f"{summary}{staged}", commands)


def _name(task: str) -> str:
    try:
        check_names("tasks", [checked(task)])
    except ValueError as error:
        raise InputError(f"--task: {task!r}: {error}") from None
    return task


def _bundled(task: str) -> dict[str, str]:
    """Return the settings of one of the tasks that come with the package."""
    paths = sorted((bundle() / "tasks").glob("*.yaml"), key=lambda path: path.stem)
    there = {path.stem: path for path in paths}
    if task not in there:
        raise InputError(f"--task: {task!r}: without --files, the task must be one of {', '.join(there)}")
    params = _text(bundle() / "params.yaml").replace(f"tasks: [{EXAMPLE}]", f"tasks: [{task}]")
    files = {"params.yaml": params, f"tasks/{task}.yaml": _text(there[task])}
    return files | {file: _text(bundle() / file) for file in ("ablation/params.yaml", REQUIREMENTS)}


def _ablation_of(params: str) -> str:
    """Return ablation/params.yaml with the teacher and the word vectors of a params.yaml."""
    text = _text(bundle() / "ablation/params.yaml")
    text = re.sub(r"^  teacher: .*$", f"  teacher: {own_task.TEACHER}", text, flags=re.MULTILINE)
    vectors = f"  vectors: {own_task.VECTORS}\n" if f"  {own_task.VECTORS}: " in params else ""
    return re.sub(r"^  vectors: .*\n", vectors, text, flags=re.MULTILINE)


def _about_teacher(given: Given) -> list[str]:
    if given.teacher is not None:
        return []
    return [f"# write the source of your teacher under teachers.{own_task.TEACHER} in params.yaml"]


def _add_task(folder: Path, task: str, given: Given | None) -> Made:
    if given is None:
        raise InputError(
            f"{folder / CODE}: there is a project already; add a task with --task and --files, or run `offline-distill upgrade` after an "
            "upgrade of the package"
        )
    if (teacher := own_task.teacher_of(given, folder)) not in (None, *_teachers(folder)):
        raise InputError(
            f"--teacher: params.yaml has no teacher with the source {teacher}; add it there, under teachers"
        )
    found = own_task.read(given, folder)
    files = {f"tasks/{task}.yaml": own_task.task_file(found)}
    new = _new(folder, files)
    for file in new:
        write_text(folder / file, files[file])
    extended = [".gitignore"] if _append(folder / ".gitignore", _ignored(task)) else []
    commands = ["offline-distill check", "offline-distill repro"]
    if task not in _active_tasks(folder):
        commands.insert(0, f"# add {task} to the list `tasks` in params.yaml")
    return Made([*new, *extended], f"{task}: {found}", commands)


def _active_tasks(folder: Path) -> list[str]:
    try:
        return list(project.active_tasks(folder))
    except InputError:  # `check` reports it
        return []


def _teachers(folder: Path) -> list[str]:
    """Return the sources of the teachers in params.yaml."""
    teachers = read_yaml(folder / "params.yaml").get("teachers")
    blocks = teachers.values() if isinstance(teachers, dict) else ()
    models = [block.get("model") for block in blocks if isinstance(block, dict)]
    return [str(model.get("source")) for model in models if isinstance(model, dict)]


# --- files ----------------------------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _new(folder: Path, files: Mapping[str, str]) -> list[str]:
    """Return the files that are not there.

    :raises InputError: If one is there with other content.
    """
    for file, text in files.items():
        path = folder / file
        if path.is_dir() or (path.is_file() and path.read_text(encoding="utf-8", errors="replace") != text):
            raise InputError(
                f"{path}: exists with other content and is not overwritten; move it away, or choose another folder"
            )
    return [file for file in files if not (folder / file).is_file()]


def _ignored(task: str) -> list[str]:
    """Return the lines of .gitignore for the outputs of a task. DVC removes its own lines after a failed run."""
    return ["*.tmp-*", f"/data/{task}/", "/data/labelled/"]


def _weights(folder: Path, teacher: str | None) -> list[str]:
    """Return the lines of .gitignore for the weights of a teacher inside the project, which are too large for Git."""
    kind, _, place = (teacher or "").partition(":")
    relative = not Path(place).is_absolute() and ".." not in Path(place).parts
    inside = kind == "folder" and relative and (folder / place).is_dir()
    return [f"/{Path(place).as_posix()}/"] if inside else []


def _append(path: Path, lines: Sequence[str]) -> bool:
    """Add the lines that a file does not have; return whether there were any."""
    text = _text(path) if path.is_file() else ""
    missing = [line for line in lines if line not in text.splitlines()]
    if missing:
        write_text(
            path, text + ("\n" if text and not text.endswith("\n") else "") + "".join(f"{line}\n" for line in missing)
        )
    return bool(missing)


# --- DVC ------------------------------------------------------------------------------------------------------------------


def _init_dvc(folder: Path) -> bool:
    """Run `dvc init` where it has not run: in a Git repository, in a folder of one, or without Git. Return whether Git has new files of it."""
    try:
        from dvc.exceptions import DvcException
        from dvc.repo import Repo
    except ModuleNotFoundError as error:
        raise InputError(not_installed("dvc", "init")) from error
    if (folder / ".dvc" / "config").is_file():
        return False
    logging.getLogger("dvc").setLevel(logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    place = folder.resolve()
    git = own_task.repository_of(place)
    try:
        with (
            Repo.init(str(place), no_scm=git is None, subdir=git not in (None, place)) as repo,
            repo.config.edit("repo") as config,
        ):
            config["core"]["analytics"] = (
                False  # DVC asks nobody: its command line only prints that it sends statistics
            )
    except DvcException as error:
        raise InputError(f"{folder}: DVC: {' '.join(str(error).split())}") from error
    return git is not None
