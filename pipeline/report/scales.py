"""Axes: from values to coordinates, round values for ticks, and how numbers are written next to them."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

NEAR = 1e-9
"""Relative error of a tick that is still on the axis."""

Format = Callable[[float], str]
"""Writes a value of an axis."""


def short(value: float) -> str:
    """Write a finite number with three digits: 0.33, 12, 5.4k, 11M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def percent(value: float) -> str:
    """Write a share as a percentage with three digits."""
    return f"{100 * value:.3g}%"


@dataclass(frozen=True)
class Scale:
    """The scale of an axis, logarithmic where `log`.

    :param low: The value at the coordinate `start`; more than 0 on a logarithmic axis.
    :param high: The value at the coordinate `end`, more than `low`.
    """

    low: float
    high: float
    start: float = 0.0
    end: float = 1.0
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the coordinate of a value; values outside the axis are clipped to its ends."""
        value = min(max(value, self.low), self.high)
        low, high, at = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (at - low) / (high - low)

    def ticks(self, most: int = 6) -> list[float]:
        """Return about `most` round values on the axis: multiples of 1, 2 or 5 times a power of ten; on a logarithmic axis, those numbers."""
        return _round_factors(self.low, self.high, most) if self.log else _round_multiples(self.low, self.high, most)


def around(values: Iterable[float], log: bool = False, margin: float = 0.06) -> Scale:
    """Return a scale that covers values, and on each side a share of their range.

    :param values: Finite values; more than 0 where `log`.
    """
    known = list(values) or [1.0]
    low, high = min(known), max(known)
    if log:
        factor = (high / low) ** margin if high > low * (1 + NEAR) else 3.0
        return Scale(low / factor, high * factor, log=True)
    room = (high - low) * margin if high - low > NEAR * max(abs(high), 1e-3) else max(abs(high) * 0.1, 1e-3)
    return Scale(low - room, high + room)


def _round_multiples(low: float, high: float, most: int) -> list[float]:
    power = 10.0 ** math.floor(math.log10((high - low) / max(1, most)))
    found: list[float] = []
    for step in (power * factor for factor in (10, 5, 2, 1, 0.5, 0.2)):
        inside = range(math.ceil(low / step - NEAR), math.floor(high / step + NEAR) + 1)
        if len(inside) > most and len(found) > 1:
            break
        found = [i * step for i in inside]
    return found


def _round_factors(low: float, high: float, most: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [f * 10.0**p for p in powers for f in factors if low * (1 - NEAR) <= f * 10.0**p <= high * (1 + NEAR)]
        if len(found) <= most:
            break
    found = found[:: math.ceil(len(found) / most)] if len(found) > most else found
    return found if len(found) > 1 else _round_multiples(low, high, most)
