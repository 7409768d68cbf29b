"""Prompts as Messages bodies."""

from typing import Any

import httpx
import msgspec
import pytest

from wizard_actors.config import Upstream
from wizard_actors.errors import SerializationError, UnsupportedError
from wizard_actors.providers.anthropic_request import AnthropicWire, request_body
from wizard_actors.providers.base import Call
from wizard_actors.providers.http_provider import HttpSettings
from wizard_actors.providers.refusals import ErrorBody
from wizard_actors.types import Content, Image, Message, Prompt, Signature, Text, Thought, Tool, ToolCall

PNG = Image(data=b"\x00\xff", media_type="image/png")
SENT_PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AP8="}}


def body(prompt: Prompt, **extra: object) -> dict[str, Any]:
    """Return the body for a prompt, decoded."""
    raw = request_body(prompt, model="primary", upstream_model="up-1", stream=True, extra=extra)
    return msgspec.json.decode(raw, type=dict[str, Any])


def messages(*conversation: Message) -> list[Any]:
    """Return a conversation as it is sent."""
    sent: list[Any] = body(Prompt(conversation))["messages"]
    return sent


def wire(upstream: Upstream = "auto", max_tokens: int | None = None) -> AnthropicWire:
    """Return the protocol of a model with these settings."""
    settings = HttpSettings(
        name="primary", model="up-1", base_url="http://x.test", upstream=upstream, max_tokens=max_tokens
    )
    return AnthropicWire.of(settings, httpx.URL("http://x.test/v1/messages"))


def sent_by(wire: AnthropicWire, prompt: Prompt) -> dict[str, Any]:
    """Return the body that a wire sends."""
    return msgspec.json.decode(wire.request(Call(prompt, "1")).body, type=dict[str, Any])


def called(*names: str, arguments: str = "{}") -> Message:
    """Return a message that calls tools; each call is named after its tool."""
    return Message("assistant", tool_calls=[ToolCall(f"id_{name}", name, arguments) for name in names])


def result(name: str, content: Content = "ok", *, is_error: bool = False) -> Message:
    """Return what a tool has given back."""
    return Message("tool", content, tool_call_id=f"id_{name}", is_error=is_error)


# -- fields ------------------------------------------------------------------------------------------


def test_a_plain_prompt_says_nothing_but_what_it_must() -> None:
    """A bound for the answer is demanded; the system text stands above the conversation."""
    assert body(Prompt("Why?", system="Be brief")) == {
        "model": "up-1",
        "max_tokens": 8192,
        "messages": [{"role": "user", "content": "Why?"}],
        "stream": True,
        "system": "Be brief",
    }


def test_the_bound_is_the_prompts_else_the_models() -> None:
    """Else one that serves most."""
    assert sent_by(wire(max_tokens=100), Prompt("x", max_tokens=9))["max_tokens"] == 9
    assert sent_by(wire(max_tokens=100), Prompt("x"))["max_tokens"] == 100
    assert sent_by(wire(), Prompt("x"))["max_tokens"] == 8192


def test_a_unary_model_is_not_asked_for_a_stream() -> None:
    """Nor is its request told so: not to stream is the default."""
    assert "stream" not in sent_by(wire(upstream="unary"), Prompt("x"))
    assert (wire(upstream="unary").streams, wire().streams) == (False, True)


def test_all_parameters_are_sent() -> None:
    """Zeros too."""
    sent = body(Prompt("x", temperature=0.0, top_p=0.5, stop=["a", "b"]))
    assert (sent["temperature"], sent["top_p"], sent["stop_sequences"]) == (0.0, 0.5, ["a", "b"])


def test_a_seed_is_refused_unsent() -> None:
    """The protocol has none, and an answer that only looks repeatable helps nobody."""
    with pytest.raises(UnsupportedError) as caught:
        body(Prompt("x", seed=0))
    assert (caught.value.feature, caught.value.model) == ("seed", "primary")


def test_extra_overrules_the_rest_and_the_prompt_overrules_the_model() -> None:
    """In this order: what the prompt says, the model's `extra`, the prompt's `extra`."""
    prompt = Prompt("x", temperature=1.0, extra={"top_k": 3})
    sent = body(prompt, temperature=0.5, top_k=1, thinking={"type": "enabled", "budget_tokens": 1024})
    assert (sent["temperature"], sent["top_k"], sent["thinking"]["budget_tokens"]) == (0.5, 3, 1024)


def test_a_schema_is_asked_for() -> None:
    """As it is where it is closed; an effort in `extra` does not drop it, another format takes its place."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
    asked = {"type": "json_schema", "schema": schema}
    prompt = Prompt("x", response_schema=schema)
    assert body(prompt)["output_config"] == {"format": asked}
    assert body(prompt, output_config={"effort": "low"})["output_config"] == {"format": asked, "effort": "low"}
    assert body(prompt, output_config={"format": None})["output_config"] == {"format": None}
    assert body(prompt, output_config=None)["output_config"] is None


def test_a_schema_is_sent_in_the_form_that_the_api_takes() -> None:
    """What it would refuse is told in words; what has no such form is unsupported, so that another model is asked."""
    bounded = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}}
    config = body(Prompt("x", response_schema=bounded))["output_config"]
    assert config["format"]["schema"]["properties"] == {"a": {"type": "integer", "description": "{minimum: 1}"}}

    node = {"type": "object", "properties": {"next": {"$ref": "#"}}}
    with pytest.raises(UnsupportedError, match=r"primary: .* `#` refers to itself; change it there, or ask") as caught:
        body(Prompt("x", response_schema=node))
    assert caught.value.model == "primary"


def test_a_schema_without_end_is_refused_unsent() -> None:
    """One that holds itself cannot be written down."""
    endless: dict[str, object] = {"type": "array"}
    endless["items"] = endless
    with pytest.raises(SerializationError):
        body(Prompt("x", response_schema=endless))


@pytest.mark.parametrize("value", [object(), {1j}, "\ud800"])
def test_what_json_cannot_hold_is_refused_unsent(value: object) -> None:
    """With the places to look at."""
    with pytest.raises(SerializationError, match="extra"):
        body(Prompt("x", extra={"odd": value}))


# -- the conversation --------------------------------------------------------------------------------


def test_all_system_texts_are_one() -> None:
    """In their order, wherever they stand, parted by a blank line; blank ones are none."""
    prompt = Prompt(
        [
            Message("user", "Hi"),
            Message("system", [Text("Be "), Text("kind.")]),
            Message("user", "Well?"),
            Message("system", " "),
        ],
        system="Be brief.",
    )
    sent = body(prompt)
    assert sent["system"] == "Be brief.\n\nBe kind."
    assert [turn["role"] for turn in sent["messages"]] == ["user"]
    assert "system" not in body(Prompt([Message("system", "\n"), Message("user", "Hi")]))


def test_messages_of_one_side_become_one() -> None:
    """Sides take turns; names have no place."""
    assert messages(
        Message("user", "a", name="ann"),
        Message("user", [Text("b"), PNG]),
        Message("assistant", "c"),
        Message("assistant", "d"),
        Message("user", "e"),
    ) == [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, SENT_PNG]},
        {"role": "assistant", "content": [{"type": "text", "text": "c"}, {"type": "text", "text": "d"}]},
        {"role": "user", "content": "e"},
    ]


def test_a_conversation_with_tools_keeps_its_shape() -> None:
    """Results of parallel calls stand in one message, before what the user says."""
    call = ToolCall("call_1", "get_weather", '{"city": "Paris", "days": 1.0}')
    turns = messages(
        Message("user", "Weather?"),
        Message("assistant", "Let me see.", tool_calls=[call, ToolCall("call_2", "ping", "")]),
        Message("user", "Hurry!"),
        Message("tool", "21 C", tool_call_id="call_1"),
        Message("tool", [Text("see"), PNG], tool_call_id="call_2", is_error=True),
        Message("assistant", "Warm."),
    )
    assert turns[1]["content"] == [
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {"city": "Paris", "days": 1.0}},
        {"type": "tool_use", "id": "call_2", "name": "ping", "input": {}},
    ]
    shown = [{"type": "text", "text": "see"}, SENT_PNG]
    assert turns[2]["content"] == [
        {"type": "tool_result", "tool_use_id": "call_1", "content": "21 C"},
        {"type": "tool_result", "tool_use_id": "call_2", "content": shown, "is_error": True},
        {"type": "text", "text": "Hurry!"},
    ]
    assert len(turns) == 4


def test_blank_texts_are_left_out() -> None:
    """The API refuses them: in parts, as a message, as a tool's result."""
    turns = messages(
        Message("user", [Text("a"), Text(" \n")]),
        Message("assistant", "\n\n", tool_calls=called("f").tool_calls),
        result("f", ""),
        Message("assistant", " "),
        Message("user", "b"),
    )
    assert turns == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "id_f", "name": "f", "input": {}}]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "id_f"}, {"type": "text", "text": "b"}],
        },
    ]


def test_thoughts_go_back_to_whom_they_belong() -> None:
    """Before the text, whole or withheld; what another provider signed, or nobody, stays here."""
    thoughts = [
        Thought("Hm", Signature("anthropic", "c2ln")),
        Thought("", Signature("anthropic", "ZGF0YQ=="), redacted=True),
        Thought("So", Signature("gemini", "c2ln")),
        Thought("So"),
    ]
    (_, turn) = messages(Message("user", "?"), Message("assistant", "Yes", thoughts=thoughts))
    assert turn["content"] == [
        {"type": "thinking", "thinking": "Hm", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "ZGF0YQ=="},
        {"type": "text", "text": "Yes"},
    ]


def test_thoughts_that_led_nowhere_are_left_out() -> None:
    """No turn may end in them, and none may be empty."""
    thought = Thought("Hm", Signature("anthropic", "c2ln"))
    cut_off = Message("assistant", "\n", thoughts=[thought])
    spoken = Message("assistant", "Yes", thoughts=[thought])
    assert messages(Message("user", "a"), cut_off, Message("user", "b")) == messages(
        Message("user", "a"), Message("user", "b")
    )
    (_, turn) = messages(Message("user", "a"), spoken, cut_off)
    assert [block["type"] for block in turn["content"]] == ["thinking", "text"]


def test_thoughts_that_were_refused_are_left_out_of_one_call() -> None:
    """Another account, or another provider of this protocol, has signed them; the next conversation has its own."""
    answer = Message("assistant", "Yes", thoughts=[Thought("Hm", Signature("anthropic", "c2ln"))])
    prompt = Prompt([Message("user", "a"), answer, Message("user", "b")])
    refused = ErrorBody("messages.1.content.0: Invalid `signature` in `thinking` block")
    simpler = wire().without(refused, keep_stream=True)
    assert simpler is not None
    assert sent_by(wire(), prompt)["messages"][1]["content"][0]["type"] == "thinking"
    assert sent_by(simpler, prompt)["messages"][1] == {"role": "assistant", "content": "Yes"}
    assert simpler.without(refused, keep_stream=False) is None
    assert simpler.lasting() == wire()


def test_an_answer_that_is_begun_does_not_end_in_white_space() -> None:
    """It would be refused, at the conversation's end and nowhere else."""
    begun = Message("assistant", [Text("One: "), Text("two: \n")])
    assert messages(Message("user", "a"), begun)[1]["content"][1]["text"] == "two:"
    assert messages(Message("user", "a"), begun)[1]["content"][0]["text"] == "One: "
    assert messages(Message("user", "a"), Message("assistant", "so "), Message("user", "b "))[1:] == [
        {"role": "assistant", "content": "so "},
        {"role": "user", "content": "b "},
    ]


def test_arguments_go_back_as_the_model_wrote_them() -> None:
    """To the digit."""
    arguments = '{"a": 1.0, "b": 123456789012345678901234567890}'
    prompt = Prompt([Message("user", "?"), called("f", arguments=arguments)])
    raw = request_body(prompt, model="primary", upstream_model="up-1", stream=True, extra={})
    assert f'"input":{arguments}'.encode() in raw


@pytest.mark.parametrize("arguments", ['{"a": ', "[1]", "null", "x", "[" * 100_000, '{"a": NaN}'])
def test_arguments_that_are_no_object_go_back_wrapped(arguments: str) -> None:
    """The model wrote them, and has to see that."""
    (_, turn) = messages(Message("user", "?"), called("f", arguments=arguments))
    assert turn["content"][0]["input"] == {"INVALID_JSON": arguments}


def test_arguments_that_are_no_unicode_are_refused_unsent() -> None:
    """Half of a character cannot be sent, wrapped or not."""
    with pytest.raises(SerializationError, match="primary"):
        messages(Message("user", "?"), called("f", arguments='{"a": "\ud83d"}'))


def test_ids_of_other_providers_are_put_into_its_letters() -> None:
    """Of the call and of its result alike."""
    call = ToolCall("functions.get:0", "get", "{}")
    turns = messages(
        Message("user", "?"), Message("assistant", tool_calls=[call]), Message("tool", "x", tool_call_id=call.id)
    )
    assert turns[1]["content"][0]["id"] == turns[2]["content"][0]["tool_use_id"] == "functions_get_0"


def test_an_id_that_comes_again_is_another_one() -> None:
    """Who has no ids counts from zero in each answer; each result goes to the call before it."""
    conversation = [Message("user", "?")]
    for call_id in ("call.0", "call_0", "call_0", "call_0_2"):
        call = ToolCall(call_id, "get", "{}")
        conversation += [Message("assistant", tool_calls=[call]), Message("tool", "x", tool_call_id=call_id)]
    turns = messages(*conversation)
    ids = [turn["content"][0]["id"] for turn in turns[1::2]]
    assert ids == [turn["content"][0]["tool_use_id"] for turn in turns[2::2]]
    assert ids[0] == "call_0"
    assert len(set(ids)) == 4


def test_calls_of_one_message_with_the_same_id_are_told_apart() -> None:
    """The first result is the first call's."""
    calls = [ToolCall("c1", "f", "{}"), ToolCall("c1", "g", "{}")]
    results = [Message("tool", text, tool_call_id="c1") for text in ("of f", "of g")]
    (_, asked, answered) = messages(Message("user", "?"), Message("assistant", tool_calls=calls), *results)
    names = {block["id"]: block["name"] for block in asked["content"]}
    assert [(names[block["tool_use_id"]], block["content"]) for block in answered["content"]] == [
        ("f", "of f"),
        ("g", "of g"),
    ]


# -- images ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "source"),
    [
        (Image(url="https://x.test/a.png"), {"type": "url", "url": "https://x.test/a.png"}),
        (PNG, SENT_PNG["source"]),
        (Image(url="data:image/png;base64,AP8="), SENT_PNG["source"]),
        (Image(url="DATA:Image/PNG;name=a;BASE64,AP8%3D"), SENT_PNG["source"]),
        (Image(url="data:image/png,%00%FF"), SENT_PNG["source"]),
        (
            Image(data=b"\x00\xff", media_type="image/jpg"),
            {"type": "base64", "media_type": "image/jpeg", "data": "AP8="},
        ),
    ],
)
def test_images_are_sent_by_url_or_as_base64(image: Image, source: object) -> None:
    """A data: URL is no URL to the API."""
    assert messages(Message("user", [image])) == [{"role": "user", "content": [{"type": "image", "source": source}]}]


def test_an_address_that_only_google_reads_is_refused_unsent() -> None:
    """It names the model, and what to give instead."""
    with pytest.raises(UnsupportedError, match=r"primary: .*gs://.*data"):
        messages(Message("user", [Image(url="gs://bucket/a.png")]))


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_an_image_elsewhere_is_refused_unsent(role: str) -> None:
    """The protocol has no place for it."""
    with pytest.raises(UnsupportedError) as caught:
        messages(Message("user", "x"), Message(role, [Text("see"), PNG]))
    assert caught.value.model == "primary"
    assert role in caught.value.feature


# -- tools -------------------------------------------------------------------------------------------


def test_tools_are_offered_with_a_schema() -> None:
    """Of an object at least: the API demands one."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    assert body(Prompt("x", tools=[Tool("get", "Get it", schema, strict=True), Tool("ping")]))["tools"] == [
        {
            "name": "get",
            "description": "Get it",
            "input_schema": {**schema, "additionalProperties": False},
            "strict": True,
        },
        {"name": "ping", "input_schema": {"type": "object"}},
    ]


def test_a_tool_is_strict_where_its_schema_lets_it() -> None:
    """What the API would refuse as strict is offered as it is, without a guarantee."""
    schema = {"type": "object", "properties": {"where": {"type": "object"}, "n": {"type": "integer", "minimum": 1}}}
    [tool] = body(Prompt("x", tools=[Tool("get", "", schema, strict=True)]))["tools"]
    assert tool == {"name": "get", "input_schema": schema}


def test_tools_that_were_called_are_declared_where_none_are_offered() -> None:
    """The API refuses calls without; none of them is to be called any more."""
    conversation = [Message("user", "?"), called("f", "g"), result("f"), result("g"), called("f"), result("f")]
    sent = body(Prompt(conversation))
    assert sent["tools"] == [{"name": name, "input_schema": {"type": "object"}} for name in ("f", "g")]
    assert sent["tool_choice"] == {"type": "none"}
    offered = body(Prompt(conversation, tools=[Tool("h")]))
    assert ([tool["name"] for tool in offered["tools"]], "tool_choice" in offered) == (["h"], False)
    own = body(Prompt(conversation), tools=[{"type": "web_search_20250305", "name": "web_search"}])
    assert (len(own["tools"]), "tool_choice" in own) == (1, False)
    assert not {"tools", "tool_choice"} & body(Prompt("x")).keys()


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ("get", {"type": "tool", "name": "get"}),
    ],
)
def test_a_tool_choice_is_a_word_or_a_name(choice: str, sent: object) -> None:
    """In the protocol's own words."""
    assert body(Prompt("x", tools=[Tool("get")], tool_choice=choice))["tool_choice"] == sent


# -- what refusals teach -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "refused", [ErrorBody("stream: Extra inputs are not permitted"), ErrorBody("bad", param="stream")]
)
def test_a_refused_stream_is_left_out(refused: ErrorBody) -> None:
    """Once, and not where the configuration insists on it."""
    simpler = wire().without(refused, keep_stream=False)
    assert simpler is not None
    assert not simpler.streams
    assert simpler.without(refused, keep_stream=False) is None
    assert wire().without(refused, keep_stream=True) is None


def test_another_refusal_teaches_nothing() -> None:
    """There is nothing else that could go."""
    assert wire().without(ErrorBody("max_tokens: too large"), keep_stream=False) is None
