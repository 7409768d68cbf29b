"""A call on its way through Trio's thread: over once, with its value or its error, and not before its work is."""

from __future__ import annotations

import gc
import weakref
from contextvars import ContextVar

import pytest
import trio
import trio.testing

from wizard_actors.embed.call import Call
from wizard_actors.errors import ActorStoppedError

WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


class Bell:
    """A bell that counts."""

    rings = 0

    def ring(self) -> bool:
        self.rings += 1
        return True


def stopped() -> Exception:
    """Return the error of a call that is cut off."""
    return ActorStoppedError("stopped", actor="wizard")


async def answer() -> int:
    """Return a value."""
    await trio.lowlevel.checkpoint()
    return 42


async def nothing() -> None:
    """Return none."""
    await trio.lowlevel.checkpoint()


async def test_a_call_is_over_with_what_its_work_returns() -> None:
    """And rings once; None is a value like any other."""
    bell = Bell()
    call = Call(answer, bell)
    empty = Call(nothing, bell)
    assert not call.over

    await call.serve(stopped)
    await empty.serve(stopped)

    assert (call.over, call.result(), empty.result(), bell.rings) == (True, 42, None, 2)


@pytest.mark.parametrize(
    "error", [KeyError("bug"), SystemExit(3), KeyboardInterrupt(), BaseExceptionGroup("g", [OSError()])]
)
async def test_what_its_work_raises_is_the_callers(error: BaseException) -> None:
    """Whatever it is: the thread goes on, and serves the others."""

    async def work() -> None:
        await trio.lowlevel.checkpoint()
        raise error

    call = Call(work, Bell())
    await call.serve(stopped)

    with pytest.raises(type(error)) as raised:
        call.result()
    assert raised.value is error


async def test_a_call_is_over_once() -> None:
    """The first end is the one that counts, and the only one that rings."""
    bell = Bell()
    call = Call(answer, bell)
    call.finish(KeyError("first"))
    call.finish(None)
    await call.serve(stopped)

    with pytest.raises(KeyError, match="first"):
        call.result()
    assert bell.rings == 1


async def test_a_cancel_before_it_begins_is_a_cancel() -> None:
    """The work meets it at its first checkpoint."""
    reached: list[int] = []

    async def work() -> None:
        reached.append(1)
        await trio.sleep_forever()

    call = Call(work, Bell())
    call.cancel()
    await call.serve(stopped)

    assert reached == [1]
    with pytest.raises(ActorStoppedError):
        call.result()


async def test_a_cancelled_call_is_over_when_its_work_has_given_everything_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Who cancels waits for that."""

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(3.0)

    bell = Bell()
    call = Call(work, bell)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.serve, stopped)
        await trio.sleep(1.0)
        call.cancel()
        await trio.sleep(2.9)
        assert (call.over, bell.rings) == (False, 0)
        await trio.sleep(0.2)
        assert (call.over, bell.rings) == (True, 1)


async def test_an_answer_that_comes_in_spite_of_a_cancel_counts() -> None:
    """Work that has ended is not undone."""

    async def work() -> int:
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
        return 42

    call = Call(work, Bell())
    call.cancel()
    await call.serve(stopped)

    assert call.result() == 42


@pytest.mark.parametrize("nested", [False, True], ids=["plain", "in a nursery"])
async def test_a_call_that_is_cut_off_says_that_the_client_stopped(nested: bool) -> None:
    """No `Cancelled` of Trio's reaches a caller who knows no Trio, also not in a group; Trio gets it."""

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)

    call = Call(work if nested else trio.sleep_forever, Bell())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.serve, stopped)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert nursery.cancel_scope.cancelled_caught
    with pytest.raises(ActorStoppedError):
        call.result()


async def test_an_error_beside_a_cut_is_the_callers() -> None:
    """It says more than that the client stopped; Trio gets what is its own."""

    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("cleaning up")

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(trio.sleep_forever)

    call = Call(work, Bell())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.serve, stopped)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    with pytest.raises(ExceptionGroup) as raised:
        call.result()
    assert raised.group_contains(KeyError)
    assert not raised.group_contains(trio.Cancelled)


async def test_the_work_sees_the_context_of_the_caller_and_changes_its_own() -> None:
    """A copy, taken when the call is made."""
    WHO.set("caller")

    async def work() -> str:
        seen = WHO.get()
        WHO.set("work")
        await trio.lowlevel.checkpoint()
        return seen

    call = Call(work, Bell())
    WHO.set("later")
    async with trio.open_nursery() as nursery:
        call.context.run(nursery.start_soon, call.serve, stopped)

    assert (call.result(), WHO.get()) == ("caller", "later")


async def test_a_failed_call_is_freed_with_its_error() -> None:
    """The error's traceback holds frames, and they would hold the call."""

    async def work() -> None:
        await trio.lowlevel.checkpoint()
        raise KeyError("bug")

    call = Call(work, Bell())
    await call.serve(stopped)
    with pytest.raises(KeyError):
        call.result()
    held = weakref.ref(call)
    gc.collect()
    gc.disable()
    try:
        del call
        assert held() is None
    finally:
        gc.enable()
