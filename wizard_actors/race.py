"""Hedging: the next model starts when those that run are late, or at once when one failed; the first to deliver wins.

The lanes run in child tasks of the caller, for as long as nobody has won: until the first content of a live stream,
else until the whole answer. The winner's attempt is then the caller's own, and read in its task; all others have been
cancelled, and have returned everything, before anything is delivered.
"""

from __future__ import annotations

import math
from typing import Protocol

import trio

from wizard_actors.errors import WizardError
from wizard_actors.lane import Begun, Lane

__all__ = ["Candidates", "Race"]


class Candidates(Protocol):
    """Whoever knows which models remain."""

    async def next_lane(self, *, beside: bool, paid: bool) -> Lane | None:
        """Return the lane of the next model, None where there is none. `beside`: others run, so it is not to probe;
        `paid`: it costs one of the retry budget, and None where that is spent.
        """

    def give_up(self, lane: Lane, error: WizardError) -> bool:
        """Note that a model has been given up; return whether nobody else will answer."""


class Race:
    """One race. `delay` is after how many seconds without a first token a model counts as late."""

    def __init__(self, candidates: Candidates, delay: float) -> None:
        self._candidates = candidates
        self._delay = delay
        self._running: dict[Lane, None] = {}
        self._lost: list[tuple[Lane, WizardError]] = []
        self._winner: Begun | None = None
        self._error: WizardError | None = None
        self._news = trio.Event()

    async def run(self) -> Begun:
        """Return what the first lane to deliver has begun. Raises the error after which nobody else would.

        Cancelled, or left by an error, it has closed every lane.
        """
        sole: BaseException | None = None
        winner: Begun | None = None
        try:
            async with trio.open_nursery() as nursery:
                await self._go(nursery)
                for lane in self._running if self._delay and self._winner is not None else ():
                    lane.lost(self._delay)
                nursery.cancel_scope.cancel()
            winner, self._winner = self._winner, None
        except BaseExceptionGroup as group:
            if len(group.exceptions) > 1:
                raise
            sole = group.exceptions[0]  # a Ctrl-C that came here, or a bug: raised as it is
        finally:
            if self._winner is not None:
                await _drop(self._winner)  # noqa: ASYNC102 - an exchange's end shields itself where it must
        if sole is not None:
            raise sole
        if winner is None:
            raise self._error or AssertionError("a race ends with a winner or an error")
        return winner

    async def _go(self, nursery: trio.Nursery) -> None:
        """Start lanes until one has won, or the request is over."""
        await self._start(nursery, paid=False)
        while not self._delay and await self._start(nursery, paid=True):
            pass  # all together, before any of them runs: none waits to be asked then
        late_at = trio.current_time() + self._delay
        while not self._over():
            with trio.move_on_at(late_at):
                await self._news.wait()
            self._news = trio.Event()
            if self._over():
                return
            if self._lost:
                await self._replace(nursery)
                late_at = trio.current_time() + self._delay
            elif trio.current_time() >= late_at:
                late = not any(lane.heard for lane in self._running)
                started = late and await self._start(nursery, paid=True)
                late_at = trio.current_time() + self._delay if started else math.inf

    def _over(self) -> bool:
        return self._winner is not None or self._error is not None

    async def _replace(self, nursery: trio.Nursery) -> None:
        """Start the next model for each that was given up."""
        while self._lost and self._error is None:
            lane, error = self._lost.pop(0)
            if self._candidates.give_up(lane, error):
                self._error = error
            else:
                await self._start(nursery, paid=False)

    async def _start(self, nursery: trio.Nursery, *, paid: bool) -> bool:
        """Start the next model, and return whether there was one."""
        try:
            lane = await self._candidates.next_lane(beside=bool(self._running), paid=paid)
        except WizardError as error:
            self._error = error
            return False
        if lane is None:
            return False
        self._running[lane] = None
        nursery.start_soon(self._run, lane)
        return True

    @trio.lowlevel.enable_ki_protection
    async def _run(self, lane: Lane) -> None:
        begun: Begun | None = None
        try:
            begun = await lane.begin()
        except WizardError as error:
            self._lost.append((lane, error))
        finally:
            del self._running[lane]
            self._news.set()
            if begun is None:
                lane.close()
        if begun is None:
            return
        if self._winner is None:
            self._winner = begun
        else:
            await _drop(begun)


async def _drop(begun: Begun) -> None:
    """Close what nobody will read."""
    try:
        await begun.exchange.aclose()
    finally:
        begun.lane.close()
