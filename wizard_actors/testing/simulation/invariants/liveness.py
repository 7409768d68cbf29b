"""Who asks is answered, unless something is in the way: nobody is refused for nothing. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Final

from wizard_actors.errors import ActorCrashedError
from wizard_actors.testing.simulation.invariants.invariant import Invariant
from wizard_actors.testing.simulation.records import CircuitChange, RequestRecord
from wizard_actors.testing.simulation.report import Report
from wizard_actors.testing.simulation.scenario import Scenario

__all__ = ["LIVENESS", "most_at_once"]

NO_FAILURE: Final = frozenset({"answered", "cancelled", "left", "nothing"})
OWN: Final = frozenset({"config", "unsupported"})
"""What a request is refused as whatever goes on: nobody could answer it."""

PASSING: Final = frozenset({"network", "parse", "provider_error", "stream_interrupted", "timeout"})
"""The errors of attempts after which only the circuit keeps others from the model: no pause, no bar."""


def _answers_where_it_can(report: Report) -> Iterator[str]:
    if report.scenario.kills or report.scenario.clock_jumps or _too_small(report):
        return
    unclosed = _Unclosed(report)
    kept_off = _kept_off(report)
    crowded = most_at_once(list(report.requests)) >= _room(report.scenario)
    for request in report.requests:
        if request.outcome in NO_FAILURE | OWN or request.bug is not None or _of_its_own(request, report.scenario):
            continue
        if request.outcome == "mailbox_full" and (crowded or request.session is not None):
            continue
        if request.ended < kept_off and not unclosed.at_any(request):
            yield f"request {request.number} ended in {request.outcome!r}, and nothing was in its way"


def _too_small(report: Report) -> bool:
    """Whether a prompt may be too long for a model, as its configuration says."""
    return any(model.context_window is not None for model in report.scenario.config.models)


def _of_its_own(request: RequestRecord, scenario: Scenario) -> bool:
    """Whether a request has met something itself: an attempt that failed, of whom it follows too, a deadline, the
    storage, a reader who is slow.
    """
    return (
        any(attempt.error is not None for attempt in request.attempts)
        or (request.deadline is not None and request.outcome == "deadline_exceeded")
        or (request.session is not None and bool(scenario.storage_faults))
        or request.reader != "eager"
        or request.cache == "follow"
    )


def _kept_off(report: Report) -> float:
    """Return the instant from which a model may be barred, or have paused all calls."""
    limited = any(model.rate_limit.requests_per_minute is not None for model in report.scenario.config.models)
    limited |= any(model.rate_limit.tokens_per_minute is not None for model in report.scenario.config.models)
    limited |= any(
        upstream.requests_per_minute is not None or upstream.tokens_per_minute is not None
        for upstream in report.scenario.upstreams
    )
    if limited:
        return 0.0
    ends = (
        attempt.ended
        for request in report.requests
        for attempt in request.attempts
        if attempt.error is not None and attempt.error not in PASSING
    )
    return min(ends, default=math.inf)


def _room(scenario: Scenario) -> int:
    """Return how many requests at once find room everywhere, whatever they ask."""
    return min(scenario.config.server.max_in_flight, scenario.config.supervision.mailbox)


def most_at_once(requests: list[RequestRecord]) -> int:
    """Return how many of these were there at one time, at most; who comes as another goes is not there with them."""
    steps = sorted([(request.arrived, 1) for request in requests] + [(request.ended, -1) for request in requests])
    most = now = 0
    for _, step in steps:
        now += step
        most = max(most, now)
    return most


class _Unclosed:
    """When a circuit was not closed, whichever."""

    def __init__(self, report: Report) -> None:
        self._spans = list(_spans(report.circuits))
        self._next = 0

    def at_any(self, request: RequestRecord) -> bool:
        """Whether one was while a request waited; requests come in the order of their arrival."""
        spans = self._spans
        while self._next < len(spans) and spans[self._next][1] < request.arrived:
            self._next += 1
        return self._next < len(spans) and spans[self._next][0] <= request.ended


def _spans(circuits: tuple[CircuitChange, ...]) -> Iterator[tuple[float, float]]:
    """Yield from when to when any circuit was not closed."""
    unclosed: set[str] = set()
    since = math.inf
    for change in circuits:
        before = bool(unclosed)
        (unclosed.discard if change.circuit == "closed" else unclosed.add)(change.model)
        if unclosed and not before:
            since = change.at
        elif before and not unclosed:
            yield since, change.at
    if unclosed:
        yield since, math.inf


def _no_failure_for_nothing(report: Report) -> Iterator[str]:
    """Yield where an attempt failed whose call was whole."""
    if report.scenario.clock_jumps:
        return
    whole = {(call.request_id, call.model) for call in report.calls if call.end == "complete" and call.fault is None}
    for request in report.requests:
        if request.reader != "eager" or request.deadline is not None:
            continue
        failed = [attempt for attempt in request.attempts if attempt.sent and not attempt.cancelled]
        sent = Counter(attempt.model for attempt in request.attempts if attempt.sent)
        for attempt in failed:
            if attempt.error is not None and sent[attempt.model] == 1 and (request.request_id, attempt.model) in whole:
                yield f"request {request.number}: attempt {attempt.number} failed ({attempt.error}) on a whole answer"


def _crash_survived(report: Report) -> Iterator[str]:
    if report.scenario.config.supervision.max_restarts == 0:
        return  # an actor that has crashed is DOWN
    second = _second_kill(report.scenario)
    for request in report.requests:
        if request.outcome == ActorCrashedError.code and request.ended < second:
            yield f"request {request.number} ended in {request.outcome!r}, after no more than one crash"


def _second_kill(scenario: Scenario) -> float:
    """Return when the second actor is killed, of all that are."""
    instants = [kill.at for kill in scenario.kills]
    instants += [kill.at + kill.every for kill in scenario.kills if kill.every is not None and kill.times > 1]
    return next(islice(sorted(instants), 1, None), math.inf)


LIVENESS: Final = (
    Invariant(
        "answers-where-it-can",
        "A request fails only where something was in its way: an attempt that failed, a circuit, a limit, a crash.",
        _answers_where_it_can,
    ),
    Invariant("crash-survived", "The first crash of an actor fails no request.", _crash_survived),
    Invariant("whole-calls-count", "An attempt whose call was whole is answered.", _no_failure_for_nothing),
)
