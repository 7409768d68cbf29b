"""A client that speaks the wire's own frames, and a server for it: in memory and virtual time, or over sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import trio
from attrs import define, field
from trio.testing import memory_stream_pair
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from tests.models import client_of
from wizard_actors import ResilientClient
from wizard_actors.server.access import Access
from wizard_actors.server.key_settings import KeyConfig, KeysConfig
from wizard_actors.server.keys_file import hash_of
from wizard_actors.server.limits import Limits
from wizard_actors.server.service import Service
from wizard_actors.server.websocket import WebSocketEndpoint

__all__ = ["Served", "Stuck", "Wire", "key", "served"]

Plain: TypeAlias = dict[str, Any]


def key(name: str, secret: str | None = None, **settings: Any) -> KeyConfig:  # noqa: ANN401 - the settings of a key
    """Return a key's settings; its secret is "wz_NAME" where none is given."""
    return KeyConfig(name=name, hash=hash_of(secret or f"wz_{name}"), **settings)


@define(eq=False)
class Wire:
    """A client's end of one connection; frames are objects here. `seen` came while others were awaited."""

    socket: WebSocketConnection
    stream: trio.abc.Stream
    seen: list[Plain] = field(factory=list)
    numbers: int = 0

    async def ask(self, method: str, **params: object) -> str:
        """Send a request, and return its id."""
        self.numbers += 1
        number = f"r{self.numbers}"
        await self.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        return number

    async def tell(self, method: str, **params: object) -> None:
        """Send a notification."""
        await self.send({"jsonrpc": "2.0", "method": method, "params": params})

    async def send(self, frame: object) -> None:
        """Send anything as a frame: a text as it is."""
        await self.socket.send_message(frame if isinstance(frame, str | bytes) else json.dumps(frame))

    async def next(self) -> Plain:
        """Return the next frame that comes."""
        if self.seen:
            return self.seen.pop(0)
        return await self._read()

    async def _read(self) -> Plain:
        frame: Plain = json.loads(await self.socket.get_message())
        assert frame["jsonrpc"] == "2.0"
        return frame

    async def response(self, request: str | int | None) -> Plain:
        """Return the response to a request, whole; other frames stay to be read."""
        for frame in self.seen:
            if "method" not in frame and frame["id"] == request:
                self.seen.remove(frame)
                return frame
        while True:
            frame = await self._read()
            if "method" not in frame and frame["id"] == request:
                return frame
            self.seen.append(frame)

    async def call(self, method: str, **params: object) -> Any:  # noqa: ANN401 - any JSON value
        """Return what a request comes to; an error of it is an error of the test."""
        response = await self.response(await self.ask(method, **params))
        assert "error" not in response, response
        return response["result"]

    async def failure(self, method: str, **params: object) -> Plain:
        """Return the error that a request comes to."""
        error: Plain = (await self.response(await self.ask(method, **params)))["error"]
        return error

    def notifications(self, method: str) -> list[Plain]:
        """Take the notifications that came meanwhile, and return their parameters."""
        found = [frame for frame in self.seen if frame.get("method") == method]
        self.seen = [frame for frame in self.seen if frame not in found]
        return [frame["params"] for frame in found]

    async def closed(self) -> tuple[int, str]:
        """Wait until the server closes the connection, and return its code and reason; what comes before is seen."""
        try:
            while True:
                self.seen.append(await self._read())
        except ConnectionClosed as closed:
            return (0, "") if closed.reason is None else (closed.reason.code, closed.reason.reason or "")


class Stuck(trio.abc.HalfCloseableStream):
    """A server's end of a connection, through which nothing goes out unless it is `taking`."""

    def __init__(self, peer: trio.abc.HalfCloseableStream, inner: trio.abc.HalfCloseableStream) -> None:
        self.peer, self._inner = peer, inner
        self.taking, self.closed = True, False
        self.taken = trio.Event()
        self.torn = False

    def take(self) -> None:
        """Let everything through from now on."""
        self.taking = True
        self.taken.set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if not self.taking:
            await self._inner.send_all(data[: len(data) // 2])  # the rest follows, or the frame is torn
            self.torn = True
            await self.taken.wait()
            self.torn = False
            await self._inner.send_all(data[len(data) // 2 :])
            return
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._inner.receive_some(max_bytes)

    async def send_eof(self) -> None:
        await self._inner.send_eof()

    async def aclose(self) -> None:
        self.closed = True
        await self._inner.aclose()


@define(eq=False)
class Served:
    """A server of one client, in this run of Trio."""

    client: ResilientClient
    service: Service
    endpoint: WebSocketEndpoint
    nursery: trio.Nursery

    def raw(self) -> trio.StapledStream[Any, Any]:
        """Return a client's end of a connection on which nothing has been sent."""
        ours, theirs = memory_stream_pair()
        self.nursery.start_soon(self.endpoint.handle, theirs)
        return ours

    async def connect(
        self,
        stream: trio.abc.Stream | None = None,
        *,
        bearer: str | None = None,
        origin: str | None = None,
        subprotocols: Sequence[str] = ("wizard.v1",),
        queue: int = 10_000,
    ) -> Wire:
        """Return a connection, its handshake done. Raises `ConnectionRejected`."""
        stream = stream or self.raw()
        headers: Mapping[str, str | None] = {
            "Authorization": None if bearer is None else f"Bearer {bearer}",
            "Origin": origin,
        }
        socket = await wrap_client_stream(
            self.nursery,
            stream,  # type: ignore[arg-type]  # any stream does
            "localhost",
            "/",
            subprotocols=subprotocols,
            extra_headers=[(name.encode(), value.encode()) for name, value in headers.items() if value is not None],
            message_queue_size=queue,
            max_message_size=2**30,
        )
        return Wire(socket, stream)

    @property
    def idle(self) -> bool:
        """Whether nothing is in progress, and nothing granted."""
        return self.service.admission.in_progress == 0 and self.client.supervisor.outstanding == {}


@asynccontextmanager
async def served(*args: Any, keys: Sequence[KeyConfig] | None = None, **settings: Any) -> AsyncIterator[Served]:  # noqa: ANN401 - as `client_of` takes them
    """Serve a client, made as `client_of` makes it, to everybody, or to the holders of `keys`."""
    async with client_of(*args, **settings) as client, trio.open_nursery() as nursery:
        limits, held = Limits(client.supervisor), None if keys is None else KeysConfig(keys=keys)
        await limits.prepare(held)
        service = Service(client._inside, Access(held), limits)
        yield Served(client, service, WebSocketEndpoint(service), nursery)
        nursery.cancel_scope.cancel()
