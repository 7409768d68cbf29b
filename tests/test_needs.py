"""What prompts need: a lower bound of their tokens, and what a model has to be able to do."""

import pytest

from wizard_actors.needs import Needs, needs_of
from wizard_actors.types import Image, Message, Prompt, Role, Text, Tool, ToolCall

PICTURE = Image(url="https://example.org/cat.png")


def tokens(text: str) -> int:
    """Return the bound for a prompt of this text."""
    return needs_of(Prompt(text)).tokens


def test_a_plain_question_needs_room_only() -> None:
    """One token a word, at least."""
    assert needs_of(Prompt("Why do actors restart?")) == Needs(tokens=4)


def test_all_of_the_conversation_needs_room() -> None:
    """The system's words, the user's and the assistant's."""
    prompt = Prompt([Message("user", "one two"), Message("assistant", "three")], system="four five")
    assert needs_of(prompt).tokens == 5


@pytest.mark.parametrize(
    ("text", "least"),
    [
        ("a" + " " * 80 + "b", 2),
        ("\n\t \n" + "x", 1),
        ("...\n}\n}\n- -- ***", 0),
        ("=" * 64, 0),
        ("(words) in-between, marked.", 2),
        ("x" * 255, 1),
        ("x" * 256, 2),
        ("x" * 1024, 5),
        ("=" * 256, 1),
    ],
)
def test_what_may_be_one_token_counts_as_one_at_most(text: str, least: int) -> None:
    """A run of 80 spaces may be a token, or part of one; so may marks and line breaks."""
    assert tokens(text) == least


def test_pictures_and_tools_need_no_tokens() -> None:
    """What they take differs by provider, and nobody can tell beforehand."""
    prompt = Prompt(
        [Message("user", (PICTURE, Text("What is it?")))],
        tools=[Tool("look", "Looks it up in a book of many words")],
        response_schema={"type": "object"},
    )
    assert needs_of(prompt).tokens == 3


def test_the_answers_length_needs_no_room() -> None:
    """Some providers refuse a prompt that leaves too little room for `max_tokens`, others just stop there."""
    assert needs_of(Prompt("Why?", max_tokens=100_000)).tokens == 1


def test_pictures_tools_and_schemas_are_needed_where_they_stand() -> None:
    """Each by itself."""
    assert needs_of(Prompt([Message("user", (PICTURE,))])) == Needs(images=True)
    assert needs_of(Prompt("Why?", tools=[Tool("look")])) == Needs(1, tools=True)
    assert needs_of(Prompt("Why?", response_schema={"type": "object"})) == Needs(1, schema=True)


@pytest.mark.parametrize("prompt", [Prompt("Why?", temperature=0.0), Prompt("Why?", top_p=0.5)])
def test_either_of_the_sampling_parameters_is_one(prompt: Prompt) -> None:
    """A model that takes none of them refuses each."""
    assert needs_of(prompt) == Needs(1, sampling=True)


def test_a_conversation_with_tool_calls_in_it_needs_tools() -> None:
    """A model without tools cannot read it, even where no more tools are offered."""
    call = ToolCall("1", "look", "{}")
    asked = Message(Role.ASSISTANT, tool_calls=(call,))
    assert needs_of(Prompt([Message("user", "Why?"), asked])).tools
    assert needs_of(Prompt([asked, Message("tool", "so", tool_call_id="1"), Message("user", "Why?")])).tools


def test_an_empty_schema_is_a_schema() -> None:
    """It is sent, too."""
    assert needs_of(Prompt("Why?", response_schema={})).schema


def test_texts_are_not_counted_where_they_fit_in_any_case() -> None:
    """No text has more tokens than characters; without a window that is known, everything is counted."""
    prompt = Prompt([Message("user", "one two"), Message("assistant", "three")])
    assert [needs_of(prompt, smallest_window=window).tokens for window in (11, 12, 1000)] == [3, 0, 0]
    assert needs_of(Prompt("a")).tokens == 1


def test_a_long_run_counts_in_whole_tokens() -> None:
    """256 characters each."""
    found = tokens("x" * 700)
    assert (found, type(found)) == (3, int)


def test_a_message_of_parts_that_are_texts_shows_no_picture() -> None:
    """So that any model may be asked."""
    assert not needs_of(Prompt([Message("user", (Text("one"), Text("two")))])).images
