"""Bells: a ring is never lost, from whatever thread, and one that nobody can hear says so."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable

import pytest
import trio
import trio.testing
import uvloop

from wizard_actors.asyncio_bell import AsyncioBell
from wizard_actors.bells import ThreadBell, TrioBell, bell_here, under_asyncio

LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
Factory = Callable[[], asyncio.AbstractEventLoop]


def from_a_thread(ring: Callable[[], object]) -> None:
    """Ring in another thread, and wait until that is done."""
    thread = threading.Thread(target=ring)
    thread.start()
    thread.join()


# -- Trio --------------------------------------------------------------------------------------------------------------


async def test_a_ring_before_the_wait_ends_it_at_once_under_trio(autojump_clock: trio.testing.MockClock) -> None:
    """And one wait uses up all that came before it."""
    bell = TrioBell()
    bell.ring()
    bell.ring()
    await bell.heard()
    with trio.move_on_after(1.0) as scope:
        await bell.heard()
    assert scope.cancelled_caught


async def test_a_ring_in_the_same_thread_is_heard_in_this_very_batch() -> None:
    """The order of things is that of a program."""
    bell = TrioBell()
    assert bell.ring()
    assert bell._rung.is_set()


async def test_a_ring_from_another_thread_is_heard_under_trio() -> None:
    """Before the wait, and during it."""
    bell = TrioBell()
    await trio.to_thread.run_sync(bell.ring)
    await bell.heard()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, bell.ring)
        await bell.heard()


def test_a_ring_into_another_run_is_heard_there() -> None:
    """A thread that runs Trio itself rings the bell of another one."""
    made: list[TrioBell] = []
    ready = threading.Event()

    async def wait() -> None:
        made.append(TrioBell())
        ready.set()
        with trio.fail_after(5.0):
            await made[0].heard()

    async def ring() -> bool:
        return made[0].ring()

    thread = threading.Thread(target=trio.run, args=(wait,))
    thread.start()
    ready.wait()
    assert trio.run(ring)
    thread.join()


def test_a_bell_of_a_run_that_is_over_says_so() -> None:
    """Nobody can hear it any more."""

    async def make() -> TrioBell:
        return TrioBell()

    assert trio.run(make).ring() is False


# -- asyncio -----------------------------------------------------------------------------------------------------------


@LOOPS
def test_a_ring_from_another_thread_is_heard_under_asyncio(loop: Factory) -> None:
    """Before the wait, and during it; two rings are one."""

    async def main() -> None:
        bell = AsyncioBell()
        from_a_thread(bell.ring)
        from_a_thread(bell.ring)
        await asyncio.sleep(0)
        await bell.heard()
        timer = threading.Timer(0.01, bell.ring)
        timer.start()
        async with asyncio.timeout(5.0):
            await bell.heard()
        timer.join()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


@LOOPS
def test_a_wait_that_is_cancelled_loses_no_ring(loop: Factory) -> None:
    """It came in the same turn of the loop as the cancel: the next wait ends at once."""

    async def main() -> None:
        bell = AsyncioBell()
        task = asyncio.create_task(bell.heard())
        await asyncio.sleep(0)
        from_a_thread(bell.ring)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        async with asyncio.timeout(5.0):
            if task.cancelled():
                await bell.heard()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


@LOOPS
def test_whoever_outlasts_something_is_not_kept_from_it(loop: Factory) -> None:
    """However often it is cancelled meanwhile; asyncio goes on counting."""

    async def main() -> int:
        over: list[bool] = []
        bell = AsyncioBell()

        async def wait() -> int:
            try:
                await bell.heard()
            except asyncio.CancelledError:  # noqa: ASYNC103 - what is looked at is that it is still counted
                await bell.outlast(lambda: bool(over))
            current = asyncio.current_task()
            assert current is not None
            return current.cancelling()

        task = asyncio.create_task(wait())
        for _ in range(5):
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.sleep(0.01)
        bell.ring()  # for nothing
        await asyncio.sleep(0.01)
        assert not task.done()
        over.append(True)
        from_a_thread(bell.ring)
        return await task

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(main()) == 5


@LOOPS
def test_a_bell_of_a_closed_loop_says_so(loop: Factory) -> None:
    """Nobody can hear it any more, and nothing is called there."""

    async def make() -> AsyncioBell:
        return AsyncioBell()

    with asyncio.Runner(loop_factory=loop) as runner:
        bell = runner.run(make())
    assert bell.ring() is False
    assert bell.call(lambda: None) is False


# -- threads -----------------------------------------------------------------------------------------------------------


def test_a_ring_before_the_wait_ends_it_at_once_in_a_thread() -> None:
    """And during it, from another one."""
    bell = ThreadBell()
    bell.ring()
    bell.heard()
    timer = threading.Timer(0.01, bell.ring)
    timer.start()
    bell.heard()
    timer.join()


def test_a_ctrl_c_interrupts_a_wait_in_the_main_thread() -> None:
    """Python runs handlers there, also while a thread waits for a bell."""
    bell = ThreadBell()
    timer = threading.Timer(0.1, signal.pthread_kill, [threading.get_ident(), signal.SIGINT])
    start = time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        bell.heard()
    timer.join()
    assert time.monotonic() - start < 2.0


# -- where one stands --------------------------------------------------------------------------------------------------


def test_a_bell_is_of_the_loop_in_which_it_is_made() -> None:
    """Trio's in Trio, asyncio's in asyncio; outside of both there is none."""

    async def here() -> tuple[type, bool]:
        return type(bell_here()), under_asyncio()

    assert trio.run(here) == (TrioBell, False)
    assert asyncio.run(here()) == (AsyncioBell, True)
    assert not under_asyncio()
    with pytest.raises(RuntimeError):
        bell_here()
