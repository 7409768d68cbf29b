"""The Anthropic provider over real sockets and its contract: what it sends where, and that it behaves as all do."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import ClassVar

import httpx
import pytest
from attrs import evolve

from tests.loopback import Wire, WireRequest, response, serving
from wizard_actors.config import ModelConfig, Secret
from wizard_actors.errors import ConfigError, OverloadedError, RequestError
from wizard_actors.providers.anthropic import AnthropicProvider
from wizard_actors.providers.base import Call, Provider
from wizard_actors.providers.http import make_http_client
from wizard_actors.providers.http_provider import HttpSettings
from wizard_actors.streaming import Assembly
from wizard_actors.testing.http_provider import HttpProviderContract, Reply
from wizard_actors.testing.provider import Act
from wizard_actors.types import FinishReason, Image, Message, Prompt, Role, TokenUsage

KEY = "sk-ant-canary-0123456789"
CALL = Call(Prompt("Why?"), "request-1")
SSE = {"content-type": "text/event-stream", "request-id": "req_up"}
JSON = {"content-type": "application/json"}

Upstream = Callable[[Wire], Awaitable[None]]


def events(*words: str, reason: str = "end_turn") -> list[bytes]:
    """Return the events of a stream that says the words, with a ping where they come."""
    return [
        event("message_start", message={"id": "msg_1", "model": "up-1", "usage": {"input_tokens": 3}}),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        event("ping"),
        *(event("content_block_delta", index=0, delta={"type": "text_delta", "text": word}) for word in words),
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": reason}, usage={"output_tokens": 2}),
        event("message_stop"),
    ]


def event(kind: str, **fields: object) -> bytes:
    """Return one event of a stream."""
    data = json.dumps({"type": kind, **fields}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()


def message(text: str) -> bytes:
    """Return a whole message."""
    content = [{"type": "text", "text": text}]
    whole = {"type": "message", "id": "msg_1", "model": "up-1", "content": content, "stop_reason": "end_turn"}
    return json.dumps({**whole, "usage": {"input_tokens": 3, "output_tokens": 2}}, ensure_ascii=False).encode()


def error(kind: str, text: str) -> bytes:
    """Return an error's body."""
    return json.dumps({"type": "error", "error": {"type": kind, "message": text}}).encode()


def answering(*responses: bytes, seen: list[WireRequest]) -> Upstream:
    """Return an upstream that answers its requests with these, in order."""
    left = list(responses)

    async def upstream(wire: Wire) -> None:
        while left and (request := await wire.request()) is not None:
            seen.append(request)
            await wire.send(left.pop(0))

    return upstream


SETTINGS = HttpSettings(
    name="primary", model="up-1", base_url="http://x.test", provider="anthropic", api_key=Secret(KEY)
)


@asynccontextmanager
async def provider(
    settings: HttpSettings, *responses: bytes, seen: list[WireRequest], path: str = ""
) -> AsyncIterator[AnthropicProvider]:
    """Yield a provider of an upstream that gives these responses, below `path`."""
    async with serving(answering(*responses, seen=seen)) as base_url, make_http_client() as http:
        base = base_url.removesuffix("/v1") + path
        yield AnthropicProvider(evolve(settings, base_url=base), http)


async def ask(model: Provider, *, into: Assembly | None = None) -> Assembly:
    """Return the answer, put together in `into` where what came before an error matters."""
    assembly = Assembly() if into is None else into
    async with model.open(CALL) as answer:
        while (read := await answer.read()) is not None:
            assembly.extend(read)
        assert answer.upstream_model == "up-1"
    return assembly


async def test_a_call_is_one_post_with_the_key_and_the_version() -> None:
    """To the endpoint below the base URL; the answer is read to its end."""
    seen: list[WireRequest] = []
    async with provider(SETTINGS, response(200, SSE, events("Why", " not?")), seen=seen) as model:
        assert model.streams
        answer = await ask(model)
    (request,) = seen
    assert (request.method, request.path) == ("POST", "/v1/messages")
    assert request.headers["x-api-key"] == KEY
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert request.headers["x-request-id"] == "request-1"
    assert "authorization" not in request.headers
    assert (request.json["model"], request.json["stream"], request.json["max_tokens"]) == ("up-1", True, 8192)
    assert (answer.text, answer.usage) == ("Why not?", TokenUsage(3, 2))
    assert answer.finished is not None
    assert answer.finished.reason is FinishReason.STOP


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/", "/v1/messages"),
        ("/v1", "/v1/messages"),
        ("/v1/", "/v1/messages"),
        ("/anthropic", "/anthropic/v1/messages"),
        ("/anthropic/v1?team=blue", "/anthropic/v1/messages?team=blue"),
    ],
)
async def test_a_base_url_may_name_the_version(path: str, asked: str) -> None:
    """As that of OpenAI's compatibles does."""
    seen: list[WireRequest] = []
    async with provider(SETTINGS, response(200, JSON, [message("Yes")]), seen=seen, path=path) as model:
        await ask(model)
    assert seen[0].path == asked


async def test_a_models_headers_overrule_ours() -> None:
    """The version among them."""
    seen: list[WireRequest] = []
    headers = {"Anthropic-Version": Secret("2030-01-01"), "anthropic-beta": Secret("new-things")}
    settings = evolve(SETTINGS, headers=headers, extra={"service_tier": "auto"})
    async with provider(settings, response(200, JSON, [message("Yes")]), seen=seen) as model:
        await ask(model)
    assert seen[0].headers["anthropic-version"] == "2030-01-01"
    assert seen[0].headers["anthropic-beta"] == "new-things"
    assert seen[0].json["service_tier"] == "auto"


async def test_without_a_key_none_is_sent() -> None:
    """A proxy may have it; the version is sent all the same."""
    seen: list[WireRequest] = []
    async with provider(evolve(SETTINGS, api_key=None), response(200, JSON, [message("Yes")]), seen=seen) as model:
        await ask(model)
    assert "x-api-key" not in seen[0].headers
    assert seen[0].headers["anthropic-version"] == "2023-06-01"


async def test_a_refused_stream_is_asked_for_as_a_whole() -> None:
    """At once, and from then on."""
    seen: list[WireRequest] = []
    refused = response(400, JSON, [error("invalid_request_error", "stream: Extra inputs are not permitted")])
    whole = response(200, JSON, [message("Yes")])
    async with provider(SETTINGS, refused, whole, whole, seen=seen) as model:
        assert (await ask(model)).text == "Yes"
        assert not model.streams
        await ask(model)
    assert ["stream" in request.json for request in seen] == [True, False, False]


async def test_an_error_inside_a_stream_is_raised_after_what_came_before() -> None:
    """With the status of its type."""
    seen: list[WireRequest] = []
    broken = [*events("Why")[:4], b"event: error\ndata: " + error("overloaded_error", "Overloaded") + b"\n\n"]
    assembly = Assembly()
    async with provider(SETTINGS, response(200, SSE, broken), seen=seen) as model:
        with pytest.raises(OverloadedError) as caught:
            await ask(model, into=assembly)
    assert assembly.text == "Why"
    assert (caught.value.status, caught.value.request_id) == (529, "req_up")


async def test_a_wrong_address_says_so() -> None:
    """By its path, which is the base URL's."""
    seen: list[WireRequest] = []
    not_found = response(404, JSON, [error("not_found_error", "Not found")])
    async with provider(SETTINGS, not_found, seen=seen) as model:
        with pytest.raises(RequestError, match="base_url"):
            await ask(model)


def test_a_configured_model_needs_no_address() -> None:
    """Anthropic's own is known."""
    config = ModelConfig(name="primary", provider="anthropic", model="claude-next")
    model = AnthropicProvider.from_config(config, httpx.AsyncClient())
    assert model.settings.base_url == "https://api.anthropic.com"
    assert str(model.wire.request(CALL).url) == "https://api.anthropic.com/v1/messages"


def test_an_address_that_is_none_is_refused() -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigError):
        AnthropicProvider(evolve(SETTINGS, base_url="anthropic.com"), httpx.AsyncClient())


# -- the contract ------------------------------------------------------------------------------------


def refused(status: int, kind: str, headers: Mapping[str, str] | None = None) -> Reply:
    """Return a refusal that repeats the key."""
    return Reply([error(kind, f"not with {KEY}")], status, {**JSON, **(headers or {})})


class TestAnthropic(HttpProviderContract):
    """The Messages API, streamed."""

    key: ClassVar[str] = KEY
    retry_after: ClassVar[float | None] = 7.0
    unsupported: ClassVar[Sequence[Prompt]] = (
        Prompt("?", seed=1),
        Prompt([Message(Role.SYSTEM, (Image(url="https://example.com/a.png"),)), Message(Role.USER, "?")]),
    )

    def provider(self, http: httpx.AsyncClient) -> Provider:
        return AnthropicProvider(evolve(SETTINGS, name="yours"), http)

    def reply(self, act: Act, text: str) -> Reply | None:
        headers = {"content-type": "text/event-stream", "request-id": f"r-{KEY}"}
        match act:
            case Act.ANSWERS:
                return Reply(events(*text.partition(" ")), headers=headers)
            case Act.GARBAGE:
                return Reply([*events("Why")[:4], f"data: {{{KEY}\n\n".encode()], headers=headers)
            case Act.REFUSES_KEY:
                return refused(401, "authentication_error")
            case Act.LIMITED:
                return refused(429, "rate_limit_error", {"retry-after": "7"})
            case _:
                return refused(500, "api_error")


class TestAnthropicUnary(TestAnthropic):
    """The Messages API, one JSON object."""

    def provider(self, http: httpx.AsyncClient) -> Provider:
        return AnthropicProvider(evolve(SETTINGS, name="yours", upstream="unary"), http)

    def reply(self, act: Act, text: str) -> Reply | None:
        if act is Act.ANSWERS:
            return Reply([message(text)], headers=JSON)
        if act is Act.GARBAGE:
            return Reply([b'{"type": "message", "content": [', KEY.encode()], headers=JSON)
        return super().reply(act, text)
