"""One request to a server, with its answers: sent again only where the server says that it has not begun it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import trio

from wizard_actors.errors import (
    DeadlineExceededError,
    InvalidPromptError,
    NetworkError,
    SerializationError,
    WizardError,
)
from wizard_actors.protocol.frames import request_text
from wizard_actors.remote.connection import Connection
from wizard_actors.remote.exchange import Exchange
from wizard_actors.remote.link import TRIES, Link

__all__ = ["Call", "asked"]

GRACE: Final = 5.0
"""Seconds beyond a deadline for which the server is waited for: it should say itself that the deadline has passed."""

AT_ONCE: Final = 0.01
"""Seconds that a request may be on its way to its connection before its deadline is counted down."""


class Call:
    """The request `method`, sent over `link` with the first `next`. `deadline` is in seconds from then, of both sides.

    Whoever reads it calls `leave` in the end: a call that is left early is cancelled.
    """

    def __init__(
        self,
        link: Link,
        method: str,
        params: Mapping[str, object],
        *,
        credit: int = 0,
        deadline: float | None = None,
    ) -> None:
        self.id = f"{link.rng.getrandbits(64):016x}"
        self._link = link
        self._method = method
        self._params = params
        self._credit = credit
        self._deadline = deadline
        self._began_at: float | None = None
        self._tries = TRIES
        self._connection: Connection | None = None
        self._exchange: Exchange | None = None

    @property
    def lost(self) -> WizardError | None:
        """Why the connection ended before the call did."""
        return None if self._exchange is None else self._exchange.lost

    async def begin(self) -> None:
        """Send the request, without waiting for anything that comes. Raises as `Link.send`."""
        if self._began_at is None:
            self._began_at = trio.current_time()
        self._connection, self._exchange = await self._link.send(self.id, self._text, credit=self._credit)

    async def next(self) -> Mapping[str, object] | None:
        """Return the next notification, None at the end. Raises as `begin`, and `DeadlineExceededError`."""
        began_at = self._began_at = trio.current_time() if self._began_at is None else self._began_at
        until = math.inf if self._deadline is None else began_at + self._deadline + GRACE
        with trio.CancelScope(deadline=until):
            while True:
                if self._exchange is None:
                    await self.begin()
                    continue
                item = await self._exchange.next()
                if item is not None or not self._may_go_elsewhere(self._exchange):
                    return item
                self._tries -= 1
                self._unbegun()
        raise DeadlineExceededError(
            f"the server at {self._link.where} has not answered within the deadline of {self._deadline:g} s, nor "
            f"{GRACE:g} s later",
            deadline=self._deadline,
        )

    def result(self) -> object:
        """Return the result at the end. Raises the server's error, or `NetworkError` and others of the connection."""
        if self._exchange is None:
            raise RuntimeError("a call has a result once it has been read")
        return self._exchange.result()

    def leave(self) -> None:
        """Have the server stop, where it is not over. Waits for nothing."""
        if self._connection is not None and self._exchange is not None:
            self._connection.forget(self._exchange)

    def _may_go_elsewhere(self, exchange: Exchange) -> bool:
        """Say whether to send it again. What has delivered anything was begun, whatever the server says then."""
        if exchange.refused and exchange.begun:
            where = self._link.where
            said = f"the server at {where} has stopped in the middle of a request"
            exchange.lose(exchange.lost or NetworkError(said, model=where))
        return exchange.refused and not exchange.begun and self._tries > 0

    def _unbegun(self) -> None:
        """Make ready for another connection: this one's server takes nothing more."""
        if self._connection is not None:
            self._connection.drain()
        self._connection = self._exchange = None

    def _text(self) -> str:
        params = dict(self._params)
        if self._deadline is not None:
            waited = trio.current_time() - (self._began_at or 0.0)
            params["deadline"] = self._deadline if waited < AT_ONCE else self._deadline - waited
            if self._deadline <= waited:
                said = f"the deadline of {self._deadline:g} s passed while the server at {self._link.where} was dialled"
                raise DeadlineExceededError(said, deadline=self._deadline)
        if self._credit:
            params["credit"] = self._credit
        try:
            return request_text(self._method, params, self.id)
        except SerializationError as error:
            if "prompt" in params or "prompts" in params:
                raise InvalidPromptError(error.message) from error
            raise
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidPromptError(f"the request cannot be sent as JSON: {error}") from error


async def asked(call: Call) -> object:
    """Return the result of a call that nothing comes for but its result. Cancelled, it is left."""
    try:
        while await call.next() is not None:
            pass
        return call.result()
    finally:
        call.leave()
