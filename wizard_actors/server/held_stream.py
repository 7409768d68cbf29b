"""A connection's bytes: read from the request's head on, written with a deadline, and closed by us alone, gently."""

from __future__ import annotations

import socket
import struct
from typing import Final

import trio

__all__ = ["HeldStream"]

PIECE: Final = 64 * 1024
"""Bytes that are sent under one deadline: a long answer on a slow line gets there, and nobody holds one for ever."""

STUCK: Final = 1.0
"""Seconds after which something that was taken at last says that somebody is there."""

TRICKLE: Final = 128
"""Bytes a second that a peer may send without ever ending a message: pings, and answers to ours."""

SLACK: Final = 64 * 1024

LINGER: Final = 1.0
"""Seconds that a peer has to close its side. Closing a socket with something unread would take back what was sent."""

GIVE_UP: Final = 0.5
"""Seconds that TLS has to say goodbye."""


class HeldStream(trio.abc.Stream):
    """`stream` as trio-websocket sees it: first the `head` that was read of it, then, from `open` on, what follows.

    `aclose` ends it for trio-websocket; `finish` closes the stream. `alive_at` is when the peer last gave a sign of
    life, `signs` how many it has given: bytes that came, and those of a long message that it took. `max_message` is
    the bound of one message in bytes; `flooded` is set where far more came without any message: fragments without end.
    """

    def __init__(self, stream: trio.abc.Stream, *, send_timeout: float, max_message: int) -> None:
        self._stream = stream
        self._send_timeout = send_timeout
        self.max_message = max_message
        self._head = b""
        self._rest = b""
        self._opened = trio.Event()
        self._closed = False
        self._dead = False  # there is nobody left to be gentle with
        self._ended = False  # the peer sends nothing more
        self._receiving = trio.CancelScope()
        self._tearing = False  # a part of something is out
        self._last_sent = b""  # how it began
        self.alive_at, self.signs = trio.current_time(), 0
        self.flooded = False
        self._since, self._whole_at = 0, self.alive_at  # bytes since the last whole message, and when that came

    @property
    def sending(self) -> bool:
        """Whether something is on its way out: `send_timeout` alone judges how long that takes."""
        return self._tearing

    # -- the handshake

    async def read(self) -> bytes:
        """Return what comes next, b"" for the end. For what reads the head."""
        return await self._received(None)

    def unread(self, head: bytes, rest: bytes) -> None:
        """Have trio-websocket read `head`, and, once it is `open`, `rest`."""
        self._head, self._rest = head, rest

    def open(self) -> None:
        """Let trio-websocket read on: it loses what it reads before it has accepted."""
        self._opened.set()

    # -- for trio-websocket

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what comes next. Raises `trio.ClosedResourceError` once it is closed, also to who waits already."""
        if self._head:
            await trio.lowlevel.checkpoint()
            head, self._head = self._head, b""
            return head
        with trio.CancelScope() as self._receiving:
            if self._closed:
                raise trio.ClosedResourceError
            await self._opened.wait()
            if self._rest:
                rest, self._rest = self._rest, b""
                return rest
            return await self._received(max_bytes)
        raise trio.ClosedResourceError

    async def _received(self, max_bytes: int | None) -> bytes:
        try:
            data = bytes(await self._stream.receive_some(max_bytes))
        except trio.BrokenResourceError:
            self.abort()
            raise
        self._alive()
        if not data:
            self._ended = True
        self._since += len(data)
        if self._since > self._room():
            self.flooded = True
            raise trio.BrokenResourceError("far more has come than one message may have, and no message")
        return data

    def _alive(self) -> None:
        self.alive_at, self.signs = trio.current_time(), self.signs + 1

    def _room(self) -> float:
        """Return how much may come without a message being taken: up to two wait already when one is, and a third is
        on its way.
        """
        return 3 * self.max_message + SLACK + TRICKLE * (trio.current_time() - self._whole_at)

    def whole(self) -> None:
        """Note that a whole message has been taken."""
        self._since, self._whole_at = 0, trio.current_time()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data`. Raises `trio.BrokenResourceError` where nothing of it is taken for `send_timeout` seconds."""
        if self._closed:
            raise trio.ClosedResourceError
        await self._send(memoryview(data))

    async def _send(self, view: memoryview) -> None:
        self._tearing, self._last_sent = True, bytes(view[:1])
        for start in range(0, len(view), PIECE):
            await self._send_piece(view[start : start + PIECE])
        self._tearing = False

    async def _send_piece(self, piece: memoryview) -> None:
        began = trio.current_time()
        with trio.CancelScope(deadline=began + self._send_timeout) as scope:
            try:
                await self._stream.send_all(piece)
            except trio.BrokenResourceError:
                self.abort()
                raise
        if scope.cancelled_caught:
            self.abort()
            raise trio.BrokenResourceError(f"nothing was taken for {self._send_timeout:g} s")
        if len(piece) == PIECE or trio.current_time() > began + STUCK:  # less may only have gone into a buffer here
            self._alive()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Let nobody read or write any more."""
        self._closed = True
        self._receiving.cancel()
        await trio.lowlevel.checkpoint()

    # -- the end

    def abort(self) -> None:
        """Note that the peer is gone, or that what it was sent last is torn: nothing is worth waiting for."""
        self._dead = self._closed = True
        self._receiving.cancel()

    def reset(self) -> None:
        """Note that what it was sent last is torn, and have the peer see that, for whom an end might mean that all is
        there: the connection is reset when it is closed.
        """
        self.abort()
        inner = self._stream.transport_stream if isinstance(self._stream, trio.SSLStream) else self._stream
        if isinstance(inner, trio.SocketStream):
            inner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def say_why(self, close_frame: bytes) -> None:
        """Send a frame that closes the WebSocket, unless one was sent, or it would stand in the middle of another."""
        if not self._dead and not self._tearing and self._last_sent != close_frame[:1]:
            await self._send(memoryview(close_frame))

    async def finish(self) -> None:
        """Close the stream: at once where the peer is gone, else so that it can read what was sent. Never for long."""
        self._closed = True
        try:
            if not self._dead and not self._ended:
                with trio.move_on_after(LINGER):
                    await self._linger()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            pass  # it is over for the peer, too
        finally:
            await self._close()  # noqa: ASYNC102 - shielded, and within bounds

    async def _linger(self) -> None:
        """Say that no more comes, and let the peer finish."""
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()
        while await self._stream.receive_some():
            pass

    async def _close(self) -> None:
        with trio.CancelScope(shield=True):  # TLS says goodbye, within bounds, also where we are cancelled
            try:
                with trio.move_on_after(0.0 if self._dead else GIVE_UP):
                    await self._stream.aclose()
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                await trio.aclose_forcefully(self._stream)
