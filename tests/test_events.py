"""The event stream: publishing never waits, and a late reader loses the oldest and knows how many."""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Callable
from decimal import Decimal
from enum import StrEnum

import pytest
import trio
import trio.testing
from attrs import frozen

from tests.kernel_actors import quiet
from wizard_actors.errors import Attempt, CircuitOpenError, OverloadedError, StreamInterruptedError
from wizard_actors.event_stream import EventStream, Subscription
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
    plain,
)

Clock = trio.testing.MockClock


@frozen
class Numbered(Event):
    """An event of the tests."""

    number: int


def raising(event: Event) -> None:
    """Fail on every event."""
    raise LookupError(f"cannot take {event}")


def publish(stream: EventStream, *numbers: int) -> None:
    """Publish an event for each number."""
    for number in numbers:
        stream.publish(Numbered(float(number), number))


def numbers(events: list[Event]) -> list[int]:
    """Return the numbers of `events`."""
    return [event.number for event in events if isinstance(event, Numbered)]


async def read(events: Subscription, into: list[Event]) -> None:
    """Read until the end."""
    async for event in events:
        into.append(event)  # noqa: PERF401 - one by one, as they come


def test_what_nobody_subscribes_to_is_gone() -> None:
    """A stream keeps nothing for readers to come."""
    stream = EventStream()
    publish(stream, 1)
    with stream.subscribe() as events:
        publish(stream, 2)
        assert numbers(events.drain()) == [2]


def test_every_subscriber_gets_every_event_in_order() -> None:
    """Each has a view of its own."""
    stream = EventStream()
    with stream.subscribe() as first, stream.subscribe() as second:
        publish(stream, 1, 2)
        assert numbers(first.drain()) == [1, 2]
        publish(stream, 3)
        assert numbers(first.drain()) == [3]
        assert numbers(second.drain()) == [1, 2, 3]


def test_a_late_reader_loses_the_oldest_and_knows_how_many() -> None:
    """Over its bound the newest stay."""
    stream = EventStream()
    with stream.subscribe(bound=3) as events, stream.subscribe() as other:
        publish(stream, *range(10))
        assert numbers(events.drain()) == [7, 8, 9]
        assert (events.dropped, other.dropped) == (7, 0)


def test_who_has_left_gets_nothing_more() -> None:
    """What was unread can still be read."""
    stream = EventStream()
    with stream.subscribe() as events:
        publish(stream, 1)
    publish(stream, 2)
    assert numbers(events.drain()) == [1]


async def test_a_reader_waits_for_the_next_event(autojump_clock: Clock) -> None:
    """Iteration yields what is there, then what comes."""
    stream = EventStream()
    seen: list[Event] = []
    with stream.subscribe() as events:
        publish(stream, 1, 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, events, seen)
            await quiet()
            assert numbers(seen) == [1, 2]
            publish(stream, 3)
            await quiet()
            assert numbers(seen) == [1, 2, 3]
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("left", [[], [1]], ids=["nothing", "an event"])
async def test_iteration_ends_when_the_subscription_does(left: list[int], autojump_clock: Clock) -> None:
    """A waiting reader is told, after it has had what was left."""
    stream = EventStream()
    seen: list[Event] = []
    events = stream.subscribe()
    async with trio.open_nursery() as nursery:
        with events:
            nursery.start_soon(read, events, seen)
            await quiet()
            publish(stream, *left)
    assert numbers(seen) == left


async def test_a_cancelled_reader_loses_no_event(autojump_clock: Clock) -> None:
    """Either it got the event, or the event is still there."""
    stream = EventStream()
    with stream.subscribe() as events:
        publish(stream, 1)
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(events)
        assert scope.cancelled_caught
        assert numbers(events.drain()) == [1]


# -- subscriptions, at their edges


async def test_two_readers_of_one_subscription_share_its_events(autojump_clock: Clock) -> None:
    """Each event goes to one of them, both are woken, and neither waits for ever."""
    stream = EventStream()
    first: list[Event] = []
    second: list[Event] = []
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            with stream.subscribe() as events:
                nursery.start_soon(read, events, first)
                await quiet()
                nursery.start_soon(read, events, second)
                await quiet()
                publish(stream, 1)
                await quiet()
                publish(stream, 2)
                await quiet()
    assert sorted(numbers(first + second)) == [1, 2]


async def test_of_two_readers_one_may_be_cancelled(autojump_clock: Clock) -> None:
    """The event it was woken for goes to the other."""
    stream = EventStream()
    seen: list[Event] = []
    scope = trio.CancelScope()

    async def read_until_cancelled() -> None:
        with scope:
            await read(events, [])

    async with trio.open_nursery() as nursery:
        with stream.subscribe() as events:
            nursery.start_soon(read_until_cancelled)
            await quiet()
            nursery.start_soon(read, events, seen)
            await quiet()
            publish(stream, 1)
            scope.cancel()
            await quiet()
            assert numbers(seen) == [1]


async def test_a_reader_cancelled_while_it_waits_loses_nothing(autojump_clock: Clock) -> None:
    """What comes in the very step of the cancellation is still there afterwards."""
    stream = EventStream()
    with stream.subscribe() as events:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(events.__anext__)
            await quiet()
            publish(stream, 1)
            nursery.cancel_scope.cancel()
        publish(stream, 2)
        assert numbers(events.drain()) == [1, 2]


async def test_a_drained_subscription_still_wakes_its_reader(autojump_clock: Clock) -> None:
    """An event that somebody else drained does not count as news."""
    stream = EventStream()
    seen: list[Event] = []
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            with stream.subscribe() as events:
                nursery.start_soon(read, events, seen)
                await quiet()
                publish(stream, 1)
                assert numbers(events.drain()) == [1]
                await quiet()
                publish(stream, 2)
                await quiet()
    assert numbers(seen) == [2]


async def test_what_is_published_while_it_is_read_comes_in_order(autojump_clock: Clock) -> None:
    """A reader may publish: its own events come after those before."""
    stream = EventStream()
    seen: list[int] = []
    with stream.subscribe() as events:
        publish(stream, 1, 2)
        async for event in events:
            seen += numbers([event])
            if len(seen) == 4:
                break
            publish(stream, 10 + len(seen))
    assert seen == [1, 2, 11, 12]


async def test_a_subscription_is_entered_once() -> None:
    """Twice would bring each event twice, and not at all would end at once: both are refused."""
    stream = EventStream()
    with pytest.raises(RuntimeError, match="enter the subscription first"):
        await anext(stream.subscribe())
    with stream.subscribe() as events, pytest.raises(RuntimeError, match="entered once"):
        events.__enter__()
    with pytest.raises(RuntimeError, match="entered once"):
        events.__enter__()


@pytest.mark.parametrize("bound", [0, -1])
def test_a_subscription_holds_at_least_one_event(bound: int) -> None:
    """A bound that would lose everything is refused."""
    with pytest.raises(ValueError, match=f"not {bound}"):
        EventStream().subscribe(bound=bound)


def test_the_stream_knows_what_all_subscribers_lost() -> None:
    """Those that have left count too."""
    stream = EventStream()
    with stream.subscribe(bound=1), stream.subscribe(bound=2):
        publish(stream, 1, 2, 3)
        assert stream.dropped == 3
    publish(stream, 4)
    assert stream.dropped == 3


def test_who_leaves_while_an_event_is_told_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """From another thread: what had not reached it then neither does later, nor is it counted as lost."""
    stream = EventStream()
    with stream.subscribe() as first:
        leaver = stream.subscribe(bound=1)
        leaver.__enter__()
        publish(stream, 1, 2)
        monkeypatch.setattr(first, "put", lambda event: leaver.__exit__(None, None, None))
        publish(stream, 3)

        assert numbers(leaver.drain()) == [2]
        assert stream.dropped == leaver.dropped == 1


def test_who_counts_while_somebody_leaves_counts_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """From another thread, in the midst of the leaving."""
    stream = EventStream()
    leaver, counted = stream.subscribe(bound=1), list[int]()
    counting = threading.Thread(target=lambda: counted.append(stream.dropped))
    close = leaver.close

    def closing() -> int:
        counting.start()
        counting.join(0.05)  # it has to wait; else it is done by now
        return close()

    monkeypatch.setattr(leaver, "close", closing)
    with leaver:
        publish(stream, 1, 2, 3)
    counting.join()
    assert counted == [2]


# -- listeners


def test_a_listener_is_called_at_once_and_misses_nothing() -> None:
    """In `publish` itself, however many events come, until it is removed; removing it again does nothing."""
    stream = EventStream()
    heard: list[Event] = []
    other: list[Event] = []
    remove = stream.listen(heard.append)
    stream.listen(other.append)
    publish(stream, *range(2000))
    assert numbers(heard) == list(range(2000))
    remove()
    remove()
    publish(stream, 2000)
    assert len(heard) == 2000
    assert len(other) == 2001


def test_the_same_listener_twice_is_called_twice() -> None:
    """Each `listen` has its own end."""
    stream = EventStream()
    heard: list[Event] = []
    remove = stream.listen(heard.append)
    stream.listen(heard.append)
    publish(stream, 1)
    remove()
    publish(stream, 2)
    assert numbers(heard) == [1, 1, 2]


def test_a_listener_that_raises_breaks_nothing_and_stays(caplog: pytest.LogCaptureFixture) -> None:
    """Its first failure is logged with the traceback, the rest is counted; the others hear everything."""
    stream = EventStream()
    heard: list[Event] = []
    stream.listen(raising)
    stream.listen(heard.append)
    with stream.subscribe() as events, caplog.at_level(logging.ERROR, "wizard_actors.events"):
        publish(stream, 1, 2, 3)
        assert numbers(events.drain()) == numbers(heard) == [1, 2, 3]
    assert stream.listener_failures == 3
    [record] = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)
    assert "Numbered" in record.getMessage()


def test_a_listener_stops_for_ctrl_c() -> None:
    """What is no failure passes through, and the stream works on."""
    stream = EventStream()
    heard: list[Event] = []

    def interrupted(event: Event) -> None:
        raise KeyboardInterrupt

    remove = stream.listen(interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish(stream, 1)
    remove()
    stream.listen(heard.append)
    publish(stream, 2)
    assert numbers(heard) == [2]


def test_who_comes_or_goes_while_an_event_is_told_does_so_from_the_next() -> None:
    """Neither is skipped for it, or called twice."""
    stream = EventStream()
    heard: dict[str, list[Event]] = {"first": [], "leaver": [], "newcomer": []}

    def first(event: Event) -> None:
        heard["first"].append(event)
        leave()
        if len(heard["first"]) == 1:
            stream.listen(heard["newcomer"].append)

    stream.listen(first)
    leave = stream.listen(heard["leaver"].append)
    publish(stream, 1, 2)
    assert {name: numbers(events) for name, events in heard.items()} == {
        "first": [1, 2],
        "leaver": [1],
        "newcomer": [2],
    }


def test_a_listener_may_not_publish(caplog: pytest.LogCaptureFixture) -> None:
    """It would tell the listeners after it of its own event first: refused, as a failure of that listener."""
    stream = EventStream()
    heard: list[Event] = []
    stream.listen(lambda event: publish(stream, 99))
    stream.listen(heard.append)
    with caplog.at_level(logging.ERROR, "wizard_actors.events"):
        publish(stream, 1, 2)
    assert numbers(heard) == [1, 2]
    assert stream.listener_failures == 2
    assert "a listener must not publish" in caplog.text


# -- events as JSON

BUSY = OverloadedError("busy", model="m", status=503, retry_after=2.0)


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (RequestBegan(1.0, "r", "wizard", "hedged"), {"route": "wizard", "strategy": "hedged", "request_id": "r"}),
        (AttemptBegan(1.0, "r", "m", 1), {"request_id": "r", "model": "m", "number": 1, "hedge": False}),
        (FirstToken(1.0, "r", "m", 1, 0.25), {"request_id": "r", "model": "m", "number": 1, "after": 0.25}),
        (Retrying(1.0, "r", "m", 0.5), {"request_id": "r", "model": "m", "delay": 0.5}),
        (BudgetSpent(1.0, "r", "m", hedge=True), {"request_id": "r", "model": "m", "hedge": True}),
        (BudgetExhausted(1.0, "r", "m", hedge=False), {"request_id": "r", "model": "m", "hedge": False}),
        (CacheLooked(1.0, "r", "follow"), {"request_id": "r", "outcome": "follow"}),
        (Shed(1.0, "r"), {"request_id": "r", "route": None}),
        (
            SessionTurn(1.0, "alice", "r", "stored", left_out=2, turns=7),
            {"session": "alice", "request_id": "r", "outcome": "stored", "left_out": 2, "turns": 7},
        ),
        (BreakerChanged(1.0, "m", "open", 31.0), {"model": "m", "circuit": "open", "retry_at": 31.0}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_event_shows_its_type_and_its_facts(event: Event, shown: dict[str, object]) -> None:
    """The type is the class's name in snake case."""
    kind = {
        "RequestBegan": "request_began",
        "AttemptBegan": "attempt_began",
        "FirstToken": "first_token",
        "Retrying": "retrying",
        "BudgetSpent": "budget_spent",
        "BudgetExhausted": "budget_exhausted",
        "CacheLooked": "cache_looked",
        "Shed": "shed",
        "SessionTurn": "session_turn",
        "BreakerChanged": "breaker_changed",
    }[type(event).__name__]
    assert event.to_dict() == {"type": kind, "at": 1.0} | shown


def test_an_ended_attempt_shows_everything() -> None:
    """Money is text, which loses nothing; the error is an object."""
    event = AttemptEnded(1.0, "r", "m", 2, True, BUSY, duration=0.5, input_tokens=3, cost=Decimal("0.10"))
    shown = event.to_dict()
    assert shown["cost"] == "0.10"
    assert shown["input_tokens"] == 3
    assert shown["cancelled"] is False
    error = shown["error"]
    assert isinstance(error, dict)
    assert (error["code"], error["status"], error["retry_after"]) == ("overloaded", 503, 2.0)


def test_a_request_that_ended_shows_what_is_unknown_as_null() -> None:
    """And nothing is left out for it."""
    shown = RequestEnded(2.0, "r", "wizard", None, "cancelled", 1, 0.75).to_dict()
    assert shown["first_token"] is None
    assert shown["cost"] is None
    assert shown["served_by"] is None
    assert (shown["overhead"], shown["upstream_calls"]) == (0.0, 0)


@pytest.mark.parametrize(
    "event",
    [
        BreakerChanged(1.0, "m", "closed", -math.inf),
        AttemptEnded(1.0, "r", "m", 1, False, CircuitOpenError("open", model="m", retry_at=math.inf, retry_after=1.0)),
        FirstToken(math.nan, "r", "m", 1, 0.5),
    ],
)
def test_an_infinite_instant_is_null(event: Event) -> None:
    """JSON knows no infinity, and no parser but Python's own takes one."""
    json.dumps(event.to_dict(), allow_nan=False)


def test_no_event_shows_an_answer() -> None:
    """What had arrived of an interrupted answer, and the attempts that an error lists, stay with the error."""
    attempts = [Attempt(model="m", start=0.0, duration=1.0, error=BUSY)]
    error = StreamInterruptedError("cut", model="m", partial="SECRET WORDS", attempts=attempts)
    for event in (FellBack(1.0, "r", "m", "n", error), Degraded(1.0, "r", "stale", error)):
        shown = event.to_dict()["error"]
        assert isinstance(shown, dict)
        assert shown.keys() & {"partial", "attempts"} == set()
        assert "SECRET" not in json.dumps(event.to_dict())


class Colour(StrEnum):
    """An enumeration of the tests."""

    RED = "red"


@frozen
class Pair:
    """A value of the tests that has no JSON form of its own."""

    left: object
    right: object


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Colour.RED, "red"),
        ({Colour.RED: (1, 2.5)}, {"red": [1, 2.5]}),
        (Pair(Decimal("1.50"), [math.inf]), {"left": "1.50", "right": [None]}),
        (Attempt(model="m", start=0.0, duration=1.0, cost=Decimal(2)), {"model": "m", "start": 0.0, "cost": "2"}),
        (b"bytes".hex, None),
    ],
)
def test_any_fact_has_a_plain_form(value: object, shown: object) -> None:
    """Values inside values too; what has no other form is shown as text."""
    found = plain(value)
    json.dumps(found, allow_nan=False)
    if isinstance(value, Attempt) and isinstance(found, dict) and isinstance(shown, dict):
        assert found.items() >= shown.items()
    elif shown is None:
        assert isinstance(found, str)
    else:
        assert found == shown
        assert type(found) is type(shown)


def test_existing_positions_still_mean_what_they_did() -> None:
    """Facts that were added are named, so that no publisher's arguments shift."""
    ended = RequestEnded(1.0, "r", "wizard", "m", None, 2, 3.0)
    attempt = AttemptEnded(1.0, "r", "m", 1, True, None)
    assert (ended.attempts, ended.seconds) == (2, 3.0)
    assert attempt.sent
    make: Callable[..., object] = AttemptEnded
    with pytest.raises(TypeError):
        make(1.0, "r", "m", 1, True, None, True)
