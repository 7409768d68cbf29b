"""What the WebSocket endpoint holds up under load.

    python -m benchmarks.websocket

A server in a process of its own, real sockets on 127.0.0.1, models that answer at once:

- **a stalled reader**: 50 connections stream; then one more has an endless stream open, and reads nothing of it. How
  long the others wait for the first event of a stream, with and without it, in rounds that take turns; and the server's
  memory meanwhile.
- **many**: 1,000 connections and 5,000 requests. All are answered; how long that takes, and the memory of a connection.
- **gone**: a client's connection is reset in the middle of a stream. How long the call to its model goes on.
"""

from __future__ import annotations

import resource
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

import msgspec
import trio
from attrs import field, frozen

from tests.loopback import Wire, chunk, response, serving
from tests.server.peer import Peer
from wizard_actors import WizardConfig
from wizard_actors.config import ModelConfig, RetryConfig, RouteConfig, ServerConfig, SessionsConfig, SimulatedConfig
from wizard_actors.server.access import Access
from wizard_actors.server.limits import Limits
from wizard_actors.server.service import Service
from wizard_actors.server.websocket import WebSocketEndpoint
from wizard_actors.trio_client import TrioClient

__all__ = ["Gone", "Many", "Stalled", "Target", "measure_gone", "measure_many", "measure_stalled", "started"]

FILLING: Final = 2.0
"""Seconds in which the buffers of a connection that nobody reads are full."""

SSE: Final = {"content-type": "text/event-stream"}

PACED: Final = SimulatedConfig(answer="a b c d e f g h", first_token=0.0, per_chunk=0.02)
AT_ONCE: Final = SimulatedConfig(answer="Because.", first_token=0.0, per_chunk=0.0)


def config(upstream: str) -> WizardConfig:
    """Return the configuration of the server; `upstream` is the base URL of the model "remote"."""
    models = [
        ModelConfig(name="quick", provider="simulated", max_concurrency=200, simulated=AT_ONCE),
        ModelConfig(name="paced", provider="simulated", max_concurrency=2000, simulated=PACED),
        ModelConfig(name="remote", provider="openai", base_url=upstream, retry=RetryConfig(max_attempts=1)),
    ]
    return WizardConfig(
        models=models,
        fallback=RouteConfig(name="wizard", chain=["quick"]),
        server=ServerConfig(max_in_flight=10_000, max_per_key=10_000, send_timeout=600.0),
        sessions=SessionsConfig(storage="memory:"),
    )


async def serve(upstream: str) -> None:
    """Serve on a free port of 127.0.0.1, which is printed, until standard input ends."""
    async with TrioClient.open(config(upstream)) as client, trio.open_nursery() as nursery:
        endpoint = WebSocketEndpoint(Service(client, Access(None), Limits(client.supervisor)))
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=2048)
        nursery.start_soon(trio.serve_listeners, endpoint.handle, [listener])
        sys.stdout.write(f"{listener.socket.getsockname()[1]}\n")
        sys.stdout.flush()
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


# -- the server, from outside ------------------------------------------------------------------------


@frozen
class Target:
    """A server that is under load."""

    port: int
    pid: int

    @property
    def rss(self) -> int:
        """Bytes of memory that its process has."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    async def connect(self, *, small: bool = False) -> Connection:
        """Return a new connection; `small`: it takes as little as a socket can that it has not read."""
        sock = trio.socket.socket()
        if small:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await sock.connect(("127.0.0.1", self.port))
        connection = Connection(trio.SocketStream(sock))
        await connection.peer.greet()
        return connection


@asynccontextmanager
async def started(upstream: str = "http://127.0.0.1:9/v1") -> AsyncIterator[Target]:
    """Start a server in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.websocket", "serve", upstream]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        port = int(await process.stdout.receive_some())
        yield Target(port, process.pid)
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            for end in (process.stdin, process.stdout):
                if end is not None:
                    await end.aclose()


@frozen
class Connection:
    """One client's connection."""

    stream: trio.SocketStream
    peer: Peer = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "peer", Peer(self.stream))

    async def ask(self, number: int, method: str, **params: object) -> None:
        """Send a request."""
        await self.peer.say({"jsonrpc": "2.0", "id": number, "method": method, "params": params})

    def reset(self) -> None:
        """Be gone, without a word."""
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.socket.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await trio.aclose_forcefully(self.stream)


# -- a stalled reader --------------------------------------------------------------------------------


@frozen
class Stalled:
    """Seconds until the first event of each stream, in rounds `without` a stalled reader and `beside` one.

    And the bytes that the server's process grew by, at most: since before the stream was asked for that nobody reads,
    `filled`, and since it stalled, `grown`.
    """

    without: Sequence[Sequence[float]]
    beside: Sequence[Sequence[float]]
    filled: int
    grown: int

    @property
    def moved(self) -> float:
        """How much larger the p99 was beside one, as a share."""
        return p99(self.beside) / p99(self.without) - 1


def p50(rounds: Sequence[Sequence[float]]) -> float:
    """Return the median of the rounds' medians."""
    return statistics.median(map(statistics.median, rounds))


def p99(rounds: Sequence[Sequence[float]]) -> float:
    """Return the median of the rounds' 99th percentiles: when the machine does something else it spoils one of them."""
    return statistics.median(statistics.quantiles(samples, n=100)[98] for samples in rounds)


def piece(text: str) -> bytes:
    """Return an event of a model's stream with some more text."""
    data = {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]}
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


async def endless(wire: Wire) -> None:
    """Answer as a model that goes on for as long as anybody takes it."""
    if await wire.request() is None:
        return
    await wire.send(response(200, SSE, cut=True))
    large = chunk(piece("x" * 2000))
    while True:
        await wire.send(large)


async def measure_stalled(*, rounds: int, seconds: float, connections: int = 50) -> Stalled:
    """Measure `rounds` pairs of rounds, of so many seconds each."""
    without: list[list[float]] = []
    beside: list[list[float]] = []
    filled = grown = 0
    async with serving(endless) as base_url, started(base_url) as target:
        everybody = [await target.connect() for _ in range(connections)]
        await _streaming(everybody, 1.0)  # so that all is loaded, and warm
        for _ in range(rounds):
            without.append(await _streaming(everybody, seconds))
            empty = target.rss
            async with await target.connect(small=True) as stalled:
                await stalled.ask(1, "stream", prompt="x", model="remote", credit=65_536)
                await trio.sleep(FILLING)
                full = target.rss
                beside.append(await _streaming(everybody, seconds))
                filled, grown = max(filled, target.rss - empty), max(grown, target.rss - full)
            await trio.sleep(0.2)
        for connection in everybody:
            await connection.__aexit__()
    return Stalled(without, beside, filled, grown)


async def _streaming(everybody: Sequence[Connection], seconds: float) -> list[float]:
    """Have each connection stream, again and again, at its own times; return how long each first event took."""
    samples: list[float] = []
    end = trio.current_time() + seconds

    async def one(connection: Connection, offset: float) -> None:
        await trio.sleep(offset)
        number = 0
        while trio.current_time() < end:
            number += 1
            began = time.perf_counter()
            await connection.ask(number, "stream", prompt="x", model="paced")
            await connection.peer.hear()
            samples.append(time.perf_counter() - began)
            while "result" not in await connection.peer.hear():
                pass
            await trio.sleep(0.2)

    async with trio.open_nursery() as nursery:
        for index, connection in enumerate(everybody):
            nursery.start_soon(one, connection, 0.3 * index / len(everybody))
    return samples


# -- many --------------------------------------------------------------------------------------------


@frozen
class Many:
    """What became of many requests on many connections."""

    connections: int
    answered: int
    connecting: float
    asking: float
    bytes_a_connection: float


async def measure_many(target: Target, *, connections: int, requests: int) -> Many:
    """Open so many connections, and send so many requests over them, all at once."""
    async with await target.connect() as first:  # so that all is loaded
        await first.ask(1, "generate", prompt="x")
        await first.peer.hear()
    before, began = target.rss, time.perf_counter()
    everybody = await _connected(target, connections)
    connected = time.perf_counter()
    size = target.rss - before
    answered = 0

    async def one(connection: Connection, count: int) -> None:
        nonlocal answered
        for number in range(count):
            await connection.ask(number, "generate", prompt="x")
        left = set(range(count))
        while left:
            message = await connection.peer.hear()
            if "result" in message and message["id"] in left:
                answered += 1
            left.discard(int(str(message["id"])))

    async with trio.open_nursery() as nursery:
        for index, connection in enumerate(everybody):
            nursery.start_soon(one, connection, requests // connections + (index < requests % connections))
    asking = time.perf_counter() - connected
    for connection in everybody:
        await connection.__aexit__()
    return Many(connections, answered, connected - began, asking, size / connections)


async def _connected(target: Target, count: int) -> list[Connection]:
    """Return so many connections, opened 50 at a time."""
    everybody: list[Connection] = []
    room = trio.CapacityLimiter(50)

    async def one() -> None:
        async with room:
            everybody.append(await target.connect())

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    return everybody


# -- gone --------------------------------------------------------------------------------------------


@frozen
class Gone:
    """Seconds from the reset of a client's connection to the end of its call, as its model saw it."""

    seconds: Sequence[float]


async def measure_gone(*, rounds: int) -> Gone:
    """Measure so many clients, one after the other, against a model of our own."""
    ended, ends = trio.open_memory_channel[float](1)

    async def upstream(wire: Wire) -> None:
        if await wire.request() is None:
            return
        await wire.send(response(200, SSE, [piece("word ")], cut=True))
        try:
            with trio.move_on_after(30.0):
                while True:
                    await wire.send(chunk(piece("word ")))
                    with trio.move_on_after(0.05) as waiting:
                        await wire.gone()
                    if not waiting.cancelled_caught:
                        return
        except trio.BrokenResourceError:
            return
        finally:
            ended.send_nowait(time.perf_counter())

    seconds: list[float] = []
    async with serving(upstream) as base_url, started(base_url) as target:
        for _ in range(rounds):
            connection = await target.connect()
            await connection.ask(1, "stream", prompt="x", model="remote")
            await connection.peer.hear()
            await trio.sleep(0.1)
            began = time.perf_counter()
            connection.reset()
            seconds.append(await ends.receive() - began)
    return Gone(seconds)


# -- the program -------------------------------------------------------------------------------------


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main() -> None:
    """Print the figures."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    stalled = await measure_stalled(rounds=12, seconds=4.0)
    for name, rounds in (("without", stalled.without), ("beside", stalled.beside)):
        count, typical, late = sum(map(len, rounds)), p50(rounds) * 1e3, p99(rounds) * 1e3
        say(f"{name:<8} a stalled reader: p50 {typical:.1f} ms, p99 {late:.1f} ms, {count:,} streams in all")
    say(f"p99 moved by {stalled.moved:+.1%}")
    say(f"memory: {stalled.filled / 2**20:.1f} MiB for what was on its way, {stalled.grown / 2**20:.1f} MiB later")
    async with started() as target:
        many = await measure_many(target, connections=1_000, requests=5_000)
    say(f"{many.connections:,} connections in {many.connecting:.1f} s, {many.bytes_a_connection / 1024:.0f} KiB each")
    say(f"{many.answered:,} requests answered in {many.asking:.1f} s")
    gone = await measure_gone(rounds=20)
    median = statistics.median(gone.seconds)
    say(f"gone: the call to the model ended within {median * 1e3:.1f} ms, at most {max(gone.seconds) * 1e3:.1f} ms")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        trio.run(serve, sys.argv[2])
    else:
        trio.run(main)
