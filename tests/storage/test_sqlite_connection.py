"""Which file a SQLite storage has open: one that loses its place, and one of a process that was forked off."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from wizard_actors.errors import StorageError
from wizard_actors.storage import sqlite_connection
from wizard_actors.storage.sqlite import SqliteStorage
from wizard_actors.storage.sqlite_connection import SqliteConnection, connect
from wizard_actors.testing.storage_bench import born, later

posix = pytest.mark.skipif(sys.platform == "win32", reason="nothing that is open can be removed there")
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the file is."""
    return tmp_path / "wizard.db"


def replace(path: Path) -> None:
    """Put another database in the place of a file."""
    other = path.with_name("other")
    with closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE others (other)")
    other.replace(path)


# -- its place ---------------------------------------------------------------------------------------

LOSSES: dict[str, Callable[[Path], object]] = {
    "removed": Path.unlink,
    "moved": lambda path: path.rename(path.with_name("elsewhere.db")),
    "replaced": replace,
    "its log removed": lambda path: path.with_name("wizard.db-wal").unlink(),
    "its index removed": lambda path: path.with_name("wizard.db-shm").unlink(),
    "its folder moved": lambda path: path.parent.rename(path.parent.with_name("elsewhere")),
}


@posix
@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
async def test_nothing_is_acknowledged_in_a_file_that_has_lost_its_place(
    path: Path, lose: Callable[[Path], object]
) -> None:
    """Each call is a StorageError that names the path, and says what to do."""
    async with SqliteStorage.open(path) as storage:
        await storage.save(born("alice"))
        lose(path)

        for call in (
            storage.save(later(born("alice"))),
            storage.save(born("bob")),
            storage.load("alice"),
            storage.delete("alice"),
            storage.list(),
            storage.purge(limit=5, used_before=1e12),
        ):
            with pytest.raises(
                StorageError, match=r"was removed, moved or replaced while it was in use: put it back"
            ) as raised:
                await call
            assert str(path) in str(raised.value)
            assert raised.value.path == str(path)


@posix
async def test_a_file_that_is_back_in_its_place_is_used_again(path: Path) -> None:
    """What was acknowledged before is there, and nothing of what was refused."""
    aside = path.with_name("aside.db")
    async with SqliteStorage.open(path) as storage:
        await storage.save(born("alice"))
        path.rename(aside)  # noqa: ASYNC240 - nothing else runs
        with pytest.raises(StorageError, match="was removed, moved or replaced"):
            await storage.save(later(born("alice"), "Refused?"))
        aside.rename(path)

        await storage.save(later(born("alice"), "Heard?"))

    async with SqliteStorage.open(path) as storage:
        assert await storage.load("alice") == later(born("alice"), "Heard?")


@posix
async def test_a_file_that_loses_its_place_during_a_commit_is_told(path: Path) -> None:
    """What went into it may not be told as stored: nobody will find it."""
    async with SqliteStorage.open(path) as storage:
        await storage.save(born("alice"))

        def move(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM sessions")
            path.rename(path.with_name("aside.db"))

        answer = await storage._writer.do(move, None)

        with pytest.raises(sqlite3.OperationalError, match="was removed, moved or replaced"):
            answer.unwrap()


@posix
async def test_a_new_file_can_be_opened_where_one_was_removed(path: Path) -> None:
    """The storage that had the old one open stays refused; the next one begins an empty one."""
    async with SqliteStorage.open(path) as old:
        await old.save(born("alice"))
        path.unlink()  # noqa: ASYNC240 - nothing else runs
        async with SqliteStorage.open(path) as new:
            assert await new.load("alice") is None
            await new.save(born("bob"))
            with pytest.raises(StorageError, match="was removed, moved or replaced"):
                await old.save(later(born("alice")))


def link(path: Path) -> None:
    """Make a link to an empty file in a folder of its own."""
    real = path.with_name("disk") / "real.db"
    real.parent.mkdir()
    real.touch()
    path.symlink_to(real)


def lead_elsewhere(path: Path) -> None:
    """Have a link lead to another file, which is empty."""
    path.unlink()
    path.symlink_to(path.with_name("another.db"))
    path.with_name("another.db").touch()


@posix
@pytest.mark.parametrize(
    ("lose", "name"),
    [(lead_elsewhere, "wizard.db"), (lambda path: Path(f"{path.resolve()}-wal").unlink(), "real.db-wal")],
)
async def test_a_link_may_lead_to_the_file(path: Path, lose: Callable[[Path], object], name: str) -> None:
    """What SQLite keeps beside it lies where the file is; a link that leads elsewhere is another file."""
    link(path)
    async with SqliteStorage.open(path) as storage:
        await storage.save(born("alice"))
        assert await storage.load("alice") == born("alice")
        lose(path)

        with pytest.raises(StorageError, match=f" {name} was removed, moved or replaced"):
            await storage.save(later(born("alice")))


@posix
def test_a_file_that_is_replaced_while_it_is_opened_is_opened_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection belongs to the file that has the name; what is replaced again and again is an error."""
    opened: list[SqliteConnection] = []
    times = 1

    class Late(SqliteConnection):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # as it was called
            opened.append(self)
            if len(opened) <= times:
                replace(path)

    before = set(sqlite_connection._HELD)
    path.touch()
    monkeypatch.setattr(sqlite_connection, "SqliteConnection", Late)

    with closing(connect(path)) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("others",)]
    opened.clear()
    times = 100
    with pytest.raises(sqlite3.OperationalError, match="replaced while it was being opened"):
        connect(path)

    assert before == sqlite_connection._HELD
    for each in opened:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            each.execute("SELECT 1")


def test_a_file_that_cannot_be_opened_is_not_held(tmp_path: Path) -> None:
    """Neither one that is missing, nor one that is none."""
    before = set(sqlite_connection._HELD)

    with pytest.raises(FileNotFoundError):
        connect(tmp_path / "missing")
    with pytest.raises(sqlite3.OperationalError):
        connect(tmp_path)

    assert before == sqlite_connection._HELD


# -- forks -------------------------------------------------------------------------------------------

BEGINNING = """
import os, sys, time
import trio
from wizard_actors.errors import StorageError
from wizard_actors.storage.sqlite import SqliteStorage
from wizard_actors.testing.storage_bench import born, later

path, other = sys.argv[1:]

async def told(call):
    with trio.fail_after(5):
        try:
            print(await call)
        except StorageError as error:
            print(error)

async def opened(path):
    async with SqliteStorage.open(path) as storage:
        return [each.id for each in await storage.list()]

def forked(child):
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        child()
        sys.stdout.flush()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""

HELD = """
from wizard_actors.storage.sqlite_file import open_to_write

def look(path):
    trio.run(told, opened(path))

held = open_to_write(__import__("pathlib").Path(path), 0)
forked(lambda: look(path))
forked(lambda: forked(lambda: look(path)))
os.link(path, path + "-too")
forked(lambda: look(path + "-too"))
forked(lambda: look(other))
look(path)
held.close()
forked(lambda: look(path))
"""

INHERITED = """
async def main():
    async with SqliteStorage.open(path) as storage:
        await storage.save(born("alice"))
        with trio.move_on_after(0.1):
            await storage._writer.do(lambda db: time.sleep(1), "alice")  # its thread will never end it in the child
        sys.stdout.flush()
        child = not os.fork()
        if child:
            await told(storage.load("alice"))
            await told(storage.save(later(born("alice"))))
            await told(storage.list())
        else:
            assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
            await storage.save(later(born("alice")))
    if child:
        print("closed")
        sys.stdout.flush()
        os._exit(0)
    print(await opened(path))

trio.run(main)
"""


def lines_of(program: str, path: Path) -> list[str]:
    """Run a program with two paths, and return the lines that it and its children print."""
    command = [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", "-c", BEGINNING + program]
    arguments = [str(path), str(path.with_name("other.db"))]
    ended = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()


@forks
def test_a_fork_of_who_has_the_file_open_cannot_open_it(path: Path) -> None:
    """Nor can a fork of the fork, nor under another name: it could not lock it. Other files it can, and the very file
    where its parent had closed it before.
    """
    child, grandchild, link, other, parent, late = lines_of(HELD, path)

    for error in (child, grandchild):
        assert error.startswith(f"sqlite: cannot be opened: {path}: this process was forked off one that had the file")
        assert "fork before the sessions are first used" in error
        assert "spawn or forkserver" in error
    assert "was forked off" in link
    assert [other, parent, late] == ["[]"] * 3


@forks
def test_what_a_fork_inherits_is_refused_at_once(path: Path) -> None:
    """Calls raise StorageError and hang nowhere, leaving the block hangs neither, and the parent goes on."""
    load, save, page, closed, parent = lines_of(INHERITED, path)

    inherited = f"cannot be reached: {path} was opened before this process was forked off, and only there"
    assert load == save == f"sqlite: session 'alice' {inherited}"
    assert page == f"sqlite: {inherited}"
    assert (closed, parent) == ("closed", "['alice']")
