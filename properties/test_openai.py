"""The OpenAI provider's pure parts for every input: answers, errors, headers, requests."""

import json
import math
from collections.abc import Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from wizard_actors.errors import ProviderError, TokenLimitError, WizardError
from wizard_actors.providers.answer import AnswerParser
from wizard_actors.providers.headers import parse_duration, parse_limits
from wizard_actors.providers.openai_chunks import ChunkReader
from wizard_actors.providers.openai_request import Dialect, request_body
from wizard_actors.providers.refusals import Head, error_body, excerpt, page, refusal
from wizard_actors.types import Finished, ModelEvent, Prompt, ReasoningDelta, TextDelta, Tool, ToolCallDelta

KEY = "sk-canary-0123456789"

JSON: st.SearchStrategy[object] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def odd(usual: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Return what a field usually holds, and now and then anything else."""
    return st.one_of(usual, usual, usual, JSON)


def table(**fields: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    """Return objects that have any of the fields."""
    return st.fixed_dictionaries({}, optional={name: odd(value) for name, value in fields.items()})


CONTENT = st.text(max_size=6) | st.lists(
    table(type=st.just("text"), text=st.text(max_size=4), thinking=JSON), max_size=2
)
FUNCTION = table(name=st.sampled_from(["get", ""]), arguments=st.text(max_size=4) | st.just({"a": 1}))
CALL = table(index=st.integers(0, 2), id=st.sampled_from(["a", "b", ""]), function=FUNCTION)
DELTA = table(
    role=st.just("assistant"),
    content=CONTENT,
    reasoning=st.text(max_size=4),
    reasoning_content=st.text(max_size=4),
    refusal=st.none() | st.text(max_size=4),
    tool_calls=st.lists(CALL, max_size=3),
    function_call=FUNCTION,
)
CHOICE = table(
    index=st.integers(0, 1),
    delta=DELTA,
    message=DELTA,
    finish_reason=st.sampled_from([None, "", "stop", "eos", "error"]),
)
USAGE = table(
    prompt_tokens=st.integers(0, 9),
    completion_tokens=st.integers(0, 9),
    total_tokens=st.integers(0, 27),
    completion_tokens_details=table(reasoning_tokens=st.integers(0, 9)),
    prompt_tokens_details=table(cached_tokens=st.integers(0, 9)),
)
ERROR = table(
    message=st.text(max_size=20) | st.just(f"bad key {KEY}"),
    code=st.sampled_from(["rate_limit_exceeded", "429", 503, "content_filter", KEY]),
    type=st.sampled_from(["invalid_request_error", "server_error"]),
    param=st.sampled_from([None, "stream"]),
    metadata=table(reasons=st.just([])),
    innererror=table(code=st.text(max_size=4)),
)
CHUNK = table(
    id=st.text(max_size=4),
    model=st.text(max_size=4),
    choices=st.lists(CHOICE, max_size=2),
    usage=USAGE,
    x_groq=table(usage=USAGE),
)
BODY = st.one_of(CHUNK, table(error=ERROR | st.text(max_size=4), detail=st.lists(ERROR, max_size=1)), ERROR, JSON)


def as_event(body: object) -> bytes:
    """Return the body as one event of a stream."""
    return b"data: " + json.dumps(body).encode() + b"\n\n"


EVENT = st.one_of(
    CHUNK.map(as_event),
    CHUNK.map(as_event),
    BODY.map(as_event),
    st.sampled_from(
        [b"data: [DONE]\n\n", b": ping\n\n", b"event: error\n", b"\n", b"data: {\n\n", b"<html>", KEY.encode()]
    ),
    st.binary(max_size=10),
)
ANSWERS = st.one_of(
    st.lists(EVENT, max_size=6).map(b"".join), BODY.map(lambda body: json.dumps(body).encode()), st.binary(max_size=40)
)
STATUSES = st.sampled_from([200, 200, 200, 204, 302, 400, 401, 404, 413, 422, 429, 500, 503, 529, 599])
TYPES = st.sampled_from(["text/event-stream", "application/json; charset=utf-8", "text/html", ""])


def read(pieces: Sequence[bytes], status: int, content_type: str) -> tuple[list[ModelEvent], WizardError | None, bool]:
    """Return the events, the failure, and whether the answer was found complete."""
    head = Head("primary", status, secrets=(KEY,))
    parser = AnswerParser(head, ChunkReader(head), content_type=content_type)
    events = [event for piece in pieces for event in parser.feed(piece)]
    events += parser.close()
    assert parser.ended
    assert parser.feed(b"data: {}\n\n") == []
    return events, parser.failure, parser.finished


@given(answer=ANSWERS, cuts=st.lists(st.integers(0, 300), max_size=6), status=STATUSES, content_type=TYPES)
def test_any_answer_becomes_events_or_one_of_our_errors(
    answer: bytes, cuts: list[int], status: int, content_type: str
) -> None:
    """Never another exception, never an empty event, one end at most, no key in an error, however it is cut."""
    places = sorted({min(cut, len(answer)) for cut in cuts})
    pieces = [answer[start:end] for start, end in zip([0, *places], [*places, len(answer)], strict=True)]
    events, failure, finished = read([answer], status, content_type)
    again, failure_again, _ = read(pieces, status, content_type)
    assert again == events
    assert type(failure_again) is type(failure)
    assert sum(isinstance(event, Finished) for event in events) == finished
    for event in events:
        if isinstance(event, (TextDelta, ReasoningDelta)):
            assert event.text
        if isinstance(event, ToolCallDelta):
            assert event.id or event.name or event.arguments
    if status >= 300:
        assert failure is not None
        assert events == []
    if failure is not None:
        assert KEY not in f"{failure} {failure.to_dict()} {failure.__cause__}"
        assert len(str(failure)) < 1000


@given(body=BODY, status=STATUSES, retry_after=st.none() | st.floats(0, 100))
def test_any_body_of_an_error_is_judged(body: object, status: int, retry_after: float | None) -> None:
    """The result is always one of ours, names the model, and keeps what the headers said."""
    error = refusal(Head("primary", status, retry_after=retry_after, secrets=(KEY,)), error_body(body))
    assert str(error).startswith("primary: ")
    assert KEY not in f"{error} {error.to_dict()}"
    if isinstance(error, ProviderError) and status >= 400 and retry_after is not None:
        assert error.retry_after == retry_after
    if not isinstance(error, ProviderError):
        assert isinstance(error, TokenLimitError)


@given(text=st.binary(max_size=200), padding=st.integers(0, 500))
def test_any_text_makes_a_short_clean_excerpt(text: bytes, padding: int) -> None:
    """One printable line of bounded length, without the key."""
    shown = excerpt(b"x" * padding + text + KEY.encode() + text, (KEY,))
    assert len(shown) <= 400
    assert shown.isprintable()
    assert KEY not in shown
    assert isinstance(page(text).message, str)


NUMBERS = st.one_of(
    st.text(max_size=6),
    st.integers(-5, 10**14).map(str),
    st.floats().map(str),
    st.from_regex(r"(\d{1,3}(ms|s|m|h)){1,3}", fullmatch=True),
)
NAMES = [
    f"{prefix}-{word}{suffix}"
    for prefix in ("x-ratelimit", "ratelimit")
    for word in ("limit", "remaining", "reset", "renewalperiod")
    for suffix in ("", "-requests", "-tokens", "-req-minute", "-tokens-minute")
]


@given(headers=st.dictionaries(st.sampled_from([*NAMES, "retry-after", "retry-after-ms"]), NUMBERS), status=STATUSES)
def test_any_headers_give_sane_limits(headers: dict[str, str], status: int) -> None:
    """No number that is negative, infinite or no number, no reset that is now or never."""
    found = parse_limits(headers, status=status, wall_now=1.7e9)
    if found is None:
        return
    assert found.retry_after is None or (math.isfinite(found.retry_after) and found.retry_after >= 0)
    for window in filter(None, (found.requests, found.tokens)):
        assert window.limit is not None or window.remaining is not None
        assert window.limit is None or (math.isfinite(window.limit) and window.limit > 0)
        assert window.remaining is None or (math.isfinite(window.remaining) and window.remaining >= 0)
        assert window.reset is None or 0 < window.reset <= 7 * 86_400
        if window.limit is not None and window.remaining is not None:
            assert window.remaining <= window.limit


@given(hours=st.integers(0, 99), minutes=st.integers(0, 59), thousandths=st.integers(0, 59_999))
def test_durations_add_up(hours: int, minutes: int, thousandths: int) -> None:
    """In Go's own way of writing them."""
    text = f"{hours}h{minutes}m{thousandths / 1000}s"
    found = parse_duration(text)
    assert found is not None
    assert math.isclose(found, hours * 3600 + minutes * 60 + thousandths / 1000, abs_tol=1e-9)


@given(
    text=st.text(min_size=1).filter(lambda text: bool(text.strip())),
    schema=st.fixed_dictionaries({"type": st.just("object")}, optional={"x-own": JSON, "default": JSON}),
    stream=st.booleans(),
    extra=st.dictionaries(st.sampled_from(["temperature", "top_k", "stop"]), JSON),
)
def test_any_prompt_becomes_json_that_says_the_same(
    text: str, schema: dict[str, object], stream: bool, extra: dict[str, object]
) -> None:
    """The text as it is, the schema as it is, `extra` over all."""
    prompt = Prompt(text, tools=(Tool("t", parameters=schema),), response_schema=schema, temperature=1.0)
    raw = request_body(prompt, model="m", upstream_model="u", dialect=Dialect(stream=stream), extra=extra)
    sent = msgspec.json.decode(raw, type=dict[str, object])
    assert sent["messages"] == [{"role": "user", "content": text}]
    assert sent.get("stream", False) is stream
    assert {name: sent[name] for name in extra} == extra
