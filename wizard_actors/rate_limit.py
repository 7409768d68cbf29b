"""The rate limiter of one model: grants requests when they are due, in order, and learns from what providers say."""

from __future__ import annotations

import math
from random import Random
from typing import Final

from attrs import frozen

from wizard_actors.actor import Actor, Ask, Notice, Reply, Return, Waiter, handles, takes_back
from wizard_actors.config import ModelConfig
from wizard_actors.errors import RateLimitError
from wizard_actors.gcra import GcraCore, Grant, LimiterState
from wizard_actors.types import LimitHeaders
from wizard_actors.waiting import Rejected, Waiting

__all__ = ["Acquire", "HeadersSeen", "RateLimiter", "Settle"]


LONGEST_PAUSE: Final = 86_400.0
"""A day: whoever asks for more has a broken clock, and nothing would ever end the pause."""


@frozen
class Acquire(Ask[Grant]):
    """Ask for leave to send one request.

    Fails with `RateLimitError` (source "limiter") as soon as it is clear that it would come later than `max_wait`
    seconds after `asked_at`, or than the instant `deadline`. What is due at once is not too late for any `max_wait`.
    """

    asked_at: float
    max_wait: float
    deadline: float = math.inf


@frozen
class HeadersSeen(Notice[Grant]):
    """What the answer's headers say of limits."""

    limits: LimitHeaders


@frozen
class Settle(Return[Grant]):
    """The request is over. `sent` False: it costs nothing. `succeeded`: it was
    answered; `limited`: it was answered with a 429.

    `retry_after` is for how many seconds the 429 asked us to stay away, None where it did not say.
    """

    sent: bool = True
    succeeded: bool = False
    limited: bool = False
    retry_after: float | None = None


class RateLimiter(Actor):
    """Requests a minute for one model. After a crash its bucket is empty, and a running pause goes on.

    `started` is the instant at which the incarnation begins.
    """

    def __init__(self, config: ModelConfig, rng: Random, carry: object, started: float) -> None:
        self._name = config.name
        self._limits = config.rate_limit
        self._retry = config.retry
        self._rng = rng
        self._core: GcraCore[Waiter] = (
            GcraCore.restore(self._limits, carry, started)
            if isinstance(carry, LimiterState)
            else GcraCore(self._limits)
        )
        self._replies: dict[Waiter, Reply[Grant]] = {}
        self._limited_in_a_row = 0
        self._limited_at = -math.inf

    def accepting(self) -> bool:
        """Whether there is room to wait in."""
        return not self._core.full

    @handles(Acquire)
    def acquire(self, message: Acquire, reply: Reply[Grant], now: float) -> None:
        """Grant the request, let it wait its turn, or refuse it at once where its turn would come too late."""
        give_up_at = min(message.deadline, max(now, message.asked_at + message.max_wait))
        match self._core.acquire(reply, now, give_up_at):
            case Grant() as grant:
                self._deliver(reply, grant, now)
            case Waiting():
                self._replies[reply] = reply
            case Rejected() as rejected:
                reply.fail(self._too_late(rejected))

    @takes_back(HeadersSeen)
    def headers_seen(self, grant: Grant, message: HeadersSeen, now: float) -> None:
        """Slow down before the first 429."""
        if self._limits.adaptive:
            self._core.observe(message.limits, now)

    @takes_back(Settle)
    def settle(self, grant: Grant, message: Settle, now: float) -> None:
        """Account for a request that is over; a 429 pauses everybody, and halves a configured rate."""
        if not message.sent:
            self._core.refund(grant, now)
        elif message.limited:
            self._core.pause(now + self._pause(message.retry_after, grant, now), now)
            if self._limits.adaptive:
                self._core.slow_down(grant.at, now)
        elif message.succeeded and grant.at > self._limited_at:
            self._limited_in_a_row = 0

    def forget(self, waiter: Waiter, now: float) -> None:
        """Let those behind a caller that has gone move up."""
        self._core.forget(waiter)
        del self._replies[waiter]

    def wake_at(self) -> float:
        """Return when the first in the queue is due, or gives up."""
        return self._core.wake_at()

    def tick(self, now: float) -> None:
        """Grant what is due."""
        ticked = self._core.tick(now)
        for waiter, grant in ticked.granted:
            self._deliver(self._replies.pop(waiter), grant, now)
        for waiter in ticked.rejected:
            self._replies.pop(waiter).fail(self._too_late(ticked.rejection))

    def snapshot(self) -> LimiterState:
        """Return the pause, the rate, and what has been granted."""
        return self._core.snapshot()

    def _pause(self, retry_after: float | None, grant: Grant, now: float) -> float:
        """Return for how many seconds to stay away: as told, else a growing time that not all clients share.

        Calls that were under way together and all met a 429 have met one, not one after the other.
        """
        if grant.at > self._limited_at:
            self._limited_in_a_row += 1
            self._limited_at = now
        if retry_after:  # a zero is no advice: the provider has just refused
            return min(retry_after, LONGEST_PAUSE)
        doublings = min(max(self._limited_in_a_row - 1, 0), 60)
        limit = min(self._retry.max_delay, self._retry.base_delay * 2.0**doublings)
        return self._rng.uniform(limit / 2, limit)  # never next to nothing: the provider has just refused

    def _deliver(self, reply: Reply[Grant], grant: Grant, now: float) -> None:
        if not reply.grant(grant):
            self._core.refund(grant, now)

    def _too_late(self, rejected: Rejected) -> RateLimitError:
        wait = "an unknown time" if rejected.retry_after is None else f"{rejected.retry_after:.3g} s"
        return RateLimitError(
            f"{self._name} is at its rate limit: the call would wait {wait}, longer than it may",
            model=self._name,
            retry_after=rejected.retry_after,
            source="limiter",
        )
