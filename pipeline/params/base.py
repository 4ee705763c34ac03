"""The base of the blocks of params.yaml: a frozen model that refuses unknown keys, and shared types."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pipeline import plugins
from pipeline.errors import InputError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Split = Literal["train", "validation", "test"]
RefuseOrDrop = Literal["refuse", "drop"]
Tasks = Annotated[list[str], Field(min_length=1)]
Policy = Literal["refuse", "drop", "keep"]


class Model(BaseModel):
    """A frozen model that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), strict=False)


def check_importable(path: str) -> str:
    """Return an import path if its module exists and defines its name. The module is not run.

    :raises ValueError: If it does not.
    """
    try:
        plugins.check(path)
    except InputError as error:
        raise ValueError(str(error).removeprefix(f"{path!r} ")) from error  # the message starts with the value already
    return path


ImportPath = Annotated[str, AfterValidator(check_importable)]
