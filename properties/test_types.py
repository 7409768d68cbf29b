"""Prompts, usage and events, for any content."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from wizard_actors.errors import InvalidPromptError
from wizard_actors.types import (
    Image,
    Message,
    Prompt,
    Role,
    Text,
    TextDelta,
    TokenUsage,
    ToolCall,
    ToolCallDelta,
    WizardResponse,
)

any_text = st.text(st.characters(exclude_categories=()))
"""Lone surrogates too: what a careless decoder hands over."""

contents = st.text() | st.lists(st.builds(Text, st.text()) | st.builds(Image, st.text(min_size=1)), max_size=4)
calls = st.lists(st.builds(ToolCall, st.text(), st.text(), st.text()), max_size=2)
messages = st.builds(Message, st.sampled_from([role for role in Role if role is not Role.TOOL]), contents, calls)
counts = st.integers(0, 10**9)


def is_unicode(text: str) -> bool:
    """Say whether `text` can be sent anywhere."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@given(text=any_text)
def test_a_text_is_a_prompt_or_an_invalid_one(text: str) -> None:
    """Whatever the text, it is taken as it is, or refused with the one error that callers expect."""
    try:
        prompt = Prompt(text)
    except InvalidPromptError:
        assert not text or not is_unicode(text)
    else:
        assert prompt.messages[0].text == text
        assert prompt.messages[0].text.encode()


@given(conversation=st.lists(messages, max_size=5), system=st.none() | st.text())
def test_a_conversation_holds_every_message_in_order(conversation: list[Message], system: str | None) -> None:
    """Nothing is dropped, merged or moved; only what says nothing at all is refused."""
    try:
        prompt = Prompt(conversation, system=system)
    except InvalidPromptError:
        speaks = [message for message in conversation if message.content or message.tool_calls]
        assert not speaks or all(message.role is Role.SYSTEM for message in conversation)
    else:
        begin = () if system is None else (Message(Role.SYSTEM, system),)
        assert prompt.conversation == (*begin, *conversation)
        assert hash(prompt.messages) == hash(tuple(conversation))


@given(parts=st.lists(st.builds(Text, st.text()), max_size=5))
def test_the_text_of_a_message_is_its_parts_joined(parts: list[Text]) -> None:
    """However the text is cut into parts."""
    assert Message(Role.USER, parts).text == "".join(part.text for part in parts)


@given(usage=st.builds(TokenUsage, counts, counts, counts, counts))
def test_the_total_is_input_and_output(usage: TokenUsage) -> None:
    """Cached and reasoning tokens are counted in those already."""
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert TokenUsage(*list(usage.to_dict().values())[:4]) == usage


@given(text=any_text, usage=st.none() | st.builds(TokenUsage, counts, counts), tool_calls=calls)
def test_a_response_survives_json(text: str, usage: TokenUsage | None, tool_calls: list[ToolCall]) -> None:
    """What is shown is JSON, whatever a model has said."""
    shown = WizardResponse(text, "m", usage=usage, tool_calls=tuple(tool_calls)).to_dict()
    assert json.loads(json.dumps(shown)) == shown


@given(text=any_text, index=st.integers(0, 100))
def test_an_event_survives_json(text: str, index: int) -> None:
    """Deltas are shown as they came."""
    for event in (TextDelta(text), ToolCallDelta(index, arguments=text)):
        assert json.loads(json.dumps(event.to_dict())) == event.to_dict()
