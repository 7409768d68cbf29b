"""The circuit breaker of one model, or of anything else that is called: grants permits, and learns from how calls end.

`CircuitBreaker.factory` makes one for a supervisor of one's own; `wizard_actors.breaker_handle.Breaker` is then the
easy way to use it.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Protocol

import trio
from attrs import frozen

from wizard_actors.actor import Actor, Ask, Ledger, Notice, Reply, Return, handles, hears, takes_back
from wizard_actors.breaker_core import PROBES_OUT_FOR, BreakerCore, BreakerState, Circuit, Permit, Refused
from wizard_actors.config import BreakerConfig
from wizard_actors.errors import CircuitOpenError
from wizard_actors.event_stream import EventStream
from wizard_actors.events import BreakerChanged, Event
from wizard_actors.verdict import Outcome

__all__ = [
    "Admit",
    "CircuitBreaker",
    "Ended",
    "Heard",
    "Publishes",
    "Reconfigure",
    "RecordFailure",
    "RecordSuccess",
    "circuit_open",
    "refusal",
]


class Publishes(Protocol):
    """Where a breaker tells of its transitions: an `EventStream`, or what stands before one."""

    def publish(self, event: Event) -> None:
        """Tell everybody of `event`."""


@frozen
class Admit(Ask[Permit]):
    """Ask for a permit to call; answered at once, with `CircuitOpenError` where there is none."""


@frozen
class Ended(Return[Permit]):
    """The call is over."""

    outcome: Outcome


@frozen
class Heard(Notice[Permit]):
    """The call got its first content, and goes on. A probe's place is free then for another one.

    It is no success: what the breaker learns of the call, `Ended` says. Matters of probes only.
    """


@frozen
class RecordSuccess:
    """Told: a call without a permit has succeeded.

    It counts as a call that was admitted and ended in the instant in which the breaker hears of it. Closed: like any
    other. Open: not at all before `retry_at`; from then on it is a probe, and makes the circuit half-open. Half-open:
    as a probe, unless permits hold the place of every probe; those alone decide then. It never takes a place itself.
    """


@frozen
class RecordFailure:
    """Told: a call without a permit has failed. Counts where `RecordSuccess` would."""


@frozen
class Reconfigure:
    """Told: another policy holds from now on. The circuit stays as it is."""

    config: BreakerConfig


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
    """One breaker. After a crash it is open until the instant it had promised, and old permits are fenced.

    `name` is what its errors and events call it. `started` is the instant at which the incarnation begins.
    """

    def __init__(
        self,
        name: str,
        config: BreakerConfig,
        rng: Random,
        events: Publishes,
        ledger: Ledger,
        carry: object,
        started: float,
    ) -> None:
        ledger.clear()
        self._name = name
        self._events = events
        if isinstance(carry, BreakerState):
            self._core = BreakerCore.restore(config, rng, carry, started)
            self._told = carry.circuit
        else:
            self._core = BreakerCore(config, rng)
            self._told = Circuit.CLOSED
        self._tell(started)

    @classmethod
    def factory(
        cls, name: str, config: BreakerConfig, *, rng: Random | None = None, events: Publishes | None = None
    ) -> Callable[[Ledger, object], CircuitBreaker]:
        """Return what makes the incarnations of one breaker, for a `ChildSpec`.

        `rng` spreads the ends of open times; `events` gets a `BreakerChanged` for every transition.
        """
        spread, stream = rng or Random(), EventStream() if events is None else events

        def make(ledger: Ledger, carry: object) -> CircuitBreaker:
            return cls(name, config, spread, stream, ledger, carry, trio.current_time())

        return make

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

    @takes_back(Heard)
    def heard(self, grant: Permit, message: Heard, now: float) -> None:
        """Let another probe start."""
        self._core.hear(grant)

    @takes_back(Ended)
    def ended(self, grant: Permit, message: Ended, now: float) -> None:
        """Take the permit back, and learn from the outcome."""
        self._core.settle(grant, message.outcome, now)
        self._tell(now)

    @hears(RecordSuccess)
    def record_success(self, message: RecordSuccess, now: float) -> None:
        """Learn from a call that had no permit."""
        self._record(Outcome.SUCCESS, now)

    @hears(RecordFailure)
    def record_failure(self, message: RecordFailure, now: float) -> None:
        """Learn from a call that had no permit."""
        self._record(Outcome.FAILURE, now)

    @hears(Reconfigure)
    def reconfigure(self, message: Reconfigure, now: float) -> None:
        """Go by another policy."""
        self._core.reconfigure(message.config)

    def snapshot(self) -> BreakerState:
        """Return the circuit's state, which attempts read in the step in which they send."""
        return self._core.snapshot()

    def _record(self, outcome: Outcome, now: float) -> None:
        self._core.come_due(now)
        self._tell(now)  # here, because the outcome may be a second transition
        self._core.record(outcome, now)
        self._tell(now)

    def _tell(self, now: float) -> None:
        state = self._core.snapshot()
        if state.circuit is not self._told:
            self._told = state.circuit
            self._events.publish(BreakerChanged(now, self._name, state.circuit, state.retry_at))
