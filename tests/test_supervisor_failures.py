"""Giving up at the root, and bugs of the supervisor itself: who hears of them, and how."""

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
    clerk,
    collect,
    fragile,
    quiet,
    tree,
)
from wizard_actors.errors import SupervisorError
from wizard_actors.group import Group
from wizard_actors.restarts import RestartWindow
from wizard_actors.specs import ChildSpec, GroupSpec, OnGiveUp, Restart, State
from wizard_actors.supervisor import RestartPolicy, Supervisor

Clock = trio.testing.MockClock

NO_RESTARTS = RestartPolicy(max_restarts=0)


def escalating(name: str, *children: ChildSpec | GroupSpec, restart: Restart = Restart.PERMANENT) -> GroupSpec:
    """Return a group that fails as a whole at the first crash of a child."""
    return GroupSpec(name, children, on_give_up=OnGiveUp.ESCALATE, policy=NO_RESTARTS, restart=restart)


def states(supervisor: Supervisor) -> dict[str, State]:
    """Return the state of every node below the root, by its path."""
    return {node.path.removeprefix("wizard/"): node.state for node in list(supervisor.tree().walk())[1:]}


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

    with pytest.RaisesGroup(SystemExit):
        async with tree(ChildSpec("a", clerk("a")), ChildSpec("b", clerk("b", journal))) as supervisor:
            await supervisor.ref("a", ClerkView).ask(Do(leave))
    assert journal == ["start b", "stop b"]


async def test_an_actor_that_stops_badly_while_the_tree_gives_up_changes_nothing(autojump_clock: Clock) -> None:
    """The failure that is raised is the one that ended the tree."""

    class Unstoppable(Clerk):
        async def stop(self) -> None:
            raise BoomError("cannot stop")

    unstoppable = ChildSpec("b", lambda _ledger, _carry: Unstoppable())
    with pytest.raises(SupervisorError, match="wizard/a crashes too often"):
        await run_and_crash(doomed(ChildSpec("a", clerk("a")), unstoppable), "a")
