"""What whole calls cost, through every concern of the client, beside bare httpx in the same rounds.

The upstream is a process of its own on this machine, and answers at once.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Final

import httpx
import trio
from attrs import evolve, frozen

from benchmarks.figure import Figure
from benchmarks.suites._clients import http, prompts, simulated, transports
from benchmarks.suites._measure import Rounds, Taken, one_by_one
from benchmarks.upstream import running
from wizard_actors import ResilientClient, WizardConfig
from wizard_actors.config import ScriptStep, SimulatedConfig
from wizard_actors.types import TextDelta

__all__ = ["Size", "figures"]

CHUNKS: Final = 50
CALL_BOUND: Final = 1.25
"""Of bare httpx's time: what a call may take through every concern."""
TURNS: Final = 5
"""Of one session, before the next: its history grows with them."""


@frozen
class Size:
    """How much is measured: so many `rounds`, of so many `calls` of each kind; a batch is of `batch` prompts."""

    rounds: int = 7
    calls: int = 200
    batch: int = 200

    @property
    def few(self) -> int:
        """How many there are of what takes longer than a call."""
        return max(1, self.calls // 10)


class Bare:
    """httpx alone, and the same questions."""

    def __init__(self, http_client: httpx.AsyncClient, url: str) -> None:
        self._http = http_client
        self._url = f"{url}/v1/chat/completions"
        self._asked = prompts()

    async def call(self) -> None:
        """Ask for an answer, and read it."""
        response = await self._http.post(self._url, json=self._body(stream=False))
        response.json()

    async def stream(self) -> None:
        """Ask for a stream, and read it to its end."""
        body = self._body(stream=True)
        async with self._http.stream("POST", self._url, json=body) as response:
            async for _ in response.aiter_bytes():
                pass

    def _body(self, *, stream: bool) -> dict[str, object]:
        return {"model": "m", "messages": [{"role": "user", "content": next(self._asked)}], "stream": stream}


class Whole:
    """A client, and each kind of call of it."""

    def __init__(self, client: ResilientClient) -> None:
        self._client = client
        self._asked = prompts()
        self._sessions = prompts()

    async def miss(self) -> None:
        """Ask what is not in the cache."""
        await self._client.generate(next(self._asked))

    async def hit(self) -> None:
        """Ask what is in the cache."""
        await self._client.generate("What is always the same?")

    async def assembled(self) -> None:
        """Ask what is not in the cache of a model that is asked for a stream, and wait for the whole answer."""
        await self._client.generate(next(self._asked), route="stream")

    async def retried(self) -> None:
        """Ask a model that answers when it is asked again."""
        await self._client.generate(next(self._asked), route="flaky")

    async def streams(self, times: int) -> tuple[Taken, Taken]:
        """Time so many streams: each one's first text, and each of its chunks after that."""
        firsts, chunks = list[float](), list[float]()
        spent = time.process_time()
        for _ in range(times):
            began, heard = time.perf_counter(), list[float]()
            async with self._client.stream(next(self._asked), route="stream") as stream:
                async for event in stream:
                    if isinstance(event, TextDelta):
                        heard.append(time.perf_counter())
            firsts.append(heard[0] - began)
            chunks.append((heard[-1] - heard[0]) / max(1, len(heard) - 1))
        cpu = (time.process_time() - spent) / times
        return Taken(firsts, cpu, times), Taken([statistics.median(chunks)], cpu / CHUNKS, times * CHUNKS)

    async def batch(self, size: int) -> Taken:
        """Time a batch, and share it among its prompts."""
        asked = [next(self._asked) for _ in range(size)]
        spent, began = time.process_time(), time.perf_counter()
        await self._client.generate_batch(asked)
        wall = (time.perf_counter() - began) / size
        return Taken([wall], (time.process_time() - spent) / size, size)

    async def turns(self, times: int) -> Taken:
        """Time the turns of some sessions."""
        walls: list[float] = []
        spent = time.process_time()
        for _ in range(times):
            async with self._client.session(next(self._sessions)) as session:
                for _ in range(TURNS):
                    began = time.perf_counter()
                    await session.send(next(self._asked))
                    walls.append(time.perf_counter() - began)
        return Taken(walls, (time.process_time() - spent) / len(walls), len(walls))


def scripted(calls: int) -> WizardConfig:
    """Return a configuration without a network, whose model fails every other call of the first so many."""
    steps = [ScriptStep(fault="error"), ScriptStep(fault="ok")] * calls
    script = SimulatedConfig(answer="Because.", first_token=0, per_chunk=0, script=steps)
    config = simulated()
    return config.changed(models=[evolve(config.models[0], simulated=script)])


async def a_round(rounds: Rounds, size: Size, whole: Whole, transport: str) -> None:
    """Measure every kind of call once."""
    also = "" if transport == "httpx" else f", transport {transport}"
    rounds.add(f"call, a miss{also}", await one_by_one(whole.miss, size.calls))
    rounds.add(f"call, asked for as a stream{also}", await one_by_one(whole.assembled, size.few))
    firsts, chunks = await whole.streams(size.few)
    rounds.add(f"stream, its first text{also}", firsts)
    rounds.add(f"stream, each chunk{also}", chunks)
    rounds.add(f"call answered when asked again{also}", await one_by_one(whole.retried, size.few))
    rounds.add(f"batch of {size.batch}, a prompt{also}", await whole.batch(size.batch))
    rounds.add(f"turn of a session in memory{also}", await whole.turns(size.few))


async def measure(size: Size, url: str) -> Rounds:
    """Measure every round."""
    rounds = Rounds("whole")
    async with AsyncExitStack() as stack:
        bare = Bare(await stack.enter_async_context(httpx.AsyncClient(timeout=60.0)), url)
        clients = {
            name: Whole(await stack.enter_async_context(ResilientClient.open(http(url, name)))) for name in transports()
        }
        retries = size.rounds * size.calls
        plain = Whole(await stack.enter_async_context(ResilientClient.open(simulated())))
        failing = Whole(await stack.enter_async_context(ResilientClient.open(scripted(retries))))
        for whole in clients.values():
            await one_by_one(whole.miss, size.few)
        for _ in range(size.rounds):
            rounds.add("bare httpx, a call", await one_by_one(bare.call, size.calls))
            rounds.add("bare httpx, a stream", await one_by_one(bare.stream, size.few))
            for name, whole in clients.items():
                await a_round(rounds, size, whole, name)
            await plain.hit()
            rounds.add("hit", await one_by_one(plain.hit, size.calls), bound=40.0)
            rounds.add("call without a network", await one_by_one(plain.miss, size.calls))
            rounds.add("call without a network, asked again once", await one_by_one(failing.miss, size.calls))
    return rounds


def compared(rounds: Rounds) -> Iterator[Figure]:
    """Yield what follows from several figures of the same rounds."""
    for name in transports():
        also, bound = ("", CALL_BOUND) if name == "httpx" else (f", transport {name}", 1.0)
        call = rounds.median(f"call, a miss{also}") / rounds.median("bare httpx, a call")
        stream = rounds.median(f"call, asked for as a stream{also}") / rounds.median("bare httpx, a stream")
        yield Figure(suite="whole", name=f"call over bare httpx{also}", unit="x", value=call, bound=bound)
        yield Figure(suite="whole", name=f"stream over bare httpx{also}", unit="x", value=stream, bound=bound)
    again = rounds.median("call without a network, asked again once") - rounds.median("call without a network")
    yield Figure(suite="whole", name="a retry, beside its delay", unit="us", value=again * 1e6, bound=200.0)


def figures(size: Size | None = None) -> Iterator[Figure]:
    """Measure whole calls, and yield the figures."""
    with running(chunks=CHUNKS) as url:
        rounds = trio.run(measure, size or Size(), url)
    yield from rounds.figures()
    yield from compared(rounds)
