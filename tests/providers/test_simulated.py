"""The simulated model: how it answers, what each scripted fault looks like, what it remembers. All in virtual time."""

from collections.abc import Sequence
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from wizard_actors.config import Fault, ModelConfig, ScriptStep, SimulatedConfig
from wizard_actors.errors import (
    AuthError,
    ContentFilterError,
    ModelNotFoundError,
    NetworkError,
    OverloadedError,
    ParseError,
    ProviderError,
    QuotaExhaustedError,
    RateLimitError,
    RequestError,
    StreamInterruptedError,
    TokenLimitError,
    WizardError,
)
from wizard_actors.providers.base import Call, Provider
from wizard_actors.providers.simulated import SLOW_FIRST_TOKEN, SimulatedCall, SimulatedProvider
from wizard_actors.types import Finished, FinishReason, LimitHeaders, ModelEvent, Prompt, TextDelta, UsageUpdate

ANSWER = "Actors own state, callers own calls."  # six words
PACE = {"connect": 0.5, "first_token": 2.0, "per_chunk": 0.25}
QUESTION = Call(Prompt("Why do actors help?", system="Be brief"), "request-1")


def model(*script: ScriptStep, words_per_chunk: int = 1, answer: str = ANSWER) -> SimulatedProvider:
    """Return a model that answers with ANSWER, at PACE, after `script`."""
    settings = SimulatedConfig(answer=answer, words_per_chunk=words_per_chunk, script=script, **PACE)
    return SimulatedProvider("sim", settings=settings)


def faulty(fault: Fault, after_words: int = 0, delay: float | None = None) -> SimulatedProvider:
    """Return a model whose first call meets `fault`."""
    return model(ScriptStep(fault=fault, after_words=after_words, delay=delay))


async def read_all(provider: Provider, call: Call = QUESTION) -> list[ModelEvent]:
    """Return all events of a whole answer."""
    events: list[ModelEvent] = []
    await read_into(events, provider, call)
    return events


async def read_into(events: list[ModelEvent], provider: Provider, call: Call = QUESTION) -> None:
    """Add the events of an answer to `events` as they come, so that they are there after an error too."""
    async with provider.open(call) as answer:
        while (more := await answer.read()) is not None:
            events += more


def text_of(events: Sequence[ModelEvent]) -> str:
    """Return the text in `events`."""
    return "".join(event.text for event in events if isinstance(event, TextDelta))


# -- a whole answer ----------------------------------------------------------------------------------------------------


async def test_a_whole_answer_ends_with_usage_and_a_finish(autojump_clock: MockClock) -> None:
    """The text comes in words, then what it cost, then the sign that it is complete."""
    events = await read_all(model())

    assert text_of(events) == ANSWER
    assert [type(event) for event in events] == [TextDelta] * 6 + [UsageUpdate, Finished]
    usage, finish = events[-2:]
    assert isinstance(usage, UsageUpdate)
    assert (usage.usage.input_tokens, usage.usage.output_tokens) == (6, 6)
    assert finish == Finished(FinishReason.STOP, "stop")


async def test_the_pace_is_the_configured_one(autojump_clock: MockClock) -> None:
    """Head after `connect`, first chunk after `first_token`, each further one after `per_chunk`, the end at once."""
    times = []
    start = trio.current_time()
    async with model().open(QUESTION) as answer:
        times.append(trio.current_time() - start)
        while await answer.read() is not None:
            times.append(trio.current_time() - start)

    assert times == pytest.approx([0.5, 2.5, 2.75, 3.0, 3.25, 3.5, 3.75, 3.75])


@pytest.mark.parametrize(("size", "chunks"), [(1, 6), (2, 3), (4, 2), (100, 1)])
async def test_chunks_have_the_configured_number_of_words(autojump_clock: MockClock, size: int, chunks: int) -> None:
    """`words_per_chunk` words make a chunk, and together the chunks are the text."""
    events = await read_all(model(words_per_chunk=size))

    assert sum(isinstance(event, TextDelta) for event in events) == chunks
    assert text_of(events) == ANSWER


@pytest.mark.parametrize("answer", ["  two\n\nlines, and\ttabs \n", "x", "日本語 テキスト"])
async def test_white_space_of_the_answer_is_kept(autojump_clock: MockClock, answer: str) -> None:
    """Cutting an answer into words loses nothing between, before and after them."""
    assert text_of(await read_all(model(answer=answer))) == answer


async def test_an_empty_answer_is_replaced_by_one_that_names_the_model(autojump_clock: MockClock) -> None:
    """Without a configured answer a model says who it is."""
    assert "sim" in text_of(await read_all(SimulatedProvider("sim")))


async def test_a_provider_from_a_configuration_answers_as_it_says(autojump_clock: MockClock) -> None:
    """Name and settings are the configuration's."""
    config = ModelConfig(name="pretend", provider="simulated", simulated=SimulatedConfig(answer="As told."))
    provider = SimulatedProvider.from_config(config)

    async with provider.open(QUESTION) as answer:
        assert answer.upstream_model == "pretend"
    assert text_of(await read_all(provider)) == "As told."
    assert (provider.name, provider.streams) == ("pretend", True)


async def test_every_read_lets_other_tasks_run(autojump_clock: MockClock) -> None:
    """With all delays zero a reader still takes turns with others, so that one answer cannot hold up the rest."""
    provider = SimulatedProvider("sim", settings=SimulatedConfig(answer=ANSWER, first_token=0, per_chunk=0))
    turns: list[str] = []

    async def reader(name: str) -> None:
        async with provider.open(QUESTION) as answer:
            while await answer.read() is not None:
                turns.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader, "a")
        nursery.start_soon(reader, "b")

    assert turns != sorted(turns)
    assert turns != sorted(turns, reverse=True)


async def test_the_same_calls_meet_the_same_answers(autojump_clock: MockClock) -> None:
    """Nothing in it is random: events and times of two equal models are equal."""
    script = (ScriptStep(fault="stall", after_words=2, delay=3), ScriptStep(fault="ok"))

    async def trace() -> list[tuple[float, Sequence[ModelEvent]]]:
        seen: list[tuple[float, Sequence[ModelEvent]]] = []
        provider, start = model(*script), trio.current_time()
        for _ in range(3):
            async with provider.open(QUESTION) as answer:
                while (events := await answer.read()) is not None:
                    seen.append((trio.current_time() - start, events))
        return seen

    assert await trace() == await trace()


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind", "status"),
    [
        ("rate_limit", RateLimitError, 429),
        ("quota", QuotaExhaustedError, 429),
        ("error", ProviderError, 500),
        ("overloaded", OverloadedError, 503),
        ("auth", AuthError, 401),
        ("model_not_found", ModelNotFoundError, 404),
        ("bad_request", RequestError, 400),
        ("content_filter", ContentFilterError, 400),
    ],
)
async def test_a_refusal_is_raised_by_the_first_read(
    autojump_clock: MockClock, fault: Fault, kind: type[ProviderError], status: int
) -> None:
    """As with a real upstream the head arrives, and reading its body raises the error with model, status and id."""
    async with faulty(fault).open(QUESTION) as answer:
        with pytest.raises(ProviderError) as caught:
            await answer.read()

    assert type(caught.value) is kind
    assert (caught.value.model, caught.value.status) == ("sim", status)
    assert caught.value.request_id == answer.upstream_id is not None


async def test_a_refusal_keeps_the_pace_of_the_connection_only(autojump_clock: MockClock) -> None:
    """A refusal comes with its head: no first-token time passes."""
    start = trio.current_time()

    with pytest.raises(ProviderError):
        await read_all(faulty("error"))

    assert trio.current_time() - start == pytest.approx(PACE["connect"])


async def test_a_prompt_over_the_limit_is_told_its_length(autojump_clock: MockClock) -> None:
    """The token limit's error counts the prompt."""
    with pytest.raises(TokenLimitError) as caught:
        await read_all(faulty("token_limit"))

    assert (caught.value.model, caught.value.requested) == ("sim", 6)


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [("overloaded", 529, OverloadedError), ("error", 502, ProviderError), ("error", 409, ProviderError)],
)
async def test_a_scripted_status_replaces_the_faults_own(
    autojump_clock: MockClock, fault: Fault, status: int, kind: type[ProviderError]
) -> None:
    """A step may ask for another status of the same kind."""
    with pytest.raises(ProviderError) as caught:
        await read_all(model(ScriptStep(fault=fault, status=status)))

    assert type(caught.value) is kind
    assert caught.value.status == status


@pytest.mark.parametrize("fault", ["rate_limit", "overloaded", "error"])
async def test_retry_after_is_in_the_headers_and_in_the_error(autojump_clock: MockClock, fault: Fault) -> None:
    """A limiter learns the pause from the head, a retry from the error."""
    async with model(ScriptStep(fault=fault, retry_after=7)).open(QUESTION) as answer:
        assert answer.limits == LimitHeaders(retry_after=7)
        with pytest.raises(ProviderError) as caught:
            await answer.read()

    assert caught.value.retry_after == 7


async def test_without_retry_after_there_are_no_limits(autojump_clock: MockClock) -> None:
    """A model that says nothing of limits has none to show."""
    async with faulty("rate_limit").open(QUESTION) as answer:
        assert answer.limits is None
        with pytest.raises(RateLimitError) as caught:
            await answer.read()

    assert caught.value.retry_after is None


# -- faults on the way -------------------------------------------------------------------------------------------------


async def test_a_disconnect_before_the_first_word_is_a_failed_connection(autojump_clock: MockClock) -> None:
    """No head comes: entering raises, and nothing counts as in flight."""
    provider = faulty("disconnect")

    with pytest.raises(NetworkError) as caught:
        await read_all(provider)

    assert (caught.value.model, caught.value.status) == ("sim", None)
    assert provider.in_flight == 0


@pytest.mark.parametrize(("fault", "kind"), [("disconnect", StreamInterruptedError), ("malformed", ParseError)])
async def test_a_fault_midway_comes_after_its_words(
    autojump_clock: MockClock, fault: Fault, kind: type[WizardError]
) -> None:
    """The words before the fault arrive, and no finish."""
    events: list[ModelEvent] = []

    with pytest.raises(kind):
        await read_into(events, faulty(fault, after_words=3))

    assert text_of(events) == "Actors own state,"
    assert not any(isinstance(event, Finished) for event in events)


@pytest.mark.parametrize("fault", ["disconnect", "malformed"])
async def test_a_failed_answer_has_nothing_more(fault: Fault, autojump_clock: MockClock) -> None:
    """Reading on after the error finds the end, and the call stays a failed one."""
    provider = faulty(fault, after_words=1)

    async with provider.open(QUESTION) as answer:
        await answer.read()
        with pytest.raises(ProviderError):
            await answer.read()
        assert await answer.read() is None

    assert provider.calls[0].ended == "failed"


async def test_a_malformed_first_chunk_takes_a_first_tokens_time(autojump_clock: MockClock) -> None:
    """What cannot be understood arrives no sooner than what can."""
    start = trio.current_time()

    with pytest.raises(ParseError):
        await read_all(faulty("malformed"))

    assert trio.current_time() - start == pytest.approx(2.5)


@pytest.mark.parametrize(("after_words", "text"), [(0, ""), (2, "Actors own"), (100, ANSWER)])
async def test_a_truncated_answer_ends_without_a_finish(autojump_clock: MockClock, after_words: int, text: str) -> None:
    """The body ends, no error is raised, and only the missing finish tells."""
    events = await read_all(faulty("truncate", after_words=after_words))

    assert text_of(events) == text
    assert not any(isinstance(event, Finished) for event in events)


@pytest.mark.parametrize("after_words", [0, 2, 6])
async def test_a_stalled_answer_sends_its_words_and_then_nothing(autojump_clock: MockClock, after_words: int) -> None:
    """Reading waits for ever."""
    events: list[ModelEvent] = []

    with trio.move_on_after(3600) as patience:
        await read_into(events, faulty("stall", after_words=after_words))

    assert patience.cancelled_caught
    assert text_of(events).split() == ANSWER.split()[:after_words]
    assert not any(isinstance(event, Finished) for event in events)


async def test_a_stall_with_a_delay_passes(autojump_clock: MockClock) -> None:
    """After its delay the answer goes on to its end, and took as much longer."""
    start = trio.current_time()

    events = await read_all(faulty("stall", after_words=2, delay=10))

    assert text_of(events) == ANSWER
    assert isinstance(events[-1], Finished)
    assert trio.current_time() - start == pytest.approx(3.75 + 10)


async def test_a_silent_model_sends_not_even_a_head(autojump_clock: MockClock) -> None:
    """Entering waits for ever; a delay makes it end, and the answer is whole."""
    with trio.move_on_after(3600) as patience:
        await read_all(faulty("silent"))
    assert patience.cancelled_caught

    start = trio.current_time()
    assert text_of(await read_all(faulty("silent", delay=60))) == ANSWER
    assert trio.current_time() - start == pytest.approx(3.75 + 60)


@pytest.mark.parametrize(("delay", "first"), [(8, 8), (None, SLOW_FIRST_TOKEN)])
async def test_a_slow_first_token_delays_the_first_chunk_only(
    autojump_clock: MockClock, delay: float | None, first: float
) -> None:
    """The head comes in time, the first chunk late, the rest at the usual pace."""
    times = []
    async with faulty("slow_first_token", delay=delay).open(QUESTION) as answer:
        start = trio.current_time()
        while await answer.read() is not None:
            times.append(trio.current_time() - start)

    assert times[:2] == pytest.approx([first, first + 0.25])


# -- the script, and what is remembered --------------------------------------------------------------------------------


async def test_calls_consume_the_script_in_order_and_then_succeed(autojump_clock: MockClock) -> None:
    """Each step serves its `times` calls; after the last the model answers."""
    provider = model(
        ScriptStep(fault="rate_limit", times=2), ScriptStep(fault="ok"), ScriptStep(fault="truncate", after_words=1)
    )

    for _ in range(6):
        with suppress(RateLimitError):
            await read_all(provider)

    assert [call.fault for call in provider.calls] == ["rate_limit", "rate_limit", "ok", "truncate", "ok", "ok"]
    assert [call.ended for call in provider.calls] == [
        "failed",
        "failed",
        "complete",
        "truncated",
        "complete",
        "complete",
    ]


async def test_a_call_is_remembered_with_its_times_prompt_and_id(autojump_clock: MockClock) -> None:
    """The log says who asked what, from when to when."""
    provider = model()
    start = trio.current_time()

    await read_all(provider)

    (call,) = provider.calls
    assert (call.request_id, call.prompt, call.fault, call.ended) == ("request-1", QUESTION.prompt, "ok", "complete")
    assert call.end is not None
    assert (call.start - start, call.end - start) == pytest.approx((0, 3.75))


async def test_only_the_last_calls_are_remembered(autojump_clock: MockClock) -> None:
    """The log is bounded."""
    provider = SimulatedProvider("sim", calls_kept=2)

    for number in range(5):
        await read_all(provider, Call(Prompt("Hello"), str(number)))

    assert [call.request_id for call in provider.calls] == ["3", "4"]


async def test_calls_in_flight_are_counted_at_their_highest(autojump_clock: MockClock) -> None:
    """Three calls at once, then one: the highest stays, and none is left."""
    provider = model()

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(read_all, provider)
        await wait_all_tasks_blocked()
        assert provider.in_flight == 3
        assert repr(provider) == "<SimulatedProvider sim: 3 in flight>"
        assert [call.ended for call in provider.calls] == ["running"] * 3
    await read_all(provider)

    assert (provider.in_flight, provider.highest_in_flight) == (0, 3)


async def test_whoever_listens_is_told_of_a_call_as_it_begins(autojump_clock: MockClock) -> None:
    """`on_call` sees the call in flight, before any time has passed."""
    seen: list[tuple[SimulatedCall, str]] = []
    provider = SimulatedProvider("sim", on_call=lambda call: seen.append((call, call.ended)))

    await read_all(provider)

    assert seen == [(provider.calls[0], "running")]


@pytest.mark.parametrize(
    ("fault", "after"), [("ok", 0.25), ("silent", 5), ("ok", 1.0), ("ok", 2.6), ("stall", 100), ("slow_first_token", 9)]
)
async def test_a_cancelled_call_is_ended_as_cancelled(autojump_clock: MockClock, fault: Fault, after: float) -> None:
    """Wherever a call waits, its cancellation ends it at once and takes it out of the count."""
    provider = faulty(fault, after_words=1)

    with trio.move_on_after(after) as patience:
        await read_all(provider)

    assert patience.cancelled_caught
    (call,) = provider.calls
    assert call.ended == "cancelled"
    assert call.end == pytest.approx(call.start + after)
    assert provider.in_flight == 0


async def test_an_answer_left_before_its_end_is_cancelled(autojump_clock: MockClock) -> None:
    """A caller that has had enough, or fails, leaves a cancelled call behind."""
    provider = model()

    async with provider.open(QUESTION) as answer:
        await answer.read()
    with pytest.raises(ZeroDivisionError):
        async with provider.open(QUESTION):
            raise ZeroDivisionError

    assert [call.ended for call in provider.calls] == ["cancelled", "cancelled"]
    assert provider.in_flight == 0


async def test_an_answer_left_after_its_finish_is_complete(autojump_clock: MockClock) -> None:
    """Who has seen the finish need not wait for the end of the body."""
    provider = model()

    async with provider.open(QUESTION) as answer:
        while not any(isinstance(event, Finished) for event in await answer.read() or ()):
            pass

    assert provider.calls[0].ended == "complete"
    assert text_of(await read_all(provider)) == ANSWER
