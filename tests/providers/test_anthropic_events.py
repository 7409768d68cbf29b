"""What Messages upstreams answer, read without a socket: every event, every kind of block, every failure."""

import json

import pytest

from wizard_actors.errors import (
    AuthError,
    ContentFilterError,
    ModelNotFoundError,
    OverloadedError,
    ParseError,
    ProviderError,
    QuotaExhaustedError,
    RateLimitError,
    RequestError,
    TokenLimitError,
    WizardError,
)
from wizard_actors.providers.answer import AnswerParser
from wizard_actors.providers.anthropic_events import EventReader
from wizard_actors.providers.refusals import Head, error_body, refusal
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
EVENT_STREAM = "text/event-stream; charset=utf-8"


def event(kind: str, **fields: object) -> bytes:
    """Return one event of a stream."""
    return f"event: {kind}\ndata: ".encode() + json.dumps({"type": kind, **fields}).encode() + b"\n\n"


def start(index: int, kind: str, **fields: object) -> bytes:
    """Return the beginning of a block."""
    return event("content_block_start", index=index, content_block={"type": kind, **fields})


def delta(index: int, kind: str, **fields: object) -> bytes:
    """Return a piece of a block."""
    return event("content_block_delta", index=index, delta={"type": kind, **fields})


def stop(index: int) -> bytes:
    """Return the end of a block."""
    return event("content_block_stop", index=index)


def ended(reason: str | None = "end_turn", **usage: object) -> bytes:
    """Return how a stream ends."""
    return event("message_delta", delta={"stop_reason": reason}, usage=usage) + event("message_stop")


BEGUN = event(
    "message_start",
    message={"id": "msg_1", "model": "up-1", "content": [], "usage": {"input_tokens": 7, "output_tokens": 1}},
)
PING = event("ping")


def parse(*pieces: bytes, head: Head = HEAD, content_type: str = EVENT_STREAM) -> list[ModelEvent]:
    """Return the events of a whole body; raise what failed."""
    parser = AnswerParser(head, EventReader(head), content_type=content_type)
    events = [each for piece in pieces for each in parser.feed(piece)]
    events += parser.close()
    if parser.failure is not None:
        raise parser.failure
    return events


def assembled(*pieces: bytes) -> Assembly:
    """Return a body's answer, put together."""
    assembly = Assembly()
    assembly.extend(parse(*pieces))
    return assembly


def whole(*content: object, reason: str | None = "end_turn", **fields: object) -> bytes:
    """Return a message that comes as one JSON object."""
    message = {"type": "message", "id": "msg_1", "model": "up-1", "content": content, "stop_reason": reason, **fields}
    return json.dumps(message).encode()


def failure(*pieces: bytes, head: Head = HEAD) -> WizardError:
    """Return what a body fails with."""
    with pytest.raises(WizardError) as caught:
        parse(*pieces, head=head)
    return caught.value


# -- texts and the end -------------------------------------------------------------------------------


def test_a_stream_becomes_its_texts_its_usage_and_its_end() -> None:
    """The plain case, with a ping where they come."""
    events = parse(
        BEGUN,
        start(0, "text", text=""),
        PING,
        delta(0, "text_delta", text="Why"),
        delta(0, "text_delta", text=" not?"),
        stop(0),
        ended(output_tokens=5),
    )
    assert events == [
        UsageUpdate(TokenUsage(7, 1)),
        TextDelta("Why"),
        TextDelta(" not?"),
        UsageUpdate(TokenUsage(7, 5)),
        Finished(FinishReason.STOP, "end_turn"),
    ]


def test_a_text_may_begin_with_its_block() -> None:
    """Some put all of it there."""
    assert parse(start(0, "text", text="Why"), delta(0, "text_delta", text="?")) == [TextDelta("Why"), TextDelta("?")]


def test_the_upstream_names_itself() -> None:
    """The model's own name and the message's id, in a stream and in a whole message; an id in the headers wins."""
    for body in (BEGUN, whole()):
        parser = AnswerParser(HEAD, EventReader(HEAD))
        parser.feed(body)
        parser.close()
        assert (parser.upstream_model, parser.upstream_id) == ("up-1", "msg_1")
    head = Head("primary", request_id="req_1")
    parser = AnswerParser(head, EventReader(head))
    parser.feed(BEGUN)
    assert parser.upstream_id == "req_1"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("end_turn", FinishReason.STOP),
        ("stop_sequence", FinishReason.STOP),
        ("max_tokens", FinishReason.LENGTH),
        ("model_context_window_exceeded", FinishReason.LENGTH),
        ("tool_use", FinishReason.TOOL_CALLS),
        ("refusal", FinishReason.CONTENT_FILTER),
        ("pause_turn", FinishReason.OTHER),
        ("a_reason_to_come", FinishReason.OTHER),
    ],
)
def test_finish_reasons_are_named_alike_and_kept_as_they_were(raw: str, reason: FinishReason) -> None:
    """In streams and in whole messages."""
    assert parse(BEGUN, ended(raw))[-1] == Finished(reason, raw)
    assert parse(whole(reason=raw)) == [Finished(reason, raw)]


@pytest.mark.parametrize("last", [b"", event("message_stop"), b"data: [DONE]\n\n", ended(None)])
def test_a_stream_without_its_stop_reason_was_cut(last: bytes) -> None:
    """However it ends: nothing else says that an answer is complete."""
    assert parse(start(0, "text", text="half"), last) == [TextDelta("half")]


def test_a_whole_message_without_a_stop_reason_is_complete() -> None:
    """JSON that has an end is not cut."""
    said = {"type": "text", "text": "a"}
    assert parse(whole(said, reason=None)) == [TextDelta("a"), Finished(FinishReason.STOP)]


def test_nothing_is_read_after_the_last_word() -> None:
    """What follows `message_stop` is neither parsed nor able to fail."""
    parser = AnswerParser(HEAD, EventReader(HEAD), content_type=EVENT_STREAM)
    assert parser.feed(ended() + b"data: {broken\n\n") == [Finished(FinishReason.STOP, "end_turn")]
    assert parser.ended
    assert parser.failure is None


def test_what_nobody_knows_is_no_event() -> None:
    """Events, blocks and deltas to come; citations; arguments of what never began; a second stop reason."""
    events = parse(
        event("a_kind_to_come", message="x", content_block={"type": "text", "text": "x"}),
        start(0, "a_block_to_come", text="x"),
        delta(0, "text_delta", text="x"),
        stop(0),
        start(1, "text", text="", citations=[]),
        delta(1, "citations_delta", citation={"cited_text": "x"}),
        delta(1, "a_delta_to_come", text="x"),
        delta(1, "thinking_delta", thinking="x"),
        delta(7, "input_json_delta", partial_json="{}"),
        stop(1),
        stop(7),
        event("message_delta", delta={"stop_reason": "end_turn"}, usage=None),
        event("message_delta", delta={"stop_reason": "max_tokens"}),
        b"event: vertex_event\ndata: {}\n\n",
    )
    assert events == [Finished(FinishReason.STOP, "end_turn")]


def test_what_is_said_counts_without_a_beginning() -> None:
    """Proxies may leave out where a block begins."""
    streamed = (delta(0, "thinking_delta", thinking="Hm"), stop(0), delta(1, "text_delta", text="Yes"), ended())
    assert parse(*streamed) == [
        ReasoningDelta("Hm"),
        ThoughtEnded(),
        TextDelta("Yes"),
        Finished(FinishReason.STOP, "end_turn"),
    ]


# -- usage -------------------------------------------------------------------------------------------


def test_input_tokens_are_counted_together() -> None:
    """The protocol counts apart what is read from a cache and what is written to it."""
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 300,
        "cache_creation_input_tokens": 4000,
        "output_tokens": 20,
        "output_tokens_details": {"thinking_tokens": 15},
    }
    expected = TokenUsage(4310, 20, cached_tokens=300, reasoning_tokens=15, cache_write_tokens=4000)
    assert parse(whole(usage=usage))[0] == UsageUpdate(expected)
    assert parse(event("message_start", message={"usage": usage})) == [UsageUpdate(expected)]


def test_later_counts_take_the_place_of_earlier_ones() -> None:
    """They are of all so far; what a later event does not state, or states as zero, stays."""
    begun = event("message_start", message={"usage": {"input_tokens": 10, "cache_read_input_tokens": 5}})
    more = {"input_tokens": 40, "cache_read_input_tokens": 0, "cache_creation_input_tokens": None, "output_tokens": 9}
    (_, last) = parse(begun, event("message_delta", delta={}, usage=more))
    assert last == UsageUpdate(TokenUsage(45, 9, cached_tokens=5))


def test_missing_and_odd_usage_is_no_usage() -> None:
    """Nulls, zeros, nonsense and numbers beyond reason count nothing."""
    for stated in (None, {}, {"input_tokens": 0}, {"input_tokens": "many", "output_tokens": -1}, [1], "x"):
        assert parse(whole(usage=stated)) == [Finished(FinishReason.STOP, "end_turn")]
    assert parse(whole(usage={"input_tokens": 10**30, "output_tokens": True})) == [
        Finished(FinishReason.STOP, "end_turn")
    ]
    assert parse(whole(usage={"input_tokens": 3.0}))[0] == UsageUpdate(TokenUsage(3, 0))


# -- tools -------------------------------------------------------------------------------------------


def test_tool_calls_are_counted_from_zero() -> None:
    """Whatever stands before them; their arguments come in pieces."""
    answer = assembled(
        start(0, "text", text="Let me see."),
        stop(0),
        start(1, "tool_use", id="toolu_1", name="get", input={}),
        delta(1, "input_json_delta", partial_json=""),
        delta(1, "input_json_delta", partial_json='{"city": '),
        delta(1, "input_json_delta", partial_json='"Paris"}'),
        stop(1),
        start(2, "tool_use", id="toolu_2", name="put", input={}),
        delta(2, "input_json_delta", partial_json="{}"),
        stop(2),
        ended("tool_use"),
    )
    assert answer.tool_calls == (ToolCall("toolu_1", "get", '{"city": "Paris"}'), ToolCall("toolu_2", "put", "{}"))


@pytest.mark.parametrize(
    ("given", "arguments"), [({}, "{}"), ({"a": 1}, '{"a":1}'), (None, "{}"), ("", "{}"), ('{"a": 1}', '{"a": 1}')]
)
def test_arguments_may_come_whole(given: object, arguments: str) -> None:
    """With the beginning of the block, where no pieces follow; and none are an empty object."""
    call = ToolCall("toolu_1", "get", arguments)
    begun = start(0, "tool_use", id="toolu_1", name="get", input=given)
    message = whole({"type": "tool_use", "id": "toolu_1", "name": "get", "input": given})
    for pieces in (
        (begun, delta(0, "input_json_delta", partial_json=""), stop(0)),
        (begun, ended("tool_use")),  # without the end of its block
        (message,),
    ):
        assert assembled(*pieces).tool_calls == (call,)


def test_pieces_take_the_place_of_arguments_that_came_whole() -> None:
    """As the official SDK has it."""
    begun = start(0, "tool_use", id="toolu_1", name="get", input={"a": 1})
    answer = assembled(begun, delta(0, "input_json_delta", partial_json='{"b": 2}'), stop(0))
    assert answer.tool_calls[0].arguments == '{"b": 2}'


def test_what_the_provider_runs_itself_is_no_call_of_ours() -> None:
    """Searches, their results, and the arguments of both."""
    use = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
    result = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"title": "x"}]}
    said = {"type": "text", "text": "Found."}
    expected = [TextDelta("Found."), Finished(FinishReason.STOP, "end_turn")]
    assert parse(whole(use, result, said)) == expected
    streamed = (
        event("content_block_start", index=0, content_block={**use, "input": {}}),
        delta(0, "input_json_delta", partial_json='{"query": "x"}'),
        stop(0),
        event("content_block_start", index=1, content_block=result),
        stop(1),
        event("content_block_start", index=2, content_block=said),
        stop(2),
        ended(),
    )
    assert parse(*streamed) == expected


def test_a_call_without_a_name_or_an_id_keeps_its_place() -> None:
    """And is no empty event."""
    assert parse(start(0, "tool_use", input={}), stop(0)) == [ToolCallDelta(0, arguments="{}")]


# -- thoughts ----------------------------------------------------------------------------------------


def test_thoughts_end_with_their_signature() -> None:
    """Shown, withheld, and shown without a text."""
    streamed = assembled(
        start(0, "thinking", thinking="", signature=""),
        delta(0, "thinking_delta", thinking="Hm"),
        delta(0, "thinking_delta", thinking="..."),
        delta(0, "signature_delta", signature="c2ln"),
        stop(0),
        start(1, "redacted_thinking", data="ZGF0YQ=="),
        stop(1),
        start(2, "thinking", thinking=""),
        delta(2, "signature_delta", signature="b25seQ=="),
        stop(2),
        ended(),
    )
    at_once = assembled(
        whole(
            {"type": "thinking", "thinking": "Hm...", "signature": "c2ln"},
            {"type": "redacted_thinking", "data": "ZGF0YQ=="},
            {"type": "thinking", "thinking": "", "signature": "b25seQ=="},
        )
    )
    assert streamed.thoughts == at_once.thoughts
    assert at_once.thoughts == (
        Thought("Hm...", Signature("anthropic", "c2ln")),
        Thought("", Signature("anthropic", "ZGF0YQ=="), redacted=True),
        Thought("", Signature("anthropic", "b25seQ==")),
    )


def test_a_thought_without_signature_ends_too() -> None:
    """Compatible upstreams sign nothing; one without anything is none."""
    thought = start(0, "thinking", thinking="Hm") + stop(0)
    assert parse(thought) == [ReasoningDelta("Hm"), ThoughtEnded()]
    assert parse(start(0, "thinking", thinking="") + stop(0), start(1, "redacted_thinking") + stop(1)) == []


# -- failures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind", "status"),
    [
        ("invalid_request_error", RequestError, 400),
        ("authentication_error", AuthError, 401),
        ("billing_error", QuotaExhaustedError, 402),
        ("permission_error", AuthError, 403),
        ("not_found_error", RequestError, 404),
        ("rate_limit_error", RateLimitError, 429),
        ("api_error", ProviderError, 500),
        ("timeout_error", ProviderError, 504),
        ("overloaded_error", OverloadedError, 529),
    ],
)
def test_an_error_inside_a_stream_has_the_status_of_its_type(code: str, kind: type[ProviderError], status: int) -> None:
    """Its HTTP status was 200; the events before it are delivered."""
    body = {"type": "error", "error": {"type": code, "message": "Sorry"}, "request_id": "req_2"}
    error = failure(BEGUN, b"event: error\ndata: " + json.dumps(body).encode() + b"\n\n")
    assert type(error) is kind
    assert isinstance(error, ProviderError)
    assert (error.status, error.request_id) == (status, "req_2")
    parser = AnswerParser(HEAD, EventReader(HEAD))
    assert parser.feed(start(0, "text", text="a") + b"data: " + json.dumps(body).encode() + b"\n\n") == [TextDelta("a")]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'event: error\ndata: {"message": "boom"}\n\n', ProviderError),
        (b'data: {"error": {"message": "slow down", "type": "rate_limit_error"}}\n\n', RateLimitError),
        (b'data: {"detail": "gone wrong"}\n\n', ProviderError),
        (b'{"type": "error", "error": {"type": "overloaded_error", "message": "x"}}', OverloadedError),
        (b'{"error": "text"}', ProviderError),
        (b'[{"error": {"code": 503, "message": "later"}}]', OverloadedError),
        (b'{"type": "error", "error": {"type": "request_too_large", "message": "x"}}', TokenLimitError),
    ],
)
def test_errors_under_a_200_are_classified(body: bytes, kind: type[WizardError]) -> None:
    """As proxies write them, too, and as plain JSON."""
    assert type(failure(body)) is kind


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"data: {broken\n\n", "JSON"),
        (b"data: 17\n\n", "not a JSON object"),
        (start(0, "text", text=5), "int for its text"),
        (start(0, "text", text="") + delta(0, "text_delta", text=["x"]), "list for its text"),
        (b'{"choices": [{"message": {"content": "x"}}]}', "no content"),
        (b'{"type": "message", "content": "x"}', "no content"),
        (b'{"type": "message", "content": [{"type": "te', "understood"),
    ],
)
def test_what_cannot_be_understood_fails(body: bytes, said: str) -> None:
    """Malformed events and answers are errors that say what was wrong, never silence."""
    error = failure(body)
    assert isinstance(error, ParseError)
    assert said in str(error)


@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        (401, "authentication_error", "invalid x-api-key", AuthError),
        (
            400,
            "invalid_request_error",
            "Your credit balance is too low to access the API",
            QuotaExhaustedError,
        ),
        (400, "invalid_request_error", "You have reached your specified API usage limits.", QuotaExhaustedError),
        (400, "invalid_request_error", "Output blocked by content filtering policy", ContentFilterError),
        (400, "invalid_request_error", "max_tokens: Field required", RequestError),
        (404, "not_found_error", "model: claude-of-tomorrow", ModelNotFoundError),
        (404, "not_found_error", "Not found", RequestError),
        (413, "request_too_large", "Request exceeds the maximum size", TokenLimitError),
        (429, "rate_limit_error", "This request would exceed the rate limit of 40,000 input tokens", RateLimitError),
        (500, "api_error", "Internal server error", ProviderError),
        (529, "overloaded_error", "Overloaded", OverloadedError),
    ],
)
def test_refusals_are_judged_by_what_they_say(status: int, code: str, message: str, kind: type[WizardError]) -> None:
    """Anthropic has few types, and says under a plain 400 what others have codes for."""
    body = {"type": "error", "error": {"type": code, "message": message}}
    assert type(refusal(Head("primary", status), error_body(body))) is kind


@pytest.mark.parametrize(
    ("message", "requested", "most"),
    [
        ("prompt is too long: 208310 tokens > 200000 maximum", 208_310, 200_000),
        ("input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease input", None, 200_000),
    ],
)
def test_a_prompt_that_is_too_long_tells_by_how_much(message: str, requested: int | None, most: int) -> None:
    """Where the message counts."""
    body = {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    error = refusal(Head("primary", 400), error_body(body))
    assert isinstance(error, TokenLimitError)
    assert (error.requested, error.max) == (requested, most)
