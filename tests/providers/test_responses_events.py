"""What the Responses API answers, read without a socket: its events, and its failures."""

import json

import pytest

from wizard_actors.errors import (
    ContentFilterError,
    OverloadedError,
    ParseError,
    ProviderError,
    RateLimitError,
    RequestError,
    TokenLimitError,
    WizardError,
)
from wizard_actors.providers.answer import AnswerParser
from wizard_actors.providers.refusals import Head
from wizard_actors.providers.responses_events import EventReader
from wizard_actors.streaming import Assembly
from wizard_actors.types import (
    Finished,
    FinishReason,
    ModelEvent,
    ReasoningDelta,
    Signature,
    TextDelta,
    Thought,
    ThoughtEnded,
    TokenUsage,
    ToolCall,
    ToolCallDelta,
    UsageUpdate,
)

HEAD = Head("primary")


def event(kind: str, **fields: object) -> bytes:
    """Return one event of a stream, named as upstream names it."""
    kind = kind if kind == "error" else f"response.{kind}"
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def delta(text: str, place: int = 0) -> bytes:
    """Return some more of a message's text."""
    return event("output_text.delta", output_index=place, content_index=0, delta=text)


def message(text: str) -> dict[str, object]:
    """Return a complete message."""
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def call(name: str, arguments: str = "", **fields: object) -> dict[str, object]:
    """Return a call of a tool."""
    return {
        "type": "function_call",
        "id": f"fc_{name}",
        "call_id": f"call_{name}",
        "name": name,
        "arguments": arguments,
        **fields,
    }


def end(status: str = "completed", **fields: object) -> bytes:
    """Return the last event of a stream."""
    return event(status, response={"id": "resp_1", "model": "up-1", "status": status, **fields})


def whole(*output: object, **fields: object) -> bytes:
    """Return a whole response."""
    shown = {"id": "resp_1", "object": "response", "model": "up-1", "status": "completed", "error": None}
    return json.dumps({**shown, "output": output, **fields}).encode()


def parse(*pieces: bytes, head: Head = HEAD) -> list[ModelEvent]:
    """Return the events of a whole body; raise what failed."""
    parser = AnswerParser(head, EventReader(head))
    events = [event for piece in pieces for event in parser.feed(piece)]
    events += parser.close()
    if parser.failure is not None:
        raise parser.failure
    return events


def assembled(*pieces: bytes) -> Assembly:
    """Return what the events of a whole body make up."""
    assembly = Assembly()
    assembly.extend(parse(*pieces))
    return assembly


STOP = Finished(FinishReason.STOP, "completed")


# -- texts -------------------------------------------------------------------------------------------


def test_a_stream_becomes_its_texts_its_usage_and_its_end() -> None:
    """The plain case; what only frames the text is no event."""
    usage = {
        "input_tokens": 9,
        "output_tokens": 7,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
        "output_tokens_details": {"reasoning_tokens": 5},
    }
    part = {"type": "output_text", "text": ""}
    assert parse(
        event("created", response={"id": "resp_1", "model": "up-1", "usage": None}),
        event("in_progress", response={"id": "resp_1", "model": "up-1"}),
        event("output_item.added", output_index=0, item={"type": "message", "content": []}),
        event("content_part.added", output_index=0, content_index=0, part=part),
        delta("Why"),
        delta(" not?"),
        event("output_text.done", output_index=0, content_index=0, text="Why not?"),
        event("content_part.done", output_index=0, content_index=0, part={**part, "text": "Why not?"}),
        event("output_item.done", output_index=0, item=message("Why not?")),
        end(output=[message("Why not?")], usage=usage),
    ) == [TextDelta("Why"), TextDelta(" not?"), UsageUpdate(TokenUsage(9, 7, 4, 5, 2)), STOP]


@pytest.mark.parametrize(
    "rest",
    [
        event("output_text.done", output_index=0, content_index=0, text="Why not?"),
        event("output_item.done", output_index=0, item=message("Why not?")),
    ],
)
def test_what_the_pieces_left_out_is_taken_from_the_whole(rest: bytes) -> None:
    """Wherever the whole comes, and be it the only one."""
    assert assembled(delta("Why"), rest, end()).text == "Why not?"
    assert assembled(rest, end()).text == "Why not?"
    assert assembled(delta("Why"), rest, rest, end()).text == "Why not?"


def test_a_stream_of_its_last_event_alone_is_an_answer() -> None:
    """Some have nothing to say before it."""
    assert assembled(end(output=[message("Why"), call("get", "{}")])).tool_calls == (ToolCall("call_get", "get", "{}"),)
    assert assembled(end(output=[message("Why")])).text == "Why"


def test_a_refusal_is_the_text_of_the_answer() -> None:
    """In pieces, and in a message as a whole."""
    refused = {"type": "message", "content": [{"type": "refusal", "refusal": "I cannot"}]}
    streamed = [
        event("refusal.delta", output_index=0, content_index=0, delta="I "),
        event("refusal.done", output_index=0, content_index=0, refusal="I cannot"),
        event("output_item.done", output_index=0, item=refused),
    ]
    assert assembled(*streamed, end()).text == "I cannot"
    assert assembled(whole(refused)).text == "I cannot"


def test_whole_responses_say_all_at_once() -> None:
    """Every item in its order; those that nobody knows are passed over."""
    output = [
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}},
        message("Two "),
        message("messages"),
        call("get", '{"a": 1}'),
    ]
    assert parse(whole(*output, usage={"input_tokens": 3, "output_tokens": 2})) == [
        ReasoningDelta("Hm."),
        ThoughtEnded(id="rs_1"),
        TextDelta("Two "),
        TextDelta("messages"),
        ToolCallDelta(0, "call_get", "get"),
        ToolCallDelta(0, arguments='{"a": 1}'),
        UsageUpdate(TokenUsage(3, 2)),
        Finished(FinishReason.TOOL_CALLS, "completed"),
    ]


def test_what_nobody_knows_is_no_event() -> None:
    """Events and items of the provider's own tools, and whatever is to come."""
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    assert parse(
        b": ping\n\n",
        event("web_search_call.searching", output_index=0, item_id="ws_1"),
        event("output_item.added", output_index=0, item=search),
        event("output_item.done", output_index=0, item=search),
        event("output_item.done", output_index=1, item=None),
        event("output_text.annotation.added", output_index=1, content_index=0, annotation={}),
        event("brain_waves.delta", delta="zzz"),
        event("output_text.delta", output_index=1, delta=None),
        b'data: {"type": "keepalive"}\n\n',
        end(),
    ) == [STOP]


def test_the_upstream_names_itself() -> None:
    """From its first event on."""
    parser = AnswerParser(HEAD, EventReader(HEAD))
    parser.feed(event("created", response={"id": "resp_1", "model": "up-1"}))
    assert (parser.upstream_model, parser.upstream_id) == ("up-1", "resp_1")


# -- tool calls --------------------------------------------------------------------------------------


def added(place: int, item: object) -> bytes:
    """Return the event that begins an item."""
    return event("output_item.added", output_index=place, item=item)


def arguments(place: int, text: str, *, done: bool = False) -> bytes:
    """Return some more of a call's arguments, or all of them."""
    if done:
        return event("function_call_arguments.done", output_index=place, arguments=text)
    return event("function_call_arguments.delta", output_index=place, delta=text)


def test_tool_calls_come_in_pieces_by_their_place() -> None:
    """They are counted among themselves, and named by the id that their results refer to."""
    events = parse(
        added(1, call("get")),
        added(3, call("put")),
        arguments(3, "{"),
        arguments(1, '{"x":'),
        arguments(3, "}"),
        arguments(1, "1}"),
        arguments(1, '{"x":1}', done=True),
        event("output_item.done", output_index=1, item=call("get", '{"x":1}')),
        event("output_item.done", output_index=3, item=call("put", "{}")),
        end(),
    )
    assert events[:3] == [
        ToolCallDelta(0, "call_get", "get"),
        ToolCallDelta(1, "call_put", "put"),
        ToolCallDelta(1, arguments="{"),
    ]
    assembly = Assembly()
    assembly.extend(events)
    assert assembly.tool_calls == (ToolCall("call_get", "get", '{"x":1}'), ToolCall("call_put", "put", "{}"))
    assert assembly.finished == Finished(FinishReason.TOOL_CALLS, "completed")


WANTED = (ToolCall("call_get", "get", '{"x":1}'),)


@pytest.mark.parametrize(
    "pieces",
    [
        [added(0, call("get")), arguments(0, '{"x":1}', done=True)],
        [added(0, call("get")), arguments(0, '{"x"'), arguments(0, '{"x":1}', done=True)],
        [added(0, call("get", '{"x":1}')), event("output_item.done", output_index=0, item=call("get", '{"x":1}'))],
        [event("output_item.done", output_index=0, item=call("get", '{"x":1}'))],
        [arguments(0, '{"x":1}'), event("output_item.done", output_index=0, item=call("get", '{"x":1}'))],
    ],
)
def test_arguments_are_neither_lost_nor_doubled(pieces: list[bytes]) -> None:
    """Wherever they stand: in pieces, in the event that repeats them, in the item, before the call has a name."""
    assert assembled(*pieces, end()).tool_calls == WANTED


def test_a_call_is_named_once() -> None:
    """Though its item says it twice, and may say it late."""
    nameless = {**call("get"), "call_id": "", "name": ""}
    events = parse(added(0, nameless), arguments(0, "{}"), event("output_item.done", output_index=0, item=call("get")))
    assert events == [ToolCallDelta(0, arguments="{}"), ToolCallDelta(0, "call_get", "get")]
    done = event("output_item.done", output_index=0, item=call("get", "{}"))
    assert parse(added(0, call("get")), done) == [ToolCallDelta(0, "call_get", "get"), ToolCallDelta(0, arguments="{}")]


def test_items_without_places_are_told_apart_by_their_ids() -> None:
    """Both ways to say which item an event is about work alone."""
    pieces = [
        event("output_item.added", item=call("get")),
        event("output_item.added", item=call("put")),
        event("function_call_arguments.delta", item_id="fc_put", delta="{}"),
        event("function_call_arguments.delta", item_id="fc_get", delta='{"x":1}'),
    ]
    assert assembled(*pieces, end()).tool_calls == (*WANTED, ToolCall("call_put", "put", "{}"))


def test_items_that_share_a_place_stay_apart() -> None:
    """Some upstreams give every item the place 0, and ids that change."""
    pieces = [
        *(added(0, message("")), delta("Look: "), event("output_item.done", output_index=0, item=message("Look: "))),
        *(added(0, call("get")), arguments(0, '{"x":1}')),
        event("output_item.done", output_index=0, item=call("get", '{"x":1}', id="fc_other")),
        event("output_item.done", output_index=0, item=call("put", "{}")),
    ]
    answer = assembled(*pieces, end(output=[message("Look: "), call("get", '{"x":1}'), call("put", "{}")]))
    assert answer.text == "Look: "
    assert answer.tool_calls == (*WANTED, ToolCall("call_put", "put", "{}"))


# -- reasoning ---------------------------------------------------------------------------------------


def thought(text: str = "", **fields: object) -> dict[str, object]:
    """Return a complete piece of reasoning."""
    summary = [{"type": "summary_text", "text": text}] if text else []
    return {"type": "reasoning", "id": "rs_1", "summary": summary, **fields}


def test_reasoning_comes_with_its_proof() -> None:
    """The summary in its parts, then what the provider wants back; and the answer apart from it."""
    pieces = [
        added(0, thought(encrypted_content="begun")),
        event("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="Hm"),
        event("reasoning_summary_text.done", output_index=0, summary_index=0, text="Hm."),
        event("reasoning_summary_text.delta", output_index=0, summary_index=1, delta=" So."),
        event("output_item.done", output_index=0, item={**thought("Hm."), "encrypted_content": "sealed"}),
        delta("Yes", 1),
    ]
    answer = assembled(*pieces, end())
    assert answer.thoughts == (Thought("Hm. So.", Signature("responses", "sealed"), id="rs_1"),)
    assert answer.text == "Yes"


def test_reasoning_may_be_shown_in_full() -> None:
    """As models do that anybody can run."""
    pieces = [
        event("reasoning_text.delta", output_index=0, content_index=0, delta="Hm"),
        event("reasoning_text.done", output_index=0, content_index=0, text="Hm."),
        event("output_item.done", output_index=0, item=thought(content=[{"type": "reasoning_text", "text": "Hm."}])),
    ]
    assert assembled(*pieces, end()).thoughts == (Thought("Hm.", id="rs_1"),)
    assert assembled(whole(thought(content=[{"type": "reasoning_text", "text": "Hm."}]))).reasoning == "Hm."


def test_reasoning_that_is_only_proved_is_kept() -> None:
    """And one that is neither shown nor proved is none."""
    sealed = thought(encrypted_content="sealed")
    assert assembled(whole(sealed)).thoughts == (Thought("", Signature("responses", "sealed"), id="rs_1"),)
    assert parse(whole(thought(encrypted_content=None), message("Yes"))) == [TextDelta("Yes"), STOP]


# -- what stands in the last event alone -------------------------------------------------------------


SEALED = thought("Hm", encrypted_content="sealed")
TOLD = [added(0, thought()), event("output_item.done", output_index=0, item=SEALED)]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (TOLD, "Hm"),
        ([*TOLD, added(1, {**message(""), "id": "msg_1"})], "Hm"),
        ([*TOLD, added(1, message("")), delta("An", 1)], "Hm"),
        ([*TOLD, event("output_text.delta", item_id="msg_1", delta="An")], "Hm"),
        ([*TOLD, added(1, message("")), delta("An", 1), delta("swer", 1)], "Hm"),
        ([added(0, thought())], "Hm"),
        ([event("reasoning_summary_text.delta", item_id="rs_1", delta="H")], "Hm"),
    ],
)
def test_what_the_stream_leaves_out_is_taken_from_its_last_event(told: list[bytes], said: str) -> None:
    """Items that were not announced, announced ones without their text, and the rest of a text."""
    output = [SEALED, {**message("Answer"), "id": "msg_1"}, call("get", '{"x":1}')]
    answer = assembled(*told, end(output=output))
    assert answer.text == "Answer"
    assert answer.thoughts == (Thought(said, Signature("responses", "sealed"), id="rs_1"),)
    assert answer.tool_calls == WANTED
    assert answer.finished == Finished(FinishReason.TOOL_CALLS, "completed")


@pytest.mark.parametrize(
    "told",
    [
        [added(0, call("get"))],
        [added(0, {**message(""), "id": "msg_1"}), delta("An"), added(0, call("get"))],
    ],
)
def test_the_rest_of_an_item_in_the_wrong_place_goes_by_its_id(told: list[bytes]) -> None:
    """Not to what else was told there."""
    answer = assembled(*told, end(output=[{**message("Answer"), "id": "msg_1"}, call("get", '{"x":1}')]))
    assert answer.text == "Answer"
    assert answer.tool_calls == WANTED


@pytest.mark.parametrize(
    "told",
    [
        [added(0, call("get")), added(0, message("")), delta("Answer")],
        [
            *(added(0, call("get")), event("output_item.done", output_index=0, item=call("get"))),
            *(added(0, message("")), event("output_item.done", output_index=0, item=message("Answer"))),
        ],
        [event("output_text.delta", delta="Answer")],
        [added(5, message("")), delta("Answer", 5), added(6, call("get"))],
    ],
)
def test_what_was_told_in_the_wrong_place_is_not_told_twice(told: list[bytes]) -> None:
    """Where neither place nor id tells which item of the last event it is, nothing is taken from that."""
    output = [{**message("Answer"), "id": "msg_other"}, {**call("get"), "id": "fc_other"}]
    assert assembled(*told, end(output=output)).text == "Answer"


# -- the end -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "details", "finished"),
    [
        ("completed", None, STOP),
        ("incomplete", {"reason": "max_output_tokens"}, Finished(FinishReason.LENGTH, "max_output_tokens")),
        ("incomplete", {"reason": "content_filter"}, Finished(FinishReason.CONTENT_FILTER, "content_filter")),
        ("incomplete", {"reason": "bored"}, Finished(FinishReason.OTHER, "bored")),
        ("incomplete", None, Finished(FinishReason.OTHER, "incomplete")),
    ],
)
def test_finish_reasons_are_named_alike_and_kept_as_they_were(status: str, details: object, finished: Finished) -> None:
    """In streams, and in whole responses."""
    assert parse(delta("a"), end(status, incomplete_details=details))[-1] == finished
    assert parse(whole(message("a"), status=status, incomplete_details=details))[-1] == finished


def test_a_streams_last_event_says_more_than_the_status_in_it() -> None:
    """Some leave that at what it was when the stream began."""
    assert parse(event("completed", response={"status": "in_progress"})) == [STOP]
    assert parse(event("incomplete", response={}))[-1] == Finished(FinishReason.OTHER, "incomplete")


def test_an_answer_that_ran_out_while_it_called_a_tool_is_cut_by_its_length() -> None:
    """Its call may be half a call."""
    pieces = [added(0, call("get")), arguments(0, '{"x"')]
    answer = assembled(*pieces, end("incomplete", incomplete_details={"reason": "max_output_tokens"}))
    assert answer.finished == Finished(FinishReason.LENGTH, "max_output_tokens")


@pytest.mark.parametrize("last", [b"", b"data: [DONE]\n\n", b'data: {"type": "response.comp'])
def test_a_stream_without_its_last_event_was_cut(last: bytes) -> None:
    """Whatever ends it: `[DONE]` is a word of another protocol."""
    parser = AnswerParser(HEAD, EventReader(HEAD))
    events = [*parser.feed(delta("half")), *parser.feed(last), *parser.close()]
    assert events == [TextDelta("half")]
    assert parser.failure is None
    assert not parser.finished


def test_nothing_is_read_after_the_last_event() -> None:
    """OpenRouter adds `[DONE]`; anything else could not fail either."""
    parser = AnswerParser(HEAD, EventReader(HEAD))
    assert parser.feed(delta("a") + end() + b"data: [DONE]\n\ndata: {broken\n\n") == [TextDelta("a"), STOP]
    assert parser.ended
    assert parser.feed(b"data: {broken\n\n") == []
    assert parser.failure is None


@pytest.mark.parametrize(
    "stated", [None, {}, {"input_tokens": 0, "output_tokens": 0}, {"input_tokens": "x"}, {"input_tokens": 10**30}, [1]]
)
def test_missing_and_empty_usage_is_no_usage(stated: object) -> None:
    """Nulls, zeros and nonsense are not a usage of zero tokens."""
    assert parse(delta("a"), end(usage=stated)) == [TextDelta("a"), STOP]


# -- failures ----------------------------------------------------------------------------------------


def failure(*pieces: bytes) -> WizardError:
    """Return what a body fails with."""
    with pytest.raises(WizardError) as caught:
        parse(*pieces)
    return caught.value


TOO_LONG = "Your input exceeds the context window of this model. Please adjust your input and try again."


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        ("rate_limit_exceeded", "slow down", RateLimitError),
        ("server_error", "The server had an error", ProviderError),
        ("vector_store_timeout", "late", ProviderError),
        ("context_length_exceeded", TOO_LONG, TokenLimitError),
        ("invalid_request_error", TOO_LONG, TokenLimitError),
        ("invalid_prompt", "flagged", ContentFilterError),
        ("bio_policy", "no", ContentFilterError),
        ("image_content_policy_violation", "no", ContentFilterError),
        ("invalid_image_format", "no picture", RequestError),
        ("failed_to_download_image", "no picture", RequestError),
        ("server_overloaded", "later", OverloadedError),
    ],
)
def test_failures_are_classified_by_their_code(code: str, text: str, kind: type[WizardError]) -> None:
    """In the last event, in a whole response, and in both shapes of the event `error`."""
    stated = {"code": code, "message": text}
    found = [
        failure(end("failed", error=stated)),
        failure(whole(status="failed", error=stated)),
        failure(event("error", **stated, param=None)),
        failure(event("error", error={"type": "error", **stated})),
        failure(b"data: " + json.dumps({"error": stated}).encode() + b"\n\n"),
        failure(json.dumps({"error": stated}).encode()),
    ]
    assert {type(error) for error in found} == {kind}
    assert all(text in str(error) for error in found)


def test_what_came_before_a_failure_is_delivered() -> None:
    """Its text, and what it has cost; the error carries the response's id, for the provider's support."""
    parser = AnswerParser(HEAD, EventReader(HEAD))
    events = parser.feed(delta("half") + end("failed", error={"code": "server_error"}, usage={"input_tokens": 3}))
    assert events == [TextDelta("half"), UsageUpdate(TokenUsage(3))]
    assert isinstance(parser.failure, ProviderError)
    assert parser.failure.request_id == "resp_1"


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_failure_may_have_no_reason(status: str) -> None:
    """Then its status is all that there is to say."""
    assert status in str(failure(whole(status=status)))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"data: 17\n\n", "not a JSON object"),
        (b'data: {"type": "response.output_text.delta", "delta": 5}\n\n', "int for its text"),
        (b"{}", "has no output"),
        (b'{"choices": []}', "Chat Completions"),
        (b'{"detail": "Not here"}', "Not here"),
        (b'["Not here"]', "Not here"),
        (whole(status="queued"), "not complete"),
        (whole(status="in_progress"), "not complete"),
        (event("in_progress")[:40] + b"\n\n", "understood"),
    ],
)
def test_what_cannot_be_understood_fails(body: bytes, said: str) -> None:
    """Never in silence."""
    error = failure(body)
    assert isinstance(error, ProviderError)
    assert said in str(error)
    assert isinstance(failure(b"event: error\ndata: [1]\n\n"), ProviderError)
    assert isinstance(failure(b"data: {broken\n\n"), ParseError)
