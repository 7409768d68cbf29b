"""The storage of a client: opened when it is wanted, each call within a time limit, every failure a StorageError."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from inspect import getattr_static, iscoroutine
from typing import Final, TypeVar, cast

import trio

from wizard_actors.background import background
from wizard_actors.errors import StorageError, WizardError
from wizard_actors.session_record import SessionRecord, SessionSummary
from wizard_actors.storage.base import SessionStorage, check_busy, check_limit, check_prefix, storage_error
from wizard_actors.storage.opening import Opener

__all__ = ["Storing"]

log = logging.getLogger("wizard_actors.sessions")

T = TypeVar("T")

METHODS: Final = ("load", "save", "delete", "list", "purge")
"""What a storage has."""


class _Opening:
    """One try to open the backend, and what came of it."""

    def __init__(self) -> None:
        self.wanted = trio.Event()
        self.over = trio.Event()
        self.storage: SessionStorage | None = None
        self.error: Exception | None = None


class _Garbage(Exception):  # noqa: N818 - what a backend returned, on its way to a StorageError
    """A call returned what it must not."""


class Storing:
    """A backend as its client's sessions use it: a `SessionStorage` from which nothing unforeseen comes.

    `opener` opens the backend, `name` is what errors call it, and `timeout`, in seconds, is what each call may take.
    Inside `running` the first call opens the backend, in a task of its own; where that fails, everybody who waits is
    told, and the next call tries again. Where it hangs, callers are told after their `timeout`, and it goes on: once it
    is done it is used.

    A call that takes longer is cancelled, and raises `StorageError`, as it does for whatever the backend raises that is
    no `WizardError`, and for what it returns that it must not. The caller's own cancellation passes through. A backend
    that shields itself from cancellation cannot be held to its time.
    """

    def __init__(self, opener: Opener, *, name: str, timeout: float) -> None:
        self._opener = opener
        self._name = name
        self._timeout = timeout
        self._accepting = False
        self._calls = 0
        self._quiet = trio.Event()
        self._opening = _Opening()
        self._first_opened = trio.Event()
        self._ending = trio.Event()
        self._over = trio.Event()
        self._hosting = trio.CancelScope(shield=True)

    def __repr__(self) -> str:
        state = "running" if self._accepting else "closed"
        return f"<Storing {self._name} {state}>"

    # -- the block

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Let calls in for the length of the block, once; an error in the block is raised as it is.

        At its end new calls are refused, those under way are waited for, and the backend is closed, each within
        `timeout` and shielded from cancellation. What the backend raises then is logged.
        """
        async with background(lambda _nursery: self._host()):
            self._accepting = True
            try:
                yield
            finally:
                try:
                    await self._wind_up()  # noqa: ASYNC102 - shields itself, and is bounded
                finally:
                    self._hosting.cancel()

    async def _wind_up(self) -> None:
        """Let no call in, wait for those under way, and close the backend."""
        self._accepting = False
        with trio.CancelScope(shield=True):
            if self._calls:
                with trio.move_on_after(self._timeout):
                    await self._quiet.wait()
            self._ending.set()
            self._opening.wanted.set()
            if self._opening.storage is None:
                self._hosting.cancel()  # nobody waits for it to open any more
            with trio.move_on_after(self._timeout):
                await self._over.wait()
                return
        log.warning("%s did not close within %g s: it is left as it is", self._name, self._timeout)

    async def _host(self) -> None:
        """Open the backend when it is wanted, as often as that, and keep it until the block ends."""
        try:
            with self._hosting:
                while not self._ending.is_set():
                    await self._opening.wanted.wait()
                    if not self._ending.is_set():
                        await self._serve(self._opening)
        except Exception as error:  # noqa: BLE001 - of a backend that was cancelled at closing
            self._log_failure(error)
        finally:
            self._over.set()

    async def _serve(self, opening: _Opening) -> None:
        try:
            async with self._manager() as storage:
                self._check(storage)
                opening.storage = storage
                opening.over.set()
                self._first_opened.set()
                await self._ending.wait()
        except Exception as error:  # noqa: BLE001 - whatever a backend raises, the client goes on
            opening.error = error
            if opening.storage is not None:
                self._log_failure(error)
        if not self._ending.is_set():  # it did not open, or ended by itself: the next call tries again
            self._opening = _Opening()
        opening.over.set()

    def _manager(self) -> AbstractAsyncContextManager[SessionStorage]:
        """Return what is to be entered. Raises `StorageError` where that is something else."""
        manager: object = self._opener()
        if all(getattr_static(manager, name, None) is not None for name in ("__aenter__", "__aexit__")):
            return cast("AbstractAsyncContextManager[SessionStorage]", manager)
        if iscoroutine(manager):
            manager.close()
        kind = type(manager).__name__
        raise storage_error(self._name, None, f"what opens it has to return an async context manager, not a {kind}")

    def _check(self, storage: object) -> None:
        """Raise `StorageError` for what was opened and is no storage."""
        lacking = [name for name in METHODS if not callable(getattr(storage, name, None))]
        if lacking:
            reason = f"what was opened is no storage: the {type(storage).__name__} has no {', '.join(lacking)}"
            raise storage_error(self._name, None, reason)

    def _log_failure(self, error: Exception) -> None:
        """Log what a backend raised beside any call; only ours says nothing that nobody may see."""
        told = f": {error}" if isinstance(error, WizardError) else ""
        when = "at closing" if self._ending.is_set() else "while it was open"
        log.warning("%s failed %s: %s%s", self._name, when, type(error).__name__, told)

    async def opened(self) -> None:
        """Wait until the backend has been opened for the first time; nothing is opened for it."""
        await self._first_opened.wait()

    # -- calls

    async def load(self, session: str) -> SessionRecord | None:
        """Return what is stored of a session. Raises `StorageError` also for a record of another one."""

        async def load(storage: SessionStorage) -> SessionRecord | None:
            record: object = await storage.load(session)
            if record is None:
                return None
            if not isinstance(record, SessionRecord):
                raise _Garbage(f"an object of type {type(record).__name__}")
            if record.id != session:
                raise _Garbage(f"another session, {record.id!r}")
            return record

        return await self._call(session, "was not loaded", load)

    async def save(self, record: SessionRecord) -> None:
        """Store a record in the place of the version before it."""
        await self._call(record.id, "may not be saved", lambda storage: storage.save(record))

    async def delete(self, session: str) -> bool:
        """Remove a session."""

        async def delete(storage: SessionStorage) -> bool:
            gone: object = await storage.delete(session)
            if not isinstance(gone, bool):
                raise _Garbage(f"an object of type {type(gone).__name__}")
            return gone

        return await self._call(session, "may not be deleted", delete)

    async def list(
        self, *, limit: int = 50, after: SessionSummary | None = None, prefix: str = ""
    ) -> Sequence[SessionSummary]:
        """Return a page of the sessions."""
        check_limit(limit)
        check_prefix(prefix)

        async def page(storage: SessionStorage) -> Sequence[SessionSummary]:
            return _all(SessionSummary, limit, await storage.list(limit=limit, after=after, prefix=prefix))

        return await self._call(None, "the sessions were not listed", page)

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

        async def purge(storage: SessionStorage) -> Sequence[str]:
            gone = await storage.purge(limit=limit, used_before=used_before, created_before=created_before, busy=spared)
            return _all(str, limit, gone)

        return await self._call(None, "old sessions may not be removed", purge)

    async def _call(self, session: str | None, failed: str, call: Callable[[SessionStorage], Awaitable[T]]) -> T:
        """Return what the backend does; `failed` says what did not happen, or may not have, where it does not."""
        if not self._accepting:
            raise storage_error(self._name, session, f"{failed}: the storage is closed")
        self._calls += 1
        try:
            return await self._in_time(session, failed, call)
        except WizardError:
            raise
        except _Garbage as garbage:
            raise storage_error(self._name, session, f"{failed}: its storage returned {garbage}") from None
        except Exception as error:
            what = f"an unforeseen {type(error).__name__} in its storage"  # its text may hold anything
            raise storage_error(self._name, session, f"{failed}: {what}") from error
        finally:
            self._left()

    def _left(self) -> None:
        self._calls -= 1
        if not self._calls and not self._accepting:
            self._quiet.set()

    async def _in_time(self, session: str | None, failed: str, call: Callable[[SessionStorage], Awaitable[T]]) -> T:
        opening = self._opening
        with trio.move_on_after(self._timeout):
            return await call(await self._opened(opening, session, failed))
        slow = "open" if opening.storage is None else "answer"
        raise storage_error(self._name, session, f"{failed}: the storage did not {slow} within {self._timeout:g} s")

    async def _opened(self, opening: _Opening, session: str | None, failed: str) -> SessionStorage:
        """Return the backend once it is open. Each of those who wait gets an error of its own."""
        opening.wanted.set()
        await opening.over.wait()
        if opening.storage is not None:
            return opening.storage
        error = opening.error
        told = str(error) if isinstance(error, WizardError) else f"an unforeseen {type(error).__name__}"
        path = error.path if isinstance(error, StorageError) else None
        reason = f"{failed}: its storage could not be opened: {told}"
        raise storage_error(self._name, session, reason, path=path) from error


def _all(kind: type[T], limit: int, page: Sequence[object]) -> tuple[T, ...]:
    """Return a page of a backend's, once it is known to be one."""
    items = tuple(page)
    if len(items) > limit:
        raise _Garbage(f"{len(items)} items where {limit} were asked for")
    for item in items:
        if not isinstance(item, kind):
            raise _Garbage(f"an object of type {type(item).__name__}")
    return cast("tuple[T, ...]", items)
