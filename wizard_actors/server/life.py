"""What ends a connection but its peer: silence, idleness, a server that stops, and a key that is in force no more."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import trio
from attrs import frozen
from trio_websocket import ConnectionClosed
from wsproto.utilities import LocalProtocolError

from wizard_actors.errors import AccessDeniedError, ActorStoppedError
from wizard_actors.server.access import Caller
from wizard_actors.server.held_stream import HeldStream
from wizard_actors.server.in_progress import InProgress
from wizard_actors.server.service import Service

__all__ = ["Farewell", "Life"]

log = logging.getLogger("wizard_actors.server")

PING_AFTER: Final = 20.0
"""Seconds of silence after which a peer is asked whether it is there."""

PONG_WITHIN: Final = 20.0
"""Seconds that it has to say anything at all."""

GOING_AWAY: Final = 1001
POLICY: Final = 1008


@frozen
class Farewell:
    """The frame that closes the connection. `drains`: the seconds that what is in progress has, told at once; None:
    nobody is told, for nothing may be sent again elsewhere.
    """

    code: int
    reason: str
    drains: float | None = None


class Life:
    """Watches over one connection of `caller`, and decides when it ends."""

    def __init__(
        self,
        service: Service,
        caller: Caller,
        stream: HeldStream,
        requests: InProgress,
        ping: Callable[[], Awaitable[None]],
    ) -> None:
        self._service = service
        self._caller = caller
        self._stream = stream
        self._requests = requests
        self._ping = ping
        self._farewell: Farewell | None = None
        self._leaving = trio.Event()

    @property
    def name(self) -> str:
        """What it is called in the log."""
        return f"connection {id(self):x} of {self._caller.name or 'anybody'}"

    def watch(self, nursery: trio.Nursery) -> None:
        """Begin, in the connection's nursery, which is cancelled when the peer is given up."""
        nursery.start_soon(self._keep_alive, nursery)
        nursery.start_soon(self._watch_idle)
        nursery.start_soon(self._watch_drain)
        nursery.start_soon(self._watch_key)

    async def leaving(self) -> Farewell:
        """Wait until the connection is to be closed, once nothing is in progress any more; return with what."""
        while self._farewell is None:
            await self._leaving.wait()
        return self._farewell

    def check_open(self) -> None:
        """Raise where no new requests are taken: `ActorStoppedError`, of the actor "server", or, where the key was the
        reason, `AccessDeniedError`, though it may be in force again.
        """
        if self._service.draining.is_set():
            raise ActorStoppedError("the server stops: connect anew for new requests", actor="server")
        if self._farewell is not None and self._farewell.code == POLICY:
            raise AccessDeniedError(self._farewell.reason, key=self._caller.name)
        if self._farewell is not None:
            raise ActorStoppedError("this connection is being closed: connect anew for new requests", actor="server")

    def _leave(self, code: int, reason: str, *, drains: float | None = None) -> None:
        """The first reason counts."""
        if self._farewell is None:
            log.debug("%s: is to be closed: %s", self.name, reason)
            self._farewell = Farewell(code, reason, drains)
            self._leaving.set()

    async def _keep_alive(self, nursery: trio.Nursery) -> None:
        """Give up a peer that says nothing at all, though it is asked; not one that is busy taking what it is sent."""
        asking: list[bool] = []  # whether an answer to the last ping is being waited for

        async def ping() -> None:
            asking.append(True)
            try:
                await self._ping()
            except (ConnectionClosed, LocalProtocolError):
                return  # the reader, or the writer, sees that too
            asking.clear()

        while True:
            signs = self._stream.signs
            if trio.current_time() < self._stream.alive_at + PING_AFTER:
                await trio.sleep_until(self._stream.alive_at + PING_AFTER)
                continue
            if not asking:
                nursery.start_soon(ping)
            await trio.sleep(PONG_WITHIN)
            if self._stream.signs == signs and not self._stream.sending:
                log.debug("%s: closed: it was silent for %g s", self.name, PING_AFTER + PONG_WITHIN)
                self._stream.abort()
                nursery.cancel_scope.cancel()

    async def _watch_idle(self) -> None:
        """Close a connection on which nothing has been asked for too long, by the settings of the last reload."""
        while True:
            await self._requests.none()
            reloaded = self._service.access.changed  # each reload sets it, once its settings are in force
            limit = self._service.settings.idle_timeout
            idle_at = self._requests.active_at + limit
            if trio.current_time() >= idle_at:
                self._leave(GOING_AWAY, f"nothing was asked for {limit:g} s", drains=0.0)
                return
            with trio.move_on_at(idle_at):
                await reloaded.wait()

    async def _watch_drain(self) -> None:
        """Close it when the server stops; and end what is in progress when its time is up."""
        await self._service.draining.wait()
        self._leave(GOING_AWAY, "the server stops", drains=self._service.settings.drain_timeout)
        for running in self._requests.all():
            running.unsubscribe()  # it would not end by itself
        await self._service.ending.wait()
        for running in self._requests.all():
            running.stop(running.cut_off())

    async def _watch_key(self) -> None:
        """Close it, and end what is in progress at once, when its key is gone, disabled or replaced."""
        access = self._service.access
        while True:
            changed = access.changed
            try:
                access.current(self._caller)
            except AccessDeniedError as error:
                for running in self._requests.all():
                    running.stop(AccessDeniedError(error.message, key=self._caller.name))
                self._leave(POLICY, "the key of this connection is in force no more")
                return
            await changed.wait()
