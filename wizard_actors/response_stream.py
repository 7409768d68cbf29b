"""One answer as a stream of events, and the watch over streams that nobody reads."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import trio

from wizard_actors.answering import Answering
from wizard_actors.errors import (
    DeadlineExceededError,
    InvalidStateTransitionError,
    StreamInterruptedError,
    WizardError,
)
from wizard_actors.request import Request
from wizard_actors.shared import Shared
from wizard_actors.types import End, Reset, StreamEvent, TextDelta, WizardResponse

__all__ = ["IdleWatch", "ResponseStream"]

log = logging.getLogger("wizard_actors.client")


class IdleWatch:
    """Ends every stream whose consumer reads nothing for `limit` seconds, in a task of its own: see `running`.

    A stream that is not read holds a place at its model, and a connection, for as long as anybody lets it; not so an
    answer that is whole already.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._idle: OrderedDict[ResponseStream, float] = OrderedDict()  # since when, the longest first
        self._first = trio.Event()

    def idle(self, stream: ResponseStream) -> None:
        """Note that the consumer of `stream` has what there was, and does not read."""
        if not self._idle:
            self._first.set()
        self._idle[stream] = trio.current_time()

    def busy(self, stream: ResponseStream) -> None:
        """Note that the consumer reads again, or has left."""
        self._idle.pop(stream, None)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Watch for as long as the block lasts; an error in the block is raised as it is."""
        manager = trio.open_nursery()
        nursery = await manager.__aenter__()
        try:
            nursery.start_soon(self._watch, nursery)
            yield
        finally:
            nursery.cancel_scope.cancel()
            sole: BaseException | None = None
            try:
                # Without the block's error, which a nursery would wrap; what it waits for has been cancelled.
                await manager.__aexit__(None, None, None)  # noqa: ASYNC102 - see above
            except BaseExceptionGroup as group:
                if len(group.exceptions) > 1:
                    raise
                sole = group.exceptions[0]  # a Ctrl-C that came here, or a bug: raised as it is
            if sole is not None:
                raise sole

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


class ResponseStream:
    """One answer as it arrives.

        async with client.stream("Tell a story") as stream:
            async for text in stream.text():
                print(text, end="")
        response = stream.response

    Iterate the stream itself for typed events. Leaving the block early cancels the call upstream.
    """

    def __init__(self, shared: Shared, request: Request, watch: IdleWatch) -> None:
        self._request = request
        self._watch = watch
        self._answering = Answering(shared, request)
        self._failure: WizardError | None = None
        self._events: AsyncGenerator[StreamEvent, None] | None = None
        self._entered = False
        self._response: WizardResponse | None = None

    @property
    def request_id(self) -> str:
        """The id that runs through logs, events and headers."""
        return self._request.request_id

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

    def text(self) -> AsyncIterator[str]:
        """Return the answer's text as it comes. Reading it raises where it is interrupted.

        A reset cannot be told in plain text: it raises `InvalidStateTransitionError`; iterate the events instead, or
        use buffered delivery.
        """
        return _Text(self)

    async def __aenter__(self) -> Self:
        if self._entered:
            raise InvalidStateTransitionError(
                "a stream is one call, and this one has been made: ask the client for another",
                from_state="streaming",
                to_state="created",
            )
        self._entered = True
        self._events = self._answering.events()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.busy(self)
        events, self._events = self._events, None
        if events is not None:
            await events.aclose()

    def lose(self, seconds: float) -> AsyncGenerator[StreamEvent, None] | None:
        """Give up a stream that nobody has read for so many seconds: whoever reads on is told, from this very step on.

        Returns what is to be closed.
        """
        self._failure = DeadlineExceededError(
            f"nobody read the stream for {seconds:g} s, as long as stream.consumer_idle allows: its call was stopped",
            deadline=seconds,
        )
        log.warning("request %s: %s", self.request_id, self._failure)
        events, self._events = self._events, None
        return events

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        if self._failure is not None:
            raise self._failure
        if self._events is None:
            raise InvalidStateTransitionError(
                "a stream is read inside its block: async with client.stream(...) as stream",
                from_state="created",
                to_state="streaming",
            )
        if self._response is not None:
            raise StopAsyncIteration
        self._watch.busy(self)
        event = await self._next(self._events)
        if isinstance(event, End):
            self._response = event.response
        elif not self._answering.over:
            self._watch.idle(self)
        return event

    async def _next(self, events: AsyncGenerator[StreamEvent, None]) -> StreamEvent:
        """Read on. Where that fails, or is cancelled, the stream is over, and whoever reads on learns so: an iteration
        that just ended would pass a part of an answer for the whole.
        """
        failure: WizardError | None = StreamInterruptedError("a read was cancelled, which ended the stream", model="")
        try:
            event = await anext(events)
            failure = None
            return event
        except WizardError as error:
            failure = error
            raise
        finally:
            self._failure = failure


async def _close(events: AsyncGenerator[StreamEvent, None]) -> None:
    try:
        await events.aclose()
    except Exception:  # a bug, which concerns one stream that nobody reads, and not the whole client
        log.exception("closing a stream that nobody read failed")


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
            if isinstance(event, Reset):
                raise InvalidStateTransitionError(
                    f"{event.model} broke off and the answer starts again, which plain text cannot say: "
                    'iterate the stream\'s events, or set stream.delivery = "buffered"',
                    from_state="streaming",
                    to_state="reset",
                )
        raise StopAsyncIteration
