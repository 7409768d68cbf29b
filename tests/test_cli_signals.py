"""Ctrl-C and its like."""

import os
import signal

import pytest
import trio
import trio.testing

from wizard_actors.cli_signals import Signals


class Exited(BaseException):
    """The process has ended."""


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the process raises `Exited`."""

    def exit_now(status: int) -> None:
        raise Exited(status)

    monkeypatch.setattr(os, "_exit", exit_now)


@pytest.mark.usefixtures("exits")
def test_the_first_signal_cancels_and_the_second_ends_at_once() -> None:
    """The work is cancelled as Trio cancels; a second signal while it winds up ends the process."""
    signals = Signals()
    steps: list[str] = []

    async def work() -> int:
        try:
            signals.handle(2)
            await trio.sleep_forever()
        finally:
            steps.append("cancelled")
            try:
                signals.handle(2)
            except Exited as end:
                steps.append(f"exit {end}")

    assert signals.run(work) == 130
    assert steps == ["cancelled", "exit 130"]


@pytest.mark.usefixtures("exits")
@pytest.mark.parametrize(("number", "status"), [(2, 130), (15, 143), (1, 129)])
def test_a_signal_before_or_after_the_work_ends_at_once(number: int, status: int) -> None:
    """There is nothing to stop in order."""

    async def work() -> int:
        await trio.lowlevel.checkpoint()
        return 0

    signals = Signals()
    with pytest.raises(Exited, match=str(status)):
        signals.handle(number)
    assert signals.run(work) == 0
    with pytest.raises(Exited, match=str(status)):
        signals.handle(number)


def test_a_signal_that_was_ignored_from_the_start_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """`nohup` and a shell's background jobs rely on it."""
    before = {signal.SIGINT: signal.SIG_IGN, signal.SIGHUP: signal.SIG_IGN, signal.SIGTERM: signal.SIG_DFL}
    installed: list[int] = []
    monkeypatch.setattr(signal, "getsignal", before.get)
    monkeypatch.setattr(signal, "signal", lambda number, _handler: installed.append(number))
    Signals().install()
    assert installed == [signal.SIGTERM, signal.SIGQUIT]


@pytest.mark.usefixtures("exits")
def test_a_terminal_that_is_closed_may_say_so_several_times() -> None:
    """The kernel sends a SIGHUP, and so may the shell: the second one is no wish for an end at once."""
    signals = Signals()

    async def work() -> int:
        signals.handle(signal.SIGHUP)
        signals.handle(signal.SIGHUP)
        with pytest.raises(Exited):
            signals.handle(signal.SIGTERM)
        await trio.sleep_forever()

    assert signals.run(work) == 129


@pytest.mark.usefixtures("exits")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_server_stops_in_order_and_the_second_signal_ends_it_at_once(number: int, status: int) -> None:
    """The work is not cancelled: it ends itself, with a status of its own."""
    signals = Signals()

    async def work() -> int:
        asked = trio.Event()
        with signals.serving(stop=asked.set, reload=lambda: None):
            signals.handle(number)
            await asked.wait()
            await trio.lowlevel.checkpoint()
            with pytest.raises(Exited, match=str(status)):
                signals.handle(number)
        return 0

    assert signals.run(work) == 0
    assert signals.status is None


@pytest.mark.usefixtures("exits")
def test_a_server_reloads_at_each_hangup_while_it_stops_too() -> None:
    """SIGHUP is never an end: not the first one, not one among others, not one while it stops. Two at once are one."""
    signals = Signals()
    reloads: list[str] = []

    async def work() -> int:
        stop = trio.Event()
        with signals.serving(stop=stop.set, reload=lambda: reloads.append("reload")):
            signals.handle(signal.SIGHUP)
            signals.handle(signal.SIGHUP)
            await trio.testing.wait_all_tasks_blocked()
            assert reloads == ["reload"]
            reloads.clear()
            signals.handle(signal.SIGTERM)
            signals.handle(signal.SIGHUP)
            await stop.wait()
            await trio.testing.wait_all_tasks_blocked()
        return 0

    assert signals.run(work) == 0
    assert reloads == ["reload"]


def test_signals_are_everybodys_again_when_a_server_has_ended() -> None:
    """After the block a signal cancels what the program does next."""
    signals = Signals()

    async def work() -> int:
        with signals.serving(stop=lambda: None, reload=lambda: None):
            pass
        signals.handle(signal.SIGTERM)
        await trio.sleep_forever()

    assert signals.run(work) == 143
