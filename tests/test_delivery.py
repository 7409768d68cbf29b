"""Streams: what a consumer gets of an answer that comes whole, breaks off, or starts again; and of one it leaves."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.models import (
    DONE,
    NO_JITTER,
    SILENT,
    USAGE,
    Calls,
    Scripted,
    Turn,
    assert_nothing_held,
    breaker,
    client_of,
    cut,
    fails,
    model,
    says,
    worker,
)
from wizard_actors import (
    ContentFilterError,
    DeadlineExceededError,
    End,
    FallbackError,
    InvalidStateTransitionError,
    NetworkError,
    OverloadedError,
    ProviderTimeoutError,
    ReasoningDelta,
    Reset,
    ResilientClient,
    RetryError,
    StreamEvent,
    StreamInterruptedError,
    TextDelta,
    TokenUsage,
    ToolCall,
    ToolCallDelta,
    UsageUpdate,
    WizardError,
)
from wizard_actors.config import RetryConfig, StreamConfig, TimeoutsConfig
from wizard_actors.events import RequestEnded

BROKEN = NetworkError("the connection broke", model="a")
RESET = StreamConfig(on_interruption="reset")
BUFFERED = StreamConfig(delivery="buffered")
ONCE = RetryConfig(max_attempts=1)


async def read(client: ResilientClient, into: list[StreamEvent] | None = None) -> list[StreamEvent]:
    """Read a stream to its end, or to its error; what came before that is in `into`."""
    events: list[StreamEvent] = [] if into is None else into
    async with client.stream("Why?") as stream:
        async for event in stream:
            events.append(event)  # noqa: PERF401 - what came is kept where an error follows
    return events


def shown(events: list[StreamEvent]) -> list[str]:
    """Return events in short: the texts, and the others' types."""
    return [event.text if isinstance(event, TextDelta) else event.type for event in events]


# -- whole answers -----------------------------------------------------------------------------------------------------


async def test_a_live_stream_passes_everything_on_as_it_comes(autojump_clock: MockClock) -> None:
    """Text, reasoning and tool calls at once, the usage and the end last."""
    steps = (ReasoningDelta("hm"), 1.0, "Hel", 1.0, "lo", 1.0, ToolCallDelta(0, "id", "look", "{}"), 1.0, USAGE)
    async with client_of(Scripted(says(*steps))) as client:
        async with client.stream("Why?") as stream:
            events = [(trio.current_time(), event) async for event in stream]
            response = stream.response

        assert [at for at, _ in events] == [0.0, 1.0, 2.0, 3.0, 4.0, 4.0]
        assert events[-1][1] == End(response)
        assert (response.text, response.reasoning, response.usage) == ("Hello", "hm", USAGE.usage)
        assert response.tool_calls == (ToolCall("id", "look", "{}"),)


async def test_a_buffered_stream_delivers_all_of_it_once_it_is_complete(autojump_clock: MockClock) -> None:
    """In the pieces in which it came."""
    async with client_of(Scripted(says("Hel", 5.0, "lo", USAGE)), stream=BUFFERED) as client:
        times: list[float] = []
        events: list[StreamEvent] = []
        async with client.stream("Why?") as stream:
            async for event in stream:
                times.append(trio.current_time())
                events.append(event)

        assert shown(events) == ["Hel", "lo", "usage", "end"]
        assert times == [5.0] * 4


async def test_what_the_call_asks_for_overrules_the_configured_delivery(autojump_clock: MockClock) -> None:
    """Either way, and by its plain name."""
    for configured, asked, first_at in ((BUFFERED, "live", 0.0), (StreamConfig(), "buffered", 5.0)):
        async with client_of(Scripted(says("Hel", 5.0, "lo")), stream=configured) as client:
            began = trio.current_time()
            async with client.stream("Why?", delivery=asked) as stream:  # type: ignore[arg-type]  # a plain string
                assert await anext(stream) == TextDelta("Hel")

            assert trio.current_time() - began == first_at


async def test_a_stream_without_usage_says_nothing_of_it(autojump_clock: MockClock) -> None:
    """Nothing is invented."""
    async with client_of(Scripted(says("Hello"))) as client:
        assert shown(await read(client)) == ["Hello", "end"]


# -- before the first content ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delivery", [StreamConfig(), BUFFERED, RESET], ids=["live", "buffered", "reset"])
async def test_before_the_first_content_any_failure_falls_back_unseen(
    autojump_clock: MockClock, delivery: StreamConfig
) -> None:
    """No head, a refusal, a body that breaks or ends, a finish-less end, usage without content."""
    for turn in (SILENT, fails(BROKEN), cut(), cut(USAGE), Turn(((), 1.0, BROKEN)), Turn(head=KeyError("bug"))):
        a, b = Scripted(turn), Scripted(says("from b"))
        async with client_of({"a": a, "b": b}, model("a", retry=ONCE), model("b"), stream=delivery) as client:
            assert shown(await read(client)) == ["from b", "end"]
            await assert_nothing_held(client, a, b)


# -- after it ----------------------------------------------------------------------------------------------------------

BREAKS: dict[str, tuple[Turn, type[WizardError]]] = {
    "broken": (Turn(("half an ", "ans", BROKEN)), NetworkError),
    "truncated": (cut("half an ", "ans"), StreamInterruptedError),
    "stalled": (says("half an ", "ans", 99.0, "wer"), ProviderTimeoutError),
    "overloaded inside the stream": (Turn(("half an ", "ans", OverloadedError("busy", model="a"))), OverloadedError),
}
every_break = pytest.mark.parametrize(("turn", "kind"), BREAKS.values(), ids=BREAKS)


@every_break
async def test_live_an_interruption_is_an_error_with_what_had_come(
    autojump_clock: MockClock, turn: Turn, kind: type[WizardError]
) -> None:
    """What was delivered cannot be taken back: no other model is asked, and nothing is glued together."""
    a, b = Scripted(turn), Scripted(says("from b"))
    async with client_of({"a": a, "b": b}, model("a", retry=NO_JITTER), model("b")) as client:
        events: list[StreamEvent] = []
        with pytest.raises(StreamInterruptedError) as caught:
            await read(client, events)

        error = caught.value
        assert shown(events) == ["half an ", "ans"]
        assert (error.partial, error.model) == ("half an ans", "a")
        assert type(error.__cause__) is kind
        assert [attempt.error for attempt in error.attempts] == [error.__cause__]
        assert error.to_dict()["partial"] == "half an ans"
        assert (len(a.calls), len(b.calls)) == (1, 0)
        await assert_nothing_held(client, a, b)


@every_break
async def test_with_reset_the_next_whole_answer_follows(
    autojump_clock: MockClock, turn: Turn, kind: type[WizardError]
) -> None:
    """The consumer is told to drop what it has, which model broke off, and why."""
    a, b = Scripted(turn), Scripted(says("from ", "b"))
    async with client_of({"a": a, "b": b}, model("a", retry=ONCE), model("b"), stream=RESET) as client:
        events = await read(client)

        assert shown(events) == ["half an ", "ans", "reset", "from ", "b", "end"]
        reset, end = events[2], events[-1]
        assert isinstance(reset, Reset)
        assert (reset.model, reset.reason) == ("a", kind.code)
        assert isinstance(end, End)
        assert end.response.text == "from b"
        await assert_nothing_held(client, a, b)


async def test_with_reset_the_same_model_may_start_again(autojump_clock: MockClock) -> None:
    """A retry is another whole answer, too, and each interruption tells its own reset."""
    a = Scripted(Turn(("one", BROKEN)), Turn(("two", BROKEN)), says("three"))
    async with client_of(a, model(retry=NO_JITTER), stream=RESET) as client:
        assert shown(await read(client)) == ["one", "reset", "two", "reset", "three", "end"]


async def test_with_reset_an_attempt_without_content_tells_no_second_reset(autojump_clock: MockClock) -> None:
    """One interruption, one reset, however many attempts it takes until content follows."""
    a = Scripted(Turn(("one", BROKEN)), fails(OverloadedError("busy", model="a")), says("three"))
    async with client_of(a, model(retry=NO_JITTER), stream=RESET) as client:
        events = await read(client)

        assert shown(events) == ["one", "reset", "three", "end"]
        assert events[1] == Reset("a", "network")


async def test_with_reset_an_empty_answer_takes_back_what_came(autojump_clock: MockClock) -> None:
    """The answer that counts is the last one, also where there is nothing in it."""
    a = Scripted(Turn(("one", BROKEN)), says())
    async with client_of(a, model(retry=NO_JITTER), stream=RESET) as client:
        assert shown(await read(client)) == ["one", "reset", "end"]


async def test_with_reset_and_nobody_left_the_error_is_that_of_a_call(autojump_clock: MockClock) -> None:
    """All attempts are listed; the consumer knows that what it has is not an answer."""
    a, b = Scripted(Turn(("one", BROKEN))), Scripted(Turn(("two", BROKEN)))
    async with client_of({"a": a, "b": b}, model("a", retry=ONCE), model("b", retry=ONCE), stream=RESET) as client:
        events: list[StreamEvent] = []
        with pytest.raises(FallbackError) as caught:
            await read(client, events)

        assert shown(events) == ["one", "reset", "two"]
        assert len(caught.value.attempts) == 2


@every_break
async def test_buffered_nothing_of_a_failed_attempt_is_delivered(
    autojump_clock: MockClock, turn: Turn, kind: type[WizardError]
) -> None:
    """The only way to rescue a stream of which nothing can be taken back."""
    a, b = Scripted(turn), Scripted(says("from ", "b"))
    async with client_of({"a": a, "b": b}, model("a", retry=ONCE), model("b"), stream=BUFFERED) as client:
        assert shown(await read(client)) == ["from ", "b", "end"]


async def test_buffered_a_failed_attempts_partial_text_is_not_lost(autojump_clock: MockClock) -> None:
    """It stands in the attempt's error, where that is an interruption."""
    async with client_of(Scripted(cut("half")), model(retry=NO_JITTER), stream=BUFFERED) as client:
        with pytest.raises(RetryError) as caught:
            await read(client)

        assert isinstance(caught.value.__cause__, StreamInterruptedError)
        assert caught.value.__cause__.partial == "half"


@pytest.mark.parametrize("stream", [StreamConfig(), RESET], ids=["fail", "reset"])
async def test_an_end_that_no_other_model_would_change_is_told_as_it_is(
    autojump_clock: MockClock, stream: StreamConfig
) -> None:
    """A filter that cuts an answer, and the caller's own deadline, are no interruptions."""
    filtered = ContentFilterError("no more of this", model="a")
    for turn, kind in ((Turn(("half", filtered)), ContentFilterError), (says("half", 99.0), DeadlineExceededError)):
        a, b = Scripted(turn), Scripted(says("from b"))
        async with client_of({"a": a, "b": b}, stream=stream) as client:
            async with client.stream("Why?", deadline=5.0) as live:
                assert await anext(live) == TextDelta("half")
                with pytest.raises(kind) as caught:
                    await anext(live)

            assert len(caught.value.attempts) == 1
            assert (await breaker(client)).failures == 0


# -- consumers that leave ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def watched(*turns: Turn, stream: StreamConfig | None = None) -> AsyncIterator[tuple[ResilientClient, Scripted]]:
    """Open a client of one model; at the end nothing may be held, the breaker knows nothing, every request ended."""
    a = Scripted(*turns)
    async with client_of(a, stream=stream) as client:
        with client.events.subscribe() as events:
            yield client, a
            await assert_nothing_held(client, a)
            assert len([event for event in events.drain() if isinstance(event, RequestEnded)]) == len(a.calls)
        state = await breaker(client)
        assert (state.failures, state.in_flight) == (0, 0)
    del client
    gc.collect()  # an exchange or a generator that nobody closed would say so now


LONG = says("one", 1.0, "two", 1.0, "three")


async def test_a_consumer_that_leaves_early_stops_the_call(autojump_clock: MockClock) -> None:
    """The exchange is closed as the block is left, not later."""
    async with watched(LONG) as (client, a):
        async with client.stream("Why?") as stream:
            async for event in stream:
                assert event == TextDelta("one")
                break
            assert a.in_flight == 1

        assert a.in_flight == 0
        assert a.calls[0].left_with is GeneratorExit
        assert (await worker(client)).health.ignored == 1


async def test_a_reader_of_text_may_leave_early_too(autojump_clock: MockClock) -> None:
    """Nothing has to be closed but the block."""
    async with watched(LONG) as (client, _), client.stream("Why?") as stream:
        async for text in stream.text():
            assert text == "one"
            break
        assert [text async for text in stream.text()] == ["two", "three"]


async def raise_at_the_first_event(client: ResilientClient, error: Exception) -> None:
    """Be a consumer with a problem of its own."""
    async with client.stream("Why?") as stream:
        async for _event in stream:
            raise error


async def test_a_consumer_that_raises_stops_the_call(autojump_clock: MockClock) -> None:
    """Its own error reaches it, unchanged."""
    async with watched(LONG) as (client, _):
        with pytest.raises(ZeroDivisionError):
            await raise_at_the_first_event(client, ZeroDivisionError())


async def test_a_consumer_that_raises_one_of_our_errors_is_no_failure_of_the_model(autojump_clock: MockClock) -> None:
    """What happens in the consumer's code is not the model's doing, whatever its type."""
    async with watched(LONG) as (client, _):
        with pytest.raises(NetworkError):
            await raise_at_the_first_event(client, BROKEN)


@pytest.mark.parametrize("turn", [SILENT, says(99.0, "late"), says("one", 99.0, "two")])
async def test_a_consumer_that_is_cancelled_stops_the_call(autojump_clock: MockClock, turn: Turn) -> None:
    """Wherever the call stands."""
    async with watched(turn) as (client, a):
        with trio.move_on_after(5.0) as scope:
            await read(client)

        assert scope.cancelled_caught
        assert trio.current_time() == 5.0
        assert a.calls[0].left_with is trio.Cancelled


async def test_a_consumer_that_is_cancelled_in_its_own_code_stops_the_call(autojump_clock: MockClock) -> None:
    """While the generator stands at its yield."""
    async with watched(LONG) as (client, _):
        with trio.move_on_after(5.0) as scope:
            async with client.stream("Why?") as stream:
                async for _event in stream:
                    await trio.sleep_forever()

        assert scope.cancelled_caught


async def test_a_stream_that_nobody_reads_asks_nobody(autojump_clock: MockClock) -> None:
    """The call begins with the first read."""
    async with watched(LONG) as (client, a):
        async with client.stream("Why?"):
            await trio.sleep(5.0)

        assert a.calls == []


async def test_a_consumer_that_leaves_a_complete_answer_unread_changes_nothing(autojump_clock: MockClock) -> None:
    """The model has answered; that is what is told."""
    a = Scripted(says("one", "two"))
    async with client_of(a, stream=BUFFERED) as client:
        with client.events.subscribe() as events:
            async with client.stream("Why?") as stream:
                assert await anext(stream) == TextDelta("one")
            [ended] = [event for event in events.drain() if isinstance(event, RequestEnded)]

        assert (ended.code, ended.model) == (None, "a")


async def test_a_slow_consumer_stops_the_reading(autojump_clock: MockClock) -> None:
    """Nothing is read ahead: the model's bytes wait upstream, and that is the backpressure."""
    a = Scripted(says(*map(str, range(100))))
    async with client_of(a) as client, client.stream("Why?") as stream:
        for expected in range(5):
            assert await anext(stream) == TextDelta(str(expected))
            await trio.sleep(10.0)

        assert a.turns == [says(*map(str, range(100)))]
        assert [text async for text in stream.text()] == [str(number) for number in range(5, 100)]


# -- using a stream ----------------------------------------------------------------------------------------------------


async def test_the_response_is_there_at_the_end_and_not_before(autojump_clock: MockClock) -> None:
    """Asking earlier is told to read first."""
    async with client_of(Scripted(says("one"))) as client, client.stream("Why?") as stream:
        with pytest.raises(InvalidStateTransitionError, match="read it to its end"):
            _ = stream.response
        await anext(stream)
        with pytest.raises(InvalidStateTransitionError):
            _ = stream.response
        assert [event.type async for event in stream] == ["end"]

        assert stream.response.text == "one"
        assert stream.response.request_id == stream.request_id
        assert [event async for event in stream] == []


async def test_text_cannot_tell_a_reset(autojump_clock: MockClock) -> None:
    """Whoever reads plain text is told that the answer starts again, instead of two answers in one."""
    a, b = Scripted(Turn(("half", BROKEN))), Scripted(says("from b"))
    async with client_of({"a": a, "b": b}, model("a", retry=ONCE), model("b"), stream=RESET) as client:
        async with client.stream("Why?") as stream:
            text = stream.text()
            assert await anext(text) == "half"
            with pytest.raises(InvalidStateTransitionError, match="a broke off and the answer starts again"):
                await anext(text)

        await assert_nothing_held(client, a, b)


async def test_text_raises_where_it_is_interrupted(autojump_clock: MockClock) -> None:
    """And skips what is no text."""
    a = Scripted(Turn((ReasoningDelta("hm"), "half", BROKEN)))
    async with client_of(a) as client, client.stream("Why?") as stream:
        text = stream.text()
        assert await anext(text) == "half"
        for _ in range(2):
            with pytest.raises(StreamInterruptedError):
                await anext(text)


async def test_a_stream_is_read_inside_its_block_only(autojump_clock: MockClock) -> None:
    """Before it nothing has begun, after it the call is over: neither is an empty answer."""
    async with client_of(Scripted(LONG)) as client:
        stream = client.stream("Why?")
        with pytest.raises(InvalidStateTransitionError, match="inside its block"):
            await anext(stream)
        async with stream:
            await anext(stream)
        with pytest.raises(InvalidStateTransitionError, match="inside its block"):
            await anext(stream)


async def test_a_stream_is_one_call(autojump_clock: MockClock) -> None:
    """Its block cannot be entered twice."""
    async with client_of(Scripted(LONG)) as client:
        stream = client.stream("Why?")
        async with stream:
            with pytest.raises(InvalidStateTransitionError, match="one call"):
                await stream.__aenter__()
        with pytest.raises(InvalidStateTransitionError, match="one call"):
            await stream.__aenter__()


async def test_the_total_bounds_a_stream_that_drips(autojump_clock: MockClock) -> None:
    """However lively it is."""
    a = Scripted(says(*(step for _ in range(99) for step in (1.0, "drop"))))
    async with client_of(a, model(retry=ONCE, timeouts=TimeoutsConfig(total=10.0))) as client:
        with pytest.raises(StreamInterruptedError) as caught:
            await read(client)

        assert trio.current_time() == 10.0
        assert caught.value.partial.count("drop") == 9


async def test_many_streams_of_one_client_do_not_mix(autojump_clock: MockClock) -> None:
    """Each consumer gets its own answer."""
    a = Scripted(*[says(f"answer {number} ", 1.0, "end") for number in range(30)])
    async with client_of(a) as client, trio.open_nursery() as nursery:
        answers: list[str] = []

        async def consume() -> None:
            async with client.stream("Why?") as stream:
                answers.append("".join([text async for text in stream.text()]))

        for _ in range(30):
            nursery.start_soon(consume)
        await wait_all_tasks_blocked()
        nursery.start_soon(Calls().generate, client)
    assert sorted(answers) == sorted(f"answer {number} end" for number in range(30))


async def test_the_usage_event_carries_the_last_usage_that_was_stated(autojump_clock: MockClock) -> None:
    """Providers state it more than once; the consumer gets it once, at the end."""
    early = UsageUpdate(TokenUsage(input_tokens=1, output_tokens=1))
    async with client_of(Scripted(Turn((early, "all", DONE, USAGE)))) as client:
        events = await read(client)

        assert events[:-1] == [TextDelta("all"), USAGE]
        assert isinstance(events[-1], End)
