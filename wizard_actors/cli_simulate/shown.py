"""How a simulation looks on standard output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Final

from attrs import frozen
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from wizard_actors.testing.simulation.invariants import INVARIANTS
from wizard_actors.testing.simulation.records import Violation
from wizard_actors.testing.simulation.report import Report
from wizard_actors.testing.simulation.scenario import Scenario
from wizard_actors.testing.simulation.summary import Percentiles, Summary
from wizard_actors.testing.simulation.timeline_figures import share_text

__all__ = ["Seed", "Seeds", "list_table", "shown_violation", "summary_table", "violations_table"]

PROMISES: Final = {invariant.name: invariant.promise for invariant in INVARIANTS}


def plain(text: str) -> str:
    """Return a text with everything escaped that is not printed as it is: a scenario is somebody's file."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def list_table(scenarios: Mapping[str, Scenario]) -> Table:
    """Return a table of scenarios by their names."""
    table = _table("scenario", "what happens")
    for name, scenario in scenarios.items():
        table.add_row(Text(name), Text(plain(scenario.about)))
    return table


# -- one run ---------------------------------------------------------------------------------------------------------


def summary_table(report: Report, hashed: str) -> Table:
    """Return a table of a run's figures; `hashed` is its trace's."""
    scenario = report.scenario
    table = _table(plain(scenario.name), f"seed {scenario.seed}")
    if scenario.about:
        table.title, table.title_justify, table.title_style = Text(plain(scenario.about)), "left", ""
    for name, value in _figures(report.summary):
        table.add_row(Text(name), Text(plain(value)))
    table.add_row(Text("trace"), Text(f"sha256 {hashed}"))
    return table


def violations_table(violations: Sequence[Violation]) -> Table:
    """Return a table of what was against the invariants, each with its promise."""
    table = _table("violated", "what was seen")
    told = set[str]()
    for violation in violations:
        name = "" if violation.invariant in told else f"{violation.invariant}: {PROMISES.get(violation.invariant, '')}"
        told.add(violation.invariant)
        table.add_row(Text(name.removesuffix(": "), "red"), Text(plain(violation.what), "red"))
    return table


def shown_violation(violation: Violation) -> dict[str, object]:
    """Return a violation in JSON's types: `{invariant, promise, what}`."""
    promise = PROMISES.get(violation.invariant)
    return {"invariant": violation.invariant, "promise": promise, "what": violation.what}


def _figures(summary: Summary) -> Iterator[tuple[str, str]]:
    yield "requests", f"{summary.requests} in {_seconds(summary.ended)}"
    yield "outcomes", _counts(summary.outcomes)
    if summary.shed:
        yield "  mailbox_full, by what was full", _counts(_by_actor(summary.shed))
    yield "availability", share_text(summary.availability)
    if summary.availability_in_faults is not None:
        yield "  while a model was faulty", share_text(summary.availability_in_faults)
    if summary.availability_in_storage_faults is not None:
        yield "  of sessions, while their storage was faulty", share_text(summary.availability_in_storage_faults)
    if summary.fallback_share is not None:
        yield "  by another model, while the first was faulty", share_text(summary.fallback_share)
    yield "latency of answers", _percentiles(summary.latency)
    yield "first token", _percentiles(summary.first_token)
    yield "answered by", ", ".join(f"{model} {share_text(summary.share_of(model))}" for model in summary.answered_by)
    yield "served by", _counts(summary.served_by)
    calls = {model: sum(circuits.values()) for model, circuits in summary.calls.items()}
    each = "-" if summary.calls_per_request is None else f"{summary.calls_per_request:.2f}"
    yield "calls to models", f"{each} a request: {_counts(calls)}"
    yield "  by the circuit at the send", _counts(_by_circuit(summary))
    if any(summary.late_calls.values()):
        yield "  calls after a fault's first minute", _counts(summary.late_calls)
    yield "faults met", _counts(summary.faults)
    refused = f", {summary.refused_retries} refused by the budget" if summary.refused_retries else ""
    hedged = f" ({summary.hedge_answers} answered)" if summary.hedges else ""
    yield "retries and hedges", f"{summary.retries} retries, {summary.hedges} hedges{hedged}{refused}"
    yield "circuits opened", _counts(summary.openings)
    yield "actors restarted", _counts(_by_actor(summary.restarts))
    yield "most calls waiting at once", _counts(summary.waiting)
    yield "deepest lanes of actors", _lanes(summary)
    yield "cost", _cost(summary)


def _cost(summary: Summary) -> str:
    if summary.cost is None:
        return "not known: the models have no price" if summary.unpriced else "none"
    return f"{summary.cost:f} USD" + (f", and {summary.unpriced} answers without a price" if summary.unpriced else "")


def _by_circuit(summary: Summary) -> dict[str, int]:
    counts: dict[str, int] = {}
    for circuits in summary.calls.values():
        for circuit, count in circuits.items():
            counts[circuit] = counts.get(circuit, 0) + count
    return counts


def _lanes(summary: Summary) -> str:
    deep = sorted(((lane.deepest, path, lane.bound) for path, lane in summary.lanes.items() if lane.deepest))[-3:]
    return ", ".join(f"{_actor(path)} {deepest} of {bound}" for deepest, path, bound in reversed(deep)) or "all empty"


def _by_actor(counts: Mapping[str, int]) -> dict[str, int]:
    return {_actor(path): count for path, count in counts.items()}


def _actor(path: str) -> str:
    """Return what a reader needs of an actor's path: a model's are "NAME/breaker" and so on."""
    return path.removeprefix("wizard/").removeprefix("models/model:")


def _counts(counts: Mapping[str, int]) -> str:
    """Return counts, the largest first, without those of nothing."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {count}" for name, count in ordered if count) or "none"


def _percentiles(values: Percentiles | None) -> str:
    if values is None:
        return "-"
    return f"p50 {_seconds(values.p50)}, p90 {_seconds(values.p90)}, p99 {_seconds(values.p99)}"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.4g} s"


# -- many runs -------------------------------------------------------------------------------------------------------


@frozen
class Seed:
    """What is kept of one of many runs."""

    seed: int
    summary: Summary
    violations: int

    @property
    def line(self) -> Text:
        """The run in a line."""
        latency = self.summary.latency
        shown = [
            f"seed {self.seed:<6}",
            f"{share_text(self.summary.availability):>9} available",
            f"p99 {'-' if latency is None else _seconds(latency.p99):>8}",
            f"{self.summary.calls_per_request or 0:.2f} calls a request",
            f"{self.violations} violations",
        ]
        return Text("  ".join(shown), "red" if self.violations else "")


@frozen
class Seeds:
    """Many runs of a scenario."""

    runs: tuple[Seed, ...]

    @property
    def worst(self) -> Seed | None:
        """The run with the least availability, the first of several."""
        return min(self._counted(), key=lambda run: run.summary.availability or 0.0, default=None)

    @property
    def median(self) -> float | None:
        """The median of the availabilities."""
        shares = [run.summary.availability or 0.0 for run in self._counted()]
        return median(shares) if shares else None

    @property
    def violated(self) -> list[int]:
        """The seeds of the runs in which an invariant did not hold."""
        return [run.seed for run in self.runs if run.violations]

    @property
    def lines(self) -> Text:
        """The runs in a few words."""
        worst = "" if self.worst is None else f" (seed {self.worst.seed})"
        share = None if self.worst is None else self.worst.summary.availability
        return Text(f"worst   {share_text(share)} available{worst}\nmedian  {share_text(self.median)} available")

    def to_dict(self) -> dict[str, object]:
        """Return `{seeds, worst: {seed, availability}, median, violated}` in JSON's types."""
        worst = self.worst
        return {
            "seeds": [run.seed for run in self.runs],
            "worst": None if worst is None else {"seed": worst.seed, "availability": worst.summary.availability},
            "median": self.median,
            "violated": self.violated,
        }

    def _counted(self) -> Iterable[Seed]:
        return [run for run in self.runs if run.summary.availability is not None]


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
