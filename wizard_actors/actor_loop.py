"""The loop of an actor: one turn after the other over the lanes of its mailbox."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import trio

from wizard_actors.actor import Actor
from wizard_actors.errors import ActorError
from wizard_actors.mailbox import Mailbox, Waiter
from wizard_actors.message import Ask

__all__ = ["serve"]

Handler: TypeAlias = Callable[..., object]


async def serve(actor: Actor, mailbox: Mailbox) -> None:
    """Run `actor` on `mailbox` until it is halted, or has finished, and its return lane is empty; raise what a handler
    raises.
    """
    turn = _Turn(actor, mailbox)
    while True:
        if mailbox.poison is not None:
            error, mailbox.poison = mailbox.poison, None
            raise error
        mailbox.awake = False
        turn.run(trio.current_time())
        until = turn.rests_until()
        if until is None:
            return
        await mailbox.park(until, turn)


class _Turn:
    """One pass over the lanes: returns first, then what is due, then what was told, then asks."""

    def __init__(self, actor: Actor, mailbox: Mailbox) -> None:
        self.actor = actor
        self.mailbox = mailbox
        tables = actor._handlers  # noqa: SLF001 - the loop is the actor's other half
        self.asks: dict[type, Handler] = {kind: getattr(actor, name) for kind, name in tables.get("asks", {}).items()}
        self.returns: dict[type, Handler] = {
            kind: getattr(actor, name) for kind, name in tables.get("returns", {}).items()
        }
        self.tells: dict[type, Handler] = {kind: getattr(actor, name) for kind, name in tables.get("tells", {}).items()}

    def run(self, now: float) -> None:
        mailbox, actor = self.mailbox, self.actor
        if not mailbox.settled:
            self._settle(now)
        if actor.wake_at() <= now:
            self._tick(now)
        for _ in range(mailbox.told):
            message = mailbox.next_tell()
            if (hearer := self.tells.get(type(message))) is None:
                mailbox.unheard(message)
                continue
            if (returned := hearer(message, now)) is not None:
                raise _no_return(hearer, returned)
            self._handled()
        while mailbox.posted and not mailbox.halting and actor.accepting():
            if (envelope := mailbox.next_ask()) is None:
                return
            self._answer(*envelope, now)

    def rests_until(self) -> float | None:
        """Return when the actor has something to do even if nothing comes; None where it has ended."""
        if (self.mailbox.halting or self.actor.finished()) and self.mailbox.settled:
            return None
        return self.actor.wake_at()

    def _settle(self, now: float) -> None:
        """Handle the return lane."""
        mailbox = self.mailbox
        while (reply := mailbox.next_forget()) is not None:
            self.actor.forget(reply, now)
            self._handled()
        while (item := mailbox.next_return()) is not None:
            grant, message = item
            handler = self._taker(message)
            if (returned := handler(grant, message, now)) is not None:
                raise _no_return(handler, returned)
            self._handled()

    def _taker(self, message: object) -> Handler:
        """Return the handler of what comes back for a grant: without one the grant would never end, so that only a
        crash helps.
        """
        handler = self.returns.get(type(message))
        if handler is None:
            raise TypeError(f"{self.mailbox.path} has no handler for {type(message).__name__}")
        return handler

    def _answer(self, message: Ask[object], reply: Waiter, now: float) -> None:
        handler = self.asks.get(type(message))
        if handler is None:
            kind = type(message).__name__
            reply.fail(ActorError(f"{self.mailbox.path} has no handler for {kind}", actor=self.mailbox.path))
            return
        self.mailbox.in_hand = reply
        if (returned := handler(message, reply, now)) is not None:
            raise _no_return(handler, returned)
        self.mailbox.in_hand = None
        if reply.wanted:
            self.mailbox.kept[reply] = None
        self._handled()

    def _tick(self, now: float) -> None:
        due, answers = self.actor.wake_at(), self.mailbox.answers
        self.actor.tick(now)
        self._handled()
        if self.actor.wake_at() <= due and self.mailbox.answers == answers:
            raise RuntimeError(f"{self.mailbox.path}: tick({now}) made no progress on what was due at {due}")

    def _handled(self) -> None:
        self.mailbox.handled += 1
        self.mailbox.published = self.actor.snapshot()


def _no_return(handler: Handler, returned: object) -> TypeError:
    name, kind = getattr(handler, "__qualname__", repr(handler)), type(returned).__name__
    return TypeError(f"{name} returned an object of type {kind}: a handler returns nothing; it answers by reply.send")
