"""The contract of routing strategies: good ones keep it, and each promise is broken by somebody."""

import itertools
import random
import time
import unittest
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest
from attrs import define, frozen

from wizard_actors.config import PriceConfig
from wizard_actors.strategies import Adaptive, Candidate, Cheapest, Planning, RoutingStrategy
from wizard_actors.testing.strategy import StrategyContract


def names(planning: Planning) -> list[str]:
    """Return the names in the chain's order."""
    return [candidate.name for candidate in planning.models]


# -- good ones


@frozen
class Canary:
    """Gives a share of the requests to one model first, and asks it last else."""

    model: str
    share: float

    def order(self, planning: Planning) -> Sequence[str]:
        others = [name for name in names(planning) if name != self.model]
        first = planning.rng.random() < self.share
        return [self.model, *others] if first and len(others) < len(planning.models) else others


class Turns:
    """Keeps something between requests: whose turn it is."""

    def __init__(self) -> None:
        self._turns = itertools.count()

    def order(self, planning: Planning) -> Sequence[str]:
        known = names(planning)
        first = next(self._turns) % len(known)
        return known[first:] + known[:first]


class TestAdaptive(StrategyContract):
    def make(self) -> RoutingStrategy:
        return Adaptive()


class TestCheapest(StrategyContract):
    def make(self) -> RoutingStrategy:
        return Cheapest()


class TestTurns(StrategyContract):
    def make(self) -> RoutingStrategy:
        return Turns()


class TestCanary(StrategyContract):
    def make(self) -> RoutingStrategy:
        return Canary("new", 0.05)

    def models(self) -> Sequence[Candidate]:
        price = PriceConfig(input=1, output=4)
        return [Candidate("old", price=price), Candidate("spare", price=price), Candidate("new")]


class TestByPlace(StrategyContract):
    """No two models of a chain have one place."""

    def make(self) -> RoutingStrategy:
        return Broken(by_place)


class OneAlone(StrategyContract):
    """A strategy that names one model on purpose."""

    falls_back = False

    def make(self) -> RoutingStrategy:
        return Broken(lambda planning: names(planning)[:1])


# -- bad ones


@define
class Broken:
    """A strategy that answers what a function does."""

    answer: Callable[[Planning], Any]

    def order(self, planning: Planning) -> Sequence[str]:
        answer: Sequence[str] = self.answer(planning)
        return answer


def slow(planning: Planning) -> list[str]:
    """Think for longer than is good."""
    until = time.perf_counter() + 0.005
    while time.perf_counter() < until:
        pass
    return names(planning)


def meddling(planning: Planning) -> list[str]:
    """Change what belongs to all."""
    object.__setattr__(planning.models[0], "place", 99)
    return names(planning)


def seeding(planning: Planning) -> list[str]:
    """Seed the generator of the whole client."""
    planning.rng.seed(1)
    return names(planning)


def restoring(planning: Planning) -> list[str]:
    """Put the generator of the whole client back."""
    planning.rng.setstate(Random(1).getstate())
    return names(planning)


class Remembering:
    """Thinks long, and remembers what it thought for one instant."""

    def __init__(self) -> None:
        self.at = -1.0

    def __call__(self, planning: Planning) -> list[str]:
        if planning.now != self.at:
            self.at = planning.now
            slow(planning)
        return names(planning)


def by_place(planning: Planning) -> list[str]:
    """Order by place, and rely on that no two models have the same."""
    places = {candidate.place: candidate.name for candidate in planning.models}
    assert len(places) == len(planning.models)
    return [places[place] for place in sorted(places)]


def priced(planning: Planning) -> list[str]:
    """Believe that every model has a price."""
    costs = {known.name: known.price.input for known in planning.models}  # type: ignore[union-attr] # the mistake
    return sorted(costs, key=lambda name: costs[name])


def shuffled(planning: Planning, rng: Random) -> list[str]:
    """Draw from elsewhere."""
    return rng.sample(names(planning), len(planning.models))


ELSEWHERE = Random(1)

BROKEN: dict[str, tuple[Callable[[Planning], Any], str, str]] = {
    "invents a model": (
        lambda planning: [*names(planning), "gpt"],
        "test_it_returns_some_of_the_models_it_is_given",
        "names of the models it was given .*not the str 'gpt'",
    ),
    "names one twice": (
        lambda planning: names(planning) * 2,
        "test_it_returns_some_of_the_models_it_is_given",
        "a name once, not '[abc]' again",
    ),
    "returns nothing": (
        lambda planning: None,
        "test_it_returns_some_of_the_models_it_is_given",
        "must return a list",
    ),
    "has all its models at hand": (
        lambda planning: ["a", "b", "c"],
        "test_it_returns_some_of_the_models_it_is_given",
        "it was given",
    ),
    "needs two": (
        lambda planning: [names(planning)[1], names(planning)[0]],
        "test_it_bears_one_model_and_many",
        "IndexError",
    ),
    "knows the models of today": (
        lambda planning: sorted(names(planning), key={"a": 0, "b": 1, "c": 2}.__getitem__),
        "test_it_bears_one_model_and_many",
        "KeyError: 'stranger-0'",
    ),
    "relies on prices": (
        priced,
        "test_it_bears_what_is_not_known",
        "AttributeError",
    ),
    "relies on successes": (
        lambda planning: [name for _, name in sorted((1 / c.stats.successes, c.name) for c in planning.models)],
        "test_it_bears_extremes",
        "ZeroDivisionError",
    ),
    "meddles": (meddling, "test_it_changes_nothing_of_what_it_is_given", "changed what it was given"),
    "seeds": (seeding, "test_it_changes_nothing_of_what_it_is_given", "seeded"),
    "restores": (restoring, "test_it_changes_nothing_of_what_it_is_given", "set its state"),
    "draws from elsewhere": (
        lambda planning: shuffled(planning, ELSEWHERE),
        "test_equal_seeds_order_equally",
        "draw from `planning.rng` alone",
    ),
    "is slow": (slow, "test_it_is_quick", r"mostly takes \d+\.\d ms"),
    "is slow at each new instant": (Remembering(), "test_it_is_quick", r"mostly takes \d+\.\d ms"),
    "fails now and then": (
        lambda planning: names(planning) if planning.now < 10 else None,
        "test_a_client_answers_all_requests_by_it",
        "failed 20 times in 30 requests",
    ),
    "leaves nobody to fall back on": (
        lambda planning: names(planning)[:1],
        "test_a_client_falls_back_where_a_model_is_dead",
        "only the model 'a' is dead",
    ),
}


def contract_of(answer: Callable[[Planning], Any]) -> StrategyContract:
    """Return the contract of a strategy that answers so."""

    class Contract(StrategyContract):
        def make(self) -> RoutingStrategy:
            return Broken(answer)

    return Contract()


@pytest.mark.parametrize(("answer", "promise", "said"), BROKEN.values(), ids=BROKEN)
def test_a_broken_promise_is_found(answer: Callable[[Planning], Any], promise: str, said: str) -> None:
    """By the test of that promise, which says what is wrong."""
    with pytest.raises(AssertionError, match=said):
        getattr(contract_of(answer), promise)()


def test_every_promise_can_be_broken() -> None:
    """There is somebody who breaks it."""
    promises = {name for name in dir(StrategyContract) if name.startswith("test_")}

    assert promises == {promise for _, promise, _ in BROKEN.values()}


@pytest.mark.parametrize("models", [[], [Candidate("a")], [Candidate("a"), Candidate("a")]])
def test_a_contract_needs_two_models(models: list[Candidate]) -> None:
    """Of one there is no order."""

    class Contract(TestCheapest):
        def models(self) -> Sequence[Candidate]:
            return models

    with pytest.raises(AssertionError, match="two models at least"):
        Contract().test_it_returns_some_of_the_models_it_is_given()


def test_a_contract_without_a_strategy_says_what_to_fill_in() -> None:
    """`make` has to be written."""
    with pytest.raises(NotImplementedError, match="`make` returns the strategy"):
        StrategyContract().test_it_is_quick()


def test_unittest_runs_a_contract() -> None:
    """It needs no pytest."""

    class Case(OneAlone, unittest.TestCase):
        pass

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)

    assert (result.errors, result.failures) == ([], [])
    assert result.testsRun == 9
    assert len(result.skipped) == 1


def test_the_module_random_is_left_alone() -> None:
    """A contract draws from generators of its own: whoever runs it may draw too."""
    random.seed(3)
    before = random.getstate()

    TestAdaptive().test_equal_seeds_order_equally()

    assert random.getstate() == before
