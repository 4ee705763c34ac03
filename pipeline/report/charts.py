"""The kinds of figures of a report, from numbers to SVG."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.calibration import Bins
from pipeline.report.drawing import LETTER, WIDTH, Plot, Series, frame
from pipeline.report.markup import Markup
from pipeline.report.scales import Scale, around, short

NAMED = 14
"""Points of a scatter plot that all get their names; of more, those that no other beats in both ways."""

GREY = Series("", "grey")


@dataclass(frozen=True)
class Point:
    """A student or a teacher: what it costs, and how good it is.

    :param low: The end of the interval of `y`; None where that is not known.
    :param high: The other end.
    """

    series: Series
    x: float
    y: float
    low: float | None = None
    high: float | None = None


def percent(value: float) -> str:
    """Write a share as a percentage."""
    return f"{100 * value:.3g}%"


def scatter(label: str, points: Sequence[Point], x_title: str, y_title: str, shares: bool) -> Markup:
    """Draw what points cost against how good they are, with intervals, and the line of those that none beats in both ways.

    :param label: What the figure shows.
    :param points: At least one; x > 0, drawn on a logarithmic axis.
    :param x_title: What they cost.
    :param y_title: How good they are.
    :param shares: Whether y is a share, written as a percentage.
    """
    left, right, bottom, top = frame()
    ends = [end for point in points for end in (point.y, point.low, point.high) if end is not None]
    plot = Plot(label, around((p.x for p in points), left, right, log=True, margin=0.12), around(ends, bottom, top))
    plot.axis_y(y_title, percent if shares else short)
    plot.axis_x(x_title)
    best = frontier(points)
    steps = [corner for a, b in pairwise(best) for corner in ((a.x, a.y), (b.x, a.y))]
    if best:
        steps = [*steps, (best[-1].x, best[-1].y), (plot.x.high, best[-1].y)]
    plot.line(steps, GREY, "No other is both better and cheaper", "frontier")
    write = percent if shares else short
    for point in points:
        if point.low is not None and point.high is not None:
            plot.whisker(point.x, point.low, point.high, point.series)
    for point in points:
        interval = "" if point.low is None or point.high is None else f" ({write(point.low)} to {write(point.high)})"
        told = f"{point.series.name}: {write(point.y)}{interval}; {x_title} {short(point.x)}"
        plot.mark(point.x, point.y, point.series, told, 7 if point.series.shape == 5 else 5.5)
    for point in sorted(points, key=lambda p: (p not in best, -p.y)):
        if len(points) <= NAMED or point in best:
            plot.label(point.x, point.y, point.series.name, point.series, must=point in best)
    return plot.svg()


def frontier(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats both in cost and in quality, the cheapest first.

    :param points: The points.
    """
    found: list[Point] = []
    for point in sorted(points, key=lambda p: (p.x, -p.y)):
        if not found or point.y > found[-1].y:
            found.append(point)
    return found


def curves(
    label: str,
    lines: Mapping[Series, Sequence[float]],
    y_title: str,
    shares: bool,
    level: tuple[Series, float] | None = None,
    best: str = "max",
) -> Markup:
    """Draw a value after each epoch, one line a series, and a point at its best epoch.

    :param label: What the figure shows.
    :param lines: The values of epoch 1, 2 and so on; finite, at least one.
    :param y_title: What they are.
    :param shares: Whether they are shares.
    :param level: A value to compare with, drawn across.
    :param best: Whether the best value is the greatest (max) or the least (min).
    """
    left, right, bottom, top = frame()
    longest = max(len(values) for values in lines.values())
    everything = [value for values in lines.values() for value in values] + ([level[1]] if level else [])
    plot = Plot(label, Scale(0.5, longest + 0.5, left, right), around(everything, bottom, top, margin=0.1))
    write = percent if shares else short
    plot.axis_y(y_title, write)
    plot.axis_x("epoch", {float(i): str(i) for i in epochs_below(longest)})
    if level is not None:
        plot.level(level[1], level[0], f"{level[0].name}: {write(level[1])}")
    for series, values in lines.items():
        plot.line([(i + 1.0, value) for i, value in enumerate(values)], series, series.name)
    for series, values in lines.items():
        at = int(np.argmax(values) if best == "max" else np.argmin(values))
        plot.mark(at + 1, values[at], series, f"{series.name}: best in epoch {at + 1}, {write(values[at])}")
    return plot.svg()


def epochs_below(longest: int, most: int = 10) -> list[int]:
    """Return the epochs to write below an axis.

    :param longest: The last epoch.
    :param most: About how many there is room for.
    """
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 1000) if longest <= most * step or step == 1000)
    return [*([1] if step >= 5 else []), *range(step, longest + 1, step)]


def losses(name: str, training: Sequence[float], validation: Sequence[float]) -> Markup:
    """Draw the two losses of one student after each epoch, small.

    :param name: The student.
    :param training: The loss on training rows, finite.
    :param validation: That on validation rows.
    """
    width, height = 230.0, 170.0
    left, right, bottom, top = frame(width, height, 44)
    longest = max(len(training), len(validation))
    plot = Plot(
        f"Losses of {name}",
        Scale(0.5, longest + 0.5, left, right),
        around([*training, *validation], bottom, top, margin=0.1),
        width,
        height,
    )
    plot.axis_y(name, most=3)
    plot.axis_x("epoch", {float(i): str(i) for i in epochs_below(longest, 5)})
    for series, values in ((TRAINING, training), (VALIDATION, validation)):
        plot.line([(i + 1.0, value) for i, value in enumerate(values)], series, series.name)
        for i, value in enumerate(values):
            plot.mark(i + 1, value, series, f"{series.name} loss {short(value)} after epoch {i + 1}", 2.5)
    return plot.svg()


TRAINING, VALIDATION = Series("training", "c1", 0, "5 3"), Series("validation", "c0", 0)


def reliability(series: Series, raw: Bins, scaled: Bins | None, floor: float, note: str) -> Markup:
    """Draw how often a model is right against how sure it is; on the diagonal it is as sure as it should be.

    :param series: The model.
    :param raw: Its answers as they are.
    :param scaled: Those after its logits were divided by a temperature.
    :param floor: The least confidence there can be.
    :param note: What stands below.
    """
    width, height = 240.0, 250.0
    left, right, bottom, top = frame(width, height, 42)
    start = 0.1 * int(10 * floor + 1e-9)
    least = min([start, *raw.accuracy.tolist(), *(scaled.accuracy.tolist() if scaled else [])])
    plot = Plot(
        f"Reliability of {series.name}: {note}",
        Scale(start, 1.0, left, right),
        Scale(least, 1.0, bottom, top),
        width,
        height,
    )
    plot.axis_y(series.name, percent, 4)
    plot.axis_x("how sure it is", write=percent, most=4)
    plot.line([(start, start), (1.0, 1.0)], GREY, "as sure as it should be", "frontier")
    total = max(1, int(raw.rows.sum()))
    if scaled is not None:
        plot.line(
            list(zip(scaled.confidence.tolist(), scaled.accuracy.tolist(), strict=True)), GREY, "after scaling", ""
        )
        for sure, right_, rows in zip(
            scaled.confidence.tolist(), scaled.accuracy.tolist(), scaled.rows.tolist(), strict=True
        ):
            told = f"after scaling: {rows:,} rows, {percent(sure)} sure, {percent(right_)} right"
            plot.mark(sure, right_, Series("", series.colour, 0), told, 2 + 7 * (rows / total) ** 0.5, "hollow")
    for sure, right_, rows in zip(raw.confidence.tolist(), raw.accuracy.tolist(), raw.rows.tolist(), strict=True):
        told = f"{rows:,} rows, {percent(sure)} sure, {percent(right_)} right"
        plot.mark(sure, right_, Series("", series.colour, 0), told, 2 + 7 * (rows / total) ** 0.5)
    plot.note(right - 4, bottom - 8, note, "end")
    return plot.svg()


def histogram(
    label: str, edges: Sequence[float], counts: Mapping[Series, NDArray[np.int64]], x_title: str, shares: bool
) -> Markup:
    """Draw how values lie, as shares of the rows of each series, side by side.

    :param label: What the figure shows.
    :param edges: The ends of the bins, one more than there are bins.
    :param counts: Rows in each bin.
    :param x_title: What the values are.
    :param shares: Whether they are shares.
    """
    left, right, bottom, top = frame()
    parts = {series: found / max(1, found.sum()) for series, found in counts.items()}
    highest = max(float(found.max(initial=0)) for found in parts.values()) or 1.0
    plot = Plot(label, Scale(edges[0], edges[-1], left, right), Scale(0.0, 1.05 * highest, bottom, top))
    plot.axis_y("rows", percent)
    write = percent if shares else short
    plot.axis_x(x_title, write=write)
    for i, (low, high) in enumerate(pairwise(edges)):
        a, b = plot.x(low) + 0.8, plot.x(high) - 0.8
        each = (b - a) / len(parts)
        for k, (series, found) in enumerate(parts.items()):
            if counts[series][i]:
                told = f"{series.name}: {counts[series][i]:,} rows ({percent(found[i])}) from {write(low)} to {write(high)}"
                plot.bar(a + k * each, a + (k + 1) * each, plot.y(found[i]), bottom, series, told)
    return plot.svg()


def bars(label: str, values: Mapping[str, tuple[float, str]], x_title: str, series: Series) -> Markup:
    """Draw a horizontal bar for each share.

    :param label: What the figure shows.
    :param values: By name, the share and what is said of it; at least one.
    :param x_title: What the shares are.
    :param series: Their look.
    """
    plot = _with_rows(label, list(values), Scale(0.0, 1.2 * (max(value for value, _ in values.values()) or 1.0), 0, 0))
    plot.axis_x(x_title, write=percent)
    for i, (name, (value, told)) in enumerate(values.items()):
        at = plot.y(len(values) - 1 - i)
        plot.bar(plot.x.start, plot.x(value), at - 9, at + 9, series, f"{name}: {told}")
        plot.note(plot.x(value) + 6, at + 4, percent(value))
    return plot.svg()


def _with_rows(label: str, names: Sequence[str], x: Scale) -> Plot:
    """Return a plot with a name for each row on its left, the first one on top, at n - 1 of its vertical axis, the last one at 0."""
    wide = 30 + LETTER * max(len(name) for name in names)
    height = 54.0 + min(56.0, max(32.0, 246.0 / len(names))) * len(names)
    left, right, bottom, _ = frame(WIDTH, height, wide)
    plot = Plot(label, Scale(x.low, x.high, left, right), Scale(-0.6, len(names) - 0.4, bottom, 10), WIDTH, height)
    plot.rows_y(names)
    return plot


@dataclass(frozen=True)
class Cell:
    """A measured value with its interval, in a grid of settings.

    :param series: Its look; points of a series are joined.
    :param x: The setting that the horizontal axis shows, 0 or more.
    :param y: The value.
    :param low: The end of its interval.
    :param high: The other end.
    :param told: What is said of it.
    """

    series: Series
    x: float
    y: float
    low: float
    high: float
    told: str


def growth(
    label: str, cells: Sequence[Cell], x_title: str, y_title: str, shares: bool, level: tuple[Series, float]
) -> Markup:
    """Draw values with intervals against a number of copies, on an axis on which 1 + x is logarithmic.

    :param label: What the figure shows.
    :param cells: At least one.
    :param x_title: What is counted.
    :param y_title: What the values are.
    :param shares: Whether they are shares.
    :param level: A value to compare with.
    """
    left, right, bottom, top = frame()
    ends = [end for cell in cells for end in (cell.low, cell.high, cell.y)] + [level[1]]
    most = max(cell.x for cell in cells)
    plot = Plot(label, Scale(0.75, 1.25 * (1 + most), left, right, log=True), around(ends, bottom, top, margin=0.08))
    write = percent if shares else short
    plot.axis_y(y_title, write)
    plot.axis_x(x_title, {1 + x: short(x) for x in sorted({cell.x for cell in cells})})
    plot.level(level[1], level[0], f"{level[0].name}: {write(level[1])}")
    lines: dict[Series, list[Cell]] = {}
    for cell in sorted(cells, key=lambda cell: cell.x):
        lines.setdefault(cell.series, []).append(cell)
    for k, (series, line) in enumerate(lines.items()):
        dx = 9.0 * (k - (len(lines) - 1) / 2)
        plot.line([(1 + cell.x, cell.y) for cell in line], series, series.name, dx=dx)
        for cell in line:
            plot.whisker(1 + cell.x, cell.low, cell.high, series, dx)
            plot.mark(1 + cell.x, cell.y, series, cell.told, dx=dx)
    return plot.svg()


def forest(label: str, rows: Mapping[str, Sequence[Cell]], x_title: str, shares: bool) -> Markup:
    """Draw values with their intervals, a row for each setting.

    :param label: What the figure shows.
    :param rows: By name, a cell or more each.
    :param x_title: What the values are.
    :param shares: Whether they are shares.
    """
    ends = [end for row in rows.values() for cell in row for end in (cell.low, cell.high, cell.y)]
    plot = _with_rows(label, list(rows), around(ends, 0, 0))
    plot.axis_x(x_title, write=percent if shares else short)
    for i, row in enumerate(rows.values()):
        for k, cell in enumerate(row):
            dy = 11.0 * (k - (len(row) - 1) / 2)
            plot.whisker_x(len(rows) - 1 - i, cell.low, cell.high, cell.series, dy)
            plot.mark(cell.y, len(rows) - 1 - i, cell.series, cell.told, dy=dy)
    return plot.svg()


def against(label: str, right: NDArray[np.float64], said: NDArray[np.float64], series: Series) -> Markup:
    """Draw what a model of numbers says against what is right.

    :param label: What the figure shows.
    :param right: What is right, [n], n > 0; finite.
    :param said: What was said, [n].
    :param series: The model's look.
    """
    left, end, bottom, top = frame(320.0, 320.0)
    both = [*right.tolist(), *said.tolist()]
    x = around(both, left, end)
    plot = Plot(label, x, Scale(x.low, x.high, bottom, top), 320.0, 320.0)
    plot.axis_y(series.name)
    plot.axis_x("gold")
    plot.line([(x.low, x.low), (x.high, x.high)], GREY, "as it should be", "frontier")
    for a, b in zip(right.tolist(), said.tolist(), strict=True):
        plot.mark(a, b, series, f"gold {short(a)}, said {short(b)}", 3, "faint")
    return plot.svg()
