"""The circuit breaker of one model: grants permits, and learns from how calls end."""

from __future__ import annotations

from random import Random

from attrs import frozen

from wizard_actors.actor import Actor, Ask, Ledger, Reply, Return, handles, takes_back
from wizard_actors.breaker_core import PROBES_OUT_FOR, BreakerCore, BreakerState, Circuit, Permit, Refused
from wizard_actors.config import ModelConfig
from wizard_actors.errors import CircuitOpenError
from wizard_actors.events import Event, EventStream
from wizard_actors.verdict import Outcome

__all__ = ["Admit", "BreakerChanged", "CircuitBreaker", "Ended", "circuit_open", "refusal"]


@frozen
class Admit(Ask[Permit]):
    """Ask for a permit to call; answered at once, with `CircuitOpenError` where there is none."""


@frozen
class Ended(Return[Permit]):
    """The call is over."""

    outcome: Outcome


@frozen
class BreakerChanged(Event):
    """The circuit of `model` changed; `retry_at` is the instant of the first probe where it opened."""

    model: str
    circuit: Circuit
    retry_at: float


def circuit_open(model: str, retry_at: float, now: float) -> CircuitOpenError:
    """Return the error for a call of `model` that is refused unsent."""
    wait = max(0.0, retry_at - now)
    return CircuitOpenError(
        f"{model} failed too often: its circuit is open for another {wait:.3g} s",
        model=model,
        retry_at=retry_at,
        retry_after=wait,
    )


def refusal(model: str, state: BreakerState, now: float) -> CircuitOpenError | None:
    """Return the error for a call of `model` that its breaker's published `state` forbids, None where it allows one."""
    if state.allows(now):
        return None
    # In the past where the probes are out: then the guess is the breaker's own.
    return circuit_open(model, state.retry_at if state.retry_at > now else now + PROBES_OUT_FOR, now)


class CircuitBreaker(Actor):
    """One model's breaker. After a crash it is open until the instant it had promised, and old permits are fenced.

    `started` is the instant at which the incarnation begins.
    """

    def __init__(
        self, config: ModelConfig, rng: Random, events: EventStream, ledger: Ledger, carry: object, started: float
    ) -> None:
        ledger.clear()
        self._name = config.name
        self._events = events
        self._core = (
            BreakerCore.restore(config.circuit_breaker, rng, carry, started)
            if isinstance(carry, BreakerState)
            else BreakerCore(config.circuit_breaker, rng)
        )
        self._told = self._core.snapshot().circuit

    @handles(Admit)
    def admit(self, message: Admit, reply: Reply[Permit], now: float) -> None:
        """Grant a permit, or say when to come back."""
        match self._core.admit(now):
            case Permit() as permit:
                if not reply.grant(permit):
                    self._core.forget(permit)
            case Refused() as refused:
                reply.fail(circuit_open(self._name, refused.retry_at, now))
        self._tell(now)

    @takes_back(Ended)
    def ended(self, grant: Permit, message: Ended, now: float) -> None:
        """Take the permit back, and learn from the outcome."""
        self._core.settle(grant, message.outcome, now)
        self._tell(now)

    def snapshot(self) -> BreakerState:
        """Return the circuit's state, which attempts read in the step in which they send."""
        return self._core.snapshot()

    def _tell(self, now: float) -> None:
        state = self._core.snapshot()
        if state.circuit is not self._told:
            self._told = state.circuit
            self._events.publish(BreakerChanged(now, self._name, state.circuit, state.retry_at))
