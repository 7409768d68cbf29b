"""Giving up: escalation through groups and at the root, bugs of the supervisor itself, and who hears of them."""

from __future__ import annotations

from typing import NoReturn

import pytest
import trio
import trio.testing

from tests.kernel_actors import (
    BoomError,
    Clerk,
    ClerkView,
    Do,
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
from wizard_actors.group import Group
from wizard_actors.restarts import RestartWindow
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


# -- within the tree


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

        async with (
            trio.open_nursery() as nursery,
            tree(ChildSpec("g", garage(made)), escalating("inner", *children), drain_timeout=1) as supervisor,
        ):
            await supervisor.ref("g", int).ask(Rent())
            supervisor.kill("inner/a", BoomError("planted"))
            nursery.start_soon(add, supervisor, refused, steps)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        assert refused or steps < 4, "stopping had begun by then"
        assert set(states(supervisor).values()) == {State.STOPPED}


# -- at the root


def doomed(*children: ChildSpec | GroupSpec) -> Supervisor:
    """Return a tree whose root gives up at the first crash."""
    return Supervisor(escalating("wizard", *children))


async def run_and_crash(supervisor: Supervisor, *paths: str, error: Exception | None = None) -> None:
    """Run a body that crashes the actors at `paths` and then waits for ever."""
    async with supervisor:
        for path in paths:
            supervisor.kill(path, error or BoomError("planted"))
        await trio.sleep_forever()


async def test_a_root_that_gives_up_cancels_the_body_and_raises_from_the_cause(autojump_clock: Clock) -> None:
    """One `SupervisorError`, in no group, whose causes lead to the bug; the tree is down in order."""
    bug = BoomError("planted")
    journal: list[str] = []
    supervisor = doomed(ChildSpec("a", clerk("a", journal)), ChildSpec("b", clerk("b", journal)))
    with pytest.raises(SupervisorError, match="wizard cannot go on: wizard gives up: wizard/a crashes") as caught:
        await run_and_crash(supervisor, "a", error=bug)
    assert isinstance(caught.value.__cause__, SupervisorError)
    assert caught.value.__cause__.__cause__ is bug
    assert caught.value.actor == "wizard"
    assert journal == ["start a", "start b", "stop a", "stop b"]
    assert set(states(supervisor).values()) == {State.STOPPED}


async def test_escalation_climbs_through_every_group_that_gives_up(autojump_clock: Clock) -> None:
    """Each level chains its own error from the one below."""
    bug = BoomError("planted")
    with pytest.raises(SupervisorError) as caught:
        await run_and_crash(doomed(escalating("inner", ChildSpec("a", clerk("a")))), "inner/a", error=bug)
    causes = [caught.value.__cause__]
    while causes[-1] is not None:
        causes.append(causes[-1].__cause__)
    assert [str(cause) for cause in causes[:2]] == [
        "wizard gives up: wizard/inner crashes too often",
        "wizard/inner gives up: wizard/inner/a crashes too often",
    ]
    assert causes[2:] == [bug, None]


async def test_the_bodys_own_error_wins(autojump_clock: Clock) -> None:
    """A body that answers its cancellation with an error of its own is heard."""
    own = ValueError("the body's own")

    async def body() -> None:
        async with doomed(ChildSpec("a", clerk("a"))) as supervisor:
            supervisor.kill("a", BoomError("planted"))
            try:
                await trio.sleep_forever()
            finally:
                raise own

    with pytest.raises(ValueError, match="the body's own") as caught:
        await body()
    assert caught.value is own


async def test_a_body_that_ends_well_just_as_the_root_gives_up_is_told(autojump_clock: Clock) -> None:
    """The failure is not lost because nobody was there to be cancelled."""

    async def body() -> None:
        async with doomed(ChildSpec("a", clerk("a"))) as supervisor:
            supervisor.kill("a", BoomError("planted"))
            with trio.CancelScope(shield=True):
                await trio.sleep(1)

    with pytest.raises(SupervisorError):
        await body()


async def test_a_cancellation_from_outside_is_never_turned_into_the_failure(autojump_clock: Clock) -> None:
    """Where both meet, `Cancelled` passes as what it is."""
    with trio.CancelScope() as scope:
        async with doomed(ChildSpec("a", clerk("a"))) as supervisor:
            supervisor.kill("a", BoomError("planted"))
            scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_asks_under_way_end_when_the_root_gives_up(autojump_clock: Clock) -> None:
    """Nobody hangs on an actor that will never answer, not even from outside the body."""
    answers: list[object] = []
    supervisor = doomed(ChildSpec("a", clerk("a")), ChildSpec("b", clerk("b", room=0)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect, answers, supervisor.ref("b", ClerkView), Echo())
        with pytest.raises(SupervisorError):
            await run_and_crash(supervisor, "a")
        await quiet()
        assert [str(answer) for answer in answers] == ["wizard/b has stopped"]


async def test_a_tree_that_gives_up_before_it_is_up_does_not_enter_the_body(autojump_clock: Clock) -> None:
    """`async with` itself raises, when everything that had started is down."""
    journal: list[str] = []
    children = [ChildSpec("a", fragile("a", journal, BoomError("no"))), ChildSpec("b", fragile("b", journal, 5.0))]
    with pytest.raises(SupervisorError) as caught:
        async with doomed(*children):
            journal.append("body")
    assert isinstance(caught.value.__cause__, SupervisorError)
    assert "body" not in journal
    assert journal.count("start b") <= journal.count("stop b")
    assert trio.current_time() == 0


# -- bugs of the supervisor itself


def broken(*_args: object, **_settings: object) -> NoReturn:
    """Stand in for a part of the supervisor that has a bug."""
    raise BoomError("a bug of the supervisor")


@pytest.mark.parametrize(("part", "name"), [(RestartWindow, "crashed"), (Group, "ended")])
async def test_a_bug_in_the_supervisor_ends_the_tree_loudly(
    part: type, name: str, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body is cancelled and `SupervisorError` raised from the bug: no group of one, no silent hang."""
    monkeypatch.setattr(part, name, broken)
    journal: list[str] = []
    with pytest.raises(SupervisorError, match="wizard cannot go on: a bug of the supervisor") as caught:
        await run_and_crash(tree(ChildSpec("a", clerk("a")), ChildSpec("b", clerk("b", journal))), "a")
    assert isinstance(caught.value.__cause__, BoomError)
    assert str(caught.value.__cause__) == "a bug of the supervisor"
    assert journal == ["start b", "stop b"]


async def test_the_first_of_several_failures_is_the_one_that_is_raised(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went wrong afterwards does not mask it."""
    bugs = [BoomError("second"), BoomError("first")]

    def fail(*_args: object, **_settings: object) -> NoReturn:
        raise bugs.pop()

    monkeypatch.setattr(RestartWindow, "crashed", fail)
    with pytest.raises(SupervisorError, match="first"):
        await run_and_crash(tree(ChildSpec("a", clerk("a")), ChildSpec("b", clerk("b"))), "a", "b")
    assert bugs == []


async def test_what_is_no_exception_ends_the_tree_and_hangs_nobody(autojump_clock: Clock) -> None:
    """A `SystemExit` in a handler is no crash to recover from: everything stops, and it comes out."""
    journal: list[str] = []

    def leave() -> NoReturn:
        raise SystemExit(3)

    with pytest.raises(BaseExceptionGroup) as caught:
        async with tree(ChildSpec("a", clerk("a")), ChildSpec("b", clerk("b", journal))) as supervisor:
            await supervisor.ref("a", ClerkView).ask(Do(leave))
    assert [type(error) for error in caught.value.exceptions] == [SystemExit]
    assert journal == ["start b", "stop b"]


async def test_an_actor_that_stops_badly_while_the_tree_gives_up_changes_nothing(autojump_clock: Clock) -> None:
    """The failure that is raised is the one that ended the tree."""

    class Unstoppable(Clerk):
        async def stop(self) -> None:
            raise BoomError("cannot stop")

    unstoppable = ChildSpec("b", lambda _ledger, _carry: Unstoppable())
    with pytest.raises(SupervisorError, match="wizard/a crashes too often"):
        await run_and_crash(doomed(ChildSpec("a", clerk("a")), unstoppable), "a")
