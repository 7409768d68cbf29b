"""Supervision: actors start in order, come back after a crash, and stop in reverse order, whatever happens around them.

    spec = GroupSpec("shop", [ChildSpec("stock", lambda ledger, carry: Stock())])
    async with Supervisor(spec) as supervisor:
        left = await supervisor.ref("stock", object).ask(Take(1))

Every actor runs in a task of its own in one nursery, shielded from cancellation and protected from Ctrl-C; the body of
the `async with` stays cancellable, and the ordered stop runs when it is left, however that happens. A crash never
cancels a neighbour. Mailbox, ledger and last snapshot belong to the tree, so that they outlive a crashed incarnation.
"""

from __future__ import annotations

import logging
from random import Random
from types import TracebackType
from typing import Self, TypeVar

import trio

from wizard_actors.actor import ActorRef, Home
from wizard_actors.errors import ActorStoppedError, SupervisorError, UnsupportedError
from wizard_actors.event_stream import EventStream
from wizard_actors.group import Group
from wizard_actors.leaf import Leaf
from wizard_actors.mailbox import elsewhere
from wizard_actors.restarts import RestartPolicy
from wizard_actors.specs import (
    ActorChanged,
    ChildSpec,
    GroupSpec,
    OnGiveUp,
    Restart,
    State,
    Strategy,
    TreeNode,
)

__all__ = [
    "ActorChanged",
    "ChildSpec",
    "GroupSpec",
    "OnGiveUp",
    "Restart",
    "RestartPolicy",
    "State",
    "Strategy",
    "Supervisor",
    "TreeNode",
]

log = logging.getLogger("wizard_actors.supervisor")

P = TypeVar("P")


class Supervisor:
    """A supervision tree that lives for one `async with` block.

    `rng` jitters the backoffs; `drain_timeout` is the one deadline, in seconds, within which live grants may still come
    back when the tree stops; `events` gets an `ActorChanged` for every crash, restart and give-up.

    Leaving the block stops the tree: every intake closes, every unanswered ask fails with `ActorStoppedError` at once,
    live grants are awaited until the deadline, then the actors end in reverse order. Raises what the body raised, else
    `SupervisorError` where the tree itself could not go on, in which case the body has been cancelled.

    Making one raises `TypeError` for a `spec` that is no `GroupSpec`, entering it `UnsupportedError` outside of Trio.
    """

    def __init__(
        self,
        spec: GroupSpec,
        *,
        rng: Random | None = None,
        drain_timeout: float = 10.0,
        events: EventStream | None = None,
    ) -> None:
        if not isinstance(spec, GroupSpec):
            raise TypeError(
                f"a Supervisor runs a GroupSpec, not a {type(spec).__name__}: "
                'Supervisor(GroupSpec("app", [ChildSpec("name", factory)]))'
            )
        self.rng = rng or Random()  # jitter, not a secret
        self.nursery: trio.Nursery
        self.failure: SupervisorError | None = None
        self.stopping = trio.Event()
        """Set as soon as the tree begins to stop, for those who wait for something else beside it."""
        self.drain_timeout = drain_timeout
        """Seconds in which live grants may still come back when this is left; may be changed until then."""
        self._events = events
        self._home = Home()
        self._root = Group(spec, None, self, spec.policy)
        self._body = trio.CancelScope()
        self._came_back = trio.lowlevel.ParkingLot()

    # -- for the body

    @property
    def outstanding(self) -> dict[str, int]:
        """How many live grants have not been given back, by the path of the actor that granted them."""
        counts = {leaf.path: leaf.mailbox.ledger.outstanding for leaf in self._root.leaves()}
        return {path: count for path, count in counts.items() if count}

    def ref(self, path: str, published: type[P]) -> ActorRef[P]:
        """Return the address of the actor at `path`, such as "models/model:primary/limiter", at any time.

        `published` is the type of its snapshot, `object` where none is read. Raises `KeyError` where no actor stands
        there.
        """
        return ActorRef(self._leaf(path).mailbox, self._home)

    def tree(self) -> TreeNode:
        """Return every node as it stands: state, restarts, last error, lanes."""
        return self._root.snapshot()

    def kill(self, path: str, error: Exception) -> None:
        """Crash the actor at `path` with `error`, as a bug in a handler would: for tests and fault injection, from any
        thread.
        """
        self._home.do(self._leaf(path).kill, error)

    async def add(self, spec: ChildSpec | GroupSpec, *, under: str = "") -> None:
        """Start another child under the group at path `under` (default: the root); return when it is up, or failed.

        A failed start is a crash like any other: see `tree`. Where the group itself waits for its restart, the child
        starts with it. Raises `ValueError` for a name that is taken, `TypeError` for what is no spec,
        `ActorStoppedError` once the tree is stopping, `UnsupportedError` in another thread or event loop than the
        tree's.
        """
        self._check_here("add", "spec")
        if not isinstance(spec, ChildSpec | GroupSpec):
            raise TypeError(f"what is added is a ChildSpec or a GroupSpec, not a {type(spec).__name__}")
        group = self._group(under)
        if group.closing or group.state is State.STOPPED:
            raise ActorStoppedError(f"{group.path} is stopping and takes no new children", actor=group.path)
        with trio.CancelScope(shield=True):  # a start that is abandoned half-way would belong to nobody
            await group.adopt(spec)

    async def remove(self, path: str, *, drain_timeout: float | None = None) -> None:
        """Stop the child at `path` for good: its asks fail at once, its live grants are awaited for `drain_timeout`
        seconds (default: the tree's), and it is taken out of the tree.

        Cancelling cuts the draining short; the child is stopped all the same. Raises `KeyError` where nothing stands at
        `path`, `UnsupportedError` in another thread or event loop than the tree's.
        """
        self._check_here("remove", "path")
        parent, _, name = path.rpartition("/")
        group = self._group(parent)
        node = group.children.get(name)
        if node is None:
            raise KeyError(f"{self._root.path} has no child at {path!r}")
        node.close()
        try:
            await self._drained(node, self.drain_timeout if drain_timeout is None else drain_timeout)
        finally:
            with trio.CancelScope(shield=True):
                await group.uproot(node)  # noqa: ASYNC102 - bounded by the children's own timeouts

    # -- the block

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Self:
        if not trio.lowlevel.in_trio_task():
            raise UnsupportedError(
                f"the Supervisor of {self._root.path!r} runs under Trio, and this is no Trio task (asyncio, perhaps): "
                "beside a client, add the actors to its tree by `await client.run(client.supervisor.add, spec)`; "
                "without one, call `trio.run` in a thread, and enter the Supervisor there",
                feature="event loop",
            )
        self._home.settle()
        self._manager = trio.open_nursery()  # here, so that a tree can be made before Trio runs
        self.nursery = await self._manager.__aenter__()
        started = False
        try:
            with trio.CancelScope(shield=True):
                await self._root.start()
            started = self.failure is None and self._root.state is State.RUNNING  # else it is about to give up
        finally:
            if not started:
                await self._wind_up()  # noqa: ASYNC102 - shields itself, and ends by the drain timeout
        if self.failure is not None:
            raise self.failure
        self._body.__enter__()
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        try:
            swallowed = self._body.__exit__(kind, error, trace)
        finally:
            await self._wind_up()  # noqa: ASYNC102 - shields itself, and ends by the drain timeout
        if self.failure is not None and (error is None or swallowed):
            raise self.failure
        return False

    async def _wind_up(self) -> None:
        """Stop in order; on a second Ctrl-C, at once."""
        try:
            with trio.CancelScope(shield=True):
                self.stopping.set()
                self._root.close()
                await self._drained(self._root, self.drain_timeout)
                await self._root.halt()
                self._root.retire()
        finally:
            self._root.cancel()
            await self._manager.__aexit__(None, None, None)  # noqa: ASYNC102 - every task is over or cancelled

    async def _drained(self, node: Group | Leaf, seconds: float) -> None:
        """Wait until every grant below `node` has come back, for so many seconds; name those that have not."""
        with trio.move_on_after(seconds):
            while _owed(node):
                await self._came_back.park()
            return
        for path, count in _owed(node).items():
            log.warning("%s stops with %d grants not given back after %g s", path, count, seconds)

    # -- for the nodes

    def changed(self, event: ActorChanged) -> None:
        """Publish what happened to an actor."""
        if self._events is not None:
            self._events.publish(event)

    def give_up(self, error: Exception) -> None:
        """End the tree, and its body: it cannot go on."""
        if self.failure is None:
            self.failure = SupervisorError(f"{self._root.path} cannot go on: {error}", actor=self._root.path)
            self.failure.__cause__ = error
        self._body.cancel()

    def returned(self) -> None:
        """Look again whether every grant has come back."""
        if self._came_back:
            self._came_back.unpark_all()

    def _check_here(self, method: str, argument: str) -> None:
        if not self._home.here:
            call = f"client.run(client.supervisor.{method}, {argument})"
            raise elsewhere(self._root.path, f"`await {call}`, or `{call}` of a BlockingClient")

    def _leaf(self, path: str) -> Leaf:
        parent, _, name = path.rpartition("/")
        node = self._group(parent).children.get(name)
        if not isinstance(node, Leaf):
            raise KeyError(f"{self._root.path} has no actor at {path!r}")
        return node

    def _group(self, path: str) -> Group:
        node: Group | Leaf | None = self._root
        for name in filter(None, path.split("/")):
            node = node.children.get(name) if isinstance(node, Group) else None
        if not isinstance(node, Group):
            raise KeyError(f"{self._root.path} has no group at {path!r}")
        return node


def _owed(node: Group | Leaf) -> dict[str, int]:
    """Return how many grants may still come back to each actor below `node`: none to one that has ended for good."""
    counts = {leaf.path: leaf.mailbox.ledger.outstanding for leaf in node.leaves() if not leaf.mailbox.stopped}
    return {path: count for path, count in counts.items() if count}
