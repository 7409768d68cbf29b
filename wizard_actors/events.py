"""What happens, as it happens: a bounded stream of frozen events that logs, metrics, the demo and tests subscribe to.

A request publishes `RequestBegan`, for each attempt `AttemptBegan` and `AttemptEnded` with a `FirstToken` between them,
what its caller's route does after a failure (`BudgetSpent`, `BudgetExhausted`, `Retrying`, `FellBack`), and in the end
`RequestEnded`. A request that is shed publishes `Shed` and nothing else.
"""

from __future__ import annotations

import logging
import math
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from enum import Enum
from inspect import iscoroutinefunction
from types import TracebackType
from typing import Literal, Self, cast

import anyio.lowlevel
from attrs import field, fields, frozen, has

from wizard_actors.bells import Bell, bell_here
from wizard_actors.errors import WizardError
from wizard_actors.failure import Shown

__all__ = [
    "AttemptBegan",
    "AttemptEnded",
    "BreakerChanged",
    "BudgetExhausted",
    "BudgetSpent",
    "CacheLooked",
    "CacheOutcome",
    "Degraded",
    "DegradedTo",
    "Event",
    "EventStream",
    "FellBack",
    "FirstToken",
    "RequestBegan",
    "RequestEnded",
    "Retrying",
    "Shed",
    "Subscription",
    "plain",
]

log = logging.getLogger("wizard_actors.events")

CacheOutcome = Literal["hit", "lead", "follow", "miss", "bypass"]
"""What a look into the cache came to."""

DegradedTo = Literal["stale", "static"]
"""What stood in for an answer: one whose time in the cache had passed, or the configured text."""

WITHHELD = frozenset({"attempts", "partial"})
"""What an event does not repeat of an error: other attempts have events of their own, and no event shows an answer."""


def plain(value: object) -> object:
    """Return `value` in JSON's types: a Decimal as text, an infinite number as None, an attrs class as an object."""
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return _plain_whole(value)


def _plain_whole(value: object) -> object:
    kind = type(value)
    if isinstance(value, WizardError):
        return {key: plain(fact) for key, fact in value.to_dict().items() if key not in WITHHELD}
    if isinstance(value, Shown):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    if has(kind):
        return {attribute.name: plain(getattr(value, attribute.name)) for attribute in fields(kind)}
    return str(value)


@frozen
class Event:
    """Base of all events; `at` is the instant on Trio's clock."""

    at: float

    def to_dict(self) -> dict[str, object]:
        """Return `{type, at, <facts>}` in JSON's types, where `type` is the class's name in snake case.

        An error is shown without the attempts and the partial answer that it carries.
        """
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()
        return {"type": name} | {fact.name: plain(getattr(self, fact.name)) for fact in fields(type(self))}


# -- a request ---------------------------------------------------------------------------------------


@frozen
class RequestBegan(Event):
    """A request was let in; `strategy` is how its `route` is gone."""

    request_id: str
    route: str
    strategy: str


@frozen
class Shed(Event):
    """A request was refused because `max_in_flight` others were under way. It neither begins nor ends."""

    request_id: str
    route: str | None = field(default=None, kw_only=True)


@frozen
class CacheLooked(Event):
    """The cache was asked for the request's answer, or was not: "bypass"."""

    request_id: str
    outcome: CacheOutcome


@frozen
class Degraded(Event):
    """Every model failed, the last or foremost with `error`, and something else stood in for the answer."""

    request_id: str
    to: DegradedTo
    error: WizardError


@frozen
class RequestEnded(Event):
    """A request ended: answered by `model`, or failed with the error `code` ("cancelled" where its caller left).

    `seconds` is the whole time, from the ask to the end, and `overhead` the part of it in which neither a model was
    being asked nor a delay waited out. `first_token` is in seconds from the ask, None where no content came. `attempts`
    counts all, `upstream_calls` those that were sent. Tokens are the answer's, also of one from the cache; `cost`, in
    US dollars, is that of all attempts together, None where unknown.
    """

    request_id: str
    route: str
    model: str | None
    code: str | None
    attempts: int
    seconds: float
    served_by: str | None = field(default=None, kw_only=True)
    overhead: float = field(default=0.0, kw_only=True)
    first_token: float | None = field(default=None, kw_only=True)
    input_tokens: int = field(default=0, kw_only=True)
    output_tokens: int = field(default=0, kw_only=True)
    cost: Decimal | None = field(default=None, kw_only=True)
    upstream_calls: int = field(default=0, kw_only=True)


# -- an attempt --------------------------------------------------------------------------------------


@frozen
class AttemptBegan(Event):
    """An attempt at `model` begins: the first, or a further one, of the request; a `hedge` beside one under way."""

    request_id: str
    model: str
    number: int
    hedge: bool = field(default=False, kw_only=True)


@frozen
class FirstToken(Event):
    """The first content of an attempt's answer arrived, `after` seconds from the send."""

    request_id: str
    model: str
    number: int
    after: float


@frozen
class AttemptEnded(Event):
    """An attempt ended; `error` is None where the model answered, `sent` False where nothing reached it.

    `cancelled`: its caller left, or another attempt was faster. `duration` is in seconds from the send to the end, 0.0
    where nothing was sent; `delay` what was waited for before the attempt, `slot_wait` and `rate_wait` in the queues of
    the bulkhead and of the limiter. `cost` is in US dollars, None where unknown.
    """

    request_id: str
    model: str
    number: int
    sent: bool
    error: WizardError | None
    hedge: bool = field(default=False, kw_only=True)
    cancelled: bool = field(default=False, kw_only=True)
    duration: float = field(default=0.0, kw_only=True)
    delay: float = field(default=0.0, kw_only=True)
    slot_wait: float = field(default=0.0, kw_only=True)
    rate_wait: float = field(default=0.0, kw_only=True)
    input_tokens: int = field(default=0, kw_only=True)
    output_tokens: int = field(default=0, kw_only=True)
    cost: Decimal | None = field(default=None, kw_only=True)


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
class BudgetSpent(Event):
    """The retry budget paid for a retry, or a `hedge`, at `model`."""

    request_id: str
    model: str
    hedge: bool


@frozen
class BudgetExhausted(Event):
    """The retry budget had nothing left for a retry, or a `hedge`, at `model`: there is none."""

    request_id: str
    model: str
    hedge: bool


# -- a model -----------------------------------------------------------------------------------------


@frozen
class BreakerChanged(Event):
    """The circuit of `model` changed to "closed", "open" or "half_open".

    `retry_at` is the instant of the first probe where it opened.
    """

    model: str
    circuit: str
    retry_at: float


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

    def _enter(self, subscription: Subscription) -> None:
        with self._changing:
            self._subscriptions = (*self._subscriptions, subscription)

    def _leave(self, subscription: Subscription) -> None:
        with self._changing:
            self._subscriptions = tuple(other for other in self._subscriptions if other is not subscription)
            self._dropped += subscription.dropped


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
        self._events: deque[Event] = deque(maxlen=bound)
        self._bells: list[Bell] = []
        self._state: Literal["new", "entered", "left"] = "new"
        self.dropped = 0

    def put(self, event: Event) -> None:
        """Append `event`, the oldest making room."""
        if len(self._events) == self._events.maxlen:
            self.dropped += 1
        self._events.append(event)
        self._ring()

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
            self._state = "left"
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
