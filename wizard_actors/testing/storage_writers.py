"""The promises of a storage to many writers, and to those who are cancelled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from typing import Final

import trio
from attrs import define, field

from wizard_actors.errors import SessionConflictError
from wizard_actors.session_record import SessionRecord
from wizard_actors.storage.base import SessionStorage
from wizard_actors.testing.storage_bench import StorageBench, born, interrupted, keeps, later, spoken

__all__ = ["WriterPromises"]

ONE_OF_TWO: Final = "it has to be the old version or the new one, whole"


@define
class _Told:
    """What the writers of one session tried, and which of their turns they were told are saved."""

    tried: list[SessionRecord] = field(factory=list)
    saved: set[str] = field(factory=set)

    def check(self, stored: SessionRecord | None, saved: frozenset[str] | None = None) -> SessionRecord:
        """Return what is stored, if that is sound: it has every turn of `saved`, None: of all that are saved now."""
        if stored is None:
            raise AssertionError(f"the session is gone; {ONE_OF_TWO}")
        keeps(stored in self.tried, f"something is stored that nobody saved; {ONE_OF_TWO}: {stored}")
        lost = (self.saved if saved is None else saved) - set(spoken(stored))
        keeps(
            not lost,
            f"the turns {sorted(lost)} are lost, though their saves had returned: another save went over them; the "
            "comparison of versions and the write have to be one step",
        )
        return stored


async def _talk(storage: SessionStorage, told: _Told, name: str, turns: int, random: Random) -> None:
    """Add turns to the session as a program does that is often cancelled."""
    for number in range(turns):
        saved = frozenset(told.saved)  # what is saved while it loads may be missing
        stored = told.check(await storage.load("alice"), saved)
        text = f"{name}, turn {number}"
        record = later(stored, text)
        told.tried.append(record)
        if await interrupted(partial(storage.save, record), random):
            told.saved.add(text)


class WriterPromises(StorageBench):
    """What is promised to many writers."""

    def test_of_many_writers_one_wins_each_version(self) -> None:
        """Of eight tasks that save the same version at once, one is told that it is saved, and its record is stored."""

        async def save(storage: SessionStorage, record: SessionRecord, winners: list[SessionRecord]) -> None:
            try:
                await storage.save(record)
            except SessionConflictError:
                return
            winners.append(record)

        async def scenario(storage: SessionStorage) -> None:
            stored = born("alice")
            await storage.save(stored)
            for round_ in range(8):
                winners: list[SessionRecord] = []
                async with trio.open_nursery() as nursery:
                    for writer in range(8):
                        nursery.start_soon(save, storage, later(stored, f"{writer} in {round_}"), winners)
                keeps(
                    len(winners) == 1,
                    f"of eight writers of version {stored.version + 1}, {len(winners)} were told that they saved it; "
                    "it has to be one: compare and write in one step",
                )
                stored = winners[0]
                keeps(await storage.load("alice") == stored, "stored is not what the one winner saved")

        self.in_storage(scenario)

    def test_of_many_creators_one_wins(self) -> None:
        """Of eight tasks that create a session of one name at once, one succeeds, and its session is stored."""

        async def save(storage: SessionStorage, record: SessionRecord, winners: list[SessionRecord]) -> None:
            try:
                await storage.save(record)
            except SessionConflictError:
                return
            winners.append(record)

        async def scenario(storage: SessionStorage) -> None:
            for round_ in range(5):
                winners: list[SessionRecord] = []
                async with trio.open_nursery() as nursery:
                    for writer in range(8):
                        nursery.start_soon(save, storage, born(f"{round_}", 1000.0 + writer), winners)
                keeps(len(winners) == 1, f"of eight creators of one session {len(winners)} were told that it is theirs")
                keeps(await storage.load(f"{round_}") == winners[0], "stored is not what the one winner saved")

        self.in_storage(scenario)

    def test_many_sessions_at_once_do_not_mix(self) -> None:
        """Fifty sessions grow at the same time, and each has its own turns, all of them."""

        async def grow(storage: SessionStorage, name: str) -> None:
            record = born(name)
            await storage.save(record)
            for number in range(4):
                record = later(record, f"{name}, turn {number}")
                await storage.save(record)

        async def scenario(storage: SessionStorage) -> None:
            async with trio.open_nursery() as nursery:
                for index in range(50):
                    nursery.start_soon(grow, storage, f"s{index}")
            for index in range(50):
                loaded = await storage.load(f"s{index}")
                wanted = [f"s{index}, turn {number}" for number in range(4)]
                keeps(
                    loaded is not None and spoken(loaded) == wanted,
                    f"session s{index} should have the turns {wanted}, and is {loaded}",
                )

        self.in_storage(scenario)

    # -- cancellation

    def test_a_cancelled_save_leaves_old_or_new(self) -> None:
        """A save that is cancelled at a random moment leaves one of the two versions, whole, and loses no other."""

        async def scenario(storage: SessionStorage) -> None:
            told = _Told([born("alice")])
            await storage.save(born("alice"))
            await _talk(storage, told, "ann", 60, Random(1))
            told.check(await storage.load("alice"))

        self.in_storage(scenario)

    def test_cancelled_writers_lose_no_turn_of_others(self) -> None:
        """Five writers of one session, often cancelled: every turn that somebody was told is saved is there."""

        async def scenario(storage: SessionStorage) -> None:
            told = _Told([born("alice")])
            await storage.save(born("alice"))
            async with trio.open_nursery() as nursery:
                for writer in range(5):
                    nursery.start_soon(_talk, storage, told, f"writer {writer}", 15, Random(writer))
            told.check(await storage.load("alice"))

        self.in_storage(scenario)

    def test_a_cancelled_save_is_seen_the_same_in_lists(self) -> None:
        """After a save that was cancelled, the list shows the version that is loaded, and shows it once."""

        async def scenario(storage: SessionStorage) -> None:
            random = Random(3)
            for index in range(80):
                record = born(f"s{index}")
                await storage.save(record)
                await interrupted(partial(storage.save, later(record)), random)
            stored = [await storage.load(f"s{index}") for index in range(80)]
            wanted = {record.summary for record in stored if record is not None}
            found = await storage.list(limit=100)
            keeps(
                len(found) == 80 and set(found) == wanted,
                "after saves that were cancelled, the list and what is loaded differ: write both in one step",
            )

        self.in_storage(scenario)

    def test_a_cancelled_delete_leaves_all_or_nothing(self) -> None:
        """A delete that is cancelled at a random moment leaves the session whole, or nothing of it."""

        async def scenario(storage: SessionStorage) -> None:
            random = Random(4)
            for index in range(80):
                name = f"s{index}"
                await storage.save(born(name))
                done = await interrupted(partial(storage.delete, name), random)
                loaded = await storage.load(name)
                keeps(
                    loaded is None or (loaded == born(name) and not done),
                    f"after a delete that was {'done' if done else 'cancelled'}, session {name} is {loaded}",
                )
                listed = name in {summary.id for summary in await storage.list(limit=100)}
                keeps(
                    listed is (loaded is not None),
                    f"after a delete that was cancelled, session {name} is "
                    + ("listed and cannot be loaded" if listed else "not listed, and can be loaded"),
                )

        self.in_storage(scenario)

    def test_a_call_in_a_cancelled_scope_is_not_begun(self) -> None:
        """Each method is a checkpoint before it does anything, so that deadlines hold and nothing is written late."""

        async def scenario(storage: SessionStorage) -> None:
            await storage.save(born("alice"))
            calls: dict[str, Callable[[], Awaitable[object]]] = {
                "load": partial(storage.load, "alice"),
                "save": partial(storage.save, later(born("alice"))),
                "delete": partial(storage.delete, "alice"),
                "list": storage.list,
                "purge": partial(storage.purge, limit=5, used_before=1e12),
            }
            for name, call in calls.items():
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await call()
                keeps(
                    scope.cancelled_caught,
                    f"`{name}` was called in a cancelled scope and did its work: begin with "
                    "`await trio.lowlevel.checkpoint()`, and never catch Cancelled",
                )
                keeps(await storage.load("alice") == born("alice"), f"a cancelled `{name}` changed what is stored")

        self.in_storage(scenario)
