"""What the cache gives: nothing that is too old. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from wizard_actors.testing.simulation.invariants.invariant import Invariant
from wizard_actors.testing.simulation.report import Report

__all__ = ["CACHED"]

TICK: Final = 0.001
"""Seconds by which an answer may be stored later than its request has ended."""


def _fresh_answers(report: Report) -> Iterator[str]:
    cache = report.scenario.config.cache
    ended = {request.request_id: request.ended for request in report.requests}
    for request in report.requests:
        stale = request.served_by == "stale"
        if not (stale or request.cache == "hit") or request.answer is None:
            continue
        if not 0 <= request.answer < len(report.calls):
            continue  # told by others
        stored = ended.get(report.calls[request.answer].request_id)
        kept = cache.ttl + (cache.stale_if_error if stale else 0.0)
        if stored is not None and request.arrived > stored + kept + TICK:
            yield (
                f"request {request.number} got an answer that was stored {request.arrived - stored:.3f} s before, "
                f"where {kept:g} s are the most"
            )


CACHED: Final = (
    Invariant(
        "fresh-answers",
        "An answer from the cache is no older than its ttl, a stale one no older than that and stale_if_error.",
        _fresh_answers,
    ),
)
