"""What admins may see and do, and that it is theirs within what their own keys allow."""

from __future__ import annotations

import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.models import USAGE, Scripted, says
from tests.server.keyed import budget, key, per_minute
from tests.server.wire import served
from wizard_actors.config import BatchConfig, CacheConfig, RouteConfig
from wizard_actors.server.key_settings import KeyLimitConfig

CACHE = CacheConfig(max_entries=10)
CHEAP = RouteConfig(name="cheap", chain=("b",))


def two() -> dict[str, Scripted]:
    """Return two models."""
    return {"a": Scripted(), "b": Scripted()}


async def test_the_name_of_no_key_is_warmed_for_nobody(autojump_clock: MockClock) -> None:
    """Whoever is given that name later would find what somebody else has asked."""
    upstream = Scripted()
    async with served(upstream, cache=CACHE, keys=[key("root", admin=True), key("alice")]) as server:
        wire = await server.connect(bearer="wz_root")

        error = await wire.failure("cache.warm", prompts=["a"], key="bob")

        assert (error["code"], upstream.calls) == (-32602, [])
        assert "`key`" in error["message"]


@pytest.mark.parametrize(
    "options", [{"model": "a"}, {"route": "wizard"}, {"prompts": [{"messages": "x", "extra": {"n": 2}}]}]
)
async def test_an_admin_warms_only_what_its_own_key_may_ask(
    autojump_clock: MockClock, options: dict[str, object]
) -> None:
    """For another key too: being an admin is no right to every model."""
    models = two()
    keys = [key("root", admin=True, routes=["cheap"]), key("alice")]
    async with served(models, cache=CACHE, routes=[CHEAP], keys=keys) as server:
        wire = await server.connect(bearer="wz_root")

        answer = await wire.response(await wire.ask("cache.warm", **{"prompts": ["x"], "key": "alice", **options}))

        assert "access_denied" in str(answer)
        assert models["a"].calls == models["b"].calls == []
        assert (await wire.call("cache.warm", prompts=["x"], key="alice"))["stored"] == 1
        assert len(models["b"].calls) == 1


async def test_what_is_warmed_counts_for_the_limits_of_who_warms(autojump_clock: MockClock) -> None:
    """Tokens and requests; a batch waits for its limits, and so does this."""
    limit = KeyLimitConfig(requests_per_minute=60, burst=2)
    keys = [key("root", admin=True, rate_limit=limit, token_budget=budget(10_000)), key("alice")]
    async with served(Scripted(says("Because", USAGE)), cache=CACHE, keys=keys) as server:
        wire = await server.connect(bearer="wz_root")

        await wire.call("cache.warm", prompts=["a", "b"], key="alice")

        await wait_all_tasks_blocked()
        left = (await wire.call("stats"))["keys"]["root"]
        assert (left["requests_left"], left["budget_left"]) == (0, 10_000 - 2 * 15)


async def test_warming_takes_no_more_places_than_its_key_has(autojump_clock: MockClock) -> None:
    """One key at once is no more for being an admin's."""
    upstream = Scripted(says(1.0, "Because"))
    keys = [key("root", admin=True, max_in_flight=2)]
    async with served(upstream, cache=CACHE, keys=keys, batch=BatchConfig(max_concurrency=8)) as server:
        wire = await server.connect(bearer="wz_root")
        await wire.ask("cache.warm", prompts=list("abcdef"))
        await wait_all_tasks_blocked()

        assert (upstream.in_flight, server.service.admission.of_key("root")) == (2, 2)


async def test_admins_see_what_keys_have_left(autojump_clock: MockClock) -> None:
    """By their names, null where there is no limit; and what they have in progress."""
    keys = [key("root", admin=True), key("alice", rate_limit=per_minute(60, tokens=1000), token_budget=budget(500))]
    async with served(Scripted(says("Because", USAGE)), keys=keys) as server:
        root, alice = await server.connect(bearer="wz_root"), await server.connect(bearer="wz_alice")
        await alice.call("generate", prompt="Why?")
        await wait_all_tasks_blocked()

        assert (await root.call("stats"))["keys"] == {
            "root": {"requests_left": None, "tokens_left": None, "budget_left": None, "in_progress": 1},
            "alice": {"requests_left": 0, "tokens_left": 985, "budget_left": 485, "in_progress": 0},
        }


async def test_without_keys_there_are_none_to_be_seen(autojump_clock: MockClock) -> None:
    """The table is there all the same."""
    async with served(Scripted()) as server:
        assert (await (await server.connect()).call("stats"))["keys"] == {}
