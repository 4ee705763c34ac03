"""params.yaml and tasks/*.yaml as one frozen model. An unknown key, a wrong type or value is one line: file, key, value, what is wrong."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from pipeline.errors import InputError
from pipeline.params.augment import Augment
from pipeline.params.base import Model
from pipeline.params.labelling import Labelling
from pipeline.params.seeds import base_of
from pipeline.params.students import Student
from pipeline.params.tag import Tag
from pipeline.params.teachers import TeacherModel
from pipeline.params.text import Text
from pipeline.params.vectors import Vectors


class Teacher(Model):
    """A sequence classifier of transformers, or an encoder that the finetune stage makes one of."""

    model: TeacherModel
    label: Labelling = Field(description="Must be there, `{}` for the defaults: DVC tracks the key")


class Task(Model):
    """tasks/<name>.yaml. The five overrides must stand there, `{}` if empty: DVC tracks each."""

    description: str
    metrics: list[Literal["accuracy", "f1"]] = Field(
        ["accuracy"],
        min_length=1,
        description="What the result table shows; students are chosen and ranked by accuracy. A regression has its own",
    )
    text: Text
    tag: dict[str, Any]
    augment: dict[str, Any]
    teachers: dict[str, Any]
    vectors: dict[str, Any]
    students: dict[str, Any]


class Settings(Model):
    """All that holds for one task: params.yaml with the task's overrides laid over it."""

    name: str
    task: Task
    tag: Tag
    augment: Augment
    teachers: dict[str, Teacher]
    vectors: dict[str, Vectors]
    students: dict[str, Student]

    def teacher(self, name: str) -> Teacher:
        """Return a teacher by its name.

        :raises InputError: If there is none.
        """
        if name not in self.teachers:
            raise InputError(f"params.yaml: teachers: there is no {name!r} (there are {', '.join(self.teachers)})")
        return self.teachers[name]

    def student(self, name: str) -> Student:
        """Return a student by its name.

        :raises InputError: If there is none.
        """
        if name not in self.students:
            raise InputError(f"params.yaml: students: there is no {name!r} (there are {', '.join(self.students)})")
        return self.students[name]

    def file_of(self, section: str, *keys: str) -> str:
        """Say in which file a value stands: the task's where it overrides it, else params.yaml."""
        value: Any = getattr(self.task, section)
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return "params.yaml" if value is None else f"tasks/{self.name}.yaml"


class _ParamsFile(Model):
    """params.yaml by itself, or with a task's overrides laid over it."""

    tasks: list[str] = Field(min_length=1)
    tag: Tag
    augment: Augment
    teachers: dict[str, Teacher] = Field(min_length=1)
    vectors: dict[str, Vectors] = Field({})
    students: dict[str, Student] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for name, vectors in self.vectors.items():
            kind, _, teacher = vectors.source.partition(":")
            if kind == "teacher" and teacher not in self.teachers:
                raise ValueError(
                    f"vectors.{name}.source: there is no teacher {teacher!r} (there are {', '.join(self.teachers)})"
                )
        for name, student in self.students.items():
            for teacher in student.teachers:
                if teacher not in self.teachers:
                    raise ValueError(
                        f"students.{name}.teacher: there is no teacher {teacher!r} (there are {', '.join(self.teachers)})"
                    )
            if student.vectors is not None and student.vectors not in self.vectors:
                raise ValueError(
                    f"students.{name}.vectors: there are no vectors {student.vectors!r} (there are {', '.join(self.vectors) or 'none'})"
                )
        return self


OVERRIDES = ("tag", "augment", "teachers", "vectors", "students")
M = TypeVar("M", bound=BaseModel)


def load(task: str, folder: Path = Path()) -> Settings:
    """Read params.yaml and the task's file, check both, lay the task's overrides over the parameters.

    :param task: The task's name: `tasks/<task>.yaml`.
    :param folder: The project's folder.
    :raises InputError: For anything wrong in either file, before any work is done.
    """
    params_path = folder / "params.yaml"
    task_path = folder / "tasks" / f"{task}.yaml"
    params = read_yaml(params_path)
    validated(_ParamsFile, params, params_path)
    overrides = read_yaml(task_path)
    checked = validated(Task, overrides, task_path)
    overrides["students"] = _for_each_seed(overrides["students"], params["students"])
    merged = {key: _overlay(params.get(key, {}), overrides[key]) for key in OVERRIDES}
    parts = validated(_ParamsFile, {"tasks": [task], **merged}, task_path)
    if checked.text.is_regression:
        _check_regression(parts, task_path)
    return Settings(name=task, task=checked, **{key: getattr(parts, key) for key in OVERRIDES})


def active_tasks(folder: Path = Path()) -> list[str]:
    """Return the tasks that params.yaml makes active.

    :param folder: The project's folder.
    :raises InputError: If params.yaml is missing, or invalid.
    """
    path = folder / "params.yaml"
    return validated(_ParamsFile, read_yaml(path), path).tasks


def _check_regression(params: _ParamsFile, path: Path) -> None:
    """Refuse what compares or averages distributions over classes, of which a regression has none."""
    for name, student in params.students.items():
        for key, value, only in (
            ("objective.soft", student.objective.soft, "mse"),
            ("weights.confidence", student.weights.confidence, 0.0),
            ("teacher.average", student.average, "logits"),
        ):
            if value != only:
                raise InputError(
                    f"{path}: students.{name}.{key}: {value!r}: a task of one label is a regression, for which it must be {only!r}"
                )


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    :raises InputError: If there is none, or it holds something else.
    """
    try:
        value = yaml.safe_load(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: must be a mapping of keys to values")
    return value


def _for_each_seed(overrides: Mapping[str, Any], students: Collection[str]) -> dict[str, Any]:
    """Return a task's blocks for students, where one for NAME holds for NAME-seed0, NAME-seed1 and so on as well."""
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


def validated(model: type[M], value: Mapping[str, Any], path: Path) -> M:
    """Return what a file holds as a model.

    :param model: The model.
    :param value: What the file holds.
    :param path: The file, for messages.
    :raises InputError: If it does not fit: one line that names file, key and value.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = _key(first["loc"], value)
        if first["type"] == "missing":
            key = ".".join(str(part) for part in first["loc"])
            raise InputError(f"{path}: {key}: missing; {_help(key)}") from None
        if first["type"] == "extra_forbidden":
            raise InputError(f"{path}: {key}: unknown key (value {first['input']!r})") from None
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "string_type" and isinstance(first["input"], int | float):
            message += "; write it in quotes"
        shown = (
            f"{key}: {first['input']!r}: "
            if key and not isinstance(first["input"], Mapping)
            else f"{key}: "
            if key
            else ""
        )
        raise InputError(f"{path}: {shown}{message}") from None


def _key(loc: Iterable[int | str], value: Any) -> str:
    """Name the key that an error is about, without the parts that pydantic adds for unions and for keys of mappings."""
    parts = []
    for part in loc:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            continue
        parts.append(str(part))
    return ".".join(parts)


def _help(key: str) -> str:
    return (
        f"write `{key}: {{}}` to take what params.yaml says (DVC tracks the key)"
        if key in OVERRIDES
        else "it is needed"
    )
