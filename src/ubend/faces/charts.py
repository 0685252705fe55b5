"""Small charts as SVG inside a page: curves of a run, a histogram, an interval on a scale.

They take their colours and font from the page (classes `axis`, `one`, `two`, `band`), so that they follow it into the
dark and onto paper, and each says in words what it shows.
"""

import math
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["curve", "histogram", "interval"]

_WIDTH, _HEIGHT = 480, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 12, 40
_FEWEST_POINTS, _MOST_POINTS = 12, 90
_MEDIAN_OF = 8
_BINS = 16


def curve(x: ArrayLike, y: ArrayLike, *, title: str, x_label: str, y_label: str, logarithmic: bool = False) -> str:
    """Draw one curve; of many points the median of neighbours, and a band from their 10th to their 90th percentile.

    Parameters
    ----------
    x, y : array of float, shape (points,)
        At least one; x ascending.
    title : str
        What it shows, in words: for those who do not see it.
    x_label, y_label : str
        Beside the axes.
    logarithmic : bool
        Of y, which then is above 0.

    Returns
    -------
    str
        One ``<svg>`` element.
    """
    places, values = np.asarray(x, np.float64), np.asarray(y, np.float64)
    points = max(_FEWEST_POINTS, min(len(places) // _MEDIAN_OF, _MOST_POINTS))
    groups = np.array_split(np.arange(len(places)), min(len(places), points))
    middle = np.array([[places[g].mean(), *np.quantile(values[g], (0.1, 0.5, 0.9))] for g in groups])
    at, low, median, high = middle.T
    ends = (low.min(), high.max()) if logarithmic else (0.0, max(high.max(), 1e-12))
    across = _Axis(0.0, max(float(at[-1]), 1e-9), _LEFT, _WIDTH - _RIGHT)
    up = _Axis(float(ends[0]), float(ends[1]), _HEIGHT - _BOTTOM, _TOP, logarithmic=logarithmic)
    parts = [_grid(across, up, x_label, y_label)]
    if any(len(g) > 1 for g in groups):
        outline = [*zip(at, low, strict=True), *zip(at[::-1], high[::-1], strict=True)]
        parts.append(f'<polygon class="band" points="{_points(outline, across, up)}"/>')
    parts.append(f'<polyline class="one" points="{_points([*zip(at, median, strict=True)], across, up)}"/>')
    return _svg(title, "".join(parts))


def histogram(first: ArrayLike, second: ArrayLike, *, title: str, x_label: str, names: tuple[str, str]) -> str:
    """Draw how often values occur in two sets: bars for the first, a dashed line of steps for the second.

    Parameters
    ----------
    first, second : array of float, shape (values,)
        From 0 on; at least one value in all.
    title : str
        What it shows, in words.
    x_label : str
    names : (str, str)
        Of the sets.

    Returns
    -------
    str
        One ``<svg>`` element.
    """
    values = [np.asarray(one, np.float64) for one in (first, second)]
    largest = max(float(one.max(initial=0.0)) for one in values)
    edges = np.linspace(0, largest or 1.0, _BINS + 1)
    counts = [np.histogram(one, edges)[0] for one in values]
    across = _Axis(0.0, float(edges[-1]), _LEFT, _WIDTH - _RIGHT)
    up = _Axis(0.0, float(max(c.max() for c in counts)), _HEIGHT - _BOTTOM, _TOP + 18)
    bars = "".join(
        f'<rect class="bar" x="{across(left) + 1:.1f}" y="{up(n):.1f}" width="{across(right) - across(left) - 2:.1f}" '
        f'height="{up(0) - up(n):.1f}"/>'
        for left, right, n in zip(edges[:-1], edges[1:], counts[0], strict=True)
        if n
    )
    steps = [(edges[0], 0.0)]
    for left, right, n in zip(edges[:-1], edges[1:], counts[1], strict=True):
        steps += [(left, float(n)), (right, float(n))]
    line = f'<polyline class="two" points="{_points([*steps, (edges[-1], 0.0)], across, up)}"/>'
    key = (
        f'<rect class="bar" x="{_LEFT}" y="2" width="14" height="10"/><text x="{_LEFT + 20}" y="11">{escape(names[0])}'
        f'</text><line class="two" x1="{_LEFT + 130}" x2="{_LEFT + 150}" y1="7" y2="7"/>'
        f'<text x="{_LEFT + 156}" y="11">{escape(names[1])}</text>'
    )
    return _svg(title, _grid(across, up, x_label, "objects") + bars + line + key)


def interval(value: float, ends: tuple[float, float] | None, *, title: str) -> str:
    """Draw a score on a scale from 0 to 1, with its interval.

    Parameters
    ----------
    value : float
    ends : (float, float) or None
    title : str
        The same in words.

    Returns
    -------
    str
        One ``<svg>`` element.
    """
    across = _Axis(0.0, 1.0, 8, 312)
    parts = ['<line class="scale" x1="8" x2="312" y1="14" y2="14"/>']
    for tick in (0.0, 0.5, 1.0):
        parts.append(f'<line class="scale" x1="{across(tick):.1f}" x2="{across(tick):.1f}" y1="10" y2="18"/>')
        parts.append(f'<text x="{across(tick):.1f}" y="34" text-anchor="middle">{tick:g}</text>')
    if ends is not None:
        parts.append(f'<line class="range" x1="{across(ends[0]):.1f}" x2="{across(ends[1]):.1f}" y1="14" y2="14"/>')
    parts.append(f'<circle class="dot" cx="{across(value):.1f}" cy="14" r="6"/>')
    return _svg(title, "".join(parts), width=320, height=38)


class _Axis:
    """From values to places in the picture, and where to write numbers."""

    def __init__(self, low: float, high: float, start: float, end: float, *, logarithmic: bool = False) -> None:
        self.logarithmic = logarithmic
        if logarithmic:
            low, high = math.log10(low), math.log10(high)
        if high <= low:
            low, high = low - 0.5, high + 0.5
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        value = math.log10(value) if self.logarithmic else value
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return about five round numbers."""
        if self.logarithmic and self.high - self.low >= 1:
            return [10.0**k for k in range(math.ceil(self.low), math.floor(self.high) + 1)]
        low, high = (10**self.low, 10**self.high) if self.logarithmic else (self.low, self.high)
        step = _round_step((high - low) / 4)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return [k * step for k in range(first, last + 1)]


def _round_step(step: float) -> float:
    """Round to 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return min((1, 2, 5, 10), key=lambda k: abs(k * power - step)) * power


def _grid(across: _Axis, up: _Axis, x_label: str, y_label: str) -> str:
    parts = []
    for value in up.ticks():
        y = up(value)
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>')
    for value in across.ticks():
        x = across(value)
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{_number(value)}</text>')
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 6}" text-anchor="end">{escape(x_label)}</text>')
    parts.append(
        f'<text x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">{escape(y_label)}</text>'
    )
    return "".join(parts)


def _points(pairs: Sequence[tuple[float, float]], across: _Axis, up: _Axis) -> str:
    return " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in pairs)


def _number(value: float) -> str:
    if not 0 < abs(value) < 0.01:
        return f"{value:.10g}"
    factor, power = f"{value:.1e}".split("e")
    return f"{factor.removesuffix('.0')}e{int(power)}"


def _svg(title: str, inside: str, *, width: int = _WIDTH, height: int = _HEIGHT) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">{inside}</svg>'
