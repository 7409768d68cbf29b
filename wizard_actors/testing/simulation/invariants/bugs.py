"""What is nobody's fault but ours: errors that are no `WizardError`, and answers that a parser chokes on. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from wizard_actors.errors import ProviderBugError
from wizard_actors.testing.simulation.invariants.invariant import Invariant
from wizard_actors.testing.simulation.report import Report

__all__ = ["BUGS"]


def _no_bug(report: Report) -> Iterator[str]:
    for request in report.requests:
        if request.bug is not None:
            yield f"request {request.number} ended in {request.bug}"


def _no_provider_bug(report: Report) -> Iterator[str]:
    for request in report.requests:
        for attempt in request.attempts:
            if attempt.error == ProviderBugError.code:
                yield f"attempt {attempt.number} of request {request.number} met a bug in {attempt.model}'s provider"


BUGS: Final = (
    Invariant("no-bug", "Every error that a caller gets is a WizardError.", _no_bug),
    Invariant("no-provider-bug", "No attempt ends in a bug of its provider.", _no_provider_bug),
)
