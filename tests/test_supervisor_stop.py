"""How a tree stops: draining, its one deadline, its order, and what the body of the block has to do with it."""

from __future__ import annotations

import logging
from contextlib import suppress

import pytest
import trio
import trio.testing

from tests.kernel_actors import (
    BoomError,
    Clerk,
    ClerkView,
    Echo,
    Garage,
    Lease,
    Rent,
    Vacate,
    clerk,
    collect,
    crash,
    garage,
    quiet,
    tree,
)
from wizard_actors.errors import ActorStoppedError
from wizard_actors.event_stream import EventStream
from wizard_actors.specs import ChildSpec, GroupSpec, Restart, State
from wizard_actors.supervisor import RestartPolicy, Supervisor

Clock = trio.testing.MockClock


async def give_back_at(when: float, supervisor: Supervisor, path: str, lease: Lease) -> None:
    """Give `lease` back at the instant `when`."""
    await trio.sleep_until(when)
    supervisor.ref(path, int).give_back(lease, Vacate(f"at {when:g}"))


# -- draining


async def test_a_tree_without_live_grants_stops_at_once(autojump_clock: Clock) -> None:
    """Nothing to wait for takes no time."""
    made: list[Garage] = []
    async with tree(ChildSpec("a", garage(made))) as supervisor:
        ref = supervisor.ref("a", int)
        ref.give_back(await ref.ask(Rent()), Vacate("in the last step"))
    assert trio.current_time() == 0
    assert [note for _, note in made[0].seen] == ["vacate in the last step"]


async def test_a_tree_stops_when_the_last_grant_has_come_back(autojump_clock: Clock) -> None:
    """And not before: every actor takes back what it granted, wherever it stands."""
    made: list[Garage] = []
    spec = GroupSpec("inner", [ChildSpec("b", garage(made))])
    supervisor = tree(ChildSpec("a", garage(made)), spec)
    async with trio.open_nursery() as nursery:
        async with supervisor:
            for when, path in ((4.0, "a"), (2.0, "inner/b")):
                nursery.start_soon(give_back_at, when, supervisor, path, await supervisor.ref(path, int).ask(Rent()))
        assert trio.current_time() == 4
        assert [note for actor in made for _, note in actor.seen] == ["vacate at 4", "vacate at 2"]
        assert supervisor.outstanding == {}


async def test_one_deadline_bounds_the_draining_of_the_whole_tree(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """However many actors have live grants; those that keep some are named with how many."""
    made: list[Garage] = []
    children = [ChildSpec(name, garage(made, places=9)) for name in "abc"]
    supervisor = tree(*children, drain_timeout=7)
    async with trio.open_nursery() as nursery:
        async with supervisor:
            leases = [await supervisor.ref(name, int).ask(Rent()) for name in "aabc"]
            nursery.start_soon(give_back_at, 3.0, supervisor, "b", leases[2])
        assert trio.current_time() == 7
    assert [record.getMessage() for record in caplog.records] == [
        "wizard/a stops with 2 grants not given back after 7 s",
        "wizard/c stops with 1 grants not given back after 7 s",
    ]
    assert supervisor.outstanding == {"wizard/a": 2, "wizard/c": 1}


async def test_a_grant_that_is_fenced_while_the_tree_drains_is_not_waited_for(autojump_clock: Clock) -> None:
    """A restart that was under way when stopping began may clear the ledger: nothing comes back for that any more."""
    fenced = 0
    for _ in range(30):  # in about half of them the restart comes before the stop
        made: list[Garage] = []
        events = EventStream()
        spec = GroupSpec("wizard", [ChildSpec("a", garage(made, fence=True))])
        with events.subscribe() as changes:
            async with Supervisor(spec, events=events) as supervisor:
                await supervisor.ref("a", int).ask(Rent())
                supervisor.kill("a", BoomError("planted"))
                await anext(changes)
                begun = trio.current_time()
        fenced += len(made) == 2
        assert trio.current_time() == begun + (0 if len(made) == 2 else 10)
    assert fenced


async def test_an_actor_that_has_ended_for_good_holds_up_no_stop(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its grants cannot come back: nobody waits for them, and nobody is blamed."""
    made: list[Garage] = []
    async with tree(ChildSpec("a", garage(made), restart=Restart.TEMPORARY)) as supervisor:
        ref = supervisor.ref("a", int)
        await ref.ask(Rent())
        await crash(ref)
    assert trio.current_time() == 0
    assert not [message for message in caplog.messages if "not given back" in message]


async def test_grants_of_an_actor_in_backoff_may_come_back_while_the_tree_drains(autojump_clock: Clock) -> None:
    """It is not started again to read them, but they count."""
    made: list[Garage] = []
    spec = GroupSpec("wizard", [ChildSpec("a", garage(made))], policy=RestartPolicy(max_restarts=0))
    supervisor = Supervisor(spec)
    async with trio.open_nursery() as nursery:
        async with supervisor:
            ref = supervisor.ref("a", int)
            nursery.start_soon(give_back_at, 3.0, supervisor, "a", await ref.ask(Rent()))
            await crash(ref)
            assert supervisor.tree().children[0].state is State.DOWN
        assert trio.current_time() == 3
        assert len(made) == 1


async def test_who_waits_in_line_is_not_served_with_what_comes_back_during_the_stop(autojump_clock: Clock) -> None:
    """Its ask has failed with the stop; the grant that the actor would have made of the return is undone."""
    made: list[Garage] = []
    answers: list[object] = []
    supervisor = tree(ChildSpec("a", garage(made)))
    async with trio.open_nursery() as nursery:
        async with supervisor:
            ref = supervisor.ref("a", int)
            nursery.start_soon(give_back_at, 3.0, supervisor, "a", await ref.ask(Rent()))
            nursery.start_soon(collect, answers, ref, Rent())
            await quiet()
        assert [type(answer) for answer in answers] == [ActorStoppedError]
        assert (trio.current_time(), made[0].live, len(made[0].undone)) == (3.0, set(), 1)


# -- stragglers


async def test_slow_stops_are_cut_short_one_by_one_and_the_order_is_kept(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each has its own `shutdown_timeout`; the log names who needed more."""
    stopped: list[str] = []

    class Slow(Clerk):
        async def stop(self) -> None:
            try:
                await trio.sleep(1000)
            finally:
                stopped.append(self.name)

    children = [
        ChildSpec("a", lambda _ledger, _carry: Slow("a"), shutdown_timeout=1),
        ChildSpec("b", lambda _ledger, _carry: Slow("b"), shutdown_timeout=2),
    ]
    async with tree(*children):
        pass
    assert (stopped, trio.current_time()) == (["b", "a"], 3.0)
    assert caplog.messages == [
        "wizard/b did not stop in 2 s; its stop was cancelled",
        "wizard/a did not stop in 1 s; its stop was cancelled",
    ]


async def test_a_start_that_resists_is_cancelled_and_named(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The tree waits for what cannot be cancelled, but says for whom."""

    class Stubborn(Clerk):
        async def start(self) -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(20)

    supervisor = tree()
    async with trio.open_nursery() as nursery:
        async with supervisor:
            nursery.start_soon(supervisor.add, ChildSpec("a", lambda _ledger, _carry: Stubborn()))
            await trio.sleep(1)
        assert trio.current_time() == 20
    assert caplog.messages == ["wizard/a does not stop; it is cancelled"]


async def test_a_straggler_is_cancelled_wherever_it_hangs(autojump_clock: Clock) -> None:
    """An actor has its `shutdown_timeout` and a second more for everything, not for each part of it."""

    class Clinging(Clerk):
        async def start(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(5.5)

        async def stop(self) -> None:
            await trio.sleep_forever()

    supervisor = tree()
    async with trio.open_nursery() as nursery:
        async with supervisor:
            nursery.start_soon(supervisor.add, ChildSpec("a", lambda _ledger, _carry: Clinging()))
            await trio.sleep(1)
        assert trio.current_time() == 1 + 6


async def test_a_start_under_way_is_cancelled_by_the_stop_and_released(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The tree does not wait for it to come up only to go down; that is no failure of the actor."""
    journal: list[str] = []

    class Slow(Clerk):
        async def start(self) -> None:
            await super().start()
            await trio.sleep(20)

    supervisor = tree()
    async with trio.open_nursery() as nursery:
        async with supervisor:
            nursery.start_soon(supervisor.add, ChildSpec("a", lambda _ledger, _carry: Slow("a", journal)))
            await trio.sleep(1)
        assert trio.current_time() == 1
    assert journal == ["start a", "stop a"]
    assert caplog.messages == []


async def test_a_start_that_has_not_begun_when_the_stop_comes_never_begins(autojump_clock: Clock) -> None:
    """Not even its first step; what its factory had acquired is released."""

    async def add(supervisor: Supervisor, spec: ChildSpec) -> None:
        with suppress(ActorStoppedError):  # the stop may come before the addition, too
            await supervisor.add(spec)

    journals: list[str] = []
    for _ in range(30):  # in some of them the stop comes first
        journal: list[str] = []
        supervisor = tree()
        async with trio.open_nursery() as nursery, supervisor:
            nursery.start_soon(add, supervisor, ChildSpec("a", clerk("a", journal)))
            await trio.lowlevel.checkpoint()
        assert {node.state for node in supervisor.tree().walk()} == {State.STOPPED}
        journals.append(" ".join(journal))
    assert "stop a" in journals
    assert set(journals) <= {"", "stop a", "start a stop a"}


async def test_a_stop_that_fails_stops_nobody_else_from_stopping(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the others stop as ever."""
    journal: list[str] = []

    class Unstoppable(Clerk):
        async def stop(self) -> None:
            raise BoomError("cannot stop")

    unstoppable = ChildSpec("b", lambda _ledger, _carry: Unstoppable())
    async with tree(ChildSpec("a", clerk("a", journal)), unstoppable, ChildSpec("c", clerk("c", journal))):
        pass
    assert journal[-2:] == ["stop c", "stop a"]
    assert caplog.messages == ["wizard/b failed to stop: BoomError('cannot stop')"]


async def test_an_actor_crashing_while_it_is_stopped_is_not_restarted(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The crash is logged, and that is all."""
    made: list[Garage] = []
    async with tree(ChildSpec("a", garage(made)), drain_timeout=0) as supervisor:
        ref = supervisor.ref("a", int)
        lease = await ref.ask(Rent())

        def fail() -> None:
            raise BoomError("in the last turn")

        made[0].on_return = fail
        ref.give_back(lease, Vacate())
    assert len(made) == 1
    with caplog.at_level(logging.ERROR):
        assert "wizard/a crashed: BoomError('in the last turn')" in caplog.messages
    with pytest.raises(ActorStoppedError):
        await ref.ask(Rent())


# -- the body of the block


async def test_what_the_body_raises_comes_out_as_it_is(autojump_clock: Clock) -> None:
    """The very error, in no group, after an ordered stop."""
    journal: list[str] = []
    bug = BoomError("the body's own")
    with pytest.raises(BoomError) as caught:
        async with tree(ChildSpec("a", clerk("a", journal)), ChildSpec("b", clerk("b", journal))):
            raise bug
    assert caught.value is bug
    assert journal == ["start a", "start b", "stop b", "stop a"]


async def test_a_body_that_is_cancelled_leaves_by_the_ordered_stop(autojump_clock: Clock) -> None:
    """The cancellation passes on, unconverted, when the tree is down; actors are shielded from it."""
    journal: list[str] = []
    made: list[Garage] = []
    with trio.move_on_after(5) as scope:
        async with tree(ChildSpec("a", clerk("a", journal)), ChildSpec("b", garage(made))) as supervisor:
            await supervisor.ref("b", int).ask(Rent())
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert journal == ["start a", "stop a"]
    assert trio.current_time() == 15, "draining keeps its deadline also where the caller is in a hurry"


async def test_grants_come_back_from_a_body_that_is_cancelled(autojump_clock: Clock) -> None:
    """Callers give back in their `finally`, which the draining waits for."""
    made: list[Garage] = []

    async def caller(supervisor: Supervisor) -> None:
        ref = supervisor.ref("a", int)
        lease = await ref.ask(Rent())
        try:
            await trio.sleep_forever()
        finally:
            ref.give_back(lease, Vacate("on the way out"))

    with trio.move_on_after(5):
        async with tree(ChildSpec("a", garage(made))) as supervisor:
            await caller(supervisor)
    assert trio.current_time() == 5
    assert [note for _, note in made[0].seen] == ["vacate on the way out"]


async def test_a_stop_that_is_cancelled_from_outside_still_stops_everything(autojump_clock: Clock) -> None:
    """Cancelling in the middle of the draining changes nothing of it."""
    journal: list[str] = []
    made: list[Garage] = []
    with trio.move_on_after(2) as scope:
        async with tree(ChildSpec("a", clerk("a", journal)), ChildSpec("b", garage(made))) as supervisor:
            await supervisor.ref("b", int).ask(Rent())
        await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() == 10
    assert journal == ["start a", "stop a"]
    assert {node.state for node in supervisor.tree().walk()} == {State.STOPPED}


async def test_a_tree_entered_under_a_cancellation_starts_and_stops_in_order(autojump_clock: Clock) -> None:
    """The body gets the cancellation at its first checkpoint."""
    journal: list[str] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        async with tree(ChildSpec("a", clerk("a", journal))):
            journal.append("body")
            await trio.lowlevel.checkpoint()
            journal.append("not reached")
    assert journal == ["start a", "body", "stop a"]


async def test_two_trees_side_by_side_know_nothing_of_each_other(autojump_clock: Clock) -> None:
    """There is no global registry: the inner one stops, the outer one goes on."""
    async with tree(ChildSpec("a", clerk("a"))) as outer:
        async with tree(ChildSpec("a", clerk("a"))) as inner:
            await crash(inner.ref("a", ClerkView))
        assert await outer.ref("a", ClerkView).ask(Echo("goes on")) == "goes on"
        assert outer.tree().children[0].restarts == 0
