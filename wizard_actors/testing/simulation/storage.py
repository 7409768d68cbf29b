"""The sessions' storage of a simulation: in memory, and at times slow, failing or damaged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Final

import trio

from wizard_actors.session_json import decode_session
from wizard_actors.session_record import SessionRecord, SessionSummary
from wizard_actors.storage.base import storage_error
from wizard_actors.storage.memory import MemoryStorage
from wizard_actors.testing.simulation.scenario import StorageFault, StorageFaultKind

__all__ = ["FaultyStorage"]

BACKEND: Final = "simulated"
DAMAGED: Final = b'{"id": "a session that is dama'


class FaultyStorage:
    """A storage in memory in which `faults` come to bear; `clock` tells the seconds since the scenario's beginning."""

    def __init__(
        self, inner: MemoryStorage, faults: Sequence[StorageFault], clock: Callable[[], float], rng: Random
    ) -> None:
        self._inner = inner
        self._faults = faults
        self._clock = clock
        self._rng = rng

    @classmethod
    @asynccontextmanager
    async def open(
        cls, faults: Sequence[StorageFault], clock: Callable[[], float], rng: Random
    ) -> AsyncIterator[FaultyStorage]:
        """Open an empty storage for the length of a block."""
        async with MemoryStorage.open() as inner:
            yield cls(inner, faults, clock, rng)

    async def load(self, session: str) -> SessionRecord | None:
        """Return what is stored of a session, or what a damaged disk makes of it."""
        await self._meet(session)
        record = await self._inner.load(session)
        return record if record is None or not self._on("corrupting") else decode_session(DAMAGED, session)

    async def save(self, record: SessionRecord) -> None:
        """Store a record in the place of the version before it."""
        await self._meet(record.id)
        await self._inner.save(record)

    async def delete(self, session: str) -> bool:
        """Remove a session."""
        await self._meet(session)
        return await self._inner.delete(session)

    async def list(
        self, *, limit: int = 50, after: SessionSummary | None = None, prefix: str = ""
    ) -> Sequence[SessionSummary]:
        """Return a page of the sessions."""
        await self._meet(None)
        return await self._inner.list(limit=limit, after=after, prefix=prefix)

    async def purge(
        self,
        *,
        limit: int,
        used_before: float | None = None,
        created_before: float | None = None,
        busy: Collection[str] = (),
    ) -> Sequence[str]:
        """Remove sessions that nobody wants any more."""
        await self._meet(None)
        return await self._inner.purge(limit=limit, used_before=used_before, created_before=created_before, busy=busy)

    async def turns(self, session: str) -> int:
        """Return how many turns of a session are stored, whatever is wrong meanwhile."""
        record = await self._inner.load(session)
        return 0 if record is None else len(record.turns)

    async def _meet(self, session: str | None) -> None:
        for fault in self._faults:
            if fault.kind == "slow" and self._meets(fault):
                await trio.sleep(fault.delay)
        if self._on("failing"):
            raise storage_error(BACKEND, session, "failed, as the scenario says")

    def _on(self, kind: StorageFaultKind) -> bool:
        return any(fault.kind == kind and self._meets(fault) for fault in self._faults)

    def _meets(self, fault: StorageFault) -> bool:
        return fault.is_on(self._clock()) and (fault.share >= 1 or self._rng.random() < fault.share)
