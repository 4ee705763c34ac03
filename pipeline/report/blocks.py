"""The parts of a section: figures, tables, legends."""

from collections.abc import Iterable, Sequence

from markupsafe import Markup

from pipeline.report.drawing import Series, swatch
from pipeline.report.markup import Child, element


def figure(svg: Markup, caption: Child = None, legend: Iterable[Series] = (), lines: bool = False) -> Markup:
    """Return a figure with a legend of its series, which are points, or lines where `lines`."""
    return element("figure", legend_of(legend, lines), svg, element("figcaption", caption) if caption else None)


def legend_of(series: Iterable[Series], lines: bool = False) -> Markup | None:
    """Return a legend; None where there is no series."""
    items = [element("li", swatch(each, lines), " ", each.name) for each in series]
    return element("ul", *items, class_="legend") if items else None


def named(series: Series, name: Child = None) -> Markup:
    """Return the name of a series with its swatch; its own where `name` is None."""
    return element("span", swatch(series), " ", series.name if name is None else name, class_="named")


def table(rows: Sequence[Sequence[Child]], name: str, kind: str = "") -> Markup:
    """Return a table that scrolls horizontally where it is too wide.

    :param rows: The header, then the rows, each with its name in the first cell.
    :param name: Its name for screen readers; `kind` is a class of the style sheet.
    """
    head = element("tr", *(element("th", cell, scope="col") for cell in rows[0]))
    body = [
        element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:]))
        for row in rows[1:]
    ]
    inside = element("table", element("thead", head), element("tbody", *body))
    return element("div", inside, class_=f"wide {kind}".rstrip(), tabindex="0", role="region", aria_label=name)


def folded(rows: Sequence[Sequence[Child]]) -> Markup:
    """Return a table with the numbers of a figure, folded."""
    return element("details", element("summary", "Show the numbers"), table(rows, "The numbers"))


def grid(parts: Iterable[Child], kind: str = "two") -> Markup:
    """Return figures next to each other where there is room."""
    return element("div", *parts, class_=f"figures {kind}")


def muted(*children: Child) -> Markup:
    """Return a paragraph in a lighter colour."""
    return element("p", *children, class_="muted")
