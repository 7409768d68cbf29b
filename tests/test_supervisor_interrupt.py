"""Ctrl-C: it hits the body and nothing else, the tree stops in order, and a second one stops it at once.

Real signals, so each test is a Trio run of its own in the main thread, under a virtual clock.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Sequence
from random import Random

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
    Told,
    Vacate,
    clerk,
    collect,
    crash,
    fragile,
    garage,
    quiet,
    tree,
)
from wizard_actors.event_stream import EventStream
from wizard_actors.events import Event
from wizard_actors.specs import ChildSpec, GroupSpec, State, Strategy
from wizard_actors.supervisor import RestartPolicy, Supervisor


def ctrl_c() -> None:
    """Do what the terminal does."""
    signal.raise_signal(signal.SIGINT)


@trio.lowlevel.enable_ki_protection
async def strike(instants: Sequence[float], steps: Sequence[int]) -> None:
    """Do it at each of `instants`, then after each number of `steps` of the scheduler; itself, this task is safe."""
    for instant in instants:
        await trio.sleep_until(instant)
        ctrl_c()
    for number in steps:
        for _ in range(number):
            await trio.lowlevel.checkpoint()
        ctrl_c()


def interrupted(main: Callable[[], Awaitable[object]], *instants: float, steps: Sequence[int] = ()) -> float:
    """Run `main` under Ctrl-C and return the instant of its end, which has to be a `KeyboardInterrupt`, in no group."""
    ended: list[float] = []

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(strike, instants, steps)
            try:
                await main()
            except KeyboardInterrupt:
                ended.append(trio.current_time())
            nursery.cancel_scope.cancel()

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
    assert len(ended) == 1, "it ended without a KeyboardInterrupt"
    return ended[0]


# -- in the body


@pytest.mark.parametrize("instants", [(), (3.0,)], ids=["in the middle of a step", "while it waits"])
def test_ctrl_c_in_the_body_stops_the_tree_in_order(instants: tuple[float, ...]) -> None:
    """Intakes close, kept asks fail, actors stop in reverse; then the interrupt comes out as it is."""
    journal: list[str] = []
    answers: list[object] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            supervisor = tree(*(ChildSpec(name, clerk(name, journal)) for name in "abc"))
            nursery.start_soon(collect, answers, supervisor.ref("b", ClerkView), Keep())
            try:
                async with supervisor:
                    await quiet()
                    if not instants:
                        ctrl_c()
                        journal.append("not reached")
                    await trio.sleep_forever()
            except KeyboardInterrupt:
                interrupt.append(KeyboardInterrupt())
        raise interrupt[0]

    interrupt: list[KeyboardInterrupt] = []
    assert interrupted(main, *instants) == (instants or (0.0,))[0]
    assert journal == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]
    assert [str(answer) for answer in answers] == ["wizard/b has stopped"]


def test_ctrl_c_while_an_ask_waits_forgets_it() -> None:
    """It leaves as a cancelled caller does: its place is freed."""
    made: list[Clerk] = []

    async def main() -> None:
        async with tree(ChildSpec("a", clerk("a", None, made))) as supervisor:
            ref = supervisor.ref("a", ClerkView)
            try:
                await ref.ask(Keep("interrupted"))
            except KeyboardInterrupt:
                assert await ref.ask(Echo("alive")) == "alive"  # noqa: ASYNC120 - nothing cancels this test
                raise

    assert interrupted(main, 1.0) == 1.0
    assert made[0].journal[:3] == ["start a", "forget interrupted", "echo alive"]


# -- elsewhere


def test_ctrl_c_never_hits_a_handler() -> None:
    """One that arrives in the middle of it is the body's; the actor has noticed nothing."""
    restarts: list[int] = []

    async def main() -> None:
        async with tree(ChildSpec("a", clerk("a"))) as supervisor:
            try:
                await supervisor.ref("a", ClerkView).ask(Do(ctrl_c))
                await trio.sleep_forever()
            except KeyboardInterrupt:
                await quiet()  # noqa: ASYNC120 - nothing cancels this test
                restarts.append(supervisor.tree().children[0].restarts)
                raise

    assert interrupted(main) == 0.0
    assert restarts == [0]


def test_ctrl_c_never_hits_a_start_or_a_stop() -> None:
    """The actor comes up and goes down as if nothing had been."""
    journal: list[str] = []

    class Struck(Clerk):
        async def start(self) -> None:
            ctrl_c()
            await super().start()

        async def stop(self) -> None:
            ctrl_c()
            await super().stop()

    async def main() -> None:
        async with tree() as supervisor:
            try:
                await supervisor.add(ChildSpec("a", lambda _ledger, _carry: Struck("a", journal)))
                await trio.sleep_forever()
            except KeyboardInterrupt:
                journal.append("the body's")
            await quiet()
            assert supervisor.tree().children[0].state is State.RUNNING
            await supervisor.remove("a")
            await trio.sleep_forever()

    assert interrupted(main) == 0.0
    assert sorted(journal[:2]) == ["start a", "the body's"]
    assert journal[2:] == ["stop a"]


def test_ctrl_c_never_hits_a_restart() -> None:
    """The supervisor's own tasks are protected as actors are."""
    states: list[State] = []

    class Struck(Random):
        def uniform(self, a: float, b: float) -> float:
            ctrl_c()
            return b

    async def main() -> None:
        async with Supervisor(GroupSpec("wizard", [ChildSpec("a", clerk("a"))]), rng=Struck()) as supervisor:
            try:
                for _ in range(2):  # the second restart draws a backoff
                    await crash(supervisor.ref("a", ClerkView))
                await trio.sleep_forever()
            except KeyboardInterrupt:
                await trio.sleep(1)  # noqa: ASYNC120 - nothing cancels this test
                states.append(supervisor.tree().children[0].state)
                raise

    assert interrupted(main) == 1.0
    assert states == [State.RUNNING]


def test_ctrl_c_while_the_tree_starts_stops_what_has_started() -> None:
    """The body is never entered, and a start under way is cancelled."""
    journal: list[str] = []

    async def main() -> None:
        async with tree(ChildSpec("a", clerk("a", journal)), ChildSpec("b", fragile("b", journal, 20.0))):
            journal.append("body")

    assert interrupted(main, 2.0) == 2.0
    assert journal == ["start a", "start b", "stop b", "stop a"]


def test_ctrl_c_while_a_child_is_removed_leaves_no_orphan() -> None:
    """Until it is over it is a child, so the stop of the tree finds it."""
    journal: list[str] = []

    class Slow(Clerk):
        async def stop(self) -> None:
            await trio.sleep(4)
            await super().stop()

    async def main() -> None:
        children = [ChildSpec("a", clerk("a", journal)), ChildSpec("b", lambda _ledger, _carry: Slow("b", journal))]
        async with tree(GroupSpec("inner", children)) as supervisor:
            await supervisor.remove("inner")

    assert interrupted(main, 2.0) == 4.0
    assert journal == ["start a", "start b", "stop b", "stop a"]


# -- a second one


@pytest.mark.parametrize("first", ["draining", "stopping"])
def test_a_second_ctrl_c_ends_the_tree_at_once(first: str) -> None:
    """Whoever is in that much of a hurry waits neither for grants nor for slow stops, which begin all the same."""
    made: list[Garage] = []
    stops: list[float] = []

    class Slow(Clerk):
        async def stop(self) -> None:
            stops.append(trio.current_time())
            await trio.sleep(5)

    async def main() -> None:
        async with tree(ChildSpec("a", lambda _ledger, _carry: Slow()), ChildSpec("b", garage(made))) as supervisor:
            if first == "draining":
                await supervisor.ref("b", int).ask(Rent())
            await trio.sleep_forever()

    assert interrupted(main, 1.0, 2.0) == 2.0
    assert stops == [2.0 if first == "draining" else 1.0]


def test_a_second_ctrl_c_ends_an_actor_that_never_rests() -> None:
    """Nor does it wait for a loop that always has something to do."""
    enough = 2_000
    made: list[Garage] = []

    class Restless(Clerk):
        def snapshot(self) -> ClerkView:
            if 0 < len(self.heard) < enough:
                supervisor.ref("a", ClerkView).tell(Told("again"))
            return super().snapshot()

    actor = Restless()
    supervisor = tree(ChildSpec("a", lambda _ledger, _carry: actor), ChildSpec("b", garage(made)))

    async def main() -> None:
        async with supervisor:
            await supervisor.ref("b", int).ask(Rent())
            supervisor.ref("a", ClerkView).tell(Told("begin"))
            await trio.sleep_forever()

    assert interrupted(main, steps=(50, 50)) == 0.0
    assert 10 < len(actor.heard) < enough


def test_ctrl_c_in_the_last_step_of_the_stop_leaves_nothing_half_closed() -> None:
    """The stop itself runs to its end; the interrupt comes out after it."""

    class Struck(EventStream):
        def publish(self, event: Event) -> None:
            ctrl_c()

    supervisor = Supervisor(GroupSpec("wizard", [ChildSpec(name, clerk(name)) for name in "abc"]), events=Struck())

    async def main() -> None:
        async with supervisor:
            pass
        await trio.sleep_forever()

    assert interrupted(main) == 0.0
    assert {node.state for node in supervisor.tree().walk()} == {State.STOPPED}


@pytest.mark.parametrize("taken", [False, True])
def test_ctrl_c_in_the_step_in_which_an_ask_is_posted_leaves_no_grant_behind(*, taken: bool) -> None:
    """Who is answered in that step has the answer, and is interrupted by the next wait; who waits for it leaves as one
    who is cancelled. Otherwise nobody would hold what is granted.
    """
    made: list[Garage] = []
    supervisor = tree(ChildSpec("a", garage(made, places=1)))
    ref = supervisor.ref("a", int)
    mailbox = ref._mailbox
    wake = mailbox.wake

    def struck() -> None:
        mailbox.wake = wake  # type: ignore[method-assign]  # only once
        wake()
        ctrl_c()

    async def main() -> None:
        async with supervisor:
            held = [await ref.ask(Rent())] if taken else []
            mailbox.wake = struck  # type: ignore[method-assign]  # the moment that is tested
            try:
                held.append(await ref.ask(Rent()))
                assert not taken
                await trio.sleep(1)
            except KeyboardInterrupt:
                await quiet()  # noqa: ASYNC120 - nothing cancels this test
                raise
            finally:
                for lease in held:
                    ref.give_back(lease, Vacate())

    assert interrupted(main) == 0.0
    assert supervisor.outstanding == {}
    assert (len(made[0].live), len(made[0].waiting)) == (0, 0)


@pytest.mark.parametrize("steps", range(4, 30))
def test_two_in_any_step_of_a_restart_end_the_tree(steps: int) -> None:
    """However a group that is being restarted stands just then, nothing of it is left running."""
    made: list[Garage] = []
    children = [*(ChildSpec(name, clerk(name)) for name in "abc"), ChildSpec("g", garage(made))]
    spec = GroupSpec("wizard", children, strategy=Strategy.ONE_FOR_ALL, policy=RestartPolicy(max_restarts=9))

    async def main() -> None:
        async with Supervisor(spec, drain_timeout=200) as supervisor:
            await supervisor.ref("g", int).ask(Rent())
            supervisor.kill("a", BoomError("planted"))
            await trio.sleep_forever()

    assert interrupted(main, steps=(steps, 4)) == 0.0
