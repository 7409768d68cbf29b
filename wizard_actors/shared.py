"""What all requests of one client share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

import trio
from attrs import define

from wizard_actors.actor import ActorRef
from wizard_actors.cache import CacheState
from wizard_actors.config import WizardConfig
from wizard_actors.errors import SupervisorError
from wizard_actors.event_stream import EventStream
from wizard_actors.port import Port
from wizard_actors.retry import RetryBudget
from wizard_actors.routing import RouterState

__all__ = ["Shared"]


@define(eq=False)
class Shared:
    """The models, the router, the cache (None: off), the retry budget; and how many requests are in flight.

    `stopping` is set once the client begins to close; `failure` says why, where it closes because its tree cannot go
    on. `in_flight` is counted by the pipeline alone.
    """

    config: WizardConfig
    ports: Mapping[str, Port]
    router: ActorRef[RouterState]
    cache: ActorRef[CacheState] | None
    budget: RetryBudget
    stopping: trio.Event
    failure: Callable[[], SupervisorError | None]
    events: EventStream
    rng: Random
    in_flight: int = 0
