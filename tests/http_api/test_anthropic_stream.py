"""What a Messages stream says: event by event, one block at a time, and the same answer at its end."""

import json
from collections.abc import Sequence
from typing import Any

import anthropic
import pytest
from anthropic.types import Message as SdkMessage

from tests.providers.test_anthropic_recordings import read_by_the_sdk
from tests.recordings import Recording
from wizard_actors.errors import ParseError
from wizard_actors.http_api.anthropic_format import ANTHROPIC
from wizard_actors.http_api.anthropic_proofs import sealed_signature
from wizard_actors.http_api.asked import Asked
from wizard_actors.http_api.format import PING
from wizard_actors.http_api.status import Failure
from wizard_actors.types import (
    End,
    FinishReason,
    Prompt,
    ReasoningDelta,
    Signature,
    StreamEvent,
    TextDelta,
    ThoughtEnded,
    TokenUsage,
    ToolCallDelta,
    UsageUpdate,
    WizardResponse,
)

Json = dict[str, Any]  # as JSON comes

END = End(WizardResponse("", "sonnet", usage=TokenUsage(10, 5, cached_tokens=4), request_id="r-1"))


def pieces_of(*events: StreamEvent) -> list[bytes]:
    """Return what each event becomes, behind the beginning."""
    writer = ANTHROPIC.stream(Asked("sonnet", Prompt("?"), stream=True), "r-1", created=0)
    return [writer.begin("sonnet"), *map(writer.event, events)]


def events_in(piece: bytes) -> list[Json]:
    """Return the events in a piece; the name of each stands beside it."""
    events = list[Json]()
    for block in piece.decode().split("\n\n")[:-1]:
        name, data = block.split("\n")
        event: Json = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    return events


def said(*events: StreamEvent) -> list[str]:
    """Return the blocks of a stream in short: what begins, what is said in it, and where it ends."""
    short = list[str]()
    open_block: int | None = None
    for event in events_in(b"".join(pieces_of(*events))):
        match event["type"]:
            case "content_block_start":
                assert open_block is None
                open_block = event["index"]
                block = event["content_block"]
                short.append(f"<{block['type']}{block.get('id', '')}{block.get('data', '')}")
            case "content_block_delta":
                assert event["index"] == open_block
                delta = event["delta"]
                short.append(next(value for name, value in delta.items() if name != "type"))
            case "content_block_stop":
                assert event["index"] == open_block
                open_block = None
                short.append(">")
    return short


def read(*events: StreamEvent, then: bytes = b"") -> SdkMessage:
    """Return what the official SDK makes of the stream."""
    body = b"".join(pieces_of(*events)) + then
    return read_by_the_sdk(Recording("", "", {}, True, 200, {"content-type": "text/event-stream"}, body))


def test_a_stream_begins_with_the_message_and_ends_with_its_usage() -> None:
    """What it used is not known before the end, and stands there in full."""
    begin, delta, nothing, end = pieces_of(TextDelta("Hi"), UsageUpdate(TokenUsage(1, 1)), END)
    start = events_in(begin)[0]
    assert (start["type"], start["message"]["id"], start["message"]["model"]) == ("message_start", "msg_r-1", "sonnet")
    assert start["message"]["usage"] == {"input_tokens": 0, "output_tokens": 0}
    assert [event["type"] for event in events_in(delta)] == ["content_block_start", "content_block_delta"]
    assert nothing == b""
    assert events_in(end) == [
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {
                "input_tokens": 6,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 4,
                "output_tokens": 5,
            },
        },
        {"type": "message_stop"},
    ]


def test_the_sdk_reads_the_whole_answer() -> None:
    """Thoughts with what signs them, text, calls of tools, reason and usage; pings are passed over."""
    usage = TokenUsage(10, 5, cached_tokens=4)
    end = WizardResponse("Hello", "sonnet", usage=usage, finish_reason=FinishReason.TOOL_CALLS)
    message = read(
        ReasoningDelta("a"),
        ReasoningDelta("b"),
        ThoughtEnded(Signature("anthropic", "EqMB")),
        ThoughtEnded(Signature("anthropic", "c2Vj"), redacted=True),
        TextDelta("Hel"),
        TextDelta("lo"),
        ToolCallDelta(0, "toolu_1", "weather", '{"ci'),
        ToolCallDelta(0, arguments='ty": "Rome"}'),
        ToolCallDelta(1, "toolu_2", "now"),
        End(end),
        then=PING,
    )
    assert [block.model_dump(exclude_none=True) for block in message.content] == [
        {"type": "thinking", "thinking": "ab", "signature": "EqMB"},
        {"type": "redacted_thinking", "data": "c2Vj"},
        {"type": "text", "text": "Hello"},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}},
        {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
    ]
    assert message.stop_reason == "tool_use"
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (6, 4)
    assert message.usage.output_tokens == 5


def test_calls_that_follow_each_other_are_passed_on_at_once() -> None:
    """As soon as the one before is a whole object, and so is the text behind it."""
    pieces = pieces_of(
        ToolCallDelta(0, "a", "weather", '{"x": {}'),
        ToolCallDelta(0, arguments="}"),
        ToolCallDelta(1, "b", "weather", "{"),
        ToolCallDelta(1, arguments="}"),
        TextDelta("Done"),
    )
    assert all(pieces)
    kinds = [event["type"] for event in events_in(b"".join(pieces[3:]))]
    assert kinds.count("content_block_stop") == 2


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (
            [
                ToolCallDelta(0, "a", "f", '{"x":'),
                ToolCallDelta(1, "b", "f", '{"y"'),
                ToolCallDelta(0, arguments="1}"),
                ToolCallDelta(1, arguments=":2}"),
            ],
            ["<tool_usea", '{"x":', "1}", ">", "<tool_useb", '{"y":2}', ">"],
        ),
        (
            [
                ToolCallDelta(0, "a", "f", "{"),
                TextDelta("one"),
                ToolCallDelta(1, "b", "f", "{}"),
                TextDelta("two"),
                ToolCallDelta(0, arguments="}"),
            ],
            ["<tool_usea", "{", "}", ">", "<text", "one", "two", ">", "<tool_useb", "{}", ">"],
        ),
        (
            [ToolCallDelta(0, arguments="{"), ToolCallDelta(0, name="f"), ToolCallDelta(0, "a", arguments="}")],
            ["<tool_usea", "{}", ">"],
        ),
        ([ToolCallDelta(0, None, "f", "{}"), TextDelta("x")], ["<text", "x", ">", "<tool_usecall_0", "{}", ">"]),
        ([ToolCallDelta(0, "a", "f", " \n"), ToolCallDelta(0, arguments=" {")], ["<tool_usea", "{", ">"]),
        ([ToolCallDelta(0, "a", "f", "{}"), TextDelta("x"), ToolCallDelta(0, arguments="\n")], None),
        ([ThoughtEnded(), TextDelta(""), ReasoningDelta("")], []),
        ([ReasoningDelta("a"), ThoughtEnded(), ReasoningDelta("b")], ["<thinking", "a", ">", "<thinking", "b", ">"]),
        (
            [ReasoningDelta("a"), ThoughtEnded(Signature("chat", "s"), redacted=True)],
            ["<thinking", "a", sealed_signature(Signature("chat", "s"), redacted=True), ">"],
        ),
        ([ThoughtEnded(Signature("anthropic", "s"))], ["<thinking", "s", ">"]),
        ([TextDelta("x"), ThoughtEnded(Signature("anthropic", "s"))], ["<text", "x", ">", "<thinking", "s", ">"]),
    ],
)
def test_one_block_is_open_at_a_time(events: Sequence[StreamEvent], expected: list[str] | None) -> None:
    """Whatever comes by turns; nothing that was said is left out."""
    assert said(*events, END) == (["<tool_usea", "{}", ">", "<text", "x", ">"] if expected is None else expected)


def test_arguments_that_go_on_after_their_end_fail_the_stream() -> None:
    """Their block is closed, and a client would take what it has for the whole: whoever delivers it has to stop."""
    writer = ANTHROPIC.stream(Asked("sonnet", Prompt("Why?")), "r1", created=0)
    writer.begin("claude")
    for event in (ToolCallDelta(0, "a", "f", "{}"), TextDelta("x")):
        writer.event(event)
    with pytest.raises(ParseError, match="claude went on") as caught:
        writer.event(ToolCallDelta(0, arguments=" and"))
    last = writer.failed(Failure(502, "parse", caught.value.message))
    assert [event["type"] for event in events_in(last)] == ["error"]
    assert writer.event(END) == b""


@pytest.mark.parametrize("pieces", [["null"], ["n", "ull "], [" null", "\n"]])
def test_arguments_that_are_null_are_none(pieces: Sequence[str]) -> None:
    """The SDK would read null, and its message would be refused when it comes back."""
    deltas = [ToolCallDelta(0, "a", "f"), *(ToolCallDelta(0, arguments=piece) for piece in pieces)]
    message = read(*deltas, ToolCallDelta(1, "b", "g", '{"x": 1}'), END)
    assert [block.input for block in message.content if block.type == "tool_use"] == [{}, {"x": 1}]


def test_what_only_begins_like_null_is_not_lost() -> None:
    """Nor held longer than until it is known to be something else."""
    assert said(ToolCallDelta(0, "a", "f", "nu"), END) == ["<tool_usea", "nu", ">"]
    assert said(ToolCallDelta(0, "a", "f", "nu"), ToolCallDelta(0, arguments="m"), END) == ["<tool_usea", "num", ">"]


def test_a_stream_that_fails_raises_in_the_sdk() -> None:
    """With the failure's own words and our code; it is no answer that just ends."""
    writer = ANTHROPIC.stream(Asked("sonnet", Prompt("?"), stream=True), "r-1", created=0)
    body = writer.begin("sonnet") + writer.event(TextDelta("Hel")) + writer.failed(Failure(502, "network", "it broke"))
    recording = Recording("", "", {}, True, 200, {"content-type": "text/event-stream"}, body)
    with pytest.raises(anthropic.APIStatusError) as caught:
        read_by_the_sdk(recording)
    assert caught.value.body == {
        "type": "error",
        "error": {"type": "api_error", "message": "it broke", "code": "network"},
        "request_id": "r-1",
    }
    assert writer.event(TextDelta("lo")) == b""
