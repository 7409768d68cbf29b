"""Ctrl-C that stops a part of the program."""

import os
import signal
from collections.abc import Callable

import pytest
import trio

from wizard_actors.cli_signals import Signals


class Exited(BaseException):
    """The process has ended."""


@pytest.fixture(autouse=True)
def _exits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the process raises `Exited`."""

    def exit_now(status: int) -> None:
        raise Exited(status)

    monkeypatch.setattr(os, "_exit", exit_now)


async def stuck() -> None:
    """Never return."""
    await trio.sleep_forever()


def test_the_first_sigint_cancels_the_scope_alone() -> None:
    """The program goes on, and the next scope has a first one of its own."""
    signals, stopped = Signals(), 0

    async def work() -> int:
        nonlocal stopped
        for _ in range(3):
            with signals.interruptible() as scope:
                signals.handle(signal.SIGINT)
                await stuck()
            stopped += scope.cancelled_caught
        return 7

    assert signals.run(work) == 7
    assert (stopped, signals.received) == (3, None)


def test_the_second_one_ends_the_program() -> None:
    """What does not stop when it is asked to is not in the way."""
    signals = Signals()

    async def work() -> int:
        with signals.interruptible():
            signals.handle(signal.SIGINT)
            signals.handle(signal.SIGINT)
            await stuck()
        await stuck()
        return 0

    assert signals.run(work) == 130


def test_sigterm_ends_the_program() -> None:
    """It is no Ctrl-C."""
    signals = Signals()

    async def work() -> int:
        with signals.interruptible():
            signals.handle(signal.SIGTERM)
            await stuck()
        await stuck()
        return 0

    assert signals.run(work) == 143


def test_a_sigint_between_two_scopes_does_nothing() -> None:
    """The scope that it would have stopped has been left."""
    signals = Signals()

    async def work() -> int:
        with signals.interruptible():
            await trio.lowlevel.checkpoint()
        signals.handle(signal.SIGINT)
        with signals.interruptible() as scope:
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        assert not scope.cancelled_caught
        return 7

    assert signals.run(work) == 7


def test_the_terminal_is_put_right_before_the_process_ends_at_once() -> None:
    """And only then."""
    signals, done = Signals(), list[str]()

    def put_right() -> Callable[[], None]:
        done.append("put right")
        return lambda: done.append("as it was")

    async def work() -> int:
        with signals.at_terminal(put_right):
            signals.handle(signal.SIGTERM)
            assert done == []
            with pytest.raises(Exited):
                signals.handle(signal.SIGTERM)
        return 0

    assert signals.run(work) == 0
    assert done == ["put right"]
