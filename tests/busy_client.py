"""A client to which everything has happened that metrics count, for the tests of what is made of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio
from attrs import evolve
from trio.testing import wait_all_tasks_blocked

from tests.models import NO_JITTER, SILENT, USAGE, Calls, Scripted, Step, client_of, fails, model, says
from wizard_actors import OverloadedError, ResilientClient, WizardError
from wizard_actors.config import (
    BreakerConfig,
    CacheConfig,
    PriceConfig,
    RateLimitConfig,
    RetryBudgetConfig,
    RetryConfig,
    RouteConfig,
    ServerConfig,
)
from wizard_actors.types import LimitHeaders, LimitWindow

__all__ = ["busy_client"]

BUSY = OverloadedError("busy", model="any")
ONCE = RetryConfig(max_attempts=1)
MODELS = (
    model("flaky", retry=NO_JITTER, price=PriceConfig(input=2, output=8), limit=RateLimitConfig(tokens_per_minute=6e4)),
    model("spare"),
    model("slow", retry=ONCE),
    model("quick", retry=ONCE),
    model("down", retry=ONCE, breaker=BreakerConfig(failure_threshold=2, open_for=5.0, success_threshold=1)),
    model("silent"),
)
ROUTES = (
    RouteConfig(name="hedged", chain=("slow", "quick"), strategy="hedged", hedge_delay=1.0),
    RouteConfig(name="static", chain=("down",), static_answer="Later."),
    RouteConfig(name="alone", chain=("down",)),
)


@asynccontextmanager
async def busy_client() -> AsyncIterator[ResilientClient]:
    """Open a client that has met everything, under a virtual clock; one more request is in flight."""
    priced: tuple[Step, ...] = ("yes", USAGE)
    providers = {
        "flaky": Scripted(fails(BUSY), says(*priced), says(*priced), fails(BUSY)),
        "spare": Scripted(evolve(says(*priced), limits=LimitHeaders(requests=LimitWindow(100, 99, 3600)))),
        "slow": Scripted(says(5.0, "late")),
        "quick": Scripted(says("won"), says(9.0, "lost")),
        "down": Scripted(fails(BUSY), fails(BUSY), says("up"), fails(BUSY)),
        "silent": Scripted(SILENT),
    }
    async with client_of(
        providers,
        *MODELS,
        route=RouteConfig(name="wizard", chain=("flaky", "spare")),
        routes=ROUTES,
        cache=CacheConfig(max_entries=100, ttl=60.0, stale_if_error=3600.0),
        server=ServerConfig(max_in_flight=2),
        budget=RetryBudgetConfig(initial=4, refill_per_second=0, refill_to=0, deposit=0, max=4),
    ) as client:
        with client.events.subscribe(bound=1):
            await _answered(client)
            await _failed(client)
            await _crowded(client)
        async with trio.open_nursery() as nursery:
            await _begun(client, nursery)
            yield client
            nursery.cancel_scope.cancel()


async def _answered(client: ResilientClient) -> None:
    """Be answered by a retry, the cache, a stream, a hedge, the first model beside a hedge, and a fallback."""
    for _ in range(2):
        await client.generate("Why?")
    async with client.stream("Streamed?", cache="bypass") as stream:
        assert [text async for text in stream.text()] == ["yes"]
    for question in ("Won?", "Lost?"):
        await client.generate(question, route="hedged")
    async with client.session("alice") as session:
        await session.send("Fallback?")


async def _failed(client: ResilientClient) -> None:
    """Fail until the circuit opens, closes and opens again; meet what stands in."""
    await client.generate("Static?", route="static")
    await _fails(client, "Failed?")
    await _fails(client, "Open?")
    await trio.sleep(60.0)
    await client.generate("Old?", route="alone")
    await trio.sleep(120.0)
    await client.generate("Old?", route="alone")
    async with client.session("bob", route="alone") as session:
        with suppress(WizardError):
            await session.send("Failed?")


async def _fails(client: ResilientClient, question: str) -> None:
    try:
        await client.generate(question, route="alone")
    except WizardError:
        return
    raise AssertionError(f"{question} was answered")


async def _crowded(client: ResilientClient) -> None:
    """Share a call, have it refused to a third, and be cancelled."""
    calls = Calls()
    async with trio.open_nursery() as nursery:
        await _begun(client, nursery)
        await _begun(client, nursery)
        await calls.generate(client, "Shed?")
        nursery.cancel_scope.cancel()
    assert [type(error).__name__ for error in calls.errors] == ["MailboxFullError"]


async def _begun(client: ResilientClient, nursery: trio.Nursery) -> None:
    calls = Calls()
    nursery.start_soon(lambda: calls.generate(client, "Silent?", model="silent"))
    await wait_all_tasks_blocked()
