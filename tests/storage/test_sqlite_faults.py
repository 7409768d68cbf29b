"""A SQLite storage when the file cannot be written or read: locked, full, forbidden, spoiled while it is open."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from attrs import evolve

from wizard_actors.errors import StorageError
from wizard_actors.session_record import SessionRecord
from wizard_actors.storage import sqlite_connection
from wizard_actors.storage.sqlite import SqliteStorage
from wizard_actors.storage.sqlite_connection import SqliteConnection
from wizard_actors.storage.sqlite_thread import POLL
from wizard_actors.testing.storage_bench import born, later

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX permissions and limits")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the file is."""
    return tmp_path / "wizard.db"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock the file as another process does that is writing to it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def big(record: SessionRecord, size: int) -> SessionRecord:
    """Return the next version of a session, of so many bytes and more."""
    return evolve(later(record), system="x" * size)


@asynccontextmanager
async def at_most(path: Path, pages: int) -> AsyncIterator[SqliteStorage]:
    """Open a storage whose disk has only so many pages."""
    async with SqliteStorage.open(path) as storage:
        await storage._writer.do(lambda db: db.execute(f"PRAGMA max_page_count = {pages}"), None)
        yield storage


# -- locked ------------------------------------------------------------------------------------------


async def test_a_file_that_stays_locked_is_told_and_served_afterwards(path: Path) -> None:
    """Each call that writes is a StorageError with path and reason; what reads is served all the while."""
    async with SqliteStorage.open(path, busy_timeout=0) as storage:
        await storage.save(born("alice"))
        with locked(path):
            for session, call in (
                ("alice", storage.save(later(born("alice")))),
                ("alice", storage.delete("alice")),
                (None, storage.purge(limit=5, used_before=1e12)),
            ):
                with pytest.raises(
                    StorageError, match=r"database is locked; another program keeps it locked"
                ) as raised:
                    await call
                assert str(path) in str(raised.value)
                assert (raised.value.path, raised.value.session) == (str(path), session)
            assert await storage.load("alice") == born("alice")
            assert len(await storage.list()) == 1

        await storage.save(later(born("alice")))
        assert await storage.load("alice") == later(born("alice"))


async def test_a_lock_is_waited_for(path: Path) -> None:
    """A save goes on when the other process is done; meanwhile others are read."""
    async with SqliteStorage.open(path, busy_timeout=60) as storage:
        await storage.save(born("bob"))
        async with trio.open_nursery() as nursery:
            with locked(path):
                nursery.start_soon(storage.save, born("alice"))
                for _ in range(20):
                    assert await storage.load("bob") == born("bob")
                    assert await storage.load("alice") is None

        assert await storage.load("alice") == born("alice")


async def test_what_was_abandoned_while_the_file_was_locked_is_not_saved(path: Path) -> None:
    """A save whose deadline passed before it could begin never lands, and holds up nobody."""
    async with SqliteStorage.open(path, busy_timeout=20) as storage:
        await storage.save(born("alice"))
        with locked(path):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(storage.save, later(born("alice")))
                await trio.testing.wait_all_tasks_blocked(0.01)
                nursery.cancel_scope.cancel()
            with trio.fail_after(15):
                assert await storage.load("alice") == born("alice")

        await storage.save(later(born("alice"), "Another one?"))
        assert await storage.load("alice") == later(born("alice"), "Another one?")


class Logless(SqliteConnection):
    """A connection to a file where SQLite can keep no log beside it: readers and writers exclude each other."""

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:  # noqa: ANN401 - as of any connection
        return super().execute(statement.replace("journal_mode = WAL", "journal_mode = DELETE"), *values)


async def test_a_lock_is_waited_for_by_who_reads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A load goes on when the other process is done, as a save does."""
    monkeypatch.setattr(sqlite_connection, "SqliteConnection", Logless)
    async with SqliteStorage.open(path, busy_timeout=60) as storage:
        await storage.save(born("alice"))
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
            other.execute("BEGIN EXCLUSIVE")
            ending = threading.Timer(3 * POLL, other.rollback)
            ending.start()
            try:
                assert await storage.load("alice") == born("alice")
                assert len(await storage.list()) == 1
            finally:
                await trio.to_thread.run_sync(ending.join)


async def test_a_file_that_is_locked_cannot_be_made(path: Path) -> None:
    """The opening is a StorageError with path and reason, and the next one succeeds."""
    with locked(path), pytest.raises(StorageError, match=r"cannot be opened: .*database is locked") as raised:
        async with SqliteStorage.open(path, busy_timeout=0):
            pass

    assert raised.value.path == str(path)
    async with SqliteStorage.open(path, busy_timeout=0) as storage:
        await storage.save(born("alice"))


# -- full --------------------------------------------------------------------------------------------


async def test_a_full_disk_is_told_and_served_afterwards(path: Path) -> None:
    """What does not fit is a StorageError with path and reason; what is there stays, and what fits is saved."""
    async with at_most(path, 40) as storage:
        await storage.save(born("alice"))

        with pytest.raises(StorageError, match=r"session 'alice' was not saved: .*disk is full; make room") as raised:
            await storage.save(big(born("alice"), 500_000))

        assert str(path) in str(raised.value)
        assert raised.value.path == str(path)
        assert await storage.load("alice") == born("alice")
        await storage.save(later(born("alice")))
        await storage.save(born("bob"))
        assert await storage.load("alice") == later(born("alice"))


async def test_what_does_not_fit_keeps_nobody_else_from_being_saved(path: Path) -> None:
    """Of many that are saved at once, the one that is too big fails alone."""
    failed: list[str] = []

    async def save(storage: SqliteStorage, record: SessionRecord) -> None:
        try:
            await storage.save(record)
        except StorageError as error:
            failed.append(str(error.session))

    async with at_most(path, 60) as storage:
        await storage.save(born("big"))
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(save, storage, born(f"s{number:02}"))
                if number % 10 == 5:
                    nursery.start_soon(save, storage, big(born("big"), 500_000))

        assert failed == ["big", "big"]
        assert sorted(each.id for each in await storage.list()) == ["big", *(f"s{number:02}" for number in range(20))]


# -- in processes of their own -----------------------------------------------------------------------

BEGINNING = """
import os, resource, sys, tempfile
from pathlib import Path
import trio
from wizard_actors.errors import StorageError
from wizard_actors.storage.sqlite import SqliteStorage
from wizard_actors.testing.storage_bench import born, later
from tests.storage.test_sqlite_faults import big

async def told(call):
    try:
        await call
    except StorageError as error:
        print(error)
    else:
        print("done")
"""

LIMITED = """
async def main(path):
    async with SqliteStorage.open(path) as storage:
        await storage.save(born("alice"))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
        await told(storage.save(big(born("alice"), 900_000)))
        assert await storage.load("alice") == born("alice")
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        await storage.save(big(born("alice"), 900_000))
    async with SqliteStorage.open(path) as storage:
        assert await storage.load("alice") == big(born("alice"), 900_000)

trio.run(main, sys.argv[1])
"""

READ_ONLY = """
async def reads(path):
    async with SqliteStorage.open(path, busy_timeout=0) as storage:
        assert await storage.load("alice") == born("alice")
        await told(storage.save(later(born("alice"))))
        await told(storage.delete("alice"))
        assert [each.id for each in await storage.list()] == ["alice"]

async def makes(path):
    async with SqliteStorage.open(path) as storage:
        await storage.save(born("alice"))

async def main():
    if os.geteuid() == 0:
        os.seteuid(65534)  # to the superuser nothing is forbidden
    with tempfile.TemporaryDirectory() as above:
        folder = Path(above) / "storage"
        path = folder / "wizard.db"
        await makes(path)
        path.chmod(0o400)
        await reads(path)
        for each in folder.iterdir():
            each.unlink()
        folder.chmod(0o500)
        await told(makes(path))
        await told(makes(folder / "new" / "wizard.db"))
        folder.chmod(0o700)
        await makes(path)
        before = path.read_bytes()
        folder.chmod(0o500)
        path.chmod(0o400)
        await told(makes(path))
        folder.chmod(0o700)
        assert path.read_bytes() == before
        path.chmod(0o600)
        path.write_text("damaged" * 1000)
        folder.chmod(0o500)
        await told(makes(path))
        folder.chmod(0o700)
        assert path.read_text() == "damaged" * 1000

trio.run(main)
"""

TALKING = """
from attrs import evolve
from wizard_actors.errors import SessionConflictError

async def main(path, name):
    conflicts = 0
    async with SqliteStorage.open(path) as storage:
        for number in range(60):
            while True:
                record = await storage.load("alice")
                try:
                    await storage.save(later(record, f"{name} {number}"))
                    break
                except SessionConflictError:
                    conflicts += 1
    print(conflicts)

trio.run(main, *sys.argv[1:])
"""


def started(program: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a program that has the storage to itself."""
    command = [sys.executable, "-W", "error", "-c", BEGINNING + program, *map(str, arguments)]
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    # Some of them give up their rights, and could not write what was measured.
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=unmeasured)


def said(program: subprocess.Popen[str]) -> list[str]:
    """Wait for a program, and return the lines that it has printed."""
    with program:
        out, err = program.communicate(timeout=60)
    assert (program.returncode, err) == (0, "")
    return out.splitlines()


@posix
def test_a_file_that_may_not_grow_is_told_and_served_afterwards(path: Path) -> None:
    """The disk refuses in the middle of a commit; the session is as it was, and can be saved when there is room."""
    (error,) = said(started(LIMITED, path))

    assert error.startswith(f"sqlite: session 'alice' was not saved: {path}: ")


@posix
def test_what_may_not_be_written_is_told() -> None:
    """A file that may only be read is read; where nothing may be made or renamed, the opening is a StorageError."""
    save, delete, new, folders, locked_out, spoiled = said(started(READ_ONLY))

    forbidden = "attempt to write a readonly database; this user may not write to it"
    assert (save.partition("'alice' ")[2].partition(": ")[0], forbidden in save) == ("was not saved", True)
    assert (delete.partition("'alice' ")[2].partition(": ")[0], forbidden in delete) == ("was not deleted", True)
    for error in (new, folders):
        assert error.startswith("sqlite: cannot be opened: ")
        assert "Permission denied" in error
    assert locked_out.startswith("sqlite: cannot be opened: ")
    assert "could not be set aside: move it away" in spoiled


def test_two_processes_lose_no_turn(path: Path) -> None:
    """Each adds sixty turns to one session, and takes a conflict as a reason to load it again."""

    async def look(record: SessionRecord | None = None) -> SessionRecord | None:
        async with SqliteStorage.open(path) as storage:
            if record is not None:
                await storage.save(record)
            return await storage.load("alice")

    trio.run(look, born("alice"))
    programs = [started(TALKING, path, name) for name in ("one", "other")]
    conflicts = [int(line) for program in programs for line in said(program)]

    record = trio.run(look)
    assert record is not None
    assert record.version == 121
    assert {turn.messages[0].text for turn in record.turns} == {
        f"{name} {number}" for name in ("one", "other") for number in range(60)
    }
    assert len(conflicts) == 2


# -- spoiled -----------------------------------------------------------------------------------------


def spoil(path: Path, needle: bytes) -> None:
    """Break the chain of pages that holds something: each has the number of the next one in its first bytes."""
    page = path.read_bytes().index(needle) // 4096 + 1
    with path.open("r+b") as file:
        file.seek(page * 4096)
        file.write(b"\xff" * 4)


async def test_a_part_that_is_spoiled_while_it_is_open_harms_no_other(path: Path) -> None:
    """The session that lies there is a StorageError with the path; others are loaded, saved and listed."""
    needle = "a needle " * 3_000
    spoiled = evolve(born("alice"), system=needle)
    async with SqliteStorage.open(path) as storage:
        for record in (born("bob"), spoiled, born("carol")):
            await storage.save(record)

    async with SqliteStorage.open(path) as storage:
        assert await storage.load("bob") == born("bob")
        spoil(path, b"a needle " * 400)

        with pytest.raises(
            StorageError, match=r"'alice' cannot be read: .*malformed; a part of it is damaged"
        ) as raised:
            await storage.load("alice")
        assert str(path) in str(raised.value)
        assert needle[:20] not in str(raised.value)
        assert await storage.load("bob") == born("bob")
        await storage.save(later(born("carol")))
        assert await storage.load("carol") == later(born("carol"))
        assert {each.id for each in await storage.list()} == {"alice", "bob", "carol"}


async def test_a_file_that_is_written_over_while_it_is_open_is_told(path: Path) -> None:
    """Nothing hangs: each call is a StorageError that names the file."""
    async with SqliteStorage.open(path) as storage:
        for number in range(50):
            await storage.save(born(f"s{number}"))
    async with SqliteStorage.open(path) as storage:
        with path.open("r+b") as file:
            os.ftruncate(file.fileno(), 0)
            file.write(b"something else\n" * 5_000)

        for call in (storage.load("s1"), storage.list(), storage.save(later(born("s1"))), storage.delete("s2")):
            with pytest.raises(StorageError, match=r"wizard\.db"):
                await call
