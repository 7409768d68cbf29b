"""The thread of a SQLite storage: groups, what fails in them, who is cancelled, how it ends."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import outcome
import pytest
import trio
import trio.testing

from wizard_actors.storage import sqlite_thread
from wizard_actors.storage.sqlite_thread import SqliteThread, each_alone, one_transaction, patiently

Said = list[str]


def connected(path: Path, said: Said) -> sqlite3.Connection:
    """Open a database with two tables; `said` hears of every statement."""
    db = sqlite3.connect(path, isolation_level=None, timeout=0)
    db.execute("PRAGMA foreign_keys = ON")
    db.execute("CREATE TABLE IF NOT EXISTS words (word TEXT PRIMARY KEY)")
    db.execute("CREATE TABLE IF NOT EXISTS ends (word TEXT REFERENCES words (word) DEFERRABLE INITIALLY DEFERRED)")
    db.set_trace_callback(said.append)
    return db


@asynccontextmanager
async def writing(path: Path, said: Said | None = None) -> AsyncIterator[SqliteThread]:
    """Run a thread that writes to a new database."""
    connect = partial(connected, path / "words.db", [] if said is None else said)
    async with SqliteThread("writes", connect, one_transaction(0)).running() as thread:
        yield thread


def add(word: str) -> Callable[[sqlite3.Connection], str]:
    """Return what adds a word, and returns it."""

    def work(db: sqlite3.Connection) -> str:
        db.execute("INSERT INTO words VALUES (?)", [word])
        return word

    return work


def words(db: sqlite3.Connection) -> list[str]:
    """Return all words."""
    return [word for (word,) in db.execute("SELECT word FROM words ORDER BY word")]


class Gate:
    """Work that holds the thread up until it is let go."""

    def __init__(self) -> None:
        self._begun = threading.Event()
        self._let_go = threading.Event()

    def __call__(self, db: sqlite3.Connection) -> None:
        self._begun.set()
        assert self._let_go.wait(60)

    async def begun(self) -> None:
        await trio.to_thread.run_sync(self._begun.wait, 60)

    def open(self) -> None:
        self._let_go.set()


@asynccontextmanager
async def held_up(thread: SqliteThread) -> AsyncIterator[None]:
    """Keep the thread busy for the length of a block, so that requests queue up."""
    gate = Gate()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(thread.do, gate, None)
        await gate.begun()
        try:
            yield
        finally:
            gate.open()


async def all_at_once(thread: SqliteThread, *works: Callable[[sqlite3.Connection], object]) -> list[object]:
    """Do all in one group; return results and errors in their order."""
    found: dict[int, object] = {}

    async def one(index: int) -> None:
        answer = await thread.do(works[index], None)
        found[index] = answer.error if isinstance(answer, outcome.Error) else answer.unwrap()

    async with trio.open_nursery() as nursery, held_up(thread):
        for index in range(len(works)):
            nursery.start_soon(one, index)
            await trio.testing.wait_all_tasks_blocked()
    return [found[index] for index in range(len(works))]


# -- groups ------------------------------------------------------------------------------------------


async def test_who_waits_together_is_committed_together(tmp_path: Path) -> None:
    """A hundred requests that wait cost one commit, and each gets its own answer."""
    said: Said = []
    async with writing(tmp_path, said) as thread:
        wanted = [f"word {number:03}" for number in range(100)]

        found = await all_at_once(thread, *map(add, wanted))

        assert found == wanted
        assert said.count("COMMIT") == 2  # that of the gate, and theirs
        assert (await thread.do(words, None)).unwrap() == wanted


async def test_who_fails_fails_alone(tmp_path: Path) -> None:
    """What it had done is taken back; those before and after it in its group are stored."""

    def two(db: sqlite3.Connection) -> None:
        add("c")(db)
        add("a")(db)

    async with writing(tmp_path) as thread:
        first, failed, last = await all_at_once(thread, add("a"), two, add("b"))

        assert (first, last) == ("a", "b")
        assert isinstance(failed, sqlite3.IntegrityError)
        assert (await thread.do(words, None)).unwrap() == ["a", "b"]


async def test_a_commit_that_fails_fails_for_all(tmp_path: Path) -> None:
    """Nobody is told that it is stored, nothing is, and the next group is served."""

    def dangling(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO ends VALUES ('nowhere')")

    async with writing(tmp_path) as thread:
        found = await all_at_once(thread, add("a"), dangling, add("b"))

        assert [type(each) for each in found] == [sqlite3.IntegrityError] * 3
        assert (await thread.do(words, None)).unwrap() == []
        assert (await thread.do(add("c"), None)).unwrap() == "c"


async def test_who_takes_the_transaction_along_fails_alone(tmp_path: Path) -> None:
    """SQLite may take back a whole transaction where one statement fails: the others are done again."""

    def full(db: sqlite3.Connection) -> None:
        db.execute("ROLLBACK")
        raise sqlite3.OperationalError("database or disk is full")

    async with writing(tmp_path) as thread:
        first, failed, middle, failed_too, last = await all_at_once(thread, add("a"), full, add("b"), full, add("c"))

        assert (first, middle, last) == ("a", "b", "c")
        assert "disk is full" in str(failed)
        assert "disk is full" in str(failed_too)
        assert (await thread.do(words, None)).unwrap() == ["a", "b", "c"]


async def test_who_may_not_write_is_told(tmp_path: Path) -> None:
    """All that wait are, where another connection writes; and none after it has ended."""
    async with writing(tmp_path) as thread:
        with closing(sqlite3.connect(tmp_path / "words.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            found = await thread.do(add("a"), None)
            other.execute("ROLLBACK")

        assert isinstance(found, outcome.Error)
        assert "locked" in str(found.error)
        assert (await thread.do(add("a"), None)).unwrap() == "a"


def test_patience_ends_when_nobody_wants_it_any_more() -> None:
    """Else a lock that is held for long would hold up those who come after."""
    asked: list[None] = []

    def locked() -> None:
        asked.append(None)
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise error

    with pytest.raises(sqlite3.OperationalError, match="locked"):
        patiently(locked, 3600, lambda: len(asked) < 3)
    assert len(asked) == 3


# -- cancellation ------------------------------------------------------------------------------------


async def test_what_has_not_begun_is_skipped_when_its_waiter_is_cancelled(tmp_path: Path) -> None:
    """It leaves at once, while the thread is busy with another, and its word is never stored."""
    async with writing(tmp_path) as thread:
        async with held_up(thread):
            with trio.move_on_after(0) as scope:
                await thread.do(add("a"), None)
            with trio.CancelScope() as late:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(thread.do, add("b"), None)
                    await trio.testing.wait_all_tasks_blocked()
                    late.cancel()
            assert scope.cancelled_caught
            assert late.cancelled_caught

        assert (await thread.do(words, None)).unwrap() == []


async def test_who_is_cancelled_while_its_group_is_served_is_skipped(tmp_path: Path) -> None:
    """What stands behind another in one transaction has not begun either."""
    gate = Gate()
    async with writing(tmp_path) as thread, trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as cancelled:
                async with held_up(thread):
                    nursery.start_soon(thread.do, gate, None)
                    await trio.testing.wait_all_tasks_blocked()
                    cancelled.start_soon(thread.do, add("a"), None)
                    await trio.testing.wait_all_tasks_blocked()
                await gate.begun()
                scope.cancel()
        gate.open()

        assert (await thread.do(words, None)).unwrap() == []


async def test_what_has_begun_goes_on_when_its_waiter_is_cancelled(tmp_path: Path) -> None:
    """It leaves at once; its word is stored, and `settled` waits until it is."""
    gate = Gate()
    settled: list[str] = []

    def work(db: sqlite3.Connection) -> None:
        gate(db)
        add("a")(db)

    async def wait(session: str) -> None:
        await thread.settled(session)
        settled.append(session)

    async with writing(tmp_path) as thread:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(thread.do, work, "alice")
            await gate.begun()
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, "alice")
            nursery.start_soon(wait, "bob")
            await trio.testing.wait_all_tasks_blocked()
            assert settled == ["bob"]
            gate.open()

        assert (await thread.do(words, None)).unwrap() == ["a"]
        await thread.settled("alice")


async def test_what_may_change_any_session_keeps_all_waiting(tmp_path: Path) -> None:
    """A removal that was abandoned may still remove whatever is asked for."""
    gate = Gate()
    async with writing(tmp_path) as thread:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(thread.do, gate, None)
            await gate.begun()
            nursery.cancel_scope.cancel()
        with trio.move_on_after(0) as scope:
            await thread.settled("alice")
        assert scope.cancelled_caught

        gate.open()
        await thread.settled("alice")


async def test_beyond_its_bound_tasks_wait_for_room(tmp_path: Path) -> None:
    """The queue is full of what was abandoned too, until the thread gets there; who waits for room may leave."""
    async with writing(tmp_path) as thread:
        async with held_up(thread):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    for number in range(sqlite_thread.WAITING + 20):
                        nursery.start_soon(thread.do, add(f"never {number}"), None)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            assert thread._queue.qsize() < sqlite_thread.WAITING
            with trio.move_on_after(0) as late:
                await thread.do(add("late"), None)
            assert late.cancelled_caught

        assert (await thread.do(words, None)).unwrap() == []


# -- the end -----------------------------------------------------------------------------------------


async def test_what_waits_at_the_end_is_done_first(tmp_path: Path) -> None:
    """Whoever was let in gets an answer, and whoever comes later is told that it has closed."""
    found: list[object] = []

    async def one(word: str) -> None:
        try:
            found.append((await thread.do(add(word), None)).unwrap())
        except trio.ClosedResourceError:
            found.append("closed")

    gate = Gate()
    async with trio.open_nursery() as nursery:
        async with writing(tmp_path) as thread:
            nursery.start_soon(thread.do, gate, None)
            await gate.begun()
            for number in range(sqlite_thread.WAITING + 5):
                nursery.start_soon(one, f"{number:03}")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(trio.to_thread.run_sync, gate.open)
        await one("later")

    done = sorted(map(str, found))[: -found.count("closed")]
    with closing(sqlite3.connect(tmp_path / "words.db")) as db:
        assert words(db) == done
    assert len(found) == sqlite_thread.WAITING + 6
    assert found.count("closed") == 7  # one slot was the gate's


async def test_a_bug_in_the_thread_hangs_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits is told that it is closed, and so is everybody later."""

    def broken(_db: sqlite3.Connection, _group: object) -> None:
        raise ZeroDivisionError

    told: SimpleQueue[object] = SimpleQueue()
    monkeypatch.setattr(threading, "excepthook", lambda args: told.put(args.exc_type))
    connect = partial(connected, tmp_path / "words.db", [])
    async with SqliteThread("writes", connect, broken).running() as thread:
        for _ in range(2):
            with pytest.raises(trio.ClosedResourceError):
                await thread.do(words, None)

    assert await trio.to_thread.run_sync(partial(told.get, timeout=5)) is ZeroDivisionError
    assert told.empty()


async def test_why_it_cannot_be_opened_is_raised() -> None:
    """As it is, out of the opening."""

    def refused() -> sqlite3.Connection:
        raise FileNotFoundError("nothing there")

    with pytest.raises(FileNotFoundError, match="nothing there"):
        async with SqliteThread("writes", refused, each_alone(0)).running():
            pass


async def test_a_cancelled_opening_closes_what_it_has_opened(tmp_path: Path) -> None:
    """Once the thread gets there; whoever has waited left before."""
    gate = Gate()
    connections: list[sqlite3.Connection] = []

    def connect() -> sqlite3.Connection:
        connections.append(sqlite3.connect(tmp_path / "words.db", check_same_thread=False))
        gate(connections[0])
        return connections[0]

    thread = SqliteThread("writes", connect, each_alone(0))
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(thread.running().__aenter__)
            await gate.begun()
            scope.cancel()

    gate.open()
    await trio.to_thread.run_sync(thread._thread.join, 60)
    with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
        connections[0].execute("SELECT 1")


def test_a_thread_may_outlive_its_run(tmp_path: Path) -> None:
    """A cancelled close waits for nothing; what had begun is stored, the connection closed, and no lock left."""
    gate = Gate()
    threads: list[threading.Thread] = []

    def work(db: sqlite3.Connection) -> None:
        gate(db)
        add("a")(db)

    async def run() -> None:
        with trio.CancelScope() as scope:
            async with writing(tmp_path) as thread, trio.open_nursery() as nursery:
                threads.append(thread._thread)
                nursery.start_soon(thread.do, work, None)
                await gate.begun()
                scope.cancel()

    trio.run(run)
    gate.open()
    threads[0].join(60)

    assert not threads[0].is_alive()
    with closing(sqlite3.connect(tmp_path / "words.db", timeout=0)) as db:
        assert words(db) == ["a"]
        db.execute("BEGIN EXCLUSIVE")
