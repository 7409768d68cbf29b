"""Another configuration for a running client: nothing is dropped, nothing is left behind, all or nothing."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from random import Random

import pytest
import trio
import trio.lowlevel
from attrs import evolve
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.models import Scripted, Turn, client_of, model, says
from wizard_actors import (
    ActorStoppedError,
    AuthError,
    BlockingClient,
    ConfigError,
    ModelConfig,
    Reloaded,
    ResilientClient,
    WizardConfig,
    WizardError,
    WizardResponse,
)
from wizard_actors.breaker_core import Circuit
from wizard_actors.config import (
    BreakerConfig,
    CacheConfig,
    RateLimitConfig,
    RetryConfig,
    RouteConfig,
    ScriptStep,
    ServerConfig,
    SessionsConfig,
    SimulatedConfig,
    StreamConfig,
    TimeoutsConfig,
)
from wizard_actors.gcra import LimiterState
from wizard_actors.routing import RouterState
from wizard_actors.slots import WorkerState

ONCE = RetryConfig(max_attempts=1)
IN_MEMORY = SessionsConfig(storage="memory:")


def simulated(name: str, *, answer: str = "", **settings: object) -> ModelConfig:
    """Return a simulated model that answers within a second."""
    table = SimulatedConfig(answer=answer, first_token=0.3, per_chunk=0.1)
    return ModelConfig(name=name, provider="simulated", simulated=table, **settings)  # type: ignore[arg-type]


def config_of(*models: ModelConfig, **tables: object) -> WizardConfig:
    """Return a configuration of `models`, which keeps sessions in memory."""
    return WizardConfig(models=models, **{"sessions": IN_MEMORY, **tables})  # type: ignore[arg-type]


def groups(client: ResilientClient) -> list[str]:
    """Return the models' groups and the shared limiters in the tree."""
    paths = (node.path.removeprefix("wizard/") for node in client.tree().walk())
    return sorted(path for path in paths if path.count("/") == 1)


async def settled(client: ResilientClient) -> None:
    """Wait until what nobody uses has been removed."""
    await wait_all_tasks_blocked()
    assert client._inside._reloading.former == []


# -- what changes ------------------------------------------------------------------------------------------------------


async def test_models_are_added_changed_disabled_and_removed(autojump_clock: MockClock) -> None:
    """And the summary names them; the tree holds what the configuration in force has."""
    first = config_of(simulated("a"), simulated("b"), simulated("c"), simulated("d"))
    async with ResilientClient.open(first) as client:
        assert (await client.generate("Hi")).model == "a"

        second = config_of(
            simulated("e"), simulated("b", enabled=False), simulated("c", max_concurrency=3), simulated("d")
        )
        reloaded = await client.reload(second)
        await settled(client)

        assert reloaded == Reloaded(added=("e",), changed=("b", "c"), removed=("a",))
        assert client.config == second
        assert groups(client) == ["models/model:c", "models/model:d", "models/model:e"]
        assert (await client.generate("Hi")).model == "e"
        with pytest.raises(ConfigError):
            await client.generate("Hi", model="a")
        with pytest.raises(ConfigError):
            await client.generate("Hi", model="b")


async def test_routes_and_what_requests_read_change_at_once(autojump_clock: MockClock) -> None:
    """A new route can be asked, one that is gone cannot, and the bound of calls in flight is the new one."""
    a, b = simulated("a"), simulated("b")
    first = config_of(a, b, routes=[RouteConfig(name="old", chain=("b",))])
    async with ResilientClient.open(first) as client, trio.open_nursery() as nursery:
        await client.reload(
            config_of(a, b, routes=[RouteConfig(name="new", chain=("b",))], server=ServerConfig(max_in_flight=1))
        )

        assert (await client.generate("Hi", route="new")).model == "b"
        with pytest.raises(ConfigError):
            await client.generate("Hi", route="old")
        nursery.start_soon(client.generate, "Hi")
        await wait_all_tasks_blocked()
        with pytest.raises(WizardError, match=r"server\.max_in_flight"):
            await client.generate("Hi")


async def test_what_is_fixed_stays_as_it_was_and_is_named(autojump_clock: MockClock) -> None:
    """The configuration in force tells the truth: it keeps the values of what only a restart changes."""
    first = config_of(simulated("a"))
    async with ResilientClient.open(first) as client:
        wanted = config_of(
            simulated("a"),
            cache=CacheConfig(max_entries=5, ttl=9.0),
            server=ServerConfig(drain_timeout=1.0, max_in_flight=7),
            stream=StreamConfig(consumer_idle=5.0, delivery="buffered"),
        )
        reloaded = await client.reload(wanted)

        assert reloaded == Reloaded(
            later=("cache.max_entries", "cache.ttl", "stream.consumer_idle", "server.drain_timeout")
        )
        assert client.config.cache == first.cache
        assert (client.config.server.drain_timeout, client.config.server.max_in_flight) == (10.0, 7)
        assert (client.config.stream.consumer_idle, client.config.stream.delivery) == (300.0, "buffered")


async def test_an_unchanged_model_goes_on_where_it_was(autojump_clock: MockClock) -> None:
    """Its provider, its actors and their counts stay."""
    async with ResilientClient.open(config_of(simulated("a"))) as client:
        await client.generate("Hi")
        before = client._inside.shared.ports["a"]

        assert await client.reload(config_of(simulated("a"), simulated("b"))) == Reloaded(added=("b",))

        assert client._inside.shared.ports["a"] is before
        assert (await client.generate("Hi")).model == "a"
        await wait_all_tasks_blocked()
        state = before.worker.published
        assert state is not None
        assert state.health.succeeded == 2


async def test_a_configuration_that_cannot_be_used_changes_nothing(autojump_clock: MockClock, tmp_path: Path) -> None:
    """Whatever is wrong with it, and however much of it had been started."""
    first = config_of(simulated("a"))
    remote = ModelConfig(name="r", provider="openai", base_url="http://127.0.0.1:9/v1", api_key_file=tmp_path / "none")
    async with ResilientClient.open(first) as client:
        shared, tree = client._inside.shared, client.tree()
        for wrong in (
            config_of(simulated("b"), remote),
            config_of(simulated("b"), ModelConfig(name="own", provider="custom")),
            config_of(simulated("b"), simulated("c"), fallback=RouteConfig(name="wizard", strategy="custom:mine")),
            tmp_path / "absent.toml",
            5,
        ):
            with pytest.raises(ConfigError):
                await client.reload(wrong)  # type: ignore[arg-type]  # one of them is none

        assert client._inside.shared is shared
        assert client.tree() == tree
        assert client._inside._reloading._builder.clients._clients == {}
        assert (await client.generate("Hi")).model == "a"


async def test_a_closing_client_is_not_changed(autojump_clock: MockClock) -> None:
    """It says so."""
    async with ResilientClient.open(config_of(simulated("a"))) as client:
        pass
    with pytest.raises(ActorStoppedError):
        await client.reload(config_of(simulated("b")))


# -- who waits, and what was learned -----------------------------------------------------------------------------------


async def test_waiters_of_a_limiter_go_by_the_new_limits(autojump_clock: MockClock) -> None:
    """Nobody who waits is dropped; they are due by the new pace, and those who would be too late learn it at once."""
    slow = evolve(model("a"), rate_limit=RateLimitConfig(requests_per_minute=1, burst=1, max_wait=600))
    async with client_of(Scripted(says("x")), slow) as client:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(client.generate, "Hi")
            await trio.sleep(1)
            limits = RateLimitConfig(requests_per_minute=60, burst=1, max_wait=600)
            await client.reload(config_of(evolve(slow, rate_limit=limits)))

        assert trio.current_time() - began <= 5.0


async def test_waiters_of_a_full_waiting_room_get_the_new_limits_too(autojump_clock: MockClock) -> None:
    """A limiter that takes no asks any more is told all the same."""
    limits = RateLimitConfig(requests_per_minute=1, burst=1, max_wait=600, queue=1)
    slow = evolve(model("a"), rate_limit=limits)
    async with client_of(Scripted(says("x")), slow) as client:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(client.generate, "Hi")
                await trio.sleep(1)
                await client.reload(config_of(evolve(slow, rate_limit=evolve(limits, requests_per_minute=600))))

        limiter = client._inside.shared.ports["a"].limiter.published
        assert limiter is not None
        assert (limiter.granted, limiter.rejected) == (5, 0)


async def test_waiters_for_a_slot_get_the_new_slots(autojump_clock: MockClock) -> None:
    """At once where they became more; where they became fewer, nobody loses one."""
    a = Scripted(says(10.0, "x"))
    async with client_of(a, evolve(model("a"), max_concurrency=1)) as client, trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(client.generate, "Hi")
        await trio.sleep(1)
        assert a.in_flight == 1

        await client.reload(config_of(evolve(model("a"), max_concurrency=4)))
        await wait_all_tasks_blocked()
        assert a.in_flight == 4

        await client.reload(config_of(evolve(model("a"), max_concurrency=1)))
        await trio.sleep(9.5)
        assert a.in_flight == 3
        await trio.sleep(1)
        assert a.in_flight == 1


async def test_an_open_circuit_stays_open_under_another_policy(autojump_clock: MockClock) -> None:
    """Until a model is asked elsewhere: that one is another model."""
    policy = BreakerConfig(failure_threshold=1, open_for=1000)
    a = evolve(
        simulated("a", retry=ONCE),
        circuit_breaker=policy,
        simulated=SimulatedConfig(script=[ScriptStep(fault="error")]),
    )
    async with ResilientClient.open(config_of(a)) as client:
        with pytest.raises(WizardError):
            await client.generate("Hi")
        breaker = client._inside.shared.ports["a"].breaker

        await client.reload(config_of(evolve(a, circuit_breaker=evolve(policy, open_for=1.0))))
        state = breaker.published
        assert state is not None
        assert state.circuit is Circuit.OPEN
        with pytest.raises(WizardError):
            await client.generate("Hi")

        repaired = evolve(a, simulated=SimulatedConfig(answer="well"))
        assert (await client.reload(config_of(repaired))).changed == ("a",)
        assert (await client.generate("Hi")).text == "well"
        await settled(client)
        assert groups(client) == ["models/model:a#2"]


async def test_a_repaired_key_frees_the_model_at_once(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the configuration reads the same: the key's present value counts. Late news of the old one bar nobody."""
    file = tmp_path / "key"
    file.write_text("old")
    a = ModelConfig(name="a", provider="openai", base_url="http://127.0.0.1:9/v1", api_key_file=file, retry=ONCE)
    config = config_of(a)
    async with ResilientClient.open(config) as client, trio.open_nursery() as nursery:
        late = Scripted(Turn((5.0, AuthError("bad key", model="a"))))
        monkeypatch.setattr(type(client._inside.shared.ports["a"].provider), "open", lambda self, call: late.open(call))

        async def ask() -> None:
            with pytest.raises(WizardError):
                await client.generate("Hi")

        nursery.start_soon(ask)
        await trio.sleep(6)
        router = client.supervisor.ref("router", RouterState)
        assert router.published is not None
        assert list(router.published.bars) == ["a"]
        nursery.start_soon(ask)
        await trio.sleep(1)

        file.write_text("new")
        assert await client.reload(config) == Reloaded(changed=("a",))
        assert router.published.bars == {}
        assert list(router.published.models) == ["a"]
        await trio.sleep(10)  # the old key's attempt has failed meanwhile

        assert router.published.bars == {}
        await settled(client)
        assert groups(client) == ["models/model:a#2"]


# -- requests of a former configuration --------------------------------------------------------------------------------


async def test_a_running_stream_of_a_removed_model_ends_well(autojump_clock: MockClock) -> None:
    """Its actors are removed after it, and not before."""
    a, b = Scripted(says("one ", 5.0, "two")), Scripted(says("b"))
    async with client_of({"a": a, "b": b}) as client, client.stream("Hi") as stream:
        assert [await anext(stream)]
        await client.reload(config_of(model("b")))
        await wait_all_tasks_blocked()
        assert groups(client) == ["models/model:a", "models/model:b"]

        assert "".join([text async for text in stream.text()]) == "two"
        assert (stream.response.model, stream.response.text) == ("a", "one two")
        await settled(client)
        assert groups(client) == ["models/model:b"]
        assert client.supervisor.outstanding == {}


async def test_a_stream_that_begins_after_the_reload_goes_the_old_way(autojump_clock: MockClock) -> None:
    """Until it is left, or nobody has it any more, though it was never read."""
    a, b = Scripted(says("a")), Scripted(says("b"))
    async with client_of({"a": a, "b": b}, routes=[RouteConfig(name="old", chain=("a",))]) as client:
        waiting, left, lost = (client.stream("Hi", route="old") for _ in range(3))
        await client.reload(config_of(model("b")))
        await wait_all_tasks_blocked()
        assert groups(client) == ["models/model:a", "models/model:b"]

        async with waiting:
            assert "".join([text async for text in waiting.text()]) == "a"
        async with left:
            pass
        await wait_all_tasks_blocked()
        assert groups(client) == ["models/model:a", "models/model:b"]
        del lost
        gc.collect()
        await settled(client)
        assert groups(client) == ["models/model:b"]


async def test_a_turn_that_waits_over_a_reload_is_answered(autojump_clock: MockClock) -> None:
    """A session's turn waits for the one before it; meanwhile its model and its route are removed."""
    a, b = Scripted(says(5.0, "a")), Scripted(says("b"))
    async with client_of({"a": a, "b": b}, routes=[RouteConfig(name="old", chain=("a",))]) as client:
        async with client.session("s", route="old") as session, trio.open_nursery() as nursery:
            nursery.start_soon(session.send, "One")
            await trio.sleep(1)
            nursery.start_soon(session.send, "Two")
            await trio.sleep(1)
            await client.reload(config_of(model("b")))

        assert len(a.calls) == 2
        await settled(client)
        assert groups(client) == ["models/model:b"]


async def test_a_batch_goes_on_though_its_route_is_taken_away(autojump_clock: MockClock) -> None:
    """Its later prompts go the old way, too."""
    a, b = Scripted(says(1.0, "a")), Scripted(says("b"))
    async with client_of({"a": a, "b": b}, routes=[RouteConfig(name="old", chain=("a",))]) as client:
        outcomes: list[WizardResponse | WizardError] = []

        async def batch() -> None:
            outcomes.extend(await client.generate_batch(["1", "2", "3"], route="old", max_concurrency=1))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(batch)
            await trio.sleep(0.5)
            await client.reload(config_of(model("b")))

        assert [isinstance(outcome, WizardResponse) for outcome in outcomes] == [True] * 3
        await settled(client)
        assert groups(client) == ["models/model:b"]


async def test_a_model_that_comes_back_before_it_is_removed_is_kept(autojump_clock: MockClock) -> None:
    """Its actors, and what they have learned."""
    a, b = Scripted(says(5.0, "a")), Scripted(says("b"))
    async with client_of({"a": a, "b": b}) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.generate, "Hi")
        await trio.sleep(1)
        worker = client._inside.shared.ports["a"].worker
        await client.reload(config_of(model("b")))
        await client.reload(config_of(model("a"), model("b")))
        await trio.sleep(10)

        await settled(client)
        assert groups(client) == ["models/model:a", "models/model:b"]
        assert client._inside.shared.ports["a"].worker.path == worker.path
        assert worker.available


async def test_shared_limiters_come_and_go_with_their_groups(autojump_clock: MockClock) -> None:
    """The first one brings the group of limits, and the last one takes it along."""
    grouped = [simulated(name, rate_limit_group="account") for name in ("a", "b")]
    async with ResilientClient.open(config_of(simulated("a"), simulated("b"))) as client:
        await client.reload(config_of(*grouped))
        await settled(client)
        assert groups(client) == ["limits/account", "models/model:a#2", "models/model:b#2"]
        assert (await client.generate("Hi")).model == "a"

        await client.reload(config_of(*(evolve(each, rate_limit=RateLimitConfig(queue=3)) for each in grouped)))
        await client.reload(config_of(simulated("a"), simulated("b")))
        await settled(client)
        assert groups(client) == ["models/model:a", "models/model:b"]
        assert "wizard/limits" not in {node.path for node in client.tree().walk()}


async def test_http_clients_that_nobody_uses_are_closed(autojump_clock: MockClock) -> None:
    """With the last model that goes their way."""
    direct = ModelConfig(name="direct", provider="openai", base_url="http://127.0.0.1:9/v1")
    proxied = evolve(direct, name="proxied", proxy="http://127.0.0.1:8")
    async with ResilientClient.open(config_of(direct, proxied)) as client:
        clients = dict(client._inside._reloading._builder.clients._clients)
        await client.reload(config_of(proxied))
        await settled(client)

        assert {key[0]: made.is_closed for key, made in clients.items()} == {None: True, "http://127.0.0.1:8": False}


# -- all or nothing ----------------------------------------------------------------------------------------------------


async def test_a_reload_that_is_cancelled_has_done_all_or_nothing(autojump_clock: MockClock) -> None:
    """Cancelled after any number of the loop's turns: one whole configuration is in force, its actors and no others."""
    first, second = (
        config_of(simulated("a"), simulated("b")),
        config_of(simulated("b", max_concurrency=2), simulated("c")),
    )
    seen: set[str] = set()
    for steps in range(30):
        async with ResilientClient.open(first) as client:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.reload, second)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            await settled(client)

            name = client.config.models[0].name
            seen.add(name)
            assert client.config == (first if name == "a" else second)
            assert groups(client) == sorted(f"models/model:{each.name}" for each in client.config.models)
            worker = client.supervisor.ref("models/model:b/worker", WorkerState).published
            assert worker is not None
            assert worker.slots == (32 if name == "a" else 2)
            assert (await client.generate("Hi")).model == name
    assert seen == {"a", "b"}


@pytest.mark.parametrize("actor", ["limiter", "breaker", "worker", "router"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_actor_that_crashes_comes_back_with_the_new_settings(
    autojump_clock: MockClock, actor: str, when: str
) -> None:
    """Whether it crashes with the news in its mailbox, or once it has read them."""
    async with ResilientClient.open(config_of(simulated("a"))) as client:
        path = actor if actor == "router" else f"models/model:a/{actor}"
        changed = simulated(
            "a",
            max_concurrency=3,
            rate_limit=RateLimitConfig(requests_per_minute=30),
            circuit_breaker=BreakerConfig(failure_threshold=1, open_for=7.0),
        )
        if when == "before":
            client.supervisor.kill(path, RuntimeError("a bug"))
        await client.reload(config_of(changed, simulated("new")))
        if when == "after":
            client.supervisor.kill(path, RuntimeError("a bug"))
        await trio.sleep(1)

        limiter = client.supervisor.ref("models/model:a/limiter", LimiterState).published
        worker = client.supervisor.ref("models/model:a/worker", WorkerState).published
        router = client.supervisor.ref("router", RouterState).published
        assert limiter is not None and worker is not None and router is not None  # noqa: PT018
        assert (limiter.rate, worker.slots, sorted(router.models)) == (30.0, 3, ["a", "new"])
        assert (await client.generate("Hi", model="new")).model == "new"


# -- many --------------------------------------------------------------------------------------------------------------


def some_config(rng: Random, number: int) -> WizardConfig:
    """Return one configuration of many: models come, go, are disabled, replaced and limited in other ways."""
    names = ["base", *rng.sample(["a", "b", "c", "d", "e"], rng.randint(1, 4))]
    models: list[ModelConfig] = []
    grouped = rng.random() < 0.5
    for name in names:
        group = "account" if grouped and name in {"a", "b"} else None
        limited = RateLimitConfig(requests_per_minute=rng.choice([300, 6000]), burst=rng.choice([1, 50]), max_wait=600)
        rates = limited if group is None and rng.random() < 0.7 else RateLimitConfig()
        models.append(
            simulated(
                name,
                answer=rng.choice(["", "another one"]),
                enabled=name == "base" or rng.random() < 0.8,
                headers={"x-version": rng.choice("12")},
                max_concurrency=rng.choice([2, 8, 32]),
                rate_limit=rates,
                rate_limit_group=group,
                circuit_breaker=BreakerConfig(failure_threshold=rng.randint(1, 9)),
                timeouts=TimeoutsConfig(total=300.0 + number),
            )
        )
    rng.shuffle(models)
    routes = [RouteConfig(name="some", chain=tuple(names))]
    return config_of(*models, routes=routes, server=ServerConfig(max_in_flight=10_000, queue_timeout=600))


async def test_a_hundred_reloads_under_load_drop_nothing_and_leave_nothing(autojump_clock: MockClock) -> None:
    """Every request is answered; afterwards there are the last configuration's actors, and nothing is held."""
    rng = Random(5)
    outcomes: list[WizardResponse] = []
    last, asked = some_config(rng, 0), 0
    async with ResilientClient.open(last, rng=Random(1)) as client:

        async def whole() -> None:
            outcomes.append(await client.generate("Hi", route=rng.choice(["wizard", "some"])))

        async def streamed() -> None:
            stream = client.stream("Hi", route="some")
            await trio.sleep(rng.random())
            async with stream:
                async for _ in stream:
                    await trio.lowlevel.checkpoint()
            outcomes.append(stream.response)

        async with trio.open_nursery() as nursery:
            for number in range(1, 101):
                for _ in range(6):
                    nursery.start_soon(rng.choice([whole, streamed]))
                    asked += 1
                await trio.sleep(rng.random() / 2)
                last = some_config(rng, number)
                await client.reload(last)
        assert len(outcomes) == asked
        await settled(client)

        enabled = [each for each in last.models if each.enabled]
        reloading = client._inside._reloading
        assert {path.split(":")[-1].split("#")[0] for path in groups(client) if path.startswith("models")} == {
            each.name for each in enabled
        }
        assert len(groups(client)) == len(enabled) + len({each.rate_limit_group for each in enabled} - {None})
        assert client.supervisor.outstanding == {}
        assert reloading.shared.in_flight.count == 0
        assert not reloading.shared.holds._taken
        assert len(reloading._standing) == len(groups(client))
        for port in reloading.shared.ports.values():
            worker, breaker = port.worker.published, port.breaker.published
            assert worker is not None and breaker is not None  # noqa: PT018
            assert (worker.in_use, worker.waiting, worker.slots) == (0, 0, port.config.max_concurrency)
            assert breaker.in_flight == 0


# -- the facades -------------------------------------------------------------------------------------------------------


def test_a_client_under_asyncio_is_reloaded() -> None:
    """From its own event loop, while a stream is read there."""

    async def main() -> None:
        async with ResilientClient.open(config_of(simulated("a"))) as client, client.stream("Hi") as stream:
            await anext(stream)
            assert await client.reload(config_of(simulated("b"))) == Reloaded(added=("b",), removed=("a",))
            assert client.config.models[0].name == "b"
            assert (await client.generate("Hi")).model == "b"
            async for _ in stream:
                pass
            assert stream.response.model == "a"

    asyncio.run(main())


def test_a_blocking_client_is_reloaded(tmp_path: Path) -> None:
    """By the path of a file, too."""
    file = tmp_path / "wizard.toml"
    file.write_text('[sessions]\nstorage = "memory:"\n[[models]]\nname = "b"\nprovider = "simulated"\n')
    with BlockingClient.open(config_of(simulated("a"))) as client:
        assert client.reload(str(file)) == Reloaded(added=("b",), removed=("a",))
        assert [each.name for each in client.config.models] == ["b"]
        assert client.generate("Hi").model == "b"
