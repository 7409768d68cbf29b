"""Sessions in files where the disk is full, slow, gone or read-only: each is told, and the storage serves on."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from wizard_actors.errors import SerializationError, SessionConflictError, StorageError
from wizard_actors.session_record import SessionRecord
from wizard_actors.storage.file import FileStorage
from wizard_actors.storage.session_files import file_name, lock_of
from wizard_actors.testing.storage_bench import born, later

if sys.platform != "win32":
    import resource

FULL: Final = errno.ENOSPC
OTHER: Final = next(name for name in map(str, range(100)) if lock_of(name) != lock_of("alice"))
"""A session under another lock than alice's."""


def failing(monkeypatch: pytest.MonkeyPatch, function: str, number: int, when: Callable[..., bool]) -> None:
    """Let a function of `os` fail, where its arguments are such."""
    real = getattr(os, function)

    def failed(*arguments: object, **options: object) -> object:
        if when(*arguments):
            raise OSError(number, os.strerror(number))
        return real(*arguments, **options)

    monkeypatch.setattr(os, function, failed)


def unfinished(path: Any, *_: object) -> bool:  # noqa: ANN401 - whatever `os` takes
    """Say whether it is the file that is written."""
    return ".unfinished-" in str(path)


def left_in(folder: Path) -> list[Path]:
    """Return what lies in a folder."""
    return [*folder.iterdir()]


def creates(_path: object, flags: int, *_: object) -> bool:
    """Say whether a file may be made."""
    return bool(flags & os.O_CREAT)


def always(*_: object) -> bool:
    """Say yes."""
    return True


@pytest.mark.parametrize(
    ("function", "when"), [("open", unfinished), ("open", creates), ("fsync", always), ("utime", unfinished)]
)
async def test_a_full_disk_is_told_and_costs_nothing(
    function: str, when: Callable[..., bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is noticed: the version before is there, nothing is left lying, and with room again it is saved."""
    record = later(born("alice"))
    async with FileStorage.open(tmp_path) as storage:
        await storage.save(born("alice"))
        with monkeypatch.context() as patch:
            failing(patch, function, FULL, when)
            with pytest.raises(StorageError, match=r"^file: session 'alice' was not saved: No space left") as told:
                await storage.save(record)

            assert "free some space, or delete or purge sessions" in str(told.value)
            assert (told.value.backend, told.value.session) == ("file", "alice")
            assert str(told.value.path).startswith(str(tmp_path))
            assert await storage.load("alice") == born("alice")
            assert list(await storage.list()) == [born("alice").summary]
        assert not any(map(unfinished, left_in(tmp_path)))
        await storage.save(record)

        assert await storage.load("alice") == record


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
async def test_a_file_that_may_not_grow_is_told(tmp_path: Path) -> None:
    """A session beyond what the process may write to a file is a StorageError; the next one is saved."""
    big = later(born("alice"), "x" * 2**21)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with FileStorage.open(tmp_path) as storage:
        await storage.save(born("alice"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
        try:
            with pytest.raises(StorageError, match="'alice' was not saved: File too large"):
                await storage.save(big)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

        assert await storage.load("alice") == born("alice")
        assert not any(map(unfinished, left_in(tmp_path)))
        await storage.save(big)


@pytest.mark.skipif(not hasattr(os, "O_DIRECTORY"), reason="folders are not written out here")
async def test_a_save_that_may_not_be_safe_is_not_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the folder cannot be written out, the save is an error, and `load` tells that it is there."""
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        inode = os.fstat(folder).st_ino
    finally:
        os.close(folder)
    async with FileStorage.open(tmp_path) as storage:
        with monkeypatch.context() as patch:
            failing(patch, "fsync", errno.EIO, lambda handle: os.fstat(handle).st_ino == inode)
            with pytest.raises(StorageError, match="'alice' was not saved"):
                await storage.save(born("alice"))

        assert await storage.load("alice") == born("alice")
        assert list(await storage.list()) == [born("alice").summary]
        await storage.save(later(born("alice")))


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
async def test_a_folder_that_cannot_be_written_can_be_read(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is opened, loaded and listed from; a save, a deletion and a removal say why not; a damaged file is told."""
    async with FileStorage.open(tmp_path) as storage:
        await storage.save(born("alice"))
        await storage.save(born("bob"))
    (tmp_path / file_name("bob")).write_bytes(b"{")
    (tmp_path / ".unfinished-0").write_bytes(b"{")
    failing(monkeypatch, "open", number, creates)
    for function in ("rename", "replace", "unlink"):
        failing(monkeypatch, function, number, always)

    async with FileStorage.open(tmp_path) as storage:
        assert await storage.load("alice") == born("alice")
        assert list(await storage.list()) == [born("alice").summary]
        for _ in range(2):
            with pytest.raises(SerializationError, match=r"'bob' cannot be read: .*'bob' was not set aside: "):
                await storage.load("bob")
        for call, failed in (
            (storage.save(later(born("alice"))), "session 'alice' was not saved"),
            (storage.delete("alice"), "session 'alice' was not deleted"),
            (storage.purge(limit=5, used_before=1e12), "old sessions were not removed"),
        ):
            with pytest.raises(StorageError, match=f"^file: {failed}: {os.strerror(number)}.*name another folder"):
                await call
        monkeypatch.undo()
        await storage.save(later(born("alice")))


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
async def test_a_folder_of_somebody_else_is_told(tmp_path: Path) -> None:
    """A folder without the right to write is one that cannot be written."""
    folder = tmp_path / "sessions"
    async with FileStorage.open(folder) as storage:
        await storage.save(born("alice"))
        folder.chmod(0o500)
        try:
            with pytest.raises(StorageError, match="give this user the right"):
                await storage.save(later(born("alice")))
            assert await storage.load("alice") == born("alice")
        finally:
            folder.chmod(0o700)
        await storage.save(later(born("alice")))


@pytest.mark.parametrize("name", ["file", "file/below"])
async def test_a_file_in_the_place_of_the_folder_is_told(name: str, tmp_path: Path) -> None:
    """When it is opened, with its path and what to do."""
    (tmp_path / "file").write_text("something else", encoding="utf-8")

    with pytest.raises(StorageError, match=r"^file: the folder cannot be opened: .*name another folder") as told:
        async with FileStorage.open(tmp_path / name):
            raise AssertionError("it was opened")

    assert told.value.path is not None
    assert (tmp_path / "file").read_text(encoding="utf-8") == "something else"


async def test_a_folder_that_is_gone_is_no_empty_one(tmp_path: Path) -> None:
    """Nothing is found there, nothing written, and no folder made: it may be a disk that was taken away."""
    folder, away = tmp_path / "sessions", tmp_path / "away"
    async with FileStorage.open(folder) as storage:
        await storage.save(born("alice"))
        folder.rename(away)

        for call in (
            storage.load("alice"),
            storage.save(later(born("alice"))),
            storage.save(born("bob")),
            storage.delete("alice"),
            storage.list(),
        ):
            with pytest.raises(StorageError, match="bring it back"):
                await call
        assert not folder.exists()
        away.rename(folder)

        await storage.save(later(born("alice")))
        assert await storage.load("alice") == later(born("alice"))


async def test_a_disk_that_hangs_holds_up_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save whose disk hangs ends with its caller's deadline. Other sessions are served; what asks for the same one
    ends with its deadline too, or sees what the save did in the end.
    """
    go_on, hanging = threading.Event(), threading.Event()
    sync, own = os.fsync, threading.get_ident

    def hung(handle: Any) -> None:  # noqa: ANN401 - as in `os`
        if own() == hangs[0]:
            hanging.set()
            go_on.wait(30)
        sync(handle)

    hangs: list[int] = [0]
    real = os.utime

    def noted(path: Any, **times: Any) -> None:  # noqa: ANN401 - as in `os`
        if not hanging.is_set():
            hangs[0] = own()
        real(path, **times)

    record = later(born("alice"))
    async with FileStorage.open(tmp_path) as storage:
        await storage.save(born("alice"))
        await storage.save(born(OTHER))
        monkeypatch.setattr(os, "fsync", hung)
        monkeypatch.setattr(os, "utime", noted)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(storage.save, record)
                assert await trio.to_thread.run_sync(hanging.wait, 10)
                nursery.cancel_scope.cancel()
            await _in_vain(storage.load, "alice")
            await _in_vain(storage.save, record)
            with trio.fail_after(10):
                assert await storage.load(OTHER) == born(OTHER)
                await storage.save(later(born(OTHER)))
        finally:
            go_on.set()
        with trio.fail_after(10):
            assert await storage.load("alice") == record
            with pytest.raises(SessionConflictError):
                await storage.save(record)
            assert record.summary in await storage.list()


async def _in_vain(call: Callable[[Any], Any], what: SessionRecord | str) -> None:
    with trio.move_on_after(0.1) as scope:
        await call(what)
    assert scope.cancelled_caught
