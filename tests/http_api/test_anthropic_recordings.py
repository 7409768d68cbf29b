"""The Anthropic format against recorded traffic: what clients really sent is read, what Anthropic answered is written
again.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.providers.test_anthropic_recordings import Json, Reading, meaning, our_reading, read_by_the_sdk, sdk_reading
from tests.recordings import Recording, recorded, replayed
from wizard_actors.http_api.anthropic_format import ANTHROPIC
from wizard_actors.http_api.asked import Asked
from wizard_actors.http_api.fields import BadRequestError
from wizard_actors.json_bytes import json_bytes
from wizard_actors.providers.answer import AnswerParser
from wizard_actors.providers.anthropic_events import EventReader
from wizard_actors.providers.anthropic_request import request_body
from wizard_actors.providers.refusals import Head
from wizard_actors.streaming import Assembly
from wizard_actors.types import End, Finished, ModelEvent, Prompt, Raw, WizardResponse


@pytest.fixture(scope="module")
def recorded_traffic(recordings: Path) -> Sequence[Recording]:
    """Return the exchanges with Anthropic."""
    return list(recorded(recordings, "anthropic-messages"))


# -- requests ----------------------------------------------------------------------------------------


def unmarked(value: object) -> object:
    """Return a request without the marks for caches, which a prompt cannot have."""
    if isinstance(value, dict):
        return {name: unmarked(inner) for name, inner in value.items() if name != "cache_control"}
    return [unmarked(inner) for inner in value] if isinstance(value, list) else value


def foreign_tools(request: Json) -> Iterator[str]:
    """Yield what a request has of tools that Anthropic defines, and of their traces in a conversation."""
    yield from (tool["type"] for tool in request.get("tools", ()) if tool.get("type", "custom") != "custom")
    for message in request["messages"]:
        blocks = message["content"] if isinstance(message["content"], list) else []
        yield from (block["type"] for block in blocks if block["type"].startswith(("server_", "web_")))


def test_recorded_requests_mean_the_same_once_they_are_sent_on(recorded_traffic: Sequence[Recording]) -> None:
    """Whatever was asked of Anthropic reaches it; requests for its own tools are refused, by the tool's name."""
    refused = 0
    for recording in recorded_traffic:
        request: Json = recording.request
        if foreign := set(foreign_tools(request)):
            refused += 1
            with pytest.raises(BadRequestError) as caught:
                ANTHROPIC.read(request)
            assert any(name in caught.value.message for name in foreign), recording.name
            continue
        asked = ANTHROPIC.read(request)
        sent = request_body(asked.prompt, model="primary", upstream_model=asked.name, stream=asked.stream, extra={})
        expected = unmarked(meaning(request))
        assert meaning(json.loads(sent)) == expected, recording.name
    assert (len(recorded_traffic), refused) == (89, 11)


# -- answers -----------------------------------------------------------------------------------------


def events_of(recording: Recording) -> list[ModelEvent]:
    """Return what our provider reads in a recorded answer."""
    head = Head("primary", recording.status)
    parser = AnswerParser(head, EventReader(head), content_type=recording.headers.get("content-type", ""))
    return [*parser.feed(recording.body), *parser.close()]


def response_of(events: Sequence[ModelEvent]) -> WizardResponse:
    """Return the answer that the events are."""
    assembly = Assembly()
    assembly.extend(events)
    assert assembly.finished is not None
    return WizardResponse(
        assembly.text,
        "primary",
        usage=assembly.usage,
        finish_reason=assembly.finished.reason,
        raw_finish_reason=assembly.finished.raw,
        thoughts=assembly.thoughts,
        tool_calls=assembly.tool_calls,
        request_id="r-1",
    )


def streamed(events: Sequence[ModelEvent]) -> bytes:
    """Return the answer as a stream of ours."""
    writer = ANTHROPIC.stream(Asked("primary", Prompt("?"), stream=True), "r-1", created=0)
    pieces = [writer.begin("primary")]
    pieces += [writer.event(event) for event in events if not isinstance(event, Finished | Raw)]
    return b"".join([*pieces, writer.event(End(response_of(events)))])


def as_read(body: bytes, *, stream: bool) -> tuple[Reading, Reading]:
    """Return what our own provider and the official SDK read in an answer of ours."""
    content_type = "text/event-stream" if stream else "application/json"
    found = replayed([body], EventReader, content_type=content_type)
    assert found.ended or not stream
    exchange = Recording("", "", {}, stream, 200, {"content-type": content_type}, body)
    return our_reading(found.assembly, found.model), sdk_reading(read_by_the_sdk(exchange))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_recorded_answers_written_again_say_the_same(recorded_traffic: Sequence[Recording], stream: bool) -> None:
    """Text, thoughts with their signatures, calls, reason and usage, to our own provider and to the official SDK."""
    for recording in recorded_traffic:
        events = events_of(recording)
        assembly = Assembly()
        assembly.extend(events)
        expected = our_reading(assembly, "primary")
        whole = json_bytes(ANTHROPIC.answer(response_of(events), "wizard", created=0))
        ours, theirs = as_read(streamed(events) if stream else whole, stream=stream)
        assert ours == expected, recording.name
        assert theirs == expected, recording.name
