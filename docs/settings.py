"""The page settings.md: tables of all keys of params.yaml, tasks/<task>.yaml and ablation/params.yaml, from the models that read them.

A key's meaning is the docstring after its field. A docstring that ends with `(since 0.2.0)` names the version that added the key.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipeline.ablation.params import Ablation
from pipeline.params import project

FIRST = "0.1.0"
"""The version of a key whose docstring names none."""

HEAD = """# Settings

<!-- Written by docs/pages.py from pipeline/params and pipeline/ablation/params.py. -->

`params.yaml` has the settings of all tasks. `tasks/<task>.yaml` describes one task and can override
them. Unknown keys, misspelt keys and wrong values are refused before any stage runs, each in one
line: see [When something is refused](refused.md). *required* means that the key has no default. An
empty default means that the key can be absent. NAME stands for a name of your choice.
"""

PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "any value", type(None): ""}


def page() -> str:
    """Return the text of docs/settings.md."""
    blocks = {key: project.Settings.model_fields[key] for key in ("tag", "augment", "teachers", "vectors", "students")}
    tasks = project._ActiveTasks
    seen: set[type[BaseModel]] = set()
    parts = [
        HEAD,
        "## params.yaml\n",
        table({"tasks": tasks.model_fields["tasks"]} | blocks, meanings(project.Settings, tasks)),
    ]
    for key, field in blocks.items():
        parts += sections(key, field, seen)
    parts += ["## tasks/TASK.yaml\n", table(project.Task.model_fields, meanings(project.Task))]
    parts += sections("text", project.Task.model_fields["text"], seen)
    parts += ["## ablation/params.yaml\n", table(Ablation.model_fields, meanings(Ablation))]
    parts += sections("sets", Ablation.model_fields["sets"], seen)
    return "\n".join(parts)


def sections(key: str, field: FieldInfo, seen: set[type[BaseModel]]) -> Iterator[str]:
    """Yield a heading and a table for each model in a field's type, and for the models in its fields, breadth first."""
    waiting = [(key, field)]
    for path, given in waiting:
        for model, by_name in models_in(given.annotation):
            if model in seen:
                continue
            seen.add(model)
            name = f"{path}.NAME" if by_name else path
            yield f"### `{name}`\n"
            if model.__doc__:
                yield textwrap.fill(" ".join(model.__doc__.split("\n\n")[0].split()), 100) + "\n"
            yield table(model.model_fields, meanings(model))
            waiting += [(f"{name}.{inner}", nested) for inner, nested in model.model_fields.items()]


def models_in(annotation: Any, by_name: bool = False) -> Iterator[tuple[type[BaseModel], bool]]:
    """Yield the models in a type, each with whether it is the value of a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, by_name
    for part in get_args(annotation):
        yield from models_in(part, by_name or get_origin(annotation) is dict)


def meanings(*models: type[BaseModel]) -> dict[str, str]:
    """Return the docstrings of models' fields."""
    found: dict[str, str] = {}
    for model in (base for given in models for base in reversed(given.__mro__) if "pydantic" not in base.__module__):
        if not issubclass(model, BaseModel):
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
        assert isinstance(body, ast.ClassDef)
        for field, after in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                found[ast.unparse(field.target)] = " ".join(str(after.value.value).split())
    return found


def table(fields: dict[str, FieldInfo], texts: dict[str, str]) -> str:
    """Return a table of fields in Markdown.

    :raises KeyError: If a field has no docstring.
    """
    lines = ["| key | type | default | meaning | since |", "| --- | --- | --- | --- | --- |"]
    for name, field in fields.items():
        text, _, since = texts[name].partition(" (since ")
        cells = [f"`{name}`", kind(field), default(field), text, since.rstrip(").") or FIRST]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def kind(field: FieldInfo) -> str:
    """Return the name of a field's type, with its bounds."""
    return bounded(type_name(field.annotation), field.metadata)


def type_name(annotation: Any) -> str:
    """Return the name of a type for a reader of YAML."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return bounded(type_name(args[0]), args[1:])
    if origin is Literal:
        return alternatives([f"`{value}`" for value in args])
    if origin in (Union, UnionType):
        return alternatives(dict.fromkeys(name for name in map(type_name, args) if name))
    if origin is dict:
        return f"mapping of {plural(type_name(args[1]))}"
    if origin is list:
        return f"list of {plural(type_name(args[0]))}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "block"
    return PLAIN.get(
        annotation, "block" if isinstance(annotation, str) or not isinstance(annotation, type) else annotation.__name__
    )


def alternatives(names: Any) -> str:
    """Return names as `a, b or c`."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def plural(name: str) -> str:
    """Return the plural of a type's name."""
    return re.sub("^(block|value|number|whole number)(?= |$)", r"\1s", name.removeprefix("any "))


def bounded(name: str, metadata: Any) -> str:
    """Return the name of a number's type with its bounds, if it has any."""
    bounds: dict[str, int | float] = {}
    for each in (
        inner for given in metadata for inner in (given.metadata if isinstance(given, FieldInfo) else [given])
    ):
        bounds |= {key: getattr(each, key) for key in ("gt", "ge", "lt", "le") if getattr(each, key, None) is not None}
    if bounds.get("le") == 10**9:
        del bounds["le"]
    if not bounds or not name.endswith("number"):
        return name
    if bounds.keys() == {"ge", "le"}:
        return f"{name} from {bounds['ge']} to {bounds['le']}"
    signs = {"gt": "above", "ge": "from", "lt": "below", "le": "up to"}
    return f"{name} {' and '.join(f'{signs[key]} {value}' for key, value in bounds.items())}"


def default(field: FieldInfo) -> str:
    """Return a field's default as YAML has it; empty if it is null."""
    value = field.default
    if value is PydanticUndefined:
        return "*required*"
    if value is None:
        return ""
    if isinstance(value, BaseModel):
        return "`{}`"
    return f"`[{', '.join(value)}]`" if isinstance(value, list) and value else f"`{value}`"
