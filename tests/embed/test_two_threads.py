"""What two threads or tasks do to one client, stream or subscription at once."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import TypeVar

import anyio
import anyio.lowlevel
import pytest
import trio

from tests.embed.hosts import bounded
from tests.models import Scripted, model, says
from wizard_actors import (
    ActorStoppedError,
    BlockingClient,
    InvalidPromptError,
    ResilientClient,
    SupervisorError,
    WizardConfig,
    WizardResponse,
)
from wizard_actors.bells import under_asyncio
from wizard_actors.embed.call import Call
from wizard_actors.event_stream import EventStream
from wizard_actors.events import RequestBegan

CONFIG = WizardConfig(models=[model("a")])
LATE = 30.0
T = TypeVar("T")


def blocking(*steps: str | float) -> BlockingClient:
    """Return a client of one model that says `steps`."""
    return BlockingClient.open(CONFIG, providers={"a": Scripted(says(*steps))})


async def read_one(stream: AsyncIterator[T]) -> T:
    """Read on."""
    return await anext(stream)


def test_a_stream_that_another_thread_leaves_ends_for_its_reader() -> None:
    """As by a Stop button: both go on, and the client is open as before."""
    errors: list[Exception] = []

    def read() -> None:
        try:
            next(stream)
        except ActorStoppedError as error:
            errors.append(error)

    with bounded(), blocking("one", LATE, "two") as client:
        stream = client.stream("Why?")
        with stream:
            next(stream)
            reader = threading.Thread(target=read)
            reader.start()
            while not stream._source._bell._rings.empty():  # type: ignore[union-attr]  # until the reader waits
                pass
        reader.join()
        assert [str(error) for error in errors] == ["the call was cancelled, by another task or thread"]
        assert client.tree().state == "running"


def test_a_stream_that_another_task_leaves_ends_for_its_reader() -> None:
    """Leaving returns once the call is over, and the reader is told."""

    async def main() -> None:
        a = Scripted(says("one", LATE, "two"))
        async with ResilientClient.open(CONFIG, providers={"a": a}) as client:
            stream = client.stream("Why?")
            async with stream:
                await anext(stream)
                reader = asyncio.create_task(read_one(stream))
                await asyncio.sleep(0.05)
            assert a.in_flight == 0
            with pytest.raises(ActorStoppedError, match="by another task"):
                await reader

    with bounded():
        asyncio.run(main())


def test_a_stream_has_one_reader_at_a_time() -> None:
    """The second one is told; the first gets its event."""

    async def main() -> None:
        providers = {"a": Scripted(says("one", 0.1, "two"))}
        async with ResilientClient.open(CONFIG, providers=providers) as client, client.stream("Why?") as stream:
            await anext(stream)
            reader = asyncio.create_task(read_one(stream))
            await asyncio.sleep(0.02)
            with pytest.raises(RuntimeError, match="reads this stream already"):
                await anext(stream)
            assert "two" in str(await reader)

    with bounded():
        asyncio.run(main())


def test_a_closed_client_may_be_closed_again_from_any_thread() -> None:
    """The number of its thread, which has ended, may be another thread's by now."""
    said: list[str] = []
    client = blocking("one")
    client.close()

    def late() -> None:
        client.close()
        try:
            client.generate("Why?")
        except ActorStoppedError as error:
            said.append(str(error))

    for _ in range(20):
        thread = threading.Thread(target=late)
        thread.start()
        thread.join()
    assert said == ["the client is closed: it takes no more requests"] * 20


@pytest.mark.parametrize("error", [asyncio.CancelledError, pytest.fail.Exception], ids=["cancelled", "failed"])
def test_a_progress_that_raises_no_exception_ends_the_batch_too(error: type[BaseException]) -> None:
    """Such as what `pytest.fail` raises: asyncio's loop would swallow it, and nobody would be woken."""

    def progress(_done: int, _total: int | None) -> None:
        raise error

    async def main() -> None:
        async with ResilientClient.open(CONFIG, providers={"a": Scripted()}) as client:
            with pytest.raises(error):
                await client.generate_batch(["Why?", "Who?"], on_progress=progress, max_concurrency=1)

    with bounded():
        asyncio.run(main())


def test_prompts_may_keep_a_scope_open_between_two_items() -> None:
    """As a generator over a connection does; also where the batch fails half-way."""

    async def prompts() -> AsyncIterator[str]:
        with anyio.fail_after(5):
            for number in range(3):
                await anyio.lowlevel.checkpoint()
                yield str(number)  # noqa: ASYNC101, ASYNC119 - it is what is tested

    def progress(done: int, _total: int | None) -> None:
        if done == 2:
            raise KeyError(done)

    async def main() -> None:
        async with ResilientClient.open(CONFIG, providers={"a": Scripted()}) as client:
            outcomes = await client.generate_batch(prompts())
            assert [type(outcome) for outcome in outcomes] == [WizardResponse] * 3
            items = prompts()
            with pytest.raises(KeyError):
                await client.generate_batch(items, on_progress=progress, max_concurrency=1)
        current = asyncio.current_task()
        assert current is not None
        assert current.cancelling() == 0

    with bounded():
        asyncio.run(main())


def test_progress_is_no_async_function() -> None:
    """Nobody would await it: it is refused before anything is asked."""

    async def progress(_done: int, _total: int | None) -> None:
        """Never awaited."""

    a = Scripted()
    with (
        BlockingClient.open(CONFIG, providers={"a": a}) as client,
        pytest.raises(TypeError, match="on_progress is a plain function"),
    ):
        client.generate_batch(["Why?"], on_progress=progress)  # type: ignore[arg-type]  # the mistake
    assert a.calls == []


@pytest.mark.parametrize("run", [trio.run, asyncio.run], ids=["trio", "asyncio"])
def test_awaitable_prompts_are_no_prompts(run: object) -> None:
    """In any host, a list of them is a list of mistakes."""

    class Promise:
        def __await__(self) -> Iterator[object]:
            yield None

    async def main() -> None:
        async with ResilientClient.open(CONFIG, providers={"a": Scripted()}) as client:
            [outcome] = await client.generate_batch([Promise()])  # type: ignore[list-item]  # the mistake
            assert isinstance(outcome, InvalidPromptError)
            assert under_asyncio() == (run is asyncio.run)

    with bounded():
        if run is trio.run:
            trio.run(main)
        else:
            asyncio.run(main())


def test_what_is_drained_in_another_thread_is_complete() -> None:
    """Every event is drained, or counted as dropped, while others are published."""
    stream, total, drained = EventStream(), 50_000, 0
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with stream.subscribe(bound=100) as told:
            event = RequestBegan(0.0, "id", "wizard", "sequential")

            def publish() -> None:
                for _ in range(total):
                    stream.publish(event)

            publisher = threading.Thread(target=publish)
            publisher.start()
            while publisher.is_alive():
                drained += len(told.drain())
            drained += len(told.drain())
            assert drained + told.dropped == total
    finally:
        sys.setswitchinterval(interval)


def test_a_loop_that_stands_still_is_rung_once() -> None:
    """A subscriber in a notebook between two cells gathers events up to its bound, and nothing else."""
    stream, posted = EventStream(), 0

    async def main() -> None:
        nonlocal posted
        loop = asyncio.get_running_loop()
        post = loop.call_soon_threadsafe

        def counted(*args: object, **options: object) -> object:
            nonlocal posted
            posted += 1
            return post(*args, **options)  # type: ignore[arg-type]  # passed on as it came

        loop.call_soon_threadsafe = counted  # type: ignore[assignment, method-assign]  # counted
        with stream.subscribe(bound=10) as told:
            reader = asyncio.create_task(read_one(told))
            await asyncio.sleep(0)
            for _ in range(1000):  # the loop stands still
                stream.publish(RequestBegan(0.0, "id", "wizard", "sequential"))
            await reader
            assert len(told.drain()) == 9

    asyncio.run(main())
    assert posted == 1


def test_a_stream_leaves_no_circle_behind() -> None:
    """A client that nobody holds is gone at once, and not when garbage is collected."""

    def use(client: BlockingClient) -> None:
        with client.stream("Why?") as stream:
            list(stream)

    def calls() -> list[int]:
        return [id(each) for each in gc.get_objects() if isinstance(each, Call) and id(each) not in known]

    gc.collect()
    gc.disable()
    known: set[int] = set()
    known.update(calls())
    try:
        with blocking("one", "two") as client:
            for _ in range(5):
                use(client)
            until = time.monotonic() + 5
            while calls() and time.monotonic() < until:  # the client's thread may be at the last one still
                time.sleep(0.01)
            assert calls() == []
            host = weakref.ref(client._host)
        del client
        assert host() is None
    finally:
        gc.enable()


def test_everybody_gets_an_error_of_their_own() -> None:
    """What one caller's handling adds to it, another one does not see."""
    client = blocking("one")

    async def give_up() -> None:
        client.supervisor.give_up(RuntimeError("planted"))

    client.run(give_up)
    errors = []
    for _ in range(3):
        with pytest.raises(SupervisorError, match="planted") as caught:
            client.close()
        errors.append(caught.value)
    assert len({id(error) for error in errors}) == 3
    assert all(isinstance(error.__cause__, RuntimeError) for error in errors)
