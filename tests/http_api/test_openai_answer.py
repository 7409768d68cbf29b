"""Answers, streams, errors and lists in OpenAI's shape, as the official SDK's own types read them."""

import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from attrs import evolve
from openai import APIError, OpenAI
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.parsed_chat_completion import ParsedChatCompletionMessage

from wizard_actors.errors import (
    Attempt,
    AuthError,
    CircuitOpenError,
    ContentFilterError,
    FallbackError,
    InvalidPromptError,
    MailboxFullError,
    ProviderTimeoutError,
    RateLimitError,
    TokenLimitError,
    UnsupportedError,
    WizardError,
)
from wizard_actors.http_api.asked import Asked
from wizard_actors.http_api.fields import BadRequestError
from wizard_actors.http_api.openai_format import OPENAI
from wizard_actors.http_api.status import failure_of
from wizard_actors.types import (
    End,
    FinishReason,
    Message,
    Prompt,
    ReasoningDelta,
    Reset,
    Signature,
    StreamEvent,
    TextDelta,
    Thought,
    ThoughtEnded,
    TokenUsage,
    ToolCall,
    ToolCallDelta,
    UsageUpdate,
    WizardResponse,
)

USAGE = TokenUsage(input_tokens=10, output_tokens=7, cached_tokens=4, reasoning_tokens=3, cache_write_tokens=2)
PLAIN = WizardResponse("Hello", "primary", usage=USAGE, request_id="r1")
CALLS = (ToolCall("c1", "get", '{"a": 1}'), ToolCall("c2", "put", "{}", Signature("gemini", "g")))
CALLING = WizardResponse(
    "",
    "primary",
    usage=USAGE,
    finish_reason=FinishReason.TOOL_CALLS,
    thoughts=(Thought("Hm, ", Signature("anthropic", "s"), id="t1"), Thought("", Signature("anthropic", "r"), True)),
    tool_calls=CALLS,
    request_id="r1",
)
CALLING_EVENTS: Sequence[StreamEvent] = (
    ReasoningDelta("Hm"),
    ReasoningDelta(", "),
    ThoughtEnded(Signature("anthropic", "s"), id="t1"),
    ThoughtEnded(Signature("anthropic", "r"), redacted=True),
    ToolCallDelta(0, "c1", "get"),
    ToolCallDelta(0, arguments='{"a"'),
    ToolCallDelta(0, arguments=": 1}"),
    ToolCallDelta(1, "c2", "put", "{}", Signature("gemini", "g")),
    UsageUpdate(USAGE),
    End(CALLING),
)


def answered(response: WizardResponse) -> ChatCompletion:
    """Return the answer as the SDK's types have it; they refuse what is none."""
    written = OPENAI.answer(response, "wizard", created=1_700_000_000)
    return ChatCompletion.model_validate(json.loads(json.dumps(written)))


def streamed(events: Sequence[StreamEvent], *, include_usage: bool = False) -> list[dict[str, Any]]:
    """Return the chunks of a stream, which ends as it has to."""
    asked = Asked("wizard", Prompt("Why?"), stream=True, include_usage=include_usage)
    writer = OPENAI.stream(asked, "r1", created=1_700_000_000)
    written = writer.begin("primary") + b"".join(writer.event(event) for event in events)
    *chunks, last, rest = written.split(b"\n\n")
    assert (last, rest) == (b"data: [DONE]", b"")
    return [json.loads(chunk.removeprefix(b"data: ")) for chunk in chunks]


def accumulated(chunks: Sequence[dict[str, Any]]) -> ParsedChatCompletionMessage[None]:
    """Return the message that the SDK puts together from chunks, each of which its types have to take."""
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    return state.get_final_completion().choices[0].message


def deltas(chunks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what each chunk adds."""
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


# -- whole answers -------------------------------------------------------------------------------------


def test_an_answer_is_a_chat_completion() -> None:
    """With the model that answered, the text, and why it ended."""
    completion = answered(PLAIN)
    assert (completion.id, completion.model, completion.created) == ("chatcmpl-r1", "primary", 1_700_000_000)
    (choice,) = completion.choices
    assert (choice.message.content, choice.message.refusal, choice.message.tool_calls) == ("Hello", None, None)
    assert (choice.finish_reason, choice.logprobs) == ("stop", None)
    assert "reasoning_content" not in choice.message.to_dict()


def test_the_usage_is_told_in_full() -> None:
    """The parts of it under OpenAI's names."""
    usage = answered(PLAIN).usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (10, 7, 17)
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 4
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == 3


def test_an_unknown_usage_is_left_out() -> None:
    """Zeros would be taken for a count."""
    assert answered(evolve(PLAIN, usage=None)).usage is None
    assert "usage" not in OPENAI.answer(evolve(PLAIN, usage=None), "wizard", created=0)


def test_an_answer_without_a_model_is_that_of_the_name_that_was_asked() -> None:
    """A static answer is nobody's."""
    assert answered(evolve(PLAIN, model="")).model == "wizard"


def test_an_answer_that_only_calls_tools_has_no_content() -> None:
    """Its calls and its reasoning stand beside it."""
    message = answered(CALLING).choices[0].message
    assert message.content is None
    assert message.tool_calls is not None
    assert [call.to_dict() for call in message.tool_calls] == [
        {"id": "c1", "type": "function", "function": {"name": "get", "arguments": '{"a": 1}'}},
        {"id": "c2", "type": "function", "function": {"name": "put", "arguments": "{}"}},
    ]
    assert message.to_dict()["reasoning_content"] == "Hm, "


@pytest.mark.parametrize(
    ("reason", "calls", "word"),
    [
        (FinishReason.STOP, (), "stop"),
        (FinishReason.LENGTH, (), "length"),
        (FinishReason.TOOL_CALLS, CALLS, "tool_calls"),
        (FinishReason.CONTENT_FILTER, (), "content_filter"),
        (FinishReason.OTHER, (), "stop"),
        (FinishReason.STOP, CALLS, "tool_calls"),
        (FinishReason.LENGTH, CALLS, "length"),
    ],
)
def test_an_answer_ends_with_a_word_that_clients_know(
    reason: FinishReason, calls: tuple[ToolCall, ...], word: str
) -> None:
    """The same in a stream; calls that are to be made are never told as a mere end."""
    response = evolve(PLAIN, finish_reason=reason, tool_calls=calls)
    assert answered(response).choices[0].finish_reason == word
    assert streamed([End(response)])[-1]["choices"][0]["finish_reason"] == word


@pytest.mark.parametrize("response", [PLAIN, CALLING, evolve(CALLING, text="So:")])
def test_a_message_that_the_sdk_sends_back_is_the_one_that_was_answered(response: WizardResponse) -> None:
    """With every signature: a provider that wants them back gets them."""
    message = answered(response).choices[0].message
    results = [{"role": "tool", "tool_call_id": call.id, "content": "x"} for call in response.tool_calls]
    conversation = [message.to_dict(), *results, {"role": "user", "content": "And?"}]
    assert OPENAI.read({"model": "m", "messages": conversation}).prompt.messages[0] == response.message


# -- streams -------------------------------------------------------------------------------------------


def test_a_stream_begins_with_the_role_and_ends_with_the_reason() -> None:
    """Each chunk is of the model that answers, and of the same answer."""
    chunks = streamed([TextDelta("Hel"), TextDelta("lo"), UsageUpdate(USAGE), End(PLAIN)])
    assert deltas(chunks) == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "stop"]
    assert {(chunk["id"], chunk["model"], chunk["object"]) for chunk in chunks} == {
        ("chatcmpl-r1", "primary", "chat.completion.chunk")
    }
    assert all("usage" not in chunk for chunk in chunks)
    assert accumulated(chunks).content == "Hello"


def test_the_usage_of_a_stream_comes_last_where_it_is_asked_for() -> None:
    """Null before, in a chunk of its own then; none where it is unknown."""
    chunks = streamed([TextDelta("Hello"), End(PLAIN)], include_usage=True)
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None, None, None]
    assert chunks[-1]["choices"] == []
    usage = ChatCompletionChunk.model_validate(chunks[-1]).usage
    assert usage == answered(PLAIN).usage
    unknown = streamed([TextDelta("Hello"), End(evolve(PLAIN, usage=None))], include_usage=True)
    assert [chunk["usage"] for chunk in unknown] == [None, None, None]
    assert unknown[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_streamed_call_states_once_what_it_is() -> None:
    """Its arguments come in pieces, and the SDK puts them together."""
    chunks = streamed(CALLING_EVENTS)
    calls = [delta["tool_calls"][0] for delta in deltas(chunks) if "tool_calls" in delta]
    assert calls == [
        {"index": 0, "id": "c1", "type": "function", "function": {"name": "get", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a"'}},
        {"index": 0, "function": {"arguments": ": 1}"}},
        {"index": 1, "id": "c2", "type": "function", "function": {"name": "put", "arguments": "{}"}},
    ]


def test_a_streamed_message_that_the_sdk_sends_back_is_the_one_that_was_answered() -> None:
    """Its reasoning, its calls, and every signature."""
    message = accumulated(streamed(CALLING_EVENTS))
    results = [{"role": "tool", "tool_call_id": call.id, "content": "x"} for call in CALLS]
    read = OPENAI.read({"model": "m", "messages": [message.to_dict(), *results]})
    assert read.prompt.messages[0] == CALLING.message
    assert message.to_dict()["reasoning_content"] == "Hm, "


def test_a_call_waits_for_its_id_and_its_name() -> None:
    """Clients fail at one that begins without; what came before is not lost, and places are counted from 0."""
    late = [
        ToolCallDelta(4, arguments="{"),
        ToolCallDelta(4, name="get"),
        ToolCallDelta(4, arguments="}"),
        ToolCallDelta(7, "c7", "put", "[]"),
        ToolCallDelta(4, "c4"),
        ToolCallDelta(4, "c4"),
        ToolCallDelta(9, name="nameless", arguments="1"),
    ]
    message = accumulated(streamed([*late, End(PLAIN)]))
    assert message.tool_calls is not None
    assert [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls] == [
        ("c7", "put", "[]"),
        ("c4", "get", "{}"),
        ("call_9", "nameless", "1"),
    ]


def test_a_stream_that_fails_ends_with_the_error_and_nothing_after_it() -> None:
    """The SDK raises it; it never takes the answer for a whole one."""
    writer = OPENAI.stream(Asked("wizard", Prompt("Why?"), stream=True), "r1", created=0)
    written = writer.begin("primary") + writer.event(TextDelta("Hel"))
    failure = failure_of(ProviderTimeoutError("primary: late", model="primary", phase="stall"))
    last = writer.failed(failure)
    body = written + last
    assert last.count(b"\n\n") == 1
    assert b"[DONE]" not in body
    answer = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body)
    with (
        httpx.Client(transport=httpx.MockTransport(lambda _: answer)) as http,
        OpenAI(api_key="k", base_url="http://x.test/v1", http_client=http) as client,
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], stream=True) as chunks,
        pytest.raises(APIError, match="primary: late") as raised,
    ):
        list(chunks)
    assert raised.value.code == "timeout"


def test_a_reset_is_a_mistake() -> None:
    """What was sent cannot be taken back in this format."""
    writer = OPENAI.stream(Asked("wizard", Prompt("Why?")), "r1", created=0)
    with pytest.raises(TypeError, match="Reset"):
        writer.event(Reset("primary", "it broke off"))


# -- errors and models ---------------------------------------------------------------------------------

ATTEMPTS = (
    Attempt("primary", 1.0, 0.12345, error=TokenLimitError("primary: too long", model="primary")),
    Attempt("backup", 2.0, 0.5, error=ContentFilterError("backup: no", model="backup", status=400)),
)


@pytest.mark.parametrize(
    ("error", "type_", "code", "ours"),
    [
        (BadRequestError("`n` must be 1", param="n"), "invalid_request_error", "invalid_request", "invalid_request"),
        (BadRequestError("no key", status=401), "invalid_request_error", "invalid_api_key", "invalid_request"),
        (
            BadRequestError("no such model", param="model", status=404),
            "invalid_request_error",
            "model_not_found",
            "invalid_request",
        ),
        (BadRequestError("no such path", status=404), "invalid_request_error", "invalid_request", "invalid_request"),
        (InvalidPromptError("empty"), "invalid_request_error", "invalid_prompt", "invalid_prompt"),
        (TokenLimitError("long"), "invalid_request_error", "context_length_exceeded", "token_limit"),
        (
            FallbackError("none fits", attempts=ATTEMPTS[:1]),
            "invalid_request_error",
            "context_length_exceeded",
            "all_models_failed",
        ),
        (ContentFilterError("no", model="m"), "invalid_request_error", "content_filter", "content_filter"),
        (UnsupportedError("no", feature="f"), "invalid_request_error", "unsupported", "unsupported"),
        (RateLimitError("slow", model="m", retry_after=2.0), "requests", "rate_limit_exceeded", "rate_limit"),
        (MailboxFullError("full", actor="a"), "requests", "rate_limit_exceeded", "mailbox_full"),
        (CircuitOpenError("open", model="m", retry_at=9.0, retry_after=3.0), "server_error", "circuit_open", None),
        (AuthError("our key", model="m", status=401), "server_error", "auth", None),
        (WizardError("a bug"), "server_error", "wizard_error", None),
    ],
)
def test_an_error_has_the_type_and_the_code_that_clients_act_on(
    error: WizardError | BadRequestError, type_: str, code: str, ours: str | None
) -> None:
    """OpenAI's own where it has one; ours is always there, under a key of its own."""
    failure = failure_of(error)
    told: Any = OPENAI.error(failure, "r1")["error"]
    assert (told["type"], told["code"], told["message"]) == (type_, code, str(error))
    assert told["param"] == failure.param
    assert told["wizard"]["code"] == (ours or code)
    assert told["wizard"]["request_id"] == "r1"
    assert told["wizard"].get("retry_after") == failure.retry_after


def test_an_error_tells_what_was_tried() -> None:
    """Of each attempt the model, what it failed with, and for how long."""
    told: Any = OPENAI.error(failure_of(FallbackError("all failed", attempts=ATTEMPTS)), "r1")["error"]
    assert told["wizard"]["attempts"] == [
        {"model": "primary", "error": "token_limit", "seconds": 0.123},
        {"model": "backup", "error": "content_filter", "seconds": 0.5},
    ]


def test_models_are_listed() -> None:
    """As the SDK's types have them."""
    listed: Any = OPENAI.models(["wizard", "primary"], created=5)
    assert listed["object"] == "list"
    assert [Model.model_validate(each).id for each in listed["data"]] == ["wizard", "primary"]
    assert Model.model_validate(OPENAI.model("primary", created=5)).owned_by == "wizard"


def test_a_message_is_the_same_whether_it_came_whole_or_in_pieces() -> None:
    """For plain answers too."""
    whole = Message("assistant", "Hello")
    pieces = accumulated(streamed([TextDelta("Hello"), End(PLAIN)]))
    read = OPENAI.read({"model": "m", "messages": [pieces.to_dict(), {"role": "user", "content": "And?"}]})
    assert read.prompt.messages[0] == whole
