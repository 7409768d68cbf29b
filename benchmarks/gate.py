"""The promises that no change may break, measured here and now, with what is to spare.

    python -m benchmarks.gate

Ends with status 1 where one of them is broken; an aim that is missed breaks nothing. What the client adds to a call is
the difference of two 99th percentiles, the client's and bare httpx's, of calls that took turns in one process. After
these come the design's figures beside other libraries, from one round of the benchmarks: those of peers that `make
bench-peers` has installed, too. They never fail the gate.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final

import httpx
import trio
from attrs import frozen

from benchmarks import report, run
from benchmarks.promises import Promise, promises
from benchmarks.suites._children import rss
from benchmarks.suites._clients import http, prompts, simulated, transports
from benchmarks.suites._measure import late
from benchmarks.upstream import running
from wizard_actors import ResilientClient
from wizard_actors.types import TextDelta

__all__ = ["Measured", "Size", "broken", "complaint", "slos"]

WARM_UP: Final = 50
MIB: Final = 2**20
ANSWERS: Final = 1_000
ANSWER: Final = "All is well. " * 158
"""About 2 KB."""


@frozen
class Size:
    """How much is measured: so many turns of each kind of call."""

    turns: int = 500


@frozen
class Measured:
    """The seconds of each call: over each transport by its name, and of bare httpx."""

    hits: Mapping[str, Sequence[float]]
    calls: Mapping[str, Sequence[float]]
    firsts: Mapping[str, Sequence[float]]
    retried: Mapping[str, Sequence[float]]
    """Each call's time, which was refused once."""
    bare_call: Sequence[float]
    bare_first: Sequence[float]
    bare_refused: Sequence[float]
    cached_mib: float
    """What 1,000 cached answers take."""


# -- what it means -----------------------------------------------------------------------------------


def slos(found: Measured) -> list[Promise]:
    """Return the promises, with what was measured of each."""
    lines = []
    for transport in found.calls:
        over = f", transport {transport}"
        hit = late(found.hits[transport]) * 1e3
        call = (late(found.calls[transport]) - late(found.bare_call)) * 1e3
        first = (late(found.firsts[transport]) - late(found.bare_first)) * 1e3
        # What a retry adds, without what the attempt itself takes on the wire.
        again = statistics.median(found.retried[transport]) - statistics.median(found.calls[transport])
        retry = (again - statistics.median(found.bare_refused)) * 1e3
        lines += [
            Promise(f"a cache hit, p99{over}", 1.0, hit, "ms"),
            Promise(f"added to a call that misses the cache, p99{over}", 100.0, call, "ms", aim=2.0),
            Promise(f"added to a stream's first token, p99{over}", 200.0, first, "ms", aim=2.0),
            Promise(f"added by a retry, beside its delay{over}", 5.0, retry, "ms", aim=0.2),
        ]
    megabyte = 1e6 / MIB
    memory = Promise(f"{ANSWERS:,} cached answers of 2 KB", 50 * megabyte, found.cached_mib, "MiB", aim=10 * megabyte)
    return [*lines, memory]


def broken(found: Sequence[Promise]) -> list[Promise]:
    """Return the promises that are not kept. What could not be measured is not."""
    return [each for each in found if not each.kept]


def complaint(found: Sequence[Promise]) -> str | None:
    """Return what the program ends with: the broken promises, which makes its status 1, or None."""
    lines = [f"broken: {each.what}: {report.amount(each.measured, each.unit) or 'unknown'}" for each in broken(found)]
    return "\n".join(lines) or None


# -- how it is measured ------------------------------------------------------------------------------


async def cached() -> float:
    """Return how many MiB the cached answers take."""
    asked = prompts()
    async with ResilientClient.open(simulated(answer=ANSWER)) as client:
        for _ in range(WARM_UP):
            await client.generate(next(asked))
        gc.collect()
        before = rss()
        for _ in range(ANSWERS):
            await client.generate(next(asked))
        gc.collect()
        return rss() - before


class Bare:
    """httpx alone."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._http = client
        self._url = f"{url}/v1/chat/completions"
        self._asked = prompts()

    async def call(self, model: str = "mock-1") -> None:
        """Ask for an answer, and read it."""
        body = {"model": model, "messages": [{"role": "user", "content": next(self._asked)}]}
        (await self._http.post(self._url, json=body)).json()

    async def refused(self) -> None:
        """Be refused."""
        await self.call("down")

    async def first(self) -> float:
        """Return when the first token of a stream came, which is then read to its end."""
        body = {"model": "mock-1", "messages": [{"role": "user", "content": next(self._asked)}], "stream": True}
        came = None
        async with self._http.stream("POST", self._url, json=body) as response:
            async for line in response.aiter_lines():
                if came is None and '"content": "' in line and '"content": ""' not in line:
                    came = time.perf_counter()
        if came is None:
            raise ValueError("the upstream's stream has no token")
        return came


class Whole:
    """A client of ours."""

    def __init__(self, client: ResilientClient) -> None:
        self._client = client
        self._asked = prompts()

    async def call(self) -> None:
        """Ask what is not in the cache."""
        await self._client.generate(next(self._asked))

    async def hit(self) -> None:
        """Ask what is."""
        await self._client.generate("What is always the same?")

    async def retried(self) -> None:
        """Ask a model that refuses once."""
        await self._client.generate(next(self._asked), route="flaky")

    async def first(self) -> float:
        """Return when the first text of a stream came, which is then read to its end."""
        came = None
        async with self._client.stream(next(self._asked), route="stream") as stream:
            async for event in stream:
                if came is None and isinstance(event, TextDelta):
                    came = time.perf_counter()
        if came is None:
            raise ValueError("the client's stream has no text")
        return came


Timed = Callable[[], Awaitable[float]]
"""Makes a call, and returns the seconds that count of it."""


def whole(work: Callable[[], Awaitable[None]]) -> Timed:
    """Count all of a call."""

    async def timed() -> float:
        began = time.perf_counter()
        await work()
        return time.perf_counter() - began

    return timed


def until(work: Callable[[], Awaitable[float]]) -> Timed:
    """Count a call up to the instant that it returns."""

    async def timed() -> float:
        began = time.perf_counter()
        return await work() - began

    return timed


def hiccup() -> float:
    """Return how many milliseconds the machine itself adds to one in a hundred of the shortest loops."""
    loops = []
    for _ in range(2_000):
        began = time.perf_counter()
        for _ in range(1_000):
            pass
        loops.append(time.perf_counter() - began)
    return (late(loops) - statistics.median(loops)) * 1e3


async def by_turns(works: Mapping[str, Timed], turns: int) -> dict[str, list[float]]:
    """Let calls take turns, and return the seconds of each; the first few do not count."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for number in range(-min(WARM_UP, turns), turns):
        for name, work in works.items():
            took = await work()
            if number >= 0:
                found[name].append(took)
    return found


async def measure(url: str, size: Size) -> Measured:
    """Measure everything."""
    memory = await cached()  # first, while there is no memory that was used before and is free
    async with AsyncExitStack() as stack:
        bare = Bare(await stack.enter_async_context(httpx.AsyncClient(timeout=60.0, trust_env=False)), url)
        ours = {
            name: Whole(await stack.enter_async_context(ResilientClient.open(http(url, name)))) for name in transports()
        }
        few = max(1, size.turns // 2)
        hits = await by_turns({name: whole(each.hit) for name, each in ours.items()}, size.turns)
        calls = await by_turns(
            {"": whole(bare.call)} | {name: whole(each.call) for name, each in ours.items()}, size.turns
        )
        firsts = await by_turns({"": until(bare.first)} | {name: until(each.first) for name, each in ours.items()}, few)
        again = await by_turns(
            {"": whole(bare.refused)} | {name: whole(each.retried) for name, each in ours.items()}, few
        )
    return Measured(hits, calls, firsts, again, calls.pop(""), firsts.pop(""), again.pop(""), memory)


def main() -> None:
    """Measure, print both tables, and end as the promises say."""
    run.say("measuring the promises")
    before = hiccup()
    with running() as url:
        found = slos(trio.run(measure, url, Size()))
    machine = f"The machine itself made one in a hundred of empty loops {max(before, hiccup()):.2f} ms longer."
    run.say("measuring the design's figures")
    only = [*run.SUITES, "imports", "actors", "whole"]
    results = run.measured(only, rounds=1, peers=True, install=False)
    run.say(f"\n## Promises that no change may break\n\n{report.promised(found)}\n{machine}\n")
    run.say(f"## The design's figures, from one round\n\n{report.promised(promises(results))}")
    for each in results.missing:
        run.say(f"not measured: {each.contender}, {each.suite}: {each.reason}")
    sys.exit(complaint(found))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
