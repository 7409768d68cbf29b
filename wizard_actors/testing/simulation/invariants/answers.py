"""What callers are promised: one outcome each, in time, whole, their own, and kept. Pure."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from wizard_actors.testing.simulation.invariants.invariant import Invariant
from wizard_actors.testing.simulation.invariants.jumps import Jumps
from wizard_actors.testing.simulation.records import RequestRecord
from wizard_actors.testing.simulation.report import Report
from wizard_actors.testing.simulation.scenario import Scenario, StorageFault

__all__ = ["ANSWERS", "may_expire"]

TICK: Final = 0.001
"""Seconds by which an answer may come after its deadline."""

UNREPORTED: Final = frozenset({"cancelled", "config", "mailbox_full"})
"""The outcomes of requests that need not have begun: gone before, asked wrongly, or one too many."""

UNCACHED: Final = frozenset({None, "bypass"})
"""What a look into the cache comes to where no answer can be from there."""

IN_STORAGE: Final = frozenset({"serialization", "session_conflict", "storage"})
"""What a turn may end in whose question was answered, and whose answer could not be stored."""


# -- outcomes ----------------------------------------------------------------------------------------------------------


def _answered_once(report: Report) -> Iterator[str]:
    whole = {call.request_id for call in report.calls if call.end == "complete"}
    static = any(
        route.static_answer is not None for route in (report.scenario.config.fallback, *report.scenario.config.routes)
    )
    for request in report.requests:
        if len(request.outcomes) != 1:
            got = ", ".join(request.outcomes) or "none"
            yield f"request {request.number} had {len(request.outcomes)} outcomes: {got}"
        elif request.bug is not None:
            continue  # what is reported of such a request is anybody's guess
        elif (request.began_reports, request.ends) == (0, 0):
            if request.outcome not in UNREPORTED and (request.session is None or request.outcome == "answered"):
                yield f"request {request.number} ended in {request.outcome!r}, and was never reported"
        elif (request.began_reports, request.ends) != (1, 1):
            yield (
                f"request {request.number} was reported as begun {request.began_reports} times, "
                f"as ended {request.ends} times"
            )
        elif not _agree(request):
            yield f"request {request.number} ended in {request.outcome!r} and was reported as {request.code!r}"
        elif request.code is None and request.cache in UNCACHED and request.request_id not in whole and not static:
            yield f"request {request.number} was reported as answered, and nobody has answered it"
        elif request.outcome == "deadline_exceeded" and request.deadline is None and request.reader == "eager":
            yield f"request {request.number} ended in {request.outcome!r}, and had no deadline"


def _agree(request: RequestRecord) -> bool:
    """Whether what was reported of a request is what its caller saw."""
    outcome, code = request.outcome, request.code
    if outcome == "answered":
        return code is None
    if outcome in {"cancelled", "left"}:
        return code in {None, "cancelled"}  # who goes while the end of an answer is on its way has been answered
    if code == outcome:
        return True
    if outcome == "deadline_exceeded" and request.reader != "eager":
        return code in {None, "cancelled"}  # nobody read on, and so the call was stopped
    return request.session is not None and code is None and outcome in IN_STORAGE


def _nothing_left(report: Report) -> Iterator[str]:
    if not report.finished:
        waiting = [request.number for request in report.requests if not request.outcomes]
        yield f"somebody still waits: {len(waiting)} requests, the first of them {waiting[:3]}"
    yield from report.held


# -- answers -----------------------------------------------------------------------------------------------------------


def _whole_answers(report: Report) -> Iterator[str]:
    for request in report.requests:
        if request.outcome != "answered" or request.served_by == "static":
            continue
        if request.answer is None or not 0 <= request.answer < len(report.calls):
            yield f"request {request.number} was answered with what is no call's whole answer"
            continue
        call = report.calls[request.answer]
        if call.end != "complete" or call.model != request.model:
            yield f"request {request.number} was answered by {request.model} with call {call.number}, which is not its"
        elif call.prompt != request.prompt:
            yield f"request {request.number} asked {request.prompt} and got an answer to {call.prompt}"
        elif request.delivered != request.answer:
            yield f"request {request.number} was answered by call {call.number}, and its caller read something else"


def _tenants_apart(report: Report) -> Iterator[str]:
    for request in report.requests:
        if request.answer is None or not 0 <= request.answer < len(report.calls):
            continue
        made_for = report.calls[request.answer].tenant
        if made_for != request.tenant:
            yield f"request {request.number} of tenant {request.tenant!r} got an answer made for {made_for!r}"


# -- time --------------------------------------------------------------------------------------------------------------


def _deadlines_kept(report: Report) -> Iterator[str]:
    jumps, slow = Jumps(report.scenario), _SlowStorage(report.scenario)
    for request in report.requests:
        if request.deadline is None or request.reader != "eager" or not request.outcomes:
            continue
        if request.session is not None and slow.at_any(request):
            continue
        if request.seconds > request.deadline + jumps.begun_in(request.arrived, request.ended) + TICK:
            yield f"request {request.number} had {request.deadline:.3f} s and waited {request.seconds:.3f} s"


class _SlowStorage:
    """When the storage may have been slow to take what a turn had to store, in time of its own."""

    def __init__(self, scenario: Scenario) -> None:
        slow = sorted((fault.start, _until(fault)) for fault in scenario.storage_faults if fault.kind == "slow")
        self._starts = [start for start, _ in slow]
        self._ends = list(accumulate((end for _, end in slow), max))

    def at_any(self, request: RequestRecord) -> bool:
        """Whether it was while a request waited."""
        begun = bisect_right(self._starts, request.ended)
        return begun > 0 and request.arrived < self._ends[begun - 1]


def _until(fault: StorageFault) -> float:
    return fault.start + (math.inf if fault.lasts is None else fault.lasts)


# -- books -------------------------------------------------------------------------------------------------------------


def may_expire(report: Report) -> bool:
    """Whether a session may have expired during the run."""
    sessions = report.scenario.config.sessions
    kept = min(sessions.expire_idle or math.inf, sessions.expire_age or math.inf)
    return report.ended + sum(max(0.0, jump.seconds) for jump in report.scenario.clock_jumps if jump.wall) >= kept


def _sessions_stored(report: Report) -> Iterator[str]:
    if may_expire(report):
        return  # a session that has expired begins anew
    unacknowledged = Counter(
        request.session for request in report.requests if request.code is None and request.outcome != "answered"
    )
    acknowledged = Counter(request.session for request in report.requests if request.outcome == "answered")
    for session, (told, stored) in report.sessions.items():
        if told != acknowledged[session]:
            yield f"session {session!r}: {acknowledged[session]} requests were answered, {told} turns acknowledged"
        if not told <= stored <= told + unacknowledged[session]:
            yield (
                f"session {session!r}: {told} turns were acknowledged, {stored} stored; {unacknowledged[session]} more "
                "were answered"
            )


def _metrics_agree(report: Report) -> Iterator[str]:
    if not report.finished:
        return  # nobody has looked
    codes = Counter("answered" if request.code is None else request.code for request in report.requests if request.ends)
    answered, cancelled = codes.pop("answered", 0), codes.pop("cancelled", 0)
    expected = {
        "began": sum(request.began_reports for request in report.requests),
        "answered": answered,
        "cancelled": cancelled,
        "failed": sum(codes.values()),
        "attempts": sum(len(request.attempts) for request in report.requests),
        "upstream_calls": len(report.calls),
    }
    for name, number in expected.items():
        if report.counts.get(name) != number:
            yield f"the metrics count {report.counts.get(name)} as {name}, and there were {number}"
    shed = [request for request in report.requests if not request.ends and request.outcome == "mailbox_full"]
    certain = sum(request.session is None for request in shed)  # of the others, some found their session's queue full
    if not certain <= report.counts.get("shed", 0) <= len(shed):
        yield f"the metrics count {report.counts.get('shed')} as shed, and there were {certain} to {len(shed)}"
    sent = sum(attempt.sent for request in report.requests for attempt in request.attempts)
    if sent != len(report.calls):
        yield f"{sent} attempts are told to have been sent, and {len(report.calls)} calls reached a model"


ANSWERS: Final = (
    Invariant(
        "answered-once",
        "Every request has exactly one outcome, and is reported once as begun and once as ended, in that outcome.",
        _answered_once,
    ),
    Invariant("nothing-left", "When all is over, nobody waits, nothing is held and nothing runs.", _nothing_left),
    Invariant(
        "whole-answers",
        "An answer is the whole answer of a call, by that model, to that prompt, and arrives as it is.",
        _whole_answers,
    ),
    Invariant("tenants-apart", "Nobody gets an answer that was made for another tenant.", _tenants_apart),
    Invariant("deadlines-kept", "Nobody waits longer than the deadline that they gave.", _deadlines_kept),
    Invariant("sessions-stored", "Every turn that was acknowledged is stored, and no other.", _sessions_stored),
    Invariant("metrics-agree", "The metrics count what callers and models have seen.", _metrics_agree),
)
