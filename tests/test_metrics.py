"""The metrics: which event moves which count, what the totals are, and that nothing grows without bound."""

from __future__ import annotations

import json
import math
from decimal import Decimal, localcontext

import pytest
from attrs import asdict, evolve, frozen

from wizard_actors.errors import CircuitOpenError, OverloadedError, RateLimitError, WizardError
from wizard_actors.event_stream import EventStream
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
from wizard_actors.metrics import (
    CODES_AT_MOST,
    LABELS_AT_MOST,
    AttemptMetrics,
    BreakerMetrics,
    CacheGauges,
    Gauges,
    LaneGauges,
    Metrics,
    MetricsSnapshot,
    ModelGauges,
    RequestMetrics,
    SessionGauges,
    overhead,
)

BUSY = OverloadedError("busy", model="m")
OPEN = CircuitOpenError("open", model="m", retry_at=9.0, retry_after=1.0)
LIMITED = RateLimitError("429", model="m")


def counted(*events: Event) -> MetricsSnapshot:
    """Return the metrics after these events."""
    metrics = Metrics(0.0)
    for event in events:
        metrics.apply(event)
    return metrics.snapshot(10.0)


def began(request_id: str = "r", route: str = "wizard") -> RequestBegan:
    """Return a request's beginning."""
    return RequestBegan(1.0, request_id, route, "sequential")


def ended(code: str | None = None, *, route: str = "wizard", seconds: float = 2.0) -> RequestEnded:
    """Return a request's end: answered, or failed with `code`."""
    return RequestEnded(3.0, "r", route, "m", code, 1, seconds, served_by=None if code else "direct")


def attempt(error: WizardError | None = None, *, model: str = "m", sent: bool = True) -> AttemptEnded:
    """Return an attempt's end."""
    return AttemptEnded(3.0, "r", model, 1, sent, error)


def test_nothing_happened_counts_nothing() -> None:
    """The first snapshot is one of zeros, and says from when to when."""
    snapshot = counted()
    assert (snapshot.since, snapshot.at) == (0.0, 10.0)
    assert snapshot.requests == RequestMetrics()
    assert snapshot.attempts == AttemptMetrics()
    assert (snapshot.routes, snapshot.models, snapshot.breakers) == ({}, {}, {})
    assert snapshot.gauges is None


# -- requests


def test_requests_in_flight_are_those_begun_and_not_ended() -> None:
    """The peak is over all routes together, and stays."""
    snapshot = counted(began("a"), began("b", "fast"), ended(), began("c"), ended(route="fast"))
    assert snapshot.requests.began == 3
    assert snapshot.requests.in_flight == snapshot.routes["wizard"].in_flight == 1
    assert snapshot.routes["fast"].in_flight == 0
    assert snapshot.peak_in_flight == 2


def test_a_request_that_began_before_the_counting_is_not_in_flight_minus_one() -> None:
    """Its end counts, and the next request is one in flight."""
    snapshot = counted(ended(), began())
    assert snapshot.requests.in_flight == snapshot.peak_in_flight == 1
    assert snapshot.requests.answered == {"direct": 1}


def test_requests_count_by_how_they_ended() -> None:
    """Answered by what served them, failed by code; a cancelled one is neither, a shed one never began."""
    snapshot = counted(
        ended(),
        evolve(ended(), served_by="cache"),
        evolve(ended(), served_by=None),
        ended("overloaded"),
        ended("overloaded", route="fast"),
        ended("auth"),
        ended("cancelled"),
        Shed(1.0, "r"),
        Shed(1.0, "r", route="fast"),
    )
    requests = snapshot.requests
    assert requests.answered == {"direct": 1, "cache": 1, "unknown": 1}
    assert requests.failed == {"overloaded": 2, "auth": 1}
    assert (requests.cancelled, requests.shed, requests.began) == (1, 2, 0)
    assert snapshot.routes["wizard"].shed == 0
    assert (snapshot.routes["fast"].shed, snapshot.routes["fast"].failed) == (1, {"overloaded": 1})


def test_what_a_request_used_adds_up() -> None:
    """Attempts, upstream calls, tokens, money and times, of every request that ended."""
    first = evolve(
        ended(),
        attempts=3,
        overhead=0.01,
        first_token=0.5,
        input_tokens=100,
        output_tokens=20,
        cost=Decimal("0.10"),
        upstream_calls=2,
    )
    snapshot = counted(first, evolve(first, cost=Decimal("0.20")), ended("cancelled", seconds=4.0))
    requests = snapshot.requests
    assert (requests.attempts, requests.upstream_calls) == (7, 4)
    assert (requests.input_tokens, requests.output_tokens) == (200, 40)
    assert requests.cost == Decimal("0.30")
    assert (requests.duration.count, requests.duration.sum) == (3, 8.0)
    assert (requests.overhead.count, requests.overhead.sum) == (3, 0.02)
    assert (requests.first_token.count, requests.first_token.sum) == (2, 1.0)


def test_money_is_exact_whatever_the_context() -> None:
    """A program that computes with three digits has not its costs rounded to three."""
    with localcontext() as context:
        context.prec = 3
        snapshot = counted(*[evolve(attempt(), cost=Decimal("1.00001"))] * 3)
    assert snapshot.models["m"].cost == Decimal("3.00003")


# -- attempts


def test_attempts_count_by_how_they_ended() -> None:
    """Answered, failed where the model did, unsent where nothing reached it, cancelled whatever else is said of it."""
    snapshot = counted(
        AttemptBegan(1.0, "r", "m", 1),
        attempt(),
        attempt(BUSY),
        attempt(BUSY),
        attempt(LIMITED),
        attempt(LIMITED, sent=False),
        attempt(OPEN, sent=False),
        evolve(attempt(), cancelled=True),
        evolve(attempt(BUSY, sent=False), cancelled=True),
    )
    model = snapshot.models["m"]
    assert (model.began, model.answered, model.cancelled) == (1, 1, 2)
    assert model.failed == {"overloaded": 2, "rate_limit": 1}
    assert model.unsent == {"rate_limit": 1, "circuit_open": 1}


def test_waits_and_durations_are_spread_over_histograms() -> None:
    """Who was never sent has waited too, and lasted no time upstream."""
    snapshot = counted(
        evolve(attempt(), slot_wait=1.0, rate_wait=0.5, duration=4.0),
        evolve(attempt(OPEN, sent=False), slot_wait=3.0),
        FirstToken(1.0, "r", "m", 1, 0.25),
    )
    model = snapshot.models["m"]
    assert (model.slot_wait.count, model.slot_wait.sum) == (2, 4.0)
    assert (model.rate_wait.count, model.rate_wait.sum) == (2, 0.5)
    assert (model.duration.count, model.duration.sum) == (1, 4.0)
    assert (model.first_token.count, model.first_token.sum) == (1, 0.25)


def test_tokens_and_costs_count_for_the_model_that_used_them() -> None:
    """Failed and cancelled attempts cost too; an answer of unknown cost is told, not counted as free."""
    snapshot = counted(
        evolve(attempt(), input_tokens=10, output_tokens=5, cost=Decimal("0.5")),
        evolve(attempt(), cancelled=True, input_tokens=3, cost=Decimal("0.25")),
        evolve(attempt(model="n"), output_tokens=7),
        attempt(BUSY, model="n"),
    )
    m, n = snapshot.models["m"], snapshot.models["n"]
    assert (m.input_tokens, m.output_tokens, m.cost, m.unpriced) == (13, 5, Decimal("0.75"), 0)
    assert (n.output_tokens, n.cost, n.unpriced) == (7, Decimal(0), 1)
    assert (snapshot.attempts.cost, snapshot.attempts.output_tokens) == (Decimal("0.75"), 12)


def test_hedges_are_won_or_lost() -> None:
    """Only an answer wins; those under way are neither yet."""
    hedge = AttemptBegan(1.0, "r", "m", 2, hedge=True)
    end = evolve(attempt(), hedge=True)
    snapshot = counted(
        AttemptBegan(1.0, "r", "m", 1),
        *[hedge] * 5,
        end,
        evolve(end, cancelled=True),
        evolve(end, error=BUSY),
        evolve(end, error=OPEN, sent=False),
        attempt(),
    )
    model = snapshot.models["m"]
    assert (model.began, model.hedges, model.hedges_won, model.hedges_lost) == (6, 5, 1, 3)


def test_retries_fallbacks_and_the_budget_count_for_their_model() -> None:
    """A fallback for the model that was left; the budget by what it was asked for."""
    snapshot = counted(
        Retrying(1.0, "r", "m", 0.5),
        FellBack(1.0, "r", "m", "n", BUSY),
        BudgetSpent(1.0, "r", "m", hedge=False),
        BudgetSpent(1.0, "r", "m", hedge=False),
        BudgetSpent(1.0, "r", "n", hedge=True),
        BudgetExhausted(1.0, "r", "n", hedge=False),
        BudgetExhausted(1.0, "r", "n", hedge=True),
    )
    m, n = snapshot.models["m"], snapshot.models["n"]
    assert (m.retries, m.fallbacks, m.budget_spent, m.budget_refused) == (1, 1, {"retry": 2}, {})
    assert (n.retries, n.fallbacks, n.budget_spent, n.budget_refused) == (0, 0, {"hedge": 1}, {"retry": 1, "hedge": 1})
    assert snapshot.attempts.budget_spent == {"retry": 2, "hedge": 1}


# -- the rest


def test_a_breaker_is_as_it_was_last_heard_of() -> None:
    """Each change counts by the state that it led to."""
    states = ["open", "half_open", "open", "half_open", "closed", "open"]
    snapshot = counted(
        *[BreakerChanged(1.0, "m", state, 31.0) for state in states], BreakerChanged(1.0, "n", "half_open", -math.inf)
    )
    assert snapshot.breakers == {
        "m": BreakerMetrics("open", {"open": 3, "half_open": 2, "closed": 1}),
        "n": BreakerMetrics("half_open", {"half_open": 1}),
    }


def test_the_cache_and_what_stood_in_count_by_outcome() -> None:
    """A look by what it came to, a degraded answer by where it came from."""
    snapshot = counted(
        CacheLooked(1.0, "r", "hit"),
        CacheLooked(1.0, "r", "lead"),
        CacheLooked(1.0, "r", "hit"),
        Degraded(1.0, "r", "stale", BUSY),
        Degraded(1.0, "r", "static", BUSY),
        Degraded(1.0, "r", "stale", BUSY),
    )
    assert snapshot.cache == {"hit": 2, "lead": 1}
    assert snapshot.degraded == {"stale": 2, "static": 1}


def test_turns_of_sessions_count_by_outcome() -> None:
    """Whichever session they are of: nothing grows with those."""
    turns = [SessionTurn(1.0, f"s{number}", "r", "stored", 0, 1) for number in range(3)]
    snapshot = counted(*turns, SessionTurn(1.0, "a", "r", "unsaved", 4, 9))
    assert snapshot.sessions == {"stored": 3, "unsaved": 1}


@frozen
class Unheard(Event):
    """An event of the tests that no metric knows."""


def test_an_unknown_event_is_ignored() -> None:
    """Whoever adds an event breaks nothing here."""
    assert counted(Unheard(1.0)) == counted()


def test_a_snapshot_stays_as_it_was() -> None:
    """Later events do not reach it, and nobody can change it."""
    metrics = Metrics(0.0)
    happening = [
        began(),
        ended("overloaded"),
        attempt(BUSY),
        BreakerChanged(1.0, "m", "open", 2.0),
        CacheLooked(1.0, "r", "hit"),
        Degraded(1.0, "r", "stale", BUSY),
        SessionTurn(1.0, "alice", "r", "stored", 0, 1),
    ]
    for event in happening:
        metrics.apply(event)
    before = metrics.snapshot(5.0)
    shown = before.to_dict()
    for event in happening:
        metrics.apply(event)
    assert before.to_dict() == shown
    with pytest.raises(TypeError):
        before.requests.failed["overloaded"] = 0  # type: ignore[index]  # what must not work
    with pytest.raises(TypeError):
        before.models["n"] = AttemptMetrics()  # type: ignore[index]  # the same


def test_metrics_listen_to_a_stream() -> None:
    """However fast events come, none is lost on the way to the counts."""
    stream, metrics = EventStream(), Metrics(0.0)
    stream.listen(metrics.apply)
    for number in range(5000):
        stream.publish(began(str(number)))
    assert metrics.snapshot(1.0).requests.began == 5000


# -- bounds


def test_labels_are_bounded() -> None:
    """However many models, routes and breakers are named: what is new once the room is full counts together."""
    names = [f"name-{number}" for number in range(LABELS_AT_MOST + 50)]
    snapshot = counted(
        *[began(route=name) for name in names],
        *[ended(route=name) for name in names],
        *[attempt(model=name) for name in names],
        *[BreakerChanged(1.0, name, "open", 2.0) for name in names],
    )
    for table in (snapshot.routes, snapshot.models, snapshot.breakers):
        assert len(table) == LABELS_AT_MOST + 1
    assert snapshot.routes["other"].answered == {"direct": 50}
    assert snapshot.models["other"].answered == 50
    assert snapshot.models["name-0"].answered == 1
    assert snapshot.breakers["other"].changes == {"open": 50}
    assert snapshot.requests.began == snapshot.attempts.answered == LABELS_AT_MOST + 50
    assert snapshot.requests.in_flight == 0


def test_what_every_model_refused_is_counted_as_such() -> None:
    """Apart from what failed because the models did."""
    refused = evolve(ended("all_models_failed"), refused=True)
    snapshot = counted(refused, ended("all_models_failed"), refused)
    assert snapshot.requests.failed == {"all_models_refused": 2, "all_models_failed": 1}


def test_codes_are_bounded() -> None:
    """However many codes errors have."""
    snapshot = counted(*[ended(f"code-{number}") for number in range(CODES_AT_MOST + 7)], ended("code-0"))
    assert len(snapshot.requests.failed) == CODES_AT_MOST + 1
    assert snapshot.requests.failed["other"] == 7
    assert snapshot.requests.failed["code-0"] == 2


# -- as JSON


def test_a_snapshot_is_shown_as_json() -> None:
    """Money as text, histograms by their quantiles, what is measured live beside what was counted."""
    gauges = Gauges(
        budget=9.5,
        in_flight=1,
        models={"m": ModelGauges(circuit="half_open", slots_in_use=2, slots=8, remaining_tokens=math.inf)},
        lanes={"wizard/cache": LaneGauges(3, 64)},
        cache=CacheGauges(entries=2, bytes=4096),
        sessions=SessionGauges(turns=3, waiting=1),
        events_dropped=4,
        loop_stalls=1,
        loop_stalled=2.5,
        restarts={"wizard/cache": 3},
    )
    metrics = Metrics(0.0)
    for event in (began(), evolve(ended(), cost=Decimal("0.10")), BreakerChanged(1.0, "m", "open", 2.0)):
        metrics.apply(event)
    shown = json.loads(json.dumps(metrics.snapshot(10.0, gauges).to_dict(), allow_nan=False))
    assert shown["routes"]["wizard"]["cost"] == shown["requests"]["cost"] == "0.10"
    assert shown["requests"]["duration"]["count"] == 1
    assert shown["requests"]["duration"]["p99"] == 2.0
    assert shown["breakers"] == {"m": {"circuit": "open", "changes": {"open": 1}}}
    assert shown["gauges"]["models"]["m"]["slots_in_use"] == 2
    assert shown["gauges"]["models"]["m"]["remaining_tokens"] is None
    assert shown["gauges"]["lanes"] == {"wizard/cache": {"depth": 3, "bound": 64}}
    assert shown["gauges"]["sessions"] == {"turns": 3, "waiting": 1}
    assert shown["gauges"]["cache"] == {"entries": 2, "bytes": 4096}
    assert (shown["gauges"]["events_dropped"], shown["gauges"]["loop_stalls"]) == (4, 1)
    assert (shown["gauges"]["loop_stalled"], shown["gauges"]["restarts"]) == (2.5, {"wizard/cache": 3})


def test_no_gauges_are_null() -> None:
    """Counts alone are a whole snapshot."""
    assert counted(began()).to_dict()["gauges"] is None


# -- overhead


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([], 10.0),
        ([(2.0, 5.0)], 7.0),
        ([(2.0, 5.0), (5.0, 6.0)], 6.0),
        ([(6.0, 8.0), (2.0, 5.0)], 5.0),
        ([(2.0, 6.0), (4.0, 8.0)], 4.0),
        ([(2.0, 8.0), (3.0, 4.0)], 4.0),
        ([(2.0, 8.0), (2.0, 8.0)], 4.0),
        ([(-5.0, 1.0), (9.0, 20.0)], 8.0),
        ([(-9.0, -5.0), (12.0, 13.0)], 10.0),
        ([(-1.0, 11.0)], 0.0),
        ([(5.0, 5.0), (7.0, 3.0)], 10.0),
    ],
    ids=[
        "no call",
        "one call",
        "end to end",
        "in any order",
        "overlapping hedges",
        "one inside the other",
        "the same twice",
        "beyond both ends",
        "outside",
        "all of it",
        "empty and reversed",
    ],
)
def test_overhead_is_the_time_without_a_call(intervals: list[tuple[float, float]], expected: float) -> None:
    """Overlapping hedges do not count twice, and what is outside the request not at all."""
    assert overhead(0.0, 10.0, intervals) == expected


def test_a_clock_that_went_back_makes_no_overhead() -> None:
    """A request that ended before it began took no time."""
    assert overhead(10.0, 9.0, [(1.0, 2.0)]) == 0.0


def test_every_frozen_count_can_be_added_up() -> None:
    """A total has each field of its parts: none is left at zero."""
    events = [
        began(route="a"),
        began(route="a"),
        evolve(ended(route="a"), first_token=0.5, input_tokens=1, output_tokens=1),
        evolve(ended("auth", route="a"), upstream_calls=1, cost=Decimal(1)),
        ended("cancelled", route="a"),
        began(route="a"),
        Shed(1.0, "r", route="a"),
    ]
    part, total = counted(*events).routes["a"], counted(*events).requests
    assert part == total
    assert all(value not in (0, {}, RequestMetrics().duration) for value in asdict(part, recurse=False).values())
