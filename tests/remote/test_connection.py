"""The client's connection: multiplexed, lost, drained, garbled, silent, cancelled; over a scripted server."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock
from trio_websocket import ConnectionClosed

from tests.remote.fake_server import ANSWER, FakeServer, Peer, answering, client_of, in_progress, open_connections
from wizard_actors import (
    ActorStoppedError,
    DeadlineExceededError,
    End,
    InvalidPromptError,
    NetworkError,
    ParseError,
    Prompt,
    RequestError,
    StreamInterruptedError,
    TextDelta,
    WizardError,
)
from wizard_actors.remote import RemoteClient


def idle(client: RemoteClient) -> bool:
    """Whether nothing is in progress."""
    return in_progress(client) == 0


async def forever(peer: Peer) -> None:
    """Hear everything, and say nothing."""
    while True:
        await peer.hear()


async def leaving(peer: Peer) -> None:
    """Close the connection at once."""
    await trio.lowlevel.checkpoint()


async def failure_of(client: RemoteClient, **options: Any) -> WizardError:  # noqa: ANN401 - handed on as it is
    """Return the error of one request."""
    with pytest.raises(WizardError) as caught:
        await client.generate("Why?", **options)
    return caught.value


# -- many at once


async def test_answers_find_their_requests_in_any_order() -> None:
    """Many requests share one connection, whichever is answered first."""

    async def backwards(peer: Peer) -> None:
        requests = [await peer.hear() for _ in range(20)]
        for request in reversed(requests):
            await peer.answer(request, {**ANSWER, "text": request["params"]["prompt"]})
        await forever(peer)

    answers: dict[str, str] = {}

    async def ask(client: RemoteClient, prompt: str) -> None:
        answers[prompt] = (await client.generate(prompt)).text

    async with client_of(backwards) as (client, server):
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, client, f"q{number}")

        assert answers == {f"q{number}": f"q{number}" for number in range(20)}
        assert server.dials == 1
        assert idle(client)


async def test_options_travel_and_a_deadline_as_it_was_given() -> None:
    """The server gets what the caller gave, and nothing else."""
    async with client_of() as (client, server):
        await client.generate("Why?", route="r", model=None, deadline=2.5, cache="bypass", raw=True)

    assert server.peers[0].heard[0]["params"] == {
        "prompt": "Why?",
        "route": "r",
        "cache": "bypass",
        "raw": True,
        "deadline": 2.5,
    }


# -- lost


async def test_a_lost_connection_is_an_error_and_nothing_is_sent_again() -> None:
    """Whoever waits gets a NetworkError of their own; the next request connects anew."""

    async def script(peer: Peer) -> None:
        if peer.number == 1:
            for _ in range(2):
                await peer.hear()
            await peer.cut()
        else:
            await answering(peer)

    errors: list[WizardError] = []

    async def ask() -> None:
        errors.append(await failure_of(client))

    async with client_of(script) as (client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
        response = await client.generate("Again?")

        assert [type(error) for error in errors] == [NetworkError, NetworkError]
        assert errors[0] is not errors[1]
        assert all(isinstance(error, NetworkError) and error.model == "wizard:8000" for error in errors)
        assert response.text == "Because."
        assert server.dials == 2
        assert [frame["params"]["prompt"] for frame in server.peers[1].heard] == ["Again?"]
        assert idle(client)


async def test_a_stream_that_had_begun_is_interrupted_and_keeps_its_text() -> None:
    """What had come is read first; the error has it all."""

    async def script(peer: Peer) -> None:
        request = await peer.hear()
        await peer.event(request, "Be")
        await peer.event(request, "cau")
        await peer.cut()

    async with client_of(script) as (client, _), client.stream("Why?") as stream:
        read = [await anext(stream), await anext(stream)]
        with pytest.raises(StreamInterruptedError) as caught:
            await anext(stream)

    assert read == [TextDelta("Be"), TextDelta("cau")]
    assert caught.value.partial == "Because"[:5]
    assert isinstance(caught.value.__cause__, NetworkError)


async def test_a_stream_that_had_not_begun_fails_as_any_request() -> None:
    """Without any content there is nothing that was interrupted."""

    async def script(peer: Peer) -> None:
        await peer.hear()
        await peer.cut()

    async with client_of(script) as (client, _), client.stream("Why?") as stream:
        with pytest.raises(NetworkError):
            await anext(stream)


async def next_event(client: RemoteClient) -> object:
    """Return one event of the server's."""
    async with client.subscribe() as events:
        return await anext(events)


@pytest.mark.parametrize(
    "asks",
    [
        lambda client: client.generate_batch(["1", "2"]),
        lambda client: client.warm(["1"]),
        lambda client: client.models(),
        lambda client: client.sessions.list(),
        lambda client: client.sessions.load("s"),
        lambda client: client.session("s").__aenter__(),
        lambda client: client.generate_as("Who?", dict[str, int]),
        next_event,
    ],
)
async def test_every_method_fails_with_the_connection(asks: Callable[[RemoteClient], Awaitable[object]]) -> None:
    """Whatever was asked, it is a NetworkError, and nothing of it is left."""

    async def script(peer: Peer) -> None:
        await peer.hear()
        await peer.cut()

    async with client_of(script) as (client, server):
        with pytest.raises(NetworkError):
            await asks(client)
        assert idle(client)
        assert server.dials == 1


async def test_a_connection_that_broke_while_idle_is_replaced_unseen() -> None:
    """Nobody was waiting, so nobody is told: the next request goes over another one."""

    async def script(peer: Peer) -> None:
        if peer.number > 1:
            await answering(peer)

    async with client_of(script) as (client, server):
        await trio.testing.wait_all_tasks_blocked()

        assert (await client.generate("Why?")).text == "Because."
        assert server.dials == 2


async def test_requests_that_need_a_connection_wait_for_one_dial() -> None:
    """However many ask at once after a loss, one connection is made."""

    async def script(peer: Peer) -> None:
        if peer.number > 1:
            await answering(peer)

    async with client_of(script) as (client, server):
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(client.generate, "Why?")

        assert server.dials == 2


async def test_a_server_that_comes_back_soon_is_reached(autojump_clock: MockClock) -> None:
    """A dial that fails is tried again, three times, for nothing has been sent."""

    async def script(peer: Peer) -> None:
        if peer.number == 1:
            return
        await answering(peer)

    async with client_of(script) as (client, server):
        await trio.testing.wait_all_tasks_blocked()
        connect, failed = server.connect, list[float]()

        async def flaky() -> trio.abc.Stream:
            if len(failed) < 3:
                failed.append(trio.current_time())
                raise ConnectionRefusedError(111, "Connection refused")
            return await connect()

        client._inside.link._connect = flaky

        assert (await client.generate("Why?")).text == "Because."
        assert len(failed) == 3


async def test_a_server_that_stays_away_is_an_error_for_all_who_wait(autojump_clock: MockClock) -> None:
    """After four tries everybody who waited is told, each by an error of their own, and within the timeout."""

    async def gone() -> trio.abc.Stream:
        tries.append(trio.current_time())
        raise ConnectionRefusedError(111, "Connection refused")

    async def ask() -> None:
        errors.append(await failure_of(client))

    tries: list[float] = []
    errors: list[WizardError] = []
    async with client_of(leaving) as (client, _):
        await trio.testing.wait_all_tasks_blocked()
        client._inside.link._connect = gone
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask)

    assert len(tries) == 4
    assert len({id(error) for error in errors}) == 10
    assert {str(error) for error in errors} == {"no connection to the server at wizard:8000: Connection refused"}


# -- draining


async def test_a_draining_server_gets_no_new_requests_and_its_connection_is_closed_at_its_end() -> None:
    """New requests go over another connection; the old one serves its own to the end, and is closed then."""
    drained, closed = trio.Event(), trio.Event()

    async def script(peer: Peer) -> None:
        if peer.number == 1:
            request = await peer.hear()
            await peer.notify("draining", seconds=30)
            await drained.wait()
            await peer.answer(request, {**ANSWER, "text": "old"})
            try:
                await forever(peer)
            finally:
                closed.set()
        else:
            await answering(peer)

    texts: list[str] = []

    async def ask() -> None:
        texts.append((await client.generate("Why?")).text)

    async with client_of(script) as (client, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            await ask()
            assert texts == ["Because."]
            drained.set()
        await closed.wait()
        await trio.testing.wait_all_tasks_blocked()

        assert texts == ["Because.", "old"]
        assert open_connections(client) == 1


async def test_an_idle_connection_is_closed_when_its_server_drains() -> None:
    """A server that stops does not wait for a client that wants nothing."""

    async def script(peer: Peer) -> None:
        await peer.notify("draining", seconds=30)
        await forever(peer)

    async with client_of(script) as (client, server):
        await trio.testing.wait_all_tasks_blocked()

        assert server.open == 0
        assert open_connections(client) == 0


async def test_a_request_that_was_not_begun_is_sent_again_elsewhere() -> None:
    """The refusal of a server that drains says that nothing was begun."""

    async def script(peer: Peer) -> None:
        if peer.number < 3:
            await peer.refuse(await peer.hear(), "actor_stopped", actor="server")
            await forever(peer)
        await answering(peer)

    async with client_of(script) as (client, server):
        assert (await client.generate("Why?")).text == "Because."
        assert server.dials == 3


async def test_a_stream_that_was_not_begun_is_sent_again_elsewhere() -> None:
    """A stream is a request as any other, until its first event."""

    async def script(peer: Peer) -> None:
        request = await peer.hear()
        if peer.number == 1:
            await peer.refuse(request, "actor_stopped", actor="server")
            await forever(peer)
        await peer.event(request, "Because.")
        await peer.answer(request)

    async with client_of(script) as (client, _), client.stream("Why?") as stream:
        assert [text async for text in stream.text()] == ["Because."]


async def test_a_request_that_nobody_begins_fails_in_the_end() -> None:
    """It is sent four times at most, then the refusal is raised."""

    async def script(peer: Peer) -> None:
        await peer.refuse(await peer.hear(), "actor_stopped", actor="server")
        await forever(peer)

    async with client_of(script) as (client, server):
        error = await failure_of(client)

        assert isinstance(error, ActorStoppedError)
        assert error.actor == "server"
        assert server.dials == 4
        assert idle(client)


async def test_another_actor_that_stopped_is_an_error_at_once() -> None:
    """Only the server's own word says that nothing was begun."""

    async def script(peer: Peer) -> None:
        await peer.refuse(await peer.hear(), "actor_stopped", actor="wizard/models/m")
        await forever(peer)

    async with client_of(script) as (client, server):
        assert isinstance(await failure_of(client), ActorStoppedError)
        assert server.dials == 1


async def test_what_a_draining_server_leaves_unanswered_was_not_begun() -> None:
    """A server that drains closes with 1001 once all that it had begun is answered: a request that crossed with that
    is sent again.
    """

    async def script(peer: Peer) -> None:
        if peer.number > 1:
            await answering(peer)
        await peer.hear()
        await peer.notify("draining", seconds=30)
        await peer.socket.aclose(1001, "the server stops")

    async with client_of(script) as (client, _):
        assert (await client.generate("Why?")).text == "Because."


async def test_a_server_that_leaves_without_draining_is_an_error() -> None:
    """Nobody knows what became of a request that is in progress then."""

    async def script(peer: Peer) -> None:
        await peer.hear()
        await peer.socket.aclose(1001, "bye")

    async with client_of(script) as (client, _):
        assert str(await failure_of(client)).endswith("the server closed it with code 1001 (bye)")


# -- what a server should not send


@pytest.mark.parametrize(
    "garbage",
    ["{", "[]", '{"jsonrpc": "1.0", "method": "event"}', '{"jsonrpc": "2.0", "id": true, "result": 1}'],
)
async def test_a_frame_that_cannot_be_read_closes_the_connection(garbage: str) -> None:
    """Everybody in progress gets a ParseError, and the server is told by the close code."""
    codes: list[int] = []

    async def script(peer: Peer) -> None:
        if peer.number > 1:
            await answering(peer)
        await peer.hear()
        await peer.say(garbage)
        with pytest.raises(ConnectionClosed) as caught:
            await forever(peer)
        assert caught.value.reason is not None
        codes.append(caught.value.reason.code)

    async with client_of(script) as (client, _):
        error = await failure_of(client)
        assert isinstance(error, ParseError)
        assert (await client.generate("Why?")).text == "Because."
    assert codes == [1002]


async def test_a_message_that_is_too_long_closes_the_connection() -> None:
    """Nothing of a message beyond `max_message_size` is kept."""

    async def script(peer: Peer) -> None:
        request = await peer.hear()
        await peer.answer(request, {**ANSWER, "text": "x" * 3000})

    async with client_of(script, max_message_size=2000) as (client, _):
        error = await failure_of(client)

    assert isinstance(error, ParseError)
    assert "2,000 characters (max_message_size)" in str(error)


async def test_unknown_and_repeated_answers_are_dropped() -> None:
    """Answers to nobody, or to who has one already, change nothing."""

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.hear()
            await peer.answer("nobody", {})
            await peer.notify("event", id="nobody", event={"type": "text", "text": "?"})
            await peer.notify("news", of="tomorrow")
            await peer.answer(request)
            await peer.answer(request, {**ANSWER, "text": "twice"})

    async with client_of(script) as (client, server):
        texts = [(await client.generate("Why?")).text for _ in range(3)]

    assert texts == ["Because."] * 3
    assert server.dials == 1


async def test_an_event_of_an_unknown_kind_is_passed_over() -> None:
    """A newer server may have more kinds of event."""

    async def script(peer: Peer) -> None:
        request = await peer.hear()
        await peer.notify("event", id=request["id"], event={"type": "applause", "loud": True})
        await peer.event(request, "Because.")
        await peer.answer(request)

    async with client_of(script) as (client, _), client.stream("Why?") as stream:
        events = [event async for event in stream]

    assert events[0] == TextDelta("Because.")
    assert isinstance(events[1], End)
    assert len(events) == 2


@pytest.mark.parametrize("method", ["stream", "generate"])
async def test_more_events_than_there_is_credit_for_close_the_connection(method: str) -> None:
    """The client's memory is bounded by what it has granted; a request without events has none."""

    async def script(peer: Peer) -> None:
        request = await peer.hear()
        for _ in range(33 if method == "stream" else 1):
            await peer.event(request, "more")
        await forever(peer)

    async with client_of(script) as (client, _):
        if method == "generate":
            assert isinstance(await failure_of(client), ParseError)
            return
        async with client.stream("Why?") as stream:
            await anext(stream)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(ParseError, match="credit"):
                async for _ in stream:
                    pass


async def test_a_request_that_the_server_cannot_read_fails_and_so_do_those_beside_it() -> None:
    """An error without an id is of one of them, and nobody knows which."""

    async def script(peer: Peer) -> None:
        await peer.hear()
        await peer.refuse(None, "protocol", number=-32700)
        await forever(peer)

    async with client_of(script) as (client, _):
        assert isinstance(await failure_of(client), RequestError)


async def test_an_answer_that_cannot_be_read_is_an_error_of_its_own_request() -> None:
    """The connection serves the others still."""

    async def script(peer: Peer) -> None:
        await peer.answer(await peer.hear(), {"text": 1})
        await answering(peer)

    async with client_of(script) as (client, server):
        assert isinstance(await failure_of(client), ParseError)
        assert (await client.generate("Why?")).text == "Because."
        assert server.dials == 1


async def test_what_json_cannot_hold_is_refused_here() -> None:
    """Nothing is sent of it."""
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    async with client_of() as (client, server):
        with pytest.raises(InvalidPromptError):
            await client.generate(Prompt("Why?", extra={"deep": deep}))
        assert server.peers[0].heard == []


# -- streams and credit


async def test_credit_is_topped_up_as_the_consumer_reads() -> None:
    """Half of it is granted anew when half is read; more is never outstanding."""
    total = 100

    async def script(peer: Peer) -> None:
        request = await peer.hear()
        credit = request["params"]["credit"]
        assert credit == 32
        for number in range(total):
            while credit == 0:
                frame = await peer.hear("credit")
                assert frame["params"]["id"] == request["id"]
                credit += frame["params"]["n"]
                assert credit <= 32
            await peer.event(request, str(number))
            credit -= 1
        await peer.answer(request)

    async with client_of(script) as (client, _), client.stream("Why?") as stream:
        texts = [text async for text in stream.text()]

    assert texts == [str(number) for number in range(total)]
    assert stream.response.text == "Because."


async def test_a_stream_that_is_not_read_stalls_nobody_else() -> None:
    """Its events stand in its own buffer, bounded by its credit; other requests are answered."""

    async def script(peer: Peer) -> None:
        slow = await peer.hear("stream")
        for _ in range(32):
            await peer.event(slow, "x")
        await answering(peer)

    async with client_of(script) as (client, _), client.stream("Slow") as stream:
        await anext(stream)

        assert (await client.generate("Why?")).text == "Because."


async def test_a_stream_that_is_left_early_is_cancelled() -> None:
    """The server is told, and what still comes is dropped."""
    told = trio.Event()

    async def script(peer: Peer) -> None:
        request = await peer.hear()
        await peer.event(request, "Be")
        await peer.hear("cancel")
        told.set()
        await peer.event(request, "late")
        await peer.refuse(request, "cancelled", number=-32800)
        await answering(peer)

    async with client_of(script) as (client, server):
        async with client.stream("Why?") as stream:
            await anext(stream)
        assert idle(client)
        await told.wait()

        assert (await client.generate("Why?")).text == "Because."
        assert server.dials == 1


# -- cancels and deadlines


async def test_a_cancelled_caller_returns_at_once_and_the_server_is_told() -> None:
    """The late answer is dropped."""
    told: list[str] = []
    heard = trio.Event()

    async def script(peer: Peer) -> None:
        request = await peer.hear()
        told.append((await peer.hear("cancel"))["params"]["id"])
        heard.set()
        await peer.answer(request)
        await answering(peer)

    async with client_of(script) as (client, server):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.generate, "Why?")
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert idle(client)
        await heard.wait()
        assert (await client.generate("Why?")).text == "Because."

        assert told == [server.peers[0].heard[0]["id"]]


async def test_a_storm_of_cancels_leaves_nothing(autojump_clock: MockClock) -> None:
    """After 500 requests that are cancelled at any point, each that was sent was answered or cancelled."""

    async def script(peer: Peer) -> None:
        while True:
            frame = await peer.hear()
            if frame["method"] == "generate" and len(peer.heard) % 3 == 0:
                await peer.answer(frame)

    async def ask(client: RemoteClient, number: int) -> None:
        with trio.move_on_after(0.001 * (number % 7)):
            await client.generate("Why?")

    async with client_of(script) as (client, server):
        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(ask, client, number)
        await trio.testing.wait_all_tasks_blocked()

        assert idle(client)
        heard = server.peers[0].heard
        sent = {frame["id"] for frame in heard if frame["method"] == "generate"}
        cancelled = {frame["params"]["id"] for frame in heard if frame["method"] == "cancel"}
        assert cancelled <= sent
        assert len(cancelled) >= len(sent) // 2
        [connection] = client._inside.link._open
        assert not connection._cancels
        assert not connection._credits


async def test_notes_to_a_server_that_does_not_read_stay_bounded(autojump_clock: MockClock) -> None:
    """Whoever is cancelled while the writer is held up has sent nothing, so there is nothing to say of them."""

    async def ask(client: RemoteClient) -> None:
        with trio.move_on_after(0.1):
            await client.generate("Why?")

    async with client_of(forever) as (client, server):
        server.slow_down(trio.sleep_forever)
        for _ in range(5):
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(ask, client)
        [connection] = client._inside.link._open

        assert idle(client)
        assert len(connection._cancels) <= 2  # of the one that the writer has, and the first one after it
        assert len(server.peers[0].heard) <= 1


async def test_a_server_that_says_nothing_cannot_hold_a_caller_beyond_the_deadline(autojump_clock: MockClock) -> None:
    """The client's own bound comes 5 seconds after the server's."""
    async with client_of(forever) as (client, _):
        began_at = trio.current_time()
        error = await failure_of(client, deadline=3.0)

        assert isinstance(error, DeadlineExceededError)
        assert error.deadline == 3.0
        assert trio.current_time() - began_at == pytest.approx(8.0)
        assert idle(client)


async def test_a_dead_connection_is_found_without_a_deadline(autojump_clock: MockClock) -> None:
    """A ping every 20 seconds has 20 seconds to be answered."""

    async def deaf(peer: Peer) -> None:
        await peer.hear()
        peer.socket._reader_running = False  # nobody answers pings any more
        await trio.sleep_forever()

    async with client_of(deaf) as (client, _):
        began_at = trio.current_time()
        error = await failure_of(client)

        assert isinstance(error, NetworkError)
        assert "has sent nothing for 20 s" in str(error)
        assert trio.current_time() - began_at <= 61


async def test_a_connection_that_answers_pings_lasts(autojump_clock: MockClock) -> None:
    """A slow model is no dead server."""

    async def slow(peer: Peer) -> None:
        request = await peer.hear()
        with trio.move_on_after(300):
            await forever(peer)
        await peer.answer(request)
        await forever(peer)

    async with client_of(slow) as (client, server):
        assert (await client.generate("Why?")).text == "Because."
        assert server.dials == 1


# -- the end


async def test_leaving_ends_what_is_in_progress_and_closes_the_connection() -> None:
    """Nothing is left: no task, no connection; whoever still waits is told."""
    errors: list[WizardError] = []
    codes: list[int] = []

    async def script(peer: Peer) -> None:
        try:
            await forever(peer)
        finally:
            assert peer.socket.closed is not None
            codes.append(peer.socket.closed.code)

    async with trio.open_nursery() as nursery, client_of(script) as (client, server):

        async def ask() -> None:
            errors.append(await failure_of(client))

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()

    assert [type(error) for error in errors] == [ActorStoppedError]
    assert codes == [1000]
    assert server.open == 0
    assert open_connections(client) == 0
    with pytest.raises(ActorStoppedError, match="closed"):
        await client.generate("Why?")


async def test_leaving_does_not_wait_for_a_server_that_does_not_answer(autojump_clock: MockClock) -> None:
    """Closing takes a second at most, cancelled or not."""

    async def deaf(peer: Peer) -> None:
        peer.socket._reader_running = False
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        server = FakeServer(nursery, deaf)
        with trio.CancelScope() as scope:
            async with client_of(deaf) as (_, server):
                await trio.testing.wait_all_tasks_blocked()
                began_at = trio.current_time()
                scope.cancel()

    assert trio.current_time() - began_at <= 1.0
    assert server.open == 0


async def test_an_error_in_the_block_is_raised_as_it_is() -> None:
    """The client adds no group round it."""
    with pytest.raises(ExceptionGroup) as caught:  # the fake server's own nursery
        async with client_of():
            raise ValueError("mine")
    [error] = caught.value.exceptions
    assert type(error) is ValueError
