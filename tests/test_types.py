"""What goes in and what comes out: prompts and their mistakes, answers and events as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from decimal import Decimal

import pytest
from attrs.exceptions import FrozenInstanceError

from wizard_actors.errors import Attempt, InvalidPromptError
from wizard_actors.types import (
    ContentDelta,
    End,
    Finished,
    FinishReason,
    Image,
    LimitHeaders,
    LimitWindow,
    Message,
    Prompt,
    ReasoningDelta,
    Reset,
    Role,
    ServedBy,
    Signature,
    StreamEvent,
    Text,
    TextDelta,
    Thought,
    TokenUsage,
    Tool,
    ToolCall,
    ToolCallDelta,
    UsageUpdate,
    WizardResponse,
)

CALL = ToolCall("call_1", "weather", '{"city": "Oslo"}')
WEATHER = Tool("weather")
PICTURE = Image(url="https://x.test/a.png")

# -- prompts


def test_a_plain_text_is_a_prompt_of_one_user_message() -> None:
    """The shortest way to ask."""
    assert Prompt("Why?").messages == (Message(Role.USER, "Why?"),)


@pytest.mark.parametrize(
    "messages",
    [Message("user", "Why?"), [Message("user", "Why?")], iter([Message("user", "Why?")])],
    ids=["one", "list", "iterator"],
)
def test_messages_come_alone_or_in_any_iterable(messages: Message | list[Message]) -> None:
    """However they come, a prompt holds them as a tuple."""
    assert Prompt(messages) == Prompt("Why?")


def test_the_conversation_begins_with_the_system_text() -> None:
    """Where there is one; what the caller wrote into the messages stays where it is."""
    prompt = Prompt([Message("system", "first"), Message("user", "Why?")], system="Be brief")
    assert [message.text for message in prompt.conversation] == ["Be brief", "first", "Why?"]
    assert prompt.conversation[0].role is Role.SYSTEM
    assert Prompt("Why?").conversation == Prompt("Why?").messages


def test_stop_is_one_text_or_several() -> None:
    """One text is one sequence, not its letters."""
    assert Prompt("Why?", stop="END").stop == ("END",)
    assert Prompt("Why?", stop=["A", "B"]).stop == ("A", "B")
    assert Prompt("Why?").stop == ()


def test_everything_but_the_messages_is_given_by_name_and_left_to_the_model_by_default() -> None:
    """A prompt says only what its author said."""
    prompt = Prompt("Why?", tools=[Tool("weather")])
    assert prompt.tools == (Tool("weather", "", {}, strict=False),)
    unsaid = (prompt.system, prompt.tool_choice, prompt.response_schema, prompt.temperature, prompt.top_p)
    assert (*unsaid, prompt.max_tokens, prompt.seed) == (None,) * 7
    assert prompt.extra == {}
    with pytest.raises(TypeError):
        Prompt("Why?", "Be brief")  # type: ignore[call-arg]  # what is tested


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Prompt(""), "the prompt is empty"),
        (lambda: Prompt(" \n"), "the prompt is empty"),
        (lambda: Prompt([Message("system", "Be brief"), Message("user", [Text(" "), Text("\t")])]), "prompt is empty"),
        (lambda: Prompt([Message("user", " "), Message("assistant", "", thoughts=[Thought("hm")])]), "prompt is empty"),
        (lambda: Prompt(5), "takes a text or Message objects; its messages are Message objects, not 5"),  # type: ignore[arg-type]
        (lambda: Prompt("Why?", system=5), "the system of a Prompt is a text, not 5"),  # type: ignore[arg-type]
        (lambda: Prompt("Why?", extra=[1]), r"`Prompt.extra` is a mapping: .*, not \[1\]"),  # type: ignore[arg-type]
        (lambda: Prompt("Why?", stop=[1]), "the stop sequences of a Prompt are str objects, not 1"),  # type: ignore[list-item]
        (lambda: Prompt("Why?", temperature=-0.1), "temperature must be 0 or more, not -0.1"),
        (lambda: Prompt("Why?", temperature=math.nan), "temperature must be 0 or more, not nan"),
        (lambda: Prompt("Why?", temperature=math.inf), "temperature must be 0 or more, not inf"),
        (lambda: Prompt("Why?", top_p=1.1), "top_p must be from 0 to 1, not 1.1"),
        (lambda: Prompt("Why?", tool_choice=5), "or the name of a tool of the prompt .*, not 5"),  # type: ignore[arg-type]
        (lambda: Prompt("Why?", tool_choice="look"), r"the name of a tool of the prompt \(it has none\), not 'look'"),
        (lambda: Prompt("Why?", tools=WEATHER, tool_choice="whether"), r"\(weather\), not 'whether'"),
        (lambda: Prompt("Why?", tool_choice="required"), 'tool_choice is "required", and the prompt has no tools'),
        (lambda: Prompt("Why?", tools=[WEATHER, Tool("weather", "b")]), "two tools of the prompt are named 'weather'"),
        (lambda: Prompt("Why?", tools=5), "the tools of a Prompt are Tool objects, not 5"),  # type: ignore[arg-type]
        (lambda: Text(5), "`Text.text` is a text, not 5"),  # type: ignore[arg-type]
        (lambda: Message("user", "?", name=5), "`Message.name` is a text or None, not 5"),  # type: ignore[arg-type]
        (lambda: Message("tool", "?", tool_call_id=5), "`Message.tool_call_id` is a text or None, not 5"),  # type: ignore[arg-type]
        (lambda: Message("tool", "?", tool_call_id="1", is_error="no"), "`Message.is_error` is True or False"),  # type: ignore[arg-type]
        (lambda: Message("user", "?", is_error=True), "is_error belongs to messages of the tool, not .* the user"),
        (lambda: Message("user", "?", tool_calls=[CALL]), "tool_calls belongs to messages of the assistant"),
        (lambda: Message("user", "?", thoughts=[Thought("hm")]), "thoughts belongs to messages of the assistant"),
        (lambda: Message("user", "?", tool_call_id="1"), "tool_call_id belongs to messages of the tool"),
        (lambda: Message("assistant", "?", tool_calls=[{"id": "1"}]), "tool_calls of a message are ToolCall objects"),  # type: ignore[list-item]
        (lambda: Message("assistant", "?", thoughts=["hm"]), "thoughts of a message are Thought objects, not 'hm'"),  # type: ignore[list-item]
        (lambda: ToolCall(None, "weather", "{}"), "`ToolCall.id` is a text, not None"),  # type: ignore[arg-type]
        (lambda: ToolCall("1", None, "{}"), "`ToolCall.name` is a text, not None"),  # type: ignore[arg-type]
        (lambda: ToolCall("1", "weather", None), "`ToolCall.arguments` is JSON text, or a mapping, not None"),  # type: ignore[arg-type]
        (lambda: ToolCall("1", "weather", {"a": object()}), "arguments of a ToolCall cannot be written as JSON"),
        (lambda: ToolCall("1", "weather", "{}", "c2ln"), "`ToolCall.signature` is a Signature or None"),  # type: ignore[arg-type]
        (lambda: Thought(b"hm"), "`Thought.text` is a text"),  # type: ignore[arg-type]
        (lambda: Signature("gemini", b"c2ln"), "`Signature.value` is a text"),  # type: ignore[arg-type]
        (lambda: Tool(""), "the name of a Tool is made of 1 to 128 letters"),
        (lambda: Tool("get weather!"), "the name of a Tool is made of .*, not 'get weather!'"),
        (lambda: Tool("weather", 5), "`Tool.description` is a text, not 5"),  # type: ignore[arg-type]
        (lambda: Tool("weather", strict=1), "`Tool.strict` is True or False, not 1"),  # type: ignore[arg-type]
        (lambda: Tool("weather", parameters="{}"), "parameters of the Tool 'weather' are a JSON Schema .*: it is '{}'"),  # type: ignore[arg-type]
        (lambda: Tool("weather", parameters={"city": {"type": "string"}}), "put them under `properties`"),
        (lambda: Tool("weather", parameters={"type": "string"}), "its `type` has to be \"object\", and is 'string'"),
        (lambda: Tool("weather", parameters={"properties": ["city"]}), "its `properties` are no mapping"),
        (
            lambda: Tool("weather", parameters={"properties": {"city": "string"}}),
            "its `properties` has a schema",
        ),
        (lambda: Tool("weather", parameters={"required": "city"}), "its `required` is no list of names"),
        (lambda: Tool("weather", parameters={1: {}}), "a key of it is no text"),  # type: ignore[dict-item]
        (lambda: Prompt([]), "the prompt is empty"),
        (lambda: Prompt([Message("user"), Message("assistant", "")]), "the prompt is empty"),
        (lambda: Prompt([Message("system", "Be brief")]), "system messages only"),
        (lambda: Prompt([{"role": "user", "content": "Why?"}]), "takes a text or Message objects"),  # type: ignore[list-item]
        (lambda: Prompt("Why?", max_tokens=0), "max_tokens must be at least 1, not 0"),
        (lambda: Prompt("Why?", max_tokens="9"), "max_tokens must be a whole number, not '9'"),  # type: ignore[arg-type]
        (lambda: Prompt("Why?", seed=1.5), "seed must be a whole number, not 1.5"),  # type: ignore[arg-type]
        (lambda: Prompt("Why?", top_p="all"), "top_p must be a number, not 'all'"),  # type: ignore[arg-type]
        (lambda: Prompt("Why?", parallel_tool_calls=0), "parallel_tool_calls is True or False, not 0"),  # type: ignore[arg-type]
        (lambda: Prompt("Why?", extra_protocol=1), "extra_protocol is the name of a protocol, not 1"),  # type: ignore[arg-type]
        (lambda: Prompt("Why?", tools=[{"name": "weather"}]), "tools of a Prompt are Tool objects"),  # type: ignore[list-item]
        (lambda: Prompt("Why?", response_schema="{}"), "a response_schema is a JSON Schema"),  # type: ignore[arg-type]
        (lambda: Prompt("half a \ud83d pair"), "the user message is not valid Unicode text: .* at character 7"),
        (lambda: Prompt("Why?", system="\udc00"), "the system message is not valid Unicode"),
        (lambda: Message("assistant", [Text("\udfff")]), "the assistant message is not valid Unicode"),
        (lambda: Message("tool", "21 degrees"), "a tool message needs the tool_call_id"),
    ],
)
def test_what_no_model_could_answer_is_refused_at_once(make: Callable[[], object], reason: str) -> None:
    """`InvalidPromptError` where the mistake is made, and in words that say what to do."""
    with pytest.raises(InvalidPromptError, match=reason):
        make()


def test_an_error_shows_the_beginning_of_what_is_wrong() -> None:
    """However long it is."""
    with pytest.raises(InvalidPromptError) as caught:
        Message("user", "?", name=[9] * 10_000)  # type: ignore[arg-type]  # the mistake
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "make",
    [
        lambda: Prompt("Why?", temperature=0, top_p=1),
        lambda: Prompt("Why?", temperature=3.5),
        lambda: Prompt("Why?", tool_choice="auto"),
        lambda: Prompt("Why?", tools=WEATHER, tool_choice="weather"),
        lambda: Prompt("Why?", tool_choice="web_search", extra={"tools": [{"type": "web_search"}]}),
        lambda: Prompt("Why?", tool_choice="required", extra={"tools": [{"type": "web_search"}]}),
        lambda: Tool("files.read:v2-x" + "_" * 113),
        lambda: Tool("weather", parameters={"type": ["object", "null"], "required": ("city",)}),
        lambda: Tool("weather", parameters={"$ref": "#/$defs/Place", "$defs": {"Place": {"type": "object"}}}),
        lambda: Prompt([Message("user", " "), Message("assistant", "Because")]),
        lambda: Prompt([Message("user", [PICTURE])]),
    ],
)
def test_what_some_provider_takes_is_let_through(make: Callable[[], object]) -> None:
    """Ranges, names and roles that not all of them know; their own tools, which stand in `extra`."""
    make()


def test_one_of_what_may_be_several_needs_no_list() -> None:
    """As a message does not."""
    assert Prompt("Why?", tools=WEATHER).tools == (WEATHER,)
    assert Message("assistant", tool_calls=CALL, thoughts=Thought("hm")).tool_calls == (CALL,)


def test_arguments_in_a_mapping_are_made_json() -> None:
    """The text that a model would have written."""
    assert ToolCall("1", "weather", {"city": "Malm\u00f6"}).arguments == '{"city":"Malm\u00f6"}'


def test_a_role_that_does_not_exist_is_refused() -> None:
    """Roles are a closed set; their names are accepted for them."""
    assert Message("assistant", "Because").role is Role.ASSISTANT
    with pytest.raises(InvalidPromptError, match="narrator"):
        Message("narrator", "Once upon a time")


def test_a_message_of_tool_calls_needs_no_text() -> None:
    """An assistant's message may say nothing but whom to call, and a tool's names the call that it answers."""
    asked = Message("assistant", tool_calls=[CALL])
    answered = Message("tool", "21 degrees", tool_call_id="call_1")
    assert Prompt([asked, answered]).messages == (asked, answered)
    assert (asked.text, asked.tool_calls) == ("", (CALL,))


def test_the_text_of_a_message_is_that_of_its_parts() -> None:
    """Pictures have none."""
    picture = Image(data=b"\x89PNG", media_type="image/png")
    message = Message("user", [Text("Who "), picture, Text("is this?")])
    assert message.text == "Who is this?"
    assert message.content == (Text("Who "), picture, Text("is this?"))


def test_a_picture_does_not_fill_a_log() -> None:
    """Its bytes are no part of its repr."""
    assert "PNG" not in repr(Image(data=b"\x89PNG" * 1000, media_type="image/png"))


def test_prompts_are_values() -> None:
    """Equal where they say the same, and never changed."""
    prompt = Prompt("Why?", temperature=0.5)
    assert prompt == Prompt([Message("user", "Why?")], temperature=0.5)
    with pytest.raises(FrozenInstanceError):
        prompt.temperature = 1.0  # type: ignore[misc]  # what is tested


# -- answers

USAGE = TokenUsage(10, 5, cached_tokens=4, reasoning_tokens=2)

RESPONSE = WizardResponse(
    "Because.",
    "primary",
    upstream_model="gpt-5-mini-2026",
    usage=USAGE,
    cost=Decimal("0.00150"),
    finish_reason=FinishReason.TOOL_CALLS,
    raw_finish_reason="tool_calls",
    thoughts=(Thought("hm"),),
    tool_calls=(CALL,),
    attempts=(Attempt("primary", 0.0, 1.5),),
    served_by=ServedBy.RETRY,
    request_id="r1",
)


def test_usage_counts_cached_and_reasoning_tokens_once() -> None:
    """They are part of the input and of the output."""
    assert USAGE.total_tokens == 15
    assert USAGE.to_dict() == {
        "input_tokens": 10,
        "output_tokens": 5,
        "cached_tokens": 4,
        "reasoning_tokens": 2,
        "cache_write_tokens": 0,
        "total_tokens": 15,
    }


def test_a_response_is_shown_in_json() -> None:
    """All that `--json` promises, in its order; money as text, so that no digit is lost."""
    assert RESPONSE.to_dict() == {
        "text": "Because.",
        "model": "primary",
        "upstream_model": "gpt-5-mini-2026",
        "usage": USAGE.to_dict(),
        "finish_reason": "tool_calls",
        "attempts": [RESPONSE.attempts[0].to_dict()],
        "cost": "0.00150",
        "served_by": "retry",
        "cached": False,
        "stale": False,
        "request_id": "r1",
        "reasoning": "hm",
        "tool_calls": [{"id": "call_1", "name": "weather", "arguments": '{"city": "Oslo"}'}],
    }
    assert json.loads(json.dumps(RESPONSE.to_dict())) == RESPONSE.to_dict()


def test_a_response_shows_what_is_unknown_as_null_and_leaves_out_what_there_is_not() -> None:
    """No invented zeros; reasoning and tool calls only where the model gave any."""
    assert WizardResponse("Because.", "primary").to_dict() == {
        "text": "Because.",
        "model": "primary",
        "upstream_model": None,
        "usage": None,
        "finish_reason": "stop",
        "attempts": [],
        "cost": None,
        "served_by": "direct",
        "cached": False,
        "stale": False,
        "request_id": "",
    }


# -- streams


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (TextDelta("Be"), {"type": "text", "text": "Be"}),
        (ReasoningDelta("hm"), {"type": "reasoning", "text": "hm"}),
        (
            ToolCallDelta(1, "call_1", "weather", '{"ci'),
            {"type": "tool_call", "index": 1, "id": "call_1", "name": "weather", "arguments": '{"ci'},
        ),
        (ToolCallDelta(0), {"type": "tool_call", "index": 0, "id": None, "name": None, "arguments": ""}),
        (UsageUpdate(USAGE), {"type": "usage", "usage": USAGE.to_dict()}),
        (Reset("primary", "cut"), {"type": "reset", "model": "primary", "reason": "cut"}),
        (End(RESPONSE), {"type": "end"} | RESPONSE.to_dict()),
    ],
    ids=lambda item: type(item).__name__,
)
def test_an_event_is_shown_in_json_with_its_type(event: StreamEvent, shown: dict[str, object]) -> None:
    """One line of a JSON stream says what it is."""
    assert event.to_dict() == shown
    assert json.loads(json.dumps(shown)) == shown


def test_only_deltas_are_content() -> None:
    """What ends the wait for a first token, and cannot be taken back."""
    assert isinstance(TextDelta("x"), ContentDelta)
    assert isinstance(ReasoningDelta("x"), ContentDelta)
    assert isinstance(ToolCallDelta(0), ContentDelta)
    assert not isinstance(UsageUpdate(USAGE), ContentDelta)
    assert not isinstance(Finished(FinishReason.STOP), ContentDelta)


def test_limits_are_unknown_until_a_header_says_so() -> None:
    """None everywhere: absent is not zero."""
    headers = LimitHeaders()
    assert (headers.requests, headers.tokens, headers.retry_after) == (None, None, None)
    window = LimitWindow()
    assert (window.limit, window.remaining, window.reset) == (None, None, None)


def test_a_part_that_is_neither_text_nor_image_is_refused() -> None:
    """A bare string among the parts would be lost without a word."""
    with pytest.raises(InvalidPromptError, match="Text or Image"):
        Message("user", ["Why?"])  # type: ignore[list-item]  # the mistake


@pytest.mark.parametrize(
    "make",
    [
        lambda: Message("usr", "Why?"),
        lambda: Message("user", None),  # type: ignore[arg-type]  # what an untyped program may write
        lambda: Prompt("Why?", stop=5),  # type: ignore[arg-type]  # the same
    ],
)
def test_what_is_no_message_or_prompt_is_told_as_any_other_mistake(make: Callable[[], object]) -> None:
    """Whoever catches the package's errors catches these, too."""
    with pytest.raises(InvalidPromptError):
        make()


def test_a_text_of_a_subclass_of_str_is_its_text() -> None:
    """Other libraries' texts are such, LangChain's for one; a JSON encoder would refuse them."""

    class Styled(str):
        __slots__ = ()

    assert type(Message("user", Styled("Why?")).content) is str
    assert type(Prompt(Styled("Why?")).conversation[0].content) is str
