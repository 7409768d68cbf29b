"""The tool calls in what Chat Completions upstreams answer: in pieces, in whole answers, counted badly or not."""

import json
import time
from collections.abc import Sequence

import pytest

from wizard_actors.providers.answer import AnswerParser
from wizard_actors.providers.openai_chunks import ChunkReader
from wizard_actors.providers.refusals import Head
from wizard_actors.streaming import Assembly
from wizard_actors.types import Finished, FinishReason, ModelEvent, ToolCall, ToolCallDelta

HEAD = Head("primary")
DONE = b"data: [DONE]\n\n"


def chunk(delta: object = None, finish: object = None) -> bytes:
    """Return one event of a stream: a chunk with one choice."""
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def calling(*calls: object) -> bytes:
    """Return a chunk with pieces of calls."""
    return chunk({"tool_calls": calls})


def piece(name: str | None = None, arguments: str = "", **fields: object) -> dict[str, object]:
    """Return a piece of a call."""
    return {**fields, "function": {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}}


def whole(message: object, finish: object = "stop") -> bytes:
    """Return a whole answer as JSON."""
    return json.dumps({"choices": [{"message": message, "finish_reason": finish}]}).encode()


def parse(*pieces: bytes) -> list[ModelEvent]:
    """Return the events of a whole body; raise what failed."""
    parser = AnswerParser(HEAD, ChunkReader(HEAD))
    events = [event for each in pieces for event in parser.feed(each)] + parser.close()
    if parser.failure is not None:
        raise parser.failure
    return events


def calls_of(events: Sequence[ModelEvent]) -> tuple[ToolCall, ...]:
    """Return the tool calls that the events make up."""
    assembly = Assembly()
    assembly.extend(events)
    return assembly.tool_calls


def test_tool_calls_come_in_pieces_by_index() -> None:
    """Id and name once, the arguments bit by bit, two calls interleaved."""

    def pieces(index: int, **fields: object) -> bytes:
        return chunk({"tool_calls": [{"index": index, **fields}]})

    events = parse(
        pieces(0, id="a", type="function", function={"name": "get", "arguments": ""}),
        pieces(1, id="b", function={"name": "put", "arguments": "{"}),
        pieces(0, function={"arguments": '{"x":'}),
        pieces(1, function={"arguments": "}"}),
        pieces(0, function={"arguments": "1}"}),
    )
    assert events[0] == ToolCallDelta(0, "a", "get")
    assert events[2] == ToolCallDelta(0, arguments='{"x":')
    assert calls_of(events) == (ToolCall("a", "get", '{"x":1}'), ToolCall("b", "put", "{}"))


def test_tool_calls_without_index_are_told_apart_by_their_ids() -> None:
    """Google's compatible endpoint counts nothing; pieces without an id belong to the last call."""
    events = parse(
        chunk({"tool_calls": [{"id": "a", "function": {"name": "get", "arguments": "{}"}}]}),
        chunk({"tool_calls": [{"id": "b", "function": {"name": "get", "arguments": "["}}]}),
        chunk({"tool_calls": [{"function": {"arguments": "]"}}]}),
    )
    assert calls_of(events) == (ToolCall("a", "get", "{}"), ToolCall("b", "get", "[]"))


def test_calls_under_one_index_are_told_apart_by_their_ids() -> None:
    """Some give every call the index 0; a repeated id is the same call."""
    events = parse(
        chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "get", "arguments": "1"}}]}),
        chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "get", "arguments": "2"}}]}),
        chunk({"tool_calls": [{"index": 0, "id": "b", "function": {"name": "get", "arguments": "3"}}]}),
    )
    assert calls_of(events) == (ToolCall("a", "get", "12"), ToolCall("b", "get", "3"))


def test_a_tool_call_without_type_and_id_is_one() -> None:
    """Mistral leaves out the type, others the id; arguments may be an object."""
    body = whole({"content": None, "tool_calls": [{"function": {"name": "get", "arguments": {"x": 1}}}]}, "tool_calls")
    assert calls_of(parse(body)) == (ToolCall("call_0", "get", '{"x":1}'),)


def test_what_is_no_tool_call_is_ignored() -> None:
    """Nonsense among the calls costs none of them."""
    calls = [7, None, {"function": "x"}, {"id": "a", "function": {"name": "get", "arguments": "{}"}}]
    assert calls_of(parse(chunk({"tool_calls": calls}))) == (ToolCall("a", "get", "{}"),)


def test_the_older_function_call_is_a_tool_call() -> None:
    """What came before tools reads the same."""
    body = whole({"content": None, "function_call": {"name": "get", "arguments": "{}"}}, "function_call")
    assert calls_of(parse(body)) == (ToolCall("call_0", "get", "{}"),)
    streamed = (chunk({"function_call": {"name": "get"}}), chunk({"function_call": {"arguments": "{}"}}))
    assert calls_of(parse(*streamed)) == (ToolCall("call_0", "get", "{}"),)


def test_a_call_may_get_its_id_or_its_name_late() -> None:
    """It is the same call, also where what is known is said again."""
    late = calling(piece("get", "{}", index=0, id="a"))
    assert calls_of(parse(calling(piece("get", index=0)), late)) == (ToolCall("a", "get", "{}"),)
    assert calls_of(parse(calling(piece(index=0, id="a")), late)) == (ToolCall("a", "get", "{}"),)


@pytest.mark.parametrize("fields", [{"index": 0}, {"index": 0, "id": ""}, {"index": 0, "id": "a"}, {"id": "a"}])
def test_another_name_is_another_call(fields: dict[str, object]) -> None:
    """Some give all calls one index, and no ids, or all the same: in chunks of their own, in one, in whole answers."""
    get, put = piece("get", '{"x":', **fields), piece("put", "[", **fields)
    more, less = piece(None, "1}", **fields), piece(None, "]", **fields)
    apart = parse(calling(get), calling(more), calling(put), calling(less))
    together = parse(calling(get, more, put, less))
    both = [piece("get", '{"x":1}', **fields), piece("put", "[]", **fields)]
    for events in (apart, together, parse(whole({"tool_calls": both}, "tool_calls"))):
        assert [(call.name, call.arguments) for call in calls_of(events)] == [("get", '{"x":1}'), ("put", "[]")]


def test_a_name_that_is_said_twice_at_once_is_two_calls() -> None:
    """One call does not begin twice in a chunk; in whole answers every call is one of its own, whatever its id."""
    first, second = piece("get", "1", index=0), piece("get", "2", index=0)
    assert [call.arguments for call in calls_of(parse(calling(first, second)))] == ["1", "2"]
    assert [call.arguments for call in calls_of(parse(calling(first), calling(second)))] == ["12"]
    named = [{**each, "id": "a"} for each in (first, second)]
    assert [call.arguments for call in calls_of(parse(calling(*named)))] == ["12"]
    answer = parse(whole({"tool_calls": named}))
    assert calls_of(answer) == (ToolCall("a", "get", "1"), ToolCall("a", "get", "2"))


def test_pieces_under_one_index_go_to_the_call_with_their_id() -> None:
    """And those without one to the last."""
    events = parse(
        calling(piece("get", "1", index=0, id="a"), piece("put", "2", index=0, id="b")),
        calling(piece(None, "3", index=0, id="a"), piece(None, "4", index=0)),
    )
    assert calls_of(events) == (ToolCall("a", "get", "134"), ToolCall("b", "put", "2"))


def test_one_id_under_two_indices_is_two_calls() -> None:
    """Where an upstream counts its calls, that decides."""
    events = parse(calling(piece("get", "1", index=0, id="a")), calling(piece("get", "2", index=1, id="a")))
    assert calls_of(events) == (ToolCall("a", "get", "1"), ToolCall("a", "get", "2"))


@pytest.mark.parametrize("raw", ["stop", "eos", "end_turn", "STOP"])
def test_an_answer_with_calls_ends_by_them(raw: str) -> None:
    """Also where the provider says that it just stopped, as it does when the tool was asked for by name."""
    called = Finished(FinishReason.TOOL_CALLS, raw)
    assert parse(calling(piece("get", "{}", index=0, id="a")), chunk(finish=raw))[-1] == called
    assert parse(whole({"tool_calls": [piece("get", "{}", id="a")]}, raw))[-1] == called
    assert parse(chunk({"content": "a"}, raw))[-1] == Finished(FinishReason.STOP, raw)


def test_an_answer_with_calls_and_no_word_for_its_end_ends_by_them() -> None:
    """`[DONE]` is all that some say; an answer cut by its length stays so."""
    call = calling(piece("get", "{}", index=0, id="a"))
    assert parse(call, DONE)[-1] == Finished(FinishReason.TOOL_CALLS)
    assert parse(call, chunk(finish="length"))[-1] == Finished(FinishReason.LENGTH, "length")


@pytest.mark.parametrize("fields", [{}, {"index": 0}])
def test_many_calls_take_a_time_that_grows_as_they_do(fields: dict[str, object]) -> None:
    """Not with their square: 40,000 calls would take half a minute so."""
    calls = calling(*(piece("get", "{}", id=f"c{number}", **fields) for number in range(40_000)))
    begun = time.process_time()
    assert len(calls_of(parse(calls))) == 40_000
    assert time.process_time() - begun < 5.0
