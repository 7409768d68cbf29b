"""Servers on loopback that send exactly these bytes, and both transports beside each other, asked the same."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import httpx
import trio
import trio.testing
from attrs import frozen

from wizard_actors.providers.fast.reader import load_engine
from wizard_actors.providers.fast.transport import FastTransport

Make: TypeAlias = Callable[[ssl.SSLContext], httpx.AsyncBaseTransport]

PATIENCE: Final = 10.0
"""Seconds after which a call counts as hanging."""


def own(tls: ssl.SSLContext) -> httpx.AsyncBaseTransport:
    """Make httpx's transport."""
    return httpx.AsyncHTTPTransport(verify=tls, trust_env=False)


def fast(tls: ssl.SSLContext, *, idle_time: float = 60.0) -> FastTransport:
    """Make ours."""
    return FastTransport(tls, idle_time=idle_time, engine=load_engine("transport"))


@frozen
class Case:
    """What a server sends: `pieces` after it has read a request's head, one send each; then it waits for the next
    request, or, where `ends` says so, closes the connection ("close") or resets it ("reset").
    """

    name: str
    pieces: Sequence[bytes]
    ends: str = ""
    method: str = "POST"
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b"{}"


@frozen
class Outcome:
    """What came of two calls: status, headers and body of the first, or the class of its error; connections made."""

    status: int = 0
    headers: Sequence[tuple[bytes, bytes]] = ()
    body: bytes = b""
    error: type[BaseException] | None = None
    connections: int = 0


@asynccontextmanager
async def sending(case: Case, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[int]]]:
    """Yield the port of a server that answers each request by the case, and the numbers of its connections."""
    seen: list[int] = []

    async def serve(stream: trio.SocketStream) -> None:
        seen.append(len(seen))
        talk: trio.abc.Stream = stream if tls is None else trio.SSLStream(stream, tls, server_side=True)
        try:
            while await _request(talk):
                for piece in case.pieces:
                    await talk.send_all(piece)
                    await trio.lowlevel.checkpoint()
                if case.ends:
                    break
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        if case.ends == "reset":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        yield listeners[0].socket.getsockname()[1], seen
        nursery.cancel_scope.cancel()


async def _request(stream: trio.abc.Stream) -> bool:
    buffer = b""
    while b"\r\n\r\n" not in buffer:
        data = await stream.receive_some(65536)
        if not data:
            return False
        buffer += data
    head, _, body = buffer.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    missing = int(lengths[0].split(b":")[1]) - len(body) if lengths else 0
    while missing > 0:
        data = await stream.receive_some(65536)
        if not data:
            return False
        missing -= len(data)
    return True


async def ask(transport: httpx.AsyncBaseTransport, url: str, case: Case) -> Outcome:
    """Make one call, and read its answer to the end."""
    request = httpx.Request(case.method, url, headers=list(case.headers), content=case.body)
    request.extensions["timeout"] = httpx.Timeout(PATIENCE).as_dict()
    status, headers, pieces = 0, list[tuple[bytes, bytes]](), list[bytes]()
    error: type[BaseException] | None = None
    try:
        response = await transport.handle_async_request(request)
        status = response.status_code
        headers = [(name.lower(), value) for name, value in response.headers.raw]
        try:
            assert isinstance(response.stream, httpx.AsyncByteStream)
            async for piece in response.stream:
                pieces.append(piece)
        finally:
            await response.aclose()
    except httpx.HTTPError as caught:
        error = type(caught)
    return Outcome(status, tuple(headers), b"".join(pieces), error)


async def outcome(case: Case, make: Make, tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None) -> Outcome:
    """Ask twice, one after the other, and return what came of it; `tls`: the server's context and the client's."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if tls is None else tls[1]
    async with sending(case, None if tls is None else tls[0]) as (port, seen), make(trusting) as transport:
        url = f"http://127.0.0.1:{port}/v1" if tls is None else f"https://localhost:{port}/v1"
        first = await ask(transport, url, case)
        await trio.testing.wait_all_tasks_blocked(0.002)  # the connection's end arrives, where it has one
        await ask(transport, url, case)
        return Outcome(first.status, first.headers, first.body, first.error, len(seen))
