"""How connections end: idle, silent, broken, drained; and nothing of them stays."""

from __future__ import annotations

import logging
import math
import ssl
from contextlib import suppress

import pytest
import trio
import trustme
from attrs import evolve
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked
from trio_websocket import ConnectionClosed, open_websocket

from tests.models import SILENT, Scripted, assert_nothing_held, says
from tests.server.peer import CLOSE, CONTINUATION, PING, TEXT, Gone, Peer, frame
from tests.server.wire import Served, Stuck, Wire, served
from wizard_actors.config import ServerConfig, StreamConfig


async def test_an_idle_connection_is_closed(autojump_clock: MockClock) -> None:
    """After `idle_timeout` without a request; pings and pongs are none."""
    async with served(Scripted(), server=ServerConfig(idle_timeout=100.0)) as server:
        wire = await server.connect()
        await trio.sleep(60)
        await wire.call("models")

        code, reason = await wire.closed()

        assert (code, "100 s" in reason) == (1001, True)
        assert 160 <= trio.current_time() < 161
        assert wire.notifications("draining") == [{"seconds": 0.0}]


@pytest.mark.parametrize(("seconds", "closed_at"), [(100.0, 100), (30.0, 60), (500.0, 500)])
async def test_a_reload_sets_how_long_connections_may_be_idle(
    autojump_clock: MockClock, seconds: float, closed_at: float
) -> None:
    """Those that are silent already, too: for as long as they have been, or as they still may be."""
    async with served(Scripted(), server=ServerConfig(idle_timeout=200.0)) as server:
        wire = await server.connect()
        await trio.sleep(60)

        await server.client.reload(evolve(server.client.config, server=ServerConfig(idle_timeout=seconds)))
        server.service.access.replace(None, bound=[])
        _code, reason = await wire.closed()

        assert f"{seconds:g} s" in reason
        assert closed_at <= trio.current_time() < closed_at + 1


async def test_a_request_that_crosses_with_the_idle_close_was_not_begun(autojump_clock: MockClock) -> None:
    """It has no response, and the close code says the same of that as where the server drains."""
    model = Scripted()
    async with served(model, server=ServerConfig(idle_timeout=100.0)) as server:
        stuck = Stuck(*memory_stream_pair())
        server.nursery.start_soon(server.endpoint.handle, stuck)
        wire = await server.connect(stuck.peer)
        await trio.sleep(99)
        stuck.taking = False
        await trio.sleep(2)

        crossing = await wire.ask("generate", prompt="Why?")
        await wait_all_tasks_blocked()
        server.service.draining.set()  # which changes nothing any more
        await wait_all_tasks_blocked()
        stuck.take()
        code, _reason = await wire.closed()

        assert code == 1001
        assert wire.notifications("draining") == [{"seconds": 0.0}]
        assert [frame for frame in wire.seen if frame.get("id") == crossing] == []
        assert model.calls == []


async def test_a_connection_that_is_closed_waits_for_the_peers_word(autojump_clock: MockClock) -> None:
    """It may still be reading what came before; but not for ever."""
    async with served(Scripted()) as server:
        stuck = Stuck(*memory_stream_pair())
        server.nursery.start_soon(server.endpoint.handle, stuck)
        peer = Peer(stuck.peer)
        await peer.greet()
        server.service.draining.set()
        await trio.sleep(4)
        early = stuck.closed

        await peer.send(frame(b"\x03\xe9", CLOSE))
        await stuck.peer.aclose()
        await wait_all_tasks_blocked()

        assert (early, stuck.closed) == (False, True)
        assert trio.current_time() == pytest.approx(4.0, abs=0.1)


async def test_a_connection_is_not_idle_while_something_is_in_progress(autojump_clock: MockClock) -> None:
    """However long it takes; the time counts from its end."""
    steps: list[str | float] = ["a", 25.0] * 10
    slow = Scripted(says(3.0, "a"), says(*steps))
    async with served(slow, server=ServerConfig(idle_timeout=50.0)) as server:
        wire = await server.connect()
        await wire.call("generate", prompt="Why?")

        assert await wire.call("generate", prompt="Why?")
        ended = trio.current_time()
        await wire.closed()

        assert ended > 250
        assert trio.current_time() - ended == pytest.approx(50.0, abs=1)


async def test_a_peer_that_is_there_is_kept(autojump_clock: MockClock) -> None:
    """It answers pings, though it asks for nothing."""
    async with served(Scripted()) as server:
        wire = await server.connect()

        await trio.sleep(500)

        assert await wire.call("models")


async def test_a_peer_that_answers_nothing_is_given_up(autojump_clock: MockClock) -> None:
    """After 20 s of silence and 20 s for an answer; its requests are cancelled."""
    model = Scripted(SILENT)
    async with served(model) as server:
        others = len(server.nursery.child_tasks)
        wire = await server.connect()
        await wire.ask("generate", prompt="Why?")
        wire.socket._wsproto.receive_data = lambda data: None  # type: ignore[method-assign]  # it hears no more
        await trio.sleep(39)
        assert server.service.admission.in_progress == 1

        await trio.sleep(1.5)

        assert server.endpoint.connections == 0
        assert len(server.nursery.child_tasks) == others  # nobody lingers for one that is not there
        await assert_nothing_held(server.client, model)


async def test_a_peer_that_takes_a_long_message_slowly_is_kept(autojump_clock: MockClock) -> None:
    """Nothing is heard of it, for the ping stands behind the message: what it takes shows that it is there."""
    long = "x" * 4_000_000
    async with served(Scripted(says(long))) as server:
        theirs, slow = lockstep_stream_pair()
        hers, ours = memory_stream_pair()
        server.nursery.start_soon(server.endpoint.handle, theirs)
        server.nursery.start_soon(carry, slow, hers, 64e3)
        server.nursery.start_soon(carry, hers, slow, math.inf)
        wire = await server.connect(ours)

        assert (await wire.call("generate", prompt="Why?"))["text"] == long
        assert trio.current_time() > 60
        assert await wire.call("models")


@pytest.mark.parametrize("size", [40_000, 100])
async def test_a_send_that_is_stuck_is_judged_by_its_timeout_alone(autojump_clock: MockClock, size: int) -> None:
    """However short it is: a line that stands still for a minute breaks nothing that may take two."""
    async with served(Scripted(says("x" * size)), server=ServerConfig(send_timeout=120.0)) as server:
        stuck = Stuck(*memory_stream_pair())
        server.nursery.start_soon(server.endpoint.handle, stuck)
        wire = await server.connect(stuck.peer)
        await wire.call("models")
        stuck.taking = False
        request = await wire.ask("generate", prompt="Why?")
        await trio.sleep(100)
        stuck.take()

        assert len((await wire.response(request))["result"]["text"]) == size
        await trio.sleep(100)
        assert await wire.call("models")


async def carry(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream, per_second: float) -> None:
    """Carry bytes from one end to another, at most so many a second."""
    async for data in source:
        await sink.send_all(data)
        await trio.sleep(len(data) / per_second)


@pytest.mark.parametrize(("opcode", "each"), [(CONTINUATION, b""), (PING, b"x" * 100)])
async def test_a_message_that_never_ends_closes_the_connection(
    autojump_clock: MockClock, opcode: int, each: bytes
) -> None:
    """With 1009: fragments without end, though they are empty, and pings in the middle of it."""
    async with served(Scripted(), server=ServerConfig(max_message=2048)) as server:
        peer = Peer(server.raw())
        await peer.greet()
        await peer.send(frame(b"", TEXT, fin=False))

        with suppress(Gone):
            await peer.send(frame(each, opcode, fin=opcode == PING) * 20_000)
        with trio.fail_after(10), pytest.raises(Gone) as gone:
            await peer.hear()

        assert gone.value.args == (1009,)


async def test_many_whole_messages_are_no_flood(autojump_clock: MockClock) -> None:
    """And a peer that pings for days, and asks for nothing meanwhile, is none."""
    async with served(Scripted(), server=ServerConfig(max_message=2048)) as server:
        wire = await server.connect()
        for _ in range(100):
            await wire.send("x" * 2000)
        await wire.ask("subscribe", types=["session_turn"])
        for _ in range(2000):
            await wire.socket.pong(b"x" * 100)
            await trio.sleep(5)

        assert await wire.call("models")


async def test_a_message_that_is_too_long_closes_the_connection(autojump_clock: MockClock) -> None:
    """With 1009; bytes count, not characters; what is just as long as it may be is read."""
    bound = 2048
    async with served(Scripted(), server=ServerConfig(max_message=bound)) as server:
        for filler in ("a", "é"):
            wire = await server.connect()
            room = bound - len('{"jsonrpc":"2.0","id":1,"method":"generate","params":{"prompt":""}}')
            fits = filler * (room // len(filler.encode()))
            await wire.send('{"jsonrpc":"2.0","id":1,"method":"generate","params":{"prompt":"' + fits + '"}}')
            assert "result" in await wire.response(1)

            await wire.send('{"jsonrpc":"2.0","id":1,"method":"generate","params":{"prompt":"' + fits + 'aa"}}')
            assert (await wire.closed())[0] == 1009
        await wait_all_tasks_blocked()
        assert server.endpoint.connections == 0


@pytest.mark.parametrize(
    ("sent", "code"),
    [(b"\xff\xff\xff\xff\xff\xff", 1002), (b"\x81\x81\0\0\0\0\xff", 1007), (b"\x81\x01a", 1002)],
)
async def test_what_is_no_frame_closes_the_connection(
    autojump_clock: MockClock, sent: bytes, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The peer is told the code; no bug is logged, and the server goes on."""
    async with served(Scripted()) as server:
        wire = await server.connect()
        with caplog.at_level(logging.ERROR, "wizard_actors.server"):
            await wire.stream.send_all(sent)

            assert (await wire.closed())[0] == code

        await wait_all_tasks_blocked()
        assert server.endpoint.connections == 0
        assert caplog.text == ""
        assert await (await server.connect()).call("models")


async def test_cancelling_the_handler_ends_everything(autojump_clock: MockClock) -> None:
    """Whoever listens may cancel: the streams are closed, and nothing is in progress."""
    model = Scripted(SILENT)
    async with served(model) as server:
        async with trio.open_nursery() as nursery:
            wire = await Served(server.client, server.service, server.endpoint, nursery).connect()
            await wire.ask("generate", prompt="Why?")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

        assert server.endpoint.connections == 0
        assert server.idle
        await assert_nothing_held(server.client, model)


# -- a server that stops -----------------------------------------------------------------------------


async def test_a_draining_server_says_so_once_and_closes_when_all_is_done(autojump_clock: MockClock) -> None:
    """What is in progress ends as ever; new requests were not begun, and may be sent elsewhere."""
    async with served(Scripted(says(5.0, "Hello")), server=ServerConfig(drain_timeout=30.0)) as server:
        wire, quiet = await server.connect(), await server.connect()
        running = await wire.ask("stream", prompt="Why?")
        await trio.sleep(1)

        server.service.draining.set()
        refused = await wire.failure("generate", prompt="Why?")
        code, _reason = await wire.closed()

        assert (refused["data"]["code"], refused["data"]["actor"]) == ("actor_stopped", "server")
        assert wire.notifications("draining") == [{"seconds": 30.0}]
        assert (await wire.response(running))["result"]["text"] == "Hello"
        assert code == 1001
        assert trio.current_time() == pytest.approx(5.0, abs=0.5)
        assert (await quiet.closed())[0] == 1001


async def test_subscriptions_end_when_a_server_drains(autojump_clock: MockClock) -> None:
    """They would not end by themselves."""
    async with served(Scripted()) as server:
        wire = await server.connect()
        request = await wire.ask("subscribe")
        await wait_all_tasks_blocked()

        server.service.draining.set()

        assert (await wire.response(request))["result"] == {"dropped": 0}
        assert (await wire.closed())[0] == 1001
        assert trio.current_time() < 1


async def test_what_has_not_ended_in_time_is_answered_with_an_error(autojump_clock: MockClock) -> None:
    """None of them can be taken for one that was not begun; a stream says what had come. Then the connection closes."""
    model = Scripted(says("Hel", 1000.0, "lo"))
    async with served(model) as server:
        wire = await server.connect()
        stream, whole = await wire.ask("stream", prompt="Why?"), await wire.ask("generate", prompt="Why?")
        batch = await wire.ask("batch", prompts=["a", "b"])
        turn = await wire.ask("session.stream", session="s", prompt="Why?", credit=0)
        await trio.sleep(1)

        server.service.draining.set()
        await trio.sleep(10)
        server.service.ending.set()
        code, _reason = await wire.closed()

        errors = {request: (await wire.response(request))["error"]["data"] for request in (stream, whole, batch, turn)}
        assert (errors[stream]["code"], errors[stream]["partial"]) == ("stream_interrupted", "Hel")
        for request in (whole, batch, turn):
            assert (errors[request]["code"], errors[request]["actor"]) == ("actor_stopped", "wizard")
        assert code == 1001
        assert trio.current_time() < 12
        await assert_nothing_held(server.client, model)
        assert server.idle


async def test_what_a_reset_has_dropped_is_no_part_of_what_had_come(autojump_clock: MockClock) -> None:
    """The stream has begun anew with another model when it is cut off."""
    models = {"a": Scripted(says("wrong", ConnectionError("lost"))), "b": Scripted(says("Hel", 1000.0, "lo"))}
    async with served(models, stream=StreamConfig(on_interruption="reset")) as server:
        wire = await server.connect()
        request = await wire.ask("stream", prompt="Why?")
        await trio.sleep(5)

        server.service.draining.set()
        server.service.ending.set()

        assert (await wire.response(request))["error"]["data"]["partial"] == "Hel"


async def test_a_peer_that_leaves_while_the_server_drains_is_not_waited_for(autojump_clock: MockClock) -> None:
    """Its requests are cancelled as ever."""
    model = Scripted(SILENT)
    async with served(model) as server:
        wire = await server.connect()
        await wire.ask("generate", prompt="Why?")
        await wait_all_tasks_blocked()
        server.service.draining.set()
        await wait_all_tasks_blocked()

        await wire.stream.aclose()
        await wait_all_tasks_blocked()

        assert server.endpoint.connections == 0
        await assert_nothing_held(server.client, model)


# -- sockets -----------------------------------------------------------------------------------------


async def listening(server: Served, tls: ssl.SSLContext | None) -> int:
    """Listen on a port of this machine, and return it."""
    if tls is None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        server.nursery.start_soon(trio.serve_listeners, server.endpoint.handle, listeners)
    else:
        secured = await trio.open_ssl_over_tcp_listeners(0, tls, host="127.0.0.1", https_compatible=True)
        port = secured[0].transport_listener.socket.getsockname()[1]  # type: ignore[attr-defined]  # of a socket
        server.nursery.start_soon(trio.serve_listeners, server.endpoint.handle, secured)
    return int(port)


@pytest.mark.parametrize("secure", [False, True])
async def test_it_works_over_sockets(secure: bool) -> None:
    """And over TLS: requests, a close in order, and a peer whose connection is reset."""
    model, tls, trusting = Scripted(says("Hello"), SILENT), None, None
    if secure:
        authority = trustme.CA()
        tls, trusting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
        authority.issue_cert("127.0.0.1").configure_cert(tls)
        authority.configure_trust(trusting)
    async with served(model) as server:
        port = await listening(server, tls)
        with trio.fail_after(20):
            async with open_websocket(
                "127.0.0.1", port, "/", use_ssl=trusting or False, subprotocols=["wizard.v1"]
            ) as s:
                wire = Wire(s, s._stream)
                assert (await wire.call("generate", prompt="Why?"))["text"] == "Hello"
                await wire.ask("generate", prompt="And then?")
                while not model.in_flight:  # noqa: ASYNC110 - another's doing, in real time
                    await trio.sleep(0.01)
            while server.endpoint.connections:  # noqa: ASYNC110 - as above
                await trio.sleep(0.01)
        await assert_nothing_held(server.client, model)


async def test_over_sockets_a_message_that_is_too_long_is_told_before_the_end() -> None:
    """The peer is still sending when it is refused: closing at once would take the reason back."""
    async with served(Scripted(), server=ServerConfig(max_message=2**16)) as server:
        port = await listening(server, None)
        with trio.fail_after(20):
            async with open_websocket("127.0.0.1", port, "/", use_ssl=False, subprotocols=["wizard.v1"]) as socket:
                await socket.send_message("x" * 2**20)
                with pytest.raises(ConnectionClosed) as closed:
                    await socket.get_message()
                await trio.aclose_forcefully(socket._stream)  # it does not close itself after that code

        assert closed.value.reason is not None
        assert closed.value.reason.code == 1009
