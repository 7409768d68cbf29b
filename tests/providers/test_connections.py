"""The pools of connections, of both transports: reuse, expiry, and nothing left open after errors and cancels."""

import gc
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

import httpx
import pytest
import trio
import trio.testing

from tests.loopback import Wire, response, serving
from tests.providers.fast_wire import fast as make_fast
from wizard_actors.providers.connections import ConnectionPool
from wizard_actors.providers.fast.transport import FastTransport

Pool: TypeAlias = ConnectionPool | FastTransport
Clients: TypeAlias = Callable[..., AbstractAsyncContextManager[tuple[httpx.AsyncClient, Pool]]]

OK = response(200, {}, [b"ok"])
TLS = ssl.create_default_context()


class Upstream:
    """Answers everything, and counts its connections."""

    def __init__(self) -> None:
        self.begun = 0
        self.open = 0

    async def __call__(self, wire: Wire) -> None:
        self.begun += 1
        self.open += 1
        try:
            while await wire.request() is not None:
                await wire.send(OK)
        finally:
            self.open -= 1


@pytest.fixture(params=["httpx", "fast"])
def client(request: pytest.FixtureRequest) -> Clients:
    """Return what yields a client over a pool, and the pool."""

    @asynccontextmanager
    async def opened(idle_time: float = 60.0) -> AsyncIterator[tuple[httpx.AsyncClient, Pool]]:
        fast = request.param == "fast"
        pool = make_fast(TLS, idle_time=idle_time) if fast else ConnectionPool(TLS, idle_time=idle_time)
        async with httpx.AsyncClient(transport=pool) as http:
            yield http, pool

    return opened


async def test_calls_one_after_the_other_share_a_connection(client: Clients) -> None:
    """Also where the upstream's answers differ."""
    upstream = Upstream()
    async with serving(upstream) as url, client() as (http, pool):
        for _ in range(5):
            assert (await http.post(url)).text == "ok"
        assert pool.size == 1
    assert upstream.begun == 1


async def test_calls_at_once_have_a_connection_each(client: Clients) -> None:
    """As many as there are calls; the next burst uses the same ones."""
    upstream = Upstream()
    async with serving(upstream) as url, client() as (http, pool):
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(http.post, url)
        assert pool.size == upstream.begun == 50


async def test_each_origin_has_connections_of_its_own(client: Clients) -> None:
    """What is idle for one serves no other."""
    first, second = Upstream(), Upstream()
    async with serving(first) as one, serving(second) as two, client() as (http, pool):
        for url in (one, two, one, two):
            await http.post(url)
        assert pool.size == 2
    assert (first.begun, second.begun) == (1, 1)


async def test_an_idle_connection_expires(client: Clients) -> None:
    """It is closed by the next call, which makes a new one."""
    upstream = Upstream()
    async with serving(upstream) as url, client(idle_time=0.0) as (http, pool):
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(http.post, url)
        await http.post(url)
        await http.post(url)
        assert pool.size <= 1
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert upstream.open <= 1


async def test_a_connection_that_its_server_closed_is_not_used_again(client: Clients) -> None:
    """A call never meets what another call left behind."""
    begun = 0

    async def once(wire: Wire) -> None:
        nonlocal begun
        begun += 1
        await wire.request()
        await wire.send(OK)

    async with serving(once) as url, client() as (http, pool):
        for _ in range(5):
            assert (await http.post(url)).text == "ok"
            await trio.testing.wait_all_tasks_blocked(0.005)  # the server's end of the connection arrives
        assert pool.size <= 1
    assert begun == 5


async def test_a_closed_connection_is_passed_over_for_an_older_one(client: Clients) -> None:
    """The newest would come first, but its server has closed it."""
    begun, together = 0, trio.Event()

    async def upstream(wire: Wire) -> None:
        nonlocal begun
        begun += 1
        number = begun
        await wire.request()
        if number == 2:
            together.set()
        await together.wait()
        await trio.testing.wait_all_tasks_blocked(0.01 * number)  # the first is given back first
        await wire.send(OK)
        while number == 1 and await wire.request() is not None:
            await wire.send(OK)

    async with serving(upstream) as url, client() as (http, pool):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(http.post, url)
            nursery.start_soon(http.post, url)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await http.post(url)).text == "ok"
        assert pool.size == 1
    assert begun == 2


async def test_an_answer_that_ends_the_connection_is_not_kept(client: Clients) -> None:
    """HTTP's own way to say so."""

    async def last(wire: Wire) -> None:
        await wire.request()
        await wire.send(response(200, {"connection": "close"}, [b"ok"]))
        await wire.gone()

    async with serving(last) as url, client() as (http, pool):
        await http.post(url)
        assert pool.size == 0


async def silent(wire: Wire) -> None:
    """Take requests, say nothing."""
    await wire.gone()


async def rude(wire: Wire) -> None:
    """Hang up on every request."""
    await wire.request()


async def half(wire: Wire) -> None:
    """Break off inside the body."""
    await wire.request()
    await wire.send(response(200, {}, [b"half"], cut=True))


@pytest.mark.parametrize("upstream", [rude, half])
async def test_broken_connections_are_forgotten(client: Clients, upstream: object) -> None:
    """Before the head or after it; the errors are httpx's."""
    async with serving(upstream) as url, client() as (http, pool):  # type: ignore[arg-type]  # parametrized
        for _ in range(3):
            with pytest.raises(httpx.RemoteProtocolError):
                await http.post(url)
        assert pool.size == 0


async def test_refused_connections_are_forgotten(client: Clients) -> None:
    """They never were."""
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        async with client() as (http, pool):
            with pytest.raises(httpx.ConnectError):
                await http.post(f"http://127.0.0.1:{unused.getsockname()[1]}")
            assert pool.size == 0


async def test_cancelled_calls_leave_nothing(client: Clients) -> None:
    """Whether they wait for the head or for the body."""
    for upstream in (silent, half_and_silent):
        async with serving(upstream) as url, client() as (http, pool):
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(http.post, url)
                await trio.testing.wait_all_tasks_blocked(0.01)
                nursery.cancel_scope.cancel()
            assert pool.size == 0


async def half_and_silent(wire: Wire) -> None:
    """Begin a body, then say nothing."""
    await wire.request()
    await wire.send(response(200, {}, [b"half"], cut=True))
    await wire.gone()


async def test_a_call_that_is_cancelled_while_it_sends_leaves_nothing_to_collect(client: Clients) -> None:
    """A body that was not sent to its end is no generator that somebody else has to close."""

    async def deaf(wire: Wire) -> None:
        await trio.sleep_forever()

    async with serving(deaf) as url, client() as (http, pool):
        with trio.move_on_after(0.05) as scope:
            await http.post(url, content=b"x" * 50_000_000)
        assert scope.cancelled_caught
        assert pool.size == 0
        gc.collect()  # a warning of an asynchronous generator that is collected fails the test


async def test_a_body_may_come_in_pieces(client: Clients) -> None:
    """What is no whole body is sent as it comes."""
    sizes: list[int] = []

    async def count(wire: Wire) -> None:
        request = await wire.request()
        assert request is not None
        sizes.append(len(request.body))
        await wire.send(OK)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    async with serving(count) as url, client() as (http, _):
        assert (await http.post(url, content=pieces(), headers={"content-length": "6"})).text == "ok"
    assert sizes == [6]


async def test_closing_ends_calls_in_flight(client: Clients) -> None:
    """Their connections are closed under them; what comes back later is closed too."""
    async with serving(half_and_silent) as url, client() as (http, pool):
        response_ = await http.send(httpx.Request("GET", url), stream=True)
        await pool.aclose()
        with pytest.raises(httpx.ReadError):
            await response_.aread()
        for _ in range(2):
            await response_.aclose()
        assert pool.size == 0


async def test_other_schemes_are_refused(client: Clients) -> None:
    """There is one protocol here."""
    async with client() as (http, _):
        with pytest.raises(httpx.UnsupportedProtocol):
            await http.post("ftp://127.0.0.1/x")


async def test_an_untrusted_server_is_not_talked_to(client: Clients) -> None:
    """TLS is spoken where the URL says so, and fails where the server does not speak it."""

    async def plain(wire: Wire) -> None:
        await wire.stream.receive_some()
        await wire.send(OK)
        await wire.gone()

    async with serving(plain) as url, client() as (http, pool):
        with pytest.raises(httpx.ConnectError):
            await http.post(url.replace("http", "https"))
        assert pool.size == 0
