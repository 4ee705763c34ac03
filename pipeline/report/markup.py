"""HTML and SVG as text in which nothing but what was meant as markup is markup."""

import html
import re
from collections.abc import Iterable

# Control characters, and those that turn the direction of what follows: a text must not change how the page around it reads.
_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]|[\ud800-\udfff]")


class Markup(str):
    """Text that is HTML already. Any other string is escaped before it gets into a page."""

    __slots__ = ()


Child = str | int | None


def escaped(text: str) -> Markup:
    """Return text as HTML that shows it and does nothing else; control characters become U+FFFD.

    :param text: Any text.
    """
    return Markup(html.escape(_UNSEEN.sub("\N{REPLACEMENT CHARACTER}", text)))


def joined(children: Iterable[Child], between: str = "") -> Markup:
    """Return children one after the other: Markup as it is, other strings escaped, None left out.

    :param children: The children.
    :param between: What stands between two of them; it is escaped like them.
    """
    parts = [child if isinstance(child, Markup) else escaped(str(child)) for child in children if child is not None]
    return Markup((between if isinstance(between, Markup) else escaped(between)).join(parts))


def element(name: str, *children: Child, **attributes: str | float | None) -> Markup:
    """Return an element.

    :param name: Its name.
    :param children: What is inside, as in `joined`.
    :param attributes: By name, with `_` for `-` and one at the end where the name is a word of Python; None leaves one out, and floats have
        two decimals, which is a fiftieth of a pixel.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(_written(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(
        f"<{name}{given}/>" if name in _EMPTY and not children else f"<{name}{given}>{joined(children)}</{name}>"
    )


_EMPTY = frozenset({"br", "circle", "line", "path", "polyline", "rect"})


def _written(value: str | float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
