"""The core of routing: which models a request tries, in which order, and which are left out for a while.

A model is barred where its key, its name or its quota failed: asking again cannot help before a person does something.
It is barred for a minute; then one request probes it while the others go on without it.

    free ──barring error──> barred ──a minute──> expired ──claimed──> probing ──any other end──> free
                               ^                    ^                    │
                               │                    └──────abandoned─────┤
                               └───────────────────────barring error─────┘
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from attrs import evolve, frozen

from wizard_actors.errors import TokenLimitError, UnsupportedError, WizardError

__all__ = ["Bar", "Bars", "Choice", "ModelFacts", "Needs", "Plan", "Probe", "Skip", "Skipped", "Why", "plan"]

BARRED_FOR: Final = 60.0


class Why(StrEnum):
    """Why a model is tried."""

    IN_ORDER = "in_order"
    PROBE = "probe"  # its bar has expired: to be claimed just before it is tried, and skipped where that fails
    LAST_RESORT = "last_resort"  # nothing better is left


class Skip(StrEnum):
    """Why a model is not tried."""

    DISABLED = "disabled"
    TOO_LONG = "too_long"
    DOWN = "down"
    BARRED = "barred"
    PROBING = "probing"  # its bar has expired, and another request finds out


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
    bar: Bar | None = None


@frozen
class Needs:
    """What a prompt needs of a model: room for at least `tokens`, a lower bound where nobody has counted."""

    tokens: int = 0


@frozen
class Choice:
    """A model to try."""

    model: str
    why: Why


@frozen
class Skipped:
    """A model left out; `until` is the instant until which it is barred, None where it is not."""

    model: str
    reason: Skip
    until: float | None = None

    @property
    def free_at(self) -> float:
        """The instant from which the model is free; minus infinity where it is not barred."""
        return -math.inf if self.until is None else self.until


@frozen
class Plan:
    """The models to try, in order and at least one, and the others of the route."""

    choices: tuple[Choice, ...]
    skipped: tuple[Skipped, ...] = ()


def plan(chain: Sequence[str], facts: Mapping[str, ModelFacts], needs: Needs, now: float) -> Plan:
    """Plan a request over the models of `chain`, which `facts` knows all of, in that order.

    Where no model is both suitable and free, the suitable one that is free soonest is tried all the same: a late answer
    from it beats none. A model that is DOWN is the last to be picked for that.

    Raises `TokenLimitError` where every enabled model's window is too small, naming the largest; `UnsupportedError`
    where none is enabled.
    """
    choices: list[Choice] = []
    skipped: list[Skipped] = []
    for model in chain:
        skip = _skip(model, facts[model], needs, now)
        if skip is not None:
            skipped.append(skip)
        else:
            choices.append(Choice(model, Why.IN_ORDER if facts[model].bar is None else Why.PROBE))
    if not choices:
        rescued = _last_resort(skipped, facts, needs)
        skipped.remove(rescued)
        choices.append(Choice(rescued.model, Why.LAST_RESORT))
    return Plan(tuple(choices), tuple(skipped))


def _skip(model: str, facts: ModelFacts, needs: Needs, now: float) -> Skipped | None:
    if not facts.enabled:
        return Skipped(model, Skip.DISABLED)
    if facts.context_window is not None and needs.tokens > facts.context_window:
        return Skipped(model, Skip.TOO_LONG)
    until = None if facts.bar is None else facts.bar.until
    if facts.down:
        return Skipped(model, Skip.DOWN, until)
    if until is not None and now < until:
        return Skipped(model, Skip.BARRED, until)
    if facts.bar is not None and facts.bar.probing:
        return Skipped(model, Skip.PROBING, until)
    return None


def _last_resort(skipped: Sequence[Skipped], facts: Mapping[str, ModelFacts], needs: Needs) -> Skipped:
    """Return the skipped model to try all the same; raise where none is suitable."""
    suitable = [skip for skip in skipped if skip.reason not in {Skip.DISABLED, Skip.TOO_LONG}]
    if suitable:
        return min(suitable, key=lambda skip: (skip.reason is Skip.DOWN, skip.free_at))
    windows = {skip.model: facts[skip.model].context_window or 0 for skip in skipped if skip.reason is Skip.TOO_LONG}
    if windows:
        model = max(windows, key=windows.__getitem__)
        raise TokenLimitError(
            f"the prompt has at least {needs.tokens} tokens, and no model of the route takes more than "
            f"{windows[model]} ({model})",
            model=model,
            requested=needs.tokens,
            max=windows[model],
        )
    names = ", ".join(skip.model for skip in skipped) or "none"
    raise UnsupportedError(f"every model of the route is disabled: {names}; enable one", feature="route")


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
            self._bars[model] = Bar(now + BARRED_FOR, error.code)
        elif self._bars.pop(model, None) is None:
            return
        self._since[model] = now
        self._probes.pop(model, None)

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
