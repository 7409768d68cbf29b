"""Who is restarted, in which order, and when: strategies, restart kinds, backoff, DOWN."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.kernel_actors import (
    BoomError,
    Clerk,
    ClerkView,
    Do,
    Echo,
    clerk,
    collect,
    crash,
    fragile,
    never_two_at_once,
    quiet,
    tree,
)
from wizard_actors.actor import Actor, Ledger
from wizard_actors.errors import ActorCrashedError
from wizard_actors.specs import ChildSpec, GroupSpec, Restart, State, Strategy, TreeNode
from wizard_actors.supervisor import RestartPolicy, Supervisor

Clock = trio.testing.MockClock


def node(supervisor: Supervisor, name: str = "a") -> TreeNode:
    """Return the node called `name`, wherever it stands."""
    return next(node for node in supervisor.tree().walk() if node.name == name)


def trio_of(
    journal: list[str], strategy: Strategy = Strategy.ONE_FOR_ONE, *, b: Restart = Restart.PERMANENT
) -> GroupSpec:
    """Return a group of a, b and c; `b` says how b is restarted."""
    kinds = {"a": Restart.PERMANENT, "b": b, "c": Restart.PERMANENT}
    children = [ChildSpec(name, clerk(name, journal), restart=kind) for name, kind in kinds.items()]
    return GroupSpec("wizard", children, strategy=strategy)


# -- the three strategies


@pytest.mark.parametrize(
    ("strategy", "after_the_crash"),
    [
        (Strategy.ONE_FOR_ONE, ["stop b", "start b"]),
        (Strategy.ONE_FOR_ALL, ["stop b", "stop c", "stop a", "start a", "start b", "start c"]),
        (Strategy.REST_FOR_ONE, ["stop b", "stop c", "start b", "start c"]),
    ],
)
async def test_a_strategy_says_who_restarts_with_a_crashed_child(
    strategy: Strategy, after_the_crash: list[str], autojump_clock: Clock
) -> None:
    """Those who restart with it stop in reverse order, and start in order."""
    journal: list[str] = []
    async with Supervisor(trio_of(journal, strategy)) as supervisor:
        journal.clear()
        supervisor.kill("b", BoomError("planted"))
        await quiet()
        assert journal == after_the_crash
        assert {child.state for child in supervisor.tree().children} == {State.RUNNING}


@pytest.mark.parametrize("strategy", [Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE])
async def test_children_that_crash_together_restart_together_once(strategy: Strategy, autojump_clock: Clock) -> None:
    """Two crashes at one instant are one restart of the group."""
    journal: list[str] = []
    async with Supervisor(trio_of(journal, strategy)) as supervisor:
        for name in ("a", "c"):
            supervisor.kill(name, BoomError("planted"))
        await quiet()
        assert [child.restarts for child in supervisor.tree().children] == [1, 1, 1]
        assert trio.current_time() == 0
    assert never_two_at_once(journal)


@pytest.mark.parametrize("strategy", [Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE])
async def test_a_first_start_that_fails_hands_over_to_the_restart_of_the_group(
    strategy: Strategy, autojump_clock: Clock
) -> None:
    """No child is ever started twice at once, and all are started in order in the end."""
    journal: list[str] = []
    children = [
        ChildSpec("a", fragile("a", journal, 1.0)),
        ChildSpec("b", fragile("b", journal, BoomError("the first start fails"))),
        ChildSpec("c", fragile("c", journal, 1.0)),
        ChildSpec("d", fragile("d", journal, 1.0)),
    ]
    async with Supervisor(GroupSpec("wizard", children, strategy=strategy)) as supervisor:
        await trio.sleep(20)
        assert {child.state for child in supervisor.tree().children} == {State.RUNNING}
        assert await supervisor.ref("d", ClerkView).ask(Echo("up")) == "up"
    assert never_two_at_once(journal)
    assert [line for line in journal if line.startswith("start")][-3:] == ["start b", "start c", "start d"]


async def test_a_child_that_crashes_while_its_group_starts_does_not_double_the_start(autojump_clock: Clock) -> None:
    """The restart of the group takes over from its first start, wherever that has got to."""
    journal: list[str] = []
    children = [
        ChildSpec("a", clerk("a", journal)),
        ChildSpec("b", fragile("b", journal, 5.0)),
        ChildSpec("c", fragile("c", journal, 5.0)),
    ]
    supervisor = Supervisor(GroupSpec("wizard", children, strategy=Strategy.ONE_FOR_ALL))

    async def crash_early() -> None:
        await trio.sleep(2)
        supervisor.kill("a", BoomError("while b starts"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(crash_early)
        async with supervisor:
            await trio.sleep(30)
            assert {child.state for child in supervisor.tree().children} == {State.RUNNING}
    assert never_two_at_once(journal)


async def test_children_restarted_with_another_do_not_count_as_crashed(autojump_clock: Clock) -> None:
    """The group has its five restarts, and a TRANSIENT child that was only brought down comes back each time."""
    children = [ChildSpec("a", clerk("a")), ChildSpec("b", clerk("b"), restart=Restart.TRANSIENT)]
    async with Supervisor(GroupSpec("wizard", children, strategy=Strategy.ONE_FOR_ALL)) as supervisor:
        for restarts in range(1, 6):
            await crash(supervisor.ref("a", ClerkView))
            await trio.sleep(2)
            assert [(child.state, child.restarts) for child in supervisor.tree().children] == [
                (State.RUNNING, restarts)
            ] * 2


@pytest.mark.parametrize("strategy", [Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE])
async def test_a_child_that_fails_while_its_group_comes_back_leaves_nobody_out(
    strategy: Strategy, autojump_clock: Clock
) -> None:
    """Whoever was still to be started is started by the next attempt."""
    journal: list[str] = []
    children = [
        ChildSpec("a", clerk("a", journal)),
        ChildSpec("b", fragile("b", journal, 0.0, BoomError("planted"))),
        ChildSpec("c", clerk("c", journal)),
        ChildSpec("d", clerk("d", journal)),
    ]
    async with Supervisor(GroupSpec("wizard", children, strategy=strategy)) as supervisor:
        supervisor.kill("a", BoomError("planted"))
        await trio.sleep(20)
        assert {child.state for child in supervisor.tree().children} == {State.RUNNING}
    assert never_two_at_once(journal)
    assert journal.count("start d") == 2, "nobody is started only to be stopped for the one that failed before it"


async def test_a_removed_culprit_takes_nobody_down_with_it_for_good(autojump_clock: Clock) -> None:
    """Who was brought down with a child comes back, also where that child is removed in the meantime."""
    policy = RestartPolicy(max_restarts=0)
    children = [ChildSpec(name, clerk(name)) for name in ("a", "b", "c")]
    spec = GroupSpec("wizard", children, strategy=Strategy.REST_FOR_ONE, policy=policy)
    async with Supervisor(spec) as supervisor:
        supervisor.kill("b", BoomError("planted"))
        await quiet()
        await supervisor.add(ChildSpec("d", clerk("d")))
        await supervisor.remove("b")
        supervisor.kill("d", BoomError("planted"))
        await trio.sleep(200)
        states = {child.name: child.state for child in supervisor.tree().children}
        assert states == dict.fromkeys(["a", "c", "d"], State.RUNNING)


async def test_an_earlier_sibling_that_falls_meanwhile_does_not_wait_for_the_later_ones(autojump_clock: Clock) -> None:
    """In REST_FOR_ONE an earlier child's crash widens the restart at once, also while the later ones still stop."""

    class Lingering(Clerk):
        async def stop(self) -> None:
            await trio.sleep(2)

    policy = RestartPolicy(max_restarts=1)
    children = [
        ChildSpec("a", clerk("a")),
        ChildSpec("b", clerk("b")),
        ChildSpec("c", lambda _ledger, _carry: Lingering("c")),
    ]
    spec = GroupSpec("wizard", children, strategy=Strategy.REST_FOR_ONE, policy=policy)
    async with Supervisor(spec) as supervisor:
        supervisor.kill("b", BoomError("planted"))
        await trio.sleep(10)
        supervisor.kill("b", BoomError("one too many"))
        await trio.sleep(1)
        supervisor.kill("a", BoomError("while c stops"))
        await trio.sleep(3)
        answers: list[object] = []
        await collect(answers, supervisor.ref("a", ClerkView), Echo())
        assert isinstance(answers[0], ActorCrashedError)
        assert trio.current_time() == 14


# -- the three restart kinds


@pytest.mark.parametrize(
    ("restart", "after_a_crash", "after_the_end"),
    [
        (Restart.PERMANENT, State.RUNNING, State.RUNNING),
        (Restart.TRANSIENT, State.RUNNING, State.STOPPED),
        (Restart.TEMPORARY, State.STOPPED, State.STOPPED),
    ],
)
async def test_a_restart_kind_says_whether_a_child_comes_back(
    restart: Restart, after_a_crash: State, after_the_end: State, autojump_clock: Clock
) -> None:
    """PERMANENT always, TRANSIENT after a crash but not when it has finished, TEMPORARY never."""
    made: list[Clerk] = []

    class Done(Clerk):
        def finished(self) -> bool:
            return bool(self.heard)

    def factory(ledger: Ledger, carry: object) -> Actor:
        made.append(Done())
        return made[-1]

    children = [ChildSpec("crashes", clerk("crashes"), restart=restart), ChildSpec("ends", factory, restart=restart)]
    async with tree(*children) as supervisor:
        supervisor.kill("crashes", BoomError("planted"))
        await supervisor.ref("ends", ClerkView).ask(Do(lambda: made[0].heard.append("done")))
        await quiet()
        assert node(supervisor, "crashes").state is after_a_crash
        assert node(supervisor, "ends").state is after_the_end
        assert node(supervisor, "ends").error is None


async def test_a_temporary_childs_crash_is_its_own(autojump_clock: Clock) -> None:
    """Even ONE_FOR_ALL restarts nobody for a child that is not restarted itself."""
    journal: list[str] = []
    async with Supervisor(trio_of(journal, Strategy.ONE_FOR_ALL, b=Restart.TEMPORARY)) as supervisor:
        supervisor.kill("b", BoomError("planted"))
        await quiet()
        assert [child.state for child in supervisor.tree().children] == [State.RUNNING, State.STOPPED, State.RUNNING]
        assert journal[3:] == ["stop b"]


@pytest.mark.parametrize("gone_before", [True, False], ids=["has ended", "is running"])
async def test_a_temporary_child_goes_down_with_its_siblings_and_stays_down(
    gone_before: bool, autojump_clock: Clock
) -> None:
    """Never restarted means not with others either; and their restart does not stumble over it."""
    journal: list[str] = []
    async with Supervisor(trio_of(journal, Strategy.ONE_FOR_ALL, b=Restart.TEMPORARY)) as supervisor:
        ref = supervisor.ref("b", ClerkView)
        if gone_before:
            await crash(ref)
        for name in ("a", "c", "a"):
            supervisor.kill(name, BoomError("planted"))
            await trio.sleep(5)
        assert [child.state for child in supervisor.tree().children] == [State.RUNNING, State.STOPPED, State.RUNNING]
        assert [child.restarts for child in supervisor.tree().children] == [3, 0, 3]
        with pytest.raises(ActorCrashedError):
            await ref.ask(Echo())
    assert journal.count("start b") == 1


# -- backoff, DOWN


async def test_only_the_first_restart_is_immediate(autojump_clock: Clock) -> None:
    """The next ones wait, no longer than their bound; then the actor serves again."""
    async with tree(ChildSpec("a", clerk("a"))) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        await crash(ref)
        assert node(supervisor).state is State.RUNNING
        for bound in (0.2, 0.4, 0.8, 1.6):
            await crash(ref)
            assert node(supervisor).state is State.BACKOFF
            await trio.sleep(bound)
            assert node(supervisor).state is State.RUNNING
        assert node(supervisor).restarts == 5


async def test_after_thirty_healthy_seconds_a_restart_is_immediate_again(autojump_clock: Clock) -> None:
    """A crash now and then never costs a wait."""
    async with tree(ChildSpec("a", clerk("a"))) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        for restarts in range(1, 20):
            await crash(ref)
            assert node(supervisor).state is State.RUNNING
            assert node(supervisor).restarts == restarts
            await trio.sleep(30)


async def test_an_actor_that_crashes_too_often_is_down_and_tried_again_every_minute(autojump_clock: Clock) -> None:
    """Its neighbours never notice, and its tree goes on."""
    journal: list[str] = []
    async with tree(ChildSpec("a", clerk("a")), ChildSpec("b", clerk("b", journal))) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        for _ in range(6):
            await crash(ref)
            if node(supervisor).state is State.BACKOFF:
                await trio.sleep(2)
        for _ in range(3):
            assert node(supervisor).state is State.DOWN
            down_at = trio.current_time()
            await trio.sleep_until(down_at + 59.9)
            assert node(supervisor).state is State.DOWN
            await trio.sleep_until(down_at + 60.1)
            assert node(supervisor).state is State.RUNNING
            await crash(ref)
        assert await supervisor.ref("b", ClerkView).ask(Echo("never noticed")) == "never noticed"
        assert journal == ["start b", "echo never noticed"]
        assert supervisor.tree().state is State.RUNNING


async def test_an_actor_that_is_down_recovers_where_its_trouble_has_passed(autojump_clock: Clock) -> None:
    """After a healthy run it starts afresh: the next crash is restarted at once."""
    journal: list[str] = []
    starts = [BoomError("no database")] * 3
    async with tree(ChildSpec("a", fragile("a", journal, *starts))) as supervisor:
        await trio.sleep(2)
        assert node(supervisor).state is State.DOWN
        await trio.sleep(100)
        assert node(supervisor).state is State.RUNNING
        await crash(supervisor.ref("a", ClerkView))
        assert node(supervisor).state is State.RUNNING


async def test_a_kill_reaches_only_the_incarnation_that_it_was_meant_for(autojump_clock: Clock) -> None:
    """An actor that is down already is not crashed again by it when it comes back."""
    spec = GroupSpec("wizard", [ChildSpec("a", clerk("a"))], policy=RestartPolicy(max_restarts=0))
    async with Supervisor(spec) as supervisor:
        await crash(supervisor.ref("a", ClerkView))
        supervisor.kill("a", BoomError("it is down already"))
        await trio.sleep(61)
        assert node(supervisor).state is State.RUNNING
        assert node(supervisor).error == "BoomError: planted"
