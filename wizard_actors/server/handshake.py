"""The beginning of a connection: the HTTP request that asks for a WebSocket, and who may have one.

Whatever is wrong with it is answered, with a JSON body, before trio-websocket sees a byte of it: that would answer
without a word, or wait for the rest of what never was HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import h11
import msgspec
from wsproto import ConnectionType, WSConnection
from wsproto.events import Request
from wsproto.utilities import RemoteProtocolError

from wizard_actors.config import ServerConfig
from wizard_actors.errors import AccessDeniedError
from wizard_actors.protocol.frames import KEY_PREFIX, SUBPROTOCOL
from wizard_actors.server.access import Access, Caller, check_origin
from wizard_actors.server.held_stream import HeldStream

__all__ = ["Handshake", "Refusal"]

BEARER: Final = b"bearer"
ELSEWHERE: Final = "HTTP is served where --http, or server.http, says"
CODES: Final[Mapping[int, str]] = MappingProxyType(
    {
        400: "bad_request",
        401: "access_denied",
        403: "access_denied",
        405: "bad_request",
        426: "bad_request",
        431: "bad_request",
        503: "mailbox_full",
    }
)
"""The `code` in the body of a refusal, by its status."""


class Refusal(Exception):  # noqa: N818 - what a handshake comes to, no error of ours
    """A handshake that comes to nothing: an HTTP status, a sentence, a `code` for programs, and further headers."""

    def __init__(self, status: int, message: str, *headers: tuple[str, str], code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers
        self.code = code or CODES[status]

    @property
    def body(self) -> bytes:
        """What the response says."""
        return msgspec.json.encode({"error": {"code": self.code, "message": self.message}})


class Handshake:
    """One handshake, read from `stream`, which trio-websocket can read once more afterwards."""

    def __init__(self, stream: HeldStream, settings: ServerConfig) -> None:
        self._stream = stream
        self._settings = settings
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=settings.max_header)
        self._method = b""

    async def caller(self, access: Access) -> Caller | None:
        """Return who asks for a WebSocket; None where the peer left without a word.

        Raises `Refusal` for what is no such request, and for who may not have one; `trio.BrokenResourceError`.
        """
        request = await self._request()
        if request is None:
            return None
        headers = [(name.lower(), value) for name, value in request.extra_headers]
        _check_origin(_only(headers, b"origin"), self._settings.origins)
        if SUBPROTOCOL not in request.subprotocols:
            raise Refusal(400, f"this server speaks the WebSocket subprotocol {SUBPROTOCOL}, which was not offered")
        try:
            return access.caller(_presented(headers, request.subprotocols))
        except AccessDeniedError as error:
            raise Refusal(401, error.message, ("WWW-Authenticate", "Bearer")) from None

    async def refuse(self, refusal: Refusal) -> None:
        """Send the response that says so; to HEAD, its head alone. Raises `trio.BrokenResourceError`."""
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(refusal.body))),
            ("Connection", "close"),
            *refusal.headers,
        ]
        body = [] if self._method == b"HEAD" else [h11.Data(data=refusal.body)]
        response = h11.Response(status_code=refusal.status, headers=headers)
        events: Sequence[h11.Event] = (response, *body, h11.EndOfMessage())
        await self._stream.send_all(b"".join(self._parser.send(event) or b"" for event in events))

    # -- the request

    async def _request(self) -> Request | None:
        """Read the head of the request, and hand it on to trio-websocket, what follows it apart."""
        received = b""
        while (head := self._head()) is None:
            data = await self._stream.read()
            if not data:
                return None
            received += data
            self._parser.receive_data(data)
        after = bytes(self._parser.trailing_data[0])
        raw = received[: len(received) - len(after)]
        if len(raw) > self._settings.max_header:
            raise self._too_large()
        request = _upgrade(raw, head)
        self._stream.unread(raw, after)
        return request

    def _head(self) -> h11.Request | None:
        """Return the head of the request, None where it is not complete yet."""
        try:
            event = self._parser.next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == 431:
                raise self._too_large() from None
            raise Refusal(400, "this is no request in HTTP/1.1, and only those are understood here") from None
        if not isinstance(event, h11.Request):
            return None
        self._method = event.method
        return event

    def _too_large(self) -> Refusal:
        return Refusal(431, f"a request has at most {self._settings.max_header} bytes here (server.max_header)")


def _upgrade(raw: bytes, head: h11.Request) -> Request:
    """Return what trio-websocket will make of the request. Raises `Refusal` where it would take it for none."""
    if head.http_version < b"1.1":
        raise Refusal(400, "a WebSocket is asked for in HTTP/1.1")
    if head.method != b"GET":
        raise Refusal(405, f"this is a WebSocket endpoint: ask for one with GET; {ELSEWHERE}", ("Allow", "GET"))
    if not any(name == b"upgrade" and value.strip().lower() == b"websocket" for name, value in head.headers):
        raise Refusal(
            426,
            f"this is a WebSocket endpoint, of the subprotocol {SUBPROTOCOL}: ask for an upgrade; {ELSEWHERE}",
            ("Upgrade", "websocket"),
        )
    for name in (b"host", b"sec-websocket-key", b"sec-websocket-version"):
        _only(head.headers, name)
    parsed = WSConnection(ConnectionType.SERVER)
    try:
        parsed.receive_data(raw)
        events = list(parsed.events())
    except RemoteProtocolError as error:
        raise Refusal(400, f"the handshake is none of WebSocket version 13: {error}") from None
    except UnicodeError:
        raise Refusal(400, "a header of the handshake is not in ASCII") from None
    if not events or not isinstance(events[0], Request):
        raise Refusal(400, "the handshake is none of a WebSocket")
    return events[0]


# -- who asks ----------------------------------------------------------------------------------------


def _check_origin(origin: bytes | None, allowed: Sequence[str]) -> None:
    try:
        check_origin(None if origin is None else origin.decode("latin-1"), allowed)
    except AccessDeniedError as error:
        raise Refusal(403, error.message) from None


def _presented(headers: Sequence[tuple[bytes, bytes]], subprotocols: Sequence[str]) -> str | None:
    """Return the key that is presented: in the header, or, as browsers have to, as a second subprotocol. What else the
    header has is for a proxy on the way.
    """
    scheme, _, key = (_only(headers, b"authorization") or b"").partition(b" ")
    if scheme.lower() == BEARER:
        return key.strip().decode("latin-1")
    keys = [offered.removeprefix(KEY_PREFIX) for offered in subprotocols if offered.startswith(KEY_PREFIX)]
    return keys[0] if len(keys) == 1 else None


def _only(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """Return the value of a header, None where there is none. Raises `Refusal` where it stands there twice."""
    values = [value for each, value in headers if each == name]
    if len(values) > 1:
        raise Refusal(400, f"the header {name.decode()} may stand there once")
    return values[0] if values else None
