"""A connection's beginning: the socket, TLS, the WebSocket's handshake; and what each of them can fail with."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias, cast

import msgspec
import trio
from trio_websocket import ConnectionRejected, WebSocketConnection, wrap_client_stream

from wizard_actors.errors import (
    AccessDeniedError,
    ActorStoppedError,
    MailboxFullError,
    NetworkError,
    OverloadedError,
    UnsupportedError,
    WizardError,
)
from wizard_actors.protocol.failures import CLASSES, error_from
from wizard_actors.protocol.frames import SUBPROTOCOL, Code, Fault
from wizard_actors.remote.address import Address
from wizard_actors.remote.wire import Wire

__all__ = [
    "Connect",
    "connect_to",
    "max_request_of",
    "no_wizard",
    "passes",
    "refusal_of",
    "shake_hands",
    "unreachable",
]

Connect: TypeAlias = Callable[[], Awaitable[trio.abc.Stream]]
"""Opens a stream to the server. Raises `OSError`, or `trio.BrokenResourceError` where TLS fails."""

DENIED: Final = frozenset({401, 403})
BUSY: Final = frozenset({429, 502, 503, 504})
"""What servers, and the proxies before them, answer while they cannot take a connection."""

MAX_MESSAGE: Final = b"wizard-max-message"
"""The header in which a server says how long a request may be."""

PASSING: Final = (NetworkError, OverloadedError, MailboxFullError, ActorStoppedError)


def connect_to(address: Address) -> Connect:
    """Return what opens a stream to `address`."""

    async def connect() -> trio.abc.Stream:
        stream = await trio.open_tcp_stream(address.host, address.port)
        if address.tls is None:
            return stream
        encrypted = trio.SSLStream(stream, address.tls, server_hostname=address.host, https_compatible=True)
        try:
            await encrypted.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)  # noqa: ASYNC102 - it waits for nobody
            raise
        return encrypted

    return connect


async def shake_hands(
    nursery: trio.Nursery, wire: Wire, address: Address, *, max_message_size: int
) -> WebSocketConnection:
    """Return the WebSocket over `wire`, whose reader runs in `nursery`; a refusal is raised out of that.

    Raises `UnsupportedError` for a server that does not speak the protocol.
    """
    socket = await wrap_client_stream(
        nursery,
        cast("trio.SocketStream", wire),  # any stream will do
        address.where,
        address.resource,
        subprotocols=[SUBPROTOCOL],
        extra_headers=address.headers,
        max_message_size=max_message_size,
        receive_buffer_size=16_384,
    )
    if socket.subprotocol != SUBPROTOCOL:
        raise no_wizard(address.where, f"it accepts WebSockets, but not the subprotocol {SUBPROTOCOL}")
    return socket


def max_request_of(socket: WebSocketConnection) -> int | None:
    """Return how many bytes of UTF-8 the server takes in a message; None where it has not said so."""
    for name, value in socket.handshake_headers:
        if name.lower() == MAX_MESSAGE and value.isdigit() and len(value) <= 15:
            return int(value)
    return None


def passes(error: WizardError) -> bool:
    """Say whether dialling again may help."""
    return isinstance(error, PASSING)


def unreachable(error: Exception, where: str) -> NetworkError:
    """Return the error for a server to which there is no connection."""
    first = next(iter(_inner(error)), error)
    if isinstance(first, ssl.SSLCertVerificationError):
        reason = (
            f"its certificate is not trusted ({first.verify_message}): give the file that it is signed with as ca_file"
        )
    elif isinstance(first, ssl.SSLError):
        reason = f"TLS failed ({first.reason or first}): is it a server with a certificate?"
    elif isinstance(first, OSError):
        reason = first.strerror or str(first) or type(first).__name__
    else:
        reason = "the connection broke while it was opened"
    return NetworkError(f"no connection to the server at {where}: {reason}", model=where)


def _inner(error: BaseException) -> list[BaseException]:
    """Return the errors that tell most, the causes of a group or of Trio's own error."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        return [inner for each in cause.exceptions for inner in (_inner(each) or [each])]
    return [] if cause is None else (_inner(cause) or [cause])


def refusal_of(rejected: ConnectionRejected, where: str, *, now: float) -> WizardError:
    """Return the error for a refused handshake; `now` is on the clock of this process's Trio."""
    status, told = rejected.status_code, _told(rejected.body)
    said, code = told.get("message"), told.get("code")
    if isinstance(code, str) and code in CLASSES:
        return error_from(Fault(Code.FAILED, f"{where} refused the connection", data=told), now=now)
    reason = f": {said}" if isinstance(said, str) and said else ""
    if status in DENIED:
        help_ = "it wants a key" if status == 401 else "it does not let this client in"
        return AccessDeniedError(
            f"the server at {where} refused the connection (HTTP {status}){reason or f': {help_}'}"
        )
    if status in BUSY:
        return OverloadedError(
            f"the server at {where} takes no connection now (HTTP {status}){reason}", model=where, status=status
        )
    return no_wizard(where, f"it answered the WebSocket's handshake with HTTP {status}{reason}")


def _told(body: bytes | None) -> Mapping[str, object]:
    """Return what the body of a refusal says, where it is one of our servers'."""
    try:
        plain: object = msgspec.json.decode(body or b"")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}
    error = plain.get("error") if isinstance(plain, dict) else None
    return error if isinstance(error, dict) else {}


def no_wizard(where: str, found: str) -> UnsupportedError:
    """Return the error for a server that is none of ours."""
    return UnsupportedError(
        f"what listens at {where} is no server of wizard_actors: {found}; check the address, and that it is the one "
        "that `wizard serve --websocket` serves",
        feature=SUBPROTOCOL,
    )
