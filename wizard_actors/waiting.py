"""The waiting room of an actor with one queue: who waits, in order of arrival, and until when each of them will."""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from attrs import frozen

__all__ = ["Rejected", "Ticked", "Waiting", "WaitingRoom"]

G = TypeVar("G")
K = TypeVar("K", bound=Hashable)


@frozen
class Waiting:
    """The request waits. `due` is the instant at which it will be granted as things stand, None where nobody knows."""

    due: float | None = None


@frozen
class Rejected:
    """The request will not be granted in its time, or the room is full; nothing was taken.

    `retry_after` is the number of seconds that a newcomer would have to wait now, None where nobody knows.
    """

    retry_after: float | None = None


@frozen
class Ticked(Generic[K, G]):
    """Who has to be answered after a tick: the granted, each with the grant and in order of arrival, and the rejected.

    `rejection` is what the rejected are told.
    """

    granted: tuple[tuple[K, G], ...]
    rejected: tuple[K, ...]
    rejection: Rejected


class WaitingRoom(Generic[K]):
    """Up to `bound` waiters, first in, first out. Entering, leaving, and finding out who gives up next stay cheap."""

    def __init__(self, bound: int) -> None:
        if bound < 1:
            raise ValueError(f"a waiting room holds at least one waiter, not {bound}")
        self._bound = bound
        # Not a plain dict: finding the first key of one that is emptied from the front takes longer and longer.
        self._waiters: OrderedDict[K, tuple[float, int]] = OrderedDict()
        self._give_ups: list[tuple[float, int, K]] = []  # a heap; whoever has left stays in it until found
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._waiters)

    def __iter__(self) -> Iterator[tuple[K, float]]:
        """Yield each waiter and the instant at which it gives up, in order of arrival."""
        return ((key, give_up_at) for key, (give_up_at, _) in self._waiters.items())

    @property
    def full(self) -> bool:
        """Whether nobody else may enter."""
        return len(self._waiters) >= self._bound

    def resize(self, bound: int) -> None:
        """Hold up to `bound` waiters from now on. Whoever waits stays: with more, it is full until enough have left."""
        self._bound = bound

    def enter(self, key: K, give_up_at: float) -> None:
        """Add a waiter at the end.

        Raises `ValueError` where the room is full, or `key` waits already.
        """
        if self.full or key in self._waiters:
            raise ValueError(f"the waiting room is full ({self._bound}), or {key!r} waits in it already")
        self._arrivals += 1
        self._waiters[key] = (give_up_at, self._arrivals)
        if give_up_at < math.inf:
            heapq.heappush(self._give_ups, (give_up_at, self._arrivals, key))

    def leave(self, key: K) -> bool:
        """Remove a waiter, whoever it is; return whether it was there."""
        if self._waiters.pop(key, None) is None:
            return False
        if len(self._give_ups) > 2 * len(self._waiters) + 64:
            self._give_ups = [entry for entry in self._give_ups if self._current(entry)]
            heapq.heapify(self._give_ups)
        return True

    def first(self) -> tuple[K, float]:
        """Return who has waited longest, and the instant at which it gives up. The room must not be empty."""
        key, (give_up_at, _) = next(iter(self._waiters.items()))
        return key, give_up_at

    def next_give_up(self) -> float:
        """Return the first instant at which a waiter gives up; infinite where none ever does."""
        while self._give_ups and not self._current(self._give_ups[0]):
            heapq.heappop(self._give_ups)
        return self._give_ups[0][0] if self._give_ups else math.inf

    def turn_out(self, now: float) -> list[K]:
        """Remove and return everybody who has given up by `now`, the most impatient first."""
        gone: list[K] = []
        while self.next_give_up() <= now:
            key = heapq.heappop(self._give_ups)[2]
            del self._waiters[key]
            gone.append(key)
        return gone

    def _current(self, entry: tuple[float, int, K]) -> bool:
        """Whether a waiter has not left since; one who came back has another number."""
        waiter = self._waiters.get(entry[2])
        return waiter is not None and waiter[1] == entry[1]
