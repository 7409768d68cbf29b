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

    @contextmanager
    def request(self, caller: Caller, connection: Hashable, settings: ServerConfig) -> Iterator[None]:
        """Count a request for as long as the block lasts; `connection` stands for whatever it came on.

        Raises `MailboxFullError`, with nothing counted, where the connection, the key or the server has as many in
        progress as `settings` and the key allow.
        """
        self._check(caller, connection, settings)
        name = caller.name
        self._connections[connection] += 1
        self._keys[name] += 1
        self._all += 1
        if self._all == 1:
            self._idle = trio.Event()
        try:
            yield
        finally:
            self._all -= 1
            if not self._all:
                self._idle.set()
            _take(self._keys, name)
            _take(self._connections, connection)

    def _check(self, caller: Caller, connection: Hashable, settings: ServerConfig) -> None:
        per_key, setting = caller.max_in_flight, f"max_in_flight of the key {caller.name!r}"
        if per_key is None:
            per_key, setting = settings.max_per_key, "server.max_per_key"
        if self._all >= settings.max_in_flight:
            raise _full("the server", self._all, "server.max_in_flight")
        if self._keys[name := caller.name] >= per_key:
            raise _full(f"the key {name!r}" if name else "the server's callers", self._keys[name], setting)
        if self._connections[connection] >= settings.max_per_connection:
            raise _full("this connection", self._connections[connection], "server.max_per_connection")


def _take(counts: Counter[W], who: W) -> None:
    counts[who] -= 1
    if counts[who] <= 0:
        del counts[who]


def _full(who: str, count: int, setting: str) -> MailboxFullError:
    said = f"{count} requests of {who} are in progress already, as many as {setting} allows: let one end first"
    return MailboxFullError(said, actor="server")
