"""How many tokens were granted in the last minute, or in another sliding window: exact in amounts, never early. Pure.

The pace of a bucket alone cannot keep "no more than L in any minute" without giving up what its burst holds; a window
that starts afresh each minute lets twice the limit through at its edge. So the pace is the bucket's, and this is the
cap. Grants are added up in slots of a quarter of a second, and a slot counts until its last possible instant is a
minute ago: 241 numbers, whatever the traffic, for which a granted token is held at most a quarter of a second too long.
The slots of another window are as long in proportion, rounded up to a power of two: 241 numbers at most, and a 120th of
the window. Amounts are whole numbers, so nothing is lost or won by adding them.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final, TypeAlias

__all__ = ["MINUTE", "Spent", "TokenWindow"]

MINUTE: Final = 60.0

SLOTS: Final = 240
"""Into so many slots a window is cut at most."""

Spent: TypeAlias = tuple[int, tuple[int, ...]]
"""The number of the first slot, counted from the clock's zero, and the tokens of this and the following ones."""


class TokenWindow:
    """At most `limit` tokens in any `window` seconds, a minute. An amount above the limit fits an empty window, and
    nothing beside it.
    """

    __slots__ = ("_first", "_limit", "_slot", "_slots", "_total", "_window")

    def __init__(self, limit: int, spent: Spent = (0, ()), *, window: float = MINUTE) -> None:
        self._limit = limit
        self._window = window
        self._slot = 2.0 ** math.ceil(math.log2(window / SLOTS))  # a power of two, so that the edges of slots are exact
        self._first = spent[0]
        self._slots = deque(spent[1])
        self._total = sum(self._slots)

    @property
    def limit(self) -> int:
        """The most tokens of a window."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = limit

    @property
    def total(self) -> int:
        """The tokens that count at present; more than the limit where an answer used more than was reserved."""
        return self._total

    @property
    def spent(self) -> Spent:
        """The slots with their amounts: what another window can be made from."""
        return self._first, tuple(self._slots)

    def copy(self) -> TokenWindow:
        """Return a window that goes its own way from here."""
        other: TokenWindow = TokenWindow.__new__(TokenWindow)
        other._limit, other._window, other._slot = self._limit, self._window, self._slot
        other._first, other._slots, other._total = self._first, self._slots.copy(), self._total
        return other

    def free_at(self, amount: int) -> float:
        """Return the instant from which on `amount` fits, if nothing is added; minus infinity where it fits already."""
        excess = self._total - max(self._limit - amount, 0)
        if excess <= 0:
            return -math.inf
        slot = self._first - 1
        for spent in self._slots:
            slot += 1
            excess -= spent
            if excess <= 0:
                break
        return self._gone_at(slot)

    def add(self, amount: int, now: float) -> None:
        """Count `amount` for a window from `now` on. It is the caller who asks first whether it fits."""
        self.expire(now)
        slot = math.floor(now / self._slot)
        if not self._slots:
            self._first = slot
        missing = slot - self._first - len(self._slots) + 1  # below one where the clock went back: the newest slot
        if missing > 0:
            self._slots.extend([0] * missing)
        self._slots[-1] += amount
        self._total += amount

    def give_back(self, amount: int, added_at: float) -> None:
        """Take `amount` out again, of what was added at `added_at`, so far as that still counts."""
        slot = math.floor(added_at / self._slot) - self._first
        if 0 <= slot < len(self._slots):
            amount = min(amount, self._slots[slot])
            self._slots[slot] -= amount
            self._total -= amount

    def expire(self, now: float) -> None:
        """Drop what is more than a window ago."""
        while self._slots and self._gone_at(self._first) <= now:
            self._total -= self._slots.popleft()
            self._first += 1

    def _gone_at(self, slot: int) -> float:
        return (slot + 1) * self._slot + self._window
