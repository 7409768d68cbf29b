"""Rounds of tools: every result has its call, every call its result."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from wizard_actors.errors import InvalidPromptError
from wizard_actors.types import Message, Prompt, ToolCall

USER = Message("user", "How is Oslo?")
SYSTEM = Message("system", "Be brief")
SAID = Message("assistant", "Fine.")


def called(*ids: str) -> Message:
    """Return a message that makes calls of these ids."""
    return Message("assistant", tool_calls=[ToolCall(each, "weather", "{}") for each in ids])


def result(call_id: str) -> Message:
    """Return the result of a call."""
    return Message("tool", "21 C", tool_call_id=call_id)


@pytest.mark.parametrize(
    "messages",
    [
        [USER, called("a"), result("a")],
        [USER, called("a", "b"), result("b"), result("a"), USER],
        [called("a"), result("a"), SAID],
        [USER, called("a"), SYSTEM, result("a"), SAID, USER],
        [USER, called("a"), USER, result("a")],
        [USER, called("a"), called("b"), result("a"), result("b")],
        [USER, called("call_0"), result("call_0"), SAID, USER, called("call_0"), result("call_0")],
        [USER, called("a", "a"), result("a"), result("a")],
        [USER, called("a")],
        [USER, called("a", "b"), SYSTEM],
    ],
    ids=[
        "one",
        "two, in another order",
        "cut before a call",
        "a system message between",
        "the user between",
        "calls in two messages",
        "ids that come again",
        "one id for two calls",
        "not answered yet",
        "not answered yet, and a system message",
    ],
)
def test_what_a_provider_takes_is_let_through(messages: Sequence[Message]) -> None:
    """Not all of them take each of these; that is for them to say."""
    assert Prompt(messages).messages == tuple(messages)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([result("a"), USER], r"messages\[0\] is the result of the tool call 'a', and no message before it makes"),
        ([USER, called("b"), result("a")], r"messages\[2\] is the result of the tool call 'a'"),
        ([result("a"), called("a"), result("a")], r"messages\[0\] is the result"),
        ([USER, called("a"), result("a"), result("a")], r"messages\[3\] is a second result of the tool call 'a'"),
        ([USER, called("a"), USER], r"messages\[1\] makes the tool call 'a', and no message after it has the result"),
        ([USER, called("a"), SAID], r"messages\[1\] makes the tool call 'a'.* tool_call_id='a'.*is_error=True"),
        ([USER, called("a", "b"), result("a")], r"messages\[1\] makes the tool call 'b'"),
        ([called("a"), USER, called("a"), result("a")], r"messages\[0\] makes the tool call 'a'"),
    ],
)
def test_what_no_provider_takes_is_refused(messages: Sequence[Message], reason: str) -> None:
    """Where the prompt is made, with the place of the message and what to do."""
    with pytest.raises(InvalidPromptError, match=reason):
        Prompt(messages)


@pytest.mark.parametrize("name", ["previous_response_id", "conversation"])
def test_a_result_may_stand_alone_where_the_provider_keeps_the_conversation(name: str) -> None:
    """Its call is there."""
    assert Prompt(result("a"), extra={name: "x_1"}).messages == (result("a"),)
    with pytest.raises(InvalidPromptError, match="makes the tool call 'b'"):
        Prompt([called("b"), result("a")], extra={name: "x_1"})
