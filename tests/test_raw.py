"""`raw=True`: a response with what came over the wire, beside what was made of it."""

import json

import pytest

from tests.loopback import Wire, response, serving
from tests.models import Scripted, client_of, says
from wizard_actors import ConfigError, Prompt, ResilientClient, WizardConfig

CHUNKS: list[dict[str, object]] = [
    {"model": "up-1", "choices": [{"delta": {"content": "Why"}, "logprobs": {"content": []}}]},
    {"model": "up-1", "choices": [{"delta": {"content": " not?"}, "finish_reason": "stop"}]},
]
WHOLE: dict[str, object] = {
    "model": "up-1",
    "choices": [{"message": {"content": "Why not?"}, "finish_reason": "stop", "logprobs": {"content": []}}],
}
STREAM = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in CHUNKS] + [b"data: [DONE]\n\n"]


def config(base_url: str, upstream: str) -> WizardConfig:
    """Return one model with a cache in front."""
    return WizardConfig.from_toml(
        f'[[models]]\nname="a"\nprovider="openai"\nbase_url="{base_url}"\nupstream="{upstream}"\n'
        "[cache]\nmax_entries=10\n",
        env={},
    )


async def streaming(wire: Wire) -> None:
    """Answer each request with a stream."""
    while await wire.request() is not None:
        await wire.send(response(200, {"content-type": "text/event-stream"}, STREAM))


async def unary(wire: Wire) -> None:
    """Answer each request as a whole."""
    while await wire.request() is not None:
        await wire.send(response(200, {"content-type": "application/json"}, [json.dumps(WHOLE).encode()]))


async def test_raw_is_what_came_over_the_wire() -> None:
    """Every event's object of a stream, the one object of a whole answer; nothing for who does not ask."""
    async with serving(streaming) as base_url, ResilientClient.open(config(base_url, "stream")) as client:
        asked = await client.generate("Why?", raw=True)
        assert (await client.generate("Why?")).raw == ()
    async with serving(unary) as base_url, ResilientClient.open(config(base_url, "unary")) as client:
        whole = await client.generate("Why?", raw=True)
    assert list(asked.raw) == CHUNKS
    assert asked.to_dict()["raw"] == CHUNKS
    assert whole.raw == (WHOLE,)
    assert asked.text == whole.text == "Why not?"


async def test_a_stream_delivers_no_raw_events_and_its_response_has_them() -> None:
    """They are for looking, not for reading along."""
    async with (
        serving(streaming) as base_url,
        ResilientClient.open(config(base_url, "stream")) as client,
        client.stream(Prompt("Why?"), raw=True) as stream,
    ):
        types = [event.type async for event in stream]
    assert types == ["text", "text", "end"]
    assert list(stream.response.raw) == CHUNKS


async def test_who_asks_for_raw_has_nothing_to_do_with_the_cache() -> None:
    """A cached answer has none, and what is cached is not to hold a body twice."""
    async with serving(streaming) as base_url, ResilientClient.open(config(base_url, "stream")) as client:
        first = await client.generate("Why?", raw=True)
        second = await client.generate("Why?")
        third = await client.generate("Why?", raw=True)
        assert client.cache is not None
        assert client.cache.entries == 1
    assert [each.cached for each in (first, second, third)] == [False, False, False]
    assert third.raw == first.raw


async def test_a_provider_without_a_wire_has_nothing_to_show() -> None:
    """The simulated model, and one of somebody's own."""
    async with client_of(Scripted(says("Hello"))) as client:
        assert (await client.generate("Why?", raw=True)).raw == ()


async def test_raw_is_yes_or_no() -> None:
    """Anything else is a mistake."""
    async with client_of(Scripted()) as client:
        with pytest.raises(ConfigError, match="raw"):
            await client.generate("Why?", raw="yes")  # type: ignore[arg-type]  # the mistake
