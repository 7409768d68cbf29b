"""What goes wrong after the answer: a storage that fails, hangs or lies, another writer, a crash of the store."""

from __future__ import annotations

import errno
from contextlib import AbstractAsyncContextManager, nullcontext

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.conversations import Shelf
from tests.models import Scripted, assert_nothing_held, client_of, fails, model, says
from tests.test_persistent_session import CALLS_WEATHER, WEATHER, texts, turns_told
from wizard_actors import (
    ActorCrashedError,
    ActorStoppedError,
    ConfigError,
    DeadlineExceededError,
    Message,
    NetworkError,
    Prompt,
    SessionConflictError,
    SessionRecord,
    StorageError,
    TurnRecord,
    WizardError,
)
from wizard_actors.config import RetryConfig, ServerConfig, SessionsConfig
from wizard_actors.event_stream import EventStream
from wizard_actors.session_record import SessionState
from wizard_actors.storage.base import SessionStorage
from wizard_actors.storage.memory import MemoryStorage
from wizard_actors.storage.opening import Opener
from wizard_actors.types import ToolCallDelta


def disk_full(_record: SessionRecord) -> float:
    """Fail as a full disk does."""
    raise OSError(errno.ENOSPC, "No space left on device")


def hangs(_record: SessionRecord) -> float:
    """Never come back."""
    return float("inf")


async def test_an_answer_that_cannot_be_stored_is_not_lost(autojump_clock: MockClock) -> None:
    """The error names backend and session; the turn is there as `unsaved`, and `keep` stores it when it can be."""
    shelf, events = Shelf(), EventStream()
    told = turns_told(events)

    async with client_of(Scripted(says("one")), storage=shelf.open, events=events) as client:
        async with client.session("alice") as session:
            shelf.fault = disk_full
            with pytest.raises(StorageError, match=r"'alice'.*is not stored, and not lost") as raised:
                await session.send("1?")
            assert isinstance(raised.value.__cause__, OSError)
            assert session.history == ()
            unsaved = session.unsaved
            assert unsaved is not None
            assert [message.text for message in unsaved.messages] == ["1?", "one"]
            with pytest.raises(StorageError):
                await session.keep()

            shelf.fault = None
            await session.keep()
            await session.keep()

            assert session.unsaved is None
            assert texts(session) == ["1?", "one"]
        await assert_nothing_held(client)
    assert [event.outcome for event in told] == ["unsaved"]
    assert shelf.saves == 1


async def test_a_storage_that_hangs_is_told_within_its_deadline(autojump_clock: MockClock) -> None:
    """The store keeps serving: other sessions, and this one."""
    shelf = Shelf()
    sessions = SessionsConfig(storage="memory:", timeout=4)

    async with (
        client_of(Scripted(says("one")), storage=shelf.open, sessions=sessions) as client,
        client.session("alice") as session,
        client.session("bob") as other,
    ):
        shelf.fault = hangs
        with pytest.raises(StorageError, match="within 4 s"):
            await session.send("1?")
        assert trio.current_time() == pytest.approx(4.0)
        shelf.fault = None
        await other.send("1?")
        await session.send("2?")

    assert texts(session) == ["1?", "one", "2?", "one"]


async def test_the_next_turn_stores_the_one_before_first(autojump_clock: MockClock) -> None:
    """While that fails nothing is asked, and nothing is paid for; then the model sees both."""
    shelf, provider = Shelf(), Scripted(says("one"), says("two"))

    async with client_of(provider, storage=shelf.open) as client, client.session("alice") as session:
        shelf.fault = disk_full
        with pytest.raises(StorageError):
            await session.send("1?")
        with pytest.raises(StorageError):
            await session.send("2?")
        assert len(provider.calls) == 1
        shelf.fault = None
        await session.send("2?")

    assert provider.calls[-1].prompt == "1?one2?"
    assert texts(session) == ["1?", "one", "2?", "two"]


async def test_what_was_stored_after_all_is_not_stored_twice(autojump_clock: MockClock) -> None:
    """A save that was too late, and landed: the next turn finds it there."""
    shelf = Shelf()

    async with (
        client_of(Scripted(says("one"), says("two")), storage=shelf.open) as client,
        client.session("alice") as session,
    ):
        shelf.fault, shelf.late = disk_full, True
        with pytest.raises(StorageError):
            await session.send("1?")
        shelf.fault = None
        await session.send("2?")

    assert texts(session) == ["1?", "one", "2?", "two"]


async def test_a_turn_that_is_discarded_is_gone(autojump_clock: MockClock) -> None:
    """The session goes on from what is stored."""
    shelf = Shelf()

    async with (
        client_of(Scripted(says("one"), says("two")), storage=shelf.open) as client,
        client.session("alice") as session,
    ):
        shelf.fault = disk_full
        with pytest.raises(StorageError):
            await session.send("1?")
        shelf.fault = None
        session.discard()
        await session.send("2?")

    assert texts(session) == ["2?", "two"]


async def test_a_second_writer_gets_a_conflict_and_loses_nothing(autojump_clock: MockClock) -> None:
    """Two clients on one storage, as two processes: both turns were answered, both are stored in the end."""
    shelf, slow, quick = Shelf(), Scripted(says(5.0, "slow")), Scripted(says("quick"))

    async with (
        client_of(slow, storage=shelf.open) as one,
        client_of(quick, storage=shelf.open) as two,
        one.session("alice") as here,
        two.session("alice") as there,
    ):
        async with trio.open_nursery() as nursery:
            conflict: list[WizardError] = []

            async def ask() -> None:
                with pytest.raises(SessionConflictError) as raised:
                    await here.send("slow?")
                conflict.append(raised.value)

            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            await there.send("quick?")
        assert "not lost" in str(conflict[0])
        assert here.unsaved is not None
        with pytest.raises(SessionConflictError, match=r"session.keep\(\) adds the turn"):
            await here.send("and?")
        assert len(slow.calls) == 1

        await here.keep()

        assert texts(here) == ["quick?", "quick", "slow?", "slow"]
        assert (await there.send("both?")).text == "quick"
    assert quick.calls[-1].prompt == "quick?quickslow?slowboth?"


async def test_a_session_goes_on_from_what_others_have_stored(autojump_clock: MockClock) -> None:
    """No conflict where the turns follow each other: each begins with what is stored then."""
    shelf = Shelf()

    async with (
        client_of(Scripted(), storage=shelf.open) as one,
        client_of(Scripted(), storage=shelf.open) as two,
        one.session("alice") as here,
        two.session("alice", system="new") as there,
    ):
        await here.send("1?")
        await there.send("2?")
        await here.send("3?")
        await there.refresh()

    assert texts(there) == ["1?", "Hello", "2?", "Hello", "3?", "Hello"]
    assert there.system == "new"


async def test_a_damaged_session_is_told_by_name_and_harms_no_other(autojump_clock: MockClock) -> None:
    """What a storage returns that is no record of the session is a `StorageError`; others are served."""

    class Confused(Shelf):
        async def load(self, session: str) -> SessionRecord | None:
            return SessionRecord("mallory", created_at=1) if session == "alice" else await super().load(session)

    async with client_of(Scripted(), storage=Confused().open) as client:
        with pytest.raises(StorageError, match="alice"):
            async with client.session("alice"):
                pass
        async with client.session("bob") as session:
            await session.send("1?")


async def test_a_storage_that_does_not_open_is_tried_again(autojump_clock: MockClock) -> None:
    """A session that cannot be loaded is an error of its block; later it can be."""
    shelf, tries = Shelf(), 0

    def opener() -> AbstractAsyncContextManager[SessionStorage]:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise PermissionError(errno.EACCES, "Permission denied", "sessions.db")
        return shelf.open()

    async with client_of(Scripted(), storage=opener) as client:
        with pytest.raises(StorageError) as raised:
            async with client.session("alice"):
                pass
        assert isinstance(raised.value.__cause__, PermissionError)
        async with client.session("alice") as session:
            await session.send("1?")
    assert shelf.saves == 1


async def test_a_crash_of_the_store_costs_nobody_a_turn(autojump_clock: MockClock) -> None:
    """The turn in progress keeps its lease over the restart, and is stored; who waits asks again, in the same order."""
    provider = Scripted(*(says(5.0, f"{number}!") for number in range(6)))

    async with client_of(provider) as client, client.session("alice") as session:
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(session.send, f"{number}?")
                await wait_all_tasks_blocked()
            client.supervisor.kill("sessions", RuntimeError("a bug"))
        assert texts(session)[::2] == [f"{number}?" for number in range(6)]
        await assert_nothing_held(client, provider)


async def test_a_store_that_crashes_again_is_told_to_who_waits(autojump_clock: MockClock) -> None:
    """One crash is survived by asking again, two are an error: nobody asks for ever."""
    provider = Scripted(says(5.0, "one"))

    async with client_of(provider) as client, client.session("alice") as session:
        crashed: list[WizardError] = []

        async def wait() -> None:
            try:
                await session.send("waiting?")
            except ActorCrashedError as error:
                crashed.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.send, "1?")
            await wait_all_tasks_blocked()
            nursery.start_soon(wait)
            for _ in range(2):
                await wait_all_tasks_blocked()
                client.supervisor.kill("sessions", RuntimeError("a bug"))
        assert len(crashed) == 1
        assert texts(session) == ["1?", "one"]
        await assert_nothing_held(client, provider)


async def test_closing_the_client_lets_the_turn_in_progress_be_stored(autojump_clock: MockClock) -> None:
    """The drain waits for its answer and its save; who waits for a turn is told at once."""
    shelf, outcomes = Shelf(), dict[str, object]()
    shelf.fault = lambda _record: 1.0

    async with trio.open_nursery() as nursery, client_of(Scripted(says(2.0, "one")), storage=shelf.open) as client:
        session = client.session("alice")
        await session.__aenter__()

        async def ask(question: str) -> None:
            try:
                outcomes[question] = (await session.send(question)).text
            except WizardError as error:
                outcomes[question] = type(error)

        nursery.start_soon(ask, "1?")
        await wait_all_tasks_blocked()
        nursery.start_soon(ask, "2?")
        await wait_all_tasks_blocked()

    assert outcomes == {"1?": "one", "2?": ActorStoppedError}
    assert shelf.saves == 1
    assert trio.current_time() == pytest.approx(3.0)


async def test_a_turn_cut_off_by_the_drain_leaves_nothing_half(autojump_clock: MockClock) -> None:
    """Past the drain timeout the call is stopped, and the session is as it was."""
    shelf, outcomes = Shelf(), list[type[BaseException]]()

    async with trio.open_nursery() as nursery:
        server = ServerConfig(drain_timeout=2)
        async with client_of(Scripted(says(30.0, "one")), storage=shelf.open, server=server) as client:
            session = client.session("alice")
            await session.__aenter__()

            async def ask() -> None:
                try:
                    await session.send("1?")
                except WizardError as error:
                    outcomes.append(type(error))

            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert shelf.saves == 0
    assert await shelf.load("alice") is None


async def test_a_session_stored_as_expired_gives_way(autojump_clock: MockClock) -> None:
    """What another process has marked is gone for everybody, whatever their own settings say."""
    shelf = Shelf()
    turn = TurnRecord([Message("user", "1?")], at=1)
    record = SessionRecord("alice", created_at=1, turns=[turn])
    await shelf.save(record)
    await shelf.save(evolve(record, version=2, state=SessionState.EXPIRED))

    async with client_of(Scripted(says("new")), storage=shelf.open) as client, client.session("alice") as session:
        assert session.history == ()
        await session.send("2?")

    stored = await shelf.load("alice")
    assert stored is not None
    assert (stored.version, len(stored.turns)) == (1, 1)


@pytest.mark.parametrize("gone", ["deleted", "expired"])
async def test_an_answer_is_kept_where_its_session_is_gone(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    """Nothing is stored any more: `keep` begins a session with it."""
    wall = [1_800_000_000.0]
    monkeypatch.setattr("wizard_actors.builder.WallClock", lambda: lambda: wall[0])
    shelf = Shelf()
    sessions = SessionsConfig(storage="memory:", expire_idle=3600)

    async with (
        client_of(Scripted(says("one"), says("two")), storage=shelf.open, sessions=sessions) as client,
        client.session("alice") as session,
    ):
        await session.send("1?")
        shelf.fault = disk_full
        with pytest.raises(StorageError):
            await session.send("2?")
        shelf.fault = None
        if gone == "deleted":
            await client.sessions.delete("alice")
        else:
            wall[0] += 5000
        await session.keep()

        assert texts(session) == ["2?", "two"]
        await session.send("3?")


async def test_a_turn_that_does_not_fit_is_not_kept(autojump_clock: MockClock) -> None:
    """Two answered the same call of a tool: the second would leave a conversation that no model takes."""
    shelf = Shelf()
    question, result = Prompt("The weather?", tools=[WEATHER]), Message("tool", "sun", tool_call_id="c1")
    slow, quick = Scripted(CALLS_WEATHER, says(5.0, "slow")), Scripted(says("quick"))

    async with (
        client_of(slow, storage=shelf.open) as one,
        client_of(quick, storage=shelf.open) as two,
        one.session("alice") as here,
        two.session("alice") as there,
    ):
        await here.send(question)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(SessionConflictError):
                    await here.send(result, like=question)

            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            await there.send(result, like=question)
        with pytest.raises(SessionConflictError, match=r"session.discard\(\) drops it"):
            await here.keep()
        assert here.unsaved is not None
        here.discard()
        await here.send("And now?")


async def test_a_retry_that_conflicts_is_not_added_as_another_turn(autojump_clock: MockClock) -> None:
    """It was to take a turn's place: where that is not the last any more it does not fit; else it takes its place."""
    shelf, provider = Shelf(), Scripted(says("one"), says("better"), says("best"))

    async with (
        client_of(provider, storage=shelf.open) as client,
        client_of(Scripted(), storage=shelf.open) as two,
        client.session("alice") as session,
        two.session("alice") as other,
    ):
        await session.send("1?")
        shelf.fault = disk_full
        with pytest.raises(StorageError):
            await session.retry()
        shelf.fault = None
        await other.update(context={"a": 1})
        await session.keep()
        assert texts(session) == ["1?", "better"]

        shelf.fault = disk_full
        with pytest.raises(StorageError):
            await session.retry()
        shelf.fault = None
        await other.send("2?")
        with pytest.raises(SessionConflictError, match="not the last any more"):
            await session.keep()


async def test_replacing_a_session_loses_nothing_where_it_fails(autojump_clock: MockClock) -> None:
    """The old one is there until the new one is stored, in one step."""
    shelf = Shelf()

    async with client_of(Scripted(says("one")), storage=shelf.open) as client, client.session("alice") as session:
        await session.send("1?")
        before = await client.sessions.load("alice")
        shelf.fault = disk_full
        with pytest.raises(StorageError):
            await client.sessions.add(SessionRecord("alice", created_at=1), replace=True)
        assert await client.sessions.load("alice") == before


async def test_a_deadline_bounds_loading_too(autojump_clock: MockClock) -> None:
    """A storage that hangs is not waited for longer than the caller wants."""

    class Hanging(Shelf):
        hangs = False

        async def load(self, session: str) -> SessionRecord | None:
            if self.hangs:
                await trio.sleep_forever()
            return await super().load(session)

    shelf = Hanging()
    async with client_of(Scripted(), storage=shelf.open) as client, client.session("alice") as session:
        shelf.hangs = True
        with pytest.raises(DeadlineExceededError):
            await session.send("1?", deadline=2)
        assert trio.current_time() == pytest.approx(2.0)
        shelf.hangs = False
        await session.send("1?")


async def test_refreshing_never_goes_back(autojump_clock: MockClock) -> None:
    """A load that is slower than a turn does not hide the turn."""

    class Slow(Shelf):
        delay = 0.0

        async def load(self, session: str) -> SessionRecord | None:
            found, delay = await super().load(session), self.delay
            self.delay = 0.0
            await trio.sleep(delay)
            return found

    shelf = Slow()
    async with client_of(Scripted(says("one")), storage=shelf.open) as client, client.session("alice") as session:
        await session.send("1?")
        async with trio.open_nursery() as nursery:
            shelf.delay = 5.0
            nursery.start_soon(session.refresh)
            await wait_all_tasks_blocked()
            await session.send("2?")
        assert trio.current_time() == pytest.approx(5.0)

    assert texts(session) == ["1?", "one", "2?", "one"]


class Unlike:
    """No storage."""

    async def load(self, _session: str) -> None:
        return None


@pytest.mark.parametrize(
    ("storage", "told"),
    [
        (MemoryStorage, "has to return an async context manager, not a MemoryStorage"),
        (lambda: nullcontext(Unlike()), "the Unlike has no save, delete, list, purge"),
    ],
)
async def test_what_is_no_storage_is_told_before_anybody_is_asked(
    autojump_clock: MockClock, storage: Opener, told: str
) -> None:
    """Nothing is paid for an answer that could never be stored."""
    provider = Scripted()

    async with client_of(provider, storage=storage) as client:
        with pytest.raises(StorageError, match=told):
            async with client.session("alice"):
                pass

    assert provider.calls == []


@pytest.mark.parametrize("storage", ["sqlite:x.db", MemoryStorage()])
async def test_what_opens_no_storage_is_refused_where_it_is_given(storage: Opener) -> None:
    """A name belongs into the configuration."""
    with pytest.raises(ConfigError, match="`storage` must be a function that opens a storage"):
        async with client_of(Scripted(), storage=storage):
            pass


async def test_a_stream_that_fails_says_so_in_its_event(autojump_clock: MockClock) -> None:
    """Not that somebody left it."""
    events = EventStream()
    told = turns_told(events)
    failing = fails(NetworkError("the connection broke", model="a"))

    async with (
        client_of(Scripted(failing), model(retry=RetryConfig(max_attempts=1)), events=events) as client,
        client.session("alice") as session,
        session.stream("1?") as stream,
    ):
        with pytest.raises(NetworkError):
            await anext(aiter(stream))

    assert [event.outcome for event in told] == ["failed"]


async def test_an_answer_that_is_no_valid_text_is_stored_all_the_same(autojump_clock: MockClock) -> None:
    """Half a surrogate pair, which a provider of one's own lets through, is replaced: the turn is not lost."""
    call = ToolCallDelta(0, id="c1", name="weather", arguments='{"a": "\ud83d"}')

    async with client_of(Scripted(says("half \ud83d", call))) as client, client.session("alice") as session:
        await session.send(Prompt("1?", tools=[WEATHER]))

    answer = session.history[-1]
    assert (answer.text, answer.tool_calls[0].arguments) == (
        "half \N{REPLACEMENT CHARACTER}",
        '{"a": "\N{REPLACEMENT CHARACTER}"}',
    )
