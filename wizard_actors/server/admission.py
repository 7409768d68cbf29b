"""How many requests are in progress: of a connection, of a key, and in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import TypeVar

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

    @property
    def in_progress(self) -> int:
        """How many requests are in progress in all."""
        return self._all

    def of_key(self, name: str) -> int:
        """Return how many requests of the key of that name are in progress."""
        return self._keys[name]

    def room(self, caller: Caller, settings: ServerConfig) -> int:
        """Return how many places the key, and the server in all, have left."""
        per_key, _ = _of_a_key(caller, settings)
        return max(0, min(per_key - self._keys[caller.name], settings.max_in_flight - self._all))

    @contextmanager
    def request(self, caller: Caller, connection: Hashable, settings: ServerConfig) -> Iterator[None]:
        """Count a request for as long as the block lasts; `connection` stands for whatever it came on.

        Raises `MailboxFullError`, with nothing counted, where the connection, the key or the server has no place left,
        by `settings` and the key.
        """
        self._check(caller, connection, settings)
        self._connections[connection] += 1
        try:
            with self._places(caller.name, 1):
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
    def _places(self, name: str, count: int) -> Iterator[None]:
        self._keys[name] += count
        self._all += count
        try:
            yield
        finally:
            self._all -= count
            _take(self._keys, name, count)

    def _check(self, caller: Caller, connection: Hashable, settings: ServerConfig) -> None:
        per_key, setting = _of_a_key(caller, settings)
        if self._all >= settings.max_in_flight:
            raise _full("the server", self._all, "server.max_in_flight")
        if self._keys[name := caller.name] >= per_key:
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
