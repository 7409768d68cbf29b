"""The Responses API against llmock: whole answers, tools, and each fault as its wire shows it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.integration.llmock import LlmockServer, fail, llmock_running, reply, stream_fault
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
from wizard_actors.types import FinishReason, Message, Prompt, Tool

SENTENCE = "Actors own state, callers own calls."
CALL = Call(Prompt("Why do actors help?", system="Be brief"), "request-1")


@asynccontextmanager
async def provider(server: LlmockServer, upstream: Upstream = "auto") -> AsyncIterator[OpenAIProvider]:
    """Yield a provider of llmock's model."""
    async with make_http_client() as http:
        settings = HttpSettings(
            name="primary",
            model="gpt-test",
            base_url=server.base_url,
            api="responses",
            api_key=Secret("sk-1234"),
            upstream=upstream,
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


@pytest.mark.parametrize("upstream", ["auto", "unary"])
async def test_tools_are_called_and_their_results_answered(llmock_server: LlmockServer, upstream: Upstream) -> None:
    """A whole round: the call comes, its result goes back, and a text ends it."""
    weather = Tool("get_weather", "Tell the weather", {"type": "object", "properties": {"city": {"type": "string"}}})
    question = Message("user", "What is the weather in Paris?")
    async with provider(llmock_server, upstream) as model:
        first = await ask(model, Call(Prompt(question, tools=(weather,)), "1"))
        (call,) = first.tool_calls
        result = Message("tool", "21 C", tool_call_id=call.id)
        conversation = (question, Message("assistant", tool_calls=(call,)), result)
        second = await ask(model, Call(Prompt(conversation, tools=(weather,)), "2"))
    assert (call.name, call.arguments) == ("get_weather", '{"city": "mock-city"}')
    assert first.finished is not None
    assert first.finished.reason is FinishReason.TOOL_CALLS
    assert second.text
    assert not second.tool_calls


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
async def test_error_statuses_are_classified(llmock_server: LlmockServer, status: int, kind: type[WizardError]) -> None:
    """With the Retry-After that came with them; and nothing is asked twice by the provider itself."""
    await llmock_server.script(fail(status, retry_after=1.5))
    async with provider(llmock_server) as model:
        with pytest.raises(ProviderError) as caught:
            await ask(model)
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.retry_after) == (status, 1.5)
    assert len(await llmock_server.requests()) == 1


async def test_a_prompt_that_is_too_long_is_told_so() -> None:
    """By a context window that is a true one."""
    with llmock_running("--context-window", "50") as server:
        async with provider(server) as model:
            with pytest.raises(TokenLimitError):
                await ask(model, Call(Prompt("long " * 100), "2"))


async def test_a_disconnect_is_an_interruption(llmock_server: LlmockServer) -> None:
    """What had arrived is kept by whoever read it."""
    await llmock_server.script(reply(SENTENCE), stream_fault("disconnect", after_chunks=7))
    assembly = Assembly()
    async with provider(llmock_server) as model:
        with pytest.raises(StreamInterruptedError):
            await ask(model, into=assembly)
    assert SENTENCE.startswith(assembly.text)
    assert assembly.text
    assert assembly.finished is None


async def test_a_truncated_stream_does_not_finish(llmock_server: LlmockServer) -> None:
    """It ends in good order, which is the trap."""
    await llmock_server.script(reply(SENTENCE), stream_fault("truncate", after_chunks=7))
    async with provider(llmock_server) as model:
        answer = await ask(model)
    assert answer.text
    assert answer.finished is None


async def test_a_malformed_event_is_an_error(llmock_server: LlmockServer) -> None:
    """Not skipped."""
    await llmock_server.script(reply(SENTENCE), stream_fault("malformed", after_chunks=5))
    async with provider(llmock_server) as model:
        with pytest.raises(ParseError):
            await ask(model)
