"""What all sessions of a client share: who grants their turns, where they are stored, and how long they last."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from itertools import count
from typing import Self

import trio
from attrs import field, frozen

from wizard_actors.actor import ActorRef
from wizard_actors.errors import ActorCrashedError, DeadlineExceededError
from wizard_actors.event_stream import EventStream
from wizard_actors.session import Lifetime, Session
from wizard_actors.session_record import SessionRecord, SessionState, SessionSummary
from wizard_actors.session_store import Begin, End, Lease, SessionStoreState
from wizard_actors.storage.base import SessionStorage

__all__ = ["Keeping", "Removal"]


@frozen(eq=False)
class Removal:
    """A removal of old sessions that is under way: whoever finds one within its reach waits until it is `over`."""

    used_before: float | None
    created_before: float | None
    over: trio.Event = field(factory=trio.Event)

    @classmethod
    def of_older(cls, now: float, *, idle: float | None, age: float | None) -> Self:
        """Return the removal of what was idle for so many seconds, or is so old, at the wall-clock time `now`."""
        return cls(None if idle is None else now - idle, None if age is None else now - age)

    def reaches(self, record: SessionRecord | SessionSummary) -> bool:
        """Whether the session may be removed."""
        unused = self.used_before is not None and record.used_at < self.used_before
        return unused or (self.created_before is not None and record.created_at < self.created_before)


@frozen(eq=False)
class Keeping:
    """What all sessions of a client share. `wall` is the wall clock, which never runs backwards."""

    store: ActorRef[SessionStoreState]
    storage: SessionStorage
    lifetime: Lifetime
    wall: Callable[[], float]
    events: EventStream
    _removals: list[Removal] = field(factory=list)
    _arrivals: Iterator[int] = field(factory=count)

    # -- leases

    async def take(self, session: str, request_id: str, *, deadline: float = math.inf) -> Lease:
        """Return the lease of a session, to be given back: nobody else of this client changes it meanwhile.

        Where the store crashes meanwhile, it is asked once more, for nothing was granted, and the place among those who
        wait stays. Raises `MailboxFullError` where too many wait for it, `DeadlineExceededError`, `ActorError`.
        """
        ask = partial(self.store.ask, Begin(session, request_id, next(self._arrivals)), deadline=deadline)
        try:
            try:
                return await ask()
            except ActorCrashedError:
                return await ask()
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

    # -- what is stored

    async def find(self, name: str) -> Session | None:
        """Return what is stored of a session; None where there is nothing, or one that has expired."""
        while True:
            record = await self.storage.load(name)
            removal = next((each for each in self._removals if record is not None and each.reaches(record)), None)
            if removal is None:
                break
            await removal.over.wait()
        if record is None or self.lifetime.state(record, self.wall()) is SessionState.EXPIRED:
            return None
        return Session.loaded(record)

    async def put(self, session: Session) -> Session:
        """Store what has changed of a session, and return it as it is stored. Its caller holds the lease."""
        if not session.changed:
            return session
        with trio.CancelScope(shield=True):  # each call within the storage's own deadline
            if not session.stored:
                await self._make_room(session.record.id)
            await self.storage.save(session.record)
        return session.saved()

    async def _make_room(self, name: str) -> None:
        """Mark an expired session as such where it is stored, so that a new one can take its place."""
        record, now = await self.storage.load(name), self.wall()
        if record is None or record.state is SessionState.EXPIRED or not self.lifetime.over(record, now):
            return
        await self.storage.save(Session.loaded(record).expired(now).record)

    @contextmanager
    def removing(self, removal: Removal) -> Iterator[None]:
        """Let who finds a session within the reach of `removal` wait, for the length of a block.

        A turn that began before the block is known to the store as in progress; one that begins in it waits here.
        """
        self._removals.append(removal)
        try:
            yield
        finally:
            self._removals.remove(removal)
            removal.over.set()
