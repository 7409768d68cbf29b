"""Single-flight: callers who ask the same at the same time share one call, made by one of them, the leader.

    LED ──land, fail──────────────────────────────> over: every follower is told
     │ ^ ^
     │ │ └─hand_over, somebody follows: the oldest follower leads
     │ └───the next to follow leads────┐
     └──hand_over, nobody follows──> VACANT          over as well, unless a seat is reserved

A flight lives in its callers' own tasks, and needs nobody else to end: an actor that knows which one is under way for
which key may crash, and strands nobody. The leader ends it in `finally`: with an answer, with an error, or by handing
it over where it was cancelled or out of its own time.
"""

from __future__ import annotations

from collections import OrderedDict
from decimal import Decimal
from typing import Final, Generic, TypeVar

import trio
from attrs import evolve

from wizard_actors.errors import WizardError

__all__ = ["MAX_FOLLOWERS", "Flight"]

V = TypeVar("V")

MAX_FOLLOWERS: Final = 1000


class _Seat:
    """One follower's place in a flight."""

    __slots__ = ("leads", "woken")

    def __init__(self) -> None:
        self.woken = trio.Event()
        self.leads = False


class Flight(Generic[V]):
    """One call for all who ask the same; whoever makes the object leads it. None is no answer.

    The leader calls `land` or `fail`, and once, in `finally`, `hand_over`, which does nothing where the flight is over
    by then. No method but `follow` waits.

    Whoever sends followers here asks `full` first and calls `reserve` for each: between being sent and arriving a
    follower has no seat yet, and would find the flight abandoned, along with everybody else who was sent.
    """

    def __init__(self, *, max_followers: int = MAX_FOLLOWERS) -> None:
        self._max_followers = max_followers
        self._led = True
        self._ended = False
        self._value: V | None = None
        self._error: Exception | None = None
        self._seats: OrderedDict[_Seat, None] = OrderedDict()
        self._reserved = 0

    @property
    def over(self) -> bool:
        """Whether nobody makes its call, nor is on the way to: whoever asks now begins another flight."""
        return self._ended or self.abandoned

    @property
    def abandoned(self) -> bool:
        """Whether everybody who was to lead it has left it without an end."""
        return not (self._ended or self._led or self._reserved)

    @property
    def followers(self) -> int:
        """How many follow, or have a seat reserved."""
        return len(self._seats) + self._reserved

    @property
    def full(self) -> bool:
        """Whether as many follow as may: anybody else begins another flight."""
        return self.followers >= self._max_followers

    def reserve(self) -> None:
        """Keep a seat for a follower who has been sent here."""
        self._reserved += 1

    def release(self) -> None:
        """Give up a reserved seat: the follower does not come."""
        self._reserved = max(0, self._reserved - 1)

    # -- for the leader

    def land(self, value: V) -> None:
        """Give every follower the leader's answer."""
        if not self._ended:
            self._value = value
            self._end()

    def fail(self, error: Exception) -> None:
        """Let every follower raise the leader's error: a copy of its own, chained to it, with attempts at no cost."""
        if not self._ended:
            self._error = error
            self._end()

    def hand_over(self) -> None:
        """Make the oldest follower the leader; where nobody follows, the next one who does."""
        if self._ended:
            return
        self._led = bool(self._seats)
        if self._led:
            seat, _ = self._seats.popitem(last=False)
            seat.leads = True
            seat.woken.set()

    # -- for followers

    @trio.lowlevel.enable_ki_protection
    async def follow(self) -> V | None:
        """Wait for the leader's answer and return it. None: you are the leader from here on. A checkpoint in any case.

        A follower who is cancelled leaves, and hands on what it has just been handed: either it leads or it is
        cancelled, never both. A promoted one has to end the flight like any leader, so nothing may be awaited between
        this and the `try` whose `finally` does.

        Raises what the leader failed of: a copy of a `WizardError`, chained to it, with the leader's attempts at no
        cost; for anything else, a bug, a `WizardError` chained to it.
        """
        seat = self._take_seat()
        resumed = False
        try:
            await seat.woken.wait()
            resumed = True
        finally:
            self._seats.pop(seat, None)
            if seat.leads and not resumed:
                self.hand_over()
        if seat.leads:
            return None
        if self._error is not None:
            raise _retold(self._error) from self._error
        return self._value

    def _take_seat(self) -> _Seat:
        self.release()
        seat = _Seat()
        if self._ended:
            seat.woken.set()
        elif self._led:
            self._seats[seat] = None
        else:
            self._led = seat.leads = True
            seat.woken.set()
        return seat

    def _end(self) -> None:
        self._ended = True
        for seat in self._seats:
            seat.woken.set()

    def __repr__(self) -> str:
        state = "over" if self.over else "led" if self._led else "vacant"
        return f"<Flight {state}, {self.followers} follow>"


def _retold(error: Exception) -> WizardError:
    if isinstance(error, WizardError):  # the leader's own tells the cost: told by all, it would be counted by all
        return error.copy().with_attempts([evolve(attempt, cost=Decimal(0)) for attempt in error.attempts])
    return WizardError(f"the call that this one shared broke off: {type(error).__name__}: {error}")
