"""The purge: expired sessions are removed in the background, a little at a time, and never one that is in use."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from wizard_actors.actor import ActorRef
from wizard_actors.errors import ActorStoppedError, WizardError
from wizard_actors.session import Lifetime
from wizard_actors.session_store import Busy
from wizard_actors.storage.base import SessionStorage
from wizard_actors.storing import Storing
from wizard_actors.turn_queue import SessionStoreState

__all__ = ["GRACE", "Purging", "purge_expired"]

log = logging.getLogger("wizard_actors.sessions")

GRACE: Final = 600.0
"""Seconds after which an expired session may be removed: a turn that began just before it expired, in another process
too, has that long to end.
"""

PAGE: Final = 200
PAGES: Final = 10


async def purge_expired(
    storage: SessionStorage,
    store: ActorRef[SessionStoreState],
    lifetime: Lifetime,
    wall: Callable[[], float],
    *,
    grace: float = GRACE,
    pages: int = PAGES,
) -> tuple[str, ...]:
    """Remove sessions that expired more than `grace` seconds ago, those unused for longest first, and return their ids:
    at most 200 times `pages`. Never one with a turn in progress here.

    `wall` is the wall clock, and must not run backwards: it is read *before* the store is asked who is busy. A turn
    that begins after that answer judges its session by a later instant than the purge does, so that what it finds alive
    is out of the purge's reach.

    Raises `StorageError`, and `ActorError` where the store does not answer. Cancelled, it has removed some.
    """
    now = wall()
    busy = await store.ask(Busy())
    removed: list[str] = []
    for _ in range(pages):
        page = await storage.purge(
            limit=PAGE,
            used_before=None if lifetime.idle is None else now - lifetime.idle - grace,
            created_before=None if lifetime.age is None else now - lifetime.age - grace,
            busy=busy,
        )
        removed += page
        if len(page) < PAGE:
            break
    return tuple(removed)


class Purging:
    """Removes the expired sessions of `storage` every so many seconds: run `run` in a task of its own.

    What goes wrong is logged, once for as long as it is the same, and tried again in the next round.
    """

    def __init__(
        self,
        storage: Storing,
        store: ActorRef[SessionStoreState],
        lifetime: Lifetime,
        wall: Callable[[], float],
        *,
        every: float = 60.0,
    ) -> None:
        self._storage = storage
        self._store = store
        self._lifetime = lifetime
        self._wall = wall
        self._every = every
        self._told = ""

    async def run(self) -> None:
        """Purge until cancelled, or until the store has stopped; for sessions that never expire, return at once.

        Nothing is opened for a purge: it begins when somebody has used a session.
        """
        if self._lifetime == Lifetime():
            return
        await self._storage.opened()
        while True:
            if not await self._round():
                return
            await trio.sleep(self._every)

    async def _round(self) -> bool:
        """Purge once; return whether there may be another time."""
        try:
            removed = await purge_expired(self._storage, self._store, self._lifetime, self._wall)
        except ActorStoppedError:
            return False
        except WizardError as error:
            if self._told != (told := str(error)):
                log.warning("expired sessions were not removed, which is tried again: %s", told)
            self._told = told
            return True
        self._told = ""
        if removed:
            log.info("%d expired sessions were removed", len(removed))
        return True
