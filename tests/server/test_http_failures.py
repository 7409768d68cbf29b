"""What providers do wrong, through HTTP: the whole answer, exactly once, or one clean error, and never a part of an
answer that passes for all of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import pytest
import trio
from trio.testing import MockClock

from tests.loopback import Wire, chunk, response, serving
from tests.models import DONE, NO_JITTER, SILENT, USAGE, Scripted, Turn, assert_nothing_held, cut, fails, model
from tests.server.http_asked import ANSWER, FORMATS, PROMPT_TOKENS, How, ask, heard, whole
from tests.server.http_wire import Served, served
from wizard_actors.config import BreakerConfig, RouteConfig, Secret, StreamConfig, TimeoutsConfig
from wizard_actors.errors import (
    ContentFilterError,
    NetworkError,
    OverloadedError,
    ParseError,
    ProviderError,
    RateLimitError,
    TokenLimitError,
)
from wizard_actors.providers.http import make_http_client
from wizard_actors.providers.http_provider import HttpSettings
from wizard_actors.providers.openai import OpenAIProvider
from wizard_actors.types import ToolCallDelta

WORDS: Final = [f"word{number} " for number in range(40)]
"""The first 40 words of an answer that never comes whole."""

BUFFERED: Final = StreamConfig(delivery="buffered")

REFUSED: Final = {
    "429 with Retry-After": fails(RateLimitError("slow down", model="a", status=429, retry_after=30.0)),
    "429 without Retry-After": fails(RateLimitError("slow down", model="a", status=429)),
    "endless 503": fails(OverloadedError("overloaded", model="a", status=503)),
    "reset before headers": Turn(head=NetworkError("reset", model="a")),
    "silence": SILENT,
    "slow first token": whole(70.0),
    "context length": fails(TokenLimitError("too long", model="a")),
}
"""Failures before the first word: the next model answers, whatever the delivery."""

BROKEN: Final = {
    "cut at word 40": cut(*WORDS),
    "stalled": Turn((*WORDS, 1000.0, DONE)),
    "malformed": Turn((*WORDS, ParseError("no JSON", model="a"))),
    "reset": Turn((*WORDS, NetworkError("reset", model="a"))),
    "503 in the stream": Turn((*WORDS, OverloadedError("overloaded", model="a", status=503))),
}
"""Failures after 40 words."""

WAYS: Final = [(how, stream) for how in FORMATS for stream in (False, True)]
all_ways = pytest.mark.parametrize(("how", "stream"), WAYS, ids=[f"{how}-{stream}" for how, stream in WAYS])
all_formats = pytest.mark.parametrize("how", FORMATS)


@asynccontextmanager
async def two(first: Turn | Sequence[Turn], delivery: StreamConfig | None = None) -> AsyncIterator[Served]:
    """Serve a first model "a" that plays `first`, and a healthy second one, "b"; nothing is held at the end."""
    turns = [first] if isinstance(first, Turn) else first
    models = {"a": Scripted(*turns), "b": Scripted(whole())}
    settings = [model(name, retry=NO_JITTER) for name in models]
    async with served(models, *settings, stream=delivery) as server:
        yield server
        await assert_nothing_held(server.client, *models.values())


@all_ways
@pytest.mark.parametrize("failure", [*REFUSED, *BROKEN])
async def test_buffered_delivers_the_whole_answer_once(
    failure: str, how: How, stream: bool, autojump_clock: MockClock
) -> None:
    """Of the model that gave it, under its name, with its usage; nothing of a part that was given up."""
    async with two({**REFUSED, **BROKEN}[failure], BUFFERED) as server:
        said = heard(how, reply := await ask(server.connect(), how, stream=stream))
        assert reply.status == 200
        assert (said.text, said.model, said.usage) == (ANSWER, "b", PROMPT_TOKENS)
        assert said.ended
        assert said.errors == []


@all_formats
@pytest.mark.parametrize("failure", REFUSED)
async def test_live_delivers_the_whole_answer_where_nothing_was_said(
    failure: str, how: How, autojump_clock: MockClock
) -> None:
    """A failure before the first word is not seen, but for the wait."""
    async with two(REFUSED[failure]) as server:
        said = heard(how, await ask(server.connect(), how, stream=True))
        assert (said.text, said.model, said.usage, said.ended) == (ANSWER, "b", PROMPT_TOKENS, True)
        assert said.errors == []


@all_formats
@pytest.mark.parametrize("interruption", ["fail", "reset"])
@pytest.mark.parametrize("failure", BROKEN)
async def test_live_ends_with_one_error_where_a_part_was_said(
    failure: str, interruption: str, how: How, autojump_clock: MockClock
) -> None:
    """What was said cannot be taken back over HTTP, whatever `on_interruption` says: the answer is no success."""
    async with two(BROKEN[failure], StreamConfig(on_interruption=interruption)) as server:  # type: ignore[arg-type]  # one of two
        reply = await ask(server.connect(), how, stream=True)
        said = heard(how, reply)
        assert reply.status == 200
        assert said.broken
        assert said.text == "".join(WORDS)
        assert said.model == "a"


@all_ways
async def test_one_500_is_tried_again(how: How, stream: bool, autojump_clock: MockClock) -> None:
    """At the same model, and its client sees nothing of it."""
    turns = [fails(ProviderError("oops", model="a", status=500)), whole()]
    async with two(turns) as server:
        said = heard(how, reply := await ask(server.connect(), how, stream=stream))
        assert (said.text, said.model, said.usage, said.ended) == (ANSWER, "a", PROMPT_TOKENS, True)
        assert reply.headers["x-wizard-attempts"] == "2"


@all_ways
async def test_a_finished_answer_is_whole_though_the_socket_stays_open(
    how: How, stream: bool, autojump_clock: MockClock
) -> None:
    """What the model ends with its finish reason is complete: nobody waits long for more."""
    async with two(Turn((ANSWER, USAGE, DONE, 1000.0))) as server:
        began = trio.current_time()
        said = heard(how, await ask(server.connect(), how, stream=stream))
        assert (said.text, said.model, said.usage, said.ended) == (ANSWER, "a", PROMPT_TOKENS, True)
        assert trio.current_time() - began < 5


@all_ways
async def test_content_policy_is_the_providers_reason_as_a_400(
    how: How, stream: bool, autojump_clock: MockClock
) -> None:
    """No other model is asked, and no client asks again."""
    async with two(fails(ContentFilterError("our policy forbids that", model="a", status=400)), BUFFERED) as server:
        reply = await ask(server.connect(), how, stream=stream)
        assert reply.status == 400
        assert "our policy forbids that" in heard(how, reply).errors[0]["message"]
        assert heard(how, reply).errors[0]["code"] == "content_filter"


@all_ways
async def test_a_prompt_too_long_for_all_is_a_400(how: How, stream: bool, autojump_clock: MockClock) -> None:
    """With the code that each format's clients know."""
    too_long = fails(TokenLimitError("the prompt is too long", model="a"))
    async with served({"a": Scripted(too_long), "b": Scripted(too_long)}) as server:
        reply = await ask(server.connect(), how, stream=stream)
        assert reply.status == 400
        error = heard(how, reply).errors[0]
        assert "too long" in error["message"]
        if how == "openai":
            assert error["code"] == "context_length_exceeded"
        else:
            assert error["type"] == "invalid_request_error"


@all_ways
async def test_a_model_that_was_down_is_asked_again_when_it_is_back(
    how: How, stream: bool, autojump_clock: MockClock
) -> None:
    """The other one answers meanwhile, and no request is lost."""
    down = [fails(OverloadedError("down", model="a", status=503))] * 6
    models = {"a": Scripted(*down, whole()), "b": Scripted(whole())}
    breaker = BreakerConfig(failure_threshold=3, open_for=30.0)
    settings = [model("a", retry=NO_JITTER, breaker=breaker), model("b")]
    async with served(models, *settings, stream=BUFFERED) as server:
        wire, answered = server.connect(), []
        for _ in range(30):
            said = heard(how, await ask(wire, how, stream=stream))
            assert (said.text, said.usage, said.ended) == (ANSWER, PROMPT_TOKENS, True)
            answered.append(said.model)
            await trio.sleep(10)
    assert answered[0] == "b"
    assert answered[-5:] == ["a"] * 5
    assert len(models["a"].calls) < 30


# -- upstreams whose bytes matter ------------------------------------------------------------------------------------


EVENTS: Final = {"content-type": "text/event-stream"}
HEAD: Final = b'data: {"id":"1","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
FINISH: Final = b'data: {"id":"1","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'


def word(text: str) -> bytes:
    """Return the event of a piece of text."""
    return b'data: {"id":"1","model":"m","choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % text.encode()


PART: Final = [HEAD, *map(word, WORDS)]
STREAMED: Final = response(200, EVENTS, PART, cut=True)


def wire_error(status: int, **headers: str) -> bytes:
    """Return the bytes of an error."""
    named = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return response(status, named, [b'{"error":{"message":"no","type":"t","code":null}}'])


async def upstream(wire: Wire, said: bytes, *, closes: bool) -> None:
    """Answer with these bytes, and close, or keep the socket open until the client leaves."""
    while await wire.request() is not None:
        if said:
            await wire.send(said)
        if closes:
            return
        await wire.gone()


BYTES: Final[dict[str, tuple[bytes, bool]]] = {
    "429 with Retry-After": (wire_error(429, retry_after="30"), True),
    "429 without Retry-After": (wire_error(429), True),
    "500": (wire_error(500), True),
    "503": (wire_error(503), True),
    "closed before headers": (b"", True),
    "silence": (b"", False),
    "silence after the head": (response(200, EVENTS, [], cut=True), False),
    "cut in the body": (STREAMED, True),
    "cut in good order": (response(200, EVENTS, PART), True),
    "stalled": (STREAMED, False),
    "malformed": (STREAMED + chunk(b'data: {"id":"1","choi\n\n') + chunk(FINISH), False),
    "garbage": (b"\x00\x01 nothing of HTTP\r\n\r\n", True),
}
BEFORE_THE_FIRST_WORD: Final = {
    "429 with Retry-After",
    "429 without Retry-After",
    "500",
    "503",
    "closed before headers",
    "silence",
    "silence after the head",
    "garbage",
}


@asynccontextmanager
async def before_a_backup(said: bytes, *, closes: bool, delivery: str) -> AsyncIterator[Served]:
    """Serve an upstream of such bytes, and a healthy model after it."""
    answers = b'"content":"word' in said  # one that speaks has all the time that a busy machine takes
    limits = TimeoutsConfig(connect=5.0, first_token=5.0 if answers else 0.1, stall=0.15)
    async with (
        serving(partial(upstream, said=said, closes=closes)) as base_url,
        make_http_client() as http,
    ):
        of_bytes = OpenAIProvider(
            HttpSettings(name="a", model="m", base_url=base_url, api_key=Secret("sk-1234"), upstream="auto"), http
        )
        models = [model("a", retry=NO_JITTER, timeouts=limits), model("b")]
        stream = StreamConfig(delivery=delivery)  # type: ignore[arg-type]  # one of two
        async with served({"a": of_bytes, "b": Scripted(whole())}, *models, stream=stream) as server:
            yield server


@pytest.mark.parametrize("failure", BYTES)
async def test_buffered_is_whole_whatever_bytes_the_upstream_sends(failure: str) -> None:
    """Asked for as a stream, in both formats, on one connection."""
    said, closes = BYTES[failure]
    with trio.fail_after(10):
        async with before_a_backup(said, closes=closes, delivery="buffered") as server:
            wire = server.connect()
            for how in FORMATS:
                answer = heard(how, await ask(wire, how, stream=True))
                assert (answer.text, answer.model, answer.usage, answer.ended) == (ANSWER, "b", PROMPT_TOKENS, True)


@pytest.mark.parametrize("failure", BYTES)
async def test_live_is_whole_or_a_clean_error_whatever_bytes_the_upstream_sends(failure: str) -> None:
    """A part is never taken for a whole."""
    said, closes = BYTES[failure]
    with trio.fail_after(10):
        async with before_a_backup(said, closes=closes, delivery="live") as server:
            answer = heard("openai", await ask(server.connect(), stream=True))
            if failure in BEFORE_THE_FIRST_WORD:
                assert (answer.text, answer.model, answer.ended) == (ANSWER, "b", True)
            else:
                assert answer.broken
                assert answer.text == "".join(WORDS)


@pytest.mark.parametrize("delivery", ["live", "buffered"])
async def test_an_upstream_that_never_says_done_on_an_open_socket_has_answered(delivery: str) -> None:
    """Its finish reason is the end; the first model's answer is delivered, once."""
    said = response(200, EVENTS, [*PART, FINISH], cut=True)
    with trio.fail_after(10):
        async with before_a_backup(said, closes=False, delivery=delivery) as server:
            answer = heard("openai", await ask(server.connect(), stream=True))
            assert (answer.text, answer.model, answer.ended) == ("".join(WORDS), "a", True)


async def test_arguments_that_go_on_after_their_end_are_a_clean_error(autojump_clock: MockClock) -> None:
    """Messages cannot say them; the stream is over in good order, though its model goes on for a while."""
    called, more = ToolCallDelta(0, "c", "look", "{}"), ToolCallDelta(0, None, None, "{}")
    async with served(Scripted(Turn((called, "Words.", more, 25.0, "More.", USAGE, DONE)))) as server:
        wire = server.connect()
        assert heard("anthropic", await ask(wire, "anthropic", stream=True)).broken
        assert (await wire.ask("GET", "/health/live")).status == 200


async def test_silence_is_not_for_ever_for_whoever_asks_without_a_stream(autojump_clock: MockClock) -> None:
    """Where every model is silent, a 504 ends it, which no client tries again by itself."""
    async with served({"a": Scripted(SILENT), "b": Scripted(SILENT)}) as server:
        reply = await ask(server.connect())
        assert reply.status == 504
        assert reply.headers["x-should-retry"] == "false"


@all_formats
async def test_where_all_fail_a_live_stream_has_its_true_status(how: How, autojump_clock: MockClock) -> None:
    """Nothing was sent, so the status can tell, and the headers what was tried."""
    down = fails(ProviderError("down", model="a", status=500))
    models = [model("a", retry=NO_JITTER), model("b", retry=NO_JITTER)]
    async with served({"a": Scripted(down), "b": Scripted(down)}, *models) as server:
        reply = await ask(server.connect(), how, stream=True)
        assert reply.status == 502
        assert reply.headers["x-should-retry"] == "false"
        assert reply.headers["x-wizard-attempts"] == "6"
        assert reply.headers["content-type"] == "application/json"
        assert heard(how, reply).broken


async def test_a_static_answer_stands_in_under_the_name_that_was_asked(autojump_clock: MockClock) -> None:
    """No model gave it, which the headers say."""
    route = RouteConfig(name="wizard", static_answer="Come back later.")
    down = fails(OverloadedError("down", model="a", status=503))
    async with served(Scripted(down), model("a", retry=NO_JITTER), route=route) as server:
        wire = server.connect()
        for stream in (False, True):
            said = heard("openai", reply := await ask(wire, stream=stream))
            assert (said.text, said.model, said.ended) == ("Come back later.", "wizard", True)
            assert reply.headers["x-wizard-served-by"] == "static"
