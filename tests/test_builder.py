"""The composition root: which tree, which providers and which HTTP clients a configuration becomes."""

import sys
from pathlib import Path
from random import Random
from typing import TypeAlias

import httpx
import pytest
import trio
from attrs import evolve
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.models import Calls, Scripted, client_of, fails, model, says
from wizard_actors import (
    ConfigError,
    ModelConfig,
    RateLimitError,
    ResilientClient,
    WizardConfig,
    WizardError,
)
from wizard_actors.builder import Builder, Clients
from wizard_actors.config import (
    CacheConfig,
    LocalConfig,
    RateLimitConfig,
    RetryConfig,
    RouteConfig,
    ServerConfig,
    SupervisionConfig,
)
from wizard_actors.event_stream import EventStream
from wizard_actors.gcra import LimiterState
from wizard_actors.lag import LagWatch
from wizard_actors.metrics import SessionGauges
from wizard_actors.providers.base import Provider
from wizard_actors.providers.engine import LocalProvider
from wizard_actors.providers.openai import OpenAIProvider
from wizard_actors.providers.simulated import SimulatedProvider
from wizard_actors.session_store import Begin, End, SessionStoreState
from wizard_actors.shared import Shared
from wizard_actors.supervisor import Supervisor

Made: TypeAlias = tuple[Supervisor, Shared, Builder]


def remote(
    name: str, provider: str = "openai", *, proxy: str | None = None, ca_file: Path | None = None
) -> ModelConfig:
    """Return the configuration of a model behind HTTP."""
    return ModelConfig(name=name, provider=provider, base_url="http://127.0.0.1:9/v1", proxy=proxy, ca_file=ca_file)


async def build(  # noqa: ASYNC124 - inside Trio, whose clock it reads
    config: WizardConfig, providers: dict[str, Provider] | None = None
) -> Made:
    """Build, and start nothing."""
    builder = Builder(config, rng=Random(1), events=EventStream(), providers=providers)
    layout = builder.layout(config)
    tree = builder.tree(layout)
    return tree, builder.first(layout, tree, LagWatch()), builder


async def test_names_may_hold_a_slash() -> None:
    """As those of models often do; in the tree's paths it is "%2F", and no two names have one path."""
    limits = RateLimitConfig(requests_per_minute=60)
    config = WizardConfig(
        models=[
            evolve(model(name), rate_limit_group="a/b", rate_limit=limits) for name in ("meta/llama", "meta%2Fllama")
        ]
    )
    _, shared, _ = await build(config)

    assert [port.worker.path for port in shared.ports.values()] == [
        "wizard/models/model:meta%2Fllama/worker",
        "wizard/models/model:meta%252Fllama/worker",
    ]
    assert {port.limiter.path for port in shared.ports.values()} == {"wizard/limits/a%2Fb"}


async def test_the_tree_has_an_actor_for_each_concern_of_each_model(autojump_clock: MockClock) -> None:
    """A router, the session store, and a group for every enabled model; the embedded one has its engine, too."""
    config = WizardConfig(
        models=[
            model("a"),
            model("off", enabled=False),
            ModelConfig(name="inside", provider="local", local=LocalConfig()),
        ]
    )
    tree, shared, _ = await build(config)

    assert [node.path for node in tree.tree().walk()] == [
        "wizard",
        "wizard/router",
        "wizard/sessions",
        "wizard/models",
        "wizard/models/model:a",
        "wizard/models/model:a/limiter",
        "wizard/models/model:a/breaker",
        "wizard/models/model:a/worker",
        "wizard/models/model:inside",
        "wizard/models/model:inside/limiter",
        "wizard/models/model:inside/breaker",
        "wizard/models/model:inside/worker",
        "wizard/models/model:inside/engine",
    ]
    assert sorted(shared.ports) == ["a", "inside"]


async def test_the_cache_and_shared_limits_have_their_place_in_the_tree(autojump_clock: MockClock) -> None:
    """Where there are any: one limiter for all models of a group, none of their own."""
    grouped = [ModelConfig(name=name, provider="simulated", rate_limit_group="account") for name in ("a", "b")]
    config = WizardConfig(models=grouped, cache=CacheConfig(max_entries=10))
    tree, shared, _ = await build(config)

    paths = [node.path for node in tree.tree().walk()]
    assert paths[:5] == ["wizard", "wizard/cache", "wizard/limits", "wizard/limits/account", "wizard/router"]
    assert not [path for path in paths if path.endswith("/limiter")]
    assert shared.ports["a"].limiter.path == shared.ports["b"].limiter.path == "wizard/limits/account"


async def test_every_actor_has_the_configured_bounds(autojump_clock: MockClock) -> None:
    """Lanes from the configuration, and a drain deadline."""
    config = WizardConfig(
        models=[model("a")],
        supervision=SupervisionConfig(mailbox=7, tells=9),
        server=ServerConfig(drain_timeout=3.0),
    )
    tree, _, _ = await build(config)

    lanes = [node.lanes for node in tree.tree().walk() if node.lanes is not None]
    assert [(lane.asks_bound, lane.tells_bound) for lane in lanes] == [(7, 9)] * 5


async def test_the_restart_policy_is_the_configured_one(autojump_clock: MockClock) -> None:
    """How many crashes make an actor DOWN, and when it is tried again."""
    supervision = SupervisionConfig(max_restarts=1, down_retry=5.0)
    async with ResilientClient.open(WizardConfig(models=[model("a")], supervision=supervision)) as client:
        for state in ("running", "down"):
            client.supervisor.kill("router", RuntimeError("planted"))
            await wait_all_tasks_blocked()
            assert client.tree().children[0].state == state
        await trio.sleep(5.0)
        await wait_all_tasks_blocked()
        assert client.tree().children[0].state == "running"


async def test_each_kind_of_model_gets_its_provider(autojump_clock: MockClock) -> None:
    """Presets speak OpenAI's protocol."""
    inside = ModelConfig(name="inside", provider="local", local=LocalConfig())
    config = WizardConfig(models=[model("sim"), remote("one"), remote("two", "groq"), inside])
    _, shared, builder = await build(config)

    kinds = {name: type(port.provider) for name, port in shared.ports.items()}
    assert kinds == {"sim": SimulatedProvider, "one": OpenAIProvider, "two": OpenAIProvider, "inside": LocalProvider}
    await builder.clients.aclose()


async def test_models_share_one_http_client_unless_they_are_reached_differently(autojump_clock: MockClock) -> None:
    """One for each proxy, authority or transport; all of them are closed."""
    clients = Clients()
    shared = clients.get(remote("one"))
    fast = clients.get(evolve(remote("five"), transport="fast"))
    proxied = clients.get(remote("two", proxy="http://127.0.0.1:8"))

    assert clients.get(remote("three")) is shared
    assert clients.get(remote("four", proxy="http://127.0.0.1:8")) is proxied
    assert len({id(each) for each in (shared, fast, proxied)}) == 3
    await clients.aclose()
    assert shared.is_closed
    assert proxied.is_closed
    assert fast.is_closed


async def test_an_unreadable_authority_is_told_by_its_file(autojump_clock: MockClock, tmp_path: Path) -> None:
    """Before anything starts."""
    config = WizardConfig(models=[remote("one", ca_file=tmp_path / "none.pem")])
    with pytest.raises(ConfigError, match=r"none\.pem"):
        await build(config)


async def test_a_fast_model_without_its_extra_is_told_by_its_key(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything starts, with what installs it."""
    monkeypatch.setitem(sys.modules, "httptools", None)
    config = WizardConfig(models=[evolve(remote("one"), transport="fast")])
    with pytest.raises(ConfigError, match=r"models\.one\.transport.*httptools.*pip install 'wizard-actors\[fast\]'"):
        await build(config)


async def test_a_provider_of_ones_own_takes_the_place_of_a_models(autojump_clock: MockClock) -> None:
    """Whatever the model's configuration says, and without an HTTP client of its own."""
    own = Scripted(says("mine"))
    config = WizardConfig(models=[remote("one"), remote("two", "anthropic")])
    async with ResilientClient.open(config, providers={"one": own, "two": own}) as client:
        assert (await client.generate("Why?", model="two")).text == "mine"


async def test_a_provider_for_no_model_is_a_mistake(autojump_clock: MockClock) -> None:
    """Left unsaid, the real one would be called in its place."""
    config = WizardConfig(models=[model("primary")])
    with pytest.raises(ConfigError, match="'pirmary'"):
        await build(config, {"pirmary": Scripted()})


async def test_a_disabled_model_may_stand_in_a_chain(autojump_clock: MockClock) -> None:
    """It is passed by, with the router and without."""
    config = WizardConfig(
        models=[model("off", enabled=False), model("a")], fallback=RouteConfig(name="wizard", chain=("off", "a"))
    )
    async with ResilientClient.open(config, providers={"a": Scripted(says("from a"))}) as client:
        calls = Calls()
        await calls.generate(client)
        client.supervisor.kill("router", RuntimeError("planted"))
        client.supervisor.kill("router", RuntimeError("planted"))
        await calls.generate(client)

        assert [answer.model for answer in calls.answers] == ["a", "a"]


async def test_making_a_client_sends_nothing(autojump_clock: MockClock) -> None:
    """Not to the upstream, and not to ask for its name."""
    clients = Clients()
    made = clients.get(remote("one"))
    assert isinstance(made, httpx.AsyncClient)
    assert made.trust_env is False
    await clients.aclose()


async def test_the_metrics_show_the_turns_in_progress(autojump_clock: MockClock) -> None:
    """And how many wait for one."""
    async with ResilientClient.open(WizardConfig(models=[model("a")])) as client, trio.open_nursery() as nursery:
        ref = client.supervisor.ref("sessions", SessionStoreState)
        lease = await ref.ask(Begin("alice", "r"))
        nursery.start_soon(ref.ask, Begin("alice", "waits"))
        await wait_all_tasks_blocked()

        gauges = client.metrics().gauges
        assert gauges is not None
        assert gauges.sessions == SessionGauges(turns=1, waiting=1)
        nursery.cancel_scope.cancel()
        ref.give_back(lease, End())


async def test_a_shared_limiter_is_as_patient_as_the_most_patient_of_its_models(autojump_clock: MockClock) -> None:
    """After a 429 that names no time, whichever of them is listed last."""
    quick, slow = RetryConfig(base_delay=0.1, max_delay=0.1), RetryConfig(base_delay=20.0, max_delay=20.0)
    for policies in ((quick, slow), (slow, quick)):
        models = [
            evolve(model(name, retry=policy), rate_limit_group="account")
            for name, policy in zip("ab", policies, strict=True)
        ]
        limited = Scripted(fails(RateLimitError("slow down", model="a")), says("yes"))
        async with client_of({"a": limited, "b": Scripted(says("yes"))}, *models) as client:
            with pytest.raises(WizardError):
                await client.generate("Why?", deadline=1.0)
            state = client.supervisor.ref("limits/account", LimiterState).published
            assert state is not None
            assert state.paused_until - trio.current_time() > 5.0
