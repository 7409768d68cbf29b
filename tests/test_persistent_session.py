"""Sessions as programs use them: turns, changes, streams, several holders, and what fails before an answer."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.conversations import Shelf
from tests.models import SILENT, USAGE, Calls, Scripted, Turn, assert_nothing_held, client_of, fails, model, node, says
from wizard_actors import (
    ConfigError,
    DeadlineExceededError,
    InvalidPromptError,
    InvalidStateTransitionError,
    MailboxFullError,
    Message,
    NetworkError,
    PersistentSession,
    Prompt,
    SerializationError,
    SessionConflictError,
    SessionNotInitializedError,
    SessionRecord,
    SessionState,
    StorageError,
    TokenLimitError,
    Tool,
    ToolCall,
    TurnRecord,
)
from wizard_actors.config import CacheConfig, PriceConfig, RetryConfig, RouteConfig, SessionsConfig, StreamConfig
from wizard_actors.event_stream import EventStream
from wizard_actors.events import Event, SessionTurn
from wizard_actors.providers.base import Answer, Call
from wizard_actors.types import Finished, FinishReason, TextDelta, ToolCallDelta

BROKEN = NetworkError("the connection broke", model="a")
WEATHER = Tool("weather", description="The weather", parameters={"type": "object"})
CALLS_WEATHER = says(ToolCallDelta(0, id="c1", name="weather", arguments="{}"))


def texts(session: PersistentSession) -> list[str]:
    """Return what was said in a session, in order."""
    return [message.text for message in session.history]


def turns_told(events: EventStream) -> list[SessionTurn]:
    """Return the list to which every `SessionTurn` is added from now on."""
    told: list[SessionTurn] = []

    def note(event: Event) -> None:
        if isinstance(event, SessionTurn):
            told.append(event)

    events.listen(note)
    return told


# -- turns -------------------------------------------------------------------------------------------------------------


async def test_a_turn_goes_on_from_the_ones_before(autojump_clock: MockClock) -> None:
    """The model is shown the system prompt, what was said before, and the new question."""
    provider = Scripted(says("one"), says("two"))

    async with client_of(provider) as client, client.session("alice", system="Be brief") as session:
        first = await session.send("1?")
        second = await session.send("2?")

    assert (first.text, second.text) == ("one", "two")
    assert [call.prompt for call in provider.calls] == ["Be brief1?", "Be brief1?one2?"]
    assert texts(session) == ["1?", "one", "2?", "two"]


async def test_a_session_goes_on_in_another_client(autojump_clock: MockClock) -> None:
    """Everything of it is there again: turns, settings, and what the turns cost."""
    shelf, provider = Shelf(), Scripted(says("one", USAGE))
    priced = model(price=PriceConfig(input=1, output=2))
    async with (
        client_of(provider, priced, storage=shelf.open) as client,
        client.session("alice", system="Be brief", context={"user": 7}) as session,
    ):
        response = await session.send("1?")

    async with client_of(provider, priced, storage=shelf.open) as client, client.session("alice") as session:
        assert texts(session) == ["1?", "one"]
        assert (session.system, session.context, session.state) == ("Be brief", {"user": 7}, SessionState.ACTIVE)
        assert (session.cost, session.usage) == (response.cost, response.usage)
        assert session.record.turns[0].request_id == response.request_id


async def test_nothing_is_stored_or_opened_before_it_is_needed(autojump_clock: MockClock) -> None:
    """A client without sessions opens no storage; a session without a turn is not stored."""
    shelf = Shelf()
    async with client_of(Scripted(), storage=shelf.open) as client:
        await client.generate("Why?")
        assert shelf.opened == 0

        async with client.session("alice", system="Be brief") as session:
            assert session.state is SessionState.CREATED

        assert (shelf.opened, shelf.saves) == (1, 0)
        assert list(await client.sessions.list()) == []


async def test_a_turn_is_stored_before_it_is_acknowledged(autojump_clock: MockClock) -> None:
    """While the storage takes its time, `send` has not returned."""
    shelf, acknowledged = Shelf(), []
    shelf.fault = lambda _record: 3.0

    async with client_of(Scripted(), storage=shelf.open) as client, client.session("alice") as session:
        began = trio.current_time()
        await session.send("Why?")
        acknowledged.append(trio.current_time() - began)

    assert acknowledged == [3.0]
    assert shelf.saves == 1


async def test_a_failed_turn_leaves_the_session_as_it_was(autojump_clock: MockClock) -> None:
    """The error is the call's own; nothing is stored, the lease is back, and the next turn goes well."""
    shelf, events = Shelf(), EventStream()
    told = turns_told(events)
    provider = Scripted(says("one"), fails(BROKEN), says("three"))
    broken = model(retry=RetryConfig(max_attempts=1))

    async with client_of(provider, broken, storage=shelf.open, events=events) as client:
        async with client.session("alice") as session:
            await session.send("1?")
            before = session.record
            with pytest.raises(NetworkError):
                await session.send("2?")

            assert session.record == before
            assert await client.sessions.load("alice") == before
            await session.send("3?")
        await assert_nothing_held(client, provider)

    assert texts(session) == ["1?", "one", "3?", "three"]
    assert [(event.outcome, event.turns) for event in told] == [("stored", 1), ("failed", 1), ("stored", 2)]


async def test_a_cancelled_turn_leaves_the_session_as_it_was(autojump_clock: MockClock) -> None:
    """The call is stopped upstream, the lease is back at once, nothing is stored, and the event says so."""
    shelf, events = Shelf(), EventStream()
    told = turns_told(events)
    provider = Scripted(SILENT, says("two"))

    async with client_of(provider, storage=shelf.open, events=events) as client, client.session("alice") as session:
        with trio.move_on_after(1):
            await session.send("1?")
        assert shelf.saves == 0
        await session.send("2?")
        await assert_nothing_held(client, provider)

    assert texts(session) == ["2?", "two"]
    assert [event.outcome for event in told] == ["cancelled", "stored"]


async def test_a_turn_that_is_cancelled_while_it_is_stored_is_stored_whole(autojump_clock: MockClock) -> None:
    """The answer came, and is paid for: the store takes it before the cancellation is felt."""
    shelf = Shelf()
    shelf.fault = lambda _record: 2.0

    async with client_of(Scripted(says("one")), storage=shelf.open) as client:
        async with client.session("alice") as session:
            with trio.move_on_after(1) as scope:
                await session.send("1?")
            assert scope.cancelled_caught or trio.current_time() >= 2
            assert texts(session) == ["1?", "one"]
        await assert_nothing_held(client)

    assert shelf.saves == 1


async def test_turns_of_one_session_run_one_after_the_other(autojump_clock: MockClock) -> None:
    """Two holders ask at once: the second is asked when the first is stored, and goes on from it."""
    provider = Scripted(says(2.0, "one"), says("two"))

    async with (
        client_of(provider) as client,
        client.session("alice") as here,
        client.session("alice") as there,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(here.send, "1?")
        await wait_all_tasks_blocked()
        nursery.start_soon(there.send, "2?")

    assert [call.prompt for call in provider.calls] == ["1?", "1?one2?"]
    assert provider.calls[1].start >= provider.calls[0].end
    assert texts(there) == ["1?", "one", "2?", "two"]


async def test_turns_of_different_sessions_run_at_once(autojump_clock: MockClock) -> None:
    """Thirty sessions take as long as one."""

    async def talk(name: str) -> None:
        async with client.session(name) as session:
            await session.send("Why?")

    async with client_of(Scripted(says(5.0, "because"))) as client:
        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(talk, f"user {number}")
        assert trio.current_time() == pytest.approx(5.0)
        assert len(await client.sessions.list(limit=200)) == 30


async def test_a_deadline_bounds_the_wait_for_the_turn_too(autojump_clock: MockClock) -> None:
    """Behind a turn that takes long, a call gives up in its time, with nothing sent."""
    provider = Scripted(says(30.0, "one"))

    async with client_of(provider) as client, client.session("alice") as session, trio.open_nursery() as nursery:
        nursery.start_soon(session.send, "1?")
        await wait_all_tasks_blocked()
        with pytest.raises(DeadlineExceededError, match="'alice': a turn is in progress"):
            await session.send("2?", deadline=3)

        assert trio.current_time() == pytest.approx(3.0)
        assert len(provider.calls) == 1


async def test_too_many_turns_of_one_session_are_refused(autojump_clock: MockClock) -> None:
    """One runs, 16 wait, one more is told so at once; other sessions are served."""
    calls = Calls()

    async def ask(session: PersistentSession) -> None:
        try:
            calls.answers.append(await session.send("Why?"))
        except MailboxFullError as error:
            calls.errors.append(error)

    async with (
        client_of(Scripted(says(1.0, "because"))) as client,
        client.session("alice") as session,
        trio.open_nursery() as nursery,
    ):
        for _ in range(20):
            nursery.start_soon(ask, session)
        await wait_all_tasks_blocked()
        assert len(calls.errors) == 3
        async with client.session("bob") as other:
            assert (await other.send("Why?")).text == "because"

    assert len(calls.answers) == 17


# -- what is asked -----------------------------------------------------------------------------------------------------


async def test_tools_are_called_over_several_turns(autojump_clock: MockClock) -> None:
    """The results go with the calls, asked as the first question was; undoing takes the whole round back."""
    provider = Scripted(CALLS_WEATHER, says("Sunny"))
    question = Prompt("The weather?", tools=[WEATHER])

    async with client_of(provider) as client, client.session("alice") as session:
        called = await session.send(question)
        answer = await session.send(Message("tool", "sun", tool_call_id="c1"), like=question)
        roles = [str(message.role) for message in session.history]
        taken = await session.undo()

    assert called.tool_calls == (ToolCall("c1", "weather", "{}"),)
    assert answer.text == "Sunny"
    assert roles == ["user", "assistant", "tool", "assistant"]
    assert (len(taken), session.history) == (2, ())


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (Prompt("Why?", system="Be brief"), "a system prompt of its own"),
        ("   ", "the prompt is empty"),
        ([], "a turn begins with"),
        (["Why?"], "a turn begins with"),
        (Message("tool", "sun", tool_call_id="c9"), "no message before it makes that call"),
    ],
)
async def test_what_cannot_be_asked_is_refused_before_anything_is_sent(
    autojump_clock: MockClock, said: str | Prompt | Message | list[Message], told: str
) -> None:
    """The error says why, and the session goes on."""
    provider = Scripted()

    async with client_of(provider) as client, client.session("alice") as session:
        with pytest.raises(InvalidPromptError, match=told):
            await session.send(said)
        assert provider.calls == []
        await session.send("Why?")
        await assert_nothing_held(client, provider)


async def test_the_session_says_whom_to_ask_where_a_turn_does_not(autojump_clock: MockClock) -> None:
    """The stored route and model hold for each turn; a turn's own options count more."""
    a, b, c = Scripted(says("a")), Scripted(says("b")), Scripted(says("c"))
    routes = [RouteConfig(name="second", chain=("b",))]

    async with (
        client_of({"a": a, "b": b, "c": c}, routes=routes) as client,
        client.session("alice", route="second") as session,
    ):
        answers = [(await session.send("1?")).text, (await session.send("2?", model="c")).text]
        await session.update(route=None, model="c")
        answers.append((await session.send("3?")).text)
        await session.update(model=None)
        answers.append((await session.send("4?")).text)

    assert answers == ["b", "c", "c", "a"]


async def test_a_model_that_is_gone_is_named_with_the_session(autojump_clock: MockClock) -> None:
    """The configuration changed since: the error says that the session asks for it, and how to change that."""
    shelf = Shelf()
    await shelf.save(SessionRecord("alice", created_at=1, model="gone"))

    async with client_of(Scripted(), storage=shelf.open) as client, client.session("alice") as session:
        with pytest.raises(ConfigError, match=r"none named 'gone'.*session 'alice' asks for it: session.update"):
            await session.send("Why?")
        await session.update(model=None)
        await session.send("Why?")


async def test_the_oldest_turns_are_left_out_where_the_window_is_full(autojump_clock: MockClock) -> None:
    """The system prompt and the newest turns go; everything stays stored, and the event says how many did not go."""
    events = EventStream()
    told = turns_told(events)
    provider = Scripted(says("ok"))
    sessions = SessionsConfig(storage="memory:", context_tokens=60)

    async with (
        client_of(provider, sessions=sessions, events=events) as client,
        client.session("alice", system="SYS") as session,
    ):
        for number in range(8):
            await session.send(f"{number}: what is it all about?")

    last = provider.calls[-1].prompt
    assert last.startswith("SYS")
    assert last.endswith("7: what is it all about?")
    assert "0: what" not in last
    assert "6: what" in last
    assert len(session.history) == 16
    assert told[-1].left_out > 0
    assert told[0].left_out == 0


async def test_the_first_models_window_bounds_what_is_sent(autojump_clock: MockClock) -> None:
    """Without a setting, what the route's first model has room for counts."""
    provider = Scripted(says("ok"))

    async with client_of(provider, model(window=400)) as client, client.session("alice") as session:
        for number in range(12):
            await session.send(f"#{number}: {'word ' * 20}")

    assert "#0: word" not in provider.calls[-1].prompt
    assert "#10: word" in provider.calls[-1].prompt


# -- again, and back ---------------------------------------------------------------------------------------------------


async def test_a_retry_replaces_the_last_turn(autojump_clock: MockClock) -> None:
    """The same question is asked again, without the answer before, and past the cache."""
    provider = Scripted(says("one"), says("two"), says("better"))
    cache = CacheConfig(max_entries=10)

    async with client_of(provider, cache=cache) as client, client.session("alice") as session:
        await session.send("1?")
        await session.send("2?")
        await session.retry()

    assert provider.calls[-1].prompt == "1?one2?"
    assert texts(session) == ["1?", "one", "2?", "better"]


async def test_a_retry_that_fails_keeps_the_old_turn(autojump_clock: MockClock) -> None:
    """Nothing is lost by asking again."""
    provider = Scripted(says("one"), fails(BROKEN))

    async with (
        client_of(provider, model(retry=RetryConfig(max_attempts=1))) as client,
        client.session("alice") as session,
    ):
        await session.send("1?")
        with pytest.raises(NetworkError):
            await session.retry()
        assert texts(session) == ["1?", "one"]


async def test_there_is_nothing_to_take_back_or_ask_again_at_first(autojump_clock: MockClock) -> None:
    """Both say so, and hold nothing."""
    async with client_of(Scripted()) as client, client.session("alice") as session:
        with pytest.raises(InvalidStateTransitionError, match="no turn yet"):
            await session.undo()
        with pytest.raises(InvalidStateTransitionError, match="no turn yet"):
            await session.retry()
        await assert_nothing_held(client)


# -- streams -----------------------------------------------------------------------------------------------------------


async def test_a_streamed_turn_is_stored_before_its_end_is_read(autojump_clock: MockClock) -> None:
    """Where the last event is seen, the turn is in the storage."""
    shelf = Shelf()

    async with client_of(Scripted(says("o", "ne")), storage=shelf.open) as client, client.session("alice") as session:
        async with session.stream("1?") as stream:
            pieces = [(event.text, shelf.saves) async for event in stream if isinstance(event, TextDelta)]
            assert shelf.saves == 1
        assert stream.response.text == "one"
        async with session.stream_retry() as again:
            async for _ in again:
                pass

    assert pieces == [("o", 0), ("ne", 0)]
    assert texts(session) == ["1?", "one"]


async def test_a_stream_that_is_left_early_leaves_the_session_as_it_was(autojump_clock: MockClock) -> None:
    """The call is stopped, nothing is stored, and the session is free."""
    shelf, provider = Shelf(), Scripted(says("o", 60.0, "ne"), says("two"))

    async with client_of(provider, storage=shelf.open) as client, client.session("alice") as session:
        async with session.stream("1?") as stream:
            async for _ in stream.text():
                break
        assert shelf.saves == 0
        await session.send("2?")
        await assert_nothing_held(client, provider)

    assert texts(session) == ["2?", "two"]


async def test_a_stream_that_nobody_reads_frees_its_session(autojump_clock: MockClock) -> None:
    """After `consumer_idle` the next turn begins, though the reader has not left its block."""
    provider = Scripted(says("o", 1.0, "ne"), says("two"))

    async with client_of(provider, stream=StreamConfig(consumer_idle=5)) as client:
        async with client.session("alice") as session, session.stream("1?") as stream:
            await anext(aiter(stream))
            async with client.session("alice") as other:
                response = await other.send("2?")
            assert response.text == "two"
            assert trio.current_time() == pytest.approx(5.0)
            with pytest.raises(DeadlineExceededError, match="nobody read the stream"):
                await anext(aiter(stream))
        await assert_nothing_held(client, provider)


# -- the life of a session ---------------------------------------------------------------------------------------------


async def test_a_session_is_used_inside_its_block() -> None:
    """Before it and after it, each use says so."""
    async with client_of(Scripted()) as client:
        session = client.session("alice")
        with pytest.raises(SessionNotInitializedError, match="inside its block"):
            await session.send("Why?")
        async with session:
            pass
        with pytest.raises(SessionNotInitializedError):
            session.stream("Why?")
        with pytest.raises(InvalidStateTransitionError, match="entered once"):
            async with session:
                pass


@pytest.mark.parametrize("name", ["", "a" * 201, "new\nline"])
async def test_a_name_that_cannot_be_stored_is_refused_where_it_is_given(name: str) -> None:
    """Long before anybody is asked."""
    async with client_of(Scripted()) as client:
        with pytest.raises(SerializationError, match="a session's id"):
            client.session(name)


async def test_a_closed_session_is_read_and_takes_nothing(autojump_clock: MockClock) -> None:
    """Closing twice is closing once; opening it again shows what it holds."""
    async with client_of(Scripted(says("one"))) as client:
        async with client.session("alice") as session:
            await session.send("1?")
            await session.close()
            await session.close()

        with pytest.raises(InvalidStateTransitionError, match="is closed"):
            async with client.session("alice", system="other"):
                pass
        async with client.session("alice") as session:
            assert (texts(session), session.state) == (["1?", "one"], SessionState.CLOSED)
            with pytest.raises(InvalidStateTransitionError, match="is closed") as raised:
                await session.send("2?")
            assert (raised.value.from_state, raised.value.to_state) == ("closed", "active")
            with pytest.raises(InvalidStateTransitionError):
                await session.update(system="other")


async def test_an_expired_session_begins_anew(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not a purge has passed: who opens it finds nothing, and its first turn takes the old one's place."""
    wall = [1_800_000_000.0]
    monkeypatch.setattr("wizard_actors.builder.WallClock", lambda: lambda: wall[0])
    sessions = SessionsConfig(storage="memory:", expire_idle=3600)

    async with (
        client_of(Scripted(says("one"), says("two")), sessions=sessions) as client,
        client.session("alice", system="old") as old,
    ):
        await old.send("1?")
        wall[0] += 3601
        assert old.state is SessionState.EXPIRED
        with pytest.raises(InvalidStateTransitionError, match="has expired: open it again"):
            await old.send("2?")

        async with client.session("alice") as session:
            assert session.history == ()
            assert [each.state for each in await client.sessions.list()] == [SessionState.EXPIRED]
            await session.send("2?")
        assert (texts(session), session.system) == (["2?", "two"], None)
        with pytest.raises((SessionConflictError, InvalidStateTransitionError)):
            await old.send("3?")


async def test_a_deleted_session_is_told_to_whoever_holds_it(autojump_clock: MockClock) -> None:
    """Its holder gets a conflict; opened again it begins anew. Deleting waits for the turn in progress."""
    provider = Scripted(says("one"), says(2.0, "two"), says("three"))

    async with client_of(provider) as client, client.session("alice") as session:
        await session.send("1?")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.send, "2?")
            await wait_all_tasks_blocked()
            assert await client.sessions.delete("alice")
            assert trio.current_time() == pytest.approx(2.0)
        assert not await client.sessions.delete("alice")

        with pytest.raises(SessionConflictError, match="was deleted") as raised:
            await session.send("3?")
        assert (raised.value.session, raised.value.stored) == ("alice", None)
        async with client.session("alice") as anew:
            await anew.send("3?")
            assert await anew.delete()
            await anew.send("4?")
        assert texts(anew) == ["4?", "three"]


async def test_an_export_is_brought_in_as_a_session_of_now(autojump_clock: MockClock) -> None:
    """It is not stored over one of its name unless that is asked for."""
    record = SessionRecord("bob", created_at=5, version=9, turns=[TurnRecord([Message("user", "1?")], at=6)])

    async with client_of(Scripted(says("two"))) as client:
        added = await client.sessions.add(record)
        assert (added.version, added.turns, added.created_at > 1_700_000_000) == (1, record.turns, True)
        with pytest.raises(SessionConflictError, match="is there already"):
            await client.sessions.add(record)
        async with client.session("bob") as session:
            await session.send("2?")
            replaced = await client.sessions.add(record, replace=True)
            assert replaced.turns == record.turns
            await session.send("3?")
        assert texts(session) == ["1?", "3?", "two"]


async def test_old_sessions_are_purged_on_demand(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what is given, else as configured; never one with a turn in progress; and neither is an error."""
    wall = [1_800_000_000.0]
    monkeypatch.setattr("wizard_actors.builder.WallClock", lambda: lambda: wall[0])

    async with client_of(Scripted(says("one"), says(5.0, "busy"))) as client:
        for name in ("old", "busy"):
            async with client.session(name) as session:
                await session.send("1?") if name == "old" else await session.update(context={"a": 1})
        wall[0] += 100
        async with client.session("new") as session:
            await session.update(context={"a": 1})
        async with client.session("busy") as session, trio.open_nursery() as nursery:
            nursery.start_soon(session.send, "2?")
            await wait_all_tasks_blocked()
            assert await client.sessions.purge(idle=50) == ("old",)
        with pytest.raises(ConfigError, match="expire never"):
            await client.sessions.purge()
        with pytest.raises(ConfigError, match="0 seconds or more"):
            await client.sessions.purge(age=-1)
        wall[0] += 1
        assert set(await client.sessions.purge(age=0)) == {"busy", "new"}


async def test_the_finish_of_an_answer_is_kept(autojump_clock: MockClock) -> None:
    """A turn that was cut off at its length says so for ever."""
    cut_off = Scripted(Turn(("half", Finished(FinishReason.LENGTH, "length"))))

    async with client_of(cut_off) as client, client.session("alice") as session:
        await session.send("1?")

    assert session.record.turns[0].finish_reason is FinishReason.LENGTH


# -- what is easily done wrong -----------------------------------------------------------------------------------------


async def test_a_session_in_the_middle_of_its_own_stream_says_so(autojump_clock: MockClock) -> None:
    """Whoever reads a stream would wait for itself: an error at once, and the stream goes on."""
    async with (
        client_of(Scripted(says("o", "ne"))) as client,
        client.session("alice") as session,
        session.stream("1?") as stream,
    ):
        await anext(aiter(stream))
        for change in (session.send("2?"), session.undo(), session.update(system="x"), session.delete()):
            with pytest.raises(InvalidStateTransitionError, match="in the middle of a stream"):
                await change
        async for _ in stream:
            pass
        await session.update(system="now")

    assert (texts(session), session.system) == (["1?", "one"], "now")


@pytest.mark.parametrize("delivery", ["live", "buffered"])
async def test_a_whole_answer_that_nobody_reads_frees_its_session_too(autojump_clock: MockClock, delivery: str) -> None:
    """A buffered answer is whole at once; who pauses in it holds the session no longer than `consumer_idle`."""
    provider = Scripted(says("o", "ne"), says("two"))

    async with client_of(provider, stream=StreamConfig(consumer_idle=5, delivery=delivery)) as client:  # type: ignore[arg-type]  # pytest's parameters are texts
        async with client.session("alice") as session, client.session("alice") as other, session.stream("1?") as stream:
            await anext(aiter(stream))
            await other.send("2?")
            assert trio.current_time() == pytest.approx(5.0)
        await assert_nothing_held(client, provider)

    assert texts(other) == ["2?", "two"]


async def test_a_stream_left_while_it_waits_for_its_turn_asks_nothing(autojump_clock: MockClock) -> None:
    """One task reads, another leaves the block: the turn is given back when it comes, and no model is asked."""
    provider = Scripted(says(2.0, "one"), says("never"))

    async with client_of(provider) as client, client.session("alice") as here, client.session("alice") as there:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.send, "1?")
            await wait_all_tasks_blocked()
            stream = there.stream("2?")
            await stream.__aenter__()

            async def read() -> None:
                async for _ in stream:
                    pass

            nursery.start_soon(read)
            await wait_all_tasks_blocked()
            await stream.__aexit__(None, None, None)
        await assert_nothing_held(client, provider)

    assert len(provider.calls) == 1


async def test_a_retry_asks_what_got_no_answer(autojump_clock: MockClock) -> None:
    """After a failure the question that failed is asked again, and the good turn before it stays."""
    provider = Scripted(says("one"), fails(BROKEN), says("two"))

    async with (
        client_of(provider, model(retry=RetryConfig(max_attempts=1))) as client,
        client.session("alice") as session,
    ):
        await session.send("1?")
        with pytest.raises(NetworkError):
            await session.send("2?")
        await session.retry()

    assert texts(session) == ["1?", "one", "2?", "two"]


async def test_a_question_that_was_refused_is_not_asked_again(autojump_clock: MockClock) -> None:
    """No model would take it: `retry` asks the one of the last turn."""
    async with client_of(Scripted(says("one"), says("better"))) as client, client.session("alice") as session:
        await session.send("1?")
        with pytest.raises(InvalidPromptError):
            await session.send(Message("tool", "sun", tool_call_id="c9"))
        await session.retry()

    assert texts(session) == ["1?", "better"]


async def test_a_retry_offers_the_same_tools_again(autojump_clock: MockClock) -> None:
    """Tools and parameters are those of the question, as it was asked."""
    offered: list[int] = []

    class Looking(Scripted):
        def open(self, call: Call) -> AbstractAsyncContextManager[Answer]:
            offered.append(len(call.prompt.tools))
            return super().open(call)

    async with client_of(Looking(says("one"))) as client, client.session("alice") as session:
        await session.send(Prompt("1?", tools=[WEATHER]))
        await session.retry()
        await session.send("2?")
        await session.retry()

    assert offered == [1, 1, 0, 0]


async def test_results_of_tools_that_are_waited_for_are_named(autojump_clock: MockClock) -> None:
    """A program that ended between a call and its result: the error says what to send, or to undo."""
    async with client_of(Scripted(CALLS_WEATHER, says("ok"))) as client, client.session("alice") as session:
        await session.send(Prompt("The weather?", tools=[WEATHER]))
        with pytest.raises(InvalidPromptError, match=r"weather \(c1\).*session.undo\(\)"):
            await session.send("Hello?")
        await session.undo()
        await session.send("Hello?")

    assert texts(session) == ["Hello?", "ok"]


async def test_a_route_takes_the_model_back(autojump_clock: MockClock) -> None:
    """A model of the session's is asked alone: who sets a route means the route."""
    routes = [RouteConfig(name="second", chain=("b",))]

    async with client_of({"a": Scripted(says("a")), "b": Scripted(says("b"))}, routes=routes) as client:
        async with client.session("alice", model="a") as session:
            await session.update(route="second")
            assert (await session.send("1?")).text == "b"
            with pytest.raises(ConfigError, match="none named 'nope'"):
                await session.update(route="nope")
        with pytest.raises(ConfigError, match="none named 'nope'"):
            client.session("bob", model="nope")


async def test_refreshing_shows_what_is_stored_now(autojump_clock: MockClock) -> None:
    """Also that nothing is, any more: then the session begins anew."""
    async with client_of(Scripted(says("one"))) as client, client.session("alice") as session:
        await session.send("1?")
        await client.sessions.delete("alice")
        with pytest.raises(SessionConflictError, match=r"session.refresh\(\)"):
            await session.send("2?")
        await session.refresh()
        assert session.history == ()
        await session.send("3?")

    assert texts(session) == ["3?", "one"]


async def test_a_purge_waits_for_nobody_and_takes_no_turn_in_progress(autojump_clock: MockClock) -> None:
    """A turn that begins while a purge is under way waits for it, and goes on from what is left."""

    class Slow(Shelf):
        async def purge(self, **given: object) -> list[str]:
            await trio.sleep(3)
            return list(await self.inner.purge(**given))  # type: ignore[arg-type]  # passed on as it is

    shelf, provider = Slow(), Scripted(says("one"))
    await shelf.save(SessionRecord("alice", created_at=1, system="old"))

    async with client_of(provider, storage=shelf.open) as client, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: client.sessions.purge(idle=10))
        await wait_all_tasks_blocked()
        async with client.session("alice") as session:
            await session.send("1?")
        assert trio.current_time() == pytest.approx(3.0)

    stored = await shelf.load("alice")
    assert stored is not None
    assert (len(stored.turns), stored.system) == (1, None)


@pytest.mark.parametrize("name", [["a", "b"], 5, "", "x" * 500])
async def test_a_wrong_name_reaches_no_actor(name: str) -> None:
    """It is refused where it is given, and everybody else is served."""
    async with client_of(Scripted()) as client:
        for call in (client.sessions.delete(name), client.sessions.load(name)):
            with pytest.raises(SerializationError, match="a session's id"):
                await call
        assert node(client, "sessions").restarts == 0


async def test_wrong_arguments_are_told_in_words(autojump_clock: MockClock) -> None:
    """What a program without a type checker may give."""
    async with client_of(Scripted()) as client, client.session("alice") as session:
        for said in (None, 5, {"role": "user"}):
            with pytest.raises(InvalidPromptError, match="a turn begins with"):
                await session.send(said)  # type: ignore[arg-type]  # on purpose
        with pytest.raises(InvalidPromptError, match="`like` is a Prompt"):
            await session.send("1?", like="x")  # type: ignore[arg-type]  # on purpose
        with pytest.raises(ValueError, match="'markdown' or 'json'"):
            session.export("xml")  # type: ignore[arg-type]  # on purpose
        with pytest.raises(SerializationError, match="a SessionRecord"):
            await client.sessions.add("{}")  # type: ignore[arg-type]  # on purpose
        with pytest.raises(ConfigError, match="0 seconds or more"):
            await client.sessions.purge(idle="30d")  # type: ignore[arg-type]  # on purpose
        with pytest.raises(TypeError, match="after is a SessionSummary"):
            await client.sessions.list(after="a")  # type: ignore[arg-type]  # on purpose
        with pytest.raises(TypeError, match="is asynchronous here"), client.session("bob"):  # type: ignore[attr-defined]  # on purpose
            pass
        with pytest.raises(TypeError, match="not awaited"):
            await client.session("bob")  # type: ignore[misc]  # on purpose


# -- several turns of one object at once -------------------------------------------------------------------------------


async def test_a_retry_is_of_what_its_own_turn_asked(autojump_clock: MockClock) -> None:
    """Two turns of one object: the first is stored while the second waits, and the second fails; its question is asked
    again, and the first one's answer stays.
    """
    provider = Scripted(says(2.0, "one"), fails(BROKEN), says("two"))

    async with (
        client_of(provider, model(retry=RetryConfig(max_attempts=1))) as client,
        client.session("alice") as session,
    ):

        async def fail() -> None:
            with pytest.raises(NetworkError):
                await session.send("2?")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.send, "1?")
            await wait_all_tasks_blocked()
            nursery.start_soon(fail)
        await session.retry()

    assert texts(session) == ["1?", "one", "2?", "two"]


async def test_a_question_that_is_too_long_can_be_asked_again(autojump_clock: MockClock) -> None:
    """Another model may have room for it: the turn before is not replaced."""
    small, large = Scripted(says("one")), Scripted(says("two"))
    windows = (model("a", window=100), model("b", window=100_000))
    route = RouteConfig(name="wizard", chain=("a",))

    async with client_of({"a": small, "b": large}, *windows, route=route) as client, client.session("x") as session:
        await session.send("1?")
        with pytest.raises(TokenLimitError):
            await session.send("word " * 500)
        await session.update(model="b")
        await session.retry()

    assert texts(session)[1::2] == ["one", "two"]


async def test_what_a_session_was_opened_with_is_stored_with_its_first_turn(autojump_clock: MockClock) -> None:
    """Also where somebody else has created it meanwhile, and the first turn failed."""
    provider = Scripted(fails(BROKEN), says("one"))

    async with (
        client_of(provider, model(retry=RetryConfig(max_attempts=1))) as client,
        client.session("alice", system="SYS") as session,
    ):
        async with client.session("alice") as other:
            await other.update(context={"a": 1})
        with pytest.raises(NetworkError):
            await session.send("1?")
        await session.send("1?")

    assert provider.calls[-1].prompt == "SYS1?"
    assert (session.system, session.context) == ("SYS", {"a": 1})


async def test_a_turn_that_is_discarded_can_be_asked_again(autojump_clock: MockClock) -> None:
    """The stored turn before it stays."""
    shelf = Shelf()

    def full(_record: SessionRecord) -> float:
        raise OSError("the disk is full")

    async with (
        client_of(Scripted(says("one"), says("two"), says("again")), storage=shelf.open) as client,
        client.session("alice") as session,
    ):
        await session.send("1?")
        shelf.fault = full
        with pytest.raises(StorageError):
            await session.send("2?")
        shelf.fault = None
        session.discard()
        await session.retry()

    assert texts(session) == ["1?", "one", "2?", "again"]


async def test_closing_what_somebody_else_has_closed_is_closing_it_once(autojump_clock: MockClock) -> None:
    """It is closed, which was wanted."""
    async with client_of(Scripted()) as client, client.session("alice") as here, client.session("alice") as there:
        await here.send("1?")
        await here.close()
        await there.close()
