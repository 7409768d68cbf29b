"""What a supervision tree is made of, as values: specs to build it from, and snapshots to look at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import TypeAlias

from attrs import field, frozen
from attrs.validators import ge, gt

from wizard_actors.actor import Actor
from wizard_actors.events import Event
from wizard_actors.mailbox import Lanes, Ledger
from wizard_actors.restarts import RestartPolicy

__all__ = [
    "ActorChanged",
    "ChildSpec",
    "GroupSpec",
    "OnGiveUp",
    "Restart",
    "State",
    "Strategy",
    "TreeNode",
]

Factory: TypeAlias = Callable[[Ledger, object], Actor]
"""Makes an incarnation from the ledger of live grants and the last snapshot (None at the first start)."""


class Restart(StrEnum):
    """When a child is restarted: always, only after a crash (and not when it has finished), never."""

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    TEMPORARY = "temporary"


class Strategy(StrEnum):
    """Who is restarted with a crashed child: nobody else, every sibling, or the siblings started after it."""

    ONE_FOR_ONE = "one_for_one"
    ONE_FOR_ALL = "one_for_all"
    REST_FOR_ONE = "rest_for_one"


class OnGiveUp(StrEnum):
    """What happens to a child that crashes too often: it is DOWN and tried again later, or the whole group fails."""

    DOWN = "down"
    ESCALATE = "escalate"


class State(StrEnum):
    """The life of a node.

    IDLE ──> STARTING ──> RUNNING ──crash──> CRASHED ──> STARTING             at once: its queue is kept
                 │                              ├───> BACKOFF ──> STARTING    asks fail meanwhile
                 └──failed start──> CRASHED     └───> DOWN ──> STARTING       given up; tried again every minute
    any of them ──> STOPPED
    """

    IDLE = "idle"
    STARTING = "starting"
    RUNNING = "running"
    CRASHED = "crashed"
    BACKOFF = "backoff"
    DOWN = "down"
    STOPPED = "stopped"


@frozen
class ChildSpec:
    """How to run one actor: `mailbox` bounds its ask lane, `tells` its told lane; timeouts are in seconds.

    `shutdown_timeout` bounds the actor's own `stop`, before it is cancelled.
    """

    name: str
    factory: Factory
    restart: Restart = Restart.PERMANENT
    mailbox: int = field(default=256, validator=ge(1))
    tells: int = field(default=1024, validator=ge(1))
    start_timeout: float = field(default=30.0, validator=gt(0))
    shutdown_timeout: float = field(default=5.0, validator=gt(0))


@frozen
class GroupSpec:
    """How to run several children: started in order, stopped in reverse. Groups can be children of groups."""

    name: str
    children: Sequence[ChildSpec | GroupSpec] = ()
    strategy: Strategy = Strategy.ONE_FOR_ONE
    on_give_up: OnGiveUp = OnGiveUp.DOWN
    policy: RestartPolicy = field(factory=RestartPolicy)
    restart: Restart = Restart.PERMANENT


@frozen
class TreeNode:
    """One node as it stands: `error` is its last failure, `lanes` None for a group."""

    name: str
    path: str
    state: State
    restarts: int
    error: str | None
    lanes: Lanes | None
    children: tuple[TreeNode, ...] = ()

    def walk(self) -> Iterator[TreeNode]:
        """Yield the node and everything below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()


@frozen
class ActorChanged(Event):
    """An actor crashed, came back, went DOWN or stopped; `error` says why, where there is a why."""

    path: str
    state: State
    error: str | None = None
