"""What every provider over HTTP needs: the shared client, what sends over it, and a body read one wait at a time."""

from __future__ import annotations

import ssl
import zlib
from collections.abc import AsyncIterable, AsyncIterator
from functools import cache
from http.client import HTTPResponse
from http.cookiejar import CookieJar
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, cast
from urllib.request import Request

import httpx
import trio

from wizard_actors.config import Transport
from wizard_actors.errors import ConfigError, ConfigProblem
from wizard_actors.providers.connections import ConnectionPool
from wizard_actors.providers.fast.reader import load_engine
from wizard_actors.providers.fast.transport import FastTransport

__all__ = ["DRAIN_TIME", "Body", "make_http_client", "send", "user_agent"]

DRAIN_TIME: Final = 0.05
"""Seconds spent at most on reading a finished answer to its end, so that its connection can serve the next call."""

IDLE_TIME: Final = 60.0
"""Seconds for which an idle connection is kept. One that its server closed is noticed and not used again."""

PIECE: Final = 2**20
"""Bytes that one step of decompression returns at most: a small piece on the wire cannot fill the memory."""

COMPRESSIONS: Final = frozenset({"gzip", "x-gzip", "deflate"})

LEFT_OVER: Final = 1_000
"""Pieces that a closed body may still hold: the HTTP parser keeps at most one socket read, 64 KiB."""


# -- the client --------------------------------------------------------------------------------------


class _NoCookies(CookieJar):
    """Keeps nothing: models and accounts share one client, and no provider needs cookies."""

    def extract_cookies(self, response: HTTPResponse, request: Request) -> None:
        """Drop them."""

    def add_cookie_header(self, request: Request) -> None:
        """Add none."""


class _DirectClient(httpx.AsyncClient):
    """An httpx client that knows its transport, so that a request need not go through all that httpx can do."""

    def __init__(self, direct: httpx.AsyncBaseTransport) -> None:
        super().__init__(
            transport=direct,
            trust_env=False,
            timeout=httpx.Timeout(None),
            follow_redirects=False,
            cookies=_NoCookies(),
        )
        self._direct = direct

    async def send_directly(self, request: httpx.Request) -> httpx.Response:
        """Send the request as it is, and return its response, whose body is not read."""
        if self.is_closed:
            raise RuntimeError("the HTTP client has been closed")
        try:
            response = await self._direct.handle_async_request(request)
        except httpx.HTTPError as error:
            error.request = request  # so that whoever reports it can name the host
            raise
        response.request = request
        return response


async def send(http: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    """Send a request that is complete, and return its response once the head is here; whoever asked closes it.

    Of what httpx does in between nothing is wanted here: no authentication, no redirects, no cookies, no hooks. A
    client that `make_http_client` has made, and that needs no proxy, leaves it out; a stand-in does as it likes. Raises
    httpx's errors. Cancelling closes the connection.
    """
    if isinstance(http, _DirectClient):
        return await http.send_directly(request)
    return await http.send(request, stream=True)


def make_http_client(
    *,
    proxy: str | None = None,
    ca_file: str | Path | None = None,
    transport: Transport = "httpx",
    key: str = "transport",
) -> httpx.AsyncClient:
    """Make a client for any number of models, to be closed by whoever made it.

    HTTP/1.1 only, for over HTTP/2 a cancelled call would run on upstream. No limit on connections (the bulkheads are
    the limit), no timeouts (attempts have deadlines, providers bound the connection), no redirects, no cookies. The
    environment (`HTTPS_PROXY`, `SSL_CERT_FILE`, `.netrc`) has no say: where a key travels stands in the configuration,
    and nowhere else. `ca_file` replaces the authorities that httpx brings; contexts are made once a process for each.
    `transport` "fast" is ours over httptools, for direct connections: with a `proxy` it changes nothing. `key` is what
    an error calls it.

    Raises `ConfigError` where `ca_file` cannot be read or holds no certificate, or what `transport` needs is missing.
    """
    tls = _tls_context(None if ca_file is None else str(ca_file))
    if proxy is None:
        if transport == "fast":
            return _DirectClient(FastTransport(tls, idle_time=IDLE_TIME, engine=load_engine(key)))
        return _DirectClient(ConnectionPool(tls, idle_time=IDLE_TIME))
    return httpx.AsyncClient(
        proxy=proxy,
        verify=tls,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=IDLE_TIME),
        trust_env=False,
        timeout=httpx.Timeout(None),
        follow_redirects=False,
        cookies=_NoCookies(),
    )


@cache
def _tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Return the TLS context for these authorities: loading them takes some 20 ms, so it is done once a process."""
    if ca_file is None:
        return httpx.create_ssl_context(trust_env=False)
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        reason = "holds no certificate" if isinstance(error, ssl.SSLError) else f"cannot be read: {error.strerror}"
        raise ConfigError([ConfigProblem("ca_file", f"{ca_file} {reason}")]) from error


@cache
def user_agent() -> str:
    """Return how this package names itself to servers: "wizard-actors/<version>"."""
    try:
        return f"wizard-actors/{version('wizard-actors')}"
    except PackageNotFoundError:  # run from a source tree that nobody installed
        return "wizard-actors"


# -- the body ----------------------------------------------------------------------------------------


class Body:
    """The bytes of one response while they arrive, decompressed where the server compressed them unasked.

    Whoever made it must `aclose` it: httpx reads through a chain of async generators, which Trio wants to see finished
    rather than collected.
    """

    __slots__ = ("_chunks", "_encoding", "_inflate", "_response", "_rest")

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        # Not by `aiter_raw`, which adds a generator to the chain and refuses what a stand-in has read already.
        self._chunks: AsyncIterator[bytes] | None = aiter(cast("AsyncIterable[bytes]", response.stream))
        self._encoding = response.headers.get("content-encoding", "identity").strip().lower()
        # We ask for no compression, because a compressing proxy holds a stream back; some servers do it all the same.
        # 32: gzip or deflate, whichever its header says.
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32) if self._encoding in COMPRESSIONS else None
        self._rest = b""  # compressed bytes that the last step did not get to

    async def read(self) -> bytes | None:
        """Wait for more bytes and return them, possibly none; None at the end.

        Raises httpx's errors where the connection breaks, `zlib.error` for bytes that cannot be decompressed.
        Cancelling closes the connection.
        """
        data = self._rest or await self._next()
        if data is None or self._encoding in {"identity", ""}:
            return data
        if self._inflate is None:
            raise zlib.error(f"unknown content-encoding {self._encoding[:40]!r}")
        piece = self._inflate.decompress(data, PIECE)
        self._rest = self._inflate.unconsumed_tail
        return piece

    async def aclose(self, *, drain: bool = False) -> None:
        """Give the connection back where the body is at its end, else close it.

        With `drain` the rest is read first, for `DRAIN_TIME` at most: what follows a protocol's last word is a few
        bytes of HTTP. Under cancellation nothing is waited for.
        """
        if self._chunks is None:  # read to its end, and given back with it
            return
        try:
            if drain:
                with trio.move_on_after(DRAIN_TIME):
                    await self._drain()
        finally:
            # Also for a caller that was cancelled: closing waits for nobody.
            with trio.CancelScope(shield=True):
                await self._finish()

    async def _next(self) -> bytes | None:
        if self._chunks is None:
            return None
        try:
            return await self._chunks.__anext__()
        except StopAsyncIteration:
            self._chunks = None
            await self._response.aclose()
            return None
        except httpx.HTTPError as error:
            error.request = self._response.request  # so that whoever reports it can name the host
            raise

    async def _drain(self) -> None:
        try:
            while await self._next() is not None:
                pass
        except httpx.HTTPError:
            return  # the answer is complete: what breaks after it is of no interest

    async def _finish(self) -> None:
        await self._response.aclose()
        chunks, self._chunks = self._chunks, None
        if chunks is None:
            return
        # The connection is closed now, so reading on ends each generator of the chain with its error, after the few
        # pieces that had arrived. Closing the outermost alone would leave the inner ones to the garbage collector.
        try:
            for _ in range(LEFT_OVER):
                await chunks.__anext__()
        except (StopAsyncIteration, httpx.HTTPError):
            return
