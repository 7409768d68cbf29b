"""A group of supervised children: started in order, restarted by a strategy, stopped in reverse.

All decisions are synchronous steps. What waits (a backoff, a start, a halt) runs in shielded tasks, at most one for
each set of children that restart together: the group's where the strategy says so, else each crashed child's own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TypeAlias

import trio

from wizard_actors.errors import SupervisorError
from wizard_actors.leaf import Leaf, Root
from wizard_actors.restarts import Comeback, RestartPolicy, RestartWindow
from wizard_actors.specs import ChildSpec, GroupSpec, OnGiveUp, Restart, State, Strategy, TreeNode

__all__ = ["Group"]

log = logging.getLogger("wizard_actors.supervisor")

Node: TypeAlias = "Leaf | Group"


class _Revival:
    """One task that brings crashed children back, and how to tell it that the world has changed."""

    def __init__(self) -> None:
        self.changed = trio.Event()
        self.done = trio.Event()


class Group:
    """One node with children."""

    def __init__(self, spec: GroupSpec, parent: Group | None, root: Root, policy: RestartPolicy) -> None:
        self.spec = spec
        self.path: str = spec.name if parent is None else f"{parent.path}/{spec.name}"
        self.window = RestartWindow(policy, root.rng)
        self.state = State.IDLE
        self.error: Exception | None = None
        self.starts = 0
        self.started: float | None = None
        self.closing = False
        self.children: dict[str, Node] = {}
        self._ending = False
        self._parent = parent
        self._root = root
        self._own = RestartWindow(spec.policy, root.rng)
        self._fallen: dict[Node, Exception | None] = {}  # and why
        self._revivals: dict[Node, _Revival] = {}
        for child in spec.children:
            self.plant(child)

    def plant(self, spec: ChildSpec | GroupSpec) -> Node:
        """Add a child at the end, not started yet."""
        if spec.name in self.children:
            raise ValueError(f"{self.path} cannot have a child named {spec.name!r}: it has one, and names are unique")
        kind = Leaf if isinstance(spec, ChildSpec) else Group
        node = kind(spec, self, self._root, self.spec.policy)  # type: ignore[arg-type]  # each with its own kind of spec
        self.children[spec.name] = node
        return node

    async def adopt(self, spec: ChildSpec | GroupSpec) -> None:
        """Add a child and start it; where the group is not up, the child starts with it and shares its lot."""
        node = self.plant(spec)
        if self.state in {State.STARTING, State.RUNNING} and not self._ending:
            await node.start()
        elif self.state in {State.BACKOFF, State.DOWN}:
            node.suspend(self.state)

    # -- starting and restarting

    async def start(self) -> None:
        """Start the children in order. A failed start is that child's crash; where failures escalate, it is ours."""
        self._ending = False
        self.starts += 1
        turn = self.starts
        self.started = None
        self.state = State.STARTING
        for child in tuple(self.children.values()):
            if self in self._revivals:  # one fell, and the others restart with it: that starts the rest
                break
            if not _gone(child):
                await child.start()
            if self._ending or self.starts != turn:
                return  # ended meanwhile, perhaps even started again
        self.state = State.RUNNING
        self.started = trio.current_time()

    def ended(self, child: Node, failure: Exception | None) -> None:
        """Decide what follows from the end of a child that nobody asked to end."""
        if self._going_down or child.closing:
            return
        kind = child.spec.restart
        if kind is Restart.TEMPORARY or (kind is Restart.TRANSIENT and failure is None):
            child.retire()
            return
        self._fallen[child] = failure
        key = child if self.spec.strategy is Strategy.ONE_FOR_ONE else self
        if revival := self._revivals.get(key):
            revival.changed.set()
        else:
            self._revivals[key] = _Revival()
            self._root.nursery.start_soon(self._revive, key, name=f"{self.path} revives")

    @trio.lowlevel.enable_ki_protection
    async def _revive(self, key: Node) -> None:
        """Bring back what has fallen under `key`, until nothing has, in a task of its own."""
        revival = self._revivals[key]
        with trio.CancelScope(shield=True):
            try:
                while not self._going_down and (first := self._first_fallen(key)) is not None:
                    await self._round(first, revival)
            except Exception as error:  # noqa: BLE001 - a bug of the supervisor itself: the tree ends, loudly
                self._root.give_up(error)
        del self._revivals[key]
        revival.done.set()

    def _first_fallen(self, key: Node) -> Node | None:
        candidates = self.children.values() if key is self else (key,)
        return next((child for child in candidates if child in self._fallen and not _gone(child)), None)

    async def _round(self, first: Node, revival: _Revival) -> None:
        """Halt who restarts with `first`, wait if need be, and start them in order."""
        revival.changed = trio.Event()
        cause = self._fallen[first]
        window = first.window if self.spec.strategy is Strategy.ONE_FOR_ONE else self._own
        decision = window.crashed(trio.current_time(), started=first.started)
        members = self._members(first)
        for member in reversed(members):
            if member not in self._fallen:
                await self._end(member, cause)
                self._fallen[member] = cause  # until it is started again
        if self._going_down:
            return
        if decision.comeback is Comeback.GIVE_UP and self.spec.on_give_up is OnGiveUp.ESCALATE:
            await self._escalate(first, cause, revival)
            return
        if decision.comeback is not Comeback.AT_ONCE:
            for member in members:
                member.suspend(State.DOWN if decision.comeback is Comeback.GIVE_UP else State.BACKOFF)
            with trio.move_on_after(decision.delay):
                await revival.changed.wait()
                return  # another one fell, or the tree stops: look again
        await self._start_again(members)

    async def _start_again(self, members: list[Node]) -> None:
        """Start `members` in order, until one that was started falls."""
        for count, member in enumerate(members):
            if self._going_down or any(earlier in self._fallen for earlier in members[:count]):
                return
            self._fallen.pop(member, None)
            if not _gone(member):
                await member.start()

    def _members(self, first: Node) -> list[Node]:
        """Return who restarts with `first`, in starting order."""
        if self.spec.strategy is Strategy.ONE_FOR_ONE:
            return [first]
        children = [child for child in self.children.values() if not _gone(child)]
        return children if self.spec.strategy is Strategy.ONE_FOR_ALL else children[children.index(first) :]

    async def _escalate(self, first: Node, cause: Exception | None, revival: _Revival) -> None:
        """Fail as a whole: `first` crashes too often."""
        self.error = SupervisorError(f"{self.path} gives up: {first.path} crashes too often", actor=self.path)
        self.error.__cause__ = cause
        log.error("%s", self.error)
        await self._end_children(self.error, except_for=revival)
        self.state = State.CRASHED
        if self._parent is None:
            self._root.give_up(self.error)
        else:
            self._parent.ended(self, self.error)

    @property
    def _going_down(self) -> bool:
        """Whether nothing here is to be brought back: before the next start, or for good."""
        return self.closing or self._ending

    async def _end(self, child: Node, cause: Exception | None) -> None:
        """End a child that its group brings down with it, for good where it is never restarted."""
        await child.halt(cause)
        if child.spec.restart is Restart.TEMPORARY and child.starts:
            child.retire()

    async def _end_children(self, cause: Exception | None, *, except_for: _Revival | None = None) -> None:
        """End every child, the last started first, and whatever brings children back but the caller's own revival."""
        self._ending = True
        revivals = [revival for revival in self._revivals.values() if revival is not except_for]
        for revival in revivals:
            revival.changed.set()
        for child in reversed(tuple(self.children.values())):
            await self._end(child, cause)
        for revival in revivals:
            await revival.done.wait()
        self._fallen.clear()

    # -- stopping

    async def halt(self, cause: Exception | None = None) -> None:
        """End every child, the last started first. Waits until they are over."""
        await self._end_children(cause)
        self.state = State.IDLE

    async def uproot(self, node: Node) -> None:
        """Take out a child that has been closed, once it is over; till then it is a child, and stops with its group."""
        await node.halt()
        if revival := self._revivals.get(node):
            revival.changed.set()
            await revival.done.wait()
        self._fallen.pop(node, None)
        node.retire()
        if self.children.get(node.spec.name) is node:  # else somebody else has taken it out meanwhile
            del self.children[node.spec.name]

    def cancel(self) -> None:
        """Cancel every child, the last resort."""
        for child in self.children.values():
            child.cancel()

    def suspend(self, state: State) -> None:
        """Fail every ask below, now and until the next start."""
        if _gone(self):
            return
        self.state = state
        for child in self.children.values():
            child.suspend(state)

    def close(self) -> None:
        """Take no more asks below, and fail the unanswered ones: the tree is stopping."""
        self.closing = True
        for revival in tuple(self._revivals.values()):
            revival.changed.set()
        for child in self.children.values():
            child.close()

    def retire(self) -> None:
        """End for good."""
        for child in self.children.values():
            child.retire()
        self.state = State.STOPPED

    def leaves(self) -> Iterator[Leaf]:
        """Yield every actor below, in starting order."""
        for child in tuple(self.children.values()):  # in one step: the reader may be another thread
            yield from child.leaves()

    def snapshot(self) -> TreeNode:
        """Return the group and all below as they stand."""
        error = None if self.error is None else f"{type(self.error).__name__}: {self.error}"
        children = tuple(child.snapshot() for child in tuple(self.children.values()))
        return TreeNode(self.spec.name, self.path, self.state, max(self.starts - 1, 0), error, None, children)


def _gone(node: Node) -> bool:
    """Whether a node is never started again: it has ended for good, or is about to."""
    return node.closing or node.state is State.STOPPED
