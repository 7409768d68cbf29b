"""Which call of a model each attempt of a request made. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from wizard_actors.testing.simulation.records import AttemptRecord, CallRecord, RequestRecord
from wizard_actors.testing.simulation.report import Report

__all__ = ["pairs"]


def pairs(report: Report) -> Iterator[tuple[RequestRecord, AttemptRecord, CallRecord]]:
    """Yield the attempts that were sent, each with its request and its call: those of a request at one model come one
    after the other.
    """
    calls: dict[tuple[str, str], list[CallRecord]] = defaultdict(list)
    for call in report.calls:
        calls[call.request_id, call.model].append(call)
    for request in report.requests:
        sent: dict[str, list[AttemptRecord]] = {}
        for attempt in sorted(request.attempts, key=_number):
            if attempt.sent:
                sent.setdefault(attempt.model, []).append(attempt)
        for model, attempts in sent.items():
            for attempt, call in zip(attempts, calls.get((request.request_id or "", model), ()), strict=False):
                yield request, attempt, call


def _number(attempt: AttemptRecord) -> int:
    return attempt.number
