"""A storage for the tests of sessions: in memory, outliving the client that opens it, and able to fail on demand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager

import trio

from wizard_actors.session_record import SessionRecord, SessionSummary
from wizard_actors.storage.base import SessionStorage
from wizard_actors.storage.memory import MemoryStorage

__all__ = ["Shelf"]


class Shelf:
    """Sessions that several clients may open, one after the other or at once, as several processes would.

    `fault` is called before each save: it raises, or returns for how many seconds the save hangs; with `late` what
    fails has been saved all the same. `saves` counts what was stored.
    """

    def __init__(self) -> None:
        self.inner = MemoryStorage()
        self.fault: Callable[[SessionRecord], float] | None = None
        self.late = False
        self.saves = 0
        self.opened = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[SessionStorage]:
        """Open it: nothing is lost when it is closed."""
        self.opened += 1
        yield self

    async def load(self, session: str) -> SessionRecord | None:
        """Return what is stored."""
        return await self.inner.load(session)

    async def save(self, record: SessionRecord) -> None:
        """Store, or fail as `fault` says."""
        try:
            if self.fault is not None:
                await trio.sleep(self.fault(record))
        except BaseException:
            if self.late:
                with trio.CancelScope(shield=True):
                    await self.inner.save(record)
            raise
        await self.inner.save(record)
        self.saves += 1

    async def delete(self, session: str) -> bool:
        """Remove a session."""
        return await self.inner.delete(session)

    async def list(
        self, *, limit: int = 50, after: SessionSummary | None = None, prefix: str = ""
    ) -> Sequence[SessionSummary]:
        """Return a page."""
        return await self.inner.list(limit=limit, after=after, prefix=prefix)

    async def purge(
        self,
        *,
        limit: int,
        used_before: float | None = None,
        created_before: float | None = None,
        busy: Collection[str] = (),
    ) -> Sequence[str]:
        """Remove old sessions."""
        return await self.inner.purge(limit=limit, used_before=used_before, created_before=created_before, busy=busy)
