"""`Report`: what came of a simulation, and what was wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from attrs import frozen

from wizard_actors.testing.simulation.records import (
    CallRecord,
    CircuitChange,
    RequestRecord,
    Sample,
    Spent,
    Violation,
)
from wizard_actors.testing.simulation.scenario import Scenario
from wizard_actors.testing.simulation.summary import Summary, summarize

__all__ = ["Report"]


@frozen(eq=False)
class Report:
    """Everything that is known of a run.

    `lanes` is how deep each actor's ask lane ever was when it was looked at, and its bound; `restarts` how often each
    actor was restarted. `held` says what was still held or running when all was over, which should be nothing. `counts`
    are the totals of the client's own metrics. `ended` is when the last request had.
    """

    scenario: Scenario
    requests: tuple[RequestRecord, ...]
    calls: tuple[CallRecord, ...]
    circuits: tuple[CircuitChange, ...]
    spent: tuple[Spent, ...]
    samples: tuple[Sample, ...]
    lanes: Mapping[str, tuple[int, int]]
    restarts: Mapping[str, int]
    sessions: Mapping[str, tuple[int, int]]
    """By session: how many turns were acknowledged, and how many were stored when all was over."""
    counts: Mapping[str, int]
    held: tuple[str, ...]
    finished: bool
    ended: float
    violations: tuple[Violation, ...] = ()

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models that are enabled, in the configuration's order."""
        return tuple(model.name for model in self.scenario.config.models if model.enabled)

    @cached_property
    def summary(self) -> Summary:
        """The run in figures."""
        return summarize(self)
