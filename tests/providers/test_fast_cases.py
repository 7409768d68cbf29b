"""One table of what servers send, and both transports beside each other: ours does as httpx's, or says why not."""

import ssl

import httpx
import pytest
import trustme

from tests.providers.fast_wire import Case, Outcome, fast, outcome, own

H = b"HTTP/1.1 200 OK\r\n"
SIZED = H + b"Content-Type: a/b\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = H + b"Transfer-Encoding: chunked\r\n\r\n"
HELLO = b"5\r\nhello\r\n"
END = b"0\r\n\r\n"


def each(data: bytes, size: int = 1) -> list[bytes]:
    """Cut `data` into pieces of so many bytes."""
    return [data[start : start + size] for start in range(0, len(data), size)]


SAME = [
    Case("a body of a told length", [SIZED]),
    Case("byte by byte", each(SIZED)),
    Case("no body", [H + b"Content-Length: 0\r\n\r\n"]),
    Case("no reason", [b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx"]),
    Case("an error status", [b"HTTP/1.1 429 Slow Down\r\nRetry-After: 3\r\nContent-Length: 2\r\n\r\n{}"]),
    Case("an odd status", [b"HTTP/1.1 599 Odd\r\nContent-Length: 0\r\n\r\n"]),
    Case("spaces round a value", [H + b"A: \t b  c \t\r\nContent-Length: 0\r\n\r\n"]),
    Case("bytes beyond ASCII in a value", [H + b"A: \xe4\xff\r\nContent-Length: 0\r\n\r\n"]),
    Case("an empty value", [H + b"A:\r\nContent-Length: 0\r\n\r\n"]),
    Case("a header twice", [H + b"A: 1\r\nA: 2\r\nContent-Length: 0\r\n\r\n"]),
    Case("chunks", [CHUNKED + HELLO + b"1\r\n!\r\n" + END]),
    Case("chunks byte by byte", each(CHUNKED + HELLO + END)),
    Case("chunks in capitals", [H + b"TRANSFER-ENCODING: chunked\r\n\r\nA\r\n0123456789\r\n" + END]),
    Case("chunks with extensions", [CHUNKED + b"5;a=b;c\r\nhello\r\n" + END]),
    Case("trailers", [CHUNKED + HELLO + b"0\r\nX-Trailer: 1\r\n\r\n"]),
    Case("a trailer that tells a length", [CHUNKED + HELLO + b"0\r\nX-Content-Length: 1\r\n\r\n"]),
    Case("a large body", [H + b"Content-Length: 300000\r\n\r\n", *each(b"x" * 300_000, 100_000)]),
    Case("until the end", [H + b"\r\n", b"hel", b"lo"], ends="close"),
    Case("until the end, and nothing", [H + b"\r\n"], ends="close"),
    Case("100 before", [b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED]),
    Case("103 with headers before", [b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", SIZED]),
    Case("101", [b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nzz"], ends="close"),
    Case("204", [b"HTTP/1.1 204 No Content\r\n\r\n"]),
    Case("304 that tells a length", [b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"]),
    Case("the answer to HEAD", [H + b"Content-Length: 5\r\n\r\n"], method="HEAD", body=b""),
    Case("a chunked answer to HEAD", [CHUNKED], method="HEAD", body=b""),
    Case("connection: close", [H + b"Connection: close\r\nContent-Length: 1\r\n\r\nx"], ends="close"),
    Case("connection: close, and the server waits", [H + b"Connection: x, Close\r\nContent-Length: 1\r\n\r\nx"]),
    Case("we say close", [SIZED], headers=[("Connection", "close")]),
    Case("HTTP/1.0", [b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx"], ends="close"),
    Case("HTTP/1.0 that keeps", [b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx"]),
    Case("HTTP/1.0 until the end", [b"HTTP/1.0 200 OK\r\n\r\n", b"hello"], ends="close"),
    Case("an upgrade that is only offered", [H + b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 1\r\n\r\nx"]),
    Case("closed after an answer", [SIZED], ends="close"),
    Case("nothing, and closed", [], ends="close"),
    Case("nothing, and reset", [], ends="reset"),
    Case("half a head, and closed", [H + b"A: b"], ends="close"),
    Case("half a body, and closed", [H + b"Content-Length: 9\r\n\r\nhello"], ends="close"),
    Case("half a chunk, and closed", [CHUNKED + b"9\r\nhello"], ends="close"),
    Case("no last chunk, and closed", [CHUNKED + HELLO], ends="close"),
    Case("garbage", [b"hello, who is there?\r\n\r\n"], ends="close"),
    Case("garbage without end", [b"\x00\xff" * 10_000], ends="close"),
    Case("another protocol", [b"SSH-2.0-OpenSSH_9\r\n"], ends="close"),
    Case("a request", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"], ends="close"),
    Case("a garbled chunk", [CHUNKED + HELLO, b"zz\r\nhello\r\n"], ends="close"),
    Case("a chunk with a sign", [CHUNKED + b"+5\r\nhello\r\n" + END], ends="close"),
    Case("a chunk longer than told", [CHUNKED + b"3\r\nhello\r\n" + END], ends="close"),
    Case("a chunk of more than there is", [CHUNKED + b"f" * 21 + b"\r\nx"], ends="close"),
    Case("two lengths", [H + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"], ends="close"),
    Case("two lengths in one", [H + b"Content-Length: 5, 6\r\n\r\nhello!"], ends="close"),
    Case("a length with a sign", [H + b"Content-Length: +5\r\n\r\nhello"], ends="close"),
    Case("a length below nothing", [H + b"Content-Length: -5\r\n\r\nhello"], ends="close"),
    Case("an empty length", [H + b"Content-Length:\r\n\r\nhello"], ends="close"),
    Case("a length beyond all", [H + b"Content-Length: " + b"9" * 30 + b"\r\n\r\nhello"], ends="close"),
    Case("another coding", [H + b"Transfer-Encoding: gzip\r\n\r\nhello"], ends="close"),
    Case("two codings", [H + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + HELLO + END], ends="close"),
    Case("chunked twice", [H + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n" + HELLO + END], ends="close"),
    Case("a name with a space", [H + b"A : b\r\nContent-Length: 0\r\n\r\n"], ends="close"),
    Case("no name", [H + b": b\r\nContent-Length: 0\r\n\r\n"], ends="close"),
    Case("a NUL in a value", [H + b"A: b\x00c\r\nContent-Length: 0\r\n\r\n"], ends="close"),
    Case("a status of two digits", [b"HTTP/1.1 99 x\r\n\r\n"], ends="close"),
    Case("a status of zero", [b"HTTP/1.1 000 x\r\n\r\n"], ends="close"),
    Case("headers without end", [H, *(b"A%d: %b\r\n" % (n, b"x" * 1000) for n in range(200))], ends="close"),
    Case("one header without end", [H + b"A: ", *[b"x" * 20_000] * 10], ends="close"),
]
OTHERWISE = [
    (
        Case("a length and chunks", [H + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + HELLO + END]),
        "who reads the one and who reads the other see two different answers",
        httpx.RemoteProtocolError,
    ),
    (
        Case("the same length twice", [H + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"]),
        "a length is told once",
        httpx.RemoteProtocolError,
    ),
    (
        Case("lines that end in LF alone", [b"HTTP/1.1 200 OK\nContent-Length: 1\n\nx"]),
        "who takes a bare LF for a line's end and who does not see two different heads",
        httpx.RemoteProtocolError,
    ),
    (
        Case("a folded header", [H + b"A: b\r\n c\r\nContent-Length: 1\r\n\r\nx"]),
        "RFC 9112 has taken them out",
        httpx.RemoteProtocolError,
    ),
    (
        Case("HTTP/2.0 in the status line", [b"HTTP/2.0 200 OK\r\nContent-Length: 1\r\n\r\nx"], ends="close"),
        "that protocol has no such line",
        httpx.RemoteProtocolError,
    ),
    (
        Case("spaces after a chunk's length", [CHUNKED + b"5 \r\nhello\r\n" + END], ends="close"),
        "the grammar has none",
        httpx.RemoteProtocolError,
    ),
    (
        Case("70 KiB of headers", [H + (b"A: " + b"x" * 995 + b"\r\n") * 70 + b"Content-Length: 0\r\n\r\n"]),
        "64 KiB is enough for any head",
        httpx.RemoteProtocolError,
    ),
    (
        Case("bytes after an answer", [SIZED + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"]),
        "they would be the answer to the next call: such a connection is closed",
        None,
    ),
]


@pytest.mark.parametrize("case", SAME, ids=lambda case: case.name)
async def test_both_transports_do_the_same(case: Case) -> None:
    """Status, headers, body, the class of the error, and whether the connection serves once more."""
    theirs, ours = await outcome(case, own), await outcome(case, fast)

    assert ours == theirs


@pytest.mark.parametrize(("case", "why", "error"), OTHERWISE, ids=lambda value: getattr(value, "name", None))
async def test_ours_is_stricter_where_there_is_a_reason(
    case: Case, why: str, error: type[httpx.HTTPError] | None
) -> None:
    """And nowhere does a connection serve again on which something was wrong."""
    theirs, ours = await outcome(case, own), await outcome(case, fast)

    assert why
    assert ours.error is error
    assert ours.connections == 2
    assert ours != theirs


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server's context, and that of a client that trusts it."""
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("localhost").configure_cert(server)
    server.set_alpn_protocols(["h2", "http/1.1"])
    authority.configure_trust(client)
    return server, client


OVER_TLS = [
    case
    for case in SAME
    if case.name
    in {
        "a body of a told length",
        "byte by byte",
        "chunks",
        "a large body",
        "until the end",
        "nothing, and closed",
        "nothing, and reset",
        "half a body, and closed",
        "connection: close",
        "garbage",
    }
]


@pytest.mark.parametrize("case", OVER_TLS, ids=lambda case: case.name)
async def test_both_transports_do_the_same_over_tls(
    case: Case, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    """An end of the connection that TLS does not announce counts as one, for servers often do so."""
    theirs, ours = await outcome(case, own, contexts), await outcome(case, fast, contexts)

    assert ours == theirs


async def test_an_authority_that_is_not_trusted_is_a_connect_error(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    """With the verdict as its cause, for the message that people read."""
    stranger = (contexts[0], ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))  # trusts nobody

    assert await outcome(SAME[0], own, stranger) == await outcome(SAME[0], fast, stranger)
    assert (await outcome(SAME[0], fast, stranger)).error is httpx.ConnectError


BAD_REQUESTS = [
    Case("a line break in a value", [SIZED], headers=[("A", "b\r\nC: d")]),
    Case("a line feed in a value", [SIZED], headers=[("A", "b\nC: d")]),
    Case("a line break in a name", [SIZED], headers=[("A\r\nC", "d")]),
    Case("an empty name", [SIZED], headers=[("", "d")]),
    Case("a NUL", [SIZED], headers=[("A", "b\x00")]),
    Case("spaces round a value", [SIZED], headers=[("A", " b")]),
    Case("two hosts", [SIZED], headers=[("Host", "a"), ("Host", "b")]),
    Case("a length that is none", [SIZED], headers=[("Content-Length", "many")]),
    Case("another coding", [SIZED], headers=[("Transfer-Encoding", "gzip")]),
    Case("an odd method", [SIZED], method="GET / HTTP/1.1\r\nA: b"),
]


@pytest.mark.parametrize("case", BAD_REQUESTS, ids=lambda case: case.name)
async def test_what_http_does_not_allow_is_not_sent(case: Case) -> None:
    """Above all nothing that a header's value could add to the request."""
    theirs, ours = await outcome(case, own), await outcome(case, fast)

    assert ours.error is theirs.error is httpx.LocalProtocolError
    assert ours == Outcome(error=httpx.LocalProtocolError, connections=ours.connections)


@pytest.mark.parametrize("told", ["1", "9"])
async def test_a_body_of_another_length_than_told_is_not_sent(told: str) -> None:
    """Httpx's own transport lets an error of h11's out here."""
    ours = await outcome(Case("another length", [SIZED], headers=[("Content-Length", told)]), fast)

    assert ours.error is httpx.LocalProtocolError
