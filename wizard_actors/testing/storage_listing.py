"""The promises of a storage about many sessions: lists in pages, and the removal of old ones."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, Final

import trio
from attrs import evolve

from wizard_actors.errors import SessionConflictError, StorageError
from wizard_actors.session_record import SessionRecord, SessionState, SessionSummary
from wizard_actors.storage.base import MAX_PAGE, SessionStorage, newest_first
from wizard_actors.testing.storage_bench import NOON, StorageBench, born, keeps, later, raises
from wizard_actors.testing.storage_saving import ALIKE, HOSTILE, UNHEARD_OF

__all__ = ["ListingPromises"]

PAGES_AT_MOST: Final = 100


PREFIXES: Final = (
    *(
        "a",
        "A",
        "a%",
        "a_",
        "_",
        "%",
        "*",
        "a*",
        "?",
        "[a",
        "[a]",
        "{",
        "'",
        "\\",
        "\\U",
        "..",
        "../",
        " ",
        "0",
        "\u202e",
    ),
    *("e", "\u00e9", "e\u0301", "s", "\u00df", "\uff41", "\U0001f9d9", "\U0001f9d9\u200d", "\U0001f9da", "x" * 199),
)
"""Beginnings that some pattern, collation or encoding takes for others."""


async def _pages(storage: SessionStorage, limit: int, prefix: str = "") -> Sequence[SessionSummary]:
    """Return all pages, joined."""
    found: list[SessionSummary] = []
    for _ in range(PAGES_AT_MOST):
        page = await storage.list(limit=limit, after=found[-1] if found else None, prefix=prefix)
        keeps(len(page) <= limit, f"a page of at most {limit} sessions has {len(page)}")
        found += page
        if len(page) < limit:
            return found
    raise AssertionError(f"after {PAGES_AT_MOST} pages there is still another one: does `list` heed `after`?")


async def _fill(storage: SessionStorage, count: int, seed: int) -> list[SessionRecord]:
    """Save sessions at random times, some at the same."""
    random = Random(seed)
    records = [born(f"s{index}", NOON + random.randrange(count // 2)) for index in range(count)]
    for record in records:
        await storage.save(record)
    return records


class ListingPromises(StorageBench):
    """What is promised of many sessions."""

    # -- lists

    def test_the_newest_come_first(self) -> None:
        """A list goes by `used_at`, and by the code points of the names where that is the same."""
        names = [*ALIKE, "Z", "z", "_", "\uffee", "\U0001f9d9"]

        async def scenario(storage: SessionStorage) -> None:
            records = [born(name, NOON, used_at=NOON + index % 3) for index, name in enumerate(names)]
            for record in records:
                await storage.save(record)
            wanted = sorted((record.summary for record in records), key=newest_first)
            found = list(await storage.list(limit=100))
            keeps(
                found == wanted,
                f"the order has to be that of `newest_first`: {[each.id for each in wanted]}, and not "
                f"{[each.id for each in found]}",
            )

        self.in_storage(scenario)

    def test_a_list_shows_the_stored_version(self) -> None:
        """Version, state, times and the number of turns are those of the last save; a session is listed once."""

        async def scenario(storage: SessionStorage) -> None:
            record = born("alice")
            for _ in range(3):
                await storage.save(record)
                found = list(await storage.list())
                keeps(found == [record.summary], f"saved was {record.summary}, listed {found}")
                record = later(record, at=record.used_at + 1 / 3)
            touched = evolve(record, used_at=NOON - 60)
            await storage.save(touched)
            keeps(
                list(await storage.list()) == [touched.summary], "a list does not show when the session was used last"
            )

        self.in_storage(scenario)

    def test_sessions_of_every_state_are_listed_and_removed(self) -> None:
        """Created, active, closed or expired: a storage keeps them all, and does not judge."""

        async def scenario(storage: SessionStorage) -> None:
            records = [evolve(born(state.value, NOON + at), state=state) for at, state in enumerate(SessionState)]
            for record in records:
                await storage.save(record)
                keeps(await storage.load(record.id) == record, f"a session that is {record.state} was not loaded")
            found = list(await storage.list())
            wanted = [record.summary for record in reversed(records)]
            keeps(found == wanted, f"a list has sessions of every state: {wanted}, and not {found}")
            removed = await storage.purge(limit=10, used_before=NOON + 60)
            keeps(
                sorted(removed) == sorted(SessionState),
                f"old sessions are removed whatever their state; of the four states removed were {sorted(removed)}",
            )

        self.in_storage(scenario)

    def test_pages_join_to_the_whole(self) -> None:
        """Page after page gives every session once, whatever the size of a page."""

        async def scenario(storage: SessionStorage) -> None:
            keeps(list(await storage.list()) == [], "a new storage lists sessions")
            records = await _fill(storage, 23, seed=1)
            wanted = sorted((record.summary for record in records), key=newest_first)
            for limit in (1, 4, 23, MAX_PAGE):
                found = await _pages(storage, limit)
                keeps(
                    list(found) == wanted,
                    f"pages of {limit} join to {[each.id for each in found]} instead of {[each.id for each in wanted]}",
                )

        self.in_storage(scenario)

    def test_pages_hold_under_change(self) -> None:
        """While sessions are used, deleted and made, one that nobody touches is on exactly one page, none on two."""

        async def scenario(storage: SessionStorage) -> None:
            records = {record.id: record for record in await _fill(storage, 30, seed=2)}
            touched: set[str] = set()
            seen: list[SessionSummary] = []
            while len(page := await storage.list(limit=4, after=seen[-1] if seen else None)):
                seen += page
                keeps(len(seen) <= len(records) * 2, "the pages do not end: does `list` heed `after`?")
                for number, name in enumerate((seen[-1].id, seen[len(touched) % len(seen)].id, f"s{len(seen)}")):
                    if name in touched:
                        continue
                    touched.add(name)
                    if number == 1:
                        await storage.save(later(records[name], at=NOON + 3600 + len(seen)))
                    else:
                        await storage.delete(name)
                await storage.save(born(f"new {len(seen)}", NOON + 3600))
            found = [summary.id for summary in seen]
            keeps(len(set(found)) == len(found), f"a session stands on two pages: {found}")
            missing = sorted(set(records) - touched - set(found))
            keeps(
                not missing,
                f"{missing} stand on no page, though nobody touched them: a page begins after the time and the name of "
                "the last one, not after a number of sessions, and that one may be gone",
            )

        self.in_storage(scenario)

    def test_pages_have_bounds(self) -> None:
        """A limit that is no whole number of 1 to 1,000 is a ValueError, for lists and for the removal of old ones."""
        limits: list[Any] = [0, -1, MAX_PAGE + 1, 2.5, True, "5"]

        async def scenario(storage: SessionStorage) -> None:
            for limit in limits:
                told = f"a limit of {limit!r} has to be a ValueError: call `check_limit`"
                await raises(ValueError, storage.list(limit=limit), told)
                await raises(ValueError, storage.purge(limit=limit, used_before=NOON), told)

        self.in_storage(scenario)

    def test_a_prefix_is_taken_as_it_is(self) -> None:
        """A list of a prefix has the sessions that begin with just that, whatever a query or a pattern makes of it."""
        names = sorted({*ALIKE, *HOSTILE, "user:1", "user:10", "USER:1", "a%b", "aXb", "a*b", "\U0001f9da", "\uff5e"})

        async def scenario(storage: SessionStorage) -> None:
            for name in names:
                await storage.save(born(name))
            for prefix in (*PREFIXES, *names, "user:", "user:1", "nobody", "user:1" * 100):
                found = [each.id for each in await storage.list(limit=100, prefix=prefix)]
                wanted = [name for name in names if name.startswith(prefix)]
                keeps(
                    found == wanted,
                    f"sessions that begin with {prefix!r} are {wanted}, listed were {found}: compare code points, with "
                    "no pattern, case or normal form",
                )
            for prefix in UNHEARD_OF[1:]:
                try:
                    found = [each.id for each in await storage.list(prefix=prefix)]
                except StorageError:
                    continue
                keeps(found == [], f"no session begins with {prefix[:20]!r}, listed were {found}")

        self.in_storage(scenario)

    def test_a_prefix_has_pages_too(self) -> None:
        """The limit counts the sessions of the prefix alone, and `after` may be any session at all."""

        async def scenario(storage: SessionStorage) -> None:
            records = [*await _fill(storage, 12, seed=4), *(born(f"t{index}", NOON + index % 5) for index in range(12))]
            for record in records[12:]:
                await storage.save(record)
            whole = sorted((record.summary for record in records), key=newest_first)
            wanted = [each for each in whole if each.id.startswith("t")]
            for limit in (1, 5, 12, MAX_PAGE):
                found = await _pages(storage, limit, "t")
                keeps(
                    list(found) == wanted,
                    f"pages of {limit} join to {[each.id for each in found]} instead of "
                    f"{[each.id for each in wanted]}: look at the prefix before the limit",
                )
            for after in whole[::3]:
                rest = [each for each in whole[whole.index(after) + 1 :] if each.id.startswith("t1")]
                found = await storage.list(after=after, prefix="t1")
                keeps(
                    list(found) == rest,
                    f"after {after.id}, sessions of `t1` are {[each.id for each in rest]}, and not "
                    f"{[each.id for each in found]}",
                )

        self.in_storage(scenario)

    def test_a_prefix_is_a_text(self) -> None:
        """None, bytes or a number as a prefix is a TypeError, and not a list of everything or of nothing."""
        mistakes: list[Any] = [None, b"a", 1, ["a"]]

        async def scenario(storage: SessionStorage) -> None:
            for prefix in mistakes:
                told = f"a prefix of {prefix!r} has to be a TypeError: call `check_prefix`"
                await raises(TypeError, storage.list(prefix=prefix), told)

        self.in_storage(scenario)

    # -- the removal of old ones

    def test_old_sessions_are_removed(self) -> None:
        """Those used before the one instant, or created before the other, go; those used just then stay."""

        async def scenario(storage: SessionStorage) -> None:
            for name, created, used in (("old", 0, 9), ("idle", 5, 5), ("edge", 5, 7), ("new", 9, 9)):
                await storage.save(born(name, NOON + created, used_at=NOON + used))
            removed = await storage.purge(limit=10)
            keeps(list(removed) == [], f"without an instant nothing is to be removed, but {removed} were")
            removed = await storage.purge(limit=10, used_before=NOON + 7)
            keeps(list(removed) == ["idle"], f"`idle` alone was last used before the instant; removed were {removed}")
            removed = await storage.purge(limit=10, created_before=NOON + 5)
            keeps(list(removed) == ["old"], f"`old` alone was created before the instant; removed were {removed}")
            left = [summary.id for summary in await storage.list()]
            keeps(left == ["new", "edge"], f"left should be `new` and `edge`, and are {left}")
            keeps(await storage.load("idle") is None, "a session that was removed can still be loaded")
            removed = await storage.purge(limit=10, used_before=NOON + 8, created_before=NOON + 10)
            keeps(sorted(removed) == ["edge", "new"], f"either instant is reason enough; removed were {removed}")
            await raises(
                SessionConflictError,
                storage.save(later(born("edge", NOON + 5))),
                "the next version of a session that was removed has to be a conflict",
            )
            await storage.save(born("early", -9.0))
            removed = await storage.purge(limit=10)
            keeps(list(removed) == [], f"without an instant nothing is to be removed, but {removed} were")
            removed = await storage.purge(limit=10, used_before=0, created_before=-99)
            keeps(list(removed) == ["early"], f"0 is an instant like others: `early` was used before; not {removed}")

        self.in_storage(scenario)

    def test_few_are_removed_at_a_time(self) -> None:
        """At most `limit` go, those unused for longest first; the next call goes on."""

        async def scenario(storage: SessionStorage) -> None:
            ages = [5, 1, 8, 3, 2, 9, 4, 7, 0, 6]
            for age in ages:
                await storage.save(born(f"s{age}", NOON, used_at=NOON + age))
            for wanted in ({"s0", "s1", "s2", "s3"}, {"s4", "s5", "s6", "s7"}, {"s8"}, set()):
                removed = await storage.purge(limit=4, used_before=NOON + 9, created_before=None)
                keeps(
                    len(removed) == len(wanted) and set(removed) == wanted,
                    f"the at most 4 that were unused for longest are {sorted(wanted)}; removed were {sorted(removed)}",
                )
            left = [summary.id for summary in await storage.list()]
            keeps(left == ["s9"], f"left should be s9, and are {left}")

        self.in_storage(scenario)

    def test_busy_sessions_are_never_removed(self) -> None:
        """A session that is busy stays, however old, and does not stand in the way of others."""

        async def scenario(storage: SessionStorage) -> None:
            for age in range(8):
                await storage.save(born(f"s{age}", NOON, used_at=NOON + age))
            busy = ["s0", "s1", "s2", "s3", "unheard of"]
            removed = await storage.purge(limit=3, used_before=NOON + 100, busy=busy)
            spoiled = sorted({*busy} & {*removed})
            keeps(not spoiled, f"{spoiled} were removed though busy")
            keeps(
                sorted(removed) == ["s4", "s5", "s6"],
                f"the busy ones must not count towards the limit: removed should be s4, s5, s6, and are {removed}; "
                "leave them out before the limit is applied",
            )
            for age in range(4):
                keeps(await storage.load(f"s{age}") is not None, f"s{age} was removed though busy")
            await raises(
                TypeError,
                storage.purge(limit=3, used_before=NOON + 100, busy="s1"),
                "a text as `busy` has to be a TypeError, for its letters are not the ids: call `check_busy`",
            )
            for kind in (tuple, frozenset, dict.fromkeys):
                removed = await storage.purge(limit=10, used_before=NOON + 2, busy=kind(busy))
                keeps(list(removed) == [], f"`busy` may be any collection of ids; {removed} were removed though busy")

        self.in_storage(scenario)

    def test_a_session_saved_meanwhile_is_not_removed(self) -> None:
        """Sessions that are used while old ones are removed: whoever was told that it is saved finds it again."""

        async def scenario(storage: SessionStorage) -> None:
            for round_ in range(15):
                records = [born(f"{round_}-{index}", NOON + index) for index in range(12)]
                for record in records:
                    await storage.save(record)
                saved: dict[str, SessionRecord] = {}
                async with trio.open_nursery() as nursery:
                    for record in records:
                        nursery.start_soon(_use, storage, record, saved)
                    for _ in range(4):
                        nursery.start_soon(_purge, storage, NOON + 100)
                for record in saved.values():
                    keeps(
                        await storage.load(record.id) == record,
                        f"session {record.id} was saved with a time that keeps it, and then removed for its old one: "
                        "look at it and remove it in one step",
                    )

        self.in_storage(scenario)


async def _use(storage: SessionStorage, record: SessionRecord, saved: dict[str, SessionRecord]) -> None:
    used = later(record, at=NOON + 3600)
    try:
        await storage.save(used)
    except SessionConflictError:
        return  # it was removed before
    saved[used.id] = used


async def _purge(storage: SessionStorage, before: float) -> None:
    await storage.purge(limit=6, used_before=before)
