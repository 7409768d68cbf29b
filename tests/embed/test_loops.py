"""Loops that close, clients that nobody holds, callers that are in the wrong place, and a thread that dies."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import pytest
import trio

from tests.embed.programs import run
from tests.models import DONE, Scripted, Seen, Turn, model, says
from wizard_actors import ActorStoppedError, ResilientClient, UnsupportedError, WizardConfig
from wizard_actors.blocking import BlockingClient
from wizard_actors.config import RetryConfig, ServerConfig, StreamConfig, TimeoutsConfig
from wizard_actors.events import Event
from wizard_actors.providers.base import Answer, Call

LONG = 60.0


def config(*, consumer_idle: float = LONG, total: float = LONG) -> WizardConfig:
    """Return the configuration of one model, which may take its time."""
    return WizardConfig(
        models=[model(timeouts=TimeoutsConfig(first_token=total, total=total), retry=RetryConfig(max_attempts=1))],
        server=ServerConfig(drain_timeout=0.5),
        stream=StreamConfig(consumer_idle=consumer_idle),
    )


def eventually(true: Callable[[], object], seconds: float = 5.0) -> bool:
    """Wait until something is true, for so long at most, and say whether it is."""
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:
        time.sleep(0.005)
    return bool(true())


def hosts() -> list[str]:
    """Return the names of the threads that clients live in."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("wizard_actors")]


async def closed(block: AbstractAsyncContextManager[ResilientClient]) -> None:
    """Leave a block that was entered elsewhere."""
    await block.__aexit__(None, None, None)


@contextmanager
def by_hand(provider: Scripted, settings: WizardConfig) -> Iterator[tuple[asyncio.AbstractEventLoop, ResilientClient]]:
    """Open a client in a loop that the test closes itself; it is closed in another one."""
    block = ResilientClient.open(settings, providers={"a": provider})
    loop = asyncio.new_event_loop()
    try:
        yield loop, loop.run_until_complete(block.__aenter__())
    finally:
        loop.close()
        asyncio.run(closed(block))
    assert hosts() == []


# -- loops -------------------------------------------------------------------------------------------------------------


def test_a_client_outlives_the_loop_that_opened_it() -> None:
    """Any other loop may use it, and close it."""
    with by_hand(Scripted(says("Hello")), config()) as (loop, client):
        loop.close()

        async def ask() -> list[str]:
            async with client.stream("Why?", cache="bypass") as stream:
                read = [text async for text in stream.text()]
            return [(await client.generate("Why?")).text, *read]

        assert asyncio.run(ask()) == ["Hello", "Hello"]
        assert asyncio.run(ask()) == ["Hello", "Hello"]


def test_two_loops_use_one_client_at_once() -> None:
    """Each is woken by what is its own."""
    with by_hand(Scripted(says("Hello", 0.001, " you")), config()) as (_loop, client):
        answers: list[str] = []

        async def ask() -> None:
            answers.extend([(await client.generate("Why?", cache="bypass")).text for _ in range(20)])

        threads = [threading.Thread(target=asyncio.run, args=(ask(),)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == ["Hello you"] * 40


def test_a_call_whose_loop_is_closed_under_it_ends_by_its_timeouts() -> None:
    """Nobody is left to cancel it, nor to be told; it holds its slot no longer than it may."""
    a = Scripted(Turn(head=LONG))
    with by_hand(a, config(total=0.3)) as (loop, client):
        waiting = loop.create_task(swallowed(client.generate("Why?")))
        loop.run_until_complete(until(lambda: a.in_flight))
        loop.close()

        assert eventually(lambda: not a.in_flight, 3.0)
        assert eventually(lambda: not client.supervisor.outstanding, 3.0)

        forget(waiting)


async def until(true: Callable[[], object]) -> None:
    """Wait until something is true."""
    while not true():  # noqa: ASYNC110 - it is true in another thread
        await asyncio.sleep(0.001)


async def swallowed(call: object) -> None:
    """Wait for a call in a task."""
    await call  # type: ignore[misc]  # it is a coroutine


def forget(task: asyncio.Task[None]) -> None:
    """Keep asyncio from complaining of a task that is thrown away: that is what the test does."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own, and the only way


@pytest.mark.parametrize("how", ["waiting", "not reading"])
def test_a_stream_whose_loop_is_closed_does_not_go_on_for_ever(how: str) -> None:
    """The next event finds nobody to wake; or the pipe is full, and nobody reads for `consumer_idle` seconds."""
    steps = ["word ", 0.2, "word ", LONG] if how == "waiting" else ["word "] * 1000
    a = Scripted(Turn((*steps, DONE)))
    with by_hand(a, config(consumer_idle=0.3)) as (loop, client):
        stream = client.stream("Why?")
        loop.run_until_complete(stream.__aenter__())
        loop.run_until_complete(anext(stream))
        waiting = loop.create_task(swallowed(anext(stream))) if how == "waiting" else None
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()

        assert eventually(lambda: not a.in_flight, 3.0)

        if waiting is not None:
            forget(waiting)


def test_a_client_under_anyio_calls_a_provider_that_uses_anyio() -> None:
    """What anyio finds out of the caller's context does not follow into the thread that runs Trio."""

    class Napping(Scripted):
        @asynccontextmanager
        async def open(self, call: Call) -> AsyncIterator[Answer]:
            await anyio.sleep(0.001)
            async with super().open(call) as answer:
                yield answer

    async def main() -> str:
        async with ResilientClient.open(config(), providers={"a": Napping(says("Hello"))}) as client:
            return (await client.generate("Why?")).text

    assert anyio.run(main, backend="asyncio") == "Hello"
    assert anyio.run(main, backend="trio") == "Hello"


def test_numbers_and_tree_can_be_read_after_the_end() -> None:
    """What was counted is not lost with the thread."""
    client = BlockingClient.open(config(), providers={"a": Scripted(says("Hello"))})
    client.generate("Why?")
    client.close()

    assert client.metrics().requests.began == 1
    assert str(client.tree().state) == "stopped"


# -- clients that nobody holds -----------------------------------------------------------------------------------------


def test_a_blocking_client_that_nobody_holds_is_stopped_with_a_warning() -> None:
    """Its thread ends, and the line is told."""
    client = BlockingClient.open(config(), providers={"a": Scripted(says("Hello"))})
    client.generate("Why?")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        del client
        gc.collect()

    assert [(warning.category, warning.filename) for warning in told] == [(RuntimeWarning, __file__)]
    assert eventually(lambda: not hosts())


def test_an_asyncio_client_that_nobody_holds_is_stopped_with_a_warning() -> None:
    """Also while the loop goes on."""

    async def main() -> None:
        client = await ResilientClient.open(config(), providers={"a": Scripted(says("Hello"))}).__aenter__()
        await client.generate("Why?")
        del client
        gc.collect()
        await until(lambda: not hosts())

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        asyncio.run(main())
    assert [(warning.category, warning.filename) for warning in told] == [(RuntimeWarning, __file__)]


def test_a_stream_that_is_held_keeps_its_client() -> None:
    """It can be read to its end, and with it the last hold is gone."""
    stream = BlockingClient.open(config(), providers={"a": Scripted(says(*["word "] * 50))}).stream("Why?")
    gc.collect()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with stream:
            gc.collect()
            text = "".join(stream.text())
            assert not told
        del stream
        assert eventually(lambda: gc.collect() >= 0 and told)  # the thread may hold its last call for a moment
    assert (len(text), len(told)) == (250, 1)
    assert eventually(lambda: not hosts())


def test_a_closed_client_is_freed() -> None:
    """Nothing keeps it: no thread, no hook for the end of the program."""
    client = BlockingClient.open(config(), providers={"a": Scripted(says("Hello"))})
    client.generate("Why?")
    client.close()
    held = weakref.ref(client), weakref.ref(client._host._thread)
    del client

    assert eventually(lambda: gc.collect() >= 0 and not any(one() for one in held))


# -- callers in the wrong place ----------------------------------------------------------------------------------------


def test_a_listener_that_waits_for_its_own_client_is_refused() -> None:
    """It runs in the client's thread, which would wait for itself; looking is allowed."""
    client = BlockingClient.open(config(), providers={"a": Scripted(says("Hello"))})
    said: list[object] = []

    def listener(_event: Event) -> None:
        if said:
            return
        said.append(client.tree().state)
        said.append(client.metrics().requests.began)
        for call in (lambda: client.generate("Why?"), lambda: list(client.stream("?").__enter__()), client.close):
            try:
                call()
            except UnsupportedError as error:
                said.append(str(error))

    client.events.listen(listener)
    with client:
        assert client.generate("Why?").text == "Hello"
    state, began, *errors = said
    assert (str(state), began) == ("running", 1)
    assert len(errors) == 3
    assert all("called from its own thread" in str(error) and __file__ in str(error) for error in errors)


def test_a_provider_that_asks_the_client_it_serves_is_refused() -> None:
    """The error is the call's; nobody hangs."""
    said: list[str] = []

    def asked(_seen: Seen) -> None:
        try:
            client.generate("Why?")
        except UnsupportedError as error:
            said.append(str(error))

    with BlockingClient.open(config(), providers={"a": Scripted(says("Hello"), on_open=asked)}) as client:
        assert client.generate("Why?").text == "Hello"
    assert len(said) == 1
    assert "called from its own thread" in said[0]


def test_a_client_of_asyncio_is_refused_under_trio() -> None:
    """With a word on what to do, whatever is asked of it."""

    async def wrong(client: ResilientClient) -> list[str]:
        said = []
        for call in (client.generate("Why?"), client.warm(["Why?"]), anext(client.stream("?").__aiter__())):
            try:
                await call
            except Exception as error:  # noqa: BLE001 - which it is, the test looks at
                said.append(f"{type(error).__name__}: {error}")
        return said

    async def main() -> list[str]:
        async with ResilientClient.open(config(), providers={"a": Scripted(says("Hello"))}) as client:
            said = await asyncio.to_thread(trio.run, wrong, client)
            assert (await client.generate("Why?")).text == "Hello"
            return said

    said = asyncio.run(main())
    assert len(said) == 3
    assert all(one.startswith("UnsupportedError: the client opened at") for one in said[:2])
    assert said[2].startswith("InvalidStateTransitionError")  # outside of its block


# -- a thread that dies ------------------------------------------------------------------------------------------------

DYING = """
import trio._core._run as trio_run
from trio._core._io_epoll import EpollIOManager

get_events, expire, doomed = EpollIOManager.get_events, trio_run.Deadlines.expire, threading.Event()

def waking(self, timeout):
    if doomed.is_set() and {where!r} == "outside":
        raise KeyError("the end")
    return get_events(self, min(timeout, 0.05))

def expiring(self, now):
    if doomed.is_set():
        raise KeyError("the end")
    return expire(self, now)

EpollIOManager.get_events, trio_run.Deadlines.expire = waking, expiring

def failed(error):
    ours = "the thread of the client ended" in str(error) and error.__cause__ is not None
    sys.stdout.write(f"{{type(error).__name__}} {{ours}}\\n")
"""
FAILED = "SupervisorError True"


@pytest.mark.parametrize("where", ["outside", "inside"])
def test_a_thread_that_dies_fails_everybody_and_hangs_nobody(where: str, tmp_path: Path) -> None:
    """Whoever waits in a call or a stream, whoever comes later, and whoever closes."""
    ended = run(
        tmp_path,
        DYING.format(where=where)
        + """
def attempt(function):
    try:
        function()
    except WizardError as error:
        failed(error)

def use():
    client = BlockingClient.open(CONFIG, providers=slow())
    waiting = [threading.Thread(target=attempt, args=(lambda: client.generate("Why?"),)) for _ in range(2)]
    for thread in waiting:
        thread.start()
    time.sleep(0.2)
    with client.stream("Why?") as stream:
        next(stream)
        doomed.set()
        attempt(lambda: next(stream))
    for thread in waiting:
        thread.join()
    attempt(lambda: client.generate("Why?"))
    attempt(lambda: client.generate_batch(["Why?"]))
    client.tree()
    attempt(client.close)

use()
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what Trio left lying there may complain
last()
""",
        options=("-W", "ignore"),
    )

    assert ended.code == 0
    assert ended.out == ["asked"] * 3 + [FAILED] * 6
    assert ended.seconds < 1.0


@pytest.mark.parametrize("where", ["outside", "inside"])
def test_so_it_does_under_asyncio(where: str, tmp_path: Path) -> None:
    """Also whoever is cancelled just then."""
    ended = run(
        tmp_path,
        DYING.format(where=where)
        + """
async def main():
    block = ResilientClient.open(CONFIG, providers=slow())
    client = await block.__aenter__()
    calls = [asyncio.create_task(client.generate("Why?")) for _ in range(3)]
    await asyncio.sleep(0.2)
    async with client.stream("Why?") as stream:
        await anext(stream)
        doomed.set()
        time.sleep(0.2)
        calls[2].cancel()
        for error in await asyncio.gather(*calls[:2], anext(stream), return_exceptions=True):
            failed(error)
        print((await asyncio.gather(calls[2], return_exceptions=True))[0].__class__.__name__)
    for late in (client.generate("Why?"), client.run(asyncio.sleep, 0), block.__aexit__(None, None, None)):
        try:
            await late
        except WizardError as error:
            failed(error)

asyncio.run(main())
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what Trio left lying there may complain
last()
""",
        options=("-W", "ignore"),
    )

    assert ended.code == 0, ended.err
    assert ended.out == [
        *["asked"] * 4,
        *[FAILED] * 3,
        "CancelledError",
        *[FAILED] * 3,
    ]
    assert ended.seconds < 1.0


def test_a_call_in_flight_at_the_end_fails_in_order() -> None:
    """One that outlasts the drain is stopped, whatever it waits in: its error is a client's, and no Trio's."""
    failures: list[BaseException] = []
    client = BlockingClient.open(config(), providers={"a": Scripted(Turn(head=LONG))})

    async def in_a_nursery() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, LONG)

    def attempt(call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - which it is, the test looks at
            failures.append(error)

    calls: list[Callable[[], object]] = [lambda: client.generate("Why?"), lambda: client.run(in_a_nursery)]
    threads = [threading.Thread(target=attempt, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    client.close()
    for thread in threads:
        thread.join()

    assert [type(error) for error in failures] == [ActorStoppedError, ActorStoppedError]
