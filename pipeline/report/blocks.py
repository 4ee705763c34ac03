"""What sections are made of: figures, tables, paragraphs."""

from collections.abc import Iterable, Sequence

from pipeline.report.drawing import Series, swatch
from pipeline.report.markup import Child, Markup, element, joined


def figure(svg: Markup, caption: Child, legend: Iterable[Series] = (), lines: bool = False) -> Markup:
    """Return a figure.

    :param svg: The drawing.
    :param caption: What it shows, and how to read it.
    :param legend: The looks of what is in it.
    :param lines: Whether those are lines.
    """
    items = [element("li", swatch(series, lines), " ", series.name) for series in legend]
    above = element("ul", joined(items), class_="legend") if items else None
    return element("figure", above, svg, element("figcaption", caption) if caption else None)


def table(rows: Sequence[Sequence[Child]], name: str, kind: str = "") -> Markup:
    """Return a table that scrolls sideways where it is too wide.

    :param rows: The head, then the rows; a row's first cell names it.
    :param name: What a screen reader calls it.
    :param kind: A class of the style sheet.
    """
    head = element("tr", joined(element("th", cell, scope="col") for cell in rows[0]))
    body = [
        element("tr", element("th", row[0], scope="row"), joined(element("td", cell) for cell in row[1:]))
        for row in rows[1:]
    ]
    inside = element("table", element("thead", head), element("tbody", joined(body)))
    return element("div", inside, class_=f"wide {kind}".rstrip(), tabindex="0", role="region", aria_label=name)


def numbers(rows: Sequence[Sequence[Child]], name: str = "The numbers") -> Markup:
    """Return a table that is folded away, for whoever cannot see a figure or wants its numbers."""
    return element("details", element("summary", name), table(rows, name))


def grid(parts: Iterable[Child], kind: str = "two") -> Markup:
    """Return figures beside each other where there is room."""
    return element("div", joined(parts), class_=f"figures {kind}")


def paragraph(*children: Child) -> Markup:
    """Return a paragraph."""
    return element("p", *children)
