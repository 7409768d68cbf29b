"""The clock of a fault plan: seconds that go on over several runs of Trio, and in any thread."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from threading import RLock
from typing import Final
from weakref import WeakSet

import trio
from attrs import frozen

__all__ = ["PlanClock", "is_virtual"]

DAY: Final = 86_400.0


class PlanClock:
    """The seconds of a plan: those of one run of Trio after another, without the time between them. Where it was first
    followed outside of Trio, they are real seconds wherever no run is followed.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._pace = _Pace(0.0, 0.0, lambda: 0.0)
        self._run: trio.lowlevel.TrioToken | None = None
        self._outside = False

    def now(self) -> float:
        """Return the present instant, in any thread."""
        with self._lock:
            return self._pace.now()

    def follow(self) -> None:
        """Go on by the clock of whoever calls this; a run of Trio that is followed already stays, up to its end."""
        in_trio = trio.lowlevel.in_trio_run()
        with self._lock:
            if self._run is not None:
                return
            if in_trio:
                self._run = trio.lowlevel.current_trio_token()
                _at_the_end().clocks.add(self)
                self._go_by(trio.lowlevel.current_clock().current_time)
            elif not self._outside:
                self._outside = True
                self._go_by(time.monotonic)

    def ended(self) -> None:
        """The run of Trio that was followed is over."""
        with self._lock:
            self._run = None
            self._go_by(time.monotonic if self._outside else lambda: 0.0)

    def _go_by(self, clock: Callable[[], float]) -> None:
        self._pace = _Pace(self._pace.now(), clock(), clock)


@frozen
class _Pace:
    """Seconds that go on from `base` as a clock goes on from `began`."""

    base: float
    began: float
    clock: Callable[[], float]

    def now(self) -> float:
        return self.base + (self.clock() - self.began)


class _AtTheEnd(trio.abc.Instrument):
    """Tells the clocks that follow a run of Trio when it is over: one for all, and it keeps none of them."""

    def __init__(self) -> None:
        self.clocks: WeakSet[PlanClock] = WeakSet()

    def after_run(self) -> None:
        for clock in list(self.clocks):
            clock.ended()


AT_THE_END: Final[trio.lowlevel.RunVar[_AtTheEnd]] = trio.lowlevel.RunVar("wizard_actors fault plans")


def _at_the_end() -> _AtTheEnd:
    try:
        return AT_THE_END.get()
    except LookupError:
        told = _AtTheEnd()
        trio.lowlevel.add_instrument(told)
        AT_THE_END.set(told)
        return told


def is_virtual() -> bool:
    """Say whether this is under Trio, and a day of its clock takes no day."""
    if not trio.lowlevel.in_trio_run():
        return False
    clock = trio.lowlevel.current_clock()
    return not math.isclose(clock.deadline_to_sleep_time(clock.current_time() + DAY), DAY, rel_tol=0.01)
