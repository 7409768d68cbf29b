"""One supervised actor: its mailbox, its incarnations one after the other, and what it leaves behind at a crash."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from random import Random
from typing import Protocol

import trio

from wizard_actors.actor import Actor, serve
from wizard_actors.errors import ActorCrashedError, ActorStoppedError, SupervisorError
from wizard_actors.mailbox import Mailbox
from wizard_actors.restarts import RestartPolicy, RestartWindow
from wizard_actors.specs import ActorChanged, ChildSpec, State, TreeNode

__all__ = ["Leaf", "Parent", "Root"]

log = logging.getLogger("wizard_actors.supervisor")


class Root(Protocol):
    """What nodes need of the supervisor."""

    rng: Random
    nursery: trio.Nursery

    def changed(self, event: ActorChanged) -> None:
        """Publish the event."""

    def give_up(self, error: Exception) -> None:
        """End the whole tree, and its body, for `error`."""

    def returned(self) -> None:
        """Look whether every grant has come back."""


class Parent(Protocol):
    """What a node needs of the group that it stands in."""

    path: str

    def ended(self, child: Leaf, failure: Exception | None) -> None:
        """Decide what follows from the end of an incarnation that nobody asked to end."""


class Leaf:
    """One supervised actor: its mailbox, and the task of its present incarnation."""

    def __init__(self, spec: ChildSpec, parent: Parent, root: Root, policy: RestartPolicy) -> None:
        self.spec = spec
        self.path = f"{parent.path}/{spec.name}"
        self.window = RestartWindow(policy, root.rng)
        self.mailbox = Mailbox(self.path, bound=spec.mailbox, tells=spec.tells)
        self.mailbox.returned = root.returned
        self.error: Exception | None = None
        self.starts = 0
        self.started: float | None = None
        self.closing = False
        self._parent = parent
        self._root = root
        self._halting = False
        self._scope: trio.CancelScope | None = None
        self._start_scope: trio.CancelScope | None = None
        self._over = trio.Event()
        self.set_state(State.IDLE)

    def set_state(self, state: State) -> None:
        """Note the state, for the mailbox's readers too."""
        self.state = state
        self.mailbox.state = state.value

    # -- one incarnation

    async def start(self) -> None:
        """Run the next incarnation in a task of its own; return when it is up, or has failed."""
        ready = trio.Event()
        self._over = trio.Event()
        self._halting = self.mailbox.halting = False
        self.starts += 1
        self.started = None
        self.set_state(State.STARTING)
        self._root.nursery.start_soon(self._run, ready, name=self.path)
        await ready.wait()

    @trio.lowlevel.enable_ki_protection
    async def _run(self, ready: trio.Event) -> None:
        actor: Actor | None = None
        failure: Exception | None = None
        with trio.CancelScope(shield=True) as self._scope:
            try:
                actor = self.spec.factory(self.mailbox.ledger, self.mailbox.published)
                if await self._bring_up(actor):
                    ready.set()
                    await serve(actor, self.mailbox)
            except Exception as error:  # noqa: BLE001 - whatever an actor raises is its crash, which supervision is for
                failure = error
            failure = await self._release(actor) or failure
        self._ended(failure)
        self._over.set()
        ready.set()

    async def _bring_up(self, actor: Actor) -> bool:
        """Start the actor; return False where it was halted meanwhile."""
        with trio.move_on_after(self.spec.start_timeout) as self._start_scope:
            if not self._halting:
                await actor.start()
        if self._halting:
            return False
        if self._start_scope.cancelled_caught:
            raise SupervisorError(f"{self.path} did not start in {self.spec.start_timeout:g} s", actor=self.path)
        self.started = trio.current_time()
        self.mailbox.published = actor.snapshot()
        if not self.closing:
            self.mailbox.refusal = None
        self.set_state(State.RUNNING)
        if self.starts > 1:
            self._root.changed(ActorChanged(self.started, self.path, self.state))
        return True

    async def _release(self, actor: Actor | None) -> Exception | None:
        if actor is None:
            return None
        with trio.move_on_after(self.spec.shutdown_timeout):
            try:
                await actor.stop()
            except Exception as error:  # noqa: BLE001 - reported as the incarnation's failure
                return error
        return None

    def _ended(self, failure: Exception | None) -> None:
        """Settle what a finished incarnation leaves behind, and let the group decide."""
        if failure is not None:
            self.error = failure
            log.error("%s crashed: %r", self.path, failure, exc_info=failure)
        self.mailbox.fail_kept(self._stopped if self.closing else self._crashed)
        self.set_state(State.IDLE if failure is None else State.CRASHED)
        if failure is not None:
            self._root.changed(ActorChanged(trio.current_time(), self.path, self.state, _say(failure)))
        if not self._halting:
            self._parent.ended(self, failure)

    # -- what the group does with it

    async def halt(self) -> None:
        """End the present incarnation: it settles its return lane first. Waits until it is over."""
        self._halting = self.mailbox.halting = True
        if self.state is State.STARTING and self._start_scope is not None:
            self._start_scope.cancel()
        if self.state not in {State.STARTING, State.RUNNING}:
            return
        self.mailbox.wake()
        with trio.move_on_after(self.spec.shutdown_timeout + 1):
            await self._over.wait()
            return
        log.warning("%s does not stop; it is cancelled", self.path)
        self.cancel()
        await self._over.wait()

    def cancel(self) -> None:
        """Cancel the present incarnation, the last resort."""
        if self._scope is not None:
            self._scope.cancel()

    def suspend(self, state: State) -> None:
        """Fail every ask, now and until the next start: nobody on the hot path waits for a backoff."""
        self.set_state(state)
        self.mailbox.refuse(self._crashed)
        self._root.changed(ActorChanged(trio.current_time(), self.path, state, _say(self.error)))

    def close(self) -> None:
        """Take no more asks and fail the unanswered ones: the actor, or its tree, is stopping."""
        self.closing = True
        self.mailbox.refuse(self._stopped)
        self.mailbox.fail_kept(self._stopped)

    def retire(self) -> None:
        """End for good: after a stop, or where the spec forbids a restart."""
        self.mailbox.refuse(self._crashed if self.state is State.CRASHED else self._stopped)
        self.set_state(State.STOPPED)
        self.mailbox.close()

    def kill(self, error: Exception) -> None:
        """Crash the present incarnation with `error`, as a bug in a handler would."""
        self.mailbox.poison = error
        self.mailbox.wake()

    def _crashed(self) -> ActorCrashedError:
        why = "was restarted with a sibling" if self.error is None else f"crashed: {_say(self.error)}"
        error = ActorCrashedError(f"{self.path} {why}", actor=self.path)
        error.__cause__ = self.error
        return error

    def _stopped(self) -> ActorStoppedError:
        return ActorStoppedError(f"{self.path} has stopped", actor=self.path)

    def leaves(self) -> Iterator[Leaf]:
        """Yield the leaf itself."""
        yield self

    def snapshot(self) -> TreeNode:
        """Return the node as it stands."""
        lanes = self.mailbox.lanes()
        return TreeNode(self.spec.name, self.path, self.state, max(self.starts - 1, 0), _say(self.error), lanes)


def _say(error: Exception | None) -> str | None:
    return None if error is None else f"{type(error).__name__}: {error}"
