"""Reads params.yaml and tasks/*.yaml into one frozen model. Every error is one line (see `reading`)."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from pipeline.errors import InputError
from pipeline.params.augment import Augment
from pipeline.params.base import Model
from pipeline.params.labelling import Labelling
from pipeline.params.reading import OVERRIDES
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
    label: Labelling  # required, `{}` for the defaults: DVC tracks the key


class Task(Model):
    """tasks/<name>.yaml. The five overrides are required, `{}` if empty: DVC tracks each key."""

    description: str
    # The metrics of the result table. Students are chosen and ranked by accuracy. A regression has its own metrics.
    metrics: list[Literal["accuracy", "f1"]] = Field(["accuracy"], min_length=1)
    text: Text
    tag: dict[str, Any]
    augment: dict[str, Any]
    teachers: dict[str, Any]
    vectors: dict[str, Any]
    students: dict[str, Any]


class _Blocks(Model):
    tag: Tag
    augment: Augment
    teachers: dict[str, Teacher] = Field(min_length=1)
    vectors: dict[str, Vectors] = Field({})
    students: dict[str, Student] = Field(min_length=1)

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
        raise error(f"{problem} {name!r} (there are {', '.join(there) or 'none'})")


class Settings(_Blocks):
    """All settings of one task: params.yaml with the task's overrides applied."""

    name: str
    task: Task

    def teacher(self, name: str) -> Teacher:
        """Return a teacher by its name; InputError if no teacher has it."""
        _check_name("params.yaml: teachers: there is no", name, self.teachers, InputError)
        return self.teachers[name]

    def student(self, name: str) -> Student:
        """Return a student by its name; InputError if no student has it."""
        _check_name("params.yaml: students: there is no", name, self.students, InputError)
        return self.students[name]

    @property
    def rules_file(self) -> str:
        """The file that sets augment.rules: the task's if it overrides a rule, else params.yaml."""
        return f"tasks/{self.name}.yaml" if "rules" in self.task.augment else "params.yaml"


class _ActiveTasks(BaseModel):
    tasks: list[str] = Field(min_length=1)


class _ParamsFile(_Blocks, _ActiveTasks): ...


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
    validated(_ParamsFile, params, params_path)
    overrides = read_yaml(task_path)
    checked = validated(Task, overrides, task_path)
    overrides["students"] = _for_each_seed(overrides["students"], params["students"])
    for key in ("teachers", "students"):  # dvc.yaml has a stage for each of those in params.yaml alone
        for name in overrides[key]:
            _check_name(f"{task_path}: {key}: params.yaml does not define", name, params[key], InputError)
    merged = {key: _overlay(params.get(key, {}), overrides[key]) for key in OVERRIDES}
    settings = validated(Settings, {"name": task, "task": checked, **merged}, task_path)
    if checked.text.is_regression:
        _check_regression(settings.students, task_path)
    return settings


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


def _for_each_seed(overrides: Mapping[str, Any], students: Collection[str]) -> dict[str, Any]:
    """Return a task's overrides of students, in which a block for NAME also applies to NAME-seed0, NAME-seed1 and so on."""
    found = dict(overrides)
    for name in students:
        base = base_of(name)
        if base is not None and base in overrides:
            found[name] = _overlay(overrides[base], overrides.get(name, {}))
            if base not in students:
                found.pop(base, None)
    return found


def _overlay(base: Any, over: Any) -> Any:
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return over
    return {**base, **{key: _overlay(base.get(key), value) for key, value in over.items()}}
