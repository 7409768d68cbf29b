"""Starts, stops and snapshots that fail: all of them are crashes of their actor, and of nobody else."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from tests.kernel_actors import (
    BoomError,
    Clerk,
    ClerkView,
    Do,
    clerk,
    collect,
    crash,
    fragile,
    quiet,
    tree,
)
from wizard_actors.actor import Actor, Ledger
from wizard_actors.specs import ChildSpec, GroupSpec, State, Strategy, TreeNode
from wizard_actors.supervisor import Supervisor

Clock = trio.testing.MockClock


def node(supervisor: Supervisor, name: str = "a") -> TreeNode:
    """Return the node called `name`, wherever it stands."""
    return next(node for node in supervisor.tree().walk() if node.name == name)


async def test_a_start_that_fails_is_a_crash(autojump_clock: Clock) -> None:
    """What had been acquired half-way is released, the cause is shown, and the tree comes up."""
    journal: list[str] = []
    async with tree(ChildSpec("a", fragile("a", journal, BoomError("no file")))) as supervisor:
        await quiet()
        assert journal == ["start a", "stop a", "start a"]
        assert (node(supervisor).state, node(supervisor).error) == (State.RUNNING, "BoomError: no file")


async def test_a_factory_that_raises_is_a_crash(autojump_clock: Clock) -> None:
    """There is no actor to release, and its failure is like any other's."""
    failures = [BoomError("no configuration")]
    made: list[Clerk] = []

    def factory(ledger: Ledger, carry: object) -> Actor:
        if failures:
            raise failures.pop()
        made.append(Clerk())
        return made[-1]

    async with tree(ChildSpec("a", factory)) as supervisor:
        await quiet()
        assert (node(supervisor).state, node(supervisor).error) == (State.RUNNING, "BoomError: no configuration")
        assert made[0].journal == ["start clerk"]


async def test_a_start_that_takes_too_long_is_a_crash(autojump_clock: Clock) -> None:
    """`start_timeout` bounds it; what it had acquired is released."""
    journal: list[str] = []
    spec = ChildSpec("a", fragile("a", journal, 99.0), start_timeout=4)
    async with tree(spec) as supervisor:
        assert trio.current_time() == 4
        await quiet()
        assert node(supervisor).error == "SupervisorError: wizard/a did not start in 4 s"
        assert journal == ["start a", "stop a", "start a"]


async def test_failed_starts_in_a_row_put_an_actor_down_and_the_others_start(autojump_clock: Clock) -> None:
    """Three, and it is tried again in a minute; the block is entered all the same."""
    journal: list[str] = []
    children = [
        ChildSpec("a", fragile("a", journal, *[BoomError("never")] * 99)),
        ChildSpec("b", clerk("b", journal)),
    ]
    async with tree(*children) as supervisor:
        assert node(supervisor, "b").state is State.RUNNING
        await trio.sleep(2)
        assert (node(supervisor).state, journal.count("start a")) == (State.DOWN, 3)
        await trio.sleep(60)
        assert (node(supervisor).state, journal.count("start a")) == (State.DOWN, 4)


async def test_a_snapshot_that_raises_is_a_crash_too(autojump_clock: Clock) -> None:
    """Whatever of an actor's code raises is the actor's crash, never the supervisor's."""

    class Opaque(Clerk):
        def snapshot(self) -> ClerkView:
            raise BoomError("nothing to see")

    async with tree(ChildSpec("a", lambda _ledger, _carry: Opaque())) as supervisor:
        await trio.sleep(2)
        assert node(supervisor).error == "BoomError: nothing to see"


class Unstoppable(Clerk):
    """Its `stop` fails."""

    async def stop(self) -> None:
        """Fail."""
        raise BoomError("cannot stop")


async def test_a_stop_that_fails_does_not_mask_the_crash_before_it(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The first failure is the cause that everybody is told; the second one is logged."""
    bug = BoomError("the first cause")
    answers: list[object] = []
    async with tree(ChildSpec("a", lambda _ledger, _carry: Unstoppable())) as supervisor:

        def fail() -> None:
            raise bug

        await collect(answers, supervisor.ref("a", ClerkView), Do(fail))
        await quiet()
        assert node(supervisor).error == "BoomError: the first cause"
        assert getattr(answers[0], "__cause__", None) is bug
    assert "wizard/a crashed: BoomError('the first cause')" in caplog.messages
    assert "wizard/a failed to stop: BoomError('cannot stop')" in caplog.messages


async def test_a_stop_that_fails_is_a_failure_that_keeps_nobody_down(autojump_clock: Clock) -> None:
    """Restarted with a sibling, an actor that cannot stop well is started again all the same."""
    made: list[Clerk] = []

    def factory(ledger: Ledger, carry: object) -> Actor:
        made.append(Unstoppable())
        return made[-1]

    children = [ChildSpec("a", factory), ChildSpec("b", clerk("b"))]
    async with Supervisor(GroupSpec("wizard", children, strategy=Strategy.ONE_FOR_ALL)) as supervisor:
        supervisor.kill("b", BoomError("planted"))
        await quiet()
        assert (node(supervisor).state, node(supervisor).error) == (State.RUNNING, "BoomError: cannot stop")
        assert len(made) == 2


async def test_a_stop_that_takes_too_long_is_cut_short_and_named(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """`shutdown_timeout` bounds it, also at a restart; a straggler is never silent."""

    class Slow(Clerk):
        async def stop(self) -> None:
            await trio.sleep(1000)

    spec = ChildSpec("a", lambda _ledger, _carry: Slow(), shutdown_timeout=3)
    async with tree(spec) as supervisor:
        with caplog.at_level(logging.WARNING):
            await crash(supervisor.ref("a", ClerkView))
            await trio.sleep(4)
        assert node(supervisor).state is State.RUNNING
        assert "wizard/a did not stop in 3 s; its stop was cancelled" in caplog.messages
    assert trio.current_time() == 7
