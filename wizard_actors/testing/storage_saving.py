"""The promises of a storage about one session: what is saved, loaded, deleted, and under which names."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable
from contextlib import suppress
from typing import Final
from unittest import SkipTest

from attrs import evolve

from wizard_actors.errors import SerializationError, SessionConflictError, StorageError
from wizard_actors.session_record import MAX_ID, SessionRecord, TurnRecord
from wizard_actors.storage.base import SessionStorage, newest_first
from wizard_actors.testing.storage_bench import NOON, StorageBench, born, everything, keeps, later, raises
from wizard_actors.types import Image, Message, Role

__all__ = ["ALIKE", "HOSTILE", "SavingPromises"]

HOSTILE: Final = (
    "a/b",
    "/etc/passwd",
    "..",
    ".",
    "../../escaped",
    "..\\..\\escaped",
    "C:\\con",
    "nul",
    ".hidden",
    "-rf",
    "a%2Fb",
    "%00",
    "{}$(id)`id`;'\" or 1=1 --",
    "*?[a]|<>:",
    "\u202egnp.exe",
    "\U0001f9d9\u200d\u2642\ufe0f",
    "\u2028",
    " ",
    "x" * MAX_ID,
    "\U0001f9d9" * MAX_ID,
)
"""Names that lead out of a folder, are a command or a query, or are long."""

ALIKE: Final = ("a", "A", "a ", " a", "a.", "\u00e9", "e\u0301", "\u00df", "ss", "\uff41", "1", "01", "1.0", "a_", "a%")
"""Names that some file system, collation or pattern takes for one another."""

ODD_TIMES: Final = (-1e12, -(2.0**31) - 1, -1.5, -0.125, 1 / 3, 1e-6, NOON + 1 / 3, NOON + 1e-6, 2.0**32 + 0.1, 2.0**52)
"""Times before 1970, after 2096, after the last year of a date, and between two milliseconds."""

UNHEARD_OF: Final = ("", "\x00", "a\nb", "\ud800", "x" * 100_000, "../" * 2_000)
"""Names that no session can have."""


class SavingPromises(StorageBench):
    """What is promised of one session."""

    # -- saved and loaded

    def test_what_is_saved_is_loaded_as_it_was(self) -> None:
        """A record with pictures, tool calls, reasoning, costs and context comes back equal, to the last digit."""

        async def scenario(storage: SessionStorage) -> None:
            for record in (everything(), born("nothing yet")):
                await storage.save(record)
                loaded = await storage.load(record.id)
                keeps(
                    loaded == record,
                    f"what was loaded of session {record.id!r} is not what was saved: store `encode_session(record)` "
                    f"as it is, and return `decode_session` of it.\nsaved: {record}\nloaded: {loaded}",
                )

        self.in_storage(scenario)

    def test_a_big_session_is_kept(self) -> None:
        """A session of some megabytes, in one message or in a thousand turns, is saved, replaced and loaded."""
        picture = Image(None, bytes(range(256)) * 4096, "image/png")
        long = Message(Role.USER, "\u00e4" * 2**20), Message(Role.ASSISTANT, [picture])
        first = SessionRecord("big", created_at=NOON, turns=[TurnRecord(long, at=NOON)])
        turns = later(born("big")).turns * 1_000
        second = evolve(first, version=2, turns=(*first.turns, *turns))

        async def scenario(storage: SessionStorage) -> None:
            for record in (first, second):
                await storage.save(record)
                loaded = await storage.load("big")
                keeps(
                    loaded == record, "a session of some megabytes came back as another: is a size limited somewhere?"
                )

        self.in_storage(scenario)

    def test_any_time_is_kept(self) -> None:
        """Times long ago, far ahead and between two milliseconds are saved, loaded and listed to the last digit."""

        async def scenario(storage: SessionStorage) -> None:
            records = [
                born(f"s{index}", at, used_at=used)
                for index, (at, used) in enumerate(itertools.pairwise(sorted((*ODD_TIMES, 0.0, NOON))))
            ]
            for record in records:
                await storage.save(record)
                loaded = await storage.load(record.id)
                keeps(loaded == record, f"the times of {record.summary} came back as those of {loaded}")
            found = list(await storage.list(limit=100))
            wanted = sorted((record.summary for record in records), key=newest_first)
            keeps(found == wanted, f"times are floats, and a list shows them as they are: {wanted}, and not {found}")

        self.in_storage(scenario)

    def test_what_is_not_there_is_none(self) -> None:
        """A session that was never saved loads as None, and deleting it is False."""

        async def scenario(storage: SessionStorage) -> None:
            keeps(await storage.load("nobody") is None, "`load` of a session that is not there must return None")
            keeps(await storage.delete("nobody") is False, "`delete` of a session that is not there must return False")

        self.in_storage(scenario)

    def test_a_deleted_session_is_gone(self) -> None:
        """After `delete` nothing of a session is left, and its name is free; its neighbours are untouched."""

        async def scenario(storage: SessionStorage) -> None:
            await storage.save(born("alice"))
            await storage.save(born("bob"))
            keeps(await storage.delete("alice") is True, "`delete` of a session that is there must return True")
            keeps(await storage.load("alice") is None, "a session was loaded after it had been deleted")
            listed = [summary.id for summary in await storage.list()]
            keeps(listed == ["bob"], f"after alice was deleted, bob alone should be listed, not {listed}")
            keeps(await storage.delete("alice") is False, "a session was deleted twice")
            await storage.save(born("alice", NOON + 9))
            keeps(await storage.load("alice") == born("alice", NOON + 9), "the name of a deleted session is not free")

        self.in_storage(scenario)

    # -- versions

    def test_a_second_writer_gets_a_conflict(self) -> None:
        """Of two who save the same version, the later one is told so, with the session's name; the first's is kept."""

        async def scenario(storage: SessionStorage) -> None:
            await storage.save(born("alice"))
            first, second = later(born("alice"), "first"), later(born("alice"), "second")
            await storage.save(first)
            error = await raises(
                SessionConflictError,
                storage.save(second),
                "a second writer saved the same version, and the first one's turn is lost: store a record only over "
                "the version before it, in one step with the comparison (see `check_replaces`)",
            )
            keeps("'alice'" in str(error), f"a conflict has to name the session; this one says: {error}")
            told = [getattr(error, name, None) for name in ("session", "version", "stored")]
            keeps(
                told == ["alice", 2, 2],
                "a conflict has to carry the session, the version that was to be saved and the one that is stored, "
                f"here alice, 2 and 2; this one has {told}: call `check_replaces`",
            )
            keeps(await storage.load("alice") == first, "a save that was refused changed what is stored")

        self.in_storage(scenario)

    def test_only_the_next_version_is_stored(self) -> None:
        """Version 1 goes where nothing is, version n over version n - 1; all else is a conflict and changes nothing."""
        versions = [born("alice")]
        while len(versions) < 6:
            versions.append(later(versions[-1], f"turn {len(versions)}"))
        versions.append(evolve(versions[-1], version=2**40))

        async def scenario(storage: SessionStorage) -> None:
            for stored in (None, *versions[:4]):
                if stored is not None:
                    await storage.save(stored)
                for record in versions:
                    if record.version == (0 if stored is None else stored.version) + 1:
                        continue
                    over = "nothing" if stored is None else f"version {stored.version}"
                    await raises(
                        SessionConflictError,
                        storage.save(record),
                        f"version {record.version} was saved over {over}; it goes over version {record.version - 1}",
                    )
                    keeps(await storage.load("alice") == stored, "a save that was refused changed what is stored")

        self.in_storage(scenario)

    def test_a_session_made_anew_is_another_one(self) -> None:
        """Who still holds a deleted session cannot save it over the one that took its name and reached its version."""

        async def scenario(storage: SessionStorage) -> None:
            old = born("alice")
            await storage.save(old)
            await storage.delete("alice")
            await raises(
                SessionConflictError, storage.save(later(old)), "a later version of a deleted session was saved"
            )
            new = born("alice", NOON + 60)
            await storage.save(new)
            await raises(
                SessionConflictError,
                storage.save(later(old)),
                "a version of a deleted session was saved over the one made anew under its name: compare `created_at` "
                "as well as `version`",
            )
            keeps(await storage.load("alice") == new, "a save that was refused changed what is stored")

        self.in_storage(scenario)

    # -- names

    def test_any_name_will_do(self) -> None:
        """Names with slashes, dots, quotes, or of 200 wizards, are names like others: saved, listed, deleted."""

        async def scenario(storage: SessionStorage) -> None:
            for name in HOSTILE:
                await storage.save(born(name))
            for name in HOSTILE:
                keeps(await storage.load(name) == born(name), f"session {name!r} was not loaded as it was saved")
                await storage.save(later(born(name)))
            listed = sorted(summary.id for summary in await storage.list(limit=100))
            keeps(listed == sorted(HOSTILE), f"saved were {sorted(HOSTILE)}, listed {listed}")
            for name in HOSTILE:
                keeps(await storage.delete(name), f"session {name!r} was saved and could not be deleted")

        self.in_storage(scenario)

    def test_no_name_leads_out_of_the_folder(self) -> None:
        """Whatever a session is called, nothing is written or read beside the storage's own folder."""

        async def scenario(storage: SessionStorage) -> None:
            for name in HOSTILE:
                await storage.save(born(name))
            for name in ("../outside", "../outside.json", "..\\outside"):
                found = await storage.load(name)
                keeps(found is None, f"`load({name!r})` read a file outside the storage's folder")
                await storage.delete(name)

        with self.folder() as folder:
            beside = [folder.parent / name for name in ("outside", "outside.json")]
            for path in beside:
                path.write_text("{}", encoding="utf-8")
            self.reopened(folder, scenario)
            found = sorted(path.name for path in folder.parent.iterdir())
        keeps(
            found == ["outside", "outside.json", "storage"],
            f"beside the storage's folder there is {found}: make file names of ids that cannot leave it, a digest say",
        )

    def test_names_that_look_alike_are_different_sessions(self) -> None:
        """Case, spaces, accents and their forms, leading zeros: names that differ at all are different sessions."""

        async def scenario(storage: SessionStorage) -> None:
            apart = "compare names as they are, without case, spaces, collation or normal forms"
            for index, name in enumerate(ALIKE):
                try:
                    await storage.save(born(name, NOON + index))
                except SessionConflictError as error:
                    raise AssertionError(f"a new session {name!r} was taken for another one; {apart}") from error
            for index, name in enumerate(ALIKE):
                loaded = await storage.load(name)
                keeps(loaded == born(name, NOON + index), f"for session {name!r} another one was loaded; {apart}")

        self.in_storage(scenario)

    def test_a_name_that_no_session_can_have_is_not_found(self) -> None:
        """`load` and `delete` bear any text: there is no such session, or a StorageError, and nothing else."""

        async def scenario(storage: SessionStorage) -> None:
            await storage.save(born("alice"))
            for name in UNHEARD_OF:
                try:
                    found = await storage.load(name), await storage.delete(name)
                except StorageError:
                    continue
                keeps(found == (None, False), f"for {name[:20]!r} `load` and `delete` returned {found}")
            keeps(await storage.load("alice") == born("alice"), "a name that no session can have touched another one")

        self.in_storage(scenario)

    # -- opened and closed

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
        """What is damaged is reported by name when it is loaded; the other sessions are served and listed."""
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
    for name in ("alice", "the damaged one"):
        await storage.save(born(name))


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
