"""The reading of one response: bytes go in as they come, and what they say is kept until somebody takes it.

A response is a head, with a status from 200 on, and a body. Heads of 1xx before it are passed over. It is over after
as many bytes as its head says, or after the last chunk and the trailers, or, where neither is told, with the
connection. What comes after that was never asked for, so such a connection serves nobody again.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Final

from attrs import frozen

from wizard_actors.config.checks import FAST_NEEDS
from wizard_actors.errors import ConfigError, ConfigProblem

if TYPE_CHECKING:
    from httptools import HttpResponseParser

__all__ = ["HEAD_LIMIT", "Engine", "ResponseReader", "load_engine"]

HEAD_LIMIT: Final = 65_536
"""Bytes that the headers of a response may have in all, its trailers and those of 1xx included."""

BARREN_LIMIT: Final = 2 * HEAD_LIMIT
"""Bytes that may come without a piece of a body among them: what the parser keeps, or skips, has an end."""

BODILESS: Final = frozenset({204, 304})

DISCONNECTED: Final = "Server disconnected without sending a response."
INCOMPLETE: Final = "peer closed connection without sending complete message body"


@frozen
class Engine:
    """httptools, as far as it is used: what makes a parser, and what that raises."""

    make: Callable[[object], HttpResponseParser]
    errors: tuple[type[Exception], ...]


def load_engine(key: str) -> Engine:
    """Import httptools, which an extra brings. Raises `ConfigError` about `key` where that is not installed."""
    try:
        httptools = import_module("httptools")
    except ImportError as error:
        raise ConfigError([ConfigProblem(key, *FAST_NEEDS)]) from error
    return Engine(httptools.HttpResponseParser, (httptools.HttpParserError, httptools.HttpParserUpgrade))


class ResponseReader:
    """One response while it arrives. `status` is 0 until its head is here; `fault` says what is wrong with it, "" where
    nothing is. `complete` and `fault` are final.
    """

    __slots__ = (
        "_barren",
        "_bodiless",
        "_chunked",
        "_engine",
        "_keep",
        "_length",
        "_parser",
        "_pieces",
        "_size",
        "complete",
        "fault",
        "headers",
        "http_10",
        "status",
    )

    def __init__(self, engine: Engine, *, bodiless: bool) -> None:
        """`bodiless`: the answer to HEAD, which tells of a body and has none."""
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.http_10 = False
        self.complete = False
        self.fault = ""
        self._engine = engine
        self._bodiless = bodiless
        self._pieces: list[bytes] = []
        self._size = 0
        self._barren = 0
        self._keep = True
        self._chunked = False
        self._length = False
        self._parser = engine.make(self)

    @property
    def keeps(self) -> bool:
        """Whether the connection may serve once more: the response is complete, and nothing came after it."""
        return self.complete and self._keep

    @property
    def ended(self) -> bool:
        """Whether nothing that comes will change anything."""
        return self.complete or self.fault != ""

    def feed(self, data: bytes) -> None:
        """Take what came from the connection, nothing at its end."""
        if not data:
            self._end()
            return
        try:
            self._parser.feed_data(data)
        except self._engine.errors as error:
            self._wrong(f"not HTTP: {error}")
        if self._pieces:
            self._barren = 0
        elif not self.ended:
            self._barren += len(data)
            if self._barren > BARREN_LIMIT:
                self._wrong("more than there is room for, and nothing of a body in it")

    def take(self) -> bytes:
        """Return what has come of the body since the last time."""
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return data

    def _end(self) -> None:
        if self.complete:
            self._keep = False
        elif not self.status:
            self._wrong(DISCONNECTED)
        elif self._chunked or self._length:
            self._wrong(INCOMPLETE)
        else:
            self._keep = False
            self.complete = True

    def _wrong(self, fault: str) -> None:
        self._keep = False
        if not self.complete:
            self.fault = self.fault or fault

    # -- what the parser calls -----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Another head begins: after a 1xx, or after what was asked for."""
        if self.complete:
            self._keep = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or one of the trailers, which nobody reads."""
        self._size += len(name) + len(value) + 4
        if self._size > HEAD_LIMIT:
            self._wrong("its headers are too long")
        if self.status:
            return
        value = value.rstrip(b" \t")
        self.headers.append((name, value))
        match name.lower():
            case b"content-length":
                self._length = True
            case b"transfer-encoding":
                if self._chunked or value.lower() != b"chunked":
                    self._wrong("its transfer-encoding is not chunked")
                self._chunked = True
            case b"connection":
                if b"close" in [token.strip() for token in value.lower().split(b",")]:
                    self._keep = False

    def on_headers_complete(self) -> None:
        """The end of a head."""
        if self.ended:
            return
        status, version = self._parser.get_status_code(), self._parser.get_http_version()
        if version not in {"1.1", "1.0"} or status < 100:
            self._wrong("neither HTTP/1.1 nor HTTP/1.0")
        elif status == 101:
            self._wrong("it wants another protocol (101), which nobody has asked for")
        elif status < 200:
            self.headers.clear()
            self._chunked = self._length = False
        else:
            self.status = status
            self.http_10 = version == "1.0"
            if self.http_10:
                self._keep = False
            self.complete = self._bodiless or status in BODILESS

    def on_body(self, piece: bytes) -> None:
        """A piece of the body."""
        if self.complete:
            self._keep = False
        elif not self.status:
            self._wrong("a body before its head")
        elif not self.fault:
            self._pieces.append(piece)

    def on_message_complete(self) -> None:
        """The end of a response, or of a 1xx."""
        if self.status and not self.fault:
            self.complete = True
