"""What is remembered of limiters that have been removed: an account does not forget because a model is disabled."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import inf
from typing import Final, TypeAlias

from wizard_actors.gcra import LimiterState
from wizard_actors.seats import LimitSeat, Member
from wizard_actors.token_window import MINUTE, TokenWindow

__all__ = ["LimitMemory"]

MOST: Final = 256

Left: TypeAlias = tuple[LimitSeat, LimiterState]


class LimitMemory:
    """How removed limiters stood, for as long as it matters: while a 429's pause lasts, and from then on until the
    minute is over and what may go at once has been saved up. The last 256 of them.
    """

    def __init__(self) -> None:
        self._left: deque[tuple[float, Left]] = deque(maxlen=MOST)

    def keep(self, seat: LimitSeat, state: LimiterState, now: float) -> None:
        """Remember how the limiter of `seat` stood when it was removed, at the instant `now`."""
        self._expire(now)
        self._left.append((_matters_until(state, now), (seat, state)))

    def successor(self, seat: LimitSeat, standing: Iterable[Left], now: float) -> None:
        """Let the new limiter of `seat` start from one that granted the calls of one of its members: of those that are
        `standing` and those that were removed, the one with the longest to wait.
        """
        self._expire(now)
        known = [(other, state) for other, state in (*standing, *(left for _, left in self._left))]
        akin = [(other, state) for other, state in known if _akin(seat, other)]
        if akin:
            seat.inherit(*max(akin, key=lambda left: _urgency(left[1], now)))

    def _expire(self, now: float) -> None:
        kept = [each for each in self._left if each[0] > now]
        self._left = deque(kept, MOST)


def _akin(seat: LimitSeat, other: LimitSeat) -> bool:
    """Whether a model is a member of both, with the same account; or both are a group's, of the same account."""
    members: tuple[Member, ...] = other.members
    same_group = seat.name == other.name and seat.path.startswith("limits/") and other.path.startswith("limits/")
    return any(member in members for member in seat.members) or (same_group and seat.shares_account(members))


def _matters_until(state: LimiterState, now: float) -> float:
    at = state.at(now)
    paid = at.requests.empty_at if at.interval else -inf  # later than now where it is in debt
    saved = max(now, paid, state.paused_until) + at.burst_used * at.interval
    return max(now + MINUTE, state.paused_until + MINUTE, saved, at.tokens.empty_at)


def _urgency(state: LimiterState, now: float) -> tuple[float, ...]:
    at = state.at(now)
    counter = TokenWindow(0, state.tokens.spent, window=state.tokens.window)  # also where no limit is set any more
    counter.expire(now)
    left = inf if at.remaining_tokens is None else at.remaining_tokens
    return (max(state.paused_until, now), at.burst_used * at.interval, counter.total, -left)
