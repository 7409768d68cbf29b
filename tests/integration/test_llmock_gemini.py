"""The Gemini provider against llmock: each fault as its wire shows it, one attempt each."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

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
from wizard_actors.providers.base import Call
from wizard_actors.providers.gemini import GeminiProvider
from wizard_actors.providers.http import make_http_client
from wizard_actors.providers.http_provider import HttpSettings
from wizard_actors.streaming import Assembly
from wizard_actors.types import FinishReason, Message, Prompt, Tool, ToolCall

SENTENCE = "Actors own state, callers own calls."
CALL = Call(Prompt("Why do actors help?"), "request-1")


@asynccontextmanager
async def provider(server: LlmockServer, upstream: Upstream = "auto") -> AsyncIterator[GeminiProvider]:
    """Yield a provider of llmock's model."""
    async with make_http_client() as http:
        settings = HttpSettings(
            name="primary",
            model="gemini-test",
            base_url=f"{server.url}/gemini",
            provider="gemini",
            api_key=Secret("key-1234"),
            upstream=upstream,
        )
        yield GeminiProvider(settings, http)


async def ask(model: GeminiProvider, call: Call = CALL, *, into: Assembly | None = None) -> Assembly:
    """Return the answer, put together in `into` where what came before an error matters."""
    assembly = Assembly() if into is None else into
    async with model.open(call) as answer:
        while (events := await answer.read()) is not None:
            assembly.extend(events)
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
    """A whole round: the call comes without an id and gets one, its result goes back, and a text ends it."""
    weather = Tool("get_weather", "Tell the weather", {"type": "object", "properties": {"city": {"type": "string"}}})
    question = Message("user", "What is the weather in Paris?")
    async with provider(llmock_server, upstream) as model:
        first = await ask(model, Call(Prompt(question, tools=(weather,)), "1"))
        (call,) = first.tool_calls
        result = Message("tool", "21 C", tool_call_id=call.id)
        conversation = (question, Message("assistant", tool_calls=(call,)), result)
        second = await ask(model, Call(Prompt(conversation, tools=(weather,)), "2"))
    assert call == ToolCall(call.id, "get_weather", '{"city":"mock-city"}')
    assert first.finished is not None
    assert first.finished.reason is FinishReason.TOOL_CALLS
    assert second.text
    assert not second.tool_calls
    assert await llmock_server.findings() == []


async def test_an_answer_follows_its_schema(llmock_server: LlmockServer) -> None:
    """The upstream makes up an answer that fits the schema that it is sent."""
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}},
        "required": ["city", "degrees"],
    }
    async with provider(llmock_server) as model:
        answer = await ask(model, Call(Prompt("The weather in Paris?", response_schema=schema), "1"))
    said = json.loads(answer.text)
    assert set(said) == {"city", "degrees"}
    assert isinstance(said["degrees"], int)


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


async def test_a_context_window_is_counted() -> None:
    """In Gemini's own words."""
    with llmock_running("--context-window", "50") as server:
        async with provider(server) as model:
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
    assert await llmock_server.findings() == []


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

CONFIG = """
[defaults]
timeouts = { first_token = 0.4, stall = 0.4 }
retry = { max_attempts = 3, base_delay = 0.2 }
[[models]]
name = "primary"
provider = "gemini"
model = "gemini-test"
"""


STATUSES: list[list[Behavior]] = [
    [],
    [fail(429, retry_after=0.3)],
    [fail(500)],
    [fail(503, retry_after=0.3)],
    [fail(529), fail(502)],
]
BREAKS: list[list[Behavior]] = [
    [stream_fault("disconnect", after_chunks=3)],
    [stream_fault("truncate", after_chunks=3)],
    [stream_fault("malformed", after_chunks=3)],
    [stream_fault("stall", after_chunks=3)],
    [slow_first_token(20.0)],
]


@pytest.mark.parametrize(
    ("faults", "upstream"),
    [(faults, "auto") for faults in STATUSES + BREAKS] + [(faults, "unary") for faults in STATUSES],
)
async def test_a_client_answers_in_spite_of(
    llmock_server: LlmockServer, faults: Sequence[Behavior], upstream: Upstream
) -> None:
    """Whatever goes wrong once or twice, the whole answer comes in the end, and llmock has nothing to complain of."""
    await llmock_server.script(*faults, reply(SENTENCE, times=None))
    config = WizardConfig.from_toml(CONFIG, env={})
    async with (
        provider(llmock_server, upstream) as model,
        ResilientClient.open(config, providers={"primary": model}) as client,
    ):
        answer = await client.generate("Why do actors help?")
    assert answer.text == SENTENCE
    assert await llmock_server.findings() == []
