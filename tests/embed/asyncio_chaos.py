"""A world in which tasks under asyncio ask a client, are cancelled at random moments, once, twice and in storms, by
tasks, timeouts and anyio's scopes, while actors crash and clients close. Time is real, and short.

Whoever is cancelled returns when the model's call has ended, and not before: that is looked at each time.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, nullcontext
from itertools import count
from random import Random

import anyio
import pytest
import trio
import uvloop
from attrs import define, field, fields, frozen

from tests.models import DONE, USAGE, Scripted, Step, Turn, model
from wizard_actors import (
    NetworkError,
    OverloadedError,
    RateLimitError,
    RequestError,
    ResilientClient,
    WizardConfig,
    WizardError,
)
from wizard_actors.breaker_core import BreakerState
from wizard_actors.config import (
    BreakerConfig,
    CacheConfig,
    RateLimitConfig,
    RetryConfig,
    RouteConfig,
    ServerConfig,
    Strategy,
    SupervisionConfig,
    TimeoutsConfig,
)
from wizard_actors.embed.asyncio_host import AsyncioHost
from wizard_actors.events import AttemptBegan, AttemptEnded, Event, RequestBegan, RequestEnded
from wizard_actors.gcra import LimiterState
from wizard_actors.metrics import Metrics
from wizard_actors.slots import WorkerState
from wizard_actors.specs import State

__all__ = ["Report", "Setting", "run_round", "run_rounds"]

SLOTS = 4
CALLERS = 8
MODELS = ("a", "b", "c")
STRATEGIES: tuple[Strategy, ...] = ("sequential", "hedged", "parallel", "adaptive")
ACTORS = [f"models/model:{name}/{actor}" for name in MODELS for actor in ("limiter", "breaker", "worker")]
ACTORS += ["router", "cache"]
LONG = 60.0
"""Seconds that a model may take to answer where nobody cancels it: longer than any test here lasts."""


@frozen
class Setting:
    """What a round runs under. `limit` is in seconds, for one round; `drain` is the client's `drain_timeout`."""

    loop: str = "asyncio"
    crashes: bool = False
    close: bool = False
    limit: float = 20.0
    drain: float = LONG


@define
class Report:
    """What became of the calls. Everything from `early` on has to be zero."""

    calls: int = 0
    answered: int = 0
    failed: int = 0
    cancelled: int = 0
    cancels: int = 0
    crashes: int = 0
    slowest: float = 0.0
    """Seconds from the first cancel of a call to its end, at most."""
    early: int = 0
    upstream: int = 0
    held: int = 0
    lost: int = 0
    doubled: int = 0
    unforeseen: int = 0
    tasks: int = 0
    threads: int = 0
    complaints: int = 0
    said: str = ""

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        names = [part.name for part in fields(Report)]
        return not any(getattr(self, name) for name in names[names.index("early") :])

    def add(self, other: Report) -> None:
        """Add up."""
        for part in fields(Report):
            mine, others = getattr(self, part.name), getattr(other, part.name)
            setattr(self, part.name, max(mine, others) if part.name == "slowest" else mine + others)


@define(eq=False)
class Caller:
    """One task that asks again and again: its task of the moment, and since when that is cancelled."""

    number: int
    task: asyncio.Task[None] | None = None
    cancelled_at: float | None = None
    asked: list[str] = field(factory=list)


class World:
    """One round: a client, its models, the tasks that use it and those that break it."""

    def __init__(self, rng: Random, setting: Setting) -> None:
        self.rng = rng
        self.setting = setting
        self.report = Report()
        self.models = {name: Scripted(*(self.turn() for _ in range(100))) for name in MODELS}
        self.callers = [Caller(number) for number in range(CALLERS)]
        self.began: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.attempts = 0
        self.metrics = Metrics(0.0)
        self.complaints: list[object] = []
        self.numbers = iter(range(1_000_000))
        self.client: ResilientClient

    def turn(self) -> Turn:
        rng = self.rng
        errors: list[Exception] = [
            NetworkError("broken", model="a"),
            OverloadedError("busy", model="a", retry_after=0.001),
            RateLimitError("slow down", model="a", retry_after=0.002),
            RequestError("no", model="a"),
            KeyError("bug"),
        ]
        steps: list[Step] = ["word "] * rng.choice([0, 0, 0, 60])  # more than a pipe holds
        for _ in range(rng.randint(0, 3)):
            steps += [rng.choice([0.0, 0.0, 0.001, 0.004]), "word "]
        if rng.random() < 0.2:
            steps.append(LONG)
        ends: list[list[Step]] = [[DONE], [DONE], [DONE, USAGE], [rng.choice(errors)], []]
        steps += rng.choice(ends)
        heads: list[float | Exception] = [0.0, 0.0, 0.001, 0.005, LONG, rng.choice(errors)]
        return Turn(tuple(steps), rng.choice(heads), closing=rng.choice([0.0, 0.0, 0.001, 0.004]))

    def config(self) -> WizardConfig:
        rng = self.rng
        rate = rng.choice([None, 60_000])
        return WizardConfig(
            models=[
                model(
                    name,
                    slots=SLOTS,
                    timeouts=TimeoutsConfig(first_token=LONG, stall=LONG, total=LONG),
                    retry=RetryConfig(base_delay=0.001),
                    limit=RateLimitConfig(requests_per_minute=rate, burst=4 if rate else None, queue=20),
                    breaker=BreakerConfig(failure_threshold=5, open_for=0.005, half_open_probes=1),
                )
                for name in MODELS
            ],
            fallback=RouteConfig(name="wizard", chain=MODELS, strategy=rng.choice(STRATEGIES)),
            cache=CacheConfig(max_entries=20),
            server=ServerConfig(queue_timeout=1.0, drain_timeout=self.setting.drain),
            supervision=SupervisionConfig(mailbox=30, max_restarts=1000, restart_window=1.0, down_retry=0.05),
        )

    # -- the round

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: self.complaints.append(context))
        block = ResilientClient.open(self.config(), rng=Random(self.rng.random()), providers=self.models)
        self.client = await block.__aenter__()
        self.client.events.listen(self.note)
        self.client.events.listen(self.metrics.apply)
        live = asyncio.create_task(self.live(block))
        _, stuck = await asyncio.wait([live], timeout=self.setting.limit)
        if stuck:
            await self.rescue()
        else:
            live.result()
        self.report.tasks += len(asyncio.all_tasks()) - 1
        self.count()

    async def rescue(self) -> None:
        """End a round in which somebody waits for ever: it has failed."""
        self.report.lost += 1
        host = self.client._host
        assert isinstance(host, AsyncioHost)
        host._thread.abandon()
        host._thread.join(LONG)
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.wait(others, timeout=0.05)
        host._finalizer.detach()

    async def live(self, block: AbstractAsyncContextManager[ResilientClient]) -> None:
        others = [asyncio.create_task(self.canceller())]
        if self.setting.crashes:
            others.append(asyncio.create_task(self.crasher()))
        rounds = [asyncio.create_task(self.calls(caller)) for caller in self.callers]
        if self.setting.close:
            await asyncio.sleep(self.rng.choice([0.0, 0.05, 0.1]))
            await block.__aexit__(None, None, None)
        await asyncio.gather(*rounds)
        for task in others:
            task.cancel()
        await asyncio.wait(others)
        if not self.setting.close:
            await self.client.run(self.look_inside)
            await block.__aexit__(None, None, None)

    async def look_inside(self) -> None:
        """Look, where the client lives, whether everything has been given back; who has crashed comes back first."""
        supervisor = self.client.supervisor
        with trio.move_on_after(2.0):
            while True:
                if not supervisor.outstanding and all(node.state is State.RUNNING for node in supervisor.tree().walk()):
                    break
                await trio.sleep(0.002)
        for name in MODELS:
            breaker = supervisor.ref(f"models/model:{name}/breaker", BreakerState).published
            limiter = supervisor.ref(f"models/model:{name}/limiter", LimiterState).published
            worker = supervisor.ref(f"models/model:{name}/worker", WorkerState).published
            if breaker is not None and limiter is not None and worker is not None:
                self.report.held += breaker.in_flight + limiter.waiting + worker.in_use + worker.waiting
            else:
                self.report.unforeseen += 1

    def note(self, event: Event) -> None:
        if isinstance(event, RequestBegan):
            self.began[event.request_id] += 1
        elif isinstance(event, RequestEnded):
            self.ended[event.request_id] += 1
        elif isinstance(event, AttemptBegan | AttemptEnded):
            self.attempts += 1 if isinstance(event, AttemptBegan) else -1

    def count(self) -> None:
        report, requests = self.report, self.metrics.snapshot(0.0).requests
        report.held += sum(self.client.supervisor.outstanding.values()) + requests.in_flight + abs(self.attempts)
        report.upstream += sum(provider.in_flight for provider in self.models.values())
        ends = sum(requests.answered.values()) + sum(requests.failed.values()) + requests.cancelled
        report.lost += len(self.began.keys() ^ self.ended.keys()) + abs(requests.began - ends)
        report.doubled += sum(times > 1 for times in self.ended.values())

    # -- who calls

    async def calls(self, caller: Caller) -> None:
        for _ in range(self.rng.randint(6, 12)):
            caller.asked, caller.cancelled_at = [], None
            caller.task = asyncio.create_task(self.call(caller))
            await asyncio.wait([caller.task])
            self.tell(caller, caller.task)
            await self.pause()

    def tell(self, caller: Caller, task: asyncio.Task[None]) -> None:
        self.report.calls += 1
        if caller.cancelled_at is not None:
            self.report.slowest = max(self.report.slowest, time.monotonic() - caller.cancelled_at)
        if task.cancelled():
            self.report.cancelled += 1
            return
        error = task.exception()
        if error is None:
            self.report.answered += 1
        elif isinstance(error, WizardError):
            self.report.failed += 1
        elif isinstance(error, TimeoutError):
            self.report.cancelled += 1
        else:
            self.report.unforeseen += 1
            self.complaints.append(error)

    async def call(self, caller: Caller) -> None:
        how = self.rng.choice(
            [self.generate, self.generate, self.stream, self.stream, self.stream, self.batch, self.warm]
        )
        with self.scope() as scope:
            async with asyncio.timeout(self.rng.choice([None, None, None, 0.0, 0.003, 0.02])):
                try:
                    await how(caller)
                finally:
                    self.report.early += self.upstream(caller)
        if scope is not None and scope.cancelled_caught:
            raise TimeoutError

    def scope(self) -> anyio.CancelScope | nullcontext[None]:
        if self.rng.random() < 0.7:
            return nullcontext()
        scope = anyio.CancelScope()
        asyncio.get_running_loop().call_later(self.rng.choice([0.0, 0.002, 0.02, 0.1]), scope.cancel)
        return scope

    def upstream(self, caller: Caller) -> int:
        """Return how many of a caller's own questions, which nobody else has asked, a model still works on."""
        mine = set(caller.asked)
        return sum(
            seen.prompt in mine and not seen.closed for provider in self.models.values() for seen in provider.calls
        )

    def prompt(self, caller: Caller) -> str:
        caller.asked.append(f"{caller.number}: {next(self.numbers)}")
        return caller.asked[-1]

    async def generate(self, caller: Caller) -> None:
        shared = self.rng.random() < 0.2  # whoever asks the same may follow one that another leads
        await self.client.generate("Why?" if shared else self.prompt(caller), cache=self.rng.choice(["use", "bypass"]))

    async def stream(self, caller: Caller) -> None:
        reads = self.rng.choice([1, 2, 1000, 1000])
        async with self.client.stream(self.prompt(caller), cache="bypass") as stream:
            async for _event in stream:
                reads -= 1
                if not reads:
                    return
                if self.rng.random() < 0.2:
                    await asyncio.sleep(self.rng.choice([0.0, 0.001, 0.02]))
        assert stream.response.request_id == stream.request_id

    async def batch(self, caller: Caller) -> None:
        tell = self.rng.choice([None, lambda _done, _total: None])
        await self.client.generate_batch(self.prompts(caller), max_concurrency=3, on_progress=tell, cache="bypass")

    async def warm(self, caller: Caller) -> None:
        await self.client.warm([self.prompt(caller) for _ in range(3)], max_concurrency=2)

    async def prompts(self, caller: Caller) -> AsyncIterator[str]:
        for _ in range(self.rng.randint(1, 5)):
            if self.rng.random() < 0.3:
                await asyncio.sleep(self.rng.choice([0.0, 0.001, 0.005]))
            yield self.prompt(caller)

    # -- who breaks

    async def canceller(self) -> None:
        """Cancel one call after another: once, twice, again a little later, or in a storm; each but one time."""
        while True:
            await self.pause()
            caller = self.rng.choice(self.callers)
            if caller.task is None or caller.task.done() or caller.cancelled_at is not None:
                continue
            for _ in range(self.rng.choice([1, 1, 1, 2, 3, 20])):
                if caller.task.done():
                    break
                caller.task.cancel()
                caller.cancelled_at = caller.cancelled_at or time.monotonic()
                self.report.cancels += 1
                if self.rng.random() < 0.6:
                    await asyncio.sleep(self.rng.choice([0.0, 0.0, 0.001]))

    async def crasher(self) -> None:
        async def crash(path: str) -> None:
            self.client.supervisor.kill(path, RuntimeError("planned"))

        while True:
            await asyncio.sleep(self.rng.choice([0.002, 0.01]))
            await self.client.run(crash, self.rng.choice(ACTORS))
            self.report.crashes += 1

    async def pause(self) -> None:
        if self.rng.random() < 0.5:
            for _ in range(self.rng.randint(1, 10)):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(self.rng.choice([0.001, 0.003, 0.008]))


def run_round(seed: int, setting: Setting) -> Report:
    """Run one round in a loop of its own, and look at what the loop, the interpreter and the threads say after it."""
    world = World(Random(seed), setting)
    factory = uvloop.new_event_loop if setting.loop == "uvloop" else None
    threads = set(threading.enumerate())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", world.complaints.append)
        with asyncio.Runner(debug=setting.loop == "debug", loop_factory=factory) as runner:
            runner.run(world.run())
        gc.collect()  # what nobody awaited, retrieved or closed says so now
    world.report.threads += len(set(threading.enumerate()) - threads)
    world.report.complaints += len(world.complaints)
    world.report.said = "; ".join(repr(complaint)[:500] for complaint in world.complaints[:3])
    return world.report


def run_rounds(setting: Setting, *, cancelled: int) -> Report:
    """Run rounds until so many calls have been cancelled; return what became of all calls."""
    total = Report()
    for seed in count():
        total.add(run_round(seed, setting))
        if total.cancelled >= cancelled or not total.clean:
            break
    return total
