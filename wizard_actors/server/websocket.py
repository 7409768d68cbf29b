"""The WebSocket endpoint: JSON-RPC 2.0 over the subprotocol `wizard.v1`; `docs/protocol.md` is the reference.

`handle` serves one connection to its end, whatever becomes of it: nothing that a peer sends, and no bug here, reaches
whoever listens, or another connection.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

import trio
from trio_websocket import ConnectionClosed, wrap_server_stream
from wsproto.utilities import LocalProtocolError

from wizard_actors.protocol.frames import SUBPROTOCOL
from wizard_actors.server.access import Caller
from wizard_actors.server.connection import Connection
from wizard_actors.server.handshake import Handshake, Refusal
from wizard_actors.server.held_stream import HeldStream
from wizard_actors.server.refusals import Refusals
from wizard_actors.server.service import Service

__all__ = ["WebSocketEndpoint"]

log = logging.getLogger("wizard_actors.server")

MAX_MESSAGE: Final = b"Wizard-Max-Message"
"""The header that tells a client how many bytes a message of its may have."""


class WebSocketEndpoint:
    """Serves `service` to whoever speaks `wizard.v1`. `connections` counts those that are open."""

    def __init__(self, service: Service) -> None:
        self.connections = 0
        self._service = service
        self._of_key: Counter[str] = Counter()
        self._refusals = Refusals("a handshake")

    async def handle(self, stream: trio.abc.Stream, let_in: Callable[[], object] = lambda: None) -> None:
        """Serve one connection, from the HTTP request on, and close it; `let_in` is called once it is counted as open.
        Raises nothing; when it is cancelled, so is all that is in progress on the connection.
        """
        settings = self._service.settings
        held = HeldStream(stream, send_timeout=settings.send_timeout, max_message=settings.max_message)
        try:
            await self._serve(held, let_in)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionClosed, LocalProtocolError):
            log.debug("a connection has broken off")
        except* Exception:
            log.exception("a bug has ended a connection")
        finally:
            await held.finish()  # noqa: ASYNC102 - within bounds, and at once where it is cancelled

    def close_idle(self) -> None:
        """Do nothing: each connection that is open closes itself when the server drains."""

    async def _serve(self, held: HeldStream, let_in: Callable[[], object]) -> None:
        settings = self._service.settings
        deadline = trio.current_time() + settings.handshake_timeout
        caller: Caller | None = None
        with trio.CancelScope(deadline=deadline):
            caller = await self._greeted(held)
        if caller is None:
            return
        self.connections += 1
        self._of_key[caller.name] += 1
        let_in()
        try:
            await self._upgraded(held, caller, deadline)
        finally:
            self.connections -= 1
            self._of_key[caller.name] -= 1
            if not self._of_key[caller.name]:
                del self._of_key[caller.name]

    async def _greeted(self, held: HeldStream) -> Caller | None:
        """Return who asks, once it is known that they may; None where they were told why not."""
        handshake = Handshake(held, self._service.settings)
        try:
            caller = await handshake.caller(self._service.access)
            if caller is not None:
                self._check_room(caller)
            return caller
        except Refusal as refusal:
            self._refusals.log(refusal.status, refusal.message, trio.current_time())
            await handshake.refuse(refusal)
            return None

    def _check_room(self, caller: Caller) -> None:
        """Raise where nobody else is let in."""
        if self._service.draining.is_set():
            raise Refusal(503, "the server stops: connect again, to its successor", code="actor_stopped")
        settings = self._service.settings
        if self.connections >= settings.max_connections:
            raise _full(settings.max_connections, "are open", "max_connections")
        if caller.name and self._of_key[caller.name] >= settings.max_connections_per_key:
            of_key = f"of the key {caller.name!r} are open"
            raise _full(settings.max_connections_per_key, of_key, "max_connections_per_key")

    async def _upgraded(self, held: HeldStream, caller: Caller, deadline: float) -> None:
        async with trio.open_nursery() as nursery:
            with trio.CancelScope(deadline=deadline) as opening:
                request = await wrap_server_stream(nursery, held, max_message_size=held.max_message)
                bound = (MAX_MESSAGE, str(held.max_message).encode())
                socket = await request.accept(subprotocol=SUBPROTOCOL, extra_headers=[bound])
                held.open()
                opening.deadline = float("inf")
                log.debug("a connection of %s is open", caller.name or "anybody")
                await Connection(self._service, caller, socket, held).run()
            nursery.cancel_scope.cancel()


def _full(most: int, which: str, setting: str) -> Refusal:
    return Refusal(503, f"{most} connections {which}, as many as server.{setting} allows: come later")
