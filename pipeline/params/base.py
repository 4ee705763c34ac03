"""The base of the blocks of params.yaml: a frozen model that refuses unknown keys, and shared types."""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from pipeline import plugins
from pipeline.errors import InputError

TRUTH = "; YAML reads yes, no, on, off, true and false as truth values"


def form(pattern: str, *forms: str) -> AfterValidator:
    """Return the check of a string that follows a pattern. A message names the forms that do, such as `folder:PATH`; the first is suggested."""

    def check(value: str) -> str:
        if re.fullmatch(pattern, value):
            return value
        kinds = {each.partition(":")[0]: each for each in forms}
        kind, colon, _ = value.partition(":")
        if colon and kind in kinds:
            raise ValueError(f"must be {kinds[kind]}")
        meant = (
            f"; did you mean {next(iter(kinds))}:{value}?" if len(forms) > 1 and value and "://" not in value else ""
        )
        raise ValueError(f"must be {', '.join(forms[:-1])}{' or ' if forms[1:] else ''}{forms[-1]}{meant}")

    return AfterValidator(check)


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"must be a number{TRUTH}")
    if isinstance(value, str):
        raise ValueError(f"must be a number{plugins.number_hint(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


# Pydantic takes "2" and true for numbers. Greater numbers are mistakes, and overflow in training.
Int = Annotated[int, BeforeValidator(_number), Field(le=10**9)]
Float = Annotated[float, BeforeValidator(_number), Field(le=10**9)]
AnySeed = Annotated[int, BeforeValidator(_number)]  # of augmentation, which hashes its digits
Seed = Annotated[AnySeed, Field(ge=0, le=2**32 - 1)]  # of training: what NumPy takes
Fraction = Annotated[Float, Field(ge=0, le=1)]
Positive = Annotated[Int, Field(gt=0)]
Sha256 = Annotated[str, form("[0-9a-fA-F]{64}", "64 hexadecimal digits, as sha256sum prints them")]
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
