"""Routing strategies: in which order the models of a route are tried, by ours or by one of your own.

A strategy is a plain synchronous object. For each request it gets the models that are suitable and free, with what is
known of each, and returns the names of those to try, in order. "adaptive" and "cheapest" are made so, and so is one of
your own, which the configuration names `custom:NAME` where code gives it to the client, and by its entry point's name
where an installed package offers it.
"""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Collection, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Final, Protocol, get_args

from attrs import field, frozen

from wizard_actors.config import CUSTOM_STRATEGY, PriceConfig, Strategy, WizardConfig
from wizard_actors.config.values import closest
from wizard_actors.errors import ConfigError, ConfigProblem
from wizard_actors.model_stats import ModelStats
from wizard_actors.needs import Needs
from wizard_actors.plugins import STRATEGIES, load

__all__ = [
    "CHAIN_ORDER",
    "ORDERS",
    "Adaptive",
    "Candidate",
    "Cheapest",
    "Planning",
    "RoutingStrategy",
    "checked_order",
    "known_strategies",
    "own_strategies",
    "strategy_problem",
]

CHAIN_ORDER: Final = frozenset({"sequential", "hedged", "parallel"})
"""The strategies that keep the chain's order, and differ in when the next model starts."""

OURS: Final[tuple[str, ...]] = get_args(Strategy)

TYPICAL_TOKENS: Final = (1000, 500)
"""In and out, for the price of a model whose answers' costs are not known."""

MILLION: Final = 1_000_000


@frozen
class Candidate:
    """A model that a request may try: it can answer the prompt, and nothing is known against asking it now.

    `place` is where it stands in the route's chain, 0 first; models that cannot be tried leave gaps. `probe`: its key,
    name or quota failed, its minute of rest is over, and the request that tries it finds out whether it works again.
    `price`, of a short prompt, and `context_window`, in tokens, are as configured, else as genai-prices has them, None
    where they are not known. `stats` is what was observed
    of it, as it counts now; in the beginning, nothing.
    """

    name: str
    place: int = 0
    probe: bool = False
    price: PriceConfig | None = None
    context_window: int | None = None
    stats: ModelStats = field(factory=ModelStats)


@frozen(kw_only=True)
class Planning:
    """One request that is being planned.

    `models` are the candidates in the chain's order, at least one, each once. `needs` is what the prompt needs of a
    model, and all of them have. `input_tokens` estimates the prompt's length, 0 where nobody has. `now` is the client's
    clock in seconds: it began anywhere, and is not the time of day. `rng` is for what is to be drawn, so that a client
    of the same seed draws the same.
    """

    models: tuple[Candidate, ...]
    needs: Needs = field(factory=Needs)
    input_tokens: int = 0
    now: float = 0.0
    rng: Random = field(eq=False)


class RoutingStrategy(Protocol):
    """Decides which models a request tries, and in which order.

    It is asked in the router's actor, once for each request and before anything is sent: all requests wait for as long
    as it thinks, so it neither waits nor reads nor computes for long. What it keeps between requests is its own, and
    outlives a restart of the router.
    """

    def order(self, planning: Planning) -> Sequence[str]:
        """Return the names of the models to try, in order: each is one of `planning.models`, and none is there twice.

        A model that is left out is not tried. Nothing at all means no opinion: then the chain's order is taken, for a
        request is not refused because of a preference. The chain's order is also taken where this raises an
        `Exception`, or returns what it must not: that is logged once, with the traceback, and counted in
        `RouterState.strategy_failures`.
        """


# -- ours


class Adaptive:
    """Thompson sampling: one value is drawn for each model from Beta(successes + 1, failures + 1), what is believed of
    its chance of success, and the highest goes first.
    """

    def order(self, planning: Planning) -> Sequence[str]:
        """Return all models; those that answered best lately are first more often."""
        drawn = {
            model.name: planning.rng.betavariate(model.stats.successes + 1.0, model.stats.failures + 1.0)
            for model in planning.models
        }
        return sorted(drawn, key=lambda name: -drawn[name])


class Cheapest:
    """By the expected cost of a success: what an answer costs, through the chance of one.

    The cost is the mean of the answers so far; where none is known, the price of 1,000 tokens in and 500 out, times
    what the other models' answers cost beside that same estimate of theirs. Models without a known price come after
    those with one, and models that hardly ever answer (`ModelStats.failing`) after all others, however cheap, until
    enough of their failures are old: a dead model is then tried again, once in a few minutes.
    """

    def order(self, planning: Planning) -> Sequence[str]:
        """Return all models, the cheapest first; of equals, the chain's first."""
        dearness = _dearness(planning.models)
        return sorted(dearness, key=lambda name: dearness[name])


ORDERS: Final[Mapping[str, RoutingStrategy]] = MappingProxyType({"adaptive": Adaptive(), "cheapest": Cheapest()})
"""Our strategies that do not keep the chain's order, by their names."""


def _dearness(models: Sequence[Candidate]) -> dict[str, tuple[bool, bool, float]]:
    """Return for each model whether it hardly ever answers, whether its price is unknown, and what a success costs."""
    seen = {model.name: model.stats.cost_per_answer for model in models}
    listed = {model.name: _listed_cost(model.price) for model in models}
    both = [(seen[name] or 0.0, listed[name] or 0.0) for name in seen if seen[name] is not None and listed[name]]
    scale = sum(cost for cost, _ in both) / sum(estimate for _, estimate in both) if both else 1.0
    dearness = {}
    for model in models:
        cost, estimate = seen[model.name], listed[model.name]
        if cost is None and estimate is not None:
            cost = estimate * scale
        dearness[model.name] = (model.stats.failing, cost is None, (cost or 0.0) / model.stats.success_chance)
    return dearness


def _listed_cost(price: PriceConfig | None) -> float | None:
    """Return what a typical answer costs by its price, in US dollars."""
    if price is None:
        return None
    given, answered = TYPICAL_TOKENS
    return float(given * price.input + answered * price.output) / MILLION


# -- what a strategy may answer


def checked_order(answer: object, offered: Sequence[str]) -> tuple[str, ...]:
    """Return what a strategy answered, once it is known to be an order of some of the models `offered`, or of none.

    The names returned are those of `offered`, and `answer` is gone through once: whatever kind of sequence or of text a
    strategy makes, what was looked at is what is returned. Raises `TypeError` or `ValueError`, saying what is wrong
    with it, and whatever `answer` itself raises.
    """
    if inspect.iscoroutine(answer):
        answer.close()
        raise TypeError("order() must be a plain function, not an async one: it is not awaited")
    if isinstance(answer, (str, bytes)) or not isinstance(answer, Sequence):
        raise TypeError(f"order() must return a list or a tuple of names, not {_shown(answer)}")
    left, order = {name: name for name in offered}, list[str]()
    for said in answer:
        name = left.pop(said, None) if isinstance(said, str) else None
        if name is None:
            if isinstance(said, str) and said in order:
                raise ValueError(f"order() must return a name once, not {said!r} again")
            raise ValueError(
                f"order() must return names of the models it was given ({', '.join(offered)}), not {_shown(said)}"
            )
        order.append(name)
    return tuple(order)


def _shown(value: object) -> str:
    return f"the {type(value).__name__} {reprlib.repr(value)}"


# -- which strategies there are


def own_strategies(
    config: WizardConfig,
    given: Mapping[str, RoutingStrategy] | None = None,
    loaded: Mapping[str, RoutingStrategy] | None = None,
) -> dict[str, RoutingStrategy]:
    """Return the strategies that are not ours, by the names that routes and requests call them: all that code has
    `given`, as `custom:NAME`, and those that routes of `config` name and installed packages offer. An entry point is a
    class, or another callable without arguments, and is called once for each client: `loaded` are those that the client
    has already, which are among what is returned.

    Raises `ConfigError` where a route names one that nobody gave, or one cannot be loaded, or is no strategy.
    """
    problems = [problem for name, strategy in (given or {}).items() for problem in _given_problems(name, strategy)]
    own = {CUSTOM_STRATEGY + str(name): strategy for name, strategy in (given or {}).items()} | dict(loaded or {})
    for key, name, route in _named(config):
        if name in OURS or name in own:
            continue
        try:
            own[name] = _offered(name, key, route, given or {})
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return own


def known_strategies(config: WizardConfig, given: Mapping[str, RoutingStrategy] | None = None) -> tuple[str, ...]:
    """Return what a request's `strategy=` may be in a client of `config` to which `given` was passed."""
    custom = [CUSTOM_STRATEGY + name for name in given or {}]
    return tuple(dict.fromkeys([*OURS, *custom, *(name for _, name, _ in _named(config))]))


def strategy_problem(name: object, known: Collection[str]) -> ConfigProblem | None:
    """Return what is wrong with a request's `strategy=`, None where it is one of `known`."""
    if isinstance(name, str) and name in known:
        return None
    meant = closest(name, known)
    hint = f"did you mean {meant!r}?" if meant else ""
    if isinstance(name, str) and not meant:
        plain = name.removeprefix(CUSTOM_STRATEGY)
        hint = f'one of your own is passed to `open(..., strategies={{"{plain}": ...}})`, or named by a route'
    return ConfigProblem("strategy", f"must be one of {', '.join(known)}, not {name!r}", hint)


def _named(config: WizardConfig) -> list[tuple[str, str, str]]:
    """Return for each route the key of its strategy, the strategy's name, and the route's."""
    keys = ["fallback.strategy", *(f"routes[{index}].strategy" for index in range(len(config.routes)))]
    routes = (config.fallback, *config.routes)
    return [(key, route.strategy, route.name) for key, route in zip(keys, routes, strict=True)]


def _given_problems(name: object, strategy: object) -> list[ConfigProblem]:
    if not isinstance(name, str) or not name.strip() or name != name.strip():
        return [
            ConfigProblem("strategies", f"names a strategy {name!r}", "a name is a text without spaces at its ends")
        ]
    key = f"strategies[{name!r}]"
    if name in OURS:
        return [ConfigProblem(key, "is a name of ours", "choose another name")]
    if name.startswith(CUSTOM_STRATEGY):
        plain = name.removeprefix(CUSTOM_STRATEGY)
        return [ConfigProblem(key, f"begins with {CUSTOM_STRATEGY!r}", f"here, its name is {plain!r}")]
    wrong = _wrong(strategy)
    return [ConfigProblem(key, *wrong)] if wrong is not None else []


def _offered(name: str, key: str, route: str, given: Mapping[str, RoutingStrategy]) -> RoutingStrategy:
    """Return the strategy that an installed package offers for `route`; raise where there is none."""
    if name.startswith(CUSTOM_STRATEGY):
        plain = name.removeprefix(CUSTOM_STRATEGY)
        hint = f'pass it to the client: `open(..., strategies={{"{plain}": ...}})`'
        if given:
            hint += f"; given: {', '.join(map(repr, given))}"
        raise ConfigError([ConfigProblem(key, f"of the route {route!r} is {name!r}, which nobody gave", hint)])
    make = load(STRATEGIES, name, key=key)
    if not callable(make):
        hint = "it has to be a class, or another callable without arguments"
        raise ConfigError([ConfigProblem(key, f"names {name!r}, whose entry point cannot be called", hint)])
    try:
        strategy: RoutingStrategy = make()
    except Exception as error:
        reason = f"names {name!r}, which cannot be made: {type(error).__name__}: {error}"
        raise ConfigError([ConfigProblem(key, reason, "its entry point is called without arguments")]) from error
    if (wrong := _wrong(strategy)) is not None:
        reason, hint = wrong
        raise ConfigError([ConfigProblem(key, f"names {name!r}, which {reason}", hint)])
    return strategy


def _wrong(strategy: object) -> tuple[str, str] | None:
    """Return what is wrong with a strategy, and what to do; None where it looks like one."""
    if inspect.iscoroutine(strategy):
        strategy.close()
        return "is a coroutine: an async function made it", "make it with a plain one, or name a class"
    if isinstance(strategy, type):
        return "is a class", f"give an instance of it: {strategy.__name__}(...)"
    order = getattr(strategy, "order", None)
    if not callable(order):
        return "is no strategy: it has no method `order`", "see `wizard_actors.strategies.RoutingStrategy`"
    if inspect.iscoroutinefunction(order):
        return "has an async `order`", "make it a plain function: it must not wait"
    return None
