"""Streams over a connection: credit, slow readers, cancelling in the middle of a frame, and peers that vanish."""

from __future__ import annotations

import json

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from tests.models import SILENT, Scripted, assert_nothing_held, says
from tests.server.peer import frame
from tests.server.wire import Stuck, Wire, served
from wizard_actors.config import ServerConfig, StreamConfig

TEN = says(*[f"{number} " for number in range(10)])


def texts(wire: Wire, request: str) -> str:
    """Take the events of a stream that came, and return their text."""
    events = [event for event in wire.notifications("event") if event["id"] == request]
    return "".join(event["event"]["text"] for event in events if event["event"]["type"] == "text")


async def settled(wire: Wire) -> None:
    """Let everything come that would come by now."""
    await wire.call("models")
    await wait_all_tasks_blocked(0.01)
    await wire.call("models")


async def test_a_stream_sends_events_and_its_end_is_the_response(autojump_clock: MockClock) -> None:
    """Events come as notifications with the request's id, and the response has the whole answer."""
    async with served(Scripted(says("Hel", "lo"))) as server:
        wire = await server.connect()

        request = await wire.ask("stream", prompt="Why?")
        response = await wire.response(request)

        assert texts(wire, request) == "Hello"
        assert response["result"]["text"] == "Hello"


async def test_as_many_events_come_as_were_granted_and_the_end_costs_nothing(autojump_clock: MockClock) -> None:
    """With the last event sent, the response needs no credit."""
    async with served(Scripted(TEN)) as server:
        wire = await server.connect()
        request = await wire.ask("stream", prompt="Why?", credit=3)
        await settled(wire)
        assert texts(wire, request) == "0 1 2 "

        await wire.tell("credit", id=request, n=2)
        await settled(wire)
        assert texts(wire, request) == "3 4 "

        await wire.tell("credit", id=request, n=5)
        response = await wire.response(request)

        assert texts(wire, request) == "5 6 7 8 9 "
        assert response["result"]["text"] == "0 1 2 3 4 5 6 7 8 9 "


async def test_a_stream_without_credit_holds_up_no_other(autojump_clock: MockClock) -> None:
    """On the same connection, and without a place in memory for what it does not send."""
    async with served(Scripted(TEN)) as server:
        wire = await server.connect()
        stalled = await wire.ask("stream", prompt="Why?", credit=0)

        for _ in range(50):
            request = await wire.ask("stream", prompt="Why?")
            await wire.response(request)
            assert texts(wire, request) == "0 1 2 3 4 5 6 7 8 9 "
        assert trio.current_time() < 1

        await wire.tell("credit", id=stalled, n=10)
        assert "result" in await wire.response(stalled)


async def test_a_stream_that_gets_no_credit_ends(autojump_clock: MockClock) -> None:
    """After `stream.consumer_idle`, as one that nobody reads; its call is stopped."""
    model = Scripted(says("a", "b", 1000.0, "c"))
    async with served(model, stream=StreamConfig(consumer_idle=30.0)) as server:
        wire = await server.connect()
        request = await wire.ask("stream", prompt="Why?", credit=1)

        response = await wire.response(request)

        assert response["error"]["data"]["code"] == "deadline_exceeded"
        assert 30 <= trio.current_time() < 31
        await assert_nothing_held(server.client, model)
        assert server.idle


async def test_too_much_credit_ends_the_request(autojump_clock: MockClock) -> None:
    """More than 65,536 outstanding is no bound that anybody has thought of; its call is stopped."""
    model = Scripted(SILENT)
    async with served(model) as server:
        wire = await server.connect()
        request = await wire.ask("stream", prompt="Why?", credit=1)
        await wire.tell("credit", id=request, n=65_535)
        await settled(wire)
        assert model.in_flight == 1

        await wire.tell("credit", id=request, n=1)
        response = await wire.response(request)

        assert response["error"]["code"] == -32602
        await assert_nothing_held(server.client, model)


async def test_credit_for_what_is_not_in_progress_is_ignored(autojump_clock: MockClock) -> None:
    """It may have crossed the response; and a request that sends nothing does not care."""
    async with served(Scripted(says(3.0, "Hello"))) as server:
        wire = await server.connect()
        request = await wire.ask("generate", prompt="Why?")

        await wire.tell("credit", id=request, n=10**12)
        await wire.tell("credit", id="other", n=10**12)

        assert (await wire.response(request))["result"]["text"] == "Hello"
        assert wire.seen == []


async def test_what_comes_right_behind_a_request_counts(autojump_clock: MockClock) -> None:
    """Credit, and the end of a subscription, find the request that came just before them, begun or not."""
    async with served(Scripted(TEN)) as server:
        wire = await server.connect()
        for number in range(0, 90, 3):
            stream, subscription, end = number, number + 1, number + 2
            at_once = [
                request(stream, "stream", prompt="Why?", credit=0),
                {"jsonrpc": "2.0", "method": "credit", "params": {"id": stream, "n": 6}},
                {"jsonrpc": "2.0", "method": "credit", "params": {"id": stream, "n": 4}},
                request(subscription, "subscribe"),
                request(end, "unsubscribe", id=subscription),
            ]
            await wire.stream.send_all(b"".join(frame(json.dumps(message).encode()) for message in at_once))

            with trio.fail_after(10):
                assert (await wire.response(stream))["result"]["text"] == "0 1 2 3 4 5 6 7 8 9 "
                assert (await wire.response(end))["result"] == {"unsubscribed": True}
                assert (await wire.response(subscription))["result"]["dropped"] >= 0


def request(number: int, method: str, **params: object) -> dict[str, object]:
    """Return a request, as it is sent."""
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


async def test_what_is_cancelled_says_so(autojump_clock: MockClock) -> None:
    """A cancel right behind a request that is done in no time either finds it, or finds it done."""
    async with served(Scripted()) as server:
        wire = await server.connect()
        for number in range(0, 80, 2):
            models, cancel = request(number, "models"), request(number + 1, "cancel", id=number)
            await wire.stream.send_all(frame(json.dumps(models).encode()) + frame(json.dumps(cancel).encode()))

            found = (await wire.response(number + 1))["result"]["cancelled"]

            assert found == ("error" in await wire.response(number))


async def test_too_much_credit_right_behind_a_request_ends_it(autojump_clock: MockClock) -> None:
    """It counts together with what the request itself grants."""
    async with served(Scripted(TEN)) as server:
        wire = await server.connect()
        stream = request(1, "stream", prompt="Why?", credit=60_000)
        more = {"jsonrpc": "2.0", "method": "credit", "params": {"id": 1, "n": 6_000}}

        await wire.stream.send_all(frame(json.dumps(stream).encode()) + frame(json.dumps(more).encode()))

        assert (await wire.response(1))["error"]["code"] == -32602


async def test_an_interrupted_stream_tells_what_had_come(autojump_clock: MockClock) -> None:
    """A failure after the first event is the response, with the partial text."""
    async with served(Scripted(says("Hel", ConnectionError("lost")))) as server:
        wire = await server.connect()

        error = await wire.failure("stream", prompt="Why?")

        assert (error["code"], error["data"]["code"]) == (-32000, "stream_interrupted")
        assert error["data"]["partial"] == "Hel"


# -- slow and vanishing peers ------------------------------------------------------------------------


async def test_a_connection_that_does_not_read_holds_up_itself_alone(autojump_clock: MockClock) -> None:
    """Its streams wait, others go on, and after `send_timeout` it is cut off and all of it given back."""
    model = Scripted(TEN)
    async with served(model, server=ServerConfig(send_timeout=8.0)) as server:
        stuck = Stuck(*memory_stream_pair())
        server.nursery.start_soon(server.endpoint.handle, stuck)
        slow, other = await server.connect(stuck.peer), await server.connect()
        stuck.taking = False
        for _ in range(20):
            await slow.ask("stream", prompt="Why?", credit=1000)
        await wait_all_tasks_blocked()
        assert server.service.admission.in_progress == 20

        for _ in range(20):
            assert "result" in await other.response(await other.ask("stream", prompt="Why?"))
        assert trio.current_time() < 1
        await trio.sleep(8.5)

        assert stuck.closed
        assert server.idle
        assert server.endpoint.connections == 1
        await assert_nothing_held(server.client, model)


async def test_a_request_that_is_cancelled_while_a_frame_is_written_tears_none(autojump_clock: MockClock) -> None:
    """Half of a frame is out when its request is cancelled, and others wait; the rest follows, and all goes on."""
    model = Scripted(TEN)
    async with served(model) as server:
        stuck = Stuck(*memory_stream_pair())
        server.nursery.start_soon(server.endpoint.handle, stuck)
        wire = await server.connect(stuck.peer)
        stuck.taking = False
        requests = [await wire.ask("stream", prompt="Why?") for _ in range(20)]
        await wait_all_tasks_blocked()
        assert stuck.torn

        for request in requests:
            await wire.tell("cancel", id=request)
        await wait_all_tasks_blocked()
        stuck.take()
        responses = [await wire.response(request) for request in requests]

        assert [response["error"]["code"] for response in responses] == [-32800] * 20
        assert (await wire.call("generate", prompt="Why?"))["text"] == "0 1 2 3 4 5 6 7 8 9 "
        await assert_nothing_held(server.client, model)


async def test_what_has_its_response_is_cancelled_no_more(autojump_clock: MockClock) -> None:
    """Its answer waits for the peer to read: a cancel comes too late, says so, and changes nothing."""
    async with served(Scripted(says("Hello"))) as server:
        stuck = Stuck(*memory_stream_pair())
        server.nursery.start_soon(server.endpoint.handle, stuck)
        wire = await server.connect(stuck.peer)
        stuck.taking = False
        requests = [await wire.ask("generate", prompt="Why?") for _ in range(3)]
        await wait_all_tasks_blocked()

        cancel = await wire.ask("cancel", id=requests[2])
        await wait_all_tasks_blocked()
        stuck.take()

        assert (await wire.response(requests[2]))["result"]["text"] == "Hello"
        assert (await wire.response(cancel))["result"] == {"cancelled": False}


@pytest.mark.parametrize("how", ["close", "half-close", "abort", "close frame"])
async def test_a_peer_that_vanishes_takes_its_requests_with_it(autojump_clock: MockClock, how: str) -> None:
    """At once, whichever way it goes: calls upstream are stopped, and all is given back."""
    model = Scripted(says("a", 1000.0, "b"), SILENT)
    async with served(model) as server:
        wire = await server.connect()
        await wire.ask("stream", prompt="Why?")
        await wire.ask("generate", prompt="Why?")
        await wire.ask("batch", prompts=["a"] * 20)
        await wire.ask("subscribe")
        await wire.ask("session.stream", session="s", prompt="Why?")
        await trio.sleep(1)
        assert model.in_flight > 2
        began = trio.current_time()

        match how:
            case "close":
                await wire.stream.aclose()
            case "half-close":
                await wire.stream.send_eof()  # type: ignore[attr-defined]  # of a memory stream
            case "abort":
                await trio.aclose_forcefully(wire.stream)
            case _:
                await wire.socket.aclose()
        await wait_all_tasks_blocked()

        assert trio.current_time() - began < 0.2
        await assert_nothing_held(server.client, model)
        assert server.idle
        assert server.endpoint.connections == 0


async def test_a_peer_that_vanishes_while_a_stalled_stream_waits_takes_it_along(autojump_clock: MockClock) -> None:
    """Nobody waits for the credit of who is gone."""
    model = Scripted(TEN)
    async with served(model) as server:
        wire = await server.connect()
        await wire.ask("stream", prompt="Why?", credit=0)
        await settled(wire)

        await wire.stream.aclose()
        await wait_all_tasks_blocked()

        assert server.idle
        await assert_nothing_held(server.client, model)


async def test_a_turn_is_stored_when_its_events_have_been_sent_not_before(autojump_clock: MockClock) -> None:
    """Without credit for the last events the turn is not stored; the end itself needs none."""
    async with served(Scripted(TEN)) as server:
        wire = await server.connect()
        request = await wire.ask("session.stream", session="s", prompt="Why?", credit=9)
        await settled(wire)
        assert await wire.call("session.history", session="s") is None

        await wire.tell("credit", id=request, n=1)
        assert (await wire.response(request))["result"]["text"] == "0 1 2 3 4 5 6 7 8 9 "

        assert len((await wire.call("session.history", session="s"))["turns"]) == 1


async def test_a_turn_whose_reader_is_gone_is_not_stored(autojump_clock: MockClock) -> None:
    """It leaves the session as it was, and free for the next turn."""
    async with served(Scripted(TEN)) as server:
        wire, other = await server.connect(), await server.connect()
        await wire.ask("session.stream", session="s", prompt="Why?", credit=9)
        await settled(wire)

        await wire.stream.aclose()

        assert (await other.call("session.send", session="s", prompt="Why?"))["text"]
        assert len((await other.call("session.history", session="s"))["turns"]) == 1


async def test_frames_are_whole_messages_of_json(autojump_clock: MockClock) -> None:
    """Also where a model says what no UTF-8 can: half a pair of surrogates."""
    async with served(Scripted(says("a\ud800b"))) as server:
        wire = await server.connect()

        answer = await wire.call("generate", prompt="Why?")

        assert json.dumps(answer["text"]) == r'"a\ufffdb"'
