"""One request in progress: what may end it early, what it may still send, and what it has sent."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

import trio

from wizard_actors.errors import ActorStoppedError, StreamInterruptedError, WizardError
from wizard_actors.protocol.failures import invalid
from wizard_actors.protocol.frames import Fault, Incoming, RequestId
from wizard_actors.response_stream import unread
from wizard_actors.server.credit import MOST_CREDIT, Credit, OverdrawnError
from wizard_actors.types import Reset, StreamEvent, TextDelta

__all__ = ["Running"]

STOPS: Final = "the server stops"

SUBSCRIBE: Final = "subscribe"
"""The method that goes on until it is unsubscribed."""


class Running:
    """A request that has come and is not answered yet. `permit` is its place among those that may be in progress.

    It ends by itself, or is stopped, once, for a reason that its response tells: `stopped`. What is `settled` has its
    response, on the way to the wire, and is stopped no more.
    """

    def __init__(self, request: RequestId, incoming: Incoming, permit: ExitStack) -> None:
        self.id = request
        self.method = incoming.method
        self.permit = permit
        self.scope = trio.CancelScope()
        self.stopped: Fault | WizardError | None = None
        self.settled = False
        self.reading = trio.CancelScope()
        """What a subscription reads in; `unsubscribe` ends it."""
        self._credit: Credit | None = None
        self._early = 0  # credit that came before it was known how much there is to begin with
        self._granted = trio.Event()
        self._events = 0
        self._partial: list[str] = []

    def stop(self, why: Fault | WizardError) -> bool:
        """End it, with that as its response, once everything is given back; return whether it was in progress."""
        if self.settled:
            return False
        if self.stopped is None:
            self.stopped = why
            self.scope.cancel()
        return True

    def unsubscribe(self) -> bool:
        """End a subscription as asked for, also one that has only just come; return whether it was one in progress."""
        if self.method != SUBSCRIBE or self.settled:
            return False
        self.reading.cancel()
        return True

    # -- credit

    def opened(self, credit: int) -> None:
        """Begin with so much credit, and what came behind the request: this one sends notifications."""
        self._credit = Credit(credit)
        if self._early:
            self.grant(self._early)

    def grant(self, more: int) -> None:
        """Let it send so many more. One that is granted too much is stopped; one that sends nothing does not care."""
        if self._credit is None:
            self._early = min(self._early + more, MOST_CREDIT + 1)
            return
        try:
            self._credit.grant(more)
        except OverdrawnError as error:
            self.stop(invalid(f"`credit` {error}", self.id))
            return
        granted, self._granted = self._granted, trio.Event()
        granted.set()

    async def afford(self, patience: float) -> None:
        """Wait until one more notification may be sent, and spend it. Without credit for `patience` seconds it is
        stopped.
        """
        if self._credit is None:
            raise RuntimeError(f"a request for {self.method} sends no notifications")
        while not self._credit.spend():
            with trio.CancelScope(deadline=trio.current_time() + patience) as waiting:
                await self._granted.wait()
            if waiting.cancelled_caught:
                self.stop(unread(patience))
                await trio.lowlevel.checkpoint()  # which ends here, for the whole of it is cancelled

    # -- a server that stops

    def sent(self, event: StreamEvent) -> None:
        """Note what a stream has sent."""
        self._events += 1
        if isinstance(event, TextDelta):
            self._partial.append(event.text)
        elif isinstance(event, Reset):
            self._partial.clear()

    def cut_off(self) -> WizardError:
        """Return the error of one that the end of the server cuts off. It was begun: nobody may take it for one that
        can be sent again for nothing.
        """
        if self._events:
            said = f"{STOPS}: the stream was cut off after {self._events} events"
            return StreamInterruptedError(said, model="", partial="".join(self._partial))
        return ActorStoppedError(f"{STOPS}: the request was begun, and cut off", actor="wizard")
