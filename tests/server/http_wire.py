"""A client that speaks plain HTTP/1.1, and a server for it: in memory and virtual time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import h11
import trio
from attrs import define, field, frozen
from trio.testing import memory_stream_pair

from tests.models import client_of
from wizard_actors import ResilientClient
from wizard_actors.server.access import Access
from wizard_actors.server.http import HttpEndpoint
from wizard_actors.server.key_settings import KeyConfig, KeysConfig
from wizard_actors.server.limits import Limits
from wizard_actors.server.service import Service

__all__ = ["Hanging", "HttpWire", "Reply", "Served", "served"]


@frozen
class Reply:
    """A whole response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - any JSON value
        """The body, read."""
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of a body of server-sent events: JSON, but for what is none."""
        datas = [line[6:] for line in self.body.decode().splitlines() if line.startswith("data: ")]
        return [data if data == "[DONE]" else json.loads(data) for data in datas]


@define(eq=False)
class HttpWire:
    """A client's end of one connection."""

    stream: trio.abc.HalfCloseableStream
    http: h11.Connection = field(factory=lambda: h11.Connection(h11.CLIENT))

    async def send(self, method: str, path: str, body: object = None, **headers: str) -> None:
        """Send a request; a body that is no bytes goes as JSON, and `_` in headers' names stands for `-`."""
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {"host": "127.0.0.1", **{name.replace("_", "-"): value for name, value in headers.items()}}
        if body is not None and "transfer-encoding" not in named:
            named.setdefault("content-length", str(len(data)))
        sent = self.http.send(h11.Request(method=method, target=path, headers=list(named.items())))
        await self.stream.send_all((sent or b"") + (self.http.send(h11.Data(data=data)) or b"" if data else b""))
        await self.stream.send_all(self.http.send(h11.EndOfMessage()) or b"")

    async def next(self) -> h11.Response | h11.InformationalResponse | h11.Data | h11.EndOfMessage | None:
        """Return what comes next; None where the server has closed the connection."""
        while True:  # noqa: ASYNC913 - it returns, or reads
            event = self.http.next_event()
            if event is h11.NEED_DATA:
                self.http.receive_data(bytes(await self.stream.receive_some()))
            elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                return None
            else:
                assert not isinstance(event, type), event
                return event  # type: ignore[return-value]  # what is left is what a client can receive

    async def head(self) -> tuple[int, dict[str, str]]:
        """Return status and headers of the response that comes."""
        event = await self.next()
        assert isinstance(event, h11.Response), event
        return event.status_code, {name.decode(): value.decode() for name, value in event.headers}

    async def piece(self) -> bytes | None:
        """Return some more of the body; None at its end."""
        event = await self.next()
        assert isinstance(event, h11.Data | h11.EndOfMessage), event
        return bytes(event.data) if isinstance(event, h11.Data) else None

    async def reply(self) -> Reply:
        """Return the whole response that comes."""
        status, headers = await self.head()
        body = b""
        while (piece := await self.piece()) is not None:
            body += piece
        return Reply(status, headers, body)

    async def ask(self, method: str, path: str, body: object = None, **headers: str) -> Reply:
        """Send a request and return its response; the connection can be used again, where the server lets it."""
        await self.send(method, path, body, **headers)
        reply = await self.reply()
        if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
        return reply

    async def chat(self, text: str = "Why?", model: str = "wizard", **more: object) -> Reply:
        """Ask as OpenAI's clients do."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
        return await self.ask("POST", "/v1/chat/completions", body)

    async def closed(self) -> bool:
        """Wait until the server closes the connection; return whether it did so without another word."""
        try:
            return await self.next() is None
        except (trio.BrokenResourceError, h11.RemoteProtocolError):
            return True


class Hanging(trio.abc.HalfCloseableStream):
    """A server's end of a connection whose peer takes nothing while `stuck`."""

    def __init__(self, inner: trio.abc.HalfCloseableStream) -> None:
        self._inner = inner
        self.stuck = False
        self.hangs = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.stuck:
            self.hangs.set()
            await trio.sleep_forever()
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._inner.receive_some(max_bytes)

    async def send_eof(self) -> None:
        await self._inner.send_eof()

    async def aclose(self) -> None:
        await self._inner.aclose()


@define(eq=False)
class Served:
    """A server in memory: each `connect` is a connection to it."""

    client: ResilientClient
    service: Service
    endpoint: HttpEndpoint
    nursery: trio.Nursery
    ends: list[Hanging] = field(factory=list)
    """The server's ends of the connections, the latest last."""

    def connect(self) -> HttpWire:
        """Return a new connection."""
        ours, theirs = memory_stream_pair()
        self.ends.append(Hanging(theirs))
        self.nursery.start_soon(self.endpoint.handle, self.ends[-1])
        return HttpWire(ours)

    def drain(self) -> None:
        """Begin to stop, as a server does."""
        self.service.draining.set()
        self.endpoint.close_idle()


@asynccontextmanager
async def served(*given: Any, keys: Sequence[KeyConfig] | None = None, **settings: Any) -> AsyncIterator[Served]:  # noqa: ANN401 - those of `client_of`
    """Serve a client of `client_of(*given, **settings)`; with `keys`, for their holders alone."""
    config = None if keys is None else KeysConfig(keys=tuple(keys))
    async with client_of(*given, **settings) as client, trio.open_nursery() as nursery:
        limits = Limits(client.supervisor)
        await limits.prepare(config)
        service = Service(client._inside, Access(config), limits)
        yield Served(client, service, HttpEndpoint(service), nursery)
        nursery.cancel_scope.cancel()
