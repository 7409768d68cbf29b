"""One attempt: the order in which it gets leave, how it ends, and what the breaker and the limiter learn from it."""

import json
import traceback
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from itertools import chain, repeat
from pathlib import Path
from random import Random

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.models import (
    DONE,
    NO_JITTER,
    SILENT,
    USAGE,
    Calls,
    Scripted,
    Seen,
    Turn,
    assert_nothing_held,
    breaker,
    client_of,
    cut,
    fails,
    limiter,
    model,
    says,
    worker,
)
from wizard_actors import (
    CircuitOpenError,
    DeadlineExceededError,
    FallbackError,
    MailboxFullError,
    ModelConfig,
    NetworkError,
    ProviderBugError,
    RateLimitError,
    ResilientClient,
    RetryError,
    StreamInterruptedError,
    TokenUsage,
    UnsupportedError,
    WizardError,
)
from wizard_actors.actor import Reply
from wizard_actors.attempt import Attempt
from wizard_actors.breaker_core import BreakerState, Circuit, Permit
from wizard_actors.breaker_core import Turn as CircuitTurn
from wizard_actors.circuit_breaker import Admit, CircuitBreaker
from wizard_actors.config import (
    BreakerConfig,
    PriceConfig,
    RateLimitConfig,
    RetryConfig,
    ServerConfig,
    SupervisionConfig,
    TimeoutsConfig,
)
from wizard_actors.event_stream import EventStream
from wizard_actors.events import Event
from wizard_actors.providers.base import Answer, Call
from wizard_actors.types import (
    Finished,
    FinishReason,
    LimitHeaders,
    LimitWindow,
    ModelEvent,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UsageUpdate,
)

ONCE = RetryConfig(max_attempts=1)
BROKEN = NetworkError("the connection broke", model="a")


async def leave_given(client: ResilientClient) -> tuple[int, int, int]:
    """Return how many slots and turns were granted, and how many permits were refused."""
    return (await worker(client)).granted, (await limiter(client)).granted, (await breaker(client)).refused


# -- leave, and its order ----------------------------------------------------------------------------------------------


async def test_who_waits_for_a_slot_has_taken_nothing_from_the_limiter(autojump_clock: MockClock) -> None:
    """Rate before slot would spend the limiter's turn on a call that cannot be sent yet."""
    slow = Scripted(says(10.0, "late"))
    async with client_of(slow, model(slots=1)) as client, trio.open_nursery() as nursery:
        calls = Calls()
        for _ in range(3):
            nursery.start_soon(calls.generate, client)
        await wait_all_tasks_blocked()

        assert (await worker(client)).in_use == 1
        assert (await worker(client)).waiting == 2
        assert (await limiter(client)).granted == 1
        assert len(slow.calls) == 1


async def test_who_waits_for_the_limiter_holds_a_slot_and_no_permit(autojump_clock: MockClock) -> None:
    """A permit taken before the limiter's wait would be one from before the circuit opened."""
    quick = Scripted(says("now"))
    async with client_of(quick, model(limit=RateLimitConfig(requests_per_minute=6))) as client:
        await client.generate("first")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Calls().generate, client)
            await wait_all_tasks_blocked()

            assert (await worker(client)).in_use == 1
            assert (await limiter(client)).waiting == 1
            assert (await breaker(client)).admitted == 1
            nursery.cancel_scope.cancel()


async def test_nothing_goes_out_once_the_circuit_opened_during_the_limiters_wait(autojump_clock: MockClock) -> None:
    """Ten calls wait for the limiter when the first failure opens the circuit: none of them is sent."""
    failing = Scripted(Turn((0.5, BROKEN)))
    limit = RateLimitConfig(requests_per_minute=60, burst=1)
    config = model(limit=limit, retry=ONCE, breaker=BreakerConfig(failure_threshold=1))
    async with client_of(failing, config) as client:
        calls = Calls()
        async with trio.open_nursery() as nursery:
            for _ in range(11):
                nursery.start_soon(calls.generate, client)

        assert len(failing.calls) == 1
        assert [type(error) for error in calls.errors].count(CircuitOpenError) == 10
        await assert_nothing_held(client, failing)


async def test_a_known_open_circuit_costs_neither_a_slot_nor_a_turn(autojump_clock: MockClock) -> None:
    """What the breaker has published is enough to refuse: nothing is spent on finding out."""
    failing = Scripted(fails(BROKEN))
    async with client_of(failing, model(retry=ONCE, breaker=BreakerConfig(failure_threshold=1))) as client:
        with pytest.raises(NetworkError):
            await client.generate("opens it")
        spent = await leave_given(client)

        with pytest.raises(CircuitOpenError) as caught:
            await client.generate("refused")

        assert await leave_given(client) == spent
        assert caught.value.model == "a"
        assert 24 <= caught.value.retry_after <= 30
        assert caught.value.retry_at == trio.current_time() + caught.value.retry_after


async def test_while_the_probes_are_out_nobody_else_spends_anything(autojump_clock: MockClock) -> None:
    """A half-open circuit refuses beyond its probes, and says when to come back: not in the past."""
    a = Scripted(fails(BROKEN), says(5.0, "recovered"))
    config = model(retry=ONCE, breaker=BreakerConfig(failure_threshold=1, success_threshold=1))
    async with client_of(a, config) as client:
        with pytest.raises(NetworkError):
            await client.generate("opens it")
        await trio.sleep(30)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Calls().generate, client)
            await wait_all_tasks_blocked()
            granted = (await worker(client)).granted

            with pytest.raises(CircuitOpenError) as caught:
                await client.generate("while the probe is out")

        assert (await worker(client)).granted == granted
        assert caught.value.retry_after > 0
        assert (await breaker(client)).circuit is Circuit.CLOSED


async def test_a_refusal_of_the_breaker_refunds_the_turn_and_frees_the_slot(autojump_clock: MockClock) -> None:
    """The circuit opens while the second call waits for the limiter: it costs nothing."""
    failing = Scripted(Turn((3.0, BROKEN)))
    limit = RateLimitConfig(requests_per_minute=12, burst=1)
    async with client_of(failing, model(limit=limit, retry=ONCE, breaker=BreakerConfig(failure_threshold=1))) as client:
        calls = Calls()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(calls.generate, client)
            await wait_all_tasks_blocked()
            nursery.start_soon(calls.generate, client)

        await assert_nothing_held(client, failing)
        assert [type(error) for error in calls.errors] == [NetworkError, CircuitOpenError]
        assert (await limiter(client)).refunded == 1
        assert (await worker(client)).health.failed == 1
        assert (await worker(client)).health.ignored == 0


async def test_the_breakers_own_refusal_refunds_as_well(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing published said no, and the breaker does: the same."""
    a = Scripted(says("never"))

    def refuse(self: CircuitBreaker, message: Admit, reply: Reply[Permit], now: float) -> None:
        reply.fail(CircuitOpenError("planted", model="a", retry_at=now + 1, retry_after=1.0))

    monkeypatch.setattr(CircuitBreaker, "admit", refuse)
    async with client_of(a) as client:
        with pytest.raises(CircuitOpenError, match="planted"):
            await client.generate("Why?")

        await assert_nothing_held(client, a)
        assert (await limiter(client)).refunded == 1
        assert a.calls == []


def turning(monkeypatch: pytest.MonkeyPatch, turn: Callable[[CircuitBreaker, float], None]) -> None:
    """Have the circuit turn once, after the first permit was granted and before its caller resumes."""
    admit = CircuitBreaker.admit
    turns = [turn]

    def patched(self: CircuitBreaker, message: Admit, reply: Reply[Permit], now: float) -> None:
        admit(self, message, reply, now)
        if turns:
            turns.pop()(self, now)

    monkeypatch.setattr(CircuitBreaker, "admit", patched)


async def test_a_permit_from_before_the_opening_sends_nothing(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The circuit opens between the grant and the step in which the caller resumes: the call is not sent."""
    turning(monkeypatch, lambda actor, now: actor._core._open(CircuitTurn.TRIPPED, now))
    a = Scripted(says("never"))
    async with client_of(a) as client:
        with pytest.raises(CircuitOpenError):
            await client.generate("Why?")

        await assert_nothing_held(client, a)
        assert a.calls == []
        assert (await limiter(client)).refunded == 1
        assert (await breaker(client)).circuit is Circuit.OPEN


async def test_a_permit_from_before_the_closing_is_changed_for_a_new_one(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The circuit closes in that step: that is no reason to refuse the call."""

    def close(actor: CircuitBreaker, now: float) -> None:
        actor._core._open(CircuitTurn.TRIPPED, now)
        actor._core._turn(CircuitTurn.DUE)
        actor._core._turn(CircuitTurn.RECOVERED)

    turning(monkeypatch, close)
    a = Scripted(says("sent"))
    async with client_of(a) as client:
        assert (await client.generate("Why?")).text == "sent"

        await assert_nothing_held(client, a)
        assert (await breaker(client)).admitted == 2
        assert (await limiter(client)).granted == 1


async def test_a_rejection_by_the_limiter_frees_the_slot_at_once(autojump_clock: MockClock) -> None:
    """Whoever cannot be sent in time is told immediately, and how long it would have taken."""
    a = Scripted(says("first"))
    async with client_of(a, model(limit=RateLimitConfig(requests_per_minute=1, max_wait=5.0))) as client:
        await client.generate("first")
        began = trio.current_time()

        with pytest.raises(RateLimitError) as caught:
            await client.generate("too late")

        assert trio.current_time() == began
        assert caught.value.source == "limiter"
        assert caught.value.retry_after == pytest.approx(60.0)
        assert caught.value.attempts[0].sent is False
        await assert_nothing_held(client, a)


async def test_a_turn_that_is_due_exactly_at_the_longest_wait_is_granted(autojump_clock: MockClock) -> None:
    """The bound is inclusive, and the caller does not give up in the instant in which it is served."""
    a = Scripted(says("yes"))
    limit = RateLimitConfig(requests_per_minute=60, burst=1, max_wait=2.0)
    async with client_of(a, model(limit=limit)) as client:
        calls = Calls()
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(calls.generate, client)

        assert [call.start for call in a.calls] == pytest.approx([0.0, 1.0, 2.0])
        assert [type(error) for error in calls.errors] == [RateLimitError]


async def test_no_patience_for_the_limiter_still_takes_what_is_due(autojump_clock: MockClock) -> None:
    """`max_wait = 0` means: now, or not at all."""
    a = Scripted(says("yes"))
    async with client_of(a, model(limit=RateLimitConfig(requests_per_minute=60, burst=1, max_wait=0.0))) as client:
        assert (await client.generate("due")).text == "yes"
        with pytest.raises(RateLimitError):
            await client.generate("not due")


async def test_no_patience_for_a_slot_still_takes_a_free_one(autojump_clock: MockClock) -> None:
    """`queue_timeout = 0` means: now, or not at all."""
    a = Scripted(says(1.0, "yes"))
    async with client_of(a, model(slots=1), server=ServerConfig(queue_timeout=0.0)) as client:
        calls = Calls()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(calls.generate, client)
            nursery.start_soon(calls.generate, client)

        assert [answer.text for answer in calls.answers] == ["yes"]
        assert [type(error) for error in calls.errors] == [MailboxFullError]


async def test_a_full_model_is_waited_for_as_long_as_the_queue_timeout(autojump_clock: MockClock) -> None:
    """Then the caller is told that it is full; who gets a slot in time is served."""
    a = Scripted(says(6.0, "yes"))
    async with client_of(a, model(slots=1), server=ServerConfig(queue_timeout=10.0)) as client:
        calls = Calls()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(calls.generate, client)

        assert [answer.attempts[0].delay for answer in calls.answers] == [0.0, 6.0]
        [error] = calls.errors
        assert isinstance(error, MailboxFullError)
        assert error.attempts[0].delay == 10.0
        await assert_nothing_held(client, a)


async def test_everybody_beyond_the_queue_is_refused_in_time_too(autojump_clock: MockClock) -> None:
    """A waiting room that is full makes its lane wait; whoever stands there is answered no later than the others."""
    a = Scripted(SILENT)
    config = model(slots=1, timeouts=TimeoutsConfig(first_token=100.0))
    async with client_of(
        a, config, server=ServerConfig(queue_timeout=10.0), supervision=SupervisionConfig(mailbox=2)
    ) as client:
        calls = Calls()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(calls.generate, client)
            await wait_all_tasks_blocked()
            async with trio.open_nursery() as late:
                for _ in range(8):
                    late.start_soon(calls.generate, client)
            assert trio.current_time() == 10.0
            nursery.cancel_scope.cancel()

        assert [type(error) for error in calls.errors] == [MailboxFullError] * 8


async def test_nothing_is_held_during_a_retrys_delay(autojump_clock: MockClock) -> None:
    """A call that waits to be tried again stands in nobody's way."""
    a = Scripted(fails(BROKEN), says("again"))
    async with client_of(a, model(retry=RetryConfig(base_delay=8.0)), seed=3) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Calls().generate, client)
            await wait_all_tasks_blocked()

            await assert_nothing_held(client, a)
            assert len(a.calls) == 1
        assert len(a.calls) == 2


async def test_a_slot_is_free_only_once_the_exchange_is_closed(autojump_clock: MockClock) -> None:
    """A model with one slot never has two exchanges, however long closing one takes."""
    a = Scripted(Turn(("one", DONE), closing=3.0), Turn((BROKEN,), closing=3.0), says("two"))
    async with client_of(a, model(slots=1, retry=ONCE)) as client:
        calls = Calls()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(calls.generate, client)

        assert [(call.start, call.end) for call in a.calls] == [(0.0, 3.0), (3.0, 6.0), (6.0, 6.0)]


# -- the end of an answer ----------------------------------------------------------------------------------------------


async def test_usage_is_awaited_one_second_after_the_finish(autojump_clock: MockClock) -> None:
    """What comes within it counts; without it the answer is complete all the same."""
    a = Scripted(says("all", DONE, 0.9, USAGE), says("all", DONE, 1.1, USAGE))
    async with client_of(a) as client:
        with_usage = await client.generate("Why?")
        without = await client.generate("Why?")

        assert with_usage.usage == USAGE.usage
        assert without.usage is None
        assert without.text == "all"
        assert trio.current_time() == pytest.approx(1.9)
        assert (await breaker(client)).failures == 0


@pytest.mark.parametrize("error", [BROKEN, KeyError("bug")], ids=["broken connection", "provider's bug"])
async def test_what_breaks_after_the_finish_is_ignored(autojump_clock: MockClock, error: Exception) -> None:
    """The answer was complete."""
    a = Scripted(Turn(("all", DONE, error)))
    async with client_of(a) as client:
        answer = await client.generate("Why?")

        assert answer.text == "all"
        assert (await breaker(client)).failures == 0
        await assert_nothing_held(client, a)


async def test_an_answer_without_a_finish_is_truncated(autojump_clock: MockClock) -> None:
    """The body's end is no sign of completeness."""
    a = Scripted(cut("half an ans"))
    async with client_of(a, model(retry=ONCE)) as client:
        with pytest.raises(StreamInterruptedError, match="without saying that it was complete") as caught:
            await client.generate("Why?")

        assert caught.value.partial == "half an ans"
        assert caught.value.request_id == "id"
        assert (await breaker(client)).failures == 1


async def test_a_finish_without_content_is_an_empty_answer(autojump_clock: MockClock) -> None:
    """A model may have nothing to say."""
    a = Scripted(Turn((Finished(FinishReason.LENGTH, "max_tokens"),)))
    async with client_of(a) as client:
        answer = await client.generate("Why?")

        assert (answer.text, answer.finish_reason, answer.raw_finish_reason) == ("", FinishReason.LENGTH, "max_tokens")


# -- the books ---------------------------------------------------------------------------------------------------------


async def test_headers_slow_the_limiter_down_before_the_first_429(autojump_clock: MockClock) -> None:
    """What remains until the reset is spread over that time, also where the body then fails."""
    headers = LimitHeaders(requests=LimitWindow(limit=100, remaining=10, reset=60))
    for steps in (("fine", DONE), (BROKEN,)):
        a = Scripted(Turn(steps, limits=headers))
        async with client_of(a, model(retry=ONCE)) as client:
            await Calls().generate(client)
            await wait_all_tasks_blocked()

            assert (await limiter(client)).rate == pytest.approx(10.0)


async def test_headers_teach_nothing_where_the_limit_is_not_adaptive(autojump_clock: MockClock) -> None:
    """`adaptive = false` is obeyed."""
    headers = LimitHeaders(requests=LimitWindow(limit=100, remaining=10, reset=60))
    a = Scripted(Turn(("fine", DONE), limits=headers))
    async with client_of(a, model(limit=RateLimitConfig(adaptive=False))) as client:
        await client.generate("Why?")
        await wait_all_tasks_blocked()

        assert (await limiter(client)).rate is None


async def test_an_attempt_is_told_with_its_times_and_its_cost(autojump_clock: MockClock) -> None:
    """`delay` is what was waited before the send, `duration` the time from it; a failed attempt costs, too."""
    price = PriceConfig(input=Decimal(10), output=Decimal(20))
    a = Scripted(Turn((2.0, "half", USAGE, 1.0, BROKEN)), says(3.0, "whole", USAGE))
    config = model(price=price, retry=NO_JITTER, limit=RateLimitConfig(requests_per_minute=6, burst=1))
    async with client_of(a, config) as client:
        answer = await client.generate("Why?")

        first, second = answer.attempts
        assert (first.start, first.delay, first.duration) == (0.0, 0.0, 3.0)
        assert (second.start, second.delay, second.duration) == (3.0, 7.0, 3.0)
        assert first.cost == second.cost == Decimal("0.0002")
        assert answer.cost == Decimal("0.0004")
        assert (first.sent, second.sent) == (True, True)


async def test_cached_tokens_cost_what_they_cost(autojump_clock: MockClock) -> None:
    """A price of their own where there is one, else that of the others."""
    usage = UsageUpdate(TokenUsage(input_tokens=100, output_tokens=10, cached_tokens=60))
    for cached, cost in ((Decimal(1), "0.00066"), (None, "0.0012")):
        price = PriceConfig(input=Decimal(10), output=Decimal(20), cached_input=cached)
        async with client_of(Scripted(says("fine", usage)), model(price=price)) as client:
            assert (await client.generate("Why?")).cost == Decimal(cost)


async def test_a_prompt_that_a_model_cannot_be_sent_costs_nothing(autojump_clock: MockClock) -> None:
    """The provider refuses before anything is sent: the limiter's turn comes back, and nothing is learned."""
    a = Scripted(Turn(head=UnsupportedError("no pictures", feature="image", model="a")))
    b = Scripted(says("I see"))
    async with client_of({"a": a, "b": b}) as client:
        answer = await client.generate("Why?")

        assert answer.model == "b"
        await assert_nothing_held(client, a, b)
        assert answer.attempts[0].sent is False
        assert (await limiter(client)).refunded == 1
        assert (await worker(client)).health.ignored == 0


# -- a provider's bug --------------------------------------------------------------------------------------------------


class Buggy(Scripted):
    """A model whose property `which` raises, of the provider or of its answers."""

    def __init__(self, which: str, *turns: Turn) -> None:
        super().__init__(*turns)
        self.which = which

    def __getattribute__(self, name: str) -> object:
        if name != "which" and name == self.which:
            raise KeyError("planted")
        return super().__getattribute__(name)


def properties_raise(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Have the property `name` of every answer raise."""

    def planted(self: object) -> str:
        raise KeyError("planted")

    monkeypatch.setattr("tests.models._Answer." + name, property(planted, lambda self, value: None), raising=False)


BUGS: dict[str, Turn] = {
    "entering": Turn(head=KeyError("planted")),
    "reading": Turn((KeyError("planted"),)),
    "reading on": Turn(("half", KeyError("planted"))),
}


@pytest.mark.parametrize("turn", BUGS.values(), ids=BUGS)
async def test_a_providers_bug_is_that_one_requests_error(autojump_clock: MockClock, turn: Turn) -> None:
    """It crashes nothing, the exchange is closed, the breaker learns nothing, and the next model answers."""
    a, b = Scripted(turn), Scripted(says("sound"))
    async with client_of({"a": a, "b": b}) as client:
        answer = await client.generate("Why?")

        error = answer.attempts[0].error
        assert isinstance(error, ProviderBugError)
        assert isinstance(error.__cause__, KeyError)
        assert "KeyError" in str(error)
        assert answer.model == "b"
        assert (await breaker(client)).failures == 0
        assert all(found.restarts == 0 for found in client.tree().walk())
        await assert_nothing_held(client, a, b)


@pytest.mark.parametrize("which", ["open", "streams"])
async def test_a_bug_before_the_call_is_one_too(autojump_clock: MockClock, which: str) -> None:
    """Not even the call could be made."""
    async with client_of(Buggy(which)) as client:
        with pytest.raises(ProviderBugError):
            await client.generate("Why?")

        await wait_all_tasks_blocked()
        assert client.supervisor.outstanding == {}


ANSWERS: dict[str, tuple[str, Turn]] = {
    "limits": ("limits", says("fine")),
    "upstream_model at the end": ("upstream_model", says("fine")),
    "upstream_id of a truncated answer": ("upstream_id", cut("half")),
    "upstream_id of a late answer": ("upstream_id", says("half", 99.0)),
}


@pytest.mark.parametrize(("name", "turn"), ANSWERS.values(), ids=ANSWERS)
async def test_a_bug_in_an_answers_property_is_one_too(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, name: str, turn: Turn
) -> None:
    """Whichever is read, and whenever."""
    properties_raise(monkeypatch, name)
    a = Scripted(turn)
    async with client_of(a, model(retry=ONCE)) as client:
        with pytest.raises(ProviderBugError):
            await client.generate("Why?")

        await assert_nothing_held(client, a)


async def test_a_broken_answer_that_cannot_name_its_model_stays_what_it_was(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The name is wanted for its price alone; that it could not be had is logged."""
    properties_raise(monkeypatch, "upstream_model")
    a = Scripted(cut("half"))
    async with client_of(a, model(retry=ONCE)) as client:
        with pytest.raises(StreamInterruptedError):
            await client.generate("Why?")

        assert "a: asking an answer for its model's name failed: KeyError" in caplog.text
        await assert_nothing_held(client, a)


CLOSING: dict[str, tuple[Turn, type[WizardError] | None]] = {
    "a whole answer": (Turn(("whole", DONE), closing=KeyError("planted")), None),
    "a failed one": (Turn((BROKEN,), closing=KeyError("planted")), NetworkError),
    "by an error of its own": (Turn(("whole", DONE), closing=BROKEN), None),
}


@pytest.mark.parametrize(("turn", "expected"), CLOSING.values(), ids=CLOSING)
async def test_a_bug_while_closing_changes_nothing_and_is_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, turn: Turn, expected: type[WizardError] | None
) -> None:
    """An answer that is whole is delivered; a failure stays what it was; everything is given back."""
    a = Scripted(turn)
    async with client_of(a, model(retry=ONCE)) as client:
        if expected is None:
            assert (await client.generate("Why?")).text == "whole"
        else:
            with pytest.raises(expected):
                await client.generate("Why?")

        assert "a: closing an exchange failed" in caplog.text
        await assert_nothing_held(client, a)


async def test_a_provider_sees_the_error_that_ends_its_exchange(autojump_clock: MockClock) -> None:
    """It may treat a finished answer's connection differently from a broken one's."""
    a = Scripted(fails(BROKEN), says("fine"))
    async with client_of(a, model(retry=NO_JITTER)) as client:
        await client.generate("Why?")

        assert [call.left_with for call in a.calls] == [NetworkError, None]


# -- a provider that returns anything at all ---------------------------------------------------------------------------


class Returns:
    """A model whose reads return `values`, whatever they are, or raise them, and never wait; then it ends."""

    streams = True
    limits = upstream_model = upstream_id = None

    def __init__(self, *values: object, on_read: Callable[[], object] = int) -> None:
        self.values: Iterable[object] = values
        self.on_read = on_read
        self.reads = 0

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[Answer]:
        self.left = iter(self.values)
        yield self

    async def read(self) -> Sequence[ModelEvent] | None:
        self.reads += 1
        self.on_read()
        value = next(self.left, None)
        if isinstance(value, Exception):
            raise value
        return value  # type: ignore[return-value]  # the mistake


def counted(*counts: object) -> tuple[object, ...]:
    """Return the events of an answer that states this usage."""
    return (TextDelta("mine"), UsageUpdate(TokenUsage(*counts)), DONE)  # type: ignore[arg-type]  # the mistake


WRONG: dict[str, object] = {
    "a number": 5,
    "a text": "mine",
    "an iterator": iter([TextDelta("mine"), DONE]),
    "an event by itself": TextDelta("mine"),
    "texts": ["mine", DONE],
    "a text that is None": [TextDelta(None), DONE],  # type: ignore[arg-type]  # the mistake, as below
    "a thought in bytes": [ReasoningDelta(b"mine"), DONE],  # type: ignore[arg-type]
    "a call with a text for an index": [ToolCallDelta("0"), DONE],  # type: ignore[arg-type]
    "a call without arguments": [ToolCallDelta(0, "id", "name", None), DONE],  # type: ignore[arg-type]
    "an end for a text's reason": [TextDelta("mine"), Finished("stop")],  # type: ignore[arg-type]
    "a usage of texts": counted("12", "3"),
    "a usage of None": counted(None, 2),
    "a usage of fractions": counted(1.5, 2),
    "a usage of truths": counted(1, True),
    "a usage beyond all numbers": counted(10**400, 2),
    "a usage that is a dict": [UsageUpdate({"input_tokens": 1}), DONE],  # type: ignore[arg-type]
}


@pytest.mark.parametrize("value", WRONG.values(), ids=WRONG)
async def test_what_is_no_event_is_that_requests_bug(autojump_clock: MockClock, value: object) -> None:
    """The next model answers; no actor crashes over it, and no grant is lost."""
    price = PriceConfig(input=Decimal(1), output=Decimal(1))
    limit = RateLimitConfig(tokens_per_minute=1_000_000)
    models = [model("a", price=price, limit=limit, retry=ONCE), model("b")]
    async with client_of({"a": Returns(value), "b": Scripted(says("sound"))}, *models) as client:
        for _ in range(3):
            answer = await client.generate("Why?")
            assert (answer.model, answer.text) == ("b", "sound")
            assert isinstance(answer.attempts[0].error, ProviderBugError)
            assert "TypeError" in str(answer.attempts[0].error)

        await assert_nothing_held(client)
        assert all(found.restarts == 0 for found in client.tree().walk())


async def test_a_wrong_usage_after_the_end_takes_nothing_from_the_answer(autojump_clock: MockClock) -> None:
    """It was complete before."""
    a = Returns([TextDelta("whole"), DONE], [UsageUpdate(TokenUsage("12", "3"))])  # type: ignore[arg-type]  # the mistake
    async with client_of(a) as client:
        answer = await client.generate("Why?")

        assert (answer.text, answer.usage) == ("whole", None)
        await assert_nothing_held(client)


async def test_no_grant_is_lost_over_the_books(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong in reckoning up what was used."""

    def planted(self: Attempt) -> int:
        raise KeyError("planted")

    monkeypatch.setattr(Attempt, "_used", planted)
    a = Scripted(says("fine"), fails(BROKEN))
    async with client_of(a, model(retry=ONCE)) as client:
        for _ in range(2):
            with pytest.raises(KeyError, match="planted"):
                await client.generate("Why?")

        assert client.supervisor.outstanding == {}


ENDLESS: dict[str, tuple[ModelEvent, ...]] = {"nothing": (), "texts": (TextDelta("and "),)}


@pytest.mark.parametrize("events", ENDLESS.values(), ids=ENDLESS)
async def test_reads_that_never_wait_leave_others_their_turn(
    autojump_clock: MockClock, events: tuple[ModelEvent, ...]
) -> None:
    """One provider that spins does not stop the program."""
    most = 20_000
    a = Returns()
    a.values = chain(repeat(events, most), [(DONE,)])
    async with client_of(a) as client, trio.open_nursery() as nursery:
        nursery.start_soon(Calls().generate, client)
        for _ in range(30):
            await trio.lowlevel.checkpoint()
        assert 0 < a.reads < most
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("events", ENDLESS.values(), ids=ENDLESS)
async def test_reads_that_never_wait_meet_the_deadline(
    autojump_clock: MockClock, events: tuple[ModelEvent, ...]
) -> None:
    """Soon after it has passed, and everything is given back."""
    a = Returns(on_read=lambda: autojump_clock.jump(0.001))
    a.values = chain(repeat(events, 20_000), [(DONE,)])
    async with client_of(a) as client:
        with pytest.raises(DeadlineExceededError):
            await client.generate("Why?", deadline=5.0)

        assert 5.0 <= trio.current_time() < 6.0
        await assert_nothing_held(client)


async def test_a_chunk_costs_no_checkpoint_of_ours(autojump_clock: MockClock) -> None:
    """The provider's own waits are enough: giving way once in many reads is for those that have none."""
    a = Returns(*[[TextDelta("word ")]] * 50, [DONE])
    steps = 0

    async def count() -> None:
        nonlocal steps
        while True:
            await trio.lowlevel.checkpoint()
            steps += 1

    async with client_of(a) as client, trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await client.generate("Why?")
        assert steps < 50
        nursery.cancel_scope.cancel()


# -- the key, in what a provider raises unforeseen ---------------------------------------------------------------------

KEY = "sk-it's-a-key+that/nobody=sees"


def keyed(**settings: object) -> ModelConfig:
    """Return a model with a key in its environment."""
    given = ModelConfig(name="a", provider="custom", retry=ONCE, **settings)  # type: ignore[arg-type]  # of any setting
    return evolve(given, environ={"K": KEY})


async def raised_by(provider: Scripted | Returns, config: ModelConfig) -> tuple[ProviderBugError, str]:
    """Return the error that comes of it, and all that anybody is shown of it."""
    told: list[Event] = []
    events = EventStream()
    async with client_of({"a": provider}, config, events=events) as client:
        client.events.listen(told.append)
        with pytest.raises(ProviderBugError) as caught:
            await client.generate("Why?")
        await wait_all_tasks_blocked()
    error = caught.value
    assert told
    shown = [str(error), repr(error), json.dumps(error.to_dict()), repr(error.attempts), repr(told)]
    return error, "".join([*shown, *traceback.format_exception(error)])


REPEATS: dict[str, Exception] = {
    "as it is": ValueError(f"Illegal header value b'Bearer {KEY}'"),
    "quoted": KeyError(KEY),
    "in an address": ValueError("http://up.test/?key=sk-it%27s-a-key%2Bthat%2Fnobody%3Dsees"),
    "in a note": ValueError("oops"),
    "behind it": ValueError("oops"),
}
REPEATS["in a note"].add_note(f"sent with {KEY}")
REPEATS["behind it"].__cause__ = ValueError(f"sent with {KEY}")


@pytest.mark.parametrize("where", ["head", "body"])
@pytest.mark.parametrize("error", REPEATS.values(), ids=REPEATS)
async def test_a_key_in_a_providers_bug_is_shown_nowhere(
    autojump_clock: MockClock, error: Exception, where: str
) -> None:
    """Not in the error, its record, its events and its traceback; what repeats the key is no cause."""
    turn = Turn(head=error) if where == "head" else Turn((error,))
    found, shown = await raised_by(Scripted(turn), keyed(api_key_env="K"))

    assert found.__cause__ is None
    assert type(error).__name__ in shown
    for form in ("nobody=sees", "nobody%3Dsees"):
        assert form not in shown


async def test_a_header_in_a_providers_bug_is_shown_nowhere(autojump_clock: MockClock) -> None:
    """Its value may be a key, too."""
    found, shown = await raised_by(Returns(ValueError(f"cannot send {KEY}")), keyed(headers={"x-team": KEY}))

    assert "ValueError: cannot send ***" in str(found)
    assert KEY not in shown


async def test_a_bug_that_repeats_no_key_keeps_its_cause(autojump_clock: MockClock) -> None:
    """Nothing else shows where it is."""
    found, shown = await raised_by(Returns(ValueError("oops")), keyed(api_key_env="K"))

    assert isinstance(found.__cause__, ValueError)
    assert "in read" in shown


async def test_a_key_that_cannot_be_read_hides_no_bug(autojump_clock: MockClock, tmp_path: Path) -> None:
    """Its file may be gone by then."""
    found, _shown = await raised_by(Returns(ValueError("oops")), keyed(api_key_file=tmp_path / "gone"))

    assert "ValueError: oops" in str(found)


async def test_an_error_without_a_text_is_a_bug_like_others(autojump_clock: MockClock) -> None:
    """An error of somebody else's may fail to say what it is."""

    class SpeechlessError(Exception):
        def __str__(self) -> str:
            raise KeyError("planted")

    found, _shown = await raised_by(Returns(SpeechlessError()), keyed())

    assert "SpeechlessError" in str(found)


@pytest.mark.long
async def test_no_call_begins_while_the_circuit_is_open(autojump_clock: MockClock) -> None:
    """Hundreds of calls of one instant, which fail after some steps each: between a permit and its call the circuit may
    open, and then the call is not sent.
    """
    sent: list[Circuit] = []
    rng = Random(1)

    async def run(seed: int) -> None:
        client: ResilientClient

        def note(_seen: Seen) -> None:
            state = client.supervisor.ref("models/model:a/breaker", BreakerState).published
            assert state is not None
            sent.append(state.circuit)

        a = Scripted(*[Turn((*[()] * rng.randint(0, 9), BROKEN)) for _ in range(400)], on_open=note)
        config = model(slots=100, retry=ONCE, breaker=BreakerConfig(failure_threshold=9, open_for=1.0))
        async with client_of(a, config, seed=seed) as client, trio.open_nursery() as nursery:
            for _ in range(60):
                nursery.start_soon(call_again, client, rng.randint(0, 30))

    for seed in range(20):
        await run(seed)

    assert len(sent) > 300
    assert Circuit.OPEN not in sent


async def call_again(client: ResilientClient, steps: int) -> None:
    """Make a few calls, some steps after each other."""
    for _ in range(5):
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        await Calls().generate(client)


async def test_errors_of_unsent_attempts_say_so(autojump_clock: MockClock) -> None:
    """An attempt that got no leave lasted no time and cost nothing."""
    a = Scripted(fails(BROKEN))
    async with client_of(a, model(retry=NO_JITTER, breaker=BreakerConfig(failure_threshold=2))) as client:
        with pytest.raises(RetryError) as caught:
            await client.generate("Why?")

        *sent, unsent = caught.value.attempts
        assert [attempt.sent for attempt in sent] == [True, True]
        assert (unsent.sent, unsent.duration, unsent.cost) == (False, 0.0, None)
        assert isinstance(unsent.error, CircuitOpenError)
        assert isinstance(caught.value.__cause__, NetworkError)
        await wait_all_tasks_blocked()
        assert all(found.restarts == 0 for found in client.tree().walk())


async def test_a_paused_model_is_passed_by_while_another_remains(autojump_clock: MockClock) -> None:
    """Nobody begins to wait out a pause that is beyond the cap: the one who got the 429 did not, either."""
    limited = RateLimitError("slow down", model="a", retry_after=20.0)
    a, b = Scripted(fails(limited), says("back")), Scripted(says("here"))
    async with client_of({"a": a, "b": b}) as client:
        first = await client.generate("told")
        second = await client.generate("later")

        assert trio.current_time() == 0.0
        assert (first.model, second.model) == ("b", "b")
        assert second.attempts[0].sent is False
        assert isinstance(second.attempts[0].error, RateLimitError)
        assert len(a.calls) == 1
        await trio.sleep(15.0)
        assert (await client.generate("within the cap")).model == "a"


async def test_alone_a_paused_model_is_waited_for(autojump_clock: MockClock) -> None:
    """Late is better than not at all, as far as the limiter's longest wait goes."""
    a = Scripted(fails(RateLimitError("slow down", model="a", retry_after=20.0)), says("back"))
    async with client_of(a) as client:
        calls = Calls()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(calls.generate, client)
            await trio.sleep(1.0)
            nursery.start_soon(calls.generate, client)

        assert [answer.text for answer in calls.answers] == ["back", "back"]
        assert min(call.start for call in a.calls[1:]) == 20.0


async def test_when_all_are_paused_the_error_names_the_429(autojump_clock: MockClock) -> None:
    """The last model's limiter refuses what its longest wait does not cover."""
    a = Scripted(fails(RateLimitError("slow down", model="a", retry_after=100.0)))
    b = Scripted(fails(RateLimitError("slow down", model="b", retry_after=100.0)))
    async with client_of({"a": a, "b": b}) as client:
        with pytest.raises(FallbackError) as caught:
            await client.generate("Why?")

        assert caught.value.__cause__ is caught.value.attempts[0].error
        assert isinstance(caught.value.__cause__, RateLimitError)
        with pytest.raises(FallbackError) as again:
            await client.generate("Why?")
        assert [attempt.sent for attempt in again.value.attempts] == [False, False]


async def test_a_rubbish_retry_after_of_a_providers_loses_no_grant(autojump_clock: MockClock) -> None:
    """A provider of one's own may name anything."""
    rubbish = RateLimitError("slow down", model="a", retry_after="5")  # type: ignore[arg-type]  # that is the point
    a = Scripted(fails(rubbish), says("yes"))
    async with client_of(a, model(retry=NO_JITTER)) as client:
        assert (await client.generate("Why?")).text == "yes"
        await assert_nothing_held(client, a)


async def test_a_negative_usage_costs_nothing_and_loses_no_grant(autojump_clock: MockClock) -> None:
    """Nor do more cached tokens than there were make an answer cheaper than free."""
    usage = UsageUpdate(TokenUsage(input_tokens=10, output_tokens=-500, cached_tokens=1000))
    price = PriceConfig(input=Decimal(10), output=Decimal(10), cached_input=Decimal(1))
    a = Scripted(says("yes", usage))
    async with client_of(a, model(price=price)) as client:
        answer = await client.generate("Why?")
        assert answer.cost == Decimal("0.00001")
        await assert_nothing_held(client, a)
