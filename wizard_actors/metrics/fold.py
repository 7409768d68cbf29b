"""The fold over events: what each of them adds to the counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Context, Decimal
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast

from attrs import Factory, define, fields

from wizard_actors.events import (
    AttemptBegan,
    AttemptEnded,
    BreakerChanged,
    BudgetExhausted,
    BudgetSpent,
    CacheLooked,
    Degraded,
    Event,
    FellBack,
    FirstToken,
    RequestBegan,
    RequestEnded,
    Retrying,
    SessionTurn,
    Shed,
)
from wizard_actors.histogram import Histogram, HistogramSnapshot
from wizard_actors.metrics.snapshot import AttemptMetrics, BreakerMetrics, Gauges, MetricsSnapshot, RequestMetrics

__all__ = ["CODES_AT_MOST", "LABELS_AT_MOST", "OTHER", "REFUSED", "Metrics", "overhead"]

LABELS_AT_MOST: Final = 1000
CODES_AT_MOST: Final = 100
OTHER: Final = "other"
REFUSED: Final = "all_models_refused"
"""As what a request is counted that every model refused for a fault of its own: nothing is wrong with the models."""
MONEY: Final = Context(prec=40)  # the caller's own context may round, or raise

E = TypeVar("E", bound=Event)
M = TypeVar("M", RequestMetrics, AttemptMetrics, BreakerMetrics)
T = TypeVar("T")


def overhead(began: float, ended: float, intervals: Sequence[tuple[float, float]]) -> float:
    """Return for how many seconds between `began` and `ended` none of the `intervals` was running.

    `intervals` are (begin, end) of upstream calls and of delays, in any order; where they overlap, as hedges do, the
    time counts once, and what lies outside the request does not count.
    """
    idle, at = 0.0, began
    for begin, end in sorted(interval for interval in intervals if interval[0] < interval[1]):
        if begin >= ended:
            break
        idle += max(0.0, begin - at)
        at = max(at, end)
    return idle + max(0.0, ended - at)


@define
class _Series:
    """What is counted of requests and attempts alike."""

    began: int = 0
    failed: dict[str, int] = Factory(dict)
    cancelled: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal = Decimal(0)
    first_token: Histogram = Factory(Histogram)
    duration: Histogram = Factory(Histogram)

    def use(self, event: RequestEnded | AttemptEnded) -> None:
        """Add the tokens and what they cost."""
        self.input_tokens += event.input_tokens
        self.output_tokens += event.output_tokens
        if event.cost is not None:
            self.cost = MONEY.add(self.cost, event.cost)


@define
class _Requests(_Series):
    """`RequestMetrics` while they are counted."""

    in_flight: int = 0
    answered: dict[str, int] = Factory(dict)
    shed: int = 0
    attempts: int = 0
    upstream_calls: int = 0
    overhead: Histogram = Factory(Histogram)


@define
class _Attempts(_Series):
    """`AttemptMetrics` while they are counted."""

    answered: int = 0
    unsent: dict[str, int] = Factory(dict)
    retries: int = 0
    hedges: int = 0
    hedges_won: int = 0
    hedges_lost: int = 0
    budget_spent: dict[str, int] = Factory(dict)
    budget_refused: dict[str, int] = Factory(dict)
    fallbacks: int = 0
    unpriced: int = 0
    slot_wait: Histogram = Factory(Histogram)
    rate_wait: Histogram = Factory(Histogram)


@define
class _Breaker:
    """`BreakerMetrics` while they are counted."""

    circuit: str = "closed"
    changes: dict[str, int] = Factory(dict)


class _Bounded(dict[str, T]):
    """Makes an entry for each new label, while there is room; those that come later share one."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make

    def __missing__(self, label: str) -> T:
        if len(self) >= LABELS_AT_MOST and label != OTHER:
            return self[OTHER]
        made = self[label] = self._make()
        return made


class Metrics:
    """Counts events: pass `apply` to `EventStream.listen`. `since` is the instant at which the counting begins.

    Requests and attempts that began before are counted when they end, and never make `in_flight` negative.
    """

    def __init__(self, since: float) -> None:
        self._since = since
        self._routes = _Bounded(_Requests)
        self._models = _Bounded(_Attempts)
        self._breakers = _Bounded(_Breaker)
        self._cache: dict[str, int] = {}
        self._degraded: dict[str, int] = {}
        self._sessions: dict[str, int] = {}
        self._in_flight = 0
        self._peak = 0
        self._shed_unrouted = 0
        self._folds: dict[type[Event], Callable[[Event], None]] = {}
        self._on(RequestBegan, self._request_began)
        self._on(RequestEnded, self._request_ended)
        self._on(Shed, self._request_shed)
        self._on(CacheLooked, lambda event: _count(self._cache, event.outcome))
        self._on(Degraded, lambda event: _count(self._degraded, event.to))
        self._on(SessionTurn, lambda event: _count(self._sessions, event.outcome))
        self._on(AttemptBegan, self._attempt_began)
        self._on(AttemptEnded, self._attempt_ended)
        self._on(FirstToken, lambda event: self._models[event.model].first_token.observe(event.after))
        self._on(Retrying, self._retrying)
        self._on(FellBack, self._fell_back)
        self._on(BudgetSpent, lambda event: _count(self._models[event.model].budget_spent, _purpose(event)))
        self._on(BudgetExhausted, lambda event: _count(self._models[event.model].budget_refused, _purpose(event)))
        self._on(BreakerChanged, self._breaker_changed)

    def apply(self, event: Event) -> None:
        """Count `event`; kinds that teach nothing here are ignored."""
        fold = self._folds.get(type(event))
        if fold is not None:
            fold(event)

    def snapshot(self, now: float, gauges: Gauges | None = None) -> MetricsSnapshot:
        """Return everything counted so far, which later events do not change."""
        routes = {name: _as(RequestMetrics, series) for name, series in self._routes.items()}
        models = {name: _as(AttemptMetrics, series) for name, series in self._models.items()}
        return MetricsSnapshot(
            at=now,
            since=self._since,
            requests=_total(RequestMetrics, [RequestMetrics(shed=self._shed_unrouted), *routes.values()]),
            attempts=_total(AttemptMetrics, models.values()),
            routes=MappingProxyType(routes),
            models=MappingProxyType(models),
            breakers=MappingProxyType({name: _as(BreakerMetrics, each) for name, each in self._breakers.items()}),
            peak_in_flight=self._peak,
            cache=MappingProxyType(dict(self._cache)),
            degraded=MappingProxyType(dict(self._degraded)),
            sessions=MappingProxyType(dict(self._sessions)),
            gauges=gauges,
        )

    def _on(self, kind: type[E], fold: Callable[[E], None]) -> None:
        self._folds[kind] = cast("Callable[[Event], None]", fold)  # `apply` calls it with events of that kind only

    def _request_began(self, event: RequestBegan) -> None:
        route = self._routes[event.route]
        route.began += 1
        route.in_flight += 1
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)

    def _request_shed(self, event: Shed) -> None:
        if event.route is None:
            self._shed_unrouted += 1
        else:
            self._routes[event.route].shed += 1

    def _request_ended(self, event: RequestEnded) -> None:
        route = self._routes[event.route]
        if route.in_flight:
            route.in_flight -= 1
            self._in_flight -= 1
        if event.code is None:
            _count(route.answered, event.served_by or "unknown")
        elif event.code == "cancelled":
            route.cancelled += 1
        else:
            _count(route.failed, REFUSED if event.refused else event.code)
        route.attempts += event.attempts
        route.upstream_calls += event.upstream_calls
        route.use(event)
        route.duration.observe(event.seconds)
        route.overhead.observe(event.overhead)
        if event.first_token is not None:
            route.first_token.observe(event.first_token)

    def _attempt_began(self, event: AttemptBegan) -> None:
        model = self._models[event.model]
        model.began += 1
        model.hedges += event.hedge

    def _attempt_ended(self, event: AttemptEnded) -> None:
        model = self._models[event.model]
        answered = False
        if event.cancelled:
            model.cancelled += 1
        elif event.error is not None:
            _count(model.failed if event.sent else model.unsent, event.error.code)
        else:
            answered = True
            model.answered += 1
            model.unpriced += event.cost is None
        if event.hedge:
            model.hedges_won += answered
            model.hedges_lost += not answered
        model.use(event)
        model.slot_wait.observe(event.slot_wait)
        model.rate_wait.observe(event.rate_wait)
        if event.sent:
            model.duration.observe(event.duration)

    def _retrying(self, event: Retrying) -> None:
        self._models[event.model].retries += 1

    def _fell_back(self, event: FellBack) -> None:
        self._models[event.failed].fallbacks += 1

    def _breaker_changed(self, event: BreakerChanged) -> None:
        breaker = self._breakers[event.model]
        breaker.circuit = str(event.circuit)
        _count(breaker.changes, breaker.circuit)


def _count(counts: dict[str, int], name: str) -> None:
    label = name if name in counts or len(counts) < CODES_AT_MOST else OTHER
    counts[label] = counts.get(label, 0) + 1


def _purpose(event: BudgetSpent | BudgetExhausted) -> str:
    return "hedge" if event.hedge else "retry"


def _as(kind: type[M], counted: object) -> M:
    """Return what has been counted so far as the frozen `kind`, which has the same fields."""
    return kind(**{part.name: _copy(getattr(counted, part.name)) for part in fields(kind)})


def _copy(value: object) -> Any:  # noqa: ANN401 - what the frozen class has in its place
    if isinstance(value, Histogram):
        return value.snapshot()
    return MappingProxyType(dict(value)) if isinstance(value, dict) else value


def _total(kind: type[M], parts: Iterable[M]) -> M:
    total = kind()
    for part in parts:
        total = kind(**{item.name: _sum(getattr(total, item.name), getattr(part, item.name)) for item in fields(kind)})
    return total


def _sum(one: object, other: object) -> Any:  # noqa: ANN401 - the type of both
    match one, other:
        case HistogramSnapshot(), HistogramSnapshot():
            return one.merged(other)
        case Decimal(), Decimal():
            return MONEY.add(one, other)
        case int(), int():
            return one + other
        case Mapping(), Mapping():
            return MappingProxyType({label: one.get(label, 0) + other.get(label, 0) for label in {**one, **other}})
    raise TypeError(f"{type(one).__name__} and {type(other).__name__} cannot be added")
