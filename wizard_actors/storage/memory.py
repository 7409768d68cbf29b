"""Sessions in this process's memory: gone with it. The reference for all other backends."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Final, Self

import trio
from attrs import frozen

from wizard_actors.session_json import decode_session, encode_session
from wizard_actors.session_record import SessionRecord, SessionSummary
from wizard_actors.storage.base import (
    check_busy,
    check_limit,
    check_prefix,
    check_replaces,
    newest_first,
    storage_error,
)

__all__ = ["MemoryStorage"]

BACKEND: Final = "memory"


@frozen
class _Stored:
    """A session as it lies there: JSON, so that nobody outside keeps a hold of it, and what lists show."""

    data: bytes
    summary: SessionSummary


class MemoryStorage:
    """Sessions in memory, `max_bytes` of JSON at most: a save beyond that is a `StorageError`, and nothing makes room.

    `async with MemoryStorage.open() as storage:`; leaving the block forgets everything. Each method waits once, at its
    beginning, and acts in one step.
    """

    def __init__(self, *, max_bytes: int = 256 * 2**20) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._sessions: dict[str, _Stored] = {}
        self._open = True

    @classmethod
    @asynccontextmanager
    async def open(cls, *, max_bytes: int = 256 * 2**20) -> AsyncIterator[Self]:
        """Open an empty storage for the length of a block."""
        storage = cls(max_bytes=max_bytes)
        try:
            yield storage
        finally:
            storage._close()

    def __repr__(self) -> str:
        return f"<MemoryStorage of {len(self._sessions)} sessions, {self._bytes} of {self._max_bytes} bytes>"

    async def load(self, session: str) -> SessionRecord | None:
        """Return what is stored of a session."""
        await self._turn(session)
        stored = self._sessions.get(session)
        return None if stored is None else decode_session(stored.data, session)

    async def save(self, record: SessionRecord) -> None:
        """Store a record in the place of the version before it."""
        data = encode_session(record)
        await self._turn(record.id)
        before = self._sessions.get(record.id)
        check_replaces(BACKEND, record, None if before is None else before.summary)
        grown = self._bytes + len(data) - (len(before.data) if before else 0)
        if grown > self._max_bytes:
            reason = f"was not saved: it would take {grown} bytes, of {self._max_bytes}; delete or purge some"
            raise storage_error(BACKEND, record.id, reason)
        self._sessions[record.id] = _Stored(data, record.summary)
        self._bytes = grown

    async def delete(self, session: str) -> bool:
        """Remove a session."""
        await self._turn(session)
        return self._remove(session)

    async def list(
        self, *, limit: int = 50, after: SessionSummary | None = None, prefix: str = ""
    ) -> Sequence[SessionSummary]:
        """Return a page of the sessions."""
        check_limit(limit)
        check_prefix(prefix)
        await self._turn()
        named = (stored.summary for name, stored in self._sessions.items() if name.startswith(prefix))
        rest = (each for each in named if after is None or newest_first(each) > newest_first(after))
        return heapq.nsmallest(limit, rest, key=newest_first)

    async def purge(
        self,
        *,
        limit: int,
        used_before: float | None = None,
        created_before: float | None = None,
        busy: Collection[str] = (),
    ) -> Sequence[str]:
        """Remove sessions that nobody wants any more."""
        check_limit(limit)
        spared = check_busy(busy)
        await self._turn()
        old = [
            (stored.summary.used_at, name)
            for name, stored in self._sessions.items()
            if name not in spared
            and (
                (used_before is not None and stored.summary.used_at < used_before)
                or (created_before is not None and stored.summary.created_at < created_before)
            )
        ]
        removed = [name for _, name in heapq.nsmallest(limit, old)]
        for name in removed:
            self._remove(name)
        return removed

    async def _turn(self, session: str | None = None) -> None:
        """Wait once, so that a call can be cancelled before it does anything."""
        await trio.lowlevel.checkpoint()
        if not self._open:
            raise storage_error(BACKEND, session, "cannot be reached: the storage is closed")

    def _remove(self, session: str) -> bool:
        stored = self._sessions.pop(session, None)
        self._bytes -= len(stored.data) if stored else 0
        return stored is not None

    def _close(self) -> None:
        self._open = False
        self._sessions.clear()
        self._bytes = 0
