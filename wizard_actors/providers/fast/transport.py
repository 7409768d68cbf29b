"""The pool of connections, and one call over one of them.

Nothing here is bounded in number, for the bulkheads are the limit; every read is one piece at a time, which waits until
the one before it was taken. A connection is in use by one `_Call`, or idle, or closed; a call that ends otherwise than
with its answer read to the end closes its connection, at once and without waiting.
"""

from __future__ import annotations

import math
import ssl
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from types import MappingProxyType
from typing import Final, Self, TypeAlias, cast

import httpx
import trio

from wizard_actors.providers.fast.lines import Line, connect
from wizard_actors.providers.fast.reader import Engine, ResponseReader
from wizard_actors.providers.fast.request import CHUNKED, Framing, head_of

__all__ = ["FastTransport"]

Origin: TypeAlias = tuple[bytes, bytes, int | None]
Timeouts: TypeAlias = Mapping[str, float | None]

PORTS: Final[Mapping[bytes, int]] = MappingProxyType({b"http": 80, b"https": 443})

TOGETHER: Final = 65_536
"""Bytes up to which a body is sent together with its head."""

NO_TIMEOUTS: Final[Timeouts] = MappingProxyType({})
HTTP_10: Final[Mapping[str, bytes]] = MappingProxyType({"http_version": b"HTTP/1.0"})
HTTP_11: Final[Mapping[str, bytes]] = MappingProxyType({"http_version": b"HTTP/1.1"})
BROKEN: Final = (OSError, trio.ClosedResourceError)


class FastTransport(httpx.AsyncBaseTransport):
    """An httpx transport for direct connections, over HTTP/1.1 alone, without limits on their number.

    The connection that was idle for the shortest time serves the next call, so that after a burst the others expire:
    after `idle_time` seconds, or when their server closes them. Expired ones are closed as calls come and go. `tls` is
    told to speak HTTP/1.1.
    """

    def __init__(self, tls: ssl.SSLContext, *, idle_time: float, engine: Engine) -> None:
        tls.set_alpn_protocols(["http/1.1"])
        self._tls = tls
        self._idle_time = idle_time
        self._engine = engine
        self._idle: dict[Origin, deque[Line]] = {}
        self._open: set[Line] = set()
        self._oldest = math.inf  # no idle connection expires before

    @property
    def size(self) -> int:
        """The number of open connections, idle ones included."""
        return len(self._open)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request on an idle or a new connection, and return its answer once the head is here.

        The connection is given back when the answer's last byte has been read, and closed where the response is closed
        before. Raises httpx's errors. Cancelling closes the connection.
        """
        url = request.url
        origin = (url.raw_scheme, url.raw_host, url.port)
        if origin[0] not in PORTS or not origin[1]:
            raise httpx.UnsupportedProtocol("the URL needs http:// or https:// and a host", request=request)
        head = head_of(request)
        timeouts: Timeouts = request.extensions.get("timeout", NO_TIMEOUTS)
        line = self._take(origin) or await self._connect(origin, timeouts.get("connect"))
        reader = ResponseReader(self._engine, bodiless=request.method == "HEAD")
        call = _Call(self, line, origin, reader, timeouts, keep=head.keep)
        begun = False
        try:
            await call.begin(head.data, head.framing, request)
            begun = True
        finally:
            if not begun:
                call.leave()
        extensions = HTTP_10 if reader.http_10 else HTTP_11
        return httpx.Response(reader.status, headers=reader.headers, stream=call, extensions=dict(extensions))

    async def aclose(self) -> None:
        """Close all connections, those in use too."""
        lines, self._open = self._open, set()
        self._idle.clear()
        for line in lines:
            line.close()

    def give_back(self, line: Line, origin: Origin) -> None:
        """Keep a connection for the next call."""
        if line not in self._open:
            line.close()  # the pool was closed in the meantime
            return
        now = trio.current_time()
        line.idle_until = now + self._idle_time
        self._idle.setdefault(origin, deque()).append(line)
        self._oldest = min(self._oldest, line.idle_until)
        self._close_expired(now)

    def drop(self, line: Line) -> None:
        """Close a connection, and forget it."""
        self._open.discard(line)
        line.close()

    async def _connect(self, origin: Origin, within: float | None) -> Line:
        scheme, host, port = origin
        context = self._tls if scheme == b"https" else None
        try:
            with trio.fail_after(math.inf if within is None else within):
                line = await connect(host.decode("ascii"), port or PORTS[scheme], context)
        except trio.TooSlowError as error:
            raise httpx.ConnectTimeout(str(error)) from error
        except BROKEN as error:
            raise httpx.ConnectError(str(error)) from error
        self._open.add(line)
        return line

    def _take(self, origin: Origin) -> Line | None:
        """Return an idle connection that may be used, None where there is none."""
        idle = self._idle.get(origin)
        if not idle:
            return None
        self._close_expired(trio.current_time())
        while idle:
            line = idle.pop()
            if line.is_quiet():
                return line
            self.drop(line)
        return None

    def _close_expired(self, now: float) -> None:
        """Close what was idle for too long, of every origin."""
        if now < self._oldest:
            return
        for origin, idle in list(self._idle.items()):
            while idle and idle[0].idle_until <= now:
                self.drop(idle.popleft())
            if not idle:
                del self._idle[origin]
        self._oldest = min((idle[0].idle_until for idle in self._idle.values()), default=math.inf)


class _Call(httpx.AsyncByteStream):
    """One call over one connection, and its answer's body: no generator, which somebody would have to finish."""

    __slots__ = ("_keep", "_line", "_origin", "_pool", "_reader", "_timeouts")

    def __init__(
        self,
        pool: FastTransport,
        line: Line,
        origin: Origin,
        reader: ResponseReader,
        timeouts: Timeouts,
        *,
        keep: bool,
    ) -> None:
        self._pool = pool
        self._line: Line | None = line  # None: given back, or closed
        self._origin = origin
        self._reader = reader
        self._timeouts = timeouts
        self._keep = keep

    async def begin(self, head: bytes, framing: Framing, request: httpx.Request) -> None:
        """Send the request, and wait for the head of its answer, which may come before all is sent."""
        reader = self._reader
        if isinstance(request.stream, httpx.ByteStream):
            await self._send_bytes(head, framing, request.content)
        else:
            await self._send_stream(head, framing, cast("AsyncIterable[bytes]", request.stream))
        while not (reader.status or reader.fault):
            await self._more()
        self._settle()
        if not reader.status:
            raise httpx.RemoteProtocolError(reader.fault)

    def leave(self) -> None:
        """Close the connection, where the call has it still."""
        line, self._line = self._line, None
        if line is not None:
            self._pool.drop(line)

    # -- the body ------------------------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        reader = self._reader
        while True:
            if data := reader.take():
                return data
            if reader.complete:
                raise StopAsyncIteration
            if reader.fault:
                raise httpx.RemoteProtocolError(reader.fault)
            arrived = False
            try:
                await self._more()
                arrived = True
            finally:
                if not arrived:
                    self.leave()
            self._settle()

    async def aclose(self) -> None:
        """Close the connection, unless the answer was read to its end."""
        self.leave()

    async def _more(self) -> None:
        """Wait for bytes, and read them."""
        line = self._line
        if line is None:
            raise httpx.ReadError("the response was closed")
        timeout = self._timeouts.get("read")
        try:
            if timeout is None:
                data = await line.receive()
            else:
                with trio.fail_after(timeout):
                    data = await line.receive()
        except trio.TooSlowError as error:
            raise httpx.ReadTimeout(str(error)) from error
        except BROKEN as error:
            raise httpx.ReadError(str(error)) from error
        self._reader.feed(data)

    def _settle(self) -> None:
        """Part with the connection once it has nothing more to say."""
        if not self._reader.ended:
            return
        line, self._line = self._line, None
        if line is None:
            return
        if self._keep and self._reader.keeps:
            self._pool.give_back(line, self._origin)
        else:
            self._pool.drop(line)

    # -- the request ---------------------------------------------------------------------------------------------------

    async def _send_bytes(self, head: bytes, framing: Framing, body: bytes) -> None:
        if framing == CHUNKED:
            body = _chunk(body) + _chunk(b"") if body else _chunk(b"")
        elif framing != len(body):
            raise httpx.LocalProtocolError("the body is not as long as its headers say")
        if len(body) <= TOGETHER:
            await self._send(head + body)
        elif await self._send(head):
            await self._send(body)

    async def _send_stream(self, head: bytes, framing: Framing, pieces: AsyncIterable[bytes]) -> None:
        """Send what `pieces` yields, until an answer is here; then they are closed, where they can be."""
        left = math.inf if isinstance(framing, str) else framing
        going = await self._send(head)
        iterator = aiter(pieces)
        try:
            async for piece in iterator:
                left -= len(piece)
                if left < 0:
                    raise httpx.LocalProtocolError("the body is longer than its headers say")
                going = going and (not piece or await self._send(_chunk(piece) if framing == CHUNKED else piece))
                if not going:
                    return
        finally:
            if isinstance(iterator, AsyncGenerator):
                await iterator.aclose()
        if framing == CHUNKED:
            await self._send(_chunk(b""))
        elif left:
            raise httpx.LocalProtocolError("the body is shorter than its headers say")

    async def _send(self, data: bytes) -> bool:
        """Send `data`; False where the server has answered before that, or takes no more: then it may have answered."""
        line = self._line
        if line is None or line.closed:
            raise httpx.ReadError("the connection was closed")
        await trio.lowlevel.checkpoint_if_cancelled()
        whole = False
        try:
            whole = line.put(data) or await self._send_on(line)
        except BROKEN:
            whole = False
        if not whole:
            self._keep = False
        return whole

    async def _send_on(self, line: Line) -> bool:
        """Send what is left while reading what comes: who is answered too early to have sent all need not go on."""
        timeout = self._timeouts.get("write")
        sent = False
        failed: list[httpx.TransportError] = []

        async def answered(done: trio.CancelScope) -> None:
            try:
                while not (self._reader.status or self._reader.fault):
                    await self._more()
            except httpx.ReadTimeout:
                return  # it is the sender's turn
            except httpx.TransportError as error:
                failed.append(error)
            done.cancel()

        try:
            with trio.fail_after(math.inf if timeout is None else timeout):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(answered, nursery.cancel_scope)
                    sent = await _pushed(line)
                    nursery.cancel_scope.cancel()
        except trio.TooSlowError as error:
            raise httpx.WriteTimeout(str(error)) from error
        if failed:
            raise failed[0]
        return sent and not self._reader.ended


async def _pushed(line: Line) -> bool:
    """Send what has not gone yet; False where the connection breaks."""
    try:
        while not line.push():
            await line.writable()
    except BROKEN:
        return False
    return True


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)
