"""What the WebSocket endpoint holds up under load.

    python -m benchmarks.websocket

A server in a process of its own, real sockets on 127.0.0.1, models that answer at once:

- **a stalled reader**: 50 connections stream, and one more has an endless stream open of which it reads nothing. How
  long the others wait for the first event of a stream beside it, and beside one that only is connected; the latter
  twice, so that it is known how far two figures of one thing are apart. The three take turns, in another order each
  round, with the same streams at the same times. And the server's memory meanwhile, and what the stalled one costs it.
- **many**: 1,000 connections and 5,000 requests. All are answered; how long that takes, and the memory of a connection.
- **gone**: a client's connection is reset in the middle of a stream. How long the call to its model goes on.
"""

from __future__ import annotations

import gc
import random
import resource
import socket
import statistics
import struct
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, Self, TypeAlias

import msgspec
import trio
from attrs import field, frozen

from benchmarks.served import Process, served
from tests.loopback import Wire, chunk, response, serving
from tests.server.peer import Peer

__all__ = ["Gone", "Many", "Stalled", "Target", "measure_gone", "measure_many", "measure_stalled", "started"]

FILLING: Final = 1.0
"""Seconds in which the buffers of a connection that nobody reads are full."""

EVERY: Final = 0.6
"""Seconds from a connection's stream to its next, more or less: one takes 0.16."""

SSE: Final = {"content-type": "text/event-stream"}

CONFIG: Final = """
[[models]]
name = "quick"
provider = "simulated"
max_concurrency = 200
simulated = {{ answer = "Because.", first_token = 0, per_chunk = 0 }}

[[models]]
name = "paced"
provider = "simulated"
max_concurrency = 2000
simulated = {{ answer = "a b c d e f g h", first_token = 0, per_chunk = 0.02 }}

[[models]]
name = "remote"
provider = "openai"
base_url = "{upstream}"
api_key_env = "BENCHMARK_KEY"
retry = {{ max_attempts = 1 }}

[fallback]
chain = ["quick"]

[server]
websocket = "127.0.0.1:0"
max_in_flight = 10_000
max_per_key = 10_000
send_timeout = 600

[sessions]
storage = "memory:"

[logging]
level = "ERROR"
"""
"""What is served; `upstream` is the base URL of the model "remote"."""


# -- the server, from outside ------------------------------------------------------------------------


@frozen
class Target:
    """A server that is under load."""

    process: Process

    async def connect(self, *, small: bool = False) -> Connection:
        """Return a new connection; `small`: it takes as little as a socket can that it has not read."""
        sock = trio.socket.socket()
        if small:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await sock.connect(("127.0.0.1", self.process.port))
        connection = Connection(trio.SocketStream(sock))
        await connection.peer.greet()
        return connection


@asynccontextmanager
async def started(upstream: str = "http://127.0.0.1:9/v1") -> AsyncIterator[Target]:
    """Start `wizard serve`, in a process of its own."""
    async with served(CONFIG.format(upstream=upstream), "ws", BENCHMARK_KEY="x") as process:
        yield Target(process)


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


Samples: TypeAlias = Sequence[float]
"""Seconds until the first event of each stream of a round."""


@frozen
class Stalled:
    """The rounds beside a connection that asks for nothing, twice, and beside one that has `stalled`.

    And the bytes that the server's process grew by, at most: since before the stream was asked for that nobody reads,
    `filled`, and since it stalled, `grown`; and the seconds of its processor that a stalled one took in `FILLING`.
    """

    idle: Sequence[Samples]
    again: Sequence[Samples]
    stalled: Sequence[Samples]
    filled: int
    grown: int
    cost: float


def p50(rounds: Sequence[Samples]) -> float:
    """Return the median of the rounds' medians."""
    return statistics.median(map(statistics.median, rounds))


def p99(rounds: Sequence[Samples]) -> float:
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
    """Measure so many rounds of each of the three, of so many seconds each."""
    found: dict[str, list[Samples]] = {"idle": [], "again": [], "stalled": []}
    filled, grown, cost = 0, 0, 0.0
    async with serving(endless) as base_url, started(base_url) as target:
        everybody = [await target.connect() for _ in range(connections)]
        await _streaming(everybody, 2.0, seed=-1)  # so that all is loaded, and warm
        for number in range(rounds):
            for name in random.Random(number).sample(sorted(found), k=3):
                empty = target.process.rss
                async with await target.connect(small=True) as another:
                    if name == "stalled":
                        await another.ask(1, "stream", prompt="x", model="remote", credit=65_536)
                    await trio.sleep(FILLING)
                    full, used = target.process.rss, target.process.cpu
                    await trio.sleep(FILLING)
                    used = target.process.cpu - used
                    found[name].append(await _streaming(everybody, seconds, seed=number))
                    if name == "stalled":
                        filled, grown = max(filled, target.process.rss - empty), max(grown, target.process.rss - full)
                        cost = max(cost, used)
                await trio.sleep(0.2)
        for connection in everybody:
            await connection.__aexit__()
    return Stalled(found["idle"], found["again"], found["stalled"], filled, grown, cost)


async def _streaming(everybody: Sequence[Connection], seconds: float, *, seed: int) -> Samples:
    """Have each connection stream again and again, when `seed` says; return how long each first event took."""
    samples: list[float] = []
    began = trio.current_time()

    async def one(connection: Connection, index: int) -> None:
        times = random.Random(f"{seed} {index}")
        for number in range(int(seconds / EVERY)):
            await trio.sleep_until(began + EVERY * (number + times.uniform(0, 0.5)))
            asked = time.perf_counter()
            await connection.ask(number, "stream", prompt="x", model="paced")
            await connection.peer.hear()
            samples.append(time.perf_counter() - asked)
            while "result" not in await connection.peer.hear():
                pass

    async with trio.open_nursery() as nursery:
        for index, connection in enumerate(everybody):
            nursery.start_soon(one, connection, index)
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
    before, began = target.process.rss, time.perf_counter()
    everybody = await _connected(target, connections)
    connected = time.perf_counter()
    size = target.process.rss - before
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
    gc.freeze()  # as the server does: a full collection here would count as a delay of the server's
    stalled = await measure_stalled(rounds=10, seconds=6.0)
    rounds = {"idle connection": stalled.idle, "another one": stalled.again, "stalled reader": stalled.stalled}
    for name, each in rounds.items():
        count, typical, late = sum(map(len, each)), p50(each) * 1e3, p99(each) * 1e3
        say(f"beside {name:<15}: p50 {typical:.1f} ms, p99 {late:.1f} ms, {count:,} streams in all")
    moved = p99(stalled.stalled) / p99([*stalled.idle, *stalled.again]) - 1
    apart = p99(stalled.again) / p99(stalled.idle) - 1
    say(f"p99 moved by {moved:+.1%}; those of the two idle ones are {apart:+.1%} apart")
    say(f"memory: {stalled.filled / 2**20:.1f} MiB for what was on its way, {stalled.grown / 2**20:.1f} MiB later")
    say(f"a stalled reader took {stalled.cost / FILLING:.1%} of a processor")
    async with started() as target:
        many = await measure_many(target, connections=1_000, requests=5_000)
    say(f"{many.connections:,} connections in {many.connecting:.1f} s, {many.bytes_a_connection / 1024:.0f} KiB each")
    say(f"{many.answered:,} requests answered in {many.asking:.1f} s")
    gone = await measure_gone(rounds=20)
    median = statistics.median(gone.seconds)
    say(f"gone: the call to the model ended within {median * 1e3:.1f} ms, at most {max(gone.seconds) * 1e3:.1f} ms")


if __name__ == "__main__":
    trio.run(main)
