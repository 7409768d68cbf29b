"""Bare httpx on Trio: what every other contender's times are divided by. No retry, no fallback, nothing else."""

from __future__ import annotations

import json

from _harness import FLAKY, Bench, importing, main

with importing():
    import httpx
    import trio

LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=None)


def body(model: str = "mock-1", *, stream: bool = False) -> dict[str, object]:
    """Return what is sent."""
    asked: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": "Go."}]}
    return asked | {"stream": True, "stream_options": {"include_usage": True}} if stream else asked


def client_of(bench: Bench) -> httpx.AsyncClient:
    """Return a client without limits or proxies."""
    return httpx.AsyncClient(base_url=bench.upstream, limits=LIMITS, trust_env=False, timeout=30)


async def text_of(client: httpx.AsyncClient, model: str = "mock-1") -> str:
    """Return the text of one answer."""
    response = await client.post("/v1/chat/completions", json=body(model))
    response.raise_for_status()
    return str(response.json()["choices"][0]["message"]["content"])


def call(bench: Bench) -> None:
    """One after another."""

    async def run() -> None:
        async with client_of(bench) as client:
            bench.same(await text_of(client))
            await bench.sequential(lambda: text_of(client))

    trio.run(run)


def crowd(bench: Bench) -> None:
    """Many at once."""

    async def run() -> None:
        async with client_of(bench) as client:
            bench.same(await text_of(client))
            await bench.trio_crowd(lambda: text_of(client))

    trio.run(run)


def stream(bench: Bench) -> None:
    """A stream, each event of it parsed."""

    async def run() -> None:
        async with client_of(bench) as client:

            async def one() -> str:
                parts = []
                async with client.stream("POST", "/v1/chat/completions", json=body(stream=True)) as response:
                    async for line in response.aiter_lines():
                        if line.startswith("data: {"):
                            parts += [choice["delta"].get("content") for choice in json.loads(line[6:])["choices"]]
                return "".join(part for part in parts if part)

            bench.same(await one())
            await bench.sequential(one)

    trio.run(run)


def retry(bench: Bench) -> None:
    """A call that is sent again at once where it is refused, by the shortest loop there is."""

    async def run() -> None:
        async with client_of(bench) as client:

            async def one() -> str:
                while True:
                    try:
                        return await text_of(client, FLAKY)
                    except httpx.HTTPStatusError:
                        await trio.lowlevel.checkpoint()

            bench.same(await one())
            bench.flaky_next(503)
            await bench.sequential(one)
            bench.flaky_is(503)

    trio.run(run)


if __name__ == "__main__":
    main({"call": call, "crowd": crowd, "stream": stream, "retry": retry}, "httpx", "httpcore", "trio")
