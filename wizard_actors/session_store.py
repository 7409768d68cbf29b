"""The session store: grants the turns of sessions, one at a time for each of them."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from wizard_actors.actor import Actor, Ask, Ledger, Reply, Return, Waiter, handles, takes_back
from wizard_actors.errors import MailboxFullError
from wizard_actors.turn_queue import Full, Lease, SessionStoreState, TurnQueue
from wizard_actors.waiting import Waiting

__all__ = ["Begin", "Busy", "End", "Lease", "SessionStore", "SessionStoreState"]

NAME: Final = "sessions"


@frozen
class Begin(Ask[Lease]):
    """Ask for the turn of a session; answered once no other turn of it is in progress, in order of arrival.

    Fails with `MailboxFullError` at once where too many wait for that session, or there are too many turns in all. How
    long it may take is for the caller to say. `arrival` counts up from one caller to the next: who asks again after a
    crash has the place that it had.
    """

    session: str
    request_id: str
    arrival: int = 0


@frozen
class End(Return[Lease]):
    """The turn is over, whatever came of it."""


@frozen
class Busy(Ask[frozenset[str]]):
    """Ask for the sessions with a turn in progress."""


class SessionStore(Actor):
    """Grants turns as leases, `bound` in progress and waiting at most. After a crash it adopts those that are live.

    It keeps by session, and so never stops receiving: the turns of one session hold nobody else up. It stores nothing;
    that is for whoever holds the lease.
    """

    def __init__(self, bound: int, ledger: Ledger, carry: object) -> None:
        live = [grant for grant in ledger if isinstance(grant, Lease)]
        state = carry if isinstance(carry, SessionStoreState) else None
        self._queue: TurnQueue[Waiter] = TurnQueue.restore(bound, live, state)
        self._replies: dict[Waiter, Reply[Lease]] = {}

    @handles(Begin)
    def begin(self, message: Begin, reply: Reply[Lease], now: float) -> None:
        """Grant the turn, or let the caller wait for it."""
        match self._queue.take(message.session, reply, message.request_id, now, message.arrival):
            case Lease() as lease:
                self._deliver(reply, lease, now)
            case Waiting():
                self._replies[reply] = reply
            case Full() as full:
                reply.fail(_full(message.session, full))

    @takes_back(End)
    def end(self, grant: Lease, message: End, now: float) -> None:
        """Take the turn back; the next one who waits for it gets it."""
        self._pass_on(grant, now)

    @handles(Busy)
    def busy(self, message: Busy, reply: Reply[frozenset[str]], now: float) -> None:
        """Answer with the sessions with a turn in progress."""
        reply.send(self._queue.busy)

    def forget(self, waiter: Waiter, now: float) -> None:
        """Free the place of a caller that has gone."""
        self._queue.forget(waiter)
        del self._replies[waiter]

    def snapshot(self) -> SessionStoreState:
        """Return how many turns there are."""
        return self._queue.snapshot()

    def _deliver(self, reply: Reply[Lease], lease: Lease, now: float) -> None:
        if not reply.grant(lease):
            self._pass_on(lease, now)  # the caller has gone

    def _pass_on(self, lease: Lease, now: float) -> None:
        """Take a lease back, and give the turn to the first who is still there."""
        following = self._queue.release(lease, now)
        while following is not None:
            waiter, lease = following
            if self._replies.pop(waiter).grant(lease):
                return
            following = self._queue.release(lease, now)


def _full(session: str, full: Full) -> MailboxFullError:
    if full.of_session:
        reason = f"{full.bound} turns wait for session {session!r} already: let one end before you ask again"
    else:
        reason = f"{full.bound} turns of sessions are in progress or wait, as many as `sessions.max_sessions` allows"
    return MailboxFullError(reason, actor=NAME)
