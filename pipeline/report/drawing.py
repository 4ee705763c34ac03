"""A plot as SVG: two axes and the marks on them. Colours are classes of style.css, which has values for light and dark."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from pipeline.report.markup import Child, element, joined
from pipeline.report.scales import Format, Scale, short

COLOURS, SHAPES, DASHES = 7, 5, 4
"""How many of each there are: the first 35 series differ in colour or shape."""

WIDTH, HEIGHT = 460.0, 300.0
"""Of a plot, in units of about a pixel: narrow, so that letters stay readable on a phone."""

LEFT, RIGHT, TOP, BOTTOM = 50.0, 16.0, 30.0, 44.0
LETTER = 7.6
"""Approximate width of a letter of a label, in the widest font of the style sheet."""

LINE = 14.0
"""Height of a line of letters."""


@dataclass(frozen=True)
class Series:
    """The colour, shape and dashes of a student, teacher or kind of row, the same in every figure.

    :param name: Its name in the legend.
    :param colour: A class of the style sheet.
    :param shape: 0 circle, 1 square, 2 triangle, 3 diamond, 4 triangle pointing down, 5 star.
    :param dash: Lengths of a line's dashes; a solid line where None.
    """

    name: str
    colour: str
    shape: int = 0
    dash: str | None = None

    @classmethod
    def of(cls, name: str, number: int) -> "Series":
        """Return the series with a number, counted from 0."""
        dash = (None, "6 3", "2 3", "8 3 2 3")[number // COLOURS % DASHES]
        return cls(name, f"c{number % COLOURS}", number % SHAPES, dash)


_CORNERS: tuple[tuple[tuple[float, float], ...], ...] = (
    (),
    ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
    ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
    ((0, 1.2), (1.1, -0.8), (-1.1, -0.8)),
    (
        *((0, -1.5), (0.4, -0.45), (1.45, -0.45), (0.6, 0.25), (0.9, 1.25)),
        *((0, 0.65), (-0.9, 1.25), (-0.6, 0.25), (-1.45, -0.45), (-0.4, -0.45)),
    ),
)
"""By `Series.shape`, the corners of a mark with radius 1; none of a circle."""


def shape_path(shape: int, radius: float) -> str:
    """Return the outline of a mark around 0, 0; the radius is approximate."""
    if corners := _CORNERS[shape]:
        return "M" + "L".join(f"{x * radius:.1f} {y * radius:.1f}" for x, y in corners) + "z"
    arc = f"a{radius:.1f} {radius:.1f} 0 1 0"
    return f"M{-radius:.1f} 0{arc} {2 * radius:.1f} 0{arc} {-2 * radius:.1f} 0z"


Box = tuple[float, float, float, float]


class Plot:
    """A plot; later marks are drawn on top. A mark's title is its tooltip.

    :param label: What it shows, for screen readers.
    :param x: The scale of the horizontal axis; its coordinates are set here, as are those of `y`.
    :param left: The space left of the axes; `top` and `bottom` are the space above and below them.
    """

    def __init__(
        self,
        label: str,
        x: Scale,
        y: Scale,
        width: float = WIDTH,
        height: float = HEIGHT,
        left: float = LEFT,
        top: float = TOP,
        bottom: float = BOTTOM,
    ) -> None:
        self.label, self.width, self.height = label, width, height
        self.x = replace(x, start=left, end=width - RIGHT)
        self.y = replace(y, start=height - bottom, end=top)
        self.parts: list[Markup] = []
        self.taken: list[Box] = []

    def text(self, text: Child, kind: str, x: float, y: float, anchor: str = "start", turned: bool = False) -> None:
        """Write a text of a class of the style sheet at coordinates of the drawing, upwards where `turned`."""
        place = None if anchor == "start" else anchor
        turn = f"rotate(-90 {x:.2f} {y:.2f})" if turned else None
        self.parts.append(element("text", text, class_=kind, x=x, y=y, text_anchor=place, transform=turn))

    def across(self, kind: str, y: float) -> None:
        """Draw a line across the plot at a coordinate of the drawing."""
        self.parts.append(element("line", class_=kind, x1=self.x.start, x2=self.x.end, y1=y, y2=y))

    def _shape(self, name: str, title: str, **attributes: str | float | None) -> None:
        self.parts.append(element(name, element("title", title), **attributes))

    def axis_x(
        self, title: str, ticks: Mapping[float, str] | None = None, write: Format = short, most: int = 6
    ) -> None:
        """Draw the horizontal axis.

        :param title: What it measures.
        :param ticks: The text at each value; about `most` round values where None.
        """
        bottom = self.y.start
        for value, text in ({v: write(v) for v in self.x.ticks(most)} if ticks is None else ticks).items():
            at = self.x(value)
            self.parts.append(element("line", class_="grid", x1=at, x2=at, y1=self.y.end, y2=bottom))
            self.text(text, "tick", at, bottom + 16, "middle")
        self.across("axis", bottom)
        self.text(title, "title", (self.x.start + self.x.end) / 2, bottom + 36, "middle")

    def axis_y(self, title: str, write: Format = short, most: int = 5) -> None:
        """Draw the vertical axis with about `most` round values, and above it what it measures."""
        for value in self.y.ticks(most):
            self.across("grid", self.y(value))
            self.text(write(value), "tick", self.x.start - 7, self.y(value) + 4, "end")
        self.text(title, "title", 4.0, self.y.end - 14)

    def mark(
        self,
        x: float,
        y: float,
        series: Series,
        title: str,
        radius: float = 5.5,
        more: str = "",
        dx: float = 0.0,
        dy: float = 0.0,
    ) -> None:
        """Draw a point.

        :param more: More classes: `hollow`, `faint`.
        :param dx: A shift to the right, so that points do not cover each other; `dy` is a shift down.
        """
        at_x, at_y = self.x(x) + dx, self.y(y) + dy
        kind, place = f"mark fill {series.colour} {more}".rstrip(), f"translate({at_x:.2f} {at_y:.2f})"
        self._shape("path", title, class_=kind, d=shape_path(series.shape, radius), transform=place)
        self.taken.append((at_x - radius, at_y - radius, at_x + radius, at_y + radius))

    def whisker(
        self,
        at: float,
        low: float | None,
        high: float | None,
        series: Series,
        shift: float = 0.0,
        horizontal: bool = False,
    ) -> None:
        """Draw an interval of y, or of x where `horizontal`, with its ends; nothing where an end is None.

        :param at: The value on the other axis.
        :param shift: A shift to the right, of a horizontal interval down.
        """
        if low is None or high is None:
            return
        if horizontal:
            c, a, b = self.y(at) + shift, self.x(low), self.x(high)
            path = f"M{a:.2f} {c:.2f}H{b:.2f}M{a:.2f} {c - 4:.2f}v8M{b:.2f} {c - 4:.2f}v8"
        else:
            c, a, b = self.x(at) + shift, self.y(low), self.y(high)
            path = f"M{c:.2f} {a:.2f}V{b:.2f}M{c - 4:.2f} {a:.2f}h8M{c - 4:.2f} {b:.2f}h8"
        self.parts.append(element("path", class_=f"whisker stroke {series.colour}", d=path))

    def line(
        self, points: Sequence[tuple[float, float]], series: Series, title: str, more: str = "mark", dx: float = 0.0
    ) -> None:
        """Draw a line through points, shifted to the right by dx; nothing for fewer than two points."""
        if len(points) > 1:
            path = "M" + "L".join(f"{self.x(x) + dx:.2f} {self.y(y):.2f}" for x, y in points)
            kind = f"{more} line stroke {series.colour}"
            self._shape("path", title, class_=kind, d=path, stroke_dasharray=series.dash)

    def level(self, series: Series, y: float, write: Format) -> None:
        """Draw a dashed line across the plot, with its name and value above it."""
        self.across(f"level stroke {series.colour}", self.y(y))
        text = f"{series.name}: {write(y)}"
        self.text(text, f"note text {series.colour}", self.x.end - 4, self.y(y) - 6, "end")

    def bar(self, left: float, right: float, low: float, high: float, series: Series, title: str) -> None:
        """Draw a bar between coordinates of the drawing."""
        size = {"width": max(abs(right - left), 0.5), "height": max(abs(high - low), 0.5)}
        self._shape("rect", title, class_=f"mark fill {series.colour}", x=min(left, right), y=min(low, high), **size)

    def cell(self, x: float, y: float, series: Series, strength: float, text: str, title: str) -> None:
        """Fill the square of size 1 around a point, with a text where there is room for it.

        :param strength: How strong its colour is, 0 to 1; at most half of it is drawn, so that the text stays readable.
        """
        left, right, top, bottom = self.x(x - 0.5), self.x(x + 0.5), self.y(y + 0.5), self.y(y - 0.5)
        size = {"width": right - left - 1, "height": bottom - top - 1, "fill_opacity": 0.04 + 0.5 * strength}
        self._shape("rect", title, class_=f"mark fill {series.colour}", x=left + 0.5, y=top + 0.5, **size)
        if text and LETTER * len(text) <= right - left and bottom - top >= LINE:
            self.text(text, "count", (left + right) / 2, (top + bottom) / 2 + 4, "middle")

    def name(self, x: float, y: float, series: Series, must: bool = True) -> None:
        """Write the name of a point's series next to it, where it covers neither a point nor another name.

        :param must: Whether to write it even if there is no free space.
        """
        places = [
            (self.x(x) + dx, self.y(y) + dy, anchor)
            for far in (0.0, 12.0, 24.0, 36.0)
            for dx, up, down, anchor in (
                (10.0, 4.0, 4.0, "start"),
                (-10.0, 4.0, 4.0, "end"),
                (0.0, -12.0, 20.0, "middle"),
            )
            for dy in (up - far, down + far)
        ]
        boxes = {place: _box(*place, LETTER * len(series.name)) for place in places}
        inside = [place for place, box in boxes.items() if box[0] >= self.x.start and box[2] <= self.width]
        free = [place for place in inside if not any(_overlap(boxes[place], box) for box in self.taken)]
        if free or must:
            place = (free or inside or places)[0]
            self.taken.append(boxes[place])
            self.text(series.name, f"name text {series.colour}", *place)

    def svg(self) -> Markup:
        """Return the drawing."""
        box = f"0 0 {self.width:g} {self.height:g}"
        kind = "plot" if self.width > 400 else "plot little"
        return element("svg", joined(self.parts), class_=kind, viewBox=box, role="img", aria_label=self.label)


def _box(x: float, y: float, anchor: str, width: float) -> Box:
    left = {"start": x, "end": x - width, "middle": x - width / 2}[anchor]
    return (left, y - 10, left + width, y + 3)


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def swatch(series: Series, line: bool = False) -> Markup:
    """Return the mark of a series for a legend, on a line where `line`."""
    colour = series.colour
    dashes = element("path", class_=f"line stroke {colour}", d="M1 7H25", stroke_dasharray=series.dash)
    mark = element("path", class_=f"fill {colour}", d=shape_path(series.shape, 5), transform="translate(13 7)")
    return element("svg", dashes if line else None, mark, class_="swatch", viewBox="0 0 26 14", aria_hidden="true")
