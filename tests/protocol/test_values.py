"""Prompts, answers, events and sessions as JSON: what is wrong is told with its place, quickly, and without content."""

from __future__ import annotations

import time
from collections.abc import Mapping
from decimal import Decimal

import msgspec
import pytest

from tests.protocol.samples import NOW
from wizard_actors.errors import Attempt, InvalidPromptError, NetworkError, ParseError
from wizard_actors.protocol.values import (
    event_from,
    event_to,
    prompt_from,
    prompt_to,
    response_from,
    response_to,
    session_from,
    session_to,
    summary_from,
    summary_to,
)
from wizard_actors.testing.storage_bench import everything
from wizard_actors.types import (
    End,
    FinishReason,
    Image,
    Message,
    Prompt,
    Role,
    ServedBy,
    Signature,
    Text,
    TextDelta,
    Thought,
    TokenUsage,
    Tool,
    ToolCall,
    WizardResponse,
)

PATIENCE = 5.0
"""Seconds of the processor that reading a prompt may take, in which nobody else is served: with coverage, and on a slow
machine. It takes a twentieth of that; whatever looks at each value for each other one takes minutes.
"""

MANY = 99_000
"""Values, of the 100,000 that a message may hold."""

SECRET = "what the patient told the doctor"


def over_the_wire(plain: object) -> object:
    """Return a value as it comes out of JSON."""
    return msgspec.json.decode(msgspec.json.encode(plain))


# -- prompts -----------------------------------------------------------------------------------------


def test_a_text_is_a_prompt() -> None:
    """And so is an object whose messages are a text."""
    assert prompt_to("Why?") == "Why?"
    assert prompt_from("Why?") == Prompt("Why?")
    assert prompt_from({"messages": "Why?", "system": "Be brief."}) == Prompt("Why?", system="Be brief.")


def test_a_prompt_of_everything_comes_back() -> None:
    """Pictures, tools, calls, results, reasoning with its signature, a schema, and fields of the provider's own."""
    prompt = Prompt(
        [
            Message(Role.USER, [Text("What is this?"), Image(data=b"\x00\xff", media_type="image/png")], name="ann"),
            Message(
                Role.ASSISTANT,
                "I look.",
                ToolCall("call_1", "look", '{"at": 1}', Signature("gemini", "c2ln")),
                thoughts=Thought("Hm.", Signature("anthropic", "c2ln"), id="rs_1"),
            ),
            Message(Role.TOOL, "A cat.", tool_call_id="call_1", is_error=True),
        ],
        system="Be brief.",
        tools=Tool("look", "looks", {"type": "object", "properties": {"at": {"type": "integer"}}}, strict=True),
        tool_choice="auto",
        response_schema={"type": "object"},
        temperature=0.5,
        top_p=1.0,
        max_tokens=5,
        stop=["END"],
        seed=7,
        extra={"user": "u"},
    )

    assert prompt_from(over_the_wire(prompt_to(prompt))) == prompt


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "`prompt` must be a text, or an object"),
        (5, "`prompt` must be a text, or an object"),
        ([], "`prompt` must be a text, or an object"),
        ("", "the prompt is empty"),
        ({}, "`prompt.messages` is missing"),
        ({"messages": 5}, "`prompt.messages` must be a list"),
        ({"messages": ""}, "the prompt is empty"),
        ({"messages": "x", "colour": 1, "size": 2}, "`prompt` has unknown keys: 'colour', 'size'"),
        ({"messages": "x", "stop": ["a", 5]}, r"`prompt.stop\[1\]` must be a text"),
        ({"messages": "x", "temperature": "warm"}, "`prompt.temperature`"),
        ({"messages": "x", "seed": True}, "`prompt.seed`"),
        ({"messages": "x", "tools": [{"name": "f"}, {}]}, r"`prompt.tools\[1\].name` is missing"),
        ({"messages": [{"role": "user"}, {"role": "poet"}]}, r"`prompt.messages\[1\].role` must be one of system, "),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            r"messages\[0\].content\[0\].text` is missing",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "gif"}]}]}, r"content\[0\]` must have one of the types"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "a tool message needs the tool_call_id"),
    ],
)
def test_what_is_no_prompt_is_told_with_its_place(value: object, told: str) -> None:
    """So that whoever wrote it finds it."""
    with pytest.raises(InvalidPromptError, match=told):
        prompt_from(value)


def test_a_prompt_among_several_is_told_by_its_own_place() -> None:
    """A batch has many."""
    with pytest.raises(InvalidPromptError, match=r"`prompts\[3\].messages` is missing"):
        prompt_from({}, "prompts[3]")


def test_a_prompt_that_is_no_json_is_not_sent() -> None:
    """A client is told before anything goes out."""
    with pytest.raises(InvalidPromptError, match="cannot be sent as JSON"):
        prompt_to(Prompt("Why?", extra={"odd": object()}))


@pytest.mark.parametrize(
    "value",
    [
        [SECRET],
        {"messages": "x", SECRET[:10]: 1, "temperature": SECRET},
        {"messages": [SECRET]},
        {"messages": [{"role": SECRET}]},
        {"messages": [{"role": "user", "content": SECRET, "tool_calls": SECRET}]},
        {"messages": [{"role": "user", "content": [{"type": SECRET}]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": [SECRET]}]}]},
        {"messages": [{"role": "tool", "content": SECRET}]},
        {"messages": [{"role": "user", "content": SECRET, "is_error": True}]},
        {"messages": [{"role": "user", "content": [{"type": "image", "data": SECRET, "media_type": "image/png"}]}]},
        {"messages": [{"role": "user", "content": SECRET}, {"role": "user", "content": {"a": SECRET}}]},
        {"messages": [{"role": "assistant", "content": SECRET, "thoughts": [SECRET]}]},
        {"messages": SECRET, "system": [SECRET]},
        {"messages": SECRET, "seed": SECRET},
        {"messages": SECRET, "top_p": 7},
        {"messages": SECRET, "response_schema": SECRET},
    ],
)
def test_errors_repeat_nothing_that_anybody_said(value: object) -> None:
    """Errors are logged, and seen by others than those who spoke."""
    with pytest.raises(InvalidPromptError) as caught:
        prompt_from(value)

    assert SECRET not in str(caught.value)


WRONG: Mapping[str, object] = {
    "messages": {"messages": [1] * MANY},
    "empty messages": {"messages": [{}] * MANY},
    "roles": {"messages": [{"role": 1}] * (MANY // 2)},
    "calls": {"messages": [{"role": "assistant", "tool_calls": [{}] * MANY}]},
    "parts": {"messages": [{"role": "user", "content": [{}] * MANY}]},
    "thoughts": {"messages": [{"role": "assistant", "thoughts": [{"signature": {}}] * (MANY // 2)}]},
    "stop": {"messages": "x", "stop": [1] * MANY},
    "tools": {"messages": "x", "tools": [{}] * MANY},
    "keys": {"messages": "x", **dict.fromkeys(map(str, range(MANY)), 1)},
    "a long key": {"messages": "x", "k" * 4_000_000: 1},
    "the last of many": {"messages": [*({"role": "user", "content": "a"} for _ in range(MANY // 3)), 1]},
    "unanswered calls": {
        "messages": [
            {"role": "assistant", "tool_calls": [{"id": str(n), "name": "f", "arguments": ""}]}
            for n in range(MANY // 6)
        ]
    },
    "stray results": {"messages": [{"role": "tool", "tool_call_id": str(n)} for n in range(MANY // 3)]},
    "a picture": {"messages": [{"role": "user", "content": [{"type": "image", "data": "A" * 3_900_001}]}]},
    "same tools": {"messages": "x", "tools": [{"name": "f"}] * (MANY // 2)},
    "parameters": {"messages": "x", "tools": [{"name": "f", "parameters": dict.fromkeys(map(str, range(MANY)), 1)}]},
}


@pytest.mark.parametrize("value", WRONG.values(), ids=WRONG)
def test_no_wrong_prompt_takes_long_to_be_refused(value: object) -> None:
    """A hundred thousand wrong values are not each looked at: the first is told, in a line."""
    began = time.thread_time()  # nobody else's
    with pytest.raises(InvalidPromptError) as caught:
        prompt_from(value)
    took = time.thread_time() - began

    assert took < PATIENCE
    assert len(str(caught.value)) < 600


# -- answers -----------------------------------------------------------------------------------------

RESPONSE = WizardResponse(
    text="Because.",
    model="primary",
    upstream_model="gpt-5",
    usage=TokenUsage(9, 2, 1, 1, 3),
    cost=Decimal("0.001200"),
    finish_reason=FinishReason.TOOL_CALLS,
    raw_finish_reason="tool_use",
    thoughts=(Thought("Hm.", Signature("anthropic", "c2ln"), redacted=True, id="rs_1"),),
    tool_calls=(ToolCall("call_1", "look", "{}", Signature("gemini", "c2ln")),),
    attempts=(Attempt("primary", 1.0, 2.0, 0.5, cost=Decimal("0.001200")),),
    served_by=ServedBy.RETRY,
    cached=True,
    stale=True,
    request_id="0123456789abcdef",
    raw=({"id": "msg_1"},),
)


def test_an_answer_comes_back() -> None:
    """With what it takes to go on from it: signatures, the digits of its cost, what its provider sent."""
    assert response_from(over_the_wire(response_to(RESPONSE, now=NOW)), now=1.0) == RESPONSE


def test_the_errors_of_an_answers_attempts_come_back() -> None:
    """Of their classes."""
    failed = Attempt("primary", 1.0, 2.0, error=NetworkError("reset", model="primary"))
    response = WizardResponse("x", "backup", attempts=(failed,))

    [attempt] = response_from(over_the_wire(response_to(response, now=NOW)), now=1.0).attempts

    assert isinstance(attempt.error, NetworkError)
    assert attempt.error.to_dict() == failed.error.to_dict() if failed.error else False


def test_an_answer_of_a_newer_server_is_read() -> None:
    """What it says that is not known here is passed over."""
    plain = response_to(RESPONSE, now=NOW)
    plain["mood"] = "good"
    add_to_all([plain["usage"], plain["thoughts"], plain["tool_calls"]])

    assert response_from(over_the_wire(plain), now=1.0) == RESPONSE


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        [],
        {},
        {"text": "x"},
        {"text": 5, "model": "a"},
        {"text": "x", "model": "a", "finish_reason": "bored"},
        {"text": "x", "model": "a", "served_by": []},
        {"text": "x", "model": "a", "usage": 5},
        {"text": "x", "model": "a", "usage": {"input_tokens": "9"}},
        {"text": "x", "model": "a", "thoughts": {}},
        {"text": "x", "model": "a", "tool_calls": [{}]},
        {"text": "x", "model": "a", "attempts": [5]},
        {"text": "x", "model": "a", "raw": [5]},
    ],
)
def test_a_garbled_answer_is_a_parse_error(value: object) -> None:
    """Which says what was wrong with it."""
    with pytest.raises(ParseError, match="the server sent an answer that cannot be read"):
        response_from(value, now=1.0)


# -- events ------------------------------------------------------------------------------------------


def test_the_end_is_no_event() -> None:
    """It travels as the response of the request."""
    with pytest.raises(TypeError):
        event_to(End(RESPONSE))


def test_events_of_a_newer_server_are_passed_over() -> None:
    """A kind that is not known here is None, a field that is not known is left out."""
    assert event_from({"type": "mood", "mood": "good"}) is None
    assert event_from({"type": "text", "text": "Hi", "mood": "good"}) == TextDelta("Hi")


@pytest.mark.parametrize("value", [None, 5, [], {}, {"type": 5}, {"type": "text"}, {"type": "usage", "usage": 5}])
def test_a_garbled_event_is_a_parse_error(value: object) -> None:
    """Nothing else is raised."""
    with pytest.raises(ParseError, match="the server sent an event that cannot be read"):
        event_from(value)


# -- sessions ----------------------------------------------------------------------------------------


def test_a_session_comes_back() -> None:
    """Whole."""
    assert session_from(over_the_wire(session_to(everything()))) == everything()
    assert summary_from(over_the_wire(summary_to(everything().summary))) == everything().summary


def test_a_session_of_a_newer_server_is_read() -> None:
    """What is not known here is passed over, in its turns and messages too."""
    plain = over_the_wire(session_to(everything()))
    add_to_all(plain)

    assert session_from(plain) == everything()


def add_to_all(plain: object) -> None:
    """Add a field to each object but the context, whose keys are the program's own, and what a provider wants back."""
    if isinstance(plain, dict):
        for key, inner in plain.items():
            if key != "context":
                add_to_all(inner)
        plain["mood"] = "good"
    elif isinstance(plain, list):
        for inner in plain:
            add_to_all(inner)


@pytest.mark.parametrize("value", [None, 5, [], {}, {"id": "a"}, {"id": "a", "created_at": "now"}])
def test_a_garbled_session_is_a_parse_error(value: object) -> None:
    """In a list too."""
    with pytest.raises(ParseError, match="the server sent a session that cannot be read"):
        session_from(value)
    with pytest.raises(ParseError, match="the server sent a session of a list that cannot be read"):
        summary_from(value)
