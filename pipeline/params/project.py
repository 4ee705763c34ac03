"""Reads params.yaml and tasks/*.yaml into one frozen model. Every error is one line with the file, the key, the value and the reason."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from pipeline.errors import InputError
from pipeline.params.augment import Augment
from pipeline.params.base import Model, Tasks
from pipeline.params.labelling import Labelling
from pipeline.params.names import Name, check_names, check_pairs, check_task_file, checked, composed
from pipeline.params.seeds import base_of
from pipeline.params.students import Student
from pipeline.params.tag import Tag
from pipeline.params.teachers import TeacherModel
from pipeline.params.text import Text
from pipeline.params.vectors import Vectors
from pipeline.storage import YamlError, load_yaml


class Teacher(Model):
    """A sequence classifier of transformers, or an encoder that the finetune stage turns into one."""

    model: TeacherModel
    label: Labelling  # required, `{}` for the defaults: DVC tracks the key
    tasks: Tasks | None = None  # the tasks that it labels; absent: every task


def _check_metric(value: Any) -> Any:
    if isinstance(value, Mapping) and len(value) == 1:
        key, name = next(iter(value.items()))
        raise ValueError(f"write it without a space: {key}:{name}")
    if value not in ("accuracy", "f1") and not str(value).startswith("f1:"):
        raise ValueError("must be accuracy, f1, or f1: and a class name, such as f1:positive")
    return value


Metric = Annotated[str, BeforeValidator(_check_metric)]


class Task(Model):
    """tasks/<name>.yaml. The five overrides are required, `{}` if empty: DVC tracks each key."""

    description: str
    # The metrics of the result table: accuracy, f1 (with two classes that of the last one, otherwise macro F1), f1:NAME (that of a class).
    # Students are chosen and ranked by accuracy. A regression has its own metrics.
    metrics: list[Metric] = Field(["accuracy"], min_length=1)
    text: Text
    tag: dict[str, Any]
    augment: dict[str, Any]
    teachers: dict[str, Any]
    vectors: dict[str, Any]
    students: dict[str, Any]

    @model_validator(mode="after")
    def _metrics_are_of_classes(self) -> Self:
        for metric in self.metrics:
            _, is_of_class, name = metric.partition(":")
            if is_of_class and self.text.is_regression:
                raise ValueError(f"metrics: {metric!r}: a task of one label is a regression, which has no classes")
            if is_of_class:
                _check_name(f"metrics: {metric!r}: text.labels has no class", name, self.text.labels)
        return self


class _Blocks(Model):
    tag: Tag
    augment: Augment
    teachers: dict[Name, Teacher] = Field(min_length=1)
    vectors: dict[Name, Vectors] = Field({})
    students: dict[Name, Student] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for name, vectors in self.vectors.items():
            kind, _, teacher = vectors.source.partition(":")
            if kind == "teacher":
                _check_name(f"vectors.{name}.source: there is no teacher", teacher, self.teachers)
        for name, student in self.students.items():
            for teacher in student.teachers:
                _check_name(f"students.{name}.teacher: there is no teacher", teacher, self.teachers)
            if student.vectors is not None:
                _check_name(f"students.{name}.vectors: there are no vectors", student.vectors, self.vectors)
        return self


def _check_name(problem: str, name: str, there: Collection[str], error: type[Exception] = ValueError) -> None:
    if name not in there:
        form = ", the same in another Unicode form" if composed(name) in there else ""
        raise error(f"{problem} {name!r} (there are {', '.join(there) or 'none'}{form})")


class Settings(_Blocks):
    """All settings of one task: params.yaml with the task's overrides applied."""

    name: str
    task: Task
    off: dict[str, str] = Field({})
    """The teachers and students that the task does not use, as teachers.NAME or students.NAME, each with the reason."""

    def teacher(self, name: str) -> Teacher:
        """Return a teacher by its name; InputError if the task has no teacher of this name."""
        self._check("teachers", name, self.teachers)
        return self.teachers[name]

    def student(self, name: str) -> Student:
        """Return a student by its name; InputError if the task has no student of this name."""
        self._check("students", name, self.students)
        return self.students[name]

    def _check(self, kind: str, name: str, there: Collection[str]) -> None:
        if why := self.off.get(f"{kind}.{name}"):
            raise InputError(f"{name!r} is not used in the task {self.name}: {why}")
        _check_name(f"params.yaml: {kind}: there is no", name, there, InputError)

    @property
    def rules_file(self) -> str:
        """The file that sets augment.rules: the task's if it overrides a rule, else params.yaml."""
        return f"tasks/{self.name}.yaml" if "rules" in self.task.augment else "params.yaml"


class _ActiveTasks(BaseModel):
    tasks: list[Name] = Field(min_length=1)

    @model_validator(mode="after")
    def _tasks_have_their_own_folders(self) -> Self:
        check_names("tasks", self.tasks)
        return self


class _ParamsFile(_Blocks, _ActiveTasks):
    @model_validator(mode="after")
    def _names_have_their_own_folders_and_stages(self) -> Self:
        for kind, names in (("teachers", self.teachers), ("vectors", self.vectors), ("students", self.students)):
            check_names(kind, names)
            if kind != "vectors":
                check_pairs(self.tasks, kind, names)
        return self


OVERRIDES = ("tag", "augment", "teachers", "vectors", "students")
SHOWN = 200
"""Characters of a wrong value in a message."""
M = TypeVar("M", bound=BaseModel)


def active_tasks(folder: Path = Path()) -> list[str]:
    """Return the names of the tasks that `dvc repro` runs: the key `tasks` of params.yaml.

    :raises InputError: If params.yaml cannot be read, or the key is not a list of one or more names.
    """
    path = folder / "params.yaml"
    return validated(_ActiveTasks, read_yaml(path), path).tasks


def load(task: str, folder: Path = Path()) -> Settings:
    """Read params.yaml and the task's file, check both, and apply the task's overrides.

    :param folder: The project's folder, with params.yaml and tasks/<task>.yaml.
    :raises InputError: For any error in either file, before any work is done.
    """
    params_path, task_path = folder / "params.yaml", folder / "tasks" / f"{task}.yaml"
    params = read_yaml(params_path)
    defined = validated(_ParamsFile, params, params_path)
    _check_task(task, task_path)
    overrides = read_yaml(task_path)
    checked = validated(Task, overrides, task_path)
    overrides["students"] = _for_each_seed(overrides["students"], params["students"])
    for key in ("teachers", "students"):  # dvc.yaml has a stage for each of those in params.yaml alone
        for name in overrides[key]:
            _check_name(f"{task_path}: {key}: params.yaml does not define", name, params[key], InputError)
    off = _off(task, defined, overrides, task_path)
    merged = {key: _overlay(params.get(key, {}), overrides[key]) for key in OVERRIDES}
    settings = _without(off, validated(Settings, {"name": task, "task": checked, **merged}, task_path), task_path)
    if checked.text.is_regression:
        _check_regression(settings.students, task_path)
    return settings


def _off(task: str, defined: _Blocks, overrides: dict[str, Any], path: Path) -> dict[str, str]:
    """Return the teachers and students that a task does not use, as in `Settings.off`. Where the task's file has null, {} is left.

    :param overrides: The content of the task's file.
    :raises InputError: If a key `tasks` is in the task's file, or names a task without a file.
    """
    found, there = {}, sorted(file.stem for file in path.parent.glob("*.yaml"))
    blocks = {f"teachers.{name}": block.tasks for name, block in defined.teachers.items()}
    blocks |= {f"students.{name}": block.tasks for name, block in defined.students.items()}
    for key, tasks in blocks.items():
        kind, _, name = key.partition(".")
        override = overrides[kind].get(name, {})
        if override is None:
            found[key] = f"{path} sets {key} to null"
            overrides[kind][name] = {}
        elif isinstance(override, Mapping) and "tasks" in override:
            raise InputError(
                f"{path}: {key}.tasks: set it in params.yaml, or write `{name}: null` here to leave it out"
            )
        for other in tasks or ():
            _check_name(f"params.yaml: {key}.tasks: there is no task", other, there, InputError)
        if tasks is not None and task not in tasks:
            found[key] = f"{key} has tasks: [{', '.join(tasks)}]"
    return found


def _without(off: dict[str, str], settings: Settings, path: Path) -> Settings:
    """Return settings without the teachers and students that are off, and without the word vectors of such teachers.

    :raises InputError: If no teacher or student is left, or a student that is left needs one of the others.
    """
    teachers = {name: teacher for name, teacher in settings.teachers.items() if f"teachers.{name}" not in off}
    students = {name: student for name, student in settings.students.items() if f"students.{name}" not in off}
    for kind, left in (("teachers", teachers), ("students", students)):
        if not left:
            reasons = "; ".join(why for key, why in off.items() if key.startswith(kind))
            raise InputError(f"{path}: {kind}: a task needs at least one; {reasons}")
    of_teacher = {name: vectors.source.partition("teacher:")[2] for name, vectors in settings.vectors.items()}
    for name, student in students.items():
        needed = {of_teacher.get(student.vectors or "", ""): "vectors"} | dict.fromkeys(student.teachers, "teacher")
        for teacher, key in needed.items():
            if why := off.get(f"teachers.{teacher}"):
                raise InputError(
                    f"{path}: students.{name}.{key}: the teacher {teacher!r} is not used in this task ({why}); write `{name}: null` under students "
                    f"in {path}, limit students.{name} by `tasks` in params.yaml, or choose another teacher"
                )
    vectors = {name: block for name, block in settings.vectors.items() if f"teachers.{of_teacher[name]}" not in off}
    return settings.model_copy(update={"teachers": teachers, "students": students, "vectors": vectors, "off": off})


def _check_task(name: str, path: Path) -> None:
    """Refuse a task's name, which may come from the command line, if it is invalid or its file has another one."""
    try:
        checked(name)
    except ValueError as error:
        raise InputError(f"{name!r}: {error}") from None
    check_task_file(path)


def _check_regression(students: Mapping[str, Student], path: Path) -> None:
    """Refuse settings that compare or average distributions over classes: a regression has no classes."""
    for name, student in students.items():
        for key, value, only in (
            ("objective.soft", student.objective.soft, "mse"),
            ("weights.confidence", student.weights.confidence, 0.0),
            ("teacher.average", student.average, "logits"),
        ):
            if value != only:
                raise InputError(
                    f"{path}: students.{name}.{key}: {value!r}: a task of one label is a regression; set it to {only!r}"
                )


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    :raises InputError: If the file cannot be read, is not valid YAML (see `storage.load_yaml`), or is not a mapping.
    """
    try:
        value = load_yaml(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except YamlError as error:
        raise InputError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: must be a mapping of keys to values")
    return value


def _for_each_seed(overrides: Mapping[str, Any], students: Collection[str]) -> dict[str, Any]:
    """Return a task's overrides of students, in which a block for NAME also applies to NAME-seed0, NAME-seed1 and so on."""
    found = dict(overrides)
    for name in students:
        base = base_of(name)
        if base is not None and base in overrides:
            found[name] = _overlay(overrides[base], overrides[name]) if name in overrides else overrides[base]
            if base not in students:
                found.pop(base, None)
    return found


def _overlay(base: Any, over: Any) -> Any:
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return over
    return {**base, **{key: _overlay(base.get(key), value) for key, value in over.items()}}


def validated(model: type[M], value: Mapping[str, Any], path: Path) -> M:
    """Return the content of a file as a model.

    :raises InputError: If it is not valid: one line with the file, the key and the value.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        message = f"{path}: {_message(error.errors()[0], value)}"
        raise InputError(message.replace("\n", r"\n")) from None


def _message(error: Mapping[str, Any], value: Mapping[str, Any]) -> str:
    key, given = _key(error["loc"], value), error["input"]
    shown = repr(given) if len(repr(given)) <= SHOWN else f"{repr(given)[:SHOWN]}..."
    if error["type"] == "missing":
        key = ".".join(map(str, error["loc"]))
        empty = f"write `{key}: {{}}` to use the values of params.yaml (DVC tracks the key)"
        return f"{key}: missing; {empty if key in OVERRIDES else 'the key is required'}"
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key (value {shown})"
    message: str = error["msg"].removeprefix("Value error, ")
    if error["type"] == "string_type" and isinstance(given, int | float):
        message += "; write it in quotes"
    if key and not isinstance(given, Mapping):
        message = f"{shown}: {message}"
    return f"{key}: {message}" if key else message


def _key(loc: Iterable[int | str], value: Any) -> str:
    """Return the key of an error, without the parts that pydantic adds for unions and for keys of mappings."""
    parts = []
    for part in loc:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            continue
        parts.append(str(part))
    return ".".join(parts)
