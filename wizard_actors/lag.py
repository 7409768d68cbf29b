"""The event loop's own stalls: how long nothing could run, so that nobody else is blamed for it.

A timeout that fires after the loop stood still says little about whoever was waited for: the answer may have been
there, unread. `LagWatch` sums how long the loop has stood still; whoever judges a timeout compares what it summed while
the wait lasted with the wait's limit, and lets the timeout teach nothing where it is `excused`.

    mark = watch.mark()                        as the wait begins
    ...                                        as its timeout fires:
    if excused(watch.since(mark), limit): ...

The loop takes turns: a batch of tasks, then a wait for I/O. It has stood still where a batch took longer than `STALL`
(a task computed or blocked, garbage was collected, another thread held the interpreter), and where a wait for I/O came
back later than its timeout by more than that (the process was stopped, or starved; under Trio's guest mode the host's
loop was blocked). A wait that comes back before its timeout has missed no deadline, whatever happened meanwhile, and is
not looked at.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import trio

__all__ = ["STALL", "LagWatch", "excused", "watching"]

STALL: Final = 0.05
"""Seconds. Well above what a busy loop takes for a batch, and what an operating system adds to a wait."""

LEAST: Final = 0.1
"""Seconds of standing still below which no timeout is excused: two stalls, the least that is told apart from noise."""

SHARE: Final = 0.05
"""Of a limit: who was late with 95 % of it to itself would hardly have made it in the rest."""

DAY: Final = 86_400.0


def excused(stalled: float, limit: float) -> bool:
    """Whether a timeout of `limit` seconds is no judgement on who was waited for, if the loop stood still for
    `stalled` of them: for at least 0.1 s, and at least 5 % of the limit.

    The price: in a process whose loop stands still for more than 5 % of the time, no timeout counts; other failures do.
    """
    return stalled >= max(LEAST, SHARE * limit)


class LagWatch(trio.abc.Instrument):
    """Sums the stalls of the loop that it is installed in, as a Trio instrument; see `watching`.

    `threshold` is in seconds; `clock` returns seconds of real time, as no virtual clock does: a virtual clock's jump is
    no stall. `stalled` is the sum of all stalls that are over, `longest` the longest of them, `count` their number.
    """

    def __init__(self, *, threshold: float = STALL, clock: Callable[[], float] = time.monotonic) -> None:
        self.stalled = 0.0
        self.longest = 0.0
        self.count = 0
        self._threshold = threshold
        self._clock = clock
        self._since = math.inf  # when the present batch, or wait, began; unknown before the first turn

    def mark(self) -> float:
        """Return what `since` is to count from: for a wait that begins now.

        A stall of the batch that is running counts as over: it came before the wait.
        """
        running = self._clock() - self._since
        return self.stalled + running if running > self._threshold else self.stalled

    def since(self, mark: float) -> float:
        """Return for how many seconds the loop has stood still since `mark`, up to the batch that is running.

        That one does not count: Trio looks for timeouts between two batches, so one that a task sees had fired before.
        """
        return max(0.0, self.stalled - mark)

    def before_io_wait(self, timeout: float) -> None:
        """Note the end of a batch."""
        now = self._clock()
        if now - self._since > self._threshold:
            self._stood_still(now - self._since)
        self._since = now

    def after_io_wait(self, timeout: float) -> None:
        """Note the end of a wait that should have taken `timeout` seconds at most."""
        now = self._clock()
        if now - self._since - timeout > self._threshold:
            self._stood_still(now - self._since - timeout)
        self._since = now

    def _stood_still(self, seconds: float) -> None:
        self.stalled += seconds
        self.longest = max(self.longest, seconds)
        self.count += 1


@contextmanager
def watching() -> Iterator[LagWatch]:
    """Watch the loop that runs this block, at the cost of about a microsecond a turn. Blocks may be nested, each with a
    watch of its own.

    On a virtual clock nothing is watched and nothing is ever excused: real time has no part in what happens there, and
    a run must not depend on how fast the machine is.
    """
    watch = LagWatch()
    if not _is_real(trio.lowlevel.current_clock()):
        yield watch
        return
    trio.lowlevel.add_instrument(watch)
    try:
        yield watch
    finally:
        trio.lowlevel.remove_instrument(watch)


def _is_real(clock: trio.abc.Clock) -> bool:
    """Say whether a day of `clock` takes a day."""
    return math.isclose(clock.deadline_to_sleep_time(clock.current_time() + DAY), DAY, rel_tol=0.01)
