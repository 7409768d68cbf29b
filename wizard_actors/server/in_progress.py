"""The requests of one connection that are in progress."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from wizard_actors.protocol.frames import RequestId
from wizard_actors.server.running import Running

__all__ = ["InProgress"]


class InProgress:
    """What is in progress, by its id. `active_at` is when something was last heard of, or ended."""

    def __init__(self) -> None:
        self.active_at = trio.current_time()
        self._running: dict[RequestId, Running] = {}
        self._quiet = trio.Event()  # set, and made anew, when a request ends and it was the last one

    def __contains__(self, request: RequestId) -> bool:
        return request in self._running

    def get(self, request: RequestId) -> Running | None:
        """Return the request of that id, None where it is not in progress."""
        return self._running.get(request)

    def all(self) -> Sequence[Running]:
        """Return those in progress at this moment."""
        return list(self._running.values())

    def active(self) -> None:
        """Note that the peer has sent something."""
        self.active_at = trio.current_time()

    def add(self, running: Running) -> None:
        """Note one that begins."""
        self._running[running.id] = running

    def over(self, running: Running) -> None:
        """Forget one, whose response is being written: its id may be used again."""
        self._running.pop(running.id, None)
        self.active()
        if not self._running:
            quiet, self._quiet = self._quiet, trio.Event()
            quiet.set()

    async def none(self) -> None:
        """Wait until none is."""
        while self._running:
            await self._quiet.wait()
