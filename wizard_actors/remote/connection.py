"""One connection: its requests, what the server sends for each of them, and how it ends.

    open ──`draining`──> draining ──its last request is over──> closed
      └──lost, garbled, silent, or left──────────────────────────^

Four tasks: one reads, and never waits for a consumer; one writes everything, for a send that is cancelled half-way
breaks the connection; one wakes it for short notes; one looks whether the server is still there.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Final

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection
from wsproto.utilities import LocalProtocolError

from wizard_actors.errors import InvalidPromptError, NetworkError, ParseError, RequestError, WizardError
from wizard_actors.protocol.frames import Fault, Incoming, Response, notification_text, read_answer
from wizard_actors.remote.exchange import Exchange
from wizard_actors.remote.wire import LEAVES_WITHIN, Wire

__all__ = ["Connection", "NotSentError"]

PING_EVERY: Final = 20.0
PONG_WITHIN: Final = 20.0
"""Seconds."""

CLOSING: Final = 1.0
"""Seconds that a connection's closing may take."""

NOTIFICATIONS: Final = frozenset({"event", "outcome"})
NORMAL: Final = 1000
GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
NO_FRAMES: Final = frozenset({1002, 1007})
"""What trio-websocket closes with when it is sent what is no frame, or no UTF-8."""
TOO_BIG: Final = 1009


class NotSentError(Exception):
    """Raised where a connection took nothing of a request."""


class Connection:
    """`socket`, over `wire`, to the server at `where`. `max_message_size` is what the socket takes, in characters;
    `max_request` what the server takes, in bytes of UTF-8, where it says so.
    """

    def __init__(
        self,
        socket: WebSocketConnection,
        wire: Wire,
        where: str,
        *,
        max_message_size: int,
        max_request: int | None = None,
    ) -> None:
        self._socket = socket
        self._wire = wire
        self._where = where
        self._largest = max_message_size
        self._largest_request = max_request
        self._requests: dict[str, Exchange] = {}
        self._frames, self._outgoing = trio.open_memory_channel[str](0)
        self._cancels: deque[str] = deque()
        self._credits: dict[str, int] = {}
        self._noted = trio.Event()
        self._code = NORMAL
        self._over = self._stopped = False
        self._tasks = trio.CancelScope()
        self.draining = False
        """The server takes no new requests here."""

    @property
    def takes(self) -> bool:
        """Whether it takes new requests."""
        return not (self.draining or self._stopped or self._over)

    # -- requests

    async def send(self, request: str, text: str, *, credit: int) -> Exchange:
        """Send a request, and return what is to come for it. Raises `NotSentError`, and `InvalidPromptError` for one
        that is longer than the server takes: it would close the connection, which others use too. Cancelled, nothing
        was sent.
        """
        if not self.takes:
            raise NotSentError
        self._check_size(text)
        exchange = Exchange(request, credit=credit, on_read=lambda more: self._grant(request, more))
        self._requests[request] = exchange  # first: its answer may be there before this task goes on
        try:
            await self._frames.send(text)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._drop(request)
            raise NotSentError from None
        except BaseException:
            self._drop(request)
            raise
        return exchange

    def _check_size(self, text: str) -> None:
        most = self._largest_request
        if most is None or len(text) * 4 <= most or (size := len(text.encode())) <= most:
            return
        raise InvalidPromptError(
            f"the request has {size:,} bytes, and the server at {self._where} takes at most {most:,} "
            "(its server.max_message): nothing was sent"
        )

    def forget(self, exchange: Exchange) -> None:
        """Have a request cancelled that nobody waits for any more; what still comes for it is dropped."""
        if self._requests.get(exchange.id) is exchange:
            self._cancels.append(exchange.id)
            self._noted.set()
            self._drop(exchange.id)

    def drain(self) -> None:
        """Send no new requests here, and close it when those in progress are over."""
        self.draining = True
        if not self._requests:
            self.end(self._gone("it drains"))

    def _drop(self, request: str) -> Exchange | None:
        exchange = self._requests.pop(request, None)
        if self.draining:
            self.drain()
        return exchange

    def _grant(self, request: str, more: int) -> None:
        if request in self._requests:
            self._credits[request] = self._credits.get(request, 0) + more
            self._noted.set()

    # -- its life

    async def run(self) -> None:
        """Serve its requests until it ends, then close it."""
        try:
            with self._tasks:
                async with trio.open_nursery() as tasks:
                    tasks.start_soon(self._write)
                    tasks.start_soon(self._wake)
                    tasks.start_soon(self._ping)
                    await self._read()
        finally:
            self.end(self._gone("it was lost"))
        with trio.move_on_after(CLOSING, shield=True):
            await self._socket.aclose(self._code)

    def end(self, error: WizardError, code: int = NORMAL, *, unbegun: bool = False) -> None:
        """End it: every request in progress fails with an `error` of its own; `unbegun`: the server has begun none of
        them. Only the first time counts.
        """
        if self._over:
            return
        self._over, self._code = True, code
        requests, self._requests = self._requests, {}
        self._credits.clear()
        for exchange in requests.values():
            exchange.lose(error.copy(), unbegun=unbegun)
        self._frames.close()
        self._tasks.cancel()

    async def _read(self) -> None:
        while True:  # noqa: ASYNC913 - it waits for each message
            try:
                text = await self._socket.get_message()
            except ConnectionClosed as closed:
                self._ended(closed)
                return
            try:
                self._take(read_answer(text))
            except Fault as fault:
                said = f"what the server at {self._where} sent cannot be understood: {fault.message}"
                self.end(ParseError(said, model=self._where), PROTOCOL_ERROR)
                return

    def _take(self, message: Incoming | Response) -> None:
        if isinstance(message, Response):
            if message.id is None:
                self._unread(message)
            elif isinstance(message.id, str) and (exchange := self._drop(message.id)) is not None:
                exchange.end(message)
        elif message.method == "draining":
            self.drain()
        elif message.method in NOTIFICATIONS:
            self._notified(message)

    def _notified(self, message: Incoming) -> None:
        request = message.params.get("id")
        exchange = self._requests.get(request) if isinstance(request, str) else None
        if exchange is not None and not exchange.put(message.params):
            raise Fault(0, f"more notifications for a request than it has credit for ({message.method})")

    def _unread(self, message: Response) -> None:
        """Give up: the server could not read a request, and nobody knows which of those in progress."""
        reason = "" if message.fault is None else f": {message.fault.message}"
        said = f"the server at {self._where} could not read a request that was sent to it{reason}"
        self.end(RequestError(said, model=self._where))

    # -- what is sent

    async def _write(self) -> None:
        with self._outgoing:
            async for text in self._outgoing:
                try:
                    if text:
                        await self._socket.send_message(text)
                    for note in self._notes():  # last: one may cancel this very request
                        await self._socket.send_message(note)
                except (ConnectionClosed, LocalProtocolError):
                    break
        self._stopped = True  # what came before the end is read yet; the reader meets that then

    def _notes(self) -> list[str]:
        """Return what stands to be said of requests in progress, and of those that are so no more."""
        cancels, self._cancels = self._cancels, deque()
        credits_, self._credits = self._credits, {}
        return [notification_text("cancel", {"id": request}) for request in cancels] + [
            notification_text("credit", {"id": request, "n": more}) for request, more in credits_.items()
        ]

    async def _wake(self) -> None:
        """Have the writer look for notes, also where nothing else is to be sent."""
        while True:
            await self._noted.wait()
            self._noted = trio.Event()
            try:
                await self._frames.send("")
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    # -- whether the server is there

    async def _ping(self) -> None:
        while self._socket.closed is None:
            await trio.sleep(PING_EVERY)
            async with trio.open_nursery() as asking:
                asking.start_soon(self._watch)
                with suppress(ConnectionClosed, LocalProtocolError):
                    await self._socket.ping()
                asking.cancel_scope.cancel()
        await trio.sleep(PONG_WITHIN)  # the answer to a close waits for what is being sent; the reader, for that answer
        self._ended(ConnectionClosed(self._socket.closed))

    async def _watch(self) -> None:
        """End the connection where no byte comes for too long after a ping, which waits for what is being sent."""
        await self._wire.sent()
        asked = trio.current_time()
        while (until := max(asked, self._wire.received) + PONG_WITHIN) > trio.current_time():  # noqa: ASYNC110 - a time
            await trio.sleep_until(until)
        self.end(self._gone(f"it has sent nothing for {PONG_WITHIN:g} s, not even when asked"))

    # -- how it ended

    def _gone(self, why: str) -> NetworkError:
        return NetworkError(f"the connection to the server at {self._where} is gone: {why}", model=self._where)

    def _ended(self, closed: ConnectionClosed) -> None:
        """End it as the socket says. A draining server that closes it has answered every request that it had begun."""
        in_order = self.draining and closed.reason is not None and closed.reason.code == GOING_AWAY
        self.end(self._closed(closed), unbegun=in_order)

    def _closed(self, closed: ConnectionClosed) -> WizardError:
        reason = closed.reason
        if reason is None or reason.code == 1006:
            stuck = f"the server has taken nothing of what was sent to it for {LEAVES_WITHIN:g} s"
            return self._gone(stuck if self._wire.stuck else "it was lost")
        if reason.code == TOO_BIG and isinstance(closed.__context__, trio.ClosedResourceError):  # closed on this side
            bound = f"{self._largest:,} characters (max_message_size)"
            said = f"the server at {self._where} sent a message of more than {bound}"
            return ParseError(said, model=self._where)
        told = f" ({reason.reason[:200]})" if reason.reason else ""
        if reason.code in NO_FRAMES:
            said = f"what the server at {self._where} sent is no WebSocket frame, or it says so of this client"
            return ParseError(f"{said}: code {reason.code}{told}", model=self._where)
        help_ = "; a request was longer than server.max_message" if reason.code == TOO_BIG else ""
        return self._gone(f"the server closed it with code {reason.code}{told}{help_}")
