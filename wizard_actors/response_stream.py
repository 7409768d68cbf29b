"""One answer as a stream of events, and the watch over streams that nobody reads."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Literal, Protocol, Self, TypeAlias

import trio

from wizard_actors.answering import Answering, SoFar
from wizard_actors.background import background
from wizard_actors.errors import (
    DeadlineExceededError,
    InvalidStateTransitionError,
    StreamInterruptedError,
    WizardError,
)
from wizard_actors.request import Request
from wizard_actors.shared import Shared
from wizard_actors.types import End, Reset, StreamEvent, TextDelta, WizardResponse

__all__ = ["AnswerSource", "IdleWatch", "Reading", "ResponseStream", "Source", "Taken", "refuse_reset", "unread"]

log = logging.getLogger("wizard_actors.client")


class IdleWatch:
    """Ends every stream whose consumer reads nothing for `limit` seconds, in a task of its own: see `running`.

    A stream that is not read holds a place at its model, and a connection, for as long as anybody lets it; not so an
    answer that is whole already.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._idle: OrderedDict[AnswerSource, float] = OrderedDict()  # since when, the longest first
        self._first = trio.Event()

    def idle(self, stream: AnswerSource) -> None:
        """Note that the consumer of `stream` has what there was, and does not read."""
        if not self._idle:
            self._first.set()
        self._idle[stream] = trio.current_time()

    def busy(self, stream: AnswerSource) -> None:
        """Note that the consumer reads again, or has left."""
        self._idle.pop(stream, None)

    def running(self) -> AbstractAsyncContextManager[None]:
        """Watch for as long as the block lasts; an error in the block is raised as it is."""
        return background(self._watch)

    async def _watch(self, nursery: trio.Nursery) -> None:
        while True:
            if not self._idle:
                self._first = trio.Event()
                await self._first.wait()
            await trio.sleep_until(next(iter(self._idle.values()), -math.inf) + self.limit)
            while self._idle:
                stream, since = next(iter(self._idle.items()))
                if trio.current_time() < since + self.limit:
                    break
                del self._idle[stream]
                if (events := stream.lose(self.limit)) is not None:
                    nursery.start_soon(_close, events)


Taken: TypeAlias = Callable[[], Awaitable[None]]
"""Waits until the reader has read all there was, and asks for more. Raises where it does not for too long."""


def unread(seconds: float) -> DeadlineExceededError:
    """Return the error of a stream that nobody has read for so many seconds."""
    return DeadlineExceededError(
        f"nobody read the stream for {seconds:g} s, as long as stream.consumer_idle allows: its call was stopped",
        deadline=seconds,
    )


class Source(Protocol):
    """The events of one answer, to be read by one task at a time."""

    def __aiter__(self) -> Self:
        """Return itself."""

    async def __anext__(self) -> StreamEvent:
        """Return the next event; the last one is `End`. Raises the answer's error."""

    async def aclose(self) -> None:
        """Stop the call, if it is not over, and give everything back."""


class AnswerSource:
    """A request's events, read in the task that asks for them, and watched while nobody does."""

    def __init__(
        self, shared: Shared, request: Request, watch: IdleWatch, on_lost: Callable[[], None] | None = None
    ) -> None:
        self._request = request
        self._watch = watch
        self._on_lost = on_lost
        self._answering = Answering(shared, request)
        self._events: AsyncGenerator[StreamEvent, None] | None = self._answering.events()
        self._lost: WizardError | None = None

    @property
    def so_far(self) -> SoFar:
        """How the request stands now."""
        return self._answering.so_far

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        if self._events is None:
            raise self._lost or StopAsyncIteration
        self._watch.busy(self)
        event = await anext(self._events)
        # Who is told when it is lost holds more than the call: that is watched though the answer be whole.
        if not isinstance(event, End) and (self._on_lost is not None or not self._answering.over):
            self._watch.idle(self)
        return event

    async def aclose(self) -> None:
        """Stop the call, if it is not over, and give everything back."""
        self._watch.busy(self)
        events, self._events = self._events, None
        if self._request.hold is not None:
            self._request.hold.release()  # a stream that was never read releases it nowhere else
        if events is not None:
            await events.aclose()

    def lose(self, seconds: float) -> AsyncGenerator[StreamEvent, None] | None:
        """Give up a stream that nobody has read for so many seconds: whoever reads on is told, from this very step on.

        Returns what is to be closed.
        """
        self._lost = unread(seconds)
        log.warning("request %s: %s", self._request.request_id, self._lost)
        if self._on_lost is not None:
            self._on_lost()
        events, self._events = self._events, None
        return events


class Reading:
    """What a reader has seen of a stream: whether it may read on, and the response at the end."""

    def __init__(self) -> None:
        self._state: Literal["created", "streaming", "left"] = "created"
        self._busy = False
        self._failure: WizardError | None = None
        self._response: WizardResponse | None = None

    @property
    def response(self) -> WizardResponse:
        """The whole response. Raises `InvalidStateTransitionError` before the stream has ended."""
        if self._response is None:
            raise InvalidStateTransitionError(
                "the stream has not ended: read it to its end before asking for the response",
                from_state="streaming",
                to_state="ended",
            )
        return self._response

    def enter(self) -> None:
        """Begin. Raises `InvalidStateTransitionError` the second time."""
        if self._state != "created":
            raise InvalidStateTransitionError(
                "a stream is one call, and this one has been made: ask the client for another",
                from_state="streaming",
                to_state="created",
            )
        self._state = "streaming"

    def leave(self) -> None:
        """Read no more."""
        self._state = "left"

    def goes_on(self) -> bool:
        """Say whether there may be more; raise why there is not, where that is not the answer's end."""
        if self._failure is not None:
            raise self._failure
        if self._state != "streaming":
            raise InvalidStateTransitionError(
                "a stream is read inside its block: with client.stream(...) as stream, or async with",
                from_state="created",
                to_state="streaming",
            )
        return self._response is None

    def begin(self) -> None:
        """Begin to read one event. Raises `RuntimeError` while another task or thread reads: each would get a part."""
        if self._busy:
            raise RuntimeError("another task or thread reads this stream already: one at a time")
        self._busy = True

    def failed(self, error: BaseException) -> None:
        """Note that a read failed, or was cancelled. The stream is over, and whoever reads on learns so: an iteration
        that just ended would pass a part of an answer for the whole.
        """
        self._busy = False
        if isinstance(error, WizardError):
            self._failure = error
        else:
            self._failure = StreamInterruptedError("a read was cancelled, which ended the stream", model="")

    def saw(self, event: StreamEvent) -> None:
        """Note what was read."""
        self._busy = False
        if isinstance(event, End):
            self._response = event.response


class ResponseStream:
    """One answer as it arrives.

        async with client.stream("Tell a story") as stream:
            async for text in stream.text():
                print(text, end="")
        response = stream.response

    Iterate the stream itself for typed events. Leaving the block early cancels the call upstream. One task at a time
    reads it, in the event loop in which it was asked for.
    """

    def __init__(self, begin: Callable[[], Source], request_id: str) -> None:
        self.request_id = request_id
        """The id that runs through logs, events and headers."""
        self._begin = begin
        self._source: Source | None = None
        self._reading = Reading()

    @property
    def response(self) -> WizardResponse:
        """The whole response. Raises `InvalidStateTransitionError` before the stream has ended."""
        return self._reading.response

    def text(self) -> AsyncIterator[str]:
        """Return the answer's text as it comes. Reading it raises where it is interrupted.

        A reset cannot be told in plain text: it raises `InvalidStateTransitionError`; iterate the events instead, or
        use buffered delivery.
        """
        return _Text(self)

    async def __aenter__(self) -> Self:
        self._reading.enter()
        self._source = self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reading.leave()
        source, self._source = self._source, None
        if source is not None:
            await source.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        if not self._reading.goes_on() or self._source is None:
            raise StopAsyncIteration
        self._reading.begin()
        try:
            event = await anext(self._source)
        except BaseException as error:
            self._reading.failed(error)
            raise
        self._reading.saw(event)
        return event


async def _close(events: AsyncGenerator[StreamEvent, None]) -> None:
    try:
        await events.aclose()
    except Exception:  # a bug, which concerns one stream that nobody reads, and not the whole client
        log.exception("closing a stream that nobody read failed")


def refuse_reset(event: StreamEvent) -> None:
    """Raise where a stream of plain text cannot go on."""
    if isinstance(event, Reset):
        raise InvalidStateTransitionError(
            f"{event.model} broke off and the answer starts again, which plain text cannot say: "
            'iterate the stream\'s events, or set stream.delivery = "buffered"',
            from_state="streaming",
            to_state="reset",
        )


class _Text:
    """A stream's text. No generator: one that its reader leaves early would have to be closed."""

    def __init__(self, events: ResponseStream) -> None:
        self._events = events

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        async for event in self._events:
            if isinstance(event, TextDelta):
                return event.text
            refuse_reset(event)
        raise StopAsyncIteration
