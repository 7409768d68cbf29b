"""Turns in the chat where storing fails, or somebody else is at the same session."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from attrs import Factory, define
from trio.testing import MockClock

from wizard_actors import ResilientClient
from wizard_actors.config import WizardConfig
from wizard_actors.errors import StorageError
from wizard_actors.interactive.commands import parse
from wizard_actors.interactive.conversation import Conversation, Go
from wizard_actors.response_stream import ResponseStream
from wizard_actors.session_record import SessionRecord
from wizard_actors.storage.memory import MemoryStorage
from wizard_actors.types import TextDelta

CONFIG = """
[[models]]
name = "pretender"
provider = "simulated"
simulated = { answer = "All is well.", first_token = 1, per_chunk = 1 }
"""


class Disk(MemoryStorage):
    """A storage that may be full, and that may tell when it is asked to save."""

    full = False
    slow = 0.0

    async def save(self, record: SessionRecord) -> None:
        """Store a record, or not."""
        await trio.sleep(self.slow)
        if self.full:
            raise StorageError("disk: it is full", backend="disk")
        await super().save(record)


@define
class Notes:
    """A screen that remembers what it is shown."""

    said: list[str] = Factory(list)
    answer: str = ""
    cancelled: Callable[[], None] | None = None
    after: int = 0

    async def show(self, events: ResponseStream) -> None:
        """Remember an answer; what is to stop it is called after some of its words."""
        words = 0
        async for event in events:
            if isinstance(event, TextDelta):
                self.answer += event.text
                words += 1
                if self.cancelled is not None and words == self.after:
                    self.cancelled()

    async def settle(self) -> None:
        """Nothing is open; it can be cancelled, as all that writes."""
        await trio.lowlevel.checkpoint()

    async def text(self, text: str) -> None:
        """Remember it."""
        self.said.append(text)

    note = text
    failure = text


@define
class Chat:
    """A conversation, and what it was shown on."""

    conversation: Conversation
    client: ResilientClient
    disk: Disk
    screen: Notes

    async def type(self, line: str) -> bool | Go:
        """Have a line done."""
        meaning = parse(line)
        assert meaning is not None
        return await self.conversation.obey(meaning)

    async def stored(self) -> int:
        """Return how many turns are stored."""
        record = await self.client.sessions.load("mine")
        return 0 if record is None else len(record.turns)


@asynccontextmanager
async def chatting() -> AsyncIterator[Chat]:
    """Open a session on a disk."""
    disk, screen = Disk(), Notes()

    @asynccontextmanager
    async def opened() -> AsyncIterator[Disk]:
        yield disk

    async with (
        ResilientClient.open(WizardConfig.from_toml(CONFIG), storage=opened) as client,
        client.session("mine") as session,
    ):
        yield Chat(Conversation(client, session, screen), client, disk, screen)


async def test_an_answer_that_cannot_be_stored_is_said_to_be_so(autojump_clock: MockClock) -> None:
    """The next question stores it first."""
    async with chatting() as chat:
        chat.disk.full = True
        assert await chat.type("one") is False
        assert chat.screen.answer == "All is well."
        assert "disk: it is full" in chat.screen.said[-1]
        assert "ask on and it is stored first, /save FILE writes it to a file, /undo drops it" in chat.screen.said[-1]
        chat.disk.full = False
        assert await chat.type("two") is True
        assert await chat.stored() == 2


async def test_an_answer_that_cannot_be_stored_can_be_dropped(autojump_clock: MockClock) -> None:
    """/undo takes it back, and nothing that is stored."""
    async with chatting() as chat:
        await chat.type("one")
        chat.disk.full = True
        await chat.type("two")
        chat.disk.full = False
        assert await chat.type("/undo") is True
        assert chat.screen.said[-1] == "taken back: 'two' and its answer; 1 turn left"
        assert await chat.stored() == 1


async def test_a_question_that_failed_is_the_one_that_is_asked_again(autojump_clock: MockClock) -> None:
    """And not the one before it, which has its answer."""
    async with chatting() as chat:
        await chat.type("one")
        with trio.CancelScope() as scope:
            chat.screen.cancelled, chat.screen.after = scope.cancel, 2
            await chat.type("two")
        chat.screen.cancelled = None
        await chat.conversation.interrupted()
        assert chat.screen.said[-1] == "stopped: this turn is not stored; /retry asks again"
        assert await chat.stored() == 1
        assert await chat.type("/retry") is True
        record = await chat.client.sessions.load("mine")
        assert record is not None
        assert [turn.messages[0].text for turn in record.turns] == ["one", "two"]


async def test_an_answer_that_was_whole_when_it_was_stopped_is_stored(autojump_clock: MockClock) -> None:
    """The stop came while it was being stored: that is told as it is."""
    async with chatting() as chat:
        chat.disk.slow = 5
        with trio.move_on_after(6):  # the answer takes three seconds
            await chat.type("one")
        await chat.conversation.interrupted()
        assert chat.screen.said[-1] == "the answer was whole already: this turn is stored, /undo takes it back"
        assert await chat.stored() == 1


async def test_a_turn_of_somebody_elses_comes_first(autojump_clock: MockClock) -> None:
    """Two chats in one session lose nothing to each other: the later answer stands after the earlier one."""
    async with chatting() as chat:
        await chat.type("one")
        record = await chat.disk.load("mine")
        assert record is not None

        async def somebody() -> None:
            await trio.sleep(1.5)
            stored = await chat.disk.load("mine")
            assert stored is not None
            turn = stored.turns[0]
            await chat.disk.save(
                SessionRecord(
                    "mine", created_at=stored.created_at, version=stored.version + 1, turns=(*stored.turns, turn)
                )
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(somebody)
            assert await chat.type("two") is True, chat.screen.said
        assert "this turn stands after theirs" in chat.screen.said[-1]
        assert await chat.stored() == 3


async def test_a_session_that_was_deleted_is_told_and_the_answer_can_be_saved(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """What was seen can be written to a file."""
    async with chatting() as chat:
        await chat.type("one")

        async def somebody() -> None:
            await trio.sleep(1.5)
            await chat.disk.delete("mine")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(somebody)
            assert await chat.type("two") is False
        assert "/save FILE writes it to a file" in chat.screen.said[-1]
        assert await chat.type(f"/save {tmp_path / 'it.md'}") is True
        assert (tmp_path / "it.md").read_text(encoding="utf-8").count("All is well.") == 2


async def test_commands_say_where_to_go(autojump_clock: MockClock) -> None:
    """To another session, or out."""
    async with chatting() as chat:
        assert await chat.type("/sessions other") == Go("other")
        assert await chat.type("/quit") == Go()
        assert await chat.type("/sessions") is True
        assert chat.screen.said[-1] == "no session is stored yet\n"
