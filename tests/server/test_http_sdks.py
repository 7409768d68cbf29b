"""The official SDKs, unmodified, against a server whose first model fails: `openai` and `anthropic`."""

from __future__ import annotations

import json
from functools import partial
from typing import Any, Literal

import anthropic
import openai
import pytest
from pydantic import BaseModel

from tests.models import DONE, USAGE, Turn, fails, model, says
from tests.server.http_asked import ANSWER, PROMPT_TOKENS, whole
from tests.server.http_sdks import DOWN, ONCE, PIXEL, WEATHER, Sdks, Sentence, beside
from tests.server.keyed import key, per_minute
from wizard_actors.config import BreakerConfig
from wizard_actors.errors import (
    AuthError,
    ContentFilterError,
    ProviderError,
    ProviderTimeoutError,
    TokenLimitError,
    WizardError,
)
from wizard_actors.types import Finished, FinishReason, Image, ReasoningDelta, Signature, ThoughtEnded, ToolCallDelta

ASKED: Any = [{"role": "user", "content": "Why?"}]
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": WEATHER, "strict": True}}
TOOL_OF_MESSAGES: Any = {"name": "weather", "description": "It is", "input_schema": WEATHER}
CALLED = Turn(
    (
        ToolCallDelta(0, "call_1", "weather", '{"ci'),
        ToolCallDelta(0, None, None, 'ty": "Bonn"}'),
        USAGE,
        Finished(FinishReason.TOOL_CALLS, "tool_calls"),
    )
)
THINKS = Turn(
    (
        ReasoningDelta("Let me "),
        ReasoningDelta("see."),
        ThoughtEnded(Signature("anthropic", "sig")),
        ANSWER,
        USAGE,
        DONE,
    )
)


# -- openai ----------------------------------------------------------------------------------------------------------


def chat(client: openai.OpenAI, **more: Any) -> Any:  # noqa: ANN401 - whatever the SDK returns
    """Ask as its documentation shows."""
    return client.chat.completions.create(**{"model": "first", "messages": ASKED, **more})


def chat_stream(client: openai.OpenAI, **more: Any) -> list[Any]:  # noqa: ANN401 - whatever the SDK takes
    """Ask for a stream, and read it to its end."""
    with chat(client, stream=True, stream_options={"include_usage": True}, **more) as stream:
        return list(stream)


async def test_openai_generates() -> None:
    """The second model's answer, under its name, with its usage."""
    async with beside(whole()) as sdks:
        answer = await sdks.ask_openai(chat)
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (ANSWER, "stop")
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == PROMPT_TOKENS
        assert answer.model == "second"
        assert len(answer._request_id) == 32
        assert (len(sdks.first.calls), len(sdks.second.calls)) == (1, 1)


async def test_openai_streams() -> None:
    """In pieces, with a finish reason, and the usage at the end."""
    async with beside(whole()) as sdks:
        chunks = await sdks.ask_openai(chat_stream)
        deltas = [chunk.choices[0] for chunk in chunks if chunk.choices]
        assert "".join(each.delta.content or "" for each in deltas) == ANSWER
        assert len(deltas) > 5
        assert deltas[-1].finish_reason == "stop"
        assert chunks[-1].usage.completion_tokens == PROMPT_TOKENS[1]
        assert {chunk.model for chunk in chunks} == {"second"}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_openai_has_a_round_of_tools(stream: bool) -> None:
    """A call, its result, and the answer."""

    def rounds(client: openai.OpenAI) -> tuple[Any, str]:
        if stream:
            with client.chat.completions.stream(model="first", messages=ASKED, tools=[TOOL]) as events:
                message = events.get_final_completion().choices[0].message
        else:
            message = chat(client, tools=[TOOL]).choices[0].message
        [call] = message.tool_calls or []
        result: Any = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
        again: Any = [*ASKED, message.to_dict(), result]
        return call, chat(client, messages=again, tools=[TOOL]).choices[0].message.content

    async with beside(CALLED, whole()) as sdks:
        call, text = await sdks.ask_openai(rounds)
        assert (call.id, call.function.name) == ("call_1", "weather")
        assert json.loads(call.function.arguments) == {"city": "Bonn"}
        assert text == ANSWER
        assert sdks.second.prompts[0].tools[0].name == "weather"
        conversation = sdks.second.prompts[1].conversation
        assert [message.role for message in conversation] == ["user", "assistant", "tool"]
        assert conversation[1].tool_calls[0].arguments == '{"city": "Bonn"}'


async def test_openai_parses_structured_output() -> None:
    """The schema goes to the model, and what it writes is parsed."""
    async with beside(says('{"subject": "actors", ', '"words": 3}', USAGE)) as sdks:
        answer = await sdks.ask_openai(
            lambda client: client.chat.completions.parse(model="first", messages=ASKED, response_format=Sentence)
        )
        assert answer.choices[0].message.parsed == Sentence(subject="actors", words=3)
        schema = sdks.second.prompts[0].response_schema
        assert schema is not None
        assert set(schema["properties"]) == {"subject", "words"}  # type: ignore[call-overload]  # a mapping


async def test_openai_sends_images() -> None:
    """They reach the model."""
    url = f"data:image/png;base64,{PIXEL}"
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    async with beside(whole()) as sdks:
        asked: Any = [{"role": "user", "content": content}]
        assert (await sdks.ask_openai(partial(chat, messages=asked))).choices[0].message.content == ANSWER
        assert sum(isinstance(part, Image) for part in sdks.second.prompts[0].conversation[0].content) == 1


async def test_openai_shows_reasoning() -> None:
    """As other servers of its format do; where it is sent back, the signature comes along."""

    def rounds(client: openai.OpenAI) -> tuple[Any, list[Any]]:
        message, chunks = chat(client).choices[0].message, chat_stream(client)
        again: Any = [*ASKED, message.to_dict(), *ASKED]
        chat(client, messages=again)
        return message, chunks

    async with beside(THINKS) as sdks:
        message, chunks = await sdks.ask_openai(rounds)
        assert message.reasoning_content == "Let me see."
        pieces = [getattr(chunk.choices[0].delta, "reasoning_content", None) for chunk in chunks if chunk.choices]
        assert "".join(piece or "" for piece in pieces) == "Let me see."
        thoughts = sdks.second.prompts[-1].conversation[1].thoughts
        assert [thought.signature for thought in thoughts] == [Signature("anthropic", "sig")]


# -- anthropic -------------------------------------------------------------------------------------------------------


def message(client: anthropic.Anthropic, **more: Any) -> Any:  # noqa: ANN401 - whatever the SDK returns
    """Ask as its documentation shows."""
    return client.messages.create(**{"model": "first", "max_tokens": 100, "messages": ASKED, **more})


def message_stream(client: anthropic.Anthropic, **more: Any) -> tuple[str, Any]:  # noqa: ANN401 - as above
    """Ask for a stream; return its text, and what the SDK makes of it."""
    with client.messages.stream(**{"model": "first", "max_tokens": 100, "messages": ASKED, **more}) as stream:
        return "".join(stream.text_stream), stream.get_final_message()


async def test_anthropic_generates() -> None:
    """The second model's answer, under its name, with its usage."""
    async with beside(whole()) as sdks:
        answer = await sdks.ask_anthropic(message)
        assert (answer.content[0].text, answer.stop_reason, answer.model) == (ANSWER, "end_turn", "second")
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == PROMPT_TOKENS
        assert len(answer._request_id) == 32
        assert (len(sdks.first.calls), len(sdks.second.calls)) == (1, 1)


async def test_anthropic_streams() -> None:
    """In pieces, of which the SDK puts the same message together."""
    async with beside(whole()) as sdks:
        text, answer = await sdks.ask_anthropic(message_stream)
        assert (text, answer.content[0].text, answer.stop_reason) == (ANSWER, ANSWER, "end_turn")
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == PROMPT_TOKENS
        assert answer.model == "second"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_anthropic_has_a_round_of_tools(stream: bool) -> None:
    """A call, its result, and the answer."""

    def rounds(client: anthropic.Anthropic) -> tuple[Any, str]:
        tools: Any = {"tools": [TOOL_OF_MESSAGES]}
        answer = message_stream(client, **tools)[1] if stream else message(client, **tools)
        [call] = [block for block in answer.content if block.type == "tool_use"]
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
        again = [
            *ASKED,
            {"role": "assistant", "content": [block.to_dict() for block in answer.content]},
            {"role": "user", "content": [result]},
        ]
        assert answer.stop_reason == "tool_use"
        return call, message(client, messages=again, **tools).content[0].text

    async with beside(CALLED, whole()) as sdks:
        call, text = await sdks.ask_anthropic(rounds)
        assert (call.name, call.input, text) == ("weather", {"city": "Bonn"}, ANSWER)
        conversation = sdks.second.prompts[1].conversation
        assert [each.role for each in conversation] == ["user", "assistant", "tool"]
        assert conversation[1].tool_calls[0].id == "call_1"


async def test_anthropic_asks_for_structured_output() -> None:
    """The schema goes to the model."""
    schema = {**WEATHER, "title": "Weather"}
    async with beside(says('{"city": "Bonn"}', USAGE)) as sdks:
        config = {"format": {"type": "json_schema", "schema": schema}}
        answer = await sdks.ask_anthropic(partial(message, output_config=config))
        assert json.loads(answer.content[0].text) == {"city": "Bonn"}
        assert sdks.second.prompts[0].response_schema == schema


async def test_anthropic_sends_images() -> None:
    """They reach the model."""
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    asked = [{"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]}]
    async with beside(whole()) as sdks:
        assert (await sdks.ask_anthropic(partial(message, messages=asked))).content[0].text == ANSWER
        assert sum(isinstance(part, Image) for part in sdks.second.prompts[0].conversation[0].content) == 1


async def test_anthropic_shows_thoughts() -> None:
    """As blocks, whole and in pieces; sent back, they have their signature."""

    def rounds(client: anthropic.Anthropic) -> tuple[Any, Any]:
        answer, streamed = message(client), message_stream(client)[1]
        back = {"role": "assistant", "content": [block.to_dict() for block in answer.content]}
        message(client, messages=[*ASKED, back, *ASKED])
        return answer, streamed

    async with beside(THINKS) as sdks:
        for answer in await sdks.ask_anthropic(rounds):
            assert [block.type for block in answer.content] == ["thinking", "text"]
            assert answer.content[0].thinking == "Let me see."
        thoughts = sdks.second.prompts[-1].conversation[1].thoughts
        assert [thought.signature for thought in thoughts] == [Signature("anthropic", "sig")]


# -- errors ----------------------------------------------------------------------------------------------------------


class Case(BaseModel, arbitrary_types_allowed=True):
    """What is wrong, and what it becomes: the status, and the exception's class, which both SDKs have by one name."""

    status: int
    kind: str
    error: WizardError | None = None
    asks: str = "second"
    key: str = "wz_alice"
    sent: int = 0
    """Calls of a model that may have been made."""


CASES = {
    "content policy": Case(
        status=400, kind="BadRequestError", error=ContentFilterError("no", model="second", status=400), sent=1
    ),
    "context length": Case(status=400, kind="BadRequestError", error=TokenLimitError("long", model="second"), sent=1),
    "wrong key": Case(status=401, kind="AuthenticationError", key="wz_nobody"),
    "not for this key": Case(status=403, kind="PermissionDeniedError", asks="first"),
    "unknown model": Case(status=404, kind="NotFoundError", asks="third"),
    "our own key": Case(status=502, kind="InternalServerError", error=AuthError("no", model="second"), sent=1),
    "broken": Case(
        status=502, kind="InternalServerError", error=ProviderError("no", model="second", status=500), sent=1
    ),
    "too slow": Case(
        status=504,
        kind="InternalServerError",
        error=ProviderTimeoutError("no", model="second", phase="first_token"),
        sent=1,
    ),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
@pytest.mark.parametrize("case", CASES)
async def test_errors_become_their_exceptions_and_are_not_repeated(
    case: str, sdk: Literal["openai", "anthropic"], stream: bool
) -> None:
    """With the SDKs' own retries on: what a request came to is asked of the models once."""
    asked = CASES[case]
    turn = whole() if asked.error is None else fails(asked.error)
    async with beside(turn, keys=[key("alice", models=["second"])]) as sdks:
        caught = await _failure(sdks, sdk, stream=stream, model=asked.asks, key=asked.key)
        assert isinstance(caught, getattr(openai if sdk == "openai" else anthropic, asked.kind))
        assert caught.status_code == asked.status
        assert len(sdks.second.calls) == asked.sent
        assert sdks.first.calls == []


async def _failure(
    sdks: Sdks, sdk: str, *, stream: bool, model: str, key: str, max_retries: int = 2
) -> openai.APIStatusError | anthropic.APIStatusError:
    """Return what the SDK raises."""
    if sdk == "openai":
        ask = partial(chat_stream if stream else chat, model=model)
        with pytest.raises(openai.APIStatusError) as caught:
            await sdks.ask_openai(lambda client: ask(client.with_options(max_retries=max_retries)), key)
        return caught.value
    tell = partial(message_stream if stream else message, model=model)
    with pytest.raises(anthropic.APIStatusError) as failed:
        await sdks.ask_anthropic(lambda client: tell(client.with_options(max_retries=max_retries)), key)
    return failed.value


@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
async def test_what_may_be_repeated_is_repeated_by_the_sdk_and_answered(sdk: str) -> None:
    """A 429 says when to come again, to a millisecond; nothing is asked of a model in between."""
    alice = key("alice", models=["second"], rate_limit=per_minute(600))
    async with beside(whole(), keys=[alice]) as sdks:
        if sdk == "openai":
            many = [await sdks.ask_openai(partial(chat, model="second"), "wz_alice") for _ in range(3)]
            assert [answer.choices[0].message.content for answer in many] == [ANSWER] * 3
        else:
            said = [await sdks.ask_anthropic(partial(message, model="second"), "wz_alice") for _ in range(3)]
            assert [answer.content[0].text for answer in said] == [ANSWER] * 3
        assert len(sdks.second.calls) == 3


@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
async def test_too_many_requests_and_no_model_left_have_their_exceptions(sdk: str) -> None:
    """429 and, where every breaker is open, 503: with the time to wait."""
    alice = key("alice", models=["first"], rate_limit=per_minute(1))
    breakers = [model(name, retry=ONCE, breaker=BreakerConfig(failure_threshold=1)) for name in ("first", "second")]
    async with beside(DOWN, tables=breakers, keys=[alice, key("root")]) as sdks:
        await _failure(sdks, sdk, stream=False, model="first", key="wz_alice")
        await _failure(sdks, sdk, stream=False, model="second", key="wz_root", max_retries=0)
        for whose, name, status in (("wz_alice", "RateLimitError", 429), ("wz_root", "InternalServerError", 503)):
            caught = await _failure(sdks, sdk, stream=False, model="first", key=whose, max_retries=0)
            assert isinstance(caught, getattr(openai if sdk == "openai" else anthropic, name))
            assert caught.status_code == status
            assert int(caught.response.headers["retry-after"]) > 1
        assert (len(sdks.first.calls), len(sdks.second.calls)) == (1, 1)
