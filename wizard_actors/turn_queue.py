"""The core of the session store: who takes the turn of each session, and who waits for it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Final, Generic, Self, TypeVar

from attrs import frozen

from wizard_actors.waiting import Waiting

__all__ = ["MAX_WAITING", "Full", "Lease", "SessionStoreState", "TurnQueue"]

K = TypeVar("K", bound=Hashable)

MAX_WAITING: Final = 16
"""How many may wait for the turn of one session."""


@frozen(eq=False)
class Lease:
    """The turn of a session, taken at the instant `since` by the request `request_id`. No two leases are equal: each is
    given back as itself.
    """

    session: str
    request_id: str
    since: float


@frozen
class Full:
    """The request will not be granted, nothing was taken: `bound` turns are in progress or wait.

    `of_session`: they are those that wait for this one session, else all.
    """

    of_session: bool
    bound: int


@frozen
class _Place:
    """The place of somebody who waits."""

    request_id: str
    arrival: int


def _arrival(item: tuple[Hashable, _Place]) -> int:
    return item[1].arrival


@frozen
class SessionStoreState:
    """What others see of the session store: the `turns` in progress, the requests `waiting` for one, and how many were
    `granted` and `rejected` since the tree was started.
    """

    turns: int = 0
    waiting: int = 0
    granted: int = 0
    rejected: int = 0


class TurnQueue(Generic[K]):
    """One turn at a time for each session, in order of arrival; up to 16 more wait for one session, and up to `bound`
    turns are in progress or wait in all.

    A waiter is any hashable key; one who is forgotten costs nothing. Nobody gives up by the clock: `now` is only
    written into the leases. While somebody waits, a turn of that session is in progress.
    """

    def __init__(self, bound: int) -> None:
        if bound < 1:
            raise ValueError(f"a turn queue holds at least one turn, not {bound}")
        self._bound = bound
        self._running: dict[str, Lease] = {}
        self._waiting: dict[str, dict[K, _Place]] = {}  # by session, in order of arrival
        self._sessions: dict[K, str] = {}
        self._granted = self._rejected = 0

    @classmethod
    def restore(cls, bound: int, live: Iterable[Lease], carry: SessionStoreState | None) -> Self:
        """Make the next incarnation after a crash: it adopts the `live` leases, and nobody waits."""
        queue = cls(bound)
        queue._running = {lease.session: lease for lease in live}
        if carry is not None:
            queue._granted, queue._rejected = carry.granted, carry.rejected
        return queue

    def take(self, session: str, key: K, request_id: str, now: float, arrival: int = 0) -> Lease | Waiting | Full:
        """Ask for the turn of a session. Who has a lower `arrival` than others that wait goes before them: those who
        ask again after a crash do so in any order.
        """
        if len(self._waiting.get(session, ())) >= MAX_WAITING:
            self._rejected += 1
            return Full(of_session=True, bound=MAX_WAITING)
        if len(self._running) + len(self._sessions) >= self._bound:
            self._rejected += 1
            return Full(of_session=False, bound=self._bound)
        if session not in self._running:
            return self._grant(session, request_id, now)
        waiting = self._waiting.setdefault(session, {})
        waiting[key] = _Place(request_id, arrival)
        self._waiting[session] = dict(sorted(waiting.items(), key=_arrival))  # 16 at most, and nearly always sorted
        self._sessions[key] = session
        return Waiting()

    def forget(self, key: K) -> None:
        """Drop a waiter that has gone; the others move up."""
        session = self._sessions.pop(key, None)
        if session is None:
            return
        del self._waiting[session][key]
        if not self._waiting[session]:
            del self._waiting[session]

    def release(self, lease: Lease, now: float) -> tuple[K, Lease] | None:
        """Take a lease back, which counts once; return who has the turn next, and that one's lease, None where nobody
        waits for it.
        """
        session = lease.session
        if self._running.get(session) is not lease:
            return None
        del self._running[session]
        if session not in self._waiting:
            return None
        key, place = next(iter(self._waiting[session].items()))
        self.forget(key)
        return key, self._grant(session, place.request_id, now)

    @property
    def busy(self) -> frozenset[str]:
        """The sessions with a turn in progress."""
        return frozenset(self._running)

    def snapshot(self) -> SessionStoreState:
        """Return the state, for readers and for the next incarnation."""
        return SessionStoreState(
            turns=len(self._running),
            waiting=len(self._sessions),
            granted=self._granted,
            rejected=self._rejected,
        )

    def _grant(self, session: str, request_id: str, now: float) -> Lease:
        lease = Lease(session, request_id, now)
        self._running[session] = lease
        self._granted += 1
        return lease
