"""What the counting comes to: frozen values, for an exporter, a table, or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from attrs import fields, frozen

from wizard_actors.events import plain
from wizard_actors.histogram import HistogramSnapshot

__all__ = [
    "AttemptMetrics",
    "BreakerMetrics",
    "CacheGauges",
    "Counts",
    "Gauges",
    "LaneGauges",
    "MetricsSnapshot",
    "ModelGauges",
    "RequestMetrics",
    "SessionGauges",
]

Counts = Mapping[str, int]
"""How often, by label."""

NONE: Final[Counts] = MappingProxyType({})
UNOBSERVED: Final = HistogramSnapshot()

# -- what is counted ---------------------------------------------------------------------------------


@frozen
class RequestMetrics:
    """The requests of one route, or all.

    `answered` is by `served_by` and `failed` by error code, "all_models_refused" where every model failed for the
    request's own fault; with `cancelled` they are all that ended. What was `shed`
    is none of them. `duration` and `overhead` are of all that ended, `first_token` of those that had one, in seconds
    from the ask. Tokens are those of the answers, from the cache too; those that models used are in `AttemptMetrics`.
    `cost`, of every attempt, is in US dollars, as far as it is known.
    """

    began: int = 0
    in_flight: int = 0
    answered: Counts = NONE
    failed: Counts = NONE
    cancelled: int = 0
    shed: int = 0
    attempts: int = 0
    upstream_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal = Decimal(0)
    duration: HistogramSnapshot = UNOBSERVED
    overhead: HistogramSnapshot = UNOBSERVED
    first_token: HistogramSnapshot = UNOBSERVED


@frozen
class AttemptMetrics:
    """The attempts at one model, or all.

    `failed` and `unsent` are by error code: the model failed, or nothing reached it. With `answered` and `cancelled`
    they are all that ended. Of `hedges`, those that have ended are `hedges_won`, where they answered, or `hedges_lost`.
    `budget_spent` and `budget_refused` are by what for: "retry" or "hedge". `fallbacks` counts the requests that moved
    on from the model. `unpriced` is the number of answers of unknown cost, which `cost`, in US dollars, leaves out.
    `slot_wait` and `rate_wait` are of all that ended, `duration`, from the send, of what was sent.
    """

    began: int = 0
    answered: int = 0
    failed: Counts = NONE
    unsent: Counts = NONE
    cancelled: int = 0
    retries: int = 0
    hedges: int = 0
    hedges_won: int = 0
    hedges_lost: int = 0
    budget_spent: Counts = NONE
    budget_refused: Counts = NONE
    fallbacks: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal = Decimal(0)
    unpriced: int = 0
    slot_wait: HistogramSnapshot = UNOBSERVED
    rate_wait: HistogramSnapshot = UNOBSERVED
    first_token: HistogramSnapshot = UNOBSERVED
    duration: HistogramSnapshot = UNOBSERVED


@frozen
class BreakerMetrics:
    """One model's circuit as it was last heard of, and how often it changed to each of its states."""

    circuit: str = "closed"
    changes: Counts = NONE


# -- what is measured at the instant of the snapshot -------------------------------------------------


@frozen
class ModelGauges:
    """One model's actors as they stand. `waiting` is for a slot, `limiter_waiting` for the limiter.

    What remains of the limits is None where nobody knows; `paused_for` is in seconds.
    """

    circuit: str = "closed"
    slots_in_use: int = 0
    slots: int = 0
    waiting: int = 0
    limiter_waiting: int = 0
    remaining_requests: float | None = None
    remaining_tokens: float | None = None
    paused_for: float = 0.0


@frozen
class CacheGauges:
    """What the cache holds."""

    entries: int = 0
    bytes: int = 0


@frozen
class SessionGauges:
    """The turns of sessions in progress, and the requests that wait for one."""

    turns: int = 0
    waiting: int = 0


@frozen
class LaneGauges:
    """One actor's ask lane: how many messages lie in it, and how many it takes."""

    depth: int
    bound: int


@frozen
class Gauges:
    """What the live actors show: `models` by name, `lanes` by the actor's path, `cache` None where there is none.

    A model's calls under way count also where a reload has left them in a former configuration, and then also under the
    name of a model that is no longer configured. `budget` is what is left for retries, in retries. `restarts` is by the
    actor's path. `events_dropped` counts what late subscribers lost, `loop_stalls` how often the event loop stood
    still, for `loop_stalled` seconds together.
    """

    budget: float = 0.0
    in_flight: int = 0
    models: Mapping[str, ModelGauges] = MappingProxyType({})
    lanes: Mapping[str, LaneGauges] = MappingProxyType({})
    restarts: Counts = NONE
    cache: CacheGauges | None = None
    sessions: SessionGauges = SessionGauges()
    events_dropped: int = 0
    loop_stalls: int = 0
    loop_stalled: float = 0.0


@frozen
class MetricsSnapshot:
    """Everything counted between the instants `since` and `at`; `gauges` are None where nobody measured them.

    `requests` is the sum of `routes`, and `attempts` that of `models`; requests shed before their route was known stand
    in `requests` alone. `peak_in_flight` is the most requests there ever were at once. `cache` is by what a look came
    to, `degraded` by what stood in for an answer, `sessions` by what a turn came to.
    """

    at: float
    since: float
    requests: RequestMetrics
    attempts: AttemptMetrics
    routes: Mapping[str, RequestMetrics]
    models: Mapping[str, AttemptMetrics]
    breakers: Mapping[str, BreakerMetrics]
    peak_in_flight: int
    cache: Counts
    degraded: Counts
    sessions: Counts
    gauges: Gauges | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the snapshot in JSON's types: money as text, a histogram as `{count, sum, p50, p90, p99, max}`."""
        return {part.name: plain(getattr(self, part.name)) for part in fields(type(self))}
