"""The arithmetic of a run's timeline: its time in buckets and columns, round ticks, and what is counted. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final, Literal, TypeAlias, get_args

from attrs import frozen

from wizard_actors.testing.simulation.records import CallRecord, CircuitChange, RequestRecord, Sample
from wizard_actors.testing.simulation.report import Report
from wizard_actors.testing.simulation.scenario import FaultWindow, Kill

__all__ = [
    "LEAST_LATENCY",
    "OUTCOMES",
    "Axis",
    "Outcome",
    "Run",
    "Span",
    "axis_of",
    "call_failed",
    "circuit_spans",
    "fault_spans",
    "kill_instants",
    "latencies",
    "latency_ticks",
    "outcome_of",
    "paused_spans",
    "quantile",
    "queues",
    "round_step",
    "runs",
    "share_text",
    "shown_models",
    "time_text",
    "time_ticks",
    "value_ticks",
]

Outcome: TypeAlias = Literal["first model", "another model", "cache", "stale or static", "cancelled or left", "failed"]
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)
"""How requests end, in the order in which they are stacked."""

Span: TypeAlias = tuple[float, float]
"""From an instant to another one."""

Run: TypeAlias = tuple[int, int]
"""Columns from one to another one, both within."""

MOST_BUCKETS: Final = 100
MOST_MODELS: Final = 20
STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
"""Round spans of time from a second to a day, in seconds."""

DECADES: Final = (0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 36_000.0, 360_000.0)
"""The ticks of a logarithmic scale: tenfold, but round where seconds become minutes and hours."""

UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "min"))
LEAST_LATENCY: Final = 0.001
"""What took less, such as an answer from the cache, is drawn as if it had taken so long: there is no log of 0."""


# -- time ------------------------------------------------------------------------------------------------------------


@frozen
class Axis:
    """The time that is drawn: `buckets` of `step` seconds each, from 0 to `end`."""

    step: float
    buckets: int

    @property
    def end(self) -> float:
        """Where it ends, in seconds."""
        return self.step * self.buckets

    def bucket(self, at: float) -> int:
        """Return the bucket of an instant, the last one for all that is after the end."""
        return max(0, min(math.floor(at / self.step + 1e-9), self.buckets - 1))


def axis_of(report: Report) -> Axis:
    """Return the time to draw: all arrivals, and until the last request ended, but at most four times as long: one that
    hangs for a day is no reason to press everything else into a corner.
    """
    last = max((request.arrived for request in report.requests), default=0.0)
    asked = max(report.scenario.duration, last)
    span = min(max(asked, report.ended), 4 * asked)
    step = round_step(span, MOST_BUCKETS)
    return Axis(step, max(1, math.ceil(span / step - 1e-9)))


def round_step(span: float, most: int) -> float:
    """Return the least round number of seconds of which at most `most` make up `span`."""
    least = span / most
    if least < 1:
        return _round_up(least)
    for step in STEPS:
        if step >= least:
            return float(step)
    return 86_400 * _round_up(least / 86_400)


def _round_up(value: float) -> float:
    """Return 1, 2 or 5 times a power of ten, at least `value`."""
    power = math.floor(math.log10(value))
    return next(
        step for factor in (1, 2, 5, 10) if (step := float(f"{factor}e{power}")) >= value * (1 - 1e-9) or factor == 10
    )


def time_ticks(end: float, most: int = 10) -> tuple[tuple[float, str], ...]:
    """Return round instants from 0 to `end` with their names."""
    step = round_step(end, most)
    return tuple((step * number, time_text(step * number)) for number in range(math.floor(end / step + 1e-9) + 1))


def time_text(seconds: float) -> str:
    """Return a span of time as people write it, with its two highest units: "250 ms", "1.5 s", "1 h 30 min"."""
    if seconds < 0:
        return f"-{time_text(-seconds)}"
    if 0 < seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    rounded = round(seconds)
    for size, unit in UNITS:
        if rounded >= size:
            lower, lower_unit = {"d": (3600, "h"), "h": (60, "min"), "min": (1, "s")}[unit]
            rest = rounded % size // lower
            return f"{rounded // size} {unit}{f' {rest} {lower_unit}' if rest else ''}"
    return f"{rounded} s"


def value_ticks(highest: float) -> tuple[float, ...]:
    """Return round values from 0, of which the last is at least `highest`."""
    step = _round_up((highest or 1.0) / 4)
    return tuple(float(f"{step * number:.9g}") for number in range(max(1, math.ceil(highest / step - 1e-9)) + 1))


def latency_ticks(lowest: float, highest: float) -> tuple[tuple[float, ...], bool]:
    """Return the ticks of a scale for latencies, which include both ends, and whether it is logarithmic: it is where
    the ends are far apart.
    """
    lowest = max(lowest, LEAST_LATENCY)
    if highest <= 20 * lowest:
        return value_ticks(highest), False
    first = max(index for index, tick in enumerate(DECADES) if tick <= lowest or index == 0)
    last = min(index for index, tick in enumerate(DECADES) if tick >= highest or index == len(DECADES) - 1)
    return DECADES[first : last + 1], True


# -- columns: narrower than buckets, for what is on or off -----------------------------------------------------------


def runs(spans: Iterable[Span], end: float, columns: int) -> list[Run]:
    """Return the runs of the columns in which any of the spans lies, however short it is, in order."""
    width = end / columns
    touched: list[Run] = []
    for began, ended in sorted(spans):
        if began < end and ended >= 0:
            first = max(0, math.floor(began / width + 1e-9))
            last = min(columns - 1, max(first, math.ceil(ended / width - 1e-9) - 1))
            touched.append((first, last))
    merged: list[Run] = []
    for first, last in touched:
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def fault_spans(fault: FaultWindow, end: float, narrowest: float) -> list[Span]:
    """Return a fault's windows before `end`; those that come again sooner than after `narrowest` are one."""
    until = end if fault.until is None else min(fault.until, end)
    if fault.start >= until:
        return []
    lasts = math.inf if fault.lasts is None else fault.lasts
    if fault.every is None:
        return [(fault.start, min(fault.start + lasts, until))]
    if fault.every <= narrowest:
        return [(fault.start, until)]
    times = math.ceil((until - fault.start) / fault.every - 1e-9)
    begins = (fault.start + fault.every * number for number in range(times))
    return [(began, min(began + lasts, until)) for began in begins]


def kill_instants(kill: Kill, end: float, narrowest: float) -> list[float]:
    """Return when an actor is killed before `end`, but none that is less than `narrowest` after another one."""
    if kill.every is None:
        return [kill.at] if kill.at <= end else []
    last = min(end, kill.at + kill.every * (kill.times - 1))
    step = max(kill.every, narrowest)
    return [kill.at + step * number for number in range(math.floor((last - kill.at) / step + 1e-9) + 1)]


# -- what is counted -------------------------------------------------------------------------------------------------


def outcome_of(request: RequestRecord) -> Outcome:
    """Return how a request ended, as its bar shows it."""
    if request.outcome in {"cancelled", "left"}:
        return "cancelled or left"
    if request.outcome != "answered":
        return "failed"
    if request.served_by == "cache":
        return "cache"
    if request.served_by in {"stale", "static"}:
        return "stale or static"
    return "another model" if request.served_by == "fallback" else "first model"


def call_failed(call: CallRecord) -> bool:
    """Whether a call failed at its model: one whose caller left did not."""
    return call.end in {"refused", "broken"}


def shown_models(report: Report) -> tuple[str, ...]:
    """Return the models that have strips of their own: all, or where there are too many, those that were asked most."""
    if len(report.models) <= MOST_MODELS:
        return report.models
    asked = Counter(call.model for call in report.calls)
    busiest = set(sorted(report.models, key=lambda model: -asked[model])[:MOST_MODELS])
    return tuple(model for model in report.models if model in busiest)


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """Return the value that `share` of the ordered values do not exceed (the nearest rank); None of none."""
    return ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)] if ordered else None


def latencies(requests: Iterable[RequestRecord], axis: Axis) -> list[list[float]]:
    """Return, ordered, how long the answers took to those who asked in each bucket, but for those that were read
    slowly: that is their readers' own time.
    """
    seconds: list[list[float]] = [[] for _ in range(axis.buckets)]
    for request in requests:
        if request.outcome == "answered" and request.reader == "eager":
            seconds[axis.bucket(request.arrived)].append(request.seconds)
    return [sorted(each) for each in seconds]


def circuit_spans(changes: Iterable[CircuitChange], end: float) -> dict[str, list[Span]]:
    """Return when the circuit of one model was in each of its states; it begins closed."""
    spans: dict[str, list[Span]] = {"closed": [], "half_open": [], "open": []}
    since, circuit = 0.0, "closed"
    for change in changes:
        spans.setdefault(circuit, []).append((since, change.at))
        since, circuit = change.at, change.circuit
    spans.setdefault(circuit, []).append((since, max(since, end)))
    return spans


def paused_spans(samples: Sequence[Sample], model: str) -> list[Span]:
    """Return when a model's limiter was paused, as far as samples tell."""
    return [
        (sample.at, min(sample.at + seen.paused_for, until))
        for sample, until in _until_next(samples)
        if (seen := sample.models.get(model)) is not None and seen.paused_for > 0
    ]


def queues(samples: Sequence[Sample], model: str, axis: Axis) -> list[int]:
    """Return how many calls waited at most for a model in each bucket, for its limit or for a slot, as far as samples
    tell.
    """
    longest = [0] * axis.buckets
    for sample, until in _until_next(samples):
        seen = sample.models.get(model)
        if seen is not None and sample.at < axis.end and (seen.limiter_waiting or seen.waiting):
            last = axis.bucket(sample.at) if math.isinf(until) else axis.bucket(max(sample.at, until - 1e-6))
            for bucket in range(axis.bucket(sample.at), last + 1):
                longest[bucket] = max(longest[bucket], seen.limiter_waiting + seen.waiting)
    return longest


def _until_next(samples: Sequence[Sample]) -> Iterator[tuple[Sample, float]]:
    for sample, after in pairwise(samples):
        yield sample, after.at
    if samples:
        yield samples[-1], math.inf


def share_text(share: float | None) -> str:
    """Return a share in percent, as "99.98 %"; one that is not quite all never looks like all; "-": there is none."""
    if share is None:
        return "-"
    percent = f"{share * 100:.2f}"
    return f"{'99.99' if percent == '100.00' and share < 1 else percent} %"
