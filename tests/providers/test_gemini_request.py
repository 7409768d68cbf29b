"""Prompts as Gemini's bodies, and the addresses that they go to."""

import json
from random import Random
from typing import Any

import pytest
from attrs import evolve

from tests.providers.gemini_wire import check_request
from wizard_actors.config import Upstream
from wizard_actors.errors import ConfigError, SerializationError, UnsupportedError
from wizard_actors.providers.base import Call
from wizard_actors.providers.gemini_chunks import MADE_UP
from wizard_actors.providers.gemini_request import GeminiDialect, GeminiWire, request_body
from wizard_actors.providers.http_provider import HttpSettings
from wizard_actors.providers.refusals import ErrorBody, Head
from wizard_actors.types import (
    Image,
    Message,
    ModelEvent,
    Prompt,
    Signature,
    Text,
    Thought,
    Tool,
    ToolCall,
    ToolCallDelta,
)


def body(prompt: Prompt, dialect: GeminiDialect | None = None, **extra: object) -> dict[str, Any]:
    """Return the body for a prompt, decoded; Google's own description and SDK know all of it."""
    raw = request_body(prompt, model="primary", dialect=dialect or GeminiDialect(), extra=extra)
    check_request(raw)
    sent: dict[str, Any] = json.loads(raw)
    return sent


def turns(*messages: Message, dialect: GeminiDialect | None = None) -> list[dict[str, Any]]:
    """Return the conversation as it is sent."""
    contents: list[dict[str, Any]] = body(Prompt(messages), dialect)["contents"]
    return contents


def call(call_id: str, name: str = "get_weather", arguments: str = "{}", signed: str | None = None) -> ToolCall:
    """Return a tool call."""
    return ToolCall(call_id, name, arguments, None if signed is None else Signature("gemini", signed))


def result(call_id: str, content: str = "21 C", **fields: object) -> Message:
    """Return a tool's result."""
    return Message("tool", content, tool_call_id=call_id, **fields)  # type: ignore[arg-type]  # its own fields


# -- where it goes -----------------------------------------------------------------------------------

GOOGLE = "https://generativelanguage.googleapis.com"
VERTEX = "https://eu-aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/google"


@pytest.mark.parametrize(
    ("base_url", "model", "path"),
    [
        (GOOGLE, "m", f"{GOOGLE}/v1beta/models/m"),
        (f"{GOOGLE}/", "models/m", f"{GOOGLE}/v1beta/models/m"),
        (f"{GOOGLE}/v1beta", "m", f"{GOOGLE}/v1beta/models/m"),
        (f"{GOOGLE}/v1", "models/m", f"{GOOGLE}/v1/models/m"),
        (GOOGLE, "tunedModels/m", f"{GOOGLE}/v1beta/tunedModels/m"),
        ("http://127.0.0.1:8123/gemini", "m", "http://127.0.0.1:8123/gemini/v1beta/models/m"),
        (f"{VERTEX}/models", "models/m", f"{VERTEX}/models/m"),
        (VERTEX, "m", f"{VERTEX}/models/m"),
        ("https://proxy.test/all/models", "m", "https://proxy.test/all/models/m"),
        (GOOGLE, "a b?c#d", f"{GOOGLE}/v1beta/models/a%20b%3Fc%23d"),
    ],
)
def test_the_address_is_made_of_the_base_url_and_the_model(base_url: str, model: str, path: str) -> None:
    """With the version or without it, Google's own or Vertex AI's, a proxy's; a model's name with its folder or not."""
    assert address(base_url, model, "unary") == f"{path}:generateContent"
    assert address(base_url, model, "auto") == f"{path}:streamGenerateContent?alt=sse"


def address(base_url: str, model: str, upstream: Upstream) -> str:
    """Return where a request goes."""
    return str(wire(base_url, model, upstream).request(Call(Prompt("x"), "1")).url)


def wire(base_url: str = GOOGLE, model: str = "m", upstream: Upstream = "auto", **settings: object) -> GeminiWire:
    """Return the protocol for a model."""
    plain = HttpSettings(name="primary", model=model, base_url=base_url, upstream=upstream, **settings)  # type: ignore[arg-type]  # its own fields
    return GeminiWire.of(plain, Random(1))


def test_a_query_of_the_base_url_stays() -> None:
    """A proxy may want one."""
    assert address("https://proxy.test?team=a", "m", "auto").endswith("?team=a&alt=sse")


def test_a_base_url_that_is_none_is_a_mistake_in_the_configuration() -> None:
    """Found when the client is opened."""
    with pytest.raises(ConfigError, match="base_url"):
        wire("ftp://x.test")


def test_no_field_can_be_given_up() -> None:
    """Whether a stream comes back is said by the address."""
    assert wire().streams
    assert not wire(upstream="unary").streams
    assert wire().without(ErrorBody("no streams, please", param="stream"), keep_stream=False) is None


def test_ids_that_are_made_up_differ_from_answer_to_answer() -> None:
    """One conversation may hold many of them, and go to a provider that insists on it."""
    one = wire()
    chunk = {"candidates": [{"content": {"parts": [{"functionCall": {"name": "f"}}, {"functionCall": {"name": "f"}}]}}]}
    ids: set[str] = set()
    for _ in range(3):
        events: list[ModelEvent] = []
        one.reader(Head("primary")).read(chunk, events)
        ids |= {event.id or "" for event in events if isinstance(event, ToolCallDelta)}
    assert len(ids) == 6
    assert all(each.startswith(MADE_UP) and len(each) <= 40 for each in ids)


# -- plain prompts -----------------------------------------------------------------------------------


def test_a_plain_prompt_says_nothing_else() -> None:
    """Neither parameters nor tools that nobody asked for."""
    assert body(Prompt("Why?")) == {"contents": [{"role": "user", "parts": [{"text": "Why?"}]}]}


def test_system_messages_stand_apart_in_their_order() -> None:
    """Wherever they stood."""
    prompt = Prompt(
        [Message("system", "B"), Message("user", "?"), Message("system", [Text("C"), Text("D")])], system="A"
    )
    sent = body(prompt)
    assert sent["systemInstruction"] == {"parts": [{"text": text} for text in "ABCD"]}
    assert sent["contents"] == [{"role": "user", "parts": [{"text": "?"}]}]
    assert "systemInstruction" not in body(Prompt([Message("system", ""), Message("user", "?")]))


def test_all_parameters_are_sent() -> None:
    """Zeros too, in Gemini's words."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    prompt = Prompt("x", temperature=0.0, top_p=0.5, max_tokens=9, stop=["a", "b"], seed=0, response_schema=schema)
    assert body(prompt)["generationConfig"] == {
        "temperature": 0.0,
        "topP": 0.5,
        "maxOutputTokens": 9,
        "stopSequences": ["a", "b"],
        "seed": 0,
        "responseMimeType": "application/json",
        "responseJsonSchema": schema,
    }


def test_a_schema_is_sent_in_the_form_that_the_api_takes() -> None:
    """What refers to itself may not be required there; what has no end cannot be written down."""
    node = {"type": "object", "properties": {"a": {"type": "string"}, "next": {"$ref": "#"}}, "required": ["a", "next"]}
    sent = body(Prompt("x", response_schema=node))["generationConfig"]["responseJsonSchema"]
    assert sent == {**node, "required": ["a"]}

    endless: dict[str, object] = {"type": "array"}
    endless["items"] = endless
    with pytest.raises(SerializationError):
        body(Prompt("x", response_schema=endless))


def test_the_models_bound_holds_where_a_prompt_has_none() -> None:
    """`max_tokens` of the configuration."""
    bounded = wire(max_tokens=7)
    sent = [json.loads(bounded.request(Call(prompt, "1")).body) for prompt in (Prompt("x"), Prompt("x", max_tokens=9))]
    assert [each["generationConfig"]["maxOutputTokens"] for each in sent] == [7, 9]


def test_extra_overrules_and_the_generation_config_is_merged_key_by_key() -> None:
    """In this order: what the prompt says, the model's `extra`, the prompt's `extra`."""
    thinking = {"includeThoughts": True}
    prompt = Prompt("x", temperature=1.0, top_p=0.5, extra={"generationConfig": {"topP": 0.9}, "cachedContent": "c/1"})
    sent = body(prompt, generationConfig={"topP": 0.7, "thinkingConfig": thinking}, cachedContent="c/0", store=False)
    assert sent["generationConfig"] == {"temperature": 1.0, "topP": 0.9, "thinkingConfig": thinking}
    assert (sent["cachedContent"], sent["store"]) == ("c/1", False)
    assert body(Prompt("x"), generationConfig={"topK": 3})["generationConfig"] == {"topK": 3}


def test_what_is_no_json_says_where_to_look() -> None:
    """And about which model."""
    with pytest.raises(SerializationError, match=r"primary: .*extra"):
        body(Prompt("x"), what=object())


def test_pictures_are_sent_in_place_or_named() -> None:
    """Bytes and data: URLs in place, other addresses by name, with their kind where it is known."""
    pictures = [
        Image(data=b"\x00\xff", media_type="image/png"),
        Image("data:image/gif;base64,AP8="),
        Image("data:image/gif;base64,AP8%3D"),
        Image("DATA:image/svg+xml,%3Csvg%3E"),
        Image("https://x.test/a.png"),
        Image("gs://bucket/a", media_type="image/jpeg"),
    ]
    (turn,) = turns(Message("user", [Text("What?"), *pictures]))
    assert turn["parts"] == [
        {"text": "What?"},
        {"inlineData": {"mimeType": "image/png", "data": "AP8="}},
        {"inlineData": {"mimeType": "image/gif", "data": "AP8="}},
        {"inlineData": {"mimeType": "image/gif", "data": "AP8="}},
        {"inlineData": {"mimeType": "image/svg+xml", "data": "PHN2Zz4="}},
        {"fileData": {"fileUri": "https://x.test/a.png"}},
        {"fileData": {"fileUri": "gs://bucket/a", "mimeType": "image/jpeg"}},
    ]


def test_a_picture_that_cannot_be_sent_is_refused() -> None:
    """In the system's text there is no place for one."""
    with pytest.raises(UnsupportedError, match="primary: an image"):
        body(Prompt([Message("system", [Image("https://x.test/a.png")]), Message("user", "?")]))


def test_nothing_empty_is_said() -> None:
    """A turn without parts would be refused; what the user says is for Google to judge."""
    assert turns(Message("user", "?"), Message("assistant", ""), Message("user", [Text(""), Text("!")])) == [
        {"role": "user", "parts": [{"text": "?"}]},
        {"role": "user", "parts": [{"text": "!"}]},
    ]
    assert turns(Message("assistant", "Hm"), Message("user", "")) == [
        {"role": "model", "parts": [{"text": "Hm"}]},
        {"role": "user", "parts": [{"text": ""}]},
    ]


# -- tools -------------------------------------------------------------------------------------------


def test_tools_are_declared_with_their_json_schema() -> None:
    """An empty description and a tool without arguments leave fields out."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "additionalProperties": False}
    sent = body(Prompt("x", tools=[Tool("a", "does a", schema, strict=True), Tool("b")]))
    declared = [{"name": "a", "description": "does a", "parametersJsonSchema": schema}, {"name": "b"}]
    assert sent["tools"] == [{"functionDeclarations": declared}]
    assert "toolConfig" not in sent


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ("b", {"mode": "ANY", "allowedFunctionNames": ["b"]}),
    ],
)
def test_the_choice_of_tools_is_said_in_modes(choice: str, config: dict[str, object]) -> None:
    """A tool's name is the only one allowed, and has to be called."""
    sent = body(Prompt("x", tools=[Tool("a"), Tool("b")], tool_choice=choice))
    assert sent["toolConfig"] == {"functionCallingConfig": config}


def test_a_round_of_tools_keeps_its_shape() -> None:
    """The results of one message's calls are one turn, in the order of the calls, each under its tool's name."""
    sent = turns(
        Message("user", "Weather?"),
        Message(
            "assistant", "Let me see.", tool_calls=[call("1", "get_weather", '{"city": "Paris"}'), call("2", "time")]
        ),
        result("2", '{"hour": 9}'),
        result("1"),
        Message("assistant", "Warm."),
    )
    assert sent == [
        {"role": "user", "parts": [{"text": "Weather?"}]},
        {
            "role": "model",
            "parts": [
                {"text": "Let me see."},
                {"functionCall": {"name": "get_weather", "args": {"city": "Paris"}, "id": "1"}},
                {"functionCall": {"name": "time", "args": {}, "id": "2"}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "get_weather", "response": {"result": "21 C"}, "id": "1"}},
                {"functionResponse": {"name": "time", "response": {"hour": 9}, "id": "2"}},
            ],
        },
        {"role": "model", "parts": [{"text": "Warm."}]},
    ]


@pytest.mark.parametrize(
    ("content", "is_error", "response"),
    [
        ("21 C", False, {"result": "21 C"}),
        ("", False, {"result": ""}),
        ("[1]", False, {"result": "[1]"}),
        ("17", False, {"result": "17"}),
        ("{broken", False, {"result": "{broken"}),
        ("{" * 5000, False, {"result": "{" * 5000}),
        (' {"a": 1}', False, {"a": 1}),
        ("no such city", True, {"error": "no such city"}),
        ('{"a": 1}', True, {"error": {"a": 1}}),
    ],
)
def test_a_result_is_an_object(content: str, is_error: bool, response: object) -> None:
    """Objects as they are, any other text as the result or the error."""
    sent = turns(Message("assistant", tool_calls=[call("1")]), result("1", content, is_error=is_error))
    assert sent[1]["parts"][0]["functionResponse"]["response"] == response


@pytest.mark.parametrize(
    ("arguments", "args"),
    [("", {}), (" ", {}), ('{"a":1}', {"a": 1}), ("[1]", {"arguments": "[1]"}), ('{"a', {"arguments": '{"a'})],
)
def test_arguments_are_an_object(arguments: str, args: object) -> None:
    """What another model has spoiled is told as it is: the conversation can go on."""
    sent = turns(Message("user", "?"), Message("assistant", tool_calls=[call("1", arguments=arguments)]))
    assert sent[1]["parts"][0]["functionCall"]["args"] == args


def test_made_up_ids_are_not_sent_back() -> None:
    """Gemini gave none: it tells results by their names and their order, which are the calls' whatever came first."""
    one, two = f"{MADE_UP}0_0", f"{MADE_UP}0_1"
    sent = turns(Message("assistant", tool_calls=[call(one), call(two)]), result(two, "second"), result(one, "first"))
    assert "id" not in json.dumps(sent)
    results = [part["functionResponse"]["response"]["result"] for part in sent[1]["parts"]]
    assert results == ["first", "second"]
    sent = turns(
        *(Message("assistant", tool_calls=[call(each)]) for each in (one, two)), result(two, "2"), result(one, "1")
    )
    assert [part["functionResponse"]["response"]["result"] for part in sent[2]["parts"]] == ["1", "2"]


def test_vertex_is_sent_no_ids() -> None:
    """It has no field for them."""
    vertex = wire(VERTEX)
    prompt = Prompt([Message("assistant", tool_calls=[call("1")]), result("1")])
    assert b'"id"' not in vertex.request(Call(prompt, "1")).body
    assert b'"id"' in wire().request(Call(prompt, "1")).body


def test_a_result_belongs_to_the_latest_call_of_its_id() -> None:
    """Some upstreams count their calls anew in each answer."""
    sent = turns(
        Message("assistant", tool_calls=[call("call_0", "a")]),
        result("call_0", "1"),
        Message("assistant", tool_calls=[call("call_0", "b")]),
        result("call_0", "2"),
    )
    names = [sent[turn]["parts"][0]["functionResponse"]["name"] for turn in (1, 3)]
    assert names == ["a", "b"]


def test_calls_of_one_message_with_the_same_id_are_told_apart() -> None:
    """The first result is the first call's."""
    calls = Message("assistant", tool_calls=[call("c1", "a"), call("c1", "b")])
    sent = turns(Message("user", "?"), calls, result("c1", "of a"), result("c1", "of b"))
    answers = [part["functionResponse"] for part in sent[2]["parts"]]
    assert [(each["name"], each["response"]["result"]) for each in answers] == [("a", "of a"), ("b", "of b")]


def test_a_result_without_its_call_needs_a_name() -> None:
    """Its own name does; without any the prompt is for a provider that keeps the conversation."""
    elsewhere = {"previous_response_id": "resp_1"}
    named = request_body(
        Prompt([result("7", name="time")], extra=elsewhere), model="primary", dialect=GeminiDialect(), extra={}
    )
    assert json.loads(named)["contents"][0]["parts"][0]["functionResponse"]["name"] == "time"
    with pytest.raises(UnsupportedError, match=r"primary: no call .* '7'"):
        body(Prompt([result("7")], extra=elsewhere))


def test_pictures_of_a_result_stand_behind_it() -> None:
    """Where every generation of models sees them; its texts are the result."""
    content = (Text("a map: "), Image("https://x.test/a.png"), Text("done"))
    sent = turns(
        Message("assistant", tool_calls=[call("1"), call("2")]), Message("tool", content, tool_call_id="1"), result("2")
    )
    parts = sent[1]["parts"]
    assert [next(iter(part)) for part in parts] == ["functionResponse", "fileData", "functionResponse"]
    assert parts[0]["functionResponse"]["response"] == {"result": "a map: done"}


# -- signatures --------------------------------------------------------------------------------------


def test_signatures_come_back_where_they_belong() -> None:
    """Those of calls beside them, those of thoughts in a part of their own; a thought's text stays here."""
    thoughts = [Thought("hm", Signature("gemini", "AP8=")), Thought("more")]
    sent = turns(
        Message("user", "?"), Message("assistant", "Well", tool_calls=[call("1", signed="c2ln")], thoughts=thoughts)
    )
    assert sent[1]["parts"] == [
        {"text": "Well"},
        {"text": "", "thoughtSignature": "AP8="},
        {"functionCall": {"name": "get_weather", "args": {}, "id": "1"}, "thoughtSignature": "c2ln"},
    ]


def test_signatures_of_others_are_not_sent() -> None:
    """They mean nothing to Gemini."""
    thought = Thought("hm", Signature("anthropic", "AP8="))
    foreign = ToolCall("1", "a", "{}", Signature("responses", "c2ln"))
    sent = turns(Message("user", "?"), Message("assistant", tool_calls=[foreign], thoughts=[thought]))
    assert "ignature" not in json.dumps(sent)


@pytest.mark.parametrize(
    ("model", "marked"),
    [
        ("gemini-3-pro-preview", True),
        ("models/gemini-3.1-flash", True),
        ("gemini-10-pro", True),
        ("gemini-flash-latest", True),
        ("models/gemini-pro-latest", True),
        ("gemini-flash-lite-latest", True),
        ("gemini-2.5-flash-latest", False),
        ("gemini-2.5-pro", False),
        ("gemma-3", False),
    ],
)
def test_calls_of_other_models_are_marked_where_signatures_are_demanded(model: str, marked: bool) -> None:
    """The first call of each message that has none: else a conversation could not move on to Gemini 3."""
    prompt = Prompt(
        [
            Message("user", "?"),
            Message("assistant", tool_calls=[call("1"), call("2")]),
            result("1"),
            result("2"),
            Message("assistant", tool_calls=[call("3", signed="c2ln"), call("4")]),
            result("3"),
            result("4"),
        ]
    )
    sent = wire(model=model).request(Call(prompt, "1")).body
    check_request(sent)
    parts = [part for turn in json.loads(sent)["contents"] for part in turn["parts"] if "functionCall" in part]
    expected = "skip_thought_signature_validator" if marked else None
    assert [part.get("thoughtSignature") for part in parts] == [expected, None, "c2ln", None]


ROUND = Prompt(
    [
        Message("user", "?"),
        Message(
            "assistant", "Hm", tool_calls=[call("1", signed="c2ln")], thoughts=[Thought("", Signature("gemini", "AP"))]
        ),
        result("1"),
    ]
)


def signatures(of: GeminiWire) -> list[str]:
    """Return the signatures that a round of tools is sent with."""
    contents = json.loads(of.request(Call(ROUND, "1")).body)["contents"]
    return [part["thoughtSignature"] for turn in contents for part in turn["parts"] if "thoughtSignature" in part]


def test_signatures_that_are_refused_are_left_out_of_one_call() -> None:
    """Another model has made them; the next conversation has its own."""
    refused = ErrorBody("Corrupted thought signature.", codes=("invalid_argument",))
    for model, left in (("gemini-2.5-flash", []), ("gemini-3-pro", ["skip_thought_signature_validator"])):
        known = wire(model=model)
        simpler = known.without(refused, keep_stream=True)
        assert simpler is not None
        assert (signatures(known), signatures(simpler)) == (["AP", "c2ln"], left)
        assert simpler.without(refused, keep_stream=True) is None
        assert simpler.lasting() == known


def test_a_model_that_misses_a_signature_is_remembered() -> None:
    """Its name may not tell what it is."""
    refused = ErrorBody("Function call is missing a thought_signature in functionCall parts. This is required.")
    known = wire(model="tunedModels/ours")
    learned = known.without(refused, keep_stream=True)
    assert learned is not None
    assert learned.lasting() == learned == evolve(known, dialect=GeminiDialect(signed_calls=True))
    assert learned.without(refused, keep_stream=True) is None
