"""The Anthropic provider against llmock: each fault as its wire shows it, alone and behind a client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio

from tests.integration.llmock import (
    Behavior,
    LlmockServer,
    delay,
    fail,
    llmock_running,
    reply,
    slow_first_token,
    stream_fault,
)
from wizard_actors import ResilientClient, WizardConfig
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
from wizard_actors.providers.anthropic import AnthropicProvider
from wizard_actors.providers.base import Call
from wizard_actors.providers.http import make_http_client
from wizard_actors.providers.http_provider import HttpSettings
from wizard_actors.streaming import Assembly
from wizard_actors.types import FinishReason, Message, Prompt, Tool, ToolCall

SENTENCE = "Actors own state, callers own calls."
CALL = Call(Prompt("Why do actors help?", system="Be brief"), "request-1")


@asynccontextmanager
async def provider(server: LlmockServer, upstream: Upstream = "auto") -> AsyncIterator[AnthropicProvider]:
    """Yield a provider of llmock's model."""
    async with make_http_client() as http:
        settings = HttpSettings(
            name="primary",
            model="claude-test",
            provider="anthropic",
            base_url=f"{server.url}/anthropic",
            api_key=Secret("sk-1234"),
            upstream=upstream,
        )
        yield AnthropicProvider(settings, http)


@asynccontextmanager
async def client(server: LlmockServer, upstream: Upstream = "auto") -> AsyncIterator[ResilientClient]:
    """Yield a client of llmock's model, impatient enough for a test."""
    config = WizardConfig.from_toml(
        """
        [[models]]
        name = "primary"
        provider = "anthropic"
        timeouts = { first_token = 0.6, stall = 0.6 }
        retry = { max_attempts = 3, base_delay = 0.2 }
        """,
        env={},
    )
    async with (
        provider(server, upstream) as model,
        ResilientClient.open(config, rng=Random(1), providers={"primary": model}) as opened,
    ):
        yield opened


async def ask(model: AnthropicProvider, call: Call = CALL, *, into: Assembly | None = None) -> Assembly:
    """Return the answer, put together in `into` where what came before an error matters."""
    assembly = Assembly() if into is None else into
    async with model.open(call) as answer:
        while (events := await answer.read()) is not None:
            assembly.extend(events)
        assert answer.upstream_model == "claude-test"
    return assembly


@pytest.mark.parametrize("upstream", ["auto", "stream", "unary"])
async def test_an_answer_is_whole(llmock_server: LlmockServer, upstream: Upstream) -> None:
    """Streamed or not: text, usage and finish reason, and nothing for llmock to complain about."""
    await llmock_server.script(reply(SENTENCE))
    async with provider(llmock_server, upstream) as model:
        answer = await ask(model)
    assert answer.text == SENTENCE
    assert answer.usage is not None
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > 1
    assert answer.finished is not None
    assert answer.finished.reason is FinishReason.STOP
    (seen,) = await llmock_server.requests()
    assert (seen["stream"], seen["completed"]) == (upstream != "unary", True)
    assert await llmock_server.findings() == []


@pytest.mark.parametrize("upstream", ["auto", "unary"])
async def test_tools_are_called_and_their_results_answered(llmock_server: LlmockServer, upstream: Upstream) -> None:
    """A whole round: two calls at once, their results in one message, and a text ends it."""
    weather = Tool("get_weather", "Tell the weather", {"type": "object", "properties": {"city": {"type": "string"}}})
    question = Message("user", "What is the weather in Paris and in Rome?")
    asked = [{"name": "get_weather", "arguments": {"city": city}} for city in ("Paris", "Rome")]
    await llmock_server.script(reply(tool_calls=asked))
    async with provider(llmock_server, upstream) as model:
        first = await ask(model, Call(Prompt(question, tools=(weather,)), "1"))
        results = [Message("tool", "21 C", tool_call_id=call.id) for call in first.tool_calls]
        conversation = (question, Message("assistant", first.text, tool_calls=first.tool_calls), *results)
        second = await ask(model, Call(Prompt(conversation, tools=(weather,)), "2"))
    assert [(call.name, call.arguments.replace(" ", "")) for call in first.tool_calls] == [
        ("get_weather", '{"city":"Paris"}'),
        ("get_weather", '{"city":"Rome"}'),
    ]
    assert first.finished is not None
    assert first.finished.reason is FinishReason.TOOL_CALLS
    assert second.text
    assert not second.tool_calls
    assert await llmock_server.findings() == []


async def test_a_tool_is_called_that_is_offered(llmock_server: LlmockServer) -> None:
    """Without a script: llmock reads the tools from the request."""
    weather = Tool("get_weather", "", {"type": "object", "properties": {"city": {"type": "string"}}})
    async with provider(llmock_server) as model:
        answer = await ask(model, Call(Prompt("What is the weather in Oslo?", tools=(weather,)), "1"))
    (call,) = answer.tool_calls
    assert call == ToolCall(call.id, "get_weather", '{"city": "mock-city"}')


async def test_a_schema_is_asked_for(llmock_server: LlmockServer) -> None:
    """In the field that the API has for it; what comes back is the scripted JSON, in pieces."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    await llmock_server.script(reply('{"city": "Paris, of course"}'))
    async with provider(llmock_server) as model:
        answer = await ask(model, Call(Prompt("Which city?", response_schema=schema), "1"))
    assert answer.text == '{"city": "Paris, of course"}'
    (seen,) = await llmock_server.requests()
    sent = {**schema, "additionalProperties": False}  # which the API wants
    assert seen["body"]["output_config"] == {"format": {"type": "json_schema", "schema": sent}}  # type: ignore[index]  # it is JSON


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
    """Quotas and a context window that are true ones, in Anthropic's words and headers."""
    with llmock_running("--rpm", "60", "--context-window", "50") as server:
        async with provider(server) as model:
            async with model.open(CALL) as answer:
                assert answer.limits is not None
                assert answer.limits.requests is not None
                assert (answer.limits.requests.limit, answer.limits.requests.remaining) == (60, 59)
            with pytest.raises(TokenLimitError) as caught:
                await ask(model, Call(Prompt("long " * 100), "2"))
    assert caught.value.max == 50
    assert caught.value.requested is not None
    assert caught.value.requested > 50


async def test_a_disconnect_is_an_interruption(llmock_server: LlmockServer) -> None:
    """What had arrived is kept by whoever read it."""
    await llmock_server.script(reply(SENTENCE), stream_fault("disconnect", after_chunks=5))
    assembly = Assembly()
    async with provider(llmock_server) as model:
        with pytest.raises(StreamInterruptedError):
            await ask(model, into=assembly)
    assert assembly.text.startswith("Actors own")
    assert assembly.finished is None


async def test_a_truncated_stream_does_not_finish(llmock_server: LlmockServer) -> None:
    """It ends in good order, which is the trap."""
    await llmock_server.script(reply(SENTENCE), stream_fault("truncate", after_chunks=5))
    async with provider(llmock_server) as model:
        answer = await ask(model)
    assert answer.text.startswith("Actors own")
    assert answer.finished is None


async def test_a_malformed_event_is_an_error(llmock_server: LlmockServer) -> None:
    """Not skipped."""
    await llmock_server.script(reply(SENTENCE), stream_fault("malformed", after_chunks=4))
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


# -- behind a client ---------------------------------------------------------------------------------


@pytest.mark.parametrize("upstream", ["auto", "unary"])
@pytest.mark.parametrize("status", [429, 500, 503, 529])
async def test_a_client_asks_again_after_a_failure(
    llmock_server: LlmockServer, status: int, upstream: Upstream
) -> None:
    """Not before the upstream allows it."""
    await llmock_server.script(fail(status, retry_after=0.5), reply(SENTENCE))
    async with client(llmock_server, upstream) as asking:
        answer = await asking.generate("Why do actors help?")
    first, second = await llmock_server.requests()
    assert (answer.text, len(answer.attempts)) == (SENTENCE, 2)
    assert float(str(second["started_at"])) - float(str(first["ended_at"])) >= 0.5
    assert await llmock_server.findings() == []


@pytest.mark.parametrize(
    "fault",
    [
        stream_fault("disconnect", after_chunks=5),
        stream_fault("truncate", after_chunks=5),
        stream_fault("malformed", after_chunks=5),
        stream_fault("stall", after_chunks=5, stall_seconds=20.0),
        slow_first_token(20.0),
        delay(20.0),
    ],
)
async def test_a_client_asks_again_after_a_broken_answer(llmock_server: LlmockServer, fault: Behavior) -> None:
    """Whatever breaks it, the answer is whole in the end, and the upstream has nothing to complain about."""
    await llmock_server.script(reply(SENTENCE, times=2), fault)
    async with client(llmock_server) as asking:
        answer = await asking.generate("Why do actors help?")
    assert (answer.text, len(answer.attempts)) == (SENTENCE, 2)
    assert answer.finish_reason is FinishReason.STOP
    assert await llmock_server.findings() == []
