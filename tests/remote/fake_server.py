"""A server that does what a test's script says, over streams in memory, in virtual time; and a client of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import Any, TypeAlias

import trio
from attrs import define, field
from trio.testing import MemorySendStream, memory_stream_pair
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, wrap_server_stream
from wsproto.utilities import LocalProtocolError

from wizard_actors.client import ClientBlock
from wizard_actors.embed.place import Place
from wizard_actors.remote import RemoteClient
from wizard_actors.remote.address import Address
from wizard_actors.remote.trio_remote import TrioRemote

__all__ = ["ANSWER", "FakeServer", "Peer", "Plain", "answering", "client_of", "in_progress", "open_connections"]

Plain: TypeAlias = dict[str, Any]

ANSWER: Plain = {"text": "Because.", "model": "m", "usage": None, "cost": None, "finish_reason": "stop"}


@define(eq=False)
class Peer:
    """The server's end of connection `number`; frames are objects here. `heard` are all that came."""

    number: int
    socket: WebSocketConnection
    stream: trio.abc.Stream
    heard: list[Plain] = field(factory=list)

    async def hear(self, method: str | None = None) -> Plain:
        """Return the next frame that comes, or the next one of that method."""
        while True:
            frame: Plain = json.loads(await self.socket.get_message())
            self.heard.append(frame)
            if method in {None, frame["method"]}:
                return frame

    async def say(self, frame: object) -> None:
        """Send a frame: a text as it is."""
        await self.socket.send_message(frame if isinstance(frame, str) else json.dumps(frame))

    async def answer(self, request: Plain | str | None, result: object = None) -> None:
        """Send the response to a request."""
        number = request["id"] if isinstance(request, dict) else request
        await self.say({"jsonrpc": "2.0", "id": number, "result": ANSWER if result is None else result})

    async def refuse(self, request: Plain | None, code: str, number: int = -32000, **facts: object) -> None:
        """Send an error as the response to a request."""
        data = {"code": code, "message": f"it is {code}", **facts}
        error = {"code": number, "message": data["message"], "data": data}
        await self.say({"jsonrpc": "2.0", "id": None if request is None else request["id"], "error": error})

    async def event(self, request: Plain, text: str) -> None:
        """Send an event of a stream."""
        await self.notify("event", id=request["id"], event={"type": "text", "text": text})

    async def notify(self, method: str, **params: object) -> None:
        """Send a notification."""
        await self.say({"jsonrpc": "2.0", "method": method, "params": params})

    async def cut(self) -> None:
        """Break the connection off without a word."""
        await trio.aclose_forcefully(self.stream)


Script: TypeAlias = Callable[[Peer], Awaitable[None]]
Greeting: TypeAlias = Callable[[WebSocketRequest], Awaitable[WebSocketConnection | None]]


async def accept(request: WebSocketRequest) -> WebSocketConnection | None:
    """Let everybody in."""
    return await request.accept(subprotocol="wizard.v1")


@define(eq=False)
class FakeServer:
    """Runs `script` for each connection, which is closed at its end. `peers` are all connections that there were.

    `greet` lets clients in, or does not.
    """

    nursery: trio.Nursery
    script: Script
    greet: Greeting = accept
    peers: list[Peer] = field(factory=list)
    dials: int = 0
    open: int = 0
    sends: list[MemorySendStream] = field(factory=list)

    def slow_down(self, wait: Callable[[], Awaitable[object]]) -> None:
        """Take each piece of what the client sends over its latest connection only after `wait`."""
        stream = self.sends[-1]
        take = stream.send_all_hook
        assert take is not None

        async def hook() -> None:
            await wait()
            await take()

        stream.send_all_hook = hook

    async def connect(self) -> trio.abc.Stream:
        """Return a client's end of a new connection."""
        await trio.lowlevel.checkpoint()
        self.dials += 1
        ours, theirs = memory_stream_pair()
        self.sends.append(ours.send_stream)
        self.nursery.start_soon(self._serve, self.dials, theirs)
        return ours

    async def _serve(self, number: int, stream: trio.abc.Stream) -> None:
        self.open += 1
        try:
            async with trio.open_nursery() as nursery:
                request = await wrap_server_stream(nursery, stream, max_message_size=2**30)
                socket = await self.greet(request)
                if socket is not None:
                    self.peers.append(Peer(number, socket, stream))
                    await self.script(self.peers[-1])
                    await socket.aclose()
                nursery.cancel_scope.cancel()
        except* (ConnectionClosed, LocalProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.open -= 1
            await trio.aclose_forcefully(stream)


async def answering(peer: Peer) -> None:
    """Answer everything."""
    while True:
        frame = await peer.hear()
        if "id" in frame:
            await peer.answer(frame)


@asynccontextmanager
async def client_of(
    script: Script = answering,
    *,
    greet: Greeting = accept,
    **settings: Any,  # noqa: ANN401 - handed on as it is
) -> AsyncIterator[tuple[RemoteClient, FakeServer]]:
    """Open a client of a server that follows `script`."""
    async with trio.open_nursery() as nursery:
        server = FakeServer(nursery, script, greet)
        opening = partial(
            TrioRemote.open, lambda: Address("wizard", 8000), connect=server.connect, rng=Random(0), **settings
        )
        async with ClientBlock(RemoteClient, opening, Place("", 0)) as client:
            yield client, server
        nursery.cancel_scope.cancel()


def open_connections(client: RemoteClient) -> int:
    """Return how many connections a client has, those that drain included."""
    return len(client._inside.link._open)


def in_progress(client: RemoteClient) -> int:
    """Return how many requests of a client are in progress."""
    return sum(len(connection._requests) for connection in client._inside.link._open)
