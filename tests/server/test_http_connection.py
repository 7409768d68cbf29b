"""One HTTP connection: what comes is read within bounds, what is answered is whole, and nobody is held for ever."""

from __future__ import annotations

import json

import h11
import pytest
import trio
from trio.testing import MockClock

from tests.models import Scripted, says
from tests.server.http_wire import HttpWire, served
from tests.server.keyed import key
from wizard_actors.config import ServerConfig
from wizard_actors.server.held_stream import HeldStream
from wizard_actors.server.http_connection import HttpConnection, Receive, Scope, Send
from wizard_actors.server.key_settings import KeysConfig

SMALL = ServerConfig(max_message=4096, max_header=1024, handshake_timeout=10.0, idle_timeout=60.0, send_timeout=5.0)
CHUNKED = b"POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n"
LARGE = b"x" * 300_000


async def raw(wire: HttpWire, data: bytes) -> bytes:
    """Send bytes, and return all that comes until the server closes."""
    await wire.stream.send_all(data)
    said = b""
    while more := await wire.stream.receive_some():
        said += more
    return said


async def test_several_requests_are_answered_on_one_connection(autojump_clock: MockClock) -> None:
    """In their order, also those that were sent ahead."""
    async with served(Scripted(says("One."), says("Two."))) as server:
        wire = server.connect()
        assert (await wire.chat()).json["choices"][0]["message"]["content"] == "One."
        assert (await wire.ask("GET", "/health/live")).json == {"status": "live"}
        assert (await wire.ask("HEAD", "/health/live")).body == b""
        await wire.stream.send_all(b"GET /health/live HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" * 2)
        said = b""
        while said.count(b'"live"') < 2:
            said += await wire.stream.receive_some()
        assert said.count(b"HTTP/1.1 200 OK") == 2


async def test_a_target_may_name_scheme_and_host(autojump_clock: MockClock) -> None:
    """As RFC 9112 wants it taken."""
    async with served(Scripted()) as server:
        for target in ("http://127.0.0.1/health/live", "HTTP://127.0.0.1/health/live?x=1"):
            assert (await server.connect().ask("GET", target)).json == {"status": "live"}
        old = await raw(server.connect(), b"GET http://127.0.0.1/health/live HTTP/1.0\r\n\r\n")
        assert old.endswith(b'{"status":"live"}')
        page = await server.connect().ask("GET", "http://127.0.0.1?x=/health/live")
        assert page.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20 + b"\r\n\r\n", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", b"400"),
        (b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", b"431"),
        (b"POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: x\r\n\r\n", b"400"),
        (b"POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 99999\r\n\r\n", b"413"),
        (b"POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"GET / HTTP/9.9\r\nhost: 127.0.0.1\r\n\r\n", b"505"),
        (b"GET http://[/ HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", b"400"),
        (b"GET http://evil.example/health/live HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n", b"403"),
        (b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n" + b"a:\r\n" * 300 + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n folded: x\r\nconnection: close\r\n\r\n", b"403"),
        (CHUNKED + b"content-length: 4\r\n\r\n0\r\n\r\nGET /health/live HTTP/1.1\r\nhost: a\r\n\r\n", b"400"),
        (CHUNKED + b"\r\n" + b"1\r\n \r\n" * 2000, b"400"),
    ],
)
async def test_what_is_no_request_gets_a_proper_error(autojump_clock: MockClock, sent: bytes, status: bytes) -> None:
    """A 4xx, and the connection is closed; the next one is served."""
    async with served(Scripted(), server=SMALL) as server:
        said = await raw(server.connect(), sent)
        assert said.startswith(b"HTTP/1.1 " + status), said
        assert b"connection: close" in said.lower()
        assert b'"error"' in said
        assert (await server.connect().ask("GET", "/health/live")).status == 200


async def test_a_body_that_nobody_reads_holds_no_connection(autojump_clock: MockClock) -> None:
    """Where a path is not there, the answer comes before the body, and the connection is closed."""
    async with served(Scripted(), server=ServerConfig(handshake_timeout=10.0)) as server:
        wire = server.connect()
        await wire.stream.send_all(
            b"POST /nowhere HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 3000000\r\n\r\n" + LARGE
        )
        wire.http.send(h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")]))
        reply = await wire.reply()
        assert reply.status == 404
        assert reply.headers["connection"] == "close"
        await trio.sleep(5)
        assert server.endpoint.connections == 0


async def test_a_small_body_that_nobody_reads_leaves_the_connection_open(autojump_clock: MockClock) -> None:
    """It is passed over."""
    async with served(Scripted()) as server:
        wire = server.connect()
        assert (await wire.ask("POST", "/v1/embeddings", {"input": "x"})).status == 404
        assert (await wire.ask("GET", "/health/live")).status == 200


@pytest.mark.parametrize("begun", [b"", b"GET / HT", b"POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\n"])
async def test_a_head_that_does_not_come_is_given_up(autojump_clock: MockClock, begun: bytes) -> None:
    """After `server.handshake_timeout`."""
    async with served(Scripted(), server=SMALL) as server:
        began = trio.current_time()
        assert await raw(server.connect(), begun) == b""
        assert trio.current_time() - began == pytest.approx(SMALL.handshake_timeout, abs=1.5)


async def test_a_body_that_comes_byte_by_byte_is_given_up(autojump_clock: MockClock) -> None:
    """With 408, after about `server.handshake_timeout`: who sends that slowly holds no connection."""
    async with served(Scripted(), server=SMALL) as server:
        wire = server.connect()
        began = trio.current_time()
        await wire.stream.send_all(b"POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1000\r\n\r\n")
        with trio.move_on_after(60):
            async with trio.open_nursery() as nursery:

                async def drip() -> None:
                    while True:
                        await wire.stream.send_all(b" ")
                        await trio.sleep(1.0)

                nursery.start_soon(drip)
                said = await wire.stream.receive_some()
                nursery.cancel_scope.cancel()
        assert bytes(said).startswith(b"HTTP/1.1 408")
        assert trio.current_time() - began == pytest.approx(SMALL.handshake_timeout, abs=1.0)


async def test_a_large_body_on_a_slow_line_is_taken(autojump_clock: MockClock) -> None:
    """Longer than the handshake's time is all right, as long as more comes."""
    body = json.dumps({"model": "wizard", "messages": [{"role": "user", "content": "y" * 100_000}]}).encode()
    async with served(Scripted(says("Yes."))) as server:
        wire = server.connect()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n"
        await wire.stream.send_all(head.encode())
        for start in range(0, len(body), 5000):
            await wire.stream.send_all(body[start : start + 5000])
            await trio.sleep(1.0)
        wire.http.send(h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")]))
        assert (await wire.reply()).json["choices"][0]["message"]["content"] == "Yes."


async def test_a_body_is_asked_for_where_its_client_waits_for_that(autojump_clock: MockClock) -> None:
    """`Expect: 100-continue`, but for a body that is too large anyway."""
    body = json.dumps({"model": "wizard", "messages": [{"role": "user", "content": "Why?"}]}).encode()
    async with served(Scripted(says("Yes.")), server=SMALL) as server:
        wire = server.connect()
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nexpect: 100-continue\r\ncontent-length: "
        await wire.stream.send_all(f"{head}{len(body)}\r\n\r\n".encode())
        assert bytes(await wire.stream.receive_some()).startswith(b"HTTP/1.1 100")
        await wire.stream.send_all(body)
        assert bytes(await wire.stream.receive_some()).startswith(b"HTTP/1.1 200")
        large = server.connect()
        await large.stream.send_all(f"{head}99999\r\n\r\n".encode())
        assert bytes(await large.stream.receive_some()).startswith(b"HTTP/1.1 413")


async def test_an_idle_connection_is_closed(autojump_clock: MockClock) -> None:
    """After `server.idle_timeout`; a stranger's, who has shown no key, after `server.handshake_timeout`."""
    async with served(Scripted(), server=SMALL, keys=[key("alice")]) as server:
        for bearer, limit in (("Bearer wz_alice", SMALL.idle_timeout), ("Bearer wrong", SMALL.handshake_timeout)):
            wire = server.connect()
            await wire.ask("GET", "/v1/models", authorization=bearer)
            began = trio.current_time()
            assert await wire.closed()
            assert trio.current_time() - began == pytest.approx(limit, abs=1.5)


async def test_a_head_that_was_begun_ahead_is_to_end_as_soon_as_any(autojump_clock: MockClock) -> None:
    """Within `server.handshake_timeout`, though it came before the answer to the one before."""
    async with served(Scripted(says(1.0, "Yes.")), server=SMALL) as server:
        wire = server.connect()
        await wire.send("POST", "/v1/chat/completions", {"model": "a", "messages": [MESSAGE]})
        await wire.stream.send_all(b"GET / HT")
        await wire.reply()
        began = trio.current_time()
        assert await wire.stream.receive_some() == b""
        assert trio.current_time() - began == pytest.approx(SMALL.handshake_timeout, abs=1.5)


async def test_a_client_that_takes_nothing_is_given_up(autojump_clock: MockClock) -> None:
    """After `server.send_timeout`, and its call is stopped."""
    async with served(Scripted(says(*["word "] * 1000)), server=SMALL) as server:
        wire = server.connect()
        server.ends[-1].stuck = True
        await wire.send("POST", "/v1/chat/completions", {"model": "a", "stream": True, "messages": [MESSAGE]})
        await server.ends[-1].hangs.wait()
        await trio.sleep(SMALL.send_timeout + 2)
        assert server.endpoint.connections == 0
        assert server.client.supervisor.outstanding == {}


async def test_a_newcomer_takes_the_place_of_a_connection_on_which_nothing_is_asked_for(
    autojump_clock: MockClock,
) -> None:
    """Where all are busy it is refused, with 503 and when to come again; how the server is, it is told all the same."""
    async with served(Scripted(says(5.0, "Late.")), server=ServerConfig(max_connections=1)) as server:
        idle, busy = server.connect(), server.connect()
        assert (await idle.ask("GET", "/v1/models")).status == 200
        await busy.send("POST", "/v1/chat/completions", {"model": "a", "messages": [MESSAGE]})
        assert await idle.closed()
        refused = await server.connect().ask("GET", "/v1/models")
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert refused.headers["connection"] == "close"
        assert (await server.connect().ask("GET", "/health/live")).status == 200
        assert (await busy.reply()).status == 200
        assert trio.current_time() == pytest.approx(5.0, abs=0.5)


async def test_no_stranger_takes_a_callers_place(autojump_clock: MockClock) -> None:
    """Only who may use the server makes another connection leave: the one that has rested for the longest time, and
    none on which a head has begun.
    """
    settings, alice = ServerConfig(max_connections=3), {"x_api_key": "wz_alice"}
    async with served(Scripted(), server=settings, keys=[key("alice")]) as server:
        first, second, third = (server.connect() for _ in range(3))
        for wire in (first, second, third, first):  # the first has rested for the shortest time
            assert (await wire.ask("GET", "/v1/models", **alice)).status == 200
        await second.stream.send_all(b"GET /v1/models HTTP/1.1\r\nhost: a\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert (await server.connect().ask("GET", "/v1/models", x_api_key="wrong")).status == 401
        assert server.endpoint.connections == 3
        assert (await server.connect().ask("GET", "/v1/models", **alice)).status == 200
        assert await third.closed()
        await second.stream.send_all(b"x-api-key: wz_alice\r\n\r\n")
        assert bytes(await second.stream.receive_some()).startswith(b"HTTP/1.1 200")
        assert (await first.ask("GET", "/v1/models", **alice)).status == 200
        assert server.endpoint.connections == 3


async def test_a_connection_whose_key_is_good_no_more_is_not_kept(autojump_clock: MockClock) -> None:
    """The 401 is its last word."""
    async with served(Scripted(), keys=[key("alice"), key("bob")]) as server:
        wire = server.connect()
        assert (await wire.ask("GET", "/v1/models", x_api_key="wz_alice")).status == 200
        server.service.access.replace(KeysConfig(keys=(key("bob"),)), bound=[])
        reply = await wire.ask("GET", "/v1/models", x_api_key="wz_alice")
        assert (reply.status, reply.headers["connection"]) == (401, "close")


@pytest.mark.parametrize("late", [False, True])
async def test_an_empty_line_behind_a_body_is_passed_over(autojump_clock: MockClock, late: bool) -> None:
    """Whether it comes with the body or while that is being answered: no request of its own is made of it."""
    body = json.dumps({"model": "a", "messages": [MESSAGE]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    async with served(Scripted(says(2.0, "Yes."))) as server:
        wire = server.connect()
        await wire.stream.send_all(head + body + (b"" if late else b"\r\n"))
        await trio.sleep(1.0)
        if late:
            await wire.stream.send_all(b"\r\n")
        await trio.sleep(2.0)
        await wire.stream.send_all(b"GET /health/live HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        said = await raw(wire, b"")
        assert said.count(b"HTTP/1.1 200 OK") == said.count(b"HTTP/1.1 ") == 2


async def test_strangers_keep_nobody_out(autojump_clock: MockClock) -> None:
    """However many connections they open, silent ones or with keys that are none: those do not count."""
    async with served(Scripted(), server=ServerConfig(max_connections=2), keys=[key("alice")]) as server:
        for _ in range(5):
            server.connect()
            assert (await server.connect().ask("GET", "/v1/models", authorization="Bearer wrong")).status == 401
        assert server.endpoint.connections == 0
        for _ in range(2):
            assert (await server.connect().ask("GET", "/v1/models", authorization="Bearer wz_alice")).status == 200
        assert server.endpoint.connections == 2


async def test_a_key_keeps_no_more_connections_than_it_may(autojump_clock: MockClock) -> None:
    """Those beyond `server.max_connections_per_key` are closed when they have been answered."""
    settings = ServerConfig(max_connections_per_key=1)
    async with served(Scripted(), server=settings, keys=[key("alice"), key("bob")]) as server:
        kept = [await server.connect().ask("GET", "/v1/models", x_api_key=f"wz_{name}") for name in ("alice", "bob")]
        assert all("connection" not in reply.headers for reply in kept)
        reply = await server.connect().ask("GET", "/v1/models", x_api_key="wz_alice")
        assert (reply.status, reply.headers["connection"]) == (200, "close")


async def test_a_connection_whose_head_was_out_before_the_drain_closes_when_it_is_answered(
    autojump_clock: MockClock,
) -> None:
    """It could not be told before: no stop waits for a stream's client to hang up."""
    async with served(Scripted(says("One ", 5.0, "two."))) as server:
        wire = server.connect()
        await wire.send("POST", "/v1/chat/completions", {"model": "a", "stream": True, "messages": [MESSAGE]})
        await wire.head()
        server.drain()
        while await wire.piece() is not None:
            pass
        began = trio.current_time()
        assert await wire.closed()
        assert trio.current_time() - began < 1.5


async def test_who_sends_far_ahead_and_leaves_is_gone(autojump_clock: MockClock) -> None:
    """The call is stopped: nothing could be read behind what was sent ahead."""
    async with served(Scripted(says(500.0, "Late."))) as server:
        wire = server.connect()
        await wire.send("POST", "/v1/chat/completions", {"model": "a", "messages": [MESSAGE]})
        await wire.stream.send_all(b"x" * 100_000)
        await trio.sleep(2.0)
        assert server.endpoint.connections == 0
        assert server.client.supervisor.outstanding == {}


async def test_a_server_that_drains_closes_idle_connections_and_those_that_have_been_answered(
    autojump_clock: MockClock,
) -> None:
    """Who asks meanwhile is told that it stops, and that it is not ready."""
    async with served(Scripted(says(5.0, "Late."))) as server:
        idle, busy, looking = server.connect(), server.connect(), server.connect()
        await idle.ask("GET", "/health/live")
        await busy.send("POST", "/v1/chat/completions", {"model": "a", "messages": [MESSAGE]})
        await trio.sleep(1)
        await looking.stream.send_all(b"GET /health/ready HTTP/1.1\r\nhost: 127.0.0.1\r\n")
        server.service.draining.set()
        await looking.stream.send_all(b"\r\n")
        assert b"503" in bytes(await looking.stream.receive_some())
        server.drain()
        assert await idle.closed()
        reply = await busy.reply()
        assert (reply.status, reply.headers["connection"]) == (200, "close")


MESSAGE = {"role": "user", "content": "Why?"}


@pytest.mark.parametrize("stuck", [False, True])
async def test_a_response_that_breaks_off_is_no_whole_one_for_http_1_0_either(
    caplog: pytest.LogCaptureFixture, stuck: bool
) -> None:
    """Where the end of the connection is the end of the body, it is reset instead: between two pieces, and within one
    that nobody takes.
    """

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a part" * (2_000_000 if stuck else 1), "more_body": True})
        raise ZeroDivisionError

    async def handle(stream: trio.SocketStream) -> None:
        held = HeldStream(stream, send_timeout=0.2, max_message=4096)
        calls = HttpConnection(held, ServerConfig, tls=False, draining=trio.Event(), known=lambda _name: True)
        try:
            await calls.serve(lambda _target: app)
        except trio.BrokenResourceError:
            broken.set()
        await held.finish()

    broken = trio.Event()
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        stream = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
        with trio.fail_after(5):
            if stuck:
                await broken.wait()
            with pytest.raises(trio.BrokenResourceError):
                await raw(HttpWire(stream), b"")
        nursery.cancel_scope.cancel()
    await stream.aclose()
    assert stuck or "a bug has ended GET /" in caplog.text
