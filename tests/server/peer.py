"""A WebSocket client that says whatever a test wants, byte by byte: frames that no library would send."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import msgspec
import trio
from attrs import field, frozen

__all__ = ["CLOSE", "CONTINUATION", "HEADERS", "PING", "PONG", "TEXT", "Frame", "Gone", "Peer", "frame", "handshake"]

CONTINUATION: Final = 0
TEXT: Final = 1
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

HEADERS: Final = (
    ("Host", "localhost"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Protocol", "wizard.v1"),
)


class Gone(Exception):  # noqa: N818 - no failure: a connection that has ended
    """The server has closed the connection."""


@frozen
class Frame:
    """One frame that a server sent."""

    opcode: int
    payload: bytes

    @property
    def code(self) -> int | None:
        """Of a frame that closes the connection, why."""
        return struct.unpack("!H", self.payload[:2])[0] if len(self.payload) >= 2 else None


def handshake(
    headers: Sequence[tuple[str, str]] = HEADERS, *, request: str = "GET / HTTP/1.1", end: str = "\r\n"
) -> bytes:
    """Return the bytes of a request for a WebSocket."""
    lines = [request, *(f"{name}: {value}" for name, value in headers), "", ""]
    return end.join(lines).encode("utf-8", "surrogateescape")


def frame(
    payload: bytes, opcode: int = TEXT, *, fin: bool = True, reserved: int = 0, masked: bool = True, length: int = -1
) -> bytes:
    """Return the bytes of one frame; `length` is what its header says, where that is not how long it is."""
    said = len(payload) if length < 0 else length
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    bit = 0x80 if masked else 0
    if said < 126:
        head = struct.pack("!BB", first, bit | said)
    elif said < 2**16:
        head = struct.pack("!BBH", first, bit | 126, said)
    else:
        head = struct.pack("!BBQ", first, bit | 127, said)
    if not masked:
        return head + payload
    return head + b"\0\0\0\0" + payload  # a mask that changes nothing


@frozen
class Peer:
    """The client's end of a connection."""

    stream: trio.abc.HalfCloseableStream
    _held: bytearray = field(factory=bytearray, init=False)

    async def greet(self, *, bearer: str | None = None) -> None:
        """Ask for a WebSocket, with a key perhaps, and get it. Raises `Gone`."""
        key = () if bearer is None else (("Authorization", f"Bearer {bearer}"),)
        await self.send(handshake((*HEADERS, *key)))
        head = await self.head()
        if not head.startswith(b"HTTP/1.1 101 "):
            raise AssertionError(f"no WebSocket: {head[:200]!r}")

    async def send(self, data: bytes) -> None:
        """Send bytes as they are. Raises `Gone`."""
        try:
            await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise Gone from None

    async def say(self, message: object) -> None:
        """Send a message: a text, or what is to be JSON."""
        text = message if isinstance(message, str) else msgspec.json.encode(message).decode()
        await self.send(frame(text.encode()))

    async def head(self) -> bytes:
        """Return the head of an HTTP response. Raises `Gone`."""
        while b"\r\n\r\n" not in self._held:
            await self._more()
        head, _, rest = bytes(self._held).partition(b"\r\n\r\n")
        self._held[:] = rest
        return head

    async def rest(self) -> bytes:
        """Return what comes until the server closes the connection."""
        while True:  # noqa: ASYNC913 - it waits for each piece
            try:
                await self._more()
            except Gone:
                return bytes(self._held)

    async def frame(self) -> Frame:
        """Return the next frame. Raises `Gone`."""
        head = await self._take(2)
        length = head[1] & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", await self._take(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self._take(8))
        return Frame(head[0] & 0x0F, await self._take(length))

    async def hear(self) -> dict[str, object]:
        """Return the next message; pings are answered. Raises `Gone` where the connection is closed first."""
        return msgspec.json.decode(await self.text(), type=dict[str, object])

    async def text(self) -> bytes:
        """Return the next message as it came; as `hear`."""
        while True:
            found = await self.frame()
            if found.opcode == TEXT:
                return found.payload
            if found.opcode == PING:
                await self.send(frame(found.payload, PONG))
            elif found.opcode == CLOSE:
                raise Gone(found.code)

    async def _take(self, count: int) -> bytes:
        while len(self._held) < count:
            await self._more()
        taken = bytes(self._held[:count])
        del self._held[:count]
        return taken

    async def _more(self) -> None:
        try:
            data = await self.stream.receive_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise Gone from None
        if not data:
            raise Gone
        self._held.extend(data)
