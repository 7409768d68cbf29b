"""Plans for any route, orders by what was learned, and bars under any order of reports and probes."""

from itertools import pairwise
from random import Random

import pytest
from attrs import evolve, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from wizard_actors.config import PriceConfig, Strategy, SupportsConfig
from wizard_actors.errors import AuthError, NetworkError, TokenLimitError, UnsupportedError, WizardError
from wizard_actors.model_stats import HALF_LIFE, ModelStats, Wait
from wizard_actors.needs import Needs
from wizard_actors.plan import BARRED_FOR, Bar, Bars, ModelFacts, Plan, Probe, Skip, Tactics, Why, plan

pytestmark = pytest.mark.long

STATS = st.builds(
    ModelStats,
    successes=st.floats(0, 1000),
    failures=st.floats(0, 1000),
    mean_cost=st.floats(0, 1),
    priced=st.floats(0, 2),
    waits=st.lists(st.builds(Wait, st.floats(0, 5), st.booleans()), max_size=30).map(tuple),
    at=st.just(0.0),
)
PRICES = st.builds(PriceConfig, input=st.decimals(0, 50, places=2), output=st.decimals(0, 50, places=2))
FACTS = st.builds(
    ModelFacts,
    enabled=st.sampled_from([True, True, True, False]),
    down=st.sampled_from([False, False, False, True]),
    context_window=st.one_of(st.none(), st.integers(0, 30)),
    supports=st.builds(
        SupportsConfig, tools=st.sampled_from([True, True, False]), images=st.booleans(), schema=st.just(True)
    ),
    price=st.one_of(st.none(), PRICES),
    bar=st.one_of(st.none(), st.builds(Bar, st.integers(-10, 10).map(float), st.just("auth"), st.booleans())),
    stats=STATS,
)
NEEDS = st.builds(Needs, st.integers(0, 30), tools=st.booleans(), images=st.booleans(), schema=st.booleans())
STRATEGIES: tuple[Strategy, ...] = ("sequential", "parallel", "hedged", "adaptive", "cheapest")
TACTICS = st.builds(Tactics, st.sampled_from(STRATEGIES), st.floats(0, 10), st.one_of(st.none(), st.floats(0.01, 0.99)))
ROUTES = st.lists(FACTS, min_size=1, max_size=6).map(lambda facts: dict(zip("abcdef", facts, strict=False)))


def able(model: ModelFacts, needs: Needs) -> bool:
    """Say whether the model can do what is needed."""
    asked = [(needs.tools, model.supports.tools), (needs.images, model.supports.images)]
    return all(can or not need for need, can in asked)


def fits(model: ModelFacts, needs: Needs) -> bool:
    """Say whether the prompt is short enough for the model."""
    return model.context_window is None or needs.tokens <= model.context_window


@given(ROUTES, NEEDS, st.integers(-10, 10).map(float), TACTICS, st.integers())
def test_a_plan_tries_what_is_suitable_and_free(
    route: dict[str, ModelFacts], needs: Needs, now: float, tactics: Tactics, seed: int
) -> None:
    """Every model is tried or skipped, once; nothing unsuitable is ever tried; an error only where all are."""
    suitable = [name for name, model in route.items() if model.enabled and able(model, needs) and fits(model, needs)]
    free = [
        name
        for name in suitable
        if not route[name].down and ((bar := route[name].bar) is None or (now >= bar.until and not bar.probing))
    ]
    try:
        made = plan(tuple(route), route, needs, now, tactics=tactics, rng=Random(seed))
    except (TokenLimitError, UnsupportedError) as error:
        assert not suitable
        check_error(error, route, needs)
        return
    tried = [choice.model for choice in made.choices]
    assert sorted(tried + [skip.model for skip in made.skipped]) == sorted(route)
    assert [skip.model for skip in made.skipped] == sorted(skip.model for skip in made.skipped)
    if free:
        assert sorted(tried) == free
        assert tactics.strategy in {"adaptive", "cheapest"} or tried == free
        assert all((choice.why is Why.PROBE) is (route[choice.model].bar is not None) for choice in made.choices)
    else:
        check_last_resort(made, suitable, route)
    hedged = len(tried) > 1 and tactics.strategy in {"hedged", "parallel"}
    assert (made.hedge_delay is not None) is hedged


def check_error(error: TokenLimitError | UnsupportedError, route: dict[str, ModelFacts], needs: Needs) -> None:
    """Check that the error says what is in the way of all models."""
    enabled = {name: model for name, model in route.items() if model.enabled}
    if isinstance(error, TokenLimitError):
        assert all(able(model, needs) for model in enabled.values())
        largest = max(model.context_window or 0 for model in enabled.values())
        assert (error.max, error.requested) == (largest, needs.tokens)
    elif enabled:
        unable = [name for name, model in enabled.items() if not able(model, needs)]
        assert unable
        assert all(f"{name} does not support" in str(error) for name in unable)
        assert all(f"{name} takes at most" in str(error) for name in enabled if name not in unable)
    else:
        assert error.feature == "route"


def check_last_resort(made: Plan, suitable: list[str], route: dict[str, ModelFacts]) -> None:
    """Check that the only choice is the suitable model that is free soonest."""
    (choice,) = made.choices
    assert choice.why is Why.LAST_RESORT
    assert choice.model in suitable
    others = [skip for skip in made.skipped if skip.reason in {Skip.BARRED, Skip.PROBING}]
    bar = route[choice.model].bar
    assert not others or (bar is not None and all(bar.until <= (skip.until or 0.0) for skip in others))


@given(ROUTES, st.integers(), TACTICS)
def test_equal_seeds_make_equal_plans(route: dict[str, ModelFacts], seed: int, tactics: Tactics) -> None:
    """Nothing else decides."""
    route = {name: evolve(model, enabled=True) for name, model in route.items()}
    first, second = (plan(tuple(route), route, Needs(), 5.0, tactics=tactics, rng=Random(seed)) for _ in range(2))
    assert first == second


# -- the cheapest first


def success_costs(route: dict[str, ModelFacts], now: float) -> dict[str, tuple[int, float]]:
    """Return for each model to which class it belongs, and what a success costs in dollars."""
    left = 0.5 ** (now / HALF_LIFE)
    listed = {
        name: float(1000 * model.price.input + 500 * model.price.output) / 1e6
        for name, model in route.items()
        if model.price is not None
    }
    seen = {
        name: model.stats.mean_cost
        for name, model in route.items()
        if model.stats.mean_cost is not None and model.stats.priced * left >= 0.1
    }
    both = [name for name in seen if listed.get(name)]
    scale = sum(seen[name] for name in both) / sum(listed[name] for name in both) if both else 1.0
    costs = {}
    for name, model in route.items():
        good, bad = model.stats.successes * left, model.stats.failures * left
        chance = (good + 1) / (good + bad + 1)
        cost = seen.get(name, listed[name] * scale if name in listed else None)
        failing = good + bad >= 3 and good < 0.2 * (good + bad)
        costs[name] = (2 * failing + (cost is None), (cost or 0.0) / chance)
    return costs


@given(ROUTES, st.floats(0, 3000))
def test_the_cheapest_success_goes_first(route: dict[str, ModelFacts], now: float) -> None:
    """Failing models last, those without a known price behind those with one, of equals the chain's first."""
    route = {
        name: evolve(model, enabled=True, down=False, bar=None, context_window=None) for name, model in route.items()
    }
    made = plan(tuple(route), route, Needs(), now, tactics=Tactics("cheapest"), rng=Random(0))
    costs = success_costs(route, now)
    ranks = [(*costs[choice.model], choice.model) for choice in made.choices]
    for (kind, cost, name), (next_kind, next_cost, next_name) in pairwise(ranks):
        assert kind <= next_kind
        if kind == next_kind:
            assert cost <= next_cost * (1 + 1e-9)
            assert cost != next_cost or name < next_name


# -- the best first


@frozen
class World:
    """Models by their true rates of success, and the rate of requests a second."""

    rates: dict[str, float]
    per_second: float


def live(
    stats: dict[str, ModelStats], world: World, start: float, requests: int, rng: Random
) -> tuple[float, list[str]]:
    """Send requests to whatever is first, and to the next where that fails; return the time and who was first."""
    now, first = start, []
    for _ in range(requests):
        now += 1.0 / world.per_second
        facts = {name: ModelFacts(stats=stats[name]) for name in stats}
        made = plan(tuple(stats), facts, Needs(), now, tactics=Tactics("adaptive"), rng=rng)
        first.append(made.choices[0].model)
        for choice in made.choices:
            answered = rng.random() < world.rates[choice.model]
            error = None if answered else NetworkError("reset", model=choice.model)
            stats[choice.model] = stats[choice.model].observed(error, started=now, now=now)
            if answered:
                break
    return now, first


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("per_second", [1.0, 5.0])
def test_the_better_model_is_found_and_found_again(seed: int, per_second: float) -> None:
    """After 200 requests it is first in more than four of five plans; once the rates have swapped, it is so again
    within two half-lives, however long it had been otherwise.
    """
    rng = Random(seed)
    stats = {"bad": ModelStats(), "good": ModelStats()}
    world = World({"bad": 0.3, "good": 0.9}, per_second)
    now, _ = live(stats, world, 0.0, 200, rng)
    now, first = live(stats, world, now, 200, rng)
    assert first.count("good") > 160

    now, _ = live(stats, world, now, int(600 * per_second), rng)
    swapped = World({"bad": 0.9, "good": 0.3}, per_second)
    now, _ = live(stats, swapped, now, int(2 * HALF_LIFE * per_second), rng)
    _, first = live(stats, swapped, now, 200, rng)
    assert first.count("bad") > 160


ERRORS = st.sampled_from([None, NetworkError("reset", model="m"), AuthError("bad key", model="m")])


class Barring(RuleBasedStateMachine):
    """One model, requests that try it, and what they find out, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.bars = Bars()
        self.probes: list[Probe] = []
        self.attempts: list[float] = []
        self.changed_at = -1.0

    def bar(self) -> Bar | None:
        return self.bars.snapshot().get("m")

    @rule(step=st.integers(0, 70).map(float))
    def wait(self, step: float) -> None:
        self.now += step

    @rule()
    def send(self) -> None:
        self.attempts.append(self.now)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), error=ERRORS)
    def end(self, data: st.DataObject, error: WizardError | None) -> None:
        started = self.attempts.pop(data.draw(st.integers(0, len(self.attempts) - 1)))
        before = self.bar()
        self.bars.record("m", error, started=started, now=self.now)
        after = self.bar()
        if started < self.changed_at:
            assert after == before, "old news counted"
        elif error is not None and error.verdict.bars_model:
            assert after == Bar(self.now + BARRED_FOR, error.code)
            self.changed_at = self.now
        else:
            assert after is None
            if before is not None:
                self.changed_at = self.now

    @rule()
    def claim(self) -> None:
        before = self.bar()
        probe = self.bars.claim("m", self.now)
        free = before is None or (not before.probing and self.now >= before.until)
        assert (probe is not None) is free
        if probe is not None and before is not None:
            after = self.bar()
            assert after is not None
            assert after.probing
            self.probes.append(probe)

    @precondition(lambda self: self.probes)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        probe = self.probes.pop(data.draw(st.integers(0, len(self.probes) - 1)))
        before = self.bar()
        self.bars.abandon(probe)
        after = self.bar()
        assert (before is None) is (after is None)
        if before is not None and after is not None:
            assert after.until == before.until
            assert after.probing <= before.probing

    @invariant()
    def a_probe_that_blocks_others_is_out(self) -> None:
        bar = self.bar()
        assert bar is None or not bar.probing or self.probes

    def teardown(self) -> None:
        """Once every probe came back, somebody gets to try the model: it is never lost."""
        for probe in self.probes:
            self.bars.abandon(probe)
        assert self.bars.claim("m", self.now + BARRED_FOR) is not None


TestBarring = Barring.TestCase
TestBarring.settings = settings(stateful_step_count=40, max_examples=2 * settings().max_examples)
