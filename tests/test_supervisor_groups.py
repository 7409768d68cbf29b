"""Groups within groups: escalation, restarts that meet, and restart kinds of whole groups."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.kernel_actors import (
    BoomError,
    Clerk,
    ClerkView,
    Echo,
    Garage,
    Keep,
    Rent,
    clerk,
    collect,
    crash,
    fragile,
    garage,
    never_two_at_once,
    quiet,
    tree,
)
from wizard_actors.errors import ActorCrashedError, ActorStoppedError, SupervisorError
from wizard_actors.specs import ChildSpec, GroupSpec, OnGiveUp, Restart, State, Strategy
from wizard_actors.supervisor import RestartPolicy, Supervisor

Clock = trio.testing.MockClock

NO_RESTARTS = RestartPolicy(max_restarts=0)


def escalating(name: str, *children: ChildSpec | GroupSpec, restart: Restart = Restart.PERMANENT) -> GroupSpec:
    """Return a group that fails as a whole at the first crash of a child."""
    return GroupSpec(name, children, on_give_up=OnGiveUp.ESCALATE, policy=NO_RESTARTS, restart=restart)


def states(supervisor: Supervisor) -> dict[str, State]:
    """Return the state of every node below the root, by its path."""
    return {node.path.removeprefix("wizard/"): node.state for node in list(supervisor.tree().walk())[1:]}


async def test_a_group_that_gives_up_restarts_as_a_whole(autojump_clock: Clock) -> None:
    """Its parent treats it as a crashed child: stopped in reverse, started in order; its siblings never notice."""
    journal: list[str] = []
    inner = escalating("inner", *(ChildSpec(name, clerk(name, journal)) for name in "abc"))
    async with tree(ChildSpec("x", clerk("x", journal)), inner) as supervisor:
        journal.clear()
        supervisor.kill("inner/b", BoomError("planted"))
        await quiet()
        assert journal == ["stop b", "stop c", "stop a", "start a", "start b", "start c"]
        assert set(states(supervisor).values()) == {State.RUNNING}
        group = next(node for node in supervisor.tree().walk() if node.name == "inner")
        assert group.restarts == 1
        assert group.error == "SupervisorError: wizard/inner gives up: wizard/inner/b crashes too often"


async def test_queues_below_a_group_that_restarts_at_once_are_kept(autojump_clock: Clock) -> None:
    """As with a single actor: what was kept fails with its cause, what was queued is served."""
    bug = BoomError("planted")
    answers: list[object] = []
    inner = escalating("inner", ChildSpec("a", clerk("a")), ChildSpec("b", clerk("b", room=1)))
    async with tree(inner) as supervisor, trio.open_nursery() as nursery:
        ref = supervisor.ref("inner/b", ClerkView)
        nursery.start_soon(collect, answers, ref, Keep())
        await quiet()
        nursery.start_soon(collect, answers, ref, Echo("served"))
        await quiet()
        supervisor.kill("inner/a", bug)
        await quiet()
    (error,) = [answer for answer in answers if answer != "served"]
    assert isinstance(error, ActorCrashedError)
    assert isinstance(error.__cause__, SupervisorError)
    assert error.__cause__.__cause__ is bug
    assert len(answers) == 2


async def test_a_group_that_gives_up_too_often_is_down_with_all_below_and_tried_again(autojump_clock: Clock) -> None:
    """Every ask below fails at once; a minute later the whole group is started."""
    spec = GroupSpec("wizard", [escalating("inner", ChildSpec("a", clerk("a")), GroupSpec("deep"))], policy=NO_RESTARTS)
    async with Supervisor(spec) as supervisor:
        ref = supervisor.ref("inner/a", ClerkView)
        await crash(ref)
        assert set(states(supervisor).values()) == {State.DOWN}
        with pytest.raises(ActorCrashedError):
            await ref.ask(Echo())
        await trio.sleep(61)
        assert set(states(supervisor).values()) == {State.RUNNING}
        assert await ref.ask(Echo("back")) == "back"


async def test_several_children_that_give_up_at_once_are_one_failure_of_their_group(autojump_clock: Clock) -> None:
    """The group fails once, and nobody waits for anybody for ever."""
    journal: list[str] = []
    inner = escalating("inner", *(ChildSpec(name, clerk(name, journal)) for name in "abc"))
    async with tree(inner) as supervisor:
        for name in "abc":
            supervisor.kill(f"inner/{name}", BoomError("planted"))
        await quiet()
        assert set(states(supervisor).values()) == {State.RUNNING}
        assert [node.restarts for node in supervisor.tree().walk()] == [0, 1, 1, 1, 1]
    assert never_two_at_once(journal)


async def test_a_group_gives_up_while_it_starts_and_is_started_again_whole(autojump_clock: Clock) -> None:
    """The first start is abandoned where it stands; no child is started twice at once."""
    journal: list[str] = []
    children = [
        ChildSpec("a", fragile("a", journal, BoomError("no"))),
        ChildSpec("b", fragile("b", journal, 3.0)),
        ChildSpec("c", fragile("c", journal, 3.0)),
    ]
    async with tree(escalating("inner", *children)) as supervisor:
        await trio.sleep(20)
        assert set(states(supervisor).values()) == {State.RUNNING}
    assert never_two_at_once(journal)
    assert journal.count("start c") == 1


@pytest.mark.parametrize("restart", [Restart.TRANSIENT, Restart.TEMPORARY])
async def test_a_group_has_a_restart_kind_like_an_actor(restart: Restart, autojump_clock: Clock) -> None:
    """A TEMPORARY one that gives up ends for good; its asks get the crash, and it takes no new children."""
    answers: list[object] = []
    inner = escalating("inner", ChildSpec("a", clerk("a")), ChildSpec("b", clerk("b")), restart=restart)
    async with tree(inner, ChildSpec("x", clerk("x"))) as supervisor:
        ref = supervisor.ref("inner/b", ClerkView)
        supervisor.kill("inner/a", BoomError("planted"))
        await quiet()
        await collect(answers, ref, Echo("back"))
        assert states(supervisor)["x"] is State.RUNNING
        if restart is Restart.TRANSIENT:
            assert answers == ["back"]
        else:
            assert isinstance(answers[0], ActorCrashedError)
            assert states(supervisor)["inner"] is State.STOPPED
            with pytest.raises(ActorStoppedError):
                await supervisor.add(ChildSpec("c", clerk("c")), under="inner")


async def test_a_temporary_group_goes_down_with_its_siblings_and_stays_down(autojump_clock: Clock) -> None:
    """Never restarted means not with others either, for groups too."""
    journal: list[str] = []
    temporary = GroupSpec("inner", [ChildSpec("a", clerk("a", journal))], restart=Restart.TEMPORARY)
    children = (temporary, ChildSpec("x", clerk("x", journal)))
    async with Supervisor(GroupSpec("wizard", children, strategy=Strategy.ONE_FOR_ALL)) as supervisor:
        for _ in range(2):
            supervisor.kill("x", BoomError("planted"))
            await trio.sleep(5)
        assert states(supervisor) == {"inner": State.STOPPED, "inner/a": State.STOPPED, "x": State.RUNNING}
    assert journal.count("start a") == 1


async def test_what_ended_for_good_stays_so_when_its_group_comes_back(autojump_clock: Clock) -> None:
    """A group that is down and tried again starts neither its TEMPORARY actors nor its TEMPORARY groups."""
    children: list[ChildSpec | GroupSpec] = [
        ChildSpec("a", clerk("a")),
        ChildSpec("t", clerk("t"), restart=Restart.TEMPORARY),
        GroupSpec("g", [ChildSpec("u", clerk("u"))], restart=Restart.TEMPORARY),
    ]
    async with Supervisor(GroupSpec("wizard", [escalating("inner", *children)], policy=NO_RESTARTS)) as supervisor:
        supervisor.kill("inner/a", BoomError("planted"))
        await quiet()
        ended = dict.fromkeys(["inner/t", "inner/g", "inner/g/u"], State.STOPPED)
        assert states(supervisor) == {"inner": State.DOWN, "inner/a": State.DOWN} | ended
        await trio.sleep(61)
        assert states(supervisor) == {"inner": State.RUNNING, "inner/a": State.RUNNING} | ended


async def test_a_temporary_child_that_was_never_started_starts_with_the_next_attempt(autojump_clock: Clock) -> None:
    """Never restarted does not mean never started."""
    journal: list[str] = []
    children = [
        ChildSpec("a", fragile("a", journal, BoomError("no"))),
        ChildSpec("b", fragile("b", journal, 3.0)),
        ChildSpec("t", clerk("t", journal), restart=Restart.TEMPORARY),
    ]
    async with tree(escalating("inner", *children)) as supervisor:
        await trio.sleep(5)
        assert set(states(supervisor).values()) == {State.RUNNING}
    assert journal.count("start t") == 1


async def test_a_group_that_escalates_while_its_parent_restarts_it_ends_once(autojump_clock: Clock) -> None:
    """In every step between the two crashes the tree finds back to order."""
    for steps in range(14):
        journal: list[str] = []
        inner = escalating("inner", *(ChildSpec(name, clerk(name, journal)) for name in "ab"))
        children = (ChildSpec("x", clerk("x", journal)), inner)
        async with Supervisor(GroupSpec("wizard", children, strategy=Strategy.ONE_FOR_ALL)) as supervisor:
            supervisor.kill("x", BoomError("planted"))
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            supervisor.kill("inner/a", BoomError("planted"))
            await trio.sleep(5)
            assert set(states(supervisor).values()) == {State.RUNNING}
            assert await supervisor.ref("inner/b", ClerkView).ask(Echo("up")) == "up"
        assert never_two_at_once(journal)


async def test_a_group_that_escalates_while_the_tree_stops_takes_no_new_children(autojump_clock: Clock) -> None:
    """What is stopping stays so, in every step; nothing is started that nobody would stop."""
    for steps in range(14):
        refused: list[object] = []
        made: list[Garage] = []
        children = [ChildSpec("a", clerk("a")), ChildSpec("b", clerk("b"))]

        async def add(supervisor: Supervisor, refused: list[object], steps: int) -> None:
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            try:
                await supervisor.add(ChildSpec("late", clerk("late")), under="inner")
            except ActorStoppedError as error:
                refused.append(error)

        inner = escalating("inner", *children)
        supervisor = tree(ChildSpec("g", garage(made)), inner, drain_timeout=1)
        async with trio.open_nursery() as nursery, supervisor:
            await supervisor.ref("g", int).ask(Rent())
            supervisor.kill("inner/a", BoomError("planted"))
            nursery.start_soon(add, supervisor, refused, steps)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        assert refused or steps < 4, "stopping had begun by then"
        assert set(states(supervisor).values()) == {State.STOPPED}


# -- a group that is brought down in the middle of its own restart


@pytest.mark.parametrize("order", ["inner first", "inner last"])
async def test_a_restart_under_way_gives_way_to_that_of_the_group_above(order: str, autojump_clock: Clock) -> None:
    """The inner restart stops where it stands: no child is started twice, none is left out."""
    for steps in range(10):
        journal: list[str] = []
        members = [
            ChildSpec("a", fragile("a", journal, 0.0, 5.0)),
            ChildSpec("b", fragile("b", journal, 0.0, 5.0)),
            ChildSpec("c", clerk("c", journal)),
        ]
        inner = GroupSpec("inner", members, strategy=Strategy.ONE_FOR_ALL)
        children: list[ChildSpec | GroupSpec] = [inner, ChildSpec("x", clerk("x", journal))]
        if order == "inner last":
            children.reverse()
        async with Supervisor(GroupSpec("wizard", children, strategy=Strategy.ONE_FOR_ALL)) as supervisor:
            supervisor.kill("inner/c", BoomError("planted"))
            await trio.sleep(1 + steps)
            supervisor.kill("x", BoomError("planted"))
            await trio.sleep(30)
            assert set(states(supervisor).values()) == {State.RUNNING}
        assert never_two_at_once(journal)


async def test_a_crash_that_a_restart_from_above_has_settled_is_forgotten(autojump_clock: Clock) -> None:
    """The group starts afresh: what had fallen before is no part of its next restart."""
    journal: list[str] = []
    members = [ChildSpec(name, clerk(name, journal)) for name in "ab"]
    inner = GroupSpec("inner", members, strategy=Strategy.REST_FOR_ONE, policy=RestartPolicy(min_backoff=9.0))
    children: list[ChildSpec | GroupSpec] = [ChildSpec("x", clerk("x", journal)), inner]
    async with Supervisor(GroupSpec("wizard", children, strategy=Strategy.ONE_FOR_ALL)) as supervisor:
        for _ in range(2):
            supervisor.kill("inner/a", BoomError("planted"))
            await quiet()
        assert states(supervisor)["inner/a"] is State.BACKOFF
        supervisor.kill("x", BoomError("planted"))
        await quiet()
        assert set(states(supervisor).values()) == {State.RUNNING}
        journal.clear()
        supervisor.kill("inner/b", BoomError("planted"))
        await trio.sleep(30)
        assert journal == ["stop b", "start b"]


async def test_queues_are_kept_where_the_group_above_restarts_at_once(autojump_clock: Clock) -> None:
    """Its restart settles the inner one, which would have refused the asks, before that has come to it."""

    class Lingering(Clerk):
        async def stop(self) -> None:
            await trio.sleep(2)

    answers: list[object] = []
    members = [ChildSpec("a", clerk("a")), ChildSpec("b", lambda _ledger, _carry: Lingering())]
    inner = GroupSpec("inner", members, strategy=Strategy.ONE_FOR_ALL, policy=NO_RESTARTS)
    children: list[ChildSpec | GroupSpec] = [ChildSpec("x", clerk("x")), inner]
    async with Supervisor(GroupSpec("wizard", children, strategy=Strategy.ONE_FOR_ALL)) as supervisor:
        supervisor.kill("inner/a", BoomError("planted"))
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, answers, supervisor.ref("inner/b", ClerkView), Echo("served"))
            await quiet()
            supervisor.kill("x", BoomError("planted"))
        assert (answers, trio.current_time()) == (["served"], 2.0)
