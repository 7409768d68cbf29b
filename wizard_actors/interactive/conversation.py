"""One session in the chat: its turns, and the commands that concern it. What fails is told, and the chat goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeAlias

import trio
from attrs import evolve, frozen

from wizard_actors.client import ResilientClient
from wizard_actors.conversion import from_os
from wizard_actors.errors import InvalidPromptError, SessionConflictError, StorageError, WizardError
from wizard_actors.interactive.commands import Command, Line, Message, Unknown, help_text
from wizard_actors.interactive.screens import Screen
from wizard_actors.interactive.shown import (
    costs,
    greeting,
    model_names,
    route_names,
    session_list,
    what_is_known,
    what_it_is,
)
from wizard_actors.persistent_session import PersistentSession
from wizard_actors.response_stream import ResponseStream
from wizard_actors.session_record import SessionRecord, TurnRecord
from wizard_actors.session_text import to_json, to_markdown
from wizard_actors.whole_file import write_new, write_over

__all__ = ["Conversation", "Go"]

LISTED: Final = 20
"""Sessions that /sessions lists."""

FORMS: Final[Mapping[str, Callable[[SessionRecord], str]]] = MappingProxyType({".md": to_markdown, ".json": to_json})
"""How /save writes a session, by the end of the file's name."""

NOT_STORED: Final = "ask on and it is stored first, /save FILE writes it to a file, /undo drops it"

NOT_ASKED: Final = (
    "the last answer is still not stored, and this question was not asked: /retry asks it, /save FILE writes the "
    "answer to a file, /undo drops it"
)

NOT_LEFT: Final = (
    "the last answer is not stored, and would be lost: /save FILE writes it to a file; leaving once more drops it"
)

LOST: Final = "the last answer is not stored, and is lost"

THEIRS: Final = "somebody else has gone on with this session meanwhile: this turn stands after theirs"

REMOVED: Final = "somebody else has removed this session meanwhile: this turn begins a new one"


@frozen
class Go:
    """Leave this session, for the one named `to`; None: leave the chat."""

    to: str | None = None


Outcome: TypeAlias = bool | Go
"""What became of a line: whether it did what it was to do, or where to go."""


class Conversation:
    """A session that is open, and whoever talks in it."""

    def __init__(self, client: ResilientClient, session: PersistentSession, screen: Screen) -> None:
        self._client = client
        self._session = session
        self._screen = screen
        self._unanswered: str | None = None
        """The last question, where it has no answer."""
        self._asking: str | None = None
        """The id of the turn under way, until it has been said what became of it."""
        self._warned: TurnRecord | None = None
        """The answer of which it was said that leaving loses it."""
        self._saved: set[Path] = set()
        self._commands: Mapping[str, Callable[[str], Awaitable[Outcome]]] = {
            "model": self._model,
            "route": self._route,
            "system": self._system,
            "retry": self._retry,
            "undo": self._undo,
            "save": self._save,
            "sessions": self._sessions,
            "cost": self._cost,
            "help": self._help,
            "quit": self._quit,
        }

    async def greet(self) -> None:
        """Say which session this is."""
        await self._screen.note(greeting(self._session, self._client.config))

    async def obey(self, line: Line) -> Outcome:
        """Do what a line says. Where it fails that is told, and what is stored is as it was."""
        try:
            match line:
                case Message(text):
                    return await self._ask(text)
                case Command(name, argument):
                    return await self._commands[name](argument)
                case Unknown(said):
                    await self._screen.failure(said)
                    return False
        except WizardError as error:
            await self._failed(error)
            return False

    async def interrupted(self) -> None:
        """Say what has become of a line that was stopped."""
        asking, self._asking = self._asking, None
        turns = self._session.record.turns
        if asking is not None and (self._session.unsaved is not None or (turns and turns[-1].request_id == asking)):
            self._unanswered = None
        await self._screen.settle()
        if asking is None:
            await self._screen.note("stopped" if self._unanswered is None else "stopped; /retry asks the last question")
        elif self._session.unsaved is not None:
            await self._screen.note(f"stopped: the answer came, and is not stored; {NOT_STORED}")
        elif turns and turns[-1].request_id == asking:
            await self._screen.note("the answer was whole already: this turn is stored, /undo takes it back")
        else:
            await self._screen.note("stopped: this turn is not stored; /retry asks again")

    async def leave(self, *, last: bool = False) -> bool:
        """Store an answer that is not stored yet. Where that fails it is said, and False returned; but with `last`, or
        asked once more, True, and the answer is lost.
        """
        unsaved = self._session.unsaved
        lost = last or (unsaved is not None and unsaved == self._warned)
        if await self._kept(LOST if lost else NOT_LEFT):
            return True
        self._warned = unsaved
        return lost

    # -- turns

    async def _ask(self, text: str) -> bool:
        self._unanswered = text
        return await self._turn(lambda: self._session.stream(text))

    async def _retry(self, _: str) -> bool:
        if self._unanswered is not None:
            return await self._ask(self._unanswered)
        return await self._turn(self._session.stream_retry)

    async def _turn(self, ask: Callable[[], ResponseStream]) -> bool:
        if not await self._kept(NOT_ASKED):
            return False
        events = ask()
        self._asking = events.request_id
        try:
            async with events:
                await self._screen.show(events)
        except SessionConflictError:
            unsaved = self._session.unsaved
            if unsaved is None:
                raise
            await self._session.keep()
            notes = [THEIRS if len(self._session.record.turns) > 1 else REMOVED, *what_is_known(unsaved)]
        else:
            notes = list(what_it_is(events.response))
        await self._screen.settle()
        self._asking = self._unanswered = None
        for note in notes:
            await self._screen.note(note)
        return True

    async def _kept(self, otherwise: str) -> bool:
        """Store an answer that is not stored yet, after whatever is stored now; say where that fails."""
        if self._session.unsaved is None:
            return True
        try:
            await self._session.keep()
        except WizardError as error:
            await self._screen.failure(f"{_line(error)}; {otherwise}")
            return False
        await self._screen.note("the answer that was not stored is stored now")
        return True

    async def _failed(self, error: WizardError) -> None:
        said = _line(error)
        if self._asking is not None and self._session.unsaved is not None:
            self._unanswered = None
            said = f"{said}; {NOT_STORED}"
        await self._screen.settle()
        await self._screen.failure(said)
        self._asking = None  # only now: one that is interrupted before that is told by `interrupted`

    async def _undo(self, _: str) -> bool:
        unsaved = self._session.unsaved
        if unsaved is not None:
            self._session.discard()
            taken: tuple[TurnRecord, ...] = (unsaved,)
        else:
            self._unanswered = None
            taken = await self._session.undo()
        left = len(self._session.record.turns)
        question = " ".join(taken[0].messages[0].text.split())
        shown = question if len(question) <= 60 else f"{question[:59]}…"
        await self._screen.note(f"taken back: {shown!r} and its answer; {_turns(left)} left")
        return True

    # -- settings

    async def _model(self, name: str) -> bool:
        if name:
            self._client.config.model(name)
            await self._session.update(model=name)
            await self._screen.note(f"the model {name} answers from now on; /route NAME asks a route again")
        else:
            await self._screen.text(model_names(self._session, self._client.config))
        return True

    async def _route(self, name: str) -> bool:
        if name:
            self._client.config.route(name)
            await self._session.update(route=name, model=None)
            await self._screen.note(f"the route {name} answers from now on")
        else:
            await self._screen.text(route_names(self._session, self._client.config))
        return True

    async def _system(self, text: str) -> bool:
        if not text:
            await self._screen.text(f"{self._session.system or 'there is no system prompt'}\n")
            return True
        await self._session.update(system=None if text == "-" else text)
        await self._screen.note("the system prompt is gone" if text == "-" else "the system prompt is set")
        return True

    # -- the rest

    async def _save(self, name: str) -> bool:
        path = _path(name)
        form = FORMS.get(path.suffix.lower())
        if form is None:
            raise InvalidPromptError(f"/save writes Markdown or JSON: name the file {path.stem or 'chat'}.md or .json")
        record, unsaved = self._session.record, self._session.unsaved
        if unsaved is not None:
            record = evolve(record, turns=(*record.turns, unsaved))
        again = path.absolute() in self._saved
        await trio.to_thread.run_sync(_write, path, form(record), again)
        self._saved.add(path.absolute())
        await self._screen.note(f"{_turns(len(record.turns))} written to {path}")
        return True

    async def _sessions(self, name: str) -> Outcome:
        if name and name != self._session.id:
            return Go(name) if await self.leave() else False
        page = await self._client.sessions.list(limit=LISTED)
        await self._screen.text(session_list(page, self._session.id, more=len(page) == LISTED))
        return True

    async def _cost(self, _: str) -> bool:
        await self._screen.text(costs(self._session))
        return True

    async def _help(self, _: str) -> bool:
        await self._screen.text(help_text())
        return True

    async def _quit(self, _: str) -> Outcome:
        await trio.lowlevel.checkpoint()
        return Go() if await self.leave() else False


def _line(error: WizardError) -> str:
    return " ".join(error.message.split())


def _turns(number: int) -> str:
    return "1 turn" if number == 1 else f"{number} turns"


def _path(name: str) -> Path:
    """Return the path that a name means; a tilde is a home, where there is one."""
    path = Path(name)
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def _write(path: Path, text: str, again: bool) -> None:
    """Write a file of the user's own that is new, or was written before in this chat: all of it, or nothing."""
    try:
        if again:
            write_over(path, text)
        else:
            write_new(path, text)
    except FileExistsError:
        raise StorageError(f"{path} exists already: take another name", path=str(path)) from None
    except (OSError, ValueError) as error:
        raise from_os(error if isinstance(error, OSError) else OSError(0, str(error)), str(path)) from error
