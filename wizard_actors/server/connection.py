"""One WebSocket connection: many requests at once, each with exactly one response.

One task reads, and waits for no request. One writes, and takes each frame from whoever has it: nothing is queued, so
a peer that does not read holds up its own requests, and no memory. Each request has a task of its own. When the peer
has gone all of them are cancelled; when we go, the last frame is the one that says why.
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack, suppress
from typing import Final

import trio
from attrs import frozen
from trio_websocket import CloseReason, ConnectionClosed, WebSocketConnection
from wsproto.frame_protocol import FrameProtocol
from wsproto.utilities import LocalProtocolError

from wizard_actors.config import ServerConfig
from wizard_actors.errors import WizardError
from wizard_actors.protocol.failures import cancelled, fault_of
from wizard_actors.protocol.frames import (
    Code,
    Fault,
    Incoming,
    RequestId,
    fault_text,
    notification_text,
    read_request,
    result_text,
    shown_text,
)
from wizard_actors.server.access import Caller
from wizard_actors.server.call import Call
from wizard_actors.server.held_stream import HeldStream
from wizard_actors.server.in_progress import InProgress
from wizard_actors.server.life import Farewell, Life
from wizard_actors.server.methods import METHODS
from wizard_actors.server.params import Params
from wizard_actors.server.running import Running
from wizard_actors.server.service import Service

__all__ = ["Connection"]

log = logging.getLogger("wizard_actors.server")

FAREWELL: Final = 5.0
"""Seconds for the frame that closes the connection, and for the peer's."""

TOO_BIG: Final = 1009
TO_TELL: Final = frozenset({1002, 1007, TOO_BIG})
"""A frame that no WebSocket client sends; text that is not UTF-8; a message that is too long, or never ends."""


@frozen
class Frame:
    """A frame to be written; `ends` is the request that it is the response to."""

    text: str
    ends: Running | None = None


class Connection:
    """One connection of `caller`, from the handshake on."""

    def __init__(self, service: Service, caller: Caller, socket: WebSocketConnection, stream: HeldStream) -> None:
        self._service = service
        self._caller = caller
        self._socket = socket
        self._stream = stream
        self._running = InProgress()
        self._life = Life(service, caller, stream, self._running, socket.ping)
        self._to_writer, self._to_write = trio.open_memory_channel[Frame | Farewell](0)
        self._nursery: trio.Nursery | None = None
        self._closing = False  # the farewell is on its way
        self._closed = trio.Event()
        self._refused = 0

    @property
    def _settings(self) -> ServerConfig:
        return self._service.settings

    async def run(self) -> None:
        """Serve until either side closes the connection; then nothing of it is in progress any more."""
        async with self._to_writer, self._to_write, trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._write)
            nursery.start_soon(self._depart)
            self._life.watch(nursery)
            await self._read()
            if self._closing:
                await self._closed.wait()
            nursery.cancel_scope.cancel()

    # -- reading

    async def _read(self) -> None:
        """Take what comes, until nothing more does."""
        while True:
            try:
                text = await self._socket.get_message()
            except ConnectionClosed as closed:
                await self._say_why(closed.reason)
                return
            self._stream.whole()
            self._running.active()
            if not self._fits(text):
                with trio.move_on_after(FAREWELL):
                    await self._socket.aclose(TOO_BIG, self._too_big())
                return
            try:
                incoming = read_request(text, max_depth=self._settings.max_json_depth)
                await self._take(incoming)
            except Fault as fault:
                await self._refuse(fault)

    async def _say_why(self, reason: CloseReason | None) -> None:
        """Tell a peer what was wrong with a frame, or with all of them; trio-websocket keeps that to itself."""
        if self._stream.flooded:
            reason = CloseReason(TOO_BIG, self._too_big())
        if reason is not None and reason.code in TO_TELL:
            frame = FrameProtocol(client=False, extensions=[]).close(reason.code, reason.reason)
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._stream.say_why(bytes(frame))

    async def _refuse(self, fault: Fault) -> None:
        self._refused += 1
        if self._refused == 1:  # one line a connection: whoever sends garbage does not fill the log
            log.info("%s: a frame was refused (%s), and further ones are not logged", self._life.name, fault.code)
        await self._say(fault_text(self._addressed(fault)))

    def _fits(self, text: str | bytes) -> bool:
        """Whether a message is within the bound, which trio-websocket takes for one of characters."""
        bound = self._stream.max_message
        return isinstance(text, bytes) or len(text) * 4 <= bound or len(text.encode("utf-8", "replace")) <= bound

    def _too_big(self) -> str:
        return f"a message has at most {self._stream.max_message} bytes"

    def _addressed(self, fault: Fault) -> Fault:
        """Return a fault as it may be sent: not as the response of another request, which is in progress."""
        if fault.request is None or fault.request not in self._running:
            return fault
        return Fault(fault.code, fault.message, data={**fault.data, "id": fault.request})

    async def _take(self, incoming: Incoming) -> None:
        request = incoming.id
        if request is None:
            self._notified(incoming)
            return
        if request in self._running:
            raise Fault(
                Code.INVALID_REQUEST,
                f"the id {request!r} is that of a request in progress",
                data={"code": "duplicate_id", "id": request},
            )
        try:
            match incoming.method:
                case "cancel":
                    await self._say(result_text(request, self._cancel(Params(incoming.params, request))))
                case "unsubscribe":
                    await self._say(result_text(request, self._unsubscribe(Params(incoming.params, request))))
                case _:
                    await self._begin(request, incoming)
        except Fault:
            raise
        except Exception:
            log.exception("%s: a bug has refused a request for %s", self._life.name, shown_text(incoming.method))
            await self._say(fault_text(_bug(request)))

    # -- what is done at once

    def _notified(self, incoming: Incoming) -> None:
        params = Params(incoming.params, None)
        match incoming.method:
            case "cancel":
                self._cancel(params)
            case "credit":
                self._grant(params)
            case _:
                raise Fault(Code.INVALID_REQUEST, "a request has an id: nobody could be answered without one")

    def _cancel(self, params: Params) -> object:
        params.only("id")
        request = params.request_id("id")
        running = self._running.get(request)
        return {"cancelled": running is not None and running.stop(cancelled(request))}

    def _grant(self, params: Params) -> None:
        params.only("id", "n")
        request, more = params.request_id("id"), params.whole("n", least=1)
        running = self._running.get(request)
        if running is not None:
            running.grant(more)

    def _unsubscribe(self, params: Params) -> object:
        params.only("id")
        running = self._running.get(params.request_id("id"))
        return {"unsubscribed": running is not None and running.unsubscribe()}

    # -- requests

    async def _begin(self, request: RequestId, incoming: Incoming) -> None:
        """Start a request, or refuse it at once."""
        if incoming.method not in METHODS:
            raise Fault(
                Code.METHOD_NOT_FOUND,
                f"there is no method {shown_text(incoming.method)}",
                request=request,
                data={"code": "unknown_method"},
            )
        permit = ExitStack()
        try:
            self._life.check_open()
            client = self._service.client_of(self._caller)
            permit.enter_context(self._service.admission.request(client.caller, self, self._settings))
        except WizardError as error:
            await self._say(fault_text(fault_of(error, request, now=time.time())))
            return
        running = Running(request, incoming, permit)
        self._running.add(running)
        call = Call(self._service, client, Params(incoming.params, request), running, self._say)
        self._here.start_soon(self._run, running, call)

    async def _run(self, running: Running, call: Call) -> None:
        with running.permit:
            text = await self._response(running, call)
            await self._to_writer.send(Frame(text, ends=running))

    async def _response(self, running: Running, call: Call) -> str:
        """Do what is asked, and return the response, whatever happens but that the connection ends."""
        try:
            with running.scope:
                await trio.lowlevel.checkpoint_if_cancelled()  # cancelled before it began, for not all methods wait
                result = await METHODS[running.method](call)
                running.settled = True
                return result_text(running.id, result)
            running.settled = True
            return fault_text(self._fault(running, running.stopped or cancelled(running.id)))
        except (Fault, WizardError) as error:
            running.settled = True
            return self._failure(running, error)
        except Exception:
            running.settled = True
            log.exception("%s: a bug has ended a request for %s", self._life.name, running.method)
            return fault_text(_bug(running.id))

    def _failure(self, running: Running, error: Fault | WizardError) -> str:
        try:
            return fault_text(self._fault(running, error))
        except Exception:
            log.exception("%s: an error of %s cannot be told: %r", self._life.name, running.method, type(error))
            return fault_text(_bug(running.id))

    def _fault(self, running: Running, error: Fault | WizardError) -> Fault:
        if isinstance(error, WizardError):
            return fault_of(error, running.id, now=time.time())
        return Fault(error.code, error.message, request=running.id, data=error.data)

    # -- writing

    async def _say(self, text: str) -> None:
        """Have a frame written. Returns when the writer has it."""
        await self._to_writer.send(Frame(text))

    async def _write(self) -> None:
        """Write what there is, until the connection ends; then everything does."""
        try:
            async for frame in self._to_write:
                if isinstance(frame, Farewell):
                    self._closing = True
                    with trio.move_on_after(FAREWELL):
                        await self._socket.aclose(frame.code, frame.reason)
                    return
                if frame.ends is not None:
                    self._running.over(frame.ends)
                await self._socket.send_message(frame.text)
        except (ConnectionClosed, LocalProtocolError):
            pass  # the peer has gone, or is on its way
        finally:
            self._closed.set()
            self._here.cancel_scope.cancel()

    async def _depart(self) -> None:
        """Close the connection when it is time, and nothing is in progress any more."""
        farewell = await self._life.leaving()
        if farewell.drains is not None:
            await self._say(notification_text("draining", {"seconds": farewell.drains}))
        await self._running.none()
        await self._to_writer.send(farewell)

    @property
    def _here(self) -> trio.Nursery:
        if self._nursery is None:
            raise RuntimeError("the connection does not run")
        return self._nursery


def _bug(request: RequestId) -> Fault:
    return Fault(
        Code.INTERNAL,
        "a bug in this server: its log says more",
        request=request,
        data={"code": "internal", "message": "a bug in this server: its log says more"},
    )
