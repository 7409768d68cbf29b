"""How the suites take time, and make figures of it.

What is measured together is measured in rounds, each of everything: what else the machine does falls on all of it. A
figure is the median of its rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

import trio
from attrs import Factory, define, frozen

from benchmarks.figure import Figure

__all__ = ["MICRO", "Rounds", "Taken", "Work", "at_once", "late", "one_by_one", "together"]

MICRO: Final = 1e6
"""Microseconds in a second."""

Work = Callable[[], Awaitable[object]]


@frozen
class Taken:
    """What some calls took: the seconds of each, or of an average one, and the processor's seconds for one."""

    walls: Sequence[float]
    cpu: float
    calls: int


def late(times: Sequence[float]) -> float:
    """Return the 99th percentile, the slowest where there are fewer than a hundred."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]


def together(work: Callable[[], object], times: int) -> Taken:
    """Time so many runs as one: what takes no longer than a look at the clock."""
    spent, began = time.process_time(), time.perf_counter()
    for _ in range(times):
        work()
    wall = (time.perf_counter() - began) / times
    return Taken([wall], (time.process_time() - spent) / times, times)


async def one_by_one(work: Work, times: int) -> Taken:
    """Time so many runs, one after the other, each by itself."""
    walls = []
    spent = time.process_time()
    for _ in range(times):
        began = time.perf_counter()
        await work()
        walls.append(time.perf_counter() - began)
    return Taken(walls, (time.process_time() - spent) / times, times)


async def at_once(work: Work, callers: int, times: int) -> Taken:
    """Time `times` runs of each of so many callers at once: how long each run took its caller."""
    walls: list[float] = []

    async def caller() -> None:
        for _ in range(times):
            began = time.perf_counter()
            await work()
            walls.append(time.perf_counter() - began)

    spent = time.process_time()
    async with trio.open_nursery() as nursery:
        for _ in range(callers):
            nursery.start_soon(caller)
    return Taken(walls, (time.process_time() - spent) / len(walls), len(walls))


@define
class _Series:
    """One figure's rounds: each one's median and 99th percentile, and its processor time a call, in seconds."""

    bound: float | None
    medians: list[float] = Factory(list)
    lates: list[float] = Factory(list)
    cpus: list[float] = Factory(list)
    calls: int = 0


class Rounds:
    """The rounds of one suite, figure by figure, in microseconds."""

    def __init__(self, suite: str) -> None:
        self._suite = suite
        self._series: dict[str, _Series] = {}

    def add(self, name: str, taken: Taken, *, bound: float | None = None) -> None:
        """Add a round of the figure `name`; `bound`: what the design promises, in microseconds."""
        series = self._series.setdefault(name, _Series(bound))
        series.medians.append(statistics.median(taken.walls))
        if len(taken.walls) > 1:
            series.lates.append(late(taken.walls))
        series.cpus.append(taken.cpu)
        series.calls += taken.calls

    def median(self, name: str) -> float:
        """Return the median of a figure's rounds, in seconds."""
        return statistics.median(self._series[name].medians)

    def figures(self) -> Iterator[Figure]:
        """Yield what was found, in the order in which it was added first."""
        for name, series in self._series.items():
            yield Figure(
                suite=self._suite,
                name=name,
                unit="us",
                value=self.median(name) * MICRO,
                p99=statistics.median(series.lates) * MICRO if series.lates else None,
                cpu=statistics.median(series.cpus) * MICRO,
                bound=series.bound,
                calls=series.calls,
            )
