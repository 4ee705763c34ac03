"""The filter of `head --where`: comparisons of a column with a value, joined by and, or, not. It is parsed, and never run as Python."""

import ast
import operator
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError
from pipeline.logits.changes import Filter

OPERATORS: dict[type, Callable[[Any, Any], pc.Expression]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
NULL_TESTS = (ast.Is, ast.IsNot, ast.Eq, ast.NotEq)

LONGEST = 1_000
"""Characters of an expression, so that its nesting stays within what Python and Arrow can evaluate."""

FORM = "write a column, an operator and a value, as in \"copy > 3 and side == 'first'\""


def parsed(text: str, schema: pa.Schema, labels: Sequence[str]) -> Filter:
    """Return an expression such as `copy > 3 and (masked1 == 0 or label == 'positive')` as a filter of rows.

    :param schema: The columns.
    :param labels: The class names, which stand for the numbers of the column `label`; one in a regression.
    :raises InputError: If the syntax, a column or the type of a value is wrong.
    """
    if len(text) > LONGEST:
        raise InputError(f"--where: has {len(text):,} characters, more than the {LONGEST:,} allowed")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        expression = _filter(tree, schema, labels)
        return Filter(expression, {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)})
    except InputError as error:
        raise InputError(f"--where {text!r}: {error}") from None
    except (SyntaxError, ValueError):  # ValueError: a null character
        raise InputError(f"--where {text!r}: invalid syntax; {FORM}") from None


def _filter(node: ast.expr, schema: pa.Schema, labels: Sequence[str]) -> pc.Expression:
    if isinstance(node, ast.BoolOp):
        join = operator.and_ if isinstance(node.op, ast.And) else operator.or_
        return reduce(join, (_filter(part, schema, labels) for part in node.values))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return ~_filter(node.operand, schema, labels)
    if not isinstance(node, ast.Compare):
        raise InputError(f"{ast.unparse(node)!r} is not a comparison; {FORM}")
    pairs = zip(pairwise([node.left, *node.comparators]), node.ops, strict=True)
    return reduce(operator.and_, (_compared(one, sign, other, schema, labels) for (one, other), sign in pairs))


def _compared(
    one: ast.expr, sign: ast.cmpop, other: ast.expr, schema: pa.Schema, labels: Sequence[str]
) -> pc.Expression:
    if isinstance(one, ast.Name) == isinstance(other, ast.Name):
        raise InputError(f"{ast.unparse(one)!r} and {ast.unparse(other)!r} cannot be compared; {FORM}")
    name, node = (one, other) if isinstance(one, ast.Name) else (other, one)
    assert isinstance(name, ast.Name)
    column = _column(name.id, schema)
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError):
        raise InputError(f"{ast.unparse(node)!r} is neither a number nor a string; {FORM}") from None
    if value is None and isinstance(sign, NULL_TESTS):
        return pc.field(name.id).is_null() if isinstance(sign, (ast.Is, ast.Eq)) else pc.field(name.id).is_valid()
    if type(sign) not in OPERATORS:
        raise InputError(
            f"{ast.unparse(ast.Compare(one, [sign], [other]))!r}: use one of == != < <= > >=, or `is None`"
        )
    scalar = pc.scalar(_value(name.id, column, value, labels))
    sides = (pc.field(name.id), scalar) if name is one else (scalar, pc.field(name.id))
    return OPERATORS[type(sign)](*sides)


def _column(name: str, schema: pa.Schema) -> pa.DataType:
    known = [field.name for field in schema if not pa.types.is_nested(field.type)]
    if name not in known:
        raise InputError(f"no column {name!r} to compare (there are {', '.join(known)}); put strings in quotes")
    return schema.field(name).type


def _value(name: str, column: pa.DataType, value: Any, labels: Sequence[str]) -> pa.Scalar:
    """Return the value that a column is compared with."""
    if name == "label" and len(labels) > 1 and isinstance(value, str):
        if value not in labels:
            raise InputError(f"no class {value!r} (there are {', '.join(map(repr, labels))})")
        return pa.scalar(labels.index(value))
    wanted = (str,) if pa.types.is_string(column) else (int, float)
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise InputError(f"{name} holds {'strings' if wanted == (str,) else 'numbers'}, and {value!r} is not one")
    try:
        return pa.scalar(value)
    except (OverflowError, pa.ArrowInvalid):
        raise InputError(f"{value!r} is too large") from None
