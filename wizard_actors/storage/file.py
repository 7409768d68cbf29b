"""Sessions in files, one JSON file each: for people who want to see them, and for few writers.

A save costs two `fsync`. A list looks at every file's stamp and reads the first line of those that have changed since
the last list: with ten thousand sessions that is a quarter of a second at first, and a twentieth afterwards. Other
processes may have the same folder open.
"""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, Self, TypeVar

import trio

from wizard_actors.errors import SerializationError, StorageError
from wizard_actors.session_record import SessionRecord, SessionSummary
from wizard_actors.storage.base import check_busy, check_limit, check_prefix, storage_error
from wizard_actors.storage.session_files import BACKEND, LOCKS, SessionFiles, TakenError, lock_of

__all__ = ["FileStorage"]

READERS: Final = 8
"""Files that are read at the same time."""

LAST_WRITES: Final = 1.0
"""Seconds that closing waits for writes whose callers did not."""

FIRST_WAIT: Final = 0.001
LONGEST_WAIT: Final = 0.01
"""Seconds between two attempts at a lock that another process has; each wait is twice the one before."""

ADVICE: Final = {
    errno.ENOSPC: "the disk is full: free some space, or delete or purge sessions",
    errno.EDQUOT: "the disk quota is used up: free some space, or delete or purge sessions",
    errno.EFBIG: "files may not grow that large here: raise the limit of the process or of the file system",
    errno.EROFS: "the file system is read-only: name another folder",
    errno.EACCES: "give this user the right to read and write the folder and its files, or name another folder",
    errno.EPERM: "give this user the right to read and write the folder and its files, or name another folder",
    errno.ENOENT: "the folder is missing: bring it back, or open the storage again",
    errno.ENOTDIR: "there is a file where a folder should be: name another folder",
    errno.EEXIST: "there is a file where a folder should be: name another folder",
    errno.EMFILE: "this process has too many files open: raise its limit",
}

T = TypeVar("T")


class FileStorage:
    """Sessions in a folder. `async with FileStorage.open(folder) as storage:`, under Trio.

    The folder is made where it is missing, readable by its owner alone, as all files in it are. Who shares it among
    processes needs a file system with locks. A damaged file is set aside when its session is loaded: it gets the name
    `NAME.damaged-` and the time, which the error tells, and the session's name is free.

    All work on files is done in threads, eight that read, sixteen that write and one that lists at most. A call that is
    cancelled returns at once; what its thread has begun, it ends, and later calls of this process wait for that.
    """

    def __init__(self, files: SessionFiles) -> None:
        self._files = files
        self._readers = trio.CapacityLimiter(READERS)
        self._lists = trio.CapacityLimiter(1)
        self._turns = [trio.Lock() for _ in range(LOCKS)]
        self._writers = [trio.CapacityLimiter(1) for _ in range(LOCKS)]
        self._left: set[int] = set()
        self._open = True

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: str | os.PathLike[str]) -> AsyncIterator[Self]:
        """Open the sessions of a folder for the length of a block.

        Raises `StorageError` where the folder can neither be made nor read.
        """
        files = SessionFiles(folder)
        with _told(None, "the folder cannot be opened", files.folder):
            await trio.to_thread.run_sync(files.prepare, abandon_on_cancel=True)
        storage = cls(files)
        try:
            yield storage
        finally:
            storage._open = False
            with trio.move_on_after(LAST_WRITES, shield=True):
                await storage._settled(range(LOCKS))

    def __repr__(self) -> str:
        return f"<FileStorage in {self._files.folder}>"

    async def load(self, session: str) -> SessionRecord | None:
        """Return what is stored of a session; a damaged file is set aside."""
        await self._begin(session)
        await self._settled([lock_of(session)])
        try:
            return await self._run(session, "cannot be read", partial(self._files.read, session), self._readers)
        except SerializationError as error:
            damaged = error
        set_aside = partial(self._files.set_aside, session)
        try:
            return await self._write(session, "was not set aside", lock_of(session), set_aside)
        except StorageError as error:
            raise SerializationError(f"{damaged}; {error}") from error

    async def save(self, record: SessionRecord) -> None:
        """Store a record in the place of the version before it."""
        await self._begin(record.id)
        await self._write(record.id, "was not saved", lock_of(record.id), partial(self._files.replace, record))

    async def delete(self, session: str) -> bool:
        """Remove a session."""
        await self._begin(session)
        return await self._write(session, "was not deleted", lock_of(session), partial(self._files.remove, session))

    async def list(
        self, *, limit: int = 50, after: SessionSummary | None = None, prefix: str = ""
    ) -> Sequence[SessionSummary]:
        """Return a page of the sessions; damaged ones are not among them."""
        check_limit(limit)
        check_prefix(prefix)
        await self._begin()
        await self._settled(range(LOCKS))
        return await self._run(
            None, "the sessions cannot be listed", partial(self._files.page, limit, after, prefix), self._lists
        )

    async def purge(
        self,
        *,
        limit: int,
        used_before: float | None = None,
        created_before: float | None = None,
        busy: Collection[str] = (),
    ) -> Sequence[str]:
        """Remove sessions that nobody wants any more; damaged ones stay."""
        check_limit(limit)
        spared = set(check_busy(busy))
        await self._begin()

        def due(session: SessionSummary) -> bool:
            unused = used_before is not None and session.used_at < used_before
            return unused or (created_before is not None and session.created_at < created_before)

        failed = "old sessions were not removed"
        removed: list[str] = []
        while len(removed) < limit:
            await self._settled(range(LOCKS))
            find = partial(self._files.oldest, limit - len(removed), due, frozenset(spared))
            old = await self._run(None, failed, find, self._lists)
            if not old:
                break
            spared.update(old)  # one that was saved meanwhile is not due; one that is damaged would be found for ever
            for number, sessions in _by_lock(old):
                removed += await self._write(None, failed, number, partial(self._files.remove_due, sessions, due))
        return removed

    # -- in threads

    async def _begin(self, session: str | None = None) -> None:
        """Wait once, so that a call can be cancelled before it does anything."""
        await trio.lowlevel.checkpoint()
        if not self._open:
            raise storage_error(BACKEND, session, "cannot be reached: the storage is closed")

    async def _run(self, session: str | None, failed: str, work: Callable[[], T], limiter: trio.CapacityLimiter) -> T:
        with _told(session, failed, self._files.folder):
            return await trio.to_thread.run_sync(work, limiter=limiter, abandon_on_cancel=True)

    async def _write(self, session: str | None, failed: str, number: int, work: Callable[[], T]) -> T:
        """Do something under a lock, as soon as it is free.

        The wait is here and not in the thread: it ends when the caller is cancelled, whoever holds the lock, and for
        however long. One task a lock asks for it; the others wait for that task.
        """

        def locked() -> T:
            with self._files.locked(number):
                return work()

        wait = FIRST_WAIT
        async with self._turns[number]:
            while True:
                with suppress(TakenError), self._leaving(number):
                    return await self._run(session, failed, locked, self._writers[number])
                await trio.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)

    @contextmanager
    def _leaving(self, number: int) -> Iterator[None]:
        """Note that a write may still go on, unless it has returned."""
        ended = False
        try:
            yield
            ended = True
        finally:
            if not ended:
                self._left.add(number)

    async def _settled(self, numbers: Iterable[int]) -> None:
        """Wait for the ends of writes whose callers left, so that what follows sees what they did."""
        for number in [each for each in numbers if each in self._left]:
            async with self._writers[number]:  # a thread keeps its place until it ends
                self._left.discard(number)


def _by_lock(sessions: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    grouped: defaultdict[int, list[str]] = defaultdict(list)
    for session in sessions:
        grouped[lock_of(session)].append(session)
    yield from grouped.items()


@contextmanager
def _told(session: str | None, failed: str, folder: Path) -> Iterator[None]:
    """Turn an error of the system into a `StorageError` that says what to do."""
    try:
        yield
    except OSError as error:
        path = str(error.filename or folder)
        advice = ADVICE.get(error.errno or 0, "see to the disk, and try again")
        reason = f"{failed}: {error.strerror or error} ({path}): {advice}"
        raise storage_error(BACKEND, session, reason, path=path) from error
