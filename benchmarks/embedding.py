"""What it costs to call from asyncio, uvloop or a plain thread, beside a call under Trio.

    python -m benchmarks.embedding

A whole call through router, bulkhead, limiter and breaker to a model that answers at once, alone and from many tasks; a
streamed chunk more, of an answer that comes at once and of one that comes word by word, whose cost is processor time of
the whole process. Each figure is the median of the rounds, which are interleaved: what else the machine does falls on
all of them.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import trio
import uvloop

from wizard_actors import BlockingClient, ResilientClient, WizardConfig
from wizard_actors.config import ModelConfig, RouteConfig, SimulatedConfig

ROUNDS: Final = 9
CALLS: Final = 200
CALLERS: Final = 32
WORDS: Final = 2_001
SLOW_WORDS: Final = 101
PACE: Final = 0.002
LIMITS: Final = {"a call": 150.0, "a chunk, at once": 40.0, "a chunk, word by word": 40.0}
"""Microseconds that asyncio may cost more than Trio."""

Figures = dict[str, float]
Gather = Callable[[Callable[[], Awaitable[None]]], Awaitable[object]]


def model(name: str, words: int, pace: float) -> ModelConfig:
    """Return a model that answers with so many words, one a chunk, `pace` seconds apart."""
    answer = " ".join(["word"] * words)
    simulated = SimulatedConfig(answer=answer, first_token=0, per_chunk=pace)
    return ModelConfig(name=name, provider="simulated", simulated=simulated, max_concurrency=CALLERS)


CONFIG: Final = WizardConfig(
    models=[model("one", 1, 0), model("many", WORDS, 0), model("slow", SLOW_WORDS, PACE)],
    routes=[RouteConfig(name="long", chain=["many"]), RouteConfig(name="slow_route", chain=["slow"])],
)


async def measure(gather: Gather) -> Figures:
    """Measure one round in an event loop; `gather` runs a function in so many tasks at once."""

    async def ten() -> None:
        for _ in range(10):
            await client.generate("Go.")

    async with ResilientClient.open(CONFIG) as client:
        await ten()
        began = time.perf_counter()
        for _ in range(CALLS):
            await client.generate("Go.")
        alone = (time.perf_counter() - began) / CALLS
        began = time.perf_counter()
        await gather(ten)
        together = (time.perf_counter() - began) / (CALLERS * 10)
        began = time.perf_counter()
        async with client.stream("Go.", route="long") as stream:
            async for _ in stream:
                pass
        chunk = (time.perf_counter() - began - alone) / (WORDS - 1)
        worked = time.process_time()
        async with client.stream("Go.", route="slow_route") as stream:
            async for _ in stream:
                pass
        slow = (time.process_time() - worked - alone) / (SLOW_WORDS - 1)
    return figures(alone, together, chunk, slow)


def figures(alone: float, together: float, chunk: float, slow: float) -> Figures:
    """Return the figures of one round, in microseconds."""
    return {
        "a call": alone * 1e6,
        f"a call, {CALLERS} at once": together * 1e6,
        "a chunk, at once": chunk * 1e6,
        "a chunk, word by word": slow * 1e6,
    }


def under_trio() -> Figures:
    """Measure a round under Trio."""

    async def gather(function: Callable[[], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(CALLERS):
                nursery.start_soon(function)

    return trio.run(measure, gather)


async def in_asyncio() -> Figures:
    """Measure a round under asyncio."""
    return await measure(lambda function: asyncio.gather(*(function() for _ in range(CALLERS))))


def under_asyncio() -> Figures:
    """Measure a round under asyncio's own loop."""
    return asyncio.run(in_asyncio())


def under_uvloop() -> Figures:
    """Measure a round under uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(in_asyncio())


def in_threads() -> Figures:
    """Measure a round with a `BlockingClient`."""
    with BlockingClient.open(CONFIG) as client, ThreadPoolExecutor(CALLERS) as pool:

        def ten(_number: int = 0) -> None:
            for _ in range(10):
                client.generate("Go.")

        list(pool.map(ten, range(CALLERS)))
        began = time.perf_counter()
        for _ in range(CALLS):
            client.generate("Go.")
        alone = (time.perf_counter() - began) / CALLS
        began = time.perf_counter()
        list(pool.map(ten, range(CALLERS)))
        together = (time.perf_counter() - began) / (CALLERS * 10)
        began = time.perf_counter()
        with client.stream("Go.", route="long") as stream:
            for _ in stream:
                pass
        chunk = (time.perf_counter() - began - alone) / (WORDS - 1)
        worked = time.process_time()
        with client.stream("Go.", route="slow_route") as stream:
            for _ in stream:
                pass
        slow = (time.process_time() - worked - alone) / (SLOW_WORDS - 1)
    return figures(alone, together, chunk, slow)


HOSTS: Final = {"trio": under_trio, "asyncio": under_asyncio, "uvloop": under_uvloop, "blocking": in_threads}


def main() -> None:
    """Print the figures, what they are beside Trio's, and the bounds."""
    rounds = [{name: host() for name, host in HOSTS.items()} for _ in range(ROUNDS)]
    sys.stdout.write(f"microseconds, median of {ROUNDS} interleaved rounds, and how many more than under Trio\n")
    sys.stdout.write(f"{'':<24}" + "".join(f"{name:>18}" for name in HOSTS) + "\n")
    for what in rounds[0]["trio"]:
        line = f"{what:<24}"
        for name in HOSTS:
            value = statistics.median(each[name][what] for each in rounds)
            more = statistics.median(each[name][what] - each["trio"][what] for each in rounds)
            line += f"{value:>10.1f} {more:>+7.1f}"
        bound = f"   asyncio may: +{LIMITS[what]:.0f}" if what in LIMITS else ""
        sys.stdout.write(line + bound + "\n")


if __name__ == "__main__":
    main()
