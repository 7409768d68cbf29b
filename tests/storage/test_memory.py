"""Sessions in memory: the promises of every storage, and the bound."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from attrs import evolve

from wizard_actors.errors import SerializationError, StorageError
from wizard_actors.session_json import encode_session
from wizard_actors.session_record import TurnRecord
from wizard_actors.storage.base import SessionStorage
from wizard_actors.storage.memory import MemoryStorage
from wizard_actors.testing.storage import StorageContract
from wizard_actors.testing.storage_bench import born, everything, later
from wizard_actors.types import Message, Role


class TestMemoryStorage(StorageContract):
    """It keeps what every storage promises, but is gone with its process."""

    def open(self, folder: Path) -> AbstractAsyncContextManager[SessionStorage]:
        return MemoryStorage.open()


async def test_what_does_not_fit_is_refused_and_what_is_there_stays() -> None:
    """A save beyond `max_bytes` is a StorageError with the session's name; the version before is still there."""
    record = born("alice")
    async with MemoryStorage.open(max_bytes=len(encode_session(record)) + 10) as storage:
        await storage.save(record)

        with pytest.raises(StorageError, match=r"memory: session 'alice' was not saved: it would take \d+ bytes"):
            await storage.save(later(record))

        assert await storage.load("alice") == record


async def test_room_is_given_back() -> None:
    """A smaller version, a deletion and a purge each make room for others."""
    small, big = born("alice"), later(born("alice"))
    async with MemoryStorage.open(max_bytes=len(encode_session(big))) as storage:
        for _ in range(3):
            await storage.save(small)
            await storage.save(big)
            assert await storage.delete("alice")
        await storage.save(small)
        assert await storage.purge(limit=1, used_before=1e12) == ["alice"]
        await storage.save(small)
        await storage.save(big)

        assert await storage.load("alice") == big


async def test_it_shows_how_full_it_is_and_nothing_of_what_is_said() -> None:
    """Its repr has the number of sessions and of bytes."""
    async with MemoryStorage.open(max_bytes=10_000) as storage:
        await storage.save(everything())

        assert repr(storage) == f"<MemoryStorage of 1 sessions, {len(encode_session(everything()))} of 10000 bytes>"


async def test_two_blocks_are_two_storages() -> None:
    """What one keeps the other does not know."""
    async with MemoryStorage.open() as one, MemoryStorage.open() as other:
        await one.save(born("alice"))

        assert await other.load("alice") is None


async def test_a_record_that_cannot_be_stored_changes_nothing() -> None:
    """A value that JSON cannot hold is a SerializationError, and the version before stays."""
    broken = evolve(later(born("alice")), turns=[TurnRecord([Message(Role.USER, "?", name="\ud800")], at=1)])
    async with MemoryStorage.open() as storage:
        await storage.save(born("alice"))

        with pytest.raises(SerializationError, match="'alice'"):
            await storage.save(broken)

        assert await storage.load("alice") == born("alice")
