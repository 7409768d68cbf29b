"""Estimates of tokens: plausible for what people send, never nothing."""

import pytest

from wizard_actors.estimate import TYPICAL_OUTPUT, estimate_input, estimate_output
from wizard_actors.types import Image, Message, Prompt, Role, Text, Tool, ToolCall


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("Why?", 5, 12),
        ("The quick brown fox jumps over the lazy dog. " * 20, 200, 300),  # ten tokens a sentence
        ("def add(a: int, b: int) -> int:\n    return a + b\n" * 10, 120, 260),
        ("Съешь же ещё этих мягких французских булок. " * 10, 120, 260),
        ("敏捷的棕色狐狸跳过了懒狗。" * 10, 60, 150),
    ],
)
def test_texts_of_several_languages_are_in_the_right_order(text: str, least: int, most: int) -> None:
    """Within a factor of about a third of what today's tokenizers find."""
    assert least <= estimate_input(Prompt(text)) <= most


def test_everything_that_is_sent_counts() -> None:
    """A system prompt, further messages, tool calls, tools, a schema and images each add to it."""
    plain = Prompt([Message(Role.USER, "Why?")])
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    call = Message(Role.ASSISTANT, tool_calls=[ToolCall("1", "weather", '{"city": "Rome"}')])
    picture = Message(Role.USER, [Text("Why?"), Image(url="https://example.com/a.png")])
    others = [
        Prompt(plain.messages, system="Be brief"),
        Prompt([*plain.messages, Message(Role.ASSISTANT, "Because.")]),
        Prompt([*plain.messages, call]),
        Prompt(plain.messages, tools=[Tool("weather", "Tells the weather", schema)]),
        Prompt(plain.messages, response_schema=schema),
        Prompt([picture]),
    ]
    base = estimate_input(plain)
    assert all(estimate_input(other) > base for other in others)
    assert estimate_input(Prompt([picture])) == base + 1000


def test_a_schema_that_is_no_json_is_estimated_all_the_same() -> None:
    """Whether it can be sent is not for the estimate to say."""
    assert estimate_input(Prompt("Why?", response_schema={"a": object()})) > estimate_input(Prompt("Why?"))


def test_the_answer_is_as_long_as_it_may_be_or_as_usual() -> None:
    """What is allowed is what providers reserve."""
    assert estimate_output(Prompt("Why?", max_tokens=50), typical=900) == 50
    assert estimate_output(Prompt("Why?"), typical=900) == 900
    assert estimate_output(Prompt("Why?"), typical=0) == 1
    assert estimate_output(Prompt("Why?")) == TYPICAL_OUTPUT == 256


def long(tokens: int) -> str:
    """Return a text that counts for so many tokens, in fifteens: 56 ASCII characters for fifteen."""
    return "x" * (tokens * 56 // 15)


def fields(tokens: int) -> dict[str, object]:
    """Return a schema whose JSON counts for so many tokens."""
    return {"type": "object", "title": long(tokens)[len('{"type":"object","title":""}') :]}


class NoJson:
    """Shown by Python as a text of 48 characters, with which `{'d': ...}` has 56."""

    def __repr__(self) -> str:
        return "x" * (56 - len("{'d': }"))


ONE = Message(Role.USER, long(15))
BASE = 3 + 4 + 15


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        (Prompt([ONE]), BASE),
        (Prompt([ONE, ONE]), BASE + 4 + 15),
        (Prompt([Message(Role.USER, long(15), name=long(15))]), BASE + 15),
        (Prompt([ONE], tools=[Tool(long(15), long(30), fields(60))]), BASE + 10 + 15 + 30 + 60),
        (Prompt([ONE], tools=[Tool("a" + long(15)[1:], long(30), fields(60)), Tool(long(15), "", fields(15))]), 177),
        (Prompt([ONE], response_schema=fields(45)), BASE + 10 + 45),
        (Prompt([ONE], response_schema={"d": NoJson()}), BASE + 10 + 15),
        (Prompt([Message(Role.USER, [Text(long(15)), *[Image(url="https://example.com/a.png")] * 2])]), BASE + 2000),
        (
            Prompt(
                [
                    ONE,
                    Message(Role.ASSISTANT, tool_calls=[ToolCall(each, long(15), long(30)) for each in "ab"]),
                    Message(Role.TOOL, "", tool_call_id="a"),
                    Message(Role.TOOL, "", tool_call_id="b"),
                ]
            ),
            BASE + 3 * 4 + 2 * (8 + 15 + 30),
        ),
    ],
)
def test_each_part_counts_as_the_rules_say(prompt: Prompt, tokens: int) -> None:
    """To the token: those of the parts are added up."""
    assert estimate_input(prompt) == tokens
