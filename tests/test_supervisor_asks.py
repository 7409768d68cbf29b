"""What a pending ask gets when its actor crashes, is restarted, waits, or stops: the whole table."""

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
    Garage,
    Keep,
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
from wizard_actors.actor import ActorRef
from wizard_actors.errors import ActorCrashedError, ActorStoppedError, WizardError
from wizard_actors.specs import ChildSpec, GroupSpec, Restart, State, Strategy
from wizard_actors.supervisor import RestartPolicy, Supervisor

Clock = trio.testing.MockClock

DOWN_AT_ONCE = RestartPolicy(max_restarts=0)


def state_of(supervisor: Supervisor) -> State:
    """Return the state of the first child."""
    return supervisor.tree().children[0].state


async def fill(nursery: trio.Nursery, ref: ActorRef[ClerkView], answers: list[object]) -> None:
    """Have one ask kept, one queued and one waiting for room, at an actor with room for one in each."""
    nursery.start_soon(collect, answers, ref, Keep("kept"))
    await quiet()
    for _ in range(2):
        nursery.start_soon(collect, answers, ref, Echo("served"))
    await quiet()
    assert answers == []


def full_house(made: list[Clerk] | None = None, restart: Restart = Restart.PERMANENT) -> ChildSpec:
    """Return the spec of an actor with room for one kept and one queued ask."""
    return ChildSpec("a", clerk("a", None, made, room=1), mailbox=1, restart=restart)


# -- it crashed, and comes back at once


async def test_the_ask_in_hand_and_the_kept_ones_get_the_crash_and_the_rest_is_served(autojump_clock: Clock) -> None:
    """Kept: `ActorCrashedError` with its cause. Queued, or waiting for room: the next incarnation serves them."""
    bug = BoomError("planted")
    answers: list[object] = []
    async with tree(full_house()) as supervisor, trio.open_nursery() as nursery:
        await fill(nursery, supervisor.ref("a", ClerkView), answers)
        supervisor.kill("a", bug)
        await quiet()
        assert state_of(supervisor) is State.RUNNING
    crashed = [answer for answer in answers if isinstance(answer, ActorCrashedError)]
    assert [error.__cause__ for error in crashed] == [bug]
    assert [answer for answer in answers if answer not in crashed] == ["served", "served"]
    assert trio.current_time() == 0


async def test_asks_sent_while_a_restart_is_under_way_are_served_by_it(autojump_clock: Clock) -> None:
    """An immediate restart that takes its time to start still keeps its queue."""
    made: list[Clerk] = []

    class Slow(Clerk):
        async def start(self) -> None:
            await trio.sleep(3 * len(made))

    def factory(_ledger: object, _carry: object) -> Clerk:
        actor = Slow()
        made.append(actor)
        return actor

    async with tree(ChildSpec("a", factory)) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        await crash(ref)
        assert state_of(supervisor) is State.STARTING
        assert ref.available
        assert await ref.ask(Echo("served")) == "served"
        assert made[1].echoed == 1
        assert trio.current_time() == 3 + 6


async def test_a_crash_is_known_at_once_however_long_the_release_takes(autojump_clock: Clock) -> None:
    """Who waits for an answer does not wait for `stop` too."""

    class Lingering(Clerk):
        async def stop(self) -> None:
            await trio.sleep(3)

    async with tree(ChildSpec("a", lambda _ledger, _carry: Lingering())) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        answers: list[object] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, answers, ref, Keep())
            await quiet()
            supervisor.kill("a", BoomError("planted"))
        assert isinstance(answers[0], ActorCrashedError)
        assert trio.current_time() == 0


# -- it crashed, and does not come back at once


@pytest.mark.parametrize(
    ("policy", "restart", "state"),
    [
        (RestartPolicy(max_failed_starts=2), Restart.PERMANENT, State.BACKOFF),
        (DOWN_AT_ONCE, Restart.PERMANENT, State.DOWN),
        (RestartPolicy(), Restart.TEMPORARY, State.STOPPED),
    ],
    ids=["backoff", "down", "not restarted"],
)
async def test_where_no_restart_follows_at_once_every_ask_gets_the_crash(
    policy: RestartPolicy, restart: Restart, state: State, autojump_clock: Clock
) -> None:
    """Kept, queued, waiting for room, sent later: each gets `ActorCrashedError` with its cause, in no time."""
    bug = BoomError("planted")
    answers: list[object] = []
    async with Supervisor(GroupSpec("wizard", [full_house(restart=restart)], policy=policy)) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        if state is State.BACKOFF:  # the first restart is immediate
            await crash(ref)
        async with trio.open_nursery() as nursery:
            await fill(nursery, ref, answers)
            supervisor.kill("a", bug)
            await quiet()
            assert state_of(supervisor) is state
            assert not ref.available
            await collect(answers, ref, Echo("sent later"))
        assert trio.current_time() == 0
    assert [type(answer) for answer in answers] == [ActorCrashedError] * 4
    assert [getattr(answer, "__cause__", None) for answer in answers] == [bug] * 4
    assert len({id(answer) for answer in answers}) == 4, "each caller gets an error of its own"


async def test_asks_are_taken_again_after_the_backoff(autojump_clock: Clock) -> None:
    """What was refused once is not refused for ever."""
    async with tree(full_house()) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        await crash(ref)
        await crash(ref)
        assert state_of(supervisor) is State.BACKOFF
        await trio.sleep(0.2)
        assert ref.available
        assert await ref.ask(Echo("back")) == "back"


# -- it was restarted with a sibling


def siblings(strategy: Strategy = Strategy.ONE_FOR_ALL, **policy: int) -> GroupSpec:
    """Return a group whose second child is brought down with the first."""
    children = [ChildSpec("bad", clerk("bad")), ChildSpec("good", clerk("good", room=1), mailbox=1)]
    return GroupSpec("wizard", children, strategy=strategy, policy=RestartPolicy(**policy))


@pytest.mark.parametrize("strategy", [Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE])
async def test_asks_at_a_sibling_are_treated_as_in_its_own_crash(strategy: Strategy, autojump_clock: Clock) -> None:
    """Kept: `ActorCrashedError`, from what the sibling failed of. Queued, waiting: served by the next incarnation."""
    bug = BoomError("planted")
    answers: list[object] = []
    async with Supervisor(siblings(strategy)) as supervisor, trio.open_nursery() as nursery:
        await fill(nursery, supervisor.ref("good", ClerkView), answers)
        supervisor.kill("bad", bug)
        await quiet()
    (error,) = [answer for answer in answers if isinstance(answer, WizardError)]
    assert isinstance(error, ActorCrashedError)
    assert str(error) == "wizard/good was brought down with a sibling that failed: BoomError: planted"
    assert error.__cause__ is bug
    assert answers.count("served") == 2


async def test_a_siblings_crash_is_not_blamed_on_an_old_one(autojump_clock: Clock) -> None:
    """An actor that crashed long ago and is now restarted with a sibling names the sibling's failure."""
    bug = BoomError("the sibling's")
    answers: list[object] = []
    async with Supervisor(siblings()) as supervisor:
        ref = supervisor.ref("good", ClerkView)
        await crash(ref, BoomError("its own, long ago"))
        await trio.sleep(100)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, answers, ref, Keep())
            await quiet()
            supervisor.kill("bad", bug)
        (error,) = answers
        assert isinstance(error, ActorCrashedError)
        assert str(error) == "wizard/good was brought down with a sibling that failed: BoomError: the sibling's"
        assert error.__cause__ is bug


async def test_an_own_crash_is_not_blamed_on_a_sibling(autojump_clock: Clock) -> None:
    """An actor that had crashed by itself, and was still being released when a sibling fell, says its own cause."""
    own = BoomError("its own")

    class Lingering(Clerk):
        async def stop(self) -> None:
            await trio.sleep(2)

    children = [ChildSpec("a", lambda _ledger, _carry: Lingering()), ChildSpec("b", clerk("b"))]
    spec = GroupSpec("wizard", children, strategy=Strategy.ONE_FOR_ALL, policy=DOWN_AT_ONCE)
    async with Supervisor(spec) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        supervisor.kill("a", own)
        await trio.sleep(1)
        supervisor.kill("b", BoomError("the sibling's"))
        await trio.sleep(2)
        with pytest.raises(ActorCrashedError, match="wizard/a crashed: BoomError: its own") as caught:
            await ref.ask(Echo())
        assert caught.value.__cause__ is own


async def test_asks_at_a_sibling_in_backoff_get_the_crash(autojump_clock: Clock) -> None:
    """Those who restart together wait together, and refuse together."""
    bug = BoomError("planted")
    answers: list[object] = []
    async with Supervisor(siblings(max_restarts=0)) as supervisor:
        ref = supervisor.ref("good", ClerkView)
        async with trio.open_nursery() as nursery:
            await fill(nursery, ref, answers)
            supervisor.kill("bad", bug)
            await quiet()
            await collect(answers, ref, Echo("sent later"))
        assert trio.current_time() == 0
    assert [type(answer) for answer in answers] == [ActorCrashedError] * 4
    assert [getattr(answer, "__cause__", None) for answer in answers] == [bug] * 4


# -- it finished


async def test_asks_at_an_actor_that_has_finished_are_told_that_it_stopped(autojump_clock: Clock) -> None:
    """An end without a failure is no crash."""
    made: list[Clerk] = []

    class Done(Clerk):
        def finished(self) -> bool:
            return bool(self.heard)

    def factory(_ledger: object, _carry: object) -> Clerk:
        made.append(Done())
        return made[-1]

    async with tree(ChildSpec("a", factory, restart=Restart.TRANSIENT)) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        await ref.ask(Do(lambda: made[0].heard.append("done")))
        await quiet()
        with pytest.raises(ActorStoppedError, match="wizard/a has stopped"):
            await ref.ask(Echo())


# -- the tree stops


async def test_every_unanswered_ask_fails_as_soon_as_stopping_begins(autojump_clock: Clock) -> None:
    """Kept, queued, waiting for room: `ActorStoppedError` before any draining."""
    answers: list[object] = []
    ended_at: list[float] = []
    made: list[Garage] = []

    async def ask_and_note(ref: ActorRef[ClerkView], message: Keep | Echo) -> None:
        await collect(answers, ref, message)
        ended_at.append(trio.current_time())

    supervisor = tree(full_house(), ChildSpec("b", garage(made)))
    async with trio.open_nursery() as nursery:
        async with supervisor:
            ref = supervisor.ref("a", ClerkView)
            await supervisor.ref("b", int).ask(Rent())  # never comes back: the stop drains until its deadline
            nursery.start_soon(ask_and_note, ref, Keep())
            await quiet()
            nursery.start_soon(ask_and_note, ref, Echo())
            nursery.start_soon(ask_and_note, ref, Echo())
            await trio.sleep(1)
        assert trio.current_time() == 11
    assert [type(answer) for answer in answers] == [ActorStoppedError] * 3
    assert ended_at == [1.0] * 3


async def test_an_ask_sent_while_the_tree_drains_or_later_is_told_that_it_stopped(autojump_clock: Clock) -> None:
    """Intakes close first; returns are taken all the while."""
    made: list[Garage] = []
    answers: list[object] = []

    async def late(supervisor: Supervisor, lease: Lease) -> None:
        await trio.sleep(1)
        await collect(answers, supervisor.ref("b", int), Rent())
        supervisor.ref("b", int).give_back(lease, Vacate())

    supervisor = tree(ChildSpec("b", garage(made, places=2)))
    async with trio.open_nursery() as nursery:
        async with supervisor:
            nursery.start_soon(late, supervisor, await supervisor.ref("b", int).ask(Rent()))
        assert trio.current_time() == 1
    await collect(answers, supervisor.ref("b", int), Rent())
    assert [str(answer) for answer in answers] == ["wizard/b has stopped"] * 2
    assert made[0].live == set()


async def test_an_actor_that_is_down_when_the_tree_stops_says_stopped_too(autojump_clock: Clock) -> None:
    """Whatever state it was in: once the tree stops, its asks are told so."""
    policy = RestartPolicy(max_restarts=0)
    async with Supervisor(GroupSpec("wizard", [ChildSpec("a", clerk("a"))], policy=policy)) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        await crash(ref)
    with pytest.raises(ActorStoppedError):
        await ref.ask(Echo())


async def test_an_actor_that_crashes_while_the_tree_drains_says_stopped_too(autojump_clock: Clock) -> None:
    """It is not restarted any more, and its asks are told why: the tree stops."""
    made: list[Garage] = []

    async def crasher(supervisor: Supervisor, lease: Lease) -> None:
        await trio.sleep(1)
        supervisor.kill("b", BoomError("while draining"))
        await quiet()
        supervisor.ref("b", int).give_back(lease, Vacate())

    supervisor = tree(ChildSpec("b", garage(made)))
    async with trio.open_nursery() as nursery:
        async with supervisor:
            ref = supervisor.ref("b", int)
            nursery.start_soon(crasher, supervisor, await ref.ask(Rent()))
        assert trio.current_time() == 1, "the grant came back, although nobody was there to read it"
    assert len(made) == 1
    with pytest.raises(ActorStoppedError):
        await ref.ask(Rent())
