"""LiteLLM: `acompletion` of one model, its cache in memory, and its fallback."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable

from _harness import FLAKY, Bench, importing, main

# Prices come with the package: otherwise the import would ask for newer ones, and wait.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

with importing():
    import litellm
    from litellm.caching.caching import Cache
    from litellm.types.caching import LiteLLMCacheType

litellm.telemetry = False
litellm.suppress_debug_info = True  # it would print advice with each failure
MESSAGES = [{"role": "user", "content": "Why actors?"}]


def settings(bench: Bench, model: str) -> dict[str, object]:
    """Return what every call is given. The SDK's own retries are off: they would wait half a second."""
    return {
        "model": f"openai/{model}",
        "messages": MESSAGES,
        "api_base": f"{bench.upstream}/v1",
        "api_key": "none",
        "max_retries": 0,
    }


async def run(bench: Bench, time: Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]) -> None:
    """Time whole answers."""

    async def one() -> object:
        return (await litellm.acompletion(**settings(bench, "first"))).choices[0].message.content

    bench.same(await one())
    await time(one)


def call(bench: Bench) -> None:
    """One after another."""
    asyncio.run(run(bench, bench.sequential))


def crowd(bench: Bench) -> None:
    """Many at once."""
    asyncio.run(run(bench, bench.asyncio_crowd))


async def streaming(bench: Bench) -> None:
    """Time streams, read to their end."""

    async def one() -> list[str]:
        stream = await litellm.acompletion(**settings(bench, "first"), stream=True)
        return [chunk.choices[0].delta.content or "" async for chunk in stream]

    bench.same_stream(await one())
    await bench.sequential(one)


def stream(bench: Bench) -> None:
    """Streams."""
    asyncio.run(streaming(bench))


async def hitting(bench: Bench) -> None:
    """Time answers from the cache. Nothing is sent for them: every second one would be a 503."""
    litellm.cache = Cache(type=LiteLLMCacheType.LOCAL)

    async def one() -> object:
        return (await litellm.acompletion(**settings(bench, FLAKY), caching=True)).choices[0].message.content

    bench.flaky_next(200)
    bench.same(await one())
    await asyncio.sleep(0.5)  # an answer is kept by a task of its own, after the call
    await bench.sequential(one)
    bench.flaky_is(503)


def hit(bench: Bench) -> None:
    """Answers from the cache."""
    asyncio.run(hitting(bench))


async def retrying(bench: Bench) -> None:
    """Time calls whose first attempt is refused. The second is the fallback's, at once: `num_retries` is the SDK's,
    which waits. Nothing is logged of a failure, where LiteLLM would log its traceback.
    """
    logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)

    async def one() -> object:
        answer = await litellm.acompletion(**settings(bench, FLAKY), fallbacks=[f"openai/{FLAKY}"])
        return answer.choices[0].message.content

    bench.flaky_next(503)
    bench.same(await one())
    bench.flaky_is(503)
    bench.flaky_next(503)
    await bench.sequential(one)


def retry(bench: Bench) -> None:
    """Second attempts."""
    asyncio.run(retrying(bench))


if __name__ == "__main__":
    main({"call": call, "crowd": crowd, "stream": stream, "hit": hit, "retry": retry}, "litellm", "openai")
