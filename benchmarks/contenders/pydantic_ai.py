"""Pydantic AI: a FallbackModel over two models that speak as OpenAI does, asked through its direct API, which costs
less than an agent and is as much as a client without tools needs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from _harness import FLAKY, Bench, importing, main

with importing():
    from openai import AsyncOpenAI
    from pydantic_ai.direct import model_request, model_request_stream
    from pydantic_ai.messages import ModelRequest, PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta
    from pydantic_ai.models.fallback import FallbackModel
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

MESSAGES = [ModelRequest.user_text_prompt("Why actors?")]


def opened(bench: Bench, *models: str) -> FallbackModel:
    """Return a model that falls back from one to the next, at once: the SDK would first wait half a second for each."""
    client = AsyncOpenAI(base_url=f"{bench.upstream}/v1", api_key="none", max_retries=0)
    provider = OpenAIProvider(openai_client=client)
    return FallbackModel(*[OpenAIChatModel(model, provider=provider) for model in models])


async def asked(model: FallbackModel) -> str:
    """Return the text of an answer."""
    answer = await model_request(model, MESSAGES)
    return "".join(part.content for part in answer.parts if isinstance(part, TextPart))


async def run(bench: Bench, time: Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]) -> None:
    """Time whole answers."""
    model = opened(bench, "first", "second")
    bench.same(await asked(model))
    await time(lambda: asked(model))


def call(bench: Bench) -> None:
    """One after another."""
    asyncio.run(run(bench, bench.sequential))


def crowd(bench: Bench) -> None:
    """Many at once."""
    asyncio.run(run(bench, bench.asyncio_crowd))


async def streaming(bench: Bench) -> None:
    """Time streams, read to their end."""
    model = opened(bench, "first", "second")

    async def one() -> list[str]:
        texts = []
        async with model_request_stream(model, MESSAGES) as stream:
            async for event in stream:
                if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                    texts.append(event.part.content)
                elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                    texts.append(event.delta.content_delta)
        return texts

    bench.same_stream(await one())
    await bench.sequential(one)


def stream(bench: Bench) -> None:
    """Streams."""
    asyncio.run(streaming(bench))


async def retrying(bench: Bench) -> None:
    """Time calls whose first attempt is refused. The second is the other model's: it comes without any delay."""
    model = opened(bench, FLAKY, FLAKY)
    bench.flaky_next(503)
    bench.same(await asked(model))
    bench.flaky_is(503)
    bench.flaky_next(503)
    await bench.sequential(lambda: asked(model))


def retry(bench: Bench) -> None:
    """Second attempts."""
    asyncio.run(retrying(bench))


if __name__ == "__main__":
    main({"call": call, "crowd": crowd, "stream": stream, "retry": retry}, "pydantic-ai-slim", "openai")
