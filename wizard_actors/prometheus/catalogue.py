"""Every metric: its name, what it means, its labels, and where its numbers stand, in the order of `docs/metrics.md`.

A counter's name is without the `_total` that the library adds.
"""

from __future__ import annotations

import math
from typing import Final, get_args

from attrs import frozen
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from wizard_actors.events import CacheOutcome, DegradedTo, TurnOutcome
from wizard_actors.histogram import HistogramSnapshot
from wizard_actors.metrics import MetricsSnapshot
from wizard_actors.prometheus import rows
from wizard_actors.prometheus.rows import Read

__all__ = ["METRICS", "Counter", "Gauge", "Histogram"]

ROUTE: Final = ("route",)
MODEL: Final = ("model",)
ACTOR: Final = ("actor",)
NO_LABELS: Final = ()
PURPOSES: Final = ("retry", "hedge")
UNITS: Final = ("seconds", "bytes", "dollars")


@frozen
class Counter:
    """What only grows."""

    name: str
    text: str
    labels: tuple[str, ...]
    read: Read[float]

    def family(self, seen: MetricsSnapshot) -> Metric:
        """Return the metric with its series."""
        family = CounterMetricFamily(self.name, self.text, labels=self.labels, unit=_unit(self.name))
        for values, count in self.read(seen):
            family.add_metric(values, count)
        return family


@frozen
class Gauge:
    """What goes up and down."""

    name: str
    text: str
    labels: tuple[str, ...]
    read: Read[float]

    def family(self, seen: MetricsSnapshot) -> Metric:
        """Return the metric with its series."""
        family = GaugeMetricFamily(self.name, self.text, labels=self.labels, unit=_unit(self.name))
        for values, value in self.read(seen):
            family.add_metric(values, value)
        return family


@frozen
class Histogram:
    """How durations are spread."""

    name: str
    text: str
    labels: tuple[str, ...]
    read: Read[HistogramSnapshot]

    def family(self, seen: MetricsSnapshot) -> Metric:
        """Return the metric with its series."""
        family = HistogramMetricFamily(self.name, self.text, labels=self.labels, unit=_unit(self.name))
        for values, spread in self.read(seen):
            buckets = [(_le(bound), count) for bound, count in spread.cumulative()]
            family.add_metric(values, buckets, spread.sum)
        return family


def _le(bound: float) -> str:
    return "+Inf" if bound == math.inf else str(bound)


def _unit(name: str) -> str:
    return next((unit for unit in UNITS if name.endswith(f"_{unit}")), "")


REQUESTS: Final = (
    Counter(
        "wizard_requests",
        "Requests that were answered, failed, were cancelled, or were shed unbegun.",
        ("route", "outcome", "served_by", "code"),
        rows.requests,
    ),
    Gauge("wizard_requests_in_flight", "Requests under way.", ROUTE, rows.routes(lambda route: route.in_flight)),
    Gauge(
        "wizard_requests_in_flight_peak",
        "The most requests that were ever under way at once.",
        NO_LABELS,
        rows.alone(lambda seen: seen.peak_in_flight),
    ),
    Histogram(
        "wizard_request_duration_seconds",
        "Requests from the ask to the end.",
        ROUTE,
        rows.routes(lambda route: route.duration),
    ),
    Histogram(
        "wizard_request_first_token_seconds",
        "Requests from the ask to the first token, where one came.",
        ROUTE,
        rows.routes(lambda route: route.first_token),
    ),
    Histogram(
        "wizard_request_overhead_seconds",
        "Requests without upstream calls, delays and queues.",
        ROUTE,
        rows.routes(lambda route: route.overhead),
    ),
    Counter(
        "wizard_request_attempts",
        "Attempts of requests that ended, sent or not.",
        ROUTE,
        rows.routes(lambda route: route.attempts),
    ),
    Counter(
        "wizard_request_upstream_calls",
        "Attempts of requests that ended, where they were sent.",
        ROUTE,
        rows.routes(lambda route: route.upstream_calls),
    ),
    Counter(
        "wizard_request_tokens",
        "Tokens of the answers that callers were given, from the cache too.",
        ("route", "direction"),
        rows.routes_parts(rows.tokens),
    ),
    Counter(
        "wizard_request_cost_dollars",
        "Known cost of requests in US dollars: that of their attempts.",
        ROUTE,
        rows.routes(lambda route: float(route.cost)),
    ),
)

MODELS: Final = (
    Counter(
        "wizard_attempts",
        "Attempts that were answered, failed, failed unsent, or were cancelled.",
        ("model", "outcome", "code"),
        rows.attempts,
    ),
    Histogram(
        "wizard_attempt_duration_seconds",
        "Attempts from the send to the end, where they were sent.",
        MODEL,
        rows.models(lambda model: model.duration),
    ),
    Histogram(
        "wizard_attempt_first_token_seconds",
        "Attempts from the send to the first token, where one came.",
        MODEL,
        rows.models(lambda model: model.first_token),
    ),
    Counter("wizard_retries", "Retries of the model.", MODEL, rows.models(lambda model: model.retries)),
    Counter(
        "wizard_fallbacks",
        "Requests that moved on from the model.",
        MODEL,
        rows.models(lambda model: model.fallbacks),
    ),
    Counter(
        "wizard_hedges",
        "Hedges that ended: won, where they answered, or lost.",
        ("model", "outcome"),
        rows.models_parts((), lambda model: {"won": model.hedges_won, "lost": model.hedges_lost}),
    ),
    Counter(
        "wizard_tokens",
        "Tokens that the model stated, of attempts that failed as well.",
        ("model", "direction"),
        rows.models_parts((), rows.tokens),
    ),
    Counter(
        "wizard_cost_dollars",
        "Known cost of attempts in US dollars.",
        MODEL,
        rows.models(lambda model: float(model.cost)),
    ),
    Counter(
        "wizard_unpriced_answers",
        "Answers of unknown cost, which the cost leaves out.",
        MODEL,
        rows.models(lambda model: model.unpriced),
    ),
)

LIMITS: Final = (
    Gauge(
        "wizard_breaker_state",
        "1 for the state that the model's circuit is in, 0 for the others.",
        ("model", "state"),
        rows.breaker_states,
    ),
    Counter(
        "wizard_breaker_changes",
        "Changes of the model's circuit to the state.",
        ("model", "state"),
        rows.breaker_changes,
    ),
    Gauge("wizard_slots", "Calls that may be under way at once.", MODEL, rows.models_now(lambda model: model.slots)),
    Gauge("wizard_slots_in_use", "Calls under way.", MODEL, rows.models_now(lambda model: model.slots_in_use)),
    Gauge("wizard_slots_waiting", "Calls that wait for a slot.", MODEL, rows.models_now(lambda model: model.waiting)),
    Histogram(
        "wizard_attempt_slot_wait_seconds",
        "What attempts waited for a slot.",
        MODEL,
        rows.models(lambda model: model.slot_wait),
    ),
    Gauge(
        "wizard_limiter_waiting",
        "Calls that wait for the rate limiter.",
        MODEL,
        rows.models_now(lambda model: model.limiter_waiting),
    ),
    Gauge(
        "wizard_limiter_remaining_requests",
        "Requests that the limits leave.",
        MODEL,
        rows.models_now(lambda model: model.remaining_requests),
    ),
    Gauge(
        "wizard_limiter_remaining_tokens",
        "Tokens that the limits leave.",
        MODEL,
        rows.models_now(lambda model: model.remaining_tokens),
    ),
    Gauge(
        "wizard_limiter_paused_seconds",
        "For how long nothing more is sent to the model.",
        MODEL,
        rows.models_now(lambda model: model.paused_for),
    ),
    Histogram(
        "wizard_attempt_rate_wait_seconds",
        "What attempts waited for the rate limiter.",
        MODEL,
        rows.models(lambda model: model.rate_wait),
    ),
    Gauge(
        "wizard_retry_budget_remaining",
        "Retries and hedges that the budget can pay for.",
        NO_LABELS,
        rows.now(lambda gauges: gauges.budget),
    ),
    Counter(
        "wizard_retry_budget_spent",
        "Retries and hedges that the budget paid for.",
        ("model", "purpose"),
        rows.models_parts(PURPOSES, lambda model: model.budget_spent),
    ),
    Counter(
        "wizard_retry_budget_refused",
        "Retries and hedges that the budget could not pay for.",
        ("model", "purpose"),
        rows.models_parts(PURPOSES, lambda model: model.budget_refused),
    ),
)

STORED: Final = (
    Counter(
        "wizard_cache_looks",
        "Looks into the cache, by what they came to.",
        ("outcome",),
        rows.counted(get_args(CacheOutcome), lambda seen: seen.cache),
    ),
    Gauge("wizard_cache_entries", "Answers in the cache.", NO_LABELS, rows.cache_now(lambda cache: cache.entries)),
    Gauge("wizard_cache_bytes", "Bytes that they take.", NO_LABELS, rows.cache_now(lambda cache: cache.bytes)),
    Counter(
        "wizard_degraded",
        "Answers that stood in when every model had failed.",
        ("to",),
        rows.counted(get_args(DegradedTo), lambda seen: seen.degraded),
    ),
    Counter(
        "wizard_session_turns",
        "Turns of sessions, by how they ended.",
        ("outcome",),
        rows.counted(get_args(TurnOutcome), lambda seen: seen.sessions),
    ),
    Gauge(
        "wizard_session_turns_in_progress",
        "Turns of sessions under way.",
        NO_LABELS,
        rows.now(lambda gauges: gauges.sessions.turns),
    ),
    Gauge(
        "wizard_session_turns_waiting",
        "Requests that wait for their session's turn.",
        NO_LABELS,
        rows.now(lambda gauges: gauges.sessions.waiting),
    ),
)

PROCESS: Final = (
    Gauge(
        "wizard_uptime_seconds",
        "Since the client was opened.",
        NO_LABELS,
        rows.alone(lambda seen: seen.at - seen.since),
    ),
    Gauge("wizard_lane_depth", "Messages in the actor's lane.", ACTOR, rows.lanes_now(lambda lane: lane.depth)),
    Gauge("wizard_lane_bound", "Messages that the lane takes.", ACTOR, rows.lanes_now(lambda lane: lane.bound)),
    Counter("wizard_actor_restarts", "Restarts of the actor after crashes.", ACTOR, rows.restarts),
    Counter(
        "wizard_events_dropped",
        "Events that late subscribers lost.",
        NO_LABELS,
        rows.now(lambda gauges: gauges.events_dropped),
    ),
    Counter(
        "wizard_loop_stalls",
        "Times the event loop stood still.",
        NO_LABELS,
        rows.now(lambda gauges: gauges.loop_stalls),
    ),
    Counter(
        "wizard_loop_stall_seconds",
        "How long the event loop stood still, all times together.",
        NO_LABELS,
        rows.now(lambda gauges: gauges.loop_stalled),
    ),
)

METRICS: Final[tuple[Counter | Gauge | Histogram, ...]] = (*REQUESTS, *MODELS, *LIMITS, *STORED, *PROCESS)
