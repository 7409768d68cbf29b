"""Every strategy and way of delivery, whatever models, callers and the clock do: one outcome each, nothing left."""

from __future__ import annotations

from collections import Counter

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from properties.sends import Played, Scenario, few, finds, play, turns, works
from tests.models import model
from wizard_actors import race
from wizard_actors.config import (
    BreakerConfig,
    PriceConfig,
    RateLimitConfig,
    RetryConfig,
    ServerConfig,
    Strategy,
    StreamConfig,
    TimeoutsConfig,
)
from wizard_actors.event_stream import EventStream
from wizard_actors.events import AttemptBegan, AttemptEnded, RequestBegan, RequestEnded
from wizard_actors.lane import Begun, Lane
from wizard_actors.request import Delivery

STRATEGIES: tuple[Strategy, ...] = ("sequential", "hedged", "parallel", "adaptive", "cheapest")
MODELS = ("a", "b", "c")

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of planned failures need no log."""
    caplog.set_level("CRITICAL", logger="wizard_actors")


@st.composite
def anything(draw: st.DrawFn) -> Scenario:
    """Three models with all their concerns, any of which may stand in the way."""
    burst = draw(st.sampled_from([None, None, 2]))
    one = model(
        "a",
        slots=draw(st.sampled_from([1, 3, 32])),
        window=draw(st.sampled_from([None, 1000])),
        timeouts=TimeoutsConfig(first_token=4.0, stall=3.0, total=30.0),
        retry=RetryConfig(base_delay=draw(st.sampled_from([0.0, 0.5]))),
        limit=RateLimitConfig(
            requests_per_minute=60 if burst else None,
            burst=burst,
            tokens_per_minute=draw(st.sampled_from([None, None, 2_000])),
            queue=draw(st.sampled_from([3, 1000])),
        ),
        breaker=BreakerConfig(failure_threshold=3, open_for=2.0, half_open_probes=draw(st.integers(1, 2))),
        price=draw(st.sampled_from([None, PriceConfig(input=1, output=2)])),
    )
    return Scenario(
        models=tuple(evolve(one, name=name, model=name) for name in MODELS),
        turns=tuple(draw(turns()) for _ in MODELS),
        work=draw(works()),
        stream=StreamConfig(consumer_idle=1e6, on_interruption=draw(st.sampled_from(["fail", "reset"]))),
        server=ServerConfig(queue_timeout=draw(st.sampled_from([0.0, 2.0, 10.0]))),
    )


def everybody_gets_one_outcome(scenario: Scenario) -> None:
    """Compare what callers got, what was reported, and what was counted; `play` looks at what is held or runs."""
    played = play(scenario)
    asked = len(scenario.work.asks)
    assert [len(played.outcomes[number]) for number in range(asked)] == [1] * asked
    assert all(sent.closed_at is not None for sent in played.sent)
    assert_reported(played)
    assert_counted(played)


def assert_reported(played: Played) -> None:
    """Every request and every attempt that began has ended once, and requests as their callers saw it."""
    begun = Counter(event.request_id for event in played.events if isinstance(event, RequestBegan))
    assert begun == Counter(event.request_id for event in played.ended)
    assert len(begun) == len(played.outcomes)
    assert set(begun.values()) == {1}
    attempts = [(event.request_id, event.number) for event in played.events if isinstance(event, AttemptBegan)]
    ended = [(event.request_id, event.number) for event in played.events if isinstance(event, AttemptEnded)]
    assert Counter(attempts) == Counter(ended)
    assert len(set(attempts)) == len(attempts)
    codes = {event.request_id: event.code for event in played.ended}
    for number, request_id in played.ids.items():
        outcome = played.outcomes[number][0]
        if outcome in {"left", "cancelled"}:
            assert codes[request_id] in {None, "cancelled"}
        else:
            assert codes[request_id] == (None if outcome == "answered" else outcome)


def assert_counted(played: Played) -> None:
    """The metrics' totals are those of the events, of the models, and of one another."""
    metrics = played.metrics
    assert metrics is not None
    requests, attempts = metrics.requests, metrics.attempts
    assert requests.began == len(played.outcomes)
    assert sum(requests.answered.values()) + sum(requests.failed.values()) + requests.cancelled == requests.began
    assert requests.in_flight == 0
    codes = Counter("all_models_refused" if event.refused else event.code for event in played.ended)
    assert (sum(requests.answered.values()), requests.cancelled) == (codes.pop(None, 0), codes.pop("cancelled", 0))
    assert requests.failed == codes
    assert requests.attempts == attempts.began
    ends = attempts.answered + sum(attempts.failed.values()) + sum(attempts.unsent.values()) + attempts.cancelled
    assert ends == attempts.began
    assert requests.upstream_calls == len(played.sent)


@pytest.mark.parametrize("how", list(Delivery))
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_request_has_one_outcome_and_leaves_nothing(strategy: Strategy, how: Delivery) -> None:
    """A response, an error of ours, or its caller's own cancellation; each is reported and counted once."""

    @few(4)
    @given(anything())
    def check(scenario: Scenario) -> None:
        everybody_gets_one_outcome(asked(scenario, strategy, how))

    check()


def asked(scenario: Scenario, strategy: Strategy, how: Delivery) -> Scenario:
    """Return a scenario with one strategy, and one way of delivery for all."""
    asks = tuple(evolve(ask, how=how) for ask in scenario.work.asks)
    return evolve(scenario, strategy=strategy, work=evolve(scenario.work, asks=asks))


def found(strategy: Strategy, how: Delivery) -> bool:
    """Say whether the property finds what is planted."""
    return finds(anything(), lambda scenario: everybody_gets_one_outcome(asked(scenario, strategy, how)))


# -- planted bugs


def test_a_second_answer_that_nobody_closes_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models may deliver in the same batch."""

    async def nothing(begun: Begun) -> None:
        begun.lane.close()

    monkeypatch.setattr(race, "_drop", nothing)

    assert found("parallel", Delivery.LIVE)


@pytest.mark.parametrize("how", list(Delivery))
def test_a_loser_that_is_not_noted_is_caught(monkeypatch: pytest.MonkeyPatch, how: Delivery) -> None:
    """Its attempt would have begun, and never ended."""

    def silent(self: Lane) -> None:
        self._attempt = None
        close(self)

    close = Lane.close
    monkeypatch.setattr(Lane, "close", silent)

    assert found("parallel", how)


def test_a_request_that_is_reported_twice_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters and logs live on that."""
    publish = EventStream.publish

    def twice(self: EventStream, event: object) -> None:
        publish(self, event)  # type: ignore[arg-type]  # passed on as it came
        if isinstance(event, RequestEnded) and event.code == "cancelled":
            publish(self, event)

    monkeypatch.setattr(EventStream, "publish", twice)

    assert found("sequential", Delivery.BUFFERED)
