"""Where in a `MetricsSnapshot` the numbers of a metric stand. Pure; knows nothing of Prometheus's library."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias, TypeVar

from wizard_actors.breaker_core import Circuit
from wizard_actors.histogram import HistogramSnapshot
from wizard_actors.metrics import (
    AttemptMetrics,
    CacheGauges,
    Counts,
    Gauges,
    LaneGauges,
    MetricsSnapshot,
    ModelGauges,
    RequestMetrics,
)

__all__ = [
    "Read",
    "Rows",
    "alone",
    "attempts",
    "breaker_changes",
    "breaker_states",
    "cache_now",
    "counted",
    "lanes_now",
    "models",
    "models_now",
    "models_parts",
    "now",
    "requests",
    "restarts",
    "routes",
    "routes_parts",
    "tokens",
]

V = TypeVar("V", float, HistogramSnapshot)

Rows: TypeAlias = Iterable[tuple[tuple[str, ...], V]]
"""The values of a metric's labels, in their order, with what it comes to there."""

Read: TypeAlias = Callable[[MetricsSnapshot], Rows[V]]


def alone(read: Callable[[MetricsSnapshot], float]) -> Read[float]:
    """Read one number without labels."""
    return lambda seen: [((), read(seen))]


def counted(names: Iterable[str], read: Callable[[MetricsSnapshot], Counts]) -> Read[float]:
    """Read counts by label, with a 0 for those of `names` that did not happen."""
    return lambda seen: (((name,), count) for name, count in _each(names, read(seen)).items())


# -- requests ----------------------------------------------------------------------------------------------------------


def routes(read: Callable[[RequestMetrics], V]) -> Read[V]:
    """Read something of each route."""
    return lambda seen: (((name,), read(route)) for name, route in seen.routes.items())


def routes_parts(read: Callable[[RequestMetrics], Counts]) -> Read[float]:
    """Read something of each route that has parts."""
    return lambda seen: (
        ((name, part), count) for name, route in seen.routes.items() for part, count in read(route).items()
    )


def requests(seen: MetricsSnapshot) -> Rows[float]:
    """Read how requests ended, by route, outcome, who served and error code; those shed before they had a route have
    an empty one.
    """
    for name, route in seen.routes.items():
        yield from (((name, "answered", by, ""), count) for by, count in route.answered.items())
        yield from (((name, "failed", "", code), count) for code, count in route.failed.items())
        yield (name, "cancelled", "", ""), route.cancelled
        yield (name, "shed", "", ""), route.shed
    unrouted = seen.requests.shed - sum(route.shed for route in seen.routes.values())
    if unrouted:
        yield ("", "shed", "", ""), unrouted


# -- models ------------------------------------------------------------------------------------------------------------


def models(read: Callable[[AttemptMetrics], V]) -> Read[V]:
    """Read something of the attempts at each model, also of those that nobody asked yet."""
    return lambda seen: (((name,), read(model)) for name, model in _attempted(seen).items())


def models_parts(names: Iterable[str], read: Callable[[AttemptMetrics], Counts]) -> Read[float]:
    """Read counts of each model, with a 0 for those of `names` that did not happen."""
    return lambda seen: (
        ((name, part), count)
        for name, model in _attempted(seen).items()
        for part, count in _each(names, read(model)).items()
    )


def attempts(seen: MetricsSnapshot) -> Rows[float]:
    """Read how attempts ended, by model, outcome and error code."""
    for name, model in _attempted(seen).items():
        yield (name, "answered", ""), model.answered
        yield from (((name, "failed", code), count) for code, count in model.failed.items())
        yield from (((name, "unsent", code), count) for code, count in model.unsent.items())
        yield (name, "cancelled", ""), model.cancelled


def tokens(used: RequestMetrics | AttemptMetrics) -> Counts:
    """Return tokens by direction."""
    return {"input": used.input_tokens, "output": used.output_tokens}


def breaker_states(seen: MetricsSnapshot) -> Rows[float]:
    """Read for each model and state whether its circuit is in it."""
    for name, circuit in _circuits(seen).items():
        yield from (((name, state.value), float(state == circuit)) for state in Circuit)


def breaker_changes(seen: MetricsSnapshot) -> Rows[float]:
    """Read how often each model's circuit changed to each state."""
    changes: dict[str, Counts] = {name: {} for name in _circuits(seen)}
    changes |= {name: breaker.changes for name, breaker in seen.breakers.items()}
    for name, counts in changes.items():
        for state, count in _each((state.value for state in Circuit), counts).items():
            yield (name, state), count


# -- what stands now: no row where nobody looked ---------------------------------------------------------------------


def now(read: Callable[[Gauges], float]) -> Read[float]:
    """Read one gauge without labels."""
    return lambda seen: [] if seen.gauges is None else [((), read(seen.gauges))]


def models_now(read: Callable[[ModelGauges], float | None]) -> Read[float]:
    """Read something of each model that is known."""
    return lambda seen: (
        ((name,), value) for name, model in _standing(seen).items() if (value := read(model)) is not None
    )


def cache_now(read: Callable[[CacheGauges], float]) -> Read[float]:
    """Read something of the cache, where there is one."""
    return lambda seen: [] if seen.gauges is None or seen.gauges.cache is None else [((), read(seen.gauges.cache))]


def lanes_now(read: Callable[[LaneGauges], float]) -> Read[float]:
    """Read something of each actor's lane."""
    return lambda seen: (
        ((path,), read(lane)) for path, lane in (() if seen.gauges is None else seen.gauges.lanes.items())
    )


def restarts(seen: MetricsSnapshot) -> Rows[float]:
    """Read how often each actor was restarted."""
    return (((path,), count) for path, count in ({} if seen.gauges is None else seen.gauges.restarts).items())


def _standing(seen: MetricsSnapshot) -> Mapping[str, ModelGauges]:
    return {} if seen.gauges is None else seen.gauges.models


def _attempted(seen: MetricsSnapshot) -> Mapping[str, AttemptMetrics]:
    return {**dict.fromkeys(_standing(seen), AttemptMetrics()), **seen.models}


def _circuits(seen: MetricsSnapshot) -> Mapping[str, str]:
    """Return the circuit of each model that there is; where nobody looked, of each that was ever heard of."""
    if seen.gauges is None:
        return {name: breaker.circuit for name, breaker in seen.breakers.items()}
    return {name: model.circuit for name, model in seen.gauges.models.items()}


def _each(names: Iterable[str], counts: Counts) -> Counts:
    return {**dict.fromkeys(names, 0), **counts}
