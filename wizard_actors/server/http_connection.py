"""One HTTP/1.1 connection: requests read with h11, one after the other, each answered by an ASGI application.

All reading is done when the application asks for it, in its own task, so nothing is queued, nothing waits for a reader
that is gone, and whatever the application does not read ends the connection. All writing has a deadline.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final, TypeAlias
from urllib.parse import unquote, urlsplit

import h11
import trio

from wizard_actors.config import ServerConfig
from wizard_actors.json_bytes import json_bytes
from wizard_actors.server.held_stream import HeldStream

__all__ = ["App", "HttpConnection", "Message", "Receive", "Scope", "Send", "error_body"]

log = logging.getLogger("wizard_actors.server")

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI application; its messages are ASGI's own, whose values are of any type."""

Part: TypeAlias = h11.Response | h11.InformationalResponse | h11.Data | h11.EndOfMessage
"""Of a response."""

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

SLOWEST: Final = 4096
"""Bytes a second that a body has to come with, beside the time for a handshake: a long one on a slow line gets here."""

REASONS: Final = frozenset(HTTPStatus)

MANY: Final = 1000
"""Pieces of a body from which on it is looked at how large they are."""

SMALL: Final = 64
"""Bytes that they have to have then, on the average."""

LINES: Final = 200
"""Of a request's head."""

AHEAD: Final = 64 * 1024
"""Bytes of further requests that are read while one is answered, to see whether the client is there."""


class HttpConnection:
    """One connection on `stream`. `idle` is the scope in which it waits for a request, for whoever wants it to end.

    `known` is called with the name of its caller's key when that has proved to be one; it returns whether the
    connection may be kept for another request.
    """

    def __init__(
        self,
        stream: HeldStream,
        settings: Callable[[], ServerConfig],
        *,
        tls: bool,
        draining: trio.Event,
        known: Callable[[str], bool],
    ) -> None:
        self.idle: trio.CancelScope | None = None
        self._stream = stream
        self._settings = settings
        self._tls = tls
        self._draining = draining
        self._known = known
        self._kept: bool | None = None  # whether it may be, once its caller is known
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=settings().max_header)
        self._ended = False

    async def serve(self, app: Callable[[bytes], App]) -> None:
        """Answer requests until either side closes, each by what `app` returns for its target. Raises
        `trio.BrokenResourceError` where the peer is gone.
        """
        while True:
            request = await self._next()
            if request is None:
                return
            await _Exchange(self, request).run(app(request.target))
            done = self._http.our_state is h11.DONE and self._http.their_state is h11.DONE
            if not done or self._draining.is_set() or self._kept is False:
                return
            self._http.start_next_cycle()
            self._stream.whole()

    @property
    def rests(self) -> bool:
        """Whether nothing is asked for, and no head has begun."""
        return self.idle is not None and not self.idle.cancel_called and not self._http.trailing_data[0]

    def leave(self) -> None:
        """Close it, where nothing is asked for."""
        if self.idle is not None:
            self.idle.cancel()

    async def _next(self) -> h11.Request | None:
        """Return the next request; None where none comes in time, or the peer closes. A stranger's connection, and one
        on which a head has begun, has no longer than a handshake.
        """
        self._skip_blank()
        settings = self._settings()
        keeps = self._kept and not self._http.trailing_data[0]
        patience = settings.idle_timeout if keeps else settings.handshake_timeout
        try:
            with trio.CancelScope(deadline=trio.current_time() + patience) as self.idle:
                return await self._head()
        except h11.RemoteProtocolError as error:
            await self._refuse(error.error_status_hint)
        finally:
            self.idle = None
        return None

    def _skip_blank(self) -> None:
        """Pass over empty lines, which some clients send behind a body (RFC 9112, section 2.2), and h11 refuses."""
        rest, ended = self._http.trailing_data
        if rest[:1] not in {b"\r", b"\n"}:
            return
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=self._settings().max_header)
        if rest := rest.lstrip(b"\r\n"):
            self._http.receive_data(rest)
        if ended:
            self._http.receive_data(b"")

    async def _head(self) -> h11.Request | None:
        while True:
            waiting = self._http.trailing_data[0]
            check_size(waiting, self._settings().max_header)
            event = self._http.next_event()
            if isinstance(event, h11.Request):
                check_head(event)
                return event
            if event is not h11.NEED_DATA:
                return None
            data = await self._stream.read()
            if data and not waiting:
                data = data.lstrip(b"\r\n")
                if self.idle is not None:  # a head that has begun is to end soon
                    limit = trio.current_time() + self._settings().handshake_timeout
                    self.idle.deadline = min(self.idle.deadline, limit)
                if not data:
                    continue
            self._http.receive_data(data)

    async def _refuse(self, status: int) -> None:
        """Answer what is no request."""
        if self._http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        said = {
            431: f"a request's head has at most {self._settings().max_header} bytes here (server.max_header)",
            505: "HTTP/1.1 is spoken here",
        }.get(status, "this is no request in HTTP/1.1, and only those are understood here")
        body = error_body(said, "bad_request")
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self.send(self.head(status, headers, close=True), h11.Data(data=body), h11.EndOfMessage())

    # -- for an exchange

    def let_in(self, name: str) -> None:
        """Note whose connection it is: one who may use the server."""
        if self._kept is None:
            self._kept = self._known(name)

    def let_out(self) -> None:
        """Note that its caller may use the server no more: it is not kept."""
        if self._kept is not None:
            self._kept = False

    def reset(self) -> None:
        """Have the peer see that what it was sent last is torn."""
        self._stream.reset()

    @property
    def closes(self) -> bool:
        """Whether this is the last exchange: the server stops, the connection may not be kept, or something of the
        request has not been read.
        """
        unread = self._http.their_state in {h11.SEND_BODY, h11.ERROR}
        return self._draining.is_set() or self._kept is False or unread

    async def read_event(self) -> h11.Data | h11.EndOfMessage | None:
        """Return what comes next of a request's body; None where the peer is gone. Raises `h11.RemoteProtocolError`."""
        if self._http.they_are_waiting_for_100_continue:
            await self.send(h11.InformationalResponse(status_code=100, headers=[]))
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Data | h11.EndOfMessage):
                await trio.lowlevel.checkpoint()  # thousands of them may have come at once
                return event
            if event is not h11.NEED_DATA:
                return None
            self._http.receive_data(await self._stream.read())

    def skip_rest(self) -> bool:
        """Pass over what has come of a request's body and was not read; return whether that was all: the connection can
        go on then. Not for chunks, of which there may be very many.
        """
        while self._http.their_state is h11.SEND_BODY and not isinstance(self._http.next_event(), type):
            pass
        return self._http.their_state is not h11.SEND_BODY

    async def gone(self) -> None:
        """Wait until the peer closes; what it asks for meanwhile is kept for later. One that sends more ahead than
        there is room for counts as gone: nobody could see it leave.
        """
        while not self._ended and len(self._http.trailing_data[0]) <= AHEAD:
            data = await self._stream.read()
            self._ended = not data
            self._http.receive_data(data)

    def head(self, status: int, headers: Headers, *, close: bool) -> h11.Response:
        """Return a response's head."""
        own = [(b"date", formatdate(time.time(), usegmt=True).encode()), (b"server", b"wizard")]
        if close:
            own.append((b"connection", b"close"))
        reason = HTTPStatus(status).phrase.encode() if status in REASONS else b""
        return h11.Response(status_code=status, headers=[*headers, *own], reason=reason)

    async def send(self, *events: Part) -> None:
        """Send parts of a response. Raises `trio.BrokenResourceError` where they are not taken, or those before were
        cancelled half-way.
        """
        if self._stream.sending:
            raise trio.BrokenResourceError("a part of a response was cut off")
        data = b"".join(self._http.send(event) or b"" for event in events)
        if data:
            await self._stream.send_all(data)

    def scope(self, request: h11.Request) -> Scope:
        """Return a request's head as ASGI has it."""
        path, query, host = target_of(request.target)
        headers = [(bytes(name), bytes(value)) for name, value in request.headers]
        if host is not None:
            headers = [(b"host", host), *((name, value) for name, value in headers if name != b"host")]
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": request.http_version.decode("ascii"),
            "method": request.method.decode("ascii"),
            "scheme": "https" if self._tls else "http",
            "path": unquote(path.decode("latin-1")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": headers,
            "client": None,
            "server": None,
            "let_in": self.let_in,
            "let_out": self.let_out,
        }

    @property
    def patience(self) -> float:
        """Seconds that a body has to come, beside what `SLOWEST` allows it."""
        return self._settings().handshake_timeout


class _Exchange:
    """One request and its response, as the application sees them."""

    def __init__(self, connection: HttpConnection, request: h11.Request) -> None:
        self._connection = connection
        self._scope = connection.scope(request)
        self._chunked = any(name == b"transfer-encoding" for name, _ in request.headers)
        self._began = trio.current_time()
        self._received = self._pieces = 0
        self._whole = False  # the request has come
        self._gone = False
        self._head: tuple[int, Headers] | None = None  # told, and not sent yet
        self._started = self._over = False

    async def run(self, app: App) -> None:
        """Answer. Raises `trio.BrokenResourceError`. A response that breaks off, whatever the reason, breaks the
        connection.
        """
        try:
            await self._answer(app)
        finally:
            if self._started and not self._over:
                self._connection.reset()  # so that nobody takes a part for the whole

    async def _answer(self, app: App) -> None:
        try:
            await app(self._scope, self._receive, self._send)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            raise trio.BrokenResourceError("the peer is gone") from None
        except* Exception:
            named = self._scope.get("state", {}).get("request_id", "")
            log.exception("request %s: a bug has ended %s %s", named, self._scope["method"], self._scope["path"])
        if not self._started and not self._gone:
            await self._fail(500, "a bug in this server: its log says more", "internal")

    async def _fail(self, status: int, message: str, code: str) -> None:
        body = error_body(message, code)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    # -- ASGI

    async def _receive(self) -> Message:
        if self._gone:
            return {"type": "http.disconnect"}
        if self._whole:
            await self._connection.gone()
            self._gone = True
            return {"type": "http.disconnect"}
        try:
            event = await self._piece()
        except trio.BrokenResourceError:
            event = None
        except h11.RemoteProtocolError:
            self._gone = True
            return {"type": "http.disconnect", "malformed": True}
        if event is None:
            self._gone = True
            return {"type": "http.disconnect"}
        if isinstance(event, h11.EndOfMessage):
            self._whole = True
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.request", "body": bytes(event.data), "more_body": True}

    async def _piece(self) -> h11.Data | h11.EndOfMessage | None:
        """Return some more of the body; None where it does not come. Raises `h11.RemoteProtocolError`, also for a body
        in pieces so small that reading it would be all that this server does.
        """
        deadline = self._began + self._connection.patience + self._received / SLOWEST
        event: h11.Data | h11.EndOfMessage | None = None
        with trio.CancelScope(deadline=deadline):
            event = await self._connection.read_event()
        if isinstance(event, h11.Data):
            self._received += len(event.data)
            self._pieces += 1
            if self._chunked and self._pieces > MANY and self._received < SMALL * self._pieces:
                raise h11.RemoteProtocolError("the body comes in too many pieces")
        return event

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._head = (int(message["status"]), _lowered(message.get("headers", ())))
        elif message["type"] == "http.response.body":
            await self._send_body(bytes(message.get("body", b"")), more=bool(message.get("more_body", False)))

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        parts: list[Part] = []
        if self._head is not None:
            status, headers = self._head
            self._head, self._started = None, True
            self._skip()
            parts.append(self._connection.head(status, headers, close=self._connection.closes))
        if body and self._scope["method"] != "HEAD":
            parts.append(h11.Data(data=body))
        if not more:
            parts.append(h11.EndOfMessage())
        await self._connection.send(*parts)
        self._over = not more

    def _skip(self) -> None:
        if not self._whole and not self._gone and not self._chunked:
            try:
                self._whole = self._connection.skip_rest()
            except h11.RemoteProtocolError:
                self._gone = True


# -- heads --------------------------------------------------------------------------------------------


def check_size(head: bytes, most: int) -> None:
    """Check, before it is read, that a head is not larger than `most` bytes or `LINES` lines. Raises
    `h11.RemoteProtocolError`.
    """
    start = head[: most + 4]
    ends = [at for mark in (b"\n\r\n", b"\n\n") if (at := start.find(mark)) >= 0]
    if (not ends and len(head) > most) or start[: min(ends, default=len(start))].count(b"\n") > LINES:
        raise h11.RemoteProtocolError("the head is too large", error_status_hint=431)


def check_head(request: h11.Request) -> None:
    """Check what h11 lets pass. Raises `h11.RemoteProtocolError` for another version than 1.x, for a body whose length
    is told in two ways, of which a proxy in front may have taken the other (RFC 9112, section 6.1), and for a target
    that is none.
    """
    names = [name for name, _ in request.headers]
    if not request.http_version.startswith(b"1."):
        raise h11.RemoteProtocolError("another version of HTTP", error_status_hint=505)
    if b"content-length" in names and b"transfer-encoding" in names:
        raise h11.RemoteProtocolError("two lengths")
    target_of(request.target)


def target_of(target: bytes) -> tuple[bytes, bytes, bytes | None]:
    """Return path and query of a request's target, and the host where that names one: it counts in place of the header
    (RFC 9112, section 3.2.2). Raises `h11.RemoteProtocolError` for one that cannot be taken apart.
    """
    if not target[:8].lower().startswith((b"http://", b"https://")):
        path, _, query = target.partition(b"?")
        return path, query, None
    try:
        parts = urlsplit(target)
    except ValueError:
        raise h11.RemoteProtocolError("the target is no URL") from None
    return parts.path or b"/", parts.query, parts.netloc


def _lowered(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    return [(name.lower(), value) for name, value in headers]


def error_body(message: str, code: str) -> bytes:
    """Return the body of an error that is not of any one format: as OpenAI's clients read it."""
    return json_bytes({"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}})
