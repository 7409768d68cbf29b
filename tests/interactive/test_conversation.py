"""Turns in the chat where storing fails, or somebody else is at the same session."""

import errno
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
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

BROKEN = """
[[models]]
name = "broken"
provider = "simulated"
retry = { max_attempts = 1 }
simulated = { script = [{ fault = "error", times = 1000 }], first_token = 0 }

[fallback]
static_answer = "Nobody is there."
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

    async def questions(self) -> list[str]:
        """Return what was asked in the turns that are stored."""
        record = await self.client.sessions.load("mine")
        return [] if record is None else [turn.messages[0].text for turn in record.turns]

    async def somebody_goes_on(self) -> None:
        """Store the first turn once more, as another program that is at the same session might."""
        stored = await self.disk.load("mine")
        assert stored is not None
        turns = (*stored.turns, stored.turns[0])
        await self.disk.save(
            SessionRecord("mine", created_at=stored.created_at, version=stored.version + 1, turns=turns)
        )


@asynccontextmanager
async def chatting(config: str = CONFIG) -> AsyncIterator[Chat]:
    """Open a session on a disk."""
    disk, screen = Disk(), Notes()

    @asynccontextmanager
    async def opened() -> AsyncIterator[Disk]:
        yield disk

    async with (
        ResilientClient.open(WizardConfig.from_toml(config), storage=opened) as client,
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

        async def somebody() -> None:
            await trio.sleep(1.5)
            await chat.somebody_goes_on()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(somebody)
            assert await chat.type("two") is True, chat.screen.said
        assert "this turn stands after theirs" in chat.screen.said[-1]
        assert await chat.stored() == 3


async def test_a_session_that_somebody_removes_begins_anew(autojump_clock: MockClock) -> None:
    """With the answer that had come meanwhile."""
    async with chatting() as chat:
        await chat.type("one")

        async def somebody() -> None:
            await trio.sleep(1.5)
            await chat.disk.delete("mine")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(somebody)
            assert await chat.type("two") is True
        assert "has removed this session meanwhile" in chat.screen.said[-1]
        assert await chat.questions() == ["two"]


async def test_an_answer_that_is_not_stored_can_be_saved(autojump_clock: MockClock, tmp_path: Path) -> None:
    """With all that came before it."""
    async with chatting() as chat:
        await chat.type("one")
        chat.disk.full = True
        await chat.type("two")
        assert await chat.type(f"/save {tmp_path / 'it.md'}") is True
        assert (tmp_path / "it.md").read_text(encoding="utf-8").count("All is well.") == 2


async def test_a_question_after_an_answer_that_no_longer_fits_is_asked(autojump_clock: MockClock) -> None:
    """That answer is stored after what somebody else has stored meanwhile, and is not taken for this question's."""
    async with chatting() as chat:
        await chat.type("one")
        chat.disk.full = True
        await chat.type("two")
        chat.disk.full = False
        await chat.somebody_goes_on()
        chat.screen.answer = ""
        assert await chat.type("three") is True
        assert chat.screen.answer == "All is well."
        assert await chat.questions() == ["one", "one", "two", "three"]


async def test_a_question_that_was_not_asked_is_the_one_that_is_asked_again(autojump_clock: MockClock) -> None:
    """The answer before it could not be stored still: both are there when the disk has room."""
    async with chatting() as chat:
        await chat.type("one")
        chat.disk.full = True
        await chat.type("two")
        chat.screen.answer = ""
        assert await chat.type("three") is False
        assert "this question was not asked: /retry asks it" in chat.screen.said[-1]
        assert chat.screen.answer == ""
        chat.disk.full = False
        assert await chat.type("/retry") is True
        assert await chat.questions() == ["one", "two", "three"]


async def test_dropping_an_answer_keeps_the_question_after_it(autojump_clock: MockClock) -> None:
    """/undo takes the answer that could not be stored, /retry asks what could not be asked because of it."""
    async with chatting() as chat:
        chat.disk.full = True
        await chat.type("two")
        await chat.type("three")
        assert await chat.type("/undo") is True
        chat.disk.full = False
        assert await chat.type("/retry") is True
        assert await chat.questions() == ["three"]


async def test_a_stop_while_storing_fails_says_that_the_answer_is_not_stored(autojump_clock: MockClock) -> None:
    """/retry then asks for another answer in its place, and does not store the question twice."""
    async with chatting() as chat:
        await chat.type("one")
        chat.disk.slow, chat.disk.full = 5, True
        with trio.move_on_after(6):  # the answer takes three seconds
            await chat.type("two")
        await chat.conversation.interrupted()
        assert "the answer came, and is not stored; ask on" in chat.screen.said[-1]
        chat.disk.slow, chat.disk.full = 0, False
        assert await chat.type("/retry") is True
        assert await chat.questions() == ["one", "two"]


async def test_what_an_answer_lacks_is_told_where_it_stands_after_somebody_elses(autojump_clock: MockClock) -> None:
    """No model answered: that is not hidden by where the answer is stored."""
    async with chatting(BROKEN) as chat:
        await chat.type("one")
        chat.disk.slow = 1

        async def somebody() -> None:
            await trio.sleep(0.5)  # while the answer is on its way into the storage
            chat.disk.slow = 0
            await chat.somebody_goes_on()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(somebody)
            assert await chat.type("two") is True
        assert chat.screen.said[-2:] == [
            "somebody else has gone on with this session meanwhile: this turn stands after theirs",
            "no model answered: this is the route's static answer",
        ]


@pytest.mark.parametrize("line", ["/quit", "exit", "/sessions other"])
async def test_leaving_stores_an_answer_first(autojump_clock: MockClock, line: str) -> None:
    """Where that is possible now."""
    async with chatting() as chat:
        chat.disk.full = True
        await chat.type("one")
        chat.disk.full = False
        assert isinstance(await chat.type(line), Go)
        assert chat.screen.said[-1] == "the answer that was not stored is stored now"
        assert await chat.stored() == 1


@pytest.mark.parametrize("line", ["/quit", "/sessions other"])
async def test_leaving_an_answer_behind_takes_two(autojump_clock: MockClock, line: str) -> None:
    """The first one says how not to lose it."""
    async with chatting() as chat:
        chat.disk.full = True
        await chat.type("one")
        assert await chat.type(line) is False
        assert "would be lost: /save FILE writes it to a file; leaving once more drops it" in chat.screen.said[-1]
        assert isinstance(await chat.type(line), Go)
        assert chat.screen.said[-1].endswith("the last answer is not stored, and is lost")


async def test_where_there_are_no_more_lines_an_answer_that_is_lost_is_told(autojump_clock: MockClock) -> None:
    """Nobody is there to leave once more."""
    async with chatting() as chat:
        chat.disk.full = True
        await chat.type("one")
        assert await chat.conversation.leave(last=True) is True
        assert chat.screen.said[-1] == "disk: it is full; the last answer is not stored, and is lost"


async def test_a_closed_session_is_said_to_be_so_at_once(autojump_clock: MockClock) -> None:
    """Before a question is typed for nothing."""
    async with chatting() as chat:
        await chat.type("one")
        async with chat.client.session("mine") as session:
            await session.close()
            await Conversation(chat.client, session, chat.screen).greet()
        assert "it is closed and takes no more turns" in chat.screen.said[-1]


def files(folder: Path) -> dict[str, str]:
    """Return what is in a folder."""
    return {each.name: each.read_text(encoding="utf-8") for each in folder.iterdir()}


@pytest.mark.parametrize("again", [False, True])
async def test_a_file_that_cannot_be_written_whole_is_as_it_was(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """It is its owner's alone; a full disk costs no earlier one, and leaves no stub."""
    path, before = tmp_path / "it.md", dict[str, str]()

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with chatting() as chat:
        await chat.type("one")
        if again:
            assert await chat.type(f"/save {path}") is True
            assert path.stat().st_mode & 0o777 == 0o600
            before = files(tmp_path)
        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", full)
            assert await chat.type(f"/save {path}") is False
        assert "No space left on device" in chat.screen.said[-1]
        assert files(tmp_path) == before
        await chat.type("two")
        assert await chat.type(f"/save {path}") is True
        assert list(files(tmp_path)) == ["it.md"]
        assert path.read_text(encoding="utf-8").count("All is well.") == 2
        assert path.stat().st_mode & 0o777 == 0o600


async def test_commands_say_where_to_go(autojump_clock: MockClock) -> None:
    """To another session, or out."""
    async with chatting() as chat:
        assert await chat.type("/sessions other") == Go("other")
        assert await chat.type("/quit") == Go()
        assert await chat.type("/sessions") is True
        assert chat.screen.said[-1] == "no session is stored yet\n"
