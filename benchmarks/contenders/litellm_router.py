"""LiteLLM's Router: one model with a second to fall back to, retries, and its cache."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from _harness import FLAKY, Bench, importing, main

# Prices come with the package: otherwise the import would ask for newer ones, and wait.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

with importing():
    import litellm
    from litellm.router import Router
    from litellm.types.llms.openai import AllMessageValues

litellm.telemetry = False
litellm.suppress_debug_info = True  # it would print advice with each failure
MESSAGES: list[AllMessageValues] = [{"role": "user", "content": "Why actors?"}]


def router(bench: Bench, *, first: str = "first", cached: bool = False) -> Router:
    """Return a router of two groups, `first` of two deployments: to the other of these it retries without any delay."""

    def deployment(group: str, model: str) -> dict[str, object]:
        params = {"model": f"openai/{model}", "api_base": f"{bench.upstream}/v1", "api_key": "none", "max_retries": 0}
        return {"model_name": group, "litellm_params": params}

    return Router(
        model_list=[deployment("first", first), deployment("first", first), deployment("second", "second")],
        fallbacks=[{"first": ["second"]}],
        num_retries=1,
        retry_after=0,
        # What fails every second time would be left out for seconds, and there would be nothing to retry.
        disable_cooldowns=True,
        cache_responses=cached,
    )


async def asked(routing: Router) -> object:
    """Return the text of an answer."""
    return (await routing.acompletion(model="first", messages=MESSAGES)).choices[0].message.content


async def run(bench: Bench, time: Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]) -> None:
    """Time whole answers."""
    routing = router(bench)
    bench.same(await asked(routing))
    await time(lambda: asked(routing))


def call(bench: Bench) -> None:
    """One after another."""
    asyncio.run(run(bench, bench.sequential))


def crowd(bench: Bench) -> None:
    """Many at once."""
    asyncio.run(run(bench, bench.asyncio_crowd))


async def streaming(bench: Bench) -> None:
    """Time streams, read to their end."""
    routing = router(bench)

    async def one() -> list[str]:
        stream = await routing.acompletion(model="first", messages=MESSAGES, stream=True)
        return [chunk.choices[0].delta.content or "" async for chunk in stream]

    bench.same_stream(await one())
    await bench.sequential(one)


def stream(bench: Bench) -> None:
    """Streams."""
    asyncio.run(streaming(bench))


async def hitting(bench: Bench) -> None:
    """Time answers from the cache. Nothing is sent for them: what is asked otherwise is another number of requests."""
    routing = router(bench, first=FLAKY, cached=True)
    bench.flaky_next(200)
    bench.same(await asked(routing))
    await asyncio.sleep(0.5)  # an answer is kept by a task of its own, after the call
    bench.same(await asked(routing))
    bench.flaky_is(503)
    await bench.sequential(lambda: asked(routing))
    bench.flaky_is(200)


def hit(bench: Bench) -> None:
    """Answers from the cache."""
    asyncio.run(hitting(bench))


async def retrying(bench: Bench) -> None:
    """Time calls whose first attempt is refused."""
    routing = router(bench, first=FLAKY)
    bench.flaky_next(503)
    bench.same(await asked(routing))
    bench.flaky_is(503)
    bench.flaky_next(503)
    await bench.sequential(lambda: asked(routing))


def retry(bench: Bench) -> None:
    """Second attempts."""
    asyncio.run(retrying(bench))


if __name__ == "__main__":
    main({"call": call, "crowd": crowd, "stream": stream, "hit": hit, "retry": retry}, "litellm", "openai")
