"""The promises of a storage about its own life: opened and closed, opened again, opened twice, damaged meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import suppress
from unittest import SkipTest

from wizard_actors.errors import SerializationError, SessionConflictError, StorageError, WizardError
from wizard_actors.session_record import SessionRecord
from wizard_actors.storage.base import SessionStorage
from wizard_actors.testing.storage_bench import NOON, StorageBench, born, everything, keeps, later, raises

__all__ = ["OpeningPromises"]


class OpeningPromises(StorageBench):
    """What is promised of a storage that comes and goes."""

    def test_a_closed_storage_says_so(self) -> None:
        """A call after the storage's block is a StorageError that names backend and session, neither a hang nor another
        error.
        """
        kept: list[SessionStorage] = []

        async def scenario(storage: SessionStorage) -> None:
            await storage.save(born("alice"))
            kept.append(storage)

        async def after(_other: SessionStorage) -> None:
            for name in ("alice", "bob"):
                await _tells_of(name, kept[0].load(name))
                await _tells_of(name, kept[0].save(later(born(name))))
                await _tells_of(name, kept[0].delete(name))
            await _tells_of(None, kept[0].list())
            await _tells_of(None, kept[0].purge(limit=1, used_before=0))

        self.in_storage(scenario)
        self.in_storage(after)

    def test_what_was_saved_is_there_when_opened_again(self) -> None:
        """A durable storage has everything when it is opened again, also where its block was left by an error."""
        if not self.durable:
            raise SkipTest("this storage does not claim to be durable")

        async def fill(storage: SessionStorage) -> None:
            await storage.save(everything())
            await storage.save(born("alice"))
            await storage.save(later(born("alice")))
            await storage.save(born("bob"))
            await storage.delete("bob")
            raise EOFError("something in the block fails")

        async def look(storage: SessionStorage) -> None:
            found = {summary.id: await storage.load(summary.id) for summary in await storage.list()}
            wanted = {"everything": everything(), "alice": later(born("alice"))}
            keeps(
                found == wanted,
                f"opened again, the storage has {found} instead of {wanted}: what `save` returned from must be safe, "
                "however the block is left",
            )
            await storage.save(later(later(born("alice"))))

        with self.folder() as folder:
            with suppress(EOFError):
                self.reopened(folder, fill)
            self.reopened(folder, look)

    def test_two_who_share_it_lose_nothing(self) -> None:
        """Where a storage can be open twice at once, each sees what the other saved, and conflicts are told."""
        if not self.shared:
            raise SkipTest("this storage does not claim that it can be open twice at once")

        async def both(one: SessionStorage, other: SessionStorage) -> None:
            await one.save(born("alice"))
            keeps(await other.load("alice") == born("alice"), "what one saved, the other does not see")
            first = later(born("alice"), "by the other")
            await other.save(first)
            await raises(
                SessionConflictError,
                one.save(later(born("alice"), "by the one")),
                "two who have the storage open saved the same version: compare with what is stored, not with memory",
            )
            keeps(await one.load("alice") == first, "the turn that the other saved is lost")

        with self.folder() as folder:

            async def scenario(one: SessionStorage) -> None:
                async with self.open(folder) as other:
                    await both(one, other)

            self.reopened(folder, scenario)

    def test_a_damaged_session_harms_no_other(self) -> None:
        """What is damaged is reported by name when it is loaded; the other sessions are served, listed and removed, and
        once it was deleted, its name is free.
        """
        if not self.durable:
            raise SkipTest("this storage does not claim to be durable")
        with self.folder() as folder:
            self.reopened(folder, _damage_one)
            self.damage(folder, "the damaged one")
            self.reopened(folder, _damaged_is_told)


async def _tells_of(session: str | None, call: Awaitable[object]) -> None:
    """Make a call of a closed storage, and look at its error; `session` is the one that it has to name."""
    error = await raises(StorageError, call, "a storage that was closed was used, and did not raise StorageError")
    backend, named = getattr(error, "backend", None), getattr(error, "session", None)
    keeps(
        bool(backend) and named == session and (session is None or repr(session) in str(error)),
        f"an error of a storage names its backend, and the session {session!r} where it is about one; this one has the "
        f"backend {backend!r} and the session {named!r}, and says: {error}; make it with `storage_error`",
    )


async def _damage_one(storage: SessionStorage) -> None:
    for name in ("alice", "old", "the damaged one"):
        await storage.save(born(name, NOON - 60 if name == "old" else NOON))


async def _damaged_is_told(storage: SessionStorage) -> None:
    listed = [summary.id for summary in await storage.list()]
    keeps("alice" in listed, f"a damaged session keeps the others from being listed: {listed}")
    error = await raises(
        (SerializationError, StorageError),
        storage.load("the damaged one"),
        "a damaged session was loaded as if nothing were wrong: raise what `decode_session` raises",
    )
    keeps("'the damaged one'" in str(error), f"the error has to name the damaged session; it says: {error}")
    await storage.save(later(born("alice")))
    keeps(await storage.load("alice") == later(born("alice")), "a damaged session keeps another from being saved")
    removed = await storage.purge(limit=1, used_before=NOON - 30)
    keeps(list(removed) == ["old"], f"a damaged session keeps an old one from being removed; removed were {removed}")
    await _begins_anew(storage, born("the damaged one", NOON + 60))


async def _begins_anew(storage: SessionStorage, record: SessionRecord) -> None:
    """Delete a damaged session, which may have been set aside when it was loaded, and save another of its name."""
    with suppress(SerializationError):
        found = await storage.load(record.id)
        keeps(found is None, "a damaged session is an error, or it is set aside and not there; it was loaded")
    try:
        await storage.delete(record.id)
        found = await storage.load(record.id)
        await storage.save(record)
    except WizardError as error:
        raise AssertionError(f"after a damaged session was deleted, its name is not free: {error}") from error
    keeps(found is None, f"a damaged session was deleted, and is still there: {found}")
    keeps(await storage.load(record.id) == record, "what was saved under the name of a damaged session is not there")
