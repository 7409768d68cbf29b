"""The beginning of a connection: who gets one, and what everybody else is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock
from trio_websocket import ConnectionRejected

from tests.models import Scripted
from tests.server.wire import Served, key, served
from wizard_actors.config import ServerConfig

HEAD = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: wizard.v1\r\n"
)


async def answered(server: Served, sent: bytes) -> tuple[int, dict[str, str], Any]:
    """Send bytes, read to the end, and return the status, the headers and the body that came."""
    stream = server.raw()
    await stream.send_all(sent)
    received = b"".join([chunk async for chunk in stream])
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    return int(lines[0].split()[1]), headers, json.loads(body)


async def test_everybody_is_let_in_where_there_are_no_keys(autojump_clock: MockClock) -> None:
    """Without keys a bearer is ignored."""
    async with served(Scripted()) as server:
        wire = await server.connect(bearer="whatever")

        assert wire.socket.subprotocol == "wizard.v1"
        assert await wire.call("tree")


@pytest.mark.parametrize("subprotocol", [False, True])
async def test_a_key_is_presented_in_the_header_or_as_a_subprotocol(
    autojump_clock: MockClock, subprotocol: bool
) -> None:
    """A browser cannot send the header."""
    async with served(Scripted(), keys=[key("alice")]) as server:
        if subprotocol:
            wire = await server.connect(subprotocols=["wizard.v1", "wizard.key.wz_alice"])
        else:
            wire = await server.connect(bearer="wz_alice")

        assert wire.socket.subprotocol == "wizard.v1"
        assert (await wire.call("generate", prompt="Why?"))["text"] == "Hello"


async def test_what_a_proxy_has_in_the_header_hides_no_key(autojump_clock: MockClock) -> None:
    """Another scheme than Bearer is not ours: the key of the subprotocol counts."""
    async with served(Scripted(), keys=[key("alice")]) as server:
        stream = server.raw()
        proxied = HEAD.replace(b"wizard.v1", b"wizard.v1, wizard.key.wz_alice") + b"Authorization: Basic eDp5\r\n\r\n"

        await stream.send_all(proxied)

        assert (await stream.receive_some()).startswith(b"HTTP/1.1 101")


async def test_a_client_is_told_how_long_a_message_may_be(autojump_clock: MockClock) -> None:
    """In bytes; and that holds for as long as the connection does."""
    async with served(Scripted(), server=ServerConfig(max_message=5000)) as server:
        wire = await server.connect()

        assert dict(wire.socket.handshake_headers)[b"wizard-max-message"] == b"5000"


async def test_refused_handshakes_do_not_fill_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """One line in 10 s, which counts those before it that have none."""
    async with served(Scripted(), keys=[key("alice")]) as server:
        with caplog.at_level("INFO", "wizard_actors.server"):
            for number in range(22):
                await answered(server, HEAD + b"\r\n")
                if number % 20 == 0:
                    await trio.sleep(11)

        said = [record.getMessage() for record in caplog.records if "handshake" in record.getMessage()]
        assert [line.partition(", and ")[2] for line in said] == ["", "", "19 others before, not logged"]


async def test_a_key_has_so_many_connections(autojump_clock: MockClock) -> None:
    """More are refused, and those of other keys are not; where one ends there is room again."""
    keys, bound = [key("alice"), key("bob")], ServerConfig(max_connections_per_key=2)
    async with served(Scripted(), keys=keys, server=bound) as server:
        first, _second = [await server.connect(bearer="wz_alice") for _ in range(2)]

        refused = await rejection(server, bearer="wz_alice")
        assert refused.status_code == 503
        assert "max_connections_per_key" in json.loads(refused.body or b"")["error"]["message"]
        assert await (await server.connect(bearer="wz_bob")).call("models")

        await first.socket.aclose()
        assert await (await server.connect(bearer="wz_alice")).call("models")


async def test_without_keys_that_bound_is_none(autojump_clock: MockClock) -> None:
    """Nobody has a key: `max_connections` bounds them."""
    async with served(Scripted(), server=ServerConfig(max_connections_per_key=1)) as server:
        assert [await (await server.connect()).call("models") for _ in range(3)]


@pytest.mark.parametrize("bearer", [None, "wz_bob", "wz_off"])
async def test_without_a_good_key_there_is_no_connection(autojump_clock: MockClock, bearer: str | None) -> None:
    """None, a wrong one, one that is disabled: all the same."""
    async with served(Scripted(), keys=[key("alice"), key("off", enabled=False)]) as server:
        rejected = await rejection(server, bearer=bearer)

        assert rejected.status_code == 401
        assert dict(rejected.headers)[b"www-authenticate"] == b"Bearer"
        assert dict(rejected.headers)[b"content-type"] == b"application/json"
        assert json.loads(rejected.body or b"")["error"]["code"] == "access_denied"
        assert server.endpoint.connections == 0


async def rejection(server: Served, **how: Any) -> ConnectionRejected:  # noqa: ANN401 - as `connect` takes them
    """Connect, and return the refusal."""
    with pytest.RaisesGroup(ConnectionRejected, flatten_subgroups=True) as rejected:
        async with trio.open_nursery() as nursery:
            await Served(server.client, server.service, server.endpoint, nursery).connect(**how)
    (refusal,) = innermost(rejected.value)
    return refusal


def innermost(error: ConnectionRejected | ExceptionGroup[ConnectionRejected]) -> list[ConnectionRejected]:
    """Return the refusals in a group of any depth."""
    if isinstance(error, ConnectionRejected):
        return [error]
    return [refusal for each in error.exceptions for refusal in innermost(each)]


@pytest.mark.parametrize(("origin", "status"), [("https://evil.example", 403), ("null", 403), (None, None)])
async def test_a_web_page_needs_an_origin_that_is_allowed(
    autojump_clock: MockClock, origin: str | None, status: int | None
) -> None:
    """Without keys, too: no web page may use a local server. What is no browser sends none."""
    async with served(Scripted()) as server:
        if status is None:
            await server.connect(origin=origin)
            return
        rejected = await rejection(server, origin=origin)
        assert rejected.status_code == status


async def test_an_allowed_origin_connects(autojump_clock: MockClock) -> None:
    """Pages of `server.origins` get in."""
    async with served(Scripted(), server=ServerConfig(origins=("https://app.example",))) as server:
        wire = await server.connect(origin="https://app.example")

        assert await wire.call("models")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"hello\r\n\r\n", 400, id="no HTTP"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", 400, id="TLS"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 426, id="no upgrade"),
        pytest.param(HEAD.replace(b"GET", b"POST") + b"\r\n", 405, id="POST"),
        pytest.param(HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n", 400, id="HTTP/1.0"),
        pytest.param(HEAD.replace(b": 13", b": 8") + b"\r\n", 400, id="old version"),
        pytest.param(HEAD.replace(b"wizard.v1", b"chat") + b"\r\n", 400, id="other subprotocol"),
        pytest.param(HEAD.replace(b"localhost", b"\xff\xfe") + b"\r\n", 400, id="strange host"),
        pytest.param(HEAD + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", 400, id="two keys"),
        pytest.param(HEAD + b"Origin: a\r\nOrigin: b\r\n\r\n", 400, id="two origins"),
        pytest.param(HEAD + b"X: " + b"a" * 20_000, 431, id="too long"),
        pytest.param(HEAD + b"X: " + b"a" * 17_000 + b"\r\n\r\n", 431, id="too long, at once"),
    ],
)
async def test_what_is_no_handshake_is_told_so_and_closed(autojump_clock: MockClock, sent: bytes, status: int) -> None:
    """With a sentence, and long before the handshake's time is up."""
    async with served(Scripted()) as server:
        found, headers, body = await answered(server, sent)

        assert found == status
        assert headers["content-type"] == "application/json"
        assert body["error"]["message"]
        assert ("HTTP is served where --http" in body["error"]["message"]) == (status in {405, 426})
        assert trio.current_time() < 5


@pytest.mark.parametrize("sent", [b"", b"GET / HT", HEAD])
async def test_a_handshake_that_takes_too_long_is_cut_off(autojump_clock: MockClock, sent: bytes) -> None:
    """Whoever sends a byte now and then, or nothing, keeps no place."""
    async with served(Scripted(), server=ServerConfig(handshake_timeout=3.0)) as server:
        stream, began = server.raw(), trio.current_time()

        with trio.move_on_after(2.5):
            for byte in sent:
                await stream.send_all(bytes([byte]))
                await trio.sleep(0.1)
        assert b"".join([chunk async for chunk in stream]) == b""

        assert 3.0 <= trio.current_time() - began < 5.0


async def test_a_peer_that_leaves_without_a_word_is_forgotten(autojump_clock: MockClock) -> None:
    """Nothing waits for the rest of its handshake."""
    async with served(Scripted()) as server:
        stream = server.raw()
        await stream.send_all(HEAD[:50])
        began = trio.current_time()
        await stream.send_eof()

        assert b"".join([chunk async for chunk in stream]) == b""
        assert trio.current_time() - began < 1.0


async def test_frames_that_come_with_the_handshake_are_not_lost(autojump_clock: MockClock) -> None:
    """A client may send its first request before it has read that it may."""
    async with served(Scripted()) as server:
        stream = server.raw()
        text = b'{"jsonrpc":"2.0","id":1,"method":"models"}'
        await stream.send_all(HEAD + b"\r\n" + bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)

        received = b""
        with trio.fail_after(5):
            while b'"models"' not in received:
                received += await stream.receive_some()

        assert received.startswith(b"HTTP/1.1 101")


async def test_connections_beyond_the_bound_are_refused(autojump_clock: MockClock) -> None:
    """The ones that are open stay."""
    async with served(Scripted(), server=ServerConfig(max_connections=1)) as server:
        wire = await server.connect()

        rejected = await rejection(server)

        assert rejected.status_code == 503
        assert server.endpoint.connections == 1
        assert await wire.call("models")


async def test_a_server_that_stops_takes_no_connections(autojump_clock: MockClock) -> None:
    """They are told to connect again."""
    async with served(Scripted()) as server:
        server.service.draining.set()

        rejected = await rejection(server)

        assert rejected.status_code == 503
        assert json.loads(rejected.body or b"")["error"]["code"] == "actor_stopped"


async def test_a_handshake_may_come_in_small_pieces(autojump_clock: MockClock) -> None:
    """As slow as it is, within its time it is one."""
    async with served(Scripted()) as server:
        stream = server.raw()

        for byte in HEAD + b"\r\n":
            await stream.send_all(bytes([byte]))
            await trio.sleep(0.01)

        assert (await stream.receive_some()).startswith(b"HTTP/1.1 101")


async def test_a_head_request_is_refused_without_a_body(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """HTTP allows it none, though it is told how long that of a GET is; and nothing of it is a bug."""
    async with served(Scripted()) as server:
        stream = server.raw()
        await stream.send_all(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n")

        received = b"".join([chunk async for chunk in stream])

        head, _, body = received.partition(b"\r\n\r\n")
        assert (head.split()[1], body) == (b"405", b"")
        assert b"Content-Length: 0" not in head
        assert [record for record in caplog.records if record.levelname == "ERROR"] == []
