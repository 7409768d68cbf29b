"""Where a server listens: addresses, certificates, and what may happen to a connection."""

import errno
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from wizard_actors.errors import ConfigError
from wizard_actors.server import listening as server_listening
from wizard_actors.server.listening import SPARE, Handler, Intake, listening, load_tls, shown_address

AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("localhost")


def port_of(listener: trio.SocketListener) -> int:
    """Return the port that was picked."""
    port: int = listener.socket.getsockname()[1]
    return port


async def echo(stream: trio.abc.Stream, let_in: Callable[[], object]) -> None:
    """Send one piece back."""
    let_in()
    await stream.send_all(await stream.receive_some(100))


@asynccontextmanager
async def taking(
    handle: Handler,
    *,
    tls: ssl.SSLContext | None = None,
    handshake_timeout: float = 5,
    max_connections: int = 10,
) -> AsyncIterator[tuple[int, Intake]]:
    """Serve on loopback; yield the port."""
    intake = Intake(handle, tls, handshake_timeout, max_connections)
    async with listening("127.0.0.1:0", "server.websocket") as (listener,), trio.open_nursery() as nursery:
        nursery.start_soon(intake.accept, listener, nursery)
        yield port_of(listener), intake
        nursery.cancel_scope.cancel()


async def asked(port: int) -> bytes:
    """Connect, say something, and return the answer."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"hello")
        return bytes(await stream.receive_some(100))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate and its key."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(b"".join(part.bytes() for part in CERTIFICATE.cert_chain_pems))
    key.write_bytes(CERTIFICATE.private_key_pem.bytes())
    return cert, key


# -- addresses


async def test_the_port_0_is_any_free_one_and_is_free_again_afterwards() -> None:
    """What is listened on is known, and closed with the block."""
    async with listening("127.0.0.1:0", "server.websocket") as (listener,):
        port = port_of(listener)
        assert port != 0
    async with listening(f"127.0.0.1:{port}", "server.websocket") as (again,):
        assert port_of(again) == port


async def test_a_host_with_two_addresses_is_listened_on_at_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name may stand for several; one that this machine has not is left out."""
    found = [(socket.AF_INET, 1, 6, "", (host, 0)) for host in ("127.0.0.1", "127.0.0.1", "127.0.0.2", "192.0.2.1")]

    async def getaddrinfo(host: str, *rest: Any, **options: Any) -> object:  # noqa: ANN401 - passed on as they are
        return found if host == "some.name" else await resolve(host, *rest, **options)

    resolve = trio.socket.getaddrinfo
    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    async with listening("some.name:0", "server.websocket") as listeners:
        assert [listener.socket.getsockname()[0] for listener in listeners] == ["127.0.0.1", "127.0.0.2"]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("192.0.2.1:8000", "cannot listen on 192.0.2.1:8000: it is no address of this machine"),
        ("no.such.host.invalid:8000", "names the host 'no.such.host.invalid', which is not known"),
        (f"{'x' * 70}.invalid:8000", "which is not known"),
    ],
)
async def test_an_address_that_cannot_be_listened_on_is_named_with_its_setting(address: str, said: str) -> None:
    """Whoever started the server is told what to change."""
    with pytest.raises(ConfigError, match=r"`server\.websocket`") as caught:
        async with listening(address, "server.websocket"):
            pass  # pragma: no cover
    assert said in caught.value.message


async def test_an_address_that_is_in_use_is_told_with_what_to_do() -> None:
    """It is what happens most often."""
    async with listening("127.0.0.1:0", "server.websocket") as (listener,):
        port = port_of(listener)
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}: the address is in use; another program"):
            async with listening(f"127.0.0.1:{port}", "server.websocket"):
                pass  # pragma: no cover


def test_an_ipv6_address_is_shown_in_brackets() -> None:
    """Else nobody sees where the port begins."""
    assert [shown_address("::1", 80), shown_address("127.0.0.1", 80)] == ["[::1]:80", "127.0.0.1:80"]


# -- TLS


async def test_a_client_that_trusts_the_certificate_is_served(files: tuple[Path, Path]) -> None:
    """TLS 1.2 or newer, from the two files."""
    trusting = ssl.create_default_context()
    AUTHORITY.configure_trust(trusting)
    async with taking(echo, tls=load_tls(*files)) as (port, _):
        plain = await trio.open_tcp_stream("127.0.0.1", port)
        async with trio.SSLStream(plain, trusting, server_hostname="localhost", https_compatible=True) as stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some(100) == b"hello"


async def test_old_versions_of_tls_are_not_spoken(files: tuple[Path, Path]) -> None:
    """They are broken."""
    assert load_tls(*files).minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b""])
async def test_a_connection_without_its_tls_handshake_is_closed_and_the_next_one_served(
    files: tuple[Path, Path], said: bytes
) -> None:
    """One that speaks something else, and one that says nothing until its time is up."""
    async with taking(echo, tls=load_tls(*files), handshake_timeout=0.2) as (port, intake):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(said)
            with trio.fail_after(5):
                try:
                    while await stream.receive_some(100):
                        pass  # OpenSSL's own last words
                except trio.BrokenResourceError:
                    pass
        await trio.testing.wait_all_tasks_blocked()
        assert intake.open == 0
        intake.tls = None
        assert await asked(port) == b"hello"


def test_wrong_files_are_named_with_their_setting(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Missing, no PEM, of another certificate, behind a passphrase."""
    cert, key = files
    other, locked, text = tmp_path / "other.pem", tmp_path / "locked.pem", tmp_path / "text.pem"
    other.write_bytes(AUTHORITY.issue_cert("localhost").private_key_pem.bytes())
    text.write_text("Good morning")
    locked.write_text(ENCRYPTED)
    said = {
        (tmp_path / "none.pem", key): "`server.tls_cert` names a file, {0}, that cannot be read: No such file",
        (cert, tmp_path / "none.pem"): "`server.tls_key` names a file, {1}, that cannot be read: No such file",
        (tmp_path, key): "`server.tls_cert` names a file, {0}, that cannot be read: Is a directory",
        (text, key): "`server.tls_cert` names a file, {0}, that holds no certificate in PEM form",
        (cert, cert): "`server.tls_key` names a file, {1}, that holds no private key in PEM form",
        (cert, other): "`server.tls_key` names a file, {1}, that is not the key of the certificate",
        (cert, locked): "`server.tls_key` names a file, {1}, that is protected by a passphrase",
    }
    for pair, expected in said.items():
        with pytest.raises(ConfigError) as caught:
            load_tls(*pair)
        assert expected.format(*pair) in caught.value.message


# -- connections


async def test_a_bug_in_one_connection_ends_it_alone(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, its socket is closed, and the next connection is served."""
    failures = [RuntimeError("the answer is 41")]

    async def handle(stream: trio.abc.Stream, let_in: Callable[[], object]) -> None:
        if failures:
            raise failures.pop()
        await echo(stream, let_in)

    async with taking(handle) as (port, intake):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            assert await stream.receive_some(1) == b""
        assert await asked(port) == b"hello"
        await trio.testing.wait_all_tasks_blocked()
        assert intake.open == 0
    assert "the answer is 41" in caplog.text


async def test_a_server_that_runs_out_of_files_goes_on_when_there_are_some(caplog: pytest.LogCaptureFixture) -> None:
    """Its connections wait in the backlog, and it says so once."""
    async with listening("127.0.0.1:0", "server.websocket") as (listener,), trio.open_nursery() as nursery:
        refusals = [OSError(errno.EMFILE, "Too many open files") for _ in range(3)]
        intake = Intake(echo, None, 5, 10)
        nursery.start_soon(intake.accept, Scarce(listener, refusals), nursery)
        assert await asked(port_of(listener)) == b"hello"
        assert not refusals
        nursery.cancel_scope.cancel()
    assert caplog.text.count("no connection can be accepted: Too many open files") == 1
    assert caplog.text.count("connections are accepted again") == 1


class Scarce(trio.abc.Listener[trio.SocketStream]):
    """A listener that fails with `refusals` first."""

    def __init__(self, listener: trio.SocketListener, refusals: list[OSError]) -> None:
        self.listener = listener
        self.refusals = refusals

    async def accept(self) -> trio.SocketStream:
        if self.refusals:
            await trio.lowlevel.checkpoint()
            raise self.refusals.pop()
        return await self.listener.accept()

    async def aclose(self) -> None:
        await self.listener.aclose()


async def test_far_too_many_connections_are_closed_unheard() -> None:
    """What an endpoint would refuse politely is bounded too."""
    async with taking(echo, max_connections=10) as (port, intake):
        intake.open = 10 + SPARE
        assert await asked_or_closed(port) == b""
        intake.open = 0
        assert await asked_or_closed(port) == b"hello"


async def test_sockets_that_say_nothing_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where too many are in their handshake the oldest is closed; whoever has been let in stays, however old."""
    monkeypatch.setattr(server_listening, "HANDSHAKES", 3)
    ended: list[str] = []

    async def handle(stream: trio.abc.Stream, let_in: Callable[[], object]) -> None:
        said = bytes(await stream.receive_some(100))
        let_in()
        ended.append(said.decode())
        await stream.send_all(said)
        await stream.receive_some(1)

    async with taking(handle) as (port, intake):
        async with await trio.open_tcp_stream("127.0.0.1", port) as known:
            await known.send_all(b"hello")
            assert await known.receive_some(100) == b"hello"
            silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(5)]
            with trio.fail_after(5):
                for closed in silent[:2]:
                    assert await closed.receive_some(1) == b""
            assert await asked(port) == b"hello"  # which takes the place of the third
            assert intake.open >= 3
            with trio.fail_after(5):
                assert await silent[2].receive_some(1) == b""
            for stream in silent[3:]:
                await stream.send_all(b"late")
                assert await stream.receive_some(100) == b"late"
            await known.send_all(b".")
            assert await known.receive_some(1) == b""
        for stream in silent:
            await stream.aclose()
    assert ended == ["hello", "hello", "late", "late"]


async def test_handshakes_are_ended_where_the_server_stops(files: tuple[Path, Path]) -> None:
    """Those of TLS, too; whoever has been let in stays, and who comes now is closed unheard."""
    let, heard = trio.Event(), list[bytes]()

    async def handle(stream: trio.abc.Stream, let_in: Callable[[], object]) -> None:
        heard.append(bytes(await stream.receive_some(100)))
        let_in()
        let.set()
        heard.append(bytes(await stream.receive_some(100)))
        await stream.send_all(b"done")

    async with (
        taking(handle, handshake_timeout=60) as (port, intake),
        await trio.open_tcp_stream("127.0.0.1", port) as known,
    ):
        await known.send_all(b"hello")
        await let.wait()
        intake.tls = load_tls(*files)
        async with await trio.open_tcp_stream("127.0.0.1", port) as silent:
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert intake.open == 2
            intake.close_shaking()
            with trio.fail_after(5):
                assert await silent.receive_some(1) == b""
        intake.tls = None
        with trio.fail_after(5):
            assert await asked_or_closed(port) == b""
            await known.send_all(b"and?")
            assert await known.receive_some(100) == b"done"
    assert heard == [b"hello", b"and?"]


async def asked_or_closed(port: int) -> bytes:
    """Return the answer, b"" where the connection is closed."""
    try:
        return await asked(port)
    except trio.BrokenResourceError:
        return b""


ENCRYPTED = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIH0MF8GCSqGSIb3DQEFDTBSMDEGCSqGSIb3DQEFDDAkBBCZ80iegbneOLPPNgNs
M6MaAgIIADAMBggqhkiG9w0CCQUAMB0GCWCGSAFlAwQBKgQQwEyiwfZXw6mYShxM
JKYjlASBkEE54KgG7IPm0p0uiI9VXJ4Z6VpTgNvX2OL+iPiy1V1szb0G6lDwAMyc
lf4pMQ7yDtZCJUnxeew2fT/kOEVZoMemu40X2y9mztGVdyW8y0P6yzEah1BUxyD5
2NpSLVB0l5KLXi6V8ih+ktwAgB5QJ3CYmOQPm2va7VxRqt/7cT8G59K6HS+4nauV
WYGIz51HPw==
-----END ENCRYPTED PRIVATE KEY-----
"""
