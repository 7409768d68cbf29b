"""The traps of gateways and clients of language models: what hurt the users of others.

Each test is named after its trap, and says where that was seen. Where a test of the module concerned meets the trap
already, it stands in this table instead:

    startup frames count as an answer (first chunk peeked, Bifrost's startup buffer)
        tests/test_delivery.py::test_before_the_first_content_any_failure_falls_back_unseen
    a frame without content begins an answer
        tests/providers/test_answer.py::test_what_carries_nothing_is_no_event
    the status misleads where the body's code tells
        tests/providers/test_refusals.py::test_codes_and_messages_come_before_the_status
    an error object inside a 200 (LiteLLM #5512)
        tests/providers/test_answer.py::test_errors_under_a_200_are_classified
    a fallback's refusal of the prompt masks the first error (LiteLLM #27967)
        tests/test_pipeline.py::test_a_fallbacks_verdict_on_the_prompt_masks_nothing_either
    half an answer is continued rather than begun anew (LiteLLM's prefill)
        tests/test_answering.py::test_a_cut_after_forty_words_is_reset_to_the_fallbacks_answer
    a shorter bar replaces a longer one (LiteLLM #40130)
        tests/test_plan.py::test_a_shorter_bar_never_replaces_a_longer_one
    a model of 25 straight 500s stays first (LiteLLM #34836)
        tests/test_plan.py::test_a_model_of_25_straight_500s_does_not_stay_first
    a fallback with a bad key is asked again and again (LiteLLM #35104)
        tests/test_plan.py::test_a_fallback_that_fails_is_barred_like_a_first_choice
    a cooldown without half-open: all come back at once (LiteLLM)
        tests/test_breaker_handle.py::test_fifty_tasks_make_one_probe
    a 429 counts as a success of the breaker (voidllm #184)
        tests/test_breaker_core.py::test_a_rate_limited_probe_is_no_success
    a neutral outcome leaks the half-open slot (voidllm #185)
        tests/test_breaker_core.py::test_neutral_outcomes_leak_no_half_open_place
    a token limit checked before and counted after (LiteLLM #18730)
        tests/test_rate_limit.py::test_token_limits_race_five_concurrent_calls_spent_663_tokens_of_100
    a store without a timeout hangs every request (LiteLLM #35273)
        tests/test_cache.py::test_redis_without_a_timeout_hung_every_request
    a cancelled caller's upstream call runs on (LiteLLM #13774)
        tests/providers/test_openai.py::test_cancelling_closes_the_connection_at_once
    a disconnected consumer's upstream call runs on (LiteLLM #30245)
        tests/test_delivery.py::test_a_consumer_that_is_cancelled_stops_the_call
    memory that grows with the requests (LiteLLM #12685)
        tests/integration/test_concurrency.py::test_ten_rounds_of_a_thousand_calls_are_answered_and_leave_nothing
    responses that keep their failed attempts alive (LiteLLM #15128)
        tests/test_pipeline.py::test_a_kept_response_keeps_nothing_of_the_failed_attempts_but_their_news
    streams are not cached (LiteLLM #11145)
        tests/test_answering.py::test_a_stream_fills_the_cache_and_is_replayed_from_it
    a cache key without fields of the prompt that change the answer (litellm-rs #505)
        tests/test_cache_key.py::test_the_key_omits_no_field_of_a_prompt
    a cache key without settings that change the answer (litellm-rs #505)
        tests/test_cache_key.py::test_the_key_omits_no_setting_that_changes_the_answer
    a race asks every model for every question (LiteLLM)
        tests/test_race.py::test_a_model_in_time_is_asked_alone
    no hedging: the tail is everybody's (pydantic-ai #4455)
        tests/test_race.py::test_the_p99_of_a_model_with_a_long_tail_is_halved_for_few_more_calls
    no breaker: an outage costs every request its timeout (pydantic-ai #3023)
        tests/test_outage.py::test_ten_minutes_without_the_primary
    limits are learned from the first 429 only
        tests/test_attempt.py::test_headers_slow_the_limiter_down_before_the_first_429
    our own stall counts as the model's timeout
        tests/test_lag.py::test_our_own_stall_trips_no_breaker
"""

import gc
import json
import math
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from decimal import Decimal
from itertools import pairwise

import httpx
import pytest
import trio
from trio.testing import MockClock

from tests.loopback import Wire, response, serving
from tests.models import (
    Calls,
    Scripted,
    Turn,
    assert_nothing_held,
    client_of,
    cut,
    fails,
    model,
    says,
    worker,
)
from wizard_actors import (
    FallbackError,
    InvalidStateTransitionError,
    NetworkError,
    OverloadedError,
    ParseError,
    Prompt,
    ProviderError,
    RateLimitError,
    RequestError,
    ResilientClient,
    StreamInterruptedError,
    TextDelta,
    TokenUsage,
    ToolCallDelta,
    WizardConfig,
    WizardError,
)
from wizard_actors.config import CacheConfig, PriceConfig, RateLimitConfig, RetryConfig
from wizard_actors.events import RequestEnded
from wizard_actors.providers.base import Answer, Call
from wizard_actors.streaming import Assembly
from wizard_actors.types import Tool, UsageUpdate

ONCE = RetryConfig(max_attempts=1)
USED = UsageUpdate(TokenUsage(input_tokens=10, output_tokens=40))


# -- errors inside streams ---------------------------------------------------------------------------------------------


SSE = {"content-type": "text/event-stream"}


def event(data: object) -> bytes:
    """Return one event of a stream."""
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def chunk(finish: str | None = None, **delta: str) -> bytes:
    """Return a chunk of an answer."""
    return event({"id": "c-1", "model": "up-1", "choices": [{"delta": delta, "finish_reason": finish}]})


ROLE = chunk(role="assistant", content="")
WELL = [ROLE, chunk(content="well"), chunk("stop"), b"data: [DONE]\n\n"]


@asynccontextmanager
async def upstreams(first: list[bytes], second: list[bytes]) -> AsyncIterator[ResilientClient]:
    """Open a client of two models behind real sockets, which answer with a 200 and these events."""

    async def one(wire: Wire) -> None:
        while await wire.request() is not None:
            await wire.send(response(200, SSE, first))

    async def two(wire: Wire) -> None:
        while await wire.request() is not None:
            await wire.send(response(200, SSE, second))

    async with serving(one) as at_a, serving(two) as at_b:
        tables = [
            f'[[models]]\nname = "{name}"\nprovider = "openai"\nbase_url = "{url}"\napi_key_env = "KEY"\n'
            "retry = { max_attempts = 1 }\n"
            for name, url in (("a", at_a), ("b", at_b))
        ]
        config = WizardConfig.from_toml("".join(tables), env={"KEY": "sk-canary-0123456789"})
        async with ResilientClient.open(config) as client:
            yield client


ERRORS: dict[str, tuple[bytes, type[WizardError]]] = {
    "openai": (
        event({"error": {"message": "Overloaded", "type": "server_error", "code": "overloaded"}}),
        OverloadedError,
    ),
    "anthropic": (
        b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n',
        OverloadedError,
    ),
    "a status": (event({"error": {"message": "busy", "code": 529}}), OverloadedError),
    "a 429": (event({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}), RateLimitError),
    "malformed": (b"data: {bro\n\n", ParseError),
}


@pytest.mark.parametrize(("failure", "kind"), ERRORS.values(), ids=ERRORS.keys())
async def test_an_overloaded_error_inside_a_200_stream_falls_back(failure: bytes, kind: type[WizardError]) -> None:
    """Seen in LiteLLM #5512 and #6532: an error after the 200 reached the user, though another model was there."""
    async with upstreams([ROLE, failure], WELL) as client:
        answer = await client.generate("Why?")
        async with client.stream("Why?") as stream:
            streamed = [text async for text in stream.text()]

    assert (answer.text, answer.model, streamed) == ("well", "b", ["well"])
    assert type(answer.attempts[0].error) is kind


async def test_a_429_in_mid_stream_does_not_spin(autojump_clock: MockClock) -> None:
    """Seen in LiteLLM #26015: a 429 inside a stream was asked again at once, for ever, on a core of its own."""
    a = Scripted(Turn(("Once ", RateLimitError("slow down", model="a", status=429))))
    async with client_of(a) as client:
        with pytest.raises(WizardError):
            await client.generate("Why?")

        starts = [call.start for call in a.calls]
        assert len(starts) == 3
        assert all(later > sooner for sooner, later in pairwise(starts))
        await assert_nothing_held(client, a)


BROKEN = {
    "cut": cut("Half an "),
    "cut before content": cut(),
    "stalled": Turn(("Half an ", math.inf)),
    "silent": Turn((math.inf,)),
    "malformed": fails(ParseError("no JSON", model="a")),
    "malformed later": Turn(("Half an ", ParseError("no JSON", model="a"))),
    "disconnected": Turn(("Half an ", NetworkError("reset", model="a"))),
}


@pytest.mark.parametrize("turn", BROKEN.values(), ids=BROKEN.keys())
async def test_a_cut_stalled_or_malformed_stream_falls_back(autojump_clock: MockClock, turn: Turn) -> None:
    """Seen in LiteLLM #40404: only a refused connection was a reason to ask the next model."""
    a, b = Scripted(turn), Scripted(says("well"))
    async with client_of({"a": a, "b": b}, model("a", retry=ONCE), model("b")) as client:
        answer = await client.generate("Why?")
        async with client.stream("Why?", delivery="buffered") as stream:
            streamed = [text async for text in stream.text()]

        assert (answer.text, answer.model, streamed) == ("well", "b", ["well"])
        await assert_nothing_held(client, a, b)


async def test_truncation_is_never_a_success(autojump_clock: MockClock) -> None:
    """Seen in Portkey #1797: half an answer was handed out, and counted, as a whole one."""
    a = Scripted(cut("Half an "))
    async with client_of(a, model(retry=ONCE), cache=CacheConfig(max_entries=9)) as client:
        with pytest.raises(StreamInterruptedError) as caught:
            await client.generate("Why?")
        async with client.stream("Why?") as stream:
            assert await anext(stream) == TextDelta("Half an ")
            with pytest.raises(StreamInterruptedError):
                await anext(stream)
            with pytest.raises(InvalidStateTransitionError):
                _ = stream.response

        assert caught.value.partial == "Half an "
        assert len(a.calls) == 2  # nothing was cached
        health = (await worker(client)).health
        assert (health.succeeded, health.failed) == (0, 2)


# -- fallbacks ---------------------------------------------------------------------------------------------------------


async def test_a_fallbacks_own_400_does_not_mask_the_real_error(autojump_clock: MockClock) -> None:
    """Seen in LiteLLM #27967: the fallback refused how it was asked to continue, and nobody heard of the outage."""
    outage, refusal = OverloadedError("the outage", model="a"), RequestError("no prefill", model="b", status=400)
    a, b = Scripted(Turn(("Half an ", outage))), Scripted(fails(refusal))
    async with client_of({"a": a, "b": b}, model("a", retry=ONCE), model("b", retry=ONCE)) as client:
        with pytest.raises(FallbackError) as caught:
            await client.generate("Why?")

    assert str(caught.value.__cause__) == "the outage"
    assert [type(attempt.error) for attempt in caught.value.attempts] == [OverloadedError, RequestError]


class Listening(Scripted):
    """A scripted model that keeps the prompts it gets."""

    prompts: tuple[Prompt, ...] = ()

    def open(self, call: Call) -> AbstractAsyncContextManager[Answer]:
        """Keep the prompt."""
        self.prompts += (call.prompt,)
        return super().open(call)


async def test_a_fallback_is_asked_in_the_callers_own_words(autojump_clock: MockClock) -> None:
    """Seen in LiteLLM #31067: prompts injected to continue a broken answer corrupted its tool calls."""
    prompt = Prompt("Look it up", tools=[Tool("look", "Look something up", {"type": "object"})])
    a = Scripted(Turn((ToolCallDelta(0, "id-a", "look", '{"q": "ha'), NetworkError("reset", model="a"))))
    b = Listening(says(ToolCallDelta(0, "id-b", "look", '{"q": "whole"}')))
    async with client_of({"a": a, "b": b}, model("a", retry=ONCE), model("b")) as client:
        answer = await client.generate(prompt)

    assert b.prompts == (prompt,)
    assert [(call.id, call.arguments) for call in answer.tool_calls] == [("id-b", '{"q": "whole"}')]


async def test_failures_come_together_and_their_costs_add_up(autojump_clock: MockClock) -> None:
    """Seen wherever the last error alone is raised: what came before, and what it had cost, nobody could tell."""
    price = PriceConfig(input=Decimal(10), output=Decimal(20))
    a, b = Scripted(cut("Half an ", USED)), Scripted(Turn(("Half ", USED, NetworkError("reset", model="b"))))
    models = [model(name, retry=ONCE, price=price) for name in ("a", "b")]
    async with client_of({"a": a, "b": b}, *models) as client:
        with client.events.subscribe() as events, pytest.raises(FallbackError) as caught:
            await client.generate("Why?")
        [ended] = [event for event in events.drain() if isinstance(event, RequestEnded)]

        costs = [attempt.cost for attempt in caught.value.attempts]
        assert costs == [Decimal("0.0009")] * 2
        assert ended.cost == Decimal("0.0018")


# -- cooldown ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("waits", [(60.0, 5.0), (5.0, 60.0)])
async def test_a_shorter_pause_never_ends_a_longer_one(autojump_clock: MockClock, waits: tuple[float, float]) -> None:
    """Seen in LiteLLM #40130: a later 429 with a shorter time let everybody at a model that had asked for a minute."""
    first, second = (RateLimitError("429", model="a", status=429, retry_after=wait) for wait in waits)
    a = Scripted(Turn((1.0, first)), Turn((2.0, second)), says("well"))
    async with client_of(a, model(retry=ONCE, limit=RateLimitConfig(max_wait=600.0, adaptive=False))) as client:
        calls = Calls()
        async with trio.open_nursery() as callers:
            for _ in range(2):
                callers.start_soon(calls.generate, client)
        assert ([type(error) for error in calls.errors], trio.current_time()) == ([RateLimitError] * 2, 2.0)

        await client.generate("Why?")
        assert a.calls[2].start >= 61.0


async def test_25_straight_500s_take_a_model_out_of_rotation(autojump_clock: MockClock) -> None:
    """Seen in LiteLLM #34836: a model that answered nothing but 500 was asked first by every request."""
    a, b = Scripted(fails(ProviderError("oops", model="a", status=500))), Scripted(says("well"))
    async with client_of({"a": a, "b": b}, model("a", retry=ONCE), model("b")) as client:
        answers = [(await client.generate("Why?")).text for _ in range(25)]

    assert answers == ["well"] * 25
    assert len(a.calls) == 5


async def test_a_failing_fallback_leaves_rotation_too(autojump_clock: MockClock) -> None:
    """Seen in LiteLLM #35104: only the model that was asked first was ever cooled down."""
    a, b = (Scripted(fails(ProviderError("oops", model=name, status=500))) for name in ("a", "b"))
    c = Scripted(says("well"))
    models = [model(name, retry=ONCE) for name in ("a", "b", "c")]
    async with client_of({"a": a, "b": b, "c": c}, *models) as client:
        answers = [(await client.generate("Why?")).text for _ in range(25)]

    assert answers == ["well"] * 25
    assert (len(a.calls), len(b.calls)) == (5, 5)


# -- limits ------------------------------------------------------------------------------------------------------------


async def test_five_concurrent_calls_cannot_overspend_a_token_limit(autojump_clock: MockClock) -> None:
    """Seen in LiteLLM #18730: five calls at once spent 663 tokens of 100, each having looked before any had paid."""
    a = Scripted(says(5.0, "well", USED))
    limit = RateLimitConfig(tokens_per_minute=100, max_wait=600.0)
    async with client_of(a, model(limit=limit)) as client, trio.open_nursery() as callers:
        for _ in range(5):
            callers.start_soon(client.generate, Prompt("Why?", max_tokens=40))

    starts = [call.start for call in a.calls]
    assert len(starts) == 5
    for start in starts:
        within = [other for other in starts if start <= other < start + 60]
        assert len(within) * USED.usage.total_tokens <= 100
    assert starts[-1] <= 121  # nor does it cost more time than the limit asks for


# -- cancellation and memory -------------------------------------------------------------------------------------------


LONG = says("one ", 1.0, "two ", 100.0, "three")


async def leave_early(client: ResilientClient, how: str) -> None:
    """Read a word of a stream, and leave in this way."""
    with trio.CancelScope() as scope, suppress(ZeroDivisionError):
        async with client.stream("Why?") as stream:
            async for _ in stream:
                if how == "break":
                    break
                if how == "cancel":
                    scope.cancel()
                else:
                    _ = 1 / 0


@pytest.mark.parametrize("how", ["break", "raise", "cancel"])
async def test_a_stream_abort_leaks_no_slot(autojump_clock: MockClock, how: str) -> None:
    """Seen in LiteLLM #30020: a stream that its consumer left kept its slot, until none was free."""
    a = Scripted(LONG)
    async with client_of(a, model(slots=1)) as client:
        for _ in range(5):
            await leave_early(client, how)
            await assert_nothing_held(client, a)
        assert trio.current_time() <= 5
        assert len(a.calls) == 5


async def test_an_aborted_stream_leaves_no_accumulator(autojump_clock: MockClock) -> None:
    """Seen in Bifrost #4678: what had been collected of an aborted stream was kept for ever."""

    def kept() -> int:
        gc.collect()
        return sum(isinstance(each, Assembly) for each in gc.get_objects())

    a = Scripted(LONG)
    async with client_of(a) as client:
        before = kept()
        async with client.stream("Why?") as stream:
            await anext(stream)
            assert kept() > before  # it would be seen
        for how in ("break", "raise", "cancel") * 10:
            await leave_early(client, how)
        del stream

        assert kept() == before


# -- speed -------------------------------------------------------------------------------------------------------------


async def test_no_request_waits_for_nagle() -> None:
    """Suspected in TensorZero, 40.9 ms slower at p99: small writes wait for acknowledgements that come 40 ms late."""
    async with upstreams(WELL, WELL) as client:
        await client.generate("Why?")
        urls = [httpx.URL(each.base_url or "") for each in client.config.models]
        streams = [each for each in gc.get_objects() if isinstance(each, trio.SocketStream)]
        alive = [each for each in streams if each.socket.fileno() >= 0]
        ours = [each for each in alive if each.socket.getpeername()[1] in {url.port for url in urls}]

        assert [bool(each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) for each in ours] == [True]
