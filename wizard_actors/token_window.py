"""How many tokens were granted in the last minute: a sliding window, exact in amounts and never early in time. Pure.

The pace of a bucket alone cannot keep "no more than L in any minute" without giving up what its burst holds; a window
that starts afresh each minute lets twice the limit through at its edge. So the pace is the bucket's, and this is the
cap. Grants are added up in slots of a quarter of a second, and a slot counts until its last possible instant is a
minute ago: 241 numbers, whatever the traffic, for which a granted token is held at most a quarter of a second too long.
Amounts are whole numbers, so nothing is lost or won by adding them.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final, TypeAlias

__all__ = ["Spent", "TokenWindow"]

SLOT: Final = 0.25
"""Seconds; a power of two, so that the edges of slots are exact."""

MINUTE: Final = 60.0

Spent: TypeAlias = tuple[int, tuple[int, ...]]
"""The number of the first slot, counted from the clock's zero, and the tokens of this and the following ones."""


class TokenWindow:
    """At most `limit` tokens in any minute. An amount above the limit fits an empty minute, and nothing beside it."""

    __slots__ = ("_first", "_limit", "_slots", "_total")

    def __init__(self, limit: int, spent: Spent = (0, ())) -> None:
        self._limit = limit
        self._first = spent[0]
        self._slots = deque(spent[1])
        self._total = sum(self._slots)

    @property
    def limit(self) -> int:
        """The most tokens of a minute."""
        return self._limit

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
        other = TokenWindow(self._limit)
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
        return _gone_at(slot)

    def add(self, amount: int, now: float) -> None:
        """Count `amount` for a minute from `now` on. It is the caller who asks first whether it fits."""
        self.expire(now)
        slot = math.floor(now / SLOT)
        if not self._slots:
            self._first = slot
        missing = slot - self._first - len(self._slots) + 1  # below one where the clock went back: the newest slot
        if missing > 0:
            self._slots.extend([0] * missing)
        self._slots[-1] += amount
        self._total += amount

    def give_back(self, amount: int, added_at: float) -> None:
        """Take `amount` out again, of what was added at `added_at`, so far as that still counts."""
        slot = math.floor(added_at / SLOT) - self._first
        if 0 <= slot < len(self._slots):
            amount = min(amount, self._slots[slot])
            self._slots[slot] -= amount
            self._total -= amount

    def expire(self, now: float) -> None:
        """Drop what is more than a minute ago."""
        while self._slots and _gone_at(self._first) <= now:
            self._total -= self._slots.popleft()
            self._first += 1


def _gone_at(slot: int) -> float:
    return (slot + 1) * SLOT + MINUTE
