"""The router: what the routes have learned about each model, and plans made from it."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from wizard_actors.actor import Actor, Ask, Ledger, Reply, Return, handles, hears, takes_back
from wizard_actors.config import ModelConfig
from wizard_actors.errors import WizardError
from wizard_actors.plan import Bar, Bars, ModelFacts, Needs, Plan, Probe, plan

__all__ = ["ClaimProbe", "MakePlan", "Observed", "ProbeOver", "Router", "RouterState"]


@frozen
class MakePlan(Ask[Plan]):
    """Ask which models of `chain` to try, in order; `down` are those whose actors are DOWN.

    Fails with what makes all of them unsuitable.
    """

    chain: tuple[str, ...]
    down: frozenset[str] = frozenset()
    needs: Needs = field(factory=Needs)


@frozen
class ClaimProbe(Ask[Probe | None]):
    """Ask for leave to probe a model whose bar has expired; None where somebody else does."""

    model: str


@frozen
class ProbeOver(Return[Probe]):
    """The probe has ended, one way or the other."""


@frozen
class Observed:
    """An attempt at `model` that was sent at the instant `started` ended; `error` is None where it answered."""

    model: str
    error: WizardError | None
    started: float


@frozen
class RouterState:
    """Which models are barred, until when, and why."""

    bars: Mapping[str, Bar] = field(factory=dict)


class Router(Actor):
    """Plans requests. After a crash the bars are kept, and probes are fenced."""

    def __init__(self, models: Mapping[str, ModelConfig], ledger: Ledger, carry: object) -> None:
        ledger.clear()
        self._models = models
        self._bars = Bars(carry.bars if isinstance(carry, RouterState) else None)

    @handles(MakePlan)
    def make_plan(self, message: MakePlan, reply: Reply[Plan], now: float) -> None:
        """Plan one request."""
        bars = self._bars.snapshot()
        facts = {
            name: ModelFacts(
                enabled=self._models[name].enabled,
                down=name in message.down,
                context_window=self._models[name].context_window,
                bar=bars.get(name),
            )
            for name in message.chain
        }
        try:
            reply.send(plan(message.chain, facts, message.needs, now))
        except WizardError as error:
            reply.fail(error)

    @handles(ClaimProbe)
    def claim_probe(self, message: ClaimProbe, reply: Reply[Probe | None], now: float) -> None:
        """Let one request probe a model whose bar has expired."""
        probe = self._bars.claim(message.model, now)
        if probe is None:
            reply.send(None)
        elif not reply.grant(probe):
            self._bars.abandon(probe)

    @takes_back(ProbeOver)
    def probe_over(self, grant: Probe, message: ProbeOver, now: float) -> None:
        """Let the next request probe, where this one taught nothing."""
        self._bars.abandon(grant)

    @hears(Observed)
    def observed(self, message: Observed, now: float) -> None:
        """Bar or free a model."""
        self._bars.record(message.model, message.error, started=message.started, now=now)

    def snapshot(self) -> RouterState:
        """Return the bars."""
        return RouterState(self._bars.snapshot())
