"""A bounded stream of events: whoever subscribes reads them in time or loses the oldest, whoever listens is called."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from inspect import iscoroutinefunction
from types import TracebackType
from typing import Literal, Self, cast

import anyio.lowlevel

from wizard_actors.bells import Bell, bell_here
from wizard_actors.events import Event

__all__ = ["EventStream", "Subscription", "in_listener"]

log = logging.getLogger("wizard_actors.events")

_listening: set[int] = set()
"""The threads in which listeners are being called, of whatever stream."""


def in_listener() -> bool:
    """Whether the caller is called by a stream, as its listener: what it begins must not publish."""
    return bool(_listening) and threading.get_ident() in _listening


class _Listener:
    __slots__ = ("callback", "failures")

    def __init__(self, callback: Callable[[Event], None]) -> None:
        self.callback = callback
        self.failures = 0


class EventStream:
    """Where events are published, in the thread in which the client lives. Publishing never waits, and costs next to
    nothing while nobody subscribes. Everybody may subscribe and listen, from any thread.
    """

    def __init__(self) -> None:
        # Tuples, replaced as a whole: who comes or goes while an event is being told does so from the next one on.
        self._subscriptions: tuple[Subscription, ...] = ()
        self._listeners: tuple[_Listener, ...] = ()
        self._changing = threading.Lock()
        self._telling: set[int] = set()
        """The threads that are telling the listeners; two clients may publish here."""
        self._dropped = 0
        self._failures = 0

    @property
    def dropped(self) -> int:
        """How many events late subscribers have lost, those that have left included; an event lost by two counts
        twice.
        """
        with self._changing:  # else one that leaves meanwhile would be in both sums, or in neither
            return self._dropped + sum(subscription.dropped for subscription in self._subscriptions)

    @property
    def listener_failures(self) -> int:
        """How often a listener has raised."""
        return self._failures

    def publish(self, event: Event) -> None:
        """Give `event` to every subscriber, then call every listener, at once.

        Raises `RuntimeError` where a listener publishes: it would tell the others of events in the wrong order.
        """
        if self._telling and threading.get_ident() in self._telling:
            raise RuntimeError(f"a listener must not publish: {type(event).__name__} was not told to anybody")
        for subscription in self._subscriptions:
            subscription.put(event)
        if self._listeners:
            self._tell(event)

    def subscribe(self, *, bound: int = 1024) -> Subscription:
        """Return a subscription that holds up to `bound` unread events. Use it as a context manager.

        Raises `ValueError` where `bound` is less than 1.
        """
        return Subscription(self, bound)

    def listen(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Call `callback` with every event from now on, in `publish`; return what ends that, which may be called twice.

        For what is quick and loses nothing, such as counters: it runs in the middle of a request, in the thread in
        which the client lives: under asyncio, and for a `BlockingClient`, not in the caller's. A callback that
        raises breaks no request and goes on being called, for one event that it cannot take says nothing of the
        next: its first failure is logged with the traceback, the others are counted in `listener_failures`. It must not
        publish.
        """
        if iscoroutinefunction(callback) or not callable(cast("object", callback)):
            raise TypeError(
                f"a listener is a plain function, which is called in the middle of a request, not {callback!r}"
            )
        listener = _Listener(callback)
        with self._changing:
            self._listeners = (*self._listeners, listener)

        def remove() -> None:
            with self._changing:
                self._listeners = tuple(other for other in self._listeners if other is not listener)

        return remove

    def _tell(self, event: Event) -> None:
        me = threading.get_ident()
        outermost = me not in _listening  # a listener may be another stream's `publish`
        _listening.add(me)
        self._telling.add(me)
        try:
            for listener in self._listeners:
                try:
                    listener.callback(event)
                except Exception:
                    with self._changing:
                        self._failures += 1
                        listener.failures += 1
                    if listener.failures == 1:
                        log.exception(
                            "the listener %r failed on %s; it stays, and further failures of it are only counted",
                            listener.callback,
                            type(event).__name__,
                        )
        finally:
            self._telling.discard(me)
            if outermost:
                _listening.discard(me)

    def _enter(self, subscription: Subscription) -> None:
        with self._changing:
            self._subscriptions = (*self._subscriptions, subscription)

    def _leave(self, subscription: Subscription) -> None:
        with self._changing:
            self._subscriptions = tuple(other for other in self._subscriptions if other is not subscription)
            self._dropped += subscription.close()


class Subscription:
    """One reader's view: `with stream.subscribe() as events: async for event in events: ...`, under Trio or asyncio.

    A reader that does not keep up loses its oldest events; `dropped` counts them. Iteration ends when the context is
    left, after what was unread. A reader that is cancelled loses nothing. Two readers of one subscription share it:
    each event goes to one of them.
    """

    def __init__(self, stream: EventStream, bound: int) -> None:
        if bound < 1:
            raise ValueError(f"a subscription holds at least one event, not {bound}")
        self._stream = stream
        self._bound = bound
        self._events: deque[Event] = deque()
        self._making_room = threading.Lock()
        self._bells: list[Bell] = []
        self._state: Literal["new", "entered", "left"] = "new"
        self.dropped = 0

    def put(self, event: Event) -> None:
        """Append `event`, the oldest making room; do nothing where the subscription has been left. An event that a
        reader takes in that very moment is not dropped.
        """
        with self._making_room:
            if self._state == "left":  # the publisher, in another thread, had not heard of it
                return
            if len(self._events) >= self._bound:
                with suppress(IndexError):  # a reader in another thread was quicker: there is room
                    self._events.popleft()
                    self.dropped += 1
            self._events.append(event)
        self._ring()

    def close(self) -> int:
        """Take no more events, and return how many have been dropped: from here on, that does not change."""
        with self._making_room:
            self._state = "left"
            return self.dropped

    def drain(self) -> list[Event]:
        """Return the unread events without waiting."""
        events: list[Event] = []
        with suppress(IndexError):  # another thread may append meanwhile, or read
            events.extend(self._events.popleft() for _ in range(len(self._events)))
        return events

    def __enter__(self) -> Self:
        """Begin. Raises `RuntimeError` the second time: each event would come twice."""
        if self._state != "new":
            raise RuntimeError("a subscription is entered once: call subscribe() for another")
        self._state = "entered"
        self._stream._enter(self)  # noqa: SLF001 - one thing in two classes
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._state == "entered":
            self._stream._leave(self)  # noqa: SLF001 - one thing in two classes
            self._ring()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while True:
            if self._state == "new":
                raise RuntimeError("enter the subscription first: `with stream.subscribe() as events:`")
            left = self._state == "left"  # looked at first: what has been left gets no more events
            if not self._events:
                if left:
                    raise StopAsyncIteration
                await self._news()
            await anyio.lowlevel.checkpoint_if_cancelled()
            with suppress(IndexError):  # another reader, in another thread, may have taken it
                return self._events.popleft()

    async def _news(self) -> None:
        """Wait until there may be something to read."""
        bell = bell_here()
        self._bells.append(bell)
        try:
            if not self._events and self._state == "entered":  # what comes after this look rings the bell
                await bell.heard()
        finally:
            self._bells.remove(bell)

    def _ring(self) -> None:
        for bell in tuple(self._bells):
            bell.ring()
