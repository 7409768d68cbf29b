"""`HttpProviderContract`: the suite of `ProviderContract` for a protocol over HTTP, with an upstream that is scripted.

class TestAcme(HttpProviderContract):
    key = "acme-secret"

    def provider(self, http):
        return AcmeProvider("acme", self.key, http)

    def reply(self, act, text):
        match act:
            case Act.ANSWERS:
                return Reply([...])
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import httpx
import trio
from attrs import Factory, field, frozen

from wizard_actors.providers.base import Provider
from wizard_actors.testing.provider import ProviderContract
from wizard_actors.testing.provider_run import PACE, WORDS, Act, Bench

__all__ = ["Act", "HttpBench", "HttpProviderContract", "Reply"]

SCRIPTED: Final = frozenset({Act.ANSWERS, Act.GARBAGE, Act.REFUSES_KEY, Act.LIMITED, Act.FAILS})
"""The acts that a protocol has words of its own for."""


MOST_PIECES: Final = 1000


class HttpProviderContract(ProviderContract):
    """The suite over HTTP: fill in `provider` and `reply`; the connections of `http` lead to a scripted upstream."""

    def provider(self, http: httpx.AsyncClient) -> Provider:
        """Return the provider to try out, over `http`, made with the key `self.key`."""
        raise NotImplementedError("provider() makes the provider to try out")

    def reply(self, act: Act, text: str) -> Reply | None:
        """Return upstream's response for ANSWERS (its answer says `text`), GARBAGE, REFUSES_KEY, LIMITED or FAILS.

        None where the protocol has no such thing; ANSWERS it has. The other acts are made of the answer.
        """
        raise NotImplementedError("reply() says what upstream sends")

    @asynccontextmanager
    async def bench(self, *acts: Act) -> AsyncIterator[Bench]:
        """Yield the provider over a transport without sockets."""
        bench = HttpBench(acts, self.reply, self.provider)
        try:
            yield bench
        finally:
            with trio.CancelScope(shield=True):
                await bench.http.aclose()

    def has(self, act: Act) -> bool:
        """Say whether `reply` knows the act."""
        return act not in SCRIPTED or self.reply(act, "Some words.") is not None


# -- the upstream --------------------------------------------------------------------------------------


def _headers(headers: Mapping[str, str]) -> dict[str, str]:
    return dict(headers)


@frozen
class Reply:
    """One HTTP response of a scripted upstream: its body in `pieces`, as they go over the wire.

    An answer has at least two pieces; the sign that it is complete stands in the last one. What an upstream sends as
    UTF-8 is sent as such here, too (`json.dumps(..., ensure_ascii=False)`), or nobody sees what becomes of a character
    that is torn apart.
    """

    pieces: Sequence[bytes]
    status: int = 200
    headers: Mapping[str, str] = field(default=Factory(dict), converter=_headers)


Step: TypeAlias = bytes | float | Exception
"""Bytes to send, seconds to wait, or what breaks."""

Script: TypeAlias = Callable[[Act, str], Reply | None]


class HttpBench:
    """An upstream for `httpx.MockTransport`: no sockets, so that all its time may be virtual.

    `script(act, text)` gives the reply to ANSWERS, whose answer is `text`, and to GARBAGE, REFUSES_KEY, LIMITED and
    FAILS; the other acts are made of the first. Calls meet `acts` in order, those after the last one ANSWERS.
    """

    def __init__(self, acts: Sequence[Act], script: Script, make: Callable[[httpx.AsyncClient], Provider]) -> None:
        self._acts = list(acts)
        self._script = script
        self._calls = 0
        self._asked: list[str] = []
        self.sent = 0
        self.held = 0
        self.http = httpx.AsyncClient(transport=httpx.MockTransport(self._handle), trust_env=False, timeout=None)  # noqa: S113 - as a client's own: attempts have deadlines
        self.provider = make(self.http)

    def asked(self, number: int) -> str:
        """Return the address and the body of request `number`."""
        return self._asked[number]

    def text(self, number: int) -> str:
        """Return what the whole answer to call `number` says."""
        return f"Answer {number} of several words: why, {WORDS}"

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        number, self._calls = self._calls, self._calls + 1
        act = self._acts[number] if number < len(self._acts) else Act.ANSWERS
        if act is Act.UNREACHABLE:
            raise httpx.ConnectError("nobody listens", request=request)
        self.sent += 1
        self._asked.append(f"{request.url} {request.content.decode(errors='replace')}")
        if act is Act.SILENT:
            self.held += 1
            try:
                await trio.sleep_forever()
            finally:
                self.held -= 1
        reply = self._script(act if act in SCRIPTED else Act.ANSWERS, self.text(number))
        if reply is None:
            raise NotImplementedError(f"reply() gives no {act}")
        body = _Body(self, _steps(act, list(reply.pieces)))
        return httpx.Response(reply.status, headers=reply.headers, stream=body)


def _steps(act: Act, pieces: list[bytes]) -> Iterator[Step]:
    begun = pieces[: len(pieces) // 2] if len(pieces) > 1 else [pieces[0][: len(pieces[0]) // 2]]
    match act:
        case Act.SLOW:
            for piece in pieces:
                half = _middle(piece)
                yield from (PACE, piece[:half], PACE, piece[half:])
        case Act.JOINED:
            yield b"".join(pieces)
        case Act.TORN:
            yield from _torn(b"".join(pieces))
        case Act.CUT:
            yield from begun
            yield httpx.RemoteProtocolError("peer closed connection without sending complete message body")
        case Act.ENDS_EARLY:
            yield from begun
        case Act.STALLS:
            yield from begun
            yield math.inf
        case _:
            yield from pieces


def _middle(piece: bytes) -> int:
    """Return where to cut a piece in two: inside a character, where one has an inside."""
    return next((at for at, byte in enumerate(piece) if byte & 0xC0 == 0x80), len(piece) // 2)


def _torn(body: bytes) -> Iterator[bytes]:
    """Yield the body byte by byte; what is plain ASCII of a very long one in somewhat larger pieces."""
    size = max(1, len(body) // MOST_PIECES)
    for start in range(0, len(body), size):
        piece = body[start : start + size]
        yield from [piece] if piece.isascii() else (bytes([byte]) for byte in piece)


class _Body(httpx.AsyncByteStream):
    """A response's body, held until it is closed. No generator: what nobody reads leaves nothing to finish."""

    def __init__(self, bench: HttpBench, steps: Iterator[Step]) -> None:
        self._bench = bench
        self._steps = steps
        self._open = True
        bench.held += 1

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        for step in self._steps:
            if not self._open:
                raise httpx.ReadError("the connection is closed")
            if isinstance(step, Exception):
                raise step
            if isinstance(step, bytes):
                return step
            await trio.sleep(step)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close the connection."""
        if self._open:
            self._open = False
            self._bench.held -= 1
        await trio.lowlevel.checkpoint()
