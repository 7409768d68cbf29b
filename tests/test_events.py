"""The event stream: publishing never waits, and a late reader loses the oldest and knows how many."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from attrs import frozen

from tests.kernel_actors import quiet
from wizard_actors.events import Event, EventStream, Subscription

Clock = trio.testing.MockClock


@frozen
class Numbered(Event):
    """An event of the tests."""

    number: int


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
