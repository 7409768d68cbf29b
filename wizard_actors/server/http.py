"""The HTTP endpoint: what every tool already speaks, over HTTP/1.1; `docs/http.md` is the reference.

`handle` serves one connection to its end, whatever becomes of it: nothing that a peer sends, and no bug here, reaches
whoever listens, or another connection.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

import trio

from wizard_actors.server.held_stream import HeldStream
from wizard_actors.server.http_app import make_app
from wizard_actors.server.http_connection import App, HttpConnection, Receive, Scope, Send, error_body
from wizard_actors.server.service import Service

__all__ = ["HttpEndpoint"]

log = logging.getLogger("wizard_actors.server")

LATER: Final = b"1"
"""Seconds after which somebody may come again for whom there was no connection."""


class HttpEndpoint:
    """Serves `service` to whoever speaks HTTP. `connections` counts those that are open, strangers' apart."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._app = make_app(service)
        self._open: dict[HttpConnection, str | None] = {}  # whose each is, None: a stranger's
        self._of_key: Counter[str] = Counter()
        self._closing = False

    @property
    def connections(self) -> int:
        """How many are open whose callers have shown that they may use the server."""
        return self._of_key.total()

    async def handle(self, stream: trio.abc.Stream, let_in: Callable[[], object] = lambda: None) -> None:
        """Serve one connection and close it; `let_in` is called when its caller has shown that it may use the server.
        Raises nothing; when it is cancelled, so is what is in progress on the connection.
        """
        if self._closing:
            return
        settings = self._service.settings
        # A body may be half as long again as what is in it: chunks have lengths, too.
        held = HeldStream(stream, send_timeout=settings.send_timeout, max_message=settings.max_message // 2)
        connection = HttpConnection(
            held,
            lambda: self._service.settings,
            tls=isinstance(stream, trio.SSLStream),
            draining=self._service.draining,
            known=lambda name: self._known(connection, name, let_in),
        )
        self._open[connection] = None
        try:
            await connection.serve(lambda target: self._app_for(connection, target))
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("a connection has broken off")
        except* Exception:
            log.exception("a bug has ended a connection")
        finally:
            self._forget(connection)
            await held.finish()  # noqa: ASYNC102 - within bounds, and at once where it is cancelled

    def close_idle(self) -> None:
        """Close the connections on which nothing is asked for, and take no new ones. Those on which something is asked
        for close when it is answered, once the server drains.
        """
        self._closing = True
        for connection in self._open:
            connection.leave()

    def _known(self, connection: HttpConnection, name: str, let_in: Callable[[], object]) -> bool:
        """Count a connection as its caller's, in the place of another one where there is no room; return whether it may
        be kept: not where its key has enough of them.
        """
        settings = self._service.settings
        if self.connections >= settings.max_connections and (other := self._resting()) is not None:
            other.leave()
        self._open[connection] = name
        self._of_key[name] += 1
        let_in()
        return not name or self._of_key[name] <= settings.max_connections_per_key

    def _resting(self) -> HttpConnection | None:
        """Return the caller's connection on which nothing has been asked for for the longest time; None: none rests."""
        return next((each for each, name in self._open.items() if name is not None and each.rests), None)

    def _forget(self, connection: HttpConnection) -> None:
        name = self._open.pop(connection)
        if name is not None:
            self._of_key[name] -= 1
            if not self._of_key[name]:
                del self._of_key[name]

    def _app_for(self, connection: HttpConnection, target: bytes) -> App:
        """Return what answers: where too many connections are open, a newcomer takes the place of one on which nothing
        is asked for, and is refused where there is none. Whoever asks how the server is gets to know it all the same.
        """
        self._open[connection] = name = self._open.pop(connection)  # the latest last
        most = self._service.settings.max_connections
        room = name is not None or self.connections < most or self._resting() is not None
        return self._app if room or target.startswith(b"/health/") else _full(most)


def _full(most: int) -> App:
    """Return what answers on a connection that is one too many."""
    said = f"{most} connections are open, as many as server.max_connections allows, and all are busy: come later"
    body = error_body(said, "mailbox_full")

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        headers += [(b"retry-after", LATER), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app
