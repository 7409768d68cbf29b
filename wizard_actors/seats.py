"""Seats: where the models of a client stand in its tree, and what their actors go by at present.

A seat outlives reloads: its actors are told of other settings, and an incarnation after a crash finds them here. A
model that is asked elsewhere, or otherwise, is another one to its breaker and its worker, and takes a new seat. Limits
are those of an account: where that is the same, the new seat is beside the old one, and they share its limiter.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from random import Random
from typing import Final, TypeAlias

from attrs import define, evolve, frozen

from wizard_actors import circuit_breaker, rate_limit, worker
from wizard_actors.actor import Actor, Ledger
from wizard_actors.breaker_core import BreakerState, Circuit
from wizard_actors.config import ModelConfig, RateLimitConfig, RetryConfig, Secret, SupervisionConfig
from wizard_actors.errors import ConfigError
from wizard_actors.event_stream import EventStream
from wizard_actors.events import BreakerChanged, Event
from wizard_actors.gcra import LimiterState
from wizard_actors.providers.engine import Engine
from wizard_actors.restarts import RestartPolicy
from wizard_actors.slots import WorkerState
from wizard_actors.specs import ChildSpec, Factory, GroupSpec
from wizard_actors.supervisor import Supervisor

__all__ = [
    "Account",
    "Asked",
    "LimitSeat",
    "Member",
    "ModelSeat",
    "Specs",
    "account_of",
    "asked",
    "closed",
    "limit_path",
    "model_path",
    "patience",
    "shared_limits",
]

ELSEWHERE: Final = (
    "provider",
    "base_url",
    "model",
    "api",
    "api_version",
    "headers",
    "proxy",
    "ca_file",
    "transport",
    "options",
    "simulated",
    "local",
    "rate_limit_group",
)
"""The settings that decide whom a model's calls reach, and how: with another value it is another model."""

ACCOUNT: Final = ("provider", "base_url", "simulated", "local")
"""The settings that decide, with the key, whose limits a model's calls are subject to."""

Asked: TypeAlias = tuple[object, ...]
"""How a model is asked, the key's present value included: seats are told apart by it."""


Account: TypeAlias = tuple[object, ...]
"""Whose limits a model's calls are subject to, the key's present value included."""

Member: TypeAlias = tuple[str, Account]
"""A model, and its account."""


def account_of(model: ModelConfig, *, given: bool) -> Account:
    """Return whose limits `model` is subject to now; `given`: as for `asked`."""
    return (*(getattr(model, name) for name in ACCOUNT), None if given else _key(model))


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
    """A limiter at `path`, what it goes by, and whose calls it grants, or has granted: its `members`, present and
    former. `name` is what its errors call it; `first` is what it starts from the first time, None: from nothing.
    """

    path: str
    name: str
    limits: RateLimitConfig
    retry: RetryConfig
    members: tuple[Member, ...]
    first: LimiterState | None = None

    def shares_account(self, members: Sequence[Member]) -> bool:
        """Whether it grants, or has granted, the calls of one of these accounts."""
        return any(account == own for _, account in members for _, own in self.members)

    def inherit(self, other: LimitSeat, state: LimiterState) -> None:
        """Start from how the limiter of `other` stands, and from its limits: `settle` then makes them its own."""
        self.limits, self.retry, self.first = other.limits, other.retry, state

    def settle(self, limits: RateLimitConfig, retry: RetryConfig, tree: Supervisor) -> None:
        """Go by other limits from now on: this incarnation, and those after a crash."""
        if (limits, retry) != (self.limits, self.retry):
            self.limits, self.retry = limits, retry
            tree.ref(self.path, LimiterState).tell(rate_limit.Reconfigure(limits, retry))


@define(eq=False)
class ModelSeat:
    """A model's actors in the group at `path`, how it is `asked`, what they go by; `limit` None: it shares a limiter
    with other models. Seats in one group, each with a `number`, share all but their breakers, workers and engines.

    `in_force`: the current configuration asks it; `told` is what its breaker has told last.
    """

    path: str
    asked: Asked
    account: Account
    config: ModelConfig
    limit: LimitSeat | None
    number: int = 1
    in_force: bool = False
    told: BreakerChanged | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return self.config.name

    @property
    def worker(self) -> str:
        """The path of its worker."""
        return self._at("worker")

    @property
    def breaker(self) -> str:
        """The path of its breaker."""
        return self._at("breaker")

    @property
    def engine(self) -> str:
        """The path of its engine, where it has one."""
        return self._at("engine")

    @property
    def actors(self) -> list[str]:
        """The paths of the actors that are its own, in the order in which they start."""
        return [self.breaker, self.worker, *([] if self.config.local is None else [self.engine])]

    def _at(self, actor: str) -> str:
        return f"{self.path}/{actor}" if self.number == 1 else f"{self.path}/{actor}#{self.number}"

    def circuit(self, now: float) -> BreakerChanged:
        """Return how its circuit stands, as an event of this instant."""
        return closed(self.name, now) if self.told is None else evolve(self.told, at=now)

    def settle(self, config: ModelConfig, tree: Supervisor) -> None:
        """Go by `config` from now on: these incarnations, and those after a crash."""
        before, self.config = self.config, config
        if config.max_concurrency != before.max_concurrency:
            tree.ref(self.worker, WorkerState).tell(worker.Reconfigure(config.max_concurrency))
        if config.circuit_breaker != before.circuit_breaker:
            tree.ref(self.breaker, BreakerState).tell(circuit_breaker.Reconfigure(config.circuit_breaker))
        if self.limit is not None:
            self.limit.settle(config.rate_limit, patience([config]), tree)


def closed(model: str, now: float) -> BreakerChanged:
    """Return the event of a circuit that is closed from now on."""
    return BreakerChanged(now, model, Circuit.CLOSED, -inf)


@frozen
class _Voice:
    """What the breaker of `seat` publishes to: `events`, while the seat is in force."""

    seat: ModelSeat
    events: EventStream

    def publish(self, event: Event) -> None:
        """Note what is told, and pass it on."""
        if isinstance(event, BreakerChanged):
            self.seat.told = event
        if self.seat.in_force:
            self.events.publish(event)


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
            known = seat.first if carry is None else carry
            return rate_limit.RateLimiter.factory(seat.name, seat.limits, retry=seat.retry, rng=rng)(ledger, known)

        return self.child(_last(seat.path), make)

    def model(self, seat: ModelSeat) -> GroupSpec:
        """Return the spec of the group at `seat`, with its first actors."""
        limiters = [] if seat.limit is None else [self.limiter(seat.limit)]
        return self.group(_last(seat.path), *limiters, *self.actors(seat))

    def actors(self, seat: ModelSeat) -> list[ChildSpec]:
        """Return the specs of the actors that are the seat's own."""
        queue, rng, voice = self._bounds.mailbox, self._rng, _Voice(seat, self._events)

        def make_breaker(ledger: Ledger, carry: object) -> Actor:
            policy = seat.config.circuit_breaker
            return circuit_breaker.CircuitBreaker.factory(seat.name, policy, rng=rng, events=voice)(ledger, carry)

        children = [
            self.child(_last(seat.breaker), make_breaker),
            self.child(_last(seat.worker), lambda ledger, carry: worker.ModelWorker(seat.config, queue, ledger, carry)),
        ]
        if seat.config.local is not None:
            local = seat.config.local
            children.append(
                self.child(_last(seat.engine), lambda _ledger, _carry: Engine(local), start_timeout=local.start_timeout)
            )
        return children


def model_path(name: str) -> str:
    """Return where a model's actors stand in a client's tree: "models/model:NAME", in which a "/" of the name is "%2F",
    and a "%" is "%25".
    """
    return f"models/model:{_segment(name)}"


def limit_path(group: str) -> str:
    """Return where the limiter of a `rate_limit_group` stands: "limits/GROUP", its name as a model's."""
    return f"limits/{_segment(group)}"


def _segment(name: str) -> str:
    return name.replace("%", "%25").replace("/", "%2F")


def _last(path: str) -> str:
    return path.rpartition("/")[2]
