"""How the threads of a SQLite storage serve: locks that readers meet, and a file that is no longer to be trusted."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import outcome
import pytest
import trio

from tests.storage.test_sqlite_thread import connected, words
from wizard_actors.storage.sqlite_thread import Check, Serve, SqliteThread, each_alone, one_transaction


async def test_who_reads_waits_for_who_writes(tmp_path: Path) -> None:
    """Where readers and writers exclude each other, what is read is what was written; who has left holds up nobody."""
    path = tmp_path / "words.db"
    found: list[object] = []
    first, second = threading.Event(), threading.Event()

    def read(refused: threading.Event, db: sqlite3.Connection) -> list[str]:
        try:
            return words(db)
        except sqlite3.OperationalError:
            refused.set()
            raise

    async def look() -> None:
        found.append((await thread.do(partial(read, second), None)).unwrap())

    connect = partial(connected, path, [])
    async with SqliteThread("reads", connect, each_alone(60), most=1).running() as thread:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            other.execute("INSERT INTO words VALUES ('a')")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(thread.do, partial(read, first), None)
                assert await trio.to_thread.run_sync(first.wait, 10)
                nursery.cancel_scope.cancel()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(look)
                assert await trio.to_thread.run_sync(second.wait, 10)
                other.execute("COMMIT")

    assert found == [["a"]]


async def test_who_reads_waits_no_longer_than_that(tmp_path: Path) -> None:
    """Then the lock is what it is told."""
    path = tmp_path / "words.db"
    async with SqliteThread("reads", partial(connected, path, []), each_alone(0), most=1).running() as thread:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            found = await thread.do(words, None)

    assert isinstance(found, outcome.Error)
    assert "locked" in str(found.error)


@pytest.mark.parametrize("passes", [0, 1])
@pytest.mark.parametrize("serving", [one_transaction, each_alone])
async def test_a_check_that_fails_is_the_answer(
    tmp_path: Path, serving: Callable[[float, Check], Serve], passes: int
) -> None:
    """Before the work, which is not done then, or after it: nobody is told that it is stored, or what was read."""
    checks: list[None] = []
    done: list[None] = []

    def check(_db: sqlite3.Connection) -> None:
        checks.append(None)
        if len(checks) == passes + 1:
            raise sqlite3.OperationalError("no longer there")

    connect = partial(connected, tmp_path / "words.db", [])
    async with SqliteThread("checks", connect, serving(0, check)).running() as thread:
        first = await thread.do(lambda _db: done.append(None), None)
        second = await thread.do(words, None)

    assert isinstance(first, outcome.Error)
    assert "no longer there" in str(first.error)
    assert len(done) == passes
    assert second.unwrap() == []
