"""Clients that keys may use, as a server has them, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.conversations import Shelf
from tests.models import USAGE, Scripted, model, says
from wizard_actors import WizardConfig
from wizard_actors.config import CacheConfig, RouteConfig, SessionsConfig, StreamConfig
from wizard_actors.errors import (
    RateLimitError,
)
from wizard_actors.gcra import LimiterState
from wizard_actors.providers.base import Provider
from wizard_actors.request import Delivery
from wizard_actors.response_stream import Source
from wizard_actors.server.access import Access
from wizard_actors.server.callers import CallersClient
from wizard_actors.server.key_settings import KeyConfig, KeyLimitConfig, KeysConfig, TokenBudgetConfig
from wizard_actors.server.keys_file import hash_of
from wizard_actors.server.limits import Limits
from wizard_actors.session_turn import Turn
from wizard_actors.trio_client import TrioClient
from wizard_actors.types import Prompt, StreamEvent

__all__ = [
    "ASKED",
    "RESERVED",
    "Served",
    "budget",
    "end_of",
    "key",
    "per_minute",
    "read",
    "refused",
    "served",
    "spent",
    "taken",
]

ASKED = Prompt("Why?", max_tokens=100)
RESERVED = 109
"""Tokens that `ASKED` is taken for: 9 of the prompt, and those of the answer at most."""


def key(name: str, **settings: object) -> KeyConfig:
    """Return a key; its text is "wz_NAME"."""
    return KeyConfig(name=name, hash=hash_of(f"wz_{name}"), **settings)  # type: ignore[arg-type]  # checked as it is made


def per_minute(requests: float | None = None, *, tokens: float | None = None, max_wait: float = 0.0) -> KeyLimitConfig:
    """Return a rate limit, one request at once."""
    burst = None if requests is None else 1
    return KeyLimitConfig(requests_per_minute=requests, tokens_per_minute=tokens, burst=burst, max_wait=max_wait)


def budget(tokens: int, window: float = 3600.0) -> TokenBudgetConfig:
    """Return a token budget."""
    return TokenBudgetConfig(tokens=tokens, window=window)


class Served:
    """A client with keys, as a server has them."""

    def __init__(self, client: TrioClient, keys: Sequence[KeyConfig]) -> None:
        self.client = client
        self.limits = Limits(client.supervisor)
        self.access = Access(KeysConfig(keys=keys))

    async def set(self, *keys: KeyConfig) -> None:
        """Reload the keys."""
        now = KeysConfig(keys=keys)
        await self.limits.prepare(now)
        self.access.replace(now, bound=[])
        await self.limits.drop(now)

    def of(self, name: str) -> CallersClient:
        """Return what a key may do, as each request asks for it."""
        return CallersClient(self.client, self.access.caller(f"wz_{name}"), self.limits, self.access)

    async def limiter(self, path: str) -> LimiterState:
        """Return how the limiter "NAME/rate" or "NAME/budget" stands, once all is quiet."""
        await wait_all_tasks_blocked()
        published = self.client.supervisor.ref(f"keys/{path}", LimiterState).published
        assert published is not None
        return published.at(trio.current_time())

    def key_paths(self) -> list[str]:
        """Return the paths of all nodes that there are for keys."""
        start = "wizard/keys/"
        return [node.path.removeprefix(start) for node in self.client.supervisor.tree().walk() if start in node.path]


@asynccontextmanager
async def served(
    *keys: KeyConfig,
    providers: Mapping[str, Provider] | Provider | None = None,
    routes: Sequence[RouteConfig] = (),
    cache: CacheConfig | None = None,
    stream: StreamConfig | None = None,
    shelf: Shelf | None = None,
) -> AsyncIterator[Served]:
    """Open a client that `keys` may use."""
    by_name = providers if isinstance(providers, Mapping) else {"a": providers or Scripted(says("Because", USAGE))}
    config = WizardConfig(
        models=[model(name) for name in by_name],
        routes=routes,
        cache=cache or CacheConfig(),
        stream=stream or StreamConfig(),
        sessions=SessionsConfig(storage="memory:"),
    )
    async with TrioClient.open(
        config, rng=Random(1), providers=by_name, storage=None if shelf is None else shelf.open
    ) as client:
        server = Served(client, keys)
        await server.limits.prepare(KeysConfig(keys=keys))
        yield server
        await wait_all_tasks_blocked()
        assert client.supervisor.outstanding == {}


async def read(source: Source) -> list[StreamEvent]:
    """Read a stream to its end."""
    try:
        return [event async for event in source]
    finally:
        await source.aclose()


async def end_of(caller: CallersClient, turn: Turn, delivery: Delivery) -> None:
    """Have a turn, whole or as a stream."""
    if delivery is Delivery.WHOLE:
        await caller.sessions.send(turn)
    else:
        await read(caller.sessions.source(turn, taken))


async def taken() -> None:
    """Wait for nobody: the reader of a stream is always there."""


async def refused(caller: CallersClient, prompt: str | Prompt = ASKED) -> RateLimitError:
    """Ask, and return the refusal of the caller's own limits."""
    with pytest.raises(RateLimitError) as caught:
        await caller.generate(prompt)
    assert (caught.value.source, caught.value.attempts) == ("limiter", ())
    return caught.value


async def spent(server: Served) -> float:
    """Return how many tokens of alice's budget are gone."""
    remaining = (await server.limiter("alice/budget")).tokens.limit
    assert remaining is not None
    return sum((await server.limiter("alice/budget")).tokens.spent[1])
