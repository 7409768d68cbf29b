"""The circuit breaker of one model: permits, what it learns from their ends, and what it tells of its changes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.models import model
from wizard_actors import CircuitOpenError
from wizard_actors.actor import ActorRef, Ledger, Reply
from wizard_actors.breaker_core import BreakerState, Circuit, Permit
from wizard_actors.circuit_breaker import Admit, BreakerChanged, CircuitBreaker, Ended, refusal
from wizard_actors.config import BreakerConfig
from wizard_actors.events import EventStream, Subscription
from wizard_actors.mailbox import Mailbox
from wizard_actors.supervisor import ChildSpec, GroupSpec, Supervisor
from wizard_actors.verdict import Outcome

Ref = ActorRef[BreakerState]

PROBING = BreakerState(circuit=Circuit.OPEN, retry_at=0.0)
TWO = BreakerConfig(failure_threshold=2, open_for=30.0, success_threshold=2, half_open_probes=1)


@asynccontextmanager
async def breaker_of(config: BreakerConfig = TWO) -> AsyncIterator[tuple[Supervisor, Ref, Subscription]]:
    """Run one breaker; whoever reads the events learns of its changes."""
    settings, rng, events = model("a", breaker=config), Random(1), EventStream()
    spec = ChildSpec(
        "breaker",
        lambda ledger, carry: CircuitBreaker(settings, rng, events, ledger, carry, trio.current_time()),
    )
    with events.subscribe() as told:
        async with Supervisor(GroupSpec("wizard", [spec])) as tree:
            yield tree, tree.ref("breaker", BreakerState), told


async def state(ref: Ref) -> BreakerState:
    """Return what the breaker publishes once all is quiet."""
    await wait_all_tasks_blocked()
    published = ref.published
    assert published is not None
    return published


async def call(ref: Ref, *outcomes: Outcome) -> None:
    """Make a call after the other."""
    for outcome in outcomes:
        ref.give_back(await ref.ask(Admit()), Ended(outcome))
        await wait_all_tasks_blocked()


def changes(told: Subscription) -> list[Circuit]:
    """Return the changes told since the last look."""
    return [event.circuit for event in told.drain() if isinstance(event, BreakerChanged)]


async def test_it_opens_probes_and_closes_and_tells_each_change_once(autojump_clock: MockClock) -> None:
    """Failures open it for a time that it states; one probe at a time, and enough successes close it."""
    async with breaker_of() as (_, ref, told):
        await call(ref, Outcome.FAILURE, Outcome.FAILURE)
        with pytest.raises(CircuitOpenError, match="a failed too often") as caught:
            await ref.ask(Admit())
        assert 24.0 <= caught.value.retry_after <= 30.0
        assert caught.value.retry_at == (await state(ref)).retry_at

        await trio.sleep_until(caught.value.retry_at)
        probe = await ref.ask(Admit())
        with pytest.raises(CircuitOpenError) as caught:
            await ref.ask(Admit())
        assert caught.value.retry_after == 1.0
        ref.give_back(probe, Ended(Outcome.SUCCESS))
        await call(ref, Outcome.SUCCESS)

        assert (await state(ref)).circuit is Circuit.CLOSED
        assert changes(told) == [Circuit.OPEN, Circuit.HALF_OPEN, Circuit.CLOSED]


async def test_a_neutral_probe_gives_its_place_back_and_teaches_nothing(autojump_clock: MockClock) -> None:
    """However many of them: the next request probes."""
    async with breaker_of() as (_, ref, _told):
        await call(ref, Outcome.FAILURE, Outcome.FAILURE)
        await trio.sleep(30.0)
        await call(ref, *[Outcome.IGNORED] * 5)

        assert (await state(ref)).circuit is Circuit.HALF_OPEN
        await call(ref, Outcome.SUCCESS, Outcome.SUCCESS)
        assert (await state(ref)).circuit is Circuit.CLOSED


def test_a_permit_that_reaches_nobody_is_undone() -> None:
    """A caller that has left by the time it is admitted leaks no probe."""
    breaker = CircuitBreaker(model("a", breaker=TWO), Random(1), EventStream(), Ledger(), PROBING, 100.0)
    gone: Reply[Permit] = Reply(Mailbox("wizard/breaker", bound=1, tells=1))
    gone._abandon(None)

    breaker.admit(Admit(), gone, 100.0)

    assert breaker.snapshot().circuit is Circuit.HALF_OPEN
    assert breaker.snapshot().probes_free == 1
    assert breaker.snapshot().in_flight == 0


async def test_after_a_crash_an_open_circuit_keeps_its_word(autojump_clock: MockClock) -> None:
    """It stays open until the instant that it had named, and probes then."""
    async with breaker_of() as (tree, ref, told):
        await call(ref, Outcome.FAILURE, Outcome.FAILURE)
        promised = (await state(ref)).retry_at
        tree.kill("breaker", RuntimeError("planted"))
        await wait_all_tasks_blocked()

        with pytest.raises(CircuitOpenError) as caught:
            await ref.ask(Admit())
        assert caught.value.retry_at == promised
        await trio.sleep_until(promised)
        await call(ref, Outcome.SUCCESS, Outcome.SUCCESS)
        assert changes(told) == [Circuit.OPEN, Circuit.HALF_OPEN, Circuit.CLOSED]


async def test_after_a_crash_a_closed_circuit_trips_at_its_first_failure(autojump_clock: MockClock) -> None:
    """What it had counted is lost, so it assumes the worst; for one window."""
    async with breaker_of() as (tree, ref, _told):
        tree.kill("breaker", RuntimeError("planted"))
        await wait_all_tasks_blocked()
        await call(ref, Outcome.SUCCESS)
        assert (await state(ref)).circuit is Circuit.CLOSED

        await call(ref, Outcome.FAILURE)

        assert (await state(ref)).circuit is Circuit.OPEN


async def test_permits_of_before_the_crash_are_fenced(autojump_clock: MockClock) -> None:
    """They open nothing and close nothing, nobody waits for them, and a call may not begin with one."""
    async with breaker_of() as (tree, ref, _told):
        old = [await ref.ask(Admit()) for _ in range(3)]
        tree.kill("breaker", RuntimeError("planted"))
        after = await state(ref)

        assert not any(after.honours(permit) for permit in old)
        assert tree.outstanding == {}
        for permit in old:
            ref.give_back(permit, Ended(Outcome.FAILURE))
        assert (await state(ref)).circuit is Circuit.CLOSED


def test_a_published_state_is_enough_to_refuse() -> None:
    """And says when to come back: never in the past."""
    opened = BreakerState(circuit=Circuit.OPEN, retry_at=20.0)
    probing = BreakerState(circuit=Circuit.HALF_OPEN, retry_at=20.0, probes_free=0)

    for state, now, retry_at in ((opened, 5.0, 20.0), (probing, 25.0, 26.0)):
        error = refusal("a", state, now)
        assert error is not None
        assert (error.model, error.retry_at, error.retry_after) == ("a", retry_at, retry_at - now)
    assert refusal("a", opened, 20.0) is None
    assert refusal("a", BreakerState(), 0.0) is None
    assert refusal("a", BreakerState(circuit=Circuit.HALF_OPEN, probes_free=1), 0.0) is None
