"""Sessions in SQLite: the promises of every storage, and what the file and its rows are."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path

import pytest
import trio
from attrs import evolve

from wizard_actors.errors import SerializationError, SessionConflictError, StorageError
from wizard_actors.session_record import SessionRecord, TurnRecord
from wizard_actors.storage.base import SessionStorage
from wizard_actors.storage.sqlite import SqliteStorage
from wizard_actors.testing.storage import StorageContract
from wizard_actors.testing.storage_bench import NOON, born, everything, later
from wizard_actors.types import Message, Role


class TestSqliteStorage(StorageContract):
    """It keeps what every storage promises, for several processes at once, and after its program has ended."""

    durable = True
    shared = True

    def open(self, folder: Path) -> AbstractAsyncContextManager[SessionStorage]:
        return SqliteStorage.open(folder / "wizard.db")

    def damage(self, folder: Path, session: str) -> None:
        change(folder / "wizard.db", "UPDATE sessions SET data = '{' WHERE id = ?", session)


def change(path: Path, statement: str, *values: object) -> None:
    """Do something to a file behind the storage's back."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(statement, values)


def within(folder: Path) -> list[Path]:
    """Return what a folder holds, by name."""
    return sorted(folder.iterdir())


def mode(path: Path) -> int:
    """Return who may read and write a file."""
    return stat.S_IMODE(path.stat().st_mode)


# -- the file ----------------------------------------------------------------------------------------


async def test_only_its_owner_may_read_a_new_file(tmp_path: Path) -> None:
    """The file, what SQLite keeps beside it, and the folders that were missing."""
    path = tmp_path / "new" / "er" / "wizard.db"
    async with SqliteStorage.open(path) as storage:
        await storage.save(born("alice"))

        files = {each.name: mode(each) for each in within(path.parent)}

    assert files == dict.fromkeys(["wizard.db", "wizard.db-wal", "wizard.db-shm"], 0o600)
    assert [mode(folder) for folder in path.parents[:2]] == [0o700, 0o700]
    assert [each.name for each in within(path.parent)] == ["wizard.db"]


async def test_a_file_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    """Who opened it to a group wants the group to read it."""
    path = tmp_path / "wizard.db"
    path.touch(0o660)
    path.chmod(0o660)

    async with SqliteStorage.open(path) as storage:
        await storage.save(born("alice"))

        assert {mode(each) for each in within(tmp_path)} == {0o660}


async def test_it_stays_where_it_is_when_the_program_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path is one of the working directory at the opening."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    opening = SqliteStorage.open("wizard.db")
    async with opening as storage:
        monkeypatch.chdir(tmp_path / "elsewhere")
        await storage.save(born("alice"))

        assert await storage.load("alice") == born("alice")
        assert repr(storage) == f"<SqliteStorage {tmp_path / 'wizard.db'}>"

    assert [each.name for each in within(tmp_path / "elsewhere")] == []


@pytest.mark.parametrize("name", [":memory:", "file:a?mode=memory", "a?b=%20#.db", "\U0001f9d9.db"])
async def test_a_name_is_a_name(tmp_path: Path, name: str) -> None:
    """SQLite's own way to write addresses is not heard."""
    async with SqliteStorage.open(tmp_path / name) as storage:
        await storage.save(born("alice"))

    assert [each.name for each in within(tmp_path)] == [name]


async def test_many_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    """Each finds it made, or makes it, and all see what all have saved."""

    async def use(name: str) -> None:
        async with SqliteStorage.open(tmp_path / "new" / "wizard.db") as storage:
            await storage.save(born(name))

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(use, f"s{number}")

    async with SqliteStorage.open(tmp_path / "new" / "wizard.db") as storage:
        assert sorted(each.id for each in await storage.list()) == [f"s{number}" for number in range(8)]


@pytest.mark.parametrize(("pragma", "wanted"), [("journal_mode", "wal"), ("synchronous", 3), ("fullfsync", 1)])
async def test_a_commit_waits_for_the_disk(tmp_path: Path, pragma: str, wanted: object) -> None:
    """No process that is killed shows it, only a power failure would: what SQLite is told is asked of it."""
    async with SqliteStorage.open(tmp_path / "wizard.db") as storage:
        answer = await storage._writer.do(lambda db: db.execute(f"PRAGMA {pragma}").fetchone(), None)

    assert answer.unwrap() == (wanted,)


# -- rows --------------------------------------------------------------------------------------------

DAMAGES = {
    "no JSON": "data = X'00'",
    "nothing": "data = X''",
    "another session's": "data = (SELECT data FROM sessions WHERE id = 'bob')",
    "version": "version = 7",
    "version as text": "version = 'seven'",
    "time": "created_at = 5.0",
    "time as text": "used_at = 'noon'",
    "state": "state = 'asleep', version = 7",
    "turns": "turns = X'ff', version = 7",
    "invalid text": "state = CAST(X'ff' AS TEXT), version = 7",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_a_damaged_row_is_the_trouble_of_one_session(tmp_path: Path, damage: str) -> None:
    """Where it cannot be understood, `load` says so by name; others are loaded, saved, listed and removed."""
    path = tmp_path / "wizard.db"
    async with SqliteStorage.open(path) as storage:
        for name in ("alice", "bob", "old"):
            await storage.save(born(name, NOON - 60 if name == "old" else NOON))
    change(path, f"UPDATE sessions SET {damage} WHERE id = 'alice'")  # noqa: S608 - our own

    async with SqliteStorage.open(path) as storage:
        if not damage.startswith("used_at"):
            with pytest.raises(SerializationError, match="'alice'"):
                await storage.load("alice")
        with pytest.raises((SerializationError, SessionConflictError), match="'alice'"):
            await storage.save(born("alice", NOON + 60))
        assert "bob" in {each.id for each in await storage.list()}
        assert await storage.purge(limit=5, used_before=NOON - 30) == ["old"]
        await storage.save(later(born("bob")))
        assert await storage.load("bob") == later(born("bob"))
        assert await storage.delete("alice")
        await storage.save(born("alice", NOON + 60))


async def test_a_name_that_is_damaged_keeps_no_other_from_the_list(tmp_path: Path) -> None:
    """A row whose id is no text any more is left out."""
    path = tmp_path / "wizard.db"
    async with SqliteStorage.open(path) as storage:
        for name in ("alice", "bob"):
            await storage.save(born(name))
    change(path, "UPDATE sessions SET id = CAST(X'61ff' AS TEXT) WHERE id = 'alice'")

    async with SqliteStorage.open(path) as storage:
        assert [each.id for each in await storage.list(limit=1)] == ["bob"]
        assert [each.id for each in await storage.list(prefix="a")] == []
        assert len(await storage.purge(limit=5, used_before=NOON + 1)) == 2
        assert await storage.purge(limit=5, used_before=NOON + 1) == []


async def test_a_prefix_may_end_where_unicode_ends(tmp_path: Path) -> None:
    """No code point comes after the last one; half a surrogate pair begins no name."""
    last = "\U0010ffff"
    async with SqliteStorage.open(tmp_path / "wizard.db") as storage:
        for name in ("a", "a\ud7ff", "a\ue000", f"a{last}", f"a{last}{last}", f"{last}b"):
            await storage.save(born(name))

        assert [each.id for each in await storage.list(prefix=f"a{last}")] == [f"a{last}", f"a{last}{last}"]
        assert [each.id for each in await storage.list(prefix=last)] == [f"{last}b"]
        assert [each.id for each in await storage.list(prefix="a\ud7ff")] == ["a\ud7ff"]
        assert await storage.list(prefix="a\ud800") == []


async def test_ten_thousand_may_be_busy(tmp_path: Path) -> None:
    """There is no limit of a statement that they could exceed."""
    async with SqliteStorage.open(tmp_path / "wizard.db") as storage:
        await storage.save(born("old"))
        await storage.save(born("s5"))

        removed = await storage.purge(limit=5, used_before=NOON + 1, busy=[f"s{number}" for number in range(10_000)])

        assert removed == ["old"]
        assert await storage.load("s5") == born("s5")


async def test_a_record_that_cannot_be_stored_changes_nothing(tmp_path: Path) -> None:
    """A value that JSON cannot hold is a SerializationError, and the version before stays."""
    broken = evolve(later(born("alice")), turns=[TurnRecord([Message(Role.USER, "?", name="\ud800")], at=1)])
    async with SqliteStorage.open(tmp_path / "wizard.db") as storage:
        await storage.save(born("alice"))

        with pytest.raises(SerializationError, match="'alice'"):
            await storage.save(broken)

        assert await storage.load("alice") == born("alice")


async def test_two_storages_race_for_each_version_and_one_wins(tmp_path: Path) -> None:
    """Two connections are two processes to SQLite: of two who save a version, one is told of a conflict."""

    async def save(storage: SqliteStorage, record: SessionRecord, told: Callable[[SessionRecord], None]) -> None:
        try:
            await storage.save(record)
        except SessionConflictError:
            return
        told(record)

    path = tmp_path / "wizard.db"
    async with SqliteStorage.open(path) as one, SqliteStorage.open(path) as other:
        stored = everything("alice")
        await one.save(stored)
        for number in range(30):
            winners: list[SessionRecord] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(save, one, later(stored, f"one {number}"), winners.append)
                nursery.start_soon(save, other, later(stored, f"other {number}"), winners.append)
            assert len(winners) == 1
            (stored,) = winners

        assert await one.load("alice") == await other.load("alice") == stored


async def test_a_closed_storage_tells_its_name(tmp_path: Path) -> None:
    """Backend and session stand in the error."""
    async with SqliteStorage.open(tmp_path / "wizard.db") as storage:
        pass

    with pytest.raises(StorageError, match="sqlite: session 'alice' cannot be reached: the storage is closed"):
        await storage.load("alice")
