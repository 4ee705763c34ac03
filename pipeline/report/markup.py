"""HTML and SVG elements; every string that is not Markup is escaped."""

import re
from collections.abc import Iterable

from markupsafe import Markup

# Control characters, and characters that change the writing direction: a text must not change how the page around it reads.
_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]|[\ud800-\udfff]")
_VOID = frozenset({"line", "path", "rect"})

Child = str | int | None


def visible(text: str) -> str:
    """Return text with U+FFFD in place of each control character."""
    return _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", text)


def escaped(text: str) -> Markup:
    """Return HTML that shows a text; control characters become U+FFFD."""
    return Markup.escape(visible(text))


def joined(children: Iterable[Child], between: str = "") -> Markup:
    """Concatenate children: Markup unchanged, other values and the separator escaped, None left out."""
    parts = [child if isinstance(child, Markup) else escaped(str(child)) for child in children if child is not None]
    return Markup.escape(between).join(parts)


def element(name: str, *children: Child, **attributes: str | float | None) -> Markup:
    """Return an element.

    :param children: Its content, as in `joined`.
    :param attributes: By name, with `_` for `-` and a trailing `_` where the name is a Python keyword. None leaves an attribute out;
        floats have two decimals, a fiftieth of a pixel.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(_written(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = joined(children)
    return Markup(f"<{name}{given}/>" if name in _VOID and not children else f"<{name}{given}>{inside}</{name}>")


def _written(value: str | float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
