"""`timeline_svg`: one run as a picture, for whoever has to see at a glance what happened when. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from wizard_actors.testing.simulation.records import Sample
from wizard_actors.testing.simulation.report import Report
from wizard_actors.testing.simulation.summary import answer_seconds, availability
from wizard_actors.testing.simulation.timeline_figures import (
    axis_of,
    call_failed,
    outcome_of,
    share_text,
    shown_models,
    time_text,
    time_ticks,
)
from wizard_actors.testing.simulation.timeline_lanes import (
    LEFT,
    WIDTH,
    Plot,
    calls_lane,
    latency_lane,
    outcomes_lane,
)
from wizard_actors.testing.simulation.timeline_marks import (
    FAINT,
    HATCH,
    INK,
    QUIET,
    Drawing,
    Mark,
    Path,
    Text,
    cross,
    diamond,
    rectangle,
    shortened,
    svg,
    text_width,
    wrapped,
)
from wizard_actors.testing.simulation.timeline_strips import (
    CIRCUIT_COLOURS,
    FAULT,
    PAUSE,
    PAUSED,
    QUEUED,
    ROW,
    STORAGE,
    STRIP,
    Happening,
    happenings,
    longest_queue,
    rows,
    shading,
    strips,
)

__all__ = ["LANE", "drawing_of", "timeline_svg"]

MARGIN: Final = 12
LANE: Final = 130
LATENCY_LANE: Final = 110
HEAD: Final = 30
"""Above each lane, for its title."""

LABEL: Final = 15
BAD: Final = "#b23a00"


def timeline_svg(report: Report) -> str:
    """Return a run as an SVG of 1200 pixels' width, which needs no other file, no script and no font of its own.

    From above: what the run was and its key figures; what went wrong and when; the requests by outcome, the calls that
    reached each model and the latency of answers, in at most 100 buckets of time; the state of each model's breaker and
    limiter. It is told in texts too, for whoever points at a place or does not see it. The same report makes the same
    text. Time and size are bounded: of more than 20 models, the others are one.
    """
    return svg(drawing_of(report))


def drawing_of(report: Report) -> Drawing:
    """Return the picture of a run, before it is written down."""
    plot = Plot(axis_of(report))
    found = happenings(report.scenario, plot)
    marks, top = _head(report, plot)
    if found:
        marks.append(Text(x=MARGIN, y=top + 10, text="What goes wrong", size=12, bold=True))
    happened = top + 18
    outcomes = happened + ROW * len(found) + HEAD
    calls = outcomes + LANE + HEAD
    calls_height = max(LANE, LABEL * (len(shown_models(report)) + 2))
    latency = calls + calls_height + HEAD
    stood = latency + LATENCY_LANE + HEAD
    bottom = stood + STRIP * len(shown_models(report))
    marks += [*shading(found, plot, happened, bottom), *_time_axis(report, plot, happened, bottom)]
    marks += rows(found, plot, happened)
    marks += outcomes_lane(report, plot, outcomes, LANE)
    marks += calls_lane(report, plot, calls, calls_height)
    marks += latency_lane(report, plot, latency, LATENCY_LANE)
    marks.append(Text(x=MARGIN, y=stood - 7, text="Models", size=12, bold=True))
    marks.append(
        Text(x=LEFT, y=stood - 7, text="upper band: breaker; lower band: calls that wait, and pauses", fill=QUIET)
    )
    marks += strips(report, plot, stood)
    legend, height = _legend(report, found, bottom + 34)
    scenario = report.scenario
    return Drawing(
        width=WIDTH,
        height=int(height),
        title=f"{scenario.name}, seed {scenario.seed}",
        description=_described(report, found),
        marks=(*marks, *legend),
    )


# -- above -----------------------------------------------------------------------------------------------------------


def _head(report: Report, plot: Plot) -> tuple[list[Mark], float]:
    """Return the title, what the run is about and its key figures, and where they end."""
    scenario = report.scenario
    run = f"seed {scenario.seed}, {time_text(scenario.duration)} of requests"
    if report.ended > plot.axis.end:
        run += f", the last of which ended at {time_text(report.ended)}"
    room = WIDTH - 3 * MARGIN - text_width(run, 12)
    name = shortened(scenario.name, room, 20, bold=True)
    full = scenario.name if name != scenario.name else None
    marks: list[Mark] = [
        Text(x=MARGIN, y=28, text=name, size=20, bold=True, full=full),
        Text(x=WIDTH - MARGIN, y=28, text=run, size=12, anchor="end", fill=QUIET),
    ]
    y = 32.0
    lines = wrapped(scenario.about, WIDTH - 2 * MARGIN, 13, 2)
    for line in lines:
        y += 18
        full = scenario.about if line is lines[-1] and not " ".join(scenario.about.split()).endswith(line) else None
        marks.append(Text(x=MARGIN, y=y, text=line, size=13, fill=QUIET, full=full))
    y += 30
    figures = _figures(report)
    for index, (figure, what) in enumerate(figures):
        x = MARGIN + index * (WIDTH - 2 * MARGIN) / len(figures)
        fill = BAD if what.startswith("violation") and report.violations else INK
        marks.append(Text(x=x, y=y, text=figure, size=18, bold=True, fill=fill))
        marks.append(Text(x=x, y=y + 16, text=what, fill=QUIET))
    y += 22
    if wrong := _wrong(report):
        y += 16
        kept = wrapped(wrong, WIDTH - 2 * MARGIN, 12, 1, bold=True)[0]
        marks.append(
            Text(x=MARGIN, y=y, text=kept, size=12, bold=True, fill=BAD, full=wrong if kept != wrong else None)
        )
        y += 4
    return marks, y + 18


def _figures(report: Report) -> list[tuple[str, str]]:
    """Return the key figures, each with what it is."""
    asked, wrong = len(report.requests), len(report.violations)
    latency = answer_seconds(report.requests)
    return [
        (f"{asked:,}", "request" if asked == 1 else "requests"),
        (share_text(availability(report.requests)), "availability"),
        ("-" if latency is None else time_text(latency.p50), "latency p50"),
        ("-" if latency is None else time_text(latency.p99), "latency p99"),
        (f"{len(report.calls) / asked:.2f}" if asked else "-", "calls to models a request"),
        (f"{wrong:,}", "violation" if wrong == 1 else "violations"),
    ]


def _wrong(report: Report) -> str:
    """Return which invariants did not hold, and whether somebody still waited at the end; nothing where all is well."""
    counts = Counter(violation.invariant for violation in report.violations)
    parts = [f"{name} ({count})" for name, count in counts.items()]
    told = f"Violated: {', '.join(parts)}" if parts else ""
    return told if report.finished else f"{told}{'. ' if told else ''}Not finished: somebody still waited"


# -- time ------------------------------------------------------------------------------------------------------------


def _time_axis(report: Report, plot: Plot, top: float, bottom: float) -> Iterator[Mark]:
    """Yield the lines of the time's ticks, with their names above and below."""
    ticks = time_ticks(plot.axis.end)
    lines = "".join(f"M{plot.x(at):.1f} {top:g}V{bottom + 4:g}" for at, _ in ticks)
    yield Path(d=lines, stroke=FAINT)
    for at, name in ticks:
        for y in (top - 5, bottom + 16):
            yield Text(x=plot.x(at), y=y, text=name, anchor="middle", fill=QUIET)
    end = report.scenario.duration
    if plot.axis.end - end > plot.axis.step:
        told = f"after {time_text(end)} nobody asks any more"
        yield Path(d=f"M{plot.x(end):.1f} {top:g}V{bottom:g}", stroke=INK, dashes="2 3", title=told)


# -- below -----------------------------------------------------------------------------------------------------------


def _legend(report: Report, found: Iterable[Happening], y: float) -> tuple[list[Mark], float]:
    """Return what the signs mean that are drawn and have no label where they stand, and where the picture ends."""
    shown, queue = set(shown_models(report)), longest_queue(report)
    drawn = {change.circuit for change in report.circuits if change.model in shown}
    drawn |= {"closed", *(each.sort for each in found)}
    drawn |= {"paused" for sample in report.samples for model in shown & sample.models.keys() if _paused(sample, model)}
    drawn |= {HATCH for call in report.calls if call_failed(call)} | ({"queued"} if queue else set())
    signs = {
        "closed": "breaker closed",
        "half_open": "half-open",
        "open": "open",
        "paused": "limiter paused",
        "queued": f"calls that wait (full height: {queue})",
        HATCH: "failed calls",
        "fault": "a model's fault (shaded)",
        "storage": "storage fault (shaded)",
        "kill": "actor killed",
        "jump": "clock jumps",
    }
    marks: list[Mark] = []
    x = float(MARGIN)
    for sign, name in signs.items():
        if sign not in drawn:
            continue
        width = 18 + text_width(name, 11)
        if x + width > WIDTH - MARGIN:
            x, y = float(MARGIN), y + 18
        marks += _sign(sign, x, y)
        marks.append(Text(x=x + 18, y=y, text=name))
        x += width + 18
    return marks, y + 14


def _paused(sample: Sample, model: str) -> bool:
    return sample.models[model].paused_for > 0


def _sign(sign: str, x: float, y: float) -> list[Mark]:
    colours = {**CIRCUIT_COLOURS, "queued": QUEUED, "fault": FAULT, "storage": STORAGE}
    match sign:
        case "kill":
            return [Path(d=cross(x + 6, y - 4, 4), stroke=INK, width=2)]
        case "jump":
            return [Path(d=diamond(x + 6, y - 4, 4), fill=INK)]
        case "paused":
            return [Path(d=rectangle(x, y - 9, 12, PAUSE), fill=PAUSED)]
        case "hatch":
            return [Path(d=rectangle(x, y - 9, 12, 10), fill=HATCH)]
        case _:
            return [Path(d=rectangle(x, y - 9, 12, 10), fill=colours[sign])]


def _described(report: Report, found: Iterable[Happening]) -> str:
    """Return the picture in words."""
    figures = ", ".join(f"{what} {figure}" for figure, what in _figures(report))
    ends = Counter(outcome_of(request) for request in report.requests)
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(ends.items())) or "nobody asked anything"
    wrong = "; ".join(shortened(each.told, 2000, 11) for each in found) or "nothing goes wrong"
    openings = Counter(change.model for change in report.circuits if change.circuit == "open")
    opened = ", ".join(f"{model} {openings[model]} times" for model in report.models if openings[model])
    about = f"{shortened(report.scenario.about, 4000, 11)} " if report.scenario.about else ""
    return (
        f"{about}Key figures: {figures}. Outcomes: {outcomes}. What goes wrong: {wrong}. "
        f"Circuits that opened: {shortened(opened, 2000, 11) or 'none'}."
    )
