"""Connections for any number of calls at once: httpcore's, kept without its pool.

That pool goes through all its connections whenever a call starts or ends, and for each idle one through all of them
again, to keep limits that are not set here: the bulkheads are the limit. With a thousand calls at once that took 45 ms
of each. Without limits a pool is a stack of idle connections for each origin.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from types import MappingProxyType
from typing import Final, Self, TypeAlias, cast

import httpcore
import httpx
import trio
from attrs import frozen

__all__ = ["ConnectionPool"]

Origin: TypeAlias = tuple[bytes, bytes, int | None]

ERRORS: Final[Mapping[type[Exception], type[httpx.TransportError]]] = MappingProxyType(
    {
        httpcore.ConnectTimeout: httpx.ConnectTimeout,
        httpcore.ReadTimeout: httpx.ReadTimeout,
        httpcore.WriteTimeout: httpx.WriteTimeout,
        httpcore.ConnectError: httpx.ConnectError,
        httpcore.ReadError: httpx.ReadError,
        httpcore.WriteError: httpx.WriteError,
        httpcore.LocalProtocolError: httpx.LocalProtocolError,
        httpcore.RemoteProtocolError: httpx.RemoteProtocolError,
    }
)


@frozen(eq=False)
class _Connection:
    """A connection and where it leads. It serves one call at a time."""

    core: httpcore.AsyncHTTPConnection
    origin: Origin

    async def close(self) -> None:
        """Close it, for a cancelled caller too: that waits for nobody."""
        with trio.CancelScope(shield=True):
            await self.core.aclose()


class ConnectionPool(httpx.AsyncBaseTransport):
    """An httpx transport over HTTP/1.1, without limits.

    The connection that was idle for the shortest time serves the next call, so that after a burst the others expire:
    after `idle_time` seconds, or when their server closes them. Expired ones are closed as calls come and go.
    """

    def __init__(self, tls: ssl.SSLContext, *, idle_time: float) -> None:
        self._tls = tls
        self._idle_time = idle_time
        self._idle: dict[Origin, deque[_Connection]] = {}
        self._open: set[_Connection] = set()

    @property
    def size(self) -> int:
        """The number of open connections, idle ones included."""
        return len(self._open)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request on an idle or a new connection, which its response gives back when it is closed.

        Raises httpx's errors. Cancelling closes the connection.
        """
        url = request.url
        if url.raw_scheme not in {b"http", b"https"} or not url.raw_host:
            raise httpx.UnsupportedProtocol("the URL needs http:// or https:// and a host", request=request)
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        asked = httpcore.Request(
            request.method,
            target,
            headers=request.headers.raw,
            content=_sent(request),
            extensions=request.extensions,
        )
        connection = await self._take((url.raw_scheme, url.raw_host, url.port), target.origin)
        answer: httpcore.Response | None = None
        try:
            answer = await connection.core.handle_async_request(asked)
        except tuple(ERRORS) as error:
            raise ERRORS[type(error)](str(error)) from error
        finally:
            if answer is None:
                self._open.discard(connection)  # httpcore has closed it
        body = _Body(self, connection, answer)
        return httpx.Response(answer.status, headers=answer.headers, stream=body, extensions=answer.extensions)

    async def aclose(self) -> None:
        """Close all connections, those in use too."""
        connections, self._open = self._open, set()
        self._idle.clear()
        for connection in connections:
            await connection.close()

    async def give_back(self, connection: _Connection) -> None:
        """Keep the connection for the next call where its answer was read to its end; else it is closed already."""
        if connection not in self._open:
            await connection.close()  # the pool was closed in the meantime
        elif connection.core.is_idle():
            idle = self._idle.setdefault(connection.origin, deque())
            idle.append(connection)
            await self._close_expired(idle)
        else:
            self._open.discard(connection)

    async def _take(self, origin: Origin, core_origin: httpcore.Origin) -> _Connection:
        idle = self._idle.get(origin)
        if idle:
            await self._close_expired(idle)
        while idle:
            connection = idle.pop()
            if not connection.core.has_expired():
                return connection
            self._open.discard(connection)
            await connection.close()
        core = httpcore.AsyncHTTPConnection(core_origin, ssl_context=self._tls, keepalive_expiry=self._idle_time)
        connection = _Connection(core, origin)
        self._open.add(connection)
        return connection

    async def _close_expired(self, idle: deque[_Connection]) -> None:
        """Close those that were idle for the longest time, up to the first that has not expired."""
        while idle and idle[0].core.has_expired():
            connection = idle.popleft()
            self._open.discard(connection)
            await connection.close()


def _sent(request: httpx.Request) -> AsyncIterable[bytes]:
    """Return a request's body, to be sent."""
    if isinstance(request.stream, httpx.ByteStream):
        return _Sent(request.content)
    return cast("AsyncIterable[bytes]", request.stream)  # what a provider of one's own streams


class _Sent:
    """A body of bytes. No generator, as httpx's own is: a call cancelled while it is sent would leave that to be
    collected, with a warning.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Once(self._body)


class _Once:
    def __init__(self, piece: bytes) -> None:
        self._left = [piece]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


class _Body(httpx.AsyncByteStream):
    """A response's body, which gives its connection back when it is closed."""

    def __init__(self, pool: ConnectionPool, connection: _Connection, answer: httpcore.Response) -> None:
        self._pool = pool
        self._connection = connection
        self._answer = answer
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in cast("AsyncIterable[bytes]", self._answer.stream):
                yield piece
        except tuple(ERRORS) as error:
            raise ERRORS[type(error)](str(error)) from error

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            with trio.CancelScope(shield=True):
                await self._answer.aclose()
                await self._pool.give_back(self._connection)
