"""Children that are drained and removed while the tree runs, whatever they or their siblings are doing."""

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
    Lease,
    Rent,
    Vacate,
    clerk,
    collect,
    crash,
    fragile,
    garage,
    never_two_at_once,
    quiet,
    tree,
)
from wizard_actors.actor import Actor, Ledger
from wizard_actors.errors import ActorStoppedError
from wizard_actors.specs import ChildSpec, GroupSpec, OnGiveUp, Restart, State, Strategy
from wizard_actors.supervisor import RestartPolicy, Supervisor

Clock = trio.testing.MockClock


def states(supervisor: Supervisor) -> dict[str, State]:
    """Return the state of every node below the root, by its path."""
    return {node.path.removeprefix("wizard/"): node.state for node in list(supervisor.tree().walk())[1:]}


def giving_up(*children: ChildSpec | GroupSpec, **policy: int) -> GroupSpec:
    """Return a group "inner" that fails as a whole at the first crash of a child."""
    return GroupSpec("inner", children, on_give_up=OnGiveUp.ESCALATE, policy=RestartPolicy(max_restarts=0))


async def test_a_removed_child_fails_its_asks_at_once_and_drains_its_grants(autojump_clock: Clock) -> None:
    """It is gone when its last grant has come back; its siblings go on."""
    made: list[Garage] = []
    answers: list[object] = []
    async with tree(ChildSpec("a", garage(made)), ChildSpec("b", clerk("b"))) as supervisor:
        ref = supervisor.ref("a", int)
        lease = await ref.ask(Rent())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, answers, ref, Rent())
            await quiet()
            nursery.start_soon(supervisor.remove, "a")
            await quiet()
            assert [str(answer) for answer in answers] == ["wizard/a has stopped"]
            assert states(supervisor) == {"a": State.RUNNING, "b": State.RUNNING}
            await trio.sleep(3)
            ref.give_back(lease, Vacate("at last"))
        assert trio.current_time() == 3
        assert made[0].seen == [(lease, "vacate at last")]
        assert states(supervisor) == {"b": State.RUNNING}
        with pytest.raises(KeyError, match="no actor at 'a'"):
            supervisor.ref("a", int)
        with pytest.raises(ActorStoppedError):
            await ref.ask(Rent())
        ref.give_back(Lease(-1), Vacate())
        assert await supervisor.ref("b", ClerkView).ask(Echo("goes on")) == "goes on"


async def test_a_child_that_is_being_drained_restarts_with_nobody(autojump_clock: Clock) -> None:
    """A sibling's crash leaves it alone, and it takes back what it granted."""
    made: list[Garage] = []
    children = [ChildSpec("a", garage(made)), ChildSpec("b", clerk("b"))]
    async with Supervisor(GroupSpec("wizard", children, strategy=Strategy.ONE_FOR_ALL)) as supervisor:
        ref = supervisor.ref("a", int)
        lease = await ref.ask(Rent())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.remove, "a")
            await quiet()
            supervisor.kill("b", BoomError("planted"))
            await trio.sleep(1)
            ref.give_back(lease, Vacate("as ever"))
        assert made[0].seen == [(lease, "vacate as ever")]
        assert states(supervisor) == {"b": State.RUNNING}


@pytest.mark.parametrize("crashes", ["on its own", "with its group"])
async def test_asks_at_a_child_that_is_removed_are_told_that_it_stopped_whatever_happens(
    crashes: str, autojump_clock: Clock
) -> None:
    """Neither a restart that comes up late nor the failure of its group opens it again, or changes the answer."""
    made: list[Garage] = []

    class Slow(Garage):
        async def start(self) -> None:
            await trio.sleep(1.0 if self.live else 0.0)

    def factory(ledger: Ledger, carry: object) -> Actor:
        made.append(Slow(ledger))
        return made[-1]

    inner = giving_up(ChildSpec("a", factory), ChildSpec("b", clerk("b")))
    if crashes == "on its own":
        inner = GroupSpec("inner", inner.children)
    spec = GroupSpec("wizard", [inner], policy=RestartPolicy(max_restarts=0))
    answers: list[object] = []
    async with Supervisor(spec) as supervisor:
        ref = supervisor.ref("inner/a", int)
        await ref.ask(Rent())
        if crashes == "on its own":
            supervisor.kill("inner/a", BoomError("planted"))
            await quiet()
            assert states(supervisor)["inner/a"] is State.STARTING
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.remove, "inner/a")
            await quiet()
            if crashes == "with its group":
                supervisor.kill("inner/b", BoomError("planted"))
            for _ in range(3):
                await collect(answers, ref, Rent())
                await trio.sleep(1)
            assert trio.current_time() == 3, "each was answered at once"
    assert [str(answer) for answer in answers] == ["wizard/inner/a has stopped"] * 3


async def test_a_removal_has_a_deadline_of_its_own(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Grants that do not come back within it are named, and given up."""
    made: list[Garage] = []
    async with tree(ChildSpec("a", garage(made))) as supervisor:
        await supervisor.ref("a", int).ask(Rent())
        await supervisor.remove("a", drain_timeout=4)
        assert trio.current_time() == 4
        assert states(supervisor) == {}
    assert caplog.messages == ["wizard/a stops with 1 grants not given back after 4 s"]
    assert trio.current_time() == 4


async def test_a_removal_that_is_cancelled_is_done_at_once(autojump_clock: Clock) -> None:
    """Cancelling cuts the draining short, not the stop."""
    journal: list[str] = []
    made: list[Garage] = []
    inner = GroupSpec("inner", [ChildSpec("a", garage(made)), ChildSpec("b", clerk("b", journal))])
    async with tree(inner) as supervisor:
        await supervisor.ref("inner/a", int).ask(Rent())
        with trio.move_on_after(1) as scope:
            await supervisor.remove("inner")
        assert (scope.cancelled_caught, trio.current_time()) == (True, 1.0)
        assert states(supervisor) == {}
        assert journal == ["start b", "stop b"]


async def test_two_removals_drain_side_by_side(autojump_clock: Clock) -> None:
    """Each ends when its own grants are back, whichever comes first."""
    made: list[Garage] = []
    gone: dict[str, float] = {}
    async with tree(*(ChildSpec(name, garage(made)) for name in "abc")) as supervisor:
        leases = {name: await supervisor.ref(name, int).ask(Rent()) for name in "abc"}

        async def remove(name: str) -> None:
            await supervisor.remove(name)
            gone[name] = trio.current_time()

        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(remove, name)
            await quiet()
            for name in "cab":
                await trio.sleep(1)
                supervisor.ref(name, int).give_back(leases[name], Vacate())
    assert gone == {"c": 1.0, "a": 2.0, "b": 3.0}


@pytest.mark.parametrize(
    ("policy", "starts", "crashes", "state"),
    [
        (RestartPolicy(), [0.0, 5.0], 1, State.STARTING),
        (RestartPolicy(min_backoff=9.0), [], 2, State.BACKOFF),
        (RestartPolicy(max_restarts=0), [], 1, State.DOWN),
    ],
    ids=["restarting", "in backoff", "down"],
)
async def test_a_child_can_be_removed_whatever_it_waits_for(
    policy: RestartPolicy, starts: list[float], crashes: int, state: State, autojump_clock: Clock
) -> None:
    """It does not come back, and nobody waits for the restart that was planned."""
    journal: list[str] = []
    spec = GroupSpec("wizard", [ChildSpec("a", fragile("a", journal, *starts))], policy=policy)
    async with Supervisor(spec) as supervisor:
        for _ in range(crashes):
            supervisor.kill("a", BoomError("planted"))
            await quiet()
        assert states(supervisor) == {"a": state}
        await supervisor.remove("a")
        assert trio.current_time() == 0
        await trio.sleep(200)
        assert states(supervisor) == {}
    assert journal.count("start a") == journal.count("stop a")


async def test_a_child_crashing_in_the_step_of_its_removal_does_not_come_back(autojump_clock: Clock) -> None:
    """Removal and restart meet in every step, under each strategy, and the removal wins."""
    for strategy in Strategy:
        for steps in range(8):
            journal: list[str] = []
            children = [ChildSpec(name, clerk(name, journal)) for name in "abc"]
            async with Supervisor(GroupSpec("wizard", children, strategy=strategy)) as supervisor:
                supervisor.kill("b", BoomError("planted"))
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                await supervisor.remove("b")
                await quiet()
                assert states(supervisor) == {"a": State.RUNNING, "c": State.RUNNING}
            assert never_two_at_once(journal)


async def test_a_child_can_be_removed_twice_at_once(autojump_clock: Clock) -> None:
    """Who comes second finds it gone, and harms nobody who has taken the name since."""
    made: list[Garage] = []
    async with tree(ChildSpec("a", garage(made))) as supervisor:
        await supervisor.ref("a", int).ask(Rent())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: supervisor.remove("a", drain_timeout=2))
            nursery.start_soon(lambda: supervisor.remove("a", drain_timeout=5))
            await trio.sleep(3)
            await supervisor.add(ChildSpec("a", clerk("a")))
        assert await supervisor.ref("a", ClerkView).ask(Echo("the new one")) == "the new one"


async def test_a_child_that_has_ended_can_be_removed(autojump_clock: Clock) -> None:
    """And its name given to another."""
    async with tree(ChildSpec("a", clerk("a"), restart=Restart.TEMPORARY)) as supervisor:
        await crash(supervisor.ref("a", ClerkView))
        await supervisor.remove("a")
        await supervisor.add(ChildSpec("a", clerk("a")))
        assert await supervisor.ref("a", ClerkView).ask(Echo("again")) == "again"


async def test_removing_nobody_is_refused(autojump_clock: Clock) -> None:
    """The message names the path."""
    async with tree(GroupSpec("inner")) as supervisor:
        with pytest.raises(KeyError, match="wizard has no child at 'inner/nobody'"):
            await supervisor.remove("inner/nobody")


async def test_a_removal_and_the_stop_of_the_tree_may_meet(autojump_clock: Clock) -> None:
    """The child is stopped once, and both end, the stop not waiting for grants that the removal has given up."""
    journal: list[str] = []
    made: list[Garage] = []
    children = [ChildSpec("a", garage(made)), ChildSpec("b", clerk("b", journal))]
    supervisor = tree(*children)
    async with trio.open_nursery() as nursery:
        async with supervisor:
            await supervisor.ref("a", int).ask(Rent())
            nursery.start_soon(lambda: supervisor.remove("a", drain_timeout=3))
            nursery.start_soon(lambda: supervisor.remove("b", drain_timeout=3))
            await quiet()
        assert trio.current_time() == 3
    await supervisor.remove("a") if "a" in states(supervisor) else None
    assert journal == ["start b", "stop b"]


async def test_a_child_can_be_removed_from_a_tree_that_has_stopped(autojump_clock: Clock) -> None:
    """There is nothing to stop, and nothing goes wrong."""
    async with tree(ChildSpec("a", clerk("a"))) as supervisor:
        pass
    await supervisor.remove("a")
    assert states(supervisor) == {}


async def test_a_child_removed_while_it_starts_is_not_waited_for(autojump_clock: Clock) -> None:
    """Its start is cancelled, and what it had acquired is released."""
    journal: list[str] = []
    async with tree() as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.add, ChildSpec("a", fragile("a", journal, 20.0)))
        await trio.sleep(1)
        await supervisor.remove("a")
        assert trio.current_time() == 1
    assert journal == ["start a", "stop a"]


async def test_a_child_removed_from_a_group_that_is_still_starting_is_left_out(autojump_clock: Clock) -> None:
    """The start goes on with the others."""
    journal: list[str] = []
    children = [ChildSpec(name, fragile(name, journal, 2.0)) for name in "abc"]

    async with tree() as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.add, GroupSpec("inner", children))
        await trio.sleep(1)
        await supervisor.remove("inner/b")
        await trio.sleep(5)
        assert states(supervisor) == dict.fromkeys(["inner", "inner/a", "inner/c"], State.RUNNING)
    assert journal == ["start a", "start c", "stop c", "stop a"]


async def test_asks_kept_by_a_removed_group_fail_at_once(autojump_clock: Clock) -> None:
    """All of it closes together, before anything is drained."""
    answers: list[object] = []
    made: list[Clerk] = []
    inner = GroupSpec("inner", [ChildSpec("a", clerk("a", None, made)), ChildSpec("b", clerk("b"))])
    async with tree(inner) as supervisor, trio.open_nursery() as nursery:
        for name in "ab":
            nursery.start_soon(collect, answers, supervisor.ref(f"inner/{name}", ClerkView), Keep())
        await quiet()
        await supervisor.remove("inner")
        await quiet()
    assert sorted(map(str, answers)) == ["wizard/inner/a has stopped", "wizard/inner/b has stopped"]
