"""Children that are added while the tree runs, whatever their group is doing."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.kernel_actors import (
    BoomError,
    ClerkView,
    Echo,
    Garage,
    Rent,
    clerk,
    fragile,
    garage,
    never_two_at_once,
    quiet,
    tree,
)
from wizard_actors.errors import ActorCrashedError, ActorStoppedError
from wizard_actors.specs import ChildSpec, GroupSpec, OnGiveUp, State, Strategy
from wizard_actors.supervisor import RestartPolicy, Supervisor

Clock = trio.testing.MockClock


def states(supervisor: Supervisor) -> dict[str, State]:
    """Return the state of every node below the root, by its path."""
    return {node.path.removeprefix("wizard/"): node.state for node in list(supervisor.tree().walk())[1:]}


def giving_up(*children: ChildSpec | GroupSpec, **policy: int) -> GroupSpec:
    """Return a group "inner" that fails as a whole at the first crash of a child."""
    return GroupSpec("inner", children, on_give_up=OnGiveUp.ESCALATE, policy=RestartPolicy(max_restarts=0))


async def test_an_added_child_is_started_served_and_stopped_first(autojump_clock: Clock) -> None:
    """It is the last in the order, as if it had always stood there."""
    journal: list[str] = []
    async with tree(ChildSpec("a", clerk("a", journal))) as supervisor:
        await supervisor.add(ChildSpec("b", clerk("b", journal)))
        assert await supervisor.ref("b", ClerkView).ask(Echo("new")) == "new"
    assert journal == ["start a", "start b", "echo new", "stop b", "stop a"]


async def test_a_group_can_be_added_and_children_under_it(autojump_clock: Clock) -> None:
    """At any depth; the start is over when `add` returns."""
    journal: list[str] = []
    async with tree() as supervisor:
        await supervisor.add(GroupSpec("inner", [ChildSpec("a", fragile("a", journal, 2.0))]))
        assert trio.current_time() == 2
        await supervisor.add(ChildSpec("b", clerk("b", journal)), under="inner")
        assert states(supervisor) == dict.fromkeys(["inner", "inner/a", "inner/b"], State.RUNNING)
    assert journal == ["start a", "start b", "stop b", "stop a"]


async def test_a_name_that_is_taken_is_refused(autojump_clock: Clock) -> None:
    """Nothing is started, and the one that has the name goes on."""
    journal: list[str] = []
    async with tree(ChildSpec("a", clerk("a"))) as supervisor:
        with pytest.raises(ValueError, match="cannot have a child named 'a'"):
            await supervisor.add(ChildSpec("a", clerk("other", journal)))
        with pytest.raises(KeyError, match="no group at 'nowhere'"):
            await supervisor.add(ChildSpec("b", clerk("other", journal)), under="nowhere")
        assert journal == []
        assert await supervisor.ref("a", ClerkView).ask(Echo("goes on")) == "goes on"


async def test_nothing_is_added_to_a_tree_that_stops_or_has_stopped(autojump_clock: Clock) -> None:
    """`ActorStoppedError`, from the moment in which the intakes close."""
    made: list[Garage] = []
    refused: list[object] = []

    async def add_late(supervisor: Supervisor) -> None:
        await trio.sleep(1)
        for under in ("", "inner"):
            try:
                await supervisor.add(ChildSpec("b", clerk("b")), under=under)
            except ActorStoppedError as error:
                refused.append(str(error))

    supervisor = tree(ChildSpec("a", garage(made)), GroupSpec("inner"))
    async with trio.open_nursery() as nursery, supervisor:
        await supervisor.ref("a", int).ask(Rent())
        nursery.start_soon(add_late, supervisor)
    assert refused == [f"{path} is stopping and takes no new children" for path in ("wizard", "wizard/inner")]
    with pytest.raises(ActorStoppedError):
        await supervisor.add(ChildSpec("b", clerk("b")))


async def test_an_added_child_whose_start_fails_is_restarted_like_any_other(autojump_clock: Clock) -> None:
    """`add` returns after the first attempt; the tree tells what became of it."""
    journal: list[str] = []
    async with tree() as supervisor:
        await supervisor.add(ChildSpec("a", fragile("a", journal, BoomError("no"))))
        await quiet()
        assert (states(supervisor), journal.count("start a")) == ({"a": State.RUNNING}, 2)


async def test_an_addition_that_is_cancelled_is_there_all_the_same(autojump_clock: Clock) -> None:
    """A start that is abandoned half-way would belong to nobody: the cancellation waits for it."""
    journal: list[str] = []
    async with tree() as supervisor:
        with trio.move_on_after(1) as scope:
            await supervisor.add(ChildSpec("a", fragile("a", journal, 3.0)))
            await trio.lowlevel.checkpoint()
        assert (scope.cancelled_caught, trio.current_time()) == (True, 3.0)
        assert states(supervisor) == {"a": State.RUNNING}
    assert journal == ["start a", "stop a"]


async def test_a_child_added_to_a_group_that_is_down_starts_with_the_group_once(autojump_clock: Clock) -> None:
    """Until then its asks fail at once, like those of everybody there."""
    journal: list[str] = []
    policy = RestartPolicy(max_restarts=0)
    spec = GroupSpec("wizard", [giving_up(ChildSpec("a", clerk("a", journal)))], policy=policy)
    async with Supervisor(spec) as supervisor:
        supervisor.kill("inner/a", BoomError("planted"))
        await quiet()
        assert states(supervisor) == {"inner": State.DOWN, "inner/a": State.DOWN}
        await supervisor.add(ChildSpec("b", clerk("b", journal)), under="inner")
        assert states(supervisor)["inner/b"] is State.DOWN
        with pytest.raises(ActorCrashedError, match="wizard/inner/b"):
            await supervisor.ref("inner/b", ClerkView).ask(Echo())
        await trio.sleep(61)
        assert set(states(supervisor).values()) == {State.RUNNING}
        assert await supervisor.ref("inner/b", ClerkView).ask(Echo("up")) == "up"
    assert journal.count("start b") == 1


async def test_a_child_added_while_its_group_goes_down_starts_with_the_group_once(autojump_clock: Clock) -> None:
    """In every step between a crash and the restart that follows it, nobody is started twice."""
    for steps in range(12):
        journal: list[str] = []
        inner = giving_up(ChildSpec("a", clerk("a", journal)), ChildSpec("c", clerk("c", journal)))
        async with tree(inner) as supervisor:
            supervisor.kill("inner/a", BoomError("planted"))
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            await supervisor.add(ChildSpec("b", clerk("b", journal)), under="inner")
            await quiet()
            assert set(states(supervisor).values()) == {State.RUNNING}
            assert await supervisor.ref("inner/b", ClerkView).ask(Echo("up")) == "up"
        assert never_two_at_once(journal)


async def test_a_group_under_way_is_taken_over_by_the_restart_that_it_shares(autojump_clock: Clock) -> None:
    """The start that was brought down does not go on beside the one that follows."""
    for _ in range(10):
        journal: list[str] = []
        children = [ChildSpec("x", fragile("x", journal, 5.0)), ChildSpec("y", clerk("y", journal))]
        async with Supervisor(GroupSpec("wizard", strategy=Strategy.ONE_FOR_ALL)) as supervisor:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(supervisor.add, GroupSpec("inner", children))
                await trio.sleep(1)
                await supervisor.add(ChildSpec("a", clerk("a", journal)))
                supervisor.kill("a", BoomError("planted"))
            await quiet()
            assert set(states(supervisor).values()) == {State.RUNNING}
        assert never_two_at_once(journal)


async def test_a_child_added_before_its_group_has_started_starts_with_it_once(autojump_clock: Clock) -> None:
    """While the tree comes up, a group that is still to come takes the child along."""
    journal: list[str] = []
    supervisor = tree(ChildSpec("a", fragile("a", journal, 5.0)), GroupSpec("inner"))

    async def add_early() -> None:
        await trio.sleep(1)
        await supervisor.add(ChildSpec("b", clerk("b", journal)), under="inner")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(add_early)
        async with supervisor:
            assert set(states(supervisor).values()) == {State.RUNNING}
    assert journal == ["start a", "start b", "stop b", "stop a"]


async def test_a_group_added_while_its_siblings_restart_is_started_once(autojump_clock: Clock) -> None:
    """A restart that brings it down half-way through its first start takes over from it."""
    for steps in range(12):
        journal: list[str] = []
        children = [ChildSpec("a", clerk("a", journal))]
        added = GroupSpec("inner", [ChildSpec(name, clerk(name, journal)) for name in "xyz"])
        async with Supervisor(GroupSpec("wizard", children, strategy=Strategy.ONE_FOR_ALL)) as supervisor:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(supervisor.add, added)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                supervisor.kill("a", BoomError("planted"))
            await quiet()
            assert set(states(supervisor).values()) == {State.RUNNING}
        assert never_two_at_once(journal)
