"""The core of a model's worker: its bulkhead of slots, who waits for one, and how the model fares."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import Final, Generic, Self, TypeVar

from attrs import evolve, frozen

from wizard_actors.estimate import TYPICAL_OUTPUT
from wizard_actors.verdict import Outcome
from wizard_actors.waiting import Rejected, Ticked, Waiting, WaitingRoom

__all__ = ["Health", "Slot", "SlotCore", "WorkerState"]

K = TypeVar("K", bound=Hashable)

FIRST_TOKENS_KEPT: Final = 16

OUTLIER: Final = 4

SILENT_FROM: Final = 10.0
"""Seconds without any first token from which a model can be called silent."""


@frozen(eq=False)
class Slot:
    """A place at a model, taken at the instant `since` by the request `request_id`. No two slots are equal: each is
    given back as itself.
    """

    request_id: str
    since: float


@frozen
class Health:
    """How a model fares: the instants at which it was last heard of, and how its calls ended.

    `first_token_at` is the last instant at which anybody got a first token from it, `first_tokens` how long the newest
    ones took, in seconds. Instants are minus infinity before the first time. `typical_output` is a moving mean of its
    answers' lengths in tokens, None before the first; see `said`. `asked_at` is when it was first asked after its last
    first token.
    """

    first_token_at: float = -math.inf
    first_tokens: tuple[float, ...] = ()
    success_at: float = -math.inf
    failure_at: float = -math.inf
    succeeded: int = 0
    failed: int = 0
    ignored: int = 0
    typical_output: int | None = None
    asked_at: float = -math.inf

    @property
    def slowest_first_token(self) -> float:
        """The longest of the newest waits for a first token, in seconds; 0.0 before the first."""
        return max(self.first_tokens, default=0.0)

    def silent_for(self, now: float) -> float:
        """Return for how many seconds nobody who asked has heard anything; 0.0 where nobody has asked since."""
        return now - self.asked_at if self.asked_at > self.first_token_at else 0.0

    def silent(self, now: float) -> bool:
        """Whether the model says nothing to anybody: for 10 s, and longer than any of the newest first tokens took."""
        return self.silent_for(now) > max(SILENT_FROM, self.slowest_first_token)

    def asked(self, now: float) -> Health:
        """Return the health once somebody asks."""
        return self if self.asked_at > self.first_token_at else evolve(self, asked_at=now)

    def heard(self, after: float, now: float) -> Health:
        """Return the health once a call got its first token, `after` seconds from its sending."""
        newest = (*self.first_tokens[1 - FIRST_TOKENS_KEPT :], after)
        return evolve(self, first_token_at=max(self.first_token_at, now), first_tokens=newest)

    def said(self, tokens: int) -> Health:
        """Return the health once a whole answer had so many tokens.

        A tenth of the mean is new with each answer. None counts for more than four times the mean, or 1,024 tokens
        where that is more: a single one that was absurdly long says little of those to come.
        """
        typical = TYPICAL_OUTPUT if self.typical_output is None else self.typical_output
        tokens = min(tokens, OUTLIER * max(typical, TYPICAL_OUTPUT))
        if self.typical_output is None:
            return evolve(self, typical_output=tokens)
        return evolve(self, typical_output=round(typical + (tokens - typical) / 10))

    def after(self, outcome: Outcome, now: float) -> Health:
        """Return the health once a call has ended so."""
        if outcome is Outcome.SUCCESS:
            return evolve(self, success_at=max(self.success_at, now), succeeded=self.succeeded + 1)
        if outcome is Outcome.FAILURE:
            return evolve(self, failure_at=max(self.failure_at, now), failed=self.failed + 1)
        return evolve(self, ignored=self.ignored + 1)


@frozen
class WorkerState:
    """What others see of a worker. `in_use` may be above `slots` for a while after the slots have become fewer."""

    slots: int
    in_use: int = 0
    waiting: int = 0
    granted: int = 0
    rejected: int = 0
    health: Health = Health()


class SlotCore(Generic[K]):
    """Up to `slots` calls at once, up to `queue` more in the waiting room, each with its own instant of giving up.

    A waiter is any hashable key; one who is forgotten costs nothing. Every method takes the present instant `now`.
    Slots are handed out in order of arrival by `tick`, at the instants that `wake_at` names.
    """

    def __init__(self, slots: int, queue: int) -> None:
        self._slots = slots
        self._in_use: dict[Slot, None] = {}
        self._room: WaitingRoom[K] = WaitingRoom(queue)
        self._request_ids: dict[K, str] = {}
        self._freed_at = math.inf
        self._granted = self._rejected = 0
        self._health = Health()

    @classmethod
    def restore(cls, slots: int, queue: int, live: Iterable[Slot], carry: WorkerState | None) -> Self:
        """Make the next incarnation after a crash. It adopts the `live` slots; where they are more than `slots`, nobody
        gets one until enough of them came back.
        """
        core = cls(slots, queue)
        core._in_use = dict.fromkeys(live)
        if carry is not None:
            core._granted, core._rejected, core._health = carry.granted, carry.rejected, carry.health
        return core

    def reconfigure(self, slots: int, now: float) -> None:
        """Have so many slots from now on. Who has one keeps it, and who waits keeps waiting: of more slots the next
        tick hands out the new ones; of fewer, nobody gets one until enough came back.
        """
        self._slots = slots
        if self._free and self._room:
            self._freed_at = min(self._freed_at, now)

    # -- slots

    def take(self, key: K, request_id: str, now: float, give_up_at: float) -> Slot | Waiting | Rejected:
        """Ask for a slot, at the instant `give_up_at` at the latest. Nobody overtakes who waits already."""
        if now <= give_up_at and self._free and not self._room:
            return self._grant(request_id, now)
        if now >= give_up_at or self._room.full:
            self._rejected += 1
            return Rejected()
        self._room.enter(key, give_up_at)
        self._request_ids[key] = request_id
        return Waiting()

    def forget(self, key: K) -> None:
        """Drop a waiter that has gone; the others move up."""
        if self._room.leave(key):
            del self._request_ids[key]

    def release(self, slot: Slot, now: float) -> None:
        """Take a slot back. Counts once."""
        if slot not in self._in_use:
            return
        del self._in_use[slot]
        if self._free and self._room:
            self._freed_at = min(self._freed_at, now)

    @property
    def full(self) -> bool:
        """Whether nobody else may wait."""
        return self._room.full

    @property
    def in_flight(self) -> tuple[Slot, ...]:
        """The slots in use, the longest first."""
        return tuple(self._in_use)

    # -- health

    def first_token(self, after: float, now: float) -> None:
        """Note that somebody got a first token, `after` seconds from the sending."""
        self._health = self._health.heard(after, now)

    def ended(self, outcome: Outcome, now: float, output_tokens: int | None = None) -> None:
        """Note how a call ended that was sent, and the length of its answer where that is whole and known."""
        self._health = self._health.after(outcome, now)
        if output_tokens is not None:
            self._health = self._health.said(output_tokens)

    # -- time

    def wake_at(self) -> float:
        """Return the next instant at which `tick` has something to do; infinite where nobody waits."""
        if not self._room:
            return math.inf
        return min(self._freed_at if self._free else math.inf, self._room.next_give_up())

    def tick(self, now: float) -> Ticked[K, Slot]:
        """Hand out what is due at `now`: free slots, and rejections to those who have given up."""
        granted: list[tuple[K, Slot]] = []
        rejected: list[K] = []
        while self._room and self._free:
            key, give_up_at = self._room.first()
            self._room.leave(key)
            if now > give_up_at:
                rejected.append(key)
            else:
                granted.append((key, self._grant(self._request_ids[key], now)))
            del self._request_ids[key]
        for key in self._room.turn_out(now):
            rejected.append(key)
            del self._request_ids[key]
        self._freed_at = math.inf
        self._rejected += len(rejected)
        return Ticked(tuple(granted), tuple(rejected), Rejected())

    def snapshot(self) -> WorkerState:
        """Return the state, for readers and for the next incarnation."""
        return WorkerState(
            slots=self._slots,
            in_use=len(self._in_use),
            waiting=len(self._room),
            granted=self._granted,
            rejected=self._rejected,
            health=self._health,
        )

    @property
    def _free(self) -> bool:
        return len(self._in_use) < self._slots

    def _grant(self, request_id: str, now: float) -> Slot:
        slot = Slot(request_id, now)
        self._in_use[slot] = None
        self._granted += 1
        self._health = self._health.asked(now)
        return slot
