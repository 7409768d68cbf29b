"""Circuits open when they have to. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from wizard_actors.errors import ProviderTimeoutError
from wizard_actors.testing.simulation.invariants.invariant import FUZZ, Invariant
from wizard_actors.testing.simulation.invariants.jumps import virtual_jumps
from wizard_actors.testing.simulation.invariants.pairs import pairs
from wizard_actors.testing.simulation.invariants.verdicts import COUNTED
from wizard_actors.testing.simulation.records import AttemptRecord, RequestRecord
from wizard_actors.testing.simulation.report import Report

__all__ = ["CIRCUITS"]

TICK: Final = 0.001
"""Seconds by which a circuit may open later than its last failure."""


def _circuit_opens(report: Report) -> Iterator[str]:
    scenario = report.scenario
    if not report.finished or scenario.kills or any(virtual_jumps(scenario)):
        return
    breakers = {model.name: model.circuit_breaker for model in scenario.config.models}
    opened: dict[str, list[float]] = defaultdict(list)
    for change in report.circuits:
        if change.circuit == "open":
            opened[change.model].append(change.at)
    for (model, _), (first, failures) in _failures(report).items():
        breaker = breakers[model]
        if breaker.failure_rate is not None:
            continue
        due = _due(failures, breaker.failure_threshold, breaker.window)
        place = bisect_left(opened[model], first - FUZZ)
        opens = min(opened[model][place : place + 1], default=math.inf)
        if due + TICK < opens:
            yield (
                f"{breaker.failure_threshold} calls to {model} had failed within {breaker.window:g} s at {due:.3f} s, "
                "and its circuit stayed closed"
            )


def _failures(report: Report) -> dict[tuple[str, int], tuple[float, list[float]]]:
    """Return for each time that a model's circuit was closed when its first call began, and when its calls failed.

    Each such time is a generation of the breaker, to which calls count that began in it, whenever they end. One that
    began in the very instant of a change may be of the generation before.
    """
    changed = {(change.model, change.at) for change in report.circuits}
    found: dict[tuple[str, int], tuple[float, list[float]]] = {}
    for request, attempt, call in pairs(report):
        if call.circuit != "closed" or (call.model, call.began) in changed:
            continue
        first, failures = found.get((call.model, call.generation), (call.began, []))
        if _counts(request, attempt):
            failures.append(call.began + attempt.duration)
        found[call.model, call.generation] = min(first, call.began), failures
    return found


def _counts(request: RequestRecord, attempt: AttemptRecord) -> bool:
    """Whether a breaker has to count an attempt as a failure; one that was in a hurry may have been at fault itself."""
    hurried = attempt.error == ProviderTimeoutError.code and request.deadline is not None
    return attempt.error in COUNTED and not attempt.cancelled and not hurried


def _due(failures: Sequence[float], threshold: int, window: float) -> float:
    """Return when the newest `threshold` failures lay within the window for the first time."""
    instants = sorted(failures)
    ends = zip(instants, instants[threshold - 1 :], strict=False)
    return next((last for first, last in ends if last - first <= window - FUZZ), math.inf)


CIRCUITS: Final = (
    Invariant(
        "circuit-opens",
        "A circuit opens once failure_threshold of a model's calls have failed within window seconds.",
        _circuit_opens,
    ),
)
