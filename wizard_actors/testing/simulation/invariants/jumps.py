"""When a run's clock jumped, and how many seconds it jumped over in a span of time. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import accumulate

from wizard_actors.testing.simulation.invariants.invariant import FUZZ
from wizard_actors.testing.simulation.scenario import ClockJump, Scenario

__all__ = ["Jumps", "virtual_jumps"]


def virtual_jumps(scenario: Scenario) -> Iterator[tuple[float, float]]:
    """Yield from which instant to which the clock jumped; a jump that is passed over by another comes right after it.

    The wall clock's own jumps are none of these.
    """
    now = 0.0
    for jump in sorted((jump for jump in scenario.clock_jumps if not jump.wall), key=_at):
        began = max(now, jump.at)
        now = began + jump.seconds
        yield began, now


def _at(jump: ClockJump) -> float:
    return jump.at


class Jumps:
    """The jumps of a run's clock, to be asked about many spans of time."""

    def __init__(self, scenario: Scenario) -> None:
        jumps = list(virtual_jumps(scenario))
        self._began = [began for began, _ in jumps]
        self._ended = [ended for _, ended in jumps]
        self._sums = [0.0, *accumulate(ended - began for began, ended in jumps)]

    def begun_in(self, since: float, until: float) -> float:
        """Return how many seconds were jumped over by the jumps that began in a span of time."""
        return self._sum(bisect_left(self._began, since - FUZZ), until)

    def met_in(self, since: float, until: float) -> float:
        """Return the same of those that ended in it, too."""
        return self._sum(bisect_left(self._ended, since - FUZZ), until)

    def _sum(self, first: int, until: float) -> float:
        after = bisect_right(self._began, until + FUZZ)
        return self._sums[after] - self._sums[first] if after > first else 0.0
