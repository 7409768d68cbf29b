"""How requests over HTTP end before their answer: the client leaves, its key is taken away, the server stops."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import h11
import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, wait_all_tasks_blocked

from tests.loopback import Wire, chunk, response, serving
from tests.models import SILENT, USAGE, Scripted, Turn, assert_nothing_held, cut, model, says
from tests.server.http_asked import ANSWER, FORMATS, PATHS, How, ask, body_of, heard, heard_so_far, listened, whole
from tests.server.http_wire import HttpWire, Reply, Served, served
from tests.server.keyed import budget, key
from wizard_actors.config import RetryConfig, Secret, StreamConfig
from wizard_actors.providers.http import make_http_client
from wizard_actors.providers.http_provider import HttpSettings
from wizard_actors.providers.openai import OpenAIProvider
from wizard_actors.server.key_settings import KeysConfig

SLOW = says(*(step for _ in range(60) for step in ("word ", 1.0)))
QUICK_ENOUGH = 0.2
"""Seconds within which an upstream notices that its client's client has left."""

all_formats = pytest.mark.parametrize("how", FORMATS)
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
in_three_ways = pytest.mark.parametrize(
    ("stream", "delivery"), [(False, "live"), (True, "live"), (True, "buffered")], ids=["whole", "live", "buffered"]
)


def delivered(how: str) -> StreamConfig:
    """Return how streams are delivered."""
    return StreamConfig(delivery=how)  # type: ignore[arg-type]  # one of two


@asynccontextmanager
async def asked(server: Served, how: How = "openai", *, stream: bool, **headers: str) -> AsyncIterator[HttpWire]:
    """Ask on a connection of its own."""
    wire = server.connect()
    await wire.send("POST", PATHS[how], body_of(how, stream=stream), **headers)
    yield wire
    await wire.stream.aclose()


# -- the client leaves -----------------------------------------------------------------------------------------------


@all_formats
@in_three_ways
@pytest.mark.parametrize("turn", [SILENT, whole(100.0), SLOW], ids=["no head", "no first token", "words"])
async def test_a_client_that_leaves_stops_its_call(
    how: How, stream: bool, delivery: str, turn: Turn, autojump_clock: MockClock
) -> None:
    """At once, also in the silence before the first word; nothing is held, and no other model is asked."""
    models = {"a": Scripted(turn), "b": Scripted(whole())}
    async with served(models, stream=delivered(delivery)) as server:
        async with asked(server, how, stream=stream):
            await trio.sleep(3)
            assert models["a"].in_flight == 1
        left_at = trio.current_time()
        await wait_all_tasks_blocked()
        assert models["a"].calls[0].end == left_at
        assert server.service.admission.in_progress == 0
        assert models["b"].calls == []
        await assert_nothing_held(server.client, *models.values())


@both
async def test_a_client_that_leaves_while_it_waits_for_room_leaves_the_queue(
    stream: bool, autojump_clock: MockClock
) -> None:
    """Its call never begins."""
    busy = Scripted(whole(50.0))
    async with served(busy, model("a", slots=1)) as server, asked(server, stream=False):
        await trio.sleep(1)
        async with asked(server, stream=stream):
            await trio.sleep(1)
        await trio.sleep(100)
        assert len(busy.calls) == 1
        await assert_nothing_held(server.client, busy)


@both
async def test_a_client_that_leaves_stops_all_that_were_asked_for_it(stream: bool, autojump_clock: MockClock) -> None:
    """A hedge as well as the first."""
    models = {"a": Scripted(SILENT), "b": Scripted(SILENT)}
    async with served(models, strategy="parallel") as server:
        async with asked(server, stream=stream):
            await trio.sleep(3)
            assert [provider.in_flight for provider in models.values()] == [1, 1]
        await assert_nothing_held(server.client, *models.values())


@both
async def test_what_a_client_left_is_charged_as_far_as_it_went(stream: bool, autojump_clock: MockClock) -> None:
    """A budget is settled: the key may ask again for what is left of it."""
    alice = key("alice", token_budget=budget(1500))
    upstream = Scripted(SILENT, whole())
    async with served(upstream, keys=[alice]) as server:
        async with asked(server, stream=stream, x_api_key="wz_alice"):
            await trio.sleep(3)
        await assert_nothing_held(server.client, upstream)


async def test_one_that_leaves_does_not_disturb_another_on_the_same_model(autojump_clock: MockClock) -> None:
    """Each has its own call."""
    upstream = Scripted(whole(10.0))
    async with served(upstream) as server, asked(server, stream=False) as stays:
        async with asked(server, stream=True):
            await trio.sleep(1)
        assert heard("openai", await stays.reply()).text == ANSWER


async def test_a_request_sent_ahead_does_not_look_like_leaving(autojump_clock: MockClock) -> None:
    """It waits for its turn."""
    async with served(Scripted(whole(5.0))) as server:
        wire = server.connect()
        await wire.send("POST", PATHS["openai"], body_of("openai"))
        await trio.sleep(1)
        await wire.stream.send_all(b"GET /health/live HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        assert heard("openai", await wire.reply()).text == ANSWER
        wire.http.start_next_cycle()
        for event in (h11.Request(method="GET", target="/", headers=[("host", "127.0.0.1")]), h11.EndOfMessage()):
            wire.http.send(event)
        assert (await wire.reply()).json == {"status": "live"}


# -- over sockets ----------------------------------------------------------------------------------------------------


async def until_left(wire: Wire, begun: trio.Event, left: Callable[[float], None], said: bytes) -> None:
    """Say a part of an answer, and note when the client leaves."""
    await wire.request()
    if said:
        await wire.send(said)
    begun.set()
    await wire.gone()
    left(time.perf_counter())


WORD = b'data: {"id":"1","model":"m","choices":[{"index":0,"delta":{"content":"word"}}]}\n\n'
PART = response(200, {"content-type": "text/event-stream"}, [], cut=True) + chunk(WORD)


@both
@pytest.mark.parametrize("abrupt", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("said", [b"", PART], ids=["silent", "speaking"])
async def test_over_sockets_a_call_is_stopped_within_a_moment(stream: bool, abrupt: bool, said: bytes) -> None:
    """However the client goes, and whether or not the upstream has begun to answer."""
    begun, ends = trio.Event(), list[float]()
    handler = partial(until_left, begun=begun, left=ends.append, said=said)
    with trio.fail_after(10):
        async with serving(handler) as base_url, make_http_client() as http:
            settings = HttpSettings(name="a", model="m", base_url=base_url, api_key=Secret("sk-1"), upstream="auto")
            async with served({"a": OpenAIProvider(settings, http)}) as server:
                wire = HttpWire(await trio.open_tcp_stream("127.0.0.1", await listened(server)))
                await wire.send("POST", PATHS["openai"], body_of("openai", stream=stream))
                await begun.wait()
                if said and stream:
                    assert (await wire.head())[0] == 200
                assert isinstance(wire.stream, trio.SocketStream)
                if abrupt:
                    wire.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                left_at = time.perf_counter()
                await wire.stream.aclose()
                while not ends:  # noqa: ASYNC110 - sockets, and no event of ours
                    await trio.sleep(0.005)
                assert ends[0] - left_at < QUICK_ENOUGH
                await wait_all_tasks_blocked(0.01)
                assert server.client.supervisor.outstanding == {}


# -- the key is taken away -------------------------------------------------------------------------------------------


@all_formats
@both
@pytest.mark.parametrize("now", [[], [key("alice", enabled=False)]], ids=["gone", "not enabled"])
async def test_a_request_whose_key_is_revoked_ends_at_once(
    how: How, stream: bool, now: list[object], autojump_clock: MockClock
) -> None:
    """With 401, as long as nothing was said; its call is stopped."""
    upstream = Scripted(SILENT)
    async with served(upstream, keys=[key("alice"), key("root")]) as server:
        async with asked(server, how, stream=stream, x_api_key="wz_alice") as wire:
            await trio.sleep(3)
            server.service.access.replace(KeysConfig(keys=[key("root"), *now]), bound=[])  # type: ignore[list-item]  # keys
            reply = await wire.reply()
        assert (reply.status, trio.current_time()) == (401, 3)
        assert heard(how, reply).broken
        await assert_nothing_held(server.client, upstream)


@all_formats
async def test_a_stream_whose_key_is_revoked_ends_with_an_error(how: How, autojump_clock: MockClock) -> None:
    """After what was said."""
    upstream = Scripted(SLOW)
    async with served(upstream, keys=[key("alice"), key("root")]) as server:
        async with asked(server, how, stream=True, x_api_key="wz_alice") as wire:
            await trio.sleep(3.5)
            server.service.access.replace(KeysConfig(keys=[key("root")]), bound=[])
            reply = await wire.reply()
        said = heard(how, reply)
        assert (reply.status, said.text) == (200, "word " * 4)
        assert said.broken
        assert trio.current_time() == 3.5
        await assert_nothing_held(server.client, upstream)


async def test_a_key_that_is_still_good_after_a_reload_goes_on(autojump_clock: MockClock) -> None:
    """Another one being revoked, or its own rights being others, ends nothing."""
    async with (
        served(Scripted(whole(5.0)), keys=[key("alice"), key("bob")]) as server,
        asked(server, stream=True, x_api_key="wz_alice") as wire,
    ):
        await trio.sleep(1)
        server.service.access.replace(KeysConfig(keys=[key("alice", max_in_flight=1)]), bound=[])
        assert heard("openai", await wire.reply()).text == ANSWER


# -- the server stops ------------------------------------------------------------------------------------------------


async def assert_closed_at_once(wire: HttpWire) -> None:
    """Check that the server closes a connection, and does not wait until it has been idle for long."""
    now = trio.current_time()
    assert await wire.closed()
    assert trio.current_time() == now


async def drain(server: Served, seconds: float) -> None:
    """Stop as a server does, whose time to drain is so long."""
    server.drain()
    await trio.sleep(seconds)
    server.service.ending.set()


@all_formats
@in_three_ways
async def test_what_ends_within_the_drain_is_answered(
    how: How, stream: bool, delivery: str, autojump_clock: MockClock
) -> None:
    """Whole; its connection is closed after it."""
    async with (
        served(Scripted(whole(5.0)), stream=delivered(delivery)) as server,
        asked(server, how, stream=stream) as wire,
    ):
        await trio.sleep(1)
        server.nursery.start_soon(drain, server, 10)
        said = heard(how, await wire.reply())
        assert (said.text, said.ended) == (ANSWER, True)
        await assert_closed_at_once(wire)


@all_formats
async def test_a_stream_that_has_begun_before_the_drain_ends_and_its_connection_with_it(
    how: How, autojump_clock: MockClock
) -> None:
    """Though its head did not say so."""
    async with served(Scripted(says("One ", 5.0, "two."))) as server, asked(server, how, stream=True) as wire:
        status, headers = await wire.head()
        await trio.sleep(1)
        server.nursery.start_soon(drain, server, 10)
        body = list[bytes]()
        await read_all(wire, body)
        said = heard(how, Reply(status, headers, b"".join(body)))
        assert (said.text, said.ended, trio.current_time()) == ("One two.", True, 5)
        await assert_closed_at_once(wire)


@all_formats
@in_three_ways
async def test_what_has_not_begun_when_the_drain_runs_out_is_503(
    how: How, stream: bool, delivery: str, autojump_clock: MockClock
) -> None:
    """Another server may be asked at once; the call is stopped."""
    upstream = Scripted(SILENT)
    async with served(upstream, stream=delivered(delivery)) as server:
        async with asked(server, how, stream=stream) as wire:
            await trio.sleep(1)
            await drain(server, 5)
            reply = await wire.reply()
            assert (reply.status, int(reply.headers["retry-after"])) == (503, 1)
            assert heard(how, reply).broken
            await assert_closed_at_once(wire)
        await assert_nothing_held(server.client, upstream)


@all_formats
@pytest.mark.parametrize("delivery", ["live", "buffered"])
async def test_a_stream_that_has_begun_when_the_drain_runs_out_ends_with_an_error(
    how: How, delivery: str, autojump_clock: MockClock
) -> None:
    """After its words, or its pings."""
    upstream = Scripted(SLOW)
    async with served(upstream, stream=delivered(delivery)) as server:
        async with asked(server, how, stream=True) as wire:
            await trio.sleep(0.5)
            await drain(server, 15)
            reply = await wire.reply()
            said = heard(how, reply)
            assert reply.status == 200
            assert said.broken
            assert said.text == ("word " * 16 if delivery == "live" else "")
        await assert_nothing_held(server.client, upstream)


@both
async def test_who_asks_a_server_that_stops_is_told_to_come_again(stream: bool, autojump_clock: MockClock) -> None:
    """503, with when."""
    upstream = Scripted(whole())
    async with served(upstream) as server:
        wire = server.connect()
        server.service.draining.set()
        reply = await ask(wire, stream=stream)
        assert (reply.status, reply.headers["retry-after"], reply.headers["connection"]) == (503, "1", "close")
        assert upstream.calls == []


async def half_asked(server: Served) -> tuple[HttpWire, bytes]:
    """Ask on a connection of its own, but for the end of the body, which is returned."""
    wire, body = server.connect(), json.dumps(body_of("openai")).encode()
    named = {"host": "127.0.0.1", "content-length": str(len(body))}
    head = wire.http.send(h11.Request(method="POST", target=PATHS["openai"], headers=list(named.items())))
    await wire.stream.send_all((head or b"") + body[:-5])
    await trio.sleep(1)
    return wire, body[-5:]


async def test_a_body_that_is_still_coming_does_not_hold_up_the_stop(autojump_clock: MockClock) -> None:
    """It is 503 at once, and no model is asked, whatever comes then."""
    upstream = Scripted(whole())
    async with served(upstream) as server:
        wire, rest = await half_asked(server)
        server.drain()
        reply = await wire.reply()
        assert (reply.status, reply.headers["retry-after"], reply.headers["connection"]) == (503, "1", "close")
        assert trio.current_time() == 1
        await wire.stream.send_all(rest)
        await assert_closed_at_once(wire)
        assert upstream.calls == []


async def test_a_body_that_ends_as_the_stop_begins_asks_no_model(autojump_clock: MockClock) -> None:
    """Whichever of the two is seen first, which is chance."""
    for _ in range(10):
        upstream = Scripted(whole())
        async with served(upstream) as server:
            wire, rest = await half_asked(server)
            await wire.stream.send_all(rest)
            server.drain()
            assert (await wire.reply()).status == 503
            assert upstream.calls == []


# -- slow readers ----------------------------------------------------------------------------------------------------


def slow_reader(server: Served) -> HttpWire:
    """Return a connection on which nothing is on its way: the server waits until each piece is read."""
    ours, theirs = lockstep_stream_pair()
    server.nursery.start_soon(server.endpoint.handle, theirs)
    return HttpWire(ours)


async def read_slowly(wire: HttpWire, pause: float) -> Reply:
    """Read a response with a pause before each piece."""
    await trio.sleep(pause)
    status, headers = await wire.head()
    body = b""
    while True:
        await trio.sleep(pause)
        if (piece := await wire.piece()) is None:
            return Reply(status, headers, body)
        body += piece


async def read_all(wire: HttpWire, into: list[bytes]) -> None:
    """Read a body to its end."""
    while (piece := await wire.piece()) is not None:
        into.append(piece)


@all_formats
@pytest.mark.parametrize("pause", [4.0, 11.0, 14.0])
async def test_a_slow_reader_gets_the_whole_stream_once(how: How, pause: float, autojump_clock: MockClock) -> None:
    """No ping comes in between a piece, nor after the end."""
    async with served(Scripted(says("One ", 12.0, "two ", 12.0, "three.", USAGE))) as server:
        wire = slow_reader(server)
        await wire.send("POST", PATHS[how], body_of(how, stream=True))
        said = heard(how, await read_slowly(wire, pause))
        assert (said.text, said.ended, said.errors) == ("One two three.", True, [])


@pytest.mark.parametrize("pause", [0.0, 4.0, 11.0])
async def test_a_failure_while_a_ping_is_on_its_way_is_told_after_it(pause: float, autojump_clock: MockClock) -> None:
    """The stream is not torn."""
    async with served(Scripted(Turn(("One ", 1000.0)))) as server:
        wire = slow_reader(server)
        await wire.send("POST", PATHS["openai"], body_of("openai", stream=True))
        said = heard("openai", await read_slowly(wire, pause))
        assert said.broken
        assert said.text == "One "


@pytest.mark.parametrize("pause", [3.0, 4.0, 7.0, 8.0])
async def test_no_ping_begins_where_only_the_error_is_to_come(pause: float, autojump_clock: MockClock) -> None:
    """Stopping what is left of the call may take a while; a ping could be cut off by the end of that."""
    models = {"a": Scripted(cut("One ")), "b": Scripted(Turn(("Two ", 1000.0), closing=15.0))}
    settings = [model(name, retry=RetryConfig(max_attempts=1)) for name in models]
    async with served(models, *settings, stream=StreamConfig(on_interruption="reset")) as server:
        wire = slow_reader(server)
        await wire.send("POST", PATHS["openai"], body_of("openai", stream=True))
        reply = await read_slowly(wire, pause)
        assert heard("openai", reply).broken
        assert reply.body.count(b": ping") == 0


@pytest.mark.parametrize("why", ["drain", "key"])
async def test_a_piece_that_is_cut_off_is_followed_by_nothing(why: str, autojump_clock: MockClock) -> None:
    """The connection is closed in the middle: its client sees that something is missing."""
    long = "x" * 200_000
    async with served(Scripted(says(long, 100.0, "the end")), keys=[key("alice"), key("root")]) as server:
        wire = slow_reader(server)
        await wire.send("POST", PATHS["openai"], body_of("openai", stream=True), x_api_key="wz_alice")
        assert (await wire.head())[0] == 200
        await trio.sleep(3)
        if why == "drain":
            server.service.draining.set()
            server.service.ending.set()
        else:
            server.service.access.replace(KeysConfig(keys=[key("root")]), bound=[])
        said = list[bytes]()
        with pytest.raises(h11.RemoteProtocolError):
            await read_all(wire, said)
        assert not heard_so_far("openai", b"".join(said).rpartition(b"\n\n")[0]).ended
        assert server.client.supervisor.outstanding == {}
