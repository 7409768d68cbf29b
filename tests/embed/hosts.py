"""Where programs run that use a client: Trio, asyncio, uvloop, plain threads. Real time in all of them.

A `Host` is what a behaviour needs of the place in which it is run, whatever that is.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import copy_context
from functools import wraps
from random import Random
from types import FrameType
from typing import Generic, ParamSpec, TypedDict, TypeVar, Unpack, cast

import trio
import uvloop
from attrs import evolve

from tests.embed.blocking import Awaited, drive
from tests.models import Scripted, assert_nothing_held, model
from wizard_actors import BlockingClient, ModelConfig, ResilientClient, WizardConfig
from wizard_actors.config import (
    BatchConfig,
    CacheConfig,
    RouteConfig,
    ServerConfig,
    StreamConfig,
    SupervisionConfig,
)
from wizard_actors.event_stream import EventStream, Subscription
from wizard_actors.events import Event
from wizard_actors.providers.base import Provider

T = TypeVar("T")
P = ParamSpec("P")


PATIENCE = 15
"""Seconds after which a test is stuck."""

stuck_threads: set[str] = set()
"""What such tests have left behind: it is their failure, and not the next one's."""


class Tables(TypedDict, total=False):
    """The tables of a configuration, beside its models."""

    fallback: RouteConfig
    cache: CacheConfig
    batch: BatchConfig
    stream: StreamConfig
    server: ServerConfig
    supervision: SupervisionConfig


class Cut(Exception):  # noqa: N818 - an outcome
    """What came of a task that was cancelled."""


class Task(ABC, Generic[T]):
    """What runs beside a block: `outcome` once it is over, `Cut` where it was cancelled."""

    def __init__(self) -> None:
        self.outcome: T | BaseException | None = None
        self.over = False

    @abstractmethod
    def cancel(self) -> None:
        """Cancel it, or cancel it once more."""

    def ended(self, outcome: T | BaseException) -> None:
        """Note what came of it."""
        self.outcome, self.over = outcome, True

    def result(self) -> T:
        """Return what it returned, or raise what it raised."""
        assert self.over
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return cast("T", self.outcome)

    @property
    def error(self) -> BaseException:
        """What it raised."""
        assert self.over
        assert isinstance(self.outcome, BaseException), self.outcome
        return self.outcome


class Host(ABC):
    """A place in which programs run."""

    name: str
    cancels = True
    """Whether tasks there can be cancelled: threads cannot."""

    @abstractmethod
    def run(self, program: Callable[[], Coroutine[object, object, T]]) -> T:
        """Run a program from its begin to its end."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Wait."""

    @abstractmethod
    def beside(self, work: Callable[[], Awaitable[T]]) -> AbstractAsyncContextManager[Task[T]]:
        """Run `work` beside a block, which is left once it is over."""

    @abstractmethod
    def here(self) -> object:
        """Return the task, or thread, that asks."""

    def enter(
        self,
        config: WizardConfig | str,
        *,
        providers: Mapping[str, Provider] | None = None,
        events: EventStream | None = None,
    ) -> AbstractAsyncContextManager[ResilientClient]:
        """Open a client."""
        return ResilientClient.open(config, rng=Random(1), providers=providers, events=events)

    def open(
        self,
        providers: Mapping[str, Provider] | Provider,
        *models: ModelConfig,
        events: EventStream | None = None,
        **tables: Unpack[Tables],
    ) -> AbstractAsyncContextManager[ResilientClient]:
        """Open a client of `providers` by name, or of one named "a"; models that are not given are `model(name)`."""
        by_name = providers if isinstance(providers, Mapping) else {"a": providers}
        config = WizardConfig(models=models or [model(name) for name in by_name])
        return self.enter(evolve(config, **tables), providers=by_name, events=events)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what happens elsewhere, at most 5 s."""
        end = time.monotonic() + 5.0
        while not condition():  # noqa: ASYNC110 - other threads change it, and tell nobody
            assert time.monotonic() < end, "it did not happen within 5 s"
            await self.sleep(0.001)

    async def together(self, *works: Callable[[], Awaitable[T]]) -> list[Task[T]]:
        """Run all at once, and return what became of them."""
        tasks: list[Task[T]] = []

        async def rest(index: int) -> None:
            if index < len(works):
                async with self.beside(works[index]) as task:
                    tasks.append(task)
                    await rest(index + 1)

        await rest(0)
        return tasks

    async def heard(self, told: Subscription, last: type[Event]) -> list[Event]:
        """Read events as they come, up to the first of the type `last`."""
        events = []
        async for event in told:
            events.append(event)
            if isinstance(event, last):
                return events
        raise AssertionError("the subscription ended before that")


class _TrioTask(Task[T]):
    def __init__(self) -> None:
        super().__init__()
        self._scope = trio.CancelScope()

    def cancel(self) -> None:
        self._scope.cancel()

    async def run(self, work: Callable[[], Awaitable[T]]) -> None:
        with self._scope:
            try:
                self.ended(await work())
            except Exception as error:  # noqa: BLE001 - for the test to judge
                self.ended(error)
        if self._scope.cancelled_caught:
            self.ended(Cut())


class Trio(Host):
    """Trio itself: the client lives in the event loop of its users."""

    name = "trio"

    def run(self, program: Callable[[], Coroutine[object, object, T]]) -> T:
        return trio.run(program)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    @asynccontextmanager
    async def beside(self, work: Callable[[], Awaitable[T]]) -> AsyncIterator[Task[T]]:
        task = _TrioTask[T]()
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task.run, work)
            try:
                yield task
            except Exception as error:  # noqa: BLE001 - raised below, not in a group
                failure = error
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    def here(self) -> object:
        return trio.lowlevel.current_task()


class _AsyncioTask(Task[T]):
    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        super().__init__()
        self.task = asyncio.create_task(self._run(work))

    def cancel(self) -> None:
        self.task.cancel()

    async def wait(self) -> None:
        """Wait for its end."""
        await asyncio.wait([self.task])
        if self.task.cancelled():  # before it began
            self.ended(Cut())

    async def _run(self, work: Callable[[], Awaitable[T]]) -> None:
        try:
            self.ended(await work())
        except asyncio.CancelledError:  # noqa: ASYNC103 - for the test to judge
            self.ended(Cut())
        except BaseException as error:  # noqa: BLE001 - for the test to judge
            self.ended(error)


class Asyncio(Host):
    """An asyncio loop: the client lives in a thread of its own. What the loop has to complain of fails the program."""

    def __init__(self, name: str, make: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.name = name
        self._make = make

    def run(self, program: Callable[[], Coroutine[object, object, T]]) -> T:
        complaints: list[Mapping[str, object]] = []
        with asyncio.Runner(loop_factory=self._make) as runner:
            runner.get_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
            value = runner.run(self._watched(program))
        assert complaints == []
        return value

    async def _watched(self, program: Callable[[], Coroutine[object, object, T]]) -> T:
        value = await program()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return value

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    @asynccontextmanager
    async def beside(self, work: Callable[[], Awaitable[T]]) -> AsyncIterator[Task[T]]:
        task = _AsyncioTask(work)
        try:
            yield task
        except BaseException:
            task.cancel()
            raise
        finally:
            await task.wait()

    def here(self) -> object:
        return asyncio.current_task()


class _ThreadTask(Task[T]):
    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        super().__init__()

        async def program() -> T:
            return await work()

        def main() -> None:
            try:
                self.ended(drive(program()))
            except BaseException as error:  # noqa: ASYNC103, BLE001 - for the test to judge
                self.ended(error)

        self.thread = threading.Thread(target=copy_context().run, args=(main,))

    def cancel(self) -> None:
        raise AssertionError("a thread cannot be cancelled")


class Threads(Host):
    """Plain threads, with a `BlockingClient`."""

    name = "threads"
    cancels = False

    def run(self, program: Callable[[], Coroutine[object, object, T]]) -> T:
        return drive(program())

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - there is no loop here

    @asynccontextmanager
    async def beside(self, work: Callable[[], Awaitable[T]]) -> AsyncIterator[Task[T]]:
        task = _ThreadTask(work)
        task.thread.start()
        try:
            yield task
        finally:
            task.thread.join()

    def here(self) -> object:
        return threading.current_thread()

    @asynccontextmanager
    async def enter(
        self,
        config: WizardConfig | str,
        *,
        providers: Mapping[str, Provider] | None = None,
        events: EventStream | None = None,
    ) -> AsyncIterator[ResilientClient]:
        with BlockingClient.open(config, rng=Random(1), providers=providers, events=events) as client:
            yield cast("ResilientClient", Awaited(client))  # for what a test does with it, it is one

    async def heard(self, told: Subscription, last: type[Event]) -> list[Event]:
        events: list[Event] = []

        def read() -> bool:
            events.extend(told.drain())
            return any(isinstance(event, last) for event in events)

        await self.until(read)
        return events


HOSTS: tuple[Host, ...] = (
    Trio(),
    Asyncio("asyncio", asyncio.new_event_loop),
    Asyncio("uvloop", uvloop.new_event_loop),
    Threads(),
)


@contextmanager
def bounded() -> Iterator[None]:
    """Interrupt a test that hangs: there are real threads to wait for."""

    def stuck(_number: int, _frame: FrameType | None) -> None:
        stuck_threads.update(our_threads())
        raise AssertionError(f"stuck for {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, stuck)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE, 0.5)  # again and again: who waits for an end waits on, once
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def everywhere(test: Callable[P, Coroutine[object, object, None]]) -> Callable[P, None]:
    """Make a test of a behaviour: run in whichever host it is given, and nothing of ours is left running."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        host = next(value for value in kwargs.values() if isinstance(value, Host))
        with bounded():
            host.run(lambda: test(*args, **kwargs))
        assert our_threads() == []

    return run


def our_threads() -> list[str]:
    """Return the names of the threads in which clients live, but for those that an earlier test has left stuck."""
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("wizard_actors")]
    return [name for name in names if name not in stuck_threads]


async def nothing_held(client: ResilientClient, *models: Scripted) -> None:
    """Everything granted has been given back, and no exchange is open."""
    await client.run(assert_nothing_held, client, *models)


async def took(work: Awaitable[object]) -> float:
    """Return for how many seconds `work` went on."""
    start = time.monotonic()
    await work
    return time.monotonic() - start
