"""What goes wrong on a connection that others use too: requests too long, servers that die half-way, contradict
themselves, or send what is no frame.
"""

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar, cast

import pytest
import trio
from attrs import frozen
from trio.testing import MockClock
from trio_websocket import WebSocketConnection, WebSocketRequest

from tests.remote.fake_server import ANSWER, Peer, Plain, answering, client_of, in_progress, open_connections
from wizard_actors import (
    InvalidPromptError,
    NetworkError,
    ParseError,
    Prompt,
    SerializationError,
    StreamInterruptedError,
    TextDelta,
    WizardError,
)
from wizard_actors.embed.host import Host
from wizard_actors.remote import RemoteClient

T = TypeVar("T")

PIECE = 65_536


async def forever(peer: Peer) -> None:
    """Hear everything, and say nothing."""
    while True:
        await peer.hear()


def taking(most: int) -> Callable[[WebSocketRequest], Awaitable[WebSocketConnection]]:
    """Return what lets clients in, and tells them how long a message may be."""

    async def greet(request: WebSocketRequest) -> WebSocketConnection:
        headers = [(b"Wizard-Max-Message", str(most).encode())]
        return await request.accept(subprotocol="wizard.v1", extra_headers=headers)

    return greet


async def failure_of(asked: Awaitable[object]) -> WizardError:
    """Return the error of one request."""
    with pytest.raises(WizardError) as caught:
        await asked
    return caught.value


# -- requests that cannot be sent


async def test_a_request_that_is_too_long_fails_alone() -> None:
    """The server would close the connection, which all share; so nothing of it is sent."""
    async with client_of(greet=taking(2000)) as (client, server):
        with pytest.raises(InvalidPromptError, match=r"3,\d\d\d bytes, .* wizard:8000 takes at most 2,000"):
            await client.generate("x" * 3000)
        with pytest.raises(InvalidPromptError, match=r"2,4\d\d bytes"):
            await client.generate("\N{GRINNING FACE}" * 600)

        assert (await client.generate("x" * 1800)).text == "Because."
        assert server.dials == 1
        assert len(server.peers[0].heard) == 1


@pytest.mark.parametrize("said", [b"", b"many", b"-5", b"9" * 5000])
async def test_a_server_that_does_not_say_what_it_takes_is_sent_anything(said: bytes) -> None:
    """It is not for the client to guess."""

    async def greet(request: WebSocketRequest) -> WebSocketConnection:
        return await request.accept(subprotocol="wizard.v1", extra_headers=[(b"wizard-max-message", said)])

    async with client_of(greet=greet) as (client, _):
        assert (await client.generate("x" * 100_000)).text == "Because."


async def outcomes(peer: Peer) -> None:
    """Answer batches."""
    while True:
        frame = await peer.hear()
        if frame["method"] == "batch":
            for index in range(len(frame["params"]["prompts"])):
                await peer.notify("outcome", id=frame["id"], index=index, response=ANSWER)
            await peer.answer(frame, {"total": len(frame["params"]["prompts"])})


@pytest.mark.parametrize("most", [10_000, 4 * 2**20])
@pytest.mark.parametrize("prompt", ["\N{GRINNING FACE}" * 500, "\x00" * 330, Prompt("\N{GRINNING FACE}" * 400)])
async def test_a_batch_travels_in_parts_that_the_server_takes(most: int, prompt: str | Prompt) -> None:
    """Bytes are counted, as JSON has them, and a megabyte of them is enough for one part."""
    many = 20 if most == 10_000 else 700
    async with client_of(outcomes, greet=taking(most)) as (client, server):
        assert len(await client.generate_batch([prompt] * many)) == many

        parts = [frame for frame in server.peers[0].heard if frame["method"] == "batch"]
        sizes = [len(json.dumps(frame, ensure_ascii=False, separators=(",", ":")).encode()) for frame in parts]
    assert len(parts) > 1
    assert max(sizes) <= min(most, 2**20 + 4096)


async def test_what_is_not_valid_unicode_is_refused_here() -> None:
    """With a sign in place of it it would be another prompt, or another session."""
    async with client_of() as (client, server):
        assert isinstance(await failure_of(client.generate("a\ud800b")), InvalidPromptError)
        assert isinstance(await failure_of(client.generate_batch(["x", "a\ud800b"])), InvalidPromptError)
        error = await failure_of(client.session("na\ud800me").__aenter__())
        assert isinstance(error, SerializationError)
        assert "`session`" in str(error)
        assert isinstance(await failure_of(client.sessions.delete("na\ud800me")), SerializationError)

        assert server.peers[0].heard == []


# -- servers that die half-way

GOING_AWAY = b"\x88\x02\x03\xe9"
"""A server's frame that closes a connection, with 1001."""


async def test_a_server_that_takes_nothing_is_found_though_it_talks(autojump_clock: MockClock) -> None:
    """Whatever it says, a request that cannot leave is an error within a minute."""

    async def talking(peer: Peer) -> None:
        while True:
            await peer.notify("news", of="tomorrow")
            await trio.sleep(5)

    async with client_of(talking) as (client, server):
        server.slow_down(trio.sleep_forever)
        began_at = trio.current_time()
        with trio.fail_after(1000):
            error = await failure_of(client.generate("Why?"))

        assert isinstance(error, NetworkError)
        assert "has taken nothing of what was sent to it for 40 s" in str(error)
        assert trio.current_time() - began_at <= 61


@pytest.mark.parametrize("seconds", [30.0, 10_000.0])
async def test_a_server_that_closes_and_dies_is_found(autojump_clock: MockClock, seconds: float) -> None:
    """The answer to its close stands behind what is being sent, however slowly that leaves, or not at all."""

    async def dying(peer: Peer) -> None:
        await trio.sleep(1)
        await peer.stream.send_all(GOING_AWAY)
        await trio.sleep_forever()

    async with client_of(dying) as (client, server):
        server.slow_down(partial(trio.sleep, seconds))
        began_at = trio.current_time()
        error = await failure_of(client.generate("x" * (100 * PIECE)))

        assert isinstance(error, NetworkError)
        assert "closed it with code 1001" in str(error)
        assert trio.current_time() - began_at <= 61


async def test_a_long_request_on_a_slow_line_gets_through(autojump_clock: MockClock) -> None:
    """Nothing comes meanwhile, for the ping stands behind it; each piece that leaves is a sign of life."""

    async def patient(peer: Peer) -> None:
        request = await peer.hear()
        await trio.sleep(3)
        await peer.answer(request)
        await forever(peer)

    async with client_of(patient) as (client, server):
        server.slow_down(partial(trio.sleep, 15))

        assert (await client.generate("x" * (10 * PIECE))).text == "Because."
        assert server.dials == 1


async def test_whoever_is_cancelled_before_the_request_has_left_leaves_nothing(autojump_clock: MockClock) -> None:
    """Those that wait behind a long message too."""
    async with client_of(forever) as (client, server):
        server.slow_down(trio.sleep_forever)
        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(client.generate, "Why?")

        assert in_progress(client) == 0


async def test_what_came_before_the_end_is_read() -> None:
    """Answers that arrive together with the end of the connection are answers."""

    async def hasty(peer: Peer) -> None:
        frames = b""
        for request in [await peer.hear() for _ in range(4)]:
            text = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": ANSWER}).encode()
            frames += b"\x81\x7e" + len(text).to_bytes(2, "big") + text
        await peer.stream.send_all(frames)
        await peer.cut()

    for _ in range(10):
        async with client_of(hasty) as (client, _), trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(client.generate, "Why?")


# -- servers that contradict themselves


async def refuse(peer: Peer, request: Plain) -> None:
    """Say that nothing was begun."""
    await peer.refuse(request, "actor_stopped", actor="server")
    await forever(peer)


async def leave(peer: Peer, request: Plain) -> None:
    """Leave in order."""
    await peer.notify("draining", seconds=30)
    await peer.socket.aclose(1001, "the server stops")


@pytest.mark.parametrize("end", [refuse, leave])
async def test_a_stream_that_has_delivered_anything_is_not_sent_again(
    end: Callable[[Peer, Plain], Awaitable[None]],
) -> None:
    """It was begun, whatever the server says: the answer would come twice."""

    async def script(peer: Peer) -> None:
        request = await peer.hear()
        await peer.event(request, "Be")
        await end(peer, request)

    async with client_of(script) as (client, server), client.stream("Why?") as stream:
        assert await anext(stream) == TextDelta("Be")
        with pytest.raises(StreamInterruptedError) as caught:
            await anext(stream)

        assert caught.value.partial == "Be"
        assert server.dials == 1


@pytest.mark.parametrize("end", [refuse, leave])
async def test_a_batch_that_has_delivered_anything_is_not_sent_again(
    end: Callable[[Peer, Plain], Awaitable[None]],
) -> None:
    """Its prompts would be paid for twice."""

    async def script(peer: Peer) -> None:
        request = await peer.hear()
        await peer.notify("outcome", id=request["id"], index=0, response=ANSWER)
        await end(peer, request)

    async with client_of(script) as (client, server):
        assert isinstance(await failure_of(client.generate_batch(["1", "2"])), NetworkError)
        assert server.dials == 1


async def test_a_server_that_closes_an_idle_connection_is_dialled_anew() -> None:
    """It says that it drains, refuses what crosses with that, and closes with 1001: nobody notices."""

    async def script(peer: Peer) -> None:
        if peer.number == 1:
            await peer.answer(await peer.hear())
            await peer.notify("draining", seconds=0)
        elif peer.number == 2:
            await peer.refuse(await peer.hear(), "actor_stopped", actor="server")
            await peer.notify("draining", seconds=0)
            await peer.socket.aclose(1001, "nothing was asked for 600 s")
        else:
            await answering(peer)

    async with client_of(script) as (client, server):
        for _ in range(3):
            assert (await client.generate("Why?")).text == "Because."
            await trio.testing.wait_all_tasks_blocked()

        assert server.dials == 3
        assert open_connections(client) == 1


@pytest.mark.parametrize(("frame", "code"), [(b"\x83\x00", 1002), (b"\x81\x01\xff", 1007)])
async def test_what_is_no_frame_is_a_parse_error(frame: bytes, code: int) -> None:
    """It is not the server that has closed the connection then."""

    async def script(peer: Peer) -> None:
        await peer.hear()
        await peer.stream.send_all(frame)
        await forever(peer)

    async with client_of(script) as (client, _):
        error = await failure_of(client.generate("Why?"))

    assert isinstance(error, ParseError)
    assert f"no WebSocket frame, or it says so of this client: code {code}" in str(error)


async def test_millions_of_values_are_a_parse_error() -> None:
    """They would take the program's memory."""

    async def script(peer: Peer) -> None:
        request = await peer.hear()
        await peer.say(f'{{"jsonrpc":"2.0","id":"{request["id"]}","result":[{"[]," * 3_000_000}1]}}')
        await forever(peer)

    async with client_of(script) as (client, _):
        error = await failure_of(client.generate("Why?"))

    assert isinstance(error, ParseError)
    assert "more than 1,000,000 values" in str(error)


# -- subscriptions and sessions


async def test_a_cancel_does_not_overtake_its_request() -> None:
    """The server would pass over it, and ask the model for nobody."""

    async def ask(client: RemoteClient, scope: trio.CancelScope) -> None:
        with scope:
            await client.generate("Why?")

    for moments in range(12):
        async with client_of(forever) as (client, server), trio.open_nursery() as nursery:
            scope = trio.CancelScope()
            nursery.start_soon(ask, client, scope)
            for _ in range(moments):
                await trio.lowlevel.checkpoint()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()

            methods = [frame["method"] for frame in server.peers[0].heard]
            assert methods in ([], ["generate", "cancel"])


class LateError(BaseException):
    """What a caller under asyncio is cancelled with."""


@frozen
class Late:
    """A host whose callers are cancelled when their work is done, before they hear of it."""

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work in vain."""
        await work()
        raise LateError

    def look(self, function: Callable[[], T]) -> T:
        """Return what `function` returns."""
        return function()


async def test_a_subscription_whose_beginning_is_cancelled_is_left() -> None:
    """Nobody would leave it then: its block was never entered."""
    async with client_of(forever) as (client, server):
        for _ in range(20):
            events = client.subscribe()
            events._host = cast("Host", Late())  # it needs no more of one
            with pytest.raises(LateError):
                await events.__aenter__()
            await trio.testing.wait_all_tasks_blocked()

        assert in_progress(client) == 0
        assert [frame["method"] for frame in server.peers[0].heard] == ["subscribe", "cancel"] * 20


def stored(*ids: str) -> Plain:
    """Return a session as the server shows it, with a turn for each of the requests."""
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "Because."}]
    turns = [{"messages": messages, "at": 1.0, "model": "m", "request_id": each} for each in ids]
    return {"id": "s", "created_at": 1.0, "version": 1 + len(ids), "state": "active", "turns": turns}


async def opened(peer: Peer) -> None:
    """Open the session."""
    await peer.answer(await peer.hear("session.create"), stored())


async def test_an_answer_with_a_time_that_no_clock_shows_is_an_answer(autojump_clock: MockClock) -> None:
    """It is paid for; the turn after it says of no time that it has seen the session then."""

    async def script(peer: Peer) -> None:
        await opened(peer)
        for _ in range(2):
            await peer.answer(await peer.hear("session.send"), {**ANSWER, "session": {"created_at": 10**400}})
        await forever(peer)

    async with client_of(script) as (client, server), client.session("s") as session:
        assert [(await session.send("q")).text for _ in range(2)] == ["Because."] * 2
        assert "created_at" not in server.peers[0].heard[-1]["params"]


async def refresh_first(peer: Peer) -> None:
    """Show the turn before its answer comes."""
    await opened(peer)
    turn, refresh = await peer.hear("session.send"), await peer.hear("session.create")
    await peer.answer(refresh, stored("r1"))
    await trio.sleep(1)
    await peer.answer(turn, {**ANSWER, "request_id": "r1"})
    await forever(peer)


async def answer_first(peer: Peer) -> None:
    """Answer the turn, and show what was stored before it."""
    await opened(peer)
    turn, refresh = await peer.hear("session.send"), await peer.hear("session.create")
    await peer.answer(turn, {**ANSWER, "request_id": "r1"})
    await trio.sleep(1)
    await peer.answer(refresh, stored())
    await forever(peer)


async def both(peer: Peer) -> None:
    """Answer the turn, and show it."""
    await opened(peer)
    turn, refresh = await peer.hear("session.send"), await peer.hear("session.create")
    await peer.answer(turn, {**ANSWER, "request_id": "r1"})
    await trio.sleep(1)
    await peer.answer(refresh, stored("r0", "r1"))
    await forever(peer)


@pytest.mark.parametrize(("script", "turns"), [(refresh_first, 1), (answer_first, 1), (both, 2)])
async def test_a_turn_that_crosses_with_a_refresh_is_there_once(
    autojump_clock: MockClock, script: Callable[[Peer], Awaitable[None]], turns: int
) -> None:
    """Whichever comes first, and whether the server had stored it by then or not."""
    async with client_of(script) as (client, _), client.session("s") as session:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.send, "q")
            await trio.sleep(0.1)
            nursery.start_soon(session.refresh)

        assert len(session.record.turns) == turns
        assert len(session.history) == 2 * turns


async def test_the_refresh_that_was_begun_last_counts(autojump_clock: MockClock) -> None:
    """And what somebody else deleted is gone with it."""

    async def script(peer: Peer) -> None:
        await opened(peer)
        await peer.answer(await peer.hear("session.send"), {**ANSWER, "request_id": "r1"})
        first, second = await peer.hear("session.create"), await peer.hear("session.create")
        await peer.answer(second, stored())
        await peer.answer(first, stored("r1"))
        await forever(peer)

    async with client_of(script) as (client, _), client.session("s") as session:
        await session.send("q")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.refresh)
            await trio.sleep(0.1)
            nursery.start_soon(session.refresh)

        assert session.history == ()
