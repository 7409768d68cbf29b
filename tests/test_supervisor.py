"""A supervision tree from start to stop, and what it shows of itself."""

from __future__ import annotations

import gc
import warnings
from random import Random

import pytest
import trio
import trio.testing

from tests.kernel_actors import (
    Act,
    BoomError,
    Clerk,
    ClerkView,
    Do,
    Echo,
    Garage,
    Keep,
    Mileage,
    Rent,
    Told,
    Vacate,
    clerk,
    collect,
    crash,
    fragile,
    garage,
    lanes_of,
    quiet,
    tree,
)
from wizard_actors.errors import ActorCrashedError
from wizard_actors.event_stream import EventStream
from wizard_actors.mailbox import Lanes
from wizard_actors.specs import ActorChanged, ChildSpec, GroupSpec, State, TreeNode
from wizard_actors.supervisor import RestartPolicy, Supervisor

Clock = trio.testing.MockClock


def nested(journal: list[str]) -> tuple[ChildSpec | GroupSpec, ...]:
    """Return a tree of two levels, with an empty group in it."""
    return (
        ChildSpec("a", clerk("a", journal)),
        GroupSpec("inner", [ChildSpec("b", clerk("b", journal)), ChildSpec("c", clerk("c", journal))]),
        GroupSpec("empty"),
        ChildSpec("d", clerk("d", journal)),
    )


# -- order


async def test_children_start_in_order_and_stop_in_reverse(autojump_clock: Clock) -> None:
    """Groups stand in the order like single actors."""
    journal: list[str] = []
    async with tree(*nested(journal)):
        assert journal == ["start a", "start b", "start c", "start d"]
        journal.clear()
    assert journal == ["stop d", "stop c", "stop b", "stop a"]


async def test_a_child_starts_when_the_one_before_it_is_up(autojump_clock: Clock) -> None:
    """Starts do not overlap, and the block is entered when the last is up."""
    journal: list[str] = []
    children = [ChildSpec("a", fragile("a", journal, 2.0)), ChildSpec("b", fragile("b", journal, 3.0))]
    started: list[float] = []

    class Noting(Clerk):
        async def start(self) -> None:
            started.append(trio.current_time())

    async with tree(children[0], ChildSpec("n", lambda _ledger, _carry: Noting()), children[1]):
        assert started == [2.0]
        assert trio.current_time() == 5.0


async def test_a_child_stops_when_the_one_after_it_is_over(autojump_clock: Clock) -> None:
    """Stops do not overlap either: what an actor leans on is there until it has stopped."""
    stopped: list[tuple[str, float]] = []

    class Slow(Clerk):
        async def stop(self) -> None:
            await trio.sleep(2)
            stopped.append((self.name, trio.current_time()))

    async with tree(*(ChildSpec(name, lambda _ledger, _carry, name=name: Slow(name)) for name in "abc")):  # type: ignore[misc]  # binds the name
        pass
    assert stopped == [("c", 2.0), ("b", 4.0), ("a", 6.0)]


async def test_nothing_is_left_behind(autojump_clock: Clock) -> None:
    """No task lives on, and nothing waits to be closed by the garbage collector."""
    before = trio.lowlevel.current_statistics().tasks_living
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made: list[Garage] = []
        async with tree(*nested([]), ChildSpec("garage", garage(made)), drain_timeout=1) as supervisor:
            await supervisor.ref("garage", int).ask(Rent())
            await crash(supervisor.ref("a", ClerkView))
            await crash(supervisor.ref("a", ClerkView))
        del supervisor
        gc.collect()
    assert trio.lowlevel.current_statistics().tasks_living == before
    assert [str(warning.message) for warning in caught] == []


# -- names


@pytest.mark.parametrize("name", ["", "x/y"], ids=["empty", "with a slash"])
def test_a_name_that_cannot_be_a_path_is_refused(name: str) -> None:
    """The message says of what, and what a name has to be; of an actor, a group, a whole tree."""
    with pytest.raises(ValueError, match=r"a ChildSpec cannot be named .*: a name is not empty, and without '/'"):
        ChildSpec(name, clerk(name))
    with pytest.raises(ValueError, match=r"a GroupSpec cannot be named .*: a name is not empty, and without '/'"):
        GroupSpec(name)


def test_a_name_that_is_there_twice_is_refused() -> None:
    """The message names the group and the name."""
    with pytest.raises(ValueError, match="GroupSpec 'wizard' has two children named 'a'"):
        tree(ChildSpec("a", clerk("a")), GroupSpec("a"))


@pytest.mark.parametrize("path", ["nobody", "inner", "inner/nobody", "a/b", "", "nowhere/a"])
def test_a_reference_to_no_actor_is_refused(path: str) -> None:
    """A group is none, and neither is what lies below an actor."""
    with pytest.raises(KeyError, match="wizard has no"):
        tree(*nested([])).ref(path, object)


@pytest.mark.parametrize(
    "bounds",
    [{"mailbox": 0}, {"tells": 0}, {"start_timeout": 0}, {"shutdown_timeout": 0}],
    ids=lambda bounds: next(iter(bounds)),
)
def test_a_spec_without_bounds_is_refused(bounds: dict[str, int]) -> None:
    """Every mailbox has room for one at least, and every wait takes some time."""
    with pytest.raises(ValueError, match=next(iter(bounds))):
        ChildSpec("a", clerk("a"), **bounds)  # type: ignore[arg-type]  # one of them, by name


# -- the tree


async def test_the_tree_shows_each_actor(autojump_clock: Clock) -> None:
    """Name, path, state, restarts, last error, lanes with their bounds, waiting room, grants, messages, drops."""
    made: list[Clerk] = []
    shown: list[TreeNode] = []
    async with tree(ChildSpec("a", clerk("a", None, made, room=1), mailbox=2, tells=1)) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        await crash(ref, BoomError("planted"))
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(collect, [], ref, Keep())
            await quiet()

            def tell_and_look() -> None:
                ref.tell(Told("dropped"))
                ref.tell(Told("waits"))
                shown.append(supervisor.tree())

            ref.tell(Act(tell_and_look))
            nursery.cancel_scope.cancel()
    lanes = Lanes(
        asks=2,
        asks_bound=2,
        senders_waiting=1,
        returns=0,
        tells=1,
        tells_bound=1,
        kept=1,
        grants=0,
        handled=1,
        dropped=1,
    )
    actor = TreeNode("a", "wizard/a", State.RUNNING, 1, "BoomError: planted", lanes)
    assert shown == [TreeNode("wizard", "wizard", State.RUNNING, 0, None, None, (actor,))]


async def test_the_tree_shows_live_grants_and_unread_returns(autojump_clock: Clock) -> None:
    """An end counts as a live grant until the actor has read it."""
    made: list[Garage] = []
    async with tree(ChildSpec("a", garage(made, places=2))) as supervisor:
        ref = supervisor.ref("a", int)
        leases = [await ref.ask(Rent()) for _ in range(2)]

        def return_one() -> object:
            ref.notify(leases[0], Mileage(1))
            ref.give_back(leases[0], Vacate())
            lanes = lanes_of(supervisor)
            return lanes.grants, lanes.returns, supervisor.outstanding

        assert await ref.ask(Do(return_one)) == (2, 2, {"wizard/a": 1})
        ref.give_back(leases[1], Vacate())


async def test_walk_yields_parents_before_children(autojump_clock: Clock) -> None:
    """Every node once, in starting order."""
    async with tree(*nested([])) as supervisor:
        nodes = list(supervisor.tree().walk())
    paths = ["wizard", "wizard/a", "wizard/inner", "wizard/inner/b", "wizard/inner/c", "wizard/empty", "wizard/d"]
    assert [node.path for node in nodes] == paths
    assert [node.name for node in nodes] == [path.rpartition("/")[2] for path in paths]
    assert [node.lanes is None for node in nodes] == [
        name in {"wizard", "inner", "empty"} for name in map(_name, paths)
    ]


def _name(path: str) -> str:
    return path.rpartition("/")[2]


async def test_every_node_says_what_it_is_doing(autojump_clock: Clock) -> None:
    """Idle before the block, running in it, stopped after it."""
    supervisor = tree(*nested([]))
    assert {node.state for node in supervisor.tree().walk()} == {State.IDLE}
    async with supervisor:
        assert {node.state for node in supervisor.tree().walk()} == {State.RUNNING}
    assert {node.state for node in supervisor.tree().walk()} == {State.STOPPED}


# -- faults from outside


async def test_kill_crashes_an_actor_as_a_bug_in_a_handler_would(autojump_clock: Clock) -> None:
    """It is restarted, its kept asks fail, and the tree shows the error."""
    bug = BoomError("injected")
    answers: list[object] = []
    async with tree(*nested([])) as supervisor, trio.open_nursery() as nursery:
        ref = supervisor.ref("inner/b", ClerkView)
        nursery.start_soon(collect, answers, ref, Keep())
        await quiet()
        supervisor.kill("inner/b", bug)
        await quiet()
        assert await ref.ask(Echo("back")) == "back"
        assert [node.error for node in supervisor.tree().walk() if node.restarts] == ["BoomError: injected"]
    assert isinstance(answers[0], ActorCrashedError)
    assert answers[0].__cause__ is bug


async def test_kill_of_nobody_is_refused(autojump_clock: Clock) -> None:
    """A fault plan that names the wrong actor says so."""
    async with tree(*nested([])) as supervisor:
        with pytest.raises(KeyError, match="no actor at 'inner'"):
            supervisor.kill("inner", BoomError("planted"))


# -- events


async def test_every_change_of_an_actor_is_published(autojump_clock: Clock) -> None:
    """Crashes, comebacks, backoffs, DOWN and the end, each with its instant and its reason; first starts are none."""
    events = EventStream()
    policy = RestartPolicy(max_restarts=2, min_backoff=1.0)
    spec = GroupSpec("wizard", [ChildSpec("a", clerk("a")), ChildSpec("b", clerk("b"))], policy=policy)
    with events.subscribe() as subscription:
        async with Supervisor(spec, rng=Random(3), events=events) as supervisor:
            for number in range(3):
                await crash(supervisor.ref("a", ClerkView), BoomError(str(number)))
                await trio.sleep(1)
        changes = subscription.drain()
    seen = [
        (event.path.removeprefix("wizard/"), event.state.value, event.error)
        for event in changes
        if isinstance(event, ActorChanged)
    ]
    assert seen == [
        ("a", "crashed", "BoomError: 0"),
        ("a", "running", None),
        ("a", "crashed", "BoomError: 1"),
        ("a", "backoff", "BoomError: 1"),
        ("a", "running", None),
        ("a", "crashed", "BoomError: 2"),
        ("a", "down", "BoomError: 2"),
        ("a", "stopped", "BoomError: 2"),
        ("b", "stopped", None),
    ]
    assert [event.at for event in changes] == sorted(event.at for event in changes)
    assert (changes[0].at, changes[-1].at) == (0.0, 3.0)
