"""What things take of memory, each in a process of its own.

python -m benchmarks.suites.memory WHAT NUMBER     what one such process finds, as JSON
"""

from __future__ import annotations

import gc
import statistics
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final

import trio
from attrs import frozen
from trio.testing import wait_all_tasks_blocked

from benchmarks.figure import Figure
from benchmarks.suites._children import MIB, child, found, rss
from benchmarks.suites._clients import prompts, simulated
from wizard_actors import ResilientClient

__all__ = ["Size", "figures"]

ANSWER: Final = "All is well. " * 158
"""About 2 KB."""
LONG: Final = 3_600.0
"""Seconds until a model says its first word: longer than anybody waits."""


@frozen
class Size:
    """How much is measured: the median of so many `rounds`, of so many of each thing."""

    rounds: int = 3
    answers: int = 1_000
    sessions: int = 10_000
    calls: int = 5_000


def settled() -> float:
    """Return the memory of the process, in MiB, once what is garbage has gone."""
    gc.collect()
    return rss()


async def idle(_number: int) -> dict[str, float]:
    """Open a client, and use it once."""
    before = settled()
    async with ResilientClient.open(simulated()) as client:
        await client.generate("Why?")
        return {"before": before, "held": settled(), "after": 0.0}


async def cached(number: int) -> dict[str, float]:
    """Put so many answers into the cache, and take them out."""
    asked = prompts()
    async with ResilientClient.open(simulated(answer=ANSWER)) as client:
        for _ in range(20):
            await client.generate(next(asked))
        before = settled()
        for _ in range(number):
            await client.generate(next(asked))
        held = settled()
        await client.invalidate()
        return {"before": before, "held": held, "after": settled()}


async def sessions(number: int) -> dict[str, float]:
    """Take a turn in each of so many sessions, and hold them."""
    names, held = prompts(), []
    async with ResilientClient.open(simulated()) as client:
        await client.generate("Why?")
        before = settled()
        for _ in range(number):
            session = client.session(next(names))
            async with session:
                await session.send("Why?", cache="bypass")
            held.append(session)
        full = settled()
        held.clear()
        return {"before": before, "held": full, "after": settled()}


async def in_flight(number: int) -> dict[str, float]:
    """Have so many calls wait for their models, and cancel them."""
    asked = prompts()
    async with ResilientClient.open(simulated(delay=LONG)) as client:
        before = settled()
        async with trio.open_nursery() as nursery:
            for _ in range(number):
                nursery.start_soon(client.generate, next(asked))
            await wait_all_tasks_blocked(0.2)
            held = settled()
            nursery.cancel_scope.cancel()
        return {"before": before, "held": held, "after": settled()}


WAYS: Final[Mapping[str, Callable[[int], Awaitable[dict[str, float]]]]] = {
    "idle": idle,
    "cached": cached,
    "sessions": sessions,
    "in_flight": in_flight,
}


def measured(what: str, number: int, rounds: int) -> dict[str, float]:
    """Return the medians of what so many processes have found."""
    command = ["-m", "benchmarks.suites.memory", what, str(number)]
    each = [child(command) for _ in range(rounds)]
    return {key: statistics.median(one[key] for one in each) for key in each[0]}


def growth(name: str, what: str, number: int, rounds: int, *, bound: float | None = None) -> Iterator[Figure]:
    """Yield what so many of a thing take together, one of them, and what is left when they have gone."""
    got = measured(what, number, rounds)
    grown, left = got["held"] - got["before"], got["after"] - got["before"]
    yield Figure(suite="memory", name=name, unit="MiB", value=grown, rss=got["held"], bound=bound, calls=number)
    yield Figure(suite="memory", name=f"{name}, for each", unit="MiB", value=grown / number, calls=number)
    yield Figure(suite="memory", name=f"{name}, left afterwards", unit="MiB", value=left, rss=got["after"])


def figures(size: Size | None = None) -> Iterator[Figure]:
    """Measure memory, and yield the figures."""
    size = size or Size()
    client = measured("idle", 1, size.rounds)
    held = client["held"]
    yield Figure(suite="memory", name="an open client, the whole process", unit="MiB", value=held, rss=held)
    yield Figure(suite="memory", name="an open client, beside its imports", unit="MiB", value=held - client["before"])
    # The design's bound is in millions of bytes.
    answers = f"{size.answers:,} cached answers of 2 KB"
    yield from growth(answers, "cached", size.answers, size.rounds, bound=10e6 / MIB * size.answers / 1_000)
    yield from growth(f"{size.sessions:,} idle sessions", "sessions", size.sessions, size.rounds)
    yield from growth(f"{size.calls:,} calls in flight", "in_flight", size.calls, size.rounds)


if __name__ == "__main__":
    found(trio.run(WAYS[sys.argv[1]], int(sys.argv[2])))
