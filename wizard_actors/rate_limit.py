"""The rate limiter: grants requests when they are due, in order, and learns from what providers say.

Nothing in it is particular to language models: `RateLimiter.factory` puts one under any supervisor, and
`wizard_actors.limiter_handle` asks it for leave in a `with` block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Final

import trio
from attrs import field, frozen
from attrs.validators import ge, optional

from wizard_actors.actor import Actor, Ask, Ledger, Notice, Reply, Return, Waiter, handles, takes_back
from wizard_actors.config import RateLimitConfig, RetryConfig
from wizard_actors.errors import RateLimitError
from wizard_actors.gcra import GcraCore, Grant, LimiterState
from wizard_actors.types import LimitHeaders
from wizard_actors.waiting import Rejected, Waiting

__all__ = ["Acquire", "HeadersSeen", "RateLimiter", "Settle"]


LONGEST_PAUSE: Final = 86_400.0
"""A day: whoever asks for more has a broken clock, and nothing would ever end the pause."""


@frozen
class Acquire(Ask[Grant]):
    """Ask for leave to send one request, and reserve `tokens` for it: an estimate of its input and output together.

    Fails with `RateLimitError` (source "limiter") as soon as it is clear that it would come later than `max_wait`
    seconds after `asked_at`, or than the instant `deadline`. What is due at once is not too late for any `max_wait`.
    A 429's pause of more than `longest_pause` seconds is not waited out: who waits when it comes fails at once.
    `model` is whom the error names, where several share the limiter; None: the limiter itself.
    """

    asked_at: float
    max_wait: float
    deadline: float = math.inf
    tokens: int = field(default=0, validator=ge(0))
    model: str | None = None
    longest_pause: float = math.inf


@frozen
class HeadersSeen(Notice[Grant]):
    """What the answer's headers say of limits."""

    limits: LimitHeaders


@frozen
class Settle(Return[Grant]):
    """The request is over. `sent` False: it costs nothing. `succeeded`: it was answered; `limited`: it was answered
    with a 429.

    `retry_after` is for how many seconds the 429 asked us to stay away, None where it did not say. `tokens` is what the
    request used, None where nobody knows: then a 429 is taken to have used none, and any other request, a cancelled one
    too, what was reserved for it.
    """

    sent: bool = True
    succeeded: bool = False
    limited: bool = False
    retry_after: float | None = None
    tokens: int | None = field(default=None, validator=optional(ge(0)))


class RateLimiter(Actor):
    """Requests and tokens a minute, for one model, for several that share an account, or for anything else that has a
    limit. After a crash its buckets are empty; a running pause, debts and the minute's tokens go on.

    `name` is what errors call it. `started` is the instant at which the incarnation begins.
    """

    def __init__(
        self, name: str, limits: RateLimitConfig, retry: RetryConfig, rng: Random, carry: object, started: float
    ) -> None:
        self._name = name
        self._limits = limits
        self._retry = retry
        self._rng = rng
        self._core: GcraCore[Waiter] = (
            GcraCore.restore(limits, carry, started) if isinstance(carry, LimiterState) else GcraCore(limits)
        )
        self._kept: dict[Waiter, tuple[Reply[Grant], str, float]] = {}
        self._limited_in_a_row = 0
        self._limited_at = -math.inf

    @classmethod
    def factory(
        cls, name: str, limits: RateLimitConfig, *, retry: RetryConfig | None = None, rng: Random | None = None
    ) -> Callable[[Ledger, object], RateLimiter]:
        """Return what a `ChildSpec` makes each incarnation with.

        `retry` (None: its defaults) holds the delays by which a refusal that names no time is answered, `rng` their
        jitter (None: from the system).
        """
        policy, random = retry or RetryConfig(), rng or Random()
        return lambda _ledger, carry: cls(name, limits, policy, random, carry, trio.current_time())

    def accepting(self) -> bool:
        """Whether there is room to wait in."""
        return not self._core.full

    @handles(Acquire)
    def acquire(self, message: Acquire, reply: Reply[Grant], now: float) -> None:
        """Grant the request, let it wait its turn, or refuse it at once where its turn would come too late."""
        give_up_at = min(message.deadline, max(now, message.asked_at + message.max_wait))
        model = self._name if message.model is None else message.model
        pause = self._core.paused_until - now
        if pause > message.longest_pause:
            reply.fail(self._too_late(model, Rejected(pause)))
            return
        match self._core.acquire(reply, now, give_up_at, message.tokens):
            case Grant() as grant:
                self._deliver(reply, grant, now)
            case Waiting():
                self._kept[reply] = (reply, model, message.longest_pause)
            case Rejected() as rejected:
                reply.fail(self._too_late(model, rejected))

    @takes_back(HeadersSeen)
    def headers_seen(self, grant: Grant, message: HeadersSeen, now: float) -> None:
        """Slow down before the first 429."""
        if self._limits.adaptive:
            self._core.observe(message.limits, now, grant)

    @takes_back(Settle)
    def settle(self, grant: Grant, message: Settle, now: float) -> None:
        """Account for a request that is over; a 429 pauses everybody, and halves a configured rate."""
        if not message.sent:
            self._core.refund(grant, now)
            return
        estimate = 0 if message.limited else grant.tokens
        self._core.settle(grant, estimate if message.tokens is None else message.tokens, now)
        if message.limited:
            self._core.pause(now + self._pause(message.retry_after, grant, now), now)
            if self._limits.adaptive:
                self._core.slow_down(grant.at, now)
            self._turn_out(now)
        elif message.succeeded:
            self._core.answered(now, grant)
            if grant.at > self._limited_at:
                self._limited_in_a_row = 0

    def forget(self, waiter: Waiter, now: float) -> None:
        """Let those behind a caller that has gone move up."""
        self._core.forget(waiter)
        del self._kept[waiter]

    def wake_at(self) -> float:
        """Return when the first in the queue is due, or gives up."""
        return self._core.wake_at()

    def tick(self, now: float) -> None:
        """Grant what is due."""
        ticked = self._core.tick(now)
        for waiter, grant in ticked.granted:
            self._deliver(self._kept.pop(waiter)[0], grant, now)
        for waiter in ticked.rejected:
            reply, model, _ = self._kept.pop(waiter)
            reply.fail(self._too_late(model, ticked.rejection))

    def snapshot(self) -> LimiterState:
        """Return the pause, the rates, and what has been granted."""
        return self._core.snapshot()

    def _turn_out(self, now: float) -> None:
        """Refuse those who would not wait out the pause that has just been asked for."""
        pause = self._core.paused_until - now
        for waiter, (reply, model, longest) in tuple(self._kept.items()):
            if pause > longest:
                self._core.forget(waiter)
                del self._kept[waiter]
                reply.fail(self._too_late(model, Rejected(pause)))

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

    def _too_late(self, model: str, rejected: Rejected) -> RateLimitError:
        wait = "an unknown time" if rejected.retry_after is None else f"{rejected.retry_after:.3g} s"
        return RateLimitError(
            f"{model} is at its rate limit: the call would wait {wait}, longer than it may",
            model=model,
            retry_after=rejected.retry_after,
            source="limiter",
        )
