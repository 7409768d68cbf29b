"""The conformance suite of storages finds what is wrong with one: each fault by the test that is named after it."""

from __future__ import annotations

import fnmatch
import math
import sys
import unicodedata
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import ClassVar
from unittest import SkipTest

import pytest
import trio
from attrs import evolve

from wizard_actors.errors import SerializationError, SessionConflictError, StorageError
from wizard_actors.session_json import decode_session, encode_session
from wizard_actors.session_record import SessionRecord, SessionState, SessionSummary
from wizard_actors.storage.base import (
    SessionStorage,
    check_busy,
    check_limit,
    check_prefix,
    check_replaces,
    newest_first,
)
from wizard_actors.storage.memory import MemoryStorage, _Stored
from wizard_actors.testing.storage import StorageContract

checkpoint = trio.lowlevel.checkpoint


class KeptStorage(MemoryStorage):
    """Sessions that outlive their storage: one dict a folder, for as many as open it."""

    kept: ClassVar[dict[Path, dict[str, _Stored]]] = {}

    @classmethod
    @asynccontextmanager
    async def at(cls, folder: Path) -> AsyncIterator[SessionStorage]:
        async with trio.open_nursery():  # as a storage with a writer of its own has
            storage = cls()
            storage._sessions = cls.kept.setdefault(folder, {})
            yield storage
            storage._open = False

    def put(self, record: SessionRecord) -> None:
        """Store a record over whatever is there."""
        self._sessions[record.id] = _Stored(encode_session(record), record.summary)

    async def checked(self, record: SessionRecord) -> _Stored | None:
        """Compare the versions, and return what was there."""
        await checkpoint()
        before = self._sessions.get(record.id)
        check_replaces("memory", record, None if before is None else before.summary)
        return before

    @classmethod
    def spoil(cls, folder: Path, session: str) -> None:
        cls.kept[folder][session] = evolve(cls.kept[folder][session], data=b"{")


class TestKeptStorage(StorageContract):
    """A storage that claims all there is to claim passes, without a skip."""

    durable = True
    shared = True
    kind: type[KeptStorage] = KeptStorage

    def open(self, folder: Path) -> AbstractAsyncContextManager[SessionStorage]:
        return self.kind.at(folder)

    def damage(self, folder: Path, session: str) -> None:
        self.kind.spoil(folder, session)


# -- faults ------------------------------------------------------------------------------------------


class LastWriterWins(KeptStorage):
    async def save(self, record: SessionRecord) -> None:
        await checkpoint()
        self.put(record)


class AnyLaterVersion(KeptStorage):
    async def save(self, record: SessionRecord) -> None:
        await checkpoint()
        before = self._sessions.get(record.id)
        if before is None or record.version <= before.summary.version:
            await self.checked(record)
        self.put(record)


class ForgetsWhenItWasBorn(KeptStorage):
    async def save(self, record: SessionRecord) -> None:
        before = self._sessions.get(record.id)
        await self.checked(record if before is None else evolve(record, created_at=before.summary.created_at))
        self.put(record)


class ComparesThenWrites(KeptStorage):
    async def save(self, record: SessionRecord) -> None:
        await self.checked(record)
        await checkpoint()
        self.put(record)


class ForgetsFirst(KeptStorage):
    async def save(self, record: SessionRecord) -> None:
        await self.checked(record)
        self._sessions.pop(record.id, None)
        await checkpoint()  # cancelled here, both versions are gone
        self.put(record)


class WritesHalf(KeptStorage):
    async def save(self, record: SessionRecord) -> None:
        await self.checked(record)
        self.put(evolve(record, turns=[evolve(turn, messages=turn.messages[:1]) for turn in record.turns]))
        await checkpoint()  # cancelled here, the question is stored without its answer
        self.put(record)


class ListsLate(KeptStorage):
    async def save(self, record: SessionRecord) -> None:
        before = await self.checked(record)
        if before is not None:
            self._sessions[record.id] = evolve(before, data=encode_session(record))
            await checkpoint()  # cancelled here, the list shows the version before
        self.put(record)


class DeletesTheContentFirst(KeptStorage):
    async def delete(self, session: str) -> bool:
        await checkpoint()
        if session not in self._sessions:
            return False
        gone: set[str] = self.__dict__.setdefault("gone", set())
        gone.add(session)
        await checkpoint()  # cancelled here, it is listed and cannot be loaded
        gone.discard(session)
        return self._remove(session)

    async def load(self, session: str) -> SessionRecord | None:
        return None if session in self.__dict__.get("gone", ()) else await super().load(session)


class NeverWaits(KeptStorage):
    async def _turn(self, session: str | None = None) -> None:
        with trio.CancelScope(shield=True):
            await super()._turn(session)


def making_room(*over: SessionState, most: int = 1) -> type[KeptStorage]:
    """Return a storage with an idea of its own of which sessions make room, and for which versions."""

    class MakingRoom(KeptStorage):
        async def save(self, record: SessionRecord) -> None:
            await checkpoint()
            before = self._sessions.get(record.id)
            if before is not None and before.summary.created_at != record.created_at:
                if record.version <= most and before.summary.state in over:
                    self.put(record)
                    return
                raise SessionConflictError(record.id)
            await super().save(record)

    return MakingRoom


class LosesCosts(KeptStorage):
    async def save(self, record: SessionRecord) -> None:
        await super().save(evolve(record, turns=[evolve(turn, cost=None) for turn in record.turns]))


class CutsLongText(KeptStorage):
    async def load(self, session: str) -> SessionRecord | None:
        loaded = await super().load(session)
        cut = loaded is not None and len(encode_session(loaded)) > 2**16
        return evolve(loaded, turns=()) if loaded is not None and cut else loaded


class RaisesForUnknown(KeptStorage):
    async def load(self, session: str) -> SessionRecord | None:
        await checkpoint()
        return decode_session(self._sessions[session].data, session)


class AlwaysDeletes(KeptStorage):
    async def delete(self, session: str) -> bool:
        await super().delete(session)
        return True


class NeverDeletes(KeptStorage):
    async def delete(self, session: str) -> bool:
        await checkpoint()
        return session in self._sessions


def renaming(rename: Callable[[str], str]) -> type[KeptStorage]:
    """Return a storage that takes some names for others."""

    class Renaming(KeptStorage):
        async def load(self, session: str) -> SessionRecord | None:
            loaded = await super().load(rename(session))
            return None if loaded is None else evolve(loaded, id=session)

        async def save(self, record: SessionRecord) -> None:
            await super().save(evolve(record, id=rename(record.id)))

    return Renaming


class ChokesOnOddNames(KeptStorage):
    async def load(self, session: str) -> SessionRecord | None:
        session.encode()
        return await super().load(session)


class WritesAnywhere(KeptStorage):
    @classmethod
    @asynccontextmanager
    async def at(cls, folder: Path) -> AsyncIterator[SessionStorage]:
        async with super().at(folder) as storage:
            yield storage
            escape(folder, [each.id for each in await storage.list()])


def escape(folder: Path, names: Sequence[str]) -> None:
    """Write a file for each name that leads to the folder above."""
    for name in names:
        if name.startswith("../"):
            folder.joinpath(name.removeprefix("../")).write_bytes(b"")


class StaysOpen(KeptStorage):
    async def _turn(self, session: str | None = None) -> None:
        await checkpoint()


class OldestFirst(KeptStorage):
    async def list(
        self, *, limit: int = 50, after: SessionSummary | None = None, prefix: str = ""
    ) -> Sequence[SessionSummary]:
        found = await super().list(limit=1000, prefix=prefix)
        return [each for each in reversed(found) if after is None or newest_first(each) < newest_first(after)][:limit]


class ListsByCase(KeptStorage):
    async def list(
        self, *, limit: int = 50, after: SessionSummary | None = None, prefix: str = ""
    ) -> Sequence[SessionSummary]:
        def key(each: SessionSummary) -> tuple[float, str, str]:
            return (-each.used_at, each.id.lower(), each.id)

        found = sorted(await super().list(limit=1000, prefix=prefix), key=key)
        check_limit(limit)
        return [each for each in found if after is None or key(each) > key(after)][:limit]


class AlwaysTheFirstPage(KeptStorage):
    async def list(
        self, *, limit: int = 50, after: SessionSummary | None = None, prefix: str = ""
    ) -> Sequence[SessionSummary]:
        return await super().list(limit=limit, prefix=prefix)


class PagesByNumber(KeptStorage):
    async def list(
        self, *, limit: int = 50, after: SessionSummary | None = None, prefix: str = ""
    ) -> Sequence[SessionSummary]:
        check_limit(limit)
        found = await super().list(limit=1000, prefix=prefix)
        counts = self.__dict__.setdefault("counts", {})
        begin = 0 if after is None else counts.get(after.id, 0)
        counts.update({each.id: begin + index for index, each in enumerate(found[begin : begin + limit], 1)})
        return found[begin : begin + limit]


class PagesAfterTheTime(KeptStorage):
    async def list(
        self, *, limit: int = 50, after: SessionSummary | None = None, prefix: str = ""
    ) -> Sequence[SessionSummary]:
        check_limit(limit)
        found = await super().list(limit=1000, prefix=prefix)
        return [each for each in found if after is None or each.used_at < after.used_at][:limit]


class NoBounds(KeptStorage):
    async def list(
        self, *, limit: int = 50, after: SessionSummary | None = None, prefix: str = ""
    ) -> Sequence[SessionSummary]:
        return await super().list(limit=min(max(limit, 1), 1000), after=after, prefix=prefix)


def matching(matches: Callable[[str, str], bool]) -> type[KeptStorage]:
    """Return a storage with an idea of its own of what begins with a prefix."""

    class Matching(KeptStorage):
        async def list(
            self, *, limit: int = 50, after: SessionSummary | None = None, prefix: str = ""
        ) -> Sequence[SessionSummary]:
            check_limit(limit)
            check_prefix(prefix)
            found = await super().list(limit=1000, after=after)
            return [each for each in found if matches(each.id, prefix)][:limit]

    return Matching


def like(name: str, prefix: str) -> bool:
    """Match as SQL's LIKE does, but for the case."""
    return len(name) >= len(prefix) and all(b in {"_", a} for a, b in zip(name, prefix, strict=False))


class LimitsBeforeThePrefix(KeptStorage):
    async def list(
        self, *, limit: int = 50, after: SessionSummary | None = None, prefix: str = ""
    ) -> Sequence[SessionSummary]:
        return [
            each for each in await super().list(limit=limit, after=after) if each.id.startswith(check_prefix(prefix))
        ]


class ForgetsWhereItWas(KeptStorage):
    async def list(
        self, *, limit: int = 50, after: SessionSummary | None = None, prefix: str = ""
    ) -> Sequence[SessionSummary]:
        if after is not None and not after.id.startswith(check_prefix(prefix)):
            after = None
        return await super().list(limit=limit, after=after, prefix=prefix)


class TakesNoneForAll(KeptStorage):
    async def list(
        self, *, limit: int = 50, after: SessionSummary | None = None, prefix: str = ""
    ) -> Sequence[SessionSummary]:
        return await super().list(limit=limit, after=after, prefix=prefix or "")


class ListsOldVersions(KeptStorage):
    async def save(self, record: SessionRecord) -> None:
        await super().save(record)
        stored = self._sessions[record.id]
        self._sessions[record.id] = evolve(stored, summary=evolve(stored.summary, turns=0))


class Purging(KeptStorage):
    """Removes what `due` names, in two steps or in one."""

    async def purge(
        self,
        *,
        limit: int,
        used_before: float | None = None,
        created_before: float | None = None,
        busy: Collection[str] = (),
    ) -> Sequence[str]:
        check_limit(limit)
        busy = self.ids(busy)
        await checkpoint()
        unused, born = self.instant(used_before), self.instant(created_before)
        old = [
            stored.summary
            for stored in self._sessions.values()
            if stored.summary.used_at < unused or stored.summary.created_at < born
        ]
        removed = self.due(sorted(old, key=lambda each: each.used_at), limit, busy)
        await self.before_removal()
        return [each.id for each in removed if self._remove(each.id)]

    def instant(self, at: float | None) -> float:
        return -math.inf if at is None else at

    def ids(self, busy: Collection[str]) -> Collection[str]:
        return check_busy(busy)

    def due(self, old: list[SessionSummary], limit: int, busy: Collection[str]) -> list[SessionSummary]:
        return [each for each in old if each.id not in busy][:limit]

    async def before_removal(self) -> None:
        """Do nothing."""


class PurgesInTwoSteps(Purging):
    async def before_removal(self) -> None:
        await checkpoint()


class PurgesTheBusy(Purging):
    def due(self, old: list[SessionSummary], limit: int, busy: Collection[str]) -> list[SessionSummary]:
        return old[:limit]


class CountsTheBusy(Purging):
    def due(self, old: list[SessionSummary], limit: int, busy: Collection[str]) -> list[SessionSummary]:
        return [each for each in old[:limit] if each.id not in busy]


class PurgesAll(Purging):
    def due(self, old: list[SessionSummary], limit: int, busy: Collection[str]) -> list[SessionSummary]:
        return [each for each in old if each.id not in busy]


class PurgesTheNewest(Purging):
    def due(self, old: list[SessionSummary], limit: int, busy: Collection[str]) -> list[SessionSummary]:
        return [each for each in old if each.id not in busy][::-1][:limit]


class PurgesByAgeOnly(Purging):
    def due(self, old: list[SessionSummary], limit: int, busy: Collection[str]) -> list[SessionSummary]:
        return [each for each in super().due(old, limit, busy) if each.created_at != each.used_at]


class SparesTheClosed(Purging):
    def due(self, old: list[SessionSummary], limit: int, busy: Collection[str]) -> list[SessionSummary]:
        return [each for each in super().due(old, limit, busy) if each.state is not SessionState.CLOSED]


class TakesZeroForNoInstant(Purging):
    def instant(self, at: float | None) -> float:
        return at or -math.inf


class TakesNoInstantForZero(Purging):
    def instant(self, at: float | None) -> float:
        return at or 0


class TakesATextForIds(Purging):
    def ids(self, busy: Collection[str]) -> Collection[str]:
        return frozenset(busy)


class NeedsASet(Purging):
    def ids(self, busy: Collection[str]) -> Collection[str]:
        check_busy(busy)
        return busy.union()  # type: ignore[attr-defined,no-any-return]  # the fault: a list has no such method


class HidesTheClosed(KeptStorage):
    async def list(
        self, *, limit: int = 50, after: SessionSummary | None = None, prefix: str = ""
    ) -> Sequence[SessionSummary]:
        found = await super().list(limit=limit, after=after, prefix=prefix)
        return [each for each in found if each.state is not SessionState.CLOSED]


class RoundsTimes(KeptStorage):
    async def save(self, record: SessionRecord) -> None:
        await super().save(evolve(record, used_at=round(record.used_at, 3)))


class RoundsListedTimes(KeptStorage):
    async def save(self, record: SessionRecord) -> None:
        await super().save(record)
        stored = self._sessions[record.id]
        rounded = evolve(stored.summary, used_at=round(record.used_at, 3), updated_at=round(record.updated_at, 3))
        self._sessions[record.id] = evolve(stored, summary=rounded)


class OnlyTimesOfOurs(KeptStorage):
    async def load(self, session: str) -> SessionRecord | None:
        loaded = await super().load(session)
        return loaded and evolve(loaded, used_at=min(max(loaded.used_at, 0), 2**32))


class SmallVersions(KeptStorage):
    async def save(self, record: SessionRecord) -> None:
        record.version.to_bytes(4)
        await super().save(record)


class TellsNoVersions(KeptStorage):
    async def save(self, record: SessionRecord) -> None:
        try:
            await super().save(record)
        except SessionConflictError as error:
            raise SessionConflictError(str(error)) from error


class NamesNobody(KeptStorage):
    async def _turn(self, session: str | None = None) -> None:
        await super()._turn(None)


class NamesNoBackend(KeptStorage):
    async def _turn(self, session: str | None = None) -> None:
        try:
            await super()._turn(session)
        except StorageError as error:
            raise StorageError(str(error), session=session) from error


class TakesAnyLimit(KeptStorage):
    async def list(
        self, *, limit: int = 50, after: SessionSummary | None = None, prefix: str = ""
    ) -> Sequence[SessionSummary]:
        if not 1 <= limit <= 1000:
            raise ValueError(limit)
        return await super().list(limit=int(limit), after=after, prefix=prefix)


class MixesSessions(KeptStorage):
    async def load(self, session: str) -> SessionRecord | None:
        loaded = await super().load("s7" if session == "s8" else session)
        return None if loaded is None else evolve(loaded, id=session)


class Forgets(KeptStorage):
    @classmethod
    @asynccontextmanager
    async def at(cls, folder: Path) -> AsyncIterator[SessionStorage]:
        del folder
        async with MemoryStorage.open() as storage:
            yield storage


class WritesWhenClosed(KeptStorage):
    """What is saved is only kept when the block is left in order."""

    @classmethod
    @asynccontextmanager
    async def at(cls, folder: Path) -> AsyncIterator[SessionStorage]:
        storage = cls()
        storage._sessions = dict(cls.kept.get(folder, {}))
        yield storage
        cls.kept[folder] = storage._sessions
        storage._open = False


class HidesDamage(KeptStorage):
    async def load(self, session: str) -> SessionRecord | None:
        with suppress(SerializationError):
            return await super().load(session)
        return None


class ListsNothingWhenDamaged(KeptStorage):
    async def list(
        self, *, limit: int = 50, after: SessionSummary | None = None, prefix: str = ""
    ) -> Sequence[SessionSummary]:
        for name, stored in self._sessions.items():
            decode_session(stored.data, name)
        return await super().list(limit=limit, after=after, prefix=prefix)


class NeverFreesTheDamaged(KeptStorage):
    async def delete(self, session: str) -> bool:
        with suppress(SerializationError):
            await self.load(session)
            return await super().delete(session)
        return False


class Hangs(KeptStorage):
    async def load(self, session: str) -> SessionRecord | None:
        await trio.sleep_forever()


FAULTS: list[tuple[type[KeptStorage], str]] = [
    (LosesCosts, "what_is_saved_is_loaded_as_it_was"),
    (CutsLongText, "a_big_session_is_kept"),
    (RoundsTimes, "any_time_is_kept"),
    (RoundsListedTimes, "any_time_is_kept"),
    (RoundsListedTimes, "a_list_shows_the_stored_version"),
    (OnlyTimesOfOurs, "any_time_is_kept"),
    (TellsNoVersions, "a_second_writer_gets_a_conflict"),
    (NamesNobody, "a_closed_storage_says_so"),
    (NamesNoBackend, "a_closed_storage_says_so"),
    (HidesTheClosed, "sessions_of_every_state_are_listed_and_removed"),
    (SparesTheClosed, "sessions_of_every_state_are_listed_and_removed"),
    (TakesZeroForNoInstant, "old_sessions_are_removed"),
    (TakesNoInstantForZero, "old_sessions_are_removed"),
    (TakesAnyLimit, "pages_have_bounds"),
    (TakesATextForIds, "busy_sessions_are_never_removed"),
    (AlwaysDeletes, "what_is_not_there_is_none"),
    (NeverDeletes, "a_deleted_session_is_gone"),
    (LastWriterWins, "a_second_writer_gets_a_conflict"),
    (AnyLaterVersion, "only_the_next_version_is_stored"),
    (ForgetsWhenItWasBorn, "a_session_made_anew_is_another_one"),
    (making_room(), "an_expired_session_makes_room"),
    (making_room(SessionState.EXPIRED, SessionState.CLOSED), "an_expired_session_makes_room"),
    (making_room(SessionState.EXPIRED, most=9), "an_expired_session_makes_room"),
    (renaming(lambda name: name.replace("/", "_")), "any_name_will_do"),
    (WritesAnywhere, "no_name_leads_out_of_the_folder"),
    (renaming(str.lower), "names_that_look_alike_are_different_sessions"),
    (renaming(str.strip), "names_that_look_alike_are_different_sessions"),
    (renaming(lambda name: unicodedata.normalize("NFC", name)), "names_that_look_alike_are_different_sessions"),
    (StaysOpen, "a_closed_storage_says_so"),
    (Forgets, "what_was_saved_is_there_when_opened_again"),
    (WritesWhenClosed, "what_was_saved_is_there_when_opened_again"),
    (Forgets, "two_who_share_it_lose_nothing"),
    (WritesWhenClosed, "two_who_share_it_lose_nothing"),
    (HidesDamage, "a_damaged_session_harms_no_other"),
    (NeverFreesTheDamaged, "a_damaged_session_harms_no_other"),
    (OldestFirst, "the_newest_come_first"),
    (ListsByCase, "the_newest_come_first"),
    (ListsOldVersions, "a_list_shows_the_stored_version"),
    (AlwaysTheFirstPage, "pages_join_to_the_whole"),
    (PagesAfterTheTime, "pages_join_to_the_whole"),
    (PagesByNumber, "pages_hold_under_change"),
    (matching(lambda name, prefix: prefix in name), "a_prefix_is_taken_as_it_is"),
    (matching(lambda name, prefix: name.lower().startswith(prefix.lower())), "a_prefix_is_taken_as_it_is"),
    (matching(fnmatch.fnmatchcase), "a_prefix_is_taken_as_it_is"),
    (matching(lambda name, prefix: fnmatch.fnmatchcase(name, f"{prefix}*")), "a_prefix_is_taken_as_it_is"),
    (matching(like), "a_prefix_is_taken_as_it_is"),
    (matching(lambda name, prefix: prefix <= name < f"{prefix}\uffff"), "a_prefix_is_taken_as_it_is"),
    (matching(lambda name, prefix: name == prefix or not prefix), "a_prefix_is_taken_as_it_is"),
    (matching(lambda name, prefix: True), "a_prefix_is_taken_as_it_is"),
    (
        matching(
            lambda *texts: unicodedata.normalize("NFD", texts[0]).startswith(unicodedata.normalize("NFD", texts[1]))
        ),
        "a_prefix_is_taken_as_it_is",
    ),
    (LimitsBeforeThePrefix, "a_prefix_has_pages_too"),
    (ForgetsWhereItWas, "a_prefix_has_pages_too"),
    (TakesNoneForAll, "a_prefix_is_a_text"),
    (NoBounds, "pages_have_bounds"),
    (PurgesByAgeOnly, "old_sessions_are_removed"),
    (PurgesAll, "few_are_removed_at_a_time"),
    (PurgesTheNewest, "few_are_removed_at_a_time"),
    (PurgesTheBusy, "busy_sessions_are_never_removed"),
    (CountsTheBusy, "busy_sessions_are_never_removed"),
    (PurgesInTwoSteps, "a_session_saved_meanwhile_is_not_removed"),
    (ComparesThenWrites, "of_many_writers_one_wins_each_version"),
    (ComparesThenWrites, "of_many_creators_one_wins"),
    (ComparesThenWrites, "cancelled_writers_lose_no_turn_of_others"),
    (MixesSessions, "many_sessions_at_once_do_not_mix"),
    (ForgetsFirst, "a_cancelled_save_leaves_old_or_new"),
    (WritesHalf, "a_cancelled_save_leaves_old_or_new"),
    (ListsLate, "a_cancelled_save_is_seen_the_same_in_lists"),
    (DeletesTheContentFirst, "a_cancelled_delete_leaves_all_or_nothing"),
    (NeverWaits, "a_call_in_a_cancelled_scope_is_not_begun"),
    (LastWriterWins, "it_does_what_a_dict_does"),
    (PagesAfterTheTime, "it_does_what_a_dict_does"),
    (PurgesTheNewest, "it_does_what_a_dict_does"),
    (matching(lambda name, prefix: True), "it_does_what_a_dict_does"),
    (making_room(), "it_does_what_a_dict_does"),
]


def contract(kind: type[KeptStorage]) -> TestKeptStorage:
    """Return the suite for a storage."""
    suite = TestKeptStorage()
    suite.kind = kind
    return suite


@pytest.mark.parametrize(("kind", "test"), FAULTS, ids=lambda each: each if isinstance(each, str) else each.__name__)
def test_a_fault_is_found(kind: type[KeptStorage], test: str) -> None:
    """A storage with a fault fails the test that is named after the promise, and is told what was broken."""
    with pytest.raises(AssertionError) as raised:
        getattr(contract(kind), f"test_{test}")()

    assert len(str(raised.value).split()) > 4


@pytest.mark.parametrize(
    ("kind", "test", "error"),
    [
        (RaisesForUnknown, "what_is_not_there_is_none", KeyError),
        (ChokesOnOddNames, "a_name_that_no_session_can_have_is_not_found", UnicodeEncodeError),
        (ListsNothingWhenDamaged, "a_damaged_session_harms_no_other", SerializationError),
        (AnyLaterVersion, "a_session_made_anew_is_another_one", AssertionError),
        (Forgets, "a_damaged_session_harms_no_other", KeyError),
        (SmallVersions, "only_the_next_version_is_stored", OverflowError),
        (NeedsASet, "busy_sessions_are_never_removed", AttributeError),
    ],
)
def test_an_error_of_the_storage_comes_through(kind: type[KeptStorage], test: str, error: type[Exception]) -> None:
    """What a storage raises and must not is seen as it is, also from under a nursery."""
    with pytest.raises(error):
        getattr(contract(kind), f"test_{test}")()


def test_a_storage_that_hangs_is_told() -> None:
    """A call that never ends fails the test after `within` seconds, instead of holding up the run."""
    suite = contract(Hangs)
    suite.within = 0.05  # type: ignore[misc]  # of this suite alone

    with pytest.raises(AssertionError, match=r"not done within 0\.05 s"):
        suite.test_what_is_not_there_is_none()


def test_what_is_not_claimed_is_skipped() -> None:
    """Without a claim to be durable or shared, and without a way to damage, those tests are skipped, with a reason."""

    class Modest(StorageContract):
        def open(self, folder: Path) -> AbstractAsyncContextManager[SessionStorage]:
            return KeptStorage.at(folder)

    class Durable(Modest):
        durable = True

    for test in (
        Modest().test_what_was_saved_is_there_when_opened_again,
        Modest().test_two_who_share_it_lose_nothing,
        Modest().test_a_damaged_session_harms_no_other,
        Durable().test_a_damaged_session_harms_no_other,
    ):
        with pytest.raises(SkipTest):
            test()


def test_open_has_to_be_filled_in() -> None:
    """A subclass without `open` is told what is missing."""
    with pytest.raises(NotImplementedError, match="fill in `open`"):
        StorageContract().test_what_is_not_there_is_none()


def test_hypothesis_is_asked_for_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one test that needs it says what to install; the others run without."""
    monkeypatch.delitem(sys.modules, "wizard_actors.testing.storage_model", raising=False)
    monkeypatch.setitem(sys.modules, "hypothesis", None)

    with pytest.raises(ModuleNotFoundError, match=r"pip install 'wizard-actors\[testing\]'"):
        contract(KeptStorage).test_it_does_what_a_dict_does()

    contract(KeptStorage).test_pages_have_bounds()
