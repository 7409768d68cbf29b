"""The circuit breaker of one model: permits, what it learns from their ends, and what it tells of its changes."""

import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from wizard_actors.actor import ActorRef, Ledger, Reply
from wizard_actors.breaker_core import BreakerState, Circuit, Permit
from wizard_actors.circuit_breaker import (
    Admit,
    CircuitBreaker,
    Ended,
    Heard,
    RecordFailure,
    RecordSuccess,
    refusal,
)
from wizard_actors.config import BreakerConfig
from wizard_actors.errors import CircuitOpenError
from wizard_actors.event_stream import EventStream, Subscription
from wizard_actors.events import BreakerChanged
from wizard_actors.mailbox import Mailbox
from wizard_actors.supervisor import ChildSpec, GroupSpec, Supervisor
from wizard_actors.verdict import Outcome

Ref = ActorRef[BreakerState]

PROBING = BreakerState(circuit=Circuit.OPEN, retry_at=0.0)
TWO = BreakerConfig(failure_threshold=2, open_for=30.0, success_threshold=2, half_open_probes=1)


@asynccontextmanager
async def breaker_of(config: BreakerConfig = TWO) -> AsyncIterator[tuple[Supervisor, Ref, Subscription]]:
    """Run one breaker; whoever reads the events learns of its changes."""
    events = EventStream()
    spec = ChildSpec("breaker", CircuitBreaker.factory("a", config, rng=Random(1), events=events))
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


def changes(told: Subscription) -> list[str]:
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


async def test_a_probe_that_streams_for_minutes_keeps_nobody_waiting(autojump_clock: MockClock) -> None:
    """From its first content on others probe, at once; they close the circuit, and its end is fenced."""
    async with breaker_of() as (_, ref, told):
        await call(ref, Outcome.FAILURE, Outcome.FAILURE)
        await trio.sleep(30.0)
        stream = await ref.ask(Admit())
        with pytest.raises(CircuitOpenError):
            await ref.ask(Admit())

        ref.notify(stream, Heard())
        await call(ref, Outcome.SUCCESS, Outcome.SUCCESS)
        assert (await state(ref)).circuit is Circuit.CLOSED
        await trio.sleep(90.0)
        ref.give_back(stream, Ended(Outcome.FAILURE))

        assert ((await state(ref)).failures, (await state(ref)).in_flight) == (0, 0)
        assert changes(told) == [Circuit.OPEN, Circuit.HALF_OPEN, Circuit.CLOSED]


async def test_a_probe_that_is_heard_as_it_ends_frees_one_place(autojump_clock: MockClock) -> None:
    """Both in one tick, or one of them after a crash: as many probes may follow as before, and no more."""
    async with breaker_of() as (tree, ref, _told):
        await call(ref, Outcome.FAILURE, Outcome.FAILURE)
        await trio.sleep(30.0)
        probe = await ref.ask(Admit())
        ref.notify(probe, Heard())
        ref.give_back(probe, Ended(Outcome.IGNORED))
        ref.notify(probe, Heard())
        assert (await state(ref)).probes_free == 1

        probe = await ref.ask(Admit())
        tree.kill("breaker", RuntimeError("planted"))
        ref.notify(probe, Heard())
        await wait_all_tasks_blocked()
        assert (await ref.ask(Admit())).probe
        ref.notify(probe, Heard())
        assert (await state(ref)).probes_free == 0


def test_a_permit_that_reaches_nobody_is_undone() -> None:
    """A caller that has left by the time it is admitted leaks no probe."""
    breaker = CircuitBreaker("a", TWO, Random(1), EventStream(), Ledger(), PROBING, 100.0)
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


async def test_a_crash_that_changes_the_circuit_is_told(autojump_clock: MockClock) -> None:
    """Half-open is open again after it, due at once; every other circuit stays what it was, and nothing is told."""
    async with breaker_of() as (tree, ref, told):
        tree.kill("breaker", RuntimeError("planted"))
        assert (await state(ref)).circuit is Circuit.CLOSED
        await call(ref, Outcome.FAILURE)  # one is enough after a crash
        tree.kill("breaker", RuntimeError("planted"))
        assert (await state(ref)).circuit is Circuit.OPEN
        assert changes(told) == [Circuit.OPEN]

        await trio.sleep(40.0)
        await ref.ask(Admit())
        tree.kill("breaker", RuntimeError("planted"))
        assert (await state(ref)).circuit is Circuit.OPEN
        *_, event = (event for event in told.drain() if isinstance(event, BreakerChanged))
        assert (event.at, event.model, event.circuit) == (trio.current_time(), "a", Circuit.OPEN)
        assert event.retry_at <= event.at
        await call(ref, Outcome.FAILURE)
        assert changes(told) == [Circuit.HALF_OPEN, Circuit.OPEN]


async def test_each_change_is_told_with_its_instant(autojump_clock: MockClock) -> None:
    """When, whose, what, and until when: also as a probe opens it again."""
    async with breaker_of() as (_, ref, told):
        await call(ref, Outcome.FAILURE, Outcome.FAILURE)
        opened = await state(ref)
        await trio.sleep_until(opened.retry_at)
        await call(ref, Outcome.FAILURE)
        again = await state(ref)
        assert [event for event in told.drain() if isinstance(event, BreakerChanged)] == [
            BreakerChanged(0.0, "a", Circuit.OPEN, opened.retry_at),
            BreakerChanged(opened.retry_at, "a", Circuit.HALF_OPEN, opened.retry_at),
            BreakerChanged(opened.retry_at, "a", Circuit.OPEN, again.retry_at),
        ]


async def test_what_is_recorded_opens_probes_and_closes(autojump_clock: MockClock) -> None:
    """Without a single permit; each transition is told, also two that follow from one message."""
    async with breaker_of() as (_, ref, told):
        for message in (RecordSuccess(), RecordFailure(), RecordFailure()):
            ref.tell(message)
        assert (await state(ref)).circuit is Circuit.OPEN
        ref.tell(RecordSuccess())
        assert (await state(ref)).circuit is Circuit.OPEN
        assert changes(told) == [Circuit.OPEN]

        await trio.sleep(30.0)
        ref.tell(RecordFailure())
        assert (await state(ref)).circuit is Circuit.OPEN
        assert changes(told) == [Circuit.HALF_OPEN, Circuit.OPEN]

        await trio.sleep(60.0)
        ref.tell(RecordSuccess())
        ref.tell(RecordSuccess())
        assert (await state(ref)).circuit is Circuit.CLOSED
        assert changes(told) == [Circuit.HALF_OPEN, Circuit.CLOSED]


async def test_what_is_recorded_survives_a_crash(autojump_clock: MockClock) -> None:
    """What was told before, and not read, is read by the next incarnation."""
    async with breaker_of() as (tree, ref, told):
        tree.kill("breaker", RuntimeError("planted"))
        ref.tell(RecordFailure())
        assert (await state(ref)).circuit is Circuit.OPEN
        assert changes(told) == [Circuit.OPEN]


async def test_open_times_are_not_the_wall_clocks(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody sets the computer's clock on by a year, and the circuit stays open for its half minute."""
    async with breaker_of() as (_, ref, _told):
        await call(ref, Outcome.FAILURE, Outcome.FAILURE)
        before = time.time()
        monkeypatch.setattr(time, "time", lambda: before + 365 * 86_400)
        with pytest.raises(CircuitOpenError):
            await ref.ask(Admit())
        await trio.sleep(30.0)
        assert (await ref.ask(Admit())).probe


async def test_no_permit_is_leaked_however_its_caller_ends(autojump_clock: MockClock) -> None:
    """A thousand callers, cancelled in the tick in which they ask, before it and after it: no probe's place is lost."""
    async with breaker_of() as (tree, ref, _told):
        await call(ref, Outcome.FAILURE, Outcome.FAILURE)
        await trio.sleep(30.0)

        async def ask(scope: trio.CancelScope) -> None:
            with scope, contextlib.suppress(CircuitOpenError):
                ref.give_back(await ref.ask(Admit()), Ended(Outcome.IGNORED))

        scopes = [trio.CancelScope() for _ in range(1000)]
        async with trio.open_nursery() as nursery:
            for scope in scopes:
                nursery.start_soon(ask, scope)
            for number, scope in enumerate(scopes):
                if number % 100 == 0:
                    await trio.lowlevel.checkpoint()
                scope.cancel()

        assert (await state(ref)).in_flight == 0
        assert (await state(ref)).probes_free == 1
        assert tree.outstanding == {}


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
