"""How what things cost grows: with calls at once, with models, with cached answers, with sessions.

    python -m benchmarks.curves [FOLDER]

Writes the curves as `images/curve-*.svg`, and `performance-curves.json` with their points, into the folder (default:
docs). The points of a curve are measured in rounds, each of all points, and medians taken: what else the machine does
falls on all of them.
"""

from __future__ import annotations

import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

import cattrs
import trio
from attrs import frozen
from trio.testing import wait_all_tasks_blocked

from benchmarks.suites._clients import http, prompts, simulated
from benchmarks.suites._measure import MICRO, Taken, at_once, one_by_one
from benchmarks.svg import Chart, Line, svg
from benchmarks.upstream import running
from wizard_actors import ResilientClient, WizardConfig
from wizard_actors.cache import CacheState
from wizard_actors.cache_messages import Store
from wizard_actors.session_record import SessionRecord, SessionState, TurnRecord
from wizard_actors.storage.memory import MemoryStorage
from wizard_actors.storage.opening import Opener
from wizard_actors.types import Message, Role

__all__ = ["Curves", "Size", "measure", "read", "write"]

FOLDER: Final = Path(__file__).resolve().parent.parent / "docs"
JSON: Final = "performance-curves.json"
A_CALL: Final = "microseconds a call"
TOLD_AT_ONCE: Final = 10_000
"""Answers that are put into a cache before it gets to them."""


@frozen
class Size:
    """How much is measured: the points of each curve, and how many `calls` each takes in each of the `rounds`."""

    rounds: int = 5
    calls: int = 100
    at_once: tuple[int, ...] = (1, 8, 64, 512, 5_000)
    models: tuple[int, ...] = (1, 3, 10, 30, 100)
    entries: tuple[int, ...] = (1, 10, 100, 1_000, 10_000, 100_000)
    sessions: tuple[int, ...] = (1, 10, 100, 1_000, 10_000)


@frozen
class Curves:
    """All curves, and what they were measured with."""

    measured_with: str
    curves: tuple[Chart, ...]


Measuring = Callable[[], Awaitable[Mapping[str, float]]]
"""Measures one point once: for each line, its value."""


async def points(measuring: Mapping[int, Measuring], rounds: int) -> tuple[Line, ...]:
    """Measure every point in every round; return the lines through their medians."""
    found: dict[str, dict[int, list[float]]] = {}
    for _ in range(rounds):
        for x, measure_one in measuring.items():
            gc.collect()  # each point pays for its own garbage
            for line, value in (await measure_one()).items():
                found.setdefault(line, {}).setdefault(x, []).append(value)
    return tuple(
        Line(name, tuple((float(x), statistics.median(values)) for x, values in each.items()))
        for name, each in found.items()
    )


def median(taken: Taken) -> float:
    """Return the median of what calls took, in microseconds."""
    return statistics.median(taken.walls) * MICRO


# -- calls at once -----------------------------------------------------------------------------------


async def by_calls(size: Size, url: str) -> Chart:
    """Measure the same calls from more and more callers at once."""

    async def measure_one(callers: int) -> Mapping[str, float]:
        times = max(1, size.calls // callers)
        asked = prompts()
        near = await at_once(lambda: local.generate(next(asked)), callers, times)
        far = await at_once(lambda: remote.generate(next(asked)), callers, times)
        return {
            "latency, no network": median(near),
            "processor time, over HTTP": far.cpu * MICRO,
            "processor time, no network": near.cpu * MICRO,
        }

    async with ResilientClient.open(simulated()) as local, ResilientClient.open(http(url)) as remote:
        lines = await points({callers: partial(measure_one, callers) for callers in size.at_once}, size.rounds)
    return Chart("calls", "A call that misses the cache, by calls at once", "calls at once", A_CALL, lines)


# -- models ------------------------------------------------------------------------------------------


async def by_models(size: Size) -> Chart:
    """Measure calls to the first of more and more models."""

    async def measure_one(client: ResilientClient) -> Mapping[str, float]:
        asked = prompts()
        missed = await one_by_one(lambda: client.generate(next(asked)), size.calls)
        await client.generate("Why?")
        hit = await one_by_one(lambda: client.generate("Why?"), size.calls)
        return {"a call, answered by the first": median(missed), "an answer from the cache": median(hit)}

    async with AsyncExitStack() as stack:
        clients = {number: await _opened(stack, simulated(number)) for number in size.models}
        lines = await points({number: partial(measure_one, each) for number, each in clients.items()}, size.rounds)
    return Chart(
        "models",
        "A call without a network, by models of its route",
        "models of the route",
        A_CALL,
        lines,
        bound=40.0,
        promise="promised of an answer from the cache: 40 microseconds",
    )


# -- the cache ---------------------------------------------------------------------------------------


async def by_entries(size: Size) -> Chart:
    """Measure hits, and calls whose answers are stored, with more and more in the cache."""

    async def measure_one(client: ResilientClient) -> Mapping[str, float]:
        asked = prompts()
        await client.generate("Why?")
        hit = await one_by_one(lambda: client.generate("Why?"), size.calls)
        missed = await one_by_one(lambda: client.generate(next(asked)), size.calls)
        return {"a miss, called and stored": median(missed), "a hit": median(hit)}

    async with AsyncExitStack() as stack:
        clients = {number: await _opened(stack, simulated()) for number in size.entries}
        for number, client in clients.items():
            await fill(client, number)
        lines = await points({number: partial(measure_one, each) for number, each in clients.items()}, size.rounds)
    return Chart(
        "cache",
        "A call without a network, by answers in the cache",
        "answers in the cache",
        A_CALL,
        lines,
        bound=40.0,
        promise="promised of a hit: 40 microseconds",
    )


async def fill(client: ResilientClient, number: int) -> None:
    """Put so many answers into the cache."""
    response = await client.generate("Why?", cache="bypass")
    cache, keys = client.supervisor.ref("cache", CacheState), count()
    while number:
        some = min(number, TOLD_AT_ONCE)
        for _ in range(some):
            # One answer for all: what counts is how many there are, not how large they are.
            cache.tell(Store(next(keys).to_bytes(32, "big"), response, response.model, "Why?"))
        number -= some
        await wait_all_tasks_blocked()


# -- sessions ----------------------------------------------------------------------------------------


async def by_sessions(size: Size) -> Chart:
    """Measure turns and lists with more and more sessions stored."""

    async def measure_one(client: ResilientClient) -> Mapping[str, float]:
        asked, names = prompts(), prompts()

        async def turn() -> None:
            async with client.session(name) as session:
                await session.send(next(asked))
            await client.sessions.delete(name)

        name = next(names)
        turns = await one_by_one(turn, max(1, size.calls // 5))
        lists = await one_by_one(client.sessions.list, max(1, size.calls // 20))
        return {"a list of the newest 50": median(lists), "a session's first turn, and its end": median(turns)}

    async with AsyncExitStack() as stack:
        clients = {
            number: await _opened(stack, simulated(), storage=partial(stored, number)) for number in size.sessions
        }
        lines = await points({number: partial(measure_one, each) for number, each in clients.items()}, size.rounds)
    return Chart(
        "sessions",
        "Sessions in memory, by sessions that are stored",
        "sessions stored",
        "microseconds",
        lines,
        bound=20_000.0,
        promise="promised of a list: 20,000 microseconds",
    )


@asynccontextmanager
async def stored(number: int) -> AsyncIterator[MemoryStorage]:
    """Open a storage that holds so many sessions."""
    now = time.time()
    turn = TurnRecord([Message(Role.USER, "Why?"), Message(Role.ASSISTANT, "Because.")], at=now, model="model-0")
    async with MemoryStorage.open() as storage:
        for index in range(number):
            await storage.save(
                SessionRecord(
                    f"user-{index:06}",
                    created_at=now,
                    state=SessionState.ACTIVE,
                    turns=(turn,),
                    updated_at=now + index / 1_000,
                )
            )
        yield storage


async def _opened(stack: AsyncExitStack, config: WizardConfig, storage: Opener | None = None) -> ResilientClient:
    return await stack.enter_async_context(ResilientClient.open(config, storage=storage))


# -- all of them -------------------------------------------------------------------------------------


async def _measured(size: Size, url: str) -> Sequence[Chart]:
    return [await by_calls(size, url), await by_models(size), await by_entries(size), await by_sessions(size)]


def measure(size: Size | None = None) -> Curves:
    """Measure every curve."""
    with running() as url:
        curves = trio.run(_measured, size or Size(), url)
    return Curves(f"Python {platform.python_version()}, Trio {trio.__version__}", tuple(curves))


def write(curves: Curves, folder: Path) -> None:
    """Write the pictures and the points."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for curve in curves.curves:
        (folder / "images" / f"curve-{curve.name}.svg").write_text(svg(curve), encoding="utf-8")
    text = json.dumps(cattrs.unstructure(curves), indent=2)
    (folder / JSON).write_text(f"{text}\n", encoding="utf-8")


def read(folder: Path) -> Curves:
    """Return what was written."""
    return cattrs.structure(json.loads((folder / JSON).read_text(encoding="utf-8")), Curves)


def main() -> None:
    """Measure, and write."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    curves = measure()
    write(curves, folder)
    for curve in curves.curves:
        sys.stdout.write(f"{curve.title}\n")
        for line in curve.lines:
            values = "  ".join(f"{x:,.0f}: {y:,.1f}" for x, y in line.points)
            sys.stdout.write(f"  {line.name:<40} {values}\n")


if __name__ == "__main__":
    main()
