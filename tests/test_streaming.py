"""Server-sent events out of bytes, and answers out of events."""

import pytest

from wizard_actors.streaming import MAX_EVENT, Assembly, SseDecoder, SseEvent
from wizard_actors.types import (
    Finished,
    FinishReason,
    ModelEvent,
    ReasoningDelta,
    TextDelta,
    TokenUsage,
    ToolCall,
    ToolCallDelta,
    UsageUpdate,
)


def decode(*pieces: bytes) -> list[SseEvent]:
    """Return the events in the pieces, without what their end completes."""
    decoder = SseDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_end_in_lf_crlf_or_cr(end: bytes) -> None:
    """An event ends with a blank line, in any of the three."""
    stream = end.join([b"event: ping", b"data: a", b"data: b", b"", b"data:c", b"", b""])
    assert decode(stream) == [SseEvent(b"a\nb", "ping"), SseEvent(b"c")]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_events_may_be_cut_anywhere(end: bytes) -> None:
    """Byte by byte they are the same, and each comes as soon as its blank line has begun."""
    stream = end.join([b"\xef\xbb\xbfdata: \xe2\x82\xac", b"", b"data: b", b"", b""])
    assert decode(*(bytes([byte]) for byte in stream)) == [SseEvent("€".encode()), SseEvent(b"b")]


def test_a_cr_ends_an_event_at_once() -> None:
    """The LF that may follow is not waited for, and not taken for another line."""
    decoder = SseDecoder()
    assert decoder.feed(b"data: a\r\n\r") == [SseEvent(b"a")]
    assert decoder.feed(b"\ndata: b\n\n") == [SseEvent(b"b")]


def test_fields_are_read_as_the_standard_says() -> None:
    """One space after the colon goes, comments and other fields do not count, data may be empty or missing."""
    assert decode(b"data:  a \n: comment\nid: 7\nretry: 10\nother\n\n") == [SseEvent(b" a ")]
    assert decode(b"data\n\n") == [SseEvent(b"")]
    assert decode(b"data:\ndata\n\n") == [SseEvent(b"\n")]
    assert decode(b"event: x\n\n\n: only a comment\n\n") == []
    assert decode(b"datax: 1\nDATA: 2\n\n") == []


def test_a_name_belongs_to_one_event() -> None:
    """Also where that event had no data; an empty name is the usual one."""
    assert decode(b"event: error\ndata: a\n\ndata: b\n\n") == [SseEvent(b"a", "error"), SseEvent(b"b")]
    assert decode(b"event: error\n\ndata: b\n\n") == [SseEvent(b"b")]
    assert decode(b"event: x\nevent\ndata: a\n\nevent:\ndata: b\n\n") == [SseEvent(b"a"), SseEvent(b"b")]


def test_a_byte_order_mark_counts_only_inside() -> None:
    """At the start it goes, anywhere else it belongs to its line."""
    assert decode(b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n") == [SseEvent(b"a")]


def test_closing_completes_the_last_event() -> None:
    """One that lacks its blank line, or its line end, is handed out; where none is left, nothing is."""
    for tail in (b"data: a", b"data: a\n", b"data: a\r", b"data: a\r\n"):
        decoder = SseDecoder()
        assert decoder.feed(tail) == []
        assert decoder.close() == [SseEvent(b"a")]
        assert decoder.close() == []


@pytest.mark.parametrize("pieces", [[b"data: 12345678901\n\n"], [b"data: 1", b"2345678901"], [b"data: 1\n"] * 6])
def test_an_event_beyond_the_bound_fails(pieces: list[bytes]) -> None:
    """In one line or many, complete or not; what came before it is returned first."""
    decoder = SseDecoder(max_event=16)
    assert decoder.feed(b"data: ok\n\n" + pieces[0]) == [SseEvent(b"ok")]
    with pytest.raises(ValueError, match="16 bytes"):
        decode_all(decoder, pieces[1:])


def decode_all(decoder: SseDecoder, pieces: list[bytes]) -> None:
    """Feed the pieces and the end."""
    for piece in pieces:
        decoder.feed(piece)
    decoder.close()


def test_a_failed_stream_stays_failed() -> None:
    """There is no telling where the next event would begin."""
    decoder = SseDecoder(max_event=8)
    for piece in (b"data: 123456\n\n", b"data: a\n\n", b""):
        with pytest.raises(ValueError, match="more than 8"):
            decoder.feed(piece)


def test_comments_for_ever_are_no_event() -> None:
    """Pings take no room, however many come before an event."""
    decoder = SseDecoder(max_event=100)
    for _ in range(1000):
        assert decoder.feed(b": ping\n") == []
    assert decoder.feed(b"data: a\n\n") == [SseEvent(b"a")]


def test_a_large_event_in_many_pieces_is_joined_once() -> None:
    """Almost as large as the bound, byte by byte at its end: joining at every piece would copy terabytes."""
    decoder = SseDecoder()
    decoder.feed(b"data: " + b"x" * (MAX_EVENT - 100_000))
    for _ in range(99_000):
        decoder.feed(b"x")
    (event,) = decoder.feed(b"\n\n")
    assert len(event.data) == MAX_EVENT - 1000


def test_an_answer_is_put_together() -> None:
    """Texts joined in order, usage the last, tool calls by index, with an id where none came."""
    assembly = Assembly()
    assert not assembly.started
    assembly.extend(
        [
            ReasoningDelta("hm"),
            TextDelta("a"),
            ToolCallDelta(1, "id1", "put", "{"),
            UsageUpdate(TokenUsage(1, 1)),
            ToolCallDelta(0, None, "get", ""),
            TextDelta("b"),
            ToolCallDelta(1, "other", "other", "}"),
            UsageUpdate(TokenUsage(1, 2)),
        ]
    )
    assert (assembly.text, assembly.reasoning, assembly.usage) == ("ab", "hm", TokenUsage(1, 2))
    assert assembly.tool_calls == (ToolCall("call_0", "get", ""), ToolCall("id1", "put", "{}"))
    assert assembly.finished is None
    assembly.add(Finished(FinishReason.LENGTH, "length"))
    assert assembly.finished == Finished(FinishReason.LENGTH, "length")


def test_an_answer_can_be_read_while_it_grows() -> None:
    """Reading it changes nothing."""
    assembly = Assembly()
    assert assembly.text == ""
    for count in range(1, 4):
        assembly.add(TextDelta("x"))
        assert assembly.text == assembly.text == "x" * count


class Text(str):
    __slots__ = ()


class Usage(TokenUsage):
    """A usage with something of its own."""

    @property
    def total_tokens(self) -> int:
        raise KeyError("planted")


def test_subclasses_are_what_they_are_of() -> None:
    """A text is a text; of a usage its four counts are kept, and nothing that it does of its own."""
    assembly = Assembly()
    assembly.extend((TextDelta(Text("a")), TextDelta("b"), UsageUpdate(Usage(1, 2))))
    assert assembly.text == "ab"
    assert type(assembly.usage) is TokenUsage
    assert assembly.usage.total_tokens == 3


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (TextDelta(None), "the text of a TextDelta is a str, not a value of type NoneType"),  # type: ignore[arg-type]
        (ReasoningDelta(1), "the text of a ReasoningDelta is a str, not a value of type int"),  # type: ignore[arg-type]
        (ToolCallDelta(True), "a ToolCallDelta has a whole number as its index"),
        (ToolCallDelta(0, id=1), "a ToolCallDelta has .* texts or None as its id"),  # type: ignore[arg-type]
        (UsageUpdate(None), "holds a TokenUsage, not a value of type NoneType"),  # type: ignore[arg-type]
        (UsageUpdate(TokenUsage(1.5, 2)), "in whole numbers, not in a value of type float"),  # type: ignore[arg-type]
        (UsageUpdate(TokenUsage(1, 2, reasoning_tokens=2**63)), "counts in whole numbers"),
        (Finished("stop"), "a Finished holds a FinishReason"),  # type: ignore[arg-type]
        (Finished(FinishReason.STOP, 1), "a Finished holds a FinishReason"),  # type: ignore[arg-type]
        (None, "read\\(\\) returns model events, not a value of type NoneType"),
    ],
)
def test_what_is_no_event_is_refused(event: ModelEvent, told: str) -> None:
    """With a TypeError that says what it holds, but not the value, which may be a secret."""
    with pytest.raises(TypeError, match=told):
        Assembly().extend([event])


@pytest.mark.parametrize("events", [5, iter([TextDelta("a")]), {TextDelta("a")}, b"a", "a", {"text": "a"}])
def test_what_is_no_row_of_events_is_refused(events: list[ModelEvent]) -> None:
    """An iterator could be read but once."""
    with pytest.raises(TypeError, match=r"read\(\) returns"):
        Assembly().extend(events)


@pytest.mark.parametrize("event", [TextDelta("a"), ReasoningDelta("a"), ToolCallDelta(0, "id")])
def test_content_starts_an_answer(event: TextDelta | ReasoningDelta | ToolCallDelta) -> None:
    """Any of the three kinds; usage and the end do not."""
    assembly = Assembly()
    assembly.extend([UsageUpdate(TokenUsage(1)), Finished(FinishReason.STOP)])
    assert not assembly.started
    assembly.add(event)
    assert assembly.started
