"""What a Messages API writes: whole messages, failures, models, as the official SDK's types want them."""

import json
from typing import Any

import pytest
from anthropic.types import ErrorResponse, ModelInfo, StopReason
from anthropic.types import Message as SdkMessage

from wizard_actors.errors import OverloadedError
from wizard_actors.http_api.anthropic_format import ANTHROPIC
from wizard_actors.http_api.anthropic_proofs import (
    BrokenSealError,
    opened_id,
    opened_signature,
    sealed_id,
    sealed_signature,
)
from wizard_actors.http_api.asked import Asked
from wizard_actors.http_api.status import Failure
from wizard_actors.json_bytes import json_bytes
from wizard_actors.providers.anthropic_events import EventReader
from wizard_actors.providers.refusals import Head
from wizard_actors.types import (
    FinishReason,
    Message,
    Prompt,
    Signature,
    Thought,
    TokenUsage,
    ToolCall,
    WizardResponse,
)

Json = dict[str, Any]  # as JSON comes

ANTHROPICS = Signature("anthropic", "EqMB")
GEMINIS = Signature("gemini", "AP8=")


def written(text: str = "", **fields: Any) -> Json:  # noqa: ANN401 - those of a response
    """Return an answer as a client reads it; the official type takes it as it is."""
    response = WizardResponse(text, fields.pop("model", "sonnet"), request_id="r-1", **fields)
    body: Json = json.loads(json_bytes(ANTHROPIC.answer(response, "wizard", created=0)))
    SdkMessage.model_validate(body, strict=True)
    return body


def came_back(body: Json) -> Message:
    """Return the message that our format reads where a client sends an answer's content back."""
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": body["content"]}]
    return ANTHROPIC.read({"model": "m", "max_tokens": 1, "messages": messages}).prompt.messages[1]


# -- messages ----------------------------------------------------------------------------------------


def test_a_whole_answer_is_thoughts_then_text_then_calls() -> None:
    """With the model that answered, the request's id, and the usage as the format counts it."""
    body = written(
        "I look",
        upstream_model="claude-x",
        thoughts=(Thought("hm", ANTHROPICS), Thought("", ANTHROPICS, redacted=True), Thought()),
        tool_calls=(ToolCall("toolu_1", "weather", '{"city": "Rome"}'), ToolCall("toolu_2", "now", "")),
        finish_reason=FinishReason.TOOL_CALLS,
        raw_finish_reason="tool_use",
        usage=TokenUsage(100, 20, cached_tokens=30, cache_write_tokens=10, reasoning_tokens=5),
    )
    assert body == {
        "id": "msg_r-1",
        "type": "message",
        "role": "assistant",
        "model": "sonnet",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "EqMB"},
            {"type": "redacted_thinking", "data": "EqMB"},
            {"type": "text", "text": "I look"},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}},
            {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 60,
            "cache_creation_input_tokens": 10,
            "cache_read_input_tokens": 30,
            "output_tokens": 20,
            "output_tokens_details": {"thinking_tokens": 5},
        },
    }


def test_an_answer_of_no_model_bears_the_name_that_was_asked() -> None:
    """A static answer has no model and no usage; the client's types demand figures."""
    body = written("Come back later", model="")
    assert body["model"] == "wizard"
    assert body["usage"] == {"input_tokens": 0, "output_tokens": 0}


@pytest.mark.parametrize(
    ("reason", "raw", "calls", "expected"),
    [
        (FinishReason.STOP, "stop", False, "end_turn"),
        (FinishReason.STOP, "stop_sequence", False, "stop_sequence"),
        (FinishReason.LENGTH, None, False, "max_tokens"),
        (FinishReason.LENGTH, "model_context_window_exceeded", False, "model_context_window_exceeded"),
        (FinishReason.TOOL_CALLS, "tool_calls", True, "tool_use"),
        (FinishReason.STOP, "STOP", True, "tool_use"),
        (FinishReason.LENGTH, "length", True, "max_tokens"),
        (FinishReason.CONTENT_FILTER, "SAFETY", False, "refusal"),
        (FinishReason.OTHER, "pause_turn", False, "pause_turn"),
        (FinishReason.OTHER, "eos", False, "end_turn"),
        (FinishReason.STOP, "refusal", False, "end_turn"),
    ],
)
def test_a_stop_reason_is_anthropics_word(
    reason: FinishReason, raw: str | None, calls: bool, expected: StopReason
) -> None:
    """Its own where it said one that means that; "tool_use" wherever it is the client's turn to call."""
    made = (ToolCall("a", "weather", "{}"),) if calls else ()
    assert written("x", finish_reason=reason, raw_finish_reason=raw, tool_calls=made)["stop_reason"] == expected


def test_more_cached_tokens_than_input_leave_none() -> None:
    """A provider's figures may not add up; a client's count is never negative."""
    assert written("x", usage=TokenUsage(10, 1, cached_tokens=20))["usage"]["input_tokens"] == 0


@pytest.mark.parametrize("arguments", ["{oops", "[1]", "nul", '{"a": 1} and more', '{"a": "\\ud800"}'])
def test_arguments_that_are_no_object_are_not_lost(arguments: str) -> None:
    """They stand in the form that Anthropic recommends, and come back as they were."""
    body = written(tool_calls=(ToolCall("a", "weather", arguments),))
    assert body["content"][0]["input"] == {"INVALID_JSON": arguments}
    assert came_back(body).tool_calls[0].arguments == arguments


@pytest.mark.parametrize("arguments", ["null", " null\n", ""])
def test_arguments_that_are_null_are_none(arguments: str) -> None:
    """An object without anything: null would come back as no object."""
    assert written(tool_calls=(ToolCall("a", "weather", arguments),))["content"][0]["input"] == {}


def test_what_another_protocol_wants_back_comes_back() -> None:
    """Signatures, ids of thoughts and signatures of calls, through fields whose text clients leave alone."""
    thoughts = (
        Thought("a", GEMINIS),
        Thought("b", Signature("responses", "enc"), id="rs_1"),
        Thought("", Signature("responses", "enc"), redacted=True, id="rs_2"),
        Thought("c", None, id="rs_3"),
        Thought("d", GEMINIS, redacted=True),
        Thought("e"),
        Thought("", ANTHROPICS),
    )
    calls = (ToolCall("made_1", "weather", "{}", GEMINIS), ToolCall("functions.now:0", "now", "{}"))
    body = written("text", thoughts=thoughts, tool_calls=calls)
    assert came_back(body) == Message("assistant", "text", thoughts=thoughts, tool_calls=calls)


def test_a_seal_is_made_of_the_letters_of_an_id() -> None:
    """So clients that look at ids, and Anthropic, take it."""
    sealed = sealed_id(ToolCall("a:b", "weather", "{}", Signature("gemini", "ÿ?>~")))
    assert sealed.replace("_", "").replace("-", "").isalnum()
    assert sealed.isascii()


def test_what_only_looks_sealed_is_sealed_as_well() -> None:
    """Whatever the value, what is opened is what was sealed."""
    looks = sealed_signature(GEMINIS)
    assert opened_signature(sealed_signature(Signature("anthropic", looks))) == (
        Signature("anthropic", looks),
        None,
        False,
    )
    assert opened_id(sealed_id(ToolCall(looks, "weather", "{}"))) == (looks, None)


@pytest.mark.parametrize("written_as", ["wizard_sealed_", "wizard_sealed_é", "wizard_sealed_W10", "wizard_sealed_!"])
def test_a_broken_seal_is_told(written_as: str) -> None:
    """Rather than taken for something of Anthropic's."""
    with pytest.raises(BrokenSealError):
        opened_signature(written_as)
    with pytest.raises(BrokenSealError):
        opened_id(written_as)


# -- failures ----------------------------------------------------------------------------------------

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


@pytest.mark.parametrize("status", TYPES)
def test_a_failure_has_anthropics_type_and_our_code(status: int) -> None:
    """With the request's id beside it, where the SDK looks for it."""
    body = ANTHROPIC.error(Failure(status, "some_code", "No", param="messages[0]"), "r-1")
    if status != 413:  # which the API documents, and the SDK has no class for
        ErrorResponse.model_validate(body, strict=True)
    assert body == {
        "type": "error",
        "error": {"type": TYPES[status], "message": "No", "code": "some_code", "param": "messages[0]"},
        "request_id": "r-1",
    }


def test_a_failure_in_a_stream_is_an_error_event_and_the_last() -> None:
    """Our own provider reads it as what it is; nothing follows, not even an end."""
    writer = ANTHROPIC.stream(Asked("m", Prompt("?")), "r-1", created=0)
    last = writer.failed(Failure(503, "circuit_open", "all models are out"))
    name, data = last.decode().strip().split("\n")
    assert name == "event: error"
    with pytest.raises(OverloadedError, match="all models are out"):
        EventReader(Head("upstream")).read(json.loads(data.removeprefix("data: ")), [], name="error")
    assert writer.failed(Failure(503, "circuit_open", "again")) == b""


# -- models ------------------------------------------------------------------------------------------


def test_the_models_are_one_page_of_anthropics_list() -> None:
    """Each as the official type has it; an empty list has neither first nor last."""
    page: Json = ANTHROPIC.models(["wizard", "sonnet"], created=1_700_000_000)
    assert [ModelInfo.model_validate(each).id for each in page["data"]] == ["wizard", "sonnet"]
    assert page["data"][1] == ANTHROPIC.model("sonnet", created=1_700_000_000)
    assert page["data"][1]["created_at"] == "2023-11-14T22:13:20Z"
    assert (page["has_more"], page["first_id"], page["last_id"]) == (False, "wizard", "sonnet")
    empty = ANTHROPIC.models([], created=0)
    assert (empty["first_id"], empty["last_id"]) == (None, None)
