"""Refusals on the way to an answer: how long they are read, what is asked again, what is remembered."""

import json
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final

import httpx
import pytest
import trio
from attrs import evolve
from trio.testing import MockClock

from wizard_actors.config import Secret
from wizard_actors.errors import AuthError, ProviderError, RateLimitError, RequestError
from wizard_actors.providers.base import Answer, Call
from wizard_actors.providers.http_provider import ERROR_BODY_TIME, HttpSettings
from wizard_actors.providers.openai import OpenAIProvider
from wizard_actors.streaming import Assembly
from wizard_actors.types import Prompt

SETTINGS: Final = HttpSettings(name="primary", model="up-1", base_url="https://up.test/v1")
CALL: Final = Call(Prompt("Why?"), "request-1")
SCHEMA_CALL: Final = Call(Prompt("Why?", response_schema={"type": "object"}), "request-2")
WHOLE: Final = b'{"choices": [{"message": {"content": "Why not?"}, "finish_reason": "stop"}]}'


class Pieces(httpx.AsyncByteStream):
    """A body that arrives a piece at a time, each after a pause; `closed` tells whether it was let go."""

    def __init__(self, pieces: Iterable[bytes], pause: float = 0.0) -> None:
        self.pieces = pieces
        self.pause = pause
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            await trio.sleep(self.pause)
            if self.closed:
                return
            yield piece

    async def aclose(self) -> None:
        self.closed = True


def endless(piece: bytes) -> Iterable[bytes]:
    """Return pieces without an end."""
    while True:
        yield piece


def refusal(message: str, status: int = 400, **fields: object) -> httpx.Response:
    """Return a refusal as OpenAI sends it."""
    return httpx.Response(status, json={"error": {"message": message, **fields}})


Upstream = Callable[[dict[str, object]], httpx.Response]


async def text_of(answer: Answer) -> str:
    """Read an answer to its end."""
    assembly = Assembly()
    while (events := await answer.read()) is not None:
        assembly.extend(events)
    return assembly.text


class Model:
    """A provider of an upstream, which answers the bodies that it is sent; they are in `seen`."""

    def __init__(self, upstream: Upstream, **settings: object) -> None:
        self.seen: list[dict[str, object]] = []
        self.upstream = upstream
        http = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))
        self.provider = OpenAIProvider(evolve(SETTINGS, **settings), http)  # type: ignore[arg-type]  # by name

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.seen.append(body)
        await trio.lowlevel.checkpoint()
        return self.upstream(body)

    async def ask(self, call: Call = CALL) -> str:
        """Return the text of an answer."""
        async with self.provider.open(call) as answer:
            return await text_of(answer)

    @property
    def streamed(self) -> list[bool]:
        """Whether each request asked for a stream."""
        return ["stream" in body for body in self.seen]


def answering(*responses: httpx.Response) -> Upstream:
    """Return an upstream that gives these answers in order."""
    left = iter(responses)
    return lambda _: next(left)


def whole() -> httpx.Response:
    """Return an answer."""
    return httpx.Response(200, content=WHOLE, headers={"content-type": "application/json"})


# -- how long a refusal is read ----------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 429, 503])
@pytest.mark.parametrize("pause", [0.4, 0.9, 1.5, float("inf")])
async def test_a_body_that_trickles_does_not_hide_its_status(
    autojump_clock: MockClock, status: int, pause: float
) -> None:
    """Its pieces may come for ever: after a second all that has come is judged by the status."""
    body = Pieces(endless(b" "), pause)
    model = Model(answering(httpx.Response(status, stream=body, headers={"retry-after": "20"})))
    start = trio.current_time()

    with trio.fail_after(60), pytest.raises(ProviderError) as caught:
        await model.ask()

    assert (caught.value.status, caught.value.retry_after) == (status, 20.0)
    assert trio.current_time() - start == pytest.approx(ERROR_BODY_TIME)
    assert body.closed


async def test_a_body_that_comes_within_its_time_is_read(autojump_clock: MockClock) -> None:
    """In many pieces, too: it says more than its status."""
    message = json.dumps({"error": {"message": "no more", "code": "invalid_api_key"}}).encode()
    pieces = [message[at : at + 8] for at in range(0, len(message), 8)]
    body = Pieces(pieces, 0.9 / len(pieces))

    with pytest.raises(AuthError, match="no more"):
        await Model(answering(httpx.Response(400, stream=body))).ask()


async def test_the_time_of_a_body_begins_when_it_is_read(autojump_clock: MockClock) -> None:
    """Whoever looks at the head for long has not lost the body."""
    model = Model(answering(refusal("no more", 429)))
    async with model.provider.open(CALL) as answer:
        await trio.sleep(5 * ERROR_BODY_TIME)
        with pytest.raises(RateLimitError, match="no more"):
            await text_of(answer)


async def test_a_refusal_that_goes_on_is_let_go(autojump_clock: MockClock) -> None:
    """The next request does not wait for the end of it, and holds no second connection."""
    body = Pieces(endless(b"no stream_options " * 1000))
    model = Model(answering(httpx.Response(400, stream=body), whole()))

    async with model.provider.open(CALL) as answer:
        assert body.closed
        assert await text_of(answer) == "Why not?"


async def test_a_retry_after_counts_beside_an_error_status_alone(autojump_clock: MockClock) -> None:
    """On a 200 it means nothing, and some send it: an error inside such an answer asks for no wait."""
    body = b'data: {"error": {"message": "slow down", "code": 429}}\n\n'
    headers = {"retry-after": "20", "content-type": "text/event-stream"}

    with pytest.raises(RateLimitError) as caught:
        await Model(answering(httpx.Response(200, content=body, headers=headers))).ask()

    assert caught.value.retry_after is None


async def test_the_longest_secret_is_masked_first(autojump_clock: MockClock) -> None:
    """A key may begin like a header's value; a token is one without its scheme too."""
    key, longer, token = "sk-canary", "sk-canary-and-more", "ya29.canary"
    headers = {"x-more": Secret(longer), "authorization": Secret(f"Bearer {token}")}
    model = Model(answering(refusal(f"bad: {longer} {key} {token}", 401)), api_key=Secret(key), headers=headers)

    with pytest.raises(AuthError) as caught:
        await model.ask()

    assert "bad: *** *** ***" in str(caught.value)


# -- what is asked again, and what is remembered -----------------------------------------------------


async def test_streams_refused_beside_something_else_are_given_up_for_that_call_alone(
    autojump_clock: MockClock,
) -> None:
    """The next call without it streams as before."""

    def upstream(body: dict[str, object]) -> httpx.Response:
        if "response_format" in body and "stream" in body:
            return refusal("`stream` is not supported with response_format `json_schema`")
        return whole()

    model = Model(upstream)
    assert [await model.ask(call) for call in (CALL, SCHEMA_CALL, CALL)] == ["Why not?"] * 3
    assert model.streamed == [True, True, False, True]


async def test_a_request_that_stays_the_same_is_not_sent_again(autojump_clock: MockClock) -> None:
    """A field in `extra` stays, whatever the dialect says."""
    message = "Unknown parameter: 'stream_options'"
    model = Model(answering(refusal(message)), extra={"stream_options": {"include_usage": True}})

    with pytest.raises(RequestError, match=message):
        await model.ask()

    assert len(model.seen) == 1


async def test_a_word_about_streams_is_no_reason_to_ask_again(autojump_clock: MockClock) -> None:
    """The refusal is the answer."""
    message = "Invalid image. Please contact support or read a stream of docs"
    model = Model(answering(refusal(message)))

    with pytest.raises(RequestError, match="Invalid image"):
        await model.ask()

    assert len(model.seen) == 1


async def test_calls_at_once_add_up_what_they_learn(autojump_clock: MockClock) -> None:
    """What a slower call was taught is added to what a faster one has: neither forgets the other's."""

    def upstream(body: dict[str, object]) -> httpx.Response:
        if "max_tokens" in body:
            return refusal("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        if "stream" in body and "max_completion_tokens" not in body:
            return refusal("streaming is not supported")
        body_stream = Pieces([WHOLE], 5.0 if "max_completion_tokens" in body else 0.0)
        return httpx.Response(200, stream=body_stream, headers={"content-type": "application/json"})

    model = Model(upstream)
    bounded = Call(Prompt("Why?", max_tokens=5), "request-3")

    # Both begin with the same dialect; each is refused something else, and answered in the end.
    async with trio.open_nursery() as nursery:
        for call in (bounded, CALL):
            nursery.start_soon(model.ask, call)
    assert len(model.seen) == 4
    model.seen.clear()
    await model.ask(bounded)

    assert [sorted({"stream", "max_completion_tokens", "max_tokens"} & body.keys()) for body in model.seen] == [
        ["max_completion_tokens"]
    ]
