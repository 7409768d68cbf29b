"""LangChain: a ChatOpenAI with a second one to fall back to, and its cache in memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from _harness import FLAKY, Bench, importing, main

os.environ["LANGSMITH_TRACING"] = "false"  # no traces are sent, whatever the machine's settings

with importing():
    from langchain_core.caches import BaseCache, InMemoryCache
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.messages import AIMessage
    from langchain_core.runnables import Runnable
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

QUESTION = "Why actors?"


def model(bench: Bench, name: str, *, cache: BaseCache | None = None) -> ChatOpenAI:
    """Return one model, without the SDK's retries, as is meant before a fallback: they would wait half a second."""
    address = f"{bench.upstream}/v1"
    return ChatOpenAI(model=name, base_url=address, api_key=SecretStr("none"), max_retries=0, cache=cache)


async def asked(chain: Runnable[LanguageModelInput, AIMessage]) -> str:
    """Return the text of an answer."""
    return (await chain.ainvoke(QUESTION)).text


async def run(bench: Bench, time: Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]) -> None:
    """Time whole answers."""
    chain = model(bench, "first").with_fallbacks([model(bench, "second")])
    bench.same(await asked(chain))
    await time(lambda: asked(chain))


def call(bench: Bench) -> None:
    """One after another."""
    asyncio.run(run(bench, bench.sequential))


def crowd(bench: Bench) -> None:
    """Many at once."""
    asyncio.run(run(bench, bench.asyncio_crowd))


async def streaming(bench: Bench) -> None:
    """Time streams, read to their end."""
    chain = model(bench, "first").with_fallbacks([model(bench, "second")])

    async def one() -> list[str]:
        return [chunk.text async for chunk in chain.astream(QUESTION)]

    bench.same_stream(await one())
    await bench.sequential(one)


def stream(bench: Bench) -> None:
    """Streams."""
    asyncio.run(streaming(bench))


async def hitting(bench: Bench) -> None:
    """Time answers from the cache. Nothing is sent for them: every second one would be a 503."""
    cached = model(bench, FLAKY, cache=InMemoryCache())
    bench.flaky_next(200)
    bench.same(await asked(cached))
    await bench.sequential(lambda: asked(cached))
    bench.flaky_is(503)


def hit(bench: Bench) -> None:
    """Answers from the cache."""
    asyncio.run(hitting(bench))


async def retrying(bench: Bench) -> None:
    """Time calls whose first attempt is refused. Without jitter `with_retry` waits for nothing."""
    again = model(bench, FLAKY).with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    bench.flaky_next(503)
    bench.same(await asked(again))
    bench.flaky_is(503)
    bench.flaky_next(503)
    await bench.sequential(lambda: asked(again))


def retry(bench: Bench) -> None:
    """Second attempts."""
    asyncio.run(retrying(bench))


if __name__ == "__main__":
    suites = {"call": call, "crowd": crowd, "stream": stream, "hit": hit, "retry": retry}
    main(suites, "langchain-core", "langchain-openai", "openai")
