"""The file of a SQLite storage as it is found: empty, older, newer, somebody else's, damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from wizard_actors.errors import StorageError
from wizard_actors.storage import sqlite_connection, sqlite_file
from wizard_actors.storage.sqlite import SqliteStorage
from wizard_actors.storage.sqlite_connection import SqliteConnection, identity
from wizard_actors.storage.sqlite_file import APPLICATION_ID, STEPS, open_to_write
from wizard_actors.testing.storage_bench import born, everything, later


async def filled(path: Path, count: int = 50) -> None:
    """Make a file with some sessions in it."""
    async with SqliteStorage.open(path) as storage:
        for number in range(count):
            await storage.save(everything(f"s{number}"))


def within(folder: Path) -> list[Path]:
    """Return what a folder holds, by name."""
    return sorted(folder.iterdir())


def made(path: Path, *statements: str) -> bytes:
    """Make a database by hand, and return its bytes."""
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()
    return path.read_bytes()


# -- versions ----------------------------------------------------------------------------------------


async def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    """As a program leaves it that made it and was killed."""
    path = tmp_path / "wizard.db"
    path.touch()

    async with SqliteStorage.open(path) as storage:
        await storage.save(born("alice"))

    assert [each.name for each in within(tmp_path)] == ["wizard.db"]


async def test_an_opening_that_was_killed_halfway_is_finished(tmp_path: Path) -> None:
    """A database without any table, in the mode that it was already given."""
    path = tmp_path / "wizard.db"
    made(path, "PRAGMA journal_mode = WAL")

    async with SqliteStorage.open(path) as storage:
        await storage.save(born("alice"))

        assert await storage.load("alice") == born("alice")


async def test_a_file_of_an_older_version_is_brought_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step that it has not taken is taken, once, and its sessions are kept."""
    path = tmp_path / "wizard.db"
    await filled(path, 3)
    more = ("CREATE TABLE notes (note)", "INSERT INTO notes VALUES ('new')"), ("INSERT INTO notes VALUES ('newer')",)
    monkeypatch.setattr(sqlite_file.open_to_write, "__defaults__", ((*STEPS, *more),))

    for _ in range(2):
        async with SqliteStorage.open(path) as storage:
            assert await storage.load("s1") == everything("s1")
            await storage.save(later(await storage.load("s2") or born("s2")))

    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT note FROM notes").fetchall() == [("new",), ("newer",)]
        assert db.execute("PRAGMA user_version").fetchone() == (3,)


async def test_the_first_version_made_by_hand_is_opened(tmp_path: Path) -> None:
    """What was released is read for ever: its tables stand here once more."""
    path = tmp_path / "wizard.db"
    made(
        path,
        """CREATE TABLE sessions (
               id TEXT NOT NULL PRIMARY KEY, version INTEGER NOT NULL, state TEXT NOT NULL, turns INTEGER NOT NULL,
               created_at REAL NOT NULL, updated_at REAL NOT NULL, used_at REAL NOT NULL, data BLOB NOT NULL
           )""",
        "CREATE INDEX sessions_by_use ON sessions (used_at DESC, id)",
        """INSERT INTO sessions VALUES ('alice', 1, 'created', 0, 5.0, 5.0, 5.0,
           CAST('{"schema":1,"id":"alice","created_at":5.0}' AS BLOB))""",
        "PRAGMA application_id = 1467629923",
        "PRAGMA user_version = 1",
    )

    async with SqliteStorage.open(path) as storage:
        assert await storage.load("alice") == born("alice", 5.0)
        await storage.save(later(born("alice", 5.0)))
        assert [each.version for each in await storage.list()] == [2]


def test_a_step_that_fails_leaves_the_version_before(tmp_path: Path) -> None:
    """All steps are one transaction."""
    path = tmp_path / "wizard.db"
    open_to_write(path, 0).close()

    with pytest.raises(StorageError, match="no such table: nowhere"):
        open_to_write(path, 0, [*STEPS, ("CREATE TABLE notes (note)",), ("DELETE FROM nowhere",)])

    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [("sessions",)]
        assert db.execute("PRAGMA user_version").fetchone() == (1,)


NOT_OURS: dict[str, tuple[str, ...]] = {
    "tables of something else": ("CREATE TABLE notes (note)",),
    "sessions of something else": ("CREATE TABLE sessions (id)",),
    "only a view": ("CREATE VIEW three AS SELECT 3",),
    "another application": ("PRAGMA application_id = 1196444487", "CREATE TABLE sessions (id)"),
    "another application, empty": ("PRAGMA application_id = 1196444487",),
    "another version": ("PRAGMA user_version = 9",),
    "our name without our tables": (f"PRAGMA application_id = {APPLICATION_ID}", "PRAGMA user_version = 1"),
}


@pytest.mark.parametrize("statements", NOT_OURS.values(), ids=NOT_OURS)
async def test_the_file_of_something_else_is_left_as_it_is(tmp_path: Path, statements: tuple[str, ...]) -> None:
    """To the last byte; the error says what to do."""
    path = tmp_path / "wizard.db"
    before = made(path, *statements)

    with pytest.raises(StorageError, match=r"wizard\.db is a database of something else.* name another file") as raised:
        async with SqliteStorage.open(path):
            pass

    assert raised.value.path == str(path)
    assert path.read_bytes() == before
    assert [each.name for each in within(tmp_path)] == ["wizard.db"]


async def test_the_file_of_a_newer_version_is_left_as_it_is(tmp_path: Path) -> None:
    """To the last byte; the error tells to upgrade."""
    path = tmp_path / "wizard.db"
    await filled(path, 1)
    before = made(path, "PRAGMA user_version = 2")

    with pytest.raises(StorageError, match=r"in version 2 of its tables.* up to version 1.*upgrade wizard_actors"):
        async with SqliteStorage.open(path):
            pass

    assert path.read_bytes() == before


async def test_the_damaged_file_of_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    """Its name says whose it is: it is not renamed either."""
    path = tmp_path / "wizard.db"
    whole = made(path, "PRAGMA application_id = 1196444487", "CREATE TABLE notes (note)")
    damaged = whole[:100] + b"\xff" * 3996 + whole[4096:]
    path.write_bytes(damaged)

    with pytest.raises(StorageError, match="is a database of something else"):
        async with SqliteStorage.open(path):
            pass

    assert path.read_bytes() == damaged


# -- damage ------------------------------------------------------------------------------------------

SPOILED: dict[str, Callable[[bytes], bytes]] = {
    "a text": lambda _whole: b"This is no database.\n" * 1000,
    "a short text": lambda _whole: b"This is no database.\n",
    "zeros": lambda whole: bytes(len(whole)),
    "half of it": lambda whole: whole[: len(whole) // 2],
    "its header alone": lambda whole: whole[:100],
    "unreadable tables": lambda whole: whole[:100] + b"\xff" * 3996 + whole[4096:],
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
async def test_a_damaged_file_is_set_aside(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    """It is renamed as it is, the error names both paths, and the next opening begins an empty one."""
    path = tmp_path / "wizard.db"
    await filled(path)
    spoiled = spoil(path.read_bytes())
    path.write_bytes(spoiled)

    with pytest.raises(StorageError) as raised:
        async with SqliteStorage.open(path):
            pass

    aside = within(tmp_path)[0]
    assert aside.name.startswith("wizard.db.damaged-20")
    assert aside.read_bytes() == spoiled
    assert raised.value.path == str(path)
    assert f"{path} is damaged" in str(raised.value)
    assert f"set aside as {aside}, and the next opening begins an empty one" in str(raised.value)
    async with SqliteStorage.open(path) as storage:
        assert await storage.list() == []
        await storage.save(born("alice"))
    assert aside.read_bytes() == spoiled


async def test_what_lies_beside_a_damaged_file_goes_with_it(tmp_path: Path) -> None:
    """What was saved last, and is not yet in the file itself, is kept as it is."""
    path = tmp_path / "was.db"
    await filled(path, 3)
    async with SqliteStorage.open(path) as storage:
        await storage.save(later(everything("s1")))
        last = (tmp_path / "was.db-wal").read_bytes()
        folder = tmp_path / "killed"
        folder.mkdir()
        (folder / "wizard.db").write_bytes(bytes(100) + path.read_bytes()[100:])
        (folder / "wizard.db-wal").write_bytes(last)

    with pytest.raises(StorageError, match="is damaged"):
        async with SqliteStorage.open(folder / "wizard.db"):
            pass

    found = within(folder)
    assert [each.name for each in found] == [f"{found[0].name}{end}" for end in ("", "-shm", "-wal")]
    assert found[0].read_bytes()[:100] == bytes(100)
    assert found[2].read_bytes() == last


async def test_what_was_set_aside_is_never_written_over(tmp_path: Path) -> None:
    """Many damaged files within one second have a name each."""
    path = tmp_path / "wizard.db"
    wanted = [f"damaged {number}" * 1000 for number in range(4)]
    for content in wanted:
        path.write_text(content)
        with pytest.raises(StorageError):
            async with SqliteStorage.open(path):
                pass

    assert [each.read_text() for each in within(tmp_path)] == wanted


async def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """What it points to is set aside, where it lies."""
    real, path = tmp_path / "disk" / "real.db", tmp_path / "wizard.db"
    real.parent.mkdir()
    real.write_text("damaged" * 1000)
    path.symlink_to(real)

    with pytest.raises(StorageError, match=r"real\.db\.damaged-"):
        async with SqliteStorage.open(path):
            pass

    assert path.is_symlink()
    assert [each.read_text() for each in within(real.parent)] == ["damaged" * 1000]


async def test_many_who_find_the_same_damage_set_it_aside_once(tmp_path: Path) -> None:
    """However they interleave, what was damaged is kept, and no new file is taken for it."""
    path = tmp_path / "wizard.db"
    saved: list[str] = []

    async def use(name: str) -> None:
        for _ in range(20):  # twice will do; more, if others are in the way
            try:
                async with SqliteStorage.open(path) as storage:
                    await storage.save(born(name))
                    saved.append(name)
                    return
            except StorageError:
                continue

    for number in range(5):
        path.unlink(missing_ok=True)
        path.write_text(f"damaged {number}" * 1000)
        saved.clear()
        async with trio.open_nursery() as nursery:
            for name in "abcdefgh":
                nursery.start_soon(use, name)

        contents = {each.read_text() for each in within(tmp_path) if ".damaged-" in each.name}
        assert contents == {f"damaged {each}" * 1000 for each in range(number + 1)}
        assert sorted(saved) == list("abcdefgh")
        async with SqliteStorage.open(path) as storage:
            assert [each.id for each in await storage.list()] == list("abcdefgh")


def test_a_file_that_was_replaced_meanwhile_is_not_set_aside(tmp_path: Path) -> None:
    """Another process found the same damage, set it aside, and has begun anew."""
    path = tmp_path / "wizard.db"
    path.write_text("damaged" * 1000)
    found = identity(path)
    path.rename(tmp_path / "aside")
    with closing(open_to_write(path, 0)) as db:
        error = sqlite_file._set_aside(path, found, db, sqlite3.DatabaseError("file is not a database"))

    assert "another program has set it aside meanwhile" in str(error)
    assert sorted(each.name for each in within(tmp_path)) == ["aside", "wizard.db"]
    open_to_write(path, 0).close()


class _Failing(SqliteConnection):
    """A connection of which the next statement that begins with `at` fails with `code`, and ends the transaction."""

    at = ""
    code = 0

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:  # noqa: ANN401 - as of any connection
        if _Failing.at and statement.startswith(_Failing.at):
            _Failing.at = ""
            if self.in_transaction:
                super().execute("ROLLBACK")
            error = sqlite3.OperationalError("why it failed")
            error.sqlite_errorcode = _Failing.code
            raise error
        return super().execute(statement, *values)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> type[_Failing]:
    """Return the connections that are opened from now on."""
    monkeypatch.setattr(sqlite_connection, "SqliteConnection", _Failing)
    monkeypatch.setattr(_Failing, "at", "")
    return _Failing


@pytest.mark.parametrize("at", ["BEGIN", "PRAGMA application_id", "SELECT name FROM sqlite_master"])
def test_why_a_file_cannot_be_looked_at_is_told(tmp_path: Path, failing: type[_Failing], at: str) -> None:
    """Also where SQLite has ended the transaction by itself: taking it back once more would be another error."""
    path = tmp_path / "wizard.db"
    open_to_write(path, 0).close()
    failing.at, failing.code = at, sqlite3.SQLITE_IOERR

    with pytest.raises(StorageError, match=r"cannot be opened: .*wizard\.db: why it failed"):
        open_to_write(path, 0)

    open_to_write(path, 0).close()


@pytest.mark.parametrize("at", ["BEGIN", "SELECT name FROM sqlite_master"])
def test_a_lock_that_is_met_at_the_first_look_is_waited_for(tmp_path: Path, failing: type[_Failing], at: str) -> None:
    """As anywhere else: it is still known as a lock."""
    failing.at, failing.code = at, sqlite3.SQLITE_BUSY

    open_to_write(tmp_path / "wizard.db", 60).close()

    assert failing.at == ""


def test_damage_that_ends_the_first_look_is_still_damage(tmp_path: Path, failing: type[_Failing]) -> None:
    """The file is set aside."""
    path = tmp_path / "wizard.db"
    open_to_write(path, 0).close()
    failing.at, failing.code = "SELECT name FROM sqlite_master", sqlite3.SQLITE_CORRUPT

    with pytest.raises(StorageError, match=r"is damaged: why it failed; it was set aside as "):
        open_to_write(path, 0)

    assert not path.exists()


@pytest.mark.parametrize("place", ["folder", "file/wizard.db", "nul\0.db", "dangling"])
async def test_a_place_where_no_file_can_be_is_told(tmp_path: Path, place: str) -> None:
    """As a StorageError that names it."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere/at/all")

    with pytest.raises(StorageError, match="sqlite: cannot be opened: ") as raised:
        async with SqliteStorage.open(tmp_path / place):
            pass

    assert raised.value.path == str(tmp_path / place)
