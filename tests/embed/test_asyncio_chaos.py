"""Chaos under asyncio: calls, streams and batches that are cancelled at random moments. See `asyncio_chaos`.

`pytest -q tests/embed/test_asyncio_chaos.py --seeds 1000` cancels twenty times as many calls. Each bug that is planted
below makes the same run fail: a chaos test that nothing fails proves nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from random import Random

import pytest

from tests.embed.asyncio_chaos import Setting, run_round, run_rounds
from tests.embed.hosts import our_threads
from wizard_actors.asyncio_bell import AsyncioBell
from wizard_actors.attempt import Attempt
from wizard_actors.bells import TrioBell
from wizard_actors.embed.asyncio_host import AsyncioHost
from wizard_actors.embed.call import Call
from wizard_actors.embed.pipe import Pipe
from wizard_actors.embed.thread import TrioThread
from wizard_actors.response_stream import Source
from wizard_actors.verdict import Outcome


@pytest.fixture(autouse=True)
def bounded() -> None:
    """The number of seeds says how long these tests take, and a round ends by itself."""


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of planned crashes need no log."""
    caplog.set_level("CRITICAL", logger="wizard_actors")
    caplog.set_level("CRITICAL", logger="asyncio")


@pytest.mark.long
def test_a_thousand_cancellations_leave_nothing(
    pytestconfig: pytest.Config, report_line: Callable[[str], None]
) -> None:
    """No call upstream, no permit, no task; nothing warns, and every call has one end, after everything else."""
    wanted = 20 * pytestconfig.getoption("seeds")

    total = run_rounds(Setting(), cancelled=wanted)

    report_line(f"asyncio: {total}")
    assert total.clean, str(total)
    assert total.cancelled >= wanted
    assert total.slowest < 2.0


@pytest.mark.parametrize(
    "setting",
    [
        Setting(loop="uvloop"),
        Setting(loop="debug"),
        Setting(crashes=True),
        Setting(loop="uvloop", crashes=True),
        Setting(close=True),
        Setting(crashes=True, close=True),
    ],
    ids=["uvloop", "debug", "crashes", "uvloop and crashes", "closing", "crashes and closing"],
)
def test_nor_do_they(setting: Setting, pytestconfig: pytest.Config, report_line: Callable[[str], None]) -> None:
    """Under uvloop, in asyncio's debug mode, while actors crash, and with a client that is closed amid all that."""
    total = run_rounds(setting, cancelled=2 * pytestconfig.getoption("seeds"))

    report_line(f"{setting}: {total}")
    assert total.clean, str(total)
    assert total.slowest < 2.0


# -- planted bugs: each has to be found


def planted(wanted: str, setting: Setting | None = None) -> bool:
    """Say whether a round finds what `wanted` counts: one of the first, but on a busy machine the moments differ."""
    setting = setting or Setting(limit=1.0, drain=0.3)
    return any(getattr(run_round(seed, setting), wanted) for seed in range(80))


def test_a_caller_who_leaves_before_the_clean_up_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is told that a call was cancelled relies on its being over."""

    async def outlast(self: AsyncioBell, over: Callable[[], bool]) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(AsyncioBell, "outlast", outlast)

    assert planted("early")


def test_a_second_cancel_that_cuts_the_wait_short_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Being cancelled twice is being cancelled."""

    async def outlast(self: AsyncioBell, over: Callable[[], bool]) -> None:
        while not over():
            await self.heard()

    monkeypatch.setattr(AsyncioBell, "outlast", outlast)

    assert planted("early")


def test_a_cancel_that_does_not_reach_upstream_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model would go on, and the caller wait for it."""
    monkeypatch.setattr(TrioThread, "cancel", lambda self, call: None)

    assert planted("lost")


def test_a_call_that_is_over_before_its_work_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call is over when everything has been given back."""
    cancel = Call.cancel

    def early(self: Call[object]) -> None:
        cancel(self)
        self.finish(None)

    monkeypatch.setattr(Call, "cancel", early)

    assert planted("early")


def test_a_stream_that_is_left_without_an_end_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving a stream's block ends its call."""

    async def end(self: AsyncioHost[object], call: Call[object], bell: AsyncioBell) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(AsyncioHost, "end", end)

    assert planted("early")


@pytest.mark.long
def test_a_stream_that_is_not_closed_where_it_was_read_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pump that is cancelled while its pipe is full would leave a generator behind, which holds a slot."""
    left: list[Source] = []

    async def pump(self: Pipe, source: Source) -> None:
        self._room = TrioBell()
        left.append(source)
        async for event in source:
            self._events.append(event)
            self._bell.ring()
            await self._until_room()

    monkeypatch.setattr(Pipe, "pump", pump)

    assert planted("early")


def test_a_wake_that_is_lost_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody waits for ever."""
    ring, rng, rings = AsyncioBell.ring, Random(1), count()

    def lossy(self: AsyncioBell) -> bool:
        return (next(rings) > 10 and rng.random() < 0.05) or ring(self)  # the client opens first

    monkeypatch.setattr(AsyncioBell, "ring", lossy)

    assert planted("lost")


def test_a_slot_that_a_cancelled_call_keeps_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled from another thread, or not: an end like any other."""
    release = Attempt._release

    def forgetful(self: Attempt) -> None:
        if self._ending is not Outcome.IGNORED:
            release(self)

    monkeypatch.setattr(Attempt, "_release", forgetful)

    assert planted("held", Setting(limit=1.5, drain=0.3))


def test_a_thread_that_outlives_its_client_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving the client's block waits for its thread."""

    async def close(self: AsyncioHost[object]) -> None:
        self._finalizer.detach()
        self._thread._soon(partial(time.sleep, 0.2))  # it is slow
        self._thread.stop()

    monkeypatch.setattr(AsyncioHost, "close", close)

    assert planted("threads")
    until = time.monotonic() + 10  # what was planted ends a little later
    while our_threads() and time.monotonic() < until:
        time.sleep(0.01)
    assert our_threads() == []


def test_a_complaint_of_the_loop_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in a callback, or a task that nobody asks for its error."""
    wake, rng = AsyncioBell._wake, Random(1)

    def clumsy(self: AsyncioBell) -> None:
        wake(self)
        if rng.random() < 0.01:
            raise KeyError("planned")

    monkeypatch.setattr(AsyncioBell, "_wake", clumsy)

    assert planted("complaints")
