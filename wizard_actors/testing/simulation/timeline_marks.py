"""What a timeline is drawn with: paths and texts whose places are known, and how they are written as SVG. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Final, Literal, TypeAlias
from xml.sax.saxutils import escape, quoteattr
from zlib import crc32

from attrs import frozen

__all__ = [
    "FAINT",
    "HATCH",
    "INK",
    "QUIET",
    "Box",
    "Drawing",
    "Mark",
    "Path",
    "Text",
    "bars",
    "cross",
    "diamond",
    "number",
    "rectangle",
    "shortened",
    "spread",
    "strokes",
    "svg",
    "text_width",
    "wrapped",
]

INK: Final = "#1a1a1a"
QUIET: Final = "#595959"
FAINT: Final = "#e4e4e4"
HATCH: Final = "hatch"
"""The fill of what failed: stripes, so that it does not rest on a colour alone."""

FONTS: Final = "system-ui, 'Segoe UI', Roboto, Helvetica, Arial, 'DejaVu Sans', sans-serif"
FORBIDDEN: Final = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 does not allow, not even escaped."""

MARGIN_OF_LINE: Final = 1.2
"""How high a line of text is, in parts of its size."""

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@frozen(kw_only=True)
class Text:
    """A line of text; `y` is its base line. `full` is what was shortened, for whoever points at it."""

    x: float
    y: float
    text: str
    size: float = 11
    anchor: Literal["start", "middle", "end"] = "start"
    fill: str = INK
    bold: bool = False
    full: str | None = None

    @property
    def box(self) -> Box:
        """Where it is, a little more than less: fonts differ."""
        width = text_width(self.text, self.size, bold=self.bold)
        left = self.x - {"start": 0.0, "middle": width / 2, "end": width}[self.anchor]
        top = self.y - 0.95 * self.size
        return left, top, left + width, top + MARGIN_OF_LINE * self.size


@frozen(kw_only=True)
class Path:
    """A path, filled or stroked; a `crisp` one has no seams between shapes side by side. `title` is what whoever points
    at it is told.
    """

    d: str
    fill: str | None = None
    stroke: str | None = None
    width: float = 1
    opacity: float = 1
    dashes: str | None = None
    crisp: bool = False
    round_ends: bool = False
    title: str | None = None


Mark: TypeAlias = Text | Path


@frozen(kw_only=True)
class Drawing:
    """A picture: its marks, the lowest first, and its title and description for those who do not see it."""

    width: int
    height: int
    title: str
    description: str
    marks: tuple[Mark, ...]


# -- texts -----------------------------------------------------------------------------------------------------------


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Return about how wide a text is in a wide sans-serif font, in pixels."""
    ems = sum(_em(letter) for letter in text)
    return ems * size * (1.1 if bold else 1.0)


@lru_cache(4096)
def _em(letter: str) -> float:
    if unicodedata.combining(letter):
        return 0.0
    if unicodedata.east_asian_width(letter) in "WF" or letter in "WMm@%":
        return 1.0
    return 0.36 if letter in " .,:;'|!iljI()" else 0.64


def shortened(text: str, room: float, size: float, *, bold: bool = False) -> str:
    """Return a text that fits into `room` pixels: itself, or its beginning and its end with an ellipsis between, for
    names often differ at their ends.
    """
    text = " ".join(FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text).split())
    if text_width(text, size, bold=bold) <= room:
        return text
    low, high = 0, min(len(text) - 1, 400)
    while low < high:
        kept = (low + high + 1) // 2
        low, high = (kept, high) if text_width(_cut(text, kept), size, bold=bold) <= room else (low, kept - 1)
    return _cut(text, low)


def _cut(text: str, kept: int) -> str:
    tail = kept // 3
    return f"{text[: kept - tail]}\N{HORIZONTAL ELLIPSIS}{text[len(text) - tail :]}"


def wrapped(text: str, room: float, size: float, lines: int, *, bold: bool = False) -> list[str]:
    """Return a text as at most so many lines that fit into `room` pixels; the last of them ends in an ellipsis where
    there is more.
    """
    words, done = text.split(), list[str]()
    while words and len(done) < lines:
        kept, more = _fitting(words, room, size, bold=bold), ""
        if kept < len(words) and len(done) == lines - 1:
            more = " \N{HORIZONTAL ELLIPSIS}"
            kept = _fitting(words, room - text_width(more, size, bold=bold), size, bold=bold)
        left = room - text_width(more, size, bold=bold)
        done.append(shortened(" ".join(words[:kept]), left, size, bold=bold) + more)
        words = words[kept:]
    return done


def _fitting(words: Sequence[str], room: float, size: float, *, bold: bool) -> int:
    """Return how many of the words fit into a line, at least one."""
    kept = 1
    while kept < len(words) and text_width(" ".join(words[: kept + 1]), size, bold=bold) <= room:
        kept += 1
    return kept


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return places that are at least `gap` apart, in the same order, from `low` on and near those wanted; not beyond
    `high` where there is room for all of them.
    """
    places: list[float] = []
    for place in wanted:
        places.append(max(place, places[-1] + gap if places else low))
    limit = high
    for index in reversed(range(len(places))):
        places[index] = max(min(places[index], limit), low + index * gap)
        limit = places[index] - gap
    return places


# -- shapes ----------------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Return a coordinate with at most one decimal."""
    return f"{round(value, 1) + 0.0:g}"


def rectangle(x: float, y: float, width: float, height: float) -> str:
    """Return the path of a rectangle, open on its left: it is to be filled."""
    return f"M{number(x)} {number(y)}h{number(width)}v{number(height)}h{number(-width)}"


def bars(x: float, width: float, edges: Iterable[tuple[float, float]]) -> str:
    """Return the path of bars side by side, each from its lower edge to its upper one; equal neighbours are one, bars
    without height none.
    """
    path, left = "", 0
    for (lower, upper), same in groupby(edges):
        right = left + len(list(same))
        if lower - upper > 0:
            # Rounded sides are the same for both neighbours, so that no gap is between them.
            side, end = round(x + left * width, 1), round(x + right * width, 1)
            path += rectangle(side, upper, end - side, lower - upper)
        left = right
    return path


def strokes(x: float, y: float, width: float, found: Iterable[tuple[int, int]]) -> str:
    """Return the path of horizontal strokes over runs of columns that are `width` wide."""
    return "".join(
        f"M{number(x + first * width)} {number(y)}h{number((last + 1 - first) * width)}" for first, last in found
    )


def cross(x: float, y: float, half: float) -> str:
    """Return the path of a cross."""
    size, back = number(2 * half), number(-2 * half)
    return f"M{number(x - half)} {number(y - half)}l{size} {size}m{back} 0l{size} {back}"


def diamond(x: float, y: float, half: float) -> str:
    """Return the path of a diamond."""
    there, back = number(half), number(-half)
    return f"M{number(x)} {number(y - half)}l{there} {there}l{back} {there}l{back} {back}z"


# -- SVG -------------------------------------------------------------------------------------------------------------


def svg(drawing: Drawing) -> str:
    """Return a drawing as an SVG that needs nothing else: no script, no other file, no font but the reader's own."""
    # Pictures that stand in one page must not share names.
    own = f"t{crc32(f'{drawing.title} {drawing.description}'.encode(errors='replace')):08x}"
    about = f'role="img" aria-labelledby="{own}-title {own}-about" font-family="{FONTS}" font-size="11"'
    # Dark and light beside each other are seen on any colour.
    stripe = f'<path d="M0 0h1.8v5h-1.8z" fill="{INK}"/><path d="M1.8 0h1.2v5h-1.2z" fill="#ffffff"/>'
    stripes = 'width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"'
    size = f'width="{drawing.width}" height="{drawing.height}" viewBox="0 0 {drawing.width} {drawing.height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {about}>',
        f'<title id="{own}-title">{_safe(drawing.title)}</title>',
        f'<desc id="{own}-about">{_safe(drawing.description)}</desc>',
        f'<defs><pattern id="{own}-{HATCH}" {stripes}>{stripe}</pattern></defs>',
        f'<path d="{rectangle(0, 0, drawing.width, drawing.height)}" fill="#ffffff"/>',
    ]
    lines += [_text(mark) if isinstance(mark, Text) else _path(mark, own) for mark in drawing.marks]
    return "\n".join([*lines, "</svg>", ""])


def _safe(text: str) -> str:
    return escape(FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text))


def _text(mark: Text) -> str:
    given: dict[str, str] = {"x": number(mark.x), "y": number(mark.y)}
    if mark.size != 11:
        given["font-size"] = number(mark.size)
    if mark.anchor != "start":
        given["text-anchor"] = mark.anchor
    if mark.bold:
        given["font-weight"] = "bold"
    given["fill"] = mark.fill
    title = "" if mark.full is None else f"<title>{_safe(mark.full)}</title>"
    return f"<text{_attributes(given)}>{title}{_safe(mark.text)}</text>"


def _path(mark: Path, own: str) -> str:
    given: dict[str, str] = {"d": mark.d, "fill": f"url(#{own}-{HATCH})" if mark.fill == HATCH else mark.fill or "none"}
    if mark.stroke is not None:
        given |= {"stroke": mark.stroke, "stroke-width": number(mark.width)}
    if mark.opacity != 1:
        given["opacity"] = f"{mark.opacity:g}"
    if mark.dashes is not None:
        given["stroke-dasharray"] = mark.dashes
    if mark.crisp:
        given["shape-rendering"] = "crispEdges"
    if mark.round_ends:
        given |= {"stroke-linecap": "round", "stroke-linejoin": "round"}
    if mark.title is None:
        return f"<path{_attributes(given)}/>"
    if mark.fill is None and mark.stroke is None:
        given["pointer-events"] = "all"
    return f"<path{_attributes(given)}><title>{_safe(mark.title)}</title></path>"


def _attributes(given: dict[str, str]) -> str:
    return "".join(f" {name}={quoteattr(value)}" for name, value in given.items())
