"""Prompts as Chat Completions bodies."""

import math

import msgspec
import pytest

from wizard_actors.errors import SerializationError, UnsupportedError
from wizard_actors.providers.openai_request import Dialect, request_body
from wizard_actors.providers.openai_wire import without_refused_field
from wizard_actors.providers.refusals import ErrorBody
from wizard_actors.types import Image, Message, Prompt, Text, Tool, ToolCall


def body(prompt: Prompt, dialect: Dialect | None = None, **extra: object) -> dict[str, object]:
    """Return the body for a prompt, decoded."""
    raw = request_body(prompt, model="primary", upstream_model="up-1", dialect=dialect or Dialect(), extra=extra)
    return msgspec.json.decode(raw, type=dict[str, object])


def test_a_plain_prompt_asks_for_a_stream_with_usage() -> None:
    """And for nothing that the prompt does not say."""
    assert body(Prompt("Why?", system="Be brief")) == {
        "model": "up-1",
        "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Why?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_dialect_leaves_fields_out() -> None:
    """Without a stream there are no stream options."""
    assert "stream_options" not in body(Prompt("x"), Dialect(stream_options=False))
    assert not {"stream", "stream_options"} & body(Prompt("x"), Dialect(stream=False)).keys()


def test_all_parameters_are_sent() -> None:
    """Zeros too; the field for the answer's length is the dialect's."""
    prompt = Prompt("x", temperature=0.0, top_p=0.5, max_tokens=9, stop=["a", "b"], seed=0)
    sent = body(prompt)
    wanted = {"temperature": 0.0, "top_p": 0.5, "max_tokens": 9, "stop": ["a", "b"], "seed": 0}
    assert {name: sent[name] for name in wanted} == wanted
    assert body(prompt, Dialect(max_tokens_field="max_completion_tokens"))["max_completion_tokens"] == 9


def test_extra_overrules_the_rest_and_the_prompt_overrules_the_model() -> None:
    """In this order: what the prompt says, the model's `extra`, the prompt's `extra`."""
    prompt = Prompt("x", temperature=1.0, extra={"top_k": 3})
    sent = body(prompt, temperature=0.5, top_k=1, reasoning_effort="low")
    assert (sent["temperature"], sent["top_k"], sent["reasoning_effort"]) == (0.5, 3, "low")


def test_a_conversation_with_tools_keeps_its_shape() -> None:
    """Calls and their results; an assistant that only calls tools says null."""
    call = ToolCall("call_1", "get_weather", '{"city":"Paris"}')
    prompt = Prompt(
        [
            Message("user", "Weather?", name="ann"),
            Message("assistant", tool_calls=[call]),
            Message("tool", "21 C", tool_call_id="call_1"),
            Message("assistant", "Warm.", tool_calls=[call]),
        ]
    )
    function = {"name": "get_weather", "arguments": '{"city":"Paris"}'}
    calls = [{"id": "call_1", "type": "function", "function": function}]
    assert body(prompt)["messages"] == [
        {"role": "user", "content": "Weather?", "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "21 C", "tool_call_id": "call_1"},
        {"role": "assistant", "content": "Warm.", "tool_calls": calls},
    ]


def test_tools_are_offered_as_functions() -> None:
    """With what is known of them; strict where they are fit for it, for others would be refused."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    strict = {**schema, "required": ["city"], "additionalProperties": False}
    tools = [Tool("get", "Get it", strict, strict=True), Tool("open", "", schema, strict=True), Tool("ping")]
    assert body(Prompt("x", tools=tools))["tools"] == [
        {
            "type": "function",
            "function": {"name": "get", "description": "Get it", "parameters": strict, "strict": True},
        },
        {"type": "function", "function": {"name": "open", "parameters": schema}},
        {"type": "function", "function": {"name": "ping"}},
    ]


@pytest.mark.parametrize("choice", ["auto", "none", "required"])
def test_a_tool_choice_is_a_word(choice: str) -> None:
    """One of the protocol's three."""
    assert body(Prompt("x", tools=[Tool("get")], tool_choice=choice))["tool_choice"] == choice


def test_a_tool_choice_may_be_a_name() -> None:
    """Any other word is a tool's name."""
    sent = body(Prompt("x", tools=[Tool("get")], tool_choice="get"))
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "get"}}


def test_images_stand_in_parts() -> None:
    """By URL, or as data."""
    parts: list[Text | Image] = [Text("What?"), Image(url="https://x.test/a.png")]
    parts.append(Image(data=b"\x00\xff", media_type="image/png"))
    assert body(Prompt([Message("user", parts)]))["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What?"},
                {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AP8="}},
            ],
        }
    ]


def test_an_image_elsewhere_is_refused_unsent() -> None:
    """The protocol has no place for it."""
    result = Message("tool", [Text("see"), Image(url="https://x.test/a.png")], tool_call_id="1")
    with pytest.raises(UnsupportedError) as caught:
        body(Prompt([Message("assistant", tool_calls=[ToolCall("1", "see", "{}")]), result]))
    assert caught.value.model == "primary"


CLOSED = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (CLOSED, True),
        ({**CLOSED, "properties": {"a": {"type": "array", "items": CLOSED}}}, True),
        ({**CLOSED, "properties": {"a": {"anyOf": [{"type": "null"}, CLOSED]}}}, True),
        ({**CLOSED, "properties": {"a": {"type": "array", "items": {**CLOSED, "required": []}}}}, False),
        ({**CLOSED, "additionalProperties": True}, False),
        ({"type": "object", "properties": {"a": {}}, "required": ["a"]}, False),
        ({"type": "object"}, False),
        ({"type": "string"}, False),
    ],
)
def test_a_response_schema_is_strict_where_it_can_be(schema: dict[str, object], strict: bool) -> None:
    """OpenAI guarantees strict schemas, and refuses as strict what does not qualify."""
    asked = {"name": "answer", "schema": schema} | ({"strict": True} if strict else {})
    sent = body(Prompt("x", response_schema=schema))
    assert sent["response_format"] == {"type": "json_schema", "json_schema": asked}


def test_a_response_schema_is_named_after_its_title() -> None:
    """In the characters that a name may have."""
    sent = body(Prompt("x", response_schema={"title": "My invoice (v2)", "type": "string"}))
    assert sent["response_format"] == {
        "type": "json_schema",
        "json_schema": {
            "name": "My_invoice_v2_",
            "schema": {"title": "My invoice (v2)", "type": "string"},
        },
    }


@pytest.mark.parametrize("value", [object(), {1j}, {("a", "b"): 1}, "\ud800", 2**70 * 1.0j])
def test_what_json_cannot_hold_is_refused_unsent(value: object) -> None:
    """With the places to look at."""
    with pytest.raises(SerializationError, match="extra"):
        body(Prompt("x", extra={"odd": value}))


def test_a_schema_without_end_is_refused_unsent() -> None:
    """One that holds itself cannot be written down."""
    endless: dict[str, object] = {"type": "array"}
    endless["items"] = endless
    with pytest.raises(SerializationError):
        body(Prompt("x", response_schema=endless))
    assert body(Prompt("x", extra={"t": math.inf}))["t"] is None


@pytest.mark.parametrize(
    ("refused", "left"),
    [
        (ErrorBody("Unknown parameter", param="stream_options"), Dialect(stream_options=False)),
        (ErrorBody("Unrecognized request argument supplied: stream_options"), Dialect(stream_options=False)),
        (ErrorBody("bad", param="stream_options.include_usage"), Dialect(stream_options=False)),
        (ErrorBody("This model does not support streaming."), Dialect(stream=False)),
        (ErrorBody("Unsupported value: 'stream' does not support true", param="stream"), Dialect(stream=False)),
        (ErrorBody("upstreams and bitstream_x are down"), None),
        (ErrorBody("bad temperature", param="temperature"), None),
    ],
)
def test_a_refused_field_is_left_out(refused: ErrorBody, left: Dialect | None) -> None:
    """By the parameter that is blamed, or by the message that names it as a word."""
    assert without_refused_field(Dialect(), refused) == left


def test_no_field_is_left_out_twice() -> None:
    """And none that the configuration insists on."""
    options, stream = ErrorBody(param="stream_options"), ErrorBody("no streaming")
    assert without_refused_field(Dialect(stream_options=False), options) is None
    assert without_refused_field(Dialect(stream=False), options) is None
    assert without_refused_field(Dialect(stream=False), stream) is None
    assert without_refused_field(Dialect(), stream, keep_stream=True) is None
    assert without_refused_field(Dialect(), options, keep_stream=True) == Dialect(stream_options=False)
