"""The shared client, and bodies that are read one wait at a time and always closed."""

import gc
import gzip
import ssl
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import httpx
import pytest
import trio

from tests.loopback import Wire, chunk, response, serving
from wizard_actors.errors import ConfigError
from wizard_actors.providers.connections import ConnectionPool
from wizard_actors.providers.http import DRAIN_TIME, PIECE, Body, make_http_client, user_agent


@asynccontextmanager
async def opened(http: httpx.AsyncClient, url: str) -> AsyncIterator[Body]:
    """Yield the body of a response, and close it without draining."""
    body = Body(await http.send(httpx.Request("GET", url), stream=True))
    try:
        yield body
    finally:
        await body.aclose()


async def read_all(body: Body) -> bytes:
    """Return the whole body."""
    pieces = []
    while (piece := await body.read()) is not None:
        pieces.append(piece)
    return b"".join(pieces)


# -- the client --------------------------------------------------------------------------------------


async def test_the_environment_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither proxies nor certificates come from variables that nobody configured."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")

    async def upstream(wire: Wire) -> None:
        await wire.request()
        await wire.send(response(200, {}, [b"direct"]))

    async with serving(upstream) as url, make_http_client() as http, opened(http, url) as body:
        assert await read_all(body) == b"direct"


async def test_a_proxy_is_used_where_configured() -> None:
    """The request goes to it, with its whole URL."""
    seen: list[str] = []

    async def proxy(wire: Wire) -> None:
        request = await wire.request()
        assert request is not None
        seen.append(request.path)
        await wire.send(response(200, {}))

    async with (
        serving(proxy) as url,
        make_http_client(proxy=url.removesuffix("/v1")) as http,
        opened(http, "http://upstream.invalid/v1"),
    ):
        pass
    assert seen == ["http://upstream.invalid/v1"]


async def test_no_cookie_is_kept() -> None:
    """Models and accounts share the client: what one is given the other must not send."""
    seen: list[str | None] = []

    async def upstream(wire: Wire) -> None:
        while (request := await wire.request()) is not None:
            seen.append(request.headers.get("cookie"))
            await wire.send(response(200, {"set-cookie": "session=1; Path=/"}))

    async with serving(upstream) as url, make_http_client() as http:
        for _ in range(2):
            await http.get(url)
    assert seen == [None, None]
    assert not list(http.cookies.jar)


def test_tls_contexts_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading the authorities takes long; each set of them is loaded once a process, and certificates are checked."""
    used: list[ssl.SSLContext] = []

    class Watched(ConnectionPool):
        def __init__(self, tls: ssl.SSLContext, *, idle_time: float) -> None:
            used.append(tls)
            super().__init__(tls, idle_time=idle_time)

    monkeypatch.setattr("wizard_actors.providers.http.ConnectionPool", Watched)
    make_http_client()
    make_http_client()
    assert len(used) == 2
    assert used[0] is used[1]
    assert used[0].verify_mode is ssl.CERT_REQUIRED
    assert used[0].check_hostname


def test_a_bad_ca_file_is_a_config_error(tmp_path: Path) -> None:
    """Missing, or without a certificate in it."""
    empty = tmp_path / "ca.pem"
    empty.write_text("nothing")
    for path, said in ((empty, "no certificate"), (tmp_path / "missing.pem", "cannot be read")):
        with pytest.raises(ConfigError, match=said):
            make_http_client(ca_file=path)


def test_we_name_ourselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """With our version; a source tree that nobody installed has none."""
    assert user_agent().startswith("wizard-actors/")

    def unknown(_name: str) -> str:
        raise PackageNotFoundError

    monkeypatch.setattr("wizard_actors.providers.http.version", unknown)
    assert user_agent.__wrapped__() == "wizard-actors"


# -- the body ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "GZip", "identity", ""])
async def test_compressed_bodies_are_read(encoding: str) -> None:
    """Though we ask for none, in whatever pieces they come."""
    plain = b"hello " * 1000
    packed = {"gzip": gzip.compress(plain), "deflate": zlib.compress(plain)}.get(encoding.lower(), plain)

    async def upstream(wire: Wire) -> None:
        await wire.request()
        pieces = [packed[start : start + 7] for start in range(0, len(packed), 7)]
        await wire.send(response(200, {"content-encoding": encoding}, pieces))

    async with serving(upstream) as url, make_http_client() as http, opened(http, url) as body:
        assert await read_all(body) == plain


async def test_a_small_piece_cannot_fill_the_memory() -> None:
    """Decompression goes on in steps of bounded size."""
    bomb = gzip.compress(bytes(16 * PIECE))

    async def upstream(wire: Wire) -> None:
        await wire.request()
        await wire.send(response(200, {"content-encoding": "gzip"}, [bomb]))

    async with serving(upstream) as url, make_http_client() as http, opened(http, url) as body:
        sizes = []
        while (piece := await body.read()) is not None:
            sizes.append(len(piece))
    assert sum(sizes) == 16 * PIECE
    assert max(sizes) <= PIECE


@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, br"])
async def test_bytes_that_cannot_be_decompressed_fail(encoding: str) -> None:
    """Broken ones, and encodings that we never asked for."""

    async def upstream(wire: Wire) -> None:
        await wire.request()
        await wire.send(response(200, {"content-encoding": encoding}, [b"not compressed"]))

    async with serving(upstream) as url, make_http_client() as http, opened(http, url) as body:
        with pytest.raises(zlib.error):
            await read_all(body)


@pytest.mark.parametrize("reads", [0, 1, 3])
async def test_a_body_left_early_leaves_nothing_behind(reads: int) -> None:
    """Neither generators for the collector, which would warn, nor an open connection."""
    gone = trio.Event()

    async def upstream(wire: Wire) -> None:
        await wire.request()
        await wire.send(response(200, {}, [b"x"] * 50, cut=True))
        await wire.gone()
        gone.set()

    async with serving(upstream) as url, make_http_client() as http:
        async with opened(http, url) as body:
            for _ in range(reads):
                assert await body.read() == b"x"
        del body
        gc.collect()
        with trio.fail_after(1):
            await gone.wait()


async def test_a_drained_body_gives_its_connection_back() -> None:
    """What follows the last word is read, so that the next call needs no new connection."""
    connections = 0

    async def upstream(wire: Wire) -> None:
        nonlocal connections
        connections += 1
        while await wire.request() is not None:
            await wire.send(response(200, {}, [b"last word"], cut=True))
            await trio.sleep(DRAIN_TIME / 10)
            await wire.send(chunk(b""))

    async with serving(upstream) as url, make_http_client() as http:
        for _ in range(3):
            body = Body(await http.send(httpx.Request("GET", url), stream=True))
            assert await body.read() == b"last word"
            await body.aclose(drain=True)
    assert connections == 1


async def test_draining_is_short() -> None:
    """A server that never ends its body costs the connection, not the caller's time."""
    gone = trio.Event()

    async def upstream(wire: Wire) -> None:
        await wire.request()
        await wire.send(response(200, {}, [b"last word"], cut=True))
        await wire.gone()
        gone.set()

    async with serving(upstream) as url, make_http_client() as http:
        body = Body(await http.send(httpx.Request("GET", url), stream=True))
        await body.read()
        start = trio.current_time()
        await body.aclose(drain=True)
        assert DRAIN_TIME <= trio.current_time() - start < DRAIN_TIME + 0.2
        with trio.fail_after(1):
            await gone.wait()


async def test_what_breaks_while_draining_is_of_no_interest() -> None:
    """The answer was complete."""

    async def upstream(wire: Wire) -> None:
        await wire.request()
        await wire.send(response(200, {}, [b"last word"], cut=True))

    async with serving(upstream) as url, make_http_client() as http:
        body = Body(await http.send(httpx.Request("GET", url), stream=True))
        assert await body.read() == b"last word"
        await body.aclose(drain=True)


async def test_a_cancelled_caller_drains_nothing() -> None:
    """And still closes."""
    gone = trio.Event()

    async def upstream(wire: Wire) -> None:
        await wire.request()
        await wire.send(response(200, {}, [b"last word"], cut=True))
        await wire.gone()
        gone.set()

    async with serving(upstream) as url, make_http_client() as http:
        body = Body(await http.send(httpx.Request("GET", url), stream=True))
        await body.read()
        start = trio.current_time()
        with trio.CancelScope() as scope:
            scope.cancel()
            await body.aclose(drain=True)
        assert scope.cancelled_caught
        assert trio.current_time() - start < DRAIN_TIME
        with trio.fail_after(1):
            await gone.wait()
