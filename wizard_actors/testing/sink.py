"""What a metrics sink of your own has to keep to, as tests: subclass `SinkContract`, run it with pytest or unittest.

    class TestStatsD(SinkContract):
        def make(self, events: EventStream) -> Callable[[Event], None]:
            self.sink = StatsD(("127.0.0.1", 8125))
            return self.sink.hear

A sink is the function that `client.events.listen` calls with every event, in the middle of a request.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from decimal import Decimal
from enum import Enum
from random import Random
from statistics import fmean
from types import NoneType, UnionType
from typing import ClassVar, Final, Literal, Union, get_args, get_origin, get_type_hints

import trio
import trio.testing
from attrs import fields, frozen

from wizard_actors.client import ResilientClient
from wizard_actors.config import WizardConfig
from wizard_actors.errors import (
    ActorCrashedError,
    CircuitOpenError,
    ConfigError,
    ConfigProblem,
    NetworkError,
    RateLimitError,
    WizardError,
)
from wizard_actors.event_stream import EventStream
from wizard_actors.events import Event
from wizard_actors.specs import ActorChanged
from wizard_actors.types import Prompt

__all__ = ["SinkContract", "event_kinds", "event_samples"]

ROUNDS: Final = 3
CANARY: Final = "canary"
REQUESTS: Final = 300
AT_ONCE: Final = 20

OUTAGE: Final = """
[cache]
max_entries = 50

[server]
max_in_flight = 15

[[models]]
name = "primary"
provider = "simulated"
circuit_breaker = { failure_threshold = 3, window = 60, open_for = 1 }

[models.simulated]
script = [{ fault = "error", times = 20 }, { fault = "rate_limit", times = 20 }, { fault = "error", times = 1000 }]

[[models]]
name = "backup"
provider = "simulated"
circuit_breaker = { failure_threshold = 3, window = 60, open_for = 1 }
simulated = { script = [{ fault = "overloaded", times = 10 }] }
"""


class SinkContract:
    """The promises of a sink. `make` has to be filled in; `series` where the sink can tell them, `close` where it holds
    something.

    `seconds_an_event` is how long one event may take, on the average over all kinds, and over each kind without the
    slowest tenth of its events: every request waits for it, at each of its events, and a hundredth of it is usual.
    `series_at_most` bounds what an outage makes of series.
    """

    seconds_an_event: ClassVar[float] = 0.001
    series_at_most: ClassVar[int] = 1000

    # -- to be filled in

    def make(self, events: EventStream) -> Callable[[Event], None]:
        """Return the callback of a fresh sink. `events` is the stream that is going to call it, which few need."""
        raise NotImplementedError("`make` returns what is given to `client.events.listen`")

    def series(self) -> Collection[str] | None:
        """Return the names of all series of the sink made last, labels included; None where it cannot tell."""
        return None

    def close(self) -> None:
        """Release what the sink made last holds: a socket, a thread."""

    # -- the promises

    def test_it_takes_every_event(self) -> None:
        """No kind of event makes it raise, however strange what stands in it: no name, any script, no end of a time."""
        callback = self.make(EventStream())
        try:
            for kind in event_kinds():
                for event in event_samples(kind):
                    _call(callback, event)
        finally:
            self.close()

    def test_it_takes_events_it_does_not_know(self) -> None:
        """A later version publishes events of new kinds: it passes over them."""
        callback = self.make(EventStream())
        try:
            _call(callback, Unheard(1.0, "new"))
        finally:
            self.close()

    def test_it_publishes_nothing(self) -> None:
        """A sink that publishes would tell the others of events in the wrong order: the stream refuses it."""
        events = _Watched()
        stop = events.listen(self.make(events))
        try:
            for kind in event_kinds():
                for event in event_samples(kind):
                    events.tell(event)
                    if events.from_within:
                        raise AssertionError(
                            f"told of {event!r}, the sink published {events.from_within}: a listener must not publish; "
                            "let a task of its own do that, which reads a subscription"
                        )
        finally:
            stop()
            self.close()

    def test_it_is_quick(self) -> None:
        """It does not block: no network that waits, no file, no sleep."""
        callback = self.make(EventStream())
        everything: list[float] = []
        try:
            for kind in event_kinds():
                took = sorted(_seconds(callback, event) for event in event_samples(kind) for _ in range(ROUNDS))
                self._quick(took[: len(took) - len(took) // 10], f"an event {kind.__name__}")
                everything += took
        finally:
            self.close()
        self._quick(everything, "an event")

    def _quick(self, took: list[float], what: str) -> None:
        if (each := fmean(took)) > self.seconds_an_event:
            raise AssertionError(
                f"{what} took {each * 1e3:.2f} ms, more than {self.seconds_an_event * 1e3:g} ms: every request waits "
                "for the sink; put what is slow into a bounded queue for a thread, or read a subscription in a task"
            )

    def test_an_outage_leaves_few_series(self) -> None:
        """A client's whole outage makes it raise nothing, and leaves a bounded number of series, none of which is named
        after a request, a prompt or a tenant.
        """
        try:
            told, failures = trio.run(self._outage, clock=trio.testing.MockClock(autojump_threshold=0))
            series = self.series()
        finally:
            self.close()
        if failures:
            raise AssertionError(f"the sink raised {failures} times during an outage; see the log for the first one")
        if series is None:
            return
        requests = {event.request_id for event in told if hasattr(event, "request_id")}
        named = [name for name in series if CANARY in name or any(request in name for request in requests)]
        if named:
            raise AssertionError(
                f"the series {named[0]!r} is named after one request: label by what the configuration names, such as "
                "model and route, and by error codes"
            )
        if len(series) > self.series_at_most:
            raise AssertionError(
                f"{len(told)} events left {len(series)} series, more than {self.series_at_most}: a label has too many "
                f"values, such as in {max(series)!r}"
            )

    async def _outage(self) -> tuple[list[Event], int]:
        told: list[Event] = []
        async with ResilientClient.open(WizardConfig.from_toml(OUTAGE, env={}), rng=Random(1)) as client:
            client.events.listen(told.append)
            client.events.listen(self.make(client.events))
            limit = trio.CapacityLimiter(AT_ONCE)
            async with trio.open_nursery() as nursery:
                for number in range(REQUESTS):
                    nursery.start_soon(_ask, client, number, limit)
                    await trio.sleep(0.05)
                    if number == REQUESTS // 2:
                        client.supervisor.kill("models/model:primary/worker", RuntimeError("planted"))
            return told, client.events.listener_failures


async def _ask(client: ResilientClient, number: int, limit: trio.CapacityLimiter) -> None:
    async with limit:
        with trio.move_on_after(10 if number % 7 else 0.01):
            try:
                await client.generate(Prompt(f"{CANARY} {number % 250}"), tenant=f"{CANARY}-{number % 3}")
            except WizardError:
                await trio.sleep(0.01)


def _call(callback: Callable[[Event], None], event: Event) -> None:
    try:
        callback(event)
    except Exception as error:
        raise AssertionError(
            f"the sink raised {error!r} on {event!r}: it has to take every event, and to pass over what is not for it"
        ) from error


def _seconds(callback: Callable[[Event], None], event: Event) -> float:
    """Return how long the sink took for an event, whether it raised or not: that is another promise."""
    began = time.perf_counter()
    with suppress(Exception):
        callback(event)
    return time.perf_counter() - began


@frozen
class Unheard(Event):
    """An event of a kind that no sink knows."""

    what: str


class _Watched(EventStream):
    """Notes what is published by a listener, also where that swallows the refusal."""

    def __init__(self) -> None:
        super().__init__()
        self.from_within: str | None = None
        self._within = False

    def tell(self, event: Event) -> None:
        """Publish, and watch what the listeners do."""
        self._within = False
        self.publish(event)
        self._within = False

    def publish(self, event: Event) -> None:
        """Publish, or note that a listener has tried to."""
        if self._within:
            self.from_within = type(event).__name__
        self._within = True
        super().publish(event)


# -- every event there is


def event_kinds() -> tuple[type[Event], ...]:
    """Return every class of event that a client may publish, by name."""
    kinds = {ActorChanged}
    found: list[type[Event]] = [Event]
    while found:
        for kind in found.pop().__subclasses__():
            found.append(kind)
            module = kind.__module__
            if not module.startswith("wizard_actors.testing") and module.startswith("wizard_actors."):
                here = getattr(sys.modules[module], kind.__name__, None)
                kinds |= {kind} if here is kind else set()  # attrs makes each class twice
    return tuple(sorted(kinds, key=lambda kind: kind.__name__))


def event_samples(kind: type[Event]) -> Iterator[Event]:
    """Yield events of one `kind`: a typical one, then one for each extreme value that one of its facts may have."""
    hints = get_type_hints(kind)
    values = {part.name: _values(hints[part.name], part.name) for part in fields(kind)}
    typical = {name: choices[0] for name, choices in values.items()}
    yield kind(**typical)  # type: ignore[arg-type]  # each value is of its field's type, by construction
    for name, choices in values.items():
        for value in choices[1:]:
            yield kind(**{**typical, name: value})  # type: ignore[arg-type]  # the same


TEXTS: Final = ("primary", "", "модель 🧙", 'a b|c:d#e,f=g{h="i\\j"}\n', "x" * 1000)
MONEY: Final = (Decimal("0.00042"), Decimal(0), Decimal("1E+9"), Decimal("1E-12"))
SECONDS: Final = (0.25, 0.0, 1e-9, 1e9)
ERRORS: Final[tuple[WizardError, ...]] = (
    NetworkError("the connection broke", model="primary"),
    RateLimitError("too many requests", model="модель 🧙", status=429, retry_after=1.5),
    CircuitOpenError("the circuit is open", model="primary", retry_at=float("inf"), retry_after=1.0),
    ActorCrashedError("wizard/cache crashed", actor="wizard/cache"),
    ConfigError([ConfigProblem("models", "are missing")]),
    WizardError(""),
)
VALUES: Final[dict[object, tuple[object, ...]]] = {
    bool: (False, True),
    int: (1, 0, 2**63),
    float: SECONDS,
    str: TEXTS,
    Decimal: MONEY,
    WizardError: ERRORS,
    NoneType: (None,),
}


def _values(hint: object, name: str) -> tuple[object, ...]:
    """Return what a fact of this type may be, a typical value first. An instant may be one that never comes."""
    if get_origin(hint) in {Union, UnionType}:
        return tuple(value for part in get_args(hint) for value in _values(part, name))
    if get_origin(hint) is Literal:
        return get_args(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return tuple(hint)
    found = VALUES[hint]
    return (*found, float("inf")) if hint is float and name.endswith("_at") else found
