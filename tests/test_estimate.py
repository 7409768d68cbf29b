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
