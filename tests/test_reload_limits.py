"""What reloads leave of an account's limits: all of it, as long as the account is the same."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock

from tests.models import Scripted, client_of, fails, model, says
from tests.test_reload import ONCE, config_of, groups, settled, simulated
from wizard_actors import ModelConfig, RateLimitError, ResilientClient, WizardConfig, WizardError
from wizard_actors.config import RateLimitConfig, ScriptStep, SimulatedConfig
from wizard_actors.gcra import GcraCore, LimiterState
from wizard_actors.limit_memory import MOST, LimitMemory
from wizard_actors.seats import LimitSeat

TEN = RateLimitConfig(requests_per_minute=10, burst=10, max_wait=0.5, adaptive=False)


async def sent(client: ResilientClient, times: int = 12) -> int:
    """Return how many of some requests are granted at once."""
    answered = 0
    for _ in range(times):
        try:
            await client.generate("Hi", model="a")
        except WizardError:
            continue
        answered += 1
    return answered


def limiter(client: ResilientClient) -> LimiterState:
    """Return how the limiter of the model "a" stands."""
    state = client._inside.shared.ports["a"].limiter.published
    assert state is not None
    return state


LIMITED = evolve(model("a"), rate_limit=TEN)
OTHERWISE = {
    "headers": [evolve(LIMITED, headers={"x-version": "2"})],
    "upstream model": [evolve(LIMITED, model="newer")],
    "address of the proxy": [evolve(LIMITED, proxy="http://127.0.0.1:9")],
    "disabled": [evolve(LIMITED, enabled=False), LIMITED],
    "disabled, then otherwise": [evolve(LIMITED, enabled=False), evolve(LIMITED, headers={"x": "y"})],
    "without limits, then with them": [evolve(LIMITED, rate_limit=RateLimitConfig(adaptive=False)), LIMITED],
    "into a group": [evolve(LIMITED, rate_limit_group="account")],
    "into a group and out": [evolve(LIMITED, rate_limit_group="account"), LIMITED],
}


@pytest.mark.parametrize("changes", OTHERWISE.values(), ids=OTHERWISE)
async def test_what_was_spent_stays_spent(autojump_clock: MockClock, changes: list[ModelConfig]) -> None:
    """However the model is asked from then on, or though it was off for a while: the provider has not forgotten it."""
    async with client_of(Scripted(says("x")), LIMITED) as client:
        assert await sent(client) == 10

        for change in changes:
            await client.reload(config_of(change, simulated("b")))
            await settled(client)

        assert await sent(client) == 0
        await trio.sleep(30)
        assert await sent(client) == 5


@pytest.mark.parametrize("removed", [False, True])
async def test_the_tokens_of_a_minute_outlast_limits_that_are_taken_away(
    autojump_clock: MockClock, *, removed: bool
) -> None:
    """And set again, within the minute, though the model itself was gone meanwhile."""
    tokens = RateLimitConfig(tokens_per_minute=1000, max_wait=600, adaptive=False)
    limited = evolve(model("a"), rate_limit=tokens)
    async with client_of(Scripted(says("x")), limited) as client:
        await client.generate("word " * 1000)
        left = limiter(client).at(trio.current_time()).remaining_tokens
        assert left is not None
        assert left < 500

        await client.reload(config_of(evolve(limited, rate_limit=RateLimitConfig(adaptive=False))))
        if removed:
            await client.reload(config_of(simulated("b")))
            await settled(client)
        await client.reload(config_of(limited))
        await trio.sleep(1)

        assert limiter(client).remaining_tokens == left


async def test_a_limiter_is_shared_with_who_still_asks_in_the_former_way(autojump_clock: MockClock) -> None:
    """Together they go no faster than one; its place in the tree stays, and the actors of the former way go."""
    slow = evolve(model("a"), rate_limit=RateLimitConfig(requests_per_minute=60, burst=1, max_wait=600, adaptive=False))
    a = Scripted(says("x"))
    async with client_of(a, slow) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(client.generate, "Hi")
            await trio.sleep(0.5)
            await client.reload(config_of(evolve(slow, headers={"x": "y"})))
            for _ in range(5):
                nursery.start_soon(client.generate, "Hi")
            await trio.sleep(7)
            assert len(a.calls) == 8
        await settled(client)

        assert len(a.calls) == 11
        assert trio.current_time() >= 10
        paths = {node.path.removeprefix("wizard/models/") for node in client.tree().walk() if "model:a" in node.path}
        assert paths == {"model:a", "model:a/limiter", "model:a/breaker#2", "model:a/worker#2"}


BAD = simulated("a", retry=ONCE, rate_limit=RateLimitConfig(max_wait=5))
BAD = evolve(BAD, simulated=SimulatedConfig(script=[ScriptStep(fault="rate_limit", retry_after=3600.0)]))


@pytest.mark.parametrize("group", [None, "account"])
async def test_disabled_and_enabled_it_stays_away_as_long_as_it_was_told(
    autojump_clock: MockClock, group: str | None
) -> None:
    """A 429's pause is the account's."""
    bad = evolve(BAD, rate_limit_group=group)
    async with ResilientClient.open(config_of(bad, simulated("b"))) as client:
        assert await sent(client, 1) == 0
        for config in (config_of(evolve(bad, enabled=False), simulated("b")), config_of(bad, simulated("b"))):
            await client.reload(config)
            await settled(client)

        assert limiter(client).paused_until == pytest.approx(3600, abs=1)


async def test_a_former_member_of_a_group_is_still_told_to_stay_away(autojump_clock: MockClock) -> None:
    """The group goes on without it; with limits of its own it begins where the group's limiter stands."""
    bad = evolve(BAD, rate_limit_group="account")
    b = simulated("b", rate_limit=BAD.rate_limit, rate_limit_group="account")
    async with ResilientClient.open(config_of(bad, b)) as client:
        assert await sent(client, 1) == 0
        for a in (evolve(bad, enabled=False), evolve(bad, rate_limit_group=None)):
            await client.reload(config_of(a, b))
            await settled(client)

        assert limiter(client).paused_until == pytest.approx(3600, abs=1)


@pytest.mark.parametrize("group", [None, "account"])
async def test_a_group_keeps_its_limiter_while_a_member_has_its_account(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str | None
) -> None:
    """Keys are replaced one by one; a limiter of a model's own goes with its key."""
    keys = {name: tmp_path / name for name in ("a", "b")}
    models = [
        ModelConfig(
            name=name,
            provider="openai",
            base_url="http://127.0.0.1:9/v1",
            api_key_file=file,
            rate_limit_group=group,
        )
        for name, file in keys.items()
    ]
    for file in keys.values():
        file.write_text("old")
    config: WizardConfig = config_of(*models)
    async with ResilientClient.open(config) as client:
        inside = client._inside
        provider = Scripted(says("x"))
        monkeypatch.setattr(type(inside.shared.ports["a"].provider), "open", lambda self, call: provider.open(call))
        before = inside.shared.ports["a"].limiter.path

        keys["a"].write_text("new")
        await client.reload(config)
        await settled(client)
        kept = inside.shared.ports["a"].limiter.path
        assert (kept == before) is (group is not None)

        keys["b"].write_text("new")
        await client.reload(config)
        await settled(client)
        assert inside.shared.ports["a"].limiter.path == kept  # where "a" has the new key already, it is the group's too
        assert (await client.generate("Hi")).model == "a"


@pytest.mark.parametrize("group", [None, "account"])
async def test_a_new_key_begins_with_nothing_held_against_it(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str | None
) -> None:
    """The former one's pause holds for the former one alone: it holds again where that comes back."""
    file = tmp_path / "key"
    file.write_text("old")
    a = ModelConfig(
        name="a",
        provider="openai",
        base_url="http://127.0.0.1:9/v1",
        api_key_file=file,
        rate_limit_group=group,
        retry=ONCE,
        rate_limit=RateLimitConfig(max_wait=5),
    )
    config = config_of(a)
    async with ResilientClient.open(config) as client:
        limited = RateLimitError("limited", model="a", retry_after=3600.0, source="provider")
        provider = Scripted(fails(limited), says("x"))
        port = client._inside.shared.ports["a"]
        monkeypatch.setattr(type(port.provider), "open", lambda self, call: provider.open(call))
        assert await sent(client, 2) == 0

        file.write_text("new")
        await client.reload(config)
        await settled(client)
        assert await sent(client, 2) == 2

        file.write_text("old")
        await client.reload(config)
        await settled(client)
        assert await sent(client, 2) == 0


async def test_a_group_whose_members_all_have_another_account_is_not_paused(autojump_clock: MockClock) -> None:
    """Nothing that the former account was told holds for it; its limiter is another one."""
    bad = evolve(BAD, rate_limit_group="account")
    async with ResilientClient.open(config_of(bad)) as client:
        assert await sent(client, 1) == 0

        await client.reload(config_of(evolve(bad, simulated=SimulatedConfig(answer="well"))))
        await settled(client)

        assert (await client.generate("Hi")).text == "well"
        assert groups(client) == ["limits/account#2", "models/model:a#2"]


async def test_members_of_a_group_get_its_new_limits_at_once(autojump_clock: MockClock) -> None:
    """Also those who wait."""
    slow = RateLimitConfig(requests_per_minute=1, burst=1, max_wait=600, adaptive=False)
    shared = evolve(model("a"), rate_limit=slow, rate_limit_group="account")
    async with client_of(Scripted(says("x")), shared) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(client.generate, "Hi")
            await trio.sleep(1)
            await client.reload(config_of(evolve(shared, rate_limit=evolve(slow, requests_per_minute=60))))

        assert trio.current_time() <= 5


async def test_a_model_keeps_no_limiter_that_is_about_to_go(autojump_clock: MockClock) -> None:
    """A former configuration's request keeps the group's first limiter, of the account that comes back; the group goes
    on with its present one, and both models with it.
    """

    def member(name: str, account: str, *, enabled: bool = True) -> ModelConfig:
        answer = SimulatedConfig(answer=account, first_token=1.0)
        return evolve(model(name, enabled=enabled, simulated=answer), rate_limit_group="account")

    async with ResilientClient.open(config_of(member("a", "one"), member("b", "two"))) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(client.generate, "Hi", model="b"))
            await trio.sleep(0.5)
            await client.reload(config_of(member("a", "three"), member("b", "two", enabled=False)))
            await client.reload(config_of(member("a", "three"), member("b", "two")))
        await settled(client)

        assert [(await client.generate("Hi", model=name)).text for name in ("a", "b")] == ["three", "two"]


def test_the_successor_starts_from_the_one_that_has_counted_most() -> None:
    """One that had no limit of tokens has nothing to say of them."""
    unlimited, limited = (RateLimitConfig(tokens_per_minute=most, adaptive=False) for most in (None, 600))
    counted, idle = GcraCore[int](limited), GcraCore[int](unlimited)
    counted.acquire(1, 0.0, 0.0, 500)
    idle.acquire(1, 0.0, 0.0, 500)
    seat, other, new = (LimitSeat("a", "a", limited, ONCE, (("a", ("openai", None)),)) for _ in range(3))
    memory = LimitMemory()
    memory.keep(seat, counted.snapshot(), 1.0)

    memory.successor(new, [(other, idle.snapshot())], 2.0)

    assert new.first == counted.snapshot()


def test_what_no_longer_matters_is_forgotten() -> None:
    """After a minute without a pause; and no more is kept than so many."""
    account = ("a", ("openai", None))
    seats = [LimitSeat("a", "a", TEN, ONCE, (account,)) for _ in range(3)]
    memory = LimitMemory()
    memory.keep(seats[0], LimiterState(as_of=0.0), 0.0)
    memory.successor(seats[1], [], 59.0)
    memory.successor(seats[2], [], 61.0)
    assert [seat.first is None for seat in seats[1:]] == [False, True]

    for number in range(MOST + 50):
        other = LimitSeat("b", "b", TEN, ONCE, ((f"b{number}", ("openai", None)),))
        memory.keep(other, LimiterState(as_of=0.0, paused_until=9e9), 100.0)
    assert len(memory._left) == MOST
