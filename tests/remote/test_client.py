"""The client against the real endpoint: everything that `ResilientClient` does, over the wire."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from tests.models import Scripted, says
from tests.remote.fake_server import in_progress
from tests.server.wire import Served, key, served
from wizard_actors import (
    AccessDeniedError,
    ConfigError,
    DeadlineExceededError,
    End,
    InvalidPromptError,
    InvalidStateTransitionError,
    Message,
    ModelConfig,
    NetworkError,
    Prompt,
    ResilientClient,
    RetryError,
    SessionConflictError,
    SessionNotInitializedError,
    SessionState,
    StreamInterruptedError,
    TextDelta,
    Tool,
    ToolCallDelta,
    WizardConfig,
    WizardError,
    WizardResponse,
)
from wizard_actors.client import ClientBlock
from wizard_actors.config import CacheConfig, SimulatedConfig
from wizard_actors.config.secret import Secret
from wizard_actors.embed.place import Place
from wizard_actors.remote import RemoteClient
from wizard_actors.remote.address import Address
from wizard_actors.remote.trio_remote import TrioRemote
from wizard_actors.server.service import Service
from wizard_actors.server.websocket import WebSocketEndpoint


@asynccontextmanager
async def client_of(server: Served, bearer: str | None = None) -> AsyncIterator[RemoteClient]:
    """Open a client of a server in memory."""

    async def connect() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return server.raw()

    address = Address("wizard", 8000, key=None if bearer is None else Secret(bearer))
    async with ClientBlock(
        RemoteClient, partial(TrioRemote.open, lambda: address, connect=connect, rng=Random(0)), Place("", 0)
    ) as client:
        yield client


@asynccontextmanager
async def remote(*turns: Any, **settings: Any) -> AsyncIterator[tuple[RemoteClient, Served]]:  # noqa: ANN401 - handed on as it is
    """Open a client of a server whose one model plays `turns`."""
    async with served(Scripted(*turns), **settings) as server, client_of(server) as client:
        yield client, server


def comparable(response: WizardResponse) -> WizardResponse:
    """Return a response without what differs from one time to the next."""
    attempts = tuple(attrs.evolve(attempt, start=0.0, duration=0.0, delay=0.0) for attempt in response.attempts)
    return attrs.evolve(response, request_id="", attempts=attempts)


# -- asking


async def test_a_response_is_the_same_as_without_a_wire(autojump_clock: MockClock) -> None:
    """All that an embedded client says of an answer comes over the wire, but for ids and times."""
    model = ModelConfig(name="m", provider="simulated", simulated=SimulatedConfig(answer="One task, one state."))
    config = WizardConfig(models=[model])
    async with ResilientClient.open(config, rng=Random(1)) as embedded:
        expected = await embedded.generate("Why?", raw=True)
    async with served({}, model) as server, client_of(server) as client:
        found = await client.generate("Why?", raw=True)
        async with client.stream("Why?", raw=True) as stream:
            text = "".join([piece async for piece in stream.text()])

    assert comparable(found) == comparable(expected)
    assert comparable(stream.response) == comparable(expected)
    assert text == expected.text


async def test_an_error_is_raised_as_without_a_wire(autojump_clock: MockClock) -> None:
    """Its class, its facts, its attempts and what it came from."""
    async with remote(says(NetworkError("no route", model="a"))) as (client, _):
        with pytest.raises(WizardError) as caught:
            await client.generate("Why?")

    assert [type(attempt.error) for attempt in caught.value.attempts][:1] == [NetworkError]
    assert isinstance(caught.value, RetryError | NetworkError)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"route": "nowhere"}, "nowhere"),
        ({"deadline": 0}, "deadline"),
        ({"strategy": "luck"}, "luck"),
        ({"tenant": "t"}, "tenant"),
        ({"color": "red"}, "color"),
    ],
)
async def test_wrong_options_are_a_config_error(options: Any, said: str) -> None:  # noqa: ANN401 - handed on as it is
    """Here or there, whoever finds it first."""
    async with remote(says("x")) as (client, _):
        with pytest.raises(ConfigError, match=said):
            await client.generate("Why?", **options)


async def test_a_prompt_that_is_none_is_refused_here() -> None:
    """A list of messages is no prompt."""
    async with remote(says("x")) as (client, _):
        with pytest.raises(InvalidPromptError, match="not list"):
            await client.generate(["Why?"])  # type: ignore[arg-type]


async def test_the_servers_word_on_a_deadline_counts(autojump_clock: MockClock) -> None:
    """The server is there in time, and says what was tried."""
    async with remote(says(100.0, "late")) as (client, server):
        began_at = trio.current_time()
        with pytest.raises(DeadlineExceededError) as caught:
            await client.generate("Why?", deadline=2.0)

        assert caught.value.deadline == 2.0
        assert trio.current_time() - began_at == pytest.approx(2.0)
        assert server.idle


async def test_a_cancelled_call_stops_upstream(autojump_clock: MockClock) -> None:
    """The server stops the model, and gives everything back."""
    async with remote(says(100.0, "late")) as (client, server):
        with trio.move_on_after(1.0):
            await client.generate("Why?")
        await trio.testing.wait_all_tasks_blocked()

        assert server.idle


async def test_a_stream_that_is_left_stops_upstream(autojump_clock: MockClock) -> None:
    """Leaving its block early is a cancel."""
    async with remote(says("Be", 100.0, "cause")) as (client, server):
        async with client.stream("Why?") as stream:
            assert await anext(stream) == TextDelta("Be")
        await trio.testing.wait_all_tasks_blocked()

        assert server.idle


async def test_a_long_stream_comes_whole(autojump_clock: MockClock) -> None:
    """Far more events than the first credit, through real credit on both sides."""
    pieces = [f"{number} " for number in range(500)]
    async with remote(says(*pieces)) as (client, _), client.stream("Count") as stream:
        events = [event async for event in stream]

    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "".join(pieces)
    assert isinstance(events[-1], End)
    assert stream.response.text == "".join(pieces)


@attrs.frozen
class Person:
    """What is asked for."""

    name: str
    age: int


async def test_an_answer_becomes_a_value_here(autojump_clock: MockClock) -> None:
    """The schema is made, and the answer read and repaired, by the client."""
    async with remote(says('{"name": "Ada"}'), says('{"name": "Ada", "age": 36}')) as (client, _):
        structured = await client.generate_as("Who?", Person, deadline=10.0)

    assert structured.value == Person("Ada", 36)
    assert len(structured.response.attempts) == 2


# -- batches


async def test_a_batch_has_an_outcome_for_each_prompt_in_order(autojump_clock: MockClock) -> None:
    """Answers and errors, each in its place; progress is told after each."""
    told: list[tuple[int, int | None]] = []
    turns = [says("a"), says(InvalidPromptError("not that")), says("c")]
    async with remote(*turns) as (client, _):
        outcomes = await client.generate_batch(
            ["1", "2", "3"], max_concurrency=1, on_progress=lambda done, total: told.append((done, total))
        )

    texts = [each.text if isinstance(each, WizardResponse) else type(each) for each in outcomes]
    assert texts == ["a", InvalidPromptError, "c"]
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.long
async def test_a_large_batch_travels_in_parts(autojump_clock: MockClock) -> None:
    """Prompts that come one by one, more than one request takes; nobody knows their total."""

    async def prompts() -> AsyncIterator[str]:
        for number in range(1500):
            await trio.lowlevel.checkpoint()
            yield f"{number}"

    told: list[int | None] = []
    async with remote(says("x")) as (client, _):
        outcomes = await client.generate_batch(prompts(), on_progress=lambda _done, total: told.append(total))

    assert len(outcomes) == 1500
    assert set(told) == {None}
    assert len(told) == 1500


async def test_an_empty_batch_asks_nobody() -> None:
    """There is nothing to be sent."""
    async with remote(says("x")) as (client, _):
        assert await client.generate_batch([]) == []


# -- sessions


async def test_a_session_goes_on_from_turn_to_turn(autojump_clock: MockClock) -> None:
    """What was asked here is in its history at once, and what is stored equals it."""
    async with remote(says("One."), says("Two.")) as (client, _):
        async with client.session("alice", system="Be brief") as session:
            assert session.record.system == "Be brief"
            await session.send("First?")
            async with session.stream("Second?") as stream:
                assert [text async for text in stream.text()] == ["Two."]
            seen = session.history
            await session.refresh()

            assert session.history == seen
            assert [message.text for message in seen] == ["First?", "One.", "Second?", "Two."]
            assert session.record.state is SessionState.ACTIVE
        stored = await client.sessions.load("alice")
        assert stored is not None
        assert stored.messages == seen


async def test_a_turn_can_begin_with_the_results_of_tools(autojump_clock: MockClock) -> None:
    """Messages alone, with `like` for the tools that they answer."""
    call = ToolCallDelta(0, id="c1", name="look", arguments="{}")
    tools = Prompt("Look", tools=[Tool("look", "Looks", {"type": "object"})])
    async with remote(says(call), says("Seen.")) as (client, _), client.session("alice") as session:
        asked = await session.send(tools)
        result = Message("tool", "a cat", tool_call_id=asked.tool_calls[0].id)
        answer = await session.send(result, like=tools)

        assert answer.text == "Seen."
        assert len(session.history) == 4


async def test_sessions_are_listed_page_by_page_and_removed(autojump_clock: MockClock) -> None:
    """The next page is after the last of this one."""
    async with remote(says("x")) as (client, _):
        for name in ("a1", "a2", "b1"):
            async with client.session(name) as session:
                await session.send("?")
        first = await client.sessions.list(limit=1, prefix="a")
        second = await client.sessions.list(limit=5, prefix="a", after=first[-1])
        removed = [await client.sessions.delete("a1"), await client.sessions.delete("a1")]

        assert {each.id for each in (*first, *second)} == {"a1", "a2"}
        assert removed == [True, False]
        assert await client.sessions.load("a1") is None


async def test_a_session_that_somebody_else_deleted_does_not_begin_anew_by_itself(autojump_clock: MockClock) -> None:
    """Its system prompt and its history would be gone, without a word; `refresh` says that one may."""
    async with remote(says("x")) as (client, _), client.session("alice", system="Be brief") as session:
        await session.send("Why?")
        await client.sessions.delete("alice")
        with pytest.raises(SessionConflictError):
            await session.send("And?")
        await session.refresh()
        await session.send("Why?")

        assert len(session.history) == 2


async def test_a_session_with_nothing_in_its_context_begins(autojump_clock: MockClock) -> None:
    """An empty one says nothing, and so nothing is stored before the first turn."""
    async with remote(says("x")) as (client, _), client.session("alice", context={}) as session:
        assert (await session.send("Why?")).text == "x"


async def test_a_deleted_session_begins_anew(autojump_clock: MockClock) -> None:
    """Its history is empty at once."""
    async with remote(says("x")) as (client, _), client.session("alice") as session:
        await session.send("?")

        assert await session.delete()
        assert session.history == ()
        assert not await session.delete()


async def test_a_session_is_used_inside_its_block() -> None:
    """Before and after, it says so."""
    async with remote(says("x")) as (client, _):
        session = client.session("alice")
        with pytest.raises(SessionNotInitializedError):
            await session.send("?")
        with pytest.raises(SessionNotInitializedError):
            _ = session.history
        async with session:
            pass
        with pytest.raises(SessionNotInitializedError):
            session.stream("?")
        with pytest.raises(InvalidStateTransitionError):
            await session.__aenter__()


# -- the server


async def test_the_server_can_be_looked_at() -> None:
    """What may be used, the tree, the counts: mappings, as the server sends them."""
    async with remote(says("x")) as (client, _):
        await client.generate("Why?")

        assert (await client.models())["models"]
        assert await client.tree()
        assert await client.stats()


async def test_the_cache_is_filled_and_emptied() -> None:
    """What is stored, was there already, and was dropped."""
    async with remote(says("x"), cache=CacheConfig(max_entries=10)) as (client, _):
        first = await client.warm(["1", "2"])
        again = await client.warm(["1", "3"], max_concurrency=1)

        assert (first.stored, first.already) == (2, 0)
        assert (again.stored, again.already) == (1, 1)
        assert await client.invalidate() == 3
        assert await client.invalidate("nobody") == 0


async def test_what_could_not_be_stored_has_its_number_and_error(autojump_clock: MockClock) -> None:
    """As `ResilientClient.warm` tells it."""
    async with remote(says(InvalidPromptError("not that")), cache=CacheConfig(max_entries=10)) as (client, _):
        warmed = await client.warm(["1"])

    assert [(index, type(error)) for index, error in warmed.failed] == [(0, InvalidPromptError)]


async def test_events_are_told_while_the_block_lasts() -> None:
    """Of the kinds that were asked for."""
    async with remote(says("x")) as (client, server):
        async with client.subscribe() as events:
            await client.generate("Why?")
            event = await anext(events)
        await trio.testing.wait_all_tasks_blocked()

        assert isinstance(event["type"], str)
        assert server.service.admission.in_progress == 0
        with pytest.raises(StopAsyncIteration):
            await anext(events)


# -- access


async def test_a_key_gets_what_is_its_own() -> None:
    """Its sessions are seen by nobody else; what only admins may do is refused."""
    keys: Sequence[Any] = [key("alice"), key("bob")]
    async with (
        served(Scripted(says("x")), keys=keys) as server,
        client_of(server, "wz_alice") as alice,
        client_of(server, "wz_bob") as bob,
    ):
        async with alice.session("mine") as session:
            await session.send("?")

        assert [each.id for each in await alice.sessions.list()] == ["mine"]
        assert await bob.sessions.list() == []
        with pytest.raises(AccessDeniedError) as caught:
            await alice.tree()
        assert caught.value.key == "alice"
        with pytest.raises(AccessDeniedError):
            async with alice.subscribe() as events:
                await anext(events)


async def test_a_wrong_key_is_an_error_when_the_client_is_opened() -> None:
    """It is not tried again."""
    async with served(Scripted(says("x")), keys=[key("alice")]) as server:
        for bearer in ("wz_wrong", None):
            with pytest.raises(AccessDeniedError):
                async with client_of(server, bearer):
                    pass


# -- the life of a server


async def test_a_server_that_drains_lets_requests_finish(autojump_clock: MockClock) -> None:
    """What was begun is answered; what comes then finds nobody here."""
    async with remote(says("Be", 2.0, "cause")) as (client, server):
        async with client.stream("Why?") as stream:
            await anext(stream)
            server.service.draining.set()
            text = [piece async for piece in stream.text()]

        assert text == ["cause"]
        with pytest.raises(WizardError):
            await client.generate("Why?")


# -- a connection that is cut at any point


class Cut(trio.abc.Stream):
    """A stream that breaks after so many bytes have come; `left` counts them down."""

    def __init__(self, stream: trio.abc.Stream, left: int) -> None:
        self.left = left
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(min(self.left, max_bytes or 4096)) if self.left else b""
        self.left -= len(data)
        if not data:
            await trio.aclose_forcefully(self._stream)
            raise trio.BrokenResourceError("cut")
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()


async def read_all(client: RemoteClient) -> tuple[str, WizardError | None]:
    """Return what a stream said, and what it ended in where that was no answer."""
    read = ""
    try:
        async with client.stream("Why?") as stream:
            async for text in stream.text():
                read += text
    except WizardError as error:
        return read, error
    return read, None


async def test_a_connection_that_is_cut_anywhere_is_an_error_or_nothing(autojump_clock: MockClock) -> None:
    """After any number of bytes of a stream's answer: the whole answer, or an error with all that had come; the server
    gives everything back, and the next request is answered.
    """
    ends: set[type] = set()
    async with served(Scripted(says("Be", "cau", "se."))) as server:
        for left in range(150, 1500, 15):
            cuts: list[Cut] = []

            async def connect(left: int = left, cuts: list[Cut] = cuts) -> trio.abc.Stream:
                await trio.lowlevel.checkpoint()
                cuts.append(Cut(server.raw(), 10**6 if cuts else left))
                return cuts[-1]

            opening = partial(TrioRemote.open, lambda: Address("wizard", 8000), connect=connect, rng=Random(0))
            async with ClientBlock(RemoteClient, opening, Place("", 0)) as client:
                read, error = await read_all(client)
                cuts[0].left += 10**6  # what was not cut is not cut any more
                again = await client.generate("Why?")
                assert in_progress(client) == 0
            await trio.testing.wait_all_tasks_blocked()

            ends.add(type(error))
            assert again.text == "Because."
            assert read == "Because." if error is None else "Because.".startswith(read)
            assert not isinstance(error, StreamInterruptedError) or (error.partial == read and read)
            assert not isinstance(error, NetworkError) or not read
            assert server.idle
    assert ends == {NetworkError, StreamInterruptedError, type(None)}


@pytest.mark.long
async def test_servers_are_replaced_under_load_without_a_failed_request(autojump_clock: MockClock) -> None:
    """Whatever crosses with a server that drains is answered by it, or by its successor; twenty times over."""
    async with served(Scripted(says(0.013, "Because."))) as server:
        services = [server.service]

        async def connect() -> trio.abc.Stream:
            await trio.sleep(0.003)
            ours, theirs = memory_stream_pair()
            server.nursery.start_soon(WebSocketEndpoint(services[-1]).handle, theirs)
            return ours

        async def ask(client: RemoteClient, number: int) -> None:
            await trio.sleep(number * 0.0007)
            for _ in range(40):
                texts.append((await client.generate("Why?")).text)
                await trio.sleep(0.001 * (number % 5))

        texts: list[str] = []
        opening = partial(TrioRemote.open, lambda: Address("wizard", 8000), connect=connect, rng=Random(0))
        async with ClientBlock(RemoteClient, opening, Place("", 0)) as client, trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, client, number)
            for _ in range(20):
                await trio.sleep(0.0171)
                old = services[-1]
                services.append(Service(old.client, old.access, old.limits))
                old.draining.set()

    assert texts == ["Because."] * 800
