"""The worker of one model: its bulkhead, the table of its calls in flight, and how it fares."""

from __future__ import annotations

import math

from attrs import frozen

from wizard_actors.actor import Actor, Ask, Ledger, Notice, Reply, Return, Waiter, handles, hears, takes_back
from wizard_actors.config import ModelConfig
from wizard_actors.errors import MailboxFullError
from wizard_actors.slots import Slot, SlotCore, WorkerState
from wizard_actors.verdict import Outcome
from wizard_actors.waiting import Rejected, Waiting

__all__ = ["FirstToken", "ModelWorker", "Reconfigure", "Release", "TakeSlot"]


@frozen
class TakeSlot(Ask[Slot]):
    """Ask for a place at the model until the instant `give_up_at`; fails with `MailboxFullError` after that.

    A place that is free is never too late.
    """

    request_id: str
    give_up_at: float = math.inf


@frozen
class FirstToken(Notice[Slot]):
    """The call got its first token, `after` seconds from its sending."""

    after: float


@frozen
class Release(Return[Slot]):
    """The call is over; `outcome` None: nothing was sent. `output_tokens`: the length of a whole answer, if known."""

    outcome: Outcome | None = None
    output_tokens: int | None = None


@frozen
class Reconfigure:
    """Told: `max_concurrency` slots from now on. Told, not asked: a worker whose waiting room is full takes no asks."""

    max_concurrency: int


class ModelWorker(Actor):
    """Grants up to `max_concurrency` slots. After a crash it adopts those that are live."""

    def __init__(self, config: ModelConfig, queue: int, ledger: Ledger, carry: object) -> None:
        live = [grant for grant in ledger if isinstance(grant, Slot)]
        state = carry if isinstance(carry, WorkerState) else None
        self._name = config.name
        self._core: SlotCore[Waiter] = SlotCore.restore(config.max_concurrency, queue, live, state)
        self._replies: dict[Waiter, Reply[Slot]] = {}

    def accepting(self) -> bool:
        """Whether there is room to wait in."""
        return not self._core.full

    @handles(TakeSlot)
    def take(self, message: TakeSlot, reply: Reply[Slot], now: float) -> None:
        """Grant a slot, or let the caller wait for one."""
        match self._core.take(reply, message.request_id, now, max(now, message.give_up_at)):
            case Slot() as slot:
                self._deliver(reply, slot, now)
            case Waiting():
                self._replies[reply] = reply
            case Rejected():
                reply.fail(self._full())

    @takes_back(FirstToken)
    def first_token(self, grant: Slot, message: FirstToken, now: float) -> None:
        """Note that somebody got a first token."""
        self._core.first_token(message.after, now)

    @takes_back(Release)
    def release(self, grant: Slot, message: Release, now: float) -> None:
        """Take the slot back; the next waiter gets it."""
        self._core.release(grant, now)
        if message.outcome is not None:
            self._core.ended(message.outcome, now, message.output_tokens)
        self.tick(now)

    @hears(Reconfigure)
    def reconfigure(self, message: Reconfigure, now: float) -> None:
        """Have more slots, or fewer; who waits gets what became free."""
        self._core.reconfigure(message.max_concurrency, now)
        self.tick(now)

    def forget(self, waiter: Waiter, now: float) -> None:
        """Free the place of a caller that has gone."""
        self._core.forget(waiter)
        del self._replies[waiter]

    def wake_at(self) -> float:
        """Return the instant at which the first waiter gives up."""
        return self._core.wake_at()

    def tick(self, now: float) -> None:
        """Grant free slots in order, and turn away who has waited too long."""
        ticked = self._core.tick(now)
        for waiter, slot in ticked.granted:
            self._deliver(self._replies.pop(waiter), slot, now)
        for waiter in ticked.rejected:
            self._replies.pop(waiter).fail(self._full())

    def snapshot(self) -> WorkerState:
        """Return how full the bulkhead is and how the model fares."""
        return self._core.snapshot()

    def _deliver(self, reply: Reply[Slot], slot: Slot, now: float) -> None:
        if not reply.grant(slot):
            self._core.release(slot, now)  # the caller has gone: the next one gets it, at the next tick

    def _full(self) -> MailboxFullError:
        return MailboxFullError(
            f"{self._name} is full: all its slots are in use and nobody made room in time", actor=self._name
        )
