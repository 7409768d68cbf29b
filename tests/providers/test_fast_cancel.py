"""Calls that are cancelled, given up or answered early: nothing stays open, and no call meets what another left."""

import gc
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio
import trio.testing
import trustme

from tests.loopback import Wire, chunk, response, serving
from tests.providers.fast_wire import fast
from wizard_actors.providers.fast.transport import FastTransport

OK = response(200, {}, [b"ok"])
BIG = b"x" * 20_000_000
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def post(url: str, content: bytes | AsyncIterator[bytes] = b"{}", **timeouts: float) -> httpx.Request:
    """Return a request, with these timeouts and no others."""
    extensions = {"timeout": httpx.Timeout(None, **timeouts).as_dict()}
    return httpx.Request("POST", url, content=content, extensions=extensions)


async def read(transport: FastTransport, request: httpx.Request) -> bytes:
    """Make one call, and read its answer to the end."""
    response_ = await transport.handle_async_request(request)
    try:
        return await response_.aread()
    finally:
        await response_.aclose()


def open_files() -> int:
    """Return the number of this process's open files."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def silent(wire: Wire) -> None:
    """Take everything, say nothing."""
    await wire.gone()


async def deaf(wire: Wire) -> None:
    """Take nothing."""
    await trio.sleep_forever()


async def half(wire: Wire) -> None:
    """Begin a body, then say nothing."""
    await wire.request()
    await wire.send(response(200, {}, [b"half"], cut=True))
    await wire.gone()


STAGES = [
    pytest.param(silent, b"{}", "http", id="waiting for the head"),
    pytest.param(half, b"{}", "http", id="reading the body"),
    pytest.param(deaf, BIG, "http", id="sending"),
    pytest.param(silent, b"{}", "https", id="agreeing on TLS"),
]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files where the system tells them")
@pytest.mark.parametrize(("upstream", "body", "scheme"), STAGES)
async def test_cancelled_calls_leave_nothing_open(upstream: object, body: bytes, scheme: str) -> None:
    """Two hundred of them, at each stage; 20 at once."""
    async with (
        serving(upstream) as url,  # type: ignore[arg-type]  # parametrized
        fast(PLAIN) as transport,
    ):
        address = url.replace("http", scheme)
        before = open_files()
        for _ in range(10 if body is not BIG else 1):
            async with trio.open_nursery() as nursery:
                for _ in range(20 if body is not BIG else 3):
                    nursery.start_soon(read, transport, post(address, body))
                await trio.testing.wait_all_tasks_blocked(0.002)
                nursery.cancel_scope.cancel()
            assert transport.size == 0
        await trio.testing.wait_all_tasks_blocked(0.005)  # the server closes its ends
        assert open_files() - before <= (3 if upstream is deaf else 0)
    gc.collect()  # a warning of anything that was left open fails the test


async def test_a_call_that_is_cancelled_already_sends_nothing() -> None:
    """Though a connection is ready."""
    requests = 0

    async def count(wire: Wire) -> None:
        nonlocal requests
        while await wire.request() is not None:
            requests += 1
            await wire.send(OK)

    async with serving(count) as url, fast(PLAIN) as transport:
        await read(transport, post(url))
        with trio.CancelScope() as scope:
            scope.cancel()
            await read(transport, post(url))
        assert scope.cancelled_caught
        assert transport.size == 0
        await trio.testing.wait_all_tasks_blocked(0.005)
    assert requests == 1


async def test_a_response_that_is_closed_early_closes_its_connection() -> None:
    """And nothing more can be read from it, twice closed or not."""
    async with serving(half) as url, fast(PLAIN) as transport:
        response_ = await transport.handle_async_request(post(url))
        assert transport.size == 1
        for _ in range(2):
            await response_.aclose()
        assert transport.size == 0
        assert isinstance(response_.stream, httpx.AsyncByteStream)
        body = aiter(response_.stream)
        assert await anext(body, b"") == b"half"  # what had come
        with pytest.raises(httpx.ReadError):
            await anext(body)


@pytest.mark.parametrize("status", [200, 413])
async def test_an_answer_that_comes_before_all_is_sent_is_read(status: int) -> None:
    """The server neither takes the rest nor hangs up; the connection serves nobody again."""

    async def early(wire: Wire) -> None:
        await wire.stream.receive_some(1000)
        await wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked(0.002)
        await wire.send(response(status, {}, [b"enough"]))
        await trio.sleep_forever()

    async with serving(early) as url, fast(PLAIN) as transport:
        with trio.fail_after(5.0):
            response_ = await transport.handle_async_request(post(url, BIG))
            assert (response_.status_code, await response_.aread()) == (status, b"enough")
        assert transport.size == 0


async def test_an_answer_before_a_hang_up_is_read() -> None:
    """Sending fails then; what the server had said does not."""

    async def early(wire: Wire) -> None:
        await wire.stream.receive_some(1000)
        await wire.send(response(413, {"connection": "close"}, [b"enough"]))
        await wire.stream.send_eof()
        await wire.gone()

    async with serving(early) as url, fast(PLAIN) as transport:
        response_ = await transport.handle_async_request(post(url, BIG))
        assert (response_.status_code, await response_.aread()) == (413, b"enough")
        assert transport.size == 0


async def test_a_large_body_arrives_whole() -> None:
    """What does not go at once goes on, and the connection serves once more."""
    sizes: list[int] = []

    async def count(wire: Wire) -> None:
        while (request := await wire.request()) is not None:
            sizes.append(len(request.body))
            await wire.send(OK)

    async with serving(count) as url, fast(PLAIN) as transport:
        for _ in range(2):
            assert await read(transport, post(url, b"x" * 4_000_000)) == b"ok"
        assert transport.size == 1
    assert sizes == [4_000_000] * 2


@pytest.mark.parametrize(
    ("upstream", "which", "error"),
    [
        (silent, "read", httpx.ReadTimeout),
        (half, "read", httpx.ReadTimeout),
        (deaf, "write", httpx.WriteTimeout),
    ],
)
async def test_timeouts_are_httpxs(upstream: object, which: str, error: type[httpx.TimeoutException]) -> None:
    """Each for its own wait."""
    async with (
        serving(upstream) as url,  # type: ignore[arg-type]  # parametrized
        fast(PLAIN) as transport,
    ):
        with pytest.raises(error):
            await read(transport, post(url, BIG if which == "write" else b"{}", **{which: 0.02}))
        assert transport.size == 0


async def test_a_connection_that_is_not_made_in_time_is_a_connect_timeout() -> None:
    """TLS counts."""
    async with serving(silent) as url, fast(PLAIN) as transport:
        with pytest.raises(httpx.ConnectTimeout):
            await read(transport, post(url.replace("http", "https"), connect=0.02))
        assert transport.size == 0


async def test_a_stream_of_pieces_is_sent_in_chunks() -> None:
    """As a request says that has no length."""
    seen: list[bytes] = []

    async def upstream(wire: Wire) -> None:
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            data += await wire.stream.receive_some(65536)
        seen.append(data.partition(b"\r\n\r\n")[2])
        await wire.send(OK)

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"one", b"", b"three"):
            yield piece

    async with serving(upstream) as url, fast(PLAIN) as transport:
        assert await read(transport, post(url, pieces())) == b"ok"
    assert seen == [chunk(b"one") + chunk(b"three") + chunk(b"")]


async def test_tls_names_its_server_and_speaks_http_1_only() -> None:
    """Over a connection that serves again, though TLS sends its tickets late."""
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("localhost").configure_cert(server)
    server.set_alpn_protocols(["h2", "http/1.1"])
    authority.configure_trust(client)
    asked: list[str | None] = []
    server.sni_callback = lambda _tls, name, _context: asked.append(name)
    agreed: list[str | None] = []

    async def upstream(wire: Wire) -> None:
        secure = trio.SSLStream(wire.stream, server, server_side=True)
        for _ in range(2):
            data = b""
            while not data.endswith(b"x" * 3_000_000):
                data += await secure.receive_some(65536)
            agreed.append(secure.selected_alpn_protocol())
            await secure.send_all(OK)
        await wire.gone()

    async with serving(upstream) as url, fast(client) as transport:
        address = url.replace("http://127.0.0.1", "https://localhost")
        for _ in range(2):
            assert await read(transport, post(address, b"x" * 3_000_000)) == b"ok"
        assert transport.size == 1
    assert (asked, agreed) == (["localhost"], ["http/1.1"] * 2)
