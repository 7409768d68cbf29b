"""Grants: who holds them, how they come back, and what the ledger knows of them."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from attrs import frozen

from tests.kernel_actors import (
    BoomError,
    Do,
    Garage,
    Lease,
    Mileage,
    Rent,
    Unforeseen,
    Vacate,
    collect,
    crash,
    garage,
    lanes_of,
    quiet,
    tree,
)
from wizard_actors.actor import Actor, Ask, Ledger, Notice, Reply, Return, handles
from wizard_actors.errors import ActorCrashedError, DeadlineExceededError
from wizard_actors.specs import ChildSpec
from wizard_actors.supervisor import Supervisor

Clock = trio.testing.MockClock


def grants(supervisor: Supervisor) -> int:
    """Return how many live grants the ledger of the only child holds."""
    lanes = supervisor.tree().children[0].lanes
    assert lanes is not None
    return lanes.grants


# -- delivered, or undone


async def test_a_grant_lives_until_it_is_given_back(autojump_clock: Clock) -> None:
    """It stands in the ledger from its delivery to its end."""
    made: list[Garage] = []
    async with tree(ChildSpec("a", garage(made))) as supervisor:
        ref = supervisor.ref("a", int)
        lease = await ref.ask(Rent())
        assert grants(supervisor) == 1
        ref.give_back(lease, Vacate("home"))
        await quiet()
        assert grants(supervisor) == 0
        assert made[0].seen == [(lease, "vacate home")]


async def test_a_grant_to_a_caller_cancelled_in_the_same_batch_is_undone(autojump_clock: Clock) -> None:
    """`grant` says that nobody got it, it never enters the ledger, and the next in line is served."""
    made: list[Garage] = []
    answers: list[object] = []
    scope = trio.CancelScope()
    async with tree(ChildSpec("a", garage(made))) as supervisor:
        ref = supervisor.ref("a", int)
        first = await ref.ask(Rent())

        async def leaver() -> None:
            with scope:
                await collect(answers, ref, Rent())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leaver)
            await quiet()
            nursery.start_soon(collect, answers, ref, Rent())
            await quiet()
            made[0].before_grant = scope.cancel
            ref.give_back(first, Vacate())
        assert len(made[0].undone) == 1
        assert answers == [Lease(made[0].undone[0].number + 1)]
        assert scope.cancelled_caught
        assert grants(supervisor) == 1
        ref.give_back(Lease(made[0].undone[0].number + 1), Vacate())


async def test_a_delivered_grant_reaches_a_caller_that_is_cancelled_meanwhile(autojump_clock: Clock) -> None:
    """Either the answer arrives or the cancellation: here the answer did, once, and the ledger knows it."""
    made: list[Garage] = []
    answers: list[object] = []
    scope = trio.CancelScope()
    async with tree(ChildSpec("a", garage(made))) as supervisor:
        ref = supervisor.ref("a", int)
        first = await ref.ask(Rent())

        async def leaver() -> None:
            with scope:
                await collect(answers, ref, Rent())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leaver)
            await quiet()
            made[0].after_grant = scope.cancel
            ref.give_back(first, Vacate())
        (lease,) = answers
        assert isinstance(lease, Lease)
        assert made[0].undone == []
        assert grants(supervisor) == 1
        ref.give_back(lease, Vacate())


async def test_a_grant_delivered_at_the_deadline_is_returned_and_not_late_too(autojump_clock: Clock) -> None:
    """A deadline that passes between the delivery and the caller's next step does not turn it into an error."""
    made: list[Garage] = []
    async with tree(ChildSpec("a", garage(made))) as supervisor:
        ref = supervisor.ref("a", int)
        made[0].after_grant = lambda: autojump_clock.jump(60)
        lease = await ref.ask(Rent(), deadline=30.0)
        assert trio.current_time() == 60.0
        assert grants(supervisor) == 1
        ref.give_back(lease, Vacate())


@pytest.mark.parametrize("leaving", ["cancelled", "late"])
async def test_a_caller_that_leaves_the_queue_is_never_granted_anything(leaving: str, autojump_clock: Clock) -> None:
    """Its place in the queue is free once it has gone, so the grant goes to the next."""
    made: list[Garage] = []
    async with tree(ChildSpec("a", garage(made, room=1))) as supervisor:
        ref = supervisor.ref("a", int)
        first = await ref.ask(Rent())
        if leaving == "late":
            with pytest.raises(DeadlineExceededError):
                await ref.ask(Rent(), deadline=1.0)
        else:
            with trio.move_on_after(1):
                await ref.ask(Rent())
        answers: list[object] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, answers, ref, Rent())
            await quiet()
            assert made[0].accepting() is False
            ref.give_back(first, Vacate())
        (lease,) = answers
        assert isinstance(lease, Lease)
        assert made[0].undone == []
        ref.give_back(lease, Vacate())


# -- coming back


async def test_the_first_end_counts_and_doubles_are_ignored(autojump_clock: Clock) -> None:
    """However often a grant is given back, before or after the actor has looked, it ends once."""
    made: list[Garage] = []
    async with tree(ChildSpec("a", garage(made))) as supervisor:
        ref = supervisor.ref("a", int)
        lease = await ref.ask(Rent())
        ref.give_back(lease, Vacate("first"))
        ref.give_back(lease, Vacate("double"))
        await quiet()
        ref.give_back(lease, Vacate("late double"))
        await quiet()
        assert made[0].seen == [(lease, "vacate first")]


async def test_of_several_notices_the_latest_wins(autojump_clock: Clock) -> None:
    """One notice of a grant waits at most, before its end; one that comes after the end is ignored."""
    made: list[Garage] = []
    async with tree(ChildSpec("a", garage(made))) as supervisor:
        ref = supervisor.ref("a", int)
        lease = await ref.ask(Rent())

        def drive() -> int:
            for kilometres in range(1000):
                ref.notify(lease, Mileage(kilometres))
            returns = lanes_of(supervisor).returns
            ref.give_back(lease, Vacate())
            ref.notify(lease, Mileage(7))
            return returns

        made[0].places = 2
        assert await ref.ask(Do(drive)) == 1
        await quiet()
        assert made[0].seen == [(lease, "mileage 999"), (lease, "vacate ")]


async def test_a_notice_that_was_read_makes_room_for_the_next(autojump_clock: Clock) -> None:
    """A live grant may tell of itself again and again."""
    made: list[Garage] = []
    async with tree(ChildSpec("a", garage(made))) as supervisor:
        ref = supervisor.ref("a", int)
        lease = await ref.ask(Rent())
        for kilometres in (1, 2):
            ref.notify(lease, Mileage(kilometres))
            await quiet()
        assert made[0].seen == [(lease, "mileage 1"), (lease, "mileage 2")]
        ref.give_back(lease, Vacate())


async def test_what_was_never_granted_is_ignored(autojump_clock: Clock) -> None:
    """Ends and notices of grants that the ledger does not know are no messages at all."""
    made: list[Garage] = []
    async with tree(ChildSpec("a", garage(made))) as supervisor:
        ref = supervisor.ref("a", int)
        ref.give_back(Lease(-1), Vacate())
        ref.notify(Lease(-1), Mileage(1))
        await quiet()
        assert made[0].seen == []


async def test_returns_to_a_stopped_actor_do_nothing(autojump_clock: Clock) -> None:
    """Whoever still holds a grant when the tree is gone may give it back all the same."""
    made: list[Garage] = []
    async with tree(ChildSpec("a", garage(made)), drain_timeout=0) as supervisor:
        ref = supervisor.ref("a", int)
        lease = await ref.ask(Rent())
    ref.notify(lease, Mileage(1))
    ref.give_back(lease, Vacate())
    lanes = supervisor.tree().children[0].lanes
    assert lanes is not None
    assert lanes.returns == 0
    assert made[0].seen == []


# -- over a crash


async def test_the_next_incarnation_adopts_the_live_grants(autojump_clock: Clock) -> None:
    """The ledger outlives the crash: nothing is granted twice, and what comes back is taken."""
    made: list[Garage] = []
    answers: list[object] = []
    async with tree(ChildSpec("a", garage(made, places=1))) as supervisor:
        ref = supervisor.ref("a", int)
        lease = await ref.ask(Rent())
        await crash(ref)
        assert made[1].live == {lease}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, answers, ref, Rent())
            await quiet()
            assert answers == []
            ref.give_back(lease, Vacate())
        (second,) = answers
        assert isinstance(second, Lease)
        ref.give_back(second, Vacate())


async def test_a_fenced_grant_is_ignored_when_it_comes_back(autojump_clock: Clock) -> None:
    """A factory that clears the ledger ends every live grant, also those whose end or notice is queued already."""
    made: list[Garage] = []
    async with tree(ChildSpec("a", garage(made, places=3, fence=True))) as supervisor:
        ref = supervisor.ref("a", int)
        later, queued, noticed = [await ref.ask(Rent()) for _ in range(3)]
        supervisor.kill("a", BoomError("planted"))
        ref.give_back(queued, Vacate())
        ref.notify(noticed, Mileage(1))
        await quiet()
        ref.give_back(later, Vacate())
        ref.notify(noticed, Mileage(2))
        await quiet()
        assert grants(supervisor) == 0
        assert made[1].seen == []


@frozen
class Draw(Ask[int]):
    """Is answered with a number."""


class Numbers(Actor):
    """Grants the numbers from 0 on, and begins again at each restart, fencing what it had granted."""

    def __init__(self, ledger: Ledger, carry: object) -> None:
        ledger.clear()
        self.next = 0

    @handles(Draw)
    def draw(self, message: Draw, reply: Reply[int], now: float) -> None:
        """Grant the next number."""
        reply.grant(self.next)
        self.next += 1


async def test_what_was_queued_for_a_fenced_grant_does_not_hit_a_new_one_that_equals_it(autojump_clock: Clock) -> None:
    """The return lane settles the loan that it was posted for, not whatever looks like it."""
    answers: list[object] = []
    async with tree(ChildSpec("a", Numbers), drain_timeout=0) as supervisor:
        ref = supervisor.ref("a", object)
        old = await ref.ask(Draw())
        supervisor.kill("a", BoomError("planted"))
        ref.notify(old, Notice[int]())
        ref.give_back(old, Return[int]())
        await collect(answers, ref, Draw())
        await quiet()
        assert answers == [old]
        assert grants(supervisor) == 1
        assert supervisor.tree().children[0].restarts == 1


async def test_an_end_in_hand_at_a_crash_does_not_leave_its_grant_live(autojump_clock: Clock) -> None:
    """The end is struck from the ledger before it is handled, so that no place is lost for ever."""
    made: list[Garage] = []
    async with tree(ChildSpec("a", garage(made))) as supervisor:
        ref = supervisor.ref("a", int)
        lease = await ref.ask(Rent())

        def fail() -> None:
            raise BoomError("while the end was in hand")

        made[0].on_return = fail
        ref.give_back(lease, Vacate())
        await quiet()
        assert len(made) == 2
        assert made[1].live == set()
        second = await ref.ask(Rent())
        ref.give_back(second, Vacate())


async def test_ends_that_wait_at_a_crash_are_served_by_the_next_incarnation(autojump_clock: Clock) -> None:
    """The return lane outlives the crash; only the end in hand is gone."""
    made: list[Garage] = []
    async with tree(ChildSpec("a", garage(made, places=3))) as supervisor:
        ref = supervisor.ref("a", int)
        leases = [await ref.ask(Rent()) for _ in range(3)]
        supervisor.kill("a", BoomError("planted"))
        for lease in leases:
            ref.give_back(lease, Vacate())
        await quiet()
        assert made[1].adopted == 3
        assert [lease for lease, _ in made[1].seen] == leases
        assert grants(supervisor) == 0


async def test_a_grant_is_void_where_its_actor_crashes_before_it_answers(autojump_clock: Clock) -> None:
    """A kept ask fails with the crash; nothing of it stands in the ledger."""
    made: list[Garage] = []
    answers: list[object] = []
    async with tree(ChildSpec("a", garage(made))) as supervisor:
        ref = supervisor.ref("a", int)
        first = await ref.ask(Rent())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, answers, ref, Rent())
            await quiet()
            await crash(ref)
        assert isinstance(answers[0], ActorCrashedError)
        ref.give_back(first, Vacate())
        await quiet()
        assert grants(supervisor) == 0


async def test_a_return_of_an_unknown_kind_is_a_crash_that_says_so(autojump_clock: Clock) -> None:
    """It is a bug; the grant has ended, so the next incarnation is consistent."""
    made: list[Garage] = []
    async with tree(ChildSpec("a", garage(made))) as supervisor:
        ref = supervisor.ref("a", int)
        lease = await ref.ask(Rent())
        ref.give_back(lease, Unforeseen())
        await quiet()
        node = supervisor.tree().children[0]
        assert node.error is not None
        assert "wizard/a has no handler for Unforeseen" in node.error
        assert made[1].live == set()


# -- the ledger itself


async def test_a_grant_that_equals_a_live_one_is_a_bug_before_anybody_has_it(autojump_clock: Clock) -> None:
    """The actor crashes, and its caller gets the crash instead of a grant that two would hold."""
    made: list[Garage] = []
    async with tree(ChildSpec("a", garage(made, places=2)), drain_timeout=0) as supervisor:
        ref = supervisor.ref("a", int)
        lease = await ref.ask(Rent())

        class Same:
            def __next__(self) -> int:
                return lease.number

        made[0].numbers = Same()  # type: ignore[assignment]  # a planted bug
        with pytest.raises(ActorCrashedError, match="unlike every other live grant"):
            await ref.ask(Rent())
        assert grants(supervisor) == 1


def test_a_ledger_lists_its_grants_oldest_first() -> None:
    """It can be counted, searched and iterated, and emptied while it is iterated."""
    ledger = Ledger()
    for grant in ("a", "b", "c"):
        ledger.enter(grant)
    ledger.strike("b")
    assert (list(ledger), len(ledger), "a" in ledger, "b" in ledger) == (["a", "c"], 2, True, False)
    assert ledger.outstanding == 2
    for _ in ledger:
        ledger.clear()
    assert (list(ledger), ledger.outstanding) == ([], 0)
