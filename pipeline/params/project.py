"""Reads params.yaml and tasks/*.yaml into one frozen model. Every error is one line (see `reading`)."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from pipeline.errors import InputError
from pipeline.params.augment import Augment
from pipeline.params.base import Model, Tasks
from pipeline.params.labelling import Labelling
from pipeline.params.names import Name, check_names, check_pairs, check_task_file, checked, composed
from pipeline.params.reading import OVERRIDES, SettingsError, collected
from pipeline.params.reading import read_yaml as read_yaml
from pipeline.params.reading import validated as validated
from pipeline.params.seeds import base_of
from pipeline.params.students import Student
from pipeline.params.tag import Tag
from pipeline.params.teachers import TeacherModel
from pipeline.params.text import Text
from pipeline.params.vectors import Vectors


class Teacher(Model):
    """A sequence classifier of transformers, or an encoder that the finetune stage turns into one."""

    model: TeacherModel
    """The weights, and how they are fine-tuned. A change makes a new teacher."""
    # Required: DVC tracks the key.
    label: Labelling
    """How it labels; `{}` for the defaults. A change labels again."""
    tasks: Tasks | None = None
    """The tasks that it labels; absent: every task."""


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
    """The question that the labels answer, shown in the report."""
    metrics: list[Metric] = Field(["accuracy"], min_length=1)
    """The metrics of the result table: `accuracy`, `f1` (with two classes that of the last one, otherwise macro F1), `f1:NAME` (that of a class).
    Students are chosen and ranked by accuracy. A regression has its own metrics."""
    text: Text
    """Its text and labels. A change runs all stages again."""
    tag: dict[str, Any]
    """Overrides of `tag` in params.yaml for this task; `{}` for none."""
    augment: dict[str, Any]
    """Overrides of `augment` in params.yaml for this task; `{}` for none."""
    teachers: dict[str, Any]
    """Overrides of `teachers`, by name; `NAME: null` leaves one out of this task."""
    vectors: dict[str, Any]
    """Overrides of `vectors`, by name; `{}` for none."""
    students: dict[str, Any]
    """Overrides of `students`, by name; `NAME: null` leaves one out of this task."""

    @model_validator(mode="after")
    def _metrics_are_of_classes(self) -> Self:
        for metric in self.metrics:
            _, is_of_class, name = metric.partition(":")
            if is_of_class and self.text.is_regression:
                raise ValueError(f"metrics: {metric!r}: a task of one label is a regression, which has no classes")
            if is_of_class:
                _check_name(f"metrics: {metric!r}: text.labels has no class", name, self.text.labels)
        return self

    @model_validator(mode="after")
    def _splits_exist(self) -> Self:
        if problem := self.text.source_problem():
            raise ValueError(problem)
        return self


class _Blocks(Model):
    tag: Tag
    """How text is split into words with part-of-speech tags."""
    augment: Augment
    """The rules and the number of copies."""
    teachers: dict[Name, Teacher] = Field(min_length=1)
    """The teachers, by name."""
    vectors: dict[Name, Vectors] = Field({})
    """The sources of word vectors, by name."""
    students: dict[Name, Student] = Field(min_length=1)
    """The students, by name."""

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
    """The active tasks: the names of files in `tasks/`. `dvc repro` runs each with every teacher and every student."""

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


def active_tasks(folder: Path = Path()) -> list[str]:
    """Return the names of the tasks that `dvc repro` runs: the key `tasks` of params.yaml.

    :raises InputError: If params.yaml cannot be read, or the key is not a list of one or more names.
    """
    path = folder / "params.yaml"
    return validated(_ActiveTasks, read_yaml(path), path).tasks


def load(task: str, folder: Path = Path()) -> Settings:
    """Read params.yaml and the task's file, check both, and apply the task's overrides.

    :param folder: The project's folder, with params.yaml and tasks/<task>.yaml.
    :raises SettingsError: For any error in either file, before any work is done.
    """
    params_path, task_path = folder / "params.yaml", folder / "tasks" / f"{task}.yaml"
    problems: list[str] = []
    with collected(problems):
        params = read_yaml(params_path)
        defined = validated(_ParamsFile, params, params_path)
    with collected(problems):
        _check_task(task, task_path)
        overrides = read_yaml(task_path)
        checked = validated(Task, overrides, task_path)
    if problems:
        raise SettingsError(problems)
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
            ("min_confidence", student.min_confidence, 0.0),
            ("teacher.average", student.average, "logits"),
        ):
            if value != only:
                raise InputError(
                    f"{path}: students.{name}.{key}: {value!r}: a task of one label is a regression; set it to {only!r}"
                )


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
