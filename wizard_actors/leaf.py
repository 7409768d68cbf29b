"""One supervised actor: its mailbox, its incarnations one after the other, and what it leaves behind at a crash."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from random import Random
from typing import Protocol

import trio

from wizard_actors.actor import Actor
from wizard_actors.actor_loop import serve
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
        self._cause: Exception | None = None
        self._scope = trio.CancelScope(shield=True)
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
        self._scope = trio.CancelScope(shield=True)  # here, so that `cancel` finds it before the task has run
        self._halting = self.mailbox.halting = False
        self.mailbox.poison = None  # meant for an earlier incarnation
        self.starts += 1
        self.started = None
        self.set_state(State.STARTING)
        self._root.nursery.start_soon(self._run, ready, name=self.path)
        await ready.wait()

    @trio.lowlevel.enable_ki_protection
    async def _run(self, ready: trio.Event) -> None:
        failure: Exception | None = None
        try:
            with self._scope:
                failure = await self._live(ready)
            self._ended(failure)
        except Exception as error:  # noqa: BLE001 - a bug of the supervisor itself: the tree ends, loudly
            self._root.give_up(error)
        finally:  # whatever ends this task, a SystemExit too: nobody waits for it for ever
            self._over.set()
            ready.set()

    async def _live(self, ready: trio.Event) -> Exception | None:
        """Live from the making to the release; return what the incarnation failed of."""
        actor: Actor | None = None
        failure: Exception | None = None
        flaw: Exception | None = None
        try:
            actor = self.spec.factory(self.mailbox.ledger, self.mailbox.published)
            self._root.returned()  # the factory may have fenced what somebody waits for
            if await self._bring_up(actor):
                ready.set()
                await serve(actor, self.mailbox)
        except Exception as error:  # whatever an actor raises is its crash, which supervision is for
            failure = self.error = self._cause = self.mailbox.failure = error
            log.exception("%s crashed: %r", self.path, failure)
            self._void()  # now, however long the release takes
        finally:  # also where the incarnation is cancelled: what a `stop` shields, or does before it waits, is done
            flaw = await self._release(actor)  # noqa: ASYNC102 - bounded, and cancelled with the incarnation
        if flaw is not None:
            log.error("%s failed to stop: %r", self.path, flaw, exc_info=flaw)
            if failure is None:
                failure = self.error = self._cause = self.mailbox.failure = flaw
        return failure

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
        self._cause = None
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
            except Exception as error:  # noqa: BLE001 - logged, and the incarnation's failure where it has no other
                return error
            return None
        log.warning("%s did not stop in %g s; its stop was cancelled", self.path, self.spec.shutdown_timeout)
        return None

    def _void(self) -> None:
        """Fail what the incarnation had in hand, and what it kept."""
        self.mailbox.fail_kept(self._stopped if self.closing else self._crashed)

    def _ended(self, failure: Exception | None) -> None:
        """Settle what a finished incarnation leaves behind, and let the group decide."""
        self._void()
        self.set_state(State.IDLE if failure is None else State.CRASHED)
        if failure is not None:
            self._root.changed(ActorChanged(trio.current_time(), self.path, self.state, _say(failure)))
        if not self._halting:
            self._parent.ended(self, failure)

    # -- what the group does with it

    async def halt(self, cause: Exception | None = None) -> None:
        """End the present incarnation, with a sibling that failed of `cause` or with the tree: it settles its return
        lane first. Waits until it is over.
        """
        self._halting = self.mailbox.halting = True
        if self.state is State.STARTING and self._start_scope is not None:
            self._start_scope.cancel()
        if self.state not in {State.STARTING, State.RUNNING}:
            return
        if self._cause is None:  # else it is down already, for a reason of its own
            self._cause = cause
        self.mailbox.wake()
        with trio.move_on_after(self.spec.shutdown_timeout + 1):
            await self._over.wait()
            return
        log.warning("%s does not stop; it is cancelled", self.path)
        self.cancel()
        await self._over.wait()

    def cancel(self) -> None:
        """Cancel the present incarnation, the last resort."""
        self._scope.cancel()

    def suspend(self, state: State) -> None:
        """Fail every ask, now and until the next start: nobody on the hot path waits for a backoff."""
        if self.closing or self.state is State.STOPPED:
            return
        self.set_state(state)
        self.mailbox.refuse(self._crashed)
        self._root.changed(ActorChanged(trio.current_time(), self.path, state, _say(self._cause)))

    def close(self) -> None:
        """Take no more asks and fail the unanswered ones: the actor, or its tree, is stopping."""
        self.closing = True
        if self.state is not State.STOPPED:
            self.mailbox.refuse(self._stopped)
            self.mailbox.fail_kept(self._stopped)

    def retire(self) -> None:
        """End for good: after a stop, or where the spec forbids a restart."""
        if self.state is State.STOPPED:
            return
        self.mailbox.refuse(self._stopped if self.closing or self._cause is None else self._crashed)
        self.set_state(State.STOPPED)
        self.mailbox.close()
        self._root.returned()
        self._root.changed(ActorChanged(trio.current_time(), self.path, self.state, _say(self._cause)))

    def kill(self, error: Exception) -> None:
        """Crash the present incarnation with `error`, as a bug in a handler would."""
        self.mailbox.poison = error
        self.mailbox.wake()

    def _crashed(self) -> ActorCrashedError:
        if self._cause is None:
            why = "was restarted"
        elif self._cause is self.error:
            why = f"crashed: {_say(self._cause)}"
        else:
            why = f"was brought down with a sibling that failed: {_say(self._cause)}"
        error = ActorCrashedError(f"{self.path} {why}", actor=self.path)
        error.__cause__ = self._cause
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
