"""The OpenAI provider where `api = "responses"`: the contract of providers, its addresses, and what it learns."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import ClassVar

import httpx
import pytest
from attrs import evolve

from wizard_actors.config import Secret, Upstream
from wizard_actors.errors import RequestError
from wizard_actors.providers.base import Call, Provider
from wizard_actors.providers.http_provider import HttpSettings
from wizard_actors.providers.openai import OpenAIProvider
from wizard_actors.streaming import Assembly
from wizard_actors.testing.http_provider import Act, HttpProviderContract, Reply
from wizard_actors.types import Image, Message, Prompt, Role, Signature, Thought

KEY = "sk-a-key-that-nobody-sees"
SSE = {"content-type": "text/event-stream", "x-request-id": f"r-{KEY}"}
JSON = {"content-type": "application/json"}


def made(http: httpx.AsyncClient, upstream: Upstream = "auto", settings: HttpSettings | None = None) -> OpenAIProvider:
    """Return a provider that speaks this protocol."""
    return OpenAIProvider(evolve(settings or at("http://up.test/v1"), upstream=upstream), http)


def at(base_url: str, provider: str = "openai", api_version: str | None = None) -> HttpSettings:
    """Return the settings of a model at an address."""
    return HttpSettings(
        name="yours",
        model="o4-mini",
        base_url=base_url,
        provider=provider,
        api="responses",
        api_key=Secret(KEY),
        api_version=api_version,
    )


def event(kind: str, **fields: object) -> bytes:
    """Return one event of a stream."""
    body = json.dumps({"type": f"response.{kind}", **fields}, ensure_ascii=False)
    return f"event: response.{kind}\ndata: {body}\n\n".encode()


def message(text: str) -> dict[str, object]:
    """Return a complete message."""
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def refused(status: int, code: str, **headers: str) -> Reply:
    """Return a refusal that repeats the key."""
    body = json.dumps({"error": {"message": f"not with {KEY}", "code": code}}).encode()
    return Reply([body], status, {**JSON, **headers})


class TestResponses(HttpProviderContract):
    """The Responses API, streamed."""

    key: ClassVar[str] = KEY
    retry_after: ClassVar[float | None] = 7.0
    unsupported: ClassVar[Sequence[Prompt]] = (
        Prompt("x", stop=["a"]),
        Prompt("x", seed=1),
        Prompt([Message(Role.SYSTEM, (Image(url="https://example.com/a.png"),)), Message(Role.USER, "?")]),
    )

    def provider(self, http: httpx.AsyncClient) -> Provider:
        """Return one that streams."""
        return made(http)

    def reply(self, act: Act, text: str) -> Reply | None:
        """Return upstream's events."""
        words = [
            event("output_text.delta", output_index=0, content_index=0, delta=word) for word in text.partition(" ")
        ]
        match act:
            case Act.ANSWERS:
                whole = event("output_item.done", output_index=0, item=message(text))
                end = event("completed", response={"status": "completed", "output": [message(text)]})
                return Reply([event("created", response={"id": "resp_1"}), *words, whole, end], headers=SSE)
            case Act.GARBAGE:
                return Reply([words[0], f"data: {{{KEY}\n\n".encode()], headers=SSE)
            case Act.REFUSES_KEY:
                return refused(401, "invalid_api_key")
            case Act.LIMITED:
                return refused(429, "rate_limit_exceeded", **{"retry-after": "7"})
            case _:
                return refused(500, "server_error")


class TestResponsesUnary(TestResponses):
    """The Responses API, one JSON object."""

    def provider(self, http: httpx.AsyncClient) -> Provider:
        """Return one that does not stream."""
        return made(http, "unary")

    def reply(self, act: Act, text: str) -> Reply | None:
        """Return upstream's object."""
        if act is Act.ANSWERS:
            body = {"object": "response", "status": "completed", "output": [message(text)]}
            return Reply([json.dumps(body, ensure_ascii=False).encode()], headers=JSON)
        if act is Act.GARBAGE:
            return Reply([b'{"output": [', KEY.encode()], headers=JSON)
        return super().reply(act, text)


# -- addresses and refusals --------------------------------------------------------------------------

WHOLE = {"id": "resp_1", "object": "response", "status": "completed", "output": [message("Why not?")]}
SEALED = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": "Hm."}],
    "encrypted_content": "sealed",
}


class Upstreamed:
    """An upstream that refuses fields, and answers the rest; `seen` are the requests that it got."""

    def __init__(self, *refused: str, answer: object = WHOLE) -> None:
        self.refused = refused
        self.answer = answer
        self.seen: list[httpx.Request] = []

    @property
    def bodies(self) -> list[dict[str, object]]:
        """The bodies of the requests."""
        return [json.loads(request.content) for request in self.seen]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        self.seen.append(request)
        body = json.loads(request.content)
        for field in self.refused:
            if field in body:
                error = {"message": f"Unsupported: {field} is not supported with this model.", "param": field}
                return httpx.Response(400, json={"error": error})
        return httpx.Response(200, json=self.answer)


@asynccontextmanager
async def asking(
    upstream: Upstreamed, mode: Upstream = "auto", settings: HttpSettings | None = None
) -> AsyncIterator[OpenAIProvider]:
    """Yield a provider of an upstream."""
    async with httpx.AsyncClient(transport=httpx.MockTransport(upstream), trust_env=False) as http:
        yield made(http, mode, settings)


async def ask(model: Provider, prompt: Prompt) -> Assembly:
    """Return the whole answer."""
    assembly = Assembly()
    async with model.open(Call(prompt, "1")) as answer:
        while (events := await answer.read()) is not None:
            assembly.extend(events)
    return assembly


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        (at("http://up.test/v1"), "http://up.test/v1/responses"),
        (at("https://up.test/v1/?team=a"), "https://up.test/v1/responses?team=a"),
        (at("https://r.test", "azure"), "https://r.test/openai/v1/responses"),
        (at("https://r.test/openai/v1", "azure", "preview"), "https://r.test/openai/v1/responses?api-version=preview"),
        (at("https://r.test", "azure", "preview"), "https://r.test/openai/v1/responses?api-version=preview"),
        (at("https://r.test", "azure", "2025-04-01"), "https://r.test/openai/responses?api-version=2025-04-01"),
        (at("https://r.test/openai", "azure", "2025-04-01"), "https://r.test/openai/responses?api-version=2025-04-01"),
    ],
)
async def test_requests_go_to_the_address_of_the_protocol(settings: HttpSettings, url: str) -> None:
    """Below the base URL; an Azure resource has one for all its deployments."""
    upstream = Upstreamed()
    async with asking(upstream, settings=settings) as model:
        assert (await ask(model, Prompt("Why?"))).text == "Why not?"
    assert str(upstream.seen[0].url) == url


async def test_a_refusal_teaches_what_to_leave_out() -> None:
    """Once: what helped is remembered."""
    upstream = Upstreamed("include", "stream")
    async with asking(upstream) as model:
        for _ in range(2):
            assert (await ask(model, Prompt("Why?"))).text == "Why not?"
        assert not model.streams
    optional = [{"include", "stream"} & body.keys() for body in upstream.bodies]
    assert optional == [{"include", "stream"}, {"stream"}, set(), set()]
    assert all(body["store"] is False for body in upstream.bodies)


async def test_reasoning_that_another_has_sealed_costs_one_request() -> None:
    """And no attempt. Nothing is learned of it: what the provider has sealed itself goes back ever after."""

    def verifying(request: httpx.Request) -> httpx.Response:
        if "of another" not in request.content.decode():
            return upstream(request)
        upstream.seen.append(request)
        message = "The encrypted content of another could not be verified."
        return httpx.Response(400, json={"error": {"message": message, "code": "invalid_encrypted_content"}})

    upstream = Upstreamed()
    async with httpx.AsyncClient(transport=httpx.MockTransport(verifying), trust_env=False) as http:
        model = made(http)
        for sealed in ("of another", "its own"):
            said = Message("assistant", "Yes", thoughts=[Thought("Hm.", Signature("responses", sealed))])
            answer = await ask(model, Prompt([Message("user", "Why?"), said, Message("user", "Really?")]))
            assert answer.text == "Why not?"
    inputs = [body["input"] for body in upstream.bodies]
    assert [isinstance(sent, list) and [item.get("encrypted_content") for item in sent] for sent in inputs] == [
        [None, "of another", None, None],
        [None, None, None],
        [None, "its own", None, None],
    ]


async def test_a_stream_that_is_insisted_on_is_not_given_up() -> None:
    """The refusal is the answer then."""
    async with asking(Upstreamed("stream"), "stream") as model:
        with pytest.raises(RequestError):
            await ask(model, Prompt("Why?"))


async def test_reasoning_is_carried_on() -> None:
    """What an answer has proved goes back with it, in its place, and nothing needs to be kept upstream."""
    upstream = Upstreamed(answer={**WHOLE, "output": [SEALED, message("Why not?")]})
    async with asking(upstream) as model:
        first = await ask(model, Prompt("Why?"))
        said = Message(Role.ASSISTANT, first.text, tool_calls=first.tool_calls, thoughts=first.thoughts)
        await ask(model, Prompt([Message("user", "Why?"), said, Message("user", "Really?")]))
    assert [type(each) for each in first.thoughts] == [Thought]
    assert upstream.bodies[1]["input"] == [
        {"role": "user", "content": "Why?"},
        SEALED,
        {"role": "assistant", "content": "Why not?"},
        {"role": "user", "content": "Really?"},
    ]
