"""What a routing strategy of your own has to keep to, as tests: subclass `StrategyContract`, and run it with pytest or
unittest.

    class TestCanary(StrategyContract):
        def make(self) -> Canary:
            return Canary("new", share=0.05)

        def models(self) -> Sequence[Candidate]:
            return [Candidate("old"), Candidate("new")]

Each test makes strategies of its own, and asks them about plannings that are drawn from seeds: any part of the models,
each known well, badly, by extremes or not at all.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import deepcopy
from random import Random
from statistics import median
from typing import ClassVar, Final
from unittest import SkipTest

import trio
from attrs import evolve
from trio.testing import MockClock

from wizard_actors.client import ResilientClient
from wizard_actors.config import (
    ModelConfig,
    PriceConfig,
    RetryConfig,
    RouteConfig,
    ScriptStep,
    SimulatedConfig,
    WizardConfig,
)
from wizard_actors.errors import WizardError
from wizard_actors.model_stats import WINDOW, ModelStats, Wait
from wizard_actors.needs import Needs
from wizard_actors.routing import RouterState
from wizard_actors.strategies import Candidate, Planning, RoutingStrategy, checked_order

__all__ = ["StrategyContract"]

NAME: Final = "tested"
MANY: Final = 50
TIMED: Final = 20
REQUESTS: Final = 30
FOR_EVER: Final = 1_000_000
NOW: Final = 1000.0

EXTREMES: Final = (
    ModelStats(attempts=10**9, successes=1e9, mean_cost=0.0, priced=1e9, waits=(Wait(0.0),) * WINDOW, at=NOW),
    ModelStats(attempts=10**9, failures=1e9, at=NOW),
    ModelStats(attempts=10**9, successes=1e-9, failures=1e9, mean_cost=1e9, priced=1e-9, at=NOW),
    ModelStats(attempts=WINDOW, waits=(Wait(1e6, broken_off=True),) * WINDOW, at=NOW),
    ModelStats(attempts=WINDOW, successes=1.0, waits=(Wait(1e6),) * WINDOW, at=NOW),
)
"""What no model does, and a strategy has to bear: calls that all succeed or all fail, for nothing or for a fortune, at
once or after a week.
"""


class StrategyContract:
    """The promises of a routing strategy. `make` has to be filled in, `models` where it knows some by name.

    `seeds` plannings are drawn for each promise. `order_within` is in seconds: far longer than an order may take, for
    every request of a client waits for it. `falls_back`: set it to False for a strategy that leaves out so many models
    that a request fails with the first it tries.
    """

    seeds: ClassVar[int] = 100
    order_within: ClassVar[float] = 0.002
    falls_back: ClassVar[bool] = True

    # -- to be filled in

    def make(self) -> RoutingStrategy:
        """Return a new strategy, as a program gives it to its client; its clock, where it has one, stands still."""
        raise NotImplementedError("`make` returns the strategy")

    def models(self) -> Sequence[Candidate]:
        """Return the models of a route that it is made for, two at least, in the chain's order. Their `stats`, `place`
        and `probe` are replaced.
        """
        cheap, dear = PriceConfig(input=1, output=4), PriceConfig(input=10, output=40)
        return [Candidate("a", price=dear), Candidate("b", price=cheap), Candidate("c")]

    # -- the promises

    def test_it_returns_some_of_the_models_it_is_given(self) -> None:
        """Each name is one of `planning.models`, and none is there twice."""
        strategy = self.make()
        for seed in range(self.seeds):
            self._order(strategy, self._planning(seed))

    def test_it_bears_one_model_and_many(self) -> None:
        """A chain has any length, and models that it has never heard of."""
        strategy = self.make()
        strangers = [Candidate(f"stranger-{place}", place=place) for place in range(MANY)]
        for model in (*self._route(), *strangers[:1]):
            self._order(strategy, Planning(models=(model,), now=NOW, rng=Random(0)))
        self._order(strategy, Planning(models=tuple(strangers), now=NOW, rng=Random(0)))

    def test_it_bears_what_is_not_known(self) -> None:
        """In the beginning there are no statistics, and perhaps no prices, no windows, no estimate."""
        bare = tuple(Candidate(model.name, place=model.place) for model in self._route())
        self._order(self.make(), Planning(models=bare, rng=Random(0)))

    def test_it_bears_extremes(self) -> None:
        """Models that never failed, never answered, cost nothing or a fortune, or let wait for a week."""
        strategy = self.make()
        for index in range(len(EXTREMES)):
            turned = EXTREMES[index:] + EXTREMES[:index]
            mixed = tuple(
                evolve(model, stats=turned[place % len(turned)], probe=place % 2 == 0)
                for place, model in enumerate(self._route())
            )
            same = tuple(evolve(model, stats=EXTREMES[index]) for model in self._route())
            for models in (mixed, same):
                self._order(strategy, Planning(models=models, input_tokens=10**9, now=NOW, rng=Random(index)))

    def test_it_changes_nothing_of_what_it_is_given(self) -> None:
        """What it is given belongs to all requests; of `rng` it draws, and neither seeds nor sets it."""
        strategy = self.make()
        for seed in range(self.seeds):
            rng = _Draws(seed)
            planning = evolve(self._planning(seed), rng=rng)
            before = deepcopy(evolve(planning, rng=Random(0)))
            self._order(strategy, planning)
            assert planning == before, f"planning {seed}: order() changed what it was given; it may only read it"
            assert not rng.seeded, (
                f"planning {seed}: order() seeded `planning.rng`, or set its state, though the whole client draws from "
                "it; draw from it only"
            )

    def test_equal_seeds_order_equally(self) -> None:
        """All that is drawn is drawn from `planning.rng`: two strategies that meet the same decide the same."""
        first, second = self.make(), self.make()
        for seed in range(self.seeds):
            order, again = (self._order(strategy, self._planning(seed)) for strategy in (first, second))
            assert order == again, (
                f"planning {seed}: two strategies of one kind, which met the same, answered {list(order)} and "
                f"{list(again)}; draw from `planning.rng` alone, order nothing by `id`, and let `make` return a "
                "strategy with a clock that stands still"
            )

    def test_it_is_quick(self) -> None:
        """Half of some orders of many models, about which something new is known each time, take no longer than
        `order_within`.
        """
        strategy, took = self.make(), list[float]()
        known = ModelStats(attempts=WINDOW, successes=50.0, failures=5.0, waits=(Wait(0.5),) * WINDOW)
        for seed in range(TIMED):
            stats = evolve(known, successes=50.0 + seed, at=NOW + seed)
            models = tuple(Candidate(f"model-{place}", place=place, stats=stats) for place in range(MANY))
            planning = Planning(models=models, now=NOW + seed, rng=Random(seed))
            began = time.perf_counter()
            strategy.order(planning)
            took.append(time.perf_counter() - began)
        half = median(took)
        assert half <= self.order_within, (
            f"order() of {MANY} models mostly takes {half * 1e3:.1f} ms, more than {self.order_within * 1e3:g} ms: "
            "every request waits for it; compute elsewhere what takes long, or set `order_within`"
        )

    def test_a_client_answers_all_requests_by_it(self) -> None:
        """Behind a real client, its order is taken for every request, and all are answered."""
        self._play(dead=None)

    def test_a_client_falls_back_where_a_model_is_dead(self) -> None:
        """Whichever model of the route fails for good, another one that it has named answers."""
        if not self.falls_back:
            raise SkipTest("`falls_back` is False: the strategy leaves nobody to fall back on")
        for model in self._route():
            self._play(dead=model.name)

    # -- how they are asked

    def _route(self) -> tuple[Candidate, ...]:
        models = self.models()
        names = {model.name for model in models}
        assert len(names) == len(models) >= 2, "`models` returns two models at least, each name once"
        return tuple(
            Candidate(model.name, place=place, price=model.price, context_window=model.context_window)
            for place, model in enumerate(models)
        )

    def _planning(self, seed: int) -> Planning:
        """Draw a planning over a part of the models."""
        rng = Random(seed)
        models = tuple(model for model in self._route() if rng.random() < 0.8) or self._route()[:1]
        return Planning(
            models=tuple(evolve(model, stats=_stats(rng), probe=rng.random() < 0.1) for model in models),
            needs=Needs(tokens=rng.choice((0, 10, 10_000)), tools=rng.random() < 0.2, images=rng.random() < 0.2),
            input_tokens=rng.choice((0, 20, 20_000)),
            now=NOW + seed,
            rng=Random(seed),
        )

    def _order(self, strategy: RoutingStrategy, planning: Planning) -> tuple[str, ...]:
        """Return the order; what it must not do fails the test."""
        names = [model.name for model in planning.models]
        offered = ", ".join(names)
        try:
            answer: object = strategy.order(planning)
        except Exception as error:
            raise AssertionError(
                f"asked to order {offered}, order() raised {type(error).__name__}: {error}; a client would take the "
                "chain's order in its place: return some order for whatever is known of the models"
            ) from error
        try:
            return checked_order(answer, names)
        except Exception as error:
            raise AssertionError(
                f"asked to order {offered}: {error}; a client would take the chain's order in its place"
            ) from error

    def _play(self, *, dead: str | None) -> None:
        """Ask a client of simulated models, of which `dead` always fails."""
        route = self._route()
        config = WizardConfig(
            models=[_simulated(model, dead=model.name == dead) for model in route],
            fallback=RouteConfig(name="wizard", strategy=f"custom:{NAME}"),
        )
        strategy = self.make()

        async def requests() -> RouterState | None:
            async with ResilientClient.open(config, rng=Random(1), strategies={NAME: strategy}) as client:
                for number in range(REQUESTS):
                    try:
                        response = await client.generate(f"question {number}")
                    except WizardError as error:
                        what = "no model is dead" if dead is None else f"only the model {dead!r} is dead"
                        raise AssertionError(
                            f"request {number} failed, though {what}: {error}; name more models than one, or set "
                            "`falls_back = False` where that is meant"
                        ) from error
                    assert response.model != dead
                    await trio.sleep(1.0)
                return client.supervisor.ref("router", RouterState).published

        state: RouterState | None = trio.run(requests, clock=MockClock(autojump_threshold=0))
        assert state is not None, "the router has published nothing"
        failures = state.strategy_failures.get(f"custom:{NAME}", 0)
        assert not failures, (
            f"behind a client, order() failed {failures} times in {REQUESTS} requests, and the chain's order was taken "
            "in its place: the log of `wizard_actors.routing` has the first traceback"
        )


class _Draws(Random):
    """A generator that notices whether anybody has seeded it, or put another state into it."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.seeded = False

    def seed(self, a: object = None, version: int = 2) -> None:
        self.seeded = True
        super().seed(repr(a), version)  # any seed will do, and a text is one for all versions

    def setstate(self, state: tuple[object, ...]) -> None:
        self.seeded = True
        super().setstate(state)


def _stats(rng: Random) -> ModelStats:
    """Draw what is known of a model: nothing, something, or an extreme."""
    kind = rng.random()
    if kind < 0.2:
        return ModelStats()
    if kind < 0.4:
        return rng.choice(EXTREMES)
    waits = tuple(Wait(rng.expovariate(1.0), broken_off=rng.random() < 0.1) for _ in range(rng.choice((0, 5, 40))))
    return ModelStats(
        attempts=rng.randrange(1000),
        successes=rng.uniform(0, 100),
        failures=rng.choice((0.0, rng.uniform(0, 100))),
        mean_cost=rng.choice((None, rng.expovariate(100.0))),
        priced=rng.uniform(0, 10),
        waits=waits,
        at=NOW,
    )


def _simulated(model: Candidate, *, dead: bool) -> ModelConfig:
    script = [ScriptStep(fault="error", times=FOR_EVER)] if dead else []
    return ModelConfig(
        name=model.name,
        provider="simulated",
        price=model.price,
        context_window=model.context_window,
        retry=RetryConfig(max_attempts=1, base_delay=0.0),
        simulated=SimulatedConfig(script=script, first_token=0.01, per_chunk=0.0),
    )
