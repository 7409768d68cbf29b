"""The router: what the routes have learned about each model, and plans made from it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from random import Random
from types import MappingProxyType

from attrs import field, frozen

from wizard_actors.actor import Actor, Ask, Ledger, Reply, Return, handles, hears, takes_back
from wizard_actors.config import ModelConfig
from wizard_actors.errors import WizardError
from wizard_actors.model_stats import ModelStats
from wizard_actors.needs import Needs
from wizard_actors.plan import Bar, Bars, ModelFacts, Plan, Probe, Tactics, plan
from wizard_actors.strategies import Planning, RoutingStrategy, checked_order

__all__ = ["ClaimProbe", "MakePlan", "Observed", "ProbeOver", "Reconfigure", "Router", "RouterState"]

log = logging.getLogger("wizard_actors.routing")


@frozen
class MakePlan(Ask[Plan]):
    """Ask which models of `chain` to try, and in which order; `down` are those whose actors are DOWN.

    `strategy`, `hedge_delay` in seconds and `hedge_quantile` are the route's: see `Tactics`; `input_tokens` is an
    estimate, for strategies. `models` is what the request's configuration says of them, which need not be the newest
    one; None: what the router was told last. Fails with what makes all models unsuitable, `TokenLimitError` or
    `UnsupportedError`.
    """

    chain: tuple[str, ...]
    down: frozenset[str] = frozenset()
    needs: Needs = field(factory=Needs)
    strategy: str = "sequential"
    hedge_delay: float = 0.0
    hedge_quantile: float | None = None
    input_tokens: int = 0
    models: Mapping[str, ModelConfig] | None = None


@frozen
class ClaimProbe(Ask[Probe | None]):
    """Ask for leave to probe a model whose bar has expired; None where somebody else does."""

    model: str


@frozen
class ProbeOver(Return[Probe]):
    """The probe has ended, one way or the other."""


@frozen
class Observed:
    """An attempt at `model` that was sent at the instant `started` has ended; `error` is None where it answered.

    `first_token` is how long after `started` the first token came, in seconds; None where none did, or the answer came
    in one piece. `cost` is in US dollars, None where unknown. `cancelled`: nobody waited for its end any more, because
    another model answered first or the caller left. `worker` tells apart what the model was before it was configured to
    be asked elsewhere, or otherwise, from what it is now: see `Reconfigure`.
    """

    model: str
    error: WizardError | None
    started: float
    first_token: float | None = None
    cost: Decimal | None = None
    cancelled: bool = False
    worker: str = ""


@frozen
class Reconfigure(Ask[None]):
    """Ask to route among `models` from now on, by `strategies`. Of the models that stay, what was learned stays.

    `workers` are the paths of the models' workers, for those of which they are known: where that is another than
    before, the model is another one, its bar is dropped, and what attempts at the former one say counts no more. Asked,
    not told: attempts tell the router so much at once that a told message might be dropped.
    """

    models: Mapping[str, ModelConfig]
    strategies: Mapping[str, RoutingStrategy] = field(factory=dict)
    workers: Mapping[str, str] = field(factory=dict)


@frozen
class RouterState:
    """Which models are barred, until when, and why; and the statistics of every model, by its name.

    `strategy_failures` counts, for each strategy that is not ours, how often the chain's order had to be taken because
    it raised, or returned what is no order; those that never did are not in it. `workers`: see `Reconfigure`.
    """

    bars: Mapping[str, Bar] = field(factory=dict)
    models: Mapping[str, ModelStats] = field(factory=dict)
    strategy_failures: Mapping[str, int] = field(factory=dict)
    workers: Mapping[str, str] = field(factory=dict)


class _Guarded:
    """A strategy that is not ours. The router survives each `Exception` that it raises, and whatever it returns.

    It does not survive what is meant to end a program, such as `SystemExit`, nor a strategy that never returns.
    """

    def __init__(self, name: str, strategy: RoutingStrategy, failures: dict[str, int]) -> None:
        self._name = name
        self._strategy = strategy
        self._failures = failures

    def order(self, planning: Planning) -> Sequence[str]:
        """Return its order, or no opinion where it fails."""
        offered = [model.name for model in planning.models]  # as it is now: the strategy may change what it is given
        try:
            return checked_order(self._strategy.order(planning), offered)
        except Exception:
            before = self._failures.get(self._name, 0)
            self._failures[self._name] = before + 1
            if not before:
                log.exception(
                    "the routing strategy %s failed: the chain's order is taken in its place; from now on its failures "
                    "are only counted",
                    self._name,
                )
            return ()


class Router(Actor):
    """Plans requests over `models`, by their names; `rng` draws the order of the strategy "adaptive". `strategies` are
    those that are not ours, by the names that routes call them: they outlive a restart of the router.

    `carry` is the `RouterState` that a router before this one has published, of these models or of others: after a
    crash and for a changed configuration alike, what was learned of the models that still exist is kept. Probes are
    fenced.
    """

    def __init__(
        self,
        models: Mapping[str, ModelConfig],
        rng: Random,
        ledger: Ledger,
        carry: object,
        strategies: Mapping[str, RoutingStrategy] | None = None,
        workers: Mapping[str, str] | None = None,
    ) -> None:
        ledger.clear()
        self._rng = rng
        self._published = carry if isinstance(carry, RouterState) else RouterState()
        self._bars = Bars(self._published.bars)
        self._settle(Reconfigure(models, strategies or {}, workers or {}), -math.inf)

    def _settle(self, given: Reconfigure, now: float) -> None:
        """Go by what is given, and keep what the last published state knows of it."""
        known = self._published
        self._bars.keep(given.models)
        for name in given.models:
            if known.workers.get(name) != given.workers.get(name):
                self._bars.drop(name, now)
        self._models, self._workers = given.models, given.workers
        self._stats = {name: known.models.get(name, ModelStats()) for name in given.models}
        own = given.strategies
        self._failures = {name: count for name, count in known.strategy_failures.items() if name in own}
        self._strategies = {name: _Guarded(name, strategy, self._failures) for name, strategy in own.items()}
        self._publish()

    @handles(Reconfigure)
    def reconfigure(self, message: Reconfigure, reply: Reply[None], now: float) -> None:
        """Route among other models, or by other settings."""
        self._settle(message, now)
        reply.send(None)

    @handles(MakePlan)
    def make_plan(self, message: MakePlan, reply: Reply[Plan], now: float) -> None:
        """Plan one request."""
        models = self._models if message.models is None else message.models
        facts = {name: self._facts(models[name], down=name in message.down) for name in message.chain}
        own = self._strategies.get(message.strategy)
        tactics = Tactics(message.strategy, message.hedge_delay, message.hedge_quantile, own)
        failures = self._failures.get(message.strategy)
        try:
            made = plan(
                message.chain,
                facts,
                message.needs,
                now,
                tactics=tactics,
                rng=self._rng,
                input_tokens=message.input_tokens,
            )
        except WizardError as error:
            reply.fail(error)
        else:
            reply.send(made)
        if self._failures.get(message.strategy) != failures:
            self._publish()

    @handles(ClaimProbe)
    def claim_probe(self, message: ClaimProbe, reply: Reply[Probe | None], now: float) -> None:
        """Let one request probe a model whose bar has expired."""
        probe = self._bars.claim(message.model, now)
        if probe is None:
            reply.send(None)
        elif not reply.grant(probe):
            self._bars.abandon(probe)
        self._publish()

    @takes_back(ProbeOver)
    def probe_over(self, grant: Probe, message: ProbeOver, now: float) -> None:
        """Let the next request probe, where this one taught nothing."""
        self._bars.abandon(grant)
        self._publish()

    @hears(Observed)
    def observed(self, message: Observed, now: float) -> None:
        """Learn from the end of an attempt; bar or free the model. A cancelled attempt does neither.

        A model that the configuration no longer has, or that is another one now, is none of ours.
        """
        name, known = message.model, self._stats.get(message.model)
        if known is None or (message.worker and message.worker != self._workers.get(name)):
            return
        self._stats[name] = known.observed(
            message.error,
            started=message.started,
            now=now,
            first_token=message.first_token,
            cost=message.cost,
            cancelled=message.cancelled,
        )
        if not message.cancelled:
            self._bars.record(name, message.error, started=message.started, now=now)
        self._publish()

    def snapshot(self) -> RouterState:
        """Return the bars and the statistics."""
        return self._published

    def _facts(self, config: ModelConfig, *, down: bool) -> ModelFacts:
        name = config.name
        return ModelFacts(
            enabled=config.enabled,
            down=down,
            context_window=config.context_window,
            supports=config.supports,
            price=config.price,
            bar=self._published.bars.get(name),
            stats=self._stats.get(name) or ModelStats(),
        )

    def _publish(self) -> None:
        self._published = RouterState(
            self._bars.snapshot(),
            MappingProxyType(dict(self._stats)),
            MappingProxyType(dict(self._failures)),
            self._workers,
        )
