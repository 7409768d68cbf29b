"""Prompts, usage and events, for any content."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.prompt_strategies import IMAGES
from wizard_actors.errors import InvalidPromptError
from wizard_actors.providers.anthropic_request import request_body as anthropic_body
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

contents = st.text() | st.lists(st.builds(Text, st.text()) | IMAGES, max_size=4)
calls = st.lists(st.builds(ToolCall, st.text(), st.text(), st.text()), max_size=2)
messages = st.builds(Message, st.sampled_from([role for role in Role if role is not Role.TOOL]), contents)
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
        assert not text.strip() or not is_unicode(text)
    else:
        assert prompt.messages[0].text == text
        assert prompt.messages[0].text.encode()


@given(conversation=st.lists(messages, max_size=5), system=st.none() | st.text())
def test_a_conversation_holds_every_message_in_order(conversation: list[Message], system: str | None) -> None:
    """Nothing is dropped, merged or moved; only what says nothing at all is refused."""
    try:
        prompt = Prompt(conversation, system=system)
    except InvalidPromptError:
        assert not any(message.speaks for message in conversation if message.role is not Role.SYSTEM)
    else:
        begin = () if system is None else (Message(Role.SYSTEM, system),)
        assert prompt.conversation == (*begin, *conversation)
        assert hash(prompt.messages) == hash(tuple(conversation))


@given(conversation=st.lists(st.builds(Message, st.just(Role.USER), contents), max_size=5))
def test_no_prompt_is_empty_for_anthropic(conversation: list[Message]) -> None:
    """It takes no blank texts, so they are left out: what is left is never nothing."""
    try:
        prompt = Prompt(conversation, system="Be brief")
    except InvalidPromptError:
        return
    body = anthropic_body(prompt, model="m", upstream_model="up", stream=False, extra={})
    assert json.loads(body)["messages"]


@given(data=st.data(), ids=st.lists(st.sampled_from("abc"), max_size=6))
def test_rounds_of_tools_are_whole_in_any_order(data: st.DataObject, ids: list[str]) -> None:
    """Each call with one result behind it, wherever that stands; with one result less, or one more, none is."""
    made = [Message(Role.ASSISTANT, tool_calls=[ToolCall(call_id, "f", "{}")]) for call_id in ids]
    results = [Message(Role.TOOL, "x", tool_call_id=call_id) for call_id in data.draw(st.permutations(ids))]
    whole = [*made, *results, Message(Role.USER, "?")]
    assert Prompt(whole).messages == tuple(whole)
    for result in results:
        more, less = [*whole, result], list(whole)
        less.remove(result)
        for broken in (more, less):
            with pytest.raises(InvalidPromptError, match=f"the tool call {result.tool_call_id!r}"):
                Prompt(broken)


@given(data=st.binary(min_size=1, max_size=50), kind=st.sampled_from(["png", "svg+xml", "jpeg"]))
def test_a_picture_in_a_data_url_keeps_its_bytes(data: bytes, kind: str) -> None:
    """As base64, or byte by byte."""
    for written in (f";base64,{base64.b64encode(data).decode()}", "," + "".join(f"%{byte:02X}" for byte in data)):
        assert Image(f"data:image/{kind}{written}") == Image(data=data, media_type=f"image/{kind}")


@given(url=any_text)
def test_any_text_is_an_address_or_refused(url: str) -> None:
    """With the one error that callers expect."""
    for each in (url, f"data:{url}", f"data:image/png;base64,{url}", f"https://{url}"):
        try:
            picture = Image(each)
        except InvalidPromptError:
            continue
        assert (picture.url is None) == bool(picture.data)


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
