"""A thread with a SQLite connection of its own, and what tasks under Trio ask of it.

Requests queue up, so many at most; beyond that tasks wait for room. The thread takes those that wait and serves them as
a group: `one_transaction` commits what they change together, so that many saves cost one wait for the disk;
`each_alone` is for reading.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing, suppress
from queue import Empty, SimpleQueue
from typing import Final, Generic, Self, TypeAlias, TypeVar, TypeVarTuple, Unpack

import outcome
import trio
from attrs import Factory, define

__all__ = [
    "POLL",
    "Check",
    "Request",
    "Serve",
    "SqliteThread",
    "each_alone",
    "one_transaction",
    "patiently",
    "primary_code",
]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
T_co = TypeVar("T_co", covariant=True)

WAITING: Final = 256
"""Requests that a thread is given at a time: the most that it commits at once, and keeps in memory."""

POLL: Final = 0.1
"""Seconds that SQLite itself waits for a lock, before it is looked whether anybody still wants it."""

PAUSE: Final = 0.005
"""Seconds between two tries where SQLite does not wait by itself."""


@define(eq=False)
class Request(Generic[T_co]):
    """What a task wants done with the connection.

    `session` is the one that it changes, None where it may be any. The thread writes `answer`, Trio's thread the rest.
    """

    work: Callable[[sqlite3.Connection], T_co]
    session: str | None
    answer: outcome.Outcome[T_co] | None = None
    abandoned: bool = False
    done: trio.Event = Factory(trio.Event)


Serve: TypeAlias = Callable[[sqlite3.Connection, Sequence[Request[object]]], None]
"""Writes the answers of a group; requests that were abandoned it may leave out."""

Check: TypeAlias = Callable[[sqlite3.Connection], None]
"""Raises a `sqlite3.Error` where what the connection says can no longer be relied upon."""


class SqliteThread:
    """A thread that opens a connection by `connect`, lets `serve` answer requests, `most` at once, and closes it."""

    def __init__(
        self, name: str, connect: Callable[[], sqlite3.Connection], serve: Serve, *, most: int = WAITING
    ) -> None:
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._connect = connect
        self._serve = serve
        self._most = most
        self._token = trio.lowlevel.current_trio_token()
        self._queue: SimpleQueue[Request[object] | None] = SimpleQueue()
        self._slots = trio.Semaphore(WAITING)
        self._given: dict[Request[object], None] = {}  # in the order of the queue
        self._open = False
        self._opened = trio.Event()
        self._refusal: Exception | None = None
        self._ended = trio.Event()
        self._process = os.getpid()

    # -- in Trio's thread

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Run the thread for the length of a block; raise what `connect` raised. At the end it is waited for.

        Cancelled, it is told to stop all the same: it ends, and closes its connection, as soon as it can.
        """
        self._thread.start()
        try:
            await self._opened.wait()
            if self._refusal is not None:
                raise self._refusal
            yield self
        finally:
            self._open = False
            self._queue.put(None)
            if os.getpid() == self._process:  # else there is no thread here
                await self._ended.wait()  # noqa: ASYNC102 - who is cancelled does not wait

    async def do(self, work: Callable[[sqlite3.Connection], T], session: str | None) -> outcome.Outcome[T]:
        """Have `work` done, and return what came of it; an error in there may be told to others too.

        Raises `trio.ClosedResourceError` where the thread has stopped. Cancelled, it leaves at once: what has not begun
        is never done, what has begun goes on.
        """
        await self._slots.acquire()
        if not self._open:
            self._slots.release()
            raise trio.ClosedResourceError
        request = Request(work, session)
        self._given[request] = None
        self._queue.put(request)
        try:
            await request.done.wait()
        finally:
            request.abandoned = not request.done.is_set()
        if request.answer is None:
            raise trio.ClosedResourceError
        return request.answer

    async def settled(self, session: str) -> None:
        """Wait until nothing that was abandoned may still change `session`, so that what is read of it is final."""
        late = [request for request in self._given if request.abandoned and request.session in {None, session}]
        for request in late:
            await request.done.wait()

    def _has_opened(self, refusal: Exception | None) -> None:
        self._refusal = refusal
        self._open = refusal is None
        self._opened.set()

    def _answered(self, group: Sequence[Request[object]]) -> None:
        for request in group:
            del self._given[request]
            self._slots.release()
            request.done.set()

    def _has_ended(self) -> None:
        self._open = False
        self._answered(list(self._given))  # none, unless a bug ended it
        self._opened.set()
        self._ended.set()

    # -- in the other thread

    def _run(self) -> None:
        try:
            try:
                db = self._connect()
            except Exception as error:  # noqa: BLE001 - raised where the opening waits for it
                self._tell(self._has_opened, error)
                return
            with closing(db):
                self._tell(self._has_opened, None)
                while group := self._next():
                    self._serve(db, group)
                    self._tell(self._answered, group)
        finally:
            self._tell(self._has_ended)

    def _next(self) -> Sequence[Request[object]]:
        """Wait for requests, and return all that wait; none where it is to stop."""
        group: list[Request[object]] = []
        request = self._queue.get()
        while request is not None:
            group.append(request)
            if len(group) == self._most:
                return group
            try:
                request = self._queue.get_nowait()
            except Empty:
                return group
        if group:
            self._queue.put(None)  # these first
        return group

    def _tell(self, what: Callable[[Unpack[Ts]], object], *values: *Ts) -> None:
        with suppress(trio.RunFinishedError, OSError):  # nobody is left; OSError: Trio itself broke down
            self._token.run_sync_soon(what, *values)


# -- ways to serve -----------------------------------------------------------------------------------


def unchecked(_db: sqlite3.Connection) -> None:
    """Rely on a connection, whatever happens to its file."""


def each_alone(busy_timeout: float, check: Check = unchecked) -> Serve:
    """Return what serves each request by itself, to read.

    A request waits at most `busy_timeout` seconds for another connection that writes. Where `check` raises, before or
    afterwards, that is its answer.
    """

    def serve(db: sqlite3.Connection, group: Sequence[Request[object]]) -> None:
        for request in group:
            if not request.abandoned:
                request.answer = outcome.capture(_read, db, request, busy_timeout, check)

    return serve


def _read(db: sqlite3.Connection, request: Request[T], busy_timeout: float, check: Check) -> T:
    check(db)
    try:
        return patiently(lambda: request.work(db), busy_timeout, lambda: not request.abandoned)
    finally:
        check(db)  # also where it failed: this may be why


def one_transaction(busy_timeout: float, check: Check = unchecked) -> Serve:
    """Return what serves a group in one transaction: a request that fails fails alone, a commit fails for all of them.

    It waits at most `busy_timeout` seconds until it may write. Where `check` raises, before the group is served or
    after its commit, that is the answer to all of it.
    """

    def serve(db: sqlite3.Connection, group: Sequence[Request[object]]) -> None:
        while group := [request for request in group if not request.abandoned]:
            group = _committed(db, group, busy_timeout, check)

    return serve


def _committed(
    db: sqlite3.Connection, group: Sequence[Request[object]], busy_timeout: float, check: Check
) -> Sequence[Request[object]]:
    """Serve requests in one transaction; return those that have to be served again."""

    def begin() -> None:
        check(db)
        db.execute("BEGIN IMMEDIATE")

    try:
        patiently(begin, busy_timeout, lambda: any(not each.abandoned for each in group))
        for request in group:
            if request.abandoned:
                continue
            request.answer = _in_savepoint(db, request.work)
            if not db.in_transaction:  # SQLite took everything back: a full disk, or an error of it
                return [each for each in group if each is not request]
        db.execute("COMMIT")
        check(db)
    except sqlite3.Error as error:
        for request in group:
            request.answer = outcome.Error(error)
    finally:
        if db.in_transaction:
            with suppress(sqlite3.Error):  # then the next BEGIN fails, and says why
                db.execute("ROLLBACK")
    return []


def _in_savepoint(db: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> outcome.Outcome[T]:
    """Do `work`; where it fails, take back what it has done, and no more."""
    db.execute("SAVEPOINT request")
    answer = outcome.capture(work, db)
    if db.in_transaction:
        if isinstance(answer, outcome.Error):
            db.execute("ROLLBACK TO request")
        db.execute("RELEASE request")
    return answer


def patiently(work: Callable[[], T], seconds: float, wanted: Callable[[], bool] = lambda: True) -> T:
    """Do `work`, again while another connection holds a lock that it needs: for some seconds, and while it is wanted.

    SQLite's own wait would hold on to what nobody wants any more, and sometimes does not wait at all.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            return work()
        except sqlite3.OperationalError as error:
            if primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= until or not wanted():
                raise
        time.sleep(PAUSE)


def primary_code(error: sqlite3.Error) -> int:
    """Return the kind of an error of SQLite, without its finer part; -1 for one of Python's module."""
    code = getattr(error, "sqlite_errorcode", None)
    return -1 if code is None else code & 0xFF
