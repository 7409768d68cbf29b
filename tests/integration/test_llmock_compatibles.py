"""Providers that speak Chat Completions, as their presets know them, against llmock: a whole client, judged by it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
from attrs import frozen

from tests.integration.llmock import Behavior, LlmockServer, fail, reply, slow_first_token, stream_fault
from wizard_actors import (
    Message,
    Prompt,
    ProviderError,
    ResilientClient,
    ResponseStream,
    ServedBy,
    StreamInterruptedError,
    TextDelta,
    Tool,
    WizardConfig,
)

SENTENCE = "Actors own state, callers own calls."
PATHS = {
    "openai": "/v1",
    "groq": "/groq/openai/v1",
    "mistral": "/mistral/v1",
    "together": "/together/v1",
    "perplexity": "/perplexity/v1",
    "xai": "/xai/v1",
}
WEATHER = Tool("get_weather", "Tell the weather", {"type": "object", "properties": {"city": {"type": "string"}}})

at_each = pytest.mark.parametrize("provider", PATHS)
at_the_main_ones = pytest.mark.parametrize("provider", ["openai", "groq", "mistral"])


@frozen
class Invoice:
    """What a structured answer is asked for."""

    number: int
    paid: bool


@asynccontextmanager
async def client(server: LlmockServer, provider: str, upstream: str = "auto") -> AsyncIterator[ResilientClient]:
    """Yield a client of one model, impatient enough for a test."""
    config = WizardConfig.from_toml(
        f"""
        [[models]]
        name = "primary"
        provider = "{provider}"
        model = "gpt-test"
        base_url = "{server.url}{PATHS[provider]}"
        api_key_env = "KEY"
        upstream = "{upstream}"
        timeouts = {{ first_token = 0.4, stall = 0.4 }}
        retry = {{ max_attempts = 3, base_delay = 0.1 }}
        """,
        env={"KEY": "sk-1234"},
    )
    async with ResilientClient.open(config, rng=Random(1)) as opened:
        yield opened


@at_each
@pytest.mark.parametrize("upstream", ["auto", "unary"])
async def test_an_answer_is_whole(llmock_server: LlmockServer, provider: str, upstream: str) -> None:
    """Streamed upstream or not: text, usage, and the field for its bound that the preset says."""
    await llmock_server.script(reply(SENTENCE))
    async with client(llmock_server, provider, upstream) as model:
        answer = await model.generate(Prompt("Why do actors help?", max_tokens=99, seed=3))
    assert answer.text == SENTENCE
    assert answer.upstream_model == "gpt-test"
    assert answer.usage is not None
    assert answer.usage.output_tokens > 0
    assert await llmock_server.findings() == []


@at_the_main_ones
async def test_a_stream_arrives_in_pieces(llmock_server: LlmockServer, provider: str) -> None:
    """Word by word, and whole in the end."""
    await llmock_server.script(reply(SENTENCE))
    async with client(llmock_server, provider) as model, model.stream("Why do actors help?") as stream:
        pieces = [event.text async for event in stream if isinstance(event, TextDelta)]
    assert len(pieces) > 3
    assert "".join(pieces) == stream.response.text == SENTENCE
    assert await llmock_server.findings() == []


@at_the_main_ones
async def test_a_tool_is_called_and_its_result_answered(llmock_server: LlmockServer, provider: str) -> None:
    """The answer's own message goes back, with the result behind it; both belong together upstream."""
    question = Message("user", "What is the weather in Paris?")
    async with client(llmock_server, provider) as model:
        first = await model.generate(Prompt(question, tools=(WEATHER,)))
        (call,) = first.tool_calls
        result = Message("tool", "21 C", tool_call_id=call.id)
        second = await model.generate(Prompt([question, first.message, result], tools=(WEATHER,)))
    assert call.name == "get_weather"
    assert second.text
    assert not second.tool_calls
    seen = (await llmock_server.requests())[-1]["body"]
    assert isinstance(seen, dict)
    (called,) = seen["messages"][1]["tool_calls"]
    assert seen["messages"][2]["tool_call_id"] == called["id"]
    if provider == "mistral":
        assert len(called["id"]) == 9
        assert called["id"].isalnum()
    assert await llmock_server.findings() == []


@at_the_main_ones
async def test_a_structured_answer_is_the_class(llmock_server: LlmockServer, provider: str) -> None:
    """The schema goes as the provider reads it, and what it makes of it is an instance."""
    async with client(llmock_server, provider) as model:
        structured = await model.generate_as("Read the invoice", Invoice)
    assert isinstance(structured.value, Invoice)
    assert await llmock_server.findings() == []


FAULTS: dict[str, Behavior] = {
    "a 429 with Retry-After": fail(429, retry_after=1),
    "a 500": fail(500, retry_after=0.1),
    "a 503": fail(503, retry_after=0.1),
    "a disconnect": stream_fault("disconnect", after_chunks=1),
    "a truncated stream": stream_fault("truncate", after_chunks=1),
    "a malformed event": stream_fault("malformed", after_chunks=0),
}


@at_the_main_ones
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_is_retried(llmock_server: LlmockServer, provider: str, fault: str) -> None:
    """The second try answers, no sooner than allowed."""
    await llmock_server.script(FAULTS[fault], reply(SENTENCE, times=None))
    async with client(llmock_server, provider) as model:
        answer = await model.generate(f"{provider} after {fault}")
    assert (answer.text, answer.served_by, len(answer.attempts)) == (SENTENCE, ServedBy.RETRY, 2)
    assert await llmock_server.findings() == []


@at_the_main_ones
@pytest.mark.parametrize("fault", [slow_first_token(5.0), stream_fault("stall", stall_seconds=5.0, after_chunks=3)])
async def test_a_silent_upstream_is_left_and_asked_once_more(
    llmock_server: LlmockServer, provider: str, fault: Behavior
) -> None:
    """It is the last model, so it gets its second chance."""
    await llmock_server.script(fault, reply(SENTENCE, times=None))
    async with client(llmock_server, provider) as model:
        answer = await model.generate(f"{provider} after a silence, {fault['type']}")
    assert (answer.text, len(answer.attempts)) == (SENTENCE, 2)
    assert await llmock_server.findings() == []


@at_the_main_ones
async def test_a_stream_that_breaks_off_says_what_it_had(llmock_server: LlmockServer, provider: str) -> None:
    """After its first words nothing can be taken back."""
    await llmock_server.script(reply(SENTENCE), stream_fault("disconnect", after_chunks=3))
    async with client(llmock_server, provider) as model, model.stream("Why do actors help?") as stream:
        with pytest.raises(StreamInterruptedError) as caught:
            await read(stream)
    assert caught.value.partial is not None
    assert str(caught.value.partial).startswith("Actors own")


async def read(stream: ResponseStream) -> None:
    """Read a stream to its end."""
    async for _ in stream:
        pass


@at_the_main_ones
async def test_a_refusal_is_told_in_the_providers_words(llmock_server: LlmockServer, provider: str) -> None:
    """Each has its own shape of error; none is tried again."""
    await llmock_server.script(fail(422, message="you cannot say that", times=None))
    async with client(llmock_server, provider) as model:
        with pytest.raises(ProviderError, match="you cannot say that") as caught:
            await model.generate(f"{provider} refuses")
    assert caught.value.status == 422
    assert len(await llmock_server.requests()) == 1
    assert await llmock_server.findings() == []
