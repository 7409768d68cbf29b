"""What a Messages request says, as a prompt: carried, ignored, refused, or passed on in `extra`."""

import base64
from typing import Any

import pytest

from wizard_actors.errors import InvalidPromptError
from wizard_actors.http_api.anthropic_format import ANTHROPIC
from wizard_actors.http_api.anthropic_proofs import sealed_id, sealed_signature
from wizard_actors.http_api.fields import BadRequestError
from wizard_actors.types import Image, Message, Prompt, Signature, Text, Thought, Tool, ToolCall

Json = dict[str, Any]  # as JSON comes

ANTHROPICS = Signature("anthropic", "EqMB")
GEMINIS = Signature("gemini", "AP8=")
PNG = base64.b64encode(b"a picture").decode()
WEATHER: Json = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}


def body_of(*messages: Json, **fields: object) -> Json:
    """Return a request's body, with a question where no messages are given."""
    return {
        "model": "sonnet",
        "max_tokens": 100,
        "messages": list(messages) or [{"role": "user", "content": "Why?"}],
        **fields,
    }


def prompt_of(*messages: Json, **fields: object) -> Prompt:
    """Return the prompt that such a body is."""
    return ANTHROPIC.read(body_of(*messages, **fields)).prompt


def refused(*messages: Json, **fields: object) -> BadRequestError:
    """Return the error of such a body."""
    with pytest.raises(BadRequestError) as caught:
        ANTHROPIC.read(body_of(*messages, **fields))
    return caught.value


def user(*blocks: Json) -> Json:
    """Return a message of the user."""
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Json) -> Json:
    """Return a message of the assistant."""
    return {"role": "assistant", "content": list(blocks)}


def tool_use(call_id: str = "toolu_1", **fields: object) -> Json:
    """Return a call of a tool."""
    return {"type": "tool_use", "id": call_id, "name": "weather", "input": {"city": "Rome"}, **fields}


def tool_result(call_id: str = "toolu_1", content: object = "sunny", **fields: object) -> Json:
    """Return the result of a call."""
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **fields}


def text(said: str, **fields: object) -> Json:
    """Return a block of text."""
    return {"type": "text", "text": said, **fields}


# -- the plain fields --------------------------------------------------------------------------------


def test_every_field_of_a_prompt_is_carried() -> None:
    """Each under the name that our types have for it."""
    asked = ANTHROPIC.read(
        body_of(
            stream=True,
            system="Be brief",
            temperature=0.5,
            top_p=0.9,
            stop_sequences=["END"],
            tools=[{**WEATHER, "type": "custom", "description": "The weather", "strict": True}],
            tool_choice={"type": "tool", "name": "weather"},
            output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}},
        )
    )
    assert (asked.name, asked.stream) == ("sonnet", True)
    assert asked.prompt == Prompt(
        "Why?",
        system="Be brief",
        max_tokens=100,
        temperature=0.5,
        top_p=0.9,
        stop=("END",),
        tools=[Tool("weather", "The weather", WEATHER["input_schema"], strict=True)],
        tool_choice="weather",
        response_schema={"type": "object"},
    )


@pytest.mark.parametrize(("kind", "word"), [("auto", "auto"), ("any", "required"), ("none", "none")])
def test_each_tool_choice_has_its_word(kind: str, word: str) -> None:
    """Anthropic's `any` is our "required"."""
    prompt = prompt_of(tools=[WEATHER], tool_choice={"type": kind, "disable_parallel_tool_use": False})
    assert (prompt.tool_choice, prompt.extra) == (word, {})


def test_the_older_name_of_the_schema_is_read() -> None:
    """`output_format` is what it was called as a beta."""
    prompt = prompt_of(output_format={"type": "json_schema", "schema": {"type": "object"}})
    assert prompt.response_schema == {"type": "object"}


def test_blocks_of_a_system_text_are_joined() -> None:
    """Parted by a blank line, and without their marks for caches; one that says nothing is none."""
    mark = {"type": "ephemeral"}
    assert prompt_of(system=[text("Be brief", cache_control=mark), text(" "), text("Be kind")]).system == (
        "Be brief\n\nBe kind"
    )
    assert prompt_of(system=[]).system is None


def test_what_the_format_alone_knows_goes_into_extra() -> None:
    """As it is: it is for models that speak the same protocol."""
    thinking = {"type": "enabled", "budget_tokens": 1024}
    prompt = prompt_of(
        thinking=thinking,
        top_k=5,
        service_tier="standard_only",
        output_config={"effort": "low"},
        inference_geo="eu",
    )
    assert prompt.extra_protocol == "anthropic"
    assert prompt.extra == {
        "thinking": thinking,
        "top_k": 5,
        "service_tier": "standard_only",
        "output_config": {"effort": "low"},
        "inference_geo": "eu",
    }


@pytest.mark.parametrize(("kind", "word"), [("auto", "auto"), ("any", "required")])
def test_one_call_at_a_time_is_the_prompts(kind: str, word: str) -> None:
    """So that every protocol can say it, beside the choice; it says nothing where there are no tools."""
    choice = {"type": kind, "disable_parallel_tool_use": True}
    prompt = prompt_of(tools=[WEATHER], tool_choice=choice)
    assert (prompt.tool_choice, prompt.parallel_tool_calls, prompt.extra) == (word, False, {})
    assert prompt_of(tool_choice={"type": "none", "disable_parallel_tool_use": True}).parallel_tool_calls is None


def test_a_call_whose_input_is_null_has_no_arguments() -> None:
    """So a client sends back what it took for its arguments."""
    called = prompt_of(user(text("Why?")), assistant(tool_use(input=None)), user(tool_result())).messages[1]
    assert called.tool_calls[0].arguments == "{}"


def test_what_a_provider_is_to_clear_is_passed_over() -> None:
    """Agents ask for it in each request, beside a header that goes no further."""
    edits = {"edits": [{"type": "clear_tool_uses_20250919"}]}
    assert prompt_of(context_management=edits) == prompt_of()


def test_the_name_of_an_unknown_field_is_not_repeated_whole() -> None:
    """It may be as long as a body, and hold what a terminal would obey."""
    error = refused({"role": "user", "content": "x", "\x1b" * 1_000_000: 1})
    assert len(error.message) < 200
    assert error.param is not None
    assert len(error.param) < 100
    assert error.param.isprintable()


def test_defaults_and_what_says_nothing_about_the_answer_are_as_if_not_given() -> None:
    """Many clients send them always, and most keys may not send `extra`."""
    prompt = prompt_of(
        metadata={"user_id": "u"},
        cache_control={"type": "ephemeral"},
        diagnostics={"previous_message_id": "msg_1"},
        service_tier="auto",
        speed="standard",
        mcp_servers=[],
        container=None,
        thinking=None,
        tools=[{**WEATHER, "eager_input_streaming": True, "defer_loading": False, "cache_control": None}],
    )
    assert prompt == Prompt("Why?", max_tokens=100, tools=[Tool("weather", "", WEATHER["input_schema"])])


# -- conversations -----------------------------------------------------------------------------------


def test_a_round_of_tools_becomes_one_message_for_each_result() -> None:
    """The results stand right behind their calls, what else the user says follows them."""
    prompt = prompt_of(
        user(text("Rome and Oslo?")),
        assistant(
            {"type": "thinking", "thinking": "two cities", "signature": "EqMB"},
            {"type": "redacted_thinking", "data": "c2Vj"},
            text("I look"),
            tool_use("toolu_1", caller={"type": "direct"}),
            tool_use("toolu_2", cache_control={"type": "ephemeral"}),
        ),
        user(
            text("And be quick"),
            tool_result("toolu_2", [text("cold"), {"type": "image", "source": _base64(PNG)}]),
            tool_result("toolu_1", "broken", is_error=True),
        ),
    )
    assert prompt.messages == (
        Message("user", "Rome and Oslo?"),
        Message(
            "assistant",
            "I look",
            thoughts=(
                Thought("two cities", ANTHROPICS),
                Thought("", Signature("anthropic", "c2Vj"), redacted=True),
            ),
            tool_calls=(
                ToolCall("toolu_1", "weather", {"city": "Rome"}),
                ToolCall("toolu_2", "weather", {"city": "Rome"}),
            ),
        ),
        Message("tool", [Text("cold"), Image(data=b"a picture", media_type="image/png")], tool_call_id="toolu_2"),
        Message("tool", "broken", tool_call_id="toolu_1", is_error=True),
        Message("user", "And be quick"),
    )


def test_a_result_without_content_is_empty() -> None:
    """A tool may have nothing to say."""
    result = {"type": "tool_result", "tool_use_id": "toolu_1"}
    prompt = prompt_of(user(text("Go")), assistant(tool_use()), user(result))
    assert prompt.messages[-1] == Message("tool", "", tool_call_id="toolu_1")


def test_pictures_and_several_texts_stand_in_their_order() -> None:
    """By address or as bytes; a system message may stand among the others."""
    url = {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}}
    prompt = prompt_of(
        user(text("a"), url, {"type": "image", "source": _base64(PNG)}, text("b", citations=None)),
        {"role": "system", "content": "Be kind"},
    )
    assert prompt.messages == (
        Message(
            "user",
            [
                Text("a"),
                Image(url="https://x.test/a.png"),
                Image(data=b"a picture", media_type="image/png"),
                Text("b"),
            ],
        ),
        Message("system", "Be kind"),
    )


def _base64(data: str, media_type: str = "image/png") -> Json:
    return {"type": "base64", "media_type": media_type, "data": data}


def test_what_was_sealed_for_another_protocol_is_its_own_again() -> None:
    """Signatures, ids of thoughts, signatures of calls, and the ids by which their results name them."""
    call = ToolCall("made_1", "weather", '{"city":"Rome"}', GEMINIS)
    thought, redacted = Thought("hm", GEMINIS, id="rs_1"), Thought("", GEMINIS, redacted=True, id="rs_2")
    prompt = prompt_of(
        user(text("Go")),
        assistant(
            {"type": "thinking", "thinking": "hm", "signature": sealed_signature(GEMINIS, "rs_1")},
            {"type": "redacted_thinking", "data": sealed_signature(GEMINIS, "rs_2")},
            tool_use(sealed_id(call)),
        ),
        user(tool_result(sealed_id(call))),
    )
    assert prompt.messages[1] == Message("assistant", "", thoughts=(thought, redacted), tool_calls=(call,))
    assert prompt.messages[2] == Message("tool", "sunny", tool_call_id="made_1")


def test_arguments_that_were_no_json_are_the_models_text_again() -> None:
    """But an object that only looks like their form stays one."""
    prompt = prompt_of(
        user(text("Go")),
        assistant(tool_use("a", input={"INVALID_JSON": "{oops"}), tool_use("b", input={"INVALID_JSON": "{}"})),
    )
    assert [call.arguments for call in prompt.messages[1].tool_calls] == ["{oops", '{"INVALID_JSON":"{}"}']


# -- refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "place", "named"),
    [
        ({"content": "x"}, "messages[0].role", "missing"),
        ({"role": "tool", "content": "x"}, "messages[0].role", "'tool'"),
        ({"role": "user"}, "messages[0].content", "missing"),
        ({"role": "user", "content": 1}, "messages[0].content", "a text or a list of blocks"),
        ({"role": "user", "content": ["x"]}, "messages[0].content[0]", "an object"),
        ({"role": "user", "content": "x", "name": "ann"}, "messages[0].name", "possible"),
        (user({"type": "document"}), "messages[0].content[0].type", "'document'"),
        (user({"type": "search_result"}), "messages[0].content[0].type", "'search_result'"),
        (user(tool_use()), "messages[0].content[0].type", "'tool_use'"),
        (assistant({"type": "server_tool_use"}), "messages[0].content[0].type", "'server_tool_use'"),
        (assistant({"type": "image"}), "messages[0].content[0].type", "'image'"),
        (assistant(tool_use(caller={"type": "code"})), "messages[0].content[0].caller", "'tool_use'"),
        (
            assistant({key: value for key, value in tool_use().items() if key != "input"}),
            "messages[0].content[0].input",
            "missing",
        ),
        (assistant(tool_use("wizard_sealed_x")), "messages[0].content[0].id", "send it back"),
        (
            assistant({"type": "thinking", "thinking": "", "signature": "wizard_sealed_W10"}),
            "messages[0].content[0].signature",
            "send it back",
        ),
        (user(tool_result("a", [{"type": "document"}])), "messages[0].content[0].content[0].type", "text, image"),
        (user(tool_result("")), "messages[0]", "tool_call_id"),
        (user({"type": "image", "source": {"type": "file"}}), "messages[0].content[0].source.type", "base64, url"),
        (user({"type": "image", "source": _base64("!")}), "messages[0].content[0].source.data", "base64"),
        (user({"type": "image", "source": _base64(PNG, "text/html")}), "messages[0].content[0].source", "media_type"),
        (user(text("half a \ud800")), "messages[0]", "Unicode"),
    ],
)
def test_a_message_that_cannot_be_carried_is_refused_at_its_place(message: Json, place: str, named: str) -> None:
    """No model is asked, and the client is told what to change."""
    error = refused(message)
    assert (error.param, error.status) == (place, 400)
    assert place in error.message
    assert named in error.message


@pytest.mark.parametrize(
    ("fields", "place", "named"),
    [
        ({"model": None}, "model", "missing"),
        ({"max_tokens": None}, "max_tokens", "missing"),
        ({"messages": None}, "messages", "missing"),
        ({"stream": "yes"}, "stream", "true or false"),
        ({"system": [{"type": "image"}]}, "system[0].type", "text"),
        ({"container": "c"}, "container", "run tools yourself"),
        ({"mcp_servers": [{}]}, "mcp_servers", "`tools`"),
        ({"tools": [{"type": "web_search_20250305"}]}, "tools[0].type", "'web_search_20250305'"),
        ({"tools": [{**WEATHER, "defer_loading": True}]}, "tools[0].defer_loading", "possible"),
        ({"tools": [{"name": "a"}]}, "tools[0].input_schema", "missing"),
        ({"tools": [{**WEATHER, "name": "a b"}]}, "tools[0]", "name of a Tool"),
        ({"tool_choice": {}}, "tool_choice.type", "missing"),
        ({"tool_choice": {"type": "auto", "mode": "x"}}, "tool_choice.mode", "possible"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type", "auto, any, none, tool"),
        ({"tool_choice": {"type": "tool", "name": "auto"}}, "tool_choice.name", "'auto'"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type", "json_schema"),
        ({"output_format": {"type": "json_schema", "strict": True}}, "output_format.strict", "possible"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema", "missing"),
        (
            {"output_format": {"type": "json_schema"}, "output_config": {"format": {"type": "json_schema"}}},
            "output_format",
            "older name",
        ),
    ],
)
def test_a_field_that_cannot_be_carried_is_refused_at_its_place(fields: Json, place: str, named: str) -> None:
    """What is not possible is never dropped."""
    error = refused(**fields)
    assert error.param == place
    assert place in error.message
    assert named in error.message


def test_a_prompt_that_no_model_takes_is_told_with_the_bodys_own_places() -> None:
    """Though one message of the body becomes several of ours."""
    results = user(tool_result("toolu_1"), tool_result("toolu_2"))
    messages = [user(text("Go")), assistant(tool_use("toolu_1"), tool_use("toolu_2")), results]
    with pytest.raises(InvalidPromptError, match=r"^messages\[4\] is a second result"):
        prompt_of(*messages, assistant(text("Done")), user(tool_result("toolu_1")))


def test_a_body_that_nests_too_deeply_is_refused() -> None:
    """However deep the reader of JSON has let it be."""
    kind: object = "object"
    for _ in range(5000):
        kind = [kind]
    error = refused(tools=[{"name": "a", "input_schema": {"type": kind}}])
    assert "deeply" in error.message
