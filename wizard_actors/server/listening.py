"""Where a server listens: its sockets, its certificate, and the loop that takes connections."""

from __future__ import annotations

import errno
import hashlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NoReturn, TypeAlias

import trio
from attrs import define, field

from wizard_actors.config.values import split_address
from wizard_actors.errors import ConfigError, ConfigProblem

__all__ = ["SPARE", "Handler", "Intake", "content_of", "listening", "load_tls", "shown_address"]

log = logging.getLogger("wizard_actors.server")

Handler: TypeAlias = Callable[[trio.abc.Stream, Callable[[], object]], Awaitable[object]]
"""Serves one connection to its end, and calls what it is given once the peer has shown that it may connect."""

BACKLOG: Final = 1024
"""Connections that the system keeps for us until they are accepted; it may have a lower bound of its own."""

HANDSHAKES: Final = 256
"""Connections that may be in their handshake at once, or are being told why they are refused."""

SPARE: Final = 2 * HANDSHAKES
"""Connections beyond `max_connections` that may be open: those in their handshake, and those being closed."""

RETRY: Final = 0.1
"""Seconds until the next attempt where nothing can be accepted: files run out, say."""

LARGEST_PEM: Final = 2**20
CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
PRIVATE_KEY: Final = b"PRIVATE KEY-----"

ELSEWHERE: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
"""What a machine says that has no such address, or none of its family: "localhost" names two, of which one will do."""

REASONS: Final = {
    errno.EADDRINUSE: ("cannot listen on {}: the address is in use", "another program listens there: choose a port"),
    errno.EACCES: ("cannot listen on {}: permission denied", "ports below 1024 are often reserved: choose another"),
    errno.EADDRNOTAVAIL: ("cannot listen on {}: it is no address of this machine", ""),
}


def shown_address(host: str, port: int) -> str:
    """Return "HOST:PORT", with brackets round an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# -- sockets ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def listening(address: str, key: str) -> AsyncIterator[Sequence[trio.SocketListener]]:
    """Listen, for the length of a block, on all that "HOST:PORT" stands for, IPv4 and IPv6; port 0 is any free one.

    Raises `ConfigError`, which names `key`, where the host is unknown or one of its addresses cannot be listened on;
    what this machine has not is left out, as long as there is another.
    """
    listeners: list[trio.SocketListener] = []
    try:
        await _open_all(address, key, listeners)
        yield listeners
    finally:
        for listener in listeners:
            listener.socket.close()


async def _open_all(address: str, key: str, listeners: list[trio.SocketListener]) -> None:
    host, port = split_address(address)
    absent: OSError | None = None
    for literal in await _resolved(host, port, key):
        try:
            listeners += await trio.open_tcp_listeners(port, host=literal, backlog=BACKLOG)
        except OSError as error:
            if error.errno not in ELSEWHERE:
                raise _refused(error, shown_address(literal, port), key) from error
            absent = error
    if not listeners and absent is not None:
        raise _refused(absent, address, key) from absent


async def _resolved(host: str, port: int, key: str) -> list[str]:
    """Return the IP addresses of `host`, each once."""
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no host name"
        raise ConfigError([ConfigProblem(key, f"names the host {host!r}, which is not known: {reason}")]) from error
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def _refused(error: OSError, address: str, key: str) -> ConfigError:
    reason, hint = REASONS.get(error.errno or 0, (f"cannot listen on {{}}: {error.strerror}", ""))
    return ConfigError([ConfigProblem(key, reason.format(address), hint)])


# -- TLS -------------------------------------------------------------------------------------------------------------


def load_tls(cert: Path, key: Path) -> ssl.SSLContext:
    """Return what a server speaks TLS with: 1.2 or newer, HTTP/1.1. Reads both files, so it belongs into a thread.

    Raises `ConfigError`, which names the setting and the file, for what cannot be read or does not belong together.
    """
    _require_pem(cert, "server.tls_cert", CERTIFICATE, "certificate")
    _require_pem(key, "server.tls_key", PRIVATE_KEY, "private key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise _bad("server.tls_key", key, "is not the key of the certificate in `server.tls_cert`") from error
        said = error.reason or "the file is damaged"
        raise _bad("server.tls_cert", cert, f"cannot be used with `server.tls_key`: {said}") from error
    except _EncryptedKeyError as error:
        hint = "write it without a passphrase, readable by the server alone"
        raise _bad("server.tls_key", key, "is protected by a passphrase", hint) from error
    except OSError as error:
        raise _bad("server.tls_cert", cert, f"cannot be read: {error.strerror}") from error
    return context


def content_of(cert: Path, key: Path) -> str:
    """Return what tells one pair of these files from another: a digest of their contents. Raises `ConfigError`."""
    held = _require_pem(cert, "server.tls_cert", CERTIFICATE, "certificate")
    held += _require_pem(key, "server.tls_key", PRIVATE_KEY, "private key")
    return hashlib.sha256(held).hexdigest()


def _require_pem(path: Path, setting: str, mark: bytes, name: str) -> bytes:
    try:
        with path.open("rb") as file:
            held = file.read(LARGEST_PEM)
    except OSError as error:
        raise _bad(setting, path, f"cannot be read: {error.strerror}") from error
    if mark not in held:
        raise _bad(setting, path, f"holds no {name} in PEM form")
    return held


class _EncryptedKeyError(Exception):
    pass


def _no_password() -> NoReturn:
    raise _EncryptedKeyError  # else OpenSSL asks for it at the terminal


def _bad(setting: str, path: Path, reason: str, hint: str = "") -> ConfigError:
    return ConfigError([ConfigProblem(setting, f"names a file, {path}, that {reason}", hint)])


# -- connections -----------------------------------------------------------------------------------------------------


@define(eq=False)
class Intake:
    """Accepts connections, and has `handle` serve each of them, in a task of its own, to its end.

    `tls`: what the next connections speak TLS with, None: they do not; `handshake_timeout`: the seconds that they have
    to begin it; `max_connections`: how many `handle` allows to be open, once they are through their handshake.

    Those in their handshake have room of their own: where there are too many the oldest of them is closed, so that
    sockets that say nothing keep nobody out. What is open in all is bounded, too: more are closed at once.

    Nothing that happens to one connection ends the others: what `handle` raises is logged. Where the system has no
    more files, connections wait in its backlog until there are some again.
    """

    handle: Handler
    tls: ssl.SSLContext | None
    handshake_timeout: float
    max_connections: int
    open: int = 0
    """Connections that have been accepted and are not closed yet."""
    _shaking: dict[trio.CancelScope, None] = field(factory=dict, init=False)
    """Those in their handshake, the oldest first."""
    _closing: bool = field(default=False, init=False)

    def close_shaking(self) -> None:
        """Close the connections that are in their handshake, and serve no new ones: the server stops."""
        self._closing = True
        for scope in self._shaking:
            scope.cancel()

    async def accept(self, listener: trio.abc.Listener[trio.SocketStream], connections: trio.Nursery) -> None:
        """Accept until cancelled; the listener is closed then. Connections run in the nursery `connections`."""
        failing = False
        async with listener:
            while True:
                try:
                    stream = await listener.accept()
                except OSError as error:
                    if not failing:
                        log.error("no connection can be accepted: %s", error.strerror)  # noqa: TRY400 - no bug's trace
                    failing = True
                    await trio.sleep(RETRY)
                    continue
                if failing:
                    log.warning("connections are accepted again")
                failing = False
                self.open += 1
                connections.start_soon(self._serve, stream)

    async def _serve(self, stream: trio.SocketStream) -> None:
        with trio.CancelScope() as scope:
            self._make_room()
            self._shaking[scope] = None
            try:
                if not self._closing and self.open <= self.max_connections + SPARE:
                    secured = await self._secured(stream)
                    if secured is not None:
                        await self.handle(secured, lambda: self._shaking.pop(scope, None))
            except Exception:
                log.exception("a bug has ended a connection")
            finally:
                self._shaking.pop(scope, None)
                self.open -= 1
                await trio.aclose_forcefully(stream)  # noqa: ASYNC102 - it waits for nothing

    def _make_room(self) -> None:
        """Close the oldest connection in its handshake where there are too many."""
        if len(self._shaking) >= HANDSHAKES:
            oldest = next(iter(self._shaking))
            del self._shaking[oldest]
            oldest.cancel()
            log.debug("a connection was closed: %d others began their handshake after it", HANDSHAKES)

    async def _secured(self, stream: trio.SocketStream) -> trio.abc.Stream | None:
        """Return the stream to read from, None where TLS did not come about."""
        if self.tls is None:
            return stream
        secured = trio.SSLStream(stream, self.tls, server_side=True, https_compatible=True)
        try:
            with trio.fail_after(self.handshake_timeout):
                await secured.do_handshake()
        except (trio.BrokenResourceError, trio.TooSlowError) as error:
            log.debug("a connection was closed: TLS did not come about (%s)", type(error).__name__)
            return None
        return secured
