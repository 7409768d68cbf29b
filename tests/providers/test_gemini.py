"""The Gemini provider: the contract of providers, what goes over a socket, and what comes back through one."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import ClassVar

import httpx
import pytest
from attrs import evolve

from tests.loopback import Wire, WireRequest, response, serving
from wizard_actors.config import ModelConfig, Secret
from wizard_actors.errors import AuthError, ConfigError, OverloadedError, RateLimitError, StreamInterruptedError
from wizard_actors.providers.base import Call, Provider
from wizard_actors.providers.gemini import GeminiProvider
from wizard_actors.providers.http import make_http_client
from wizard_actors.providers.http_provider import HttpSettings
from wizard_actors.streaming import Assembly
from wizard_actors.testing.http_provider import HttpProviderContract, Reply
from wizard_actors.testing.provider import Act
from wizard_actors.types import Finished, FinishReason, Image, Message, Prompt, Raw, Role, TokenUsage, Tool

KEY = "canary-0123456789"
CALL = Call(Prompt("Why?"), "request-1")
SSE = {"content-type": "text/event-stream"}
JSON = {"content-type": "application/json; charset=UTF-8"}
SETTINGS = HttpSettings(
    name="primary", model="gemini-2.5-flash", base_url="http://up.test", provider="gemini", api_key=Secret(KEY)
)

Upstream = Callable[[Wire], Awaitable[None]]


def chunk(text: str, finish: str | None = None) -> dict[str, object]:
    """Return a chunk of text."""
    candidate: dict[str, object] = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 2}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "up-1", "responseId": "r-1"}


def utf8(value: object) -> bytes:
    """Return JSON as upstreams send it."""
    return json.dumps(value, ensure_ascii=False).encode()


def sse(*chunks: object) -> list[bytes]:
    """Return server-sent events, one piece each, as Google ends their lines."""
    return [b"data: " + (each if isinstance(each, bytes) else utf8(each)) + b"\r\n\r\n" for each in chunks]


def google(code: int, status: str, message: str, **fields: object) -> bytes:
    """Return the body of an error as Google writes it."""
    return json.dumps({"error": {"code": code, "message": message, "status": status, **fields}}, indent=2).encode()


ANSWER = sse(chunk("Why"), chunk(" not?"), chunk("", "STOP"))


# -- the contract ------------------------------------------------------------------------------------


def refused(status: int, name: str, headers: Mapping[str, str] | None = None) -> Reply:
    """Return a refusal that repeats the key."""
    return Reply([google(status, name, f"not with {KEY}")], status, {**JSON, **(headers or {})})


class TestGemini(HttpProviderContract):
    """Streamed."""

    key: ClassVar[str] = KEY
    retry_after: ClassVar[float | None] = 7.0
    unsupported: ClassVar[Sequence[Prompt]] = (
        Prompt([Message(Role.SYSTEM, (Image(url="https://example.com/a.png"),)), Message(Role.USER, "?")]),
        Prompt([Message(Role.TOOL, "21 C", tool_call_id="nobody")], extra={"previous_response_id": "resp_1"}),
    )

    def provider(self, http: httpx.AsyncClient) -> Provider:
        return GeminiProvider(evolve(SETTINGS, name="yours"), http)

    def reply(self, act: Act, text: str) -> Reply | None:
        match act:
            case Act.ANSWERS:
                first, space, rest = text.partition(" ")
                return Reply(sse(chunk(first), chunk(space), chunk(rest), chunk("", "STOP")), headers=SSE)
            case Act.GARBAGE:
                return Reply(sse(chunk("Well"), f"{{{KEY}".encode()), headers=SSE)
            case Act.REFUSES_KEY:
                info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
                body = google(400, "INVALID_ARGUMENT", f"API key not valid: {KEY}", details=[info])
                return Reply([body], 400, JSON)
            case Act.LIMITED:
                return refused(429, "RESOURCE_EXHAUSTED", {"retry-after": "7"})
            case _:
                return refused(500, "INTERNAL")


class TestGeminiUnary(TestGemini):
    """One JSON object."""

    def provider(self, http: httpx.AsyncClient) -> Provider:
        return GeminiProvider(evolve(SETTINGS, name="yours", upstream="unary"), http)

    def reply(self, act: Act, text: str) -> Reply | None:
        if act is Act.ANSWERS:
            return Reply([utf8(chunk(text, "STOP"))], headers=JSON)
        if act is Act.GARBAGE:
            return Reply([b'{"candidates": [', KEY.encode()], headers=JSON)
        return super().reply(act, text)


class TestGeminiList(TestGemini):
    """A list of chunks, from a server that takes no notice of `alt=sse`."""

    def reply(self, act: Act, text: str) -> Reply | None:
        if act is Act.ANSWERS:
            first, space, rest = text.partition(" ")
            chunks = chunk(first), chunk(space), chunk(rest, "STOP")
            return Reply([b"[", b"\n,\r\n".join(map(utf8, chunks)), b"]"], headers=JSON)
        return super().reply(act, text)


# -- over sockets ------------------------------------------------------------------------------------


def answering(*responses: bytes, seen: list[WireRequest] | None = None) -> Upstream:
    """Return an upstream that answers its requests with these, in order."""
    left = list(responses)

    async def upstream(wire: Wire) -> None:
        while left and (request := await wire.request()) is not None:
            if seen is not None:
                seen.append(request)
            await wire.send(left.pop(0))

    return upstream


@asynccontextmanager
async def provider(handler: Upstream, /, **settings: object) -> AsyncIterator[GeminiProvider]:
    """Yield a provider of an upstream."""
    async with serving(handler) as base_url, make_http_client() as http:
        own = evolve(SETTINGS, base_url=base_url.removesuffix("/v1"), **settings)  # type: ignore[arg-type]  # its own
        yield GeminiProvider(own, http, wall_clock=lambda: 1.7e9, rng=Random(1))


async def ask(model: Provider, call: Call = CALL) -> Assembly:
    """Return the whole answer."""
    assembly = Assembly()
    async with model.open(call) as answer:
        while (events := await answer.read()) is not None:
            assembly.extend(events)
    return assembly


async def test_a_call_is_one_post_with_the_key_in_its_header() -> None:
    """The key stands in no address, for those are logged."""
    seen: list[WireRequest] = []
    upstream = answering(response(200, SSE, ANSWER), seen=seen)
    async with provider(upstream, headers={"X-Team": Secret("blue")}, extra={"store": False}) as model:
        answer = await ask(model)
    (request,) = seen
    assert request.method == "POST"
    assert request.path == "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
    assert (request.headers["x-goog-api-key"], request.headers["x-team"]) == (KEY, "blue")
    assert request.headers["x-request-id"] == "request-1"
    assert request.json == {"contents": [{"role": "user", "parts": [{"text": "Why?"}]}], "store": False}
    assert (answer.text, answer.usage) == ("Why not?", TokenUsage(3, 2))
    assert answer.finished == Finished(FinishReason.STOP, "STOP")


async def test_unary_asks_at_the_other_address() -> None:
    """And says that it does not stream."""
    seen: list[WireRequest] = []
    upstream = answering(response(200, JSON, [utf8(chunk("Why not?", "STOP"))]), seen=seen)
    async with provider(upstream, upstream="unary") as model, model.open(CALL) as answer:
        assert not model.streams
        assembly = Assembly()
        while (events := await answer.read()) is not None:
            assembly.extend(events)
        assert (answer.upstream_model, answer.upstream_id) == ("up-1", "r-1")
    assert assembly.text == "Why not?"
    assert seen[0].path == "/v1beta/models/gemini-2.5-flash:generateContent"


async def test_what_came_over_the_wire_can_be_had() -> None:
    """Each chunk, as it is, before the events in it."""
    async with provider(answering(response(200, SSE, ANSWER))) as model:
        assembly = await ask(model, Call(CALL.prompt, "1", raw=True))
    assert assembly.raw == (chunk("Why"), chunk(" not?"), chunk("", "STOP"))
    assert Raw(assembly.raw[0]).body == chunk("Why")


async def test_a_conversation_goes_on_with_what_its_answers_were() -> None:
    """A call without an id goes back without one, a signature as it came."""
    first = {
        "functionCall": {"name": "get_weather", "args": {"city": "Paris"}},
        "thoughtSignature": "c2lnbmVk",
    }
    chunks = {"candidates": [{"content": {"role": "model", "parts": [first]}, "finishReason": "STOP"}]}
    seen: list[WireRequest] = []
    weather, question = Tool("get_weather"), Message("user", "Weather?")
    async with provider(answering(response(200, SSE, sse(chunks)), response(200, SSE, ANSWER), seen=seen)) as model:
        asked = await ask(model, Call(Prompt(question, tools=[weather]), "1"))
        (call,) = asked.tool_calls
        said = Message("assistant", asked.text, tool_calls=asked.tool_calls, thoughts=asked.thoughts)
        result = Message("tool", "21 C", tool_call_id=call.id)
        await ask(model, Call(Prompt([question, said, result], tools=[weather]), "2"))
    assert asked.finished == Finished(FinishReason.TOOL_CALLS, "STOP")
    assert seen[1].json["contents"] == [
        {"role": "user", "parts": [{"text": "Weather?"}]},
        {"role": "model", "parts": [first]},
        {
            "role": "user",
            "parts": [{"functionResponse": {"name": "get_weather", "response": {"result": "21 C"}}}],
        },
    ]


async def test_a_limit_is_left_alone_for_as_long_as_its_body_says() -> None:
    """There is no header for it; nothing shows the key."""
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "48s"}]
    body = google(429, "RESOURCE_EXHAUSTED", f"Quota exceeded for {KEY}", details=details)
    async with provider(answering(response(429, JSON, [body]))) as model:
        with pytest.raises(RateLimitError) as caught:
            await ask(model)
    assert caught.value.retry_after == 48.0
    assert KEY not in f"{caught.value!r} {caught.value} {model!r}"


async def test_an_error_in_place_of_a_stream_is_read() -> None:
    """Plain JSON, though its content type says events."""
    async with provider(answering(response(200, SSE, [google(503, "UNAVAILABLE", "overloaded")]))) as model:
        with pytest.raises(OverloadedError):
            await ask(model)


async def test_a_stream_that_breaks_off_is_interrupted() -> None:
    """What had arrived is kept by whoever read it."""
    async with provider(answering(response(200, SSE, ANSWER[:2], cut=True))) as model:
        with pytest.raises(StreamInterruptedError):
            await ask(model)


async def test_the_configuration_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Address and key are known; what a model says of its own comes first."""
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    seen: list[httpx.Request] = []

    def upstream(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(400, content=google(400, "INVALID_ARGUMENT", "API key not valid."))

    configured = ModelConfig(name="primary", provider="gemini", model="m", api_key_env="GEMINI_API_KEY", max_tokens=5)
    async with httpx.AsyncClient(transport=httpx.MockTransport(upstream)) as http:
        model = GeminiProvider.from_config(configured, http)
        with pytest.raises(AuthError):
            await ask(model)
        with pytest.raises(ConfigError):
            GeminiProvider.from_config(evolve(configured, base_url="nowhere"), http)
    assert str(seen[0].url).startswith("https://generativelanguage.googleapis.com/v1beta/models/m:")
    assert seen[0].headers["x-goog-api-key"] == KEY
    assert json.loads(seen[0].content)["generationConfig"] == {"maxOutputTokens": 5}
