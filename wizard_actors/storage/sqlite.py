"""Sessions in a SQLite file: the default. Other processes may use the same file at the same time.

One thread writes: it takes all saves that wait, makes of them one transaction, and answers each when that is on the
disk. Another thread reads beside it, so that no load waits for a slow disk, or for the lock of another process.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Self, TypeVar

import outcome
import trio

from wizard_actors.session_json import encode_session
from wizard_actors.session_record import SessionRecord, SessionSummary
from wizard_actors.storage import sqlite_rows
from wizard_actors.storage.base import check_busy, check_limit, check_prefix, storage_error
from wizard_actors.storage.sqlite_connection import check_in_place
from wizard_actors.storage.sqlite_file import failure, open_to_read, open_to_write
from wizard_actors.storage.sqlite_rows import BACKEND
from wizard_actors.storage.sqlite_thread import SqliteThread, each_alone, one_transaction

__all__ = ["SqliteStorage"]

T = TypeVar("T")


class SqliteStorage:
    """Sessions in a SQLite file: `async with SqliteStorage.open("wizard.db") as storage:`."""

    def __init__(self, path: Path, writer: SqliteThread, reader: SqliteThread) -> None:
        self._path = path
        self._writer = writer
        self._reader = reader
        self._process = os.getpid()

    @classmethod
    @asynccontextmanager
    async def open(cls, path: str | PathLike[str], *, busy_timeout: float = 5.0) -> AsyncIterator[Self]:
        """Open a file for the length of a block; a new one, and its folders, are made for their owner alone.

        `busy_timeout` is how many seconds a call waits while another process keeps the file locked. What was saved is
        on the disk when `save` returns. Leaving the block waits for the file to be closed; cancelled there, it leaves
        at once, and the file is closed as soon as it can be.

        Raises `StorageError` for a file that cannot be opened, is another program's, or was made by a newer version of
        this package: it is left as it is. One that is damaged as a whole is renamed to `NAME.damaged-TIME`, which the
        error says, and the next opening begins an empty one.

        A file that is removed, moved or replaced while it is open is a `StorageError` of each call from then on, until
        it is back in its place: nothing is acknowledged that the next opening would not find. So is one that a process
        wants to open which was forked off one that had it open: it could not lock it.
        """
        file = _located(path)
        write = SqliteThread(
            f"writes {file.name}",
            partial(open_to_write, file, busy_timeout),
            one_transaction(busy_timeout, check_in_place),
        )
        read = SqliteThread(
            f"reads {file.name}", partial(open_to_read, file), each_alone(busy_timeout, check_in_place), most=1
        )
        async with write.running() as writer, read.running() as reader:
            yield cls(file, writer, reader)

    def __repr__(self) -> str:
        return f"<SqliteStorage {self._path}>"

    async def load(self, session: str) -> SessionRecord | None:
        """Return what is stored of a session."""
        failed = "cannot be read"
        self._refuse_fork(session)
        await self._writer.settled(session)
        return await self._do(self._reader, session, failed, partial(sqlite_rows.load, session=session))

    async def save(self, record: SessionRecord) -> None:
        """Store a record in the place of the version before it."""
        data = encode_session(record)
        work = partial(sqlite_rows.save, record=record, data=data)
        await self._do(self._writer, record.id, "was not saved", work)

    async def delete(self, session: str) -> bool:
        """Remove a session."""
        work = partial(sqlite_rows.delete, session=session)
        return await self._do(self._writer, session, "was not deleted", work)

    async def list(
        self, *, limit: int = 50, after: SessionSummary | None = None, prefix: str = ""
    ) -> Sequence[SessionSummary]:
        """Return a page of the sessions."""
        check_limit(limit)
        check_prefix(prefix)
        work = partial(sqlite_rows.page, limit=limit, after=after, prefix=prefix)
        return await self._do(self._reader, None, "the sessions cannot be listed", work)

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
        work = partial(
            sqlite_rows.purge,
            limit=limit,
            used_before=used_before,
            created_before=created_before,
            busy=check_busy(busy),
        )
        return await self._do(self._writer, None, "old sessions were not removed", work)

    async def _do(
        self, thread: SqliteThread, session: str | None, failed: str, work: Callable[[sqlite3.Connection], T]
    ) -> T:
        """Have a thread do something, and return or raise what came of it; `failed` says what did not happen then."""
        self._refuse_fork(session)
        try:
            answer = await thread.do(work, session)
        except trio.ClosedResourceError:
            raise storage_error(BACKEND, session, "cannot be reached: the storage is closed") from None
        match answer:
            case outcome.Error(sqlite3.Error() as error):  # it may be that of a whole group: each has its own to raise
                raise failure(self._path, session, failed, error) from error
            case _:
                return answer.unwrap()

    def _refuse_fork(self, session: str | None) -> None:
        """Raise `StorageError` in a process that was forked off: its threads are not there."""
        if os.getpid() != self._process:
            reason = f"cannot be reached: {self._path} was opened before this process was forked off, and only there"
            raise storage_error(BACKEND, session, reason, path=str(self._path))


def _located(path: str | PathLike[str]) -> Path:
    """Return where a file is, also after the working directory has changed."""
    return Path(path).absolute()
