"""The real endpoint on loopback sockets: in this run of Trio, or in a thread of its own for other event loops."""

import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio

from tests.models import Scripted, client_of, says
from tests.server.wire import key
from wizard_actors import ResilientClient, WizardConfig
from wizard_actors.server.access import Access
from wizard_actors.server.key_settings import KeysConfig
from wizard_actors.server.limits import Limits
from wizard_actors.server.service import Service
from wizard_actors.server.websocket import WebSocketEndpoint

__all__ = ["in_a_thread", "listening"]


@asynccontextmanager
async def listening(tls: ssl.SSLContext | None = None, *, config: WizardConfig | None = None) -> AsyncIterator[int]:
    """Serve a client of `config` to everybody, or one that says "Because." to the key wz_alice; yield the port."""
    opened = client_of(Scripted(says("Because."))) if config is None else ResilientClient.open(config)
    keys = KeysConfig(keys=[key("alice")]) if config is None else None
    async with opened as client, trio.open_nursery() as nursery:
        limits = Limits(client.supervisor)
        await limits.prepare(keys)
        endpoint = WebSocketEndpoint(Service(client._inside, Access(keys), limits))
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def serve(stream: trio.SocketStream) -> None:
            if tls is None:
                await endpoint.handle(stream)
            else:
                await endpoint.handle(trio.SSLStream(stream, tls, server_side=True, https_compatible=True))

        await nursery.start(trio.serve_listeners, serve, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@contextmanager
def in_a_thread(*, config: WizardConfig | None = None) -> Iterator[int]:
    """Serve as `listening` does, from another thread, for as long as the block lasts; yield the port."""
    ports: list[int] = []
    stops: list[tuple[trio.lowlevel.TrioToken, trio.Event]] = []
    ready = threading.Event()

    async def main() -> None:
        async with listening(config=config) as port:
            stop = trio.Event()
            ports.append(port)
            stops.append((trio.lowlevel.current_trio_token(), stop))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    try:
        assert ready.wait(10)
        yield ports[0]
    finally:
        for token, stop in stops:
            token.run_sync_soon(stop.set)
        thread.join(10)
