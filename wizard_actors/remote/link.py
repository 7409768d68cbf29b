"""The connection to a server: the one in use, those that drain, and the dialling of another.

One dial at a time, whoever waits for it; it is tried again while nothing has been sent. What was sent is never sent
again, but for a request that a draining server says it has not begun.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from random import Random
from typing import Final, TypeVar

import h11
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection
from wsproto.utilities import ProtocolError

from wizard_actors.background import background
from wizard_actors.config.model import RetryConfig
from wizard_actors.errors import ActorStoppedError, NetworkError, UnsupportedError, WizardError
from wizard_actors.remote.address import Address
from wizard_actors.remote.connection import Connection, NotSentError
from wizard_actors.remote.exchange import Exchange
from wizard_actors.remote.handshake import (
    Connect,
    max_request_of,
    no_wizard,
    passes,
    refusal_of,
    shake_hands,
    unreachable,
)
from wizard_actors.remote.wire import Wire
from wizard_actors.retry import full_jitter

__all__ = ["TRIES", "Link", "closed_client"]

E = TypeVar("E", bound=BaseException)

TRIES: Final = 3
"""How often what was not begun is tried again."""

PAUSES: Final = RetryConfig(base_delay=0.1, max_delay=1.0)


def closed_client() -> ActorStoppedError:
    """Return the error of whoever asks a client that is closed, or is left."""
    return ActorStoppedError("the client is closed: it takes no more requests", actor="remote")


class Dial:
    """One dialling: `done` once there is a `connection`, or a `failure`."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.connection: Connection | None = None
        self.failure: WizardError | None = None
        self.why: WizardError | None = None
        """What the last try ended in."""

    def reached(self, connection: Connection) -> None:
        """There is a connection."""
        self.connection = connection
        self.done.set()

    def failed(self, error: WizardError) -> None:
        """There is none. Only the first word counts."""
        if not self.done.is_set():
            self.failure = error
            self.done.set()


class Link:
    """The connections to the server at `address`, which `connect` opens a stream to. Times are in seconds."""

    def __init__(
        self, address: Address, connect: Connect, *, connect_timeout: float, max_message_size: int, rng: Random
    ) -> None:
        self.where = address.where
        self.rng = rng
        self.max_request: int | None = None
        """How many bytes a request may have, as the server has said last."""
        self._address = address
        self._connect = connect
        self._connect_timeout = connect_timeout
        self._max_message_size = max_message_size
        self._nursery: trio.Nursery | None = None
        self._dial: Dial | None = None
        self._open: dict[Connection, None] = {}
        self._lives: dict[trio.CancelScope, Dial] = {}
        self._closed = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Hold connections for as long as the block lasts: dial at once, close them all at its end, within a second.

        Raises what `send` raises of the connection.
        """
        ready = trio.Event()

        async def hold(nursery: trio.Nursery) -> None:
            self._nursery = nursery
            ready.set()
            await trio.sleep_forever()

        async with background(hold):
            try:
                await ready.wait()
                await self._connection()
                yield
            finally:
                self._close()

    async def send(self, request: str, text: Callable[[], str], *, credit: int) -> tuple[Connection, Exchange]:
        """Send a request over the connection in use, or another one where there is none, and return both. `text` makes
        what is sent, once it can be.

        Raises `AccessDeniedError`, `NetworkError` and `UnsupportedError` where there is no connection, and
        `ActorStoppedError` where the client is closed; `InvalidPromptError` as `Connection.send`. Cancelled, nothing
        was sent.
        """
        for _ in range(1 + TRIES):
            connection = await self._connection()
            try:
                return connection, await connection.send(request, text(), credit=credit)
            except NotSentError:
                continue
        raise NetworkError(f"the server at {self.where} closes each connection at once", model=self.where)

    async def _connection(self) -> Connection:
        dial = self._dial
        if self._closed or self._nursery is None:
            raise closed_client()
        if dial is None or dial.failure is not None or (dial.connection is not None and not dial.connection.takes):
            dial = self._dial = Dial()
            self._nursery.start_soon(self._dialled, dial)
        await dial.done.wait()
        if dial.failure is not None:
            raise dial.failure.copy() from dial.failure.__cause__
        if dial.connection is None:
            raise closed_client()
        return dial.connection

    # -- in tasks of their own, which outlast a cancelled block for long enough to close in order

    async def _dialled(self, dial: Dial) -> None:
        with trio.CancelScope(shield=True) as life:
            self._lives[life] = dial
            try:
                await self._dialling(dial)
            finally:
                del self._lives[life]
                dial.failed(closed_client())

    async def _dialling(self, dial: Dial) -> None:
        until = trio.current_time() + self._connect_timeout
        for doublings in count():
            error = await self._live(dial, until)
            if dial.connection is not None or error is None:
                return
            pause = full_jitter(doublings, PAUSES, self.rng)
            if doublings == TRIES or not passes(error) or trio.current_time() + pause >= until:
                dial.failed(error)
                return
            await trio.sleep(pause)

    async def _live(self, dial: Dial, until: float) -> WizardError | None:
        """Connect, and serve the connection until it ends. Returns why there was none."""
        dial.why = None
        with trio.CancelScope(deadline=until) as patience:
            try:
                stream = await self._connect()
            except (OSError, trio.BrokenResourceError) as error:
                dial.why = unreachable(error, self.where)
                dial.why.__cause__ = error
                return dial.why
            try:
                await self._served(dial, stream, patience)
            finally:
                await trio.aclose_forcefully(stream)  # noqa: ASYNC102 - it waits for nobody
        if dial.connection is not None or dial.why is not None:
            return dial.why
        if trio.current_time() >= until:
            said = f"no connection to the server at {self.where} within {self._connect_timeout:g} s"
        else:
            said = f"the server at {self.where} closed the connection before it was open: is it a WebSocket server?"
        return NetworkError(said, model=self.where)

    async def _served(self, dial: Dial, stream: trio.abc.Stream, patience: trio.CancelScope) -> None:
        wire = Wire(stream, patience.cancel)  # the library waits for a handshake for ever, also where none can come
        try:
            async with trio.open_nursery() as nursery:  # the library's reader runs in it
                socket = await shake_hands(nursery, wire, self._address, max_message_size=self._max_message_size)
                wire.trust()
                patience.deadline = math.inf
                await self._serve(dial, self._connection_of(socket, wire))
                nursery.cancel_scope.cancel()
        except* ConnectionRejected as group:
            dial.why = refusal_of(_first(group), self.where, now=trio.current_time())
        except* (ConnectionClosed, ProtocolError, h11.ProtocolError):
            if dial.connection is None:
                dial.why = no_wizard(self.where, "it does not speak WebSocket")
        except* UnsupportedError as errors:
            dial.why = _first(errors)

    def _connection_of(self, socket: WebSocketConnection, wire: Wire) -> Connection:
        self.max_request = max_request_of(socket)
        return Connection(
            socket, wire, self.where, max_message_size=self._max_message_size, max_request=self.max_request
        )

    async def _serve(self, dial: Dial, connection: Connection) -> None:
        self._open[connection] = None
        dial.reached(connection)
        try:
            await connection.run()
        finally:
            del self._open[connection]

    def _close(self) -> None:
        self._closed = True
        for connection in tuple(self._open):
            connection.end(closed_client())
        for life, dial in tuple(self._lives.items()):
            if dial.connection is None:
                life.cancel()


def _first(group: BaseExceptionGroup[E]) -> E:
    """Return an error of a group: there is one."""
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
