"""A session in somebody's hands: what its holder knows of it, kept in step with what is stored.

What is stored counts. Every turn and every change takes the session's lease, loads the session, changes that, and
stores it before the lease is returned; so several holders, in this process or in others, go on from each other's turns.
A record is stored shielded from cancellation, within the storage's own deadline: whoever is cancelled meanwhile leaves
the whole of it, or nothing.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio
from attrs import evolve, frozen

from wizard_actors.actor import ActorRef
from wizard_actors.errors import DeadlineExceededError, SessionConflictError, WizardError
from wizard_actors.event_stream import EventStream
from wizard_actors.session import Lifetime, Session, Settings
from wizard_actors.session_record import SessionState, TurnRecord
from wizard_actors.session_store import Begin, End, Lease, SessionStoreState
from wizard_actors.storage.base import SessionStorage

__all__ = ["HeldSession", "Keeping"]

NOT_LOST: Final = "the answer is not stored, and not lost"


@frozen(eq=False)
class Keeping:
    """What all sessions of a client share: who grants turns, where sessions are stored and for how long they last.

    `wall` is the wall clock, which never runs backwards.
    """

    store: ActorRef[SessionStoreState]
    storage: SessionStorage
    lifetime: Lifetime
    wall: Callable[[], float]
    events: EventStream

    async def take(self, session: str, request_id: str, *, deadline: float = math.inf) -> Lease:
        """Return the lease of a session, to be given back: nobody else of this client changes it meanwhile.

        Raises `MailboxFullError` where too many wait for it, `DeadlineExceededError`, `ActorError`.
        """
        try:
            return await self.store.ask(Begin(session, request_id), deadline=deadline)
        except DeadlineExceededError:
            raise DeadlineExceededError(
                f"session {session!r}: a turn is in progress, and did not end before the deadline of this one"
            ) from None

    def give_back(self, lease: Lease) -> None:
        """Give a lease back: the next one gets it. Never waits."""
        self.store.give_back(lease, End())

    @asynccontextmanager
    async def lease(self, session: str) -> AsyncIterator[None]:
        """Hold the lease of a session for the length of a block. Raises as `take`."""
        lease = await self.take(session, "")
        try:
            yield
        finally:
            self.give_back(lease)

    async def put(self, session: Session) -> Session:
        """Store what has changed of a session, and return it as it is stored. Its caller holds the lease."""
        if not session.changed:
            return session
        with trio.CancelScope(shield=True):  # each call within the storage's own deadline
            if not session.stored:
                await self._make_room(session.record.id)
            await self.storage.save(session.record)
        return session.saved()

    async def find(self, name: str) -> Session | None:
        """Return what is stored of a session; None where there is nothing, or one that has expired."""
        record = await self.storage.load(name)
        if record is None or self.lifetime.state(record, self.wall()) is SessionState.EXPIRED:
            return None
        return Session.loaded(record)

    async def _make_room(self, name: str) -> None:
        """Mark an expired session as such where it is stored, so that a new one can take its place."""
        record, now = await self.storage.load(name), self.wall()
        if record is None or record.state is SessionState.EXPIRED or not self.lifetime.over(record, now):
            return
        await self.storage.save(Session.loaded(record).expired(now).record)


class HeldSession:
    """One holder's session. `session` is what was seen of it last; it is read in any thread, and changed under Trio.

    `pending` is the session with a turn that was answered and could not be stored.
    """

    def __init__(self, keeping: Keeping, name: str, settings: Settings) -> None:
        self.name = name
        self.pending: Session | None = None
        self._keeping = keeping
        self._settings = settings
        self.session = Session.new(name, keeping.wall(), settings)

    @property
    def unsaved(self) -> TurnRecord | None:
        """The turn that was answered and could not be stored."""
        return None if self.pending is None else self.pending.record.turns[-1]

    async def open(self) -> None:
        """Load the session, or begin one, which is stored with its first turn. An open one gets the settings."""
        found = await self._keeping.find(self.name)
        if found is None:
            return
        self.session = found
        settings = self._settings
        if found.record.state is not SessionState.CLOSED and found.with_settings(settings, 0.0) is not found:
            await self.change(lambda session, now: session.with_settings(settings, now))

    async def refresh(self) -> None:
        """Load what is stored now. One that is gone stays as it was seen last, and says so when it is used."""
        found = await self._keeping.find(self.name)
        if found is not None and (not self.session.stored or self.session.is_of(found.record)):
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
        self.session = session
        return session

    async def change(self, step: Callable[[Session, float], Session]) -> None:
        """Change the session as it is stored now by `step`, and store it. Raises what `current` and `step` raise."""
        async with self._keeping.lease(self.name):
            session = await self.current()
            self.session = await self._keeping.put(step(session, self._keeping.wall()))

    async def keep_turn(self, session: Session) -> None:
        """Store a session with a new turn, its newest; where that fails, the turn is `unsaved`."""
        try:
            self.session = await self._keeping.put(session)
        except WizardError as error:
            self.pending = session
            error.message = f"{error.message}; {NOT_LOST}"
            raise
        self.pending = None

    async def keep(self) -> None:
        """Store the turn that could not be stored, after whatever was stored since. Raises as `current`."""
        async with self._keeping.lease(self.name):
            pending, session = self.pending, await self._found()
            if pending is None:
                return
            session.check_open(self._keeping.lifetime, self._keeping.wall())
            if not _follows(pending, session) and not _holds(session, pending):
                pending = session.with_turn(pending.record.turns[-1], self._keeping.wall())
                self.pending = pending
            self.session = await self._settled(pending, session)

    async def delete(self) -> bool:
        """Remove the session; whoever goes on begins a new one."""
        async with self._keeping.lease(self.name):
            gone = await self._keeping.storage.delete(self.name)
            self.pending = None
            self.session = Session.new(self.name, self._keeping.wall(), self._settings)
            return gone

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
        if not held.stored:
            return found.with_settings(self._settings, keeping.wall())
        if not held.is_of(found.record):
            raise held.moved_on(found.record)
        return found

    async def _settled(self, pending: Session, session: Session) -> Session:
        """Store the turn that could not be stored; `session` is what is stored now."""
        if _holds(session, pending):  # it was stored after all: a storage that is late may have done it
            self.pending = None
            return session
        if not _follows(pending, session):
            error = session.moved_on(session.record)
            raise SessionConflictError(
                f"session {self.name!r} has changed, and the last turn is not stored: session.keep() adds it to what "
                "is stored now, session.discard() drops it",
                session=error.session,
                version=pending.record.version,
                stored=session.stored,
            )
        settled = await self._keeping.put(pending)
        self.pending = None
        return settled


def _follows(pending: Session, session: Session) -> bool:
    """Whether `pending` is the version after the one that is stored."""
    return pending.stored == session.stored


def _holds(session: Session, pending: Session) -> bool:
    """Whether the newest turn of `pending` is stored."""
    return pending.record.turns[-1] in session.record.turns
