"""One simulation at a time, in an order of tasks that is not left to chance, and all put back afterwards."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Final, cast

import trio

from wizard_actors.errors import UnsupportedError

__all__ = ["Standstill", "repeatable"]

ROUNDS: Final = 1_000_000
"""How often tasks may run on at one instant: who runs on longer, runs for ever."""

PLAYING: Final = threading.RLock()
"""Held by the simulation that is played: Trio's order is the whole process's."""

OURS: Final = "wizard_actors"


@contextmanager
def repeatable(seed: int, *, logs: bool) -> Iterator[None]:
    """Have Trio choose its order of tasks by `seed`, and no warnings of the client's logged unless `logs` is true.

    Waits while a simulation is played in another thread. Raises `UnsupportedError` inside a Trio run, and where this
    Trio cannot be made to repeat itself; `KeyboardInterrupt`, bare, for a group of errors that has one.
    """
    if trio.lowlevel.in_trio_run():
        raise UnsupportedError(
            "a simulation is a Trio run of its own, and this is inside of another one: call `simulate` outside of it, "
            "or in a thread, by `await trio.to_thread.run_sync(simulate, scenario)`",
            feature="simulation",
        )
    with PLAYING, _ordered(seed), _quiet(logs=logs):
        try:
            yield
        except BaseExceptionGroup as errors:
            if errors.subgroup(KeyboardInterrupt) is not None:
                raise KeyboardInterrupt from errors
            raise


@contextmanager
def _ordered(seed: int) -> Iterator[None]:
    """Seed the order of the tasks of this thread: Trio's own tests do it so, and there is no public way."""
    inside = trio._core._run  # noqa: SLF001 - as the docstring says
    if not hasattr(inside, "_ALLOW_DETERMINISTIC_SCHEDULING") or not hasattr(inside, "_r"):
        raise UnsupportedError(
            f"Trio {trio.__version__} cannot be made to repeat itself: install a version that simulations know",
            feature="simulation",
        )
    before, random = inside._ALLOW_DETERMINISTIC_SCHEDULING, inside._r  # noqa: SLF001 - as above
    try:
        inside._r = cast("Random", _ByThread(Random(seed), random))  # noqa: SLF001 - as above
        inside._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # noqa: SLF001 - as above
        yield
    finally:
        inside._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]  # noqa: SLF001 - as above
        inside._r = random  # noqa: SLF001 - as above


class _ByThread:
    """Random numbers that are `ours` in the thread that made it, and `theirs` in all others."""

    def __init__(self, ours: Random, theirs: Random) -> None:
        self._thread = threading.get_ident()
        self._ours = ours
        self._theirs = theirs

    def __getattr__(self, name: str) -> object:
        return getattr(self._ours if threading.get_ident() == self._thread else self._theirs, name)


@contextmanager
def _quiet(*, logs: bool) -> Iterator[None]:
    """Keep what this thread's client logs from being logged, whatever their levels are; other clients log as before."""
    if logs:
        yield
        return
    thread = threading.get_ident()

    def of_others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == OURS]
    quieted = [logging.getLogger(name) for name in names]
    for log in quieted:
        log.addFilter(of_others)
    try:
        yield
    finally:
        for log in quieted:
            log.removeFilter(of_others)


class Standstill(trio.abc.Instrument):
    """Calls `found` when tasks have run on and on, `rounds` times, while `clock` told the same instant; and again each
    so many times. A virtual clock waits for nobody who is still running.
    """

    def __init__(self, clock: trio.abc.Clock, found: Callable[[], None], rounds: int) -> None:
        self._clock = clock
        self._found = found
        self._most = rounds
        self._at = clock.current_time()
        self._rounds = 0

    def before_io_wait(self, timeout: float) -> None:
        """Count a round: Trio looks for what has happened outside once in each."""
        now = self._clock.current_time()
        if now != self._at:
            self._at, self._rounds = now, 0
        self._rounds += 1
        if self._rounds >= self._most:
            self._rounds = 0
            self._found()
