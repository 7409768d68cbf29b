"""One request on one connection: what its server has sent for it, until it is over."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

import trio

from wizard_actors.errors import WizardError
from wizard_actors.protocol.failures import error_from
from wizard_actors.protocol.frames import Response

__all__ = ["CREDIT", "Exchange"]

CREDIT: Final = 32
"""How many notifications a server may send for a request before any of them is read."""


class Exchange:
    """The request `id`. The connection's reader puts in what comes, and never waits; one task reads it.

    At most `credit` notifications stand unread. `on_read(n)` is called where n more may come.
    """

    def __init__(self, request: str, *, credit: int = 0, on_read: Callable[[int], None]) -> None:
        self.id = request
        self.over = False
        self.lost: WizardError | None = None
        """Why its connection ended before it did."""
        self.begun = False
        """Whether anything has come for it but its response."""
        self._unbegun = False
        self._response = Response(request)
        self._items: deque[Mapping[str, object]] = deque()
        self._room = credit
        self._read = 0
        self._half = max(credit // 2, 1)
        self._on_read = on_read
        self._bell = trio.Event()

    # -- for the connection

    def put(self, item: Mapping[str, object]) -> bool:
        """Take a notification in; False where the server may not have sent it."""
        if self._room <= 0:
            return False
        self.begun = True
        self._room -= 1
        self._items.append(item)
        self._bell.set()
        return True

    def end(self, response: Response) -> None:
        """Take the response in."""
        self._response = response
        self._over()

    def lose(self, error: WizardError, *, unbegun: bool = False) -> None:
        """Be over without a response. What has come can be read still. `unbegun`: the server never began it."""
        self.lost, self._unbegun = error, unbegun
        self._over()

    def _over(self) -> None:
        self.over = True
        self._bell.set()

    # -- for the reader

    @property
    def refused(self) -> bool:
        """Whether the server drains, and says that it has begun nothing of it."""
        fault = self._response.fault
        if fault is None:
            return self._unbegun
        return fault.data.get("code") == "actor_stopped" and fault.data.get("actor") == "server"

    async def next(self) -> Mapping[str, object] | None:
        """Return the next notification; None at the end."""
        while not self._items:
            if self.over:
                return None
            self._bell = trio.Event()
            await self._bell.wait()
        item = self._items.popleft()
        self._read += 1
        if self._read >= self._half and not self.over:
            more, self._read = self._read, 0
            self._room += more
            self._on_read(more)
        return item

    def result(self) -> object:
        """Return the result, once it is over. Raises what the server says went wrong, or why the connection is lost."""
        if self.lost is not None:
            raise self.lost
        if self._response.fault is not None:
            raise error_from(self._response.fault, now=trio.current_time())
        return self._response.result
