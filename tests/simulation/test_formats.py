"""What simulated models put on the wire is read by the client's own providers, word for word."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final, get_args

import pytest
import trio
from trio.testing import MockClock

from tests.recordings import recorded
from tests.simulation.exchanges import EPOCH, FORMATS, WORDS, Exchange, Model, model_of
from wizard_actors.errors import (
    AuthError,
    ContentFilterError,
    OverloadedError,
    ParseError,
    ProviderError,
    QuotaExhaustedError,
    RateLimitError,
    TokenLimitError,
    WizardError,
)
from wizard_actors.providers.headers import parse_limits
from wizard_actors.testing.simulation.formats import FORMATS as SHAPES
from wizard_actors.testing.simulation.formats import Left, Refusal, Said, WireFormat
from wizard_actors.testing.simulation.scenario import FaultWindow, Upstream
from wizard_actors.testing.simulation.upstream import answer_text
from wizard_actors.types import FinishReason, LimitHeaders, LimitWindow, TokenUsage

BOTH: Final = pytest.mark.parametrize("whole", [False, True], ids=["stream", "whole"])
EVERY_FORMAT: Final = pytest.mark.parametrize("form", FORMATS)
ERRORS: Final[dict[Refusal, type[WizardError]]] = {
    "auth": AuthError,
    "content_filter": ContentFilterError,
    "error": ProviderError,
    "overloaded": OverloadedError,
    "quota": QuotaExhaustedError,
    "rate_limit": RateLimitError,
    "token_limit": TokenLimitError,
}
STATUSES: Final[dict[WireFormat, dict[Refusal, int]]] = {
    "chat": {"auth": 401, "content_filter": 400, "error": 500, "overloaded": 503, "quota": 429},
    "responses": {"auth": 401, "content_filter": 400, "error": 500, "overloaded": 503, "quota": 429},
    "anthropic": {"auth": 401, "content_filter": 400, "error": 500, "overloaded": 529, "quota": 400},
    "gemini": {"auth": 400, "content_filter": 200, "error": 500, "overloaded": 503, "quota": 429},
}


async def refused(form: WireFormat, fault: FaultWindow, *, whole: bool = False) -> Exchange:
    """Return what comes of a call that meets a fault."""
    return await Model(model_of(form, whole=whole), fault).ask()


@BOTH
@EVERY_FORMAT
async def test_an_answer_is_read_word_for_word(autojump_clock: MockClock, form: WireFormat, *, whole: bool) -> None:
    """Text, usage, finish, the model's name and the call's id are what the model put there."""
    model = Model(model_of(form, whole=whole))

    got = await model.ask()

    assert got.error is None
    assert got.parts.text == answer_text(0, WORDS)
    assert got.parts.usage == TokenUsage(input_tokens=got.call.asked_tokens, output_tokens=WORDS)
    assert got.parts.finished is not None
    assert got.parts.finished.reason is FinishReason.STOP
    assert got.upstream_model == "gpt-0"
    assert got.upstream_id == ("response-0" if form == "gemini" else "req_0")
    assert got.call.end == "complete"


@EVERY_FORMAT
async def test_a_stream_is_asked_for_where_the_model_streams_and_else_not(
    autojump_clock: MockClock, form: WireFormat
) -> None:
    """A stream comes in several reads, the first of them early; a whole answer comes when all of it is there."""
    stream = await Model(model_of(form)).ask()
    whole = await Model(model_of(form, whole=True)).ask()

    assert len(stream.read_at) >= 3
    assert stream.read_at[0] == pytest.approx(0.7)
    assert whole.read_at[0] == pytest.approx(stream.read_at[-1])


@BOTH
@EVERY_FORMAT
@pytest.mark.parametrize("kind", get_args(Refusal))
async def test_each_refusal_is_the_error_of_its_kind(
    autojump_clock: MockClock, form: WireFormat, kind: Refusal, *, whole: bool
) -> None:
    """Each protocol's own way to refuse is understood, and costs one call: nothing in it looks like a refused field."""
    model = Model(model_of(form, whole=whole), FaultWindow(kind=kind))

    got = await model.ask()

    assert type(got.error) is ERRORS[kind]
    assert got.call.status == STATUSES[form].get(kind, 429 if kind == "rate_limit" else 400)
    assert (got.call.end, got.call.billed, len(model.calls)) == ("refused", 0, 1)


@EVERY_FORMAT
async def test_a_rate_limit_says_for_how_long(autojump_clock: MockClock, form: WireFormat) -> None:
    """`retry_after` comes through: by a header, or as Gemini has it, in the body; without one nothing is said."""
    stated = await refused(form, FaultWindow(kind="rate_limit", retry_after=17.25))
    unstated = await refused(form, FaultWindow(kind="rate_limit"))

    assert isinstance(stated.error, RateLimitError)
    assert stated.error.retry_after == 17.25
    assert (stated.limits is None) is (form == "gemini")
    assert isinstance(unstated.error, RateLimitError)
    assert unstated.error.retry_after is None


@EVERY_FORMAT
@pytest.mark.parametrize("status", [502, 504])
async def test_the_status_of_an_error_can_be_any(autojump_clock: MockClock, form: WireFormat, status: int) -> None:
    """`status` is what the response says, and the error with it."""
    got = await refused(form, FaultWindow(kind="error", status=status))

    assert isinstance(got.error, ProviderError)
    assert got.error.status == got.call.status == status


@BOTH
@EVERY_FORMAT
async def test_garbage_is_not_understood(autojump_clock: MockClock, form: WireFormat, *, whole: bool) -> None:
    """What comes where an event should, or a body that is none, is a `ParseError`."""
    got = await refused(form, FaultWindow(kind="malformed", after_words=3), whole=whole)

    assert type(got.error) is ParseError
    assert got.call.end == "broken"
    assert got.parts.text == ("" if whole else f"<0:{WORDS}> word word ")


@pytest.mark.parametrize("form", ["chat", "responses", "anthropic"])
async def test_the_headers_say_what_is_left_and_the_limiter_reads_them(
    autojump_clock: MockClock, form: WireFormat
) -> None:
    """Limits, what remains of them and when they are whole again are read from an answer and from a refusal alike."""
    upstream = Upstream(model="primary", requests_per_minute=60, tokens_per_minute=60_000, burst=1)
    model = Model(model_of(form), upstream=upstream)

    exchanges: list[Exchange] = []

    async def ask() -> None:
        exchanges.append(await model.ask())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)

    beyond, answered = exchanges
    assert (answered.error, type(beyond.error)) == (None, RateLimitError)
    for got in exchanges:
        assert got.limits is not None
        assert got.limits.requests is not None
        assert (got.limits.requests.limit, got.limits.requests.remaining) == (60, 0)
        assert got.limits.requests.reset == pytest.approx(1.0, abs=0.25)
        assert got.limits.tokens is not None
        assert got.limits.tokens.limit == 60_000
    assert beyond.limits is not None
    assert beyond.limits.retry_after == 1.0


@pytest.mark.parametrize(
    ("form", "reset"),
    [("chat", 83.25), ("responses", 0.25), ("chat", 1.5), ("anthropic", 83.0)],
)
def test_resets_are_what_the_limits_say(form: WireFormat, reset: float) -> None:
    """Durations and dates of any length are read back as the seconds that they stand for."""
    headers = SHAPES[form].limits(Left(10, 3, reset), None, EPOCH)

    assert parse_limits(headers, status=200, wall_now=EPOCH) == LimitHeaders(
        requests=LimitWindow(limit=10, remaining=3, reset=reset)
    )


def test_gemini_says_nothing_of_its_limits() -> None:
    """It has no such headers."""
    assert SHAPES["gemini"].limits(Left(10, 3, 1.0), Left(10, 3, 1.0), EPOCH) == {}


RECORDED: Final[dict[WireFormat, str]] = {
    "chat": "openai-chat",
    "responses": "openai-responses",
    "anthropic": "anthropic-messages",
    "gemini": "gemini",
}


def shapes(value: object, place: str = "") -> Iterator[str]:
    """Yield each key of a JSON value with the way that leads to it; what has a type, with that."""
    if isinstance(value, dict):
        kind = f"{place}<{value['type']}>" if isinstance(value.get("type"), str) else place
        for key, inner in value.items():
            yield f"{kind}.{key}"
            yield from shapes(inner, f"{kind}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from shapes(inner, f"{place}[]")


def shapes_of(body: bytes, *, stream: bool) -> set[str]:
    """Return what is in a body, or in the events of a stream."""
    if not stream:
        return set(shapes(json.loads(body)))
    lines = [line.removeprefix(b"data: ") for line in body.splitlines() if line.startswith(b"data: ")]
    return {shape for line in lines if line != b"[DONE]" for shape in shapes(json.loads(line))}


@BOTH
@EVERY_FORMAT
def test_nothing_is_on_the_wire_that_real_providers_do_not_send(
    recordings: Path, form: WireFormat, *, whole: bool
) -> None:
    """Every field of our bodies and events stands in the same place in recorded ones."""
    seen: set[str] = set()
    for recording in recorded(recordings, RECORDED[form]):
        if recording.status == 200 and recording.stream is not whole:
            seen |= shapes_of(recording.body, stream=not whole)
    said = Said("gpt-0", 7, answer_text(7, 4), 11, 4)
    stream = SHAPES[form].stream(said, ["<7:4> ", "word word ", "<end>"])

    body = SHAPES[form].whole(said) if whole else stream.opening + b"".join(stream.pieces) + stream.closing

    assert shapes_of(body, stream=not whole) <= seen
