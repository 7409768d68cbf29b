"""Wizard Actors with every concern on: a limiter, a breaker and a bulkhead for each of two models, a fallback, retries
within a budget, and a cache. Each prompt is another, so that the cache is asked and never answers, but for `hit`.

Whole answers are asked for as such (`upstream = "unary"`), as every other contender does.
"""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING

from _harness import FLAKY, Bench, importing, main

with importing():
    import trio

    from wizard_actors import ResilientClient, WizardConfig
    from wizard_actors.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CONFIG = """
[defaults]
provider = "openai"
base_url = "{url}/v1"
max_concurrency = 64
rate_limit = {{ requests_per_minute = 60_000_000, tokens_per_minute = 60_000_000_000, burst = 10_000 }}
{more}

[[models]]
name = "primary"
model = "{model}"

[[models]]
name = "backup"
model = "mock-2"

[cache]
max_entries = 1_000

[logging]
level = "ERROR"
"""

NO_DELAYS = """
retry = { max_attempts = 2, base_delay = 0, max_delay = 0 }
circuit_breaker = { failure_threshold = 1_000_000 }
"""
"""Without a pause between attempts, and with a breaker that counts each failure and never opens."""

BUDGET = """
[retry_budget]
initial = 1_000_000
max = 1_000_000
"""


class Contender:
    """The suites, over one of our transports."""

    def __init__(self, transport: str) -> None:
        self._transport = transport
        self._numbers = itertools.count()

    def suites(self) -> dict[str, Callable[[Bench], None]]:
        """Return them by name."""
        return {"call": self.call, "crowd": self.crowd, "stream": self.stream, "hit": self.hit, "retry": self.retry}

    def call(self, bench: Bench) -> None:
        """One after another."""
        self._run(bench, self._call)

    def crowd(self, bench: Bench) -> None:
        """Many at once."""
        self._run(bench, self._crowd)

    def stream(self, bench: Bench) -> None:
        """A stream, read as text."""
        self._run(bench, self._stream)

    def hit(self, bench: Bench) -> None:
        """One prompt again and again, answered from the cache."""
        self._run(bench, self._hit)

    def retry(self, bench: Bench) -> None:
        """A call whose first attempt is refused."""
        self._run(bench, self._retry, model=FLAKY, more=NO_DELAYS, tables=BUDGET)

    # -- how -----------------------------------------------------------------------------------------

    def config(self, bench: Bench, *, model: str = "mock-1", more: str = "", tables: str = "") -> str:
        """Return a configuration; `more` is added to what holds for both models, `tables` at the end."""
        more = f'upstream = "unary"\ntransport = "{self._transport}"\n{more}'
        return CONFIG.format(url=bench.upstream, model=model, more=more) + tables

    def _run(self, bench: Bench, suite: Callable[..., Awaitable[None]], *, model: str = "mock-1", **more: str) -> None:
        async def run() -> None:
            try:
                config = WizardConfig.from_toml(self.config(bench, model=model, **more))
            except ConfigError as error:
                if any("transport" in problem.key for problem in error.problems):
                    sys.exit(f'not available: this version knows no transport = "{self._transport}"')
                raise
            async with ResilientClient.open(config) as client:
                await suite(bench, client)

        trio.run(run)

    def _prompt(self) -> str:
        return f"Go, for the time numbered {next(self._numbers)}."

    async def _text(self, client: ResilientClient) -> str:
        response = await client.generate(self._prompt())
        return response.text

    async def _call(self, bench: Bench, client: ResilientClient) -> None:
        bench.same(await self._text(client))
        await bench.sequential(lambda: self._text(client))

    async def _crowd(self, bench: Bench, client: ResilientClient) -> None:
        bench.same(await self._text(client))
        await bench.trio_crowd(lambda: self._text(client))

    async def _stream(self, bench: Bench, client: ResilientClient) -> None:
        async def one() -> str:
            async with client.stream(self._prompt()) as stream:
                return "".join([text async for text in stream.text()])

        bench.same(await one())
        await bench.sequential(one)

    async def _hit(self, bench: Bench, client: ResilientClient) -> None:
        bench.same((await client.generate("Go.")).text)
        bench.same((await client.generate("Go.")).cached, wanted=True)
        await bench.sequential(lambda: client.generate("Go."))

    async def _retry(self, bench: Bench, client: ResilientClient) -> None:
        bench.flaky_next(503)
        response = await client.generate(self._prompt())
        bench.same([attempt.model for attempt in response.attempts], ["primary", "primary"])
        await bench.sequential(lambda: self._text(client))
        bench.flaky_is(503)


if __name__ == "__main__":
    main(Contender("httpx").suites(), "wizard-actors", "httpx", "trio")
