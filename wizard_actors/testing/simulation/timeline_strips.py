"""The strips of a timeline: what went wrong and when, and how each model's breaker and limiter stood. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal, TypeAlias

from attrs import frozen

from wizard_actors.testing.simulation.report import Report
from wizard_actors.testing.simulation.scenario import ANY, ClockJump, FaultWindow, Scenario, StorageFault
from wizard_actors.testing.simulation.timeline_figures import (
    Span,
    circuit_spans,
    fault_spans,
    kill_instants,
    paused_spans,
    queues,
    runs,
    shown_models,
    time_text,
)
from wizard_actors.testing.simulation.timeline_lanes import COLUMN, LEFT, RIGHT, WIDTH, Plot, model_colours
from wizard_actors.testing.simulation.timeline_marks import (
    FAINT,
    INK,
    QUIET,
    Mark,
    Path,
    Text,
    bars,
    cross,
    diamond,
    rectangle,
    shortened,
    strokes,
)

__all__ = [
    "CIRCUIT_COLOURS",
    "FAULT",
    "PAUSE",
    "PAUSED",
    "QUEUED",
    "ROW",
    "STORAGE",
    "STRIP",
    "Happening",
    "happenings",
    "longest_queue",
    "rows",
    "shading",
    "strips",
]

FAULT: Final = "#4b3a8c"
STORAGE: Final = "#7a5c00"
CIRCUIT_COLOURS: Final = {"closed": "#d4ebe2", "half_open": "#f0e442", "open": "#b23a00"}
PAUSED: Final = INK
QUEUED: Final = "#8a8a8a"

ROW: Final = 17
STRIP: Final = 28
BAND: Final = 11
"""How high a breaker's band is, and a limiter's below it."""

PAUSE: Final = 3
"""How thick the line of a pause is, above the calls that wait."""

MARGIN: Final = 12
MOST_ROWS: Final = 8
MOST_TOLD: Final = 5
MOST_EDGES: Final = 12
"""So many windows have lines at their edges; more of them are shaded only."""

MARK: Final = 4
"""Half of a cross or a diamond; two of them that are nearer to each other than this are one."""

SINCE: Final = ", from "
SHADES: Final = (("fault", FAULT, "4 3"), ("storage", STORAGE, "1 3"))
"""What is shaded over the lanes: its sort, its colour and the dashes of its edges."""

Sort: TypeAlias = Literal["fault", "storage", "kill", "jump"]


@frozen(kw_only=True)
class Happening:
    """A row of what went wrong, over spans of time or at instants: what it is called, when it is, and all that is told
    of it.
    """

    sort: Sort
    label: str
    when: str
    told: str
    spans: tuple[Span, ...]


# -- what goes wrong -------------------------------------------------------------------------------------------------


def happenings(scenario: Scenario, plot: Plot) -> list[Happening]:
    """Return the rows of a scenario, each thing with one label however often it comes again; of faults, storage faults,
    kills and clock jumps at most eight rows each, the last of which is for all that are beyond.
    """
    end, narrowest = plot.axis.end, 2 * plot.column_seconds
    kills = [
        (
            f"kill: {'any actor' if kill.actor == ANY else kill.actor}",
            f"{kill.times}x every {time_text(kill.every)}{SINCE}{time_text(kill.at)}"
            if kill.every
            else f"at {time_text(kill.at)}",
            [(at, at) for at in kill_instants(kill, end, narrowest)],
        )
        for kill in scenario.kills
    ]
    faults = [
        (_fault_name(fault), _when_exactly(fault), fault_spans(fault, end, narrowest)) for fault in scenario.faults
    ]
    storage = [
        (f"storage {fault.kind}{_share(fault.share)}", _when(fault), _storage_spans(fault, end))
        for fault in scenario.storage_faults
    ]
    jumps = [(_jump_name(jump), f"at {time_text(jump.at)}", [(jump.at, jump.at)]) for jump in scenario.clock_jumps]
    return [*_rows("fault", faults), *_rows("storage", storage), *_rows("kill", kills), *_rows("jump", jumps)]


def _rows(sort: Sort, things: Iterable[tuple[str, str, list[Span]]]) -> list[Happening]:
    """Return things as rows, those of one name in one."""
    by_name: dict[str, list[tuple[str, list[Span]]]] = {}
    for name, when, spans in things:
        by_name.setdefault(name, []).append((when, spans))
    found = [
        Happening(
            sort=sort,
            label=name,
            # Of what comes again, how often: since when is to be seen beside it.
            when=same[0][0].partition(SINCE)[0] if len(same) == 1 else f"{len(same)} times",
            told=f"{name}: {_listed([when for when, _ in same])}",
            spans=tuple(span for _, spans in same for span in spans),
        )
        for name, same in by_name.items()
    ]
    if len(found) <= MOST_ROWS:
        return found
    beyond = found[MOST_ROWS - 1 :]
    told = _listed([each.told for each in beyond])
    others = Happening(
        sort=sort,
        label=f"and {len(beyond)} others",
        when="",
        told=told,
        spans=tuple(span for each in beyond for span in each.spans),
    )
    return [*found[: MOST_ROWS - 1], others]


def _listed(told: Sequence[str]) -> str:
    more = f"; and {len(told) - MOST_TOLD} more" if len(told) > MOST_TOLD else ""
    return "; ".join(told[:MOST_TOLD]) + more


def _fault_name(fault: FaultWindow) -> str:
    whom = [*fault.models, *(f"region {region}" for region in fault.regions)]
    return f"{fault.kind}: {', '.join(whom) or 'all models'}{_share(fault.share)}"


def _share(share: float) -> str:
    return "" if share == 1 else f", {100 * share:.3g} %"


def _when(fault: FaultWindow | StorageFault) -> str:
    began = time_text(fault.start)
    if isinstance(fault, StorageFault) or fault.every is None:
        return f"from {began}" if fault.lasts is None else f"{began} to {time_text(fault.start + fault.lasts)}"
    return f"{time_text(fault.lasts or 0.0)} every {time_text(fault.every)}"


def _when_exactly(fault: FaultWindow) -> str:
    if fault.every is None:
        return _when(fault)
    last = "" if fault.until is None else f" until {time_text(fault.until)}"
    return f"{_when(fault)}{SINCE}{time_text(fault.start)}{last}"


def _storage_spans(fault: StorageFault, end: float) -> list[Span]:
    return [(fault.start, end if fault.lasts is None else fault.start + fault.lasts)]


def _jump_name(jump: ClockJump) -> str:
    sign = "+" if jump.seconds >= 0 else ""
    return f"{'wall clock' if jump.wall else 'clock'} {sign}{time_text(jump.seconds)}"


def shading(found: Iterable[Happening], plot: Plot, top: float, bottom: float) -> Iterator[Mark]:
    """Yield the shades of all faults, of models and of the storage, over the lanes between `top` and `bottom`."""
    happened = tuple(found)
    for sort, colour, dashes in SHADES:
        spans = [span for each in happened if each.sort == sort for span in each.spans]
        on = runs(spans, plot.axis.end, plot.columns)
        if on:
            height = bottom - top
            areas = (rectangle(LEFT + first * COLUMN, top, (last + 1 - first) * COLUMN, height) for first, last in on)
            yield Path(d="".join(areas), fill=colour, opacity=0.1, crisp=True)
        if 0 < len(on) <= MOST_EDGES:
            edges = {LEFT + column * COLUMN for first, last in on for column in (first, last + 1)}
            lines = "".join(f"M{edge} {top:g}V{bottom:g}" for edge in sorted(edges))
            yield Path(d=lines, stroke=colour, width=1, opacity=0.55, dashes=dashes)


def rows(found: Iterable[Happening], plot: Plot, y: float) -> Iterator[Mark]:
    """Yield what goes wrong, a row each from `y` on: its label on the left, and when."""
    for index, each in enumerate(found):
        middle = y + ROW * index + ROW / 2
        yield _label(each.label, middle + 4, LEFT - 10 - MARGIN, x=MARGIN)
        yield Path(d=strokes(LEFT, middle, RIGHT - LEFT, [(0, 0)]), stroke=FAINT)
        if each.sort in {"kill", "jump"}:
            places = _apart(sorted(plot.x(at) for at, _ in each.spans))
            shape = cross if each.sort == "kill" else diamond
            drawn = "".join(shape(x, middle, MARK) for x in places)
            width, fill = (2.0, None) if each.sort == "kill" else (1.0, INK)
            yield Path(d=drawn, stroke=INK, width=width, fill=fill)
        else:
            colour = FAULT if each.sort == "fault" else STORAGE
            on = runs(each.spans, plot.axis.end, plot.columns)
            yield Path(d=strokes(LEFT, middle, COLUMN, on), stroke=colour, width=9, crisp=True)
        yield Path(d=rectangle(MARGIN, middle - ROW / 2, RIGHT - MARGIN, ROW), title=each.told)
        yield _label(each.when, middle + 4, WIDTH - MARGIN - RIGHT - 10, x=RIGHT + 10, fill=QUIET)


def _apart(places: Iterable[float]) -> list[float]:
    kept: list[float] = []
    for place in places:
        if not kept or place - kept[-1] >= MARK:
            kept.append(place)
    return kept


def _label(text: str, y: float, room: float, *, x: float, fill: str = INK) -> Text:
    kept = shortened(text, room, 11)
    return Text(x=x, y=y, text=kept, fill=fill, full=text if kept != text else None)


# -- the models ------------------------------------------------------------------------------------------------------


def longest_queue(report: Report) -> int:
    """Return how many calls ever waited for one model, for its limit and for a slot."""
    seen = (model.limiter_waiting + model.waiting for sample in report.samples for model in sample.models.values())
    return max(seen, default=0)


def strips(report: Report, plot: Plot, y: float) -> Iterator[Mark]:
    """Yield how each model stood, a strip each from `y` on: above its breaker, below its limiter and its queues."""
    shown = shown_models(report)
    colours, highest = model_colours(shown), longest_queue(report)
    for index, model in enumerate(shown):
        top = y + STRIP * index
        yield Path(d=rectangle(MARGIN, top + 6, 10, 10), fill=colours[model])
        yield _label(model, top + 15, LEFT - 10 - MARGIN - 16, x=MARGIN + 16)
        circuits = circuit_spans(
            [each for each in report.circuits if each.model == model], max(plot.axis.end, report.ended)
        )
        yield from _breaker(circuits, plot, top + BAND / 2)
        paused, queue = paused_spans(report.samples, model), queues(report.samples, model, plot.axis)
        yield from _limiter(paused, queue, highest, plot, top + BAND + 1)
        short, told = _told(circuits, paused, queue, max(plot.axis.end, report.ended))
        yield _label(short, top + 15, WIDTH - MARGIN - RIGHT - 10, x=RIGHT + 10, fill=QUIET)
        yield Path(d=rectangle(MARGIN, top, RIGHT - MARGIN, 2 * BAND), title=f"{model}: {told}")


def _breaker(circuits: dict[str, list[Span]], plot: Plot, middle: float) -> Iterator[Mark]:
    """Yield a breaker's band: what is half-open for less than a column is to be seen in an open one too."""
    end, columns = plot.axis.end, plot.columns
    yield Path(d=rectangle(LEFT, middle - BAND / 2, RIGHT - LEFT, BAND), fill=CIRCUIT_COLOURS["closed"])
    half, opened = runs(circuits["half_open"], end, columns), runs(circuits["open"], end, columns)
    for on, colour, width in ((half, "half_open", BAND), (opened, "open", BAND), (half, "half_open", BAND / 2)):
        if on:
            yield Path(d=strokes(LEFT, middle, COLUMN, on), stroke=CIRCUIT_COLOURS[colour], width=width, crisp=True)


def _limiter(paused: list[Span], queue: Sequence[int], highest: int, plot: Plot, top: float) -> Iterator[Mark]:
    yield Path(d=rectangle(LEFT, top, RIGHT - LEFT, BAND), fill="#f4f4f4")
    if highest:
        heights = [each * BAND / highest for each in queue]
        drawn = bars(LEFT, plot.bucket_width, [(top + BAND, top + BAND - height) for height in heights])
        if drawn:
            yield Path(d=drawn, fill=QUEUED, crisp=True)
    if on := runs(paused, plot.axis.end, plot.columns):
        yield Path(d=strokes(LEFT, top + PAUSE / 2, COLUMN, on), stroke=PAUSED, width=PAUSE, crisp=True)


def _told(circuits: dict[str, list[Span]], paused: list[Span], queue: Sequence[int], end: float) -> tuple[str, str]:
    """Return what is said of a model beside its strip, and to whoever points at it."""
    times, opened = len(circuits["open"]), _seconds(circuits["open"], end)
    halted, deepest = _seconds(paused, end), max(queue, default=0)
    short = [f"open {times}x"] if times else []
    short += [f"paused {time_text(halted)}"] if halted else []
    short += [f"queue {deepest}"] if deepest else []
    told = [
        f"open {times} times, {time_text(opened)} in all" if times else "never open",
        f"half-open {time_text(_seconds(circuits['half_open'], end))}" if circuits["half_open"] else "",
        f"limiter paused {time_text(halted)}" if halted else "",
        f"at most {deepest} calls waited for its limit or for a slot" if deepest else "no call waited",
    ]
    return ", ".join(short) or "closed throughout", ", ".join(each for each in told if each)


def _seconds(spans: Iterable[Span], end: float) -> float:
    return sum(max(0.0, min(ended, end) - began) for began, ended in spans)
