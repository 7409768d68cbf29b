"""The core of routing: which models a request tries, in which order, and which are left out for a while.

The order is the chain's, or that of a strategy (`wizard_actors.strategies`), which decides among the models that are
suitable and free.

A model is barred where its key, its name or its quota failed: asking again cannot help before a person does something.
It is barred for a minute; then one request probes it while the others go on without it.

    free ──barring error──> barred ──a minute──> expired ──claimed──> probing ──any other end──> free
                               ^                    ^                    │
                               │                    └──────abandoned─────┤
                               └───────────────────────barring error─────┘
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from random import Random
from types import MappingProxyType
from typing import Final

from attrs import evolve, field, frozen

from wizard_actors.config import PriceConfig, SupportsConfig
from wizard_actors.errors import TokenLimitError, UnsupportedError, WizardError
from wizard_actors.model_stats import ModelStats
from wizard_actors.needs import Needs
from wizard_actors.strategies import ORDERS, Candidate, Planning, RoutingStrategy

__all__ = [
    "BARRED_FOR",
    "Bar",
    "Bars",
    "Choice",
    "ModelFacts",
    "Plan",
    "Probe",
    "Skip",
    "Skipped",
    "Tactics",
    "Why",
    "plan",
]

BARRED_FOR: Final = 60.0

MEANT: Final = MappingProxyType({"sampling": "`temperature` and `top_p`"})
"""What a feature is called in a prompt, where that is another name."""

SHORTEST_HEDGE_DELAY: Final = 0.05
"""Seconds; a quantile below it is rather the noise of a fast model than a sign that it is late."""


class Why(StrEnum):
    """Why a model is tried."""

    IN_ORDER = "in_order"
    PROBE = "probe"  # its bar has expired: to be claimed just before it is tried, and skipped where that fails
    LAST_RESORT = "last_resort"  # nothing better is left


class Skip(StrEnum):
    """Why a model is not tried."""

    DISABLED = "disabled"
    UNSUPPORTED = "unsupported"  # the prompt needs what it cannot do
    TOO_LONG = "too_long"
    DOWN = "down"
    BARRED = "barred"
    PROBING = "probing"  # its bar has expired, and another request finds out
    NOT_CHOSEN = "not_chosen"  # the strategy has left it out


@frozen
class Bar:
    """A model is left out before the instant `until`, because of `reason`; from then on, while `probing`, too."""

    until: float
    reason: str
    probing: bool = False


@frozen
class ModelFacts:
    """What a plan has to know of a model. `down` says that its actors are; `context_window` is in tokens."""

    enabled: bool = True
    down: bool = False
    context_window: int | None = None
    supports: SupportsConfig = field(factory=SupportsConfig)
    price: PriceConfig | None = None
    bar: Bar | None = None
    stats: ModelStats = field(factory=ModelStats)


@frozen
class Tactics:
    """How the models of a route take turns.

    `strategy` is its name, and `own` decides the order where it is none of ours; without it, the chain's stays.
    "parallel" starts all at once. "hedged" starts the next model once the first is `hedge_delay` seconds late, or later
    than the `hedge_quantile` of its first tokens, as soon as that is known, but 0.05 s at least.
    """

    strategy: str = "sequential"
    hedge_delay: float = 0.0
    hedge_quantile: float | None = None
    own: RoutingStrategy | None = None


@frozen
class Choice:
    """A model to try."""

    model: str
    why: Why


@frozen
class Skipped:
    """A model left out. `until` is the instant until which it is barred, None where it is not; `lacks` what the prompt
    needs and it cannot do.
    """

    model: str
    reason: Skip
    until: float | None = None
    lacks: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        """Why it is not tried, to stand behind its name."""
        match self.reason:
            case Skip.UNSUPPORTED:
                return f"does not support {named(self.lacks)}"
            case Skip.TOO_LONG:
                return "has too small a window"
            case Skip.DOWN:
                return "is down"
            case Skip.BARRED | Skip.PROBING:
                return "is left out for a while: its key, its name or its quota failed lately"
            case Skip.DISABLED:
                return "is disabled"
            case Skip.NOT_CHOSEN:
                return "was not chosen"

    @property
    def free_at(self) -> float:
        """The instant from which the model is free; minus infinity where it is not barred."""
        return -math.inf if self.until is None else self.until


@frozen
class Plan:
    """The models to try, in order and at least one, and the others of the route.

    `hedge_delay` is after how many seconds without a first token the next model starts beside those that run; None:
    only once one has failed.
    """

    choices: tuple[Choice, ...]
    skipped: tuple[Skipped, ...] = ()
    hedge_delay: float | None = None


def plan(
    chain: Sequence[str],
    facts: Mapping[str, ModelFacts],
    needs: Needs,
    now: float,
    *,
    tactics: Tactics,
    rng: Random,
    input_tokens: int = 0,
) -> Plan:
    """Plan a request over the models of `chain`, which `facts` knows all of; `input_tokens` is for strategies.

    Where no model is both suitable and free, the suitable one that is free soonest is tried all the same: a late answer
    from it beats none. A model that is DOWN is the last to be picked for that. Where the strategy leaves all models
    out, the chain's order is taken.

    Raises `TokenLimitError` where only windows that are too small are in the way, naming the largest; else
    `UnsupportedError` where no model is suitable, naming each and what it lacks.
    """
    choices: list[Choice] = []
    skipped: list[Skipped] = []
    for model in chain:
        skip = _unsuitable(model, facts[model], needs) or _not_free(model, facts[model], now)
        if skip is not None:
            skipped.append(skip)
        else:
            choices.append(Choice(model, Why.IN_ORDER if facts[model].bar is None else Why.PROBE))
    if not choices:
        rescued = _last_resort(skipped, facts, needs)
        skipped.remove(rescued)
        return Plan((Choice(rescued.model, Why.LAST_RESORT),), tuple(skipped))
    strategy = ORDERS.get(tactics.strategy) if tactics.own is None else tactics.own
    if strategy is not None:
        planning = Planning(
            models=_candidates(chain, choices, facts, now), needs=needs, input_tokens=input_tokens, now=now, rng=rng
        )
        choices, left_out = _chosen(choices, strategy.order(planning))
        skipped = sorted([*skipped, *left_out], key=lambda skip: chain.index(skip.model))
    return Plan(tuple(choices), tuple(skipped), _hedge_delay(choices, facts, tactics))


# -- who is suitable


def _unsuitable(model: str, facts: ModelFacts, needs: Needs) -> Skipped | None:
    if not facts.enabled:
        return Skipped(model, Skip.DISABLED)
    if lacks := _lacks(facts.supports, needs):
        return Skipped(model, Skip.UNSUPPORTED, lacks=lacks)
    if facts.context_window is not None and needs.tokens > facts.context_window:
        return Skipped(model, Skip.TOO_LONG)
    return None


def _not_free(model: str, facts: ModelFacts, now: float) -> Skipped | None:
    until = None if facts.bar is None else facts.bar.until
    if facts.down:
        return Skipped(model, Skip.DOWN, until)
    if until is not None and now < until:
        return Skipped(model, Skip.BARRED, until)
    if facts.bar is not None and facts.bar.probing:
        return Skipped(model, Skip.PROBING, until)
    return None


def _lacks(supports: SupportsConfig, needs: Needs) -> tuple[str, ...]:
    missing = {
        "tools": needs.tools and not supports.tools,
        "images": needs.images and not supports.images,
        "schema": needs.schema and not supports.schema,
        "sampling": needs.sampling and not supports.sampling,
    }
    return tuple(feature for feature, missed in missing.items() if missed)


def _last_resort(skipped: Sequence[Skipped], facts: Mapping[str, ModelFacts], needs: Needs) -> Skipped:
    """Return the skipped model to try all the same; raise where none is suitable."""
    suitable = [skip for skip in skipped if skip.reason not in {Skip.DISABLED, Skip.UNSUPPORTED, Skip.TOO_LONG}]
    if suitable:
        return min(suitable, key=lambda skip: (skip.reason is Skip.DOWN, skip.free_at))
    windows = {skip.model: facts[skip.model].context_window or 0 for skip in skipped if skip.reason is Skip.TOO_LONG}
    lacking = {skip.model: skip.lacks for skip in skipped if skip.lacks}
    if lacking:
        raise _unsupported(lacking, windows, needs)
    if windows:
        model = max(windows, key=windows.__getitem__)
        raise TokenLimitError(
            f"the prompt has at least {needs.tokens} tokens, and no model of the route takes more than "
            f"{windows[model]} ({model}); where that is wrong, set its `context_window`",
            model=model,
            requested=needs.tokens,
            max=windows[model],
        )
    names = ", ".join(skip.model for skip in skipped) or "none"
    raise UnsupportedError(f"every model of the route is disabled: {names}; enable one", feature="route")


def _unsupported(lacking: Mapping[str, tuple[str, ...]], windows: Mapping[str, int], needs: Needs) -> UnsupportedError:
    said = [f"{model} does not support {named(lacks)}" for model, lacks in lacking.items()]
    said += [
        f"{model} takes at most {window} tokens, and the prompt has at least {needs.tokens}"
        for model, window in windows.items()
    ]
    features = dict.fromkeys(feature for lacks in lacking.values() for feature in lacks)
    return UnsupportedError(
        f"no model of the route can answer this prompt: {'; '.join(said)}; choose another route, or correct `supports` "
        "of a model that can",
        feature=", ".join(features),
        model=next(iter(lacking)) if len(lacking) == 1 and not windows else None,
    )


def named(lacks: Sequence[str]) -> str:
    """Return features as a prompt calls them."""
    return " and ".join(MEANT.get(feature, feature) for feature in lacks)


# -- in which order


def _candidates(
    chain: Sequence[str], choices: Sequence[Choice], facts: Mapping[str, ModelFacts], now: float
) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(
            choice.model,
            place=chain.index(choice.model),
            probe=choice.why is Why.PROBE,
            price=facts[choice.model].price,
            context_window=facts[choice.model].context_window,
            stats=facts[choice.model].stats.aged(now),
        )
        for choice in choices
    )


def _chosen(choices: list[Choice], names: Sequence[str]) -> tuple[list[Choice], list[Skipped]]:
    """Return the choices of these names, in their order, and the others; all as they are where there are no names."""
    if not names:
        return choices, []
    by_name = {choice.model: choice for choice in choices}
    ordered = [by_name.pop(name) for name in names]
    return ordered, [Skipped(name, Skip.NOT_CHOSEN) for name in by_name]


def _hedge_delay(choices: Sequence[Choice], facts: Mapping[str, ModelFacts], tactics: Tactics) -> float | None:
    if len(choices) == 1:
        return None
    if tactics.strategy == "parallel":
        return 0.0
    if tactics.strategy != "hedged":
        return None
    learned = None
    if tactics.hedge_quantile is not None:
        learned = facts[choices[0].model].stats.first_token_quantile(tactics.hedge_quantile)
    return tactics.hedge_delay if learned is None else max(learned, SHORTEST_HEDGE_DELAY)


# -- who is left out for a while


@frozen(eq=False)
class Probe:
    """Leave to try a model whose bar had expired. No two probes are equal: each is given back as itself."""

    model: str


class Bars:
    """Which models are barred, and which request probes which. Only attempts that were sent and have ended count."""

    def __init__(self, bars: Mapping[str, Bar] | None = None) -> None:
        """Begin with `bars` of an earlier incarnation, whose probes are fenced."""
        self._bars = {model: evolve(bar, probing=False) for model, bar in (bars or {}).items()}
        self._since: dict[str, float] = {}
        self._probes: dict[str, Probe] = {}

    def record(self, model: str, error: WizardError | None, *, started: float, now: float) -> None:
        """Note the end of an attempt at `model` that was sent at `started`; `error` is None where it answered.

        A barring error bars the model from `now` on, anything else frees it: that it works is the circuit breaker's
        question. What an attempt says that began before the model was last barred or freed is old news.
        """
        if started < self._since.get(model, -math.inf):
            return
        if error is not None and error.verdict.bars_model:
            known = self._bars.get(model)
            until = now + BARRED_FOR
            self._bars[model] = Bar(until if known is None else max(until, known.until), error.code)
        elif self._bars.pop(model, None) is None:
            return
        self._since[model] = now
        self._probes.pop(model, None)

    def keep(self, models: Collection[str]) -> None:
        """Forget all about the models that are none of `models`."""
        for known in (self._bars, self._since, self._probes):
            for gone in known.keys() - set(models):
                del known[gone]

    def drop(self, model: str, now: float) -> None:
        """Free a model that is another one now: what an attempt says that began before `now` is of the former one."""
        self._bars.pop(model, None)
        self._probes.pop(model, None)
        self._since[model] = now

    def claim(self, model: str, now: float) -> Probe | None:
        """Ask for leave to try a model that was planned as a probe; None where it is barred, or another request is at
        it. It must be given back, by `abandon`, however the attempt ends.
        """
        probe = Probe(model)
        bar = self._bars.get(model)
        if bar is None:  # freed meanwhile
            return probe
        if bar.probing or now < bar.until:
            return None
        self._bars[model] = evolve(bar, probing=True)
        self._probes[model] = probe
        return probe

    def abandon(self, probe: Probe) -> None:
        """Take a probe back; where nothing was learned from it, the next request may probe."""
        if self._probes.get(probe.model) is probe:
            del self._probes[probe.model]
            self._bars[probe.model] = evolve(self._bars[probe.model], probing=False)

    def snapshot(self) -> Mapping[str, Bar]:
        """Return the barred models and their bars, for plans and for the next incarnation."""
        return MappingProxyType(dict(self._bars))
