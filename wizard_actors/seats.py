"""Seats: where the models of a client stand in its tree, and what their actors go by at present.

A seat outlives reloads: its actors are told of other settings, and an incarnation after a crash finds them here. A
model that is asked elsewhere, or otherwise, is another one to its actors, and takes a new seat.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final, TypeAlias

from attrs import define

from wizard_actors import circuit_breaker, rate_limit, worker
from wizard_actors.actor import Actor, Ledger
from wizard_actors.breaker_core import BreakerState
from wizard_actors.config import ModelConfig, RateLimitConfig, RetryConfig, Secret, SupervisionConfig
from wizard_actors.errors import ConfigError
from wizard_actors.event_stream import EventStream
from wizard_actors.gcra import LimiterState
from wizard_actors.providers.engine import Engine
from wizard_actors.restarts import RestartPolicy
from wizard_actors.slots import WorkerState
from wizard_actors.specs import ChildSpec, Factory, GroupSpec
from wizard_actors.supervisor import Supervisor

__all__ = ["Asked", "LimitSeat", "ModelSeat", "Specs", "asked", "patience", "shared_limits"]

ELSEWHERE: Final = (
    "provider",
    "base_url",
    "model",
    "api",
    "api_version",
    "headers",
    "proxy",
    "ca_file",
    "options",
    "simulated",
    "local",
    "rate_limit_group",
)
"""The settings that decide whom a model's calls reach, and how: with another value it is another model."""

Asked: TypeAlias = tuple[object, ...]
"""How a model is asked, the key's present value included: seats are told apart by it."""


def asked(model: ModelConfig, *, given: bool) -> Asked:
    """Return how `model` is asked now; `given`: code gives its provider, and nobody here reads a key."""
    return (*(getattr(model, name) for name in ELSEWHERE), None if given else _key(model))


def _key(model: ModelConfig) -> Secret | None:
    try:
        return model.api_key()
    except ConfigError:  # whether it needs one is its provider's to say, who reads it too
        return None


@define(eq=False)
class LimitSeat:
    """A limiter at `path`, and what it goes by; `name` is what its errors call it."""

    path: str
    name: str
    limits: RateLimitConfig
    retry: RetryConfig

    def settle(self, limits: RateLimitConfig, retry: RetryConfig, tree: Supervisor) -> None:
        """Go by other limits from now on: this incarnation, and those after a crash."""
        if (limits, retry) != (self.limits, self.retry):
            self.limits, self.retry = limits, retry
            tree.ref(self.path, LimiterState).tell(rate_limit.Reconfigure(limits, retry))


@define(eq=False)
class ModelSeat:
    """A model's group of actors at `path`, how it is `asked`, what they go by; `limit` None: it shares a limiter."""

    path: str
    asked: Asked
    config: ModelConfig
    limit: LimitSeat | None

    @property
    def name(self) -> str:
        """The model's name."""
        return self.config.name

    def settle(self, config: ModelConfig, tree: Supervisor) -> None:
        """Go by `config` from now on: these incarnations, and those after a crash."""
        before, self.config = self.config, config
        if config.max_concurrency != before.max_concurrency:
            tree.ref(f"{self.path}/worker", WorkerState).tell(worker.Reconfigure(config.max_concurrency))
        if config.circuit_breaker != before.circuit_breaker:
            tree.ref(f"{self.path}/breaker", BreakerState).tell(circuit_breaker.Reconfigure(config.circuit_breaker))
        if self.limit is not None:
            self.limit.settle(config.rate_limit, patience([config]), tree)


def patience(models: Sequence[ModelConfig]) -> RetryConfig:
    """Return how a limiter of `models` waits after a 429 that names no time: as the most patient of their policies."""
    policies = [model.retry.after("rate_limit") for model in models]
    return max(policies, key=lambda policy: (policy.base_delay, policy.max_delay))


def shared_limits(models: Sequence[ModelConfig]) -> dict[str, tuple[RateLimitConfig, RetryConfig]]:
    """Return the limits that several of `models` share, by the names of their groups."""
    groups: dict[str, list[ModelConfig]] = {}
    for model in models:
        if model.rate_limit_group is not None:
            groups.setdefault(model.rate_limit_group, []).append(model)
    return {name: (members[0].rate_limit, patience(members)) for name, members in groups.items()}


class Specs:
    """Makes the specs of a tree's nodes, within the bounds that hold for as long as the client is open."""

    def __init__(self, bounds: SupervisionConfig, *, rng: Random, events: EventStream) -> None:
        self._bounds = bounds
        self._rng = rng
        self._events = events

    def child(self, name: str, make: Factory, *, start_timeout: float = 30.0) -> ChildSpec:
        """Return the spec of an actor."""
        bounds = self._bounds
        return ChildSpec(name, make, mailbox=bounds.mailbox, tells=bounds.tells, start_timeout=start_timeout)

    def group(self, name: str, *children: ChildSpec | GroupSpec) -> GroupSpec:
        """Return the spec of a group."""
        bounds = self._bounds
        policy = RestartPolicy(
            max_restarts=bounds.max_restarts, window=bounds.restart_window, down_retry=bounds.down_retry
        )
        return GroupSpec(name, children, policy=policy)

    def limiter(self, seat: LimitSeat) -> ChildSpec:
        """Return the spec of the limiter at `seat`."""
        rng = self._rng

        def make(ledger: Ledger, carry: object) -> Actor:
            return rate_limit.RateLimiter.factory(seat.name, seat.limits, retry=seat.retry, rng=rng)(ledger, carry)

        return self.child(_last(seat.path), make)

    def model(self, seat: ModelSeat) -> GroupSpec:
        """Return the spec of the actors at `seat`."""
        queue, rng, events = self._bounds.mailbox, self._rng, self._events

        def make_breaker(ledger: Ledger, carry: object) -> Actor:
            policy = seat.config.circuit_breaker
            return circuit_breaker.CircuitBreaker.factory(seat.name, policy, rng=rng, events=events)(ledger, carry)

        children = [
            self.child("breaker", make_breaker),
            self.child("worker", lambda ledger, carry: worker.ModelWorker(seat.config, queue, ledger, carry)),
        ]
        if seat.limit is not None:
            children.insert(0, self.limiter(seat.limit))
        if seat.config.local is not None:
            local = seat.config.local
            children.append(
                self.child("engine", lambda _ledger, _carry: Engine(local), start_timeout=local.start_timeout)
            )
        return self.group(_last(seat.path), *children)


def _last(path: str) -> str:
    return path.rpartition("/")[2]
