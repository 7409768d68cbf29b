"""Other people's errors as ours: real ones from real sockets where only they are true to life."""

import errno
import json
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import msgspec
import pytest
import trio

from tests.loopback import Wire, response, serving
from wizard_actors.conversion import from_httpx, from_json, from_os
from wizard_actors.errors import (
    NetworkError,
    ParseError,
    ProviderError,
    ProviderTimeoutError,
    RequestError,
    StorageError,
    StreamInterruptedError,
)

CANARY = "sk-canary-0123456789"


async def failing_call(url: str, *, connect: float | None = None) -> httpx.HTTPError:
    """Return httpx's own error for a call of `url`, a key in its headers, its query and its user."""
    url = url.replace("://", f"://user:{CANARY}@") + f"/chat?key={CANARY}"
    async with httpx.AsyncClient(trust_env=False, timeout=httpx.Timeout(None, connect=connect)) as http:
        with pytest.raises(httpx.HTTPError) as caught:
            await http.post(url, headers={"authorization": f"Bearer {CANARY}"}, content=b"{}")
    return caught.value


async def converted(url: str, *, connect: float | None = None, status: int | None = None) -> ProviderError:
    """Return our error for a call of `url`."""
    error = from_httpx(await failing_call(url, connect=connect), model="primary", status=status)
    assert error.model == "primary"
    assert str(error).startswith("primary: ")
    assert CANARY not in f"{error} {error!r} {error.to_dict()}"
    return error


async def test_a_refused_connection_is_a_network_error() -> None:
    """It names host and port, and what to check."""
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        error = await converted(f"http://127.0.0.1:{port}")
    assert type(error) is NetworkError
    assert f"127.0.0.1:{port}" in str(error)
    assert "refused" in str(error)


async def test_an_unknown_host_is_a_network_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the host, and says that the name is the trouble."""

    async def no_such_name(*_args: object, **_options: object) -> object:
        await trio.lowlevel.checkpoint()
        raise trio.socket.gaierror(trio.socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(trio, "open_tcp_stream", no_such_name)
    error = await converted("http://nowhere.invalid")
    assert type(error) is NetworkError
    assert "nowhere.invalid" in str(error)
    assert "resolved" in str(error)


async def hang_up(wire: Wire) -> None:
    """Take a request, say nothing."""
    await wire.request()


async def speak_oddly(wire: Wire) -> None:
    """Take a request, answer in no protocol."""
    await wire.stream.receive_some()
    await wire.send(b"220 mail.example ESMTP " + CANARY.encode() + b"\r\n\r\n")
    await wire.gone()


async def break_off(wire: Wire) -> None:
    """Take a request, send half a body."""
    await wire.request()
    await wire.send(response(200, {}, [b"half"], cut=True))


@pytest.mark.parametrize(
    ("upstream", "scheme", "said"),
    [
        (hang_up, "http", "closed too early"),
        (speak_oddly, "http", "not HTTP"),
        (speak_oddly, "https", "TLS failed"),
        (break_off, "http", "closed too early"),
    ],
)
async def test_a_broken_conversation_is_a_network_error(
    upstream: Callable[[Wire], Awaitable[None]], scheme: str, said: str
) -> None:
    """Before the head arrived nothing was answered; what was received is not repeated."""
    async with serving(upstream) as url:
        error = await converted(url.replace("http", scheme))
    assert type(error) is NetworkError
    assert said in str(error)


async def test_after_the_head_an_answer_was_interrupted() -> None:
    """The status and the provider's id are kept; the text so far is for the caller to add."""
    async with serving(break_off) as url:
        raw = await failing_call(url)
    error = from_httpx(raw, model="primary", status=200, request_id="req_1")
    assert type(error) is StreamInterruptedError
    assert (error.status, error.request_id, error.partial) == (200, "req_1", "")


async def test_a_late_connection_is_a_timeout_of_that_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    """And of that phase only: the model may be tried again."""

    async def never(*_args: object, **_options: object) -> object:
        await trio.sleep_forever()

    monkeypatch.setattr(trio, "open_tcp_stream", never)
    error = await converted("http://far.invalid", connect=0.01)
    assert isinstance(error, ProviderTimeoutError)
    assert error.phase == "connect"
    assert "far.invalid" in str(error)


@pytest.mark.parametrize(
    ("raw", "phase"),
    [
        (httpx.ReadTimeout(""), "stall"),
        (httpx.WriteTimeout(""), "total"),
        (httpx.PoolTimeout(""), "connect"),
        (httpx.ConnectTimeout(""), "connect"),
    ],
)
def test_each_timeout_has_its_phase(raw: httpx.TimeoutException, phase: str) -> None:
    """Also where httpx does not know which request it was."""
    error = from_httpx(raw, model="primary")
    assert isinstance(error, ProviderTimeoutError)
    assert error.phase == phase
    assert "the provider" in str(error)


def test_an_untrusted_certificate_names_the_setting() -> None:
    """A company's own authority is the usual reason."""
    raw = httpx.ConnectError("")
    cause = ssl.SSLCertVerificationError(1, "certificate verify failed")
    cause.verify_message = "self-signed certificate"
    raw.__cause__ = trio.BrokenResourceError()
    raw.__cause__.__cause__ = cause
    error = from_httpx(raw, model="primary")
    assert type(error) is NetworkError
    assert "self-signed certificate" in str(error)
    assert "ca_file" in str(error)


def test_an_earlier_error_is_no_cause() -> None:
    """What was being handled when this error came is another call's story."""
    raw = httpx.ReadError("")
    raw.__context__ = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    assert "refused" not in str(from_httpx(raw, model="primary"))


def test_a_reset_says_so() -> None:
    """In the system's words."""
    raw = httpx.ReadError("")
    raw.__cause__ = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    assert "Connection reset by peer" in str(from_httpx(raw, model="primary", status=200))


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (httpx.UnsupportedProtocol("x"), "base_url"),
        (httpx.InvalidURL("x"), "base_url"),
        (httpx.LocalProtocolError(f"Illegal header value b'Bearer {CANARY}'"), "headers"),
    ],
)
def test_what_cannot_be_sent_is_a_request_error(raw: httpx.HTTPError | httpx.InvalidURL, said: str) -> None:
    """Another try would not help; a setting has to change. httpx's text may hold the key, ours does not."""
    error = from_httpx(raw, model="primary")
    assert type(error) is RequestError
    assert said in str(error)
    assert CANARY not in str(error)


def test_a_proxy_is_named_as_the_one_to_check() -> None:
    """Its refusal is not the provider's."""
    assert "proxy" in str(from_httpx(httpx.ProxyError("407 Proxy Authentication Required"), model="primary"))


TLS_FAILED = ssl.SSLError(1, "x")
TLS_FAILED.reason = "WRONG_VERSION_NUMBER"


async def through(proxy: str) -> httpx.HTTPError:
    """Return httpx's own error for a call that goes by way of `proxy`."""
    async with httpx.AsyncClient(trust_env=False, proxy=proxy) as http:
        with pytest.raises(httpx.HTTPError) as caught:
            await http.post(f"https://api.example.com/v1?key={CANARY}", content=b"{}")
    return caught.value


async def test_a_dead_proxy_is_named_in_the_place_of_the_provider() -> None:
    """It is what has to be looked at; the provider was never reached."""
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        proxy = f"127.0.0.1:{unused.getsockname()[1]}"
        raw = await through(f"http://user:{CANARY}@{proxy}")
        error = from_httpx(raw, model="primary", proxy=proxy)
    assert type(error) is NetworkError
    assert "the connection to the proxy was refused" in str(error)
    assert f"api.example.com, by way of the proxy {proxy}" in str(error)
    assert "base_url" not in str(error)
    assert CANARY not in str(error)


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (socket.gaierror(socket.EAI_NONAME, "x"), "the proxy's host name cannot be resolved"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "the connection to the proxy failed: No route to host"),
        (TLS_FAILED, "TLS failed"),
    ],
)
def test_what_keeps_a_proxy_from_being_reached_is_told_of_it(cause: OSError, said: str) -> None:
    """But TLS is spoken with the provider, through it."""
    raw = httpx.ConnectError("x")
    raw.__cause__ = cause
    assert f"primary: {said}" in str(from_httpx(raw, model="primary", proxy="proxy.example.com:3128"))
    assert "proxy" not in str(from_httpx(raw, model="primary"))


def test_a_slow_connection_names_its_proxy() -> None:
    """Which of the two was late, nobody knows."""
    error = from_httpx(httpx.ConnectTimeout("x"), model="primary", proxy="proxy.example.com:3128")
    assert "by way of the proxy proxy.example.com:3128" in str(error)


@pytest.mark.parametrize("upstream", [hang_up, speak_oddly])
async def test_plain_http_to_a_tls_port_is_guessed(upstream: Callable[[Wire], Awaitable[None]]) -> None:
    """Such a server closes the connection, or answers in TLS."""
    async with serving(upstream) as url:
        error = await converted(url)
    assert "if TLS is spoken there, base_url begins with https://" in str(error)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (FileNotFoundError(errno.ENOENT, "x"), "does not exist"),
        (PermissionError(errno.EACCES, "x"), "permission denied"),
        (IsADirectoryError(errno.EISDIR, "x"), "is a directory"),
        (FileExistsError(errno.EEXIST, "x"), "exists already"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError("odd"), "OSError"),
    ],
)
def test_a_file_error_names_the_file(raw: OSError, said: str) -> None:
    """And what is the matter with it."""
    error = from_os(raw, "/data/wizard.db")
    assert type(error) is StorageError
    assert error.path == "/data/wizard.db"
    assert "/data/wizard.db" in str(error)
    assert said in str(error)


def test_a_real_file_error_converts(tmp_path: Path) -> None:
    """As the system raises it."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the system's own, whatever it is
        (tmp_path / "missing").read_text()
    assert "does not exist" in str(from_os(caught.value, "missing"))


def test_bad_json_is_a_parse_error() -> None:
    """Of either decoder, with where it broke and the beginning of what came."""
    with pytest.raises(msgspec.DecodeError) as fast:
        msgspec.json.decode(b"{oops")
    with pytest.raises(json.JSONDecodeError) as slow:
        json.loads("{oops")
    for raw in (fast.value, slow.value, RecursionError()):
        error = from_json(raw, model="primary", status=200, request_id="req_1", excerpt="{oops")
        assert type(error) is ParseError
        assert "{oops" in str(error)
        assert (error.model, error.status, error.request_id) == ("primary", 200, "req_1")
    assert "nested too deeply" in str(from_json(RecursionError(), model="primary"))
