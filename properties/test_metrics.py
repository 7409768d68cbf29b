"""The metrics against a naive recount of the same events, and the overhead against counting seconds one by one."""

from collections import Counter
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from wizard_actors.errors import AuthError, OverloadedError
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
    Shed,
)
from wizard_actors.histogram import Histogram, HistogramSnapshot
from wizard_actors.metrics import AttemptMetrics, Metrics, RequestMetrics, overhead

AT = st.just(1.0)
IDS = st.just("r")
NAMES = st.sampled_from(["a", "b", "c"])
COUNTS = st.integers(0, 1000)
SECONDS = st.integers(0, 4096).map(lambda count: count / 64)  # sums of them are exact
COSTS = st.none() | st.decimals(0, 10, places=6)
ERRORS = st.sampled_from([OverloadedError("busy", model="a"), AuthError("key", model="a")])

REQUEST_ENDS = st.builds(
    RequestEnded,
    AT,
    IDS,
    NAMES,
    NAMES,
    st.sampled_from([None, "cancelled", "overloaded", "auth"]),
    COUNTS,
    SECONDS,
    served_by=st.sampled_from(["direct", "cache"]),
    overhead=SECONDS,
    first_token=st.none() | SECONDS,
    input_tokens=COUNTS,
    output_tokens=COUNTS,
    cost=COSTS,
    upstream_calls=COUNTS,
    refused=st.booleans(),
)
ATTEMPT_ENDS = st.builds(
    AttemptEnded,
    AT,
    IDS,
    NAMES,
    COUNTS,
    st.booleans(),
    st.none() | ERRORS,
    hedge=st.booleans(),
    cancelled=st.booleans(),
    duration=SECONDS,
    slot_wait=SECONDS,
    rate_wait=SECONDS,
    input_tokens=COUNTS,
    output_tokens=COUNTS,
    cost=COSTS,
)
EVENTS: st.SearchStrategy[list[Event]] = st.lists(
    st.one_of(
        st.builds(RequestBegan, AT, IDS, NAMES, st.just("sequential")),
        REQUEST_ENDS,
        st.builds(Shed, AT, IDS, route=st.none() | NAMES),
        st.builds(CacheLooked, AT, IDS, st.sampled_from(["hit", "miss"])),
        st.builds(Degraded, AT, IDS, st.sampled_from(["stale", "static"]), ERRORS),
        st.builds(AttemptBegan, AT, IDS, NAMES, COUNTS, hedge=st.booleans()),
        ATTEMPT_ENDS,
        st.builds(FirstToken, AT, IDS, NAMES, COUNTS, SECONDS),
        st.builds(Retrying, AT, IDS, NAMES, SECONDS),
        st.builds(FellBack, AT, IDS, NAMES, NAMES, ERRORS),
        st.builds(BudgetSpent, AT, IDS, NAMES, st.booleans()),
        st.builds(BudgetExhausted, AT, IDS, NAMES, st.booleans()),
        st.builds(BreakerChanged, AT, NAMES, st.sampled_from(["closed", "open", "half_open"]), SECONDS),
    ),
    max_size=80,
)


def _spread(durations: list[float]) -> HistogramSnapshot:
    histogram = Histogram()
    for seconds in durations:
        histogram.observe(seconds)
    return histogram.snapshot()


def _money(costs: list[Decimal | None]) -> Decimal:
    return sum((cost for cost in costs if cost is not None), Decimal(0))


def _requests(events: list[Event], routes: frozenset[str | None]) -> RequestMetrics:
    """Count the requests of `routes` the slow way, each number by itself."""
    begun = [event for event in events if isinstance(event, RequestBegan) and event.route in routes]
    ends = [event for event in events if isinstance(event, RequestEnded) and event.route in routes]
    return RequestMetrics(
        began=len(begun),
        in_flight=sum(_in_flight(events, route)[-1] for route in routes),
        answered=Counter(end.served_by for end in ends if end.code is None and end.served_by is not None),
        failed=Counter(
            "all_models_refused" if end.refused else end.code
            for end in ends
            if end.code not in {None, "cancelled"} and end.code is not None
        ),
        cancelled=sum(end.code == "cancelled" for end in ends),
        shed=sum(isinstance(event, Shed) and event.route in routes for event in events),
        attempts=sum(end.attempts for end in ends),
        upstream_calls=sum(end.upstream_calls for end in ends),
        input_tokens=sum(end.input_tokens for end in ends),
        output_tokens=sum(end.output_tokens for end in ends),
        cost=_money([end.cost for end in ends]),
        duration=_spread([end.seconds for end in ends]),
        overhead=_spread([end.overhead for end in ends]),
        first_token=_spread([end.first_token for end in ends if end.first_token is not None]),
    )


def _in_flight(events: list[Event], route: str | None) -> list[int]:
    """Return how many requests of `route` are in flight at first, and after each event."""
    levels = [0]
    for event in events:
        step = 0
        if isinstance(event, RequestBegan | RequestEnded) and event.route == route:
            step = 1 if isinstance(event, RequestBegan) else -1
        levels.append(max(0, levels[-1] + step))
    return levels


def _attempts(events: list[Event], models: frozenset[str]) -> AttemptMetrics:
    """Count the attempts at `models` the slow way, each number by itself."""
    begun = [event for event in events if isinstance(event, AttemptBegan) and event.model in models]
    ends = [event for event in events if isinstance(event, AttemptEnded) and event.model in models]
    answers = [end for end in ends if end.error is None and not end.cancelled]
    broken = [(end.error.code, end.sent) for end in ends if end.error is not None and not end.cancelled]
    spent = [event for event in events if isinstance(event, BudgetSpent) and event.model in models]
    refused = [event for event in events if isinstance(event, BudgetExhausted) and event.model in models]
    firsts = [event for event in events if isinstance(event, FirstToken) and event.model in models]
    return AttemptMetrics(
        began=len(begun),
        answered=len(answers),
        failed=Counter(code for code, sent in broken if sent),
        unsent=Counter(code for code, sent in broken if not sent),
        cancelled=sum(end.cancelled for end in ends),
        retries=sum(isinstance(event, Retrying) and event.model in models for event in events),
        hedges=sum(event.hedge for event in begun),
        hedges_won=sum(end.hedge for end in answers),
        hedges_lost=sum(end.hedge for end in ends) - sum(end.hedge for end in answers),
        budget_spent=Counter("hedge" if event.hedge else "retry" for event in spent),
        budget_refused=Counter("hedge" if event.hedge else "retry" for event in refused),
        fallbacks=sum(isinstance(event, FellBack) and event.failed in models for event in events),
        input_tokens=sum(end.input_tokens for end in ends),
        output_tokens=sum(end.output_tokens for end in ends),
        cost=_money([end.cost for end in ends]),
        unpriced=sum(end.cost is None for end in answers),
        slot_wait=_spread([end.slot_wait for end in ends]),
        rate_wait=_spread([end.rate_wait for end in ends]),
        first_token=_spread([event.after for event in firsts]),
        duration=_spread([end.duration for end in ends if end.sent]),
    )


@given(EVENTS)
def test_requests_equal_a_naive_recount(events: list[Event]) -> None:
    """In all, by route, and at the peak."""
    metrics = Metrics(0.0)
    for event in events:
        metrics.apply(event)
    snapshot = metrics.snapshot(1.0)
    for route, found in snapshot.routes.items():
        assert found == _requests(events, frozenset({route}))
    assert snapshot.requests == _requests(events, frozenset({"a", "b", "c", None}))
    levels = zip(*(_in_flight(events, route) for route in "abc"), strict=True)
    assert snapshot.peak_in_flight == max(sum(level) for level in levels)
    assert snapshot.cache == Counter(event.outcome for event in events if isinstance(event, CacheLooked))
    assert snapshot.degraded == Counter(event.to for event in events if isinstance(event, Degraded))


@given(EVENTS)
def test_attempts_equal_a_naive_recount(events: list[Event]) -> None:
    """In all and by model; and every attempt that ended has exactly one outcome."""
    metrics = Metrics(0.0)
    for event in events:
        metrics.apply(event)
    snapshot = metrics.snapshot(1.0)
    for model, found in snapshot.models.items():
        assert found == _attempts(events, frozenset({model}))
    total = snapshot.attempts
    assert total == _attempts(events, frozenset("abc"))
    outcomes = total.answered + total.cancelled + sum(total.failed.values()) + sum(total.unsent.values())
    assert outcomes == total.slot_wait.count
    changes = [event for event in events if isinstance(event, BreakerChanged)]
    assert {name: breaker.circuit for name, breaker in snapshot.breakers.items()} == {
        change.model: change.circuit for change in changes
    }
    assert sum((Counter(breaker.changes) for breaker in snapshot.breakers.values()), Counter[str]()) == Counter(
        change.circuit for change in changes
    )


@given(EVENTS, st.integers(0, 80))
def test_looking_on_the_way_changes_nothing(events: list[Event], at: int) -> None:
    """A snapshot is a look, not a reset."""
    looked, plain = Metrics(0.0), Metrics(0.0)
    for number, event in enumerate(events):
        if number == at:
            looked.snapshot(0.5)
        looked.apply(event)
        plain.apply(event)
    assert looked.snapshot(1.0) == plain.snapshot(1.0)


INSTANTS = st.integers(-10, 40)


@given(INSTANTS, INSTANTS, st.lists(st.tuples(INSTANTS, INSTANTS), max_size=8))
def test_overhead_is_what_counting_every_second_gives(began: int, ended: int, calls: list[tuple[int, int]]) -> None:
    """Of whole seconds, those in which no call was running."""
    idle = sum(not any(begin <= second < end for begin, end in calls) for second in range(began, ended))
    intervals = [(float(begin), float(end)) for begin, end in calls]
    assert overhead(float(began), float(ended), intervals) == idle


FLOATS = st.floats(-1e6, 1e6)


@given(FLOATS, st.floats(0, 1e6), st.lists(st.tuples(FLOATS, st.floats(0, 1e6)), max_size=8))
def test_overhead_is_right_to_the_last_digits(began: float, took: float, calls: list[tuple[float, float]]) -> None:
    """At any instants: never negative, never more than the whole, and as in exact arithmetic but for rounding."""
    ended = began + took
    intervals = [(begin, begin + lasted) for begin, lasted in calls]
    edges = sorted({began, ended, *(edge for interval in intervals for edge in interval if began <= edge <= ended)})
    exact = Fraction(0)
    for low, high in pairwise(edges):
        if not any(begin <= low and high <= end for begin, end in intervals):
            exact += Fraction(high) - Fraction(low)
    found = overhead(began, ended, intervals)
    assert 0.0 <= found <= (ended - began) * (1 + 1e-12)
    assert abs(Fraction(found) - exact) <= Fraction(1, 10**8)
