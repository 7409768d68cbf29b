"""A session in somebody's hands: what its holder knows of it, kept in step with what is stored.

What is stored counts. Every turn and every change takes the session's lease, loads the session, changes that, and
stores it before the lease is returned; so several holders, in this process or in others, go on from each other's turns.
A record is stored shielded from cancellation, within the storage's own deadline: whoever is cancelled meanwhile leaves
the whole of it, or nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import evolve, frozen

from wizard_actors.errors import InvalidPromptError, SessionConflictError, WizardError
from wizard_actors.keeping import Keeping
from wizard_actors.session import Session, Settings
from wizard_actors.session_question import Question
from wizard_actors.session_record import TurnRecord
from wizard_actors.types.tool_round import check_tool_rounds

__all__ = ["NOT_LOST", "HeldSession", "Unsaved"]

NOT_LOST: Final = "the answer is not stored, and not lost"
TRIES: Final = 5
"""How often a turn is added to what others go on changing meanwhile."""


@frozen
class Unsaved:
    """A session with a turn that was answered and could not be stored; `replaces` the turn that was to give way."""

    session: Session
    replaces: TurnRecord | None = None

    @property
    def turn(self) -> TurnRecord:
        """The turn."""
        return self.session.record.turns[-1]


class HeldSession:
    """One holder's session. `session` is what was seen of it last; it is read in any thread, and changed under Trio.

    `pending` is what was answered and could not be stored. `question` is what was asked last, and `unanswered` says
    that no answer came.
    """

    def __init__(self, keeping: Keeping, name: str, settings: Settings) -> None:
        self.name = name
        self.pending: Unsaved | None = None
        self.question: Question | None = None
        self.unanswered = False
        self._keeping = keeping
        self._settings = settings
        self._unset = True  # the settings are not stored yet
        self.session = Session.new(name, keeping.wall(), settings)

    async def open(self) -> None:
        """Load the session, or begin one, which is stored with its first turn. One that is stored gets the settings.

        Raises `InvalidStateTransitionError` where it is closed, and the settings would change it.
        """
        await self.refresh()
        seen = self.session
        if not seen.stored:
            return
        if seen.with_settings(self._settings, 0.0) is seen:
            self._unset = False
        else:
            await self.change(lambda session, _now: session)

    async def refresh(self) -> None:
        """See what is stored now; where nothing is, a session that begins."""
        seen = self.session
        found = await self._keeping.find(self.name)
        if found is None and self.session is seen:  # else a turn was quicker
            self._begin_anew()
        elif found is None:
            return
        elif found.stored >= self.session.stored or not self.session.is_of(found.record):
            self.session = found

    async def current(self) -> Session:
        """Return the session as it is stored now, open, to be gone on from; its caller holds the lease.

        A turn that could not be stored before is stored first, where nothing else has changed since.

        Raises `InvalidStateTransitionError` where it is closed or has expired, `SessionConflictError` where it was
        deleted, or has changed so that the turn which is not stored no longer fits.
        """
        session = await self._found()
        session.check_open(self._keeping.lifetime, self._keeping.wall())
        if self.pending is not None:
            session = await self._settled(self.pending, session)
        if not (session.stored and session.changed):  # what is not stored yet was not seen
            self.session = session
        return session

    async def change(self, step: Callable[[Session, float], Session]) -> None:
        """Change the session as it is stored now by `step`, and store it. Raises what `current` and `step` raise."""
        async with self._keeping.lease(self.name):
            session = await self.current()
            await self._put(step(session, self._keeping.wall()))

    async def keep_turn(self, session: Session, replaces: TurnRecord | None) -> None:
        """Store a session with a new turn, its newest; where that fails, the turn is `pending`."""
        try:
            await self._put(session)
        except WizardError as error:
            self.pending = Unsaved(session, replaces)
            error.message = f"{error.message}; {NOT_LOST}"
            raise
        self.pending = None

    async def keep(self) -> None:
        """Store the turn that could not be stored, after whatever was stored since; where nothing is stored any more,
        as the first one of a new session.

        Raises `SessionConflictError` where it does not fit what is stored now, or others go on changing that;
        `InvalidStateTransitionError` where the session is closed; `StorageError`.
        """
        async with self._keeping.lease(self.name):
            for left in reversed(range(TRIES)):
                if self.pending is None:
                    return
                session = await self._with(self.pending)
                try:
                    await self._put(session)
                    self.pending = None
                except SessionConflictError:  # another process was quicker
                    if not left:
                        raise

    async def delete(self) -> bool:
        """Remove the session; whoever goes on begins a new one."""
        async with self._keeping.lease(self.name):
            gone = await self._keeping.storage.delete(self.name)
            self.pending, self.unanswered = None, False
            self._begin_anew()
            return gone

    def discard(self) -> None:
        """Drop the turn that could not be stored; what it asked has no answer then."""
        pending, self.pending = self.pending, None
        if pending is not None and pending.replaces is None:
            self.unanswered = self.question is not None

    def _begin_anew(self) -> None:
        self._unset = True
        self.session = Session.new(self.name, self._keeping.wall(), self._settings)

    async def _put(self, session: Session) -> None:
        """Store the session as what is seen of it."""
        self.session = await self._keeping.put(session)
        self._unset = False

    async def _found(self) -> Session:
        """Return the session as it is stored now; a new one where it is not stored yet."""
        keeping, held = self._keeping, self.session
        found = await keeping.find(self.name)
        if found is None and held.stored:
            held.check_open(keeping.lifetime, keeping.wall())
            raise held.moved_on(None)
        if found is None:
            now = keeping.wall()  # its life begins when it is first stored
            return evolve(held, record=evolve(held.record, created_at=now, updated_at=now, used_at=now))
        if held.stored and not held.is_of(found.record):
            raise held.moved_on(found.record)
        return self._set(found)

    def _set(self, found: Session) -> Session:
        """Return a session with the settings that it was opened with, if those are not stored yet."""
        return found.with_settings(self._settings, self._keeping.wall()) if self._unset else found

    async def _with(self, pending: Unsaved) -> Session:
        """Return what is stored now with the turn, to be stored; as it is where it has the turn already."""
        now, found = self._keeping.wall(), await self._keeping.find(self.name)
        base = found or Session.new(self.name, now, self._settings)
        if pending.turn in base.record.turns:  # a storage that is late may have stored it after all
            return base
        if found is not None and pending.replaces is not None:
            if found.record.turns[-1:] != (pending.replaces,):
                raise self._does_not_fit(found, "the one that it was to replace is not the last any more")
            base = found.without_last_turn()
        base = self._set(base)
        try:
            check_tool_rounds((*base.record.messages, *pending.turn.messages))
        except InvalidPromptError as error:
            raise self._does_not_fit(base, str(error)) from error
        return base.with_turn(pending.turn, now)

    async def _settled(self, pending: Unsaved, session: Session) -> Session:
        """Store the turn that could not be stored; `session` is what is stored now."""
        if pending.turn not in session.record.turns:  # else it was stored after all
            if pending.session.stored != session.stored:
                raise self._does_not_fit(session, "it has changed, and session.keep() adds the turn to what is there")
            session = await self._keeping.put(pending.session)
        self.pending = None
        return session

    def _does_not_fit(self, session: Session, why: str) -> SessionConflictError:
        return SessionConflictError(
            f"session {self.name!r}: the last turn is not stored: {why}; session.discard() drops it",
            session=self.name,
            version=session.stored + 1,
            stored=session.stored or None,
        )
