"""What the HTTP endpoint holds up under load.

    python -m benchmarks.http

A server in a process of its own, real sockets on 127.0.0.1, models that answer at once:

- **many**: 64 connections and 2,000 requests: most of them whole answers, every third a stream, in both formats. Every
  tenth client leaves in the middle of its answer, and comes again on a new connection. Every other one has to be
  answered, whole. How long that takes, how many requests a second that is, and the server's memory before and after.
- **bad**: all that again, while bad clients come at once: heads that never end, bodies that never end, that are too
  large, that are no JSON, and what is no HTTP. Each has to get its 4xx.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import h11
import trio
from attrs import Factory, define, field, frozen

from benchmarks.served import Process, served
from tests.server.http_asked import FORMATS, PATHS, How, body_of, heard
from tests.server.http_wire import HttpWire

__all__ = ["BAD", "Load", "Target", "measure", "misbehave", "started"]

CONFIG: Final = """
[[models]]
name = "quick"
provider = "simulated"
max_concurrency = 200
simulated = { answer = "All is well, says the model.", first_token = 0, per_chunk = 0 }

[[models]]
name = "paced"
provider = "simulated"
max_concurrency = 200
simulated = { answer = "a b c d e f g h", first_token = 0, per_chunk = 0.01 }

[fallback]
chain = ["quick"]

[server]
http = "127.0.0.1:0"
max_message = 100_000
handshake_timeout = 2

[sessions]
storage = "memory:"

[logging]
level = "ERROR"
"""

ANSWERS: Final = {"quick": "All is well, says the model.", "paced": "a b c d e f g h"}
LEAVES: Final = 10
"""One request in so many is given up by its client."""


# -- the server, from outside ------------------------------------------------------------------------


@frozen
class Target:
    """A server that is under load."""

    process: Process

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.process.port}"

    async def connect(self) -> HttpWire:
        """Return a new connection."""
        return HttpWire(await trio.open_tcp_stream("127.0.0.1", self.process.port))


@asynccontextmanager
async def started(config: str = CONFIG) -> AsyncIterator[Target]:
    """Start `wizard serve`, in a process of its own."""
    async with served(config, "http") as process:
        yield Target(process)


# -- good clients ------------------------------------------------------------------------------------


@define
class Load:
    """What became of many requests: `answered` whole and right, `left` by their clients, `lost` all others."""

    answered: int = 0
    left: int = 0
    lost: list[str] = field(factory=list)
    seconds: float = 0.0
    took: list[float] = field(factory=list)
    """Seconds of each that was answered."""
    rss: list[int] = field(factory=list)
    """The server's memory: before, and after."""
    bad: Counter[str] = Factory(Counter)
    """What bad clients got, with how often."""

    @property
    def p50(self) -> float:
        """Seconds that half of the answers took at most."""
        return statistics.median(self.took)

    @property
    def p99(self) -> float:
        """Seconds that 99 in a hundred took at most."""
        return statistics.quantiles(self.took, n=100)[98]


async def measure(target: Target, *, connections: int, requests: int, bad: int = 0) -> Load:
    """Have so many connections send so many requests, as fast as they are answered, and as many `bad` clients of each
    kind come meanwhile.
    """
    load, numbers = Load(), iter(range(requests))
    load.rss.append(target.process.rss)
    began = time.perf_counter()

    async def client() -> None:
        wire = await target.connect()
        for number in numbers:
            if not await _one(load, wire, number):
                await trio.aclose_forcefully(wire.stream)
                wire = await target.connect()
        await trio.aclose_forcefully(wire.stream)

    async def misbehaving(kind: str) -> None:
        load.bad[f"{kind}: {await misbehave(target, kind)}"] += 1

    async with trio.open_nursery() as nursery:
        for _ in range(connections):
            nursery.start_soon(client)
        for kind in BAD:
            for _ in range(bad):
                nursery.start_soon(misbehaving, kind)
    load.seconds = time.perf_counter() - began
    load.rss.append(target.process.rss)
    return load


async def _one(load: Load, wire: HttpWire, number: int) -> bool:
    """Send one request; return whether its connection can be used again."""
    how: How = FORMATS[number % 2]
    stream, leaves = number % 3 == 0, number % LEAVES == LEAVES - 1
    model = "paced" if stream or leaves else "quick"
    asked = time.perf_counter()
    try:
        await wire.send("POST", PATHS[how], body_of(how, f"Why {number}?", model=model, stream=stream))
        if leaves:
            if stream:
                await wire.head()
            load.left += 1
            return False
        reply = await wire.reply()
        wire.http.start_next_cycle()
        said = heard(how, reply)
        assert (reply.status, said.text, said.model, said.ended) == (200, ANSWERS[model], model, True), said  # noqa: S101 - what is measured
    except (AssertionError, OSError, trio.BrokenResourceError, h11.ProtocolError) as error:
        load.lost.append(f"request {number}: {error!r}")
        return False
    load.answered += 1
    load.took.append(time.perf_counter() - asked)
    return True


# -- bad clients -------------------------------------------------------------------------------------

HEAD: Final = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n"

BAD: Final[dict[str, tuple[Sequence[bytes], bytes, str]]] = {
    "a head that never ends": ([b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\n"], b"x: y\r\n", "closed"),
    "a head that is too large": ([b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\nx: " + b"y" * 20_000], b"", "431"),
    "a body that never ends": ([HEAD % 50_000, b"{"], b" ", "408"),
    "a body that is too large": ([HEAD % 10_000_000, b"{"], b"", "413"),
    "a body that grows too large": (
        [
            HEAD.replace(b"content-length: %d", b"transfer-encoding: chunked"),
            *[b"3e8\r\n" + b" " * 1000 + b"\r\n"] * 101,
        ],
        b"",
        "413",
    ),
    "a body that is no JSON": ([HEAD % 3, b"{{{"], b"", "400"),
    "a body that is no request": ([HEAD % 2, b"[]"], b"", "400"),
    "no HTTP": ([b"\x16\x03\x01 nothing\r\n\r\n"], b"", "400"),
}
"""What each kind sends, then again and again every 50 ms, and what it has to get."""


async def misbehave(target: Target, kind: str) -> str:
    """Be a bad client, and return the status that it gets, or "closed"."""
    pieces, again, _ = BAD[kind]
    stream = await trio.open_tcp_stream("127.0.0.1", target.process.port)
    answer = b""

    async def go_on() -> None:
        while again:
            await trio.sleep(0.05)
            try:
                await stream.send_all(again)
            except trio.BrokenResourceError:
                return

    async with stream, trio.open_nursery() as nursery:
        try:
            for piece in pieces:
                await stream.send_all(piece)
            nursery.start_soon(go_on)
            while b"\r\n" not in answer and (more := await stream.receive_some()):
                answer += more
        except trio.BrokenResourceError:
            pass  # what it has got so far is what counts
        nursery.cancel_scope.cancel()
    return answer.split(b" ", 2)[1].decode() if answer.startswith(b"HTTP/1.1 ") else "closed"


# -- the program -------------------------------------------------------------------------------------


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _told(name: str, load: Load) -> None:
    rate = (load.answered + load.left) / load.seconds
    say(
        f"{name}: {load.answered:,} answered, {load.left:,} left by their clients, {len(load.lost)} lost; "
        f"{rate:,.0f} requests a second; p50 {load.p50 * 1e3:.1f} ms, p99 {load.p99 * 1e3:.1f} ms; "
        f"memory {load.rss[0] / 2**20:.1f} MiB before, {load.rss[1] / 2**20:.1f} MiB after"
    )
    for problem in load.lost[:5]:
        say(f"  {problem}")


async def main() -> None:
    """Print the figures."""
    async with started() as target:
        _told("warming up", await measure(target, connections=64, requests=500))
        for number in range(1, 4):
            _told(f"many, round {number}", await measure(target, connections=64, requests=2_000))
        load = await measure(target, connections=64, requests=2_000, bad=5)
        _told("beside bad clients", load)
        for got, count in sorted(load.bad.items()):
            say(f"  {count} times {got}")
        _told("after them", await measure(target, connections=64, requests=2_000))


if __name__ == "__main__":
    trio.run(main)
