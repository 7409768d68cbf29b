"""Routing strategies of one's own: what they are asked, what becomes of their answers, and how they are made known."""

import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from attrs import define, evolve, field
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.models import Scripted, fails, model, says
from wizard_actors import AuthError, ConfigError, NetworkError, ResilientClient, ServedBy, WizardConfig
from wizard_actors.actor import ActorRef
from wizard_actors.config import CacheConfig, PriceConfig, RouteConfig, SimulatedConfig, Strategy
from wizard_actors.events import EventStream, RequestBegan
from wizard_actors.model_stats import HALF_LIFE
from wizard_actors.needs import Needs
from wizard_actors.plan import Bar, Choice, ModelFacts, Plan, Skip, Skipped, Tactics, Why, plan
from wizard_actors.routing import MakePlan, Observed, Router, RouterState
from wizard_actors.strategies import (
    Adaptive,
    Candidate,
    Cheapest,
    Planning,
    RoutingStrategy,
    known_strategies,
    own_strategies,
    strategy_problem,
)
from wizard_actors.supervisor import ChildSpec, GroupSpec, Supervisor

CHAIN = ("a", "b", "c")
IN_ORDER = tuple(Choice(name, Why.IN_ORDER) for name in CHAIN)


@define
class Says:
    """A strategy that answers the same to everything, and keeps what it was asked."""

    answer: Any
    asked: list[Planning] = field(factory=list)

    def order(self, planning: Planning) -> Sequence[str]:
        self.asked.append(planning)
        answer: Sequence[str] = self.answer
        return answer


class Turns:
    """Gives each model the first place in turn."""

    def __init__(self) -> None:
        self.asked = 0

    def order(self, planning: Planning) -> Sequence[str]:
        names = [candidate.name for candidate in planning.models]
        first = self.asked % len(names)
        self.asked += 1
        return names[first:] + names[:first]


class Raises:
    """A strategy with a mistake in it."""

    def order(self, planning: Planning) -> Sequence[str]:
        raise ZeroDivisionError("a mistake of its own")


def planned(
    strategy: RoutingStrategy,
    facts: Mapping[str, ModelFacts] | None = None,
    *,
    needs: Needs | None = None,
    input_tokens: int = 0,
) -> Plan:
    """Plan over a, b and c, of which nothing else is known, by `strategy`."""
    known = {**dict.fromkeys(CHAIN, ModelFacts()), **(facts or {})}
    tactics = Tactics("custom:own", own=strategy)
    return plan(CHAIN, known, needs or Needs(), 1000.0, tactics=tactics, rng=Random(1), input_tokens=input_tokens)


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


# -- strategies that fail


@asynccontextmanager
async def router_of(**strategies: RoutingStrategy) -> AsyncIterator[tuple[Supervisor, ActorRef[RouterState]]]:
    """Run a router of a, b and c with strategies of one's own."""
    models = {name: model(name) for name in CHAIN}
    own = {f"custom:{name}": strategy for name, strategy in strategies.items()}
    spec = ChildSpec("router", lambda ledger, carry: Router(models, Random(1), ledger, carry, own))
    async with Supervisor(GroupSpec("wizard", [spec])) as tree:
        yield tree, tree.ref("router", RouterState)


async def failures(ref: ActorRef[RouterState]) -> Mapping[str, int]:
    """Return the strategies' failures as they are published once all is quiet."""
    await wait_all_tasks_blocked()
    assert ref.published is not None
    return ref.published.strategy_failures


def tracebacks(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged about strategies with a traceback."""
    return [
        record.getMessage() for record in caplog.records if record.name == "wizard_actors.routing" and record.exc_info
    ]


async def later() -> list[str]:
    """What an `async def order` would return."""
    return ["a"]


WRONG: dict[str, Callable[[], object]] = {
    "an unknown model": lambda: ["a", "z"],
    "a model that was not offered": lambda: ["b"],
    "a model twice": lambda: ["a", "c", "a"],
    "nothing": lambda: None,
    "a text": lambda: "a",
    "bytes": lambda: b"a",
    "a number": lambda: 7,
    "a set, which has no order": lambda: {"a", "c"},
    "a generator": lambda: (name for name in ["a"]),
    "names that are none": lambda: [["a"], None],
    "candidates": lambda: [Candidate("a")],
    "a coroutine": later,
}


@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG)
async def test_an_answer_that_is_no_order_changes_nothing(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, answer: Callable[[], object]
) -> None:
    """The chain's order is taken, it is counted and logged, and the router lives."""
    async with router_of(wrong=Says(answer())) as (tree, ref):
        made = await ref.ask(MakePlan(CHAIN, frozenset({"b"}), strategy="custom:wrong"))

        assert [choice.model for choice in made.choices] == ["a", "c"]
        assert await failures(ref) == {"custom:wrong": 1}
        assert tree.tree().children[0].restarts == 0
    [message] = tracebacks(caplog)
    assert "custom:wrong" in message


async def test_a_strategy_that_raises_fails_no_request(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Every time, it is asked again and counted; the log has it once, with the traceback."""
    async with router_of(bad=Raises(), good=Turns()) as (tree, ref):
        for _ in range(5):
            assert await ref.ask(MakePlan(CHAIN, strategy="custom:bad")) == Plan(IN_ORDER)
            await ref.ask(MakePlan(CHAIN, strategy="custom:good"))

        assert await failures(ref) == {"custom:bad": 5}
        assert tree.tree().children[0].restarts == 0
    [logged] = [record for record in caplog.records if record.name == "wizard_actors.routing"]
    assert logged.exc_info is not None
    assert logged.exc_info[0] is ZeroDivisionError


async def test_each_strategy_that_fails_is_logged(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Once each: one does not hide another."""
    async with router_of(one=Raises(), two=Says(None)) as (_, ref):
        for name in ("one", "two") * 2:
            await ref.ask(MakePlan(CHAIN, strategy=f"custom:{name}"))

        assert await failures(ref) == {"custom:one": 2, "custom:two": 2}
    assert len(tracebacks(caplog)) == 2


async def test_a_restart_of_the_router_forgets_no_failure(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """What was counted goes on, and what was logged is not logged again."""
    async with router_of(bad=Raises()) as (tree, ref):
        await ref.ask(MakePlan(CHAIN, strategy="custom:bad"))
        tree.kill("router", RuntimeError("planted"))
        await ref.ask(MakePlan(CHAIN, strategy="custom:bad"))

        assert await failures(ref) == {"custom:bad": 2}
    assert len(tracebacks(caplog)) == 1


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


def config_of(strategy: str = "custom:own", *, cache: int = 0) -> WizardConfig:
    """Return a configuration of a, b and c, all simulated, whose default route has this strategy."""
    return WizardConfig(
        models=[evolve(model(name), simulated=SimulatedConfig(first_token=0.1, per_chunk=0)) for name in CHAIN],
        fallback=RouteConfig(name="wizard", strategy=strategy),
        cache=CacheConfig(max_entries=cache),
    )


async def test_its_first_model_answers_directly(autojump_clock: MockClock) -> None:
    """An answer of the model that the strategy put first is no fallback; one of its second is."""
    providers = {"a": Scripted(says("A")), "b": Scripted(says("B")), "c": Scripted(says("C"))}
    broken = {**providers, "c": Scripted(fails(AuthError("bad key", model="c")))}
    for given, expected in ((providers, ("C", ServedBy.DIRECT)), (broken, ("B", ServedBy.FALLBACK))):
        own = {"own": Says(["c", "b"])}
        async with ResilientClient.open(config_of(), providers=given, strategies=own) as client:
            response = await client.generate("Why?")
            assert (response.text, response.served_by) == expected


async def test_a_strategy_that_fails_fails_no_request_of_a_client(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """All are answered, by the chain's first, and the router publishes how often it had to."""
    async with ResilientClient.open(config_of(), strategies={"own": Raises()}) as client:
        for _ in range(3):
            response = await client.generate("Why?")
            assert (response.model, response.served_by) == ("a", ServedBy.DIRECT)
        assert await failures(client.supervisor.ref("router", RouterState)) == {"custom:own": 3}
    assert len(tracebacks(caplog)) == 1


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


# -- which there are


def problem_of(make: Callable[[], object]) -> tuple[str, str]:
    """Return the key and the whole text of the one problem that is found."""
    with pytest.raises(ConfigError) as caught:
        make()
    [problem] = caught.value.problems
    return problem.key, f"{problem.reason}; {problem.hint}"


def test_a_strategy_that_nobody_gave_is_an_error_that_says_what_to_pass() -> None:
    """It names the route, the strategy and the argument."""
    key, said = problem_of(lambda: own_strategies(config_of("custom:night"), {"day": Turns()}))

    assert key == "fallback.strategy"
    assert "'wizard'" in said
    assert "'custom:night'" in said
    assert 'strategies={"night": ...}' in said
    assert "'day'" in said


async def test_a_client_does_not_open_without_it(autojump_clock: MockClock) -> None:
    """It is found when the client is opened, before anything is asked."""
    with pytest.raises(ConfigError, match="custom:own"):
        async with ResilientClient.open(config_of()):
            raise AssertionError("opened")


def test_every_route_is_looked_at() -> None:
    """A named route's strategy is missed like the default one's."""
    routes = [RouteConfig(name="fast", chain=("a", "b"), strategy="custom:night")]
    key, said = problem_of(lambda: own_strategies(evolve(config_of("sequential"), routes=routes)))

    assert key == "routes[0].strategy"
    assert "'fast'" in said


class Later:
    """A strategy that would have to be awaited."""

    async def order(self, planning: Planning) -> Sequence[str]:
        return []


NOT_ONE: dict[str, tuple[object, object, str]] = {
    "a class": ("own", Turns, "is a class"),
    "no method": ("own", object(), "no method `order`"),
    "a function": ("own", lambda planning: [], "no method `order`"),
    "async": ("own", Later(), "async"),
    "one of ours": ("adaptive", Turns(), "a name of ours"),
    "with the prefix": ("custom:own", Turns(), "its name is 'own'"),
    "no name": ("", Turns(), "a name is a text"),
    "no text": (7, Turns(), "a name is a text"),
}


@pytest.mark.parametrize(("name", "strategy", "reason"), NOT_ONE.values(), ids=NOT_ONE)
def test_what_is_no_strategy_is_refused_when_a_client_opens(name: object, strategy: object, reason: str) -> None:
    """Not when the first request comes; and no name of ours can be taken over."""
    given: Any = {name: strategy}
    _, said = problem_of(lambda: own_strategies(config_of("sequential"), given))

    assert reason in said


def test_what_a_request_may_name() -> None:
    """Ours, what was given, and what a route names."""
    known = known_strategies(config_of("custom:own"), {"own": Turns(), "night": Turns()})

    assert known == ("sequential", "parallel", "hedged", "adaptive", "cheapest", "custom:own", "custom:night")
    assert [strategy_problem(name, known) for name in known] == [None] * len(known)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("custom:nigth", "did you mean 'custom:night'?"),
        ("Adaptive", "did you mean 'adaptive'?"),
        ("custom:xyz", '"xyz": ...'),
        (7, "must be one of"),
        (["adaptive"], "must be one of"),
    ],
)
def test_a_request_that_names_another_is_told_what_there_is(name: object, said: str) -> None:
    """With what was probably meant."""
    problem = strategy_problem(name, known_strategies(config_of("sequential"), {"night": Turns()}))

    assert problem is not None
    assert problem.key == "strategy"
    assert said in f"{problem.reason}; {problem.hint}"


# -- in a configuration

TOML = """
models = [{{ name = "a", provider = "simulated" }}, {{ name = "b", provider = "simulated" }}]
fallback = {{ strategy = "{}" }}
"""


def test_a_configuration_names_one_that_code_gives() -> None:
    """It loads without the code; from a file, from the environment and from code alike."""
    assert WizardConfig.from_toml(TOML.format("custom:night"), env={}).fallback.strategy == "custom:night"
    env = {"WIZARD_FALLBACK_STRATEGY": "custom:night"}
    assert WizardConfig.from_toml(TOML.format("hedged"), env=env).fallback.strategy == "custom:night"
    built = ResilientClient.builder().with_model(model("a")).with_model(model("b"))
    assert built.with_fallback(strategy="custom:night").config().fallback.strategy == "custom:night"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("adaptiv", 'did you mean "adaptive"?'),
        ("custom", "custom:NAME"),
        ("custom:", "must not be empty"),
        ("custom: night", "without a space"),
        ("night", '"cheapest", or "custom:NAME"'),
    ],
)
def test_a_typo_is_found_while_the_configuration_is_loaded(name: str, said: str) -> None:
    """With what was probably meant."""
    key, found = problem_of(lambda: WizardConfig.from_toml(TOML.format(name), env={}))

    assert key == "fallback.strategy"
    assert said in found


def test_hedges_have_no_effect_beside_it() -> None:
    """As beside any strategy that waits until a model has been given up."""
    text = TOML.format("custom:night").replace(" }}\n", "").replace('night" }', 'night", hedge_delay = 2 }')
    key, said = problem_of(lambda: WizardConfig.from_toml(text, env={}))

    assert key == "fallback.hedge_delay"
    assert "custom:night" in said


# -- from an installed package


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, target: str, *, name: str = "night") -> None:
    """Install a package that offers a strategy: a module, and what says so."""
    (folder / "acme_night.py").write_text(
        "made = []\n"
        "class Night:\n"
        "    def __init__(self):\n"
        "        made.append(self)\n"
        "    def order(self, planning):\n"
        "        return [model.name for model in reversed(planning.models)]\n"
        "class Needy(Night):\n"
        "    def __init__(self, region):\n"
        "        self.region = region\n"
        "nothing = 7\n"
        "def useless():\n"
        "    return 7\n",
        encoding="utf-8",
    )
    info = folder / "acme_night-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-night\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[wizard_actors.strategies]\n{name} = {target}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "acme_night", raising=False)


async def test_an_installed_package_offers_one_by_its_name(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its plain name stands in the configuration, and it is made once for a client."""
    installed(tmp_path, monkeypatch, "acme_night:Night")
    config = config_of("night")

    async with ResilientClient.open(config) as client:
        responses = [await client.generate("Why?") for _ in range(2)]

    assert [response.model for response in responses] == ["c", "c"]
    assert len(sys.modules["acme_night"].made) == 1


def test_a_typo_of_its_name_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What packages offer is known while the configuration is loaded, though nothing of it is imported."""
    installed(tmp_path, monkeypatch, "acme_night:Night")

    _, said = problem_of(lambda: WizardConfig.from_toml(TOML.format("nigth"), env={}))

    assert 'did you mean "night"?' in said
    assert "acme_night" not in sys.modules


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("acme_night:Missing", "cannot be loaded"),
        ("acme_night:Needy", "called without arguments"),
        ("acme_night:nothing", "cannot be called"),
        ("acme_night:useless", "no method `order`"),
    ],
)
def test_a_package_whose_strategy_cannot_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, said: str
) -> None:
    """When a client opens, as an error of the configuration."""
    installed(tmp_path, monkeypatch, target)

    key, found = problem_of(lambda: own_strategies(config_of("night")))

    assert key == "fallback.strategy"
    assert said in found


@pytest.mark.parametrize("name", ["adaptive", "sequential"])
def test_no_package_takes_over_a_name_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Strategy) -> None:
    """Ours stays ours."""
    installed(tmp_path, monkeypatch, "acme_night:Night", name=name)

    assert own_strategies(config_of(name)) == {}
