"""What a supervision tree is made of, as values: specs to build it from, and snapshots to look at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import TypeAlias, TypeVar

from attrs import Attribute, field, frozen
from attrs.validators import ge, gt

from wizard_actors.actor import Actor
from wizard_actors.events import Event
from wizard_actors.ledger import Ledger
from wizard_actors.mailbox import Lanes
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


K = TypeVar("K", Restart, Strategy, OnGiveUp)


def _one_of(kind: type[K], key: str, value: object) -> K:
    known = [member.value for member in kind]
    if value not in known:
        raise ValueError(f"{key} is one of {', '.join(map(repr, known))} (see {kind.__name__}), not {value!r}")
    return kind(value)


def _restart(value: Restart | str) -> Restart:
    return _one_of(Restart, "restart", value)


def _strategy(value: Strategy | str) -> Strategy:
    return _one_of(Strategy, "strategy", value)


def _on_give_up(value: OnGiveUp | str) -> OnGiveUp:
    return _one_of(OnGiveUp, "on_give_up", value)


def _check_name(spec: object, _attribute: Attribute[str], name: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"the name of a {type(spec).__name__} is a str, not {name!r}")
    if not name or "/" in name:
        raise ValueError(f"a {type(spec).__name__} cannot be named {name!r}: a name is not empty, and without '/'")


def _check_factory(spec: ChildSpec, _attribute: Attribute[Factory], factory: object) -> None:
    if not callable(factory):
        raise TypeError(
            f"the factory of ChildSpec {spec.name!r} is a function that makes the actor, anew after each crash, as in "
            f"`lambda ledger, carry: {type(factory).__name__}(...)`, not a finished {type(factory).__name__}"
        )


def _children(given: Sequence[ChildSpec | GroupSpec]) -> tuple[ChildSpec | GroupSpec, ...]:
    if isinstance(given, ChildSpec | GroupSpec | str):
        raise TypeError(
            f"the children of a GroupSpec are a list of ChildSpec and GroupSpec, not one {type(given).__name__}"
        )
    return tuple(given)


def _check_children(
    spec: GroupSpec, _attribute: Attribute[Sequence[ChildSpec | GroupSpec]], children: Sequence[object]
) -> None:
    names: set[str] = set()
    for child in children:
        if not isinstance(child, ChildSpec | GroupSpec):
            raise TypeError(f"a child of GroupSpec {spec.name!r} is a ChildSpec or a GroupSpec, not {child!r}")
        if child.name in names:
            raise ValueError(
                f"GroupSpec {spec.name!r} has two children named {child.name!r}: names are unique in a group"
            )
        names.add(child.name)


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

    `shutdown_timeout` bounds the actor's own `stop`, before it is cancelled. Raises `TypeError` and `ValueError` for
    what cannot be run, such as a name that is empty or has a "/", or a `factory` that is no function.
    """

    name: str = field(validator=_check_name)
    factory: Factory = field(validator=_check_factory)
    restart: Restart = field(default=Restart.PERMANENT, converter=_restart)
    mailbox: int = field(default=256, validator=ge(1))
    tells: int = field(default=1024, validator=ge(1))
    start_timeout: float = field(default=30.0, validator=gt(0))
    shutdown_timeout: float = field(default=5.0, validator=gt(0))


@frozen
class GroupSpec:
    """How to run several children: started in order, stopped in reverse. Groups can be children of groups.

    Where a choice is named, its value will do, such as "one_for_all". Raises `TypeError` and `ValueError` for what
    cannot be run, such as two children of one name.
    """

    name: str = field(validator=_check_name)
    children: Sequence[ChildSpec | GroupSpec] = field(default=(), converter=_children, validator=_check_children)
    strategy: Strategy = field(default=Strategy.ONE_FOR_ONE, converter=_strategy)
    on_give_up: OnGiveUp = field(default=OnGiveUp.DOWN, converter=_on_give_up)
    policy: RestartPolicy = field(factory=RestartPolicy)
    restart: Restart = field(default=Restart.PERMANENT, converter=_restart)


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
