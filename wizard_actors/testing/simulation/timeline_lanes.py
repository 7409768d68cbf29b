"""The three lanes of a timeline: requests by outcome, calls by model, latencies; all by buckets of time. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final, TypeAlias

from attrs import frozen

from wizard_actors.testing.simulation.report import Report
from wizard_actors.testing.simulation.timeline_figures import (
    LEAST_LATENCY,
    OUTCOMES,
    Axis,
    Outcome,
    call_failed,
    latencies,
    latency_ticks,
    outcome_of,
    quantile,
    shown_models,
    time_text,
    value_ticks,
)
from wizard_actors.testing.simulation.timeline_marks import (
    FAINT,
    HATCH,
    INK,
    QUIET,
    Mark,
    Path,
    Text,
    bars,
    number,
    rectangle,
    shortened,
    spread,
    text_width,
)

__all__ = ["LEFT", "OTHERS", "RIGHT", "WIDTH", "Plot", "calls_lane", "latency_lane", "model_colours", "outcomes_lane"]

WIDTH: Final = 1200
LEFT: Final = 226
RIGHT: Final = 980
MARGIN: Final = 12
GAP: Final = 15
"""Between the base lines of labels."""

COLUMN: Final = 2
"""Pixels: what is shorter is drawn so wide."""

OTHERS: Final = "other models"
COLOURS: Final = ("#44aa99", "#882255", "#ddcc77", "#aa4499", "#999933", "#cc6677")
"""Models'. Of Paul Tol's muted ones, chosen for all kinds of colour vision, but for blues: those are answers."""

OUTCOME_COLOURS: Final[Mapping[Outcome, str]] = {
    "first model": "#0072b2",
    "another model": "#56b4e9",
    "cache": "#0b3c5d",
    "stale or static": "#a3d5f7",
    "cancelled or left": "#a6a6a6",
    "failed": "#d55e00",
}
"""All that was answered is blue, in shades that differ in grey, too."""

P50: Final = "#8a8a8a"
P99: Final = INK
DOTS: Final = {"p99": 5, "p50": 3.5}
"""How wide the dots are of what has no neighbour; where both are at one place, both are seen."""

MOST_TOLD: Final = 4
"""How many models a hover tells of."""

MOST_CODES: Final = 3
"""How many kinds of failures are told beside their bars."""

Label: TypeAlias = tuple[str | None, str, str]
"""A colour, or None where it is a part of the label above it; a name; and a figure."""


@frozen
class Plot:
    """Where the time is drawn, from left to right."""

    axis: Axis

    def x(self, at: float) -> float:
        """Return the place of an instant; what is after the end is at the end."""
        return LEFT + (RIGHT - LEFT) * max(0.0, min(at / self.axis.end, 1.0))

    @property
    def bucket_width(self) -> float:
        """Of a bucket, in pixels."""
        return (RIGHT - LEFT) / self.axis.buckets

    @property
    def columns(self) -> int:
        """How many columns there are for what is on or off."""
        return (RIGHT - LEFT) // COLUMN

    @property
    def column_seconds(self) -> float:
        """How long a column is, in seconds."""
        return self.axis.end / self.columns

    def span_text(self, bucket: int) -> str:
        """Return what time a bucket is."""
        step = self.axis.step
        return f"{time_text(bucket * step)} to {time_text((bucket + 1) * step)}"


def model_colours(models: Sequence[str]) -> dict[str, str]:
    """Return a colour for each model; beyond six they come again, darker and then lighter."""
    shades = (1.0, 0.6, 1.45, 0.35)
    return {
        model: _shade(COLOURS[index % len(COLOURS)], shades[index // len(COLOURS) % len(shades)])
        for index, model in enumerate(models)
    } | {OTHERS: "#8c8c8c"}


def _shade(colour: str, factor: float) -> str:
    parts = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    if factor > 1:
        parts = [round(255 - (255 - part) * (2 - factor)) for part in parts]
    else:
        parts = [round(part * factor) for part in parts]
    return "#" + "".join(f"{part:02x}" for part in parts)


# -- what the lanes share --------------------------------------------------------------------------------------------


def _head(y: float, title: str, about: str) -> list[Mark]:
    width = text_width(title, 12, bold=True)
    return [
        Text(x=LEFT, y=y - 7, text=title, size=12, bold=True),
        Text(x=LEFT + width + 8, y=y - 7, text=about, fill=QUIET),
    ]


def _scale(y: float, height: float, ticks: Sequence[float], *, logarithmic: bool = False) -> Callable[[float], float]:
    """Return where values are on a lane between its first tick, at the bottom, and its last one."""
    low, high = ticks[0], ticks[-1]

    def at(value: float) -> float:
        value = max(low, min(value, high))
        part = math.log(value / low) / math.log(high / low) if logarithmic else (value - low) / (high - low)
        return y + height * (1 - part)

    return at


def _y_axis(ticks: Sequence[float], place: Callable[[float], float], name: Callable[[float], str]) -> list[Mark]:
    grid = "".join(f"M{LEFT} {number(place(tick))}H{RIGHT}" for tick in ticks)
    names = [Text(x=LEFT - 6, y=place(tick) + 4, text=name(tick), anchor="end", fill=QUIET) for tick in ticks]
    return [Path(d=grid, stroke=FAINT), *names]


def _labels(y: float, height: float, entries: Sequence[Label], wanted: Sequence[float] | None = None) -> Iterator[Mark]:
    """Yield labels on the right of a lane, in its middle or where they are wanted."""
    centre = y + (height - GAP * len(entries)) / 2
    places = wanted or [centre + GAP * index + 10 for index in range(len(entries))]
    for place, (colour, name, figure) in zip(spread(places, GAP, y + 6, y + height), entries, strict=True):
        ink = INK if colour else QUIET
        if colour:
            yield Path(d=rectangle(RIGHT + 10, place - 9, 10, 10), fill=colour)
        room = WIDTH - MARGIN - RIGHT - 26 - text_width(f" {figure}", 11, bold=True)
        kept = shortened(name, room, 11)
        yield Text(x=RIGHT + 26, y=place, text=kept, fill=ink, full=name if kept != name else None)
        if figure:
            yield Text(x=WIDTH - MARGIN, y=place, text=figure, fill=ink, anchor="end", bold=colour is not None)


def _hovers(plot: Plot, y: float, height: float, titles: Sequence[str]) -> Iterator[Mark]:
    """Yield what tells of each bucket, except those of which there is nothing to tell."""
    width = plot.bucket_width
    for bucket, title in enumerate(titles):
        if title:
            area = rectangle(LEFT + bucket * width, y, width, height)
            yield Path(d=area, title=f"{plot.span_text(bucket)}: {title}")


def _nothing(y: float, height: float, text: str) -> Text:
    return Text(x=(LEFT + RIGHT) / 2, y=y + height / 2 + 4, text=text, anchor="middle", fill=QUIET)


def _stacked(
    plot: Plot, place: Callable[[float], float], layers: Sequence[tuple[str, Sequence[int]]]
) -> Iterator[tuple[str, str]]:
    """Yield a fill and a path for each layer of stacked bars; `layers` are counts by bucket, the lowest first."""
    heights = list(accumulate((counts for _, counts in layers), _sums, initial=[0] * plot.axis.buckets))
    step = plot.axis.step
    for (fill, _), lower, upper in zip(layers, heights, heights[1:], strict=False):
        edges = [(place(low / step), place(high / step)) for low, high in zip(lower, upper, strict=True)]
        if drawn := bars(LEFT, plot.bucket_width, edges):
            yield fill, drawn


def _sums(one: Sequence[int], other: Sequence[int]) -> list[int]:
    return [a + b for a, b in zip(one, other, strict=True)]


# -- the lanes -------------------------------------------------------------------------------------------------------


def outcomes_lane(report: Report, plot: Plot, y: float, height: float) -> Iterator[Mark]:
    """Yield the requests of each bucket by outcome, as stacked bars; a request is where it arrived."""
    axis = plot.axis
    counts = {outcome: [0] * axis.buckets for outcome in OUTCOMES}
    for request in report.requests:
        counts[outcome_of(request)][axis.bucket(request.arrived)] += 1
    totals = [sum(each) for each in zip(*counts.values(), strict=True)]
    ticks = value_ticks(max(totals) / axis.step)
    place = _scale(y, height, ticks)
    yield from _head(y, "Requests", f"a second, by arrival and outcome; each bar: {time_text(axis.step)}")
    yield from _y_axis(ticks, place, "{:g}".format)
    for fill, drawn in _stacked(plot, place, [(OUTCOME_COLOURS[outcome], counts[outcome]) for outcome in OUTCOMES]):
        yield Path(d=drawn, fill=fill, crisp=True)
    if not report.requests:
        yield _nothing(y, height, "nobody asked anything")
    titles = [
        ", ".join(f"{counts[outcome][bucket]} {outcome}" for outcome in OUTCOMES if counts[outcome][bucket])
        for bucket in range(axis.buckets)
    ]
    yield from _hovers(plot, y, height, titles)
    codes = Counter(request.outcome for request in report.requests if outcome_of(request) == "failed")
    entries: list[Label] = [(OUTCOME_COLOURS["failed"], "failed", f"{sum(counts['failed']):,}")]
    entries += [(None, code, f"{count:,}") for code, count in codes.most_common(MOST_CODES)]
    came = [outcome for outcome in reversed(OUTCOMES[:-1]) if any(counts[outcome])]
    entries += [(OUTCOME_COLOURS[each], each, f"{sum(counts[each]):,}") for each in came]
    yield from _labels(y, height, entries)


def calls_lane(report: Report, plot: Plot, y: float, height: float) -> Iterator[Mark]:
    """Yield the calls that reached each model in each bucket, as stacked bars; what failed is striped."""
    axis, shown = plot.axis, shown_models(report)
    models = shown if len(shown) == len(report.models) else (*shown, OTHERS)
    whole = {model: [0] * axis.buckets for model in models}
    failed = {model: [0] * axis.buckets for model in models}
    late = 0
    for call in report.calls:
        if call.began > axis.end:
            late += 1
            continue
        model = call.model if call.model in whole else OTHERS
        counts = failed if call_failed(call) else whole
        counts.setdefault(model, [0] * axis.buckets)[axis.bucket(call.began)] += 1
    order = [model for model in models if any(whole[model]) or any(failed[model])]
    totals = [sum(each) for each in zip(*whole.values(), *failed.values(), strict=True)]
    ticks = value_ticks(max(totals) / axis.step)
    place = _scale(y, height, ticks)
    beyond = f"; {late:,} after {time_text(axis.end)} are not drawn" if late else ""
    yield from _head(y, "Calls that reached a model", f"a second; striped: failed{beyond}")
    yield from _y_axis(ticks, place, "{:g}".format)
    colours = model_colours(shown)
    each_model = [(colours[model], _sums(whole[model], failed[model])) for model in order]
    for fill, drawn in _stacked(plot, place, each_model):
        yield Path(d=drawn, fill=fill, crisp=True)
    parts = [("", whole[model]) for model in order], [(HATCH, failed[model]) for model in order]
    for fill, drawn in _stacked(plot, place, [part for pair in zip(*parts, strict=True) for part in pair]):
        if fill:
            yield Path(d=drawn, fill=fill, crisp=True)
    if not report.calls:
        yield _nothing(y, height, "no call reached a model")
    yield from _hovers(plot, y, height, [_calls_told(order, whole, failed, bucket) for bucket in range(axis.buckets)])
    entries: list[Label] = [
        (colours[model], model, f"{sum(whole[model]) + sum(failed[model]):,}") for model in reversed(order)
    ]
    yield from _labels(y, height, entries)


def _calls_told(
    models: Sequence[str], whole: Mapping[str, Sequence[int]], failed: Mapping[str, Sequence[int]], bucket: int
) -> str:
    met = [model for model in models if whole[model][bucket] or failed[model][bucket]]
    met.sort(key=lambda model: -(whole[model][bucket] + failed[model][bucket]))
    told = []
    for model in met[:MOST_TOLD]:
        bad = failed[model][bucket]
        name = shortened(model, 300, 11)
        told.append(f"{whole[model][bucket] + bad} {name}{f' ({bad} failed)' if bad else ''}")
    if len(met) > MOST_TOLD:
        told.append(f"and {len(met) - MOST_TOLD} models more")
    return ", ".join(told)


def latency_lane(report: Report, plot: Plot, y: float, height: float) -> Iterator[Mark]:
    """Yield how long answers to the requests of each bucket took: their median and 99th percentile."""
    found = latencies(report.requests, plot.axis)
    lines = {
        name: (colour, [quantile(each, share) for each in found])
        for name, colour, share in (("p99", P99, 0.99), ("p50", P50, 0.5))
    }
    values = [value for _, line in lines.values() for value in line if value is not None]
    ticks, logarithmic = latency_ticks(min(values, default=0.1), max(values, default=1.0))
    place = _scale(y, height, ticks, logarithmic=logarithmic)
    about = "of what was answered, by when it was asked" + (" (logarithmic)" if logarithmic else "")
    yield from _head(y, "Latency", about)
    yield from _y_axis(
        ticks, place, lambda tick: f"\u2264 {time_text(tick)}" if tick == LEAST_LATENCY else time_text(tick)
    )
    for name, (colour, line) in lines.items():
        drawn, dots = _line(plot, place, line)
        if drawn:
            yield Path(d=drawn, stroke=colour, width=2, round_ends=True)
        if dots:
            yield Path(d=dots, stroke=colour, width=DOTS[name], round_ends=True)
    if not values:
        yield _nothing(y, height, "nobody was answered")
        return
    titles = [
        f"p50 {time_text(p50)}, p99 {time_text(p99)}, of {len(of)} answers"
        if p50 is not None and p99 is not None
        else ""
        for p50, p99, of in zip(lines["p50"][1], lines["p99"][1], found, strict=True)
    ]
    yield from _hovers(plot, y, height, titles)
    ends = {name: [value for value in line if value is not None][-1] for name, (_, line) in lines.items()}
    entries: list[Label] = [(colour, name, "") for name, (colour, _) in lines.items()]
    yield from _labels(y, height, entries, [place(max(end, LEAST_LATENCY)) + 4 for end in ends.values()])


def _line(plot: Plot, place: Callable[[float], float], values: Sequence[float | None]) -> tuple[str, str]:
    """Return a line through the middles of the buckets, with gaps where there is no value, and the dots of those values
    that have no neighbour.
    """
    path, dots, drawing = "", "", False
    for bucket, value in enumerate(values):
        if value is not None:
            at = f"{number(LEFT + (bucket + 0.5) * plot.bucket_width)} {number(place(value))}"
            if not drawing and (bucket + 1 == len(values) or values[bucket + 1] is None):
                dots += f"M{at}h0"
            else:
                path += f"{'L' if drawing else 'M'}{at}"
        drawing = value is not None
    return path, dots
