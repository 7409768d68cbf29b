"""Sessions in files: the promises of every storage, what lies in the folder, and what of it is read again."""

from __future__ import annotations

import itertools
import json
import stat
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from wizard_actors.errors import SerializationError
from wizard_actors.storage.base import SessionStorage
from wizard_actors.storage.file import FileStorage
from wizard_actors.storage.session_files import LOCKS, SessionFiles, file_name, lock_of
from wizard_actors.testing.storage import StorageContract
from wizard_actors.testing.storage_bench import born, later
from wizard_actors.testing.storage_saving import ALIKE, HOSTILE, UNHEARD_OF

posix = pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")


def beginning(name: str, folder: Path) -> list[Path]:
    """Return the files whose names begin like that."""
    return [path for path in folder.iterdir() if path.name.startswith(name)]


class TestFileStorage(StorageContract):
    """It keeps what every storage promises, also to several processes."""

    durable = True
    shared = True

    def open(self, folder: Path) -> AbstractAsyncContextManager[SessionStorage]:
        return FileStorage.open(folder)

    def damage(self, folder: Path, session: str) -> None:
        path = folder / file_name(session)
        path.write_bytes(path.read_bytes()[:-20])


# -- names -------------------------------------------------------------------------------------------


@pytest.mark.long
@given(st.text(max_size=200), st.text(max_size=200))
def test_each_session_has_a_file_name_of_its_own(one: str, other: str) -> None:
    """Of lower-case letters, digits and hyphens, short, never another session's, and never that of a device."""
    for session in (one, other):
        name = file_name(session)
        assert set(name.removesuffix(".json")) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert len(name) <= 80
        assert len(name.partition(".")[0]) >= 32
        assert not name.startswith("-")
        assert 0 <= lock_of(session) < LOCKS
    assert (file_name(one) == file_name(other)) is (one == other)


def test_names_that_look_alike_have_different_files() -> None:
    """Also to a file system that ignores case, or the dots and spaces at the end of a name."""
    names = {*ALIKE, *HOSTILE, *UNHEARD_OF, "alice", "Alice", "ALICE"}

    assert len({file_name(name).casefold() for name in names}) == len(names)
    assert file_name("Alice in W\u00f6nderland!").startswith("alice-in-w-nderland-")
    assert len({lock_of(f"session {number}") for number in range(200)}) == LOCKS


# -- what lies there ---------------------------------------------------------------------------------


async def test_a_session_is_a_file_of_json(tmp_path: Path) -> None:
    """One that any reader of JSON can read, with the record in it."""
    async with FileStorage.open(tmp_path / "a" / "b") as storage:
        await storage.save(born("alice"))
        await storage.save(later(born("alice"), "Why?"))

    stored = json.loads((tmp_path / "a" / "b" / file_name("alice")).read_text(encoding="utf-8"))
    assert (stored["session"]["id"], stored["session"]["version"]) == ("alice", 2)
    assert stored["session"]["turns"][0]["messages"][0]["content"] == "Why?"
    assert stored["summary"]["turns"] == 1


@posix
async def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    """The folder is its owner's alone, and so is each file in it."""
    folder = tmp_path / "sessions"
    async with FileStorage.open(folder) as storage:
        await storage.save(born("alice"))

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert modes.pop(file_name("alice")) == 0o600
    assert set(modes.values()) == {0o600}


async def test_what_is_not_a_session_is_left_alone(tmp_path: Path) -> None:
    """Other files, a folder with the name of a session's file, and another session's file are not listed."""
    (tmp_path / "notes.json").write_text("{}", encoding="utf-8")
    (tmp_path / file_name("folder")).mkdir()
    async with FileStorage.open(tmp_path) as storage:
        await storage.save(born("alice"))
        (tmp_path / file_name("bob")).write_bytes((tmp_path / file_name("alice")).read_bytes())

        assert [summary.id for summary in await storage.list()] == ["alice"]
        with pytest.raises(SerializationError, match=r"'bob' cannot be read: it holds the session 'alice'"):
            await storage.load("bob")
        assert await storage.load("alice") == born("alice")
    assert (tmp_path / "notes.json").read_text(encoding="utf-8") == "{}"


async def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    """When the folder is opened; but not while somebody holds the lock, and may be writing there."""
    lock = lock_of("alice")
    left = [tmp_path / f".unfinished-{number:x}" for number in (lock, (lock + 1) % LOCKS)]
    for path in left:
        path.write_bytes(b"{")
    with SessionFiles(tmp_path).locked(lock):
        async with FileStorage.open(tmp_path):
            assert [path.exists() for path in left] == [True, False]

    async with FileStorage.open(tmp_path) as storage:
        assert not left[0].exists()
        await storage.save(born("alice"))


# -- damaged files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("damaged", [b"", b"{", b"\x00" * 100, b"null", b"\xff\xfe", b'{"format":1,"session":{}}'])
async def test_a_damaged_file_is_set_aside_when_it_is_loaded(damaged: bytes, tmp_path: Path) -> None:
    """The error names session and file and says where it is now; then the session can be begun anew."""
    path = tmp_path / file_name("alice")
    async with FileStorage.open(tmp_path) as storage:
        for time in range(2):  # the second time within a second: neither takes the other's place
            await storage.save(born("alice", time))
            path.write_bytes(damaged)
            with pytest.raises(SerializationError, match=r"'alice' cannot be read: .* was set aside as ") as told:
                await storage.load("alice")

            assert str(path) in str(told.value)
            aside = beginning(f"{path.name}.damaged-2", tmp_path)
            assert [other.read_bytes() for other in aside] == [damaged] * (time + 1)
            assert any(f"set aside as {other.name}:" in str(told.value) for other in aside)
            assert await storage.load("alice") is None
            assert list(await storage.list()) == []


async def test_a_damaged_file_is_not_overwritten(tmp_path: Path) -> None:
    """Whoever still has the version before, and saves the next one, is told, and the file stays as it is."""
    path = tmp_path / file_name("alice")
    async with FileStorage.open(tmp_path) as storage:
        await storage.save(born("alice"))
        damaged = path.read_bytes()[:-30]  # its first line is sound
        path.write_bytes(damaged)

        for record in (later(born("alice")), born("alice", 5.0)):
            with pytest.raises(SerializationError, match="'alice'"):
                await storage.save(record)

        assert path.read_bytes() == damaged
        assert await storage.purge(limit=10, used_before=1e12) == []
        assert await storage.delete("alice")
        await storage.save(born("alice", 5.0))


@pytest.mark.parametrize(("old", "new"), [(b'"schema":1', b'"schema":2'), (b'"format":1', b'"format":2')])
async def test_what_a_newer_version_stored_stays(old: bytes, new: bytes, tmp_path: Path) -> None:
    """It is not damaged: the error says so each time, nothing is set aside or overwritten, and it is listed."""
    path = tmp_path / file_name("alice")
    async with FileStorage.open(tmp_path) as storage:
        await storage.save(born("alice"))
        newer = path.read_bytes().replace(old, new)
        path.write_bytes(newer)

        for _ in range(2):
            with pytest.raises(SerializationError, match="'alice' was stored by a newer version"):
                await storage.load("alice")
        with pytest.raises(SerializationError, match="'alice' was stored by a newer version"):
            await storage.save(later(born("alice")))

        assert path.read_bytes() == newer
        assert [summary.id for summary in await storage.list()] == ["alice"]


# -- what is read again ------------------------------------------------------------------------------


async def test_a_list_reads_only_what_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is as it was is not read again, whoever wrote it."""
    opened: list[str] = []
    real = Path.open

    def noted(path: Path, *arguments: Any) -> Any:  # noqa: ANN401 - as in `Path`
        opened.append(path.name)
        return real(path, *arguments)

    async with FileStorage.open(tmp_path) as storage, FileStorage.open(tmp_path) as other:
        for name in ("alice", "bob", "carol"):
            await other.save(born(name))
        monkeypatch.setattr(Path, "open", noted)
        first = await storage.list()
        assert sorted(opened) == sorted(map(file_name, ("alice", "bob", "carol")))
        opened.clear()

        await other.save(later(born("bob")))
        second = await storage.list()

    assert opened == [file_name("bob")]
    assert (len(first), second[0]) == (3, later(born("bob")).summary)


async def test_a_change_of_the_same_size_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions of one size that follow each other within a nanosecond are told apart: a file's time is that of the
    clock, not the last step of the file system's, which may be milliseconds ago.
    """
    times = itertools.count(1_750_000_000_000_000_001)
    monkeypatch.setattr("time.time_ns", lambda: next(times))
    async with FileStorage.open(tmp_path) as storage, FileStorage.open(tmp_path) as other:
        record = born("alice", 1.0)
        await other.save(record)
        for version in range(2, 20):
            record = evolve(record, version=version, used_at=1e6 + version)
            await other.save(record)
            if version % 2:
                assert list(await storage.list()) == [record.summary]

    assert (tmp_path / file_name("alice")).stat().st_mtime_ns == next(times) - 1


async def test_what_another_removed_is_not_listed(tmp_path: Path) -> None:
    """A list shows what is there, not what was."""
    async with FileStorage.open(tmp_path) as storage, FileStorage.open(tmp_path) as other:
        await storage.save(born("alice"))
        assert len(await other.list()) == 1
        await storage.delete("alice")

        assert list(await other.list()) == []
        await other.save(born("alice"))
        assert len(await storage.list()) == 1


async def test_it_shows_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its repr has the folder, as a whole path: it stays there where the process goes to another folder."""
    monkeypatch.chdir(tmp_path)
    async with FileStorage.open("sessions") as storage:
        monkeypatch.chdir("/")
        await storage.save(born("alice"))

        assert repr(storage) == f"<FileStorage in {tmp_path / 'sessions'}>"
    assert (tmp_path / "sessions" / file_name("alice")).exists()
