"""The router: plans, bars, probes, and what it keeps over a crash."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from random import Random

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.models import model
from wizard_actors import AuthError, NetworkError, TokenLimitError, UnsupportedError
from wizard_actors.actor import ActorRef, Ledger, Reply
from wizard_actors.config import ModelConfig, SupportsConfig
from wizard_actors.mailbox import Mailbox
from wizard_actors.model_stats import ModelStats
from wizard_actors.needs import Needs
from wizard_actors.plan import Bar, Choice, Plan, Probe, Skip, Skipped, Why
from wizard_actors.routing import ClaimProbe, MakePlan, Observed, ProbeOver, Router, RouterState
from wizard_actors.supervisor import ChildSpec, GroupSpec, Supervisor

Ref = ActorRef[RouterState]

AUTH = AuthError("wrong key", model="a")
A, B = Choice("a", Why.IN_ORDER), Choice("b", Why.IN_ORDER)


@asynccontextmanager
async def router_of(*models: ModelConfig, seed: int = 1) -> AsyncIterator[tuple[Supervisor, Ref]]:
    """Run one router, of the models "a" and "b" where nothing else is said."""
    by_name = {config.name: config for config in models or (model("a"), model("b"))}
    rng = Random(seed)
    spec = ChildSpec("router", lambda ledger, carry: Router(by_name, rng, ledger, carry))
    async with Supervisor(GroupSpec("wizard", [spec])) as tree:
        yield tree, tree.ref("router", RouterState)


async def state(ref: Ref) -> RouterState:
    """Return what the router publishes once all is quiet."""
    await wait_all_tasks_blocked()
    published = ref.published
    assert published is not None
    return published


async def bars(ref: Ref) -> Mapping[str, Bar]:
    """Return the bars that the router publishes once all is quiet."""
    return (await state(ref)).bars


async def planned(ref: Ref, *, down: frozenset[str] = frozenset()) -> Plan:
    """Plan a request over "a" and "b"."""
    return await ref.ask(MakePlan(("a", "b"), down))


async def test_the_chains_order_is_the_plan(autojump_clock: MockClock) -> None:
    """Where nothing is known against a model."""
    async with router_of() as (_, ref):
        assert await planned(ref) == Plan((A, B))
        assert await ref.ask(MakePlan(("b", "a"))) == Plan((B, A))


async def test_what_cannot_help_is_left_out(autojump_clock: MockClock) -> None:
    """A model that is disabled, whose actors are down, or whose window is too small."""
    models = (model("a", window=100), model("b"), model("c", enabled=False))
    async with router_of(*models) as (_, ref):
        assert await planned(ref, down=frozenset({"a"})) == Plan((B,), (Skipped("a", Skip.DOWN),))
        needs = await ref.ask(MakePlan(("a", "b", "c"), needs=Needs(tokens=101)))
        assert needs == Plan((B,), (Skipped("a", Skip.TOO_LONG), Skipped("c", Skip.DISABLED)))


async def test_a_chain_that_cannot_help_at_all_says_why(autojump_clock: MockClock) -> None:
    """As an answer, not as a crash."""
    async with router_of(model("a", window=100), model("b", enabled=False)) as (tree, ref):
        with pytest.raises(TokenLimitError):
            await ref.ask(MakePlan(("a", "b"), needs=Needs(tokens=101)))
        with pytest.raises(UnsupportedError):
            await ref.ask(MakePlan(("b",)))
        assert tree.tree().children[0].restarts == 0


async def test_a_barring_error_bars_for_a_minute(autojump_clock: MockClock) -> None:
    """Then the model is planned as a probe, and an answer frees it."""
    async with router_of() as (_, ref):
        ref.tell(Observed("a", AUTH, started=0.0))
        assert await planned(ref) == Plan((B,), (Skipped("a", Skip.BARRED, 60.0),))
        assert (await bars(ref))["a"].reason == "auth"

        await trio.sleep(60.0)
        assert await planned(ref) == Plan((Choice("a", Why.PROBE), B))
        ref.tell(Observed("a", None, started=60.0))
        assert await planned(ref) == Plan((A, B))


async def test_old_news_changes_nothing(autojump_clock: MockClock) -> None:
    """A call that began before the model was barred proves nothing by its answer."""
    async with router_of() as (_, ref):
        await trio.sleep(5.0)
        ref.tell(Observed("a", AUTH, started=1.0))
        ref.tell(Observed("a", None, started=2.0))

        assert list(await bars(ref)) == ["a"]


async def test_one_request_probes_at_a_time(autojump_clock: MockClock) -> None:
    """Nobody else is given leave until it is over; what it taught or did not teach decides."""
    async with router_of() as (tree, ref):
        ref.tell(Observed("a", AUTH, started=0.0))
        assert await ref.ask(ClaimProbe("a")) is None
        await trio.sleep(60.0)
        probe = await ref.ask(ClaimProbe("a"))
        assert isinstance(probe, Probe)
        assert await ref.ask(ClaimProbe("a")) is None
        assert (await planned(ref)).skipped == (Skipped("a", Skip.PROBING, 60.0),)

        ref.give_back(probe, ProbeOver())
        second = await ref.ask(ClaimProbe("a"))
        assert isinstance(second, Probe)
        ref.tell(Observed("a", NetworkError("down", model="a"), started=60.0))
        ref.give_back(second, ProbeOver())

        assert await bars(ref) == {}
        assert tree.outstanding == {}


def test_a_probe_that_reaches_nobody_is_abandoned() -> None:
    """A caller that has left by the time it is given leave keeps nobody from probing."""
    router = Router({"a": model("a")}, Random(1), Ledger(), RouterState({"a": Bar(until=60.0, reason="auth")}))
    gone: Reply[Probe | None] = Reply(Mailbox("wizard/router", bound=1, tells=1))
    gone._abandon(None)

    router.claim_probe(ClaimProbe("a"), gone, 60.0)

    assert router.snapshot().bars["a"].probing is False


async def test_a_crash_keeps_the_bars_and_fences_the_probes(autojump_clock: MockClock) -> None:
    """What was learned stays; a probe of before may be made anew, and its end is ignored."""
    async with router_of() as (tree, ref):
        ref.tell(Observed("a", AUTH, started=0.0))
        await trio.sleep(60.0)
        old = await ref.ask(ClaimProbe("a"))
        assert isinstance(old, Probe)
        tree.kill("router", RuntimeError("planted"))
        await wait_all_tasks_blocked()

        assert tree.outstanding == {}
        new = await ref.ask(ClaimProbe("a"))
        assert isinstance(new, Probe)
        ref.give_back(old, ProbeOver())
        assert (await bars(ref))["a"].probing is True
        ref.give_back(new, ProbeOver())
        assert (await bars(ref))["a"].probing is False


async def test_what_was_observed_is_published_for_every_model(autojump_clock: MockClock) -> None:
    """Counts, costs and first tokens; a model that nobody has asked yet is there too."""
    async with router_of() as (_, ref):
        ref.tell(Observed("a", None, started=0.0, first_token=0.25, cost=Decimal("0.02")))
        ref.tell(Observed("a", NetworkError("down", model="a"), started=0.0))
        ref.tell(Observed("stranger", None, started=0.0))

        models = (await state(ref)).models
        assert set(models) == {"a", "b"}
        assert models["b"] == ModelStats()
        assert (models["a"].attempts, models["a"].successes, models["a"].failures) == (2, 1.0, 1.0)
        assert models["a"].cost_per_answer == 0.02


async def test_a_snapshot_stays_as_it_was(autojump_clock: MockClock) -> None:
    """What was published is a value, not a view of what comes later."""
    async with router_of() as (_, ref):
        before = await state(ref)
        ref.tell(Observed("a", AUTH, started=0.0))
        assert (await state(ref)) != before
        assert before == RouterState({}, {"a": ModelStats(), "b": ModelStats()})


async def test_a_cancelled_attempt_neither_bars_nor_frees(autojump_clock: MockClock) -> None:
    """A hedge's loser ended without an error, and proves nothing of the key."""
    async with router_of() as (_, ref):
        ref.tell(Observed("a", AUTH, started=0.0))
        ref.tell(Observed("a", None, started=0.0, cancelled=True))
        ref.tell(Observed("b", AuthError("late", model="b"), started=0.0, cancelled=True))
        assert list(await bars(ref)) == ["a"]


async def test_the_strategy_orders_the_plan(autojump_clock: MockClock) -> None:
    """By what has been observed, and by the models' prices."""
    async with router_of() as (_, ref):
        for _ in range(60):
            ref.tell(Observed("a", NetworkError("down", model="a"), started=0.0, first_token=3.0))
            ref.tell(Observed("b", None, started=0.0, cost=Decimal("0.5")))
        adaptive = await ref.ask(MakePlan(("a", "b"), strategy="adaptive"))
        cheapest = await ref.ask(MakePlan(("a", "b"), strategy="cheapest"))
        hedged = await ref.ask(MakePlan(("a", "b"), strategy="hedged", hedge_delay=1.0, hedge_quantile=0.9))

        assert adaptive == cheapest == Plan((B, A))
        assert hedged == Plan((A, B), hedge_delay=3.0)


async def test_a_model_that_cannot_do_what_is_needed_is_left_out(autojump_clock: MockClock) -> None:
    """By the models' `supports`."""
    blind = evolve(model("a"), supports=SupportsConfig(images=False))
    async with router_of(blind, model("b")) as (_, ref):
        made = await ref.ask(MakePlan(("a", "b"), needs=Needs(images=True)))
        assert made == Plan((B,), (Skipped("a", Skip.UNSUPPORTED, lacks=("images",)),))
        with pytest.raises(UnsupportedError, match="images"):
            await ref.ask(MakePlan(("a",), needs=Needs(images=True)))


async def test_a_crash_keeps_the_statistics(autojump_clock: MockClock) -> None:
    """They are in what the router published last."""
    async with router_of() as (tree, ref):
        ref.tell(Observed("a", None, started=0.0, first_token=0.25))
        before = await state(ref)
        tree.kill("router", RuntimeError("planted"))
        ref.tell(Observed("b", None, started=0.0))

        after = await state(ref)
        assert tree.tree().children[0].restarts == 1
        assert after.models["a"] == before.models["a"]
        assert after.models["b"].attempts == 1


def test_a_router_for_a_changed_configuration_adopts_what_still_exists() -> None:
    """A reload forgets the models that are gone, and only those."""
    learned = ModelStats(attempts=3, successes=2.0, at=5.0)
    old = RouterState({"a": Bar(60.0, "auth"), "gone": Bar(60.0, "auth")}, {"a": learned, "gone": learned})

    router = Router({"a": model("a"), "new": model("new")}, Random(1), Ledger(), old)

    assert router.snapshot() == RouterState({"a": Bar(60.0, "auth")}, {"a": learned, "new": ModelStats()})


async def test_equal_seeds_plan_equally(autojump_clock: MockClock) -> None:
    """Nothing but the generator that it is given decides the draws."""

    async def orders(seed: int) -> list[Plan]:
        async with router_of(seed=seed) as (_, ref):
            return [await ref.ask(MakePlan(("a", "b"), strategy="adaptive")) for _ in range(20)]

    assert await orders(3) == await orders(3)
    assert await orders(3) != await orders(4)
