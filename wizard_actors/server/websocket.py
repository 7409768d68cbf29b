"""The WebSocket endpoint: JSON-RPC 2.0 over the subprotocol `wizard.v1`; `docs/protocol.md` is the reference.

`handle` serves one connection to its end, whatever becomes of it: nothing that a peer sends, and no bug here, reaches
whoever listens, or another connection.
"""

from __future__ import annotations

import logging

import trio
from trio_websocket import ConnectionClosed, wrap_server_stream
from wsproto.utilities import LocalProtocolError

from wizard_actors.protocol.frames import SUBPROTOCOL
from wizard_actors.server.access import Caller
from wizard_actors.server.connection import Connection
from wizard_actors.server.handshake import Handshake, Refusal
from wizard_actors.server.held_stream import HeldStream
from wizard_actors.server.service import Service

__all__ = ["WebSocketEndpoint"]

log = logging.getLogger("wizard_actors.server")


class WebSocketEndpoint:
    """Serves `service` to whoever speaks `wizard.v1`. `connections` counts those that are open."""

    def __init__(self, service: Service) -> None:
        self.connections = 0
        self._service = service

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection, from the HTTP request on, and close it. Raises nothing; when it is cancelled, so is all
        that is in progress on the connection.
        """
        held = HeldStream(stream, send_timeout=self._service.settings.send_timeout)
        try:
            await self._serve(held)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionClosed, LocalProtocolError):
            log.debug("a connection has broken off")
        except* Exception:
            log.exception("a bug has ended a connection")
        finally:
            await held.finish()  # noqa: ASYNC102 - within bounds, and at once where it is cancelled

    async def _serve(self, held: HeldStream) -> None:
        settings = self._service.settings
        deadline = trio.current_time() + settings.handshake_timeout
        caller: Caller | None = None
        with trio.CancelScope(deadline=deadline):
            caller = await self._greeted(held)
        if caller is None:
            return
        self.connections += 1
        try:
            await self._upgraded(held, caller, deadline)
        finally:
            self.connections -= 1

    async def _greeted(self, held: HeldStream) -> Caller | None:
        """Return who asks, once it is known that they may; None where they were told why not."""
        handshake = Handshake(held, self._service.settings)
        try:
            caller = await handshake.caller(self._service.access)
            if caller is not None:
                self._check_room()
            return caller
        except Refusal as refusal:
            log.info("a handshake was refused with %d: %s", refusal.status, refusal.message)
            await handshake.refuse(refusal)
            return None

    def _check_room(self) -> None:
        """Raise where nobody else is let in."""
        if self._service.draining.is_set():
            raise Refusal(503, "the server stops: connect again, to its successor", code="actor_stopped")
        most = self._service.settings.max_connections
        if self.connections >= most:
            raise Refusal(503, f"{most} connections are open, as many as server.max_connections allows: come later")

    async def _upgraded(self, held: HeldStream, caller: Caller, deadline: float) -> None:
        async with trio.open_nursery() as nursery:
            with trio.CancelScope(deadline=deadline) as opening:
                request = await wrap_server_stream(nursery, held, max_message_size=self._service.settings.max_message)
                socket = await request.accept(subprotocol=SUBPROTOCOL)
                held.open()
                opening.deadline = float("inf")
                log.debug("a connection of %s is open", caller.name or "anybody")
                await Connection(self._service, caller, socket, held).run()
            nursery.cancel_scope.cancel()
