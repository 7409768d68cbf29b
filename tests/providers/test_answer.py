"""What Chat Completions upstreams answer, read without a socket: every quirk, every failure, all recorded traffic."""

import json

import pytest

from wizard_actors.errors import (
    ContentFilterError,
    OverloadedError,
    ParseError,
    ProviderError,
    RateLimitError,
    RequestError,
    WizardError,
)
from wizard_actors.providers.answer import MAX_ERROR_BODY, AnswerParser
from wizard_actors.providers.openai_chunks import ChunkReader
from wizard_actors.providers.refusals import Head
from wizard_actors.streaming import MAX_EVENT
from wizard_actors.types import (
    Finished,
    FinishReason,
    ModelEvent,
    ReasoningDelta,
    TextDelta,
    TokenUsage,
    UsageUpdate,
)

KEY = "sk-canary-0123456789"
HEAD = Head("primary", secrets=(KEY,))
EVENT_STREAM = "text/event-stream; charset=utf-8"


def chunk(delta: object = None, finish: object = None, **fields: object) -> bytes:
    """Return one event of a stream: a chunk with one choice."""
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}
    return event({"id": "chatcmpl-1", "model": "up-1", "choices": [choice], **fields})


def event(data: object) -> bytes:
    """Return one event of a stream."""
    return b"data: " + json.dumps(data).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def parse(*pieces: bytes, head: Head = HEAD, content_type: str = EVENT_STREAM) -> list[ModelEvent]:
    """Return the events of a whole body; raise what failed."""
    parser = AnswerParser(head, ChunkReader(head), content_type=content_type)
    events: list[ModelEvent] = []
    for piece in pieces:
        events += parser.feed(piece)
    events += parser.close()
    if parser.failure is not None:
        raise parser.failure
    return events


def whole(message: object, finish: object = "stop", **fields: object) -> bytes:
    """Return a whole answer as JSON."""
    return json.dumps({"model": "up-1", "choices": [{"message": message, "finish_reason": finish}], **fields}).encode()


def failure(*pieces: bytes, head: Head = HEAD, content_type: str = EVENT_STREAM) -> WizardError:
    """Return what a body fails with."""
    with pytest.raises(WizardError) as caught:
        parse(*pieces, head=head, content_type=content_type)
    return caught.value


# -- streams -----------------------------------------------------------------------------------------


def test_a_stream_becomes_its_texts_its_usage_and_its_end() -> None:
    """The plain case: role, text, finish reason, a chunk with the usage alone, `[DONE]`."""
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    events = parse(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Why"}),
        chunk({"content": " not?"}),
        chunk(finish="stop"),
        event({"choices": [], "usage": usage}),
        DONE,
    )
    assert events == [
        TextDelta("Why"),
        TextDelta(" not?"),
        Finished(FinishReason.STOP, "stop"),
        UsageUpdate(TokenUsage(7, 2)),
    ]


def test_what_carries_nothing_is_no_event() -> None:
    """Roles, empty texts, nulls, pings, comments, blank lines and Azure's first chunk yield nothing."""
    azure = {"choices": [], "object": "", "model": "", "id": "", "prompt_filter_results": []}
    nothing = (
        b": OPENROUTER PROCESSING\n\n",
        b"\r\n\r\n",
        b": keep-alive\n\n",
        b"data:\n\n",
        event(azure),
        chunk({"role": "assistant"}),
        chunk({"content": "", "reasoning": "", "reasoning_content": None, "refusal": None, "tool_calls": []}),
        chunk({"content": None}),
        event({"choices": None}),
    )
    assert parse(*nothing) == []


def test_the_end_of_the_body_alone_finishes_nothing() -> None:
    """A stream that just ends was cut: no `Finished`, for the caller to see."""
    parser = AnswerParser(HEAD, ChunkReader(HEAD), content_type=EVENT_STREAM)
    events = [*parser.feed(chunk({"content": "half"})), *parser.close()]
    assert events == [TextDelta("half")]
    assert parser.ended
    assert not parser.finished


def test_half_an_event_at_the_end_is_a_cut_stream() -> None:
    """The connection's end in the middle of an event is no malformed event."""
    assert parse(chunk({"content": "half"}), b'data: {"choices": [{"de') == [TextDelta("half")]


def test_an_event_without_its_blank_line_counts() -> None:
    """Some servers leave out the last line end, or the blank line."""
    assert parse(chunk({"content": "a"}), b"data: [DONE]") == [TextDelta("a"), Finished(FinishReason.STOP)]


def test_done_without_a_finish_reason_is_complete() -> None:
    """`[DONE]` says that the answer is whole, also where no chunk said why it ended."""
    assert parse(chunk({"content": "a"}), DONE) == [TextDelta("a"), Finished(FinishReason.STOP)]


def test_done_ends_no_answer_that_has_not_said_anything() -> None:
    """Neither a text nor a reason: `[DONE]` alone is what a proxy sends whose upstream broke off."""
    usage = {"prompt_tokens": 3, "completion_tokens": 0}
    events = parse(chunk({"role": "assistant", "content": ""}), event({"choices": [], "usage": usage}), DONE)
    assert events == [UsageUpdate(TokenUsage(3))]
    assert parse(chunk({"content": ""}, ""), DONE) == [Finished(FinishReason.STOP, "")]


def test_nothing_is_read_after_the_last_word() -> None:
    """What follows `[DONE]` is neither parsed nor able to fail."""
    parser = AnswerParser(HEAD, ChunkReader(HEAD), content_type=EVENT_STREAM)
    assert parser.feed(chunk({"content": "a"}, "stop") + DONE + b"data: {broken\n\n")
    assert parser.ended
    assert parser.feed(b"data: {broken\n\n") == []
    assert parser.failure is None


def test_a_finish_reason_is_reported_once() -> None:
    """OpenRouter repeats it beside the usage."""
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    events = parse(chunk({"content": "a"}, "stop"), chunk({"content": ""}, "stop", usage=usage), DONE)
    assert events == [TextDelta("a"), Finished(FinishReason.STOP, "stop"), UsageUpdate(TokenUsage(1, 1))]


def test_an_empty_finish_reason_on_a_chunk_means_nothing_yet() -> None:
    """Some put `""` on every chunk; only `[DONE]` ends such a stream."""
    events = parse(chunk({"content": "a"}, ""), chunk({"content": "b"}, ""), DONE)
    assert events == [TextDelta("a"), TextDelta("b"), Finished(FinishReason.STOP, "")]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("stop", FinishReason.STOP),
        ("eos", FinishReason.STOP),
        ("STOP", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("model_length", FinishReason.LENGTH),
        ("tool_calls", FinishReason.TOOL_CALLS),
        ("function_call", FinishReason.TOOL_CALLS),
        ("content_filter", FinishReason.CONTENT_FILTER),
        ("bored", FinishReason.OTHER),
    ],
)
def test_finish_reasons_are_named_alike_and_kept_as_they_were(raw: str, reason: FinishReason) -> None:
    """Every provider's word becomes one of ours; the raw one stays beside it."""
    assert parse(chunk(finish=raw), DONE) == [Finished(reason, raw)]


def test_usage_is_read_wherever_it_stands() -> None:
    """On every chunk (Perplexity), on the finish chunk (DeepSeek), in a field of its own (Groq); only changes count."""
    everywhere = [
        chunk({"content": text}, finish, usage={"prompt_tokens": 5, "completion_tokens": count})
        for text, finish, count in (("a", None, 1), ("b", None, 2), ("", "stop", 2))
    ]
    groq = chunk({}, "stop", x_groq={"usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    assert [each for each in parse(*everywhere) if isinstance(each, UsageUpdate)] == [
        UsageUpdate(TokenUsage(5, 1)),
        UsageUpdate(TokenUsage(5, 2)),
    ]
    assert UsageUpdate(TokenUsage(3, 4)) in parse(groq, DONE)


def test_missing_and_empty_usage_is_no_usage() -> None:
    """Nulls, empty objects, zeros and nonsense are not a usage of zero tokens."""
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    bad = {"prompt_tokens": "many", "completion_tokens": None, "prompt_tokens_details": 3}
    for stated in (None, {}, zeros, bad, [1], "x"):
        assert parse(chunk({}, "stop", usage=stated), DONE) == [Finished(FinishReason.STOP, "stop")]


def test_usage_details_are_kept() -> None:
    """Cached tokens are part of the input and reasoning of the output, also where a provider counts it beside."""
    openai = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 64},
        "completion_tokens_details": {"reasoning_tokens": 30},
    }
    xai = {**openai, "total_tokens": 180}
    deepseek = {"prompt_tokens": 10, "completion_tokens": 1, "prompt_cache_hit_tokens": 8}
    assert UsageUpdate(TokenUsage(100, 50, 64, 30)) in parse(chunk({}, "stop", usage=openai))
    assert UsageUpdate(TokenUsage(100, 80, 64, 30)) in parse(chunk({}, "stop", usage=xai))
    assert UsageUpdate(TokenUsage(10, 1, 8, 0)) in parse(chunk({}, "stop", usage=deepseek))
    floats = {"prompt_tokens": 3.0, "completion_tokens": 2.5}
    assert UsageUpdate(TokenUsage(3, 0)) in parse(chunk({}, "stop", usage=floats))


def test_reasoning_is_told_from_the_answer() -> None:
    """Under either name, and in parts; where both names stand together it is said once."""
    thinking = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm "}, {"type": "text", "text": "so"}]},
        {"type": "text", "text": "Yes"},
        {"type": "reference", "reference_ids": [1]},
        "!",
    ]
    events = parse(
        chunk({"reasoning_content": "a"}),
        chunk({"reasoning": "b"}),
        chunk({"reasoning": "c", "reasoning_content": "c"}),
        chunk({"content": thinking}),
    )
    assert events == [
        *(ReasoningDelta(text) for text in ("a", "b", "c", "hm ", "so")),
        TextDelta("Yes"),
        TextDelta("!"),
    ]


def test_a_refusal_is_the_text_of_the_answer() -> None:
    """A model that declines says so in a field of its own."""
    assert parse(chunk({"refusal": "I cannot"}), DONE)[0] == TextDelta("I cannot")
    assert parse(whole({"content": None, "refusal": "No"}))[0] == TextDelta("No")


def test_the_upstream_names_itself() -> None:
    """The model's own name and the call's id are the first that are not empty; an id in the headers wins."""
    parser = AnswerParser(HEAD, ChunkReader(HEAD), content_type=EVENT_STREAM)
    names = []
    for piece in (event({"choices": [], "model": "", "id": ""}), chunk({"content": "a"})):
        parser.feed(piece)
        names.append((parser.upstream_model, parser.upstream_id))
    assert names == [(None, None), ("up-1", "chatcmpl-1")]
    head = Head("m", request_id="req_7")
    assert AnswerParser(head, ChunkReader(head)).upstream_id == "req_7"


def test_other_choices_than_the_first_are_ignored() -> None:
    """More than one answer is nothing that anybody asked for."""
    second = {"index": 1, "delta": {"content": "other"}, "finish_reason": "length"}
    assert parse(event({"choices": [second]}), chunk({"content": "first"})) == [TextDelta("first")]


# -- whole answers -----------------------------------------------------------------------------------


def test_json_is_read_as_a_whole_answer_whatever_was_asked_for() -> None:
    """The body's first byte decides, not the content type; white space before it keeps connections alive."""
    body = whole({"content": "Yes"}, usage={"prompt_tokens": 1, "completion_tokens": 1})
    expected = [TextDelta("Yes"), UsageUpdate(TokenUsage(1, 1)), Finished(FinishReason.STOP, "stop")]
    for content_type in ("application/json", "application/octet-stream", EVENT_STREAM, ""):
        assert parse(b"\n\n", b"  ", body[:9], body[9:], content_type=content_type) == expected


def test_a_stream_is_read_as_one_whatever_its_content_type_says() -> None:
    """Some label an event stream as text or JSON."""
    for content_type in ("application/json", "text/plain", ""):
        assert parse(chunk({"content": "a"}), DONE, content_type=content_type)[0] == TextDelta("a")


@pytest.mark.parametrize(("finish", "raw"), [("", ""), (None, None)])
def test_a_whole_answer_without_a_reason_is_complete(finish: str | None, raw: str | None) -> None:
    """JSON that parses was not cut."""
    assert parse(whole({"content": "a"}, finish)) == [TextDelta("a"), Finished(FinishReason.STOP, raw)]


@pytest.mark.parametrize("content", [None, ""])
def test_a_whole_answer_that_says_nothing_is_none(content: str | None) -> None:
    """Unless it states why it ended; what it has cost is counted all the same."""
    usage = {"prompt_tokens": 3, "completion_tokens": 0}
    parser = AnswerParser(HEAD, ChunkReader(HEAD))
    events = parser.feed(whole({"content": content}, None, usage=usage)) + parser.close()
    assert events == [UsageUpdate(TokenUsage(3))]
    assert isinstance(parser.failure, ParseError)
    assert parse(whole({"content": content})) == [Finished(FinishReason.STOP, "stop")]


def test_a_filtered_answer_without_message_ends_by_the_filter() -> None:
    """Azure leaves out the message of an answer that it filtered."""
    body = json.dumps({"choices": [{"finish_reason": "content_filter", "index": 0}]}).encode()
    assert parse(body) == [Finished(FinishReason.CONTENT_FILTER, "content_filter")]


# -- failures ----------------------------------------------------------------------------------------


def test_an_error_inside_a_stream_is_raised_after_the_events_before_it() -> None:
    """Nothing that arrived is lost; what comes after the error is not read."""
    error = event({"error": {"message": "engine overloaded", "code": "overloaded", "type": "server_error"}})
    parser = AnswerParser(HEAD, ChunkReader(HEAD), content_type=EVENT_STREAM)
    events = parser.feed(chunk({"content": "a"}) + error + chunk({"content": "b"}) + DONE)
    assert events == [TextDelta("a")]
    assert isinstance(parser.failure, OverloadedError)
    assert parser.feed(DONE) == []


@pytest.mark.parametrize(
    ("piece", "kind"),
    [
        (b'event: error\ndata: {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}\n\n', RateLimitError),
        (b'event: error\ndata: {"message": "boom"}\n\n', ProviderError),
        (event({"error": {"message": "x", "code": 429}, "choices": [{"delta": {"content": ""}}]}), RateLimitError),
        (event({"error": {"message": "bad field", "type": "invalid_request_error"}}), RequestError),
        (event({"error": {"code": "content_filter", "message": "no"}}), ContentFilterError),
        (event({"object": "error", "message": "worker died", "type": "InternalServerError"}), ProviderError),
        (event({"detail": "gone wrong"}), ProviderError),
        (event([{"error": {"code": 503, "message": "later", "status": "UNAVAILABLE"}}]), OverloadedError),
        (chunk({"content": ""}, "error"), ProviderError),
        (chunk({"content": "half"}, "insufficient_system_resource"), OverloadedError),
        (whole({"content": "half"}, "insufficient_system_resource"), OverloadedError),
        (b'{"error": {"message": "plain JSON", "code": "overloaded"}}', OverloadedError),
    ],
)
def test_errors_under_a_200_are_classified(piece: bytes, kind: type[WizardError]) -> None:
    """By code or type, in every shape, beside choices too, and as plain JSON under an event stream's content type."""
    assert type(failure(piece)) is kind


@pytest.mark.parametrize(
    ("piece", "said"),
    [
        (b"data: {broken\n\n", "JSON"),
        (b"data: 17\n\n", "not a JSON object"),
        (b'data: {"choices": [{"delta": {"content": 5}}]}\n\n', "int for its text"),
        (b'data: {"choices": "\xff"}\n\n', "understood"),
        (b"data: " + b"[" * 100_000 + b"\n\n", "nested"),
        (b"{" + b'"choices": []}', "no choices"),
        (b'{"choices": [{}]}', "no choices with a message"),
        (b'{"choices": "x"}', "no choices with a message"),
        (b"data: [DONE]\n\n", "ends before it has begun"),
        (b"[]", "neither an answer nor an error"),
        (b'{"choices": [{"message": {"content": "cut', "understood"),
    ],
)
def test_what_cannot_be_understood_fails(piece: bytes, said: str) -> None:
    """Malformed events and answers are errors that say what was wrong, never silence."""
    error = failure(piece)
    assert isinstance(error, ProviderError)
    assert said in str(error)


def test_a_web_page_is_no_answer() -> None:
    """A proxy's page under a 200 fails with a short excerpt and the setting to look at."""
    page = b"<!DOCTYPE html>\n<html><body>" + b"Sign in to the network " * 1000 + KEY.encode()
    error = failure(page, content_type="text/html")
    assert isinstance(error, ParseError)
    assert "text/html" in str(error)
    assert "base_url" in str(error)
    assert len(str(error)) < 700


def test_other_text_is_no_answer() -> None:
    """Text that only looks like an event stream by its first letter, and an empty body, fail too."""
    assert isinstance(failure(b"error code: 1015", content_type="text/plain"), ParseError)
    assert isinstance(failure(content_type="application/json"), ParseError)


def test_an_endless_event_fails() -> None:
    """What a server may make us hold is bounded."""
    parser = AnswerParser(HEAD, ChunkReader(HEAD), content_type=EVENT_STREAM)
    parser.feed(chunk({"content": "a"}) + b"data: ")
    for _ in range(MAX_EVENT // 2**20 + 1):
        parser.feed(b"x" * 2**20)
    assert isinstance(parser.failure, ParseError)
    assert str(MAX_EVENT) in str(parser.failure)


def test_an_endless_answer_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON that does not end is not collected for ever."""
    monkeypatch.setattr("wizard_actors.providers.answer.MAX_BODY", 100)
    assert "larger than 100 bytes" in str(failure(b'{"choices": [', b"1," * 50))


def test_an_error_status_makes_an_error_of_any_body() -> None:
    """JSON, a page by its title, nothing at all, and a page without end, of which only the beginning is read."""
    head = Head("primary", status=502)
    assert "upstream gone" in str(failure(b'{"error": {"message": "upstream gone"}}', head=head))
    assert "502 Bad Gateway" in str(failure(b"<html><title>\n502 Bad Gateway</title>" + b"x" * 5000, head=head))
    assert str(failure(head=head)) == "primary: the provider failed (HTTP 502)"
    parser = AnswerParser(head, ChunkReader(head))
    parser.feed(b"<html>" + b"x" * MAX_ERROR_BODY)
    assert parser.failure is not None


def test_of_an_error_only_the_beginning_is_read_however_it_comes() -> None:
    """In one piece, too: a code that stands beyond it is not looked for."""
    message = "slow down " + "." * MAX_ERROR_BODY
    body = json.dumps({"error": {"message": message, "code": "insufficient_quota"}}).encode()
    for pieces in ((body,), (body[:1000], body[1000:])):
        error = failure(*pieces, head=Head("primary", status=429))
        assert type(error) is RateLimitError
        assert "slow down" in str(error)


def test_no_error_repeats_the_key() -> None:
    """Not from an error body, a broken event or a page that echoes it."""
    echo = KEY.encode()
    errors = [
        failure(b'{"error": {"message": "Incorrect API key: ' + echo + b'"}}', head=Head("m", 401, secrets=(KEY,))),
        failure(b'{"error": {"message": "' + echo + b'", "code": "' + echo + b'"}}'),
        failure(b"data: {" + echo + b"\n\n"),
        failure(b"<html>" + echo, content_type="text/html"),
        failure(b"plain " + echo, head=Head("m", 500, secrets=(KEY,))),
    ]
    for error in errors:
        assert "***" in str(error)
        assert KEY not in f"{error!r} {error.to_dict()} {error.__cause__!r}"
