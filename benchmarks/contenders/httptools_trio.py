"""httptools on a stream of Trio: the floor, below which no client in Python gets. It knows no errors."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from _harness import Bench, importing, main

with importing():
    import httptools
    import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Connection:
    """One connection, for one call at a time."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._parts: list[bytes] = []
        self._done = False

    async def ask(self, request: bytes) -> list[bytes]:
        """Send a request, and return the pieces of the answer's body as they came."""
        self._parts, self._done = [], False
        parser = httptools.HttpResponseParser(self)
        await self._stream.send_all(request)
        while not self._done:
            data = await self._stream.receive_some(65_536)
            if not data:
                raise ConnectionError("the upstream hung up")
            parser.feed_data(data)
        return self._parts

    def on_body(self, body: bytes) -> None:
        """Keep a piece."""
        self._parts.append(body)

    def on_message_complete(self) -> None:
        """Note the end."""
        self._done = True

    async def aclose(self) -> None:
        """Close it."""
        await self._stream.aclose()


class Client:
    """Connections, the last one used first."""

    def __init__(self, upstream: str) -> None:
        self._host = urlsplit(upstream)
        self._idle: list[Connection] = []

    def request(self, *, stream: bool = False) -> bytes:
        """Return the bytes of a request."""
        asked: dict[str, object] = {"model": "mock-1", "messages": [{"role": "user", "content": "Go."}]}
        content = json.dumps(asked | {"stream": True} if stream else asked).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {self._host.netloc}\r\ncontent-type: application/json\r\n"
        return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content

    async def ask(self, *, stream: bool = False) -> list[bytes]:
        """Return the pieces of an answer's body."""
        if self._idle:
            connection = self._idle.pop()
        else:
            connection = Connection(await trio.open_tcp_stream(self._host.hostname or "", self._host.port or 80))
        parts = await connection.ask(self.request(stream=stream))
        self._idle.append(connection)
        return parts

    async def text(self) -> str:
        """Return the text of one answer."""
        answer = json.loads(b"".join(await self.ask()))
        return str(answer["choices"][0]["message"]["content"])

    async def streamed(self) -> str:
        """Return the text of one streamed answer, each event of it parsed."""
        texts = []
        for event in b"".join(await self.ask(stream=True)).split(b"\n\n"):
            if event.startswith(b"data: {"):
                texts += [choice["delta"].get("content") for choice in json.loads(event[6:])["choices"]]
        return "".join(text for text in texts if text)

    async def aclose(self) -> None:
        """Close all connections."""
        for connection in self._idle:
            await connection.aclose()


@asynccontextmanager
async def client_of(bench: Bench) -> AsyncIterator[Client]:
    """Yield a client, and close it."""
    client = Client(bench.upstream)
    try:
        yield client
    finally:
        with trio.CancelScope(shield=True):
            await client.aclose()


def call(bench: Bench) -> None:
    """One after another."""

    async def run() -> None:
        async with client_of(bench) as client:
            bench.same(await client.text())
            await bench.sequential(client.text)

    trio.run(run)


def crowd(bench: Bench) -> None:
    """Many at once."""

    async def run() -> None:
        async with client_of(bench) as client:
            bench.same(await client.text())
            await bench.trio_crowd(client.text)

    trio.run(run)


def stream(bench: Bench) -> None:
    """A stream."""

    async def run() -> None:
        async with client_of(bench) as client:
            bench.same(await client.streamed())
            await bench.sequential(client.streamed)

    trio.run(run)


if __name__ == "__main__":
    main({"call": call, "crowd": crowd, "stream": stream}, "httptools", "trio")
