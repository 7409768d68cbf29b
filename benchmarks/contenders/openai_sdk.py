"""The openai SDK, on asyncio as most use it. It retries, and that is all it does for a failing model."""

from __future__ import annotations

import asyncio

from _harness import FLAKY, Bench, importing, main

with importing():
    from openai import AsyncOpenAI, _base_client


def client_of(bench: Bench, retries: int = 2) -> AsyncOpenAI:
    """Return a client with its own settings, but for the address."""
    return AsyncOpenAI(base_url=f"{bench.upstream}/v1", api_key="k", max_retries=retries)


async def text_of(client: AsyncOpenAI, model: str = "mock-1") -> str | None:
    """Return the text of one answer."""
    answer = await client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Go."}])
    return answer.choices[0].message.content


def call(bench: Bench) -> None:
    """One after another."""

    async def run() -> None:
        async with client_of(bench) as client:
            bench.same(await text_of(client))
            await bench.sequential(lambda: text_of(client))

    asyncio.run(run())


def crowd(bench: Bench) -> None:
    """Many at once."""

    async def run() -> None:
        async with client_of(bench) as client:
            bench.same(await text_of(client))
            await bench.asyncio_crowd(lambda: text_of(client))

    asyncio.run(run())


def stream(bench: Bench) -> None:
    """A stream."""

    async def run() -> None:
        async with client_of(bench) as client:

            async def one() -> str:
                texts = []
                chunks = await client.chat.completions.create(
                    model="mock-1",
                    messages=[{"role": "user", "content": "Go."}],
                    stream=True,
                    stream_options={"include_usage": True},
                )
                async for chunk in chunks:
                    texts += [choice.delta.content for choice in chunk.choices]
                return "".join(text for text in texts if text)

            bench.same(await one())
            await bench.sequential(one)

    asyncio.run(run())


def retry(bench: Bench) -> None:
    """A call whose first attempt is refused. The SDK has no setting for its delay, so its constants are changed."""
    vars(_base_client).update(INITIAL_RETRY_DELAY=0.0, MAX_RETRY_DELAY=0.0)

    async def run() -> None:
        async with client_of(bench, retries=1) as client:
            bench.flaky_next(503)
            bench.same(await text_of(client, FLAKY))
            await bench.sequential(lambda: text_of(client, FLAKY))
            bench.flaky_is(503)

    asyncio.run(run())


if __name__ == "__main__":
    main({"call": call, "crowd": crowd, "stream": stream, "retry": retry}, "openai", "httpx")
