"""Routing strategies of one's own: what they are asked, and what becomes of their answers."""

from decimal import Decimal
from random import Random

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.models import Scripted, fails, says
from tests.strategies import CHAIN, IN_ORDER, Says, Turns, config_of, planned, router_of
from wizard_actors import AuthError, ConfigError, NetworkError, ResilientClient, ServedBy
from wizard_actors.config import PriceConfig
from wizard_actors.event_stream import EventStream
from wizard_actors.events import RequestBegan
from wizard_actors.model_stats import HALF_LIFE
from wizard_actors.needs import Needs
from wizard_actors.plan import Bar, Choice, ModelFacts, Plan, Skip, Skipped, Why
from wizard_actors.routing import MakePlan, Observed
from wizard_actors.strategies import Adaptive, Candidate, Cheapest, Planning

# -- what a strategy is asked


def test_a_strategy_learns_what_is_known_of_each_model() -> None:
    """Name, place, price, window, statistics of now, and whether it is a probe; and what the prompt needs."""
    strategy, price = Says(()), PriceConfig(input=1, output=2)
    stats = evolve(ModelFacts().stats, attempts=8, successes=8.0, at=1000.0 - HALF_LIFE)
    facts = {
        "a": ModelFacts(enabled=False),
        "b": ModelFacts(price=price, context_window=100, stats=stats),
        "c": ModelFacts(bar=Bar(900.0, "auth")),
    }

    planned(strategy, facts, needs=Needs(tokens=7), input_tokens=9)

    [planning] = strategy.asked
    b, c = planning.models
    assert b == Candidate("b", 1, price=price, context_window=100, stats=evolve(stats, successes=4.0, at=1000.0))
    assert (c.name, c.place, c.probe) == ("c", 2, True)
    assert (planning.needs, planning.input_tokens, planning.now) == (Needs(tokens=7), 9, 1000.0)


def test_the_models_are_tried_in_its_order() -> None:
    """The first of its names first."""
    assert [choice.model for choice in planned(Says(["c", "a", "b"])).choices] == ["c", "a", "b"]
    assert [choice.model for choice in planned(Says(("b", "c", "a"))).choices] == ["b", "c", "a"]


def test_a_model_that_it_leaves_out_is_not_tried() -> None:
    """The plan says so, beside those that could not be."""
    made = planned(Says(["c"]), {"b": ModelFacts(down=True)})

    assert made.choices == (Choice("c", Why.IN_ORDER),)
    assert made.skipped == (Skipped("a", Skip.NOT_CHOSEN), Skipped("b", Skip.DOWN))


def test_no_names_are_no_opinion() -> None:
    """A preference refuses no request: the chain's order is taken."""
    assert planned(Says([])) == Plan(IN_ORDER)


def test_a_probe_stays_one_wherever_it_is_put() -> None:
    """It is claimed before it is tried, as in the chain's order."""
    made = planned(Says(["b", "a"]), {"a": ModelFacts(bar=Bar(900.0, "auth"))})

    assert made.choices == (Choice("b", Why.IN_ORDER), Choice("a", Why.PROBE))


def test_it_is_not_asked_about_the_last_resort() -> None:
    """Where no model is free, there is nothing to choose among."""
    strategy, bar = Says(["a"]), ModelFacts(bar=Bar(2000.0, "auth"))

    made = planned(strategy, {"a": bar, "b": evolve(bar, bar=Bar(1500.0, "auth")), "c": bar})

    assert [choice.why for choice in made.choices] == [Why.LAST_RESORT]
    assert strategy.asked == []


def test_ours_are_strategies_like_any_other() -> None:
    """One of your own can ask them, about all the models or about some."""
    cheap, dear = PriceConfig(input=1, output=1), PriceConfig(input=5, output=5)
    models = (Candidate("a", price=dear), Candidate("b", price=cheap))

    assert Cheapest().order(Planning(models=models, rng=Random(1))) == ["b", "a"]
    assert sorted(Adaptive().order(Planning(models=models, rng=Random(1)))) == ["a", "b"]
    assert Cheapest().order(Planning(models=(), rng=Random(1))) == []


# -- by a router


async def test_a_strategy_outlives_the_router(autojump_clock: MockClock) -> None:
    """What it keeps between requests is as it was: it is the same object."""
    async with router_of(turns=Turns()) as (tree, ref):
        first = await ref.ask(MakePlan(CHAIN, strategy="custom:turns"))
        tree.kill("router", RuntimeError("planted"))
        second = await ref.ask(MakePlan(CHAIN, strategy="custom:turns"))

        assert tree.tree().children[0].restarts == 1
    assert (first.choices[0].model, second.choices[0].model) == ("a", "b")


async def test_a_strategy_sees_what_was_observed(autojump_clock: MockClock) -> None:
    """The router's statistics, as they count when it is asked."""
    strategy = Says([])
    async with router_of(own=strategy) as (_, ref):
        ref.tell(Observed("b", NetworkError("down", model="b"), started=0.0))
        ref.tell(Observed("c", None, started=0.0, cost=Decimal("0.5")))
        await trio.sleep(HALF_LIFE)
        await ref.ask(MakePlan(CHAIN, strategy="custom:own", input_tokens=12))

    [planning] = strategy.asked
    a, b, c = planning.models
    assert a.stats.attempts == 0
    assert b.stats.failures == pytest.approx(0.5)
    assert c.stats.mean_cost == 0.5
    assert planning.input_tokens == 12


# -- behind a client


async def test_its_first_model_answers_directly(autojump_clock: MockClock) -> None:
    """An answer of the model that the strategy put first is no fallback; one of its second is."""
    providers = {"a": Scripted(says("A")), "b": Scripted(says("B")), "c": Scripted(says("C"))}
    broken = {**providers, "c": Scripted(fails(AuthError("bad key", model="c")))}
    for given, expected in ((providers, ("C", ServedBy.DIRECT)), (broken, ("B", ServedBy.FALLBACK))):
        own = {"own": Says(["c", "b"])}
        async with ResilientClient.open(config_of(), providers=given, strategies=own) as client:
            response = await client.generate("Why?")
            assert (response.text, response.served_by) == expected


async def test_what_a_prompt_is_estimated_at_reaches_it(autojump_clock: MockClock) -> None:
    """So that long prompts can take another way."""
    strategy = Says([])
    async with ResilientClient.open(config_of(), strategies={"own": strategy}) as client:
        await client.generate("word " * 1000)

    assert strategy.asked[0].input_tokens >= 1000


async def test_events_name_it(autojump_clock: MockClock) -> None:
    """A request's beginning says how its route is gone."""
    events, seen = EventStream(), list[object]()
    events.listen(seen.append)
    async with ResilientClient.open(config_of(), strategies={"own": Says([])}, events=events) as client:
        await client.generate("Why?")

    assert [event.strategy for event in seen if isinstance(event, RequestBegan)] == ["custom:own"]


async def test_equal_questions_under_it_share_one_call(autojump_clock: MockClock) -> None:
    """Calls are shared, and answers cached, as under any strategy."""
    strategy = Says(["b"])
    async with ResilientClient.open(config_of(cache=10), strategies={"own": strategy}) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(client.generate, "Why?")
        response = await client.generate("Why?")

    assert (response.model, response.served_by) == ("b", ServedBy.CACHE)
    assert len(strategy.asked) == 1


async def test_a_request_may_name_one_that_no_route_does(autojump_clock: MockClock) -> None:
    """What was given to the client is there for every request; anything else is refused before anything is sent."""
    night = Says(["b"])
    async with ResilientClient.open(config_of("sequential"), strategies={"night": night}) as client:
        response = await client.generate("Why?", strategy="custom:night")
        with pytest.raises(ConfigError, match="did you mean 'custom:night'"):
            await client.generate("Why?", strategy="custom:nigth")

    assert (response.model, response.served_by) == ("b", ServedBy.DIRECT)
    assert len(night.asked) == 1


async def test_while_the_router_is_down_the_chain_has_to_do(autojump_clock: MockClock) -> None:
    """Nobody asks the strategy then."""
    strategy = Says(["c"])
    async with ResilientClient.open(config_of(), strategies={"own": strategy}) as client:
        for _ in range(20):
            client.supervisor.kill("router", RuntimeError("planted"))
            await wait_all_tasks_blocked()
        response = await client.generate("Why?")

    assert (response.model, response.served_by) == ("a", ServedBy.DIRECT)
    assert strategy.asked == []
