"""The OpenAI provider against llmock: each fault as its wire shows it, one attempt each."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.integration.llmock import LlmockServer, delay, fail, llmock_running, reply, slow_first_token, stream_fault
from wizard_actors.config import Secret, Upstream
from wizard_actors.errors import (
    AuthError,
    OverloadedError,
    ParseError,
    ProviderError,
    RateLimitError,
    RequestError,
    StreamInterruptedError,
    TokenLimitError,
    WizardError,
)
from wizard_actors.providers.base import Call
from wizard_actors.providers.http import make_http_client
from wizard_actors.providers.http_provider import HttpSettings
from wizard_actors.providers.openai import OpenAIProvider
from wizard_actors.streaming import Assembly
from wizard_actors.types import FinishReason, Message, Prompt, Tool, ToolCall

SENTENCE = "Actors own state, callers own calls."
CALL = Call(Prompt("Why do actors help?"), "request-1")


@asynccontextmanager
async def provider(server: LlmockServer, upstream: Upstream = "auto") -> AsyncIterator[OpenAIProvider]:
    """Yield a provider of llmock's model."""
    async with make_http_client() as http:
        settings = HttpSettings(
            name="primary", model="gpt-test", base_url=server.base_url, api_key=Secret("sk-1234"), upstream=upstream
        )
        yield OpenAIProvider(settings, http)


async def ask(model: OpenAIProvider, call: Call = CALL, *, into: Assembly | None = None) -> Assembly:
    """Return the answer, put together in `into` where what came before an error matters."""
    assembly = Assembly() if into is None else into
    async with model.open(call) as answer:
        while (events := await answer.read()) is not None:
            assembly.extend(events)
        assert answer.upstream_model == "gpt-test"
    return assembly


@pytest.mark.parametrize("upstream", ["auto", "stream", "unary"])
async def test_an_answer_is_whole(llmock_server: LlmockServer, upstream: Upstream) -> None:
    """Streamed or not: text, usage and finish reason, and nothing for llmock to complain about."""
    await llmock_server.script(reply(SENTENCE))
    async with provider(llmock_server, upstream) as model:
        answer = await ask(model)
    assert answer.text == SENTENCE
    assert answer.usage is not None
    assert answer.finished is not None
    assert answer.finished.reason is FinishReason.STOP
    (seen,) = await llmock_server.requests()
    assert (seen["stream"], seen["completed"]) == (upstream != "unary", True)
    assert await llmock_server.findings() == []


async def test_tools_are_called_and_their_results_answered(llmock_server: LlmockServer) -> None:
    """A whole round: the call comes in pieces, its result goes back, and a text ends it."""
    weather = Tool("get_weather", "Tell the weather", {"type": "object", "properties": {"city": {"type": "string"}}})
    question = Message("user", "What is the weather in Paris?")
    async with provider(llmock_server) as model:
        first = await ask(model, Call(Prompt(question, tools=(weather,)), "1"))
        (call,) = first.tool_calls
        result = Message("tool", "21 C", tool_call_id=call.id)
        conversation = (question, Message("assistant", tool_calls=(call,)), result)
        second = await ask(model, Call(Prompt(conversation, tools=(weather,)), "2"))
    assert call == ToolCall(call.id, "get_weather", '{"city": "mock-city"}')
    assert first.finished is not None
    assert first.finished.reason is FinishReason.TOOL_CALLS
    assert second.text
    assert not second.tool_calls


@pytest.mark.parametrize("upstream", ["auto", "unary"])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RequestError),
        (401, AuthError),
        (429, RateLimitError),
        (500, ProviderError),
        (503, OverloadedError),
        (529, OverloadedError),
    ],
)
async def test_error_statuses_are_classified(
    llmock_server: LlmockServer, status: int, kind: type[WizardError], upstream: Upstream
) -> None:
    """With the Retry-After that came with them; and nothing is asked twice by the provider itself."""
    await llmock_server.script(fail(status, retry_after=1.5))
    async with provider(llmock_server, upstream) as model:
        with pytest.raises(ProviderError) as caught:
            await ask(model)
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.retry_after) == (status, 1.5)
    assert len(await llmock_server.requests()) == 1


async def test_real_limits_are_read() -> None:
    """Quotas and a context window that are true ones, in OpenAI's words and headers."""
    with llmock_running("--rpm", "60", "--context-window", "50") as server:
        async with provider(server) as model:
            async with model.open(CALL) as answer:
                assert answer.limits is not None
                assert answer.limits.requests is not None
                assert (answer.limits.requests.limit, answer.limits.requests.remaining) == (60, 59)
                assert answer.limits.requests.reset is not None
                assert 0 < answer.limits.requests.reset <= 1
            with pytest.raises(TokenLimitError) as caught:
                await ask(model, Call(Prompt("long " * 100), "2"))
    assert caught.value.max == 50
    assert caught.value.requested is not None
    assert caught.value.requested > 50


async def test_a_disconnect_is_an_interruption(llmock_server: LlmockServer) -> None:
    """What had arrived is kept by whoever read it."""
    await llmock_server.script(reply(SENTENCE), stream_fault("disconnect", after_chunks=3))
    assembly = Assembly()
    async with provider(llmock_server) as model:
        with pytest.raises(StreamInterruptedError):
            await ask(model, into=assembly)
    assert assembly.text.startswith("Actors own")
    assert assembly.finished is None


async def test_a_truncated_stream_does_not_finish(llmock_server: LlmockServer) -> None:
    """It ends in good order, which is the trap."""
    await llmock_server.script(reply(SENTENCE), stream_fault("truncate", after_chunks=3))
    async with provider(llmock_server) as model:
        answer = await ask(model)
    assert answer.text.startswith("Actors own")
    assert answer.finished is None


async def test_a_malformed_event_is_an_error(llmock_server: LlmockServer) -> None:
    """Not skipped."""
    await llmock_server.script(reply(SENTENCE), stream_fault("malformed", after_chunks=2))
    async with provider(llmock_server) as model:
        with pytest.raises(ParseError):
            await ask(model)


async def test_a_slow_upstream_is_waited_for(llmock_server: LlmockServer) -> None:
    """A provider has no deadline of its own but for connecting; callers have."""
    await llmock_server.script(slow_first_token(0.2), reply(SENTENCE), stream_fault("stall", stall_seconds=0.2))
    await llmock_server.script(delay(0.2))
    async with provider(llmock_server) as model:
        start = trio.current_time()
        answer = await ask(model)
    assert answer.text == SENTENCE
    assert trio.current_time() - start >= 0.6


@pytest.mark.parametrize("fault", [slow_first_token(20.0), stream_fault("stall", stall_seconds=20.0), delay(20.0)])
async def test_a_silent_upstream_can_be_left(llmock_server: LlmockServer, fault: dict[str, object]) -> None:
    """Cancelling does not wait for it."""
    await llmock_server.script(fault)
    async with provider(llmock_server) as model:
        start = trio.current_time()
        with trio.move_on_after(0.3) as scope:
            await ask(model)
    assert scope.cancelled_caught
    assert trio.current_time() - start < 2
