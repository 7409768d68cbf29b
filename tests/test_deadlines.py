"""How long a call may take: the model's own limits, the caller's deadline, and how several models share it."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.models import (
    DONE,
    SILENT,
    USAGE,
    Calls,
    Scripted,
    Turn,
    assert_nothing_held,
    breaker,
    client_of,
    model,
    says,
    worker,
)
from wizard_actors import (
    DeadlineExceededError,
    ProviderTimeoutError,
    RateLimitError,
    ResilientClient,
    StreamInterruptedError,
    TextDelta,
)
from wizard_actors.breaker_core import Circuit
from wizard_actors.config import (
    RateLimitConfig,
    RetryConfig,
    TimeoutsConfig,
)
from wizard_actors.errors import TimeoutPhase
from wizard_actors.types import ReasoningDelta, ToolCallDelta

ONCE = RetryConfig(max_attempts=1)

# -- deadlines ---------------------------------------------------------------------------------------------------------

IMPATIENT = TimeoutsConfig(first_token=10.0, stall=5.0, total=60.0)
LATE: dict[str, tuple[Turn, TimeoutPhase, float]] = {
    "no head": (SILENT, "first_token", 10.0),
    "no first token": (says(50.0, "late"), "first_token", 10.0),
    "head and first token together": (Turn((6.0, "late", DONE), head=6.0), "first_token", 10.0),
    "pings are no first token": (Turn((4.0, (), 4.0, (), 4.0, "late", DONE)), "first_token", 10.0),
    "a stall": (says("first", 6.0, "late"), "stall", 5.0),
    "a drip": (says(*(step for _ in range(20) for step in (4.0, "drop"))), "total", 60.0),
}


@pytest.mark.parametrize(("turn", "phase", "after"), LATE.values(), ids=LATE)
async def test_a_model_that_is_late_is_left(
    autojump_clock: MockClock, turn: Turn, phase: TimeoutPhase, after: float
) -> None:
    """Each phase has its own limit; the error says which, and the exchange is closed."""
    a = Scripted(turn)
    async with client_of(a, model(retry=ONCE, timeouts=IMPATIENT)) as client:
        with pytest.raises(ProviderTimeoutError) as caught:
            await client.generate("Why?")

        assert caught.value.phase == phase
        assert f"{after:g} s" in str(caught.value)
        assert caught.value.request_id == (None if turn is SILENT else "id")
        assert (await breaker(client)).failures == 1
        await assert_nothing_held(client, a)


FIRST_TOKENS: dict[str, tuple[object, ...]] = {
    "text": (9.0, "first", 4.0, DONE),
    "reasoning": (9.0, ReasoningDelta("hm"), 4.0, DONE),
    "a tool call": (9.0, ToolCallDelta(0, "id", "name", "{}"), 4.0, DONE),
}


@pytest.mark.parametrize("steps", FIRST_TOKENS.values(), ids=FIRST_TOKENS)
async def test_any_content_ends_the_wait_for_a_first_token(
    autojump_clock: MockClock, steps: tuple[str | float, ...]
) -> None:
    """Text, reasoning and tool calls are content; from the first on, the wait for more is the stall's."""
    a = Scripted(Turn(steps))
    async with client_of(a, model(retry=ONCE, timeouts=IMPATIENT)) as client:
        await client.generate("Why?")

        assert trio.current_time() == 13.0
        assert (await worker(client)).health.first_tokens == (9.0,)


async def test_a_unary_model_has_no_first_token_and_no_stall(autojump_clock: MockClock) -> None:
    """Its answer comes as a whole: only the total bounds it."""
    a = Scripted(
        Turn((10.0, "who", 10.0, "le", DONE), head=30.0), Turn((40.0, "too late", DONE), head=30.0), streams=False
    )
    async with client_of(a, model(retry=ONCE, timeouts=IMPATIENT)) as client:
        assert (await client.generate("Why?")).text == "whole"

        with pytest.raises(ProviderTimeoutError) as caught:
            await client.generate("Why?")

        assert caught.value.phase == "total"


async def test_the_callers_own_deadline_is_nobodys_failure(autojump_clock: MockClock) -> None:
    """It ends the call wherever it stands, and the breaker learns nothing from it."""
    for turn in (SILENT, says(20.0, "late"), says("first", 20.0, "late")):
        a = Scripted(turn)
        async with client_of(a, model(retry=ONCE)) as client:
            with trio.fail_after(4.0), pytest.raises(DeadlineExceededError, match="deadline of 3 s") as caught:
                await client.generate("Why?", deadline=3.0)

            assert caught.value.deadline == 3.0
            assert [attempt.duration for attempt in caught.value.attempts] == [3.0]
            assert (await breaker(client)).failures == 0
            assert (await worker(client)).health.ignored == 1
            await assert_nothing_held(client, a)


async def test_a_deadline_ends_the_wait_for_a_slot(autojump_clock: MockClock) -> None:
    """Whoever waits at a full model is told when the deadline passes; nothing was sent."""
    a = Scripted(says(50.0, "late"))
    async with client_of(a, model(slots=1)) as client, trio.open_nursery() as nursery:
        nursery.start_soon(Calls().generate, client)
        await wait_all_tasks_blocked()

        with pytest.raises(DeadlineExceededError) as caught:
            await client.generate("Why?", deadline=3.0)

        assert trio.current_time() == 3.0
        assert [attempt.sent for attempt in caught.value.attempts] == [False]
        assert (await worker(client)).waiting == 0
        nursery.cancel_scope.cancel()


async def test_a_deadline_that_the_limiter_cannot_keep_is_refused_at_once(autojump_clock: MockClock) -> None:
    """There is no sense in waiting for a turn that comes too late."""
    a = Scripted(says("first"))
    async with client_of(a, model(limit=RateLimitConfig(requests_per_minute=6))) as client:
        await client.generate("first")

        with pytest.raises(RateLimitError, match="another 10 s, longer than its deadline, in 3 s"):
            await client.generate("Why?", deadline=3.0)

        assert trio.current_time() == 0.0


# -- deadlines that have to do for several models ----------------------------------------------------------------------


async def test_while_models_remain_a_first_token_gets_half_of_the_time(autojump_clock: MockClock) -> None:
    """A caller that is more impatient than the primary's limit is still answered by the fallback."""
    silent, backup = Scripted(SILENT), Scripted(says("in time"))
    async with client_of({"a": silent, "b": backup}) as client:
        answer = await client.generate("Why?", deadline=8.0)

        assert answer.model == "b"
        assert backup.calls[0].start == 4.0
        first = answer.attempts[0].error
        assert isinstance(first, ProviderTimeoutError)
        assert "first token after 4 s" in str(first)


async def test_half_is_taken_of_what_remains_when_the_call_is_sent(autojump_clock: MockClock) -> None:
    """The limiter's wait is not the model's: it leaves less for both halves, not for the fallback alone."""
    silent, backup = Scripted(says("one"), SILENT), Scripted(says("in time"))
    limited = model("a", limit=RateLimitConfig(requests_per_minute=10))
    async with client_of({"a": silent, "b": backup}, limited, model("b")) as client:
        await client.generate("takes the burst")

        answer = await client.generate("Why?", deadline=10.0)

        assert answer.model == "b"
        assert silent.calls[1].start == 6.0
        assert backup.calls[0].start == 8.0


async def test_the_last_model_gets_all_the_time_that_is_left(autojump_clock: MockClock) -> None:
    """Nobody comes after it."""
    silent, backup = Scripted(SILENT), Scripted(says(3.9, "just in time"))
    async with client_of({"a": silent, "b": backup}) as client:
        answer = await client.generate("Why?", deadline=8.0)

        assert answer.model == "b"


async def test_a_configured_limit_below_half_stays(autojump_clock: MockClock) -> None:
    """The time is shared only where it is short; then the limit is the model's own, and so is the failure."""
    silent, backup = Scripted(SILENT), Scripted(says("in time"))
    quick = model("a", timeouts=TimeoutsConfig(first_token=2.0))
    async with client_of({"a": silent, "b": backup}, quick, model("b")) as client:
        await client.generate("Why?", deadline=100.0)

        assert backup.calls[0].start == 2.0
        assert (await breaker(client)).failures == 1


@pytest.mark.parametrize("silence", [SILENT, says(50.0, "late")], ids=["no head", "no first token"])
async def test_a_shortened_limit_is_a_failure_where_nobody_hears_from_the_model(
    autojump_clock: MockClock, silence: Turn
) -> None:
    """Impatient callers alone do open the circuit of a model that is silent for all."""
    silent, backup = Scripted(silence), Scripted(says("in time"))
    async with client_of({"a": silent, "b": backup}) as client:
        await client.generate("Why?", deadline=8.0)

        assert (await breaker(client)).failures == 1


@pytest.mark.parametrize("silence", [SILENT, says(50.0, "late")], ids=["no head", "no first token"])
async def test_a_shortened_limit_is_neutral_where_somebody_got_a_first_token(
    autojump_clock: MockClock, silence: Turn
) -> None:
    """One impatient caller a second must not close a healthy model to the patient ones."""
    slow, backup = Scripted(silence, says(2.0, "healthy")), Scripted(says("in time"))
    async with client_of({"a": slow, "b": backup}) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: Calls().generate(client, deadline=8.0))
            await trio.sleep(1.0)
            nursery.start_soon(Calls().generate, client)

        assert (await breaker(client)).failures == 0
        assert (await worker(client)).health.ignored == 1


@pytest.mark.parametrize("silence", [SILENT, says(50.0, "late")], ids=["no head", "no first token"])
async def test_a_shortened_limit_is_neutral_where_the_model_was_seen_to_take_longer(
    autojump_clock: MockClock, silence: Turn
) -> None:
    """A model that answers after 6 s is not broken because somebody waited only 4."""
    slow, backup = Scripted(says(6.0, "healthy"), silence), Scripted(says("in time"))
    async with client_of({"a": slow, "b": backup}) as client:
        await client.generate("patient")
        await client.generate("impatient", deadline=8.0)

        assert (await breaker(client)).failures == 0


async def test_a_model_that_was_slow_and_has_been_silent_for_long_is_dead(autojump_clock: MockClock) -> None:
    """That it once took long excuses nothing for ever: after five minutes of silence it is a failure again."""
    slow, backup = Scripted(says(6.0, "healthy"), SILENT), Scripted(says("in time"))
    async with client_of({"a": slow, "b": backup}) as client:
        await client.generate("patient")
        await trio.sleep(290.0)
        await client.generate("impatient", deadline=8.0)
        assert (await breaker(client)).failures == 0
        await trio.sleep(20.0)
        await client.generate("impatient", deadline=8.0)

        assert (await breaker(client)).failures == 1


async def test_a_stall_under_a_short_deadline_is_the_models_failure(autojump_clock: MockClock) -> None:
    """Only the limit of the first token is shared."""
    stalls, backup = Scripted(says("first", 50.0, "late")), Scripted(says("whole"))
    config = model("a", timeouts=TimeoutsConfig(stall=2.0))
    async with client_of({"a": stalls, "b": backup}, config, model("b")) as client:
        await client.generate("Why?", deadline=20.0)

        assert (await breaker(client)).failures == 1


async def test_ten_minutes_of_a_silent_primary_cost_no_impatient_caller_its_answer(autojump_clock: MockClock) -> None:
    """Everybody is answered by the fallback, and soon without asking the primary first."""
    silent, backup = Scripted(SILENT), Scripted(says("in time"))
    async with client_of({"a": silent, "b": backup}) as client:
        while trio.current_time() < 600.0:
            answer = await client.generate("Why?", deadline=8.0)
            assert answer.model == "b"
            await trio.sleep(1.0)

        assert len(silent.calls) < 40
        assert (await breaker(client)).circuit is not Circuit.CLOSED


async def test_a_healthy_primary_keeps_its_patient_callers_beside_impatient_ones(autojump_clock: MockClock) -> None:
    """One caller a second whose deadline is below the primary's first token changes nothing for the others."""
    slow, backup = Scripted(says(5.0, "patience")), Scripted(says("haste"))
    async with client_of({"a": slow, "b": backup}) as client:
        patient, impatient = Calls(), Calls()

        async with trio.open_nursery() as nursery:
            for second in range(120):
                if second % 3 == 0:
                    nursery.start_soon(patient.generate, client)
                nursery.start_soon(lambda: impatient.generate(client, deadline=4.0))
                await trio.sleep(1.0)

        assert {answer.model for answer in patient.answers} == {"a"}
        assert {answer.model for answer in impatient.answers} == {"b"}
        assert patient.errors == impatient.errors == []


# -- a consumer's time is not the model's ------------------------------------------------------------------------------


async def consume(client: ResilientClient, pause: float) -> list[str]:
    """Read a stream, with a pause after each text."""
    async with client.stream("Why?") as stream:
        texts = []
        async for event in stream:
            if isinstance(event, TextDelta):
                texts.append(event.text)
                await trio.sleep(pause)
    return texts


async def test_a_slow_consumer_trips_neither_stall_nor_total(autojump_clock: MockClock) -> None:
    """Only the waits for the model are measured: nobody's circuit opens for a consumer that takes its time."""
    a = Scripted(says("one", 4.0, "two", 4.0, "three", USAGE))
    async with client_of(a, model(retry=ONCE, timeouts=TimeoutsConfig(stall=5.0, total=20.0))) as client:
        texts = await consume(client, pause=100.0)

        assert texts == ["one", "two", "three"]
        assert (await breaker(client)).failures == 0


async def test_a_slow_consumer_does_not_stretch_what_the_model_may_take(autojump_clock: MockClock) -> None:
    """The model's own waits add up to its total, as without the consumer's pauses."""
    a = Scripted(says(*(step for _ in range(9) for step in ("drop", 4.0))))
    async with client_of(a, model(retry=ONCE, timeouts=TimeoutsConfig(stall=5.0, total=18.0))) as client:
        with pytest.raises(StreamInterruptedError) as caught:
            await consume(client, pause=100.0)

        assert isinstance(caught.value.__cause__, ProviderTimeoutError)
        assert caught.value.__cause__.phase == "total"
        assert caught.value.partial == "drop" * 5


async def test_a_slow_consumer_does_not_cost_the_usage(autojump_clock: MockClock) -> None:
    """The second in which usage is awaited after the finish is the model's, too."""
    a = Scripted(Turn(((TextDelta("all"), DONE), USAGE)))
    async with client_of(a) as client:
        async with client.stream("Why?") as stream:
            async for _ in stream:
                await trio.sleep(30.0)

        assert stream.response.usage == USAGE.usage
