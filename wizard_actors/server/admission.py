"""How many requests are in progress: of a connection, of a key, and in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import trio

from wizard_actors.config import ServerConfig
from wizard_actors.errors import MailboxFullError
from wizard_actors.server.access import Caller

__all__ = ["Admission"]

W = TypeVar("W", bound=Hashable)


class Admission:
    """What is in progress on one server. Whoever comes on top of a bound is refused at once."""

    def __init__(self) -> None:
        self._connections: Counter[Hashable] = Counter()
        self._keys: Counter[str] = Counter()
        self._all = 0
        self._idle = trio.Event()
        self._idle.set()

    @property
    def in_progress(self) -> int:
        """How many requests are in progress in all."""
        return self._all

    def of_connection(self, connection: Hashable) -> int:
        """Return how many requests of a connection are in progress."""
        return self._connections[connection]

    def of_key(self, name: str) -> int:
        """Return how many requests of the key of that name are in progress."""
        return self._keys[name]

    async def idle(self) -> None:
        """Wait until none is in progress."""
        await self._idle.wait()

    def room(self, caller: Caller, settings: ServerConfig) -> int:
        """Return how many places the key, and the server in all, have left."""
        per_key, _ = _of_a_key(caller, settings)
        return max(0, min(per_key - self._keys[caller.name], settings.max_in_flight - self._all))

    @contextmanager
    def request(
        self, caller: Caller, connection: Hashable, settings: ServerConfig, *, weight: int = 1
    ) -> Iterator[None]:
        """Count a request for as long as the block lasts; `connection` stands for whatever it came on. One that asks
        several things at once takes `weight` places of its key and of the server, and one of its connection.

        Raises `MailboxFullError`, with nothing counted, where the connection, the key or the server has not so many
        places left, by `settings` and the key.
        """
        self._check(caller, connection, settings, weight)
        self._connections[connection] += 1
        try:
            with self._places(caller.name, weight):
                yield
        finally:
            _take(self._connections, connection, 1)

    @contextmanager
    def several(self, caller: Caller, settings: ServerConfig, most: int) -> Iterator[int]:
        """Take more places for a request in progress that would ask `most` things at once: as many as there is room
        for. Yields how many it may ask at once, at least one: its own place is among them.
        """
        count = max(1, min(most, 1 + self.room(caller, settings)))
        with self._places(caller.name, count - 1):
            yield count

    @contextmanager
    def _places(self, name: str, weight: int) -> Iterator[None]:
        if weight and not self._all:
            self._idle = trio.Event()
        self._keys[name] += weight
        self._all += weight
        try:
            yield
        finally:
            self._all -= weight
            if not self._all:
                self._idle.set()
            _take(self._keys, name, weight)

    def _check(self, caller: Caller, connection: Hashable, settings: ServerConfig, weight: int) -> None:
        per_key, setting = _of_a_key(caller, settings)
        if self._all + weight > settings.max_in_flight:
            raise _full("the server", self._all, "server.max_in_flight")
        if self._keys[name := caller.name] + weight > per_key:
            raise _full(f"the key {name!r}" if name else "the server's callers", self._keys[name], setting)
        if self._connections[connection] >= settings.max_per_connection:
            raise _full("this connection", self._connections[connection], "server.max_per_connection")


def _of_a_key(caller: Caller, settings: ServerConfig) -> tuple[int, str]:
    """Return how many requests of a key may be in progress, and the setting that says so."""
    if caller.max_in_flight is not None:
        return caller.max_in_flight, f"max_in_flight of the key {caller.name!r}"
    return settings.max_per_key, "server.max_per_key"


def _take(counts: Counter[W], who: W, count: int) -> None:
    counts[who] -= count
    if counts[who] <= 0:
        del counts[who]


def _full(who: str, count: int, setting: str) -> MailboxFullError:
    said = f"{count} requests of {who} are in progress already, and {setting} allows no more: let one end first"
    return MailboxFullError(said, actor="server")
