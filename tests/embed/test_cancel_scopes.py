"""What asyncio and anyio cancel with: the right scope catches it, after the clean-up, and no cancellation is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial
from typing import TypeVar

import anyio
import anyio.lowlevel
import pytest
import trio
import uvloop

from tests.embed.hosts import Asyncio, bounded, nothing_held, our_threads
from tests.embed.test_same_everywhere import CALLER
from tests.models import DONE, Scripted, Seen, Turn, client_of, says
from wizard_actors import ResilientClient

T = TypeVar("T")

SLOW = Turn(("one ", 5.0, "two", DONE), closing=0.05)
LOOPS = [Asyncio("asyncio", asyncio.new_event_loop), Asyncio("uvloop", uvloop.new_event_loop)]

Ask = Callable[[ResilientClient], Coroutine[object, object, None]]


async def generate(client: ResilientClient) -> None:
    """Ask."""
    await client.generate("Why?")


async def read(client: ResilientClient) -> None:
    """Read a stream."""
    async with client.stream("Why?") as stream:
        async for _event in stream:
            pass


async def batch(client: ResilientClient) -> None:
    """Ask two at once, and wait for a third prompt."""

    async def prompts() -> AsyncIterator[str]:
        yield "Why?"
        yield "How?"
        await anyio.sleep(5.0)

    await client.generate_batch(prompts())


@pytest.fixture(params=LOOPS, ids=[loop.name for loop in LOOPS])
def loop(request: pytest.FixtureRequest) -> Asyncio:
    """Return one kind of asyncio loop after the other."""
    found: Asyncio = request.param
    return found


def within(loop: Asyncio, scenario: Callable[[ResilientClient, Scripted], Coroutine[object, object, None]]) -> None:
    """Run a scenario with a client of a slow model; afterwards nothing is held, and no cancellation is pending."""

    async def program() -> None:
        a = Scripted(SLOW)
        async with client_of(a) as client:
            await scenario(client, a)
            await still_here()
            assert a.in_flight == 0
            await nothing_held(client, a)

    with bounded():
        loop.run(program)
    assert our_threads() == []


async def limited(limit: asyncio.Timeout, work: Awaitable[None]) -> None:
    """Do `work` within a limit."""
    async with limit:
        await work


async def still_here() -> None:
    """The task that asks is not cancelled, and nothing is left over of that."""
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    for _ in range(3):
        await asyncio.sleep(0)


# -- asyncio's own -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [generate, read, batch])
def test_a_timeout_of_asyncio(loop: Asyncio, ask: Ask) -> None:
    """`asyncio.timeout` and `asyncio.wait_for` raise once the call has ended."""

    async def scenario(client: ResilientClient, a: Scripted) -> None:
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            await limited(asyncio.timeout(0.05), ask(client))
        assert a.in_flight == 0
        assert time.monotonic() - start < 1.0
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(client), 0.05)
        assert a.in_flight == 0

    within(loop, scenario)


@pytest.mark.parametrize("ask", [generate, read, batch])
def test_a_timeout_within_another(loop: Asyncio, ask: Ask) -> None:
    """The outer one expires while the call that the inner one has cancelled is cleaned up: it is the outer's."""

    async def scenario(client: ResilientClient, a: Scripted) -> None:
        outer, inner = asyncio.timeout(0.06), asyncio.timeout(0.04)
        with pytest.raises(TimeoutError):
            await limited(outer, limited(inner, ask(client)))
        assert (inner.expired(), outer.expired()) == (True, True)
        await still_here()
        outer = asyncio.timeout(1.0)
        with pytest.raises(TimeoutError):
            await limited(outer, limited(asyncio.timeout(0.04), ask(client)))
        assert not outer.expired()

    within(loop, scenario)


def test_a_task_group_that_fails(loop: Asyncio) -> None:
    """Its other tasks have ended their calls when it raises."""

    async def scenario(client: ResilientClient, a: Scripted) -> None:
        async def fail() -> None:
            await asyncio.sleep(0.04)
            raise ZeroDivisionError

        async def grouped() -> None:
            async with asyncio.TaskGroup() as group:
                for ask in (generate, read, batch):
                    group.create_task(ask(client))
                group.create_task(fail())

        task = asyncio.create_task(grouped())  # on Python 3.11 a group leaves its mark on the task that waits in it
        with pytest.raises(ExceptionGroup) as caught:
            await task
        assert a.in_flight == 0
        assert len(a.calls) == 4
        assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]

    within(loop, scenario)


# -- anyio's -----------------------------------------------------------------------------------------------------------

BACKENDS = [("trio", {}), ("asyncio", {}), ("asyncio", {"use_uvloop": True})]


@pytest.mark.parametrize(("backend", "options"), BACKENDS)
@pytest.mark.parametrize("ask", [generate, read, batch])
def test_the_scopes_of_anyio(backend: str, options: dict[str, object], ask: Ask) -> None:
    """`move_on_after`, `fail_after` and task groups, one within the other, on either backend."""

    async def scenario() -> None:
        a = Scripted(SLOW)
        async with client_of(a) as client:
            with anyio.move_on_after(0.03) as moved:
                await ask(client)
            assert (moved.cancelled_caught, a.in_flight) == (True, 0)
            with pytest.raises(TimeoutError), anyio.fail_after(0.03):
                await ask(client)
            assert a.in_flight == 0
            with anyio.move_on_after(0.05) as outer:
                with anyio.move_on_after(0.03):
                    await ask(client)
                await anyio.sleep(5.0)
            assert (outer.cancelled_caught, a.in_flight) == (True, 0)
            async with anyio.create_task_group() as group:
                group.start_soon(ask, client)
                group.start_soon(ask, client)
                await anyio.sleep(0.03)
                group.cancel_scope.cancel()
            assert a.in_flight == 0
            await anyio.sleep(0.01)
            await nothing_held(client, a)

    with bounded():
        anyio.run(scenario, backend=backend, backend_options=options)
    assert our_threads() == []


@pytest.mark.parametrize(("backend", "options"), BACKENDS)
def test_the_callers_backend_is_not_the_providers(backend: str, options: dict[str, object]) -> None:
    """Whatever a caller's context says of its own event loop, a provider finds Trio, in calls and in streams."""
    seen: list[str] = []

    async def look() -> None:
        await anyio.lowlevel.checkpoint()
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0)
        await anyio.to_thread.run_sync(time.sleep, 0)
        seen.append("Trio" if trio.lowlevel.in_trio_task() else "?")

    async def scenario() -> None:
        CALLER.set("anyio")
        found: list[str] = []

        def opened(_seen: Seen) -> None:
            found.append(CALLER.get() + anyio.get_cancelled_exc_class().__name__)

        async with client_of(Scripted(says("yes"), on_open=opened)) as client:
            await client.generate("Why?")
            await read(client)
            await client.run(look)
        assert found == ["anyioCancelled"] * 2

    with bounded():
        anyio.run(scenario, backend=backend, backend_options=options)
    assert seen == ["Trio"]


# -- one within the other ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [generate, read, batch])
def test_a_timeout_of_asyncio_outside_of_a_scope_of_anyio(loop: Asyncio, ask: Ask) -> None:
    """It expires during the clean-up under the inner scope, and is not lost: the task does not go on."""

    async def scenario(client: ResilientClient, a: Scripted) -> None:
        start = time.monotonic()
        outer = asyncio.timeout(0.06)

        async def goes_on() -> None:
            with anyio.move_on_after(0.04):
                await ask(client)
            await asyncio.sleep(5.0)

        with pytest.raises(TimeoutError):
            await limited(outer, goes_on())
        assert outer.expired()
        assert a.in_flight == 0
        assert time.monotonic() - start < 2.0

    within(loop, scenario)


@pytest.mark.parametrize("ask", [generate, read, batch])
def test_a_scope_of_anyio_outside_of_a_timeout_of_asyncio(loop: Asyncio, ask: Ask) -> None:
    """The inner timeout's error is raised; the outer scope has expired too, and the next wait finds that."""

    async def scenario(client: ResilientClient, a: Scripted) -> None:
        start = time.monotonic()
        with anyio.move_on_after(0.06) as outer:
            try:
                async with asyncio.timeout(0.04):
                    await ask(client)
            except TimeoutError:
                assert a.in_flight == 0
            await asyncio.sleep(5.0)
        assert outer.cancelled_caught
        assert a.in_flight == 0
        assert time.monotonic() - start < 2.0

    within(loop, scenario)


def test_a_task_that_is_cancelled_inside_of_a_scope_stays_cancelled(loop: Asyncio) -> None:
    """A scope that expires, and a cancel of the task during the clean-up: the task ends."""

    async def scenario(client: ResilientClient, a: Scripted) -> None:
        async def asks() -> None:
            with anyio.move_on_after(0.03):
                await client.generate("Why?")
            await asyncio.sleep(5.0)

        task = asyncio.create_task(asks())
        await asyncio.sleep(0.05)
        assert a.in_flight == 1
        task.cancel()
        start = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - start < 1.0
        assert a.in_flight == 0

    within(loop, scenario)


class Counting(asyncio.SelectorEventLoop):
    """A loop that counts its turns."""

    turns = 0

    def _run_once(self) -> None:
        self.turns += 1
        super()._run_once()  # type: ignore[misc]  # asyncio's own


@pytest.mark.parametrize("ask", [generate, read, batch])
def test_the_clean_up_under_a_scope_of_anyio_is_no_busy_loop(ask: Ask) -> None:
    """Anyio cancels anew at every turn of the loop whoever is in reach."""
    turns: list[int] = []

    async def scenario(client: ResilientClient, a: Scripted) -> None:
        counting = asyncio.get_running_loop()
        assert isinstance(counting, Counting)
        with anyio.CancelScope() as scope:

            async def cancel() -> None:
                while not (a.in_flight and a.calls[-1].opened):  # noqa: ASYNC110 - another thread changes it
                    await asyncio.sleep(0.002)
                turns.append(counting.turns)
                scope.cancel()

            task = asyncio.create_task(cancel())
            await ask(client)
        turns.append(counting.turns)
        await task

    within(Asyncio("counting", Counting), scenario)
    assert turns[1] - turns[0] < 25


# -- whose loop it is --------------------------------------------------------------------------------------------------


def test_two_loops_use_one_client_at_once(loop: Asyncio) -> None:
    """In two threads; each gets its answers, its streams and its cancellations."""

    async def scenario(client: ResilientClient, a: Scripted) -> None:
        a.turns = [says("one ", 0.01, "two")]

        async def program() -> int:
            done = 0
            for _ in range(10):
                done += (await client.generate("Why?")).text == "one two"
                async with client.stream("Why?") as stream:
                    done += [text async for text in stream.text()] == ["one ", "two"]
                with pytest.raises(TimeoutError):
                    await limited(asyncio.timeout(0.003), generate(client))
            return done

        counts = await asyncio.gather(program(), *[asyncio.to_thread(partial(loop.run, program)) for _ in range(2)])
        assert counts == [20, 20, 20]

    within(loop, scenario)
