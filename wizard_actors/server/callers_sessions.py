"""One key's sessions: in the storage their ids begin with the key's name, which the key itself never sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from attrs import evolve

from wizard_actors.ask_options import AskOptions
from wizard_actors.errors import ConfigError, SerializationError, SessionConflictError, StorageError, WizardError
from wizard_actors.held_session import HeldSession
from wizard_actors.request import Delivery
from wizard_actors.response_stream import Source, Taken
from wizard_actors.session import Settings
from wizard_actors.session_question import Question
from wizard_actors.session_record import MAX_ID, SessionRecord, SessionSummary, check_id
from wizard_actors.session_turn import Turn
from wizard_actors.sessions import TrioSessions
from wizard_actors.types import StreamEvent, WizardResponse

__all__ = ["CallersSessions"]


class CallersSessions:
    """The sessions among `sessions` whose ids begin with `prefix`: what goes in and comes out, errors too, names them
    without it. None of them can be named that begins otherwise.
    """

    def __init__(self, sessions: TrioSessions, prefix: str) -> None:
        self._sessions = sessions
        self._prefix = prefix

    # -- one session

    async def open(self, name: str, settings: Settings | None = None) -> HeldSession:
        """Return a session as it is stored now, or one that begins; one that is stored gets the settings.

        Raises `SerializationError` for a name that no session can have, or that is too long with the key's in front of
        it, and for settings that cannot be stored; `ConfigError` and `AccessDeniedError` for a route or model that
        there is not, or that is not for this key; `InvalidStateTransitionError` where the session is closed, and the
        settings would change it; `StorageError`.
        """
        with self._shown():
            held = self._sessions.held(self._stored(name), settings or Settings())
            await held.open()
            return held

    async def update(self, held: HeldSession, settings: Settings) -> None:
        """Set what is given, and store it. Raises what `open` raises, and `SessionConflictError`."""
        with self._shown():
            await self._sessions.update(held, settings)

    def record(self, held: HeldSession) -> SessionRecord:
        """Return what was seen last of a session, in the state that it is in now."""
        record = held.session.record
        return evolve(record, id=self._seen(record.id), state=self._sessions.state(record))

    def turn(self, held: HeldSession, question: Question, delivery: Delivery, options: AskOptions) -> Turn:
        """Return a turn to be begun. Raises `ConfigError` and `AccessDeniedError` for options that are wrong."""
        with self._shown():
            return self._sessions.turn(held, question, delivery, options)

    async def send(self, turn: Turn) -> WizardResponse:
        """Return the whole answer of a turn, once it is stored."""
        with self._shown():
            return await self._sessions.send(turn)

    def source(self, turn: Turn, taken: Taken) -> Source:
        """Return the events of a turn's answer; `taken` waits for its reader."""
        return _Shown(self._sessions.source(turn, taken), self)

    # -- all of them

    async def list(
        self, *, limit: int = 50, after: SessionSummary | None = None, prefix: str = ""
    ) -> Sequence[SessionSummary]:
        """Return a page of this key's sessions whose names begin with `prefix`, those used last first."""
        if isinstance(after, SessionSummary):
            after = evolve(after, id=self._prefix + after.id)
        with self._shown():
            page = await self._sessions.list(limit=limit, after=after, prefix=self._prefix + prefix)
        return [evolve(each, id=self._seen(each.id)) for each in page]

    async def load(self, name: str) -> SessionRecord | None:
        """Return what is stored of a session, in the state that it is in now; None where there is nothing."""
        with self._shown():
            record = await self._sessions.load(self._stored(name))
        return None if record is None else evolve(record, id=self._seen(record.id))

    async def delete(self, name: str) -> bool:
        """Remove a session, once the turn in progress has ended; False where there was none."""
        with self._shown():
            return await self._sessions.delete(self._stored(name))

    # -- names

    def _stored(self, name: str) -> str:
        """Return the id under which a session is stored."""
        check_id(name)
        most = MAX_ID - len(self._prefix)
        if len(name) > most:
            raise SerializationError(
                f"a session's id has at most {most} characters with this key, whose name is stored in front of it; not "
                f"{len(name)}"
            )
        return self._prefix + name

    def _seen(self, stored: str) -> str:
        return stored.removeprefix(self._prefix)

    @contextmanager
    def _shown(self) -> Iterator[None]:
        """Let errors name sessions as the key does."""
        try:
            yield
        except WizardError as error:
            self.show(error)
            raise

    def show(self, error: WizardError) -> None:
        """Let an error name its session as the key does."""
        if not self._prefix:
            return
        error.message = self._said(error.message)
        if isinstance(error, ConfigError):
            error.problems = tuple(
                evolve(problem, reason=self._said(problem.reason), hint=self._said(problem.hint))
                for problem in error.problems
            )
        if isinstance(error, SessionConflictError | StorageError) and error.session is not None:
            error.session = self._seen(error.session)

    def _said(self, text: str) -> str:
        for quote in "'\"":  # whichever Python has put round the name
            text = text.replace(f"session {quote}{self._prefix}", f"session {quote}")
        return text


class _Shown:
    """The events of a turn's answer, whose errors name its session as the key does."""

    def __init__(self, source: Source, sessions: CallersSessions) -> None:
        self._source = source
        self._sessions = sessions

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        try:
            return await anext(self._source)
        except WizardError as error:
            self._sessions.show(error)
            raise

    async def aclose(self) -> None:
        """Stop the call, if it is not over; the turn is then not stored."""
        await self._source.aclose()
