"""What goes in and what comes out: prompts and their mistakes, answers and events as JSON."""

from __future__ import annotations

import json
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
    ("prompt", "reason"),
    [
        (lambda: Prompt(""), "the prompt is empty"),
        (lambda: Prompt([]), "the prompt is empty"),
        (lambda: Prompt([Message("user"), Message("assistant", "")]), "the prompt is empty"),
        (lambda: Prompt([Message("system", "Be brief")]), "system messages only"),
        (lambda: Prompt([{"role": "user", "content": "Why?"}]), "takes a text or Message objects"),  # type: ignore[list-item]
        (lambda: Prompt("Why?", max_tokens=0), "max_tokens must be at least 1, not 0"),
        (lambda: Prompt("Why?", max_tokens="9"), "max_tokens must be a whole number, not '9'"),  # type: ignore[arg-type]
        (lambda: Prompt("Why?", seed=1.5), "seed must be a whole number, not 1.5"),  # type: ignore[arg-type]
        (lambda: Prompt("Why?", top_p="all"), "top_p must be a number, not 'all'"),  # type: ignore[arg-type]
        (lambda: Prompt("Why?", tools=[{"name": "weather"}]), "tools of a Prompt are Tool objects"),  # type: ignore[list-item]
        (lambda: Prompt("Why?", response_schema="{}"), "a response_schema is a JSON Schema"),  # type: ignore[arg-type]
        (lambda: Prompt("half a \ud83d pair"), "the user message is not valid Unicode text: .* at character 7"),
        (lambda: Prompt("Why?", system="\udc00"), "the system message is not valid Unicode"),
        (lambda: Message("assistant", [Text("\udfff")]), "the assistant message is not valid Unicode"),
        (lambda: Message("tool", "21 degrees"), "a tool message needs the tool_call_id"),
        (Image, "either a url or data"),
        (lambda: Image(url="https://host/x.png", data=b"x"), "either a url or data"),
        (lambda: Image(data=b"x"), "needs its media_type, such as 'image/png'"),
    ],
)
def test_what_no_model_could_answer_is_refused_at_once(prompt: type[Prompt], reason: str) -> None:
    """`InvalidPromptError` where the mistake is made, and in words that say what to do."""
    with pytest.raises(InvalidPromptError, match=reason):
        prompt()  # type: ignore[call-arg]  # each with its own arguments


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
