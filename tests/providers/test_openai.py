"""The OpenAI provider over real sockets: what it sends, what it makes of each answer, how it lets go."""

import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from random import Random

import httpx
import pytest
import trio
import trio.testing
from attrs import evolve

from tests.loopback import Wire, WireRequest, chunk, response, serving
from wizard_actors.config import NATIVE, PRESETS, ModelConfig, Secret
from wizard_actors.errors import (
    AuthError,
    ConfigError,
    NetworkError,
    OverloadedError,
    ParseError,
    ProviderError,
    ProviderTimeoutError,
    RateLimitError,
    RequestError,
    StreamInterruptedError,
    WizardError,
)
from wizard_actors.providers.base import Answer, Call, Provider
from wizard_actors.providers.http import DRAIN_TIME, make_http_client
from wizard_actors.providers.http_provider import HttpSettings
from wizard_actors.providers.openai import OpenAIProvider
from wizard_actors.streaming import Assembly
from wizard_actors.types import (
    Finished,
    FinishReason,
    LimitHeaders,
    LimitWindow,
    ModelEvent,
    Prompt,
    TextDelta,
    TokenUsage,
)

KEY = "sk-canary-0123456789"
CALL = Call(Prompt("Why?"), "request-1")
SSE = {"content-type": "text/event-stream", "x-request-id": "req_up"}
JSON = {"content-type": "application/json"}
NOW = 1_700_000_000.0

Upstream = Callable[[Wire], Awaitable[None]]


def event(data: object) -> bytes:
    """Return one event of a stream."""
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def text(content: str, finish: str | None = None) -> bytes:
    """Return a chunk of text."""
    return event({"id": "c-1", "model": "up-1", "choices": [{"delta": {"content": content}, "finish_reason": finish}]})


ANSWER = [text("Why"), text(" not?"), text("", "stop"), b"data: [DONE]\n\n"]
WHOLE = json.dumps(
    {"model": "up-1", "choices": [{"message": {"content": "Why not?"}, "finish_reason": "stop"}]}
).encode()


def answering(*responses: bytes, seen: list[WireRequest] | None = None) -> Upstream:
    """Return an upstream that answers its requests with these, in order, on one connection or several."""
    left = list(responses)

    async def upstream(wire: Wire) -> None:
        while left and (request := await wire.request()) is not None:
            if seen is not None:
                seen.append(request)
            await wire.send(left.pop(0))

    return upstream


def with_settings(**settings: object) -> HttpSettings:
    """Return settings that would work, but for these."""
    plain = HttpSettings(name="primary", model="up-1", base_url="http://x.test/v1", api_key=Secret(KEY))
    return evolve(plain, **settings)  # type: ignore[arg-type]  # whatever a test wants to see refused


@asynccontextmanager
async def provider(handler: Upstream, /, **settings: object) -> AsyncIterator[OpenAIProvider]:
    """Yield a provider of an upstream."""
    async with serving(handler) as base_url, make_http_client() as http:
        yield OpenAIProvider(with_settings(base_url=base_url, **settings), http, wall_clock=lambda: NOW)


async def ask(model: Provider, call: Call = CALL) -> Assembly:
    """Return the whole answer."""
    assembly = Assembly()
    async with model.open(call) as answer:
        await read_into(assembly, answer)
    return assembly


async def read_into(assembly: Assembly, answer: Answer) -> None:
    """Read the answer to its end."""
    while (events := await answer.read()) is not None:
        assembly.extend(events)


async def refused(handler: Upstream, /, **settings: object) -> ProviderError:
    """Return the error of a call that fails; nothing in it may show the key."""
    async with provider(handler, **settings) as model:
        with pytest.raises(ProviderError) as caught:
            await ask(model)
    error: BaseException | None = caught.value
    while error is not None:
        assert KEY not in f"{error} {error!r}"
        error = error.__cause__
    assert KEY not in str(caught.value.to_dict())
    return caught.value


# -- what is sent ------------------------------------------------------------------------------------


async def test_a_call_is_one_post_with_the_key_and_our_id() -> None:
    """To the chat endpoint below the base URL, uncompressed, under our name."""
    seen: list[WireRequest] = []
    headers = {"X-Team": Secret("blue"), "User-Agent": Secret("other/1")}
    upstream = answering(response(200, SSE, ANSWER), seen=seen)
    async with provider(upstream, headers=headers, extra={"top_k": 3}) as model:
        await ask(model)
    (request,) = seen
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["x-request-id"] == "request-1"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["x-team"] == "blue"
    assert request.headers["user-agent"] == "other/1"
    assert "cookie" not in request.headers
    assert request.json["stream_options"] == {"include_usage": True}
    assert request.json["top_k"] == 3


async def test_a_key_header_of_its_own_carries_the_bare_key() -> None:
    """As Azure wants it; and no key is sent where there is none."""
    seen: list[WireRequest] = []
    whole = response(200, JSON, [WHOLE])
    async with provider(answering(whole, seen=seen), provider="azure") as model:
        await ask(model)
    async with provider(answering(whole, seen=seen), api_key=None) as model:
        await ask(model)
    assert seen[0].headers["api-key"] == KEY
    assert not {"authorization", "api-key"} & seen[1].headers.keys()


async def test_an_odd_request_id_cannot_break_the_request() -> None:
    """Somebody else may have chosen it."""
    seen: list[WireRequest] = []
    async with provider(answering(response(200, JSON, [WHOLE]), seen=seen)) as model:
        await ask(model, Call(CALL.prompt, "a\r\nx-evil: 1 é"))
    assert seen[0].headers["x-request-id"] == "a__x-evil:_1__"


@pytest.mark.parametrize(
    ("base_url", "field"),
    [("https://api.openai.com/v1", "max_completion_tokens"), ("https://api.groq.com/openai/v1", "max_tokens")],
)
async def test_the_answers_length_is_bounded_in_the_upstreams_words(base_url: str, field: str) -> None:
    """OpenAI's newer models refuse the old name, compatibles mostly know no other."""
    bodies: list[dict[str, object]] = []

    def upstream(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return httpx.Response(200, content=WHOLE)

    async with httpx.AsyncClient(transport=httpx.MockTransport(upstream)) as http:
        model = OpenAIProvider(HttpSettings(name="m", model="m", base_url=base_url), http)
        await ask(model, Call(Prompt("x", max_tokens=7), "1"))
    assert bodies[0][field] == 7


# -- answers -----------------------------------------------------------------------------------------


async def test_a_stream_is_read_as_it_comes() -> None:
    """Each piece when it is there, then None; what is known of the upstream beside it."""
    go = trio.Event()

    async def upstream(wire: Wire) -> None:
        await wire.request()
        await wire.send(response(200, {**SSE, "x-ratelimit-remaining-requests": "9"}, ANSWER[:1], cut=True))
        await go.wait()
        await wire.send(b"".join(map(chunk, ANSWER[1:])) + chunk(b""))

    async with provider(upstream) as model, model.open(CALL) as answer:
        models = [answer.upstream_model]
        assert answer.limits == LimitHeaders(requests=LimitWindow(remaining=9))
        assert await answer.read() == [TextDelta("Why")]
        assert [*models, answer.upstream_model] == [None, "up-1"]
        assert answer.upstream_id == "req_up"
        go.set()
        rest: list[ModelEvent] = []
        while (events := await answer.read()) is not None:
            rest += events
        assert rest == [TextDelta(" not?"), Finished(FinishReason.STOP, "stop")]
        assert await answer.read() is None


async def test_a_whole_answer_is_read_where_a_stream_was_asked_for() -> None:
    """Some upstreams ignore the wish."""
    async with provider(answering(response(200, JSON, [WHOLE[:20], WHOLE[20:]]))) as model:
        assembly = await ask(model)
    assert assembly.text == "Why not?"
    assert assembly.finished == Finished(FinishReason.STOP, "stop")


@pytest.mark.parametrize("cut", [b"data: [DO", b""])
async def test_a_truncated_stream_has_no_finish(cut: bytes) -> None:
    """The body ends in good order, but the answer does not: for the caller to judge."""
    async with provider(answering(response(200, SSE, [ANSWER[0], cut]))) as model:
        assembly = await ask(model)
    assert assembly.text == "Why"
    assert assembly.finished is None


async def test_recorded_answers_come_through_sockets(recordings: Path) -> None:
    """A sample of the recorded traffic, cut at random places, some of it compressed, on reused connections."""
    rng = Random(7)
    with gzip.open(recordings / "openai-chat.jsonl.gz", "rt", encoding="utf-8") as lines:
        pairs = [pair for pair in map(json.loads, lines) if '"choices"' in pair["response"]["body"]][::11]
    connections = 0

    async def upstream(wire: Wire) -> None:
        nonlocal connections
        connections += 1
        while (request := await wire.request()) is not None:
            pair = pairs[int(request.headers["x-request-id"])]["response"]
            headers = {"content-type": pair["headers"].get("content-type", "")}
            body = pair["body"].encode()
            if rng.random() < 0.3:
                body, headers["content-encoding"] = gzip.compress(body), "gzip"
            cuts = sorted(rng.sample(range(1, len(body)), min(20, len(body) - 1)))
            pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
            wire_bytes = response(pair["status"], headers, pieces)
            middle = rng.randrange(len(wire_bytes))
            await wire.send(wire_bytes[:middle])
            await wire.send(wire_bytes[middle:])

    async with provider(upstream) as model:
        for index, pair in enumerate(pairs):
            assembly = await ask(model, Call(CALL.prompt, str(index)))
            assert assembly.finished is not None
            if not pair["stream"]:
                message = json.loads(pair["response"]["body"])["choices"][0].get("message", {})
                assert assembly.text == (message.get("content") or message.get("refusal") or "")
    assert len(pairs) == 60
    assert connections == 1


# -- fields that an upstream refuses -----------------------------------------------------------------


def error(status: int, message: str, param: str | None = None, **headers: str) -> bytes:
    """Return a refusal as OpenAI sends it."""
    body = json.dumps({"error": {"message": message, "type": "invalid_request_error", "param": param, "code": None}})
    return response(status, {**JSON, **headers}, [body.encode()])


async def test_a_refused_field_is_left_out_at_once_and_remembered() -> None:
    """First the options, then the stream itself, within one `open`; the next call asks in the words that worked."""
    seen: list[WireRequest] = []
    upstream = answering(
        error(400, "Unrecognized request argument supplied: stream_options"),
        error(422, "Extra inputs are not permitted", "stream"),
        response(200, JSON, [WHOLE]),
        response(200, JSON, [WHOLE]),
        seen=seen,
    )
    async with provider(upstream) as model:
        streams = [model.streams]
        texts = [(await ask(model)).text]
        streams.append(model.streams)
        texts.append((await ask(model)).text)
    assert texts == ["Why not?"] * 2
    assert streams == [True, False]
    asked = [(request.json.get("stream"), "stream_options" in request.json) for request in seen]
    assert asked == [(True, True), (True, False), (None, False), (None, False)]


async def test_a_field_is_not_given_up_where_that_did_not_help() -> None:
    """A refusal that seems to be of streams costs one more call, and teaches nothing; the last refusal is raised."""
    seen: list[WireRequest] = []
    upstream = answering(
        error(400, "streaming is not supported for bad text"), error(400, "Your text is bad"), seen=seen
    )
    async with provider(upstream) as model:
        with pytest.raises(RequestError, match="text is bad"):
            await ask(model)
        assert model.streams
    assert len(seen) == 2


@pytest.mark.parametrize("status", [401, 429, 503])
async def test_a_field_is_given_up_for_good_only_after_a_success(status: int) -> None:
    """An error of another kind says nothing of whether dropping the field has helped."""
    upstream = answering(error(400, "streaming is not supported"), error(status, "not now"))
    async with provider(upstream) as model:
        with pytest.raises(ProviderError):
            await ask(model)
        assert model.streams


async def test_a_message_that_merely_speaks_of_a_stream_is_no_refusal_of_streams() -> None:
    """The 400 is the answer; nothing is sent again."""
    seen: list[WireRequest] = []
    upstream = answering(error(400, "could not decode the image: unexpected end of stream"), seen=seen)
    async with provider(upstream) as model:
        with pytest.raises(RequestError, match="unexpected end"):
            await ask(model)
    assert len(seen) == 1


async def test_a_stream_that_is_insisted_on_is_not_given_up() -> None:
    """`upstream = "stream"` forces it; its options may go all the same."""
    upstream = answering(error(400, "no stream_options"), error(400, "no streaming"))
    async with provider(upstream, upstream="stream") as model:
        with pytest.raises(RequestError, match="no streaming"):
            await ask(model)
        assert model.streams


async def test_unary_asks_for_no_stream() -> None:
    """`upstream = "unary"`, and its refusals are final."""
    seen: list[WireRequest] = []
    async with provider(answering(error(400, "stream"), seen=seen), upstream="unary") as model:
        assert not model.streams
        with pytest.raises(RequestError):
            await ask(model)
    assert [("stream" in request.json) for request in seen] == [False]


# -- errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, AuthError), (429, RateLimitError), (500, ProviderError), (503, OverloadedError), (529, OverloadedError)],
)
async def test_an_error_status_raises_from_read(status: int, kind: type[WizardError]) -> None:
    """Entering succeeds, whatever the status, so that its headers are there first; the key it echoes is masked."""
    upstream = answering(error(status, f"denied: {KEY}", **{"retry-after": "7", "x-request-id": f"req-{KEY}"}))
    async with provider(upstream) as model, model.open(CALL) as answer:
        assert (answer.limits is not None) == (status in {429, 503, 529})
        with pytest.raises(ProviderError) as caught:
            await read_into(Assembly(), answer)
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.retry_after, caught.value.request_id) == (status, 7.0, "req-***")
    assert KEY not in f"{caught.value.to_dict()} {caught.value!r}"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after": formatdate(NOW + 30, usegmt=True)}, 30.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
async def test_retry_after_is_read_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    """Milliseconds first, then seconds or a date."""
    failed = await refused(answering(error(429, "slow down", **headers)))
    assert failed.retry_after == seconds


async def test_errors_inside_a_stream_come_after_what_came_before() -> None:
    """The text is not lost, and the call fails all the same."""
    broken = event({"error": {"message": f"overloaded, {KEY}", "code": "overloaded"}})
    async with provider(answering(response(200, SSE, [ANSWER[0] + broken]))) as model, model.open(CALL) as answer:
        assert await answer.read() == [TextDelta("Why")]
        for _ in range(2):
            with pytest.raises(OverloadedError) as caught:
                await answer.read()
            assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("upstream", "kind"),
    [
        (answering(response(200, SSE, [ANSWER[0], b"data: {bro\n\n"])), ParseError),
        (answering(response(200, SSE, [ANSWER[0]], cut=True)), StreamInterruptedError),
        (answering(response(200, JSON, [WHOLE[:20]], cut=True)), StreamInterruptedError),
        (answering(response(200, {"content-type": "text/html"}, [b"<html>Sign in" + b" " * 9999])), ParseError),
        (answering(response(200, {**SSE, "content-encoding": "gzip"}, [b"garbage"])), ParseError),
        (answering(response(200, {**SSE, "content-encoding": "br"}, [b"garbage"])), ParseError),
        (answering(response(502, {}, [b"<title>502 Bad Gateway</title>"])), ProviderError),
        (answering(response(502, {}, [b"half"], cut=True)), ProviderError),
        (answering(response(502, {"content-encoding": "gzip"}, [b"garbage"])), ProviderError),
        (answering(response(307, {"location": "https://elsewhere.test/v1"})), RequestError),
        (answering(b"HTTP/1.1 204 None\r\n\r\n"), ParseError),
        (answering(b"not HTTP\r\n\r\n"), NetworkError),
        (answering(b""), NetworkError),
    ],
)
async def test_whatever_goes_wrong_is_one_of_our_errors(upstream: Upstream, kind: type[WizardError]) -> None:
    """Truncated, malformed, compressed badly, redirected, no HTTP at all: classified, short, and about this model."""
    failed = await refused(upstream)
    assert type(failed) is kind
    assert failed.model == "primary"
    assert str(failed).startswith("primary: ")
    assert len(str(failed)) < 700


async def test_what_breaks_after_the_end_takes_nothing_away() -> None:
    """Once the finish reason is here, a lost connection is only the end."""
    async with provider(answering(response(200, SSE, [ANSWER[0], text("", "stop")], cut=True))) as model:
        assembly = await ask(model)
    assert assembly.finished == Finished(FinishReason.STOP, "stop")


async def test_a_server_that_is_not_there_is_a_network_error() -> None:
    """Raised on entry."""
    async with make_http_client() as http:
        with trio.socket.socket() as unused:
            await unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}"
            model = OpenAIProvider(HttpSettings(name="primary", model="m", base_url=url), http)
            with pytest.raises(NetworkError):
                await ask(model)


async def test_connecting_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the configured time, and by nothing else of ours."""

    async def never(*_args: object, **_options: object) -> object:
        await trio.sleep_forever()

    monkeypatch.setattr(trio, "open_tcp_stream", never)
    settings = HttpSettings(name="primary", model="m", base_url="http://far.test", connect_timeout=0.01)
    async with make_http_client() as http:
        with pytest.raises(ProviderTimeoutError) as caught:
            await ask(OpenAIProvider(settings, http))
    assert caught.value.phase == "connect"


# -- letting go --------------------------------------------------------------------------------------


class Watched:
    """An upstream that begins an answer, and tells when its client has gone."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.begun = trio.Event()
        self.gone = trio.Event()
        self.connections = 0

    async def __call__(self, wire: Wire) -> None:
        self.connections += 1
        assert await wire.request() is not None
        if self.pieces:
            await wire.send(response(200, SSE, self.pieces, cut=True))
        self.begun.set()
        await wire.gone()
        self.gone.set()


@pytest.mark.parametrize("pieces", [(), (ANSWER[0],)], ids=["before the head", "mid-stream"])
async def test_cancelling_closes_the_connection_at_once(pieces: tuple[bytes, ...]) -> None:
    """Within 100 ms upstream sees that nobody listens any more, and can stop."""
    upstream = Watched(*pieces)
    async with provider(upstream) as model:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, model)
                await upstream.begun.wait()
                await trio.testing.wait_all_tasks_blocked()
                cancelled = trio.current_time()
                scope.cancel()
        with trio.fail_after(1):
            await upstream.gone.wait()
        assert trio.current_time() - cancelled < 0.1


async def test_leaving_an_unfinished_answer_closes_its_connection() -> None:
    """At once: an answer that nobody reads goes on costing."""
    upstream = Watched(ANSWER[0])
    async with provider(upstream) as model:
        async with model.open(CALL) as answer:
            await answer.read()
            start = trio.current_time()
        assert trio.current_time() - start < DRAIN_TIME
        with trio.fail_after(1):
            await upstream.gone.wait()


async def test_leaving_after_the_last_word_keeps_the_connection() -> None:
    """The end of the body is read on the way out, so ten calls need one connection."""
    connections = 0

    async def upstream(wire: Wire) -> None:
        nonlocal connections
        connections += 1
        while await wire.request() is not None:
            await wire.send(response(200, SSE, ANSWER, cut=True))
            await trio.testing.wait_all_tasks_blocked()  # the client is on its way out
            await wire.send(chunk(b""))

    async with provider(upstream) as model:
        for _ in range(10):
            async with model.open(CALL) as answer:
                assembly = Assembly()
                while assembly.finished is None:
                    assembly.extend(await answer.read() or ())
                await answer.read()
    assert connections == 1


async def test_errors_keep_the_connection() -> None:
    """A refusal is read to its end too."""
    connections = 0

    async def upstream(wire: Wire) -> None:
        nonlocal connections
        connections += 1
        while await wire.request() is not None:
            await wire.send(error(500, "oops"))

    async with provider(upstream) as model:
        for _ in range(3):
            with pytest.raises(ProviderError):
                await ask(model)
    assert connections == 1


async def test_a_cancelled_second_question_closes_both_answers() -> None:
    """Cancelling while a refused field is being left out leaves no connection behind."""
    asked, gone = trio.Event(), trio.Event()

    async def upstream(wire: Wire) -> None:
        await wire.request()
        await wire.send(error(400, "no stream_options"))
        await wire.request()
        asked.set()
        await wire.gone()
        gone.set()

    async with provider(upstream) as model:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, model)
            await asked.wait()
            nursery.cancel_scope.cancel()
        with trio.fail_after(1):
            await gone.wait()
        assert model.streams


# -- settings ----------------------------------------------------------------------------------------


async def test_a_configured_model_becomes_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every preset has an address but Azure, which is asked for one; the key is read now."""
    monkeypatch.setenv("SOME_KEY", KEY)
    async with make_http_client() as http:
        for preset, known in {"openai": NATIVE["openai"], **PRESETS}.items():
            base_url = "https://mine.openai.azure.com/openai/v1" if preset == "azure" else None
            config = ModelConfig(name="m", provider=preset, base_url=base_url, api_key_env="SOME_KEY")
            model = OpenAIProvider.from_config(config, http)
            assert model.settings.base_url == (base_url or known.base_url)
            carried = dict(model.headers)["api-key" if preset == "azure" else "authorization"]
            assert carried == (KEY if preset == "azure" else f"Bearer {KEY}")
            assert KEY not in f"{model!r} {model.settings!r}"
        config = ModelConfig(
            name="m", provider="openai", model="up", upstream="unary", headers={"X-A": "b"}, extra={"a": 1}
        )
        settings = OpenAIProvider.from_config(config, http).settings
    assert (settings.model, settings.upstream, settings.extra, settings.api_key) == ("up", "unary", {"a": 1}, None)
    assert settings.connect_timeout == config.timeouts.connect


@pytest.mark.parametrize(
    "settings",
    [
        {"base_url": "ftp://x/v1"},
        {"base_url": "no url"},
        {"base_url": "http://"},
        {"base_url": "http://a..b/v1"},
        {"base_url": "http://[::1"},
        {"api_key": Secret(f"{KEY}\n")},
        {"headers": {"x-a": Secret(f"{KEY}é")}},
        {"headers": {"x\n": Secret("a")}},
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(settings: dict[str, object]) -> None:
    """Before any call, and without showing the key that an HTTP library would quote."""
    with pytest.raises(ConfigError) as caught:
        OpenAIProvider(with_settings(**settings), make_http_client())
    assert "models.primary" in str(caught.value)
    assert KEY not in f"{caught.value} {caught.value.__cause__}"


def test_no_endpoint_is_no_provider() -> None:
    """A provider without a known address needs one in the configuration."""
    config = ModelConfig(name="m", provider="simulated")
    with pytest.raises(ConfigError, match="base_url"):
        HttpSettings.from_config(config)


async def test_usage_reaches_the_caller() -> None:
    """The last chunk's usage is there before the end."""
    usage = event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}})
    async with provider(answering(response(200, SSE, [*ANSWER[:3], usage, ANSWER[3]]))) as model:
        assert (await ask(model)).usage == TokenUsage(3, 2)
