"""What requests share: those of one configuration, and all of one client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

import trio
from attrs import define, field

from wizard_actors.actor import ActorRef
from wizard_actors.cache import CacheState
from wizard_actors.config import ModelConfig, RouteConfig, WizardConfig
from wizard_actors.errors import SupervisorError
from wizard_actors.event_stream import EventStream
from wizard_actors.holds import Holds
from wizard_actors.port import Port
from wizard_actors.retry import RetryBudget
from wizard_actors.routing import RouterState

__all__ = ["InFlight", "Shared"]


@define(eq=False)
class InFlight:
    """How many requests of a client are in flight, whatever the configuration that they are asked under: counted by the
    pipeline alone.
    """

    count: int = 0


@define(eq=False)
class Shared:
    """One configuration, and what its requests hold: its models, the router, the cache (None: off), the retry budget.

    `models` are all that it names, `ports` those that are enabled. `stopping` is set once the client begins to close;
    `failure` says why, where it closes because its tree cannot go on. All configurations of a client, one after the
    other, have all in common but `config`, `models`, `ports`, `strategies`, which are the names that a request may ask
    for, `routes`, those that requests have asked for as they changed them, and `holds`, by which it is in use.
    """

    config: WizardConfig
    models: Mapping[str, ModelConfig]
    ports: Mapping[str, Port]
    strategies: tuple[str, ...]
    router: ActorRef[RouterState]
    cache: ActorRef[CacheState] | None
    budget: RetryBudget
    stopping: trio.Event
    failure: Callable[[], SupervisorError | None]
    events: EventStream
    rng: Random
    in_flight: InFlight
    holds: Holds = field(factory=Holds)
    routes: dict[tuple[str, str | None, str | None], RouteConfig] = field(factory=dict)
