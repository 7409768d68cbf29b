"""Sockets, plain and with TLS: what a call needs of them and no more.

Closing waits for nobody, so no cancelled caller can leave one open. Of TLS's own farewell nothing is sent: an answer's
end is told by HTTP.
"""

from __future__ import annotations

import socket
import ssl
from typing import Final

import trio

__all__ = ["PIECE", "Line", "TlsLine", "connect"]

PIECE: Final = 65_536
"""Bytes that one read returns at most."""


class Line:
    """A connected socket. One task may read while another one writes.

    What is waited for raises `OSError` where the connection is broken, `trio.ClosedResourceError` where it was closed
    here. `idle_until` is when it is too old to be used, in Trio's time, while nobody uses it.
    """

    __slots__ = ("_sock", "_unsent", "closed", "idle_until")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._unsent = memoryview(b"")
        self.closed = False
        self.idle_until = 0.0

    def put(self, data: bytes) -> bool:
        """Send as much of `data` as goes at once; say whether all has gone. Only after all before it has gone."""
        return self._put(data)

    def push(self) -> bool:
        """Send as much as goes at once of what has not gone yet; say whether that is all."""
        while self._unsent:
            try:
                sent = self._sock.send(self._unsent)
            except BlockingIOError:
                return False
            self._unsent = self._unsent[sent:]
        return True

    async def writable(self) -> None:
        """Wait until something can be sent."""
        if self.closed:
            raise trio.ClosedResourceError
        await trio.lowlevel.wait_writable(self._sock)

    async def receive(self) -> bytes:
        """Wait for bytes, at most `PIECE`; none at the end."""
        while True:
            if self.closed:
                raise trio.ClosedResourceError
            await trio.lowlevel.wait_readable(self._sock)
            try:
                return self._sock.recv(PIECE)
            except BlockingIOError:
                continue  # the system was wrong about it, as it may be

    def is_quiet(self) -> bool:
        """Whether nothing has come since the last answer: neither the connection's end nor what nobody asked for."""
        try:
            self._sock.recv(1)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Close it, at once; whoever waits for it is told."""
        if not self.closed:
            self.closed = True
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    def _put(self, data: bytes) -> bool:
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return True
        self._unsent = memoryview(data)[sent:]
        return False


class TlsLine(Line):
    """One with TLS over it. `handshake` comes before all else."""

    __slots__ = ("_incoming", "_outgoing", "_tls")

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, host: str) -> None:
        super().__init__(sock)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    async def handshake(self) -> None:
        """Agree on everything. Raises `ssl.SSLError`, too: an `OSError` as the others."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._more()
            else:
                await self._flush()
                return

    def put(self, data: bytes) -> bool:
        """Encrypt `data`, and send as much of it as goes at once; say whether all has gone."""
        self._tls.write(data)
        return self._put(self._outgoing.read())

    def push(self) -> bool:
        """Send as much as goes at once of what has not gone yet; say whether that is all."""
        while super().push():
            if not self._outgoing.pending:
                return True
            self._unsent = memoryview(self._outgoing.read())
        return False

    async def receive(self) -> bytes:
        """Wait for bytes, at most one record of them; none at the end, which a server need not announce."""
        while True:  # noqa: ASYNC913 - what was deciphered already needs no wait
            try:
                return self._tls.read(PIECE)
            except ssl.SSLWantReadError:
                if self._outgoing.pending and not self._unsent:
                    await self._flush()  # an answer to what TLS itself asks; else whoever sends takes it along
                await self._more()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def is_quiet(self) -> bool:
        """Whether nothing has come since the last answer, but what TLS says on its own account."""
        try:
            data = self._sock.recv(PIECE)
            self._incoming.write(data)
            if data:
                self._tls.read(1)
        except BlockingIOError:
            return True
        except ssl.SSLWantReadError:
            return True
        except OSError:
            return False
        return False

    async def _more(self) -> None:
        data = await super().receive()
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        while not self.push():
            await self.writable()


async def connect(host: str, port: int, context: ssl.SSLContext | None) -> Line:
    """Connect to the first address of `host` that answers, with TLS where there is a `context`.

    Raises `OSError`. Cancelling closes what is open.
    """
    stream = await trio.open_tcp_stream(host, port)
    # Trio's sockets try before they wait, which costs a call that always waits more than waiting alone.
    sock = socket.socket(fileno=stream.socket.detach())
    sock.setblocking(False)
    if context is None:
        return Line(sock)
    line: TlsLine | None = None
    agreed = False
    try:
        line = TlsLine(sock, context, host)
        await line.handshake()
        agreed = True
    finally:
        if not agreed:
            sock.close() if line is None else line.close()
    return line
