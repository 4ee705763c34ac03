"""A plot as SVG: two axes, and marks on them. Colours are classes that the page's style sheet fills in, for light and for dark."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.report.markup import Child, Markup, element, joined
from pipeline.report.scales import Scale, short

COLOURS, SHAPES, DASHES = 7, 5, 4
"""How many of each there are: the first 35 series differ in colour or shape."""

WIDTH, HEIGHT = 460.0, 300.0
"""Of a plot, in units that are about a pixel: narrow, so that letters stay readable where it fills a phone."""

LEFT, RIGHT, TOP, BOTTOM = 50.0, 16.0, 30.0, 44.0
LETTER = 7.6
"""About the width of a letter of a label, in the widest of the style sheet's fonts."""


@dataclass(frozen=True)
class Series:
    """How one student, teacher or kind of row looks in every figure.

    :param name: What the legend says.
    :param colour: A class of the style sheet.
    :param shape: 0 circle, 1 square, 2 triangle, 3 diamond, 4 triangle pointing down, 5 star.
    :param dash: Lengths of a line's dashes; a whole line where None.
    """

    name: str
    colour: str
    shape: int = 0
    dash: str | None = None

    @classmethod
    def of(cls, name: str, number: int) -> "Series":
        """Return the look of the series with a number, counted from 0."""
        dash = (None, "6 3", "2 3", "8 3 2 3")[number // COLOURS % DASHES]
        return cls(name, f"c{number % COLOURS}", number % SHAPES, dash)


_SHAPES: tuple[Callable[[float], str], ...] = (
    lambda r: f"M{-r:.1f} 0a{r:.1f} {r:.1f} 0 1 0 {2 * r:.1f} 0a{r:.1f} {r:.1f} 0 1 0 {-2 * r:.1f} 0z",
    lambda r: f"M{-0.9 * r:.1f} {-0.9 * r:.1f}h{1.8 * r:.1f}v{1.8 * r:.1f}h{-1.8 * r:.1f}z",
    lambda r: f"M0 {-1.2 * r:.1f}L{1.1 * r:.1f} {0.8 * r:.1f}H{-1.1 * r:.1f}z",
    lambda r: f"M0 {-1.25 * r:.1f}L{1.25 * r:.1f} 0L0 {1.25 * r:.1f}L{-1.25 * r:.1f} 0z",
    lambda r: f"M0 {1.2 * r:.1f}L{1.1 * r:.1f} {-0.8 * r:.1f}H{-1.1 * r:.1f}z",
    lambda r: (
        f"M0 {-1.5 * r:.1f}L{0.4 * r:.1f} {-0.45 * r:.1f}L{1.45 * r:.1f} {-0.45 * r:.1f}L{0.6 * r:.1f} {0.25 * r:.1f}"
        f"L{0.9 * r:.1f} {1.25 * r:.1f}L0 {0.65 * r:.1f}L{-0.9 * r:.1f} {1.25 * r:.1f}L{-0.6 * r:.1f} {0.25 * r:.1f}"
        f"L{-1.45 * r:.1f} {-0.45 * r:.1f}L{-0.4 * r:.1f} {-0.45 * r:.1f}z"
    ),
)


def shape_path(shape: int, radius: float) -> str:
    """Return the outline of a mark around 0, 0.

    :param shape: As in `Series`.
    :param radius: About its radius.
    """
    return _SHAPES[shape](radius)


Box = tuple[float, float, float, float]


class Plot:
    """A plot to which marks are added one after the other, the last ones on top.

    :param told: What a screen reader says it is.
    :param x: The horizontal axis.
    :param y: The vertical one.
    :param width: Of the drawing.
    :param height: Of the drawing.
    """

    def __init__(self, told: str, x: Scale, y: Scale, width: float = WIDTH, height: float = HEIGHT) -> None:
        self.told, self.x, self.y, self.width, self.height = told, x, y, width, height
        self.parts: list[Markup] = []
        self.taken: list[Box] = []

    def axis_x(
        self, title: str, ticks: Mapping[float, str] | None = None, write: Callable[[float], str] = short, most: int = 6
    ) -> None:
        """Draw the horizontal axis.

        :param title: What it measures.
        :param ticks: What stands at which values; round values where None.
        :param write: How round values are written.
        :param most: About how many round values.
        """
        bottom = self.y.start
        shown = {value: write(value) for value in self.x.ticks(most)} if ticks is None else ticks
        for value, text in shown.items():
            at = self.x(value)
            self.parts.append(element("line", class_="grid", x1=at, x2=at, y1=self.y.end, y2=bottom))
            self.parts.append(element("text", text, class_="tick", x=at, y=bottom + 16, text_anchor="middle"))
        self.parts.append(element("line", class_="axis", x1=self.x.start, x2=self.x.end, y1=bottom, y2=bottom))
        middle = (self.x.start + self.x.end) / 2
        self.parts.append(element("text", title, class_="title", x=middle, y=bottom + 36, text_anchor="middle"))

    def axis_y(self, title: str, write: Callable[[float], str] = short, most: int = 5) -> None:
        """Draw the vertical axis; its title stands above it, where nobody has to turn the head.

        :param title: What it measures.
        :param write: How round values are written.
        :param most: About how many round values.
        """
        for value in self.y.ticks(most):
            at = self.y(value)
            self.parts.append(element("line", class_="grid", x1=self.x.start, x2=self.x.end, y1=at, y2=at))
            self.parts.append(
                element("text", write(value), class_="tick", x=self.x.start - 7, y=at + 4, text_anchor="end")
            )
        self.parts.append(element("text", title, class_="title", x=4.0, y=self.y.end - 14))

    def rows_y(self, names: Sequence[str]) -> None:
        """Write names, the first at n - 1 of the vertical axis and the last at 0, and draw a line through each."""
        for i, name in enumerate(reversed(names)):
            at = self.y(i)
            self.parts.append(element("line", class_="grid", x1=self.x.start, x2=self.x.end, y1=at, y2=at))
            self.parts.append(element("text", name, class_="tick", x=self.x.start - 9, y=at + 4, text_anchor="end"))

    def mark(
        self,
        x: float,
        y: float,
        series: Series,
        told: str,
        radius: float = 5.5,
        more: str = "",
        dx: float = 0.0,
        dy: float = 0.0,
    ) -> None:
        """Draw a point.

        :param x: Its value.
        :param y: Its value.
        :param series: Its look.
        :param told: What is shown where a mouse rests on it.
        :param radius: Its size.
        :param more: More classes: `hollow`.
        :param dx: How far it is moved to the right, so that it hides no other.
        :param dy: How far it is moved down.
        """
        at = (self.x(x) + dx, self.y(y) + dy)
        self.parts.append(
            element(
                "path",
                element("title", told),
                class_=f"mark fill {series.colour} {more}".rstrip(),
                d=shape_path(series.shape, radius),
                transform=f"translate({at[0]:.2f} {at[1]:.2f})",
            )
        )
        self.taken.append((at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius))

    def whisker(self, x: float, low: float, high: float, series: Series, dx: float = 0.0) -> None:
        """Draw a vertical interval with its ends."""
        at, a, b = self.x(x) + dx, self.y(low), self.y(high)
        path = f"M{at:.2f} {a:.2f}V{b:.2f}M{at - 4:.2f} {a:.2f}h8M{at - 4:.2f} {b:.2f}h8"
        self.parts.append(element("path", class_=f"whisker stroke {series.colour}", d=path))

    def whisker_x(self, y: float, low: float, high: float, series: Series, dy: float = 0.0) -> None:
        """Draw a horizontal interval with its ends."""
        at, a, b = self.y(y) + dy, self.x(low), self.x(high)
        path = f"M{a:.2f} {at:.2f}H{b:.2f}M{a:.2f} {at - 4:.2f}v8M{b:.2f} {at - 4:.2f}v8"
        self.parts.append(element("path", class_=f"whisker stroke {series.colour}", d=path))

    def line(
        self, points: Sequence[tuple[float, float]], series: Series, told: str, more: str = "mark", dx: float = 0.0
    ) -> None:
        """Draw a line through points, moved to the right by dx; nothing through fewer than two."""
        if len(points) > 1:
            path = "M" + "L".join(f"{self.x(x) + dx:.2f} {self.y(y):.2f}" for x, y in points)
            classes = f"{more} line stroke {series.colour}"
            self.parts.append(
                element("path", element("title", told), class_=classes, d=path, stroke_dasharray=series.dash)
            )

    def level(self, y: float, series: Series, text: str) -> None:
        """Draw a dashed line across the plot, and what it is."""
        at = self.y(y)
        self.parts.append(
            element("line", class_=f"level stroke {series.colour}", x1=self.x.start, x2=self.x.end, y1=at, y2=at)
        )
        self.parts.append(
            element("text", text, class_=f"note text {series.colour}", x=self.x.end - 4, y=at - 6, text_anchor="end")
        )

    def bar(self, left: float, right: float, low: float, high: float, series: Series, told: str) -> None:
        """Draw a bar between four places of the drawing."""
        self.parts.append(
            element(
                "rect",
                element("title", told),
                class_=f"mark fill {series.colour}",
                x=min(left, right),
                y=min(low, high),
                width=max(abs(right - left), 0.5),
                height=max(abs(high - low), 0.5),
            )
        )

    def label(self, x: float, y: float, text: str, series: Series, must: bool = True) -> None:
        """Write the name of a point beside it, where it covers neither a point nor another name.

        :param x: The point's value.
        :param y: The point's value.
        :param text: Its name.
        :param series: Its look.
        :param must: Whether it is written even where there is no free place.
        """
        at = (self.x(x), self.y(y))
        width = LETTER * len(text)
        places: list[tuple[float, float, str]] = []
        for far in (0.0, 12.0, 24.0, 36.0):
            for dx, dy, anchor in ((10.0, 4.0, "start"), (-10.0, 4.0, "end")):
                places += [(dx, dy - far, anchor), (dx, dy + far, anchor)]
            places += [(0, -12 - far, "middle"), (0, 20 + far, "middle")]
        boxes = [(_box(at[0] + dx, at[1] + dy, width, anchor), dx, dy, anchor) for dx, dy, anchor in places]
        inside = [found for found in boxes if found[0][0] >= self.x.start and found[0][2] <= self.width]
        free = [found for found in inside if not any(_overlap(found[0], box) for box in self.taken)]
        if not free and not must:
            return
        box, dx, dy, anchor = (free or inside or boxes)[0]
        self.taken.append(box)
        self.parts.append(
            element(
                "text",
                text,
                class_=f"name text {series.colour}",
                x=at[0] + dx,
                y=at[1] + dy,
                text_anchor=None if anchor == "start" else anchor,
            )
        )

    def note(self, x: float, y: float, text: Child, anchor: str = "start") -> None:
        """Write a remark at a place of the drawing."""
        self.parts.append(element("text", text, class_="note", x=x, y=y, text_anchor=anchor))

    def svg(self) -> Markup:
        """Return the drawing."""
        box = f"0 0 {self.width:g} {self.height:g}"
        kind = "plot" if self.width > 400 else "plot little"
        return element("svg", joined(self.parts), class_=kind, viewBox=box, role="img", aria_label=self.told)


def _box(x: float, y: float, width: float, anchor: str) -> Box:
    left = {"start": x, "end": x - width, "middle": x - width / 2}[anchor]
    return (left, y - 10, left + width, y + 3)


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def frame(width: float = WIDTH, height: float = HEIGHT, left: float = LEFT) -> tuple[float, float, float, float]:
    """Return where the axes of a drawing start and end: left, right, bottom, top.

    :param width: Of the drawing.
    :param height: Of the drawing.
    :param left: Room for what stands on the left.
    """
    return left, width - RIGHT, height - BOTTOM, TOP


def swatch(series: Series, line: bool = False) -> Markup:
    """Return the look of a series, for a legend.

    :param series: The series.
    :param line: Whether it is a line.
    """
    inside = joined(
        [
            element("path", class_=f"line stroke {series.colour}", d="M1 7H25", stroke_dasharray=series.dash)
            if line
            else None,
            element(
                "path",
                class_=f"fill {series.colour}",
                d=shape_path(series.shape, 5),
                transform="translate(13 7)",
            ),
        ]
    )
    return element("svg", inside, class_="swatch", viewBox="0 0 26 14", aria_hidden="true")
