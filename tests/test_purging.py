"""The purge: what has expired goes, a little at a time, and nothing that is in use."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock

from wizard_actors.actor import ActorRef
from wizard_actors.errors import SessionConflictError, StorageError
from wizard_actors.purging import GRACE, Purging, purge_expired
from wizard_actors.session import Lifetime
from wizard_actors.session_record import SessionRecord
from wizard_actors.session_store import Begin, Busy, End, SessionStore, SessionStoreState
from wizard_actors.storage.memory import MemoryStorage
from wizard_actors.storing import Storing
from wizard_actors.supervisor import ChildSpec, GroupSpec, Supervisor

IDLE = Lifetime(idle=100.0)
Ref = ActorRef[SessionStoreState]


class Watched(MemoryStorage):
    """A storage in memory that notes its purges, and may fail at them."""

    def __init__(self) -> None:
        super().__init__()
        self.purges: list[tuple[float, int, float | None, float | None, frozenset[str]]] = []
        self.error: StorageError | None = None
        self.opened = 0

    @asynccontextmanager
    async def opening(self) -> AsyncIterator["Watched"]:
        self.opened += 1
        yield self

    async def purge(
        self,
        *,
        limit: int,
        used_before: float | None = None,
        created_before: float | None = None,
        busy: Collection[str] = (),
    ) -> Sequence[str]:
        self.purges.append((trio.current_time(), limit, used_before, created_before, frozenset(busy)))
        if self.error is not None:
            raise self.error
        return await super().purge(limit=limit, used_before=used_before, created_before=created_before, busy=busy)


@asynccontextmanager
async def store() -> AsyncIterator[tuple[Supervisor, Ref]]:
    """Run one session store."""
    spec = ChildSpec("sessions", lambda ledger, carry: SessionStore(100, ledger, carry))
    async with Supervisor(GroupSpec("wizard", [spec])) as tree:
        yield tree, tree.ref("sessions", SessionStoreState)


@asynccontextmanager
async def purging(backend: Watched, ref: Ref, lifetime: Lifetime, every: float = 60.0) -> AsyncIterator[Storing]:
    """Run a purge of `backend`; the wall clock is Trio's, which begins at 0."""
    storing = Storing(backend.opening, name="backend", timeout=10.0)
    async with storing.running(), trio.open_nursery() as nursery:
        nursery.start_soon(Purging(storing, ref, lifetime, trio.current_time, every=every).run)
        yield storing
        nursery.cancel_scope.cancel()


async def fill(storage: MemoryStorage, count: int, *, at: float = 0.0) -> None:
    """Store so many sessions, used last at that instant."""
    for number in range(count):
        await storage.save(SessionRecord(f"s{number}", created_at=at))


async def test_a_purge_begins_when_the_storage_is_used_and_goes_on_every_minute(autojump_clock: MockClock) -> None:
    """Nothing is opened for it."""
    backend = Watched()
    async with store() as (_, ref), purging(backend, ref, IDLE) as storing:
        await trio.sleep(1000.0)
        assert (backend.opened, backend.purges) == (0, [])

        await storing.load("alice")
        await trio.sleep(150.0)

    assert [purge[0] for purge in backend.purges] == [1000.0, 1060.0, 1120.0]


async def test_what_has_expired_goes_after_ten_minutes_and_not_before(autojump_clock: MockClock) -> None:
    """Another process may have begun a turn just before, and is given the time to end it."""
    assert GRACE == 600.0
    backend = Watched()
    await fill(backend, 3)
    async with store() as (_, ref), purging(backend, ref, IDLE, every=1.0) as storing:
        await storing.load("alice")
        await trio.sleep(700.5)
        assert len(await backend.list()) == 3
        await trio.sleep(1.0)
        assert len(await backend.list()) == 0


async def test_either_limit_removes_and_a_missing_one_does_not(autojump_clock: MockClock) -> None:
    """The cutoffs are the instants before which a session was used last, or created."""
    backend = Watched()
    async with store() as (_, ref):
        for lifetime in (IDLE, Lifetime(age=50.0), Lifetime(idle=100.0, age=50.0)):
            await purge_expired(backend, ref, lifetime, lambda: 1000.0)

    assert [purge[2:4] for purge in backend.purges] == [(300.0, None), (None, 350.0), (300.0, 350.0)]


async def test_sessions_that_never_expire_are_not_looked_for(autojump_clock: MockClock) -> None:
    """The task ends at once."""
    backend = Watched()
    storing = Storing(backend.opening, name="backend", timeout=10.0)
    async with store() as (_, ref), storing.running():
        await storing.load("alice")
        await Purging(storing, ref, Lifetime(), trio.current_time).run()

    assert backend.purges == []


async def test_a_round_is_bounded_and_the_next_one_goes_on(autojump_clock: MockClock) -> None:
    """Ten pages of two hundred; then whoever else needs the storage has a minute."""
    backend = Watched()
    await fill(backend, 2300)
    await trio.sleep(5000.0)
    async with store() as (_, ref), purging(backend, ref, IDLE) as storing:
        await storing.load("alice")
        await trio.sleep(30.0)
        assert [purge[1] for purge in backend.purges] == [200] * 10
        assert len(await backend.list(limit=1000)) == 300

        await trio.sleep(60.0)

    assert len(backend.purges) == 12
    assert await backend.list() == []


async def test_a_session_with_a_turn_in_progress_is_never_removed(autojump_clock: MockClock) -> None:
    """However long it takes; once it has ended the session goes like any other."""
    backend = Watched()
    await fill(backend, 2)
    async with store() as (_, ref), purging(backend, ref, IDLE) as storing:
        lease = await ref.ask(Begin("s1", "r"))
        await storing.load("alice")
        await trio.sleep(10_000.0)
        assert [each.id for each in await backend.list()] == ["s1"]

        ref.give_back(lease, End())
        await trio.sleep(60.0)

    assert await backend.list() == []


async def test_the_clock_is_read_before_the_busy_are_asked_for(autojump_clock: MockClock) -> None:
    """A turn that begins after the answer then judges by a later instant than the purge."""
    backend, order = Watched(), list[str]()

    def wall() -> float:
        order.append("clock")
        return 1000.0

    async with store() as (tree, ref):
        node = next(iter(tree.tree().children))
        assert node.lanes is not None
        handled = node.lanes.handled

        def seen() -> float:
            lanes = next(iter(tree.tree().children)).lanes
            assert lanes is not None
            order.append(f"{lanes.handled - handled} handled")
            return wall()

        await purge_expired(backend, ref, IDLE, seen)

    assert order == ["0 handled", "clock"]


async def test_failures_are_logged_once_for_as_long_as_they_are_the_same(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """And tried again every minute."""
    backend = Watched()
    await fill(backend, 1)
    async with store() as (_, ref), purging(backend, ref, IDLE) as storing:
        backend.error = StorageError("the disk is full")
        await storing.load("alice")
        await trio.sleep(200.0)
        backend.error = StorageError("the disk is gone")
        await trio.sleep(200.0)
        warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
        backend.error = None
        await trio.sleep(800.0)
        assert len(backend.purges) > 15
        assert await backend.list() == []

    assert ["the disk is full" in message for message in warned] == [True, False]
    assert "the disk is gone" in warned[1]


async def test_a_purge_ends_with_its_tree(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Without a word: nothing has failed."""
    backend = Watched()
    storing = Storing(backend.opening, name="backend", timeout=10.0)
    async with storing.running(), trio.open_nursery() as nursery, store() as (_, ref):
        nursery.start_soon(Purging(storing, ref, IDLE, trio.current_time).run)
        await storing.load("alice")
        await trio.sleep(1.0)

    assert trio.current_time() < 120.0
    assert caplog.messages == []


# -- races


class Slow(MemoryStorage):
    """A storage in memory that takes its time before it removes anything."""

    def __init__(self, pause: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self.pause = pause

    async def purge(
        self,
        *,
        limit: int,
        used_before: float | None = None,
        created_before: float | None = None,
        busy: Collection[str] = (),
    ) -> Sequence[str]:
        await self.pause()
        return await super().purge(limit=limit, used_before=used_before, created_before=created_before, busy=busy)


@define(eq=False)
class Race:
    """Turns of sessions that are about to expire, and purges without any grace, in every order."""

    rng: Random
    storage: MemoryStorage = field(init=False)
    lost: list[str] = field(factory=list)
    removed: int = 0
    stored: int = 0

    async def run(self) -> None:
        self.storage = Slow(self.pause)
        async with store() as (_, ref):
            await trio.sleep(1000.0)
            async with trio.open_nursery() as nursery:
                for _ in range(6):
                    nursery.start_soon(self.user, ref)
                for _ in range(2):
                    nursery.start_soon(self.purger, ref)

    async def user(self, ref: Ref) -> None:
        for _ in range(4):
            await self.pause()
            name = self.rng.choice("abcd")
            lease = await ref.ask(Begin(name, "r"))
            try:
                await self.turn(name)
            finally:
                ref.give_back(lease, End())

    async def turn(self, name: str) -> None:
        """Load a session, and where it is alive, or not there, store it again, later."""
        record, now = await self.storage.load(name), trio.current_time()
        if record is not None and IDLE.over(record, now):
            return
        await self.pause()
        # It expires about now, so that turns and purges meet.
        used_at = now - self.rng.choice([99.9, 98.0, 95.0])
        version = 1 if record is None else record.version + 1
        try:
            await self.storage.save(SessionRecord(name, created_at=0.0, version=version, used_at=used_at))
        except SessionConflictError:
            self.lost.append(name)
        else:
            self.stored += 1

    async def purger(self, ref: Ref) -> None:
        for _ in range(12):
            await self.pause()
            self.removed += len(await purge(self.storage, ref))

    async def pause(self) -> None:
        if self.rng.random() < 0.7:
            for _ in range(self.rng.randint(1, 5)):
                await trio.lowlevel.checkpoint()
        else:
            await trio.sleep(self.rng.choice([0.05, 1.0, 5.0]))


async def purge(storage: MemoryStorage, ref: Ref) -> tuple[str, ...]:
    """Purge without any grace: nothing but the order keeps a turn's session alive."""
    return await purge_expired(storage, ref, IDLE, trio.current_time, grace=0.0)


def race(seeds: int) -> tuple[int, int, list[str]]:
    """Run many seeds; return how often sessions were stored and removed, and which were lost in a turn."""
    run = trio._core._run  # Trio has no public way to seed its scheduling
    stored, removed, lost = 0, 0, list[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
        for seed in range(seeds):
            run._r.seed(seed)
            world = Race(Random(seed))
            trio.run(world.run, clock=MockClock(autojump_threshold=0))
            stored, removed, lost = stored + world.stored, removed + world.removed, lost + world.lost
    return stored, removed, lost


def test_no_turn_loses_its_session_to_a_purge(pytestconfig: pytest.Config) -> None:
    """Whichever comes first, and without any grace."""
    seeds = pytestconfig.getoption("seeds")

    stored, removed, lost = race(seeds)

    assert lost == []
    assert stored > seeds
    assert removed > seeds


def test_a_purge_that_asks_for_nobody_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A race that nothing loses proves nothing."""

    async def blind(storage: MemoryStorage, ref: Ref) -> tuple[str, ...]:
        cutoff = trio.current_time() - 100.0
        return tuple(await storage.purge(limit=200, used_before=cutoff))

    monkeypatch.setattr("tests.test_purging.purge", blind)

    assert race(100)[2] != []


def test_a_purge_that_reads_the_clock_last_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that begins in between would judge by an earlier instant."""

    async def late(storage: MemoryStorage, ref: Ref) -> tuple[str, ...]:
        busy = await ref.ask(Busy())
        await trio.sleep(3.0)
        return tuple(await storage.purge(limit=200, used_before=trio.current_time() - 100.0, busy=busy))

    monkeypatch.setattr("tests.test_purging.purge", late)

    assert race(100)[2] != []
