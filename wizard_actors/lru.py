"""The core of the response cache: a store bounded in entries, in bytes and in time.

    absent ──put──> fresh ──ttl──> expired ──stale_for──> absent
                      └──────── room is needed, or removed ────^

An expired entry answers nobody by itself; it may stand in where nothing better can be had.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

from attrs import frozen

from wizard_actors.cache_key import Key

__all__ = ["ENTRY_OVERHEAD", "Found", "Sweep", "TtlLru"]

V = TypeVar("V")

ENTRY_OVERHEAD: Final = 420
"""Bytes that an entry takes beside its value: the key, its own object, its places in two ordered tables. Measured."""


@frozen
class Found(Generic[V]):
    """What is stored under a key; `fresh` is False once its time has passed."""

    value: V
    fresh: bool


@frozen
class _Entry(Generic[V]):
    value: V
    expires_at: float
    size: int


class TtlLru(Generic[V]):
    """At most `max_entries` entries and `max_bytes` bytes, overhead included; the least recently used one makes room.

    An entry is fresh for `ttl` seconds and kept for `stale_for` more. Every method that depends on the time takes the
    present instant `now`; a clock that goes back only keeps entries longer.
    """

    def __init__(self, *, max_entries: int, max_bytes: int, ttl: float, stale_for: float = 0.0) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._stale_for = stale_for
        self._entries: OrderedDict[Key, _Entry[V]] = OrderedDict()  # the least recently used first
        self._by_age: OrderedDict[Key, None] = OrderedDict()  # the first one stored first
        self._bytes = 0
        self.evicted = 0
        """How many entries had to make room."""
        self.expired = 0
        """How many entries were dropped because their time, and the time that they could stand in, had passed."""

    @property
    def bytes(self) -> int:
        """How many bytes are held, the entries' overhead included."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Key]:
        """Iterate over the keys, the least recently used first."""
        return iter(self._entries)

    def get(self, key: Key, now: float) -> Found[V] | None:
        """Return what is stored under `key`, which becomes the most recently used; None where nothing usable is."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now >= entry.expires_at + self._stale_for:
            self._drop(key)
            self.expired += 1
            return None
        self._entries.move_to_end(key)
        return Found(entry.value, now < entry.expires_at)

    def peek(self, key: Key) -> V | None:
        """Return the value under `key`, fresh or not; it is not used by this."""
        entry = self._entries.get(key)
        return None if entry is None else entry.value

    def put(self, key: Key, value: V, size: int, now: float) -> bool:
        """Store `value`, which takes `size` bytes, in place of any other under `key`; return whether it fits at all."""
        self._drop(key)
        size += ENTRY_OVERHEAD
        if size > self._max_bytes or self._max_entries < 1:
            return False
        self.expire(now)  # what is of no use makes room before anything that is
        while len(self._entries) >= self._max_entries or self._bytes + size > self._max_bytes:
            self._drop(next(iter(self._entries)))
            self.evicted += 1
        self._entries[key] = _Entry(value, now + self._ttl, size)
        self._by_age[key] = None
        self._bytes += size
        return True

    def remove(self, key: Key) -> bool:
        """Drop what is stored under `key`; return whether anything was."""
        return self._drop(key)

    def clear(self) -> int:
        """Drop everything; return how many entries that were."""
        count = len(self._entries)
        self._entries.clear()
        self._by_age.clear()
        self._bytes = 0
        return count

    def next_expiry(self) -> float:
        """Return the instant at which `expire` has something to do; infinite where nothing is stored."""
        if not self._by_age:
            return math.inf
        return self._entries[next(iter(self._by_age))].expires_at + self._stale_for

    def expire(self, now: float) -> None:
        """Drop what cannot even stand in any more."""
        while self.next_expiry() <= now:
            self._drop(next(iter(self._by_age)))
            self.expired += 1

    def _drop(self, key: Key) -> bool:
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        del self._by_age[key]
        self._bytes -= entry.size
        return True


class Sweep(Generic[V]):
    """The removal of every entry whose value meets `condition`, some at a time: of those stored when it began."""

    def __init__(self, store: TtlLru[V], condition: Callable[[V], bool]) -> None:
        self._store = store
        self._condition = condition
        self._keys = list(store)
        self.removed = 0
        """How many have been removed."""

    def advance(self, budget: int, cost: Callable[[V], int]) -> bool:
        """Look at entries until what they `cost` reaches the `budget`; return whether all have been looked at."""
        while self._keys and budget > 0:
            key = self._keys.pop()
            value = self._store.peek(key)
            if value is not None:
                budget -= cost(value)
                if self._condition(value):
                    self._store.remove(key)
                    self.removed += 1
        return not self._keys
