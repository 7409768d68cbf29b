"""The lean transport before servers that send anything at all: answers, httpx's errors, nothing else, and no end of
patience. How an answer is cut on its way changes nothing.
"""

import ssl
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, TypeAlias

import httpx
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wizard_actors.providers.fast.reader import HEAD_LIMIT, ResponseReader, load_engine
from wizard_actors.providers.fast.transport import FastTransport

ENGINE: Final = load_engine("transport")
PATIENCE: Final = 10.0

Read: TypeAlias = tuple[int, Sequence[tuple[bytes, bytes]], bytes, bool, bool, bool]

NAMES = st.sampled_from([b"A", b"Content-Type", b"Set-Cookie", b"X-Rate", b"Connection"])
VALUES = st.sampled_from([b"", b"b", b"close", b"keep-alive", b"a, b", b"\xe4"])
FRAMINGS = st.sampled_from([b"", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 0\r\n"])
BODIES = st.sampled_from(
    [b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"1;x\r\na\r\n2\r\nbc\r\n0\r\nT: 1\r\n\r\n", b"0\r\n\r\n"]
)
STATUSES = st.sampled_from([100, 103, 200, 200, 200, 204, 304, 404, 500])


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Draw one response or several, most of them as they should be."""
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        headers = b"".join(b"%b: %b\r\n" % pair for pair in draw(st.lists(st.tuples(NAMES, VALUES), max_size=3)))
        version = draw(st.sampled_from([b"1.1", b"1.1", b"1.0"]))
        head = b"HTTP/%b %d Reason\r\n%b%b\r\n" % (version, draw(STATUSES), headers, draw(FRAMINGS))
        parts.append(head + draw(BODIES))
    return b"".join(parts)


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """Draw responses of which some bytes were replaced, added or left out; or no response at all."""
    data = bytearray(draw(st.one_of(answers(), st.binary(max_size=200))))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(
            st.one_of(st.binary(max_size=3), st.sampled_from([b"\r\n", b"0"]))
        )
    return bytes(data)


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """Cut `data` at these places, as far as it reaches."""
    marks = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(marks)]


def read(pieces: Sequence[bytes], *, bodiless: bool = False) -> Read:
    """Read these pieces, and the connection's end after them. Nobody gets the headers of a head that never ended."""
    reader = ResponseReader(ENGINE, bodiless=bodiless)
    body = b""
    for piece in pieces:
        reader.feed(piece)
        body += reader.take()
    kept = reader.keeps
    reader.feed(b"")
    return reader.status, reader.headers if reader.status else [], body, reader.complete, kept, reader.fault != ""


CUTS = st.lists(st.integers(0, 10_000), max_size=12)


@given(mutations(), CUTS, st.booleans())
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", list(range(60)), False)
@example(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nA: b\r\n\r\n", list(range(80)), False)
@example(b"HTTP/1.1 100 eason\r\nA: \r\nA: b\r\nC\0\0ontent-Type: b\r\n\r\nhello", [3164], False)
def test_a_cut_changes_nothing(data: bytes, places: Sequence[int], bodiless: bool) -> None:
    """Whatever arrives, and however: the same status, headers, body, end, verdict, and use of the connection."""
    assert read(cut(data, places), bodiless=bodiless) == read([data] if data else [], bodiless=bodiless)


@given(mutations(), CUTS)
def test_an_answer_is_whole_or_wrong(data: bytes, places: Sequence[int]) -> None:
    """Once the connection has ended it is one of the two, and never both."""
    status, _, body, complete, kept, wrong = read(cut(data, places))

    assert complete != wrong
    assert status or not body
    assert complete or not kept


ENDLESS = st.sampled_from(
    [
        (b"HTTP/1.1 200 ", b"x"),
        (b"HTTP/1.1 200 OK\r\nA: ", b"x"),
        (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: ", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n"),
    ]
)


@given(ENDLESS, st.integers(100, 65_536))
def test_what_has_no_end_is_given_up(endless: tuple[bytes, bytes], size: int) -> None:
    """A head, a chunk's line or trailers: before more than some hundred kilobytes of them are here."""
    begin, more = endless
    reader = ResponseReader(ENGINE, bodiless=False)
    reader.feed(begin or more)
    piece = more * (size // len(more))
    fed = 0
    while not reader.fault:
        reader.feed(piece)
        fed += len(piece)
        assert fed <= 3 * HEAD_LIMIT + 65_536


@settings(max_examples=25)
@given(st.lists(st.tuples(mutations(), CUTS), min_size=1, max_size=3))
def test_only_httpxs_errors_come_out(replies: Sequence[tuple[bytes, Sequence[int]]]) -> None:
    """Over sockets, call after call: an answer or such an error, in time, and nothing that is left open."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                for data, places in replies:
                    if not await stream.receive_some(65536):
                        return
                    for piece in cut(data, places):
                        await stream.send_all(piece)
            except trio.BrokenResourceError:
                return

    async def call(transport: FastTransport, url: str) -> None:
        # The server may wait for the next request while its answer is not whole.
        timeout = httpx.Timeout(PATIENCE, read=0.01).as_dict()
        request = httpx.Request("POST", url, content=b"{}", extensions={"timeout": timeout})
        try:
            response = await transport.handle_async_request(request)
            try:
                await response.aread()
            finally:
                await response.aclose()
        except httpx.TransportError:
            return

    async def main() -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        async with trio.open_nursery() as nursery, FastTransport(tls, idle_time=60.0, engine=ENGINE) as transport:
            listeners = await nursery.start(trio.serve_tcp, serve, 0)
            url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/"
            with trio.fail_after(PATIENCE):
                for _ in replies:
                    await call(transport, url)
            assert transport.size <= 1
            nursery.cancel_scope.cancel()

    trio.run(main)
