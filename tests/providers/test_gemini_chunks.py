"""What Gemini answers, read without a socket: every kind of part, every end, every failure."""

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
from wizard_actors.providers.gemini_chunks import GeminiReader
from wizard_actors.providers.refusals import Head
from wizard_actors.types import (
    Finished,
    FinishReason,
    ModelEvent,
    ReasoningDelta,
    Signature,
    TextDelta,
    ThoughtEnded,
    TokenUsage,
    ToolCallDelta,
    UsageUpdate,
)

KEY = "canary-0123456789"
HEAD = Head("primary", secrets=(KEY,))
EVENT_STREAM = "text/event-stream"


def chunk(*parts: object, finish: object = None, **fields: object) -> dict[str, object]:
    """Return a chunk with one candidate, which has these parts."""
    candidate: dict[str, object] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "modelVersion": "up-1", "responseId": "r-1", **fields}


def said(text: str, **fields: object) -> dict[str, object]:
    """Return a part of text."""
    return {"text": text, **fields}


def event(data: object) -> bytes:
    """Return one event of a stream, its lines ended as Google ends them."""
    return b"data: " + json.dumps(data).encode() + b"\r\n\r\n"


def parser_of(head: Head = HEAD, content_type: str = EVENT_STREAM) -> AnswerParser:
    """Return a parser of an answer."""
    return AnswerParser(head, GeminiReader(head, made_up="made_0"), content_type=content_type)


def parse(*pieces: bytes, head: Head = HEAD, content_type: str = EVENT_STREAM) -> list[ModelEvent]:
    """Return the events of a whole body; raise what failed."""
    parser = parser_of(head, content_type)
    events = [each for piece in pieces for each in parser.feed(piece)] + parser.close()
    if parser.failure is not None:
        raise parser.failure
    return events


def read(*chunks: object) -> list[ModelEvent]:
    """Return the events of a stream of these chunks, which are the same as in a list of them."""
    events = parse(*map(event, chunks))
    assert parse(json.dumps(chunks).encode(), content_type="application/json") == events
    return events


def failure(body: bytes, head: Head = HEAD) -> WizardError:
    """Return what a body fails with; nothing in it shows the key."""
    with pytest.raises(WizardError) as caught:
        parse(body, head=head)
    assert KEY not in f"{caught.value} {caught.value.to_dict()} {caught.value.__cause__!r}"
    return caught.value


# -- answers -----------------------------------------------------------------------------------------


def test_a_stream_becomes_its_texts_its_usage_and_its_end() -> None:
    """The plain case: usage on every chunk, the last of which says why it is the last."""
    usage = {"promptTokenCount": 7, "candidatesTokenCount": 1, "totalTokenCount": 8}
    events = read(
        chunk(said("Why"), usageMetadata=usage),
        chunk(said(" not?"), usageMetadata=usage),
        chunk(said(""), finish="STOP", usageMetadata=usage | {"candidatesTokenCount": 2}),
    )
    assert events == [
        TextDelta("Why"),
        UsageUpdate(TokenUsage(7, 1)),
        TextDelta(" not?"),
        UsageUpdate(TokenUsage(7, 2)),
        Finished(FinishReason.STOP, "STOP"),
    ]


def test_a_whole_answer_is_one_chunk() -> None:
    """Read whatever its content type says; its model and id are known."""
    body = json.dumps(chunk(said("Why not?"), finish="STOP")).encode()
    parser = parser_of(content_type="application/json")
    events = [*parser.feed(b"\n" + body[:30]), *parser.feed(body[30:]), *parser.close()]
    assert events == [TextDelta("Why not?"), Finished(FinishReason.STOP, "STOP")]
    assert parse(body) == events
    assert (parser.upstream_model, parser.upstream_id) == ("up-1", "r-1")


def test_thoughts_are_told_from_the_answer() -> None:
    """A thought is complete where the proof of it comes, on whichever part that stands."""
    events = read(
        chunk(said("Hm", thought=True), said(", so", thought=True)),
        chunk(said("Yes"), said("!", thoughtSignature="AP8=")),
        chunk(said("", thoughtSignature="c2ln"), finish="STOP"),
    )
    assert events[:-1] == [
        ReasoningDelta("Hm"),
        ReasoningDelta(", so"),
        TextDelta("Yes"),
        TextDelta("!"),
        ThoughtEnded(Signature("gemini", "AP8=")),
        ThoughtEnded(Signature("gemini", "c2ln")),
    ]


def test_tool_calls_come_whole_and_get_ids() -> None:
    """Several in one chunk or in many; their end is called what it is, though Gemini says STOP."""
    events = read(
        chunk({"functionCall": {"name": "a", "args": {"city": "Zürich"}, "id": "x1"}, "thoughtSignature": "AP8="}),
        chunk({"functionCall": {"name": "b", "args": {}}}, {"functionCall": {"name": "b"}}),
        chunk(finish="STOP"),
    )
    assert events == [
        ToolCallDelta(0, "x1", "a", '{"city":"Zürich"}', Signature("gemini", "AP8=")),
        ToolCallDelta(1, "made_0_1", "b", "{}"),
        ToolCallDelta(2, "made_0_2", "b", "{}"),
        Finished(FinishReason.TOOL_CALLS, "STOP"),
    ]


def test_arguments_as_text_are_kept() -> None:
    """Some gateways forget that Gemini's are an object."""
    assert read(chunk({"functionCall": {"name": "a", "args": '{"x": 1}'}})) == [
        ToolCallDelta(0, "made_0_0", "a", '{"x": 1}')
    ]


def test_what_carries_nothing_is_no_event() -> None:
    """Empty texts, candidates without content, other candidates, pictures, code that Google has run, and nonsense."""
    nothing = [
        {},
        chunk(),
        chunk(said("")),
        chunk({"inlineData": {"mimeType": "image/png", "data": "AP8="}}),
        chunk({"executableCode": {"code": "1"}}, {"codeExecutionResult": {"output": "1"}}, 17, None),
        {"candidates": [{"index": 0}], "usageMetadata": {"trafficType": "ON_DEMAND"}},
        {"candidates": [{"index": 1, "content": {"parts": [said("second")]}, "finishReason": "STOP"}]},
        {"candidates": None, "usageMetadata": None, "promptFeedback": {"safetyRatings": []}},
        {"candidates": [{"content": "x"}, {"content": {"parts": "x"}}]},
    ]
    assert read(*nothing) == []


def test_usage_counts_thoughts_and_tools_beside_the_rest() -> None:
    """Google's own tools read for the prompt; thoughts are part of the output, and only changes are told."""
    usage = {
        "promptTokenCount": 100,
        "toolUsePromptTokenCount": 5,
        "candidatesTokenCount": 20,
        "thoughtsTokenCount": 30,
        "cachedContentTokenCount": 64,
        "totalTokenCount": 155,
    }
    expected = UsageUpdate(TokenUsage(105, 50, cached_tokens=64, reasoning_tokens=30))
    assert read(chunk(usageMetadata=usage), chunk(usageMetadata=usage)) == [expected]
    odd = {"promptTokenCount": 3.0, "candidatesTokenCount": "2", "thoughtsTokenCount": True}
    assert read({"usageMetadata": odd | {"cachedContentTokenCount": 2**63}}) == [UsageUpdate(TokenUsage(3, 0))]
    assert read({"usageMetadata": {"promptTokenCount": 0}}, {"usageMetadata": [1]}) == []


# -- the end -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("STOP", FinishReason.STOP),
        ("MAX_TOKENS", FinishReason.LENGTH),
        ("SAFETY", FinishReason.CONTENT_FILTER),
        ("RECITATION", FinishReason.CONTENT_FILTER),
        ("LANGUAGE", FinishReason.CONTENT_FILTER),
        ("BLOCKLIST", FinishReason.CONTENT_FILTER),
        ("PROHIBITED_CONTENT", FinishReason.CONTENT_FILTER),
        ("SPII", FinishReason.CONTENT_FILTER),
        ("IMAGE_SAFETY", FinishReason.CONTENT_FILTER),
        ("OTHER", FinishReason.OTHER),
        ("TOO_MANY_TOOL_CALLS", FinishReason.OTHER),
        ("WHATEVER_COMES_NEXT", FinishReason.OTHER),
    ],
)
def test_finish_reasons_are_named_alike_and_kept_as_they_were(raw: str, reason: FinishReason) -> None:
    """Also where the candidate has no content; said once, however often it comes."""
    end = {"candidates": [{"finishReason": raw}]}
    assert read(end, end) == [Finished(reason, raw)]


def test_a_call_that_the_length_has_ended_is_no_call_for_a_tool() -> None:
    """Only STOP says that the calls are whole."""
    assert read(chunk({"functionCall": {"name": "a"}}, finish="MAX_TOKENS"))[-1] == Finished(
        FinishReason.LENGTH, "MAX_TOKENS"
    )


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        ("MALFORMED_FUNCTION_CALL", ParseError),
        ("MALFORMED_RESPONSE", ParseError),
        ("UNEXPECTED_TOOL_CALL", ParseError),
        ("MISSING_THOUGHT_SIGNATURE", RequestError),
    ],
)
def test_an_answer_that_google_could_not_read_is_a_failure(raw: str, kind: type[WizardError]) -> None:
    """To be tried again, but for a conversation without its signatures; what was used is told before."""
    end = chunk(finish=raw, usageMetadata={"promptTokenCount": 3})
    end["candidates"][0]["finishMessage"] = f"Malformed function call: print({KEY})"  # type: ignore[index]  # a list
    parser = parser_of()
    assert parser.feed(event(end)) == [UsageUpdate(TokenUsage(3))]
    assert type(parser.failure) is kind
    assert str(parser.failure) == f"primary: the model broke off with {raw}: Malformed function call: print(***)"
    assert not parser.finished


@pytest.mark.parametrize("chunks", [[chunk(said("half"))], [chunk(said("half")), {"usageMetadata": {}}]])
def test_the_end_of_the_body_alone_finishes_nothing(chunks: list[object]) -> None:
    """A stream without a finish reason was cut, as events or as a list."""
    assert read(*chunks) == [TextDelta("half")]


def test_half_an_event_at_the_end_is_a_cut_stream() -> None:
    """The connection's end in the middle of an event is no malformed event."""
    assert parse(event(chunk(said("half"))), b'data: {"candidates": [{"co') == [TextDelta("half")]


@pytest.mark.parametrize(
    "piece", [json.dumps(chunk(said("a"))).encode(), event(chunk(said("a"))) + b"data: [DONE]\n\n"]
)
def test_what_is_known_to_be_whole_needs_no_reason(piece: bytes) -> None:
    """JSON that parses was not cut, nor was what a gateway ends with OpenAI's own last word."""
    assert parse(piece) == [TextDelta("a"), Finished(FinishReason.STOP)]


# -- failures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("feedback", [{"blockReason": "SAFETY"}, {"blockReason": "OTHER", "blockReasonMessage": KEY}])
def test_a_blocked_prompt_is_a_content_filters_error(feedback: dict[str, object]) -> None:
    """With the reason; there is no candidate then, but a usage."""
    body = {"promptFeedback": feedback, "usageMetadata": {"promptTokenCount": 3}}
    for piece in (event(body), json.dumps(body).encode()):
        error = failure(piece)
        assert type(error) is ContentFilterError
        assert str(error).startswith(f"primary: the provider refuses this prompt: {feedback['blockReason']}")


def test_an_answer_beside_a_block_is_an_answer() -> None:
    """What the model has said all the same is not thrown away; how it ended is stated with it."""
    body = {**chunk(said("a"), finish="STOP"), "promptFeedback": {"blockReason": "OTHER"}}
    for piece in (event(body), json.dumps(body).encode()):
        assert parse(piece) == [TextDelta("a"), Finished(FinishReason.STOP, "STOP")]


def google(code: int, status: str, message: str = "no", **fields: object) -> dict[str, object]:
    """Return an error as Google writes it."""
    return {"error": {"code": code, "message": message, "status": status, **fields}}


def info(reason: str) -> dict[str, object]:
    """Return the detail that names an error's reason."""
    return {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}


def retry_in(delay: str) -> dict[str, object]:
    """Return the detail that says when to come back."""
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


QUOTA = "You exceeded your current quota, please check your plan and billing details. " + "For more: https://x. " * 20
ERRORS: list[tuple[dict[str, object], type[WizardError]]] = [
    (google(400, "INVALID_ARGUMENT", "Bad key", details=[info("API_KEY_INVALID")]), AuthError),
    (google(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."), AuthError),
    (google(401, "UNAUTHENTICATED"), AuthError),
    (google(403, "PERMISSION_DENIED", details=[info("SERVICE_DISABLED")]), AuthError),
    (google(404, "NOT_FOUND", "models/x is not found for API version v1beta, or is not supported"), ModelNotFoundError),
    (google(404, "NOT_FOUND", "Publisher Model `projects/p/x` was not found"), ModelNotFoundError),
    (google(429, "RESOURCE_EXHAUSTED", QUOTA + "* Quota exceeded for metric: m, limit: 20, model: x"), RateLimitError),
    (google(429, "RESOURCE_EXHAUSTED", QUOTA + "* metric: m, limit: 0, model: x"), QuotaExhaustedError),
    (google(429, "RESOURCE_EXHAUSTED", "limit: 0.5"), RateLimitError),
    (google(503, "UNAVAILABLE", "The model is overloaded."), OverloadedError),
    (google(500, "INTERNAL"), ProviderError),
    (google(504, "DEADLINE_EXCEEDED"), ProviderError),
    (google(400, "FAILED_PRECONDITION", "User location is not supported for the API use."), RequestError),
    (google(400, "INVALID_ARGUMENT", "Unknown name"), RequestError),
]


@pytest.mark.parametrize(("body", "kind"), ERRORS)
def test_errors_are_classified_wherever_they_stand(body: dict[str, object], kind: type[WizardError]) -> None:
    """Under their status; as an event; as plain JSON where a stream was promised; alone, and in a list."""
    status = body["error"]["code"]  # type: ignore[index]  # an object
    plain, listed = json.dumps(body, indent=2).encode(), json.dumps([body]).encode()
    assert type(failure(plain, Head("primary", status))) is kind
    assert type(failure(listed, Head("primary", status))) is kind
    for under_a_200 in (event(body), event([body]), plain, listed):
        error = failure(under_a_200)
        assert type(error) is kind
        assert isinstance(error, ProviderError)
        assert error.status == status


def test_a_prompt_that_is_too_long_is_counted() -> None:
    """Both counts stand in the message."""
    message = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."
    error = failure(json.dumps(google(400, "INVALID_ARGUMENT", message)).encode(), Head("primary", 400))
    assert isinstance(error, TokenLimitError)
    assert (error.requested, error.max) == (1_200_000, 1_048_576)


@pytest.mark.parametrize(
    ("details", "header", "seconds"),
    [
        ([info("RATE_LIMIT_EXCEEDED"), retry_in("48s")], None, 48.0),
        ([retry_in("1.5s")], None, 1.5),
        ([retry_in("1.5s")], 3.0, 3.0),
        ([retry_in("soon")], None, 9.5),
        ([retry_in("999999s")], None, 9.5),
        ([17, {"retryDelay": 3}], None, 9.5),
        ("48s", None, 9.5),
    ],
)
def test_a_limit_says_when_to_come_back(details: object, header: float | None, seconds: float) -> None:
    """In its details, there being no header; where those make no sense, its message does."""
    body = google(429, "RESOURCE_EXHAUSTED", "Please retry in 9.5s.", details=details)
    error = failure(json.dumps(body).encode(), Head("primary", 429, retry_after=header))
    assert isinstance(error, RateLimitError)
    assert error.retry_after == seconds


def test_an_overload_may_say_so_too() -> None:
    """Of any error a stated delay is kept."""
    error = failure(event(google(503, "UNAVAILABLE", details=[retry_in("5s")])))
    assert isinstance(error, OverloadedError)
    assert error.retry_after == 5.0


def test_an_error_inside_a_stream_is_raised_after_the_events_before_it() -> None:
    """Nothing that arrived is lost; what comes after the error is not read."""
    parser = parser_of()
    events = parser.feed(event(chunk(said("a"))) + event(google(503, "UNAVAILABLE")) + event(chunk(said("b"))))
    assert events == [TextDelta("a")]
    assert isinstance(parser.failure, OverloadedError)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("ends", ["", "\n", "\r\n\r\n"])
def test_an_error_as_plain_json_in_the_middle_of_a_stream_is_read(indent: int | None, listed: bool, ends: str) -> None:
    """Google breaks off a stream so, in lines of its own that are no event."""
    broken = google(503, "UNAVAILABLE", "overloaded", details=[retry_in("5s")])
    plain = json.dumps([broken] if listed else broken, indent=indent).replace("\n", "\r\n") + ends
    parser = parser_of()
    events = [*parser.feed(event(chunk(said("a")))), *parser.feed(plain[:9].encode()), *parser.feed(plain[9:].encode())]
    assert events + parser.close() == [TextDelta("a")]
    assert isinstance(parser.failure, OverloadedError)
    assert parser.failure.retry_after == 5.0


def test_other_lines_between_events_are_nothing() -> None:
    """Nor is JSON after the end."""
    whole = event(chunk(said("a"), finish="STOP"))
    assert parse(whole + json.dumps(google(503, "UNAVAILABLE")).encode())[-1] == Finished(FinishReason.STOP, "STOP")
    assert parse(b"data: {}\n\nretry: 5\n\nwhat is this\n\n17") == []
    assert parse(b"data: {}\n\n17\n") == []


@pytest.mark.parametrize(
    ("piece", "told"),
    [
        (b"data: {broken\n\n", "JSON"),
        (b"data: 17\n\n", "not a JSON object"),
        (b'data: [1, "x"]\n\n', "not a JSON object"),
        (event(chunk(said("a") | {"text": 5})), "int for its text"),
        (event(chunk({"functionCall": {"args": {}}})), "without a name"),
        (b"{}", "no candidate"),
        (b'{"candidates": []}', "no candidate"),
        (b'{"candidates": [{"index": 0}]}', "no candidate with content"),
        (b'{"candidates": [{"content": {"parts": [', "understood"),
        (b'event: error\ndata: {"x": 1}\n\n', "neither an answer nor an error"),
        (b'data: {"message": "boom"}\n\n', "boom"),
        (b"[]", "neither an answer nor an error"),
    ],
)
def test_what_cannot_be_understood_fails(piece: bytes, told: str) -> None:
    """Malformed events and answers are errors that say what was wrong, never silence."""
    error = failure(piece)
    assert isinstance(error, ProviderError)
    assert told in str(error)
