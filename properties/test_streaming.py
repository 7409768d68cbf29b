"""Server-sent events and assembly for every input, cut anywhere."""

import re
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from wizard_actors.streaming import BOM, Assembly, SseDecoder, SseEvent
from wizard_actors.types import (
    Finished,
    FinishReason,
    ModelEvent,
    ReasoningDelta,
    TextDelta,
    TokenUsage,
    ToolCallDelta,
    UsageUpdate,
)

WORDS = [b"data", b"event", b"id", b":", b" ", b"x", b"\n", b"\r", b"\r\n", b"\n\n", BOM, BOM[:2], b"\xff", b""]
STREAMS = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=40).map(b"".join),
    st.lists(st.sampled_from([b"data: x\n", b"data: y\r\n", b"event: e\r", b"\n", b"\r", b": c\n"])).map(b"".join),
    st.binary(max_size=60),
)


def pieces_of(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    """Cut the stream at these places, as far as it has them."""
    places = sorted({min(cut, len(stream)) for cut in cuts})
    return [stream[start:end] for start, end in zip([0, *places], [*places, len(stream)], strict=True)]


def reference(stream: bytes) -> list[SseEvent]:
    """Decode a whole stream as the standard words it, a line at a time."""
    *lines, _unfinished = re.split(rb"\r\n|\r|\n", stream.removeprefix(BOM))
    events: list[SseEvent] = []
    data: list[bytes] = []
    name = ""
    for line in lines:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if line == b"":
            if data:
                events.append(SseEvent(b"\n".join(data), name or "message"))
            data, name = [], ""
        elif field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode(errors="replace")
    return events


@given(stream=STREAMS, cuts=st.lists(st.integers(0, 80), max_size=8))
def test_the_decoder_reads_as_the_standard_says_wherever_it_is_cut(stream: bytes, cuts: list[int]) -> None:
    """The same events as a plain reading of the whole, and as if a blank line followed at its end."""
    decoder = SseDecoder()
    events = [event for piece in pieces_of(stream, cuts) for event in decoder.feed(piece)]
    assert events == reference(stream)
    assert events + decoder.close() == reference(stream + b"\n\n")


@given(stream=STREAMS, cuts=st.lists(st.integers(0, 80), max_size=8), bound=st.integers(1, 30))
def test_the_bound_holds_wherever_the_stream_is_cut(stream: bytes, cuts: list[int], bound: int) -> None:
    """How a stream is cut changes neither the events before an event that is too large, nor whether there is one."""

    def read(pieces: Sequence[bytes]) -> tuple[list[SseEvent], bool]:
        decoder = SseDecoder(bound)
        events: list[SseEvent] = []
        try:
            for piece in pieces:
                events += decoder.feed(piece)
            events += decoder.close()
            events += decoder.feed(b"")
        except ValueError:
            return events, True
        return events, False

    whole = read([stream])
    assert read(pieces_of(stream, cuts)) == whole
    assert all(len(event.data) <= bound for event in whole[0])


TEXTS = st.text(max_size=5)
EVENTS: st.SearchStrategy[ModelEvent] = st.one_of(
    st.builds(TextDelta, TEXTS),
    st.builds(ReasoningDelta, TEXTS),
    st.builds(ToolCallDelta, st.integers(0, 3), st.none() | TEXTS, st.none() | TEXTS, TEXTS),
    st.builds(UsageUpdate, st.builds(TokenUsage, st.integers(0, 9), st.integers(0, 9))),
    st.just(Finished(FinishReason.STOP, "stop")),
)


@given(events=st.lists(EVENTS), looks=st.lists(st.integers(0, 20)))
def test_an_assembly_keeps_everything_in_order(events: list[ModelEvent], looks: list[int]) -> None:
    """Whatever comes in whatever order, and however often somebody looks in between."""
    assembly = Assembly()
    for place, event in enumerate(events):
        assembly.add(event)
        if place in looks:
            assert assembly.text == assembly.text
            assert assembly.tool_calls == assembly.tool_calls
    calls = [event for event in events if isinstance(event, ToolCallDelta)]
    usages = [event.usage for event in events if isinstance(event, UsageUpdate)]
    assert assembly.text == "".join(event.text for event in events if isinstance(event, TextDelta))
    assert assembly.reasoning == "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    assert [call.arguments for call in assembly.tool_calls] == [
        "".join(call.arguments for call in calls if call.index == index)
        for index in sorted({call.index for call in calls})
    ]
    assert all(call.id for call in assembly.tool_calls)
    assert assembly.usage == (usages[-1] if usages else None)
    assert (assembly.finished is not None) == any(isinstance(event, Finished) for event in events)
