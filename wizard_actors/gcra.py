"""The core of the rate limiter: one queue for requests a minute and tokens a minute together, and who is due when.

A request goes once it is due by both, and nobody overtakes: whoever wants many tokens waits at the head of the queue,
not for a moment at which nobody small is there. When anybody is due follows from stored instants alone (see
`wizard_actors.pace`), so a plan for the whole queue is made by letting time pass in a copy of the two meters. It is
made anew, once a tick, where something made the waiters later, and never where they only move up.

Tokens are reserved from an estimate and settled with what was used. What was too much comes back at once; what was too
little is a debt that those who come after wait for. Never more than the limit is granted in any minute, however the
reservations turn out: the `TokenWindow` counts, and the bucket beside it, which holds what ten seconds allow, spreads
them, so that nobody has to wait for whole minutes in a lump.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Hashable
from typing import Final, Generic, Self, TypeVar

from attrs import evolve, frozen

from wizard_actors.config import RateLimitConfig
from wizard_actors.meter import LimiterState, Meter, MeterState, Plan
from wizard_actors.pace import REQUESTS, TOKENS, Pace
from wizard_actors.token_window import MINUTE
from wizard_actors.types import LimitHeaders
from wizard_actors.waiting import Rejected, Ticked, Waiting, WaitingRoom

__all__ = ["GcraCore", "Grant", "LimiterState"]

K = TypeVar("K", bound=Hashable)

TOKEN_BURST: Final = 10.0
"""Seconds: what the configured tokens a minute allow in them may go at once."""

MOST_EXPECTED: Final = 1 / 4
"""Of a minute's tokens: as much is reserved at most for what is merely expected of an answer."""

LATE: Final = 0.05
"""Seconds; a tick that comes later than this makes the plan anew."""


@frozen(eq=False)
class Grant:
    """Leave to send one request, given at the instant `at` with `tokens` reserved. No two grants are equal: each is
    given back as itself.

    `requests_before` and `tokens_before` are the counts of all that had been granted when it was, with itself.
    """

    at: float
    tokens: int = 0
    requests_before: int = 0
    tokens_before: int = 0


class GcraCore(Generic[K]):
    """Requests and tokens a minute: grants in order of arrival, each as soon as it is due, or a rejection as soon as it
    is clear that it will come too late.

    A waiter is any hashable key. Whoever waits holds nothing: one who is forgotten costs nothing, and the others move
    up. Every method takes the present instant `now`; an instant before an earlier one is harmless. What becomes due, or
    has to be rejected, is handed out by `tick`; `wake_at` says when that is. `config.burst` None is what the configured
    rate allows in one second, at least 1. A request of more tokens than a minute allows is granted alone, in an empty
    minute: whether it is too large is the provider's to say.

    With `window`, the amounts of a minute are for so many seconds, and nothing spreads them: after such a time of rest
    all of them may go at once, unless `burst` says otherwise.
    """

    def __init__(
        self, config: RateLimitConfig, carry: LimiterState | None = None, *, window: float | None = None
    ) -> None:
        self._window = window
        requests, tokens = _first_states(config) if carry is None else (carry.requests, carry.tokens)
        self._requests = Meter(REQUESTS, _requests(config, requests, window))
        self._tokens = Meter(TOKENS, _tokens(config, tokens, window))
        self._most_expected = _most_expected(config)
        self._paused_until = self._slowed_at = self._taught_by = self._now = -math.inf
        self._room: WaitingRoom[K] = WaitingRoom(config.queue)
        self._amounts: dict[K, int] = {}
        self._plan: Plan | None = None  # of the whole queue; None: to be made when it is needed
        self._exact = False  # else waiters may have moved up since
        self._lateness = 0.0  # seconds by which ticks came late since
        self._replan_at = math.inf
        self._asked = 0  # tokens, by the one who was looked at last
        self._granted = self._throttled = self._rejected = self._refunded = 0
        self._reserved = self._granted_tokens = self._settled = 0

    @classmethod
    def restore(cls, config: RateLimitConfig, carry: LimiterState, now: float, *, window: float | None = None) -> Self:
        """Make the next incarnation after a crash: its buckets are empty; a running pause, a slow-down, debts and the
        minute's tokens go on.
        """
        core = cls(config, carry, window=window)
        core._paused_until, core._slowed_at = carry.paused_until, carry.slowed_at
        core._advance(now)
        core._requests.bucket.drain(now)
        core._tokens.bucket.drain(now)
        core._granted, core._throttled, core._rejected = carry.granted, carry.throttled, carry.rejected
        core._refunded, core._settled = carry.refunded, carry.tokens_settled
        core._reserved = core._granted_tokens = carry.tokens_reserved
        return core

    def reconfigure(self, config: RateLimitConfig, now: float) -> None:
        """Go by `config` from `now` on. Nobody who waits, and no pause, debt or grant, is lost; who waits is due sooner
        or later than before, and `tick` says at once who is too late for it. Where more wait than may now, all of them
        do, and nobody else until enough have left.
        """
        self._advance(now)
        for meter, given in (
            (self._requests, _requests(config, self._requests.state, self._window)),
            (self._tokens, _tokens(config, self._tokens.state, self._window)),
        ):
            meter.reconfigure(given, adaptive=config.adaptive, now=now, paused_until=self._paused_until)
        self._most_expected = _most_expected(config)
        self._room.resize(config.queue)
        self._delayed(now)

    # -- requests

    def acquire(
        self, key: K, now: float, give_up_at: float, tokens: int = 0, expected: int = 0
    ) -> Grant | Waiting | Rejected:
        """Ask for one request of `tokens` tokens, at the instant `give_up_at` at the latest. Nobody overtakes who waits
        already. `Waiting.due` may be too late where others have left meanwhile.

        Of the `expected` ones among them, which nobody has asked for, no more than a quarter of a minute is reserved.
        """
        tokens -= max(0, expected - self._most_expected)
        self._advance(now)
        if not self._room and now <= give_up_at and self._due(tokens) <= now:
            return self._grant(tokens, now)
        due = self._join(tokens, now, -math.inf if self._room.full else give_up_at)
        if due > give_up_at or self._room.full:
            self._rejected += 1
            return Rejected(due - now)
        if not self._room:
            self._tokens.hold(tokens, now)
        self._room.enter(key, give_up_at)
        self._amounts[key] = tokens
        self._throttled += 1
        return Waiting(due)

    def forget(self, key: K) -> None:
        """Drop a waiter that has gone; the others move up."""
        self._leave(key)
        self._exact = False

    def refund(self, grant: Grant, now: float) -> None:
        """Take back a grant whose request was never sent; to be called once a grant at most, and not `settle` then."""
        self._advance(now)
        self._refunded += 1
        self._reserved -= grant.tokens
        self._requests.bucket.give_back(grant.at, self._requests.base)
        self._tokens.refund(grant.tokens, grant.at)
        self._exact = False

    def settle(self, grant: Grant, tokens: int, now: float) -> None:
        """Account for a request that is over and used `tokens`; to be called once a grant at most."""
        self._advance(now)
        self._settled += tokens
        if tokens != grant.tokens:
            self._tokens.settle(grant.tokens, tokens, grant.at, now)
            self._exact = False
        if tokens > grant.tokens:
            self._delayed(now)

    @property
    def full(self) -> bool:
        """Whether nobody else may wait."""
        return self._room.full

    @property
    def paused_until(self) -> float:
        """The instant before which nothing is granted."""
        return self._paused_until

    # -- what providers say

    def pause(self, until: float, now: float) -> None:
        """Grant nothing before `until`. A shorter pause never ends a longer one, and nothing is saved up meanwhile."""
        if until <= self._paused_until:
            return
        self._advance(now)
        self._paused_until = until
        for meter in (self._requests, self._tokens):
            meter.postpone(until)
        self._delayed(now)

    def slow_down(self, granted_at: float, now: float) -> None:
        """Halve the configured rates after a 429 to a request that was granted at `granted_at`; where no limit is
        known, start slowly again.

        The answers to requests that were under way when the rates were halved say nothing about the new ones.
        """
        if granted_at <= self._slowed_at:
            return
        self._advance(now)
        self._slowed_at = now
        for meter in (self._requests, self._tokens):
            meter.slow_down(now, self._paused_until)
        self._delayed(now)

    def observe(self, limits: LimitHeaders, now: float, grant: Grant | None = None) -> None:
        """Learn from the headers of the answer to `grant`, before there is a 429. Never goes beyond a configured rate;
        absurd values are ignored, and so are answers to requests granted before the one that taught last.
        """
        if grant is None:
            grant = Grant(now, 0, self._granted, self._granted_tokens)
        if grant.at < self._taught_by:
            return
        self._advance(now)
        self._taught_by = grant.at
        later = False
        for meter, window, unseen in (
            (self._requests, limits.requests, self._granted - grant.requests_before),
            (self._tokens, limits.tokens, self._granted_tokens - grant.tokens_before),
        ):
            later |= meter.observe(window, max(unseen, 0), now, self._paused_until)
        self._exact = False
        if later:
            self._delayed(now)

    def answered(self, now: float, grant: Grant | None = None) -> None:
        """Note that a request was answered, which ends a slow start, whatever the headers said; one whose `grant` was
        given before the 429 that began it proves nothing.
        """
        starting = self._requests.pace.starting or self._tokens.pace.starting
        if not starting or (grant is not None and grant.at <= self._slowed_at):
            return
        self._advance(now)
        for meter in (self._requests, self._tokens):
            meter.answered(now, self._paused_until)
        self._exact = False

    # -- time

    def wake_at(self) -> float:
        """Return the next instant at which `tick` has something to do; infinite where nobody waits."""
        if not self._room:
            return math.inf
        due = self._due(self._amounts[self._room.first()[0]])
        changes_at = min(self._requests.pace.changes_at, self._tokens.pace.changes_at)
        return min(self._replan_at, due, changes_at, self._room.next_give_up())

    def tick(self, now: float) -> Ticked[K, Grant]:
        """Hand out what is due at `now`: grants, and rejections to those who would be too late."""
        self._advance(now)
        granted: list[tuple[K, Grant]] = []
        rejected = self._serve(now, granted)
        while self._replan_at < math.inf:  # whoever is too late may have stood before one who is due
            rejected += self._replan(now)
            rejected += self._serve(now, granted)
        self._rejected += len(rejected)
        wait = self._join(self._asked, now, -math.inf) - now if rejected else None
        return Ticked(tuple(granted), tuple(rejected), Rejected(wait))

    def _serve(self, now: float, granted: list[tuple[K, Grant]]) -> list[K]:
        """Grant what is due, in order; turn out who has given up, and return them."""
        rejected: list[K] = []
        while self._room:
            key, give_up_at = self._room.first()
            tokens = self._asked = self._amounts[key]
            due = self._due(tokens)
            if due <= now <= give_up_at:
                self._late(now - due, now)
                granted.append((key, self._grant(tokens, now)))
            elif give_up_at <= now:
                rejected.append(key)
            else:
                self._tokens.hold(tokens, now)
                break
            self._leave(key)
        for key in self._room.turn_out(now):
            rejected.append(key)
            del self._amounts[key]
        self._exact = self._exact and not rejected
        return rejected

    def snapshot(self) -> LimiterState:
        """Return the state, for readers and for the next incarnation."""
        return LimiterState(
            as_of=self._now,
            paused_until=self._paused_until,
            slowed_at=self._slowed_at,
            waiting=len(self._room),
            granted=self._granted,
            throttled=self._throttled,
            rejected=self._rejected,
            refunded=self._refunded,
            tokens_reserved=self._reserved,
            tokens_settled=self._settled,
            requests=self._requests.state,
            tokens=self._tokens.state,
        )

    # -- the plan

    def _due(self, tokens: int) -> float:
        """Return when the first in the queue may go at the present pace."""
        return max(self._paused_until, self._requests.due(1), self._tokens.due(tokens))

    def _grant(self, tokens: int, now: float) -> Grant:
        self._requests.take(1, now, self._paused_until)
        self._tokens.take(tokens, now, self._paused_until)
        self._granted += 1
        self._reserved += tokens
        self._granted_tokens += tokens
        return Grant(now, tokens, self._granted, self._granted_tokens)

    def _leave(self, key: K) -> None:
        if self._room.leave(key):
            del self._amounts[key]

    def _advance(self, now: float) -> None:
        """Make the changes of pace that have become due."""
        self._now = now
        self._requests.advance(now, self._paused_until)
        self._tokens.advance(now, self._paused_until)

    def _delayed(self, now: float) -> None:
        """Note that the waiters may be later than planned: the next tick finds out who is too late."""
        self._plan = None
        if self._room:
            self._replan_at = min(self._replan_at, now)

    def _late(self, seconds: float, now: float) -> None:
        """Note that a tick came late: all who wait are later by as much, at most."""
        self._lateness += seconds
        if seconds > LATE:
            self._delayed(now)

    def _join(self, tokens: int, now: float, give_up_at: float) -> float:
        """Return when a newcomer is due, and plan with it where that is in time.

        A plan of before others moved up is good enough for somebody who is in time by it.
        """
        plan = self._plan
        if plan is not None and self._room:
            due = plan.next(tokens, now, give_up_at - self._lateness)
            if due + self._lateness <= give_up_at or (self._exact and not self._lateness):
                return due
        plan = self._new_plan(now)
        for key, _ in self._room:
            plan.next(self._amounts[key], now)
        return plan.next(tokens, now, give_up_at)

    def _new_plan(self, now: float) -> Plan:
        self._plan = Plan(self._requests, self._tokens, self._paused_until, now)
        self._exact, self._lateness = True, 0.0
        return self._plan

    def _replan(self, now: float) -> list[K]:
        """Turn out whoever would be granted too late, and return them."""
        self._replan_at = math.inf
        plan = self._new_plan(now)
        late = [key for key, give_up_at in self._room if plan.next(self._amounts[key], now, give_up_at) > give_up_at]
        for key in late:
            self._leave(key)
        return late


def _whole(per_minute: float | None) -> int | None:
    return None if per_minute is None else max(1, int(per_minute))


def _requests(config: RateLimitConfig, state: MeterState, window: float | None) -> MeterState:
    """Return `state` with the limit of requests that `config` sets."""
    rate, seconds = config.requests_per_minute or 0.0, window or MINUTE
    at_once = config.burst or max(1, int(rate // 60 if window is None else rate))
    return evolve(state, base=seconds / rate if rate else 0.0, burst=at_once, window=seconds)


def _tokens(config: RateLimitConfig, state: MeterState, window: float | None) -> MeterState:
    """Return `state` with the limit of tokens that `config` sets."""
    cap, seconds = _whole(config.tokens_per_minute), window or MINUTE
    if cap is None:
        return evolve(state, base=0.0, burst=0.0, limit=None, window=seconds)
    if window is not None:  # the window alone is the bound: nothing spreads what is in it
        return evolve(state, base=0.0, burst=0.0, limit=cap, window=seconds)
    return evolve(state, base=seconds / cap, burst=cap / seconds * TOKEN_BURST, limit=cap, window=seconds)


def _most_expected(config: RateLimitConfig) -> int:
    cap = _whole(config.tokens_per_minute)
    return sys.maxsize if cap is None else math.ceil(cap * MOST_EXPECTED)


def _first_states(config: RateLimitConfig) -> tuple[MeterState, MeterState]:
    """Return the limits of requests and tokens to begin with: slow where answers may teach what nobody configured."""
    slow = config.adaptive
    return (
        MeterState(Pace.start(REQUESTS) if slow and config.requests_per_minute is None else Pace()),
        MeterState(Pace.start(TOKENS) if slow and config.tokens_per_minute is None else Pace()),
    )
