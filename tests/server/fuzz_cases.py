"""The bad clients: what each does on its connection, and what it is owed for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Final

import msgspec
import trio
from attrs import define

from tests.server.fuzz_messages import CANCELLED, FAILED, INVALID, MESSAGES, PARAMS, PARSE, WRONG, Owed, request
from tests.server.peer import CLOSE, CONTINUATION, HEADERS, PING, PONG, TEXT, Gone, Peer, frame, handshake

__all__ = ["KINDS", "MAX_HEADER", "MAX_MESSAGE", "MAY_END", "NARROW", "Case", "Unfair"]

MAX_MESSAGE: Final = 32 * 1024
MAX_HEADER: Final = 4 * 1024


class Unfair(Exception):  # noqa: N818 - what a case complains of
    """The server did not do what it owes."""


@define
class Case:
    """One bad client: its number, its dice, its end of the connection."""

    number: int
    random: Random
    peer: Peer

    async def expect(self, owed: Sequence[Owed]) -> None:
        """Wait for just these responses, in any order; notifications between them are no matter."""
        left = Counter(owed)
        while left.total():
            message = await self.peer.hear()
            if "method" in message:
                continue
            error = message.get("error")
            code = error.get("code") if isinstance(error, dict) else None
            answer = (message.get("id"), code)
            if not left[answer]:
                raise Unfair(f"owed {dict(left)}, and got {str(message)[:300]}")
            left[answer] -= 1

    async def works(self) -> None:
        """The connection is as good as new."""
        await self.peer.say({"jsonrpc": "2.0", "id": "check", "method": "models"})
        await self.expect([("check", None)])

    async def over(self, *codes: int) -> None:
        """The server closes the connection, with one of these codes if it can say so."""
        while True:  # noqa: ASYNC913 - it waits for each frame
            try:
                found = await self.peer.frame()
            except Gone:
                return
            if found.opcode == CLOSE and codes and found.code not in codes:
                raise Unfair(f"closed with {found.code}, not {codes}")


# -- handshakes --------------------------------------------------------------------------------------


async def garbage_first(case: Case) -> None:
    """Bytes that are no HTTP, and then nothing, or an end."""
    await case.peer.send(case.random.randbytes(case.random.randrange(1, 3000)))
    await ends(case)
    await case.peer.rest()


async def ends(case: Case) -> None:
    """Close this side, or just say no more."""
    if case.random.random() < 0.5:
        await case.peer.stream.send_eof()


BAD_HEADERS: Final[Sequence[Callable[[list[tuple[str, str]], Random], object]]] = (
    lambda headers, random: headers.pop(random.randrange(1, len(headers))),
    lambda headers, random: headers.append(("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")),
    lambda headers, random: headers.append(("Sec-WebSocket-Version", "13")),
    lambda headers, random: headers.append(("Host", "elsewhere")),
    lambda headers, random: headers.append(("Origin", "https://evil.example")),
    lambda headers, random: headers.append(("Origin", "null")),
    lambda headers, random: headers.extend([("Authorization", "Bearer a"), ("Authorization", "Bearer b")]),
    lambda headers, random: headers.append(("X-Large", "x" * random.randrange(MAX_HEADER, 3 * MAX_HEADER))),
    lambda headers, random: headers.extend((f"X-{n}", "x" * 20) for n in range(400)),
    lambda headers, random: headers.append(("X-Odd", "a\0b")),
    lambda headers, random: headers.append(("Bad Name", "x")),
    lambda headers, random: set_header(headers, "Sec-WebSocket-Version", random.choice(["8", "0", "x", "", "14"])),
    lambda headers, random: set_header(
        headers, "Sec-WebSocket-Protocol", random.choice(["wizard.v2", "", "chat", ","])
    ),
    lambda headers, random: set_header(headers, "Upgrade", random.choice(["h2c", ""])),
    lambda headers, random: set_header(headers, "Connection", random.choice(["close", "keep-alive", ""])),
)


def set_header(headers: list[tuple[str, str]], name: str, value: str) -> None:
    """Give a header another value."""
    headers[:] = [(each, value if each == name else old) for each, old in headers]


async def bad_handshake(case: Case) -> None:
    """An HTTP request that is none for this WebSocket is refused, with a body that says why."""
    headers, request = list(HEADERS), "GET / HTTP/1.1"
    if case.random.random() < 0.2:
        request = case.random.choice(
            ["POST / HTTP/1.1", "GET / HTTP/1.0", "GET / HTTP/x.y", "BREW / HTTP/1.1", "GET /"]
        )
    else:
        case.random.choice(BAD_HEADERS)(headers, case.random)
    await case.peer.send(handshake(headers, request=request))
    head = await case.peer.head()
    status = int(head.split(b" ")[1])
    body = await case.peer.rest()
    if not 400 <= status <= 503:
        raise Unfair(f"{request}, {headers[-1]} was answered with {status}")
    error = msgspec.json.decode(body, type=dict[str, dict[str, str]])["error"]
    if not error["code"] or not error["message"]:
        raise Unfair(f"the refusal says nothing: {body!r}")


async def slow_handshake(case: Case) -> None:
    """One byte now and then is no handshake."""
    began = trio.current_time()
    try:
        for byte in handshake():
            await case.peer.send(bytes([byte]))
            await trio.sleep(1.0)
            if trio.current_time() - began > 60.0:
                raise Unfair("a handshake of a minute was waited for")
    except Gone:
        return
    raise Unfair("a handshake that took minutes was taken")


async def cut_handshake(case: Case) -> None:
    """Half a handshake, and then the end."""
    whole = handshake()
    await case.peer.send(whole[: case.random.randrange(len(whole))])
    await ends(case)
    await case.peer.rest()


# -- frames ------------------------------------------------------------------------------------------

GOOD: Final = b'{"jsonrpc":"2.0","id":1,"method":"models"}'


def bad_frames(random: Random) -> tuple[bytes, Sequence[int]]:
    """Return bytes that no client may send, and the codes with which it may be told so."""
    return random.choice(
        [
            (frame(GOOD, masked=False), (1002,)),
            (frame(GOOD, reserved=random.randrange(1, 8)), (1002,)),
            (frame(GOOD, random.choice([3, 4, 5, 6, 7, 11, 12, 13, 14, 15])), (1002,)),
            (frame(b"x" * 126, random.choice([CLOSE, PING, PONG])), (1002,)),
            (frame(b"x", random.choice([CLOSE, PING, PONG]), fin=False), (1002,)),
            (frame(b"\xff\xfe" + random.randbytes(8)), (1007,)),
            (frame(GOOD, CONTINUATION), (1002,)),
            (frame(b"{", fin=False) + frame(b"}", TEXT), (1002,)),
            (frame(b"\xc3", fin=False) + frame(b"\x28", CONTINUATION), (1007,)),
            (frame(b"x" * (MAX_MESSAGE + random.randrange(1, 9999))), (1009,)),
            (frame(b"x" * 20_000, fin=False) + frame(b"x" * 20_000, CONTINUATION), (1009,)),
            (frame("\u20ac".encode() * (MAX_MESSAGE // 3 + 1)), (1009,)),
            (frame(b"\x03", CLOSE), (1002,)),
            (frame(b"\x00\x01", CLOSE), (1002,)),
            (frame(b"\x03\xe8\xff\xff", CLOSE), (1002, 1007)),
        ]
    )


async def bad_frame(case: Case) -> None:
    """What breaks the WebSocket's own rules ends the connection."""
    await case.peer.greet()
    if case.random.random() < 0.5:
        await case.works()
    data, codes = bad_frames(case.random)
    await case.peer.send(data)
    await case.over(1000, *codes)


async def frame_without_end(case: Case) -> None:
    """A frame that says more than it brings, a message without a last fragment: and then silence, or the end."""
    await case.peer.greet()
    await case.peer.send(
        case.random.choice(
            [
                frame(b"{", length=5000),
                frame(b"{", length=2**31),
                frame(b"{", length=2**62),
                frame(b"{", fin=False),
                frame(GOOD)[: case.random.randrange(1, len(GOOD))],
            ]
        )
    )
    await ends(case)
    await case.over()


async def random_bytes(case: Case) -> None:
    """Anything at all behind a good handshake."""
    await case.peer.greet()
    await case.peer.send(case.random.randbytes(case.random.randrange(1, 2000)))
    await ends(case)
    await case.over()


async def odd_but_right(case: Case) -> None:
    """Fragments, pings among them, bytes one by one: unusual, and to be understood."""
    await case.peer.greet()
    cut = case.random.randrange(1, len(GOOD))
    data = frame(GOOD[:cut], fin=False) + frame(b"", PING) + frame(b"", CONTINUATION, fin=False)
    data += frame(GOOD[cut:], CONTINUATION) + frame(b"?", PONG)
    pause = case.random.choice([0.0, 1.0])
    step = 1 if pause else case.random.randrange(1, len(data))
    for start in range(0, len(data), step):
        await case.peer.send(data[start : start + step])
        await trio.sleep(pause)
    await case.expect([(1, None)])
    await case.works()


# -- messages ---------------------------------------------------------------------------------------


async def bad_messages(case: Case) -> None:
    """Each gets its error, and the connection goes on."""
    await case.peer.greet()
    for _ in range(case.random.randrange(1, 5)):
        text, owed = case.random.choice(MESSAGES)
        await case.peer.say(text)
        await case.expect([owed])
    if case.random.random() < 0.3:
        await case.peer.send(frame(GOOD, 2))
        await case.expect([(None, PARSE)])
    await case.works()


async def bad_params(case: Case) -> None:
    """Each gets its error, several at once."""
    await case.peer.greet()
    owed: list[Owed] = []
    for number in range(case.random.randrange(1, 6)):
        method = case.random.choice(list(WRONG))
        await case.peer.say(request(number, method, **case.random.choice(WRONG[method])))
        owed.append((number, PARAMS))
    await case.expect(owed)
    await case.works()


async def mangled(case: Case) -> None:
    """A good request with a byte changed, left out or put in: an answer, whichever it is."""
    await case.peer.greet()
    text = bytearray(msgspec.json.encode(request(1, "generate", prompt="Why is the sky blue?", deadline=5)))
    for _ in range(case.random.randrange(1, 4)):
        place = case.random.randrange(len(text))
        text[place : place + case.random.randrange(2)] = bytes(
            [case.random.randrange(32, 127)]
        ) * case.random.randrange(3)
    await case.peer.send(frame(bytes(text)))
    message = await case.peer.hear()
    if "result" not in message and "error" not in message:
        raise Unfair(f"{bytes(text)!r} was answered with {message}")
    await case.works()


async def same_id(case: Case) -> None:
    """An id in use is refused without one, and what is in progress is not disturbed."""
    await case.peer.greet()
    await case.peer.say(request("a", "generate", prompt="slow", model="slow"))
    await case.peer.say(request("a", case.random.choice(["models", "generate", "no.such"])))
    await case.expect([(None, INVALID)])
    await case.expect([("a", None)])
    await case.works()


# -- streams -----------------------------------------------------------------------------------------


async def overdrawn(case: Case) -> None:
    """More credit than anybody needs ends its stream."""
    await case.peer.greet()
    await case.peer.say(request("s", "stream", prompt="x", model="slow", credit=case.random.randrange(65_537)))
    grant = case.random.choice([65_536, 70_000, 2**52])
    await case.peer.say({"jsonrpc": "2.0", "method": "credit", "params": {"id": "s", "n": grant}})
    await case.peer.say({"jsonrpc": "2.0", "method": "credit", "params": {"id": "s", "n": grant}})
    await case.expect([("s", PARAMS)])
    await case.works()


async def stray_notifications(case: Case) -> None:
    """Credit and cancels of what is not there are ignored."""
    await case.peer.greet()
    for _ in range(case.random.randrange(1, 8)):
        number = case.random.choice([0, "none", 2**53 - 1, -5])
        method, more = case.random.choice([("credit", {"n": 5}), ("cancel", {})])
        await case.peer.say({"jsonrpc": "2.0", "method": method, "params": {"id": number, **more}})
    for number, method in enumerate(["cancel", "unsubscribe"]):
        await case.peer.say(request(number, method, id="none"))
        await case.expect([(number, None)])
    await case.works()


async def cancels(case: Case) -> None:
    """Requests that are cancelled end as cancelled, or with their answer where that was quicker."""
    await case.peer.greet()
    method = case.random.choice(["generate", "stream", "session.send", "session.stream"])
    more = {"session": f"cancelled {case.number}"} if method.startswith("session") else {}
    await case.peer.say(request("c", method, prompt="x", model="slow", **more))
    await trio.sleep(case.random.choice([0.0, 0.05, 0.5]))
    await case.peer.say({"jsonrpc": "2.0", "method": "cancel", "params": {"id": "c"}})
    await case.expect([("c", CANCELLED)])
    await case.works()


async def starved(case: Case) -> None:
    """A stream whose client grants nothing ends after a while; others on the connection go on meanwhile."""
    await case.peer.greet()
    credit = case.random.randrange(2)
    if case.random.random() < 0.5:
        await case.peer.say(request("s", "stream", prompt="x", credit=credit))
    else:
        await case.peer.say(request("s", "batch", prompts=["x", "y"], credit=credit))
    await case.works()
    await case.expect([("s", FAILED)])
    await case.works()


async def quiet(case: Case) -> None:
    """Whoever only answers pings for minutes is still there."""
    await case.peer.greet()
    await case.works()
    with trio.move_on_after(case.random.choice([50, 300])):
        raise Unfair(f"the server said {await case.peer.hear()}")
    await case.works()


async def unread(case: Case) -> None:
    """Whoever asks for much and reads nothing is left alone in the end."""
    await case.peer.greet()
    for number in range(5):
        await case.peer.say(request(number, "stream", prompt="x", credit=60_000))
    await trio.sleep(case.random.choice([1, 30, 200]))
    await case.peer.stream.aclose()


async def vanishes(case: Case) -> None:
    """Requests in progress, and the connection is gone."""
    await case.peer.greet()
    for number in range(case.random.randrange(1, 6)):
        method = case.random.choice(["generate", "stream", "batch", "session.stream", "subscribe"])
        more: dict[str, object] = {} if method == "subscribe" else {"prompt": "x", "model": "slow"}
        if method == "batch":
            more = {"prompts": ["x"] * 5, "model": "slow"}
        elif method == "session.stream":
            more["session"] = f"vanished {case.number}"
        await case.peer.say(request(number, method, **more))
    await trio.sleep(case.random.choice([0.0, 0.01, 0.3]))
    if case.random.random() < 0.3:
        await case.peer.send(frame(GOOD)[:5])
    if case.random.random() < 0.5:
        await case.peer.stream.send_eof()
        await case.over()
    else:
        await case.peer.stream.aclose()


async def failing_model(case: Case) -> None:
    """A model that fails in every way there is: errors of ours, with their ids."""
    await case.peer.greet()
    await case.peer.say(request(1, "generate", prompt="x", model="bad"))
    await case.expect([(1, FAILED)])
    await case.peer.say(request(2, "stream", prompt="x", model="bad"))
    await case.expect([(2, FAILED)])
    await case.works()


async def good(case: Case) -> None:
    """Several good requests at once."""
    await case.peer.greet()
    session = f"good {case.number}"
    await case.peer.say(request(1, "generate", prompt="x"))
    await case.peer.say(request(2, "stream", prompt="x", credit=100))
    await case.peer.say(request(3, "batch", prompts=["x", "y"]))
    await case.peer.say(request(4, "session.send", session=session, prompt="x"))
    await case.expect([(number, None) for number in (1, 2, 3, 4)])
    await case.peer.say(request(5, "session.delete", session=session))
    await case.expect([(5, None)])
    await case.peer.send(frame(b"\x03\xe8", CLOSE))
    await case.over(1000)


KINDS: Final[Mapping[str, Callable[[Case], Awaitable[None]]]] = {
    kind.__name__: kind
    for kind in (
        garbage_first,
        bad_handshake,
        slow_handshake,
        cut_handshake,
        bad_frame,
        frame_without_end,
        random_bytes,
        odd_but_right,
        bad_messages,
        bad_params,
        mangled,
        same_id,
        overdrawn,
        stray_notifications,
        cancels,
        starved,
        quiet,
        unread,
        vanishes,
        failing_model,
        good,
    )
}

NARROW: Final = {"unread", "good", "bad_frame"}
"""Kinds on a connection that has no room of its own."""

MAY_END: Final = {
    "garbage_first",
    "cut_handshake",
    "bad_frame",
    "frame_without_end",
    "random_bytes",
    "unread",
    "vanishes",
}
"""Kinds whose connection may end at any moment."""
