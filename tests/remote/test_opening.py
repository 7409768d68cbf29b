"""Opening a client: addresses, keys, handshakes that come to nothing, TLS, and programs under asyncio."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio
import trustme
from trio.testing import MockClock, memory_stream_pair
from trio_websocket import WebSocketConnection, WebSocketRequest

from tests.remote.fake_server import Greeting, answering, in_progress
from tests.remote.fake_server import client_of as faked
from tests.remote.loopback import in_a_thread, listening
from wizard_actors import (
    AccessDeniedError,
    ConfigError,
    EnvVarError,
    InvalidStateTransitionError,
    NetworkError,
    OverloadedError,
    UnsupportedError,
    WizardError,
    WizardResponse,
)
from wizard_actors.client import ClientBlock
from wizard_actors.embed.place import Place
from wizard_actors.remote import RemoteClient
from wizard_actors.remote.address import Address, address_of
from wizard_actors.remote.trio_remote import TrioRemote

# -- addresses


@pytest.mark.parametrize(
    ("url", "where", "resource", "encrypted"),
    [
        ("ws://127.0.0.1:8000", "127.0.0.1:8000", "/", False),
        ("ws://wizard.example/v1/ws?a=b", "wizard.example:80", "/v1/ws?a=b", False),
        ("wss://wizard.example", "wizard.example:443", "/", True),
        ("ws://[::1]:9", "[::1]:9", "/", False),
    ],
)
def test_an_address_is_read_from_a_url(url: str, where: str, resource: str, encrypted: bool) -> None:
    """Host, port, path, and whether it is encrypted."""
    address = address_of(url)

    assert (address.where, address.resource, address.tls is not None) == (where, resource, encrypted)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000", "127.0.0.1:8000", "ws://", "ws://h:port", "ws://u:p@h", "ws://h/ä", "", 8000]
)
def test_what_is_no_address_is_a_config_error(url: str) -> None:
    """It says what to give."""
    with pytest.raises(ConfigError, match="url"):
        address_of(url)


def test_keys_are_read_and_never_shown() -> None:
    """From the argument or the environment; spaces round it do not count."""
    given = address_of("ws://h", key="wz_secret")
    from_env = address_of("ws://h", key_env="K", env={"K": " wz_secret\n"})

    assert given.headers == from_env.headers == [(b"Authorization", b"Bearer wz_secret")]
    assert "wz_secret" not in repr(given)


def test_keys_that_cannot_be_used_are_config_errors(tmp_path: Path) -> None:
    """Missing, empty, given twice, or not fit for a header; and a file without certificates."""
    with pytest.raises(EnvVarError) as caught:
        address_of("ws://h", key_env="K", env={})
    assert caught.value.variable == "K"
    with pytest.raises(EnvVarError):
        address_of("ws://h", key_env="K", env={"K": " "})
    for wrong in ({"key": "a\nb"}, {"key": " "}, {"key": "a", "key_env": "K"}):
        with pytest.raises(ConfigError, match="key"):
            address_of("ws://h", env={"K": "k"}, **wrong)
    with pytest.raises(ConfigError, match="key_env"):
        address_of("ws://h", key_env="K", env={"K": "a\nb"})
    with pytest.raises(ConfigError, match="ca_file"):
        address_of("wss://h", ca_file=tmp_path / "none.pem")
    with pytest.raises(ConfigError, match="ca_file"):
        address_of("ws://h", ca_file=tmp_path / "none.pem")


async def test_wrong_bounds_are_config_errors() -> None:
    """Before anything is dialled."""
    for wrong in ({"connect_timeout": 0.0}, {"max_message_size": True}):
        with pytest.raises(ConfigError, match="must be more than 0"):
            async with RemoteClient.open("ws://127.0.0.1:1", **wrong):
                pass


async def test_a_client_is_opened_once_and_by_its_block() -> None:
    """Whoever forgets the block is told how it is written."""
    block = RemoteClient.open("ws://127.0.0.1:1")
    with pytest.raises(AttributeError, match=r"async with RemoteClient\.open"):
        block.generate  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(NetworkError):
        await block.__aenter__()
    with pytest.raises(InvalidStateTransitionError):
        await block.__aenter__()
    with pytest.raises(TypeError, match="is opened"):
        RemoteClient("ws://127.0.0.1:1")  # type: ignore[arg-type]


# -- handshakes that come to nothing


def refusing(status: int, body: bytes | None) -> Greeting:
    """Refuse everybody."""

    async def greet(request: WebSocketRequest) -> WebSocketConnection | None:
        await request.reject(status, body=body)
        return None

    return greet


async def failure_of(greet: Greeting) -> tuple[WizardError, int]:
    """Return why a client could not be opened, and how often it was tried."""
    dials: list[int] = []

    async def counted(request: WebSocketRequest) -> WebSocketConnection | None:
        dials.append(1)
        return await greet(request)

    with pytest.RaisesGroup(pytest.RaisesExc(WizardError)) as caught:
        async with faked(answering, greet=counted):
            pass
    [error] = caught.value.exceptions
    assert isinstance(error, WizardError)
    return error, len(dials)


@pytest.mark.parametrize(
    ("status", "body", "kind", "tries"),
    [
        (401, b'{"error": {"code": "access_denied", "message": "no such key"}}', AccessDeniedError, 1),
        (401, None, AccessDeniedError, 1),
        (403, b"go away", AccessDeniedError, 1),
        (400, b'{"error": {"code": "bad_request", "message": "wizard.v1 was not offered"}}', UnsupportedError, 1),
        (404, b"<html>", UnsupportedError, 1),
        (503, b"[]", OverloadedError, 4),
        (503, b'{"error": {"code": ["access_denied"], "message": {}}}', OverloadedError, 4),
        (502, None, OverloadedError, 4),
    ],
)
async def test_a_refused_handshake_says_why(
    autojump_clock: MockClock, status: int, body: bytes | None, kind: type[WizardError], tries: int
) -> None:
    """By its status, or in the server's own words; only what may pass is tried again."""
    error, tried = await failure_of(refusing(status, body))

    assert type(error) is kind
    assert tried == tries
    assert str(status) in str(error) or "no such key" in str(error)


async def test_a_websocket_of_something_else_is_told(autojump_clock: MockClock) -> None:
    """A server that accepts without the subprotocol does not speak ours."""

    async def greet(request: WebSocketRequest) -> WebSocketConnection | None:
        return await request.accept()

    error, tried = await failure_of(greet)

    assert isinstance(error, UnsupportedError)
    assert "wizard.v1" in str(error)
    assert tried == 1


async def opened_on(answer: Callable[[trio.abc.Stream], Awaitable[None]]) -> None:
    """Open a client of what does `answer` with the bytes of a connection."""
    async with trio.open_nursery() as nursery:

        async def connect() -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            ours, theirs = memory_stream_pair()
            nursery.start_soon(answer, theirs)
            return ours

        opening = partial(TrioRemote.open, lambda: Address("wizard", 8000), connect=connect)
        try:
            async with ClientBlock(RemoteClient, opening, Place("", 0)):
                pass
        finally:
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("sent", "kind", "said"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", UnsupportedError, "no server of wizard_actors"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", UnsupportedError, "HTTP 200"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tea\r\n\r\n", UnsupportedError, "does not speak WebSocket"),
        (b"", NetworkError, "closed the connection before it was open"),
        (b"HTTP/1.1 500 Oops\r\n\r\nno end", (NetworkError, UnsupportedError), "WebSocket"),
    ],
)
async def test_what_is_no_server_of_ours_is_told(
    autojump_clock: MockClock, sent: bytes, kind: type[WizardError], said: str
) -> None:
    """Whatever it answers, the client is not held up, and says what it found."""

    async def answer(stream: trio.abc.Stream) -> None:
        await stream.receive_some(65_536)
        if sent:
            await stream.send_all(sent)
        await stream.aclose()

    with pytest.RaisesGroup(pytest.RaisesExc((NetworkError, UnsupportedError), match=said)) as caught:
        await opened_on(answer)

    assert isinstance(caught.value.exceptions[0], kind)


async def test_a_server_that_says_nothing_is_given_up_in_time(autojump_clock: MockClock) -> None:
    """Connecting takes `connect_timeout` at most, 10 seconds."""

    async def silent(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    began_at = trio.current_time()
    with pytest.RaisesGroup(pytest.RaisesExc(NetworkError, match="within 10 s")):
        await opened_on(silent)

    assert trio.current_time() - began_at == pytest.approx(10.0)


# -- real sockets


async def test_a_server_on_a_socket_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key comes from the environment; nothing is left open."""
    monkeypatch.setenv("WIZARD_REMOTE_TEST_KEY", "wz_alice")
    async with (
        listening() as port,
        RemoteClient.open(f"ws://127.0.0.1:{port}", key_env="WIZARD_REMOTE_TEST_KEY") as client,
    ):
        response = await client.generate("Why?")

        assert response.text == "Because."
        assert repr(client) == f"RemoteClient(127.0.0.1:{port})"


async def test_nobody_there_is_a_network_error_that_names_the_server() -> None:
    """As from any other host."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()

    with pytest.raises(NetworkError, match="Connection refused") as caught:
        async with RemoteClient.open(f"ws://127.0.0.1:{port}"):
            pass

    assert caught.value.model == f"127.0.0.1:{port}"


async def test_an_encrypted_server_is_trusted_by_its_ca_file(tmp_path: Path) -> None:
    """Without that file its certificate is not trusted, and the error says what to give."""
    ca, tls = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(tls)
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    async with listening(tls) as port:
        url = f"wss://127.0.0.1:{port}"
        async with RemoteClient.open(url, key="wz_alice", ca_file=tmp_path / "ca.pem") as client:
            assert (await client.generate("Why?")).text == "Because."
        with pytest.raises(NetworkError, match=r"is not trusted.*ca_file"):
            async with RemoteClient.open(url, key="wz_alice"):
                pass
        with pytest.raises(NetworkError):  # it is spoken to without TLS
            async with RemoteClient.open(f"ws://127.0.0.1:{port}", key="wz_alice"):
                pass


# -- asyncio


def test_programs_under_asyncio_use_it_as_well() -> None:
    """Answers, streams, batches, sessions, errors and cancellation, from an asyncio loop."""

    async def main(port: int) -> None:
        async with RemoteClient.open(f"ws://127.0.0.1:{port}", key="wz_alice") as client:
            assert (await client.generate("Why?")).text == "Because."
            async with client.stream("Why?") as stream:
                assert [text async for text in stream.text()] == ["Because."]
            outcomes = await client.generate_batch(["1", "2"])
            assert [each.text for each in outcomes if isinstance(each, WizardResponse)] == ["Because."] * 2
            async with client.session("s") as session:
                await session.send("?")
                assert len(session.history) == 2
            with pytest.raises(AccessDeniedError):
                await client.tree()
            with pytest.raises(AccessDeniedError):
                async with client.subscribe() as events:
                    await anext(events)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await client.generate("Why?")
            assert in_progress(client) == 0
        with pytest.raises(WizardError):
            await client.generate("Why?")

    with in_a_thread() as port:
        asyncio.run(main(port))


def test_a_program_without_an_event_loop_is_told() -> None:
    """It says what runs one."""

    async def main() -> None:
        async with RemoteClient.open("ws://127.0.0.1:1"):
            pass

    with pytest.raises(UnsupportedError, match=r"a RemoteClient runs under Trio or asyncio"):
        main().send(None)
