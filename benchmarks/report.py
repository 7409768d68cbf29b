"""Results as Markdown: the generated part of docs/performance.md, and what a run prints at its end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from benchmarks.figure import Figure
from benchmarks.promises import Promise, promises
from benchmarks.results import Outcome, Results

__all__ = ["BEGIN", "END", "amount", "generated", "promised", "table", "with_figures"]

BEGIN: Final = "<!-- begin: figures -->\n"
END: Final = "<!-- end: figures -->\n"

TITLES: Final = {
    "call": "A chat completion, one after another",
    "crowd": "Chat completions, 32 at once",
    "stream": "A stream of 50 chunks, read to its end",
    "hit": "An answer from the client's cache",
    "retry": "A call that is refused once and then answered, without a pause",
    "ask": "A message to an actor and its reply, one after another",
    "ask64": "A message to an actor and its reply, 64 callers at once",
    "endpoint": "A server in front of the upstream, 16 connections",
}
BESIDE: Final = "httpx_trio"
"""The contender that the others of a suite are compared with."""


def with_figures(page: str, figures: str) -> str:
    """Return the page with these figures between its two marks. Raises `ValueError` where it has not both."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"the page has not the marks {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{figures}\n{END}{after}"


def generated(results: Results) -> str:
    """Return all tables of a run."""
    parts = [
        _measured_on(results),
        "### What was promised\n",
        promised(promises(results)),
        *_contenders(results),
        *_figures(results.figures),
    ]
    if results.missing:
        rows = [(f"`{each.contender}`", each.suite, _in_a_cell(each.reason)) for each in results.missing]
        parts += ["### Not measured\n", table(("what", "suite", "why"), rows)]
    return "\n".join(parts)


def _measured_on(results: Results) -> str:
    machine = results.machine
    versions = ", ".join(f"{package} {version}" for package, version in results.versions.items())
    rounds = "one round" if results.rounds == 1 else f"the medians of {results.rounds} rounds"
    where = f"{machine.cpu}, {machine.cores} cores; {machine.python}, {machine.system}"
    return f"Measured on {where}; {rounds}.\n" + (f"\nVersions: {versions}.\n" if versions else "")


# -- promises ----------------------------------------------------------------------------------------


def promised(found: Iterable[Promise]) -> str:
    """Return promises as a table: what was promised, what was measured, and what is to spare."""
    found = list(found)
    aims = any(each.aim is not None for each in found)
    head = ("what", "promised", *(["aim"] if aims else []), "measured", "margin")
    rows = [
        (
            each.what,
            f"{'at least' if each.at_least else 'at most'} {amount(each.bound, each.unit)}",
            *([amount(each.aim, each.unit)] if aims else []),
            "not measured" if each.measured is None else amount(each.measured, each.unit),
            _margin(each),
        )
        for each in found
    ]
    return table(head, rows)


def _margin(promise: Promise) -> str:
    if promise.margin is None:
        return ""
    part = f"{abs(promise.margin):.0%}".replace("%", " %")
    if not promise.kept:
        return f"**missed** by {part}"
    return f"{part} to spare" + (", but the aim is missed" if promise.aimed is False else "")


# -- whole clients -----------------------------------------------------------------------------------


def _contenders(results: Results) -> Iterator[str]:
    for suite, title in TITLES.items():
        found = [each for each in results.outcomes if each.suite == suite]
        if not found:
            continue
        beside = results.outcome(BESIDE, suite)
        head = ["contender", "median us", "p99 us", "CPU us a call", "calls a second", "memory MiB", "import s"]
        head += [] if beside is None else ["beside httpx"]
        rows = [_outcome(each, beside) for each in sorted(found, key=lambda each: each.p50_us)]
        yield f"### {title}\n"
        yield table(head, rows)


def _outcome(found: Outcome, beside: Outcome | None) -> Sequence[str]:
    cells = [
        f"`{found.contender}`",
        _number(found.p50_us),
        _number(found.p99_us),
        _number(found.cpu_us),
        _number(found.per_s),
        _number(found.rss_mib),
        _number(found.import_s),
    ]
    return cells if beside is None else [*cells, f"{_number(found.p50_us / beside.p50_us)} x"]


# -- figures of one process --------------------------------------------------------------------------


def _figures(figures: Sequence[Figure]) -> Iterator[str]:
    for suite in dict.fromkeys(each.suite for each in figures):
        rows = [
            (each.name, amount(each.value, each.unit), amount(each.p99, each.unit), _number(each.cpu), _bound(each))
            for each in figures
            if each.suite == suite
        ]
        yield f"### In one process: {suite}\n"
        yield table(("what", "measured", "p99", "CPU us a call", "promised"), rows)


def _bound(figure: Figure) -> str:
    if figure.bound is None:
        return ""
    return f"{'at least' if figure.unit == '1/s' else 'at most'} {amount(figure.bound, figure.unit)}"


# -- cells -------------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("|" + "".join(f" {cell} |" if cell else " |" for cell in cells) + "\n" for cells in lines)


def amount(value: float | None, unit: str) -> str:
    """Return a figure with its unit; nothing for none."""
    return "" if value is None else f"{_number(value)} {unit.replace('1/s', 'a second')}"


def _number(value: float | None) -> str:
    """Return a number as finely as such measurements are worth: three digits."""
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def _in_a_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
