"""The kinds of figures in a report, from numbers to SVG."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pipeline.metrics.calibration import Bins
from pipeline.report.drawing import LETTER, WIDTH, Plot, Series
from pipeline.report.scales import Format, Scale, around, percent, short

NAMED = 14
"""Up to this many points of a scatter plot all have their names; of more, only those on the Pareto frontier."""

STAR = 5
GREY = Series("", "grey")
TRAINING, VALIDATION = Series("training loss", "c1", 0, "5 3"), Series("validation loss", "c0", 0)


@dataclass(frozen=True)
class Point:
    """A measured value with its interval.

    :param series: Its colour and shape; `growth` joins the points of a series.
    :param x: A cost or a setting.
    :param low: The lower end of the interval; None where unknown, as is `high`.
    :param title: The tooltip; `scatter` writes its own.
    """

    series: Series
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    title: str = ""


def _ends(points: Iterable[Point]) -> list[float]:
    return [end for point in points for end in (point.y, point.low, point.high) if end is not None]


def scatter(label: str, points: Sequence[Point], x_title: str, y_title: str, write: Format) -> Markup:
    """Draw scores against costs, with intervals and the Pareto frontier.

    :param points: At least one; x > 0, on a logarithmic axis.
    :param write: The format of scores.
    """
    plot = Plot(label, around((p.x for p in points), log=True, margin=0.12), around(_ends(points)))
    plot.axis_y(y_title, write)
    plot.axis_x(x_title)
    best = frontier(points)
    steps = [corner for a, b in pairwise(best) for corner in ((a.x, a.y), (b.x, a.y))]
    steps += [(best[-1].x, best[-1].y), (plot.x.high, best[-1].y)]
    plot.line(steps, GREY, "Pareto frontier: no other model is both better and cheaper", "frontier")
    for point in points:
        plot.whisker(point.x, point.low, point.high, point.series)
    for point in points:
        interval = "" if point.low is None or point.high is None else f" ({write(point.low)} to {write(point.high)})"
        title = f"{point.series.name}: {write(point.y)}{interval}; {x_title} {short(point.x)}"
        plot.mark(point.x, point.y, point.series, title, 7 if point.series.shape == STAR else 5.5)
    for point in sorted(points, key=lambda p: (p not in best, -p.y)):
        if len(points) <= NAMED or point in best:
            plot.name(point.x, point.y, point.series, must=point in best)
    return plot.svg()


def frontier(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other point beats in both cost and score, the cheapest first."""
    found: list[Point] = []
    for point in sorted(points, key=lambda p: (p.x, -p.y)):
        if not found or point.y > found[-1].y:
            found.append(point)
    return found


def curves(
    label: str,
    lines: Mapping[Series, Sequence[float]],
    y_title: str,
    write: Format,
    level: tuple[Series, float] | None = None,
) -> Markup:
    """Draw a value after each epoch, one line per series, with a point at its greatest value.

    :param lines: The values of epoch 1, 2 and so on; finite, at least one.
    :param level: A value to compare with, drawn across.
    """
    longest = max(map(len, lines.values()))
    everything = chain(*lines.values(), [level[1]] if level else [])
    plot = Plot(label, Scale(0.5, longest + 0.5), around(everything, margin=0.1))
    plot.axis_y(y_title, write)
    plot.axis_x("epoch", {float(i): str(i) for i in epochs_below(longest)})
    if level is not None:
        plot.level(*level, write)
    for series, values in lines.items():
        plot.line(list(enumerate(values, 1)), series, series.name)
    for series, values in lines.items():
        at = int(np.argmax(values))
        plot.mark(at + 1, values[at], series, f"{series.name}: best in epoch {at + 1}, {write(values[at])}")
    return plot.svg()


def epochs_below(longest: int, most: int = 10) -> list[int]:
    """Return the epochs that are written below an axis, about `most` of 1 to `longest`."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 1000) if longest <= most * step or step == 1000)
    return [*([1] if step >= 5 else []), *range(step, longest + 1, step)]


def losses(name: str, training: Sequence[float], validation: Sequence[float]) -> Markup:
    """Draw the training and validation loss of one student after each epoch, finite numbers, small."""
    longest = max(len(training), len(validation))
    y = around([*training, *validation], margin=0.1)
    plot = Plot(f"Losses of {name}", Scale(0.5, longest + 0.5), y, 230.0, 170.0, left=44)
    plot.axis_y(name, most=3)
    plot.axis_x("epoch", {float(i): str(i) for i in epochs_below(longest, 5)})
    for series, values in ((TRAINING, training), (VALIDATION, validation)):
        plot.line(list(enumerate(values, 1)), series, series.name)
        for epoch, value in enumerate(values, 1):
            plot.mark(epoch, value, series, f"{series.name} {short(value)} after epoch {epoch}", 2.5)
    return plot.svg()


def reliability(series: Series, steps: Sequence[Bins], floor: float, note: str) -> Markup:
    """Draw accuracy against confidence; a calibrated model is on the diagonal.

    :param series: The model.
    :param steps: Its predictions, then those after temperature scaling, where known.
    :param floor: The least possible confidence.
    :param note: A text in the corner.
    """
    start = 0.1 * int(10 * floor + 1e-9)
    least = min(start, *(float(bins.accuracy.min()) for bins in steps))
    label = f"Reliability of {series.name}: {note}"
    plot = Plot(label, Scale(start, 1.0), Scale(least, 1.0), 240.0, 250.0, left=42)
    plot.axis_y(series.name, percent, 4)
    plot.axis_x("confidence", write=percent, most=4)
    plot.line([(start, start), (1.0, 1.0)], GREY, "perfectly calibrated", "frontier")
    for i, bins in reversed(list(enumerate(steps))):
        before, more = ("after scaling: ", "hollow") if i else ("", "")
        places = list(zip(bins.confidence.tolist(), bins.accuracy.tolist(), strict=True))
        if i:
            plot.line(places, GREY, "after scaling", "")
        for (confidence, accuracy), rows in zip(places, bins.rows.tolist(), strict=True):
            title = f"{before}{rows:,} rows, confidence {percent(confidence)}, accuracy {percent(accuracy)}"
            radius = 2 + 7 * (rows / bins.rows.sum()) ** 0.5
            plot.mark(confidence, accuracy, Series("", series.colour), title, radius, more)
    plot.text(note, "note", plot.x.end - 4, plot.y.start - 8, "end")
    return plot.svg()


def histogram(
    label: str, edges: Sequence[float], counts: Mapping[Series, NDArray[np.int64]], x_title: str, write: Format
) -> Markup:
    """Draw a histogram: shares of the rows of each series, next to each other.

    :param edges: The ends of the bins, one more than there are bins.
    :param counts: Rows in each bin.
    """
    parts = {series: found / max(1, found.sum()) for series, found in counts.items()}
    highest = max(float(found.max(initial=0)) for found in parts.values()) or 1.0
    plot = Plot(label, Scale(edges[0], edges[-1]), Scale(0.0, 1.05 * highest))
    plot.axis_y("rows", percent)
    plot.axis_x(x_title, write=write)
    for i, (low, high) in enumerate(pairwise(edges)):
        a, b = plot.x(low) + 0.8, plot.x(high) - 0.8
        each = (b - a) / len(parts)
        for k, (series, found) in enumerate(parts.items()):
            if rows := counts[series][i]:
                title = f"{series.name}: {rows:,} rows ({percent(found[i])}) from {write(low)} to {write(high)}"
                plot.bar(a + k * each, a + (k + 1) * each, plot.y(found[i]), plot.y.start, series, title)
    return plot.svg()


def bars(label: str, values: Mapping[str, tuple[float, str]], x_title: str, series: Series) -> Markup:
    """Draw a horizontal bar for each of one or more shares, given by name with its tooltip."""
    plot = _with_rows(label, list(values), Scale(0.0, 1.2 * (max(value for value, _ in values.values()) or 1.0)))
    plot.axis_x(x_title, write=percent)
    for i, (name, (value, title)) in enumerate(values.items()):
        at = plot.y(len(values) - 1 - i)
        plot.bar(plot.x.start, plot.x(value), at - 9, at + 9, series, f"{name}: {title}")
        plot.text(percent(value), "note", plot.x(value) + 6, at + 4)
    return plot.svg()


def _with_rows(label: str, names: Sequence[str], x: Scale) -> Plot:
    """Return a plot with a line for each of n names, the first at n - 1 of its vertical axis and the last at 0."""
    wide = 30 + LETTER * max(len(name) for name in names)
    height = 54.0 + min(56.0, max(32.0, 246.0 / len(names))) * len(names)
    plot = Plot(label, x, Scale(-0.6, len(names) - 0.4), WIDTH, height, wide, top=10)
    for i, name in enumerate(reversed(names)):
        plot.across("grid", plot.y(i))
        plot.text(name, "tick", plot.x.start - 9, plot.y(i) + 4, "end")
    return plot


RIGHT, WRONG = Series("right", "c0"), Series("wrong", "c1", 1)

LONGEST = 16
"""Letters of a class name next to a confusion matrix."""


def confusions(name: str, matrix: NDArray[np.int64], names: Sequence[str]) -> Markup:
    """Draw a confusion matrix: a row for each label, a column for each predicted class.

    :param name: The model's name.
    :param matrix: The number of rows, [C, C]; the colour is the share of a label's rows.
    :param names: The C class names.
    """
    classes = len(names)
    short_names = [one if len(one) <= LONGEST else f"{one[: LONGEST - 1]}…" for one in names]
    wide = LETTER * max(map(len, short_names)) + 14
    turned = max(map(len, short_names)) * LETTER > (WIDTH - wide) / classes - 6
    below = 14.0 + (wide if turned else 12.0)
    height = 34 + below + min(56.0, 300.0 / classes) * classes
    ends = Scale(-0.5, classes - 0.5)
    plot = Plot(f"Confusion matrix of {name}", ends, ends, WIDTH, height, wide, top=30, bottom=below)
    plot.text(f"{name}: rows by label (left) and prediction (below)", "title", 4.0, 14.0)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    for i, label in enumerate(names):
        at = classes - 1 - i
        plot.text(short_names[i], "tick", plot.x.start - 7, plot.y(at) + 4, "end")
        place = (plot.x(i) + 4, plot.y.start + 8) if turned else (plot.x(i), plot.y.start + 16)
        plot.text(short_names[i], "tick", *place, "end" if turned else "middle", turned)
        for j, predicted in enumerate(names):
            rows = int(matrix[i, j])
            title = f"{rows:,} rows of {label} ({percent(shares[i, j])}) are predicted as {predicted}"
            plot.cell(j, at, RIGHT if i == j else WRONG, float(shares[i, j]), f"{rows:,}" if rows else "", title)
    return plot.svg()


def growth(
    label: str, points: Sequence[Point], x_title: str, y_title: str, write: Format, level: tuple[Series, float]
) -> Markup:
    """Draw values with intervals against a number of copies, with 1 + x on a logarithmic axis.

    :param points: At least one; x >= 0.
    :param level: A value to compare with.
    """
    most = max(point.x for point in points)
    y = around([*_ends(points), level[1]], margin=0.08)
    plot = Plot(label, Scale(0.75, 1.25 * (1 + most), log=True), y)
    plot.axis_y(y_title, write)
    plot.axis_x(x_title, {1 + x: short(x) for x in sorted({point.x for point in points})})
    plot.level(*level, write)
    lines: dict[Series, list[Point]] = {}
    for point in sorted(points, key=lambda point: point.x):
        lines.setdefault(point.series, []).append(point)
    for k, (series, line) in enumerate(lines.items()):
        dx = 9.0 * (k - (len(lines) - 1) / 2)
        plot.line([(1 + point.x, point.y) for point in line], series, series.name, dx=dx)
        for point in line:
            plot.whisker(1 + point.x, point.low, point.high, series, dx)
            plot.mark(1 + point.x, point.y, series, point.title, dx=dx)
    return plot.svg()


def forest(label: str, rows: Mapping[str, Sequence[Point]], x_title: str, write: Format) -> Markup:
    """Draw values with their intervals, one row per setting with one or more points."""
    plot = _with_rows(label, list(rows), around(_ends(point for row in rows.values() for point in row)))
    plot.axis_x(x_title, write=write)
    for i, row in enumerate(rows.values()):
        for k, point in enumerate(row):
            dy = 11.0 * (k - (len(row) - 1) / 2)
            plot.whisker(len(rows) - 1 - i, point.low, point.high, point.series, dy, horizontal=True)
            plot.mark(point.y, len(rows) - 1 - i, point.series, point.title, dy=dy)
    return plot.svg()


def against(label: str, gold: NDArray[np.float64], predicted: NDArray[np.float64], series: Series) -> Markup:
    """Draw predictions of a regression, [n], against gold values, [n], n > 0; all are finite."""
    both = around([*gold.tolist(), *predicted.tolist()])
    plot = Plot(label, both, both, 320.0, 320.0)
    plot.axis_y(series.name)
    plot.axis_x("gold")
    plot.line([(both.low, both.low), (both.high, both.high)], GREY, "prediction equals gold", "frontier")
    for a, b in zip(gold.tolist(), predicted.tolist(), strict=True):
        plot.mark(a, b, series, f"gold {short(a)}, predicted {short(b)}", 3, "faint")
    return plot.svg()
