"""Calls from another thread or event loop than the tree's: what never waits works, what waits is refused unsent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from random import Random
from typing import Any, Protocol

import pytest
import trio
import trio.testing
from attrs import frozen

from tests.kernel_actors import (
    Clerk,
    ClerkView,
    Echo,
    Garage,
    Mileage,
    Rent,
    Told,
    Vacate,
    clerk,
    crash,
    garage,
    lanes_of,
    quiet,
    tree,
)
from wizard_actors import BlockingClient, ResilientClient, WizardConfig
from wizard_actors.actor import ActorRef
from wizard_actors.breaker_core import BreakerState, Circuit
from wizard_actors.breaker_handle import Breaker
from wizard_actors.circuit_breaker import CircuitBreaker
from wizard_actors.config import BreakerConfig, RateLimitConfig
from wizard_actors.errors import ActorStoppedError, UnsupportedError
from wizard_actors.events import RequestEnded
from wizard_actors.gcra import LimiterState
from wizard_actors.limiter_handle import Limiter
from wizard_actors.rate_limit import RateLimiter
from wizard_actors.specs import ChildSpec, GroupSpec, State
from wizard_actors.supervisor import Supervisor

PATIENCE = 5.0
"""Seconds after which a call that hangs is a failure."""

CONFIG = """
[[models]]
name = "only"
provider = "simulated"
simulated = { answer = "yes", first_token = 0 }
"""


@frozen
class Scene:
    """A running tree of all that has handles."""

    supervisor: Supervisor
    ref: ActorRef[ClerkView]
    breaker: Breaker
    limiter: Limiter


def scene() -> tuple[Supervisor, Scene]:
    """Return a tree that is not entered yet, and its handles."""
    supervisor = tree(
        ChildSpec("a", clerk("a")),
        ChildSpec("breaker", CircuitBreaker.factory("b", BreakerConfig(failure_threshold=2), rng=Random(1))),
        ChildSpec("limiter", RateLimiter.factory("l", RateLimitConfig(requests_per_minute=60, burst=5))),
    )
    breaker = Breaker(supervisor.ref("breaker", BreakerState))
    limiter = Limiter(supervisor.ref("limiter", LimiterState))
    return supervisor, Scene(supervisor, supervisor.ref("a", ClerkView), breaker, limiter)


class Run(Protocol):
    """`asyncio.run` or `trio.run`."""

    def __call__(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run it to its end."""


def in_asyncio(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `main` under asyncio."""
    asyncio.run(main())


def in_trio(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `main` under Trio: another run than the tree's."""
    trio.run(main)


async def ask(at: Scene) -> None:
    """Ask."""
    await at.ref.ask(Echo())


async def ask_by_a_deadline(at: Scene) -> None:
    """Ask, for so long."""
    await at.ref.ask(Echo(), deadline=at.ref.now + 1)


async def ask_nowait(at: Scene) -> None:
    """Ask, where there is room."""
    await at.ref.ask_nowait(Echo())


async def add(at: Scene) -> None:
    """Add a child."""
    await at.supervisor.add(ChildSpec("new", clerk("new")))


async def remove(at: Scene) -> None:
    """Remove a child."""
    await at.supervisor.remove("a")


async def enter_a_permit(at: Scene) -> None:
    """Make a guarded call."""
    async with at.breaker.permit():
        pytest.fail("the body must not run")


async def enter_a_leave(at: Scene) -> None:
    """Make a limited call."""
    async with at.limiter.request():
        pytest.fail("the body must not run")


WAITING = [ask, ask_by_a_deadline, ask_nowait, add, remove, enter_a_permit, enter_a_leave]
every_waiting_call = pytest.mark.parametrize("call", WAITING, ids=lambda call: call.__name__)


async def all_well(at: Scene) -> None:
    """Check that nothing of the tree was touched, and that everything answers."""
    with trio.fail_after(PATIENCE):
        nodes = {node.path: node for node in at.supervisor.tree().walk()}
        assert set(nodes) == {"wizard", "wizard/a", "wizard/breaker", "wizard/limiter"}
        lanes = [node.lanes for node in nodes.values() if node.lanes is not None]
        assert [(each.asks, each.kept, each.grants) for each in lanes] == [(0, 0, 0)] * 3
        assert await at.ref.ask(Echo("still here")) == "still here"
        async with at.limiter.request(), at.breaker.permit():
            pass


@every_waiting_call
@pytest.mark.parametrize("run", [in_asyncio, in_trio])
async def test_what_waits_is_refused_unsent_in_another_thread(
    run: Run, call: Callable[[Scene], Awaitable[None]]
) -> None:
    """The error says where the actor lives and what to do; the actor goes on as if nothing had been called."""
    supervisor, at = scene()

    async def main() -> None:
        with pytest.raises(
            UnsupportedError, match=r"lives in the Trio thread of its supervisor.*client\.run\("
        ) as caught:
            await call(at)
        assert caught.value.feature == "event loop"

    async with supervisor:
        await trio.to_thread.run_sync(run, main)
        await all_well(at)


async def test_a_permit_that_was_refused_elsewhere_can_be_entered_where_it_belongs() -> None:
    """Nothing is used up by the refusal; the same for leave of a limiter."""
    supervisor, at = scene()
    permit, request = at.breaker.permit(), at.limiter.request()

    async def main() -> None:
        for each in (permit, request):
            with pytest.raises(UnsupportedError):
                await each.__aenter__()

    async with supervisor:
        await trio.to_thread.run_sync(in_asyncio, main)
        async with permit, request:
            pass


# -- what never waits


async def test_what_is_told_in_other_threads_is_heard_in_each_one_s_order() -> None:
    """A sleeping actor wakes up for it."""
    supervisor, at = scene()

    def tell(thread: int) -> None:
        for number in range(50):
            at.ref.tell(Told(f"{thread}.{number}"))

    async with supervisor:
        await quiet()
        async with trio.open_nursery() as nursery:
            for thread in range(4):
                nursery.start_soon(trio.to_thread.run_sync, tell, thread)
        await at.ref.ask(Echo())

        assert at.ref.published is not None
        heard = at.ref.published.heard
    assert len(heard) == 200
    for thread in range(4):
        assert [text for text in heard if text.startswith(f"{thread}.")] == [f"{thread}.{n}" for n in range(50)]


async def test_a_grant_is_given_back_and_told_of_from_another_thread() -> None:
    """The next one in line gets its place at once."""
    made: list[Garage] = []
    async with tree(ChildSpec("a", garage(made))) as supervisor:
        ref = supervisor.ref("a", int)
        first = await ref.ask(Rent())
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ref.ask, Rent())
                await quiet()
                await trio.to_thread.run_sync(ref.notify, first, Mileage(7))
                await trio.to_thread.run_sync(ref.give_back, first, Vacate("from afar"))
        assert made[0].seen == [(first, "mileage 7"), (first, "vacate from afar")]
        for grant in tuple(made[0].live):
            ref.give_back(grant, Vacate())


async def test_a_grant_that_comes_back_from_another_thread_ends_the_draining() -> None:
    """A stopping tree hears of it at once, and not at its deadline."""
    made: list[Garage] = []
    with trio.fail_after(PATIENCE):
        async with tree(ChildSpec("a", garage(made)), drain_timeout=100) as supervisor:
            ref = supervisor.ref("a", int)
            lease = await ref.ask(Rent())

            def later() -> None:
                trio.from_thread.run(supervisor.stopping.wait, trio_token=token)
                ref.give_back(lease, Vacate())

            token = trio.lowlevel.current_trio_token()
            thread = threading.Thread(target=later)
            thread.start()
    thread.join()
    assert supervisor.outstanding == {}


async def test_an_actor_is_killed_from_another_thread() -> None:
    """It crashes and comes back; who names nobody is told so, in that thread."""
    supervisor, at = scene()
    async with supervisor:
        await trio.to_thread.run_sync(supervisor.kill, "a", ValueError("planted"))
        with pytest.raises(KeyError, match="no actor at 'nobody'"):
            await trio.to_thread.run_sync(supervisor.kill, "nobody", ValueError("planted"))
        await quiet()
        assert supervisor.tree().children[0].restarts == 1
        assert str(at.ref.failure) == "planted"


async def test_what_cannot_be_sent_from_another_thread_is_logged_and_ends_no_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A grant that cannot be one is a bug of its sender, who has gone on meanwhile."""
    supervisor, at = scene()
    give_back: Any = at.ref.give_back
    async with supervisor:
        await trio.to_thread.run_sync(give_back, [], Vacate())  # no list is hashable
        await quiet()
        assert await at.ref.ask(Echo("well")) == "well"
    assert "what another thread sent failed" in caplog.text


def test_after_the_run_has_ended_nothing_happens_and_an_ask_is_told_so() -> None:
    """As to an actor that has stopped, from the tree's thread and from any other, in any event loop or none."""
    supervisor, at = scene()
    grants: list[object] = []

    async def live() -> None:
        async with supervisor:
            grants.append(await at.ref.ask(Echo()))

    async def late() -> None:
        with pytest.raises(ActorStoppedError, match="wizard/a has stopped"):
            await at.ref.ask(Echo())
        with pytest.raises(ActorStoppedError, match="wizard/a has stopped"):
            await at.ref.ask_nowait(Echo())

    def send() -> None:
        at.ref.tell(Told("late"))
        at.ref.give_back(grants[0], Vacate())  # type: ignore[misc]  # on purpose
        at.ref.notify(grants[0], Mileage(1))  # type: ignore[misc]  # on purpose
        at.breaker.record_failure()
        supervisor.kill("a", ValueError("late"))
        for run in (in_asyncio, in_trio):
            run(late)
        raised.append(False)

    raised: list[bool] = []
    trio.run(live)
    send()
    thread = threading.Thread(target=send)
    thread.start()
    thread.join()

    assert raised == [False, False]
    assert at.ref.failure is None
    assert at.ref.published is not None
    assert at.ref.published.heard == ()


# -- what is only read


async def test_what_is_published_is_read_from_any_thread() -> None:
    """What is recorded there is seen there: the circuit opens, by the tree's own clock."""
    supervisor, at = scene()

    def look() -> None:
        limits = at.limiter.state
        seen.append((at.ref.published, at.breaker.state.circuit, at.breaker.is_open, limits and limits.waiting))

    seen: list[object] = []
    look()
    async with supervisor:
        await at.ref.ask(Echo())
        await trio.to_thread.run_sync(look)
        for _ in range(2):
            await trio.to_thread.run_sync(at.breaker.record_failure)
        await quiet()
        await trio.to_thread.run_sync(look)
    look()

    assert seen[0] == (None, Circuit.CLOSED, False, None)
    assert seen[1] == (ClerkView(1, (), 0), Circuit.CLOSED, False, 0)
    assert seen[2] == (ClerkView(1, (), 0), Circuit.OPEN, True, 0)
    assert seen[3] == seen[2]


async def test_the_clock_is_the_tree_s_own_in_every_thread(autojump_clock: trio.testing.MockClock) -> None:
    """An open circuit is due in another thread when it is due in the tree."""
    supervisor, at = scene()
    seen: list[bool] = []

    def look() -> None:
        thread = threading.Thread(target=lambda: seen.append(at.breaker.is_open))
        thread.start()
        thread.join()

    async with supervisor:
        for _ in range(2):
            at.breaker.record_failure()
        await quiet()
        look()
        await trio.sleep(BreakerConfig().open_for)
        look()
    assert seen == [True, False]


# -- another event loop in the same thread


def test_a_host_loop_around_trio_is_another_event_loop() -> None:
    """In guest mode asyncio's tasks run in the tree's thread, and are no Trio tasks."""
    supervisor, at = scene()
    tokens: list[trio.lowlevel.TrioToken] = []

    async def live() -> None:
        async with supervisor:
            tokens.append(trio.lowlevel.current_trio_token())
            opened.set()
            await closing.wait()
            await all_well(at)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        over: asyncio.Future[Any] = loop.create_future()
        trio.lowlevel.start_guest_run(
            live, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=over.set_result
        )
        await opened.wait()
        await asyncio.sleep(0.01)  # every actor sleeps
        try:
            for call in WAITING:
                with pytest.raises(UnsupportedError, match="lives in the Trio thread of its supervisor"):
                    await call(at)
            looked.append((at.limiter.state is None, at.breaker.is_open))
        finally:
            tokens[0].run_sync_soon(closing.set)
            at.ref.tell(Told("after that"))
            (await over).unwrap()

    opened, closing = asyncio.Event(), trio.Event()
    looked: list[object] = []
    asyncio.run(main())
    assert looked == [(False, False)]
    assert at.ref.published is not None
    assert at.ref.published.heard == ("after that",)


def test_a_supervisor_outside_of_trio_says_where_it_runs() -> None:
    """Nothing was started: the same one can be entered under Trio."""
    supervisor, at = scene()

    async def main() -> None:
        async with supervisor:
            pytest.fail("the body must not run")

    async def live() -> None:
        async with supervisor:
            assert await at.ref.ask(Echo("x")) == "x"

    with pytest.raises(UnsupportedError, match=r"'wizard' runs under Trio.*client\.run\(.*trio\.run") as caught:
        asyncio.run(main())
    assert caught.value.feature == "event loop"
    trio.run(live)


# -- beside a client


def config() -> WizardConfig:
    """Return a configuration of one model that answers."""
    return WizardConfig.from_toml(CONFIG, env={})


def test_a_forgotten_run_beside_a_client_under_asyncio_harms_nothing() -> None:
    """What is told by listeners and tasks is heard, an ask is refused, and through `run` it is answered."""

    async def main() -> None:
        async with ResilientClient.open(config()) as client, asyncio.timeout(PATIENCE):
            await client.run(client.supervisor.add, ChildSpec("a", clerk("a")))
            ref = client.supervisor.ref("a", ClerkView)
            client.events.listen(lambda event: ref.tell(Told("ended")) if isinstance(event, RequestEnded) else None)
            ref.tell(Told("from asyncio"))
            with pytest.raises(UnsupportedError, match=r"await client\.run\(ref\.ask, message\)"):
                await ref.ask(Echo())
            with pytest.raises(UnsupportedError, match=r"await client\.run\(client\.supervisor\.remove, path\)"):
                await client.supervisor.remove("a")
            await client.generate("go")

            assert await client.run(ref.ask, Echo("well")) == "well"
            assert ref.published is not None
            assert ref.published.heard == ("from asyncio", "ended")
            assert client.tree().state is State.RUNNING

    asyncio.run(main())


def test_a_thread_with_a_blocking_client_tells_and_asks() -> None:
    """`tell` and `kill` are plain calls; an ask goes by `run`."""
    with BlockingClient.open(config()) as client:
        client.run(client.supervisor.add, GroupSpec("mine", [ChildSpec("a", clerk("a"))]))
        ref = client.supervisor.ref("mine/a", ClerkView)
        ref.tell(Told("from a thread"))
        assert client.run(ref.ask, Echo("well")) == "well"
        assert ref.published is not None
        assert ref.published.heard == ("from a thread",)
        client.supervisor.kill("mine/a", ValueError("planted"))
        assert client.run(ref.ask, Echo("back")) == "back"
        assert str(ref.failure) == "planted"


async def test_a_call_of_another_thread_leaves_the_lanes_as_they_are() -> None:
    """Told messages of other threads drop the oldest over the bound, and are counted, like any."""
    up = trio.Event()

    class Late(Clerk):
        async def start(self) -> None:
            await up.wait()

    starts = iter([Clerk(), Late()])
    async with tree(ChildSpec("a", lambda _ledger, _carry: next(starts), tells=3)) as supervisor:
        ref = supervisor.ref("a", ClerkView)
        await crash(ref)

        def flood() -> None:
            for number in range(10):
                ref.tell(Told(str(number)))

        thread = threading.Thread(target=flood)
        thread.start()
        thread.join()  # Trio does not run meanwhile
        await quiet()
        up.set()
        await quiet()
        assert ref.published is not None
        assert ref.published.heard == ("7", "8", "9")
        assert lanes_of(supervisor).dropped == 7
