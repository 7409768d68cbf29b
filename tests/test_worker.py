"""The worker of one model: its bulkhead, who waits for a slot, and what it has seen of the model."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.models import model
from wizard_actors import MailboxFullError
from wizard_actors.actor import ActorRef
from wizard_actors.slots import Health, Slot, WorkerState
from wizard_actors.supervisor import ChildSpec, GroupSpec, Supervisor
from wizard_actors.verdict import Outcome
from wizard_actors.worker import FirstToken, ModelWorker, Release, TakeSlot

Ref = ActorRef[WorkerState]


@asynccontextmanager
async def worker_of(slots: int = 1, room: int = 100) -> AsyncIterator[tuple[Supervisor, Ref]]:
    """Run one worker."""
    config = model("a", slots=slots)
    spec = ChildSpec("worker", lambda ledger, carry: ModelWorker(config, room, ledger, carry), mailbox=2)
    async with Supervisor(GroupSpec("wizard", [spec])) as tree:
        yield tree, tree.ref("worker", WorkerState)


async def state(ref: Ref) -> WorkerState:
    """Return what the worker publishes once all is quiet."""
    await wait_all_tasks_blocked()
    published = ref.published
    assert published is not None
    return published


class Takers:
    """Tasks that take slots, and what became of each, by its name."""

    def __init__(self, ref: Ref, nursery: trio.Nursery) -> None:
        self.ref = ref
        self.nursery = nursery
        self.got: dict[str, Slot] = {}
        self.refused: dict[str, float] = {}
        self.scopes: dict[str, trio.CancelScope] = {}

    async def take(self, *names: str, give_up_at: float = 1000.0) -> None:
        """Have each of `names` take a slot, in that order."""
        for name in names:
            self.nursery.start_soon(self._take, name, give_up_at)
            await wait_all_tasks_blocked()

    async def _take(self, name: str, give_up_at: float) -> None:
        with trio.CancelScope() as self.scopes[name]:
            try:
                self.got[name] = await self.ref.ask(TakeSlot(name, give_up_at))
            except MailboxFullError:
                self.refused[name] = trio.current_time()


async def test_slots_go_out_in_order_of_arrival(autojump_clock: MockClock) -> None:
    """As many as there are; whoever comes later waits, and nobody overtakes."""
    async with worker_of(slots=2) as (_, ref), trio.open_nursery() as nursery:
        takers = Takers(ref, nursery)
        await takers.take("one", "two", "three", "four")
        assert list(takers.got) == ["one", "two"]
        assert evolve(await state(ref), health=Health()) == WorkerState(slots=2, in_use=2, waiting=2, granted=2)

        ref.give_back(takers.got["two"], Release())
        await wait_all_tasks_blocked()

        assert list(takers.got) == ["one", "two", "three"]
        for name in ("one", "three"):
            ref.give_back(takers.got[name], Release())
        await wait_all_tasks_blocked()
        assert list(takers.got) == ["one", "two", "three", "four"]
        ref.give_back(takers.got["four"], Release())


async def test_who_has_waited_too_long_is_turned_away_in_that_instant(autojump_clock: MockClock) -> None:
    """Each at its own time, and told which model is full."""
    async with worker_of() as (_, ref), trio.open_nursery() as nursery:
        takers = Takers(ref, nursery)
        await takers.take("one")
        await takers.take("patient", give_up_at=5.0)
        await takers.take("hasty", give_up_at=2.0)

        await trio.sleep(10.0)

        assert takers.refused == {"hasty": 2.0, "patient": 5.0}
        assert (await state(ref)).rejected == 2
        with pytest.raises(MailboxFullError, match="a is full") as caught:
            await ref.ask(TakeSlot("late", give_up_at=trio.current_time()))
        assert caught.value.actor == "a"
        ref.give_back(takers.got["one"], Release())


async def test_a_free_slot_is_never_too_late(autojump_clock: MockClock) -> None:
    """Whoever would not wait at all still gets what is there."""
    async with worker_of() as (_, ref):
        await trio.sleep(5.0)

        slot = await ref.ask(TakeSlot("now", give_up_at=4.9))

        assert slot.since == 5.0
        ref.give_back(slot, Release())


async def test_a_waiter_that_leaves_costs_no_slot(autojump_clock: MockClock) -> None:
    """Neither one that left before, nor one that leaves in the step in which its slot comes free."""
    async with worker_of() as (tree, ref), trio.open_nursery() as nursery:
        for _ in range(20):
            takers = Takers(ref, nursery)
            await takers.take("one", "before", "meanwhile", "next")
            takers.scopes["before"].cancel()
            await wait_all_tasks_blocked()
            takers.scopes["meanwhile"].cancel()
            ref.give_back(takers.got["one"], Release())
            await wait_all_tasks_blocked()

            assert list(takers.got) == ["one", "next"]
            ref.give_back(takers.got["next"], Release())
            assert (await state(ref)).in_use == 0
        assert tree.outstanding == {}


async def test_a_full_waiting_room_lets_the_lane_fill(autojump_clock: MockClock) -> None:
    """That is the backpressure: asks wait for room, and are served in the end."""
    async with worker_of(room=1) as (tree, ref), trio.open_nursery() as nursery:
        takers = Takers(ref, nursery)
        names = [str(number) for number in range(6)]
        await takers.take(*names)
        [lanes] = [node.lanes for node in tree.tree().children]
        assert lanes is not None
        assert (lanes.kept, lanes.asks, lanes.senders_waiting) == (1, 2, 2)

        for name in names:
            await wait_all_tasks_blocked()
            ref.give_back(takers.got[name], Release())

        assert takers.refused == {}


async def test_the_worker_knows_how_its_model_fares(autojump_clock: MockClock) -> None:
    """First tokens and ends, with their times; what was never sent says nothing of the model."""
    async with worker_of(slots=9) as (_, ref):
        for after, outcome in ((1.0, Outcome.SUCCESS), (3.0, Outcome.FAILURE), (2.0, Outcome.IGNORED)):
            slot = await ref.ask(TakeSlot("x"))
            await trio.sleep(after)
            ref.notify(slot, FirstToken(after))
            ref.give_back(slot, Release(outcome))
        ref.give_back(await ref.ask(TakeSlot("x")), Release(None))

        health = (await state(ref)).health
        assert (health.succeeded, health.failed, health.ignored) == (1, 1, 1)
        assert (health.success_at, health.failure_at, health.first_token_at) == (1.0, 4.0, 6.0)
        assert health.first_tokens == (1.0, 3.0, 2.0)
        assert health.slowest_first_token == 3.0


async def test_after_a_crash_the_live_slots_are_adopted(autojump_clock: MockClock) -> None:
    """Calls in flight keep theirs, nobody gets one too many, and what was learned is kept."""
    async with worker_of(slots=2) as (tree, ref), trio.open_nursery() as nursery:
        takers = Takers(ref, nursery)
        await takers.take("one", "two")
        ref.notify(takers.got["one"], FirstToken(0.5))
        await wait_all_tasks_blocked()

        tree.kill("worker", RuntimeError("planted"))
        await wait_all_tasks_blocked()

        assert (await state(ref)).in_use == 2
        assert (await state(ref)).health.first_tokens == (0.5,)
        await takers.take("three")
        assert "three" not in takers.got
        ref.give_back(takers.got["one"], Release())
        await wait_all_tasks_blocked()
        assert "three" in takers.got
        for name in ("two", "three"):
            ref.give_back(takers.got[name], Release())
        assert (await state(ref)).in_use == 0
