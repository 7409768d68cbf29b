"""The promises of a storage about one session: what is saved, loaded, deleted, and under which names."""

from __future__ import annotations

import itertools
from typing import Final

from attrs import evolve

from wizard_actors.errors import SessionConflictError, StorageError
from wizard_actors.session_record import MAX_ID, SessionRecord, SessionState, TurnRecord
from wizard_actors.storage.base import SessionStorage, newest_first
from wizard_actors.testing.storage_bench import NOON, StorageBench, born, everything, keeps, later, raises
from wizard_actors.types import Image, Message, Role

__all__ = ["ALIKE", "HOSTILE", "UNHEARD_OF", "SavingPromises"]

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

    def test_an_expired_session_makes_room(self) -> None:
        """Version 1 takes the place of a session that is stored as expired, and of no other; nothing else does."""

        async def scenario(storage: SessionStorage) -> None:
            for at, state in enumerate(SessionState):
                old = evolve(later(born(state.value)), state=state)
                await storage.save(born(state.value))
                await storage.save(old)
                new = born(state.value, NOON + 60 + at)
                await raises(
                    SessionConflictError,
                    storage.save(later(new)),
                    f"version 2 of another session was saved over one that is {state}: version 1 alone may be, over an "
                    "expired one",
                )
                keeps(await storage.load(state.value) == old, "a save that was refused changed what is stored")
                if state is not SessionState.EXPIRED:
                    told = f"version 1 was saved over a session that is {state}"
                    await raises(SessionConflictError, storage.save(new), told)
                    continue
                try:
                    await storage.save(new)
                except SessionConflictError as error:
                    raise AssertionError(f"version 1 has to take the place of an expired session: {error}") from error
                keeps(await storage.load(state.value) == new, "a session in the place of an expired one is not loaded")
                keeps(list(await storage.list(limit=1)) == [new.summary], "a list shows the session that had expired")
                await raises(
                    SessionConflictError,
                    storage.save(later(old)),
                    "a later version of an expired session was saved over the one that has taken its place",
                )

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
