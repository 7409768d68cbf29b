"""Prompts as bodies for the Responses API, and what refusals teach of it."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from attrs import evolve

from tests.recordings import recorded
from tests.responses_api import check_request, meaning, prompt_of
from wizard_actors.errors import SerializationError, UnsupportedError
from wizard_actors.providers.base import Call
from wizard_actors.providers.http_provider import HttpSettings
from wizard_actors.providers.refusals import ErrorBody
from wizard_actors.providers.responses_request import ResponsesWire
from wizard_actors.types import Content, Image, Message, Prompt, Signature, Text, Thought, Tool, ToolCall

URL = httpx.URL("https://up.test/v1/responses")
WIRE = ResponsesWire(name="primary", model="up-1", url=URL, extra={})
UNPROVED = evolve(WIRE, proves=False)
UNARY = evolve(WIRE, streams=False)
THOUGHTLESS = evolve(WIRE, thoughts=False)
PROOF = ["reasoning.encrypted_content"]


def body(prompt: Prompt, wire: ResponsesWire = WIRE) -> dict[str, object]:
    """Return the body for a prompt, decoded."""
    sent: dict[str, object] = json.loads(wire.request(Call(prompt, "1")).body)
    check_request(sent)
    return sent


def test_a_plain_prompt_asks_for_a_stream_that_nobody_keeps() -> None:
    """And for reasoning in a form that can be sent back; for nothing else that the prompt does not say."""
    assert WIRE.request(Call(Prompt("x"), "1")).url == URL
    assert body(Prompt("Why?", system="Be brief")) == {
        "model": "up-1",
        "instructions": "Be brief",
        "input": [{"role": "user", "content": "Why?"}],
        "store": False,
        "include": PROOF,
        "stream": True,
    }


def test_all_parameters_are_sent() -> None:
    """Zeros too; the configured `max_tokens` where the prompt has none."""
    prompt = Prompt("x", temperature=0.0, top_p=0.5, max_tokens=19)
    sent = body(prompt)
    assert (sent["temperature"], sent["top_p"], sent["max_output_tokens"]) == (0.0, 0.5, 19)
    assert body(Prompt("x"), evolve(WIRE, max_tokens=77))["max_output_tokens"] == 77
    assert body(prompt, evolve(WIRE, max_tokens=77))["max_output_tokens"] == 19


@pytest.mark.parametrize(("feature", "prompt"), [("stop", Prompt("x", stop=["a"])), ("seed", Prompt("x", seed=0))])
def test_what_the_protocol_has_no_place_for_is_refused_unsent(feature: str, prompt: Prompt) -> None:
    """Instead of being forgotten."""
    with pytest.raises(UnsupportedError) as caught:
        body(prompt)
    assert (caught.value.feature, caught.value.model) == (feature, "primary")


def test_extra_overrules_the_rest_and_the_prompt_overrules_the_model() -> None:
    """Also what is sent without being asked for."""
    wire = evolve(WIRE, extra={"temperature": 0.5, "top_p": 0.1, "store": True, "include": []})
    sent = body(Prompt("x", temperature=1.0, extra={"top_p": 0.3, "reasoning": {"effort": "low"}}), wire)
    assert (sent["temperature"], sent["top_p"], sent["reasoning"]) == (0.5, 0.3, {"effort": "low"})
    assert (sent["store"], sent["include"]) == (True, [])


def test_a_wish_about_the_text_leaves_the_schema_in_force() -> None:
    """Both stand in one field of the protocol."""
    schema = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    sent = body(Prompt("x", response_schema=schema, extra={"text": {"verbosity": "low"}}))
    wanted = {"type": "json_schema", "name": "answer", "schema": schema, "strict": True}
    assert sent["text"] == {"format": wanted, "verbosity": "low"}
    other = {"format": {"type": "text"}}
    assert body(Prompt("x", response_schema=schema, extra={"text": other}))["text"] == other
    assert body(Prompt("x", extra={"text": {"verbosity": "low"}}))["text"] == {"verbosity": "low"}


def test_a_conversation_becomes_items() -> None:
    """What the model thought, said and called in that order, its results, and the system's words where they stand."""
    ours = Thought("Hm.", Signature("responses", "sealed"), id="rs_9")
    prompt = Prompt(
        [
            Message("user", "Weather?", name="ann"),
            Message("system", "Be kind"),
            Message("assistant", "Let me see.", tool_calls=[ToolCall("call_1", "get", '{"a":1}')], thoughts=[ours]),
            Message("tool", "21 C", tool_call_id="call_1", is_error=True),
            Message("assistant", [Text("Wa"), Text("rm.")]),
            Message("user", "Thanks"),
        ]
    )
    summary = [{"type": "summary_text", "text": "Hm."}]
    assert body(prompt)["input"] == [
        {"role": "user", "content": "Weather?"},
        {"role": "system", "content": "Be kind"},
        {"type": "reasoning", "id": "rs_9", "summary": summary, "encrypted_content": "sealed"},
        {"role": "assistant", "content": "Let me see."},
        {"type": "function_call", "call_id": "call_1", "name": "get", "arguments": '{"a":1}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "21 C"},
        {"role": "assistant", "content": "Warm."},
        {"role": "user", "content": "Thanks"},
    ]


def test_only_reasoning_that_this_protocol_has_proved_is_sent_back() -> None:
    """With an id of its own, where it has lost the one that it had."""
    signatures = [Signature("anthropic", "a"), None, Signature("responses", "b"), Signature("responses", "c")]
    thoughts = [Thought("" if sealed and sealed.value == "b" else "Hm", sealed) for sealed in signatures]
    sent = body(Prompt([Message("user", "x"), Message("assistant", "y", thoughts=thoughts), Message("user", "z")]))
    assert isinstance(sent["input"], list)
    items = [item for item in sent["input"] if item.get("type") == "reasoning"]
    assert [(item["encrypted_content"], len(item["summary"])) for item in items] == [("b", 0), ("c", 1)]
    assert len({item["id"] for item in items}) == 2


@pytest.mark.parametrize("wire", [UNPROVED, THOUGHTLESS])
def test_a_model_that_takes_no_reasoning_is_sent_none(wire: ResponsesWire) -> None:
    """Neither one that never reasons, nor one that has refused it."""
    thought = Thought("Hm", Signature("responses", "sealed"))
    answer = Message("assistant", "y", thoughts=[thought], tool_calls=[ToolCall("1", "get", "{}")])
    conversation = [Message("user", "x"), answer, Message("tool", "z", tool_call_id="1")]
    sent = body(Prompt(conversation), wire)["input"]
    assert isinstance(sent, list)
    assert [item.get("type", item.get("role")) for item in sent] == [
        "user",
        "assistant",
        "function_call",
        "function_call_output",
    ]


@pytest.mark.parametrize("content", ["", [Text("")]])
def test_reasoning_that_led_nowhere_is_left_out(content: Content) -> None:
    """An item of reasoning has to be followed by what came of it."""
    thought = Thought("Hm", Signature("responses", "sealed"))
    cut_off = Message("assistant", content, thoughts=[thought])
    sent = body(Prompt([Message("user", "x"), cut_off, Message("user", "z")]))["input"]
    assert sent == [{"role": "user", "content": "x"}, {"role": "user", "content": "z"}]


@pytest.mark.parametrize(("length", "kept"), [(64, True), (65, False)])
def test_ids_of_tool_calls_are_rewritten_where_they_are_too_long(length: int, kept: bool) -> None:
    """Call and result still belong together."""
    call_id = "c" * length
    calling = Message("assistant", tool_calls=[ToolCall(call_id, "get", "{}")])
    sent = body(Prompt([Message("user", "x"), calling, Message("tool", "1", tool_call_id=call_id)]))["input"]
    assert isinstance(sent, list)
    assert sent[1]["call_id"] == sent[2]["call_id"]
    assert (sent[1]["call_id"] == call_id) is kept
    assert len(sent[1]["call_id"]) <= 64


def test_images_are_shown_by_users_and_tools() -> None:
    """By URL, or as data."""
    parts: list[Text | Image] = [Text("What?"), Image(url="https://x.test/a.png")]
    parts.append(Image(data=b"\x00\xff", media_type="image/png"))
    prompt = Prompt(
        [
            Message("user", parts),
            Message("assistant", tool_calls=[ToolCall("1", "look", "{}")]),
            Message("tool", parts, tool_call_id="1"),
        ]
    )
    shown = [
        {"type": "input_text", "text": "What?"},
        {"type": "input_image", "image_url": "https://x.test/a.png", "detail": "auto"},
        {"type": "input_image", "image_url": "data:image/png;base64,AP8=", "detail": "auto"},
    ]
    sent = body(prompt)["input"]
    assert isinstance(sent, list)
    assert (sent[0]["content"], sent[2]["output"]) == (shown, shown)


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_an_image_elsewhere_is_refused_unsent(role: str) -> None:
    """The protocol has no place for it."""
    picture = Message(role, [Text("see"), Image(url="https://x.test/a.png")])
    with pytest.raises(UnsupportedError) as caught:
        body(Prompt([Message("user", "x"), picture, Message("user", "y")]))
    assert caught.value.model == "primary"


def test_a_schema_without_end_is_refused_unsent() -> None:
    """One that holds itself cannot be written down."""
    endless: dict[str, object] = {"type": "object", "additionalProperties": False, "required": ["a"]}
    endless["properties"] = {"a": endless}
    with pytest.raises(SerializationError):
        body(Prompt("x", response_schema=endless))


def test_tools_say_whether_they_are_strict() -> None:
    """Null leaves it to the API, which makes strict what it can; what is called strict and is not would be refused."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    strict = {**schema, "required": ["city"], "additionalProperties": False}
    tools = [Tool("get", "Get it", strict, strict=True), Tool("open", "", schema, strict=True), Tool("ping")]
    assert body(Prompt("x", tools=tools))["tools"] == [
        {"type": "function", "name": "get", "description": "Get it", "parameters": strict, "strict": True},
        {"type": "function", "name": "open", "parameters": schema, "strict": None},
        {"type": "function", "name": "ping", "parameters": {"type": "object", "properties": {}}, "strict": False},
    ]


@pytest.mark.parametrize(
    ("choice", "sent"),
    [("auto", "auto"), ("none", "none"), ("required", "required"), ("get", {"type": "function", "name": "get"})],
)
def test_a_tool_choice_is_a_word_or_a_name(choice: str, sent: object) -> None:
    """Any other word than the protocol's three is a tool's name."""
    assert body(Prompt("x", tools=[Tool("get")], tool_choice=choice))["tool_choice"] == sent


@pytest.mark.parametrize("value", [object(), {1j}, "\ud800"])
def test_what_json_cannot_hold_is_refused_unsent(value: object) -> None:
    """With the places to look at."""
    with pytest.raises(SerializationError, match=r"primary.*extra"):
        body(Prompt("x", extra={"odd": value}))


# -- dialects ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        ("gpt-5-mini", True),
        ("o4-mini", True),
        ("my-deployment", True),
        ("openai/gpt-oss-20b", True),
        ("gpt-4o", False),
        ("gpt-4.1-nano", False),
        ("openai/gpt-4o-mini", False),
        ("chatgpt-4o-latest", False),
    ],
)
def test_models_that_never_reason_are_not_asked_for_their_reasoning(model: str, asked: bool) -> None:
    """They would refuse; of any other the first refusal tells."""
    wire = ResponsesWire.of(HttpSettings(name="m", model=model, base_url="https://up.test/v1"), URL)
    assert ("include" in body(Prompt("x"), wire)) is asked
    assert wire.streams


def test_what_is_to_be_unary_is_not_streamed() -> None:
    """As configured."""
    settings = HttpSettings(name="m", model="o3", base_url="https://up.test/v1", upstream="unary")
    assert "stream" not in body(Prompt("x"), ResponsesWire.of(settings, URL))


@pytest.mark.parametrize(
    ("refused", "left"),
    [
        (ErrorBody("Encrypted content is not supported with this model.", param="include"), UNPROVED),
        (ErrorBody("Encrypted content is not supported with this model."), UNPROVED),
        (ErrorBody("Unknown parameter: 'include'."), UNPROVED),
        (ErrorBody("Extra inputs are not permitted", param="include.0"), UNPROVED),
        (ErrorBody("This model does not support streaming."), UNARY),
        (ErrorBody("Unsupported value", param="stream"), UNARY),
        (ErrorBody("Your organization must be verified to stream this model.", param="stream"), UNARY),
        (ErrorBody("'input' must include the word 'json'", param="input"), None),
        (ErrorBody("The encrypted content gAAA could not be verified."), THOUGHTLESS),
        (ErrorBody("Invalid request", codes=("invalid_encrypted_content",)), THOUGHTLESS),
        (ErrorBody("bad temperature", param="temperature"), None),
    ],
)
def test_a_refused_field_is_left_out(refused: ErrorBody, left: ResponsesWire | None) -> None:
    """By the parameter that is blamed, or by the message that names it."""
    assert WIRE.without(refused, keep_stream=False) == left


def test_no_field_is_left_out_twice() -> None:
    """And no stream that the configuration insists on."""
    include, stream = ErrorBody(param="include"), ErrorBody(param="stream")
    assert UNPROVED.without(include, keep_stream=False) is None
    assert UNARY.without(stream, keep_stream=False) is None
    assert WIRE.without(stream, keep_stream=True) is None
    assert WIRE.without(include, keep_stream=True) == UNPROVED
    sealed = ErrorBody(codes=("invalid_encrypted_content",))
    assert THOUGHTLESS.without(sealed, keep_stream=False) is None


def test_reasoning_is_left_out_of_one_conversation_only() -> None:
    """That of another may be the provider's own; what else was learned stays."""
    assert evolve(THOUGHTLESS, streams=False).lasting() == UNARY


# -- recorded traffic --------------------------------------------------------------------------------

OURS = ("store", "include")
"""What is kept, and in what form reasoning is carried on, is not the prompt's to say."""


def test_all_recorded_requests_can_be_made_again(recordings: Path, report_line: Callable[[str], None]) -> None:
    """In meaning: most by a prompt's own fields, all with `extra`; and each as the API describes it."""
    total = by_fields = with_extra = 0
    for recording in recorded(recordings, "openai-responses"):
        prompt, rest = prompt_of(recording.request)
        wire = evolve(
            WIRE, model=str(recording.request["model"]), streams=bool(recording.request.get("stream")), proves=False
        )
        wanted = meaning(recording.request)
        made, all_of_it = (
            meaning(body(asked, wire)) for asked in (prompt, evolve(prompt, extra={"store": True, **rest}))
        )
        total += 1
        by_fields += without_ours(made) == without_ours(wanted)
        with_extra += all_of_it == wanted
    report_line(f"Responses requests made again: {by_fields} of {total} by fields alone, {with_extra} with `extra`")
    assert total >= 142
    assert with_extra == total
    assert by_fields / total >= 0.7


def without_ours(request: dict[str, object]) -> dict[str, object]:
    """Return a request without what is not the prompt's to say."""
    return {name: value for name, value in request.items() if name not in OURS}
