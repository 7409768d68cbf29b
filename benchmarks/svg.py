"""Charts as SVG: lines over two logarithmic axes. They need no other file, no script and no font of their own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from xml.sax.saxutils import escape

from attrs import frozen

__all__ = ["Chart", "Line", "svg"]

WIDTH: Final = 700
HEIGHT: Final = 430
LEFT: Final = 78.0
RIGHT: Final = 680.0
BOTTOM: Final = 370.0
ROW: Final = 20
"""The height of a line of the legend."""
HEAD: Final = 44
"""Above the legend, for the title."""

STYLE: Final = """
text { font: 13px system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif; fill: #1a1a1a }
.title { font-size: 16px; font-weight: 600 } .page { fill: #fff } .grid { stroke: #e0e0e0 }
.l0 { stroke: #0b57a4; fill: #0b57a4 } .l1 { stroke: #b23a00; fill: #b23a00 } .l2 { stroke: #1b6e2c; fill: #1b6e2c }
.promise { stroke: #595959; stroke-dasharray: 7 4; fill: none }
path.l0, path.l1, path.l2 { fill: none; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
text { fill: #e6e6e6 } .page { fill: #14171c } .grid { stroke: #363b44 } .promise { stroke: #b0b5bd }
.l0 { stroke: #6cb2ff; fill: #6cb2ff } .l1 { stroke: #ff9d66; fill: #ff9d66 } .l2 { stroke: #74d68a; fill: #74d68a }
path.l0, path.l1, path.l2 { fill: none } }
"""
"""The page is painted, so that the chart is readable wherever it stands."""
DASHES: Final = ("", ' stroke-dasharray="9 3"', ' stroke-dasharray="3 3"')
"""So that no line rests on its colour alone."""


@frozen
class Line:
    """One line of a chart: its `points`, each x and y above 0, from left to right."""

    name: str
    points: tuple[tuple[float, float], ...]


@frozen
class Chart:
    """What is drawn: at most three lines, the names of the axes with their units, and what the design promises: `bound`
    in the unit of the y axis.
    """

    name: str
    title: str
    x: str
    y: str
    lines: tuple[Line, ...]
    bound: float | None = None
    promise: str = ""


@frozen
class _Axis:
    """A logarithmic axis: from the value `low` to `high`, which are drawn at the pixels `start` and `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return where a value is drawn."""
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)


def svg(chart: Chart) -> str:
    """Return the chart as an SVG, 700 pixels wide. The same chart makes the same text."""
    values = [y for line in chart.lines for _, y in line.points] + ([] if chart.bound is None else [chart.bound])
    xs = sorted({x for line in chart.lines for x, _ in line.points})
    top = float(HEAD + ROW * (len(chart.lines) + (chart.bound is not None)))
    low, high = 10 ** math.floor(math.log10(min(values))), 10 ** math.ceil(math.log10(max(values)))
    right = xs[-1] if xs[-1] > xs[0] else xs[0] * 10
    across, up = _Axis(xs[0], right, LEFT, RIGHT), _Axis(low, max(high, low * 10), BOTTOM, top)
    told = "; ".join(f"{line.name}: {_spoken(line.points)}" for line in chart.lines)
    size = f'width="{WIDTH}" height="{HEIGHT}"'
    called = 'role="img" aria-labelledby="title described"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {size} {called}>',
        f'<title id="title">{escape(chart.title)}</title>',
        f'<desc id="described">{escape(f"{chart.y} over {chart.x}. {told}. {chart.promise}")}</desc>',
        f"<style>{escape(STYLE)}</style>",
        f'<rect class="page" {size}/>',
        f'<text class="title" x="16" y="26">{escape(chart.title)}</text>',
        *_grid(across, up, xs, top),
        f'<text text-anchor="middle" x="{(LEFT + RIGHT) / 2:g}" y="{HEIGHT - 16}">{escape(chart.x)}</text>',
        f'<text text-anchor="middle" {_turned(18, (top + BOTTOM) / 2)}>{escape(chart.y)}</text>',
        *_lines(chart.lines, across, up),
    ]
    if chart.bound is not None:
        y = HEAD + ROW * len(chart.lines)
        parts.append(f'<path class="promise" d="M{LEFT:g} {up.at(chart.bound):.1f}H{RIGHT:g}M{LEFT:g} {y - 4}h26"/>')
        parts.append(f'<text x="{LEFT + 34:g}" y="{y}">{escape(chart.promise)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _turned(x: float, y: float) -> str:
    return f'transform="translate({x:g} {y:g}) rotate(-90)"'


def _grid(across: _Axis, up: _Axis, xs: Sequence[float], top: float) -> Iterator[str]:
    for x in xs:
        at = across.at(x)
        yield f'<path class="grid" d="M{at:.1f} {top:g}V{BOTTOM:g}"/>'
        yield f'<text x="{at:.1f}" y="{BOTTOM + 20:g}" text-anchor="middle">{_number(x)}</text>'
    value = up.low
    while value <= up.high * 1.001:
        at = up.at(value)
        yield f'<path class="grid" d="M{LEFT:g} {at:.1f}H{RIGHT:g}"/>'
        yield f'<text x="{LEFT - 8:g}" y="{at + 4:.1f}" text-anchor="end">{_number(value)}</text>'
        value *= 10


def _lines(lines: Iterable[Line], across: _Axis, up: _Axis) -> Iterator[str]:
    for number, line in enumerate(lines):
        places = [(across.at(x), up.at(y), x, y) for x, y in line.points]
        path = "L".join(f"{left:.1f} {down:.1f}" for left, down, _, _ in places)
        y = HEAD + ROW * number
        yield f'<path class="l{number}" d="M{path}"{DASHES[number]}/>'
        yield f'<path class="l{number}" d="M{LEFT:g} {y - 4}h26"{DASHES[number]}/>'
        yield f'<text x="{LEFT + 34:g}" y="{y}">{escape(line.name)}</text>'
        for left, down, at, value in places:
            said = f"<title>{escape(line.name)}, at {_number(at)}: {_number(value)}</title>"
            yield f'<circle class="l{number}" cx="{left:.1f}" cy="{down:.1f}" r="3.5">{said}</circle>'


def _spoken(points: Iterable[tuple[float, float]]) -> str:
    return ", ".join(f"{_number(y)} at {_number(x)}" for x, y in points)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
