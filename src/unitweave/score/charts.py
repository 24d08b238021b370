"""Small line charts as inline SVG: colored by the page's style sheet, so that they follow light and dark.

Lines differ in dash and end marker as well as in color, and carry their name at their end.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 96, 14, 34
DASHES = ("", "7 4", "2 3", "10 3 2 3", "4 2", "1 4")


@dataclass
class Line:
    """One line of a chart: its name, its points (x, y), and whether it goes in steps."""

    name: str
    points: list[tuple[float, float]]
    steps: bool = False


def line_chart(title: str, x_label: str, lines: Sequence[Line], y_max: float | None = None) -> str:
    """An SVG element with all `lines`; empty when none of them has a point."""
    lines = [line for line in lines if any(math.isfinite(y) for _, y in line.points)]
    if not lines:
        return ""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points if math.isfinite(y)]
    x_high, y_high = max(xs) or 1.0, y_max or (max(ys, default=1.0) * 1.05) or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (WIDTH - LEFT - RIGHT) * x / x_high,
            HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(y, y_high) / y_high,
        )

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for tick in _ticks(y_high):
        x, y = at(0, tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in _ticks(x_high):
        x, y = at(tick, 0)
        parts.append(f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{tick:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>')
    ends = _apart([at(*line.points[-1])[1] for line in lines])
    for i, line in enumerate(lines):
        points = [at(x, y) for x, y in line.points if math.isfinite(y)]
        path = f"M{points[0][0]:.1f} {points[0][1]:.1f}" + "".join(
            f"H{x:.1f}V{y:.1f}" if line.steps else f"L{x:.1f} {y:.1f}" for x, y in points[1:]
        )
        parts.append(f'<path class="line c{i % 6}" stroke-dasharray="{DASHES[i % 6]}" d="{path}"/>')
        parts.append(
            f'<text class="name t{i % 6}" x="{points[-1][0] + 6:.1f}" y="{ends[i] + 4:.1f}">{escape(line.name)}</text>'
        )
    return "".join(parts) + "</svg>"


def _ticks(high: float) -> list[float]:
    step = 10 ** math.floor(math.log10(high))
    while high / step < 3:
        step /= 2
    while high / step > 6:
        step *= 2
    return [round(i * step, 10) for i in range(int(high / step + 1e-9) + 1)]


def _apart(ys: list[float], gap: float = 13.0) -> list[float]:
    """Move labels away from each other so that none covers another, and none leaves the chart."""
    order = sorted(range(len(ys)), key=lambda i: ys[i])
    moved = list(ys)
    for before, i in itertools.pairwise(order):
        moved[i] = max(moved[i], moved[before] + gap)
    limit = HEIGHT - BOTTOM + 1.0
    for i in reversed(order):
        moved[i] = min(moved[i], limit)
        limit = moved[i] - gap
    return moved
