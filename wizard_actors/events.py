"""What happens, as it happens: a bounded stream of frozen events that logs, the demo and tests subscribe to.

Publishing never waits. A subscriber that does not keep up loses its oldest events, and can tell how many.
"""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Self

import trio
from attrs import frozen

from wizard_actors.errors import WizardError

__all__ = [
    "AttemptBegan",
    "AttemptEnded",
    "Event",
    "EventStream",
    "FellBack",
    "RequestEnded",
    "Retrying",
    "Subscription",
]


@frozen
class Event:
    """Base of all events; `at` is the instant on Trio's clock."""

    at: float


@frozen
class AttemptBegan(Event):
    """An attempt at `model` begins: the first, or a further one, of the request."""

    request_id: str
    model: str
    number: int


@frozen
class AttemptEnded(Event):
    """An attempt ended; `error` is None where the model answered, `sent` False where nothing reached it."""

    request_id: str
    model: str
    number: int
    sent: bool
    error: WizardError | None


@frozen
class Retrying(Event):
    """The same model is asked again after `delay` seconds; its rate limiter may add to that."""

    request_id: str
    model: str
    delay: float


@frozen
class FellBack(Event):
    """The request moves on to the next model of its route, because of `error`."""

    request_id: str
    failed: str
    model: str
    error: WizardError


@frozen
class RequestEnded(Event):
    """A request ended: answered by `model`, or failed with the error `code` ("cancelled" where its caller left).

    `seconds` is the whole time, from the ask to the end.
    """

    request_id: str
    route: str
    model: str | None
    code: str | None
    attempts: int
    seconds: float


class EventStream:
    """Where events are published. Costs next to nothing while nobody subscribes."""

    def __init__(self) -> None:
        self._subscriptions: list[Subscription] = []

    def publish(self, event: Event) -> None:
        """Give `event` to every subscriber, at once."""
        for subscription in self._subscriptions:
            subscription.put(event)

    def subscribe(self, *, bound: int = 1024) -> Subscription:
        """Return a subscription that holds up to `bound` unread events. Use it as a context manager."""
        return Subscription(self._subscriptions, bound)


class Subscription:
    """One reader's view: `with stream.subscribe() as events: async for event in events: ...`.

    `dropped` counts the events lost because the reader was late. Iteration ends when the context is left.
    """

    def __init__(self, registry: list[Subscription], bound: int) -> None:
        self._registry = registry
        self._events: deque[Event] = deque(maxlen=bound)
        self._arrived = trio.Event()
        self.dropped = 0

    def put(self, event: Event) -> None:
        """Append `event`, the oldest making room."""
        if len(self._events) == self._events.maxlen:
            self.dropped += 1
        self._events.append(event)
        self._arrived.set()

    def drain(self) -> list[Event]:
        """Return the unread events without waiting."""
        events = list(self._events)
        self._events.clear()
        return events

    def __enter__(self) -> Self:
        self._registry.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._registry.remove(self)
        self._arrived.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self not in self._registry:
                raise StopAsyncIteration
            self._arrived = trio.Event()
            await self._arrived.wait()
        await trio.lowlevel.checkpoint_if_cancelled()
        return self._events.popleft()
