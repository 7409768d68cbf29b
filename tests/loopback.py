"""A server on loopback whose every byte a test decides: what upstreams do that no well-made server would.

async def upstream(wire: Wire) -> None:
    request = await wire.request()
    await wire.send(response(200, {"content-type": "text/event-stream"}, [b"data: ", b"[DONE]"], cut=True))

async with serving(upstream) as base_url: ...
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager

import msgspec
import trio
from attrs import field, frozen

MAX_REQUEST = 2**22


@frozen
class WireRequest:
    """One request as it came: names of headers in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        """The body, decoded."""
        return msgspec.json.decode(self.body, type=dict[str, object])


@frozen
class Wire:
    """One connection, from the server's side."""

    stream: trio.SocketStream
    _buffer: bytearray = field(factory=bytearray, repr=False)

    async def request(self) -> WireRequest | None:
        """Wait for the next request; None where the client hangs up first."""
        while b"\r\n\r\n" not in self._buffer:
            if not await self._more():
                return None
        head = bytes(self._buffer).partition(b"\r\n\r\n")[0]
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = int(headers.get("content-length", "0"))
        while len(self._buffer) < len(head) + 4 + length:
            if not await self._more():
                return None
        body = bytes(self._buffer[len(head) + 4 : len(head) + 4 + length])
        del self._buffer[: len(head) + 4 + length]
        return WireRequest(method, path, headers, body)

    async def send(self, data: bytes) -> None:
        """Send the bytes as they are."""
        await self.stream.send_all(data)

    async def gone(self) -> None:
        """Wait until the client has closed the connection."""
        try:
            while await self._more():
                pass
        except trio.BrokenResourceError:
            return

    async def _more(self) -> bool:
        data = await self.stream.receive_some(65536)
        self._buffer.extend(data)
        assert len(self._buffer) <= MAX_REQUEST, "a request larger than any test sends"
        return bool(data)


def response(status: int, headers: Mapping[str, str], pieces: Iterable[bytes] = (), *, cut: bool = False) -> bytes:
    """Return the bytes of a response whose body comes in these chunks; `cut` leaves out the body's end."""
    lines = [f"HTTP/1.1 {status} Reason", *(f"{name}: {value}" for name, value in headers.items())]
    head = "\r\n".join([*lines, "transfer-encoding: chunked", "", ""]).encode("latin-1")
    return head + b"".join(map(chunk, pieces)) + (b"" if cut else chunk(b""))


def chunk(piece: bytes) -> bytes:
    """Return one chunk of a chunked body; an empty one ends it."""
    return f"{len(piece):x}\r\n".encode() + piece + b"\r\n"


@asynccontextmanager
async def serving(handler: Callable[[Wire], Awaitable[None]]) -> AsyncIterator[str]:
    """Yield the base URL of a server that runs `handler` for every connection, and closes it afterwards."""

    async def connection(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                await handler(Wire(stream))
            except trio.BrokenResourceError:
                return  # the client hung up: its test says whether it should have

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, connection, 0)
        port = listeners[0].socket.getsockname()[1]
        yield f"http://127.0.0.1:{port}/v1"
        nursery.cancel_scope.cancel()
