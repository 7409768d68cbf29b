"""Chat Completions requests as prompts: what is carried, passed over, refused, and left to the provider."""

from typing import Any

import pytest

from wizard_actors.errors import InvalidPromptError
from wizard_actors.http_api.asked import Asked
from wizard_actors.http_api.fields import BadRequestError
from wizard_actors.http_api.openai_format import OPENAI
from wizard_actors.types import Image, Message, Prompt, Signature, Text, Thought, Tool, ToolCall

USER = {"role": "user", "content": "Why?"}
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Weather", "parameters": {"type": "object"}, "strict": True},
}
CALL: dict[str, Any] = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"a": 1}'}}


def read(**fields: object) -> Asked:
    """Return what a request with these fields asks for."""
    return OPENAI.read({"model": "wizard", "messages": [USER], **fields})


def read_message(**fields: object) -> Message:
    """Return what a conversation's first message is read as; the user has the last word."""
    return read(messages=[fields, USER]).prompt.messages[0]


def refused(**fields: object) -> BadRequestError:
    """Return the error for a request with these fields."""
    with pytest.raises(BadRequestError) as raised:
        read(**fields)
    return raised.value


# -- what is carried -----------------------------------------------------------------------------------


def test_the_least_request_is_a_prompt() -> None:
    """A model and a message; the answer comes whole."""
    assert read() == Asked("wizard", Prompt("Why?"))


def test_every_parameter_that_a_prompt_has_is_in_it() -> None:
    """Under its own name, and none of it in `extra`."""
    asked = read(
        temperature=0.5,
        top_p=0.9,
        max_completion_tokens=7,
        stop=["a", "b"],
        seed=3,
        stream=True,
        stream_options={"include_usage": True, "include_obfuscation": False},
    )
    prompt = Prompt("Why?", temperature=0.5, top_p=0.9, max_tokens=7, stop=["a", "b"], seed=3)
    assert asked == Asked("wizard", prompt, stream=True, include_usage=True)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_bound_of_an_answer_has_two_names(name: str) -> None:
    """The one of today and the old one; together they have to agree."""
    assert read(**{name: 5}).prompt.max_tokens == 5
    assert read(max_tokens=5, max_completion_tokens=5).prompt.max_tokens == 5
    assert refused(max_tokens=5, max_completion_tokens=6).param == "max_tokens"
    assert refused(**{name: 0}).param == name


def test_one_stop_sequence_may_stand_alone() -> None:
    """As OpenAI takes it."""
    assert read(stop="END").prompt.stop == ("END",)


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ({"role": "developer", "content": "Be brief"}, Message("system", "Be brief")),
        ({"role": "system", "content": [{"type": "text", "text": "Be brief"}]}, Message("system", (Text("Be brief"),))),
        ({"role": "user", "content": "Hi", "name": "ann", "tool_calls": None}, Message("user", "Hi", name="ann")),
        ({"role": "assistant", "content": "Hi", "refusal": None, "annotations": []}, Message("assistant", "Hi")),
        ({"role": "assistant", "content": None, "refusal": "No"}, Message("assistant", "No")),
        ({"role": "assistant", "content": "", "refusal": "No"}, Message("assistant", "No")),
        ({"role": "assistant", "content": [], "refusal": "No"}, Message("assistant", "No")),
        ({"role": "assistant", "content": [{"type": "refusal", "refusal": "No"}]}, Message("assistant", (Text("No"),))),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}]},
            Message("user", (Image(url="https://x.test/a.png"),)),
        ),
        (
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AP8=", "detail": "low"}}],
            },
            Message("user", (Image(data=b"\x00\xff", media_type="image/png"),)),
        ),
        (
            {"role": "assistant", "content": "Hi", "reasoning_content": "Hm"},
            Message("assistant", "Hi", thoughts=Thought("Hm")),
        ),
        ({"role": "assistant", "content": "Hi", "reasoning": "Hm"}, Message("assistant", "Hi", thoughts=Thought("Hm"))),
        (
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}], "closed": True},
                    {"type": "text", "text": "Hi"},
                ],
            },
            Message("assistant", (Text("Hi"),), thoughts=Thought("Hm")),
        ),
        (
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm"}]},
            Message("assistant", (), thoughts=Thought("Hm")),
        ),
    ],
)
def test_a_message_says_what_was_sent(sent: dict[str, object], meant: Message) -> None:
    """Every role, every kind of part, and the reasoning that clients send back."""
    assert read_message(**sent) == meant


def test_a_round_of_tools_is_read() -> None:
    """An assistant that says nothing but calls a tool, and the tool's result."""
    result = {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "sunny"}]}
    messages = read(
        messages=[USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}, result]
    ).prompt.messages
    assert messages[1:] == (
        Message("assistant", tool_calls=ToolCall("c1", "get_weather", '{"a": 1}')),
        Message("tool", (Text("sunny"),), tool_call_id="c1"),
    )


def test_reasoning_that_openrouter_has_signed_goes_back_signed() -> None:
    """Its entries are read as those of an answer are."""
    details = [{"type": "reasoning.text", "text": "Hm", "signature": "s"}]
    (thought,) = read_message(role="assistant", content="Hi", reasoning="Hm", reasoning_details=details).thoughts
    assert thought.text == "Hm"
    assert thought.signature is not None
    assert thought.signature.protocol == "chat"


def test_signatures_come_back_under_our_own_key() -> None:
    """Each with its thought or its call, as an answer of ours has stated them."""
    own = {
        "thoughts": [{"text": "Hm", "redacted": False, "id": "t1", "protocol": "anthropic", "signature": "s"}],
        "calls": [{"id": "c1", "protocol": "gemini", "signature": "g"}],
    }
    sent = {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "Hm", "wizard": own}
    result = {"role": "tool", "tool_call_id": "c1", "content": "sunny"}
    message = read(messages=[USER, sent, result]).prompt.messages[1]
    assert message.thoughts == (Thought("Hm", Signature("anthropic", "s"), id="t1"),)
    assert message.tool_calls[0].signature == Signature("gemini", "g")


def test_tools_and_choices_are_read() -> None:
    """A tool with all that it has; "auto" is what no choice means."""
    tool = Tool("get_weather", "Weather", {"type": "object"}, strict=True)
    assert read(tools=[WEATHER], tool_choice="auto").prompt == Prompt("Why?", tools=tool)
    assert read(tools=[WEATHER], tool_choice="none").prompt.tool_choice == "none"
    assert read(tools=[WEATHER], tool_choice="required").prompt.tool_choice == "required"
    named = {"type": "function", "function": {"name": "get_weather"}}
    assert read(tools=[WEATHER], tool_choice=named).prompt.tool_choice == "get_weather"
    assert read(tool_choice="none").prompt == Prompt("Why?")
    for word in ("none", "auto", "required"):
        assert read(tools=[WEATHER], tool_choice={"type": word}) == read(tools=[WEATHER], tool_choice=word)


def test_tools_that_are_not_allowed_are_not_offered() -> None:
    """`allowed_tools` is a shorter list of tools, of which one may have to be called."""
    other = {"type": "function", "function": {"name": "other"}}
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "get_weather"}}]}
    prompt = read(tools=[WEATHER, other], tool_choice={"type": "allowed_tools", "allowed_tools": allowed}).prompt
    assert [tool.name for tool in prompt.tools] == ["get_weather"]
    assert prompt.tool_choice == "required"


def test_a_wanted_schema_keeps_its_name() -> None:
    """As the title, from which our provider makes the name again; a title of its own stays."""
    schema = {"type": "object", "properties": {}}
    described = {"name": "Joke", "description": "A joke", "strict": True, "schema": schema}
    prompt = read(response_format={"type": "json_schema", "json_schema": described}).prompt
    assert prompt.response_schema == {"title": "Joke", "description": "A joke", **schema}
    assert not prompt.extra
    described["schema"] = {"title": "Mine", **schema}
    titled = read(response_format={"type": "json_schema", "json_schema": described}).prompt
    assert titled.response_schema is not None
    assert titled.response_schema["title"] == "Mine"
    assert read(response_format={"type": "text"}).prompt == Prompt("Why?")


# -- what is not carried -------------------------------------------------------------------------------


def test_json_of_any_form_is_left_to_the_provider() -> None:
    """Through `extra`: a schema that allows everything is not taken everywhere."""
    assert read(response_format={"type": "json_object"}).prompt.extra == {"response_format": {"type": "json_object"}}


def test_fields_that_no_prompt_has_go_to_the_provider_as_they_are() -> None:
    """But null is not given."""
    prompt = read(reasoning_effort="low", top_k=5, min_p=None).prompt
    assert (prompt.extra, prompt.extra_protocol) == ({"reasoning_effort": "low", "top_k": 5}, "chat")


def test_one_call_at_a_time_is_the_prompts() -> None:
    """So that every protocol can say it; it says nothing where there are no tools, and true is the default."""
    assert read(tools=[WEATHER], parallel_tool_calls=False).prompt == Prompt(
        "Why?", tools=Tool("get_weather", "Weather", {"type": "object"}, strict=True), parallel_tool_calls=False
    )
    assert read(tools=[WEATHER], parallel_tool_calls=True) == read(tools=[WEATHER])
    assert refused(tools=[WEATHER], parallel_tool_calls="no").param == "parallel_tool_calls"


def test_fields_that_say_nothing_about_the_answer_are_passed_over() -> None:
    """Who asks, what is to be kept, and what the format's own default is."""
    asked = read(
        user="u",
        metadata={"a": "b"},
        store=True,
        service_tier="flex",
        safety_identifier="s",
        prompt_cache_key="k",
        n=1,
        logprobs=False,
        top_logprobs=0,
        logit_bias={},
        functions=[],
        modalities=["text"],
        presence_penalty=0,
        frequency_penalty=0.0,
        top_p=1,
        parallel_tool_calls=False,  # without tools
        function_call=None,
    )
    assert asked == read()
    assert read(function_call="none") == read(function_call="auto") == asked


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("n", True),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("modalities", ["text", "audio"]),
        ("functions", [{"name": "f"}]),
        ("function_call", {"name": "f"}),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(field: str, value: object) -> None:
    """With what to do instead."""
    error = refused(**{field: value})
    assert (error.param, error.status) == (field, 400)
    assert error.message.startswith(f"`{field}` ")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 5}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": "Why?"}, "messages"),
        ({"messages": ["Why?"]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [USER, {"role": "function", "name": "f", "content": "x"}]}, "messages[1].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0].type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "thinking", "thinking": "x"}]}]},
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "system", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0]",
        ),
        ({"messages": [USER, {"role": "tool", "content": "x"}]}, "messages[1].tool_call_id"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [CALL]}]}, "messages[0]"),
        ({"messages": [{"role": "assistant", "audio": {"id": "a"}}, USER]}, "messages[0].audio"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{**CALL, "type": "custom"}]}]},
            "messages[0].tool_calls[0].type",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "c", "function": {}}]}]},
            "messages[0].tool_calls[0].function.name",
        ),
        (
            {"messages": [{"role": "assistant", "wizard": {"calls": [{"id": "c", "signature": "s"}]}}, USER]},
            "messages[0].wizard.calls[0].protocol",
        ),
        (
            {"messages": [{"role": "assistant", "reasoning_details": [{"type": "x", "n": "\ud800"}]}, USER]},
            "messages[0].reasoning_details",
        ),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0]"),
        ({"tools": [WEATHER], "tool_choice": "any"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": 5}, "tool_choice"),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice.function.name",
        ),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}},
            "tool_choice.allowed_tools.tools",
        ),
        ({"response_format": {}}, "response_format.type"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            "response_format.json_schema.schema",
        ),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"seed": True}, "seed"),
        ({"stop": [1]}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ],
)
def test_what_is_wrong_is_told_by_its_place(fields: dict[str, object], param: str) -> None:
    """As OpenAI names it, in the message too."""
    error = refused(**fields)
    assert error.param == param
    assert f"`{param}`" in error.message


def test_a_body_has_to_be_an_object() -> None:
    """Whatever else it is."""
    with pytest.raises(BadRequestError, match="must be an object, not a list"):
        OPENAI.read([])


@pytest.mark.parametrize("fields", [{"messages": []}, {"tool_choice": "required"}, {"tools": [WEATHER, WEATHER]}])
def test_what_is_wrong_as_a_whole_is_told_by_the_prompt(fields: dict[str, object]) -> None:
    """Nobody speaks, a tool has to be called that is not there, one name means two."""
    with pytest.raises(InvalidPromptError):
        read(**fields)
