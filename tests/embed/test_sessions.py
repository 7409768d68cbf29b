"""Sessions under asyncio and in plain threads: real time, real storages."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from attrs import evolve

from tests.models import Scripted, Turn, says
from wizard_actors import (
    BlockingClient,
    DeadlineExceededError,
    InvalidStateTransitionError,
    ResilientClient,
    SessionNotInitializedError,
    TextDelta,
    WizardConfig,
)
from wizard_actors.config import Delivery, ModelConfig, SessionsConfig, StreamConfig


def settings(folder: Path, storage: str = "sqlite:sessions.db") -> WizardConfig:
    """Return the configuration of one model whose sessions are kept in a folder."""
    scheme, _, place = storage.partition(":")
    return WizardConfig(
        models=[ModelConfig(name="a", provider="simulated")],
        sessions=SessionsConfig(storage=f"{scheme}:{folder / place}"),
    )


@pytest.mark.parametrize("storage", ["sqlite:sessions.db", "file:sessions"])
def test_sessions_are_kept_under_asyncio(tmp_path: Path, storage: str) -> None:
    """Thirty users talk at once; each finds its own conversation again in the next client."""
    provider = Scripted(says("Hello"))

    async def talk(client: ResilientClient, user: str) -> list[str]:
        async with client.session(user) as session:
            await session.send(f"I am {user}")
            async with session.stream("Who?") as stream:
                pieces = [event.text async for event in stream if isinstance(event, TextDelta)]
            assert pieces == ["Hello"]
            return [message.text for message in session.history]

    async def program() -> list[list[str]]:
        config = settings(tmp_path, storage)
        async with ResilientClient.open(config, providers={"a": provider}) as client:
            await asyncio.gather(*(talk(client, f"user {number}") for number in range(30)))
        async with ResilientClient.open(config, providers={"a": provider}) as client:
            assert len(await client.sessions.list()) == 30
            return await asyncio.gather(*(talk(client, f"user {number}") for number in range(30)))

    histories = asyncio.run(program())

    assert histories == [[f"I am user {n}", "Hello", "Who?", "Hello"] * 2 for n in range(30)]


def test_a_cancelled_task_leaves_its_session_as_it_was(tmp_path: Path) -> None:
    """Under asyncio a cancelled `send` returns when the session is free again; so does a stream that is left."""
    provider = Scripted(Turn(head=60.0), says("o", 60.0, "ne"), says("done"))

    async def program() -> list[str]:
        async with (
            ResilientClient.open(settings(tmp_path), providers={"a": provider}) as client,
            client.session("alice") as session,
        ):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await session.send("1?")
            async with session.stream("2?") as stream:
                async for _ in stream.text():
                    break
            assert session.record.turns == ()
            await asyncio.wait_for(session.send("3?"), 10)
            return [message.text for message in session.history]

    assert asyncio.run(program()) == ["3?", "done"]
    assert provider.in_flight == 0


def test_sessions_are_kept_without_an_event_loop(tmp_path: Path) -> None:
    """Everything that an asynchronous session does, a blocking one does too."""
    provider = Scripted(says("one"), says("two"), says("better"))
    with BlockingClient.open(settings(tmp_path), providers={"a": provider}) as client:
        with client.session("alice", system="Be brief") as session:
            assert session.send("1?").text == "one"
            with session.stream("2?") as stream:
                assert list(stream.text()) == ["two"]
            session.retry()
            assert [message.text for message in session.history] == ["1?", "one", "2?", "better"]
            assert len(session.undo()) == 1
            session.update(context={"user": 1}, model="a")
            session.refresh()
            assert (session.context, session.model) == ({"user": 1}, "a")
            with session.stream_retry() as stream:
                for _ in stream:
                    pass
            session.keep()
            record = session.record
            session.close()
        with pytest.raises(SessionNotInitializedError):
            session.send("3?")

        assert [each.id for each in client.sessions.list()] == ["alice"]
        found = client.sessions.load("alice")
        assert found is not None
        assert found.turns == record.turns
        assert client.sessions.delete("alice")
        assert client.sessions.add(record).turns == record.turns
        assert client.sessions.purge(age=0) == ("alice",)


def test_threads_take_turns_in_one_session(tmp_path: Path) -> None:
    """Eight threads share a session: no turn is lost, none goes between the others' question and answer."""
    provider = Scripted(says("yes"))
    with BlockingClient.open(settings(tmp_path), providers={"a": provider}) as client, client.session("all") as session:
        threads = [threading.Thread(target=session.send, args=(f"thread {number}?",)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

        said = [message.text for message in session.history]
        assert sorted(said[::2]) == [f"thread {number}?" for number in range(8)]
        assert said[1::2] == ["yes"] * 8
        assert session.delete()


def test_a_stream_left_before_its_end_is_not_stored_though_it_was_read_ahead(tmp_path: Path) -> None:
    """The answer is whole long before its reader has seen it: who leaves early leaves the session as it was."""
    provider = Scripted(says("a", "b", "c"))

    async def program() -> int:
        async with (
            ResilientClient.open(settings(tmp_path), providers={"a": provider}) as client,
            client.session("alice") as session,
        ):
            async with session.stream("1?") as stream:
                await anext(stream.text())
                await asyncio.sleep(0.1)
            async with session.stream("2?") as stream:
                async for event in stream:
                    if isinstance(event, TextDelta) and event.text == "c":
                        break
            return len(session.record.turns)

    assert asyncio.run(program()) == 0
    with (
        BlockingClient.open(settings(tmp_path), providers={"a": provider}) as client,
        client.session("bob") as session,
    ):
        with session.stream("1?") as stream:
            assert next(stream.text()) == "a"
        session.refresh()
        assert session.record.turns == ()
        with session.stream("2?") as stream:
            next(stream)
            with pytest.raises(InvalidStateTransitionError, match="in the middle of a stream"):
                session.undo()
            assert list(stream.text()) == ["b", "c"]
        assert len(session.record.turns) == 1


@pytest.mark.parametrize("delivery", ["live", "buffered"])
def test_a_stream_that_nobody_reads_frees_its_session_in_every_host(tmp_path: Path, delivery: Delivery) -> None:
    """Also where the answer is whole, and longer than what is read ahead."""
    provider = Scripted(says(*"0123456789" * 5), says("two"))
    config = evolve(settings(tmp_path), stream=StreamConfig(consumer_idle=0.3, delivery=delivery))

    with BlockingClient.open(config, providers={"a": provider}) as client:
        with client.session("alice") as here, client.session("alice") as there, here.stream("1?") as stream:
            next(stream)
            assert there.send("2?", deadline=10).text == "two"
            with pytest.raises(DeadlineExceededError, match="nobody read the stream"):
                list(stream)
        assert len(there.record.turns) == 1


def test_threads_that_stream_in_one_session_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Each is refused in the middle of its own stream only, and streams that nobody read leave nothing behind."""
    provider = Scripted(says("a", "b"))
    refused = list[str]()

    with BlockingClient.open(settings(tmp_path), providers={"a": provider}) as client, client.session("all") as session:

        def talk(name: str) -> None:
            with session.stream("never read"):
                pass
            with session.stream(name) as stream:
                next(stream)
                try:
                    session.undo()
                except InvalidStateTransitionError:
                    refused.append(name)
                for _ in stream:
                    pass

        names = [f"thread {number}" for number in range(8)]
        threads = [threading.Thread(target=talk, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

        assert sorted(refused) == names
        assert sorted(turn.messages[0].text for turn in session.record.turns) == names
        assert len(session._streaming) <= len(names)
